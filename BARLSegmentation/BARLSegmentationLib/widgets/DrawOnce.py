# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import TracebackType

import qt
import slicer


class DrawOnce:
    """A context in which many changes of the views are drawn once: ``with drawOnce: ...``.

    Slicer's views ask to be drawn partly at once and partly through the event queue. Views that resume at the end of
    the context would be drawn for the first kind and again for the second; they resume after the queue instead.

    Args:
        parent: Owns the timer.
    """

    def __init__(self, parent: qt.QWidget) -> None:
        self._timer = qt.QTimer(parent)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._resume)
        self._paused = False

    @property
    def isIdle(self) -> bool:
        return not self._paused

    def __enter__(self) -> None:
        if not self._paused:
            self._paused = True
            slicer.app.pauseRender()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.start()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            slicer.app.resumeRender()

    def close(self) -> None:
        """Resume now."""
        self._timer.stop()
        self._resume()
