# SPDX-License-Identifier: Apache-2.0
"""The axes of the module's plots, drawn by VTK."""

from __future__ import annotations

import pytest
import vtk


def test_the_axis_of_shares_has_numbers_on_a_low_plot():
    """VTK puts numbers at least 30 pixels apart: between 0.44 and 0.88 it had found one, 0.5."""
    from BARLSegmentationLib.logic.Plots import roundTop, shareRange

    tops = {1.0: 1.0, 1.3: 2.0, 2.1: 5.0, 0.6: 1.0, 0.04: 0.05, 6e-6: 1e-5}
    assert [roundTop(value) for value in tops] == pytest.approx(list(tops.values()))

    spans = {(0.44, 0.88): (0.0, 1.0), (0.45, 0.75): (0.4, 0.8), (0.72, 0.88): (0.7, 0.9), (0.5, 0.5): (0.4, 0.6)}
    for (low, high), wanted in {**spans, (0.99, 1.0): (0.8, 1.0), (0.0, 0.0): (0.0, 0.2)}.items():
        span = shareRange([low, high])
        assert span == pytest.approx(wanted)
        view, chart, table = vtk.vtkContextView(), vtk.vtkChartXY(), vtk.vtkTable()
        for name in "xy":
            column = vtk.vtkDoubleArray()
            column.SetName(name)
            for value in (low, high):
                column.InsertNextValue(value)
            table.AddColumn(column)
        chart.AddPlot(vtk.vtkChart.LINE).SetInputData(table, 0, 1)
        axis = chart.GetAxis(vtk.vtkAxis.LEFT)
        axis.SetBehavior(vtk.vtkAxis.FIXED)
        axis.SetRange(*span)
        view.GetScene().AddItem(chart)
        view.GetRenderWindow().SetOffScreenRendering(1)
        view.GetRenderWindow().SetSize(400, 130)
        view.Render()
        assert axis.GetTickLabels().GetNumberOfValues() >= 2, span
