# SPDX-License-Identifier: Apache-2.0
"""The strong view of a patch: intensities disturbed at random, every voxel at its place."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def disturb(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Strong view of ``[C, k, j, i]``: gamma 0.7-1.5, contrast and brightness +-20 %, blur 0.5-1.0 voxels, noise 0.1.

    Each with probability 1/2 and per channel; intensities are normalized, so brightness counts in standard deviations.
    """
    out = image.clone()
    for channel in out:
        if rng.random() < 0.5:
            low, high = channel.min(), channel.max()
            extent = (high - low).clamp_min(1e-6)
            channel.copy_(((channel - low) / extent).pow(rng.uniform(0.7, 1.5)) * extent + low)
        if rng.random() < 0.5:
            channel.mul_(rng.uniform(0.8, 1.2)).add_(rng.uniform(-0.2, 0.2))
        if rng.random() < 0.5:
            ndimage.gaussian_filter(channel.numpy(), rng.uniform(0.5, 1.0), output=channel.numpy(), truncate=3.0)
        if rng.random() < 0.5:
            noise = torch.from_numpy(rng.standard_normal(channel.shape, dtype=np.float32))
            channel.add_(noise.mul_(0.1).clamp_(-0.2, 0.2))
    return out
