# SPDX-License-Identifier: Apache-2.0
"""Cleanup of a predicted label map: small pieces of a label are removed, holes in it are filled.

A piece is a 26-connected component of one label. A hole is a 6-connected component of what is not the label that does
not reach the border of the label map; only its background voxels are filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from barl.images.components import bounding_box, components
from barl.images.geometry import Triple, triple

REMOVED, FILLED = "removed", "filled"
ALL, LARGEST, VOLUME = "all", "largest", "volume"


@dataclass(frozen=True)
class CleanupRule:
    """What is done with one label.

    Attributes:
        value: The label.
        pieces: ``all`` stay; only the ``largest``; or those of at least ``min_ml`` (``volume``).
        min_ml: Volume in ml.
        keep_one: With ``volume``: the largest piece stays even if it is smaller.
        fill_holes: Whether holes are filled.
        gain: Mean gain in Dice of the cases by which the rule was chosen.
        cases: Number of these cases.
    """

    value: int
    pieces: str = ALL
    min_ml: float = 0.0
    keep_one: bool = False
    fill_holes: bool = False
    gain: float = 0.0
    cases: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, rule: Mapping[str, Any]) -> CleanupRule:
        """Read what ``to_json`` wrote; raises ``TypeError`` where a field is unknown or missing."""
        return cls(**rule)

    def in_words(self) -> str:
        """The rule without the label's name, such as ``largest piece, holes filled``."""
        pieces = {LARGEST: "largest piece", VOLUME: f"pieces of at least {self.min_ml:.3g} ml"}.get(self.pieces, "")
        return ", ".join(part for part in (pieces, "holes filled" if self.fill_holes else "") if part)


@dataclass(frozen=True)
class Change:
    """One piece that was removed or one hole that was filled.

    Attributes:
        kind: ``removed`` or ``filled``.
        value: The label.
        box: Where it lies, ``(k, j, i)``.
        mask: Its voxels inside the box.
    """

    kind: str
    value: int
    box: Triple[slice]
    mask: np.ndarray

    @property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.mask))

    @property
    def center(self) -> np.ndarray:
        """Index ``(k, j, i)`` of the voxel of the piece that is nearest to its center of mass."""
        inside = np.argwhere(self.mask)
        nearest = inside[((inside - inside.mean(axis=0)) ** 2).sum(axis=1).argmin()]
        return nearest + [part.start for part in self.box]


def clean(labels: np.ndarray, rules: Sequence[CleanupRule], voxel_ml: float) -> list[Change]:
    """Apply rules to a label map in place: first all removals, then all fillings.

    Args:
        labels: Label values ``[k, j, i]``; writable.
        rules: At most one for each label.
        voxel_ml: Volume of a voxel in ml.

    Returns:
        What was changed, the largest change first.
    """
    changes: list[Change] = []
    for rule in rules:
        if rule.pieces != ALL:
            for change in _small_pieces(labels, rule, voxel_ml):
                labels[change.box][change.mask] = 0
                changes.append(change)
    for rule in rules:
        if rule.fill_holes:
            for change in _holes(labels, rule.value):
                labels[change.box][change.mask] = rule.value
                changes.append(change)
    return sorted(changes, key=lambda change: -change.voxels)


def number_pieces(labels: np.ndarray, value: int) -> tuple[Triple[slice], np.ndarray, np.ndarray] | None:
    """The pieces of a label, numbered from 1.

    Returns:
        The label's box ``(k, j, i)``, the numbers inside the box, and voxels by number (of number 0: 0); None if the
        label map does not hold the label.
    """
    mask = labels == value
    box = bounding_box(mask)
    if box is None:
        return None
    numbers, count = components(mask[box])
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)
    sizes[0] = 0
    return box, numbers, sizes


def kept_pieces(sizes: np.ndarray, rule: CleanupRule, voxel_ml: float) -> np.ndarray:
    """Whether a rule keeps each piece, by number; of several largest pieces the first is kept."""
    if rule.pieces == LARGEST:
        return np.arange(len(sizes)) == int(sizes.argmax())
    if rule.pieces == VOLUME:
        kept = sizes * voxel_ml >= rule.min_ml * (1 - 1e-9)
        return kept | (np.arange(len(sizes)) == int(sizes.argmax())) if rule.keep_one else kept
    return np.ones(len(sizes), bool)


def number_holes(labels: np.ndarray, value: int) -> tuple[Triple[slice], np.ndarray] | None:
    """The holes in a label, numbered from 1 inside the label's box; None if there is none."""
    mask = labels == value
    box = bounding_box(mask)
    if box is None:
        return None
    numbers, count = ndimage.label(~mask[box])
    if not count:
        return None
    inner = np.ones(count + 1, bool)
    inner[0] = False
    for axis in range(3):
        for end in (0, -1):  # the box is tight: what reaches its faces is connected to what lies outside
            inner[np.unique(np.take(numbers, end, axis))] = False
    if not inner.any():
        return None
    numbers = np.where(inner[numbers] & (labels[box] == 0), numbers, 0)
    return box, numbers


def _small_pieces(labels: np.ndarray, rule: CleanupRule, voxel_ml: float) -> Iterator[Change]:
    found = number_pieces(labels, rule.value)
    if found is None:
        return
    box, numbers, sizes = found
    kept = kept_pieces(sizes, rule, voxel_ml)
    kept[0] = True
    yield from _changes(REMOVED, rule.value, box, numbers, np.flatnonzero(~kept))


def _holes(labels: np.ndarray, value: int) -> Iterator[Change]:
    found = number_holes(labels, value)
    if found is not None:
        yield from _changes(FILLED, value, *found, np.unique(found[1])[1:])


def _changes(kind: str, value: int, box: Triple[slice], numbers: np.ndarray, chosen: np.ndarray) -> Iterator[Change]:
    if not len(chosen):
        return
    places = ndimage.find_objects(numbers)
    for number in chosen.tolist():
        place = places[number - 1]
        mask = numbers[place] == number
        whole = [slice(b.start + p.start, b.start + p.stop) for b, p in zip(box, place, strict=True)]
        yield Change(kind, value, triple(whole), mask)
