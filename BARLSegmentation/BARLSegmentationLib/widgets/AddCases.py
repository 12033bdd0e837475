# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseIntake import listSeries, writeLabelMap, writeSegmentation, writeVolumes
from BARLSegmentationLib.logic.Prediction import objection
from BARLSegmentationLib.logic.Words import caseCountText, readOnlyReason
from BARLSegmentationLib.widgets.Panel import allow

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.worker.messages import AddedCases, CaseFiles, Event

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

SCENE, FILES, FOLDER, DICOM = range(4)
FIRST_ROW = 1  # of the form: below the source
_FILTERS = ["(*.nii.gz *.nii *.nrrd *.nhdr *.mha *.mhd)"]


class AddCases:
    """The form by which scans come into the project. The worker copies them, so that the window stays alive.

    Args:
        session: What all panels share.
        worker: The process that copies.
        box: Holds the widgets of the form.

    Attributes:
        selectors: What chooses the scan of each channel; they change with source and project.
        labelSelector: What chooses the outline; None if the source has none.
    """

    def __init__(self, session: Session, worker: WorkerLink, box: qt.QWidget) -> None:
        self.session, self.worker = session, worker
        self.box, self.ui = box, slicer.util.childWidgetVariables(box)
        self._request = None
        self._staging: Path | None = None
        self._note = ""
        self._rowCount = 0
        self.selectors: list = []
        self.labelSelector = None

    def setup(self) -> None:
        ui = self.ui
        for text in (_("Volumes of the scene"), _("Files"), _("Folder with many cases"), _("DICOM database")):
            ui.sourceComboBox.addItem(text)
        ui.sourceComboBox.connect("currentIndexChanged(int)", self.onSource)
        ui.addButton.connect("clicked(bool)", self.onAdd)
        ui.cancelAddButton.connect("clicked(bool)", self.onCancel)
        ui.addProgressBar.visible = False
        self.onSource()

    @property
    def isIdle(self) -> bool:
        """No cases are being added."""
        return self._request is None

    def cleanup(self) -> None:
        self._removeStaging()

    def onSource(self, _index: int = 0) -> None:
        """Lay the rows of the chosen source anew: which there are depends on the project's channels."""
        for _row in range(self._rowCount):
            self.box.layout().removeRow(FIRST_ROW)
        self._rowCount, self.selectors, self.labelSelector = 0, [], None
        project, source = self.session.project, self.ui.sourceComboBox.currentIndex
        if project is not None and source == FOLDER:
            scans = self._pathWidget(_("Folder with the scans of many cases"), folder=True)
            self.selectors = [self._addRow(_("Scans:"), scans)]
            outlines = self._pathWidget(_("Folder with outlines, each named as its scan"), folder=True)
            self.labelSelector = self._addRow(_("Outlines:"), outlines)
        elif project is not None:
            series = self._series() if source == DICOM else []
            for channel in project.channels:
                selector = self._selector(source, channel.name, series)
                self.selectors.append(self._addRow(f"{channel.name}:", selector))
            if source == SCENE:
                tip = _("Its outline, if there is one; segments are matched to labels by name, label maps by value")
                outline = self._nodeWidget(tip, "vtkMRMLSegmentationNode", "vtkMRMLLabelMapVolumeNode")
                self.labelSelector = self._addRow(_("Outline:"), outline)
            elif source == FILES:
                outline = self._pathWidget(_("Its outline as a label map, if there is one"))
                self.labelSelector = self._addRow(_("Outline:"), outline)
        self.ui.nameLineEdit.enabled = source != FOLDER
        self.ui.nameLineEdit.placeholderText = _("as the files") if source == FOLDER else _("no patient name")
        self.update()

    def update(self) -> None:
        project, running = self.session.project, self._request is not None
        reason = _("Open a project first") if project is None else readOnlyReason(project)
        if running and not reason:
            reason = _("Wait until the other cases are added, or cancel")
        ui = self.ui
        allow(ui.addButton, _("Copy the scans into the project"), reason)
        nothing = "" if running else _("Nothing is being added")
        allow(ui.cancelAddButton, _("Stop adding; what was added before stays"), nothing)
        ui.addProgressBar.visible = running

    # Rows

    def _addRow(self, text: str, widget: qt.QWidget) -> qt.QWidget:
        self.box.layout().insertRow(FIRST_ROW + self._rowCount, text, widget)
        self._rowCount += 1
        return widget

    def _selector(self, source: int, name: str, series: list[tuple[str, str]]) -> qt.QWidget:
        if source == SCENE:
            return self._nodeWidget(_("Volume of the channel {name}").format(name=name), "vtkMRMLScalarVolumeNode")
        if source == FILES:
            return self._pathWidget(_("File of the channel {name}").format(name=name))
        combo = qt.QComboBox()
        combo.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
        combo.minimumContentsLength = 16
        combo.toolTip = _("Series of the channel {name}; nothing of what is shown here is stored").format(name=name)
        for uid, title in series:
            combo.addItem(title, uid)
        return combo

    def _series(self) -> list[tuple[str, str]]:
        return self.session.ask(listSeries, getattr(slicer, "dicomDatabase", None), otherwise=[])

    @staticmethod
    def _nodeWidget(tip: str, *nodeTypes: str) -> slicer.qMRMLNodeComboBox:
        combo = slicer.qMRMLNodeComboBox()
        combo.nodeTypes = list(nodeTypes)
        combo.showChildNodeTypes = False
        combo.addEnabled = combo.removeEnabled = False
        combo.noneEnabled = True
        combo.setMRMLScene(slicer.mrmlScene)
        combo.toolTip = tip
        return combo

    @staticmethod
    def _pathWidget(tip: str, folder: bool = False) -> ctk.ctkPathLineEdit:
        path = ctk.ctkPathLineEdit()
        if folder:
            path.filters = ctk.ctkPathLineEdit.Dirs | ctk.ctkPathLineEdit.Drives
        else:
            path.filters = ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Readable
            path.nameFilters = _FILTERS
        path.toolTip = tip
        return path

    # Adding

    def onAdd(self) -> None:
        from barl.worker import messages

        self._note = ""
        with slicer.util.WaitCursor():
            cases = self.session.ask(self._cases, otherwise=[])
        if not cases:
            self._removeStaging()
            return
        self.ui.addProgressBar.value = 0
        self._request = self.worker.request(
            messages.AddCases(str(self.session.project.folder), cases),
            onEvent=self._onEvent,
            onResult=self._onResult,
            onError=self._onError,
        )
        self.session.status(_("Adding {cases}...").format(cases=caseCountText(len(cases))))
        self.update()

    def onCancel(self) -> None:
        self.worker.cancel(self._request)

    def _cases(self) -> list[CaseFiles]:
        """What to ask the worker for; raises what can be known beforehand."""
        from barl.errors import InputError
        from barl.project.scans import find_cases
        from barl.worker.messages import CaseFiles

        project, source = self.session.project, self.ui.sourceComboBox.currentIndex
        common = {"held_out": self.ui.addHeldOutCheckBox.checked, "group": self.ui.subjectLineEdit.text.strip()}
        if source == FOLDER:
            images, outlines = self.selectors[0].currentPath, self.labelSelector.currentPath
            if not images:
                raise InputError(_("No folder is chosen."), _("Choose the folder with the scans."))
            found = find_cases(Path(images), project.channels, Path(outlines) if outlines else None)
            return [
                CaseFiles(
                    case.name,
                    [str(path) for path in case.channels],
                    str(case.label) if case.label else None,
                    **common,
                )
                for case in found.cases
            ]
        # First the scan: without one there is nothing to name.
        if source == FILES:
            channels, label = self._fromFiles()
        elif source == DICOM:
            channels, label = self._fromDatabase()
        elif problem := objection([selector.currentNode() for selector in self.selectors]):
            raise InputError(problem)
        name = self._checkedName()
        if source == SCENE:
            channels, label = self._fromScene()  # last: it writes files
        return [CaseFiles(name, channels, label, **common)]

    def _checkedName(self) -> str:
        from barl.errors import InputError

        name = self.ui.nameLineEdit.text.strip()
        if not name:
            raise InputError(_("The case has no name."), _("Type one; use no patient name."))
        if name.casefold() in {case.name.casefold() for case in self.session.project.cases.all()}:
            raise InputError(
                _("The project has a case named {name!r} already.").format(name=name), _("Give the case another name.")
            )
        return name

    def _fromScene(self) -> tuple[list[str], str | None]:
        project = self.session.project
        self._removeStaging()
        self._staging = Path(tempfile.mkdtemp(prefix="barl-", dir=slicer.app.temporaryPath))
        volumes = [selector.currentNode() for selector in self.selectors]
        paths = writeVolumes(volumes, project.channels, self._staging)
        outline, label = self.labelSelector.currentNode(), None
        if outline is not None and outline.IsA("vtkMRMLLabelMapVolumeNode"):
            label = writeLabelMap(outline, self._staging)
        elif outline is not None:
            label, overlap = writeSegmentation(outline, volumes[0], paths[0], project.labels)
            if overlap:
                self._note = _("{count} voxels outlined twice went to the later label.").format(count=overlap)
        return [str(path) for path in paths], str(label) if label else None

    def _fromFiles(self) -> tuple[list[str], str | None]:
        from barl.errors import InputError

        paths = [selector.currentPath for selector in self.selectors]
        for channel, path in zip(self.session.project.channels, paths, strict=True):
            if not path:
                raise InputError(
                    _("There is no file for the channel {name}.").format(name=channel.name), _("Choose one.")
                )
        label = self.labelSelector.currentPath or None
        for path in filter(None, [*paths, label]):
            if not Path(path).exists():
                raise InputError(
                    _("There is no file {name}.").format(name=Path(path).name), _("Choose it with the ... button.")
                )
        return paths, label

    def _fromDatabase(self) -> tuple[list[list[str]], None]:
        from barl.errors import InputError

        chosen = []
        for selector in self.selectors:
            uid = selector.itemData(selector.currentIndex) if selector.currentIndex >= 0 else None
            files = list(slicer.dicomDatabase.filesForSeries(uid)) if uid else []
            if not files:
                raise InputError(
                    _("No DICOM series is chosen, or its files are gone."),
                    _("Choose one, or import the series again in the DICOM module."),
                )
            chosen.append(files)
        return chosen, None

    def _onEvent(self, event: Event) -> None:
        if event.event == "progress":
            self.ui.addProgressBar.value = int(1000 * (event.fraction or 0.0))
            self.session.status(_("Adding {name}...").format(name=event.message))

    def _onResult(self, answer: AddedCases) -> None:
        added, failed = answer.cases, answer.failed
        names = added[0].name if len(added) == 1 else caseCountText(len(added))
        outlined = sum(case.state == "accepted" for case in added)
        text = [_("Added {names}, {outlined} with an outline.").format(names=names, outlined=outlined)] if added else []
        text += [f"{failure.name}: {failure.message} {failure.remedy}" for failure in failed[:3]]
        text += dict.fromkeys(note for case in added for note in case.notes)
        if len(failed) > 3:
            text.append(_("{count} more could not be added.").format(count=len(failed) - 3))
        self._end()
        if added:
            self.ui.nameLineEdit.text = ""
            self.box.collapsed = True  # the list shows them
        self.session.notifyCases()
        self.session.status(" ".join([*text, self._note]).strip(), bool(failed))

    def _onError(self, error: BarlError) -> None:
        self._end()
        self.session.notifyCases()  # those before may be in
        self.session.status(str(error), True)

    def _end(self) -> None:
        self._request = None
        self._removeStaging()
        self.update()

    def _removeStaging(self) -> None:
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None
