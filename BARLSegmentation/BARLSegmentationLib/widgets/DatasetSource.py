# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.FolderPlan import FolderPlan
from BARLSegmentationLib.widgets.CaseSources import pathWidget
from BARLSegmentationLib.widgets.FolderSource import FolderSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from barl.errors import BarlError
    from barl.project.labels import Label
    from barl.worker.client import Pending
    from barl.worker.messages import CaseFiles, DatasetContent

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink


class DatasetSource(FolderSource):
    """A data set folder of nnU-Net, the Decathlon or BIDS, or an export of BARL; the worker lists its cases.

    Args:
        session: What all panels share.
        worker: The process that reads the folder.
        addRow: Adds a row to the form: its text and its widget.

    Attributes:
        labelsCheckBox: Whether labels that the table lacks are added to it.
    """

    def __init__(self, session: Session, worker: WorkerLink, addRow: Callable[[str, qt.QWidget], qt.QWidget]) -> None:
        super().__init__(session, worker, addRow)
        self._reading: Pending | None = None
        self._asked = ""  # the folder that is being read
        self._missing: list[dict] = []
        self._before: list[Label] | None = None

    def _layFolders(self) -> None:
        tip = _("Folder with dataset.json and imagesTr (nnU-Net, Decathlon), with sub-... folders (BIDS), or an export")
        self.selectors = [self.addRow(_("Data set:"), pathWidget(tip, folder=True))]
        self.labelsCheckBox = self.addRow("", qt.QCheckBox())
        self.labelsCheckBox.visible = False

    @property
    def isIdle(self) -> bool:
        return super().isIdle and self._reading is None

    def onPath(self) -> None:
        """Have the worker look into the folder anew."""
        from barl.worker.messages import ReadDataset

        self._timer.stop()
        folder, project = self.selectors[0].currentPath, self.session.project
        self.plan, self._missing, self._asked = FolderPlan([], []), [], folder
        if folder and Path(folder).is_dir():
            self.plan.notes = [_("Reading the folder...")]
            self._reading = self.worker.request(
                ReadDataset(folder, str(project.folder)),
                onResult=lambda answer: self._onRead(folder, answer),
                onError=lambda error: self._onNotRead(folder, error),
            )
        self._showLabels()
        self.show()

    def forget(self) -> None:
        super().forget()
        self._reading, self._asked = None, ""

    def _onRead(self, folder: str, content: DatasetContent) -> None:
        if folder != self._asked:
            return  # another one has been chosen since
        self._reading = None
        self.plan = FolderPlan.ofDataset(content, [case.name for case in self.session.cases()])
        self._missing = content.labels
        self._showLabels()
        self.show()

    def _onNotRead(self, folder: str, error: BarlError) -> None:
        if folder == self._asked:
            self._reading, self.plan = None, FolderPlan([], [])
            self.session.status(str(error), True)
            self.show()

    def _showLabels(self) -> None:
        box, names = self.labelsCheckBox, self._missingNames()
        box.visible = bool(names)
        box.checked = False
        box.text = _("Add the label that the table lacks") if len(self._missing) == 1 else _("Add the missing labels")
        box.toolTip = _("Add to the project's label table: {names}").format(names=names)
        if names:
            self.plan.notes.append(_("The label table lacks {names}.").format(names=names))

    def _missingNames(self) -> str:
        return ", ".join(f"{label['value']} {label['name']}" for label in self._missing)

    def cases(self, heldOut: bool) -> list[CaseFiles]:
        """The ticked cases; the labels that the table lacks are added to it before, if that is ticked.

        Raises:
            barl.errors.InputError: There is no case, the folder is still being read, or labels are missing.
        """
        from barl.errors import InputError

        if self.selectors[0].currentPath and not self.isIdle:
            raise InputError(_("The folder is still being read."), _("Wait a moment."))
        cases = super().cases(heldOut)
        if self._missing and not self.labelsCheckBox.checked:
            raise InputError(
                _("The label table lacks {names}.").format(names=self._missingNames()),
                _("Tick {box!r}, or rename labels so that the names are equal.").format(box=self.labelsCheckBox.text),
            )
        self._addLabels()
        return cases

    def _addLabels(self) -> None:
        from barl.project.labels import Label

        self._before = list(self.session.project.labels) if self._missing else None
        for label in self._missing:
            self.session.project.definition.add_label(Label.from_json(label))
        self._missing = []

    def started(self) -> None:
        """Show the labels that were added: not before, because the form is laid anew for other labels."""
        self.labelsCheckBox.visible = False
        before, self._before = self._before, None
        if before is not None:
            self.session.notifyDefinition(before)
