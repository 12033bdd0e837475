# SPDX-License-Identifier: Apache-2.0
"""A VTK render window inside a Qt widget, on any Qt platform and without a display.

VTK draws off screen; the picture is painted as a QImage, and Qt's mouse and key events are handed to VTK's interactor.
So `widget.grab()` shows the pixels, which it does not with a native OpenGL window.
"""

from __future__ import annotations

import numpy as np
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

_BUTTONS = {
    QtCore.Qt.MouseButton.LeftButton: "Left",
    QtCore.Qt.MouseButton.RightButton: "Right",
    QtCore.Qt.MouseButton.MiddleButton: "Middle",
}


class VTKCanvas(QtWidgets.QWidget):
    """Paints ``renderWindow`` and feeds ``interactor``."""

    resized = QtCore.Signal(int, int)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._renderWindow = vtk.vtkRenderWindow()
        self._renderWindow.SetOffScreenRendering(1)
        self._renderWindow.ShowWindowOff()
        self._renderWindow.SetMultiSamples(0)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._renderWindow)
        # Interactor styles ask for a frame after each event; frames are drawn when Qt paints instead.
        self._interactor.SetEnableRender(False)
        self._position = (0, 0)
        self._image = None
        self._outOfDate = True
        self._paused = 0
        self._closed = False
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self.update)
        self._grabber = vtk.vtkWindowToImageFilter()
        self._grabber.SetInput(self._renderWindow)
        self._grabber.ReadFrontBufferOff()
        self._grabber.ShouldRerenderOff()
        self.setMouseTracking(True)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self.setMinimumSize(60, 60)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Expanding)

    def scheduleRender(self) -> None:
        """Draws a new frame when the event loop comes to it; several requests make one frame."""
        self._outOfDate = True
        if not self._paused and not self._closed and not self._timer.isActive():
            self._timer.start()

    def setPaused(self, paused: bool) -> None:
        self._paused = max(0, self._paused + (1 if paused else -1))
        if not self._paused and self._outOfDate:
            self.scheduleRender()

    def forceRender(self) -> None:
        if self._closed:
            return
        self._renderWindow.Render()
        self._grabber.Modified()
        self._grabber.Update()
        frame = self._grabber.GetOutput()
        width, height, _ = frame.GetDimensions()
        pixels = vtk_to_numpy(frame.GetPointData().GetScalars()).reshape(height, width, 3)
        pixels = np.flipud(pixels).tobytes()
        image = QtGui.QImage(pixels, width, height, 3 * width, QtGui.QImage.Format_RGB888)
        self._image = image.copy()  # QImage does not own the bytes
        self._outOfDate = False

    def closeCanvas(self) -> None:
        self._closed = True
        self._timer.stop()

    # Qt events -------------------------------------------------------------------------------------------------------

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        if self._outOfDate and not self._paused:
            self.forceRender()
        painter = QtGui.QPainter(self)
        if self._image is not None:
            painter.drawImage(self.rect, self._image)
        painter.end()

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        size = event.size()
        self._renderWindow.SetSize(size.width(), size.height())
        self._interactor.UpdateSize(size.width(), size.height())
        self._interactor.ConfigureEvent()
        self.resized.emit(size.width(), size.height())
        self.scheduleRender()

    def _forward(self, event, name, repeat=0, key="\0", symbol=None):
        modifiers = event.modifiers()
        if hasattr(event, "position"):
            self._position = (int(event.position().x()), int(event.position().y()))
        self._interactor.SetEventInformationFlipY(
            *self._position,
            bool(modifiers & QtCore.Qt.KeyboardModifier.ControlModifier),
            bool(modifiers & QtCore.Qt.KeyboardModifier.ShiftModifier),
            key,
            repeat,
            symbol,
        )
        self._interactor.InvokeEvent(name)
        self.scheduleRender()

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        if event.button() in _BUTTONS:
            self._forward(event, _BUTTONS[event.button()] + "ButtonPressEvent")

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:
        if event.button() in _BUTTONS:
            self._forward(event, _BUTTONS[event.button()] + "ButtonReleaseEvent")

    def mouseDoubleClickEvent(self, event: QtCore.QEvent) -> None:
        if event.button() in _BUTTONS:
            name = _BUTTONS[event.button()]
            self._forward(event, name + "ButtonPressEvent", repeat=1)
            self._forward(event, name + "ButtonDoubleClickEvent", repeat=1)

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        self._forward(event, "MouseMoveEvent")

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        forward = event.angleDelta().y() > 0
        self._forward(event, "MouseWheelForwardEvent" if forward else "MouseWheelBackwardEvent")

    def keyPressEvent(self, event: QtGui.QKeyEvent) -> None:
        self._key(event, "KeyPressEvent")
        self._key(event, "CharEvent")

    def keyReleaseEvent(self, event: QtGui.QKeyEvent) -> None:
        self._key(event, "KeyReleaseEvent")

    def _key(self, event, name):
        text = event.text()
        key = text[0] if text and ord(text[0]) < 128 else "\0"
        self._forward(event, name, key=key, symbol=QtGui.QKeySequence(event.key()).toString())

    def enterEvent(self, event: QtCore.QEvent) -> None:
        self._interactor.InvokeEvent("EnterEvent")

    def leaveEvent(self, event: QtCore.QEvent) -> None:
        self._interactor.InvokeEvent("LeaveEvent")
