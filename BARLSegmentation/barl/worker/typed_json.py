# SPDX-License-Identifier: Apache-2.0
"""Dataclasses from JSON, checked against their annotations; standard library only."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


class MismatchError(Exception):
    """A value does not have the type of its field.

    Attributes:
        field: The field.
        problem: ``unknown``, ``missing`` or ``wrong``.
        wanted: The field's annotation, for ``wrong``.
    """

    def __init__(self, field: str, problem: str, wanted: str = "") -> None:
        super().__init__(f"{field} is {problem}")
        self.field, self.problem, self.wanted = field, problem, wanted


def hints(kind: type) -> dict[str, Any]:
    """Field -> annotation of a dataclass, class variables left out."""
    return _hints(kind)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    everything = typing.get_type_hints(kind)
    return {field.name: everything[field.name] for field in dataclasses.fields(kind)}


def name_of(hint: Any) -> str:
    """An annotation as it is written."""
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)


def read(kind: type[Kind], data: Mapping[str, Any], *, strict: bool = False) -> Kind:
    """A dataclass from a JSON object.

    Args:
        kind: The dataclass.
        data: Its fields; those with a default may be missing.
        strict: Refuse fields that ``kind`` does not have. Off, they are skipped: a newer program may send more.

    Raises:
        MismatchError: A field is missing, unknown or of a wrong kind.
    """
    wanted = hints(kind)
    if strict and (unknown := [name for name in data if name not in wanted]):
        raise MismatchError(unknown[0], "unknown")
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in data:
            raise MismatchError(field.name, "missing")
    return kind(**{name: _value(name, hint, data[name], strict) for name, hint in wanted.items() if name in data})


def _value(name: str, hint: Any, value: Any, strict: bool) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for choice in arguments:
            try:
                return _value(name, choice, value, strict)
            except MismatchError:
                continue
    elif origin is list and isinstance(value, list):
        return [_value(name, arguments[0], item, strict) for item in value]
    elif origin is dict and isinstance(value, Mapping):
        return {str(key): _value(name, arguments[1], item, strict) for key, item in value.items()}
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return read(hint, value, strict=strict)
    elif origin is None and isinstance(value, (int, float) if hint is float else hint):
        return value
    raise MismatchError(name, "wrong", name_of(hint))


def write(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    fields = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING) or item != default:
            fields[field.name] = item
    return fields
