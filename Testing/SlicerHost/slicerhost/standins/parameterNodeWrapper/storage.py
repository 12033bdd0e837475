# SPDX-License-Identifier: Apache-2.0
"""Values in a vtkMRMLScriptedModuleNode, in Slicer's text forms."""

from __future__ import annotations

import collections.abc
import enum
import pathlib
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

import slicer

from .annotations import Choice, Default, Minimum, Validator, WithinRange, find


class Text:
    """A value stored as one parameter."""

    def __init__(
        self,
        valueType: Any,
        toText: Callable[[Any], str] = str,
        fromText: Callable[[str], Any] | None = None,
        empty: Any = None,
        accepted: Any = None,
    ) -> None:
        self.valueType, self.toText, self.fromText = valueType, toText, fromText or valueType
        self.empty = valueType() if empty is None else empty
        self.accepted = accepted or (valueType,)

    def isIn(self, node: slicer.vtkMRMLNode | None, name: str) -> bool:
        return node.HasParameter(name)

    def check(self, value: Any) -> None:
        if not isinstance(value, self.accepted):
            raise TypeError(f"Value must be of type '{self.valueType}', is type '{type(value)}' value '{value}'")

    def write(self, node: slicer.vtkMRMLNode | None, name: str, value: Any) -> None:
        self.check(value)
        node.SetParameter(name, self.toText(value))

    def read(self, node: slicer.vtkMRMLNode | None, name: str) -> Any:
        return self.fromText(node.GetParameter(name))

    def remove(self, node: slicer.vtkMRMLNode | None, name: str) -> None:
        node.UnsetParameter(name)


class Node:
    """A reference to a node."""

    empty = None

    def __init__(self, nodeTypes: Iterable[str]) -> None:
        self.nodeTypes = nodeTypes

    def isIn(self, node: slicer.vtkMRMLNode | None, name: str) -> bool:
        return node.HasParameter(name)

    def write(self, node: slicer.vtkMRMLNode | None, name: str, value: Any) -> None:
        if value is not None and not isinstance(value, self.nodeTypes):
            raise TypeError(f"Value must be of type '{self.nodeTypes}', is type '{type(value)}'")
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, None if value is None else value.GetID())

    def read(self, node: slicer.vtkMRMLNode | None, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: slicer.vtkMRMLNode | None, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class _Optional:
    """Another value or None, each under the number that it has in the type."""

    empty = None

    def __init__(self, inner: Any, index: int) -> None:
        self.inner, self.suffix, self.noneSuffix = inner, f".{index}", f".{1 - index}"

    def isIn(self, node: slicer.vtkMRMLNode | None, name: str) -> bool:
        return node.HasParameter(name + self.noneSuffix) or self.inner.isIn(node, name + self.suffix)

    def write(self, node: slicer.vtkMRMLNode | None, name: str, value: Any) -> None:
        changing = node.StartModify()
        try:
            self.remove(node, name)
            if value is None:
                node.SetParameter(name + self.noneSuffix, "True")
            else:
                self.inner.write(node, name + self.suffix, value)
        finally:
            node.EndModify(changing)

    def read(self, node: slicer.vtkMRMLNode | None, name: str) -> Any:
        return self.inner.read(node, name + self.suffix) if self.inner.isIn(node, name + self.suffix) else None

    def remove(self, node: slicer.vtkMRMLNode | None, name: str) -> None:
        node.UnsetParameter(name + self.noneSuffix)
        if self.inner.isIn(node, name + self.suffix):
            self.inner.remove(node, name + self.suffix)


class _ObservedList(collections.abc.MutableSequence):
    """Writes itself to the parameter node after each change."""

    def __init__(self, values: Iterable[Any], save: Callable[[list], None]) -> None:
        self._values, self._save = list(values), save

    def __getitem__(self, index):
        return self._values[index]

    def __len__(self):
        return len(self._values)

    def __eq__(self, other):
        return self._values == list(other)

    def __repr__(self):
        return f"ObservedList({self._values})"

    def __setitem__(self, index, value):
        self._values[index] = value
        self._save(self._values)

    def __delitem__(self, index):
        del self._values[index]
        self._save(self._values)

    def insert(self, index: int, value: Any) -> None:
        self._values.insert(index, value)
        self._save(self._values)

    __hash__ = None


class _List:
    empty = ()

    def __init__(self, item: Any) -> None:
        self.item = item

    def isIn(self, node: slicer.vtkMRMLNode | None, name: str) -> bool:
        return node.HasParameter(f"{name}.len")

    def write(self, node: slicer.vtkMRMLNode | None, name: str, value: Any) -> None:
        before = int(node.GetParameter(f"{name}.len") or 0)
        changing = node.StartModify()
        try:
            for index, one in enumerate(value):
                self.item.write(node, f"{name}.{index}", one)
            for index in range(len(value), before):
                self.item.remove(node, f"{name}.{index}")
            node.SetParameter(f"{name}.len", str(len(value)))
        finally:
            node.EndModify(changing)

    def read(self, node: slicer.vtkMRMLNode | None, name: str) -> Any:
        values = [self.item.read(node, f"{name}.{i}") for i in range(int(node.GetParameter(f"{name}.len") or 0))]
        return _ObservedList(values, lambda changed: self.write(node, name, changed))

    def remove(self, node: slicer.vtkMRMLNode | None, name: str) -> None:
        for index in range(int(node.GetParameter(f"{name}.len") or 0)):
            self.item.remove(node, f"{name}.{index}")
        node.UnsetParameter(f"{name}.len")


def _isNodeType(kind):
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def _storage(kind):
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        inner = [one for one in typing.get_args(kind) if one is not type(None)]
        if all(_isNodeType(one) for one in inner):
            return Node(tuple(inner))
        if len(inner) == 1 and len(inner) < len(typing.get_args(kind)):
            return _Optional(_storage(inner[0]), typing.get_args(kind).index(inner[0]))
    if typing.get_origin(kind) is list:
        return _List(_storage(typing.get_args(kind)[0]))
    if _isNodeType(kind):
        return Node((kind,))
    if kind is bool:
        return Text(bool, lambda value: "True" if value else "False", lambda text: text == "True")
    if kind in (int, float, str):
        accepted = (int, float) if kind is float else (kind,)
        return Text(kind, lambda value: str(kind(value)), kind, accepted=accepted)
    if isinstance(kind, type) and issubclass(kind, pathlib.PurePath):
        return Text(kind, str, kind, accepted=(pathlib.PurePath,))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return Text(kind, lambda value: value.name, lambda text: kind[text], empty=next(iter(kind)))
    raise TypeError(f"Unable to create serializer for type: {kind}")


class Parameter:
    def __init__(self, name: str, annotated: Any, default: Any) -> None:
        self.name, self.annotated = name, annotated
        self.annotations = typing.get_args(annotated)[1:] if typing.get_origin(annotated) is typing.Annotated else ()
        self.kind = typing.get_args(annotated)[0] if self.annotations else annotated
        self.storage = _storage(self.kind)
        self.validators = [one for one in self.annotations if isinstance(one, Validator)]
        declared = find(self.annotations, Default)
        if default is not None:
            self.default = default
        elif declared is not None:
            self.default = declared
        else:
            choice = find(self.validators, Choice)
            limits = find(self.validators, (WithinRange, Minimum))
            empty = self.storage.empty
            if choice is not None and empty not in choice.choices:
                empty = choice.choices[0]
            elif limits is not None and empty < limits.minimum:
                empty = limits.minimum
            self.default = Default(empty)
        self.validate(self.default.value)

    def validate(self, value: Any) -> None:
        for validator in self.validators:
            validator.validate(value)

    def write(self, node: slicer.vtkMRMLNode | None, value: Any) -> None:
        if isinstance(self.storage, Text):
            self.storage.check(value)
        self.validate(value)
        self.storage.write(node, self.name, value)

    def read(self, node: slicer.vtkMRMLNode | None) -> Any:
        return self.storage.read(node, self.name)
