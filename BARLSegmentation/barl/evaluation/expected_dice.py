# SPDX-License-Identifier: Apache-2.0
"""The Dice to expect of a case without an outline, from how well the model's branches agree about it.

The agreement of a case is the Dice between the label maps of the branches of one network, averaged over the labels that
one of them shows; of several networks it is their mean. Unseen cases with an outline calibrate it (proposed): with
fewer than ``LEAST`` cases nothing is said, with fewer than ``FOR_SLOPE`` the mean difference is added, with more a
straight line is fitted by least squares, never a falling one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from barl.project.model_card import DiceCalibration

LEAST = 4
FOR_SLOPE = 10


def calibrate(agreements: Sequence[float], dice: Sequence[float]) -> DiceCalibration | None:
    """Fit the line to unseen cases.

    Args:
        agreements, dice: One of each for each case, means over the labels; pairs with a nan are left out.

    Returns:
        None with too few cases.
    """
    pairs = np.array([agreements, dice], dtype=float)
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    count = pairs.shape[1]
    if count < LEAST:
        return None
    with_slope = count >= FOR_SLOPE
    intercept, slope = _line(pairs[0], pairs[1], with_slope)
    errors = []
    for n in range(count):
        others = np.delete(pairs, n, axis=1)
        a, b = _line(others[0], others[1], with_slope)
        errors.append(pairs[1, n] - np.clip(a + b * pairs[0, n], 0, 1))
    return DiceCalibration(intercept, slope, float(np.sqrt(np.mean(np.square(errors)))), count)


def _line(agreements: np.ndarray, dice: np.ndarray, with_slope: bool) -> tuple[float, float]:
    """Intercept and slope; the slope is 1 unless it is fitted."""
    slope = 1.0
    if with_slope:
        spread = agreements - agreements.mean()
        square = float(spread @ spread)
        slope = max(float(spread @ dice) / square, 0.0) if square > 0 else 0.0
    return float(dice.mean() - slope * agreements.mean()), slope


def mean_over_labels(scores: Mapping[str, float | None]) -> float:
    """Mean of the defined scores of a case; nan if there is none."""
    defined = [score for score in scores.values() if score is not None and not np.isnan(score)]
    return float(np.mean(defined)) if defined else float("nan")
