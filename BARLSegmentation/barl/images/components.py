# SPDX-License-Identifier: Apache-2.0
"""Connected components of masks, and which of one mask is which of another: lesions, for metrics and for training."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array

_NEIGHBORS_26 = np.ones((3, 3, 3), dtype=bool)


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the 26-connected components of a boolean mask [k, j, i] from 1; returns (int32 array, count)."""
    return ndimage.label(mask, structure=_NEIGHBORS_26)


def match_components(first: np.ndarray, second: np.ndarray, minimum_iou: float) -> list[tuple[int, int]]:
    """Pair numbered components one to one (Hungarian assignment).

    Args:
        first: Component numbers [k, j, i], 0 = background.
        second: The same of another mask, same shape.
        minimum_iou: Pairs below this intersection over union are not allowed.

    Returns:
        (number in first, number in second) pairs with the largest possible sum of IoU.
    """
    both = (first != 0) & (second != 0)
    first_at, second_at = first[both], second[both]
    # A sparse table of overlaps: adding up duplicates is linear, where np.unique would sort millions of voxels.
    first_size, second_size = np.bincount(first.ravel()), np.bincount(second.ravel())
    overlaps = coo_array(
        (np.ones(first_at.size, dtype=np.int64), (first_at, second_at)), shape=(first_size.size, second_size.size)
    )
    table = overlaps.tocsr().tocoo()
    iou = table.data / (first_size[table.row] + second_size[table.col] - table.data)
    allowed = iou >= minimum_iou
    rows, row = np.unique(table.row[allowed], return_inverse=True)
    columns, column = np.unique(table.col[allowed], return_inverse=True)
    gain = np.zeros((rows.size, columns.size))
    gain[row, column] = iou[allowed]
    chosen = linear_sum_assignment(gain, maximize=True)
    return [(int(rows[r]), int(columns[c])) for r, c in zip(*chosen, strict=True) if gain[r, c] > 0]
