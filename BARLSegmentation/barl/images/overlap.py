# SPDX-License-Identifier: Apache-2.0
"""Voxels that two label maps of one grid have in common, label by label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def count_labels(one: np.ndarray, other: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of each value in ``one``, in ``other``, and in both at the same place.

    Args:
        one, other: Label maps ``[k, j, i]`` of one shape and of whole numbers from 0 to ``largest``.
        largest: The largest value that is counted.

    Returns:
        Three arrays of ``largest + 1`` counts; the counts of 0, the background, are 0.
    """
    counts = np.zeros((3, largest + 1), np.int64)
    for a, b in zip(one, other, strict=True):  # slice by slice: counting makes copies of eight bytes a voxel
        for row, values in zip(counts, (a, b, a[(a == b) & (a > 0)]), strict=True):
            if values.any():
                row += np.bincount(values.ravel(), minlength=largest + 1)
    counts[:, 0] = 0
    return counts[0], counts[1], counts[2]


def dice_by_label(one: np.ndarray, other: np.ndarray, values: Sequence[int]) -> dict[int, float]:
    """Dice, 2 |A and B| / (|A| + |B|), of each of ``values`` that at least one of two label maps ``[k, j, i]`` has."""
    first, second, both = count_labels(one, other, max(values))
    total = first + second
    return {value: 2 * int(both[value]) / int(total[value]) for value in values if total[value]}
