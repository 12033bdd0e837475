# SPDX-License-Identifier: Apache-2.0
"""Mouse and keys of the Segment Editor's widget: events of the slice views for the active effect, and shortcuts."""

from __future__ import annotations

import shiboken6
import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .signals import complain

_EVENTS = (
    "LeftButtonPressEvent",
    "LeftButtonReleaseEvent",
    "RightButtonPressEvent",
    "MouseMoveEvent",
    "MouseWheelForwardEvent",
    "MouseWheelBackwardEvent",
    "KeyPressEvent",
)


class SegmentEditorEvents:
    """The part of qMRMLSegmentEditorWidget that listens to the views and to the keyboard."""

    def _switchEffect(self, effect):
        """An effect listens to the views while it is active, and only then."""
        if self._shownEffect is not None:
            self._shownEffect._stop()
        self._shownEffect = effect
        if effect is None:
            self.removeViewObservations()
        else:
            self.setupViewObservations()

    def _onSceneCloses(self, *_):
        """The views go: an effect that still draws in them crashes Slicer."""
        if self._shownEffect is not None:
            complain(
                f"Slicer crashes here: {self._shownEffect.name} is active while the scene closes. On StartCloseEvent, "
                "call setSegmentationNode(None) and removeViewObservations() of the Segment Editor's widget."
            )
            self._switchEffect(None)

    def hideEvent(self, event: QtGui.QHideEvent) -> None:
        super().hideEvent(event)
        QtCore.QTimer.singleShot(0, self._afterHiding)  # whoever left the editor may end the effect until then

    def _afterHiding(self):
        gone = not shiboken6.isValid(self) or self.visible or not self.window().visible
        if gone or self.window() is self or self._shownEffect is None:
            return
        complain(
            f"{self._shownEffect.name} stays active although its editor was left: its brush stays on Slicer's views. "
            "Call setActiveEffect(None) where the module or the section is left."
        )

    def setupViewObservations(self) -> None:
        self.removeViewObservations()
        manager = slicer.app.layoutManager()
        for name in () if manager is None else manager.sliceViewNames():
            view = manager.sliceWidget(name)
            interactor = view.sliceView().interactor()
            for event in _EVENTS:
                self._observe(interactor, event, view)

    def _observe(self, interactor, event, view):
        def call(caller, name):
            listening = self._shownEffect is not None and self._node is not None
            if not listening or self._scene is None or self._scene.IsClosing():
                return
            if self._shownEffect._process(caller, name, view):
                caller.GetCommand(tag).AbortFlagOn()  # keep it from the view's own interactor style

        tag = interactor.AddObserver(event, call, 1.0)
        self._viewTags.append((interactor, tag))

    def removeViewObservations(self) -> None:
        for interactor, tag in self._viewTags:
            interactor.RemoveObserver(tag)
        self._viewTags = []

    def installKeyboardShortcuts(self, parent: QtWidgets.QWidget | None = None) -> None:
        self.uninstallKeyboardShortcuts()
        parent = parent or slicer.app.mainWindow()
        names = list(self._effects)
        keys = {str(number + 1): lambda name=name: self._toggleEffect(name) for number, name in enumerate(names)}
        keys |= {"Escape": lambda: self.setActiveEffect(None), "Space": lambda: self._toggleEffect(self._lastEffect)}
        keys |= {"Z": self.undo, "Ctrl+Z": self.undo, "Y": self.redo, "Ctrl+Y": self.redo}
        keys |= {"Q": self.selectPreviousSegment, "W": self.selectNextSegment}
        keys |= {",": self.selectPreviousSegment, ".": self.selectNextSegment}
        for key, action in keys.items():
            shortcut = QtGui.QShortcut(QtGui.QKeySequence(key), parent)
            shortcut.connect("activated()", action)
            self._shortcuts.append(shortcut)

    def _toggleEffect(self, name):
        active = self.activeEffect()
        self.setActiveEffectByName("" if active is not None and active.name == name else name or "")

    def uninstallKeyboardShortcuts(self) -> None:
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
