# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.FolderPlan import pairsOf
from BARLSegmentationLib.logic.Words import caseCountText
from BARLSegmentationLib.widgets.CaseSources import comboWidget, pathWidget
from BARLSegmentationLib.widgets.ExchangeForm import ExchangeForm
from BARLSegmentationLib.widgets.FolderSource import PAUSE_MS
from BARLSegmentationLib.widgets.PairTable import fitHeight, selectedRow, setUpPairTable
from BARLSegmentationLib.widgets.Panel import signalsBlocked

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.worker.messages import GivenPrediction, GivenPredictions, StoredPredictions, StorePredictions

NAME, FILES, CASE = range(3)
BY_NAME = ""  # the entry for many cases
MOST_NOTES = 3  # in the status line


class PredictionsForm(ExchangeForm):
    """Takes label maps or probabilities of other programs as predictions of cases, to be reviewed and corrected.

    Attributes:
        table: What there is, and to which case it belongs; the case of a row can be changed.
        caseComboBox: The case of the selected row.
    """

    action, tip = _("Import"), _("Store them as predictions of the cases, to be reviewed and corrected")
    needsWriting = True

    def lay(self) -> None:
        self._found: list[GivenPrediction] = []
        self._cases: list[str | None] = []  # of each row
        self._chosen: dict[int, str | None] = {}
        self._notes: list[str] = []
        self._asked = ("", False)
        self._reading = False
        tip = _("Folder in which nnU-Net, TotalSegmentator, MONAI or another program wrote its results")
        self.folder = self.addRow(_("Folder:"), pathWidget(tip, folder=True))
        self.folder.connect("currentPathChanged(QString)", self._onPathSoon)
        self.ofComboBox = self.addRow(_("Of:"), comboWidget(_("All cases by their names, or one case"), []))
        self.ofComboBox.connect("currentIndexChanged(int)", self.onPath)
        self.authorLineEdit = self.addRow(_("Made by:"), qt.QLineEdit())
        self.authorLineEdit.placeholderText = _("program and version")
        self.authorLineEdit.toolTip = _("Stands with the predictions, such as TotalSegmentator 2.4")
        self.labelsLineEdit = self.addRow(_("Labels:"), qt.QLineEdit())
        self.labelsLineEdit.placeholderText = _("if named otherwise: there=here, 5=liver")
        self.labelsLineEdit.toolTip = _("A name or value there, and the project's label that it means; several with ,")
        self.table = self.addRow("", qt.QTableWidget(0, 3))
        self._setUpTable()
        self.caseComboBox = qt.QComboBox()
        self.caseComboBox.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
        self.caseComboBox.minimumContentsLength = 12
        self.caseComboBox.toolTip = _("The case to which the selected row belongs")
        self.caseComboBox.connect("activated(int)", self.onCase)
        row = qt.QWidget()
        qt.QHBoxLayout(row).setContentsMargins(0, 0, 0, 0)
        row.layout().addWidget(self.caseComboBox, 1)
        self.resampleCheckBox = qt.QCheckBox(_("Resample to the scan"))
        row.layout().addWidget(self.resampleCheckBox)
        self.addRow(_("Its case:"), row)
        self.resampleCheckBox.toolTip = _(
            "Bring label maps on another grid onto the scan's, nearest voxel; else they are left out"
        )
        self.noteLabel = self.addRow("", qt.QLabel())
        self.noteLabel.wordWrap = True
        self.noteLabel.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)
        self._timer = qt.QTimer(self.table)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.connect("timeout()", self.onPath)

    def _setUpTable(self) -> None:
        tip = _("Select a row and choose its case below; rows without a case are left out")
        setUpPairTable(self.table, [_("Prediction"), _("Files"), _("Case")], tip)
        self.table.connect("itemSelectionChanged()", self.onSelected)

    @property
    def isIdle(self) -> bool:
        return super().isIdle and not self._reading and not self._timer.isActive()

    def opened(self) -> None:
        """The cases may be others than before."""
        cases = self.session.ask(self.session.cases, otherwise=[])
        with signalsBlocked(self.ofComboBox):
            self.ofComboBox.clear()
            self.ofComboBox.addItem(_("all cases, by their names"), BY_NAME)
            for case in cases:
                self.ofComboBox.addItem(case.name, case.id)
        self.caseComboBox.clear()
        self.caseComboBox.addItem(_("none: leave it out"), "")
        for case in cases:
            self.caseComboBox.addItem(case.name, case.id)
        self._names = {case.id: case.name for case in cases}
        self.onPath()

    def _of(self) -> str:
        """The id of the one case that all of it belongs to."""
        return self.ofComboBox.itemData(self.ofComboBox.currentIndex) or BY_NAME

    # What there is

    def _onPathSoon(self, *_arguments: object) -> None:
        self._timer.start()

    def onPath(self, _index: int = 0) -> None:
        """Have the worker look into the folder anew."""
        from barl.worker.messages import ListPredictions

        self._timer.stop()
        folder, project = self.folder.currentPath.strip(), self.session.project
        self._found, self._notes, self._asked = [], [], (folder, bool(self._of()))
        self._cases, self._chosen = [], {}
        self._reading = bool(project is not None and folder and Path(folder).is_dir())
        if self._reading:
            self._notes = [_("Reading the folder...")]
            asked = self._asked
            self.worker.request(
                ListPredictions(str(project.folder), *asked),
                onResult=lambda answer: self._onListed(asked, answer),
                onError=lambda error: self._onNotListed(asked, error),
            )
        self.show()

    def _onListed(self, asked: tuple[str, bool], answer: GivenPredictions) -> None:
        if asked != self._asked:
            return  # another one has been chosen since
        self._reading, self._found = False, answer.found
        self._cases = [self._of() or item.case for item in answer.found]
        known = {label.name.casefold() for label in self.session.project.labels}
        others = [name for name in answer.labels if name.casefold() not in known]
        self._notes = [*answer.notes, *(f"{item.name}: {item.message}" for item in answer.left_out)]
        if others:
            names = ", ".join(others[:6]) + (_(", ...") if len(others) > 6 else "")
            self._notes.insert(0, _("The project has no label {names}: becomes background.").format(names=names))
        self.show()

    def _onNotListed(self, asked: tuple[str, bool], error: BarlError) -> None:
        if asked == self._asked:
            self._reading, self._notes = False, []
            self.session.status(str(error), True)
            self.show()

    def show(self) -> None:
        """Fill the table; the selection stays."""
        row, table = self.table.currentRow(), self.table
        with signalsBlocked(table):
            table.setRowCount(len(self._found))
            for number, (item, case) in enumerate(zip(self._found, self._cases, strict=True)):
                texts = (item.name, item.files, self._names.get(case, _("none")))
                for column, text in enumerate(texts):
                    cell = qt.QTableWidgetItem(text)
                    cell.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
                    cell.setToolTip(text)
                    table.setItem(number, column, cell)
        fitHeight(table)
        if 0 <= row < table.rowCount:
            table.selectRow(row)
        self.noteLabel.text = " ".join(self._notes[:MOST_NOTES])
        self.noteLabel.visible = bool(self._notes)
        self.onSelected()

    def _selected(self) -> int:
        row = selectedRow(self.table)
        return row if row < len(self._found) else -1

    def onSelected(self) -> None:
        row = self._selected()
        self.caseComboBox.enabled = row >= 0 and not self._of()
        case = self._cases[row] if row >= 0 else None
        self.caseComboBox.setCurrentIndex(max(self.caseComboBox.findData(case or ""), 0))

    def onCase(self, index: int) -> None:
        """Give the selected row another case; a row that had it has none as long as this one keeps it."""
        row = self._selected()
        if row < 0:
            return
        self._chosen.pop(row, None)
        self._chosen[row] = self.caseComboBox.itemData(index) or None
        self._cases = pairsOf([item.case for item in self._found], self._chosen)
        self.show()

    # Importing

    def request(self) -> StorePredictions:
        """What to store.

        Raises:
            barl.errors.InputError: Nothing is there, nothing belongs to a case, or the labels cannot be read.
        """
        from barl.errors import InputError
        from barl.worker.messages import StorePredictions

        folder = self.folder.currentPath.strip()
        if not folder or not Path(folder).is_dir():
            raise InputError(_("No folder is chosen."), _("Choose the folder with the results."))
        if not self.isIdle or (folder, bool(self._of())) != self._asked:
            raise InputError(_("The folder is still being read."), _("Wait a moment."))
        pairs = {item.name: case for item, case in zip(self._found, self._cases, strict=True) if case}
        if not pairs:
            raise InputError(
                _("None of the files belongs to a case."), _("Select a row of the table and choose its case.")
            )
        return StorePredictions(
            str(self.session.project.folder),
            folder,
            pairs,
            author=self.authorLineEdit.text.strip() or _("another program"),
            labels=self._labels() or None,
            resample=self.resampleCheckBox.checked,
            one_case=bool(self._of()),
        )

    def _labels(self) -> dict[str, str]:
        """Name or value there -> label of the project, as typed."""
        from barl.errors import InputError

        known = {label.name.casefold(): label.name for label in self.session.project.labels}
        labels = {}
        for text in filter(str.strip, self.labelsLineEdit.text.split(",")):
            there, _equals, here = (part.strip() for part in text.partition("="))
            if not there or here.casefold() not in known:
                raise InputError(
                    _("{text!r} does not say which label is which.").format(text=text.strip()),
                    _("Write there=here; the project's labels: {names}.").format(names=", ".join(known.values())),
                )
            labels[there] = known[here.casefold()]
        return labels

    def done(self, answer: StoredPredictions) -> tuple[str, bool]:
        """What was stored, and what was not."""
        self.session.notifyCases()
        text = [_("Imported the predictions of {cases}.").format(cases=caseCountText(len(answer.cases)))]
        text += [f"{item.name}: {item.message} {item.remedy}" for item in answer.failed[:MOST_NOTES]]
        text += list(dict.fromkeys(note for case in answer.cases for note in case.notes))[:MOST_NOTES]
        if not answer.failed:
            self.box.collapsed = True  # the list shows them
        return " ".join(text), bool(answer.failed)
