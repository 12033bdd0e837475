# SPDX-License-Identifier: Apache-2.0
"""A box at several resolutions: solved whole at the coarsest one, near its surfaces at the finer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_WHOLE_VOXELS = 150_000
"""A box up to this size is solved whole."""

_SPARSE_VOXELS = 20_000

_SMOOTHINGS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Level:
    """One resolution.

    Attributes:
        images: ``[channels, k, j, i]``, float32.
        known: Voxels of which a part is drawn.
        shares: ``[labels, k, j, i]``, float32: share of each label in the drawn part of a voxel.
        spacing: (k, j, i) in mm.
        factors: Voxels of the next finer level per voxel (k, j, i).
    """

    images: np.ndarray
    known: np.ndarray
    shares: np.ndarray
    spacing: np.ndarray
    factors: tuple[int, ...]


def make_levels(
    images: np.ndarray, known: np.ndarray, shares: np.ndarray, spacing: np.ndarray, *, sparse: bool = False
) -> list[Level]:
    """Levels from the finest to the coarsest; each halves the axes along which voxels are not much longer.

    Args:
        sparse: At most one plane of a direction is drawn: then the coarsest level is coarser, which measured better.
    """
    whole = _SPARSE_VOXELS if sparse else _WHOLE_VOXELS
    levels = [Level(images, known, shares, spacing, (1, 1, 1))]
    while levels[-1].known.size > whole:
        fine = levels[-1]
        fits = [s < 1.5 * fine.spacing.min() and n >= 8 for s, n in zip(fine.spacing, fine.known.shape, strict=True)]
        if not any(fits):
            break
        factors = tuple(2 if fit else 1 for fit in fits)
        weight = block_mean(fine.known.astype(np.float32), factors)
        mean = np.stack([block_mean(share * fine.known, factors) for share in fine.shares])
        levels.append(
            Level(
                np.stack([block_mean(image, factors) for image in fine.images]),
                weight > 0,
                mean / np.maximum(weight, 1e-6),
                fine.spacing * factors,
                factors,
            )
        )
    return levels


def block_mean(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Means of blocks; a block at the far edge that is not full repeats the edge."""
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        if array.shape[axis] % 2:
            array = np.concatenate([array, array.take([-1], axis)], axis)
        even, odd = (array[(slice(None),) * axis + (slice(first, None, 2),)] for first in (0, 1))
        array = 0.5 * (even + odd)
    return array.astype(np.float32, copy=False)


class Features:
    """Features of the voxels of every level: its own values, those of the coarser ones, smoothings of the coarsest.

    Args:
        levels: From the finest to the coarsest.
        ellipsoid: Center and half extents of what was drawn, in voxels (k, j, i) of the finest level; None: the place
            of a voxel is no feature.
    """

    def __init__(self, levels: Sequence[Level], ellipsoid: tuple[np.ndarray, np.ndarray] | None) -> None:
        self._levels = levels
        self._scales = [np.ones(3)]
        for level in levels[1:]:
            self._scales.append(self._scales[-1] * level.factors)
        coarsest = levels[-1]
        ratio = coarsest.spacing.min() / coarsest.spacing
        self._smooth = [
            ndimage.gaussian_filter(image, sigma * ratio, truncate=3.0)
            for image in coarsest.images
            for sigma in _SMOOTHINGS
        ]
        self._ellipsoid = ellipsoid

    def at(self, number: int, voxels: np.ndarray) -> np.ndarray:
        """Features ``[features, voxels]`` (float32) at flat indices of level ``number``."""
        level = self._levels[number]
        places = np.unravel_index(voxels, level.known.shape)
        columns = [image.ravel()[voxels] for image in level.images]
        for coarse in range(number + 1, len(self._levels)):
            columns += [self._interpolated(image, number, coarse, places) for image in self._levels[coarse].images]
        columns += [self._interpolated(image, number, len(self._levels) - 1, places) for image in self._smooth]
        if self._ellipsoid is not None:
            for place, scale, center, half in zip(places, self._scales[number], *self._ellipsoid, strict=True):
                finest = (place + 0.5) * scale - 0.5
                columns.append(np.clip((finest - center) / half, -2, 2))
        return np.stack(columns, dtype=np.float32)

    def _interpolated(self, image: np.ndarray, number: int, coarse: int, places: Sequence[np.ndarray]) -> np.ndarray:
        if number == coarse:
            return image[tuple(places)]
        return interpolate(image, places, self._scales[coarse] / self._scales[number])


def interpolate(image: np.ndarray, places: Sequence[np.ndarray], factors: np.ndarray) -> np.ndarray:
    """Trilinear values of a coarse image at voxels (k, j, i) of a level that is ``factors`` finer."""
    at = np.stack(
        [(p + np.float32(0.5)) / np.float32(f) - np.float32(0.5) for p, f in zip(places, factors, strict=True)]
    )
    return ndimage.map_coordinates(image, at, order=1, mode="nearest")
