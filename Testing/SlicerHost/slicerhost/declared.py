# SPDX-License-Identifier: Apache-2.0
"""What the real CTK and qMRML classes offer to Python (declared.json), and stand-ins held to it.

A stand-in may lack something, but then it says so (`NotInHost`) instead of behaving as if Slicer had no such name.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import shiboken6
from PySide6 import QtCore

from . import calls, enums

_ALL = json.loads(Path(__file__).with_name("declared.json").read_text(encoding="utf-8"))
_GENERAL = _ALL.pop("")


class NotInHost(NotImplementedError):
    """Slicer has this, the stand-in for its window does not: no AttributeError, so that hasattr() cannot hide it."""

    def __init__(self, cls: type | str, name: str) -> None:
        owner = cls if isinstance(cls, str) else cls.__name__
        super().__init__(f"{owner} has '{name}' in Slicer, but its stand-in for tests lacks it; add it there if needed")


def known(name: str) -> bool:
    return name in _ALL


def otherClass(name: str) -> bool:
    """Whether `name` is a class of CTK for which declared.json holds no details."""
    return name in _GENERAL["other ctk classes"] or name in _ALL


def qtBase(name: str) -> str:
    """Name of the first base class that is Qt's own."""
    while name in _ALL:
        name = _ALL[name]["base"]
    return name


@functools.cache
def _chain(cls: type) -> tuple[dict, ...]:
    """Entries for `cls` and its bases, by the real class hierarchy."""
    name, found = cls.__name__, []
    while name in _ALL:
        found.append(_ALL[name])
        name = _ALL[name]["base"]
    return tuple(found)


def split(signature: str) -> tuple[str, list[str]]:
    """Name and types of `name(type,type=)`; the mark of a default is kept."""
    name, _, rest = signature.partition("(")
    return name, [a for a in rest.rstrip(")").split(",") if a]


@functools.cache
def signals(cls: type) -> tuple[str, ...]:
    """Normalized signatures of the declared signals, arguments with a default also left out."""
    result = []
    for entry in _chain(cls):
        for signature in entry.get("signals", ()):
            name, kinds = split(signature)
            while True:
                result.append(f"{name}({','.join(k.rstrip('=') for k in kinds)})")
                if not kinds or not kinds[-1].endswith("="):
                    break
                kinds.pop()
    return tuple(result)


@functools.cache
def names(cls: type) -> frozenset[str]:
    """All public names declared by `cls` and those of its bases that are not Qt's."""
    result: set[str] = set()
    for entry in _chain(cls):
        result |= set(entry.get("properties", ())) | {split(s)[0] for s in entry.get("signals", ())}
        result |= {split(s)[0] for s in entry.get("slots", ())} | set(entry.get("enums", ()))
        for members in entry.get("enums", {}).values():
            result |= set(members)
    return frozenset(result)


@functools.cache
def properties(cls: type) -> dict[str, str]:
    """Declared properties and their C++ types (ending in ` const` if read-only)."""
    return {n: k for entry in reversed(_chain(cls)) for n, k in entry.get("properties", {}).items()}


def isEnum(kind: str) -> bool:
    """Whether a declared type is an enum or a set of flags."""
    return kind[:1].isupper() and (not kind.startswith("Q") or "::" in kind) and "<" not in kind


def addEnums(cls: type) -> None:
    for name, members in _ALL.get(cls.__name__, {}).get("enums", {}).items():
        kind = enums.define(name, members)
        setattr(cls, name, kind)
        for member in members:
            setattr(cls, member, getattr(kind, member))


def _vtkConverter(kind: str):
    def convert(value, strict):
        if value is None:
            return None
        if not hasattr(value, "IsA"):
            raise TypeError("method requires a VTK object")
        if not value.IsA(kind):
            raise TypeError(f"method requires a {kind}, a {value.GetClassName()} was provided.")
        return value

    return convert


def _converter(kind: str):
    simple = {
        "double": calls.toFloat,
        "int": calls.toInt,
        "bool": calls.toBool,
        "QString": calls.toStr,
        "QStringList": calls.toStrings,
        "qSlicerIO::IOFileType": calls.toStr,
        "qSlicerIO::IOProperties": lambda value, strict: value if isinstance(value, dict) else calls.Refused,
    }
    if kind in simple:
        return simple[kind]
    if kind.startswith("vtk") and kind.endswith("*"):
        return _vtkConverter(kind[:-1])
    if "::" in kind or isEnum(kind):
        return calls.toInt
    return lambda value, strict: value


def strictSlots(cls: type) -> None:
    """Gives the declared slots that `cls` defines PythonQt's rules: arity, conversion, ValueError, no kwargs."""
    overloads: dict[str, list] = {}
    for signature in _ALL.get(cls.__name__, {}).get("slots", ()):
        name, kinds = split(signature)
        required = sum(not k.endswith("=") for k in kinds)
        text = f"{name}({', '.join(k.rstrip('=') for k in kinds)})"
        overloads.setdefault(name, []).append(([_converter(k.rstrip("=")) for k in kinds], required, text))
    base = getattr(QtCore, "QObject", object)
    for name, variants in overloads.items():
        function = cls.__dict__.get(name)
        if not callable(function) or isinstance(function, (type, base)):
            continue
        setattr(cls, name, _strict(function, name, variants))


def _strict(function, name, variants):
    @functools.wraps(function)
    def slot(self, *arguments, **named):
        if named:
            raise ValueError(f"Called {name} with keyword arguments, but called slot does not support kwargs.")
        if not shiboken6.isValid(self):
            raise ValueError(f"Trying to call '{name}' on a destroyed {calls.cppClass(type(self)).__name__} object")
        for strict in (True, False) if len(variants) > 1 else (False,):
            for kinds, required, _text in variants:
                if required <= len(arguments) <= len(kinds):
                    given = [calls.take(k, a, strict) for k, a in zip(kinds, arguments, strict=False)]
                    if all(g is not calls.Refused for g in given):
                        return calls.fromQt(function(self, *given))
        if len(variants) == 1:
            kinds, required, text = variants[0]
            many = "" if required <= len(arguments) <= len(kinds) else "number of "
            raise ValueError(f"Called {text} with wrong {many}arguments: {arguments!r}")
        raise ValueError(
            f"Could not find matching overload for given arguments:\n{arguments!r}\n"
            " The following slots are available:\n" + "\n".join(v[2] for v in variants) + "\n"
        )

    return slot
