# SPDX-License-Identifier: Apache-2.0
"""Connected components (lesions), their matching between two masks, and boxes around masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array

from barl.images.geometry import Triple, triple

_NEIGHBORS_26 = np.ones((3, 3, 3), dtype=bool)


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the 26-connected components of a boolean mask [k, j, i] from 1; returns (int32 array, count)."""
    numbers, count = ndimage.label(mask, structure=_NEIGHBORS_26)
    return numbers, int(count)


def bounding_box(mask: np.ndarray, margin: int | Sequence[int] = 0) -> Triple[slice] | None:
    """The smallest box ``(k, j, i)`` around everything that is not 0 in ``mask [k, j, i]``; None if nothing is.

    Args:
        mask: Boolean or whole numbers.
        margin: Voxels to add on each side, for all axes or per axis; the box stays inside the array.
    """
    margins = [margin] * 3 if isinstance(margin, int) else list(margin)
    box = [slice(None)] * 3
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(mask[tuple(box)].any(axis=others))
        if not used.size:
            return None
        box[axis] = slice(int(used[0]), int(used[-1]) + 1)
    return triple(slice(max(0, part.start - m), part.stop + m) for part, m in zip(box, margins, strict=True))


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
