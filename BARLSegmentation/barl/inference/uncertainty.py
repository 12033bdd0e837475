# SPDX-License-Identifier: Apache-2.0
"""How sure the branches are, per voxel and per case.

Two views, each in [0, 1]:

* **Entropy** of the branches' mean probability, divided by the logarithm of the number of classes. High where the model
  is undecided, whatever the reason.
* **Disagreement**: Jensen-Shannon divergence of the branches' probabilities (base: number of branches). It is that part
  of the entropy which the branches do not share: high only where each is sure of something else, as on data unlike
  those of the training (mutual information in the sense of Houlsby et al., arXiv:1112.5745).

Their **maximum** is the uncertainty. A mean would halve the uncertainty of a voxel on which both branches hesitate; the
entropy alone would give branches that contradict each other only log 2 / log L in a model of L classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import Tensor

# Uncertainty from which a background voxel counts in the score of a case (two classes: probability above 0.04).
DOUBTFUL = 0.25


@dataclass
class Ensemble:
    """The branches joined, for some voxels; all float32.

    Attributes:
        probabilities: Calibrated mean ``[L+1, ...]``.
        entropy: ``[...]`` in [0, 1].
        disagreement: ``[...]`` in [0, 1], None with a single branch.
    """

    probabilities: Tensor
    entropy: Tensor
    disagreement: Tensor | None

    @property
    def uncertainty(self) -> Tensor:
        return self.entropy if self.disagreement is None else torch.maximum(self.entropy, self.disagreement)


def join_branches(log_probabilities: Tensor, temperature: float = 1.0) -> Ensemble:
    """Mean, entropy and disagreement of the branches.

    Args:
        log_probabilities: ``[n_branches, L+1, ...]``, log-softmax along axis 1.
        temperature: Calibration of the mean: p^(1/T), normalized (Guo et al., ICML 2017, applied to the ensemble); it
            changes no label. The disagreement is that of the branches as they are.
    """
    n_branches, n_classes = log_probabilities.shape[:2]
    branches = log_probabilities.exp()
    within = -(branches * log_probabilities).sum(dim=1).mean(dim=0)
    mean, entropy, disagreement = branches[0], within, None
    if n_branches > 1:
        mean = branches.mean(dim=0)
        entropy = _entropy(mean)
        disagreement = ((entropy - within) / log(n_branches)).clamp_(0, 1)
    if temperature != 1.0:
        mean = (mean.clamp_min(1e-12).log() / temperature).softmax(dim=0)
        entropy = _entropy(mean)
    return Ensemble(mean, (entropy / log(n_classes)).clamp_(0, 1), disagreement)


def _entropy(probabilities: Tensor) -> Tensor:
    """In nats, over axis 0. (``torch.special.entr`` takes three times as long on a CPU.)"""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(dim=0)


def count_levels(levels: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """How often each uint8 level occurs outside and inside ``foreground``: ``[2, 256]``."""
    return np.bincount(levels.ravel() + foreground.ravel().astype(np.int16) * 256, minlength=512).reshape(2, 256)


def score_levels(foreground: np.ndarray, background: np.ndarray) -> float:
    """The uncertainty of a case: one number in [0, 1] by which cases are ranked.

    The mean uncertainty over the voxels in question: those predicted as foreground and those of the background that are
    doubtful (the rim of the structures and whatever may have been missed). The rest of the background, mostly air and
    plainly other tissue, says nothing and is left out: else a large scan would look surer than a small one of the same
    organ. No voxel in question (nothing found, nothing doubted): 0.

    Args:
        foreground: Voxels predicted as foreground, counted ``[256]`` by uncertainty (level n is n / 255).
        background: The others.
    """
    levels = np.arange(256) / 255
    counts = foreground + np.where(levels >= DOUBTFUL, background, 0)
    return float((counts * levels).sum() / counts.sum()) if counts.any() else 0.0
