# SPDX-License-Identifier: Apache-2.0
"""Values as JSON holds them; standard library only."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Any


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
