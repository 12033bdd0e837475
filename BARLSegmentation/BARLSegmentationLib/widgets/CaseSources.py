# SPDX-License-Identifier: Apache-2.0
"""Where the scans of a new case can come from: each source lays its rows in the form and says which files to add."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseIntake import (
    listSeries,
    segmentsWithoutLabel,
    writeLabelMap,
    writeSegmentation,
    writeVolumes,
)
from BARLSegmentationLib.logic.Prediction import objection
from BARLSegmentationLib.logic.SceneVolumes import nameOf, proposedNames

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from barl.errors import BarlError
    from barl.worker.messages import SeriesFacts, SeriesList

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

# With *.gz, for CTK takes the first ending of *.nii.gz only and would not accept such a file.
_FILTERS = ["(*.nii *.gz *.nrrd *.nhdr *.mha *.mhd *.mgz *.mgh *.gipl *.hdr *.img *.dcm)"]


@dataclass
class Scans:
    """What one case is made of.

    Attributes:
        channels: For each channel a path, or the paths of a DICOM series.
        label: Its outline.
        series: For each channel which volume of its DICOM folder is meant.
        staging: A folder with files that are no longer needed once the case is added.
        note: A sentence for the user.
        looked: A mask of what was looked at for the outline.
    """

    channels: list[Any]
    label: str | None = None
    series: list[str] | None = None
    staging: Path | None = None
    note: str = field(default="")
    looked: str | None = None


class Source:
    """Rows of the form for one case. A subclass lays them and gives what they choose.

    Args:
        session: What all panels share.
        worker: The process that reads DICOM files.
        addRow: Adds a row to the form: its text and its widget.

    Attributes:
        selectors: What chooses the scan of each channel.
        labelSelector: What chooses the outline; None if the source has none.
        onName: Called with a name to propose for the case.
    """

    def __init__(self, session: Session, worker: WorkerLink, addRow: Callable[[str, qt.QWidget], qt.QWidget]) -> None:
        self.session, self.worker, self.addRow = session, worker, addRow
        self.selectors: list = []
        self.labelSelector: Any = None
        self.onName: Callable[[str], None] = lambda name: None

    def lay(self) -> None:
        """Add the rows."""

    def proposeName(self, name: str) -> None:
        """Propose a name for the case; a neutral one instead of an empty one or one that may be a patient's."""
        taken = [case.name for case in self.session.ask(self.session.cases, otherwise=[])]
        self.onName(proposedNames([name], taken)[0])

    def check(self) -> None:
        """Refuse what can be known before the case has a name.

        Raises:
            barl.errors.InputError: A scan is missing.
        """

    def withoutLabel(self) -> list[str]:
        """Names of segments of the outline that are no label of the project, where others are."""
        return []

    def scans(self, leaveOut: Collection[str] = ()) -> Scans:
        """What is chosen, without segments of these names; volumes of the scene are written to files."""
        raise NotImplementedError

    def forgetOutline(self) -> None:
        """Choose no outline any more: it is that of a case which was added."""
        if self.labelSelector is not None:
            self.labelSelector.currentPath = ""


class SceneSource(Source):
    """Volumes of the scene, and a segmentation or a label map of them."""

    def lay(self) -> None:
        for channel in self.session.project.channels:
            tip = _("Volume of the channel {name}").format(name=channel.name)
            self.selectors.append(self.addRow(f"{channel.name}:", nodeWidget(tip, "vtkMRMLScalarVolumeNode")))
        tip = _("Its outline, if there is one; matched to labels by name; a label map without names by value")
        outline = nodeWidget(tip, "vtkMRMLSegmentationNode", "vtkMRMLLabelMapVolumeNode")
        self.labelSelector = self.addRow(_("Outline:"), outline)
        self.selectors[0].connect("currentNodeChanged(vtkMRMLNode*)", self._onVolume)

    def _onVolume(self, *_arguments: object) -> None:
        node = self.selectors[0].currentNode()
        if node is not None:
            self.proposeName(nameOf(node))

    def check(self) -> None:
        from barl.errors import InputError

        if problem := objection([selector.currentNode() for selector in self.selectors]):
            raise InputError(problem)

    def withoutLabel(self) -> list[str]:
        outline = self.labelSelector.currentNode()
        if outline is None or outline.IsA("vtkMRMLLabelMapVolumeNode"):
            return []
        return segmentsWithoutLabel(outline, self.session.project.labels)

    def scans(self, leaveOut: Collection[str] = ()) -> Scans:
        project = self.session.project
        staging = newStaging()
        volumes = [selector.currentNode() for selector in self.selectors]
        try:
            paths = writeVolumes(volumes, project.channels, staging)
            outline, label, note = self.labelSelector.currentNode(), None, ""
            if outline is not None and outline.IsA("vtkMRMLLabelMapVolumeNode"):
                label, note = writeLabelMap(outline, staging, project.labels)
            elif outline is not None:
                label, note = writeSegmentation(outline, volumes, paths[0], project.labels, leaveOut=leaveOut)
        except BaseException:
            removeStaging(staging)
            raise
        return Scans([str(path) for path in paths], str(label) if label else None, staging=staging, note=note)

    def forgetOutline(self) -> None:
        self.labelSelector.setCurrentNode(None)


class FilesSource(Source):
    """A file for each channel, and a label map."""

    def lay(self) -> None:
        for channel in self.session.project.channels:
            tip = _("File of the channel {name}").format(name=channel.name)
            self.selectors.append(self.addRow(f"{channel.name}:", pathWidget(tip)))
        self.labelSelector = self.addRow(_("Outline:"), pathWidget(_("Its outline as a label map, if there is one")))
        tip = _("Mask of the voxels that were looked at for the outline (not 0); empty: the whole scan")
        self.lookedSelector = self.addRow(_("Looked at:"), pathWidget(tip))
        self.selectors[0].connect("currentPathChanged(QString)", self._onPath)

    def _onPath(self, *_arguments: object) -> None:
        from barl.project.scans import stem

        path = Path(self.selectors[0].currentPath)
        if path.is_file():
            self.proposeName(stem(path))

    def check(self) -> None:
        from barl.errors import InputError

        paths = [selector.currentPath for selector in self.selectors]
        for channel, path in zip(self.session.project.channels, paths, strict=True):
            if not path:
                raise InputError(
                    _("There is no file for the channel {name}.").format(name=channel.name), _("Choose one.")
                )
        if self.lookedSelector.currentPath and not self.labelSelector.currentPath:
            raise InputError(
                _("A mask of what was looked at belongs to an outline."), _("Choose the outline, or no mask.")
            )
        for path in filter(None, [*paths, self.labelSelector.currentPath, self.lookedSelector.currentPath]):
            if not Path(path).exists():
                raise InputError(
                    _("There is no file {name}.").format(name=Path(path).name), _("Choose it with the ... button.")
                )

    def scans(self, leaveOut: Collection[str] = ()) -> Scans:
        label, looked = (one.currentPath or None for one in (self.labelSelector, self.lookedSelector))
        return Scans([selector.currentPath for selector in self.selectors], label, looked=looked)

    def forgetOutline(self) -> None:
        super().forgetOutline()
        self.lookedSelector.currentPath = ""


class DatabaseSource(Source):
    """Series of Slicer's DICOM database; of a series with several volumes, one of these.

    Attributes:
        volumes: What chooses the volume of each channel's series.
    """

    def lay(self) -> None:
        from barl.errors import BarlError

        try:
            series, reason = listSeries(getattr(slicer, "dicomDatabase", None)), ""
        except BarlError as error:  # no line of status: this source may only have been passed over
            series, reason = [], str(error)
        self.volumes: list[VolumeChoice] = []
        for number, channel in enumerate(self.session.project.channels):
            tip = _("Series of the channel {name}; nothing of what is shown here is stored").format(name=channel.name)
            combo = comboWidget(tip, [(title, uid) for uid, title in series])
            combo.enabled = bool(series)
            self.selectors.append(self.addRow(f"{channel.name}:", combo))
            choice = VolumeChoice(_("Volume of the series: echo, time point or the like"))
            self.addRow("", choice.combo)
            self.volumes.append(choice)
            combo.connect("currentIndexChanged(int)", lambda _index, n=number: self._list(n))
            if series:
                self._list(number)
        if series:
            self.proposeName("")
        else:
            self.reasonLabel = self.addRow("", qt.QLabel(reason))
            self.reasonLabel.wordWrap = True
            self.reasonLabel.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)

    def _list(self, number: int) -> None:
        """Ask the worker which volumes the chosen series holds."""
        from barl.worker.messages import ListSeries

        self.volumes[number].show([])
        if files := self._files(number):
            self.worker.request(ListSeries(files=files), onResult=lambda answer: self._onListed(number, files, answer))

    def _onListed(self, number: int, files: list[str], answer: SeriesList) -> None:
        if number < len(self.volumes) and files == self._files(number):  # the user may have chosen another one since
            self.volumes[number].show(answer.series)

    def _files(self, number: int) -> list[str]:
        selector = self.selectors[number]
        uid = selector.itemData(selector.currentIndex) if selector.currentIndex >= 0 else None
        return list(slicer.dicomDatabase.filesForSeries(uid)) if uid else []

    def check(self) -> None:
        from barl.errors import InputError

        listSeries(getattr(slicer, "dicomDatabase", None))  # says why there is nothing to choose
        if not all(self._files(number) for number in range(len(self.selectors))):
            raise InputError(
                _("No DICOM series is chosen, or its files are gone."),
                _("Choose one, or import the series again in the DICOM module."),
            )

    def scans(self, leaveOut: Collection[str] = ()) -> Scans:
        series = [choice.chosen() for choice in self.volumes]
        return Scans([self._files(n) for n in range(len(self.selectors))], series=series if any(series) else None)


class DicomFolderSource(Source):
    """A folder with DICOM files; a volume of it for each channel, listed by the worker."""

    def lay(self) -> None:
        tip = _("Folder with the DICOM files of one case; the folders in it are looked through as well")
        self.folder = self.addRow(_("Folder:"), pathWidget(tip, folder=True))
        self.folder.connect("currentPathChanged(QString)", self._list)
        self._listed = ""
        self._choices = []
        for channel in self.session.project.channels:
            tip = _("Series of the channel {name}; nothing of what is shown here is stored").format(name=channel.name)
            choice = VolumeChoice(tip, alone=True)
            self._choices.append(choice)
            self.selectors.append(self.addRow(f"{channel.name}:", choice.combo))
        self.labelSelector = self.addRow(
            _("Outline:"),
            pathWidget(_("Its outline, if there is one: a label map, a DICOM segmentation or structure set")),
        )

    def _list(self, *_arguments: object) -> None:
        from barl.worker.messages import ListSeries

        path = self.folder.currentPath
        if not Path(path).is_dir() or path == self._listed:
            return
        self._listed = path
        for choice in self._choices:
            choice.show([])
        self.session.status(_("Reading the DICOM files of the folder..."))
        self.worker.request(
            ListSeries(folder=path),
            onResult=lambda answer: self._onListed(path, answer),
            onError=self._onNotListed,
        )

    def _onListed(self, path: str, answer: SeriesList) -> None:
        if path != self._listed:
            return
        for position, choice in enumerate(self._choices):
            choice.show(answer.series, position)
        count = len(answer.series)
        if count:
            self.proposeName("")
            text = _("The folder holds one volume.") if count == 1 else _("The folder holds {n} volumes: choose.")
            self.session.status(text.format(n=count))
        else:
            self.session.status(
                _("The folder holds no DICOM volume. Choose the folder with the files of a scan."), True
            )

    def _onNotListed(self, error: BarlError) -> None:
        self._listed = ""
        self.session.status(str(error), True)

    def check(self) -> None:
        from barl.errors import InputError

        if not self.folder.currentPath:
            raise InputError(_("No folder is chosen."), _("Choose the folder with the DICOM files."))
        if not all(choice.chosen() for choice in self._choices):
            raise InputError(
                _("There is no series for each channel."), _("Wait until they are listed, or choose another folder.")
            )

    def scans(self, leaveOut: Collection[str] = ()) -> Scans:
        series = [choice.chosen() for choice in self._choices]
        label = self.labelSelector.currentPath or None
        return Scans([self.folder.currentPath] * len(series), label, series=series)


class VolumeChoice:
    """A list of the volumes among DICOM files.

    Args:
        tip: Its tooltip.
        alone: It is always visible; else only if there is something to choose.

    Attributes:
        combo: Its QComboBox.
    """

    def __init__(self, tip: str, alone: bool = False) -> None:
        self.combo = comboWidget(tip, [])
        self._alone = alone
        self.combo.visible = alone

    def show(self, series: list[SeriesFacts], position: int = 0) -> None:
        """Show the volumes; the one at ``position`` is chosen first."""
        self.combo.clear()
        for item in series:
            size = " x ".join(map(str, item.size))
            words = ", ".join(filter(None, [item.modality, size, item.description]))
            self.combo.addItem(f"{item.series}: {words}", str(item.series))
            self.combo.setItemData(self.combo.count - 1, self.combo.itemText(self.combo.count - 1), qt.Qt.ToolTipRole)
        self.combo.setCurrentIndex(min(position, len(series) - 1))
        self.combo.visible = self._alone or len(series) > 1

    def chosen(self) -> str | None:
        index = self.combo.currentIndex
        return self.combo.itemData(index) if index >= 0 and (self._alone or self.combo.count > 1) else None


def newStaging() -> Path:
    """A new folder for volumes of the scene on their way to the worker."""
    return Path(tempfile.mkdtemp(prefix="barl-scene-", dir=slicer.app.temporaryPath))


def removeStaging(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def nodeWidget(tip: str, *nodeTypes: str) -> slicer.qMRMLNodeComboBox:
    """A selector of nodes of the scene, with none at first."""
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = list(nodeTypes)
    combo.showChildNodeTypes = False
    combo.addEnabled = combo.removeEnabled = False
    combo.noneEnabled = True
    combo.setMRMLScene(slicer.mrmlScene)
    combo.toolTip = tip
    return combo


def pathWidget(tip: str, folder: bool = False) -> ctk.ctkPathLineEdit:
    """A selector of a file or a folder."""
    path = ctk.ctkPathLineEdit()
    if folder:
        path.filters = ctk.ctkPathLineEdit.Dirs | ctk.ctkPathLineEdit.Drives
    else:
        path.filters = ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Readable
        path.nameFilters = _FILTERS
    path.toolTip = tip
    return path


def comboWidget(tip: str, entries: Sequence[tuple[str, str | None]]) -> qt.QComboBox:
    """A list of texts, each with what it stands for; its width does not follow its texts."""
    combo = qt.QComboBox()
    combo.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
    combo.minimumContentsLength = 16
    combo.toolTip = tip
    for text, value in entries:
        combo.addItem(text, value)
    return combo
