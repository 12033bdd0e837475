# SPDX-License-Identifier: Apache-2.0
"""Signals as PythonQt offers them: `w.connect("clicked(bool)", f)`, `w.clicked.connect(f)`, `w.clicked(True)`.

An unknown signal prints a line and returns False; an exception in a slot is printed and the next slot runs. Both are
also kept in `calls.complaints`, so that a test can insist on a quiet console.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore

from . import calls, declared, enums

_connections: dict[int, list] = {}  # address of the sender: (signature, callable, Connection)
_SIGNAL = QtCore.QMetaMethod.MethodType.Signal
_connect = QtCore.QObject.connect
_disconnect = QtCore.QObject.disconnect


def complain(text: str) -> None:
    calls.complaints.append(text)
    print(text, file=sys.stderr)


def argumentCount(function: Callable) -> int | None:
    """How many arguments PythonQt passes: all that a Python function can take (defaults count), None for all.

    Only functions and bound methods are looked at; a functools.partial or an object with __call__ gets everything.
    """
    bound = isinstance(function, types.MethodType)
    code = getattr(function.__func__ if bound else function, "__code__", None)
    if not isinstance(function, (types.FunctionType, types.MethodType)) or code is None:
        return None
    return None if code.co_flags & inspect.CO_VARARGS else code.co_argcount - bound


def _trampoline(function, limit: int, adapt):
    def slot(*arguments):
        arguments = [calls.fromQt(a) for a in arguments[:limit]]
        if adapt is not None:
            arguments = [adapt(a) for a in arguments]
        taken = argumentCount(function)
        try:
            function(*(arguments if taken is None else arguments[:taken]))
        except Exception as error:
            calls.complaints.append(error)
            sys.excepthook(type(error), error, error.__traceback__)

    return slot


class _Signal(typing.NamedTuple):
    text: str  # the normalized signature
    name: str
    count: int  # of arguments


def _signalsOf(obj) -> list[_Signal]:
    """Signals of the C++ part of `obj`: those that a Python subclass defines do not take part in connect('sig()')."""
    cls = calls.cppClass(type(obj))
    if cls not in _known:
        # Not through the class's staticMetaObject: PySide6 invalidates it with the first object that handed it out.
        meta = obj.metaObject()
        while meta.className() != cls.__name__ and meta.superClass() is not None:
            meta = meta.superClass()
        methods = [m for i in range(meta.methodCount()) if (m := meta.method(i)).methodType() == _SIGNAL]
        _known[cls] = [
            _Signal(m.methodSignature().data().decode(), m.name().data().decode(), m.parameterCount()) for m in methods
        ]
    return _known[cls]


_known: dict[type, list[_Signal]] = {}


def resolve(obj: Any, text: str) -> tuple | None:
    """(signature of the signal behind, number of arguments, conversion of the arguments), or None if there is none."""
    wanted = QtCore.QMetaObject.normalizedSignature(re.sub(r"^\d", "", text)).data().decode()
    known = {s.text: s for s in _signalsOf(obj)}
    carried = wanted.replace("(bool)", "(PyObject)")
    hidden = isinstance(inspect.getattr_static(obj, wanted.partition("(")[0], None), calls.HostOnly)
    if wanted in known and not hidden and (carried == wanted or carried not in known):
        return wanted, known[wanted].count, None
    for signature in declared.signals(calls.cppClass(type(obj))):
        if signature != wanted:
            continue
        # Python signals carry VTK objects as PyObject; the variant with bool tells only whether there is an object.
        name, kinds = declared.split(signature)
        for one in known.values():
            if one.name == name and one.count == len(kinds):
                return one.text, len(kinds), (bool if kinds == ["bool"] else None)
        raise declared.NotInHost(calls.cppClass(type(obj)), signature)
    return None


def connect(self: Any, *arguments: Any) -> bool:
    """w.connect(signal, callable) | w.connect(signal, receiver, slot); a sender may come first (unbound call)."""
    sender = self
    if arguments and isinstance(arguments[0], QtCore.QObject):
        sender, *arguments = arguments
    if len(arguments) < 2:
        raise ValueError(f"Could not find matching overload for given arguments:\n{tuple(arguments)!r}\n connect(...)")
    _alive(sender, "connect")
    text, function = str(arguments[0]), arguments[1]
    if len(arguments) > 2 and isinstance(function, QtCore.QObject):
        slot = re.match(r"\d?(\w+)", str(arguments[2]))[1]
        function = slotOf(function, slot)
        if function is None:
            complain(f"QObject::connect: No such slot {type(arguments[1]).__name__}::{arguments[2]}")
            return False
    found = resolve(sender, text)
    if found is None:
        complain(f"PythonQt: QObject::connect() signal '{text}' does not exist on {sender.metaObject().className()}")
        return False
    return _attach(sender, found, function)


def slotOf(obj: Any, name: str) -> Callable | None:
    """The slot `name` as something to call, also where Python sees a property of that name."""
    for cls in type(obj).__mro__:
        member = cls.__dict__.get(name)
        if isinstance(member, calls.Method):
            return member.__get__(obj, cls)
        if isinstance(member, types.FunctionType):
            return member.__get__(obj, cls)
    return None


def _attach(sender, found, function) -> bool:
    signature, count, adapt = found
    connection = _connect(sender, "2" + signature, _trampoline(function, count, adapt))
    if not connection:
        return False
    address = shiboken6.getCppPointer(sender)[0]
    if address not in _connections:
        _connections[address] = []
        _connect(sender, "2destroyed()", lambda: _connections.pop(address, None))
    _connections[address].append((signature, adapt, function, connection))
    return True


def disconnect(self: Any, *arguments: Any) -> bool:
    """w.disconnect(signal, callable) | w.disconnect(signal): True if something was connected."""
    sender = self
    if arguments and isinstance(arguments[0], QtCore.QObject):
        sender, *arguments = arguments
    _alive(sender, "disconnect")
    if not arguments:
        raise ValueError("Could not find matching overload for given arguments:\n()\n disconnect(...)")
    text = str(arguments[0])
    found = resolve(sender, text)
    if found is None:
        complain(f"PythonQt: QObject::disconnect() signal '{text}' does not exist on {sender.metaObject().className()}")
        return False
    if len(arguments) > 2:
        arguments = [text, slotOf(arguments[1], re.match(r"\d?(\w+)", str(arguments[2]))[1])]
    return _detach(sender, found, *arguments[1:2])


def _detach(sender, found, *function) -> bool:
    entries = _connections.get(shiboken6.getCppPointer(sender)[0], [])
    hits = [e for e in entries if e[:2] == (found[0], found[2]) and (not function or e[2] == function[0])]
    for entry in hits[:1] if function else hits:
        _disconnect(entry[3])
        entries.remove(entry)
    return bool(hits)


def _alive(obj, name: str) -> None:
    if not shiboken6.isValid(obj):
        raise ValueError(f"Trying to call '{name}' on a destroyed {calls.cppClass(type(obj)).__name__} object")


class BoundSignal:
    """`w.clicked`: connect, disconnect, and emit by calling it."""

    __slots__ = ("_name", "_obj", "_signal")

    def __init__(self, signal: Any, name: str, obj: Any) -> None:
        self._signal, self._name, self._obj = signal, name, obj

    def _found(self):
        _alive(self._obj, self._name)
        # The first of its name: the variants without default arguments come after the full signal.
        found = next(s for s in _signalsOf(self._obj) if s.name == self._name)
        return found.text, found.count, None

    def connect(self, function: Callable) -> bool:
        return _attach(self._obj, self._found(), function)

    def disconnect(self, *function: Callable) -> bool:
        return _detach(self._obj, self._found(), *function)

    def emit(self, *arguments: Any) -> None:
        _alive(self._obj, self._name)
        named = [s for s in _signalsOf(self._obj) if s.name == self._name]
        fits = [s for s in named if s.count == len(arguments)]
        text = any(isinstance(a, str) for a in arguments)  # valueChanged(double) or valueChanged(QString)
        fitting = next((s for s in fits if ("QString" in s.text) == text), fits[0] if fits else None)
        if fitting is None:
            raise ValueError(f"Called {named[0].text} with wrong number of arguments: {arguments!r}")
        signal = self._signal.__get__(self._obj, type(self._obj))
        kinds = declared.split(fitting.text)[1]
        arguments = [enums.toPySide(a) if isinstance(a, enums.Enum) else a for a in arguments]
        try:
            (signal[tuple(kinds)] if len(named) > 1 else signal).emit(*arguments)
        except TypeError as error:
            raise ValueError(f"Called {fitting.text} with wrong arguments: {arguments!r} ({error})") from None

    __call__ = emit

    def __repr__(self) -> str:
        return f"{self._name} (qt signal {self._name} of {type(self._obj).__name__} object)"


class SignalOf:
    """Replaces a Signal in the dictionary of a C++ class (or stand-in)."""

    def __init__(self, signal: Any, name: str) -> None:
        self.signal, self.name = signal, name

    def __get__(self, obj, cls=None):
        return self if obj is None else BoundSignal(self.signal, self.name, obj)

    def __set__(self, obj, value):
        if not isinstance(value, QtCore.SignalInstance):  # PySide6 would keep those on the object: no need to
            raise AttributeError(f"Signal '{self.name}' can not be overwritten on {type(obj).__name__} object")
