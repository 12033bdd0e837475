# SPDX-License-Identifier: Apache-2.0
"""Calls of C++ methods under PythonQt's rules of conversion.

PythonQt tries every overload with exact types first and then again with generous conversion: anything becomes a str,
anything truthy a bool, floats are rounded down to ints, ints stand for enums; but a str never becomes a number. Lists
come back as tuples, and a call that fits no overload is a ValueError. PySide6 has other rules, so its signatures are
used to choose the overload and to convert the arguments before PySide6 sees them.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
import json
import math
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui

from . import enums

Refused = object()  # what a converter returns for an argument it does not take
complaints: list[str | BaseException] = []  # what PythonQt would have written to the console since the last clear()
_signatures: dict = {}
_native: dict = {}  # stand-in and PySide6 classes behave as C++ classes; filled by pythonqt
_any = (typing.Any, object, inspect.Parameter.empty)
# Overloads that PySide6 has and PythonQt has not, or not with every number of arguments (read_pythonqt_overloads.py).
_overloads = json.loads(Path(__file__).with_name("overloads.json").read_text(encoding="utf-8"))
# Functions for which PySide6 returns a tuple: the value, and what C++ writes through a pointer.
_PAIRS = {"inverted", "weekNumber", "toDouble", "toFloat"} | {
    f"to{sign}{size}" for sign in ("", "U") for size in ("Int", "Short", "Long", "LongLong")
}
_containers = (collections.abc.Sequence, collections.abc.Iterable, list, tuple, set, collections.abc.Set)


def toInt(value: Any, strict: bool) -> Any:
    if type(value) is int:
        return value
    if strict:
        return Refused
    if type(value) is float:
        return math.floor(value) if math.isfinite(value) else Refused
    try:
        return int(value.__index__())
    except (AttributeError, TypeError):
        return Refused


def toFloat(value: Any, strict: bool) -> Any:
    if type(value) is float:
        return value
    if strict or isinstance(value, (str, bytes)):
        return Refused
    try:
        return float(value)
    except (TypeError, ValueError):
        return Refused


def toBool(value: Any, strict: bool) -> Any:
    if value is True or value is False:
        return value
    if strict:
        return Refused
    try:
        return bool(value)
    except Exception:
        return Refused


def toStr(value: Any, strict: bool) -> Any:
    if isinstance(value, str):
        return value
    return Refused if strict else str(value)


def toStrings(value: Any, strict: bool) -> Any:
    if (isinstance(value, (str, bytes)) and strict) or isinstance(value, dict):
        return Refused
    try:
        return [str(v) for v in value] if hasattr(value, "__getitem__") else Refused
    except Exception:
        return Refused


def toBytes(value: Any, strict: bool) -> Any:
    if isinstance(value, (bytes, QtCore.QByteArray)):
        return value
    return value.encode() if isinstance(value, str) and not strict else Refused


def toVariant(value: Any, strict: bool) -> Any:
    """A QVariant takes everything; our enums travel as plain ints."""
    if isinstance(value, enums.Enum):
        return int(value)
    if isinstance(value, (list, tuple)):
        return [toVariant(v, strict) for v in value]
    return value


def _enumConverter(pyside):
    def convert(value, strict):
        if isinstance(value, pyside):
            return value
        if isinstance(value, enums.Enum) and value.pyside is pyside:
            return enums.toPySide(value)
        number = Refused if strict else toInt(value, strict)  # an int may mean another overload's int
        if number is Refused:
            return Refused
        try:
            return pyside(number)
        except ValueError:
            return Refused

    return convert


def _classConverter(classes):
    paints = {QtGui.QColor, QtGui.QBrush, QtGui.QPen}.intersection(classes)

    def convert(value, strict):
        if value is None or isinstance(value, classes):
            return value
        if paints and not strict and isinstance(value, enums.Enum) and value.pyside.__name__ == "GlobalColor":
            return QtGui.QColor(enums.toPySide(value))
        if QtGui.QCursor in classes and isinstance(value, enums.Enum) and value.pyside.__name__ == "CursorShape":
            return QtGui.QCursor(enums.toPySide(value))
        # A wrapper of something else: PySide6 decides (QColor for QBrush). Other Python values are no Qt objects.
        return value if isinstance(value, shiboken6.Shiboken.Object) else Refused

    return convert


_PLAIN = (toInt, toFloat, toBool, toStr, toStrings)


def take(kind: Callable, value: Any, strict: bool) -> Any:
    """The argument `value` for a parameter with the converter `kind`: a Qt object is no text, number, bool or list."""
    return Refused if kind in _PLAIN and isinstance(value, shiboken6.Shiboken.Object) else kind(value, strict)


def converterFor(annotation: object) -> Callable:
    """`f(value, strict)` for one type in a PySide6 signature."""
    if annotation is str:
        return toStr
    if annotation is bool:
        return toBool
    if annotation is int:
        return toInt
    if annotation is float:
        return toFloat
    if annotation in _any:
        return toVariant
    if pyside := enums.pysideOf(annotation):
        return _enumConverter(pyside)
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = [k for k in typing.get_args(annotation) if k is not type(None)]
        if kinds[0] is QtCore.QByteArray:
            return toBytes
        return converterFor(kinds[0]) if len(kinds) == 1 else _first(kinds)
    if origin in _containers:
        return toStrings if typing.get_args(annotation)[:1] == (str,) else _sequence
    if isinstance(annotation, type) and issubclass(annotation, QtCore.QByteArray):
        return toBytes
    if isinstance(annotation, type) and issubclass(annotation, shiboken6.Shiboken.Object):
        return _classConverter((annotation,))
    return lambda value, strict: enums.toPySide(value) if isinstance(value, enums.Enum) else value


def _first(kinds):
    """PySide6's unions are a C++ type and what PySide6 also takes for it; PythonQt takes the C++ type."""
    classes = tuple(k for k in kinds if isinstance(k, type) and issubclass(k, shiboken6.Shiboken.Object))
    if classes and kinds[0] in classes:
        return _classConverter(classes)
    return converterFor(kinds[0])


def _sequence(value, strict):
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__getitem__"):
        return value if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)) else Refused
    return [enums.toPySide(v) if isinstance(v, enums.Enum) else v for v in value]


def signaturesOf(function: Callable) -> Any:
    """Overloads of a PySide6 function; an empty list if PySide6 does not tell.

    Each is (converters, their least number, the parameters as a text, PythonQt's least and largest number).
    """
    found = _signatures.get(function)
    if found is None:
        from shibokensupport.signature import get_signature

        given = get_signature(function) or []
        owner, _, member = function.__qualname__.rpartition(".")
        limits = _overloads.get(owner or member, {}).get(member if owner else "__init__", {})
        found = []
        for one in given if isinstance(given, list) else [given]:
            parameters = [
                p
                for p in one.parameters.values()
                if p.name != "self" and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
            ]
            if any(p.kind == p.VAR_POSITIONAL for p in one.parameters.values()):
                found = []
                break
            kinds = [converterFor(p.annotation) for p in parameters]
            required = sum(p.default is p.empty for p in parameters)
            text = "(" + ", ".join(_typeName(p.annotation) for p in parameters) + ")"
            found.append((kinds, required, text, limits.get(text, (required, len(kinds))) or (1, 0)))
        _signatures[function] = found
    return found


def _typeName(annotation):
    name = getattr(annotation, "__name__", None) or str(annotation)
    return {"str": "QString", "float": "double"}.get(name, name.rsplit(".", 1)[-1])


def choose(function: Callable, arguments: Any, limited: bool = True) -> Any:
    """Converted arguments for the overload PythonQt would take (PySide6, if not `limited`); None if there is none."""
    overloads = signaturesOf(function)
    if not overloads:
        return [enums.toPySide(a) if isinstance(a, enums.Enum) else a for a in arguments]
    count = len(arguments)
    for strict in (True, False) if len(overloads) > 1 else (False,):
        for kinds, required, _text, (least, most) in overloads:
            if not (least <= count <= most if limited else required <= count <= len(kinds)):
                continue
            converted = []
            for kind, argument in zip(kinds, arguments, strict=False):
                value = take(kind, argument, strict)
                if value is Refused:
                    break
                converted.append(value)
            else:
                return converted
    return None


def refusal(function: Callable, name: str, arguments: Any) -> ValueError:
    """The ValueError of PythonQt for arguments that fit no overload."""
    texts = [f"{name}{text}" for _kinds, _required, text, _limits in signaturesOf(function)]
    if len(texts) == 1:
        least, most = signaturesOf(function)[0][3]
        many = "" if least <= len(arguments) <= most else "number of "
        return ValueError(f"Called {texts[0]} with wrong {many}arguments: {arguments!r}")
    return ValueError(
        f"Could not find matching overload for given arguments:\n{arguments!r}\n"
        " The following slots are available:\n" + "\n".join(texts) + "\n"
    )


def fromQt(value: Any) -> Any:
    """A returned value as PythonQt gives it: lists as tuples, enums as ints."""
    if isinstance(value, enum.Enum):
        return enums.fromPySide(value)
    if type(value) in (list, tuple):
        return tuple(fromQt(v) for v in value)
    if type(value) is dict:
        return {k: fromQt(v) for k, v in value.items()}
    return value


def call(function: Callable, name: str, self: Any, arguments: Any, named: Any) -> Any:
    """Calls a PySide6 method or static function (`self` None) as PythonQt would."""
    if named:
        raise ValueError(f"Called {name} with keyword arguments, but called slot does not support kwargs.")
    converted = choose(function, arguments)
    if converted is None:
        raise refusal(function, name, arguments)
    try:
        value = function(*converted) if self is None else function(self, *converted)
        return fromQt(value[0] if name in _PAIRS and isinstance(value, tuple) else value)
    except RuntimeError as error:
        if self is not None and isDestroyed(self, error):
            kind = cppClass(type(self)).__name__
            raise ValueError(f"Trying to call '{name}' on a destroyed {kind} object") from None
        if not _inOverride(error):
            raise
    except (TypeError, OverflowError) as error:
        if isRefusal(error):
            raise refusal(function, name, arguments) from None
        if not _inOverride(error):
            raise
    except Exception as error:
        if not _inOverride(error):
            raise
    return None


def isRefusal(error: Exception) -> bool:
    """Whether PySide6 took none of its overloads for the arguments."""
    text = str(error)
    return isinstance(error, OverflowError) or "wrong argument" in text or "(missing signature)" in text


def _inOverride(error):
    """Whether a Python override of a C++ method raised: PythonQt prints that, PySide6 hands it to the outer caller."""
    if not str(error).startswith("Error calling Python override of"):
        return False
    complaints.append(error)
    sys.excepthook(type(error), error, error.__traceback__)
    return True


def isDestroyed(obj: Any, error: Exception) -> bool:
    """Whether a RuntimeError of PySide6 says that there is no C++ object behind the wrapper."""
    text = str(error)
    return "already deleted" in text or "__init__' method of object's base class" in text or not shiboken6.isValid(obj)


def cppClass(cls: type) -> type:
    """First class in the MRO that counts as C++: one of PySide6's, or a registered stand-in."""
    found = _native.get(cls)
    if found is None:
        found = next((c for c in cls.__mro__ if c in standIns or c.__module__.startswith("PySide6")), cls)
        _native[cls] = found
    return found


standIns: set[type] = set()


class Bound:
    """A method bound to its object. No Python method on purpose: Shiboken would take one for an override of C++."""

    __slots__ = ("__name__", "__self__", "_function")

    def __init__(self, function: Callable, name: str, obj: Any) -> None:
        self._function, self.__name__, self.__self__ = function, name, obj

    def __call__(self, *arguments, **named):
        return call(self._function, self.__name__, self.__self__, arguments, named)

    def __eq__(self, other):
        return isinstance(other, Bound) and (self._function, id(self.__self__)) == (
            other._function,
            id(other.__self__),
        )

    def __hash__(self):
        return hash((self._function, id(self.__self__)))

    def __repr__(self):
        return f"{self.__name__} (qt slot {self.__name__} of {type(self.__self__).__name__} object)"


class Method:
    """Replaces a method of a PySide6 class."""

    def __init__(self, function: Callable, name: str) -> None:
        self.function, self.name = function, name

    def __get__(self, obj, cls=None):
        if obj is not None:
            return Bound(self.function, self.name, obj)
        return _Unbound(self.function, self.name)


class _Unbound:
    """`qt.QWidget.show`, to be called with the object first: what super() calls and class-wide patches keep."""

    __slots__ = ("__name__", "_function")

    def __init__(self, function: Callable, name: str) -> None:
        self._function, self.__name__ = function, name

    def __call__(self, *arguments, **named):
        if not arguments:
            raise ValueError(f"slot {self.__name__} requires an instance as first argument.")
        return call(self._function, self.__name__, arguments[0], arguments[1:], named)

    def __get__(self, obj, cls=None):  # put back on a class after a test replaced it
        return self if obj is None else Bound(self._function, self.__name__, obj)


class Static:
    """Replaces a static function of a PySide6 class."""

    def __init__(self, function: Callable, name: str) -> None:
        self.function, self.__name__ = function, name

    def __get__(self, obj, cls=None):
        return self

    def __call__(self, *arguments, **named):
        return call(self.function, self.__name__, None, arguments, named)


class Field:
    """Replaces a public member of a C++ struct, such as QStyleOption.state."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __get__(self, obj, cls=None):
        return self if obj is None else fromQt(self.original.__get__(obj, cls))

    def __set__(self, obj, value):
        kind = type(self.original.__get__(obj, type(obj)))
        if isinstance(value, int) and issubclass(kind, enum.Enum):
            value = kind(int(value))
        self.original.__set__(obj, enums.toPySide(value) if isinstance(value, enums.Enum) else value)


def fromHost(depth: int) -> bool:
    """Whether the code that touches the object belongs to the stand-ins."""
    frame = sys._getframe(depth + 1)
    if frame.f_code.co_name == "_getattribute":  # the patched access itself
        frame = frame.f_back
    return frame.f_globals.get("__name__", "").startswith("slicerhost")


class HostOnly:
    """A member that the real class does not offer to Python: there for code of this package alone."""

    def __init__(self, name: str, member: Any, why: str = "") -> None:
        self.name, self.member, self.why = name, member, why

    def __get__(self, obj, cls=None):
        if not fromHost(1):
            raise AttributeError(f"{cppClass(cls).__name__} has no attribute named '{self.name}'{self.why}")
        return self.member.__get__(obj, cls) if hasattr(self.member, "__get__") else self.member
