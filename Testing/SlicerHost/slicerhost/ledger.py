# SPDX-License-Identifier: Apache-2.0
"""Which names of Slicer, CTK, Qt and VTK a module's code uses, and in which header or source file each was found.

    python -m slicerhost.ledger MODULE_FOLDER [--leave-out SUBFOLDER ...]

The syntax trees are read, so that names are found on paths that no test takes: members of widgets (their classes come
from the .ui files, from constructors and from what functions are known to return), of `qt`, `ctk`, `slicer` and `vtk`,
signals in connect(), names of Slicer's Python files, and methods of MRML and VTK objects. Members of objects whose
class cannot be told that way are not counted; the stand-ins check those when they run.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import json
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from . import calls, declared

PYTHON_NAMES = json.loads(Path(__file__).with_name("python_names.json").read_text(encoding="utf-8"))
_QT = "Qt 5.15 and 6.11"
_WHEEL = "slicer-core (compiled)"
_PYTHONQT = {"connect", "disconnect", "delete", "className", "name", "findChild", "findChildren", "children"}
# What calls return whose type the syntax tree does not tell.
_RETURNS = {
    ("slicer.app", "layoutManager"): "qSlicerLayoutManager",
    ("slicer.app", "moduleManager"): "qSlicerModuleManager",
    ("slicer.app", "applicationLogic"): "vtkSlicerApplicationLogic",
    ("slicer.app", "coreIOManager"): "qSlicerIOManager",
    ("slicer.app", "style"): "QStyle",
    ("slicer.app", "userSettings"): "QSettings",
    ("slicer.app", "settings"): "QSettings",
    ("qSlicerLayoutManager", "sliceWidget"): "qMRMLSliceWidget",
    ("qSlicerLayoutManager", "threeDWidget"): "qMRMLThreeDWidget",
    ("qSlicerLayoutManager", "plotWidget"): "qMRMLPlotWidget",
    ("qMRMLSliceWidget", "sliceView"): "qMRMLSliceView",
    ("qMRMLSliceWidget", "sliceLogic"): "vtkMRMLSliceLogic",
    ("qMRMLSliceWidget", "mrmlSliceNode"): "vtkMRMLSliceNode",
    ("qMRMLThreeDWidget", "threeDView"): "qMRMLThreeDView",
    ("QTableWidget", "horizontalHeader"): "QHeaderView",
    ("QTableWidget", "verticalHeader"): "QHeaderView",
}
_ROOTS = {"slicer.app": "qSlicerApplication", "slicer.mrmlScene": "vtkMRMLScene"}
_KITS = ("qt", "ctk", "vtk", "slicer")
_FOREIGN = "neither Slicer nor Qt"
# Set when Slicer starts or opens something, so in no header.
_SET_LATER = {"slicer.dicomDatabase": "Modules/Scripted/DICOM/DICOM.py"}


class Use(NamedTuple):
    """A name, such as `QLabel.text` or `slicer.util.loadUI`, and where it stands."""

    name: str
    file: str
    line: int


# ---------------------------------------------------------------- what is used
def uiClasses(folder: Path) -> dict[str, set[str]]:
    """Object names in all .ui files below ``folder`` and their classes."""
    result: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.ui")):
        for widget in ElementTree.parse(path).iter("widget"):
            kind = "QFrame" if widget.get("class") == "Line" else widget.get("class")
            result.setdefault(widget.get("name"), set()).add(kind)
    return result


def used(folder: Path, leaveOut: Collection[str] = ()) -> list[Use]:
    """All uses in the Python and .ui files of a module.

    Args:
        folder: of the module, with its Python file.
        leaveOut: names of folders in it that are not read, such as a library that uses nothing of Slicer.
    """
    folder, found = Path(folder), []
    widgets = uiClasses(folder)
    for kinds in widgets.values():
        found += [Use(kind, "*.ui", 0) for kind in kinds]
    for path in sorted(folder.rglob("*.py")):
        if path.relative_to(folder).parts[0] in leaveOut:
            continue
        reader = _Reader(path.relative_to(folder).as_posix(), widgets)
        reader.visit(ast.parse(path.read_text(encoding="utf-8")))
        found += reader.found
    return found


class _Reader(ast.NodeVisitor):
    def __init__(self, file: str, widgets: dict[str, set[str]]) -> None:
        self.file, self.widgets, self.found = file, widgets, []
        self.imported = {}  # local name -> dotted name in Slicer's Python files
        self.types = {}  # "x" or "self.x" -> class

    def use(self, name: str, node: ast.AST) -> None:
        self.found.append(Use(name, self.file, node.lineno))

    # Names from elsewhere

    def visit_Import(self, node):
        for one in node.names:
            if one.name in PYTHON_NAMES["files"]:
                self.imported[one.asname or one.name] = one.name
                self.use(one.name, node)
            elif one.name.partition(".")[0] not in _KITS:
                self.types[(one.asname or one.name).partition(".")[0]] = _FOREIGN

    def visit_ImportFrom(self, node):
        if node.module == "slicer" or (node.module or "").startswith("slicer.") or node.module in PYTHON_NAMES["files"]:
            for one in node.names:
                self.imported[one.asname or one.name] = f"{node.module}.{one.name}"
                self.use(f"{node.module}.{one.name}", node)
        elif node.module not in _KITS:
            self.types.update({one.asname or one.name: _FOREIGN for one in node.names})

    # Types of variables

    def visit_Assign(self, node):
        self.generic_visit(node)
        kind = self.typeOf(node.value)
        for target in node.targets:
            if isinstance(target, (ast.Name, ast.Attribute)) and (name := dotted(target)):
                self.types[name] = kind

    def visit_FunctionDef(self, node):
        outer = dict(self.types)
        for argument in node.args.args:
            self.types.pop(argument.arg, None)
        node.returns = None  # annotations are never evaluated
        self.generic_visit(node)
        kept = {name: kind for name, kind in self.types.items() if name.startswith("self.") or kind == _FOREIGN}
        self.types = {**outer, **kept}

    def visit_arg(self, node):
        """An argument's annotation is never evaluated."""

    def typeOf(self, node: ast.AST | None) -> str | None:
        """Class of what an expression gives: of Qt, CTK, MRML or VTK, or None."""
        name = dotted(node)
        if name in _ROOTS:
            return name
        if isinstance(node, ast.Call):
            function = node.func
            called = dotted(function) or ""
            kit, _, rest = called.partition(".")
            if kit in _KITS and re.fullmatch(r"[qcv]?\w*[A-Z]\w*", rest):
                return rest
            if isinstance(function, ast.Attribute):
                owner = self.typeOf(function.value)
                return _FOREIGN if owner == _FOREIGN else _RETURNS.get((owner, function.attr))
            return _FOREIGN if self.types.get(called) == _FOREIGN else None
        if isinstance(node, ast.Attribute) and dotted(node.value) in ("self.ui", "ui", "self._ui", "panel.ui"):
            kinds = self.widgets.get(node.attr)
            return sorted(kinds)[0] if kinds else None
        if isinstance(node, ast.Attribute) and self.typeOf(node.value) == _FOREIGN:
            return _FOREIGN
        return self.types.get(name) if name else None

    # Members

    def visit_Attribute(self, node):
        name, owner = dotted(node), self.typeOf(node.value)
        first = (name or "").partition(".")[0]
        if owner == _FOREIGN:
            pass
        elif owner is not None:
            self.use(f"{_ROOTS.get(owner, owner)}.{node.attr}", node)
        elif first in _KITS:
            self.use(name, node)
        elif first in self.imported and isinstance(node.value, ast.Name):
            self.use(f"{self.imported[first]}.{node.attr}", node)
        elif re.match(r"[A-Z][a-z]\w*[a-z]", node.attr) and not re.match(r"[A-Z]+(_|$)", node.attr):
            self.use(f"VTK object.{node.attr}", node)
        self.generic_visit(node)

    def visit_Call(self, node):
        attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if attribute in ("connect", "disconnect") and node.args and isinstance(node.args[0], ast.Constant):
            owner = self.typeOf(node.func.value)
            self.use(f"{_ROOTS.get(owner, owner) or 'QObject'}.connect {node.args[0].value}", node)
        self.generic_visit(node)


def dotted(node: ast.AST | None) -> str | None:
    """`a.b.c` of an expression; None if it is something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return base and f"{base}.{node.attr}"
    return None


# ---------------------------------------------------------------- where it was found
@functools.cache
def where(name: str) -> str | None:
    """Header or source file in which a name stands; None if nowhere."""
    if name.startswith("VTK object."):
        return _WHEEL if name.partition(".")[2] in _methods() else None
    if ".connect " in name:
        owner, _, signal = name.partition(".connect ")
        return _signal(owner, signal)
    for module, entry in PYTHON_NAMES["files"].items():
        if name == module or name.startswith(module + "."):
            return _pythonName(entry, name[len(module) + 1 :].split("."))
    for attribute, path in _SET_LATER.items():
        if name == attribute or name.startswith(attribute + "."):
            return path
    first, *rest = name.split(".")
    if first == "slicer":
        return _slicerName(rest)
    if first in ("qt", "ctk") and rest:
        return _member(rest[0], rest[1:])
    if first == "vtk":
        return _vtkName(rest)
    return _member(first, rest)


def _pythonName(entry, rest) -> str | None:
    path, *more = entry["paths"]
    path = path if not more else str(Path(path).parent)
    if rest == [""] or rest[0] in entry["functions"]:
        return path
    if rest[0] in entry["classes"] and (len(rest) == 1 or rest[1] in entry["classes"][rest[0]]):
        return path
    return None


def _slicerName(rest) -> str | None:
    import slicer

    if rest[0] == "util":
        return "Base/Python/slicer/util.py" if len(rest) == 1 or hasattr(slicer.util, rest[1]) else None
    if rest[0] in ("app", "mrmlScene", "modules"):
        if len(rest) == 1:
            return "Base/Python/slicer/__init__.py"
        if rest[0] == "modules":
            return _moduleName(rest[1])
        return _member(_ROOTS[f"slicer.{rest[0]}"], rest[1:])
    if rest[0] in ("i18n", "packaging", "ScriptedLoadableModule", "parameterNodeWrapper", "testing"):
        return "Base/Python/slicer"
    return _member(rest[0], rest[1:])


def _moduleName(name) -> str | None:
    """`slicer.modules.volumes`, or the widget that Slicer enters for a scripted module."""
    own = re.sub(r"(Widget|Instance)$", "", name)
    if own != name:
        return "Base/QTGUI/qSlicerScriptedLoadableModuleWidget.cxx"
    return "Modules" if name in {module.lower() for module in PYTHON_NAMES["modules"]} else None


def _vtkName(rest) -> str | None:
    import vtk

    thing = vtk
    for part in rest:
        thing = getattr(thing, part, None)
        if thing is None:
            return None
    return "VTK 9.6"


def _member(className, rest) -> str | None:
    """A class of Slicer, CTK, Qt or VTK, or one of its members."""
    import qt
    import slicer

    if className.startswith("vtk"):
        cls = getattr(slicer, className, None)
        if cls is None:
            return _vtkName([className, *rest])
        return _WHEEL if not rest or hasattr(cls, rest[0]) else None
    if declared.known(className):
        return _declaredMember(className, rest)
    cls = getattr(qt, className, None)
    if cls is None:
        return "CTK" if className.startswith("ctk") and declared.otherClass(className) and not rest else None
    return _QT if not rest or _hasMember(cls, rest[0]) else None


def _declaredMember(className, rest) -> str | None:
    entries = declared._ALL
    if not rest:
        return entries[className]["header"]
    name = className
    while name in entries:
        entry = entries[name]
        offered = {declared.split(one)[0] for one in (*entry.get("signals", ()), *entry.get("slots", ()))}
        offered |= set(entry.get("properties", ())) | set(entry.get("enums", ()))
        for members in entry.get("enums", {}).values():
            offered |= set(members)
        if rest[0] in offered:
            return entry["header"]
        name = entry["base"]
    return _member(name, rest)


def _hasMember(cls, name) -> bool:
    if name in _PYTHONQT:
        return True
    member = inspect.getattr_static(cls, name, None)
    if isinstance(member, calls.HostOnly):  # of Qt 6 only
        return False
    meta = getattr(cls, "staticMetaObject", None)
    return member is not None or (meta is not None and meta.indexOfProperty(name) >= 0)


def _signal(owner, signal) -> str | None:
    """A signal with its arguments, of a class or, if that is not known, of any."""
    signal = signal.replace(" ", "")
    classes = [owner] if owner != "QObject" else [name for name in declared._ALL if name]
    for className in classes:
        name = className
        while declared.known(name):
            if any(one.replace("=", "") == signal for one in declared._ALL[name].get("signals", ())):
                return declared._ALL[name]["header"]
            name = declared._ALL[name]["base"]
        if owner != "QObject" and signal in _qtSignals(name):
            return _QT
    return _QT if owner == "QObject" and signal in _qtSignals(None) else None


@functools.cache
def _qtSignals(className) -> frozenset[str]:
    """Signatures of the signals of a Qt class, or of all."""
    import qt
    from PySide6 import QtCore

    classes = [getattr(qt, className, None)] if className else list(vars(qt).values())
    found = set()
    for cls in classes:
        meta = getattr(cls, "staticMetaObject", None)
        for index in range(meta.methodCount() if meta is not None else 0):
            method = meta.method(index)
            if method.methodType() == QtCore.QMetaMethod.MethodType.Signal:
                found.add(method.methodSignature().data().decode())
    return frozenset(found)


@functools.cache
def _methods() -> frozenset[str]:
    """Names of members of all MRML classes and of the VTK classes that they hand out."""
    import slicer
    import vtk

    plain = (vtk.vtkMatrix4x4, vtk.vtkImageData, vtk.vtkPolyData, vtk.vtkTable, vtk.vtkCollection, vtk.vtkIdTypeArray)
    plain += (
        vtk.vtkPointData,
        vtk.vtkStringArray,
        vtk.vtkDoubleArray,
        vtk.vtkPoints,
        vtk.vtkCellLocator,
        vtk.vtkLookupTable,
        vtk.vtkRenderWindow,
        vtk.vtkRendererCollection,
        vtk.vtkRenderer,
        vtk.vtkTextActor,
        vtk.vtkCoordinate,
        vtk.vtkTextProperty,
    )
    classes = [cls for name, cls in vars(slicer).items() if name.startswith("vtk") and isinstance(cls, type)]
    return frozenset(name for cls in (*classes, *plain) for name in dir(cls))


# ---------------------------------------------------------------- in words
def main(arguments: list[str] | None = None) -> int:
    """Prints where the names of a module were found; 1 if some were not."""
    parser = argparse.ArgumentParser(prog="slicerhost.ledger", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the module's folder")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="SUBFOLDER", help="folders that are not read")
    options = parser.parse_args(arguments)
    import slicerhost

    slicerhost.install()
    uses = used(options.folder, options.leave_out)
    names = sorted({use.name for use in uses})
    places: dict[str, int] = {}
    for name in names:
        place = where(name)
        places[place or "not found"] = places.get(place or "not found", 0) + 1
    print(f"{len(names)} names in {len(uses)} places")
    for place, count in sorted(places.items(), key=lambda pair: -pair[1]):
        print(f"{count:5d}  {place}")
    for use in uses:
        if where(use.name) is None:
            print(f"{use.file}:{use.line}: {use.name}")
    return int("not found" in places)


if __name__ == "__main__":
    sys.exit(main())
