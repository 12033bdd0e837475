# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Callable


class Signal:
    """Calls listeners. Plain Python, because signals declared in Python are not reliable in PythonQt and because logic
    must not import Qt.

    A listener that fails is logged and keeps neither the others nor the sender from going on.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable] = []

    def connect(self, listener: Callable) -> None:
        """Have ``listener`` called at every ``emit``, with its arguments; once, however often it is connected."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def disconnect(self, listener: Callable) -> None:
        """Stop calling ``listener``; one that is not connected is no error."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def emit(self, *arguments: object) -> None:
        for listener in list(self._listeners):  # a listener may disconnect itself
            try:
                listener(*arguments)
            except Exception:
                logging.exception("BARL: a listener failed")

    def clear(self) -> None:
        """Forget all listeners."""
        self._listeners.clear()
