# SPDX-License-Identifier: Apache-2.0
"""The label table of a project: which value in a label map means what. Fixed once, kept in every file that goes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from barl.errors import InputError
from barl.images.segments import Structure
from barl.project.names import check_name

T = TypeVar("T")

LARGEST_VALUE = 65535
# With background 255 classes, 0 to 254: prepared cases mark by 255 where nobody has looked.
MOST_LABELS = 254
# What other programs take as something else than a label.
_RESERVED = {
    "background": "the value 0",
    "ignore": "what nnU-Net calls voxels that nobody has looked at",
}


@dataclass(frozen=True)
class Code:
    """A coded concept as in DICOM: coding scheme ("SCT"), value ("10200004") and meaning ("Liver")."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Terminology:
    """What a label is in coded terms: category, type and, where it needs one, a modifier such as left or right."""

    category: Code
    type: Code
    modifier: Code | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Terminology:
        modifier = data.get("modifier")
        return cls(Code(**data["category"]), Code(**data["type"]), Code(**modifier) if modifier else None)


@dataclass(frozen=True)
class Label:
    """One row of the label table.

    Attributes:
        value: The value in label maps, 1 to 65535 (0 is background).
        name: What the user calls it.
        color: Red, green, blue, each 0 to 255.
        terminology: Its coded meaning, if known.
        lateral: It is one of a left/right pair; mirroring is then switched off in training and prediction.
        not_lateral: Its name or terminology names a side, but mirroring does no harm, as a person has decided.
    """

    value: int
    name: str
    color: tuple[int, int, int] = (230, 80, 60)
    terminology: Terminology | None = None
    lateral: bool = False
    not_lateral: bool = False

    @property
    def code(self) -> str:
        """Its coded meaning in short, such as ``SCT 64033007 + SCT 7771000``; empty without terminology."""
        coded = self.terminology
        return " + ".join(f"{c.scheme} {c.value}" for c in (coded.type, coded.modifier) if c) if coded else ""

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "name": self.name,
            "color": list(self.color),
            "terminology": self.terminology.to_json() if self.terminology else None,
            "lateral": self.lateral,
            **({"not_lateral": True} if self.not_lateral else {}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Label:
        """Read one row.

        Raises:
            InputError: The row is not as ``to_json`` writes it.
        """
        try:
            terminology = data.get("terminology")
            return cls(
                value=data["value"],
                name=data["name"],
                color=tuple(data.get("color") or cls.color),
                terminology=Terminology.from_json(terminology) if terminology else None,
                lateral=_true_or_false(data.get("lateral", False)),
                not_lateral=_true_or_false(data.get("not_lateral", False)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "A row of the label table cannot be read.", "Give each label at least a value and a name."
            ) from error


def structures(labels: Sequence[Label]) -> list[Structure]:
    """The rows of a label table as the readers of files with named segments need them."""
    return [Structure(label.value, label.name, label.code) for label in labels]


@dataclass(frozen=True)
class Channel:
    """One image of a case, such as T1 or FLAIR.

    Attributes:
        name: What the user calls it.
        pattern: Text in a file's name that only the files of this channel have (empty: none).
    """

    name: str
    pattern: str = ""


def _true_or_false(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(
            f"The lateral of a label is {value!r}, which is neither true nor false.", "Write true or false."
        )
    return value


def check_labels(labels: Sequence[Label]) -> list[Label]:
    """The table in ascending order of value.

    Raises:
        InputError: It is empty, or a value, name or color is missing, out of range or used twice.
    """
    if not labels:
        raise InputError("The label table is empty.", "Add at least one label with a value and a name.")
    for label in labels:
        if isinstance(label.value, bool) or not isinstance(label.value, int):
            raise InputError(f"The label value {label.value!r} is not a whole number.", "Use a number from 1 to 65535.")
        if label.value == 0:
            raise InputError(f"The label {label.name!r} has the value 0, which means background.", "Start with 1.")
        if not 1 <= label.value <= LARGEST_VALUE:
            raise InputError(f"The label value {label.value} is out of range.", f"Use 1 to {LARGEST_VALUE}.")
        check_name(label.name if isinstance(label.name, str) else "", f"label with the value {label.value}")
        check_not_reserved(label)
        whole = all(isinstance(part, int) and 0 <= part <= 255 for part in label.color)
        if len(label.color) != 3 or not whole:
            raise InputError(
                f"The color of label {label.name!r} is not three numbers from 0 to 255.", "Choose a color."
            )
    check_number_of_labels(labels)
    values = _twice(label.value for label in labels)
    if values:
        raise InputError(f"The label value {values[0]} is used twice.", "Give each label its own value.")
    names = _twice(label.name.strip().casefold() for label in labels)
    if names:
        raise InputError(f"The label name {names[0]!r} is used twice.", "Give each label its own name.")
    return sorted(labels, key=lambda label: label.value)


def check_number_of_labels(labels: Sequence[Label]) -> None:
    """Refuse a table of more labels than a model distinguishes.

    Raises:
        InputError: There are more.
    """
    if len(labels) > MOST_LABELS:
        raise InputError(
            f"The label table has {len(labels)} labels.", f"Use at most {MOST_LABELS}: no model distinguishes more."
        )


def check_not_reserved(label: Label) -> None:
    """Refuse a name that other programs do not take as that of a label.

    Raises:
        InputError: It is such a name.
    """
    if reason := _RESERVED.get(label.name.strip().casefold()):
        raise InputError(
            f"The label with the value {label.value} is named {label.name!r}, which is {reason}.",
            "Give it another name.",
        )


def check_channels(channels: Sequence[Channel]) -> list[Channel]:
    """The channels as given.

    Raises:
        InputError: There is none, or a name is empty or used twice.
    """
    if not channels:
        raise InputError("The project has no image channel.", "Name at least one, such as T1 or CT.")
    for channel in channels:
        check_name(channel.name if isinstance(channel.name, str) else "", "image channel")
    twice = _twice(channel.name.strip().casefold() for channel in channels)
    if twice:
        raise InputError(f"The channel name {twice[0]!r} is used twice.", "Give each channel its own name.")
    return list(channels)


def _twice(values: Iterable[T]) -> list[T]:
    return [value for value, count in Counter(values).items() if count > 1]
