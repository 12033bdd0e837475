# SPDX-License-Identifier: Apache-2.0
"""What may stand beside a type in Annotated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


class Default:
    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        return self._value if self._generator is None else self._generator()

    def __eq__(self, other):
        return isinstance(other, Default) and self.value == other.value

    __hash__ = None


class Validator:
    def validate(self, value: Any) -> None:
        raise NotImplementedError("validate is not implemented")


@dataclasses.dataclass
class WithinRange(Validator):
    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclasses.dataclass
class Minimum(Validator):
    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be greater than {self.minimum}, is {value}")


@dataclasses.dataclass
class Maximum(Validator):
    maximum: float

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be less than {self.maximum}, is {value}")


@dataclasses.dataclass
class Choice(Validator):
    choices: list

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be in one of the following: {self.choices}")


@dataclasses.dataclass
class Exclude(Validator):
    excludedValues: list

    def validate(self, value: Any) -> None:
        if value in self.excludedValues:
            raise ValueError(f"Value is {value}, but must not be an excluded value: {self.excludedValues}")


class NotNone(Validator):
    def validate(self, value: Any) -> None:
        if value is None:
            raise ValueError("Value must not be None")


@dataclasses.dataclass
class Decimals:
    value: int


@dataclasses.dataclass
class SingleStep:
    value: float


def find(annotations: Sequence[object], kind: Any) -> Any:
    return next((one for one in annotations if isinstance(one, kind)), None)
