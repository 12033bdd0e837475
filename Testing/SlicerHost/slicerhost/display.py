# SPDX-License-Identifier: Apache-2.0
"""Where the window is drawn: on a display or off the screen; pictures of it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .host import Host

_TRY = "from PySide6.QtWidgets import QApplication; QApplication([])"


def works() -> bool:
    """Whether Qt can open a window; Qt ends the process if it cannot, hence the question in a process of its own."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        print("No display")
        return False
    tried = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, text=True, check=False)
    if tried.returncode:
        print("Qt cannot use this display:\n" + tried.stderr.strip(), file=sys.stderr)
    return tried.returncode == 0


def goOffscreen() -> None:
    """Let Qt and VTK draw without a display; call it before either is imported."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    if sys.platform == "linux":
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


def hushQt() -> None:
    """Drop the one message that Qt's offscreen platform prints for every window; others go to standard error."""
    from PySide6 import QtCore

    QtCore.qInstallMessageHandler(
        lambda kind, context, text: "propagateSizeHints" in text or print(text, file=sys.stderr)
    )


def picture(host: Host) -> bytes:
    """The window as PNG, once its views are drawn."""
    from PySide6 import QtCore

    host.processEvents(0.3)
    buffer = QtCore.QBuffer()
    buffer.open(QtCore.QIODevice.WriteOnly)
    host.window.grab().toImage().save(buffer, "PNG", 0)  # 0: packed as tightly as can be
    return bytes(buffer.data().data())
