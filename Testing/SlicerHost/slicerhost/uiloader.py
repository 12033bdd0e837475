# SPDX-License-Identifier: Apache-2.0
"""Loads .ui files as Slicer does, with the registered stand-ins; an unknown custom widget class fails."""

import xml.etree.ElementTree as ET
from PySide6 import QtCore, QtWidgets, QtUiTools
from . import pythonqt

_RAW_findChildren = pythonqt._RAW_findChildren
_SIG = pythonqt._SIG
_customWidgets = {}


class UnknownWidget(Exception):
    """A .ui file names a custom widget class for which there is no stand-in."""


def register(className, cls):
    """Makes `cls` the stand-in for the custom widget `className` in .ui files (and strict like a C++ class)."""
    _customWidgets[className] = cls
    pythonqt._strict.add(cls)
    return cls


# ---------------------------------------------------------------- .ui loading
class HostUiLoader(QtUiTools.QUiLoader):
    """QUiLoader that knows the ctk/qMRML stand-ins and does the .ui <connections> in Python, because
    e.g. mrmlSceneChanged(vtkMRMLScene*) has no C++ type here."""

    def createWidget(self, className, parent=None, name=""):
        cls = _customWidgets.get(className)
        if cls is None and className in self._declared:
            self._unknown.add(className)
            w = QtWidgets.QWidget(parent)
        elif cls is not None:
            w = cls(parent)
        else:
            return super().createWidget(className, parent, name)
        w.setObjectName(name)
        self._keep.append(w)
        return w

    def load(self, device, parent=None):
        self._keep, self._unknown = [], set()
        if isinstance(device, (str, bytes)) or hasattr(device, "__fspath__"):
            text = open(device, encoding="utf8").read()
        else:
            if not device.isOpen():
                device.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
            text = bytes(device.readAll()).decode("utf8")
        root = ET.fromstring(text)
        self._declared = {c.findtext("class"): c.findtext("extends") for c in root.iter("customwidget")}
        conns = root.find("connections")
        wires = []
        if conns is not None:
            wires = [tuple(c.findtext(k) for k in ("sender", "signal", "receiver", "slot")) for c in conns]
            root.remove(conns)
        buf = QtCore.QBuffer()
        buf.setData(ET.tostring(root))
        buf.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        w = super().load(buf, parent)
        if self._unknown:
            raise UnknownWidget(f"no stand-in for {', '.join(sorted(self._unknown))}")
        byName = {}
        if w is not None:
            for o in [w, *_RAW_findChildren(w, QtCore.QObject)]:
                byName.setdefault(QtCore.QObject.property(o, "objectName"), o)
            w._host_keep = self._keep
            for s, sig, r, slot in wires:
                so, ro = byName.get(s), byName.get(r)
                fn = getattr(ro, _SIG.match(slot).group(1), None)
                if isinstance(fn, bool) or not callable(fn):
                    fn = None
                if so is not None and fn is not None:
                    so.connect(sig, fn)
        return w


def loadUI(path):
    """Returns the top widget of the .ui file at `path`."""
    return HostUiLoader().load(str(path))
