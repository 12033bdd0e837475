# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic import Plots

if TYPE_CHECKING:
    from barl.worker.messages import Event

# A panel is a few hundred pixels wide: longer runs keep every second row, then every fourth ...
MAX_ROWS = 1000
WEIGHT = "consistency_weight"
_ITERATION = "iteration"
_SCALED = "consistency_weight_scaled"
_ACRONYMS = ("dpr", "pcbc", "cps")
_COLORS = ("black", "blue", "vermilion", "green", "purple", "sky", "orange")


class Rows:
    """A growing table that stays short. Rows are told by their iteration; going back forgets what came after.

    A run resumed from a checkpoint repeats the iterations since then.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []
        self._step, self._count = 1, 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Mapping[str, float]) -> None:
        while self._rows and self._rows[-1][_ITERATION] >= row[_ITERATION]:
            self._rows.pop()
        self._count += 1
        if (self._count - 1) % self._step:
            return
        self._rows.append(dict(row))
        if len(self._rows) > MAX_ROWS:
            self._rows = self._rows[::2]
            self._step *= 2

    def columns(self) -> dict[str, list[float | None]]:
        """Name -> values; None where a row lacks one."""
        names = dict.fromkeys(name for row in self._rows for name in row)
        return {name: [row.get(name) for row in self._rows] for name in names}


class Curve:
    """One chart of values over iterations, with its table, its series and a view; in the scene from its first row on.

    Args:
        title: Name of chart and table.
        yTitle: What is shown, with its unit if it has one.
        markers: Mark each point; for few of them.
        yRange: Fixed range of values; by default from 0 (or below) to a round number above the largest.
    """

    def __init__(self, title: str, yTitle: str, *, markers: bool, yRange: tuple[float, float] | None = None) -> None:
        self.rows = Rows()
        self.view = self.chart = self.table = None
        self._title, self._yTitle, self._markers, self._yRange = title, yTitle, markers, yRange
        self._series: dict = {}

    def show(self, names: Mapping[str, str]) -> None:
        """Bring the rows to the scene; ``names``: what the legend calls a column."""
        if self.chart is None or self.chart.GetScene() is None:
            self.remove()
            self.table = Plots.addNode("vtkMRMLTableNode", self._title)
            self.chart = Plots.addChart(self._title, _("Iteration"), self._yTitle)
            self.view = Plots.addView(self._title, self._yTitle, self.chart)
        columns = self.rows.columns()
        values = [v for name, column in columns.items() if name not in (_ITERATION, WEIGHT) for v in column]
        values = [value for value in values if value is not None] or [0.0]
        peak = max(1e-6, *values)
        weights = columns.get(WEIGHT)
        full = max([1.0, *(weight for weight in weights or () if weight is not None)])
        if weights:  # beside losses of 0.1 a weight of 1 would be all there is to see
            columns[_SCALED] = [None if weight is None else weight / full * peak for weight in weights]
        wasModified = self.chart.StartModify()  # one update of the view instead of one for each series
        Plots.fillTable(self.table, columns)
        for name in columns:
            if name not in (_ITERATION, _SCALED, *self._series):
                self._series[name] = self._addSeries(name, names.get(name) or termText(name))
        if weights:
            self._series[WEIGHT].SetYColumnName(_SCALED)
            self._series[WEIGHT].SetName(_("{term} (top: {full})").format(term=termText(WEIGHT), full=f"{full:g}"))
        # Said outright: in Slicer's plot view automatic axes do not follow a table that grows.
        low, high = self._yRange or (min(0.0, *values), Plots.roundTop(peak))
        Plots.setRange(self.chart, (0, max(1, *columns[_ITERATION])), (low, high))
        self.chart.EndModify(wasModified)

    def _addSeries(self, name: str, title: str) -> slicer.vtkMRMLPlotSeriesNode:
        number = sum(other != WEIGHT for other in self._series)
        color = "gray" if name == WEIGHT else _COLORS[number % len(_COLORS)]
        kind = slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter  # the type with an x axis of its own, lines included
        series = Plots.addSeries(self.chart, self.table, title, _ITERATION, name, Plots.COLORS[color], plotType=kind)
        styles = (series.LineStyleSolid, series.LineStyleDash, series.LineStyleDashDot, series.LineStyleDot)
        series.SetLineStyle(series.LineStyleDashDotDot if name == WEIGHT else styles[number % len(styles)])
        if self._markers:
            shapes = (series.MarkerStyleCircle, series.MarkerStyleSquare, series.MarkerStyleDiamond)
            series.SetMarkerStyle(shapes[number % len(shapes)])
            series.SetMarkerSize(7)
        return series

    @property
    def legend(self) -> str:
        """What the lines mean, as rich text."""
        return Plots.legend(self._series.values())

    def remove(self) -> None:
        """Take everything out of the scene; the rows stay."""
        Plots.removeNodes([self.view, self.chart, *self._series.values(), self.table])
        self.view = self.chart = self.table = None
        self._series = {}


class Curves:
    """The loss terms and the held-out Dice of one training run.

    Attributes:
        loss, dice: The two charts; their ``view`` is a plot view node once there is something to show.
    """

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._iteration = 0.0
        self._begin()

    def _begin(self) -> None:
        self.loss = Curve(_("BARL training: losses"), _("Loss"), markers=False)
        self.dice = Curve(_("BARL training: held-out Dice"), _("Dice"), markers=True, yRange=(0.0, 1.0))

    def clear(self, labels: Sequence = ()) -> None:
        """Forget everything and begin anew, for a project with these labels (``barl.project.labels.Label``)."""
        self.remove()
        self._labels = {f"dice {label.value}": label.name for label in labels}
        self._iteration = 0.0
        self._begin()

    def remove(self) -> None:
        """Take everything out of the scene."""
        self.loss.remove()
        self.dice.remove()

    def append(self, events: Sequence[Event]) -> None:
        """Take events of a run in their order; those without values are skipped."""
        changed = set()
        for event in events:
            values = dict(event.values or {})
            if event.stage == "validating" and isinstance(values.get("dice"), Mapping):  # the last one of a run
                values = {f"dice {label}": score for label, score in values["dice"].items()}
                values[_ITERATION] = self._iteration
            if values.get(_ITERATION) is None:
                continue
            self._iteration = values[_ITERATION]
            scores = {name: value for name, value in values.items() if name in self._labels}
            if scores:
                self.dice.rows.add({_ITERATION: self._iteration, **scores})
                changed.add(self.dice)
            elif len(values) > 1:
                self.loss.rows.add(values)
                changed.add(self.loss)
        for curve in changed:
            if len(curve.rows):
                curve.show(self._labels)


def termText(name: str) -> str:
    """A part of the loss as the legend calls it."""
    words = {"total": _("total"), "supervised": _("supervised"), WEIGHT: _("consistency weight")}
    return words.get(name) or (name.upper() if name in _ACRONYMS else name.replace("_", " "))
