# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import qt
import slicer

from BARLSegmentationLib.logic.Attention import Attention
from BARLSegmentationLib.logic.Overlay import fillNode

if TYPE_CHECKING:
    from BARLSegmentationLib.logic.Correction import Correction

CLOSE_ACTION, FILE_MENU = "FileCloseSceneAction", "FileMenu"  # as Slicer's main window names them
_MENU_KEYS = (qt.Qt.Key_Return, qt.Qt.Key_Enter, qt.Qt.Key_Space)


class SaveQuestion(qt.QObject):
    """Keeps Slicer from asking whether to save what the project holds already.

    Before Slicer quits or closes the scene, it looks for nodes that its editors show and that were changed since they
    were read. Just before, an edit is kept as a draft, and the nodes of the case on screen are hidden from editors
    until Slicer has looked. An edit that could not be kept stays in Slicer's list.

    Args:
        correction: The outline of the case on screen.
    """

    def __init__(self, correction: Correction) -> None:
        qt.QObject.__init__(self)
        self._correction = correction
        self._hidden: list[slicer.vtkMRMLNode] = []
        self._timer = qt.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self.show)
        window = slicer.util.mainWindow()
        self._window = window
        self._action = window.findChild("QAction", CLOSE_ACTION) if window is not None else None
        self._menu = window.findChild("QMenu", FILE_MENU) if window is not None else None
        self._watched = [watched for watched in (window, self._action, self._menu) if watched is not None]
        for watched in self._watched:
            watched.installEventFilter(self)

    def eventFilter(self, watched: qt.QObject, event: qt.QEvent) -> bool:
        if self._asksNow(watched, event):
            self.hide()
        return False

    def _asksNow(self, watched: qt.QObject, event: qt.QEvent) -> bool:
        """Whether Slicer is about to look: the window closes, or the scene by its key or its entry in the menu."""
        kind = event.type()
        if kind == qt.QEvent.Close:
            return watched == self._window
        if kind == qt.QEvent.Shortcut:
            return watched == self._action
        if kind == qt.QEvent.MouseButtonRelease or (kind == qt.QEvent.KeyPress and event.key() in _MENU_KEYS):
            return watched == self._menu and self._menu.activeAction() == self._action
        return False

    def hide(self) -> None:
        """Hide the nodes that the project holds, until the event loop runs again."""
        self._correction.session.beforeClose.emit()
        self._setHidden([node for node in self._heldNodes() if not node.GetHideFromEditors()], True)
        self._timer.start(0)

    def _heldNodes(self) -> list:
        """What the project holds: not a volume that was changed, nor an outline that could not be stored as a whole."""
        loaded = self._correction.session.loaded
        if loaded is None:
            return []
        nodes = [node for node in (*loaded.volumes, loaded.uncertainty) if node and not node.GetModifiedSinceRead()]
        if not self._correction.isChanged() and not self._correction.leftOut():
            nodes.append(self._correction.segmentation)
        return [node for node in (*nodes, Attention.node(), fillNode()) if node and node.GetScene() is not None]

    def show(self) -> None:
        """Show the hidden nodes to editors again."""
        hidden, self._hidden = self._hidden, []
        self._setHidden(hidden, False)

    def _setHidden(self, nodes: list, hidden: bool) -> None:
        for node in nodes:
            # Without an event: selectors would choose another node, and views would lose the scan.
            before = node.GetDisableModifiedEvent()
            node.SetDisableModifiedEvent(True)
            node.SetHideFromEditors(hidden)
            node.SetDisableModifiedEvent(before)
        self._hidden = nodes if hidden else []

    def cleanup(self) -> None:
        self._timer.stop()
        self.show()
        for watched in self._watched:
            watched.removeEventFilter(self)
        self._watched = []
