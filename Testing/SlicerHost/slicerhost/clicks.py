# SPDX-License-Identifier: Apache-2.0
"""What a person does at the window by mouse and keyboard, as Qt events: for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import qt
    from PySide6 import QtWidgets

CLICK = ("MouseButtonPress", "MouseButtonRelease")
DOUBLE_CLICK = (*CLICK, "MouseButtonDblClick", "MouseButtonRelease")


def mouse(widget: qt.QWidget, place: qt.QPoint, kinds: Sequence[str] = CLICK) -> None:
    """Sends events of the left mouse button.

    Args:
        widget: what is under the mouse; of tables and headers their viewport.
        place: a QPoint in it.
        kinds: names of QEvent types, in this order.
    """
    import qt

    for kind in kinds:
        held = qt.Qt.NoButton if kind.endswith("Release") else qt.Qt.LeftButton
        event = qt.QMouseEvent(
            getattr(qt.QEvent, kind),
            qt.QPointF(place),
            qt.QPointF(widget.mapToGlobal(place)),
            qt.Qt.LeftButton,
            held,
            qt.Qt.NoModifier,
        )
        qt.QApplication.sendEvent(widget, event)


def press(button: qt.QAbstractButton) -> None:
    """Clicks a button, which must be enabled: nobody can press one that is not."""
    assert button.enabled, f"{button.text} is disabled: {button.toolTip}"
    mouse(button, button.rect.center())


def strike(widget: qt.QWidget, key: int, *modifiers: int) -> None:
    """Presses a key, one of qt.Qt's, with the focus on a widget: shortcuts of its window see it."""
    import qt
    from PySide6.QtTest import QTest

    from .enums import toPySide

    window = widget.window()
    window.activateWindow()
    widget.setFocus()
    QTest.qWaitForWindowActive(window, 1000)
    held = type(toPySide(qt.Qt.NoModifier))(sum(int(modifier) for modifier in modifiers))
    QTest.keyClick(widget, toPySide(key), held)


def waitUntil(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Lets Qt's event loop run until ``condition()`` holds.

    Raises:
        AssertionError: it did not within ``seconds``.
    """
    import qt

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        qt.QApplication.processEvents()
        time.sleep(0.005)


def click(widget: qt.QWidget) -> None:
    """Clicks a check box on its mark."""
    import qt

    mouse(widget, qt.QPoint(8, widget.height // 2))


def key(widget: qt.QWidget, name: str) -> None:
    """Sends a key, by its name in qt.Qt, to a widget; shortcuts of its window do not see it."""
    import qt

    _sendKey(widget, getattr(qt.Qt, name), "")


def _sendKey(widget, code, text: str) -> None:
    import qt

    for kind in (qt.QEvent.KeyPress, qt.QEvent.KeyRelease):
        qt.QApplication.sendEvent(widget, qt.QKeyEvent(kind, code, qt.Qt.NoModifier, text))


def type_(widget: qt.QWidget, text: str) -> None:
    """Replaces the text of a line or a spin box by what is typed, and confirms it."""
    import qt

    line = widget if isinstance(widget, qt.QLineEdit) else widget.findChild(qt.QLineEdit)
    line.selectAll()
    for letter in text:
        _sendKey(line, 0, letter)
    key(line, "Key_Return")


def typePath(widget: QtWidgets.QWidget, path: str | Path) -> None:
    """Types into a ctkPathLineEdit."""
    type_(widget.comboBox().lineEdit(), str(path))


def editors(table: qt.QTableWidget) -> list[qt.QLineEdit]:
    """The lines in which cells are being edited; in PythonQt their private class is no subclass of QLineEdit."""
    import qt

    inside = table.viewport()
    return [line for line in inside.findChildren(qt.QLineEdit) if line.parent() == inside]


def typeCell(table: qt.QTableWidget, row: int, column: int, text: str) -> None:
    """Double-clicks a cell and types."""
    import qt

    item = table.item(row, column)
    table.scrollToItem(item)
    place = table.visualItemRect(item).center()
    mouse(table.viewport(), place, DOUBLE_CLICK)
    lines = editors(table)
    type_(lines[-1], text)  # editors of before may still wait to be deleted
    qt.QApplication.processEvents()
    assert table.item(row, column).text() == text, f"typed {text!r}, found {table.item(row, column).text()!r}"


def choose(combo: qt.QComboBox, text: str) -> None:
    """Chooses the item of a combo box that begins with ``text``, by the arrow keys."""
    wanted = next(n for n in range(combo.count) if combo.itemText(n).startswith(text))
    while combo.currentIndex != wanted:
        before = combo.currentIndex
        key(combo, "Key_Down" if wanted > before else "Key_Up")
        assert combo.currentIndex != before, f"{text} cannot be chosen"
