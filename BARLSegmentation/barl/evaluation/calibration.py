# SPDX-License-Identifier: Apache-2.0
"""How well a model's confidence matches its accuracy, and the temperature that calibrates it.

Confidence is the probability of the predicted class; "correct" is whether that class is the true one. All functions
take flat arrays: the caller chooses which voxels count (a scan's background is trivially correct and would dominate the
    estimate).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from barl.errors import InputError

COOLEST, HOTTEST = 0.05, 20.0
_SMALLEST = 1e-12


def apply_temperature(probabilities: np.ndarray, temperature: float, axis: int = -1) -> np.ndarray:
    """Soften (temperature > 1) or sharpen (< 1) probabilities: softmax(log p / temperature) along the class axis."""
    if temperature == 1:
        return probabilities
    # Relative to the largest, so that no row of many classes underflows to 0/0.
    powered = (probabilities / probabilities.max(axis=axis, keepdims=True)) ** (1 / temperature)
    return powered / powered.sum(axis=axis, keepdims=True)


def fit_temperature(probabilities: np.ndarray, classes: np.ndarray) -> float:
    """The temperature with the smallest negative log-likelihood (Guo et al., ICML 2017, section 4.2).

    Args:
        probabilities: Predicted probabilities [N, L] of all classes, background included; rows sum to 1.
        classes: True class indices [N].

    Returns:
        Temperature between 0.05 and 20 for ``apply_temperature``; 1 when there is no voxel to fit on.

    Raises:
        InputError: The arrays do not fit each other.
    """
    probabilities, classes = np.asarray(probabilities), np.asarray(classes)
    if probabilities.ndim != 2 or classes.shape != probabilities.shape[:1]:
        raise InputError(
            f"Probabilities {probabilities.shape} and classes {classes.shape} do not fit each other.",
            "Pass [N, L] probabilities and [N] class indices.",
        )
    if not classes.size:
        return 1.0
    logits = np.log(np.maximum(probabilities, _SMALLEST, dtype=np.float64))
    true_logit = np.take_along_axis(logits, classes[:, None].astype(np.int64), axis=1)[:, 0]
    # log p can only be shifted per row without changing the softmax; the largest at 0 keeps exp from overflowing.
    top = logits.max(axis=1)
    logits -= top[:, None]
    true_logit -= top

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(np.log(np.exp(logits * inverse).sum(axis=1)) - true_logit * inverse))

    best = minimize_scalar(loss, bounds=(np.log(COOLEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(best.x))


@dataclass(frozen=True)
class ReliabilityCurve:
    """Per equal-width confidence bin: mean confidence, accuracy (nan in an empty bin) and number of voxels."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def reliability_curve(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> ReliabilityCurve:
    """Accuracy as a function of confidence.

    Args:
        confidence: Values in [0, 1], [N].
        correct: Whether (or to what degree, in [0, 1]) each prediction is right, [N].
        bins: Number of bins of equal width; a confidence on a border belongs to the upper one, 1 to the last.
    """
    confidence, correct = _checked(confidence, correct)
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return ReliabilityCurve(
            np.bincount(index, confidence, bins) / count, np.bincount(index, correct, bins) / count, count
        )


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over the bins of ``reliability_curve``, weighted by their voxels.

    Naeini et al., AAAI 2015; Guo et al., ICML 2017, equation 3. nan without voxels.
    """
    curve = reliability_curve(confidence, correct, bins)
    total = curve.count.sum()
    return float(np.nansum(curve.count * np.abs(curve.accuracy - curve.confidence)) / total) if total else float("nan")


def risk_coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What share of errors remains when only the most confident predictions are kept.

    Predictions of equal confidence cannot be told apart and share their mean error, so that their order is irrelevant.

    Args:
        confidence: Any number that grows with trust, [N].
        correct: Whether (or to what degree, in [0, 1], e.g. a case's Dice) each prediction is right, [N].

    Returns:
        Coverage k/N and risk (mean error of the k most confident), both [N], k = 1..N.
    """
    confidence, correct = _checked(confidence, correct, bounded=False)
    _, group = np.unique(-confidence, return_inverse=True)
    mean_error = np.bincount(group, 1 - correct) / np.maximum(np.bincount(group), 1) if group.size else group
    ranks = np.arange(1, confidence.size + 1)
    return ranks / max(confidence.size, 1), np.cumsum(mean_error[np.sort(group)]) / ranks


def area_under_risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean risk over all coverages (Geifman & El-Yaniv, 2017): 0 is best; nan without predictions."""
    _, risk = risk_coverage_curve(confidence, correct)
    return float(risk.mean()) if risk.size else float("nan")


def _checked(confidence: np.ndarray, correct: np.ndarray, bounded: bool = True) -> tuple[np.ndarray, np.ndarray]:
    confidence = np.asarray(confidence, dtype=np.float64).ravel()
    correct = np.asarray(correct, dtype=np.float64).ravel()
    if confidence.size != correct.size:
        raise InputError(
            f"{confidence.size} confidences and {correct.size} outcomes do not fit each other.", "Pass one of each."
        )
    # A mean of float32 probabilities may exceed 1 by a rounding error.
    if bounded and confidence.size and not (confidence.min() >= -1e-5 and confidence.max() <= 1 + 1e-5):
        raise InputError("Confidences must lie between 0 and 1.", "Pass probabilities, not logits.")
    return (np.clip(confidence, 0, 1) if bounded else confidence), correct
