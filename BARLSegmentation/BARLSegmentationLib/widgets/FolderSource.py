# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.FolderPlan import FolderPlan, PlannedCase
from BARLSegmentationLib.widgets.CaseSources import pathWidget
from BARLSegmentationLib.widgets.PairTable import fitHeight, selectedRow, setUpPairTable
from BARLSegmentationLib.widgets.Panel import signalsBlocked
from BARLSegmentationLib.widgets.SeriesRow import SeriesRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from barl.worker.messages import AddedCases, CaseFiles

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

CASE, OUTLINE, STATE = range(3)
PAUSE_MS = 300  # after the last letter of a path, before the folder is looked into


class FolderSource:
    """A folder with the scans of many cases: a table of what will be added and what not, with the reasons.

    Before: each case with its outline; both can be changed, and cases can be left out. Afterwards: what became of each.

    Args:
        session: What all panels share.
        worker: The process that lists DICOM series.
        addRow: Adds a row to the form: its text and its widget.

    Attributes:
        selectors: What chooses the folder of the scans, in a list.
        labelSelector: What chooses the folder of the outlines.
        table: The QTableWidget.
        series: Which series of a case that is a folder with several.
    """

    def __init__(self, session: Session, worker: WorkerLink, addRow: Callable[[str, qt.QWidget], qt.QWidget]) -> None:
        self.session, self.worker, self.addRow = session, worker, addRow
        self.plan = FolderPlan([], [])
        self.selectors: list = []
        self.labelSelector: Any = None

    def lay(self) -> None:
        """Add the rows."""
        self._layFolders()
        for selector in self._folders():
            selector.connect("currentPathChanged(QString)", self._onPathSoon)
        self.table = self.addRow("", qt.QTableWidget(0, 3))
        self._setUpTable()
        self._timer = qt.QTimer(self.table)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.connect("timeout()", self.onPath)
        pair = qt.QWidget()
        qt.QHBoxLayout(pair).setContentsMargins(0, 0, 0, 0)
        self.outlineComboBox = qt.QComboBox()
        self.outlineComboBox.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
        self.outlineComboBox.minimumContentsLength = 12
        self.outlineComboBox.toolTip = _("The outline of the case selected in the table")
        self.outlineComboBox.connect("activated(int)", self.onOutline)
        pair.layout().addWidget(self.outlineComboBox, 1)
        self.numberCheckBox = qt.QCheckBox(_("Number the cases"))
        self.numberCheckBox.toolTip = _("Name the cases case_001, case_002, ... instead of after their files")
        self.numberCheckBox.connect("toggled(bool)", self.onNumber)
        pair.layout().addWidget(self.numberCheckBox)
        self.addRow(_("Its outline:"), pair)
        self.series = SeriesRow(self.session, self.worker, self.show)
        self.addRow("", self.series.widget)
        self.reasonLabel = self.addRow("", qt.QLabel())
        self.reasonLabel.wordWrap = True
        self.reasonLabel.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)
        self.show()

    def _layFolders(self) -> None:
        scans = self.addRow(_("Scans:"), pathWidget(_("Folder with the scans of many cases"), folder=True))
        outlines = pathWidget(_("Folder with outlines, each named as its scan or nearly so"), folder=True)
        self.selectors, self.labelSelector = [scans], self.addRow(_("Outlines:"), outlines)

    def _folders(self) -> list:
        """What chooses the folders."""
        return [widget for widget in (*self.selectors, self.labelSelector) if widget is not None]

    def _setUpTable(self) -> None:
        table = self.table
        tip = _("Untick a case to leave it out; double-click its name to change it. Use no patient names.")
        setUpPairTable(table, [_("Case"), _("Outline"), _("What happens")], tip)
        table.horizontalHeader().setSectionResizeMode(STATE, qt.QHeaderView.ResizeToContents)
        table.connect("itemSelectionChanged()", self.onSelected)
        table.connect("itemChanged(QTableWidgetItem*)", self.onItemChanged)

    # Before

    @property
    def isIdle(self) -> bool:
        """The table shows what is in the folders."""
        return not self._timer.isActive()

    def forget(self) -> None:
        """Ignore what the worker still says: the rows go."""
        self.series.forget()

    def _onPathSoon(self, *_arguments: object) -> None:
        self._timer.start()

    def onPath(self) -> None:
        """Look into the folders anew."""
        self._timer.stop()
        images, outlines = self.selectors[0].currentPath, self.labelSelector.currentPath
        self.plan = FolderPlan([], [])
        if not outlines or not Path(outlines).is_dir():  # not typed to its end
            outlines = ""
        if images and Path(images).is_dir():
            project = self.session.project
            with slicer.util.WaitCursor():
                self.plan = self.session.ask(
                    FolderPlan.of, Path(images), project.channels, Path(outlines) if outlines else None,
                    [case.name for case in self.session.cases()], otherwise=self.plan,
                )  # fmt: skip
        self.show()

    def onNumber(self, checked: bool) -> None:
        self.plan.number(checked)
        self.show()

    def onItemChanged(self, item: qt.QTableWidgetItem) -> None:
        row = item.row()
        if row < len(self.plan.cases) and item.column() == CASE:
            case = self.plan.cases[row]
            self.plan.rename(case, item.text().strip(), item.checkState() == qt.Qt.Checked)
            self._fill(row)
            self._showReason()

    def onOutline(self, index: int) -> None:
        case = self._selected()
        if case is not None:
            self.plan.setOutline(case, self.outlineComboBox.itemData(index) or "")
            self.show()

    def _selected(self) -> PlannedCase | None:
        row = selectedRow(self.table)
        return self.plan.cases[row] if 0 <= row < len(self.plan.cases) else None

    # The table

    def show(self) -> None:
        """Fill the table; the selection stays."""
        row = self.table.currentRow()
        with signalsBlocked(self.table):
            self.table.setRowCount(len(self.plan.cases) + len(self.plan.leftOut))
            for number in range(self.table.rowCount):
                self._fill(number)
        fitHeight(self.table)
        if 0 <= row < self.table.rowCount:
            self.table.selectRow(row)
        self.onSelected()

    def _fill(self, row: int) -> None:
        isCase = row < len(self.plan.cases)
        case = self.plan.cases[row] if isCase else None
        left = None if isCase else self.plan.leftOut[row - len(self.plan.cases)]
        reason = self.plan.stateOf(case) if case else left.state
        texts = (
            [case.name, self.plan.outlineNameOf(case), self.plan.shortStateOf(case)]
            if case
            else [left.name, "", _("left out")]
        )
        with signalsBlocked(self.table):
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(reason if column == STATE else text)
                item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
                if case and column == CASE and not case.isDone:
                    flags = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEditable
                    item.setFlags(flags | qt.Qt.ItemIsUserCheckable)
                    item.setCheckState(qt.Qt.Checked if case.wanted else qt.Qt.Unchecked)
                self.table.setItem(row, column, item)

    def onSelected(self) -> None:
        """Offer the outlines for the selected case, and show the whole of what happens."""
        case, combo = self._selected(), self.outlineComboBox
        combo.clear()
        combo.addItem(_("none"), "")
        for name in self.plan.outlineNames():
            combo.addItem(name, name)
        combo.setCurrentIndex(max(combo.findData(self.plan.outlineNameOf(case)), 0) if case else 0)
        combo.enabled = case is not None and not case.isDone and combo.count > 1
        self.series.show(self.plan, case)
        self._showReason()

    def _showReason(self) -> None:
        row = self.table.currentRow()
        chosen = self.table.item(row, STATE) if 0 <= row < self.table.rowCount else None
        self.reasonLabel.text = chosen.toolTip() if chosen is not None else self.plan.inWords()

    # Adding

    def cases(self, heldOut: bool) -> list[CaseFiles]:
        """The ticked cases; ``heldOut``: all of them are held out.

        Raises:
            barl.errors.InputError: There is none, or two have one name.
        """
        from barl.errors import InputError

        self.table.setCurrentCell(-1, -1)  # what is being typed counts
        if not self.selectors[0].currentPath:
            raise InputError(_("No folder is chosen."), _("Choose the folder with the scans."))
        for path in filter(None, (selector.currentPath for selector in self._folders())):
            if not Path(path).is_dir():
                raise InputError(
                    _("There is no folder {name}.").format(name=Path(path).name), _("Choose it with the ... button.")
                )
        if not self.isIdle or not self.plan.cases:
            self.onPath()
            if not self.plan.cases:
                return []  # the status line says why
        return self.plan.files(heldOut)

    def started(self) -> None:
        """The worker adds the cases."""

    def onAdded(self, answer: AddedCases) -> None:
        """Show what became of each case."""
        self.plan.settle(answer)
        self.show()
