# SPDX-License-Identifier: Apache-2.0
"""Makes PySide6 behave as PythonQt does: install() patches its classes, once per process, and fills the module `qt`.

What stand-ins for CTK and qMRML widgets are written like:

    @uiloader.register("ctkThing")                  # the name in .ui files; also makes the class behave as a C++ class
    class ctkThing(QtWidgets.QWidget):              # the real class's Qt base
        valueChanged = QtCore.Signal(float)         # signals with a VTK object: Signal(object)
        def __init__(self, parent=None):
            super().__init__(parent)                # CTK's constructors take a parent and nothing else
            self._value = 0.0                       # private state: only code of this package can set it
        def setValue(self, value): ...              # a declared slot: arguments arrive converted to the declared types
        value = QtCore.Property(float, lambda self: self._value, setValue)

Rules for such code: Qt properties are attributes (`self.width`, not `self.width()`; `property(w, "size")` from this
module where a subclass hides one); getters of list properties return tuples; a name the real class does not offer must
begin with an underscore; a property's getter (sizeHint) is overridden with the help of `OwnHints`: a method would hide
the attribute; virtual methods that return an enum return PySide6's (`enums.toPySide`).
"""

from __future__ import annotations

import ctypes
import enum
import importlib
import inspect
import json
import sys
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shiboken6
from PySide6 import QtCore, QtWidgets

from . import calls, declared, enums, signals

complaints = calls.complaints
_KITS = ("QtCore", "QtGui", "QtWidgets", "QtNetwork", "QtSvg", "QtSvgWidgets", "QtXml", "QtPrintSupport", "QtUiTools")
_QObject = QtCore.QObject
_readProperty = _QObject.property
_writeProperty = _QObject.setProperty
_rawFindChildren = _QObject.findChildren
_missing = object()
_genericSet = ctypes.pythonapi.PyObject_GenericSetAttr
_genericSet.argtypes, _genericSet.restype = [ctypes.py_object] * 3, ctypes.c_int


def property(obj: Any, name: str) -> Any:
    """Value of a Qt property whatever Python attribute hides it."""
    return calls.fromQt(_readProperty(obj, name))


class OwnHints:
    """Base, before Qt's, of stand-ins with size hints of their own: see `_hints`.

    Qt looks for overrides in the instance's dictionary first; Python reads the property.
    """

    def _hints(self, **functions: Callable[[Any], QtCore.QSize]) -> None:
        """Makes functions of the widget its `sizeHint` or `minimumSizeHint`."""
        alive = weakref.ref(self)
        for name, function in functions.items():
            self.__dict__[name] = lambda function=function: function(alive())

    def __getattribute__(self, name: str) -> Any:
        if name in ("sizeHint", "minimumSizeHint"):
            return property(self, name)
        return super().__getattribute__(name)


# ---------------------------------------------------------------- properties
class _Property:
    """Data descriptor for a Q_PROPERTY of a PySide6 class."""

    def __init__(self, name: str, original: Any) -> None:
        self.name, self.original = name, original
        # A getter of the same name is called directly, that is not virtually: no way back into Python overrides.
        self._getter = original if type(original).__name__ == "method_descriptor" else None

    def __get__(self, obj, cls=None):
        if obj is None:
            return self
        try:
            return calls.fromQt(_readProperty(obj, self.name) if self._getter is None else self._getter(obj))
        except RuntimeError as error:
            if calls.isDestroyed(obj, error):
                kind = calls.cppClass(type(obj)).__name__
                raise ValueError(f"Trying to read property '{self.name}' from a destroyed {kind} object") from None
            raise

    def __set__(self, obj, value):
        setProperty(obj, self.name, value)

    def __call__(self, *arguments):
        raise TypeError(f"'{self.name}' is a property of the class, not a method")


def isProperty(cls: type, name: str) -> bool:
    """Whether objects of `cls` have the Qt property `name`."""
    return isinstance(inspect.getattr_static(cls, name, None), (_Property, QtCore.Property))


def setProperty(obj: Any, name: str, value: Any) -> None:
    """`obj.name = value` for a property that the class has."""
    if not shiboken6.isValid(obj):
        kind = calls.cppClass(type(obj)).__name__
        raise AttributeError(f"Trying to set property '{name}' on a destroyed {kind} object")
    meta = obj.metaObject()
    found = meta.property(meta.indexOfProperty(name))
    if not found.isWritable():
        raise AttributeError(f"Property '{name}' of {type(obj).__name__} object is not writable")
    declaredKind = declared.properties(calls.cppClass(type(obj))).get(name, "").removesuffix(" const")
    converted = _forProperty(found, value, isEnum=found.isEnumType() or declared.isEnum(declaredKind))
    if converted is calls.Refused or not _writeProperty(obj, name, converted):
        raise AttributeError(
            f"Property '{name}' of type '{found.typeName()}' does not accept an object of type "
            f"{type(value).__name__} ({value!r})"
        )


_BY_TYPE = {
    "QString": calls.toStr,
    "bool": calls.toBool,
    "int": calls.toInt,
    "uint": calls.toInt,
    "double": calls.toFloat,
    "float": calls.toFloat,
    "QStringList": calls.toStrings,
}


def _forProperty(found, value, isEnum):
    kind = found.typeName()
    if isEnum:
        if isinstance(value, enum.Enum):
            value = value.value
        if isinstance(value, str):  # the name of a member; for flags, names with | between them
            return value if set(value.split("|")) <= _keys(found.enumerator()) else calls.Refused
        exact = type(value) is int or isinstance(value, enums.Enum)
        return int(value) if exact and -(2**31) <= value < 2**31 else calls.Refused
    if kind in _BY_TYPE:
        return _BY_TYPE[kind](value, False)
    if kind.startswith("Q") and not kind.startswith(("QVariant", "QList")):
        return value if isinstance(value, shiboken6.Shiboken.Object) else calls.Refused
    return calls.toVariant(value, False)


def _keys(metaEnum):
    return {metaEnum.key(i) for i in range(metaEnum.keyCount())}


class _SingleShot(_Property):
    """QTimer.singleShot is a static function and a property; reading gives the function, writing sets the property."""

    def __get__(self, obj, cls=None):
        return singleShot


def singleShot(msec: int, receiver: Any, member: Any = None) -> None:
    """qt.QTimer.singleShot as Slicer replaces it: a child timer, its callable connected like any other slot."""
    timer = QtCore.QTimer(QtCore.QCoreApplication.instance())
    timer.setSingleShot(True)
    if callable(receiver):
        timer.connect("timeout()", receiver)
    else:
        timer.connect("timeout()", receiver, member)
    timer.connect("timeout()", timer.deleteLater)
    timer.start(msec)


def stored(kind: Any, default: Any = None, after: str = "") -> Any:
    """A property of a stand-in that is nothing but a value; `after` names a method to call when it was set."""
    key = object()

    def get(self):
        return self.__dict__.get(key, default)

    def put(self, value):
        self.__dict__[key] = value
        if after:
            getattr(self, after)()

    return QtCore.Property(kind, get, put)


def _patchClass(cls) -> None:
    """Properties, methods, signals and enums of one PySide6 class."""
    own = dict(cls.__dict__)
    for name, member in own.items():
        kind = type(member).__name__
        if isinstance(member, QtCore.Signal):
            setattr(cls, name, signals.SignalOf(member, name))
        elif isinstance(member, type) and issubclass(member, enum.Enum):
            for n, value in enums.replace(cls, name, member).items():
                if n not in own:
                    setattr(cls, n, value)
        elif name.startswith("__"):
            continue
        elif kind == "method_descriptor":
            setattr(cls, name, calls.Method(member, name))
        elif kind == "getset_descriptor":
            setattr(cls, name, calls.Field(member))
        elif kind == "staticmethod":
            setattr(cls, name, calls.Static(member.__func__, name))
    if "__init__" in own:
        cls.__init__ = _constructor(cls, own["__init__"])
    cls.__setattr__ = _setattr
    if not issubclass(cls, _QObject):
        return
    meta = cls.staticMetaObject
    for i in range(meta.propertyCount()):
        name = meta.property(i).name()
        if name.startswith("_") or (i < meta.propertyOffset() and name not in own):
            continue
        original = own.get(name)
        if cls is QtCore.QTimer and name == "singleShot":
            setattr(cls, name, _SingleShot(name, None))
        elif not isinstance(original, QtCore.Signal):
            setattr(cls, name, _Property(name, original))


def _constructor(cls, original):
    def __init__(self, *arguments, **named):
        if named:
            if not calls.fromHost(1):
                raise ValueError(
                    f"Called {cls.__name__} with keyword arguments, but called slot does not support kwargs."
                )
            return original(self, *arguments, **named)
        converted = calls.choose(cls, arguments, limited=not calls.fromHost(1))
        if converted is None:
            raise calls.refusal(cls, cls.__name__, arguments)
        try:
            return original(self, *converted)
        except (TypeError, OverflowError) as error:
            if calls.isRefusal(error):
                raise calls.refusal(cls, cls.__name__, arguments) from None
            raise

    return __init__


# ---------------------------------------------------------------- attributes
def _setattr(self, name, value):
    cls = type(self)
    cpp = calls.cppClass(cls)
    member, owner = _missing, None
    for owner in cls.__mro__:
        member = owner.__dict__.get(name, _missing)
        if member is not _missing:
            break
    if isinstance(value, QtCore.SignalInstance):  # PySide6 keeps bound signals like this
        _genericSet(self, name, value)
    elif isinstance(member, QtCore.Property):
        setProperty(self, name, value)
    elif member is not _missing and issubclass(cpp, owner) and hasattr(type(member), "__set__"):
        member.__set__(self, value)
    elif name.startswith("_") and cpp in calls.standIns and calls.fromHost(1):
        _genericSet(self, name, value)
    elif member is not _missing and issubclass(cpp, owner) and not name.startswith("__"):
        kind = "EnumValue" if isinstance(member, enums.Enum) else "Enum" if isinstance(member, type) else "Slot"
        raise AttributeError(f"{kind} '{name}' can not be overwritten on {cls.__name__} object")
    elif cpp in calls.standIns and name in declared.names(cpp):
        raise declared.NotInHost(cpp, name)
    elif isinstance(self, _QObject) and shiboken6.isValid(self) and _readProperty(self, name) is not None:
        _writeProperty(self, name, calls.toVariant(value, False))
    elif cls is cpp:
        raise AttributeError(
            f"'{name}' does not exist on {cls.__name__} and creating new attributes on C++ objects is not allowed"
        )
    else:
        _genericSet(self, name, value)


def _getattr(self, name):
    """Names that the class has not: dynamic properties, then children by object name."""
    cpp = calls.cppClass(type(self))
    if not name.startswith("__"):
        if not shiboken6.isValid(self):
            raise ValueError(f"Trying to read property '{name}' from a destroyed {cpp.__name__} object")
        value = _readProperty(self, name)
        if value is not None:
            return calls.fromQt(value)
        if cpp in calls.standIns and name in declared.names(cpp):
            raise declared.NotInHost(cpp, name)
        for child in _rawChildren(self):
            if _readProperty(child, "objectName") == name:
                return child
    hidden = inspect.getattr_static(type(self), name, None)  # its AttributeError led here
    why = hidden.why if isinstance(hidden, calls.HostOnly) else ""
    raise AttributeError(f"{cpp.__name__} has no attribute named '{name}'{why}")


_rawChildren = _QObject.children


def _findChildren(self, *arguments):
    """findChildren(class or 'ClassName'[, name]); the class is required."""
    if not arguments:
        raise ValueError("Could not find matching overload for given arguments:\n()\n findChildren(...)")
    kind, name = arguments[0], (str(arguments[1]) if len(arguments) > 1 else None)
    if isinstance(kind, str):
        found = [c for c in _rawFindChildren(self, _QObject) if c.inherits(kind)]
    elif isinstance(kind, type):
        found = [c for c in _rawFindChildren(self, _QObject) if isinstance(c, kind)]
    else:
        found = []
    return tuple(c for c in found if not name or c.objectName == name)


def _findChild(self, *arguments):
    if not arguments:
        raise ValueError("Could not find matching overload for given arguments:\n()\n findChild(...)")
    return next(iter(_findChildren(self, *arguments)), None)


# ---------------------------------------------------------------- stand-ins
def asCpp(cls: type) -> type:
    """Makes a stand-in behave as a C++ class: strict attributes, PythonQt's slots and signals, its enums."""
    calls.standIns.add(cls)
    calls._native.clear()
    for name, member in list(cls.__dict__.items()):
        if isinstance(member, QtCore.Signal):
            setattr(cls, name, signals.SignalOf(member, name))
    if cls.__name__.startswith("ctk"):
        _parentOnly(cls)
    declared.strictSlots(cls)
    declared.addEnums(cls)
    _hideUndeclared(cls)
    return cls


def _hideUndeclared(cls: type) -> None:
    if not declared.known(cls.__name__):
        return
    base = next(c for c in cls.__mro__ if c.__module__.startswith("PySide6"))
    for c in cls.__mro__[: cls.__mro__.index(base)]:
        for name, member in list(vars(c).items()):
            hidden = not name.startswith("_") and name not in declared.names(cls) and not hasattr(base, name)
            if hidden and not isinstance(member, calls.HostOnly) and name != "staticMetaObject":
                setattr(cls, name, calls.HostOnly(name, member))


def _parentOnly(cls: type) -> None:
    """CTK's wrapped constructors take a parent and nothing else."""
    original = cls.__init__

    def __init__(self, *arguments, **named):
        if named:
            raise ValueError(f"Called {cls.__name__} with keyword arguments, but called slot does not support kwargs.")
        fits = not arguments or (len(arguments) == 1 and isinstance(arguments[0], (_QObject, types.NoneType)))
        if not fits and type(self) is cls and not calls.fromHost(1):
            raise ValueError(f"Called {cls.__name__}(QWidget parent) with wrong arguments: {arguments!r}")
        original(self, *arguments)

    cls.__init__ = __init__


# ---------------------------------------------------------------- what is left
def _pathOnly(function):
    """Dialogs of PySide6 return (value, extra); C++ and PythonQt return the value."""

    def ask(*arguments):
        answer = function(*arguments)
        return answer[0] if isinstance(answer, tuple) and len(answer) == 2 else answer

    return staticmethod(ask)


def _noLength(self):
    raise TypeError(f"object of type '{type(self).__name__}' has no len()")


def _noBytes(self):
    raise TypeError(f"cannot convert '{type(self).__name__}' object to bytes")


_qt: types.ModuleType | None = None


def install() -> types.ModuleType:
    """Patches PySide6 (once) and returns the module `qt`, registered in sys.modules."""
    global _qt
    if _qt is not None:
        return _qt
    qt = types.ModuleType("qt")
    seen: set[type] = set()
    for kit in _KITS:
        module = importlib.import_module(f"PySide6.{kit}")
        for name in dir(module):
            member = getattr(module, name)
            if name.startswith("_") or not isinstance(member, type):
                continue
            if issubclass(member, enum.Enum):
                enums.replace(qt, name, member)
                continue
            if issubclass(member, shiboken6.Shiboken.Object) and member.__module__.startswith("PySide6"):
                seen.add(member)
            setattr(qt, name, member)
    for cls in seen:
        _patchClass(cls)
    _patchObject(seen)
    _hide(qt, "qt6only.json", " in Qt 5.15, with which Slicer is released")
    _hide(qt, "unwrapped.json", ": PythonQt does not wrap it")
    for dialog, functions in (
        (QtWidgets.QFileDialog, ("getOpenFileName", "getSaveFileName", "getOpenFileNames")),
        (QtWidgets.QInputDialog, ("getText", "getMultiLineText", "getInt", "getDouble", "getItem")),
    ):
        for name in functions:
            setattr(dialog, name, _pathOnly(dialog.__dict__[name]))
    QtCore.QByteArray.__len__ = _noLength
    QtCore.QByteArray.__bytes__ = _noBytes
    qt.SIGNAL, qt.SLOT = (lambda text: f"2{text}"), (lambda text: f"1{text}")
    sys.modules["qt"] = _qt = qt
    return qt


def _hide(qt, file: str, why: str) -> None:
    """Take names out of a module's reach: class -> names of members, or null for the class itself."""
    for name, members in json.loads(Path(__file__).with_name(file).read_text(encoding="utf-8")).items():
        cls = getattr(qt, name, None)
        if members is None and cls is not None:
            delattr(qt, name)
        for member in members or ():
            found = inspect.getattr_static(cls, member, _missing)
            if found is not _missing:
                setattr(cls, member, calls.HostOnly(member, found, why))


def _patchObject(seen) -> None:
    # connect and disconnect are static and bound at once in PySide6: the getattr of these few classes (in C) hands out
    # the built-in before it looks into the class, so a plain setattr would not be seen.
    special = {"connect": signals.connect, "disconnect": signals.disconnect}
    for cls in seen:
        slot = cls.__dict__.get("__getattribute__")
        if slot is None or not issubclass(cls, _QObject):
            continue

        def _getattribute(self, name, _slot=slot):
            function = special.get(name)
            if function is not None:
                return types.MethodType(function, self)
            value = _slot(self, name)
            if type(value) is QtCore.SignalInstance:  # PySide6 asks the meta object when the class refused
                member = inspect.getattr_static(type(self), name, None)
                if isinstance(member, calls.HostOnly):
                    return member.__get__(self, type(self))
            return value

        cls.__getattribute__ = _getattribute
    _QObject.connect, _QObject.disconnect = signals.connect, signals.disconnect
    _QObject.__getattr__ = _getattr
    _QObject.__bool__ = lambda self: shiboken6.isValid(self)
    # PythonQt takes a method isEmpty for a collection's: a layout without anything to show is false.
    QtWidgets.QLayout.__bool__ = lambda self: shiboken6.isValid(self) and not self.isEmpty()
    QtWidgets.QLayoutItem.__bool__ = lambda self: not self.isEmpty()
    _QObject.className = lambda self: self.metaObject().className()
    _QObject.name = inspect.getattr_static(_QObject, "objectName")
    _QObject.delete = lambda self: shiboken6.delete(self)
    _QObject.findChildren, _QObject.findChild = _findChildren, _findChild
    for cls in (QtWidgets.QDialog, QtWidgets.QMenu, QtCore.QCoreApplication, QtCore.QEventLoop):
        for name, other in (("exec_", "exec"), ("exec", "exec_")):
            if name not in cls.__dict__ and other in cls.__dict__:
                setattr(cls, name, cls.__dict__[other])
