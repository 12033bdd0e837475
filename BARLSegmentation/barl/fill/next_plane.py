# SPDX-License-Identifier: Apache-2.0
"""Which plane to outline next, and what that is expected to bring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from barl.fill.drawn import bounding_box
from barl.fill.filling import Filled

APART = 3


@dataclass(frozen=True)
class Plane:
    """A plane worth outlining.

    Attributes:
        axis: Of the array that it is perpendicular to: 0 = k, 1 = j, 2 = i.
        index: Its place along that axis.
        dice_now, dice_after: Expected Dice of the fill before and after it is drawn.
    """

    axis: int
    index: int
    dice_now: float
    dice_after: float


def next_plane(filled: Filled, drawn: np.ndarray) -> Plane | None:
    """The plane of any direction whose outlining settles most: the largest sum of uncertainty.

    Planes less than ``APART`` voxels from a drawn one are left out.

    Args:
        filled: The fill of the scan.
        drawn: Voxels that count as drawn; a plane is drawn if all its voxels are, within the boxes of the fill.

    Returns:
        The plane, or None if none is left or nothing is uncertain.
    """
    uncertainty = filled.uncertainty()
    box = bounding_box(uncertainty > 0)
    if box is None:
        return None
    uncertainty, seen = uncertainty[box], drawn[box]
    best: tuple[float, int, int] = (0.0, 0, 0)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        sums = uncertainty.sum(axis=others, dtype=np.float64)
        gap = _distance_to(np.flatnonzero(seen.all(axis=others)), len(sums))
        sums[gap < APART] = 0
        if sums.max() > best[0]:
            best = (float(sums.max()), axis, int(sums.argmax()))
    total, axis, index = best
    if not total:
        return None
    others = tuple(a for a in range(3) if a != axis)
    sums = uncertainty.sum(axis=others, dtype=np.float64)
    gap = _distance_to(np.flatnonzero(seen.all(axis=others)), len(sums))[index]
    # What is drawn settles its surroundings, up to half way to the next drawn plane.
    near = np.clip(1 - np.abs(np.arange(len(sums)) - index) / max(gap / 2, 1), 0, 1)
    settled = float((sums * near).sum() / sums.sum())
    now = filled.expected_dice()
    return Plane(axis, index + box[axis].start, now, 1 - (1 - now) * (1 - settled))


def _distance_to(places: np.ndarray, count: int) -> np.ndarray:
    """Distance of 0 .. count-1 to the nearest of some places; ``count`` if there is none."""
    if not places.size:
        return np.full(count, count)
    return np.abs(np.arange(count)[:, None] - places).min(axis=1)
