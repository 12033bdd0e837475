# SPDX-License-Identifier: Apache-2.0
"""Enums as PythonQt shows them: subclasses of int, whose `|` and `+` give a plain int.

PySide6 has Python enums. Every enum of the Qt modules is replaced by a class of ours of the same name; `toPySide` and
`fromPySide` translate at the border, that is in every wrapped call (see `calls`).
"""

from __future__ import annotations

import enum

_facades: dict[type[enum.Enum], type[Enum]] = {}


class Enum(int):
    """Base of all enums in `qt` and `ctk`; `pyside` is the PySide6 enum behind it (None for enums of CTK and qMRML)."""

    pyside: type[enum.Enum] | None = None

    def __repr__(self) -> str:
        return int.__repr__(self)

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        # Code of the stand-in may compare with a PySide6 member; module code never sees one.
        return int(self) == (other.value if isinstance(other, enum.Enum) else other)

    __hash__ = int.__hash__


def define(name: str, members: dict[str, int], pyside: type[enum.Enum] | None = None) -> type[Enum]:
    """A new enum class with `members` as attributes."""
    cls = type(name, (Enum,), {"pyside": pyside})
    if pyside is not None:  # PySide6 evaluates these names when it reads its signatures
        cls.__module__, cls.__qualname__ = pyside.__module__, pyside.__qualname__
    for member, value in members.items():
        setattr(cls, member, cls(value))
    if pyside is not None:
        _facades[pyside] = cls
    return cls


def replace(owner: object, name: str, pyside: type[enum.Enum]) -> dict[str, Enum]:
    """Puts our enum where `owner.name` was the PySide6 one; returns its members.

    `pyside` may have been replaced already under another name (QFlags share the class of their enum).
    """
    cls = _facades.get(pyside)
    if cls is None:
        members = {n: int(m.value) for n, m in pyside.__members__.items() if isinstance(m.value, int)}
        cls = define(pyside.__name__, members, pyside)
    setattr(owner, name, cls)
    return {n: getattr(cls, n) for n in pyside.__members__ if hasattr(cls, n)}


def fromPySide(value: enum.Enum) -> int:
    """What PythonQt returns: the enum's int subclass, for flags a plain int."""
    if not isinstance(value.value, int):
        return value  # the few enums of PySide6 itself that are no C++ enums
    cls = _facades.get(type(value))
    return int(value.value) if cls is None or isinstance(value, enum.Flag) else cls(value.value)


def toPySide(value: Enum) -> enum.Enum | int:
    """The PySide6 member for one of ours; a plain int where there is none."""
    if value.pyside is None:
        return int(value)
    try:
        return value.pyside(int(value))
    except ValueError:
        return int(value)


def pysideOf(annotation: object) -> type[enum.Enum] | None:
    """The PySide6 enum that a type in a PySide6 signature stands for, if it is an enum."""
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return annotation.pyside
        if issubclass(annotation, enum.Enum):
            return annotation
    return None
