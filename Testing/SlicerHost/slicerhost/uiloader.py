# SPDX-License-Identifier: Apache-2.0
"""Loads .ui files as Slicer does: Qt's own loader, with the registered stand-ins for custom widgets.

Stricter than Slicer, where a slip in a .ui file passes in silence: unknown classes, properties that a widget has not,
and connections that cannot be made all fail.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6 import QtCore, QtUiTools

from . import calls, declared, pythonqt, signals

if TYPE_CHECKING:
    from PySide6 import QtWidgets

_custom: dict[str, type] = {}
_Loader = QtUiTools.QUiLoader


class UiError(Exception):
    """A .ui file that Slicer would load with something missing, or not at all."""


def register(className: str, cls: type | None = None) -> Any:
    """Makes `cls` the stand-in for `className` in .ui files, behaving as a C++ class; also usable as a decorator."""
    if cls is None:
        return lambda decorated: register(className, decorated)
    _custom[className] = cls
    return pythonqt.asCpp(cls)


def unregister(className: str) -> None:
    """Forgets the stand-in of a class."""
    _custom.pop(className)


def registered() -> dict[str, type]:
    """Class names and their stand-ins."""
    return dict(_custom)


class HostUiLoader(_Loader):
    """qt.QUiLoader: `load(file)` with a QFile (or QIODevice) as in Slicer."""

    def createWidget(
        self, className: str, parent: QtWidgets.QWidget | None = None, name: str = ""
    ) -> QtWidgets.QWidget:
        cls = _custom.get(className)
        if cls is None:
            widget = _Loader.createWidget(self, className, parent, name)
            if widget is None:
                raise UiError(f"no widget class {className}")
            return widget
        widget = cls(parent)
        widget.setObjectName(name)
        self.__dict__.setdefault("made", []).append(widget)  # QUiLoader does not keep what Python made
        return widget

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        if not device.isOpen():
            device.open(QtCore.QIODevice.ReadOnly)
        return build(device.readAll().data().decode("utf-8"), parent)


def build(text: str, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
    """The top widget of a .ui file given as text."""
    root = ElementTree.fromstring(text)
    _checkClasses(root)
    _checkProperties(root)
    _numberFlags(root)
    wires = root.find("connections")
    if wires is not None:  # made below: Qt knows no vtkMRMLScene* here
        root.remove(wires)
    buffer = QtCore.QBuffer()
    buffer.setData(ElementTree.tostring(root))
    buffer.open(QtCore.QIODevice.ReadOnly)
    loader = HostUiLoader()
    top = _Loader.load(loader, buffer, parent)
    if top is None:
        raise UiError(f"Qt cannot load it: {loader.errorString()}")
    byName = {w.objectName: w for w in reversed([top, *top.findChildren(QtCore.QObject)])}
    for wire in wires if wires is not None else ():
        _connect(byName, *(wire.findtext(k) for k in ("sender", "signal", "receiver", "slot")))
    return top


def _checkClasses(root) -> None:
    plain = set(_Loader().availableWidgets())
    unknown = sorted({w.get("class") for w in root.iter("widget")} - plain - set(_custom) - {"Line"})
    if unknown:
        raise UiError(
            f"no such widget class, or no stand-in for it: {', '.join(unknown)} "
            "(write one and register it with slicerhost.uiloader.register)"
        )
    named = {c.findtext("class"): c.findtext("extends") for c in root.iter("customwidget")}
    for widget in root.iter("widget"):
        cls = widget.get("class")
        if cls in _custom and cls not in named:
            raise UiError(f"{cls} is used but not listed in <customwidgets>: Qt Designer would refuse the file")


def _checkProperties(root) -> None:
    """A property that the widget has not becomes a dynamic property, without a word, and does nothing."""
    for widget in root.iter("widget"):
        name = widget.get("class")
        cls = _custom.get(name) or getattr(__import__("qt"), "QFrame" if name == "Line" else name, None)
        if cls is None:
            continue
        for element in widget.findall("property"):
            wanted = element.get("name")
            if element.get("stdset") == "0" or pythonqt.isProperty(cls, wanted) or name == "Line":
                continue
            if cls in calls.standIns and wanted in declared.properties(cls):
                raise declared.NotInHost(cls, wanted)
            raise UiError(f"{name} '{widget.get('name')}' has no property '{wanted}'")


def _numberFlags(root) -> None:
    """Flags and enums of stand-ins become numbers: Qt's loader knows them for C++ classes only."""
    for widget in root.iter("widget"):
        cls = _custom.get(widget.get("class"))
        for element in widget.findall("property") if cls is not None else ():
            value = element.find("set") if element.find("set") is not None else element.find("enum")
            if value is None or not (value.text or "").startswith(f"{cls.__name__}::"):
                continue
            number = 0
            for member in value.text.split("|"):
                bit = getattr(cls, member.rpartition("::")[2], None)
                if bit is None:
                    raise UiError(f"{widget.get('class')} '{widget.get('name')}': no {member}")
                number |= int(bit)
            value.tag, value.text = "number", str(number)


def _connect(byName, sender, signal, receiver, slot) -> None:
    source, target = byName.get(sender), byName.get(receiver)
    function = None if target is None else signals.slotOf(target, re.match(r"\w+", slot)[0])
    if source is None or function is None or not source.connect(signal, function):
        raise UiError(f"cannot connect {sender}.{signal} to {receiver}.{slot}")


def loadUI(path: str | Path) -> object:
    """Returns the top widget of the .ui file at `path`.

    Raises:
        UiError: the file names a class, property, signal or slot that does not exist.
        declared.NotInHost: it exists in Slicer, but the stand-in lacks it.
    """
    path = Path(path)
    try:
        return build(path.read_text(encoding="utf-8"))
    except UiError as error:
        raise UiError(f"{path.name}: {error}") from None
