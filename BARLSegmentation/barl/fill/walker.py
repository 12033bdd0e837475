# SPDX-License-Identifier: Apache-2.0
"""The random walker's system of linear equations on some voxels of a grid, and its solution.

For each label l, over the free voxels, the minimum of

    sum over neighbors (u, v) of w_uv (x_u - x_v)^2  +  sum over voxels of g_v (x_v - p_v)^2 ,

x fixed elsewhere, with w_uv = exp(-|a_u - a_v|^2) / h^2 + epsilon of the features a at a distance h.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from barl.progress import SILENT, Progress

_EPSILON = 1e-6
_TOLERANCE = 2e-3
_STEPS = 300


def solve(
    values: np.ndarray,
    free: np.ndarray,
    features: np.ndarray,
    near: np.ndarray,
    pull: np.ndarray,
    target: np.ndarray,
    spacing: Sequence[float],
    progress: Progress = SILENT,
) -> None:
    """Set ``values`` at the free voxels.

    Args:
        values: ``[labels, k, j, i]``, float32: fixed values, and a start at the free voxels; changed in place.
        free: Flat indices of the free voxels, ascending.
        features: ``[features, near voxels]``.
        near: Flat indices of the free voxels and all their neighbors, ascending.
        pull: ``[free]``, g.
        target: ``[labels, free]``, p.
        spacing: (k, j, i), relative to the smallest.
        progress: Is asked whether the work is to end.

    Raises:
        Cancelled: It is.
    """
    shape = values.shape[1:]
    flat = values.reshape(len(values), -1)
    place = np.full(flat.shape[1], -1, dtype=np.int32)  # among the near ones
    place[near] = np.arange(len(near), dtype=np.int32)
    number = np.full(len(near), -1, dtype=np.int32)  # among the free ones
    number[place[free]] = np.arange(len(free), dtype=np.int32)
    diagonal = pull.astype(np.float32)
    right = target * pull
    rows, columns, weights = [], [], []
    for axis, h in enumerate(spacing):
        stride = int(np.prod(shape[axis + 1 :]))
        inner = (near // stride) % shape[axis] < shape[axis] - 1
        u = np.flatnonzero(inner)
        v = place[near[u] + stride]
        u, v = u[v >= 0], v[v >= 0]
        wanted = (number[u] >= 0) | (number[v] >= 0)
        u, v = u[wanted], v[wanted]
        difference = sum((feature[u] - feature[v]) ** 2 for feature in features)
        weight = (np.exp(-difference) / h**2 + _EPSILON).astype(np.float32)
        progress.raise_if_cancelled()
        for one, other in ((u, v), (v, u)):
            mine, theirs = number[one], number[other]
            has_row = mine >= 0
            diagonal += np.bincount(mine[has_row], weight[has_row], len(free)).astype(np.float32)
            fixed = has_row & (theirs < 0)
            for label, known in enumerate(flat):
                pulled = weight[fixed] * known[near[other[fixed]]]
                right[label] += np.bincount(mine[fixed], pulled, len(free)).astype(np.float32)
            both = has_row & (theirs >= 0)
            rows.append(mine[both])
            columns.append(theirs[both])
            weights.append(-weight[both])
    diagonal = np.maximum(diagonal, _EPSILON)
    everyone = np.arange(len(free), dtype=np.int32)
    matrix = sparse.csr_array(
        (
            np.concatenate([*weights, diagonal]),
            (np.concatenate([*rows, everyone]), np.concatenate([*columns, everyone])),
        ),
        shape=(len(free), len(free)),
    )
    for label in range(len(flat)):
        start = flat[label, free]
        flat[label, free] = _conjugate_gradients(matrix, right[label], start, 1 / diagonal, progress)


def _conjugate_gradients(
    matrix: sparse.csr_array, right: np.ndarray, x: np.ndarray, inverse: np.ndarray, progress: Progress
) -> np.ndarray:
    """Conjugate gradients with the inverse of the diagonal as preconditioner, float32."""
    residual = right - matrix @ x
    z = inverse * residual
    direction, gain = z, float(residual @ z)
    # In the norm of the preconditioner: the residual of a voxel counts relative to its diagonal.
    enough = _TOLERANCE**2 * max(float(right @ (inverse * right)), 1e-12)
    for step in range(_STEPS):
        if gain <= enough:
            break
        if step % 10 == 0:
            progress.raise_if_cancelled()
        moved = matrix @ direction
        length = gain / float(direction @ moved)
        x = x + length * direction
        residual = residual - length * moved
        z = inverse * residual
        before, gain = gain, float(residual @ z)
        direction = z + (gain / before) * direction
    return np.clip(x, 0, 1)
