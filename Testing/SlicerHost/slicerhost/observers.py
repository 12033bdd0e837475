# SPDX-License-Identifier: Apache-2.0
"""VTK observers that do not keep a widget alive."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import shiboken6

if TYPE_CHECKING:
    import vtk
    from PySide6 import QtCore


class Observers:
    """Calls methods of ``owner`` by name until `clear` is called, or ``owner`` or its C++ half is gone."""

    def __init__(self, owner: QtCore.QObject) -> None:
        self._owner = weakref.ref(owner)
        self._tags = []

    def add(self, subject: vtk.vtkObject, event: int | str, methodName: str, priority: float = 0.0) -> None:
        owner = self._owner

        def call(caller, eventName, callData=None):
            alive = owner()
            if alive is not None and shiboken6.isValid(alive):
                getattr(alive, methodName)(caller, eventName)

        self._tags.append((subject, subject.AddObserver(event, call, priority)))

    def clear(self) -> None:
        for subject, tag in self._tags:
            subject.RemoveObserver(tag)
        self._tags = []
