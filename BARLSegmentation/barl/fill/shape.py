# SPDX-License-Identifier: Apache-2.0
"""The interpolated signed distance map of drawn planes, in any mixture of directions.

Between two drawn planes of one direction the signed distances to their outlines are interpolated linearly; beyond the
last one they stay. The directions are averaged, each weighted by the inverse square of the distance to its nearest
drawn plane (Shepard's interpolation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

_FAR = 1e3


class InterpolatedDistance:
    """Signed distances, above 0 inside, at any voxel of a box.

    Args:
        shares: ``[labels, k, j, i]``, how much of a voxel is of the label, right in the drawn planes.
        planes: Per axis the drawn planes.
        spacing: (k, j, i) in mm.
    """

    def __init__(self, shares: np.ndarray, planes: Sequence[np.ndarray], spacing: np.ndarray) -> None:
        self._planes = planes
        self._labels = len(shares)
        self._spacing = spacing
        self._maps = [
            np.stack(
                [[_signed(share.take(q, axis) > 0.5, np.delete(spacing, axis)) for q in places] for share in shares]
            )
            if len(places)
            else None
            for axis, places in enumerate(planes)
        ]

    def __bool__(self) -> bool:
        return any(len(places) for places in self._planes)

    def at(self, places: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Signed distance ``[labels, voxels]``, and how far the nearest drawn plane is ``[voxels]``: in mm, in planes.

        Args:
            places: Three arrays of voxel indices (k, j, i).
        """
        total = np.zeros((self._labels, len(places[0])), dtype=np.float32)
        weights = np.zeros(len(places[0]), dtype=np.float32)
        nearest = np.full(len(places[0]), np.inf, dtype=np.float32)
        steps = nearest.copy()
        for axis, maps in enumerate(self._maps):
            if maps is None:
                continue
            along = np.arange(int(places[axis].max(initial=0)) + 1)
            last = len(self._planes[axis]) - 1
            upper = np.searchsorted(self._planes[axis], along).clip(0, last)
            lower = np.where(self._planes[axis][upper] > along, upper - 1, upper).clip(0, last)
            low, high = self._planes[axis][lower], self._planes[axis][upper]
            share = np.where(high > low, (along - low) / np.maximum(high - low, 1), 0.0)
            distance = np.minimum(np.abs(along - low), np.abs(high - along)) * self._spacing[axis]
            weight = (1 / (distance + 0.3 * self._spacing.min()) ** 2).astype(np.float32)
            here = places[axis]
            across = tuple(p for a, p in enumerate(places) if a != axis)
            t = share[here].astype(np.float32)
            value = (1 - t) * maps[:, lower[here], *across] + t * maps[:, upper[here], *across]
            total = total + weight[here] * value
            weights = weights + weight[here]
            nearest = np.minimum(nearest, distance[here].astype(np.float32))
            steps = np.minimum(steps, (distance / self._spacing[axis])[here].astype(np.float32))
        return total / weights, nearest, steps


def _signed(inside: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    if not inside.any() or inside.all():
        return np.full(inside.shape, _FAR if inside.any() else -_FAR, dtype=np.float32)
    half = 0.5 * spacing.min()
    within = ndimage.distance_transform_edt(inside, sampling=spacing) - half
    outside = ndimage.distance_transform_edt(~inside, sampling=spacing) - half
    return np.where(inside, within, -outside).astype(np.float32)
