# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseTable import (
    CHANGED,
    DICE,
    HELD_OUT,
    NAME,
    STATUS,
    CaseTable,
    Row,
    light,
    localTime,
)
from BARLSegmentationLib.logic.Words import caseCountText, caseNamesText, caseStateText, readOnlyReason
from BARLSegmentationLib.widgets.AddCases import AddCases
from BARLSegmentationLib.widgets.CaseExchange import CaseExchange
from BARLSegmentationLib.widgets.CaseNames import CaseNames
from BARLSegmentationLib.widgets.Panel import Panel, allow, signalsBlocked
from BARLSegmentationLib.widgets.PredictAhead import PredictAhead
from BARLSegmentationLib.widgets.PredictCases import PredictCases

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.project.next_case import Ranked
    from barl.project.records import Case
    from barl.worker.messages import Event, MeasuredAgreement

PROPOSALS = 10
LESS_IMPORTANT = (CHANGED, DICE)  # columns, the least important first
LIGHT_PIXELS = 8
# Rows above and below the visible ones that are filled as well, so that scrolling shows no empty row.
MARGIN = 20


class CasesPanel(Panel):
    """The cases of the project with their states, and the case to outline next.

    The table has a row for every case, but only those in sight have cells: ten thousand rows of cells would hold up
    the window for seconds.
    """

    uiName = "CasesPanel"

    def setup(self) -> None:
        ui, session = self.ui, self.session
        self.adding = AddCases(session, self.worker, ui.addGroupBox)
        self.adding.setup()
        self.predicting = PredictCases(session, self.worker)
        self.exchange = CaseExchange(session, self.worker, ui)
        self.predicting.progressed.connect(self.onPredictProgress)
        self.predicting.ended.connect(self.updatePrediction)
        self.ahead = PredictAhead(session, self.worker, self._meansAhead)
        self.ahead.changed.connect(self.onAheadChanged)
        self.ahead.progressed.connect(self.onAheadProgress)
        ui.addGroupBox.connect("toggled(bool)", self.onAddToggled)
        ui.predictButton.connect("clicked(bool)", self.onPredict)
        ui.cancelPredictButton.connect("clicked(bool)", self.onCancelPrediction)
        self._table = CaseTable([], {}, caseStateText)
        self._cases: list[Case] = []
        self._waiting: list[Case] = []  # for an outline
        self._rows: list[Row] = []
        self._filled: set[int] = set()
        self._column, self._descending = None, False
        self._ranked: list = []
        self._measuring = None
        self._unmeasurable = False

        ui.nextButton.connect("clicked(bool)", self.openNext)
        ui.nextComboBox.connect("currentIndexChanged(int)", self.onProposalChosen)
        ui.filterLineEdit.connect("textChanged(QString)", self.onFilter)
        ui.casesTable.connect("itemSelectionChanged()", self.onSelected)
        ui.casesTable.connect("cellDoubleClicked(int,int)", self.onDoubleClicked)
        ui.openCaseButton.connect("clicked(bool)", self.onOpen)
        ui.excludeButton.connect("clicked(bool)", self.onExclude)
        ui.holdOutButton.connect("clicked(bool)", self.onHoldOut)
        self.names = CaseNames(session, ui.casesTable, ui.moreButton, self._selected, self._caseOf)
        self.exchange.addTo(self.names.menu)
        session.projectChanged.connect(self.onProjectChanged)
        session.definitionChanged.connect(self.onDefinition)
        session.casesChanged.connect(self.update)
        session.caseOpened.connect(self.onCaseOpened)

        header = ui.casesTable.horizontalHeader()
        header.setSectionsClickable(True)
        header.connect("sectionClicked(int)", self.onHeader)
        header.setSectionResizeMode(qt.QHeaderView.Interactive)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        ui.casesTable.setTextElideMode(qt.Qt.ElideMiddle)  # names of a series differ at their ends
        self._columnWidths = self._widths()
        for column, width in self._columnWidths.items():
            ui.casesTable.setColumnWidth(column, width)
        ui.casesTable.verticalHeader().setDefaultSectionSize(ui.casesTable.fontMetrics().height() + 6)
        bar = ui.casesTable.verticalScrollBar()
        bar.connect("valueChanged(int)", self.fillVisible)
        bar.connect("rangeChanged(int,int)", self.fillVisible)

    def _widths(self) -> dict[int, int]:
        """Pixels that the columns beside the name need, so that the name gets the rest."""
        from barl.project.states import CaseState

        table = self.ui.casesTable
        metrics = table.fontMetrics()
        texts = {
            STATUS: [*map(caseStateText, CaseState), f"{caseStateText(CaseState.ACCEPTED)} 99 %"],
            CHANGED: ["2026-12", "00:00"],
            DICE: ["≈ 0.00     "],  # room for the light
        }
        widths = {}
        for column in range(NAME + 1, table.columnCount):
            shown = [*texts.get(column, ["0.00"]), table.horizontalHeaderItem(column).text()]
            widths[column] = max(metrics.horizontalAdvance(text) for text in shown) + 14
        return widths

    @property
    def isIdle(self) -> bool:
        idle = self.adding.isIdle and self.predicting.isIdle and self.exchange.isIdle and self.ahead.isIdle
        return idle and self._measuring is None

    def cleanup(self) -> None:
        self.adding.cleanup()
        self.ahead.forget()
        self.predicting.forget()
        self.exchange.forget()
        super().cleanup()

    def opened(self) -> None:
        self.fitColumns()

    def onAddToggled(self, open_: bool) -> None:
        """The form takes the place of the list: both do not fit on a small screen."""
        self.ui.listWidget.visible = not open_
        if open_:
            self.exchange.close()

    # What there is

    def onProjectChanged(self) -> None:
        self._unmeasurable = False
        self.ui.filterLineEdit.text = ""
        self.adding.onSource()
        self.exchange.close()
        self.update()
        if self.session.project is not None:
            self.ui.addGroupBox.collapsed = bool(self._cases)

    def onDefinition(self, _labels: list) -> None:
        """The form has a row for each channel."""
        if self.adding.isIdle:
            self.adding.onSource()

    def update(self) -> None:
        """Read the cases anew."""
        project, wasEmpty = self.session.project, not self._cases
        self._cases = self.session.ask(self.session.cases, otherwise=[])
        if wasEmpty and self._cases and self.adding.isIdle:
            self.ui.addGroupBox.collapsed = True  # it was unfolded because there was nothing to list
        self._waiting = [case for case in self._cases if case.awaits_outline]
        agreements = self.session.ask(project.agreements.all, otherwise={}) if project is not None else {}
        expected = self.session.ask(project.revisions.expected_dice, otherwise={}) if project is not None else {}
        self._table = CaseTable(self._cases, agreements, caseStateText, _("held out"), expected)
        self.show()
        self.propose()
        self.adding.update()
        self._measure(agreements)

    def onCaseOpened(self) -> None:
        self.show()
        self.propose()

    def _measure(self, agreements: dict) -> None:
        """Have the worker compare the pairs not compared yet; it takes seconds for a large scan."""
        project = self.session.project
        if project is None or project.read_only or self._measuring is not None or self._unmeasurable:
            return
        if all(agreement.measured for agreement in agreements.values()):
            return
        from barl.worker.messages import MeasureAgreement

        request = MeasureAgreement(str(project.folder))
        self._measuring = self.worker.request(request, onResult=self._onMeasured, onError=self._onNotMeasured)

    def _onMeasured(self, answer: MeasuredAgreement) -> None:
        self._measuring = None
        if answer.measured:
            self.update()

    def _onNotMeasured(self, error: BarlError) -> None:
        self._measuring, self._unmeasurable = None, True  # not again and again; the next project may do better
        self.session.status(str(error), True)

    # The table

    def onFilter(self, _text: str = "") -> None:
        self.show()

    def onHeader(self, column: int) -> None:
        """Sort; the second click turns the order round. Numbers, marks and times begin with the highest."""
        if column == self._column:
            self._descending = not self._descending
        else:
            self._column, self._descending = column, column >= HELD_OUT
        header = self.ui.casesTable.horizontalHeader()
        header.setSortIndicatorShown(True)
        header.setSortIndicator(column, qt.Qt.DescendingOrder if self._descending else qt.Qt.AscendingOrder)
        self.show()

    def show(self) -> None:
        """Show the cases that pass the filter, in the chosen order; the selection stays where it can."""
        table, selected = self.ui.casesTable, set(self.session.selectedCaseIds())
        self._rows = self._table.shown(self.ui.filterLineEdit.text, self._column, self._descending)
        with signalsBlocked(table):
            table.clearContents()
            table.clearSelection()
            table.setRowCount(len(self._rows))
            self._filled = set()
            for first, last in _runs([n for n, row in enumerate(self._rows) if row.case.id in selected]):
                table.setRangeSelected(qt.QTableWidgetSelectionRange(first, 0, last, table.columnCount - 1), True)
        self.fitColumns()
        self.fillVisible()
        self.onSelected()
        total, shown = len(self._table.rows), len(self._rows)
        self.ui.countLabel.text = (
            _("{shown} of {total} cases").format(shown=shown, total=total) if shown != total else caseCountText(total)
        )

    def fitColumns(self) -> None:
        """Give the names the room of the less important columns where they would be cut."""
        table = self.ui.casesTable
        metrics = table.fontMetrics()
        needed = max((metrics.horizontalAdvance(row.case.name) for row in self._rows[:200]), default=0) + 14
        room = table.viewport().width - sum(self._columnWidths.values())
        for column in LESS_IMPORTANT:
            table.setColumnHidden(column, needed > room)
            if needed > room:
                room += self._columnWidths[column]

    def fillVisible(self, *_arguments: object) -> None:
        """Make the cells of the rows in sight."""
        table = self.ui.casesTable
        height = table.viewport().height
        first = table.rowAt(0)
        last = table.rowAt(max(height - 1, 0))
        if first < 0:
            first = 0
        if last < 0:
            last = first + height // max(table.verticalHeader().defaultSectionSize, 1)
        for row in range(max(first - MARGIN, 0), min(last + MARGIN + 1, len(self._rows))):
            if row not in self._filled:
                self._fill(row)

    def _fill(self, row: int) -> None:
        self._filled.add(row)
        shown = self._rows[row]
        onScreen = shown.case.id == self.session.caseId
        for column, text in enumerate(shown.texts()):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(localTime(shown.case.updated) if column == CHANGED else text)
            if column >= HELD_OUT:
                item.setTextAlignment(qt.Qt.AlignCenter)
            if column == DICE and shown.isExpected:
                item.setIcon(self._light(shown.dice))
            if onScreen and column == NAME:
                font = item.font()
                font.setBold(True)
                item.setFont(font)
            self.ui.casesTable.setItem(row, column, item)

    @staticmethod
    def _light(dice: float) -> qt.QIcon:
        pixmap = qt.QPixmap(LIGHT_PIXELS, LIGHT_PIXELS)
        pixmap.fill(qt.QColor(*light(dice)))
        return qt.QIcon(pixmap)

    def onSelected(self) -> None:
        rows = sorted(index.row() for index in self.ui.casesTable.selectionModel().selectedRows())
        cases = [self._rows[row].case for row in rows if row < len(self._rows)]
        self.session.selectCases([case.id for case in cases])
        self._updateButtons(cases)

    def _caseOf(self, row: int) -> Case | None:
        return self._rows[row].case if row < len(self._rows) else None

    def _selected(self) -> list:
        chosen = set(self.session.selectedCaseIds())
        return [row.case for row in self._rows if row.case.id in chosen]

    def _updateButtons(self, cases: list) -> None:
        ui, project = self.ui, self.session.project
        allow(
            ui.openCaseButton,
            _("Load the images, the newest outline and the uncertainty of the selected case"),
            "" if len(cases) == 1 else _("Select one case first"),
        )
        reason = readOnlyReason(project) or ("" if cases else _("Select cases first"))
        excluded = bool(cases) and all(case.is_excluded for case in cases)
        ui.excludeButton.text = _("Include") if excluded else _("Exclude")
        tip = (
            _("Use the selected cases again")
            if excluded
            else _("Leave the selected cases out of training and proposals")
        )
        allow(ui.excludeButton, tip, reason)
        heldOut = bool(cases) and all(case.held_out for case in cases)
        ui.holdOutButton.text = _("Train on") if heldOut else _("Hold out")
        tip = (
            _("Let the selected cases be used for training again")
            if heldOut
            else _("Never train on the selected cases: use them only to measure models")
        )
        allow(ui.holdOutButton, tip, reason)
        self.updatePrediction()

    # What can be done with a case

    def onDoubleClicked(self, row: int, _column: int) -> None:
        if row < len(self._rows):
            self.open(self._rows[row].case)

    def onOpen(self) -> None:
        cases = self._selected()
        if cases:
            self.open(cases[0])

    def open(self, case: Case) -> None:
        with self.session.reporting(), slicer.util.WaitCursor():
            self.session.openCase(case.id)
            self.session.stepWanted.emit("Review")

    def onExclude(self) -> None:
        cases = self._selected()
        included = all(case.is_excluded for case in cases)  # then the button says "Include"
        with self.session.reporting() as outcome:
            (self._include if included else self._exclude)(cases)
        self.session.notifyCases()
        if not outcome.failed:
            text = _("Included: {names}.") if included else _("Excluded: {names}.")
            self.session.status(text.format(names=caseNamesText(cases)))

    def _exclude(self, cases: list) -> None:
        from barl.project.states import CaseState

        for case in cases:
            if not case.is_excluded:
                self.session.project.cases.set_state(case.id, CaseState.EXCLUDED)

    def _include(self, cases: list) -> None:
        for case in cases:
            self.session.project.cases.include(case.id)

    def onHoldOut(self) -> None:
        cases = self._selected()
        wanted = not all(case.held_out for case in cases)
        moved = self.session.ask(self._setHeldOut, cases, wanted, otherwise=None)
        self.session.notifyCases()
        if moved is not None:
            text = _("Held out: {names}.") if wanted else _("Used for training again: {names}.")
            others = len({case.id for case in moved} - {case.id for case in cases})
            more = _(" With them go {count} cases of the same subjects.").format(count=others) if others else ""
            self.session.status(text.format(names=caseNamesText(cases)) + more)

    def _setHeldOut(self, cases: list, wanted: bool) -> list:
        return [moved for case in cases for moved in self.session.project.cases.set_held_out(case.id, wanted)]

    # Predict

    def _toPredict(self) -> list:
        """The selected cases, or all without an accepted outline if none is selected."""
        return self._selected() or self._waiting

    def updatePrediction(self, _segmentation: object = None) -> None:
        ui, project, cases = self.ui, self.session.project, self._toPredict()
        idle = self.predicting.isIdle
        reason = _("Open a project first") if project is None else readOnlyReason(project)
        if not reason and not cases:
            reason = _("No case waits for an outline")
        if not reason and not idle:
            reason = _("A prediction is under way")
        if not reason and self.session.ask(project.models.current, otherwise=None) is None:
            reason = _("The project has no model yet: train one, or predict with another model in the step Predict")
        which = _("the selected cases") if self._selected() else _("all cases without an accepted outline")
        tip = _("Predict {which} ({count}) with the current model; Slicer can be used meanwhile")
        allow(ui.predictButton, tip.format(which=which, count=len(cases)), reason)
        ui.predictProgressBar.visible = ui.cancelPredictButton.visible = not idle or self.ahead.isWanted
        ui.aheadLabel.visible = self.ahead.isWanted
        ui.aheadLabel.text = self._aheadText()

    def _aheadText(self) -> str:
        case, left = self.ahead.case, self.ahead.left
        if case is None:
            return _("Untouched cases are predicted once the worker is free.")
        return _("Predicting by itself: {name}, {left} left").format(name=case.name, left=left)

    def _means(self) -> tuple[str, bool, bool]:
        """Device, fast and cleanup."""
        node = self.parameterNode
        return ("auto", False, True) if node is None else (node.device, node.fast, node.cleanUp)

    def _meansAhead(self) -> tuple[str, bool, bool] | None:
        return self._means() if self.parameterNode is not None and self.parameterNode.predictAhead else None

    def onAheadChanged(self) -> None:
        self.ui.predictProgressBar.value = 0
        self.updatePrediction()

    def onAheadProgress(self, fraction: float) -> None:
        if self.predicting.isIdle:
            self.ui.predictProgressBar.value = int(1000 * fraction)

    def onPredict(self) -> None:
        cases, (device, fast, cleanUp) = self._selected(), self._means()
        self.ui.predictProgressBar.value = 0
        self.predicting.start(None, [case.id for case in cases] or None, device, fast, None, cleanUp)
        self.session.status(_("Predicting in the background; Slicer can be used meanwhile."))
        self.updatePrediction()

    def onPredictProgress(self, event: Event) -> None:
        self.ui.predictProgressBar.value = int(1000 * (event.fraction or 0.0))

    def onCancelPrediction(self) -> None:
        if self.predicting.isIdle:
            self.ahead.cancel()
        else:
            self.predicting.cancel()

    # The next case

    def propose(self) -> None:
        """Rank the cases that wait for an outline; the one on screen is not the next one."""
        from barl.project.next_case import rank_cases

        ranked = [item for item in rank_cases(self._cases) if item.case.id != self.session.caseId]
        self._ranked = self.ahead.firstPredicted(ranked)[:PROPOSALS]
        combo = self.ui.nextComboBox
        with signalsBlocked(combo):
            combo.clear()
            for item in self._ranked:
                combo.addItem(item.case.name)
                combo.setItemData(combo.count - 1, self._reason(item), qt.Qt.ToolTipRole)
        combo.enabled = bool(self._ranked)
        self.onProposalChosen()

    def onProposalChosen(self, _index: int = 0) -> None:
        index = self.ui.nextComboBox.currentIndex
        chosen = self._ranked[index] if 0 <= index < len(self._ranked) else None
        if chosen is not None:
            self.ui.reasonLabel.text = self._reason(chosen)
        elif self.session.project is None:
            self.ui.reasonLabel.text = ""
        else:
            self.ui.reasonLabel.text = (
                _("No other case waits for an outline.") if self._cases else _("Add cases below to begin.")
            )
        none = _("Open a project first") if self.session.project is None else self.ui.reasonLabel.text
        allow(self.ui.nextButton, _("Open the proposed case"), "" if chosen is not None else none)

    def openNext(self, *_arguments: object) -> None:
        """Open the proposed case, or the one chosen instead of it."""
        index = self.ui.nextComboBox.currentIndex
        if 0 <= index < len(self._ranked):
            self.open(self._ranked[index].case)

    @staticmethod
    def _reason(item: Ranked) -> str:
        reason = item.reason
        return f"{item.case.name}: {reason}."


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each stretch of neighboring numbers."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
