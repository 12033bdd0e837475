# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import qt


class Pieces:
    """Does work in pieces, one in each turn of the event loop, so that the window is served in between.

    Args:
        work: Does one piece until its next ``yield``.
        onDone: Gets what it returns.
    """

    def __init__(self, work: Generator[Any, None, Any], onDone: Callable[[Any], None]) -> None:
        self._work: Generator[Any, None, Any] | None = work
        self._onDone = onDone
        self._soon()

    def stop(self) -> None:
        """Do no more of it."""
        self._work = None

    def _soon(self) -> None:
        qt.QTimer.singleShot(0, self._next)

    def _next(self) -> None:
        if self._work is None:
            return
        try:
            next(self._work)
        except StopIteration as end:
            self._work = None
            self._onDone(end.value)
        else:
            self._soon()
