# SPDX-License-Identifier: Apache-2.0
"""What the field's consistency terms share: squared difference of probabilities, entropy, sharpening, view noise.

The mean over an empty batch is a differentiable zero.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor


def mean(values: Tensor) -> Tensor:
    """Mean of all values; 0 of none."""
    return values.sum() / max(values.numel(), 1)


def squared_difference(p: Tensor, q: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over classes and voxels of ``(p - q)^2``; with ``weight`` the weighted mean.

    Args:
        weight: Of each voxel, ``[B, 1, k, j, i]``, or of each value.
    """
    difference = (p - q).square()
    if weight is None:
        return mean(difference)
    classes = p.shape[1] // weight.shape[1]
    return (weight * difference).sum() / (classes * weight.sum()).clamp_min(1e-6)


def entropy(p: Tensor) -> Tensor:
    """Entropy per voxel ``[B, 1, k, j, i]`` of a distribution, divided by ``ln C`` and hence in [0, 1]."""
    return -(p * p.clamp_min(1e-8).log()).sum(dim=1, keepdim=True) / log(p.shape[1])


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """``p_c^(1/T) / sum_c p_c^(1/T)``; T = 0.1 in MC-Net. Takes the logarithm first, as p^10 leaves the float range."""
    return (p.clamp_min(1e-8).log() / temperature).softmax(dim=1)


def view_noise(x: Tensor, sd: float) -> Tensor:
    """Gaussian noise for a teacher's view, clipped at two standard deviations (UA-MT, SSL4MIS: sd 0.1)."""
    return (torch.randn_like(x) * sd).clamp_(-2 * sd, 2 * sd)
