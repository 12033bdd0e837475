# SPDX-License-Identifier: Apache-2.0
"""Lesion-wise detection: which connected parts of the truth a prediction has found.

A lesion is a 26-connected component. A predicted and a true lesion may be paired when their intersection over union
is at least 0.1; each lesion enters at most one pair, and of all such assignments the one with the largest summed
IoU counts. It is the rule by which BARL pairs the lesions of its two branches in training. One-to-one makes the
count symmetric (swapping prediction and truth swaps precision and recall) and lowers the score of a prediction that
merges several lesions into one, which "any overlap" would call perfect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from barl.images.components import bounding_box, components, match_components

MINIMUM_IOU = 0.1


@dataclass(frozen=True)
class LesionCounts:
    """Numbers of lesions in the truth, in the prediction, and of one-to-one pairs between them."""

    truth: int
    predicted: int
    matched: int

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are true; nan when none is predicted."""
        return self.matched / self.predicted if self.predicted else float("nan")

    @property
    def recall(self) -> float:
        """Share of the true lesions that were found; nan when there is none."""
        return self.matched / self.truth if self.truth else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; nan when there is no lesion on either side."""
        both = self.truth + self.predicted
        return 2 * self.matched / both if both else float("nan")

    def __add__(self, other: LesionCounts) -> LesionCounts:
        return LesionCounts(self.truth + other.truth, self.predicted + other.predicted, self.matched + other.matched)


def count_lesions(prediction: np.ndarray, truth: np.ndarray, minimum_iou: float = MINIMUM_IOU) -> LesionCounts:
    """Count true, predicted and matched lesions of two boolean masks [k, j, i] of one shape."""
    either = prediction | truth
    box = bounding_box(either)
    if box is None:
        return LesionCounts(0, 0, 0)
    # Numbering components costs most, so only where some are.
    predicted, n_predicted = components(prediction[box])
    true, n_true = components(truth[box])
    return LesionCounts(n_true, n_predicted, len(match_components(predicted, true, minimum_iou)))
