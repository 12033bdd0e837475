# SPDX-License-Identifier: Apache-2.0
"""What a user draws in slice views, as Qt events: for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6 import QtCore, QtGui, QtTest, QtWidgets

from .enums import toPySide

_Qt = QtCore.Qt
_Test = QtTest.QTest


def _at(sliceWidget, ras):
    """Canvas of a slice view and the pixel on it that shows a point in RAS."""
    view = sliceWidget.sliceView()
    canvas = view.VTKWidget()
    x, y, _ = view.convertRASToXYZ(ras)
    return canvas, QtCore.QPoint(round(x), round(canvas.height - 1 - y))


def drag(
    sliceWidget: Any, *points: Sequence[float], button: int = _Qt.LeftButton, modifier: int = _Qt.NoModifier
) -> None:
    """Presses the button at the first point, moves over the others, lets go at the last.

    Args:
        sliceWidget: such as `slicer.app.layoutManager().sliceWidget("Red")`.
        points: in RAS, millimeters; one is a click.
        button: one of qt.Qt's mouse buttons.
        modifier: one of qt.Qt's keyboard modifiers.
    """
    button, modifier = toPySide(button), toPySide(modifier)
    canvas, first = _at(sliceWidget, points[0])
    last = first
    _move(canvas, first, _Qt.NoButton, modifier)  # nobody presses where the mouse was not before
    _Test.mousePress(canvas, button, modifier, first)
    for point in points[1:]:
        _, last = _at(sliceWidget, point)
        _move(canvas, last, button, modifier)
    _Test.mouseRelease(canvas, button, modifier, last)
    QtWidgets.QApplication.processEvents()


def _move(canvas, place, button, modifier) -> None:
    """Not QTest.mouseMove, which leaves out the button."""
    event = QtGui.QMouseEvent(
        QtCore.QEvent.MouseMove,
        QtCore.QPointF(place),
        QtCore.QPointF(canvas.mapToGlobal(place)),
        _Qt.NoButton,
        button,
        modifier,
    )
    QtWidgets.QApplication.sendEvent(canvas, event)
    QtWidgets.QApplication.processEvents()
