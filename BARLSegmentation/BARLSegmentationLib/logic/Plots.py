# SPDX-License-Identifier: Apache-2.0
"""Tables, series, charts and views of plots in the scene, set up for a narrow panel.

None of these nodes is saved with the scene: what they show is in the project and is read from there again.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

# Okabe and Ito's colors without the yellow that vanishes on white: told apart with any kind of color vision.
COLORS = {
    "black": (0.0, 0.0, 0.0),
    "blue": (0.0, 0.447, 0.698),
    "vermilion": (0.835, 0.369, 0.0),
    "green": (0.0, 0.620, 0.451),
    "purple": (0.800, 0.475, 0.655),
    "sky": (0.337, 0.706, 0.914),
    "orange": (0.902, 0.624, 0.0),
    "gray": (0.5, 0.5, 0.5),
}


def addNode(className: str, name: str) -> slicer.vtkMRMLNode:
    """A node that is not saved with the scene."""
    node = slicer.mrmlScene.AddNewNodeByClass(className, name)
    node.SetSaveWithScene(False)
    return node


def addChart(title: str, xTitle: str, yTitle: str) -> slicer.vtkMRMLPlotChartNode:
    """A chart whose texts are small enough for a panel and whose points cannot be dragged away."""
    chart = addNode("vtkMRMLPlotChartNode", title)
    chart.SetTitle(title)
    chart.SetTitleVisibility(False)  # the panel says what it is, in the window's own font
    chart.SetXAxisTitle(xTitle)
    chart.SetYAxisTitle(yTitle)
    chart.SetLegendVisibility(False)  # it would cover a third of so small a plot: ``legend`` goes beside it
    chart.SetAxisTitleFontSize(12)
    chart.SetAxisLabelFontSize(11)
    chart.SetEnablePointMoveAlongX(False)
    chart.SetEnablePointMoveAlongY(False)
    return chart


def addSeries(
    chart: slicer.vtkMRMLPlotChartNode,
    table: slicer.vtkMRMLTableNode,
    name: str,
    x: str,
    y: str,
    color: tuple[float, float, float],
    *,
    plotType: int,
) -> slicer.vtkMRMLPlotSeriesNode:
    """A series of ``table``'s columns ``x`` and ``y``, shown in ``chart`` under ``name``."""
    series = addNode("vtkMRMLPlotSeriesNode", name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetPlotType(plotType)
    series.SetXColumnName(x)
    series.SetYColumnName(y)
    series.SetColor(*color)
    series.SetMarkerStyle(series.MarkerStyleNone)
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    return series


def legend(series: Sequence) -> str:
    """What the lines and markers of series nodes mean, as rich text in their colors."""
    entries = []
    for one in series:
        lines = {one.LineStyleDash: "– –", one.LineStyleDot: "· · ·", one.LineStyleDashDot: "– ·"}
        lines[one.LineStyleDashDotDot] = "– · ·"
        markers = {one.MarkerStyleSquare: "■", one.MarkerStyleDiamond: "◆", one.MarkerStyleCircle: "●"}
        symbol = markers.get(one.GetMarkerStyle(), "") + " "
        if one.GetLineStyle() != one.LineStyleNone:
            symbol += lines.get(one.GetLineStyle(), "—")
        color = "#" + "".join(f"{round(255 * part):02x}" for part in one.GetColor())
        entry = f'<b><font color="{color}">{_fixed(symbol.strip())}</font></b>{_fixed(" " + one.GetName())}'
        entries.append(entry)
    return "&nbsp;&nbsp; ".join(entries)


def _fixed(text: str) -> str:
    """Rich text that is not broken into lines, neither at its spaces nor behind its dashes."""
    return html.escape(text).replace(" ", "&nbsp;").replace("–", "–&#8288;")


def addView(name: str, label: str, chart: slicer.vtkMRMLPlotChartNode) -> slicer.vtkMRMLPlotViewNode:
    """A plot view for a widget of a panel: it belongs to the chart, so that Slicer's layout leaves it alone."""
    view = slicer.mrmlScene.CreateNodeByClass("vtkMRMLPlotViewNode")
    view.UnRegister(None)
    view.SetName(name)
    view.SetLayoutName(name)
    view.SetLayoutLabel(label)
    view.SetSaveWithScene(False)
    view.SetAndObserveParentLayoutNodeID(chart.GetID())
    view = slicer.mrmlScene.AddNode(view)
    view.SetDoPropagatePlotChartSelection(False)  # a chart chosen elsewhere is not for this view
    view.SetPlotChartNodeID(chart.GetID())
    return view


def setRange(chart: slicer.vtkMRMLPlotChartNode, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Fix both axes of a chart."""
    chart.SetXAxisRangeAuto(False)
    chart.SetYAxisRangeAuto(False)
    chart.SetXAxisRange(*x)
    chart.SetYAxisRange(*y)


def roundTop(value: float) -> float:
    """The end of an axis that begins at 0: the next of 1, 2, 5, 10, ..., to which also a low plot gives a number."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(top for top in (power, 2 * power, 5 * power, 10 * power) if top >= value)


def shareRange(values: Sequence[float]) -> tuple[float, float]:
    """The shortest axis for values of 0 to 1 that has two numbers or three also on a plot of 100 pixels: two steps of
    0.1, 0.2 or 0.5, with room for the markers."""
    for tenths in (1, 2, 5):
        step, room = tenths / 10, tenths / 80
        for number in range(10 // tenths - 1):
            low, high = round(number * step, 1), round((number + 2) * step, 1)
            if min(values) >= low + room * (low > 0) and max(values) <= high - room * (high < 1):
                # 0.9 - 0.7 is more than twice 0.1, for which VTK would take steps of 0.2.
                return low, high if high - low <= 2 * step else float(np.nextafter(high, 0))
    return 0.0, 1.0


def fillTable(node: slicer.vtkMRMLTableNode, columns: Mapping[str, Sequence]) -> None:
    """Replace the whole content of a table: texts stay texts, all else becomes numbers (None: nan).

    A single row is given twice: VTK complains of a line through one point.
    """
    table = vtk.vtkTable()
    for name, values in columns.items():
        values = [*values, *values] if len(values) == 1 else values
        if any(isinstance(value, str) for value in values):
            column = vtk.vtkStringArray()
            for value in values:
                column.InsertNextValue(str(value))
        else:
            column = numpy_to_vtk(np.array(values, dtype=float).reshape(-1), deep=True)
        column.SetName(name)
        table.AddColumn(column)
    node.SetAndObserveTable(table)


def removeNodes(nodes: Sequence) -> None:
    """Remove those that are still in the scene."""
    for node in nodes:
        if node is not None and node.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(node)
