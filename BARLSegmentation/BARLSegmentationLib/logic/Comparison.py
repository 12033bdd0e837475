# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic import Plots

if TYPE_CHECKING:
    from barl.worker.messages import ModelComparison, Summary


class Comparison:
    """The worker's answer to ``compare`` as rows for a table and as a paired plot in the scene.

    Attributes:
        result: That answer; None before ``show``.
        view: Plot view node for a plot widget; None before ``show``.
        legend: What its marks mean, as rich text.
    """

    def __init__(self) -> None:
        self.result: ModelComparison | None = None
        self.view = None
        self.legend = ""
        self._nodes: list = []

    def show(self, result: ModelComparison) -> None:
        """Put tables, series, chart and view of an answer into the scene, in place of those before.

        Per held-out case, by its number in ``caseRows``: a square for the current model, a circle for the new one, and
        a line between both.
        """
        self.remove()
        self.result = result
        cases = [(n, case) for n, case in enumerate(result.cases, 1)]
        known = [(n, case) for n, case in cases if None not in (case.reference, case.model)]
        title = _("BARL comparison of models")
        points = Plots.addNode("vtkMRMLTableNode", title)
        Plots.fillTable(
            points,
            {
                "number": [n for n, _case in known],
                "case": [case.name for _n, case in known],
                "current": [case.reference for _n, case in known],
                "new": [case.model for _n, case in known],
            },
        )
        pairs = Plots.addNode("vtkMRMLTableNode", title + _(": pairs"))
        Plots.fillTable(
            pairs,  # a gap after each pair
            {
                "number": [x for n, _case in known for x in (n, n, None)],
                "Dice": [y for _n, case in known for y in (case.reference, case.model, None)],
            },
        )
        chart = Plots.addChart(title, _("Case, by its number in the table"), _("Dice"))
        both = [value for _n, case in known for value in (case.reference, case.model)] or [0.0, 1.0]
        Plots.setRange(chart, (0, len(cases) + 1), Plots.shareRange(both))
        kind = slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter
        line = Plots.addSeries(chart, pairs, _("change"), "number", "Dice", Plots.COLORS["gray"], plotType=kind)
        series = [line]
        for side, column, color, marker in (
            ("reference", "current", "orange", line.MarkerStyleSquare),
            ("model", "new", "blue", line.MarkerStyleCircle),
        ):
            one = Plots.addSeries(
                chart, points, getattr(result, side).model, "number", column, Plots.COLORS[color], plotType=kind
            )
            one.SetLineStyle(one.LineStyleNone)
            one.SetMarkerStyle(marker)
            one.SetMarkerSize(9)
            one.SetLabelColumnName("case")  # named when pointed at
            series.append(one)
        self.legend = Plots.legend(series)
        self.view = Plots.addView(title, _("Comparison"), chart)
        self._nodes = [self.view, chart, *series, points, pairs]

    def remove(self) -> None:
        """Take everything out of the scene and forget the answer."""
        Plots.removeNodes(self._nodes)
        self._nodes, self.view, self.result = [], None, None

    def metricRows(self) -> list[tuple[str, str, str]]:
        """Metric, current model, new model: mean ± standard deviation over the cases."""
        sides, rows = (self.result.reference, self.result.model), []
        for key, title, digits in (
            ("dice", _("Dice"), 3),
            ("surface_dice", _("Surface Dice"), 3),
            ("hd95_mm", _("95 % Hausdorff (mm)"), 1),
        ):
            both = [_summary(getattr(side.mean, key), digits) for side in sides]
            rows.append((title, *both))
        if len(self.result.labels) > 1:
            for value in self.result.labels:
                scores = [side.labels[value] for side in sides]
                title = _("Dice of {label}").format(label=scores[0].name)
                rows.append((title, *(_summary(side.dice, 3) for side in scores)))
        return rows

    def caseRows(self) -> list[tuple[str, str, str]]:
        """Case with its number in the plot, its Dice with the current model and with the new one."""
        return [
            (f"{number}  {case.name}", _number(case.reference, 3), _number(case.model, 3))
            for number, case in enumerate(self.result.cases, 1)
        ]


def _summary(summary: Summary, digits: int) -> str:
    mean = _number(summary.mean, digits)
    return mean if summary.n < 2 else f"{mean} ± {_number(summary.sd, digits)}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
