# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic import Training
from BARLSegmentationLib.logic.Comparison import Comparison
from BARLSegmentationLib.widgets.Panel import allow, showPlot

if TYPE_CHECKING:
    from barl.project.records import ModelRow
    from barl.project.store import Project
    from barl.worker.messages import ModelComparison

    from BARLSegmentationLib.logic.Session import Session

TABLE_HEIGHT = 120  # longer ones scroll
ROW_HEIGHT = 22


class ModelDecision:
    """The box with a new model beside the current one, in which the user decides which to use.

    Args:
        session: What all panels share.
        box: Holds the table, the plot and the buttons of the decision.
    """

    def __init__(self, session: Session, box: qt.QWidget) -> None:
        self.session, self.box = session, box
        self.ui = ui = slicer.util.childWidgetVariables(box)
        self.comparison = Comparison()
        table = ui.comparisonTable
        table.verticalHeader().visible = False
        table.verticalHeader().defaultSectionSize = ROW_HEIGHT
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        ui.keepButton.connect("clicked(bool)", self.onKeep)
        ui.promoteButton.connect("clicked(bool)", self.onPromote)

    def clear(self) -> None:
        """Forget what was compared and take it out of the scene."""
        showPlot(self.ui, "comparison", None)
        self.comparison.remove()

    def model(self) -> ModelRow | None:
        """The model to decide about."""
        project = self.session.project
        if project is None or project.read_only:
            return None
        return self.session.ask(Training.undecidedModel, project, otherwise=None)

    def reasonAgainstComparison(self) -> str:
        cases = self.session.ask(self.session.cases, otherwise=[])
        if any(case.evaluates for case in cases) or self._bothHaveFolds():
            return ""
        return _("No outlined case is held out: there is nothing to compare the models on.")

    def _bothHaveFolds(self) -> bool:
        """Whether the current and the new model were both judged by cases that members had not learned from."""
        project = self.session.project
        if project is None:
            return False
        models = self.session.ask(lambda: (project.models.current(), Training.undecidedModel(project)), otherwise=())
        return bool(models) and all(model is not None and "out_of_fold" in model.summary for model in models)

    def show(self, result: ModelComparison) -> None:
        """Show the worker's answer to ``CompareModels``."""
        showPlot(self.ui, "comparison", None)
        self.comparison.show(result)
        showPlot(self.ui, "comparison", self.comparison)
        rows = [*self.comparison.metricRows(), *self.comparison.caseRows()]
        table = self.ui.comparisonTable
        table.rowCount = len(rows)
        table.setHorizontalHeaderLabels(["", result.reference.model, result.model.model])
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                table.setItem(number, column, qt.QTableWidgetItem(text))
        table.setFixedHeight(min(TABLE_HEIGHT, (len(rows) + 1) * ROW_HEIGHT + 8))

    def onKeep(self) -> None:
        self._decide(Training.keepCurrent, _("{model} is kept aside; the current model stays."))

    def onPromote(self) -> None:
        self._decide(lambda project, model: project.models.promote(model.id), _("{model} is the current model now."))

    def _decide(self, action: Callable[[Project, ModelRow], object], words: str) -> None:
        model = self.model()
        if model is None:
            return
        with self.session.reporting():
            action(self.session.project, model)
            self.session.status(words.format(model=model.id))
            self.session.notifyModels()

    def update(self, busy: bool, comparing: bool) -> None:
        """Show the present state.

        Args:
            busy: The panel waits for the worker.
            comparing: It waits for the comparison.
        """
        ui, model, result = self.ui, self.model(), self.comparison.result
        self.box.visible = model is not None or result is not None
        ui.comparisonTable.visible = result is not None
        if model is not None:
            self.box.title = _("New model: {model}").format(model=model.id)
        impossible = self.reasonAgainstComparison()
        if comparing:
            words = _("Comparing with the current model.")
        elif result is not None:
            words = "\n".join([result.words, *result.notes])
        else:
            words = impossible or _("It has not been compared with the current model yet.")
        ui.comparisonLabel.text = words
        decided = _("There is no new model to decide about.") if model is None else ""
        wait = _("Wait until what was asked for is done, or cancel it.")
        again = _("Measure the current and the new model on the held-out cases")
        allow(ui.compareButton, again, decided or (wait if busy else impossible))
        for button, tip in (
            (ui.keepButton, _("Go on with the current model; the new one stays in the project")),
            (ui.promoteButton, _("Predict with the new model from now on")),
        ):
            allow(button, tip, decided or (wait if comparing else ""))
