# SPDX-License-Identifier: Apache-2.0
"""PythonQt conventions on top of PySide6 ("qt" module).  Own code.

install() patches the PySide6 classes of this process once:
  * every Q_PROPERTY becomes a data descriptor (label.text, w.enabled = False, spin.value) - setters stay methods
  * QObject.connect('clicked(bool)', fn) / disconnect, className(), name, delete(), findChildren('QToolBar')
and returns a module object named 'qt' with flat names (qt.QLabel, qt.Qt.AlignLeft, qt.QMessageBox.Yes)."""

import ctypes, inspect, re, sys, types
from PySide6 import QtCore, QtGui, QtWidgets, QtUiTools, QtNetwork, QtSvg, QtXml, QtPrintSupport
import shiboken6

_MODULES = (QtCore, QtGui, QtWidgets, QtUiTools, QtNetwork, QtSvg, QtXml, QtPrintSupport)
RAW = {}  # (class, name) -> original attribute, for host code that needs the method form
_strict = set()  # stand-in classes that shall behave like C++ classes


def raw(obj, name):
    """Call the original PySide getter even where it was replaced by a property: raw(w,'width')()"""
    for c in type(obj).__mro__:
        if (c, name) in RAW:
            return RAW[c, name].__get__(obj, type(obj))
    return getattr(obj, name)


class _Prop:
    """Data descriptor: value on instances; on the class the original binding (QTimer.singleShot is both)."""

    def __init__(self, name, original, writable):
        self.name, self.original, self.writable = name, original, writable
        # a same-named getter is called directly: non-virtual, so no recursion through Python overrides
        self._direct = original if type(original).__name__ == "method_descriptor" else None

    def __get__(self, obj, cls=None):
        if obj is None:
            return self if self.original is None else self.original.__get__(None, cls)
        if self._direct is not None:
            return self._direct(obj)
        return QtCore.QObject.property(obj, self.name)

    def __set__(self, obj, value):
        if not self.writable:
            raise AttributeError(f"{type(obj).__name__}.{self.name} is read-only")
        if not QtCore.QObject.setProperty(obj, self.name, value):
            raise ValueError(f"property {self.name!r} of {type(obj).__name__} does not accept {value!r}")


def _patchClass(cls):
    mo = cls.__dict__.get("staticMetaObject") or cls.staticMetaObject
    for i in range(mo.propertyCount()):
        p = mo.property(i)
        n = p.name()
        if n == "parent" or n.startswith("_"):
            continue
        orig = cls.__dict__.get(n)
        if orig is None and i < mo.propertyOffset():
            continue  # inherited property, not re-implemented by this class
        if isinstance(orig, (QtCore.Signal, property)):
            continue
        RAW[cls, n] = orig
        try:
            setattr(cls, n, _Prop(n, orig, p.isWritable()))
        except Exception as e:  # immutable type
            print("cannot patch", cls, n, e, file=sys.stderr)


_genericSet = ctypes.pythonapi.PyObject_GenericSetAttr
_genericSet.argtypes, _genericSet.restype = [ctypes.py_object] * 3, ctypes.c_int
_missing = object()


def _strictSetattr(self, n, v):
    """PythonQt refuses new attributes on C++ objects ("creating new attributes on C++ objects is not allowed") and
    assignment to slots/signals; without this a typo such as button.enable = False would pass the tests.
    Every PySide class has its own C tp_setattro, so this is set on each of them; the original slots can't be chained
    to from Python (hackcheck), hence PyObject_GenericSetAttr, and QtCore.Property goes through setProperty."""
    cls = type(self)
    d = _missing
    for c in cls.__mro__:
        d = c.__dict__.get(n, _missing)
        if d is not _missing:
            break
    if isinstance(d, QtCore.Property):
        if not QtCore.QObject.setProperty(self, n, v):
            raise ValueError(f"property {n!r} of {cls.__name__} does not accept {v!r}")
        return
    if d is not _missing and hasattr(type(d), "__set__"):
        d.__set__(self, v)
        return
    if isinstance(v, QtCore.SignalInstance):  # PySide caches bound signals on the instance through setattr
        _genericSet(self, n, v)
        return
    if n[0] != "_" and (cls.__module__.startswith("PySide6") or cls in _strict):
        if d is not _missing:
            raise AttributeError(f"'{n}' can not be overwritten on {cls.__name__} object")
        if QtCore.QObject.property(self, n) is None:
            raise AttributeError(
                f"'{n}' does not exist on {cls.__name__} and creating new attributes on C++ objects is not allowed"
            )
        QtCore.QObject.setProperty(self, n, v)  # dynamic property (e.g. from the .ui file)
        return
    _genericSet(self, n, v)


def _dynamicGetattr(self, n):
    """Dynamic properties (unknown .ui properties) read as attributes."""
    if n[0] != "_":
        v = QtCore.QObject.property(self, n)
        if v is not None:
            return v
    raise AttributeError(f"'{n}' does not exist on {type(self).__name__}")


# ---------------------------------------------------------------- signals
_SIG = re.compile(
    r"^\s*[12]?(\w+?)\s*(?:\((.*)\))?\s*$"
)  # leading 1/2: PySide itself calls connect("2timeout()") for singleShot


def _nPositional(fn):
    """How many positional arguments fn takes (PythonQt trims surplus signal arguments)."""
    try:
        ps = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind == p.VAR_POSITIONAL for p in ps):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in ps)


def _signalOf(obj, signature):
    m = _SIG.match(signature)
    if not m:
        raise ValueError(f"bad signal signature {signature!r}")
    name, args = m.group(1), m.group(2)
    sig = getattr(obj, name, None)
    if sig is None or not hasattr(sig, "connect"):
        raise AttributeError(f"{type(obj).__name__} has no signal {signature}")
    nargs = None if args is None else len([a for a in args.split(",") if a.strip()])
    if args:
        want = QtCore.QMetaObject.normalizedSignature(f"{name}({args})").data().decode()
        have = {m.methodSignature().data().decode() for m in _signalVariants(obj, name)}
        if len({h for h in have if h.count(",") == want.count(",") and h != f"{name}()"}) > 1 and want in have:
            sig = sig[tuple(want[len(name) + 1 : -1].split(","))]  # same-length overloads: pick by type
    return name, sig, nargs


_ARITY = (
    lambda f: lambda: f(),
    lambda f: lambda a: f(a),
    lambda f: lambda a, b: f(a, b),
    lambda f: lambda a, b, c: f(a, b, c),
    lambda f: lambda a, b, c, d: f(a, b, c, d),
)


def _signalVariants(obj, name):
    mo = obj.metaObject()
    for i in range(mo.methodCount()):
        m = mo.method(i)
        if m.methodType() == QtCore.QMetaMethod.MethodType.Signal and m.name().data().decode() == name:
            yield m


def _connect(self, *args):
    """obj.connect('sig(type)', callable)  |  obj.connect(sender, 'sig()', callable)  |  ... receiver, 'slot()'"""
    sender = self
    if args and isinstance(args[0], QtCore.QObject):
        sender, args = args[0], args[1:]
    if len(args) == 3 and isinstance(args[1], QtCore.QObject):  # 'sig()', receiver, 'slot()'
        args = (args[0], getattr(args[1], _SIG.match(args[2]).group(1)))
    signature, fn = args[:2]
    name, sig, nargs = _signalOf(sender, signature)
    take = _nPositional(fn)
    n = nargs if take is None else (take if nargs is None else min(nargs, take))
    # exact arity: for signals with default arguments PySide picks the overload from the slot's argument count
    if n is None:
        n = max((m.parameterCount() for m in _signalVariants(sender, name)), default=0)
    trampoline = _ARITY[n](fn)
    sig.connect(trampoline)
    table = sender.__dict__.setdefault("_pq_slots", [])
    table.append((name, fn, trampoline))
    return True


def _disconnect(self, *args):
    sender = self
    if args and isinstance(args[0], QtCore.QObject):
        sender, args = args[0], args[1:]
    table = sender.__dict__.get("_pq_slots", [])
    if not args:
        for name, fn, t in table:
            getattr(sender, name).disconnect(t)
        table.clear()
        return True
    name = _SIG.match(args[0]).group(1)
    fn = args[1] if len(args) > 1 else None
    hit = [e for e in table if e[0] == name and (fn is None or e[1] == fn)]
    for e in hit:
        getattr(sender, name).disconnect(e[2])
        table.remove(e)
    return bool(hit)


def _findChildren(self, cls=QtCore.QObject, name=None, *a):
    if isinstance(cls, str):
        return [
            c for c in _RAW_findChildren(self, QtCore.QObject) if c.inherits(cls) or c.metaObject().className() == cls
        ]
    return _RAW_findChildren(self, cls, name, *a) if name is not None else _RAW_findChildren(self, cls)


_RAW_findChildren = QtCore.QObject.findChildren


class _FileDialogStatics:
    """PythonQt returns just the path(s), PySide a (path, filter) pair."""

    @staticmethod
    def _first(fn):
        def call(*a, **k):
            r = fn(*a, **k)
            return r[0] if isinstance(r, tuple) else r

        return staticmethod(call)


_installed = None


def install():
    global _installed
    if _installed:
        return _installed
    qt = types.ModuleType("qt")
    seen = set()
    for m in _MODULES:
        for n in dir(m):
            c = getattr(m, n)
            if n.startswith("_"):
                continue
            if isinstance(c, type) and issubclass(c, QtCore.QObject) and c not in seen:
                seen.add(c)
                if c.__module__.startswith("PySide6"):
                    _patchClass(c)
            setattr(qt, n, c)
    O = QtCore.QObject
    # connect/disconnect are static+instance methods in PySide: their C getattro hands out the built-in before it
    # looks at the class, so a plain setattr is not seen.  Only QObject, QFile, QLibrary, QProcess, QMenu have such a slot.
    _special = {"connect": _connect, "disconnect": _disconnect}
    for c in seen:
        slot = c.__dict__.get("__getattribute__")
        if slot is not None:

            def ga(self, n, _slot=slot, _special=_special):
                f = _special.get(n)
                return _slot(self, n) if f is None else f.__get__(self)

            c.__getattribute__ = ga
    for c in seen:
        c.__setattr__ = _strictSetattr
    O.__getattr__ = _dynamicGetattr
    O.className = lambda self: QtCore.QObject.property(self, "hostUnknownClass") or self.metaObject().className()
    O.name = property(lambda self: QtCore.QObject.property(self, "objectName"), lambda self, v: self.setObjectName(v))
    O.delete = lambda self: shiboken6.delete(self)
    O.findChildren = _findChildren
    for c in (QtWidgets.QDialog, QtWidgets.QMenu, QtCore.QCoreApplication, QtCore.QEventLoop):
        if not hasattr(c, "exec_"):
            c.exec_ = c.exec
    QFD = QtWidgets.QFileDialog
    qt.QFileDialog = type(QFD)(
        "QFileDialog",
        (QFD,),
        {
            k: _FileDialogStatics._first(getattr(QFD, k))
            for k in ("getOpenFileName", "getSaveFileName", "getOpenFileNames")
        },
    )
    # small PythonQt leftovers
    qt.QStringList = list
    qt.SIGNAL, qt.SLOT = (lambda s: s), (lambda s: s)
    sys.modules["qt"] = qt
    _installed = qt
    return qt
