# SPDX-License-Identifier: Apache-2.0
"""Which plane to outline next, and how much that settles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from barl.fill.drawn import bounding_box, drawn_planes
from barl.fill.filling import Filled

APART = 3


@dataclass(frozen=True)
class Plane:
    """A plane worth outlining.

    Attributes:
        axis: Of the array that it is perpendicular to: 0 = k, 1 = j, 2 = i.
        index: Its place along that axis.
        settles: Share of the fill's uncertainty that outlining it settles, 0 to 1.
    """

    axis: int
    index: int
    settles: float


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
    uncertainty, planes = uncertainty[box], drawn_planes(drawn[box])
    best = most_uncertain_plane(uncertainty, planes)
    if best is None:
        return None
    axis, index = best
    sums = _sums(uncertainty, axis)
    gap = _distance_to(planes[axis], len(sums))[index]
    # What is drawn settles its surroundings, up to half way to the next drawn plane.
    near = np.clip(1 - np.abs(np.arange(len(sums)) - index) / max(gap / 2, 1), 0, 1)
    return Plane(axis, index + box[axis].start, float((sums * near).sum() / sums.sum()))


def most_uncertain_plane(uncertainty: np.ndarray, planes: Sequence[np.ndarray]) -> tuple[int, int] | None:
    """Axis and index of the plane with the largest sum of uncertainty, ``APART`` voxels or more from the drawn ones.

    Args:
        uncertainty: ``[k, j, i]``, of a fill or a model.
        planes: Per axis the indices of the drawn planes; they may lie outside of the array.

    Returns:
        None if no plane is left or nothing is uncertain.
    """
    best: tuple[float, int, int] = (0.0, 0, 0)
    for axis in range(3):
        sums = _sums(uncertainty, axis)
        sums[_distance_to(np.asarray(planes[axis], dtype=np.int64), len(sums)) < APART] = 0
        if sums.max() > best[0]:
            best = (float(sums.max()), axis, int(sums.argmax()))
    return best[1:] if best[0] else None


def _sums(uncertainty: np.ndarray, axis: int) -> np.ndarray:
    sums: np.ndarray = uncertainty.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64)
    return sums


def _distance_to(places: np.ndarray, count: int) -> np.ndarray:
    """Distance of 0 .. count-1 to the nearest of some places; if there is none, ``count`` and at least ``APART``."""
    if not places.size:
        return np.full(count, max(count, APART))
    return np.abs(np.arange(count)[:, None] - places).min(axis=1)
