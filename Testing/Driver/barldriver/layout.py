# SPDX-License-Identifier: Apache-2.0
"""What of the module can be seen in its panel, in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import qt


class Panel:
    """The panel in which Slicer shows a module.

    Args:
        window: Slicer's main window.
    """

    def __init__(self, window: qt.QMainWindow) -> None:
        import qt

        self._area = window.findChild(qt.QScrollArea, "ScrollArea")

    @property
    def room(self) -> tuple[int, int]:
        """Width and height of what is seen of the module."""
        view = self._area.viewport()
        return view.width, view.height

    @property
    def needed(self) -> tuple[int, int]:
        """Width and height that the module cannot do without."""
        hint = self._area.widget().minimumSizeHint
        return hint.width(), hint.height()

    def cut(self) -> list[str]:
        """Labels and buttons on screen whose text does not fit, and widgets that reach over the panel's right edge."""
        import qt

        found = []
        inside = self._area.widget()
        for widget in inside.findChildren(qt.QWidget):
            if not widget.visible or widget.width == 0:
                continue
            right = widget.mapTo(inside, qt.QPoint(0, 0)).x() + widget.width
            if isinstance(widget.parentWidget(), qt.QWidget) and _scrolls(widget, inside):
                continue
            texts = isinstance(widget, qt.QAbstractButton | qt.QLabel)
            if right > self._area.viewport().width:
                found.append(f"{_name(widget)} ends {right - self._area.viewport().width} px outside")
            elif texts and widget.text and widget.minimumSizeHint.width() > widget.width:
                found.append(f"{_name(widget)} lacks {widget.minimumSizeHint.width() - widget.width} px")
        return found


def _scrolls(widget, top) -> bool:
    """Whether a widget lies in a table, a list or a text that scrolls by itself."""
    import qt

    parent = widget.parentWidget()
    while parent is not None and parent is not top:
        if isinstance(parent, qt.QAbstractScrollArea):
            return True
        parent = parent.parentWidget()
    return False


def _name(widget) -> str:
    return widget.objectName or f"{widget.className()} '{getattr(widget, 'text', '')}'"
