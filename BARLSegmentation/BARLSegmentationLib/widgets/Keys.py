# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import qt
import slicer


class Keys:
    """Keyboard shortcuts of Slicer's window, and the menu of a button that names them.

    Args:
        button: A QToolButton; its menu does the same by mouse.
        actions: Keys, what they do, and what does it.
    """

    def __init__(self, button: qt.QToolButton, actions: list[tuple[str, str, Callable[[], None]]]) -> None:
        self._shortcuts: list[qt.QShortcut] = []
        menu, window = qt.QMenu(button), slicer.util.mainWindow()
        for keys, text, slot in actions:
            menu.addAction(f"{keys}:  {text}").connect("triggered()", slot)
            if window is not None:
                shortcut = qt.QShortcut(qt.QKeySequence(keys), window)
                shortcut.enabled = False
                shortcut.connect("activated()", slot)
                self._shortcuts.append(shortcut)
        button.setMenu(menu)

    def enable(self, enabled: bool) -> None:
        for shortcut in self._shortcuts:
            shortcut.enabled = enabled

    def remove(self) -> None:
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
