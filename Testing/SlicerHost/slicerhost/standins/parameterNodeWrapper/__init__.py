# SPDX-License-Identifier: Apache-2.0
"""Stand-in of slicer.parameterNodeWrapper: typed attributes kept in a vtkMRMLScriptedModuleNode, and their widgets.

Types: str, int, float, bool, Enum, pathlib.Path, MRML nodes, lists of these, and Optional of these. Values are stored
in Slicer's text forms, so that scenes can be exchanged. Missing against Slicer: parameter packs, tuple, dict, Union,
Any, QColor, FloatRange.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import qt
import vtk

from .annotations import (
    Choice,
    Decimals,
    Default,
    Exclude,
    Maximum,
    Minimum,
    NotNone,
    SingleStep,
    Validator,
    WithinRange,
)
from .connectors import connect
from .storage import Parameter

if TYPE_CHECKING:
    from PySide6 import QtWidgets

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "Maximum",
    "Minimum",
    "NotNone",
    "SingleStep",
    "Validator",
    "WithinRange",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]

PROPERTY = "SlicerParameterName"


class _Wrapper:
    """Base of every decorated class."""

    allParameters: typing.ClassVar[dict] = {}

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._guis, self._tags, self._next, self._updating = {}, {}, 0, False
        for parameter in self.allParameters.values():
            if not parameter.storage.isIn(parameterNode, parameter.name):
                parameter.write(parameterNode, parameter.default.value)
            parameter.read(parameterNode)  # Slicer keeps the value, and raises here what cannot be read

    def __eq__(self, other):
        return isinstance(other, type(self)) and self.parameterNode is other.parameterNode

    __hash__ = None

    def _parameter(self, name):
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")
        return self.allParameters[name]

    def default(self, name: str) -> Any:
        return self._parameter(name).default

    def dataType(self, name: str) -> Any:
        return self._parameter(name).annotated

    def isCached(self, name: str) -> bool:
        self._parameter(name)
        return False

    def getValue(self, name: str) -> Any:
        return self._parameter(name).read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self._parameter(name).write(self.parameterNode, value)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModifying: int) -> int:
        return self.parameterNode.EndModify(wasModifying)

    def AddObserver(self, *arguments: Any) -> int:
        return self.parameterNode.AddObserver(*arguments)

    def RemoveObserver(self, tag: int) -> None:
        return self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        return self.parameterNode.Modified()

    def connectGui(self, gui: QtWidgets.QWidget) -> int:
        # A widget, or what childWidgetVariables returns.
        widgets = gui.findChildren(qt.QWidget) if hasattr(gui, "isWidgetType") else vars(gui).values()
        return self.connectParametersToGui({w.property(PROPERTY): w for w in widgets if w.property(PROPERTY)})

    def connectParametersToGui(self, mapping: Mapping[str, Any]) -> int:
        connectors = {name: connect(widget, self._parameter(name)) for name, widget in mapping.items()}
        tag, self._next = self._next, self._next + 1
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(lambda name=name, connector=connector: self._fromGui(name, connector))
        self._tags[tag] = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._toGui())
        return tag

    def disconnectGui(self, tag: int) -> None:
        for connector in self._guis.pop(tag, {}).values():
            connector.onChanged(None)
        if tag in self._tags:
            self.RemoveObserver(self._tags.pop(tag))

    def _fromGui(self, name, connector):
        if not self._updating:
            self.setValue(name, connector.read())

    def _toGui(self):
        if self._updating:
            return
        self._updating = True
        try:
            for connectors in list(self._guis.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False


def _property(name):
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    def wrap(decorated):
        parameters = {}
        for name, annotated in typing.get_type_hints(decorated, include_extras=True).items():
            if hasattr(_Wrapper, name):
                raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
            given = decorated.__dict__.get(name)
            default = given if isinstance(given, Default) or given is None else Default(given)
            parameters[name] = Parameter(name, annotated, default)
        body = {name: value for name, value in vars(decorated).items() if name not in parameters}
        body = {name: value for name, value in body.items() if name not in ("__dict__", "__weakref__")}
        body.update({name: _property(name) for name in parameters}, allParameters=parameters)
        return type(decorated.__name__, (_Wrapper,), body)

    return wrap if classtype is None else wrap(classtype)


def isParameterNodeWrapper(classOrObj: object) -> bool:
    return isinstance(classOrObj, _Wrapper) or (isinstance(classOrObj, type) and issubclass(classOrObj, _Wrapper))
