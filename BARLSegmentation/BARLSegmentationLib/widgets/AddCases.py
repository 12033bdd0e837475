# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Question import Question
from BARLSegmentationLib.logic.Words import readOnlyReason
from BARLSegmentationLib.widgets.CaseAdder import MOST_NAMED, CaseAdder
from BARLSegmentationLib.widgets.CaseSources import (
    DatabaseSource,
    DicomFolderSource,
    FilesSource,
    Scans,
    SceneSource,
    Source,
)
from BARLSegmentationLib.widgets.DatasetSource import DatasetSource
from BARLSegmentationLib.widgets.FolderSource import FolderSource
from BARLSegmentationLib.widgets.Panel import allow

if TYPE_CHECKING:
    from collections.abc import Collection

    from barl.worker.messages import AddedCases

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

# The sources in the order of the list.
SCENE, FILES, FOLDER, DICOM, DICOM_FOLDER, DATASET = range(6)
SOURCES = {SCENE: SceneSource, FILES: FilesSource, DICOM: DatabaseSource, DICOM_FOLDER: DicomFolderSource}
FIRST_ROW = 1  # of the form: below the source


class AddCases:
    """The form by which scans come into the project. The worker copies them, so that the window stays alive.

    Args:
        session: What all panels share.
        worker: The process that copies.
        box: Holds the widgets of the form.

    Attributes:
        adder: Has the worker copy them.
        source: The rows of the chosen source; None without a project.
    """

    def __init__(self, session: Session, worker: WorkerLink, box: qt.QWidget) -> None:
        self.session, self.worker = session, worker
        self.box, self.ui = box, slicer.util.childWidgetVariables(box)
        self.adder = CaseAdder(session, worker)
        self.source: Source | FolderSource | None = None
        self._rowCount = 0
        self._proposed = ""  # name of the case that the user has not typed

    def setup(self) -> None:
        ui = self.ui
        for text in (
            _("Volumes of the scene"),
            _("Files"),
            _("Folder with many cases"),
            _("DICOM database"),
            _("DICOM folder"),
            _("Data set (nnU-Net, Decathlon, BIDS)"),
        ):
            ui.sourceComboBox.addItem(text)
        ui.sourceComboBox.connect("currentIndexChanged(int)", self.onSource)
        ui.addButton.connect("clicked(bool)", self.onAdd)
        ui.cancelAddButton.connect("clicked(bool)", self.onCancel)
        ui.addProgressBar.visible = False
        self.adder.changed.connect(self.update)
        self.adder.ended.connect(self._onEnded)
        self.onSource()

    @property
    def isIdle(self) -> bool:
        """No cases are being added."""
        return self.adder.isIdle

    @property
    def selectors(self) -> list:
        """What chooses the scan of each channel, or the folder of the scans."""
        return self.source.selectors if self.source is not None else []

    @property
    def labelSelector(self) -> Any:
        """What chooses the outline, or the folder of the outlines; None if the source has none."""
        return self.source.labelSelector if self.source is not None else None

    def cleanup(self) -> None:
        self.adder.removeStaging()

    def onSource(self, _index: int = 0) -> None:
        """Lay the rows of the chosen source anew: which there are depends on the project's channels."""
        if isinstance(self.source, FolderSource):
            self.source.forget()
        for _row in range(self._rowCount):
            self.box.layout().removeRow(FIRST_ROW)
        self._rowCount, self.source = 0, None
        chosen = self.ui.sourceComboBox.currentIndex
        isFolder = chosen in (FOLDER, DATASET)
        if self.session.project is not None:
            if chosen == FOLDER:
                self.source = FolderSource(self.session, self.worker, self._addRow)
            elif chosen == DATASET:
                self.source = DatasetSource(self.session, self.worker, self._addRow)
            else:
                self.source = SOURCES[chosen](self.session, self.worker, self._addRow)
                self.source.onName = self.proposeName
            self.source.lay()
        ui = self.ui
        for widget in (ui.nameLabel, ui.nameLineEdit, ui.subjectLabel, ui.subjectLineEdit):
            widget.visible = not isFolder  # of one case only
        self.update()

    def proposeName(self, name: str) -> None:
        """Fill in a name for the case, unless the user has typed one."""
        if self.ui.nameLineEdit.text.strip() in ("", self._proposed):
            self.ui.nameLineEdit.text = self._proposed = name

    def update(self) -> None:
        project, running = self.session.project, not self.isIdle
        reason = _("Open a project first") if project is None else readOnlyReason(project)
        if running and not reason:
            reason = _("Wait until the other cases are added, or cancel")
        ui = self.ui
        allow(ui.addButton, _("Copy the scans into the project"), reason)
        nothing = "" if running else _("Nothing is being added")
        allow(ui.cancelAddButton, _("Stop adding; what was added before stays"), nothing)
        ui.addProgressBar.visible = running
        ui.addProgressBar.value = int(1000 * self.adder.fraction)

    def _addRow(self, text: str, widget: qt.QWidget) -> qt.QWidget:
        """A row with a text beside the widget; without a text the widget takes the whole width."""
        row = FIRST_ROW + self._rowCount
        if text:
            self.box.layout().insertRow(row, text, widget)
        else:
            self.box.layout().insertRow(row, widget)
        self._rowCount += 1
        return widget

    # Adding

    def onAdd(self) -> None:
        with slicer.util.WaitCursor():
            self.session.ask(self._start, otherwise=None)

    def onCancel(self) -> None:
        self.adder.cancel()

    def _start(self, leaveOut: Collection[str] = ()) -> None:
        """Ask the worker; raises what can be known beforehand.

        Args:
            leaveOut: Names of segments that the user does not want, for the project has no such label.
        """
        from barl.worker.messages import CaseFiles

        heldOut, ignore = self.ui.addHeldOutCheckBox.checked, self._ignored()
        if isinstance(self.source, FolderSource):
            if cases := self.source.cases(heldOut):
                if ignore is not None:
                    cases = [replace(case, looked=ignore) if case.label else case for case in cases]
                self.adder.start(cases, reasonsTo=_("Select the row to see why."))
                self.source.started()
            return
        # First the scan: without one there is nothing to name.
        self.source.check()
        name = self._checkedName()
        if strange := [segment for segment in self.source.withoutLabel() if segment not in leaveOut]:
            self._askAbout(strange)
            return
        scans = self.source.scans(leaveOut)
        case = CaseFiles(
            name,
            scans.channels,
            scans.label,
            group=self.ui.subjectLineEdit.text.strip(),
            series=scans.series,
            held_out=heldOut,
            looked=self._looked(scans, ignore),
        )
        self.adder.start([case], scans.staging, scans.note)

    def _askAbout(self, strange: list[str]) -> None:
        """A program that segments everything gives a hundred segments of which the project has one."""
        names = ", ".join(strange[:MOST_NAMED]) + (", ..." if len(strange) > MOST_NAMED else "")
        one = _("The segment {names} is no label of the project. Shall the outline be taken without it?")
        many = _("{count} segments are no labels of the project ({names}). Shall the outline be taken without them?")
        self.session.inquire(
            Question(
                (one if len(strange) == 1 else many).format(count=len(strange), names=names),
                _("Take the others"),
                _("Cancel"),
                onYes=lambda: self.session.ask(self._start, strange, otherwise=None),
            )
        )

    def _ignored(self) -> int | None:
        """The value in the outline that means that nobody has looked."""
        from barl.errors import InputError

        text = self.ui.ignoreLineEdit.text.strip()
        if not text:
            return None
        if not text.isdecimal():
            raise InputError(
                _("{text!r} is no value of a label map.").format(text=text),
                _("Type the number that means that nobody has looked, or nothing."),
            )
        return int(text)

    def _looked(self, scans: Scans, ignore: int | None) -> int | str | None:
        from barl.errors import InputError

        if scans.label is None or ignore is None:
            return scans.looked
        if scans.looked is not None:
            raise InputError(
                _("A mask and a value say what was looked at."), _("Give one of them: the other may contradict it.")
            )
        return ignore

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

    def _onEnded(self, answer: AddedCases) -> None:
        whole = bool(answer.cases) and not answer.failed
        if isinstance(self.source, FolderSource):
            self.source.onAdded(answer)
            whole = whole and not self.source.plan.hasNews()
        elif answer.cases:
            self.ui.nameLineEdit.text = ""
            if self.source is not None:
                self.source.forgetOutline()
        if whole:
            self.box.collapsed = True  # the list shows them
