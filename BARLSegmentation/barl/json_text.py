# SPDX-License-Identifier: Apache-2.0
"""Values as JSON holds them; standard library only."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from types import UnionType
from typing import Any, get_args, get_origin


def plain(value: Any) -> Any:
    """Turn ``value`` into the types of JSON.

    Dataclasses become objects, paths become text, NaN and infinities become null, numpy scalars and arrays become
    numbers and lists.

    Raises:
        TypeError: JSON has no type for ``value``.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):  # before the numpy case: numpy.float64 is a float
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, torch tensors, without importing either
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    raise TypeError(f"JSON has no type for {type(value).__name__}")


def dumps(value: Any, *, indent: int | None = None) -> str:
    """``plain(value)`` as JSON text: in one line without spaces, or indented."""
    separators = (",", ":") if indent is None else None
    return json.dumps(plain(value), indent=indent, separators=separators, allow_nan=False)


def misfit(value: Any, kind: Any, least: float = -math.inf, most: float = math.inf) -> str:
    """Say what a value must be like, or nothing if it is like that.

    Args:
        value: Of JSON's types.
        kind: ``bool``, ``int``, ``float``, ``str``, ``dict``, a tuple of these (JSON's list), or one of them or None.
        least: The smallest that a number can be, and each number of a list.
        most: The largest.

    Returns:
        Words that follow "Give", such as ``a list of 3 numbers from 0 on``; empty if the value fits.
    """
    if isinstance(kind, UnionType):
        kinds = get_args(kind)
        return "" if value is None else misfit(value, next(k for k in kinds if k is not type(None)), least, most)
    parts = get_args(kind) if get_origin(kind) is tuple else ()
    if parts:
        fits = isinstance(value, list | tuple) and (parts[-1] is Ellipsis or len(value) == len(parts))
        fits = fits and not any(misfit(part, parts[0], least, most) for part in value)
        amount = "" if parts[-1] is Ellipsis else f"{len(parts)} "
        return "" if fits else f"a list of {amount}{_in_words(parts[0], least, most, many=True)}"
    if kind in (int, float):
        fits = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        fits = fits and math.isfinite(value) and least <= value <= most
    else:
        fits = isinstance(value, get_origin(kind) or kind)
    return "" if fits else _in_words(kind, least, most)


def _in_words(kind: Any, least: float, most: float, many: bool = False) -> str:
    """What a value of this type and range is called."""
    if get_origin(kind) is tuple:
        return "lists of " + (f"{len(get_args(kind))} " + _in_words(get_args(kind)[0], least, most, True))
    names = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers"), str: ("text", "texts")}
    names |= {bool: ("true or false", "true or false")}
    name = names.get(kind, ("an object", "objects"))[many]
    if kind not in (int, float) or math.isinf(least):
        return name
    return f"{name} from {least:.10g} on" if math.isinf(most) else f"{name} from {least:.10g} to {most:.10g}"
