# SPDX-License-Identifier: Apache-2.0
"""What the drawn voxels say about gray values: a logistic classifier of each label against the rest.

Features of a voxel: its value, the values of the coarser levels and of Gaussian smoothings in every channel, and its
place relative to what was drawn; with their squares and products. The classifier of a label is fitted by Newton's
method with an L2 penalty, its two classes weighted alike. The squares of the place make it an ellipsoid about the
drawn structure where gray values say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LIMIT = 4.0
"""Log odds are cut at this value: beyond it a voxel is certain, and differences mean nothing."""

_NEWTON_STEPS = 12
_PRODUCTS_UP_TO = 20
_CHUNK = 16_384


@dataclass(frozen=True)
class Classifier:
    """Log odds of a label from features.

    Attributes:
        mean, scale: Of the expanded features, in training.
        weights: ``[labels, 1 + expanded features]``, the first the constant.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    def log_odds(self, features: np.ndarray) -> np.ndarray:
        """``[labels, voxels]``, float32 within ± ``LIMIT``, of ``features`` ``[features, voxels]``."""
        slopes = (self.weights[:, 1:] / self.scale).astype(np.float32)
        constants = (self.weights[:, 0] - (slopes * self.mean).sum(axis=1)).astype(np.float32)
        result = np.empty((len(slopes), features.shape[1]), dtype=np.float32)
        for start in range(0, features.shape[1], _CHUNK):
            part = slice(start, start + _CHUNK)
            result[:, part] = slopes @ _expanded(features[:, part]) + constants[:, None]
        return np.clip(result, -LIMIT, LIMIT, out=result)


def fit(features: np.ndarray, truth: np.ndarray, penalty: float = 1.0) -> Classifier:
    """Fit a classifier per label.

    Args:
        features: ``[features, voxels]``.
        truth: ``[labels, voxels]``, how much of the voxel is of the label, 0 to 1.
        penalty: Of the squared weights of standardized features; the constant is free.
    """
    expanded = np.ascontiguousarray(_expanded(features).T, dtype=np.float64)
    mean, scale = expanded.mean(axis=0), expanded.std(axis=0)
    scale[scale < 1e-6 * (np.abs(mean) + 1)] = np.inf  # a constant feature says nothing
    columns = np.concatenate([np.ones((len(expanded), 1)), (expanded - mean) / scale], axis=1)
    weights = np.stack([_newton(columns, target.astype(np.float64), penalty) for target in truth])
    return Classifier(mean, scale, weights)


def _newton(columns: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    share = target.mean()
    balance = np.where(target > 0.5, 0.5 / max(share, 1e-6), 0.5 / max(1 - share, 1e-6))
    ridge = np.full(columns.shape[1], penalty)
    ridge[0] = 1e-6
    weights = np.zeros(columns.shape[1])
    for _step in range(_NEWTON_STEPS):
        estimate = 1 / (1 + np.exp(-np.clip(columns @ weights, -30, 30)))
        slope = columns.T @ (balance * (estimate - target)) + ridge * weights
        curvature = (columns * (balance * estimate * (1 - estimate) + 1e-9)[:, None]).T @ columns
        curvature[np.diag_indices_from(curvature)] += ridge
        change = np.linalg.solve(curvature, slope)
        weights -= change
        if np.abs(change).max() < 1e-3:
            break
    return weights


def _expanded(features: np.ndarray) -> np.ndarray:
    """The features, their squares and, if there are few, their products: ``[expanded features, voxels]``."""
    n = len(features)
    first, second = np.triu_indices(n) if n <= _PRODUCTS_UP_TO else (np.arange(n), np.arange(n))
    result = np.empty((n + len(first), features.shape[1]), dtype=np.float32)
    result[:n] = features
    for row, (a, b) in enumerate(zip(first, second, strict=True), n):
        np.multiply(features[a], features[b], out=result[row])
    return result
