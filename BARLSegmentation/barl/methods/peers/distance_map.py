# SPDX-License-Identifier: Apache-2.0
"""Signed distance maps of outlines as SASSNet (Li et al., MICCAI 2020) and DTC (Luo et al., AAAI 2021) regress them.

    R(v) = + d(v, border) / max inside,   - d(v, border) / max outside,   0 on the voxels of the border

positive inside (the papers' maps have the other sign), each side divided by its own maximum in the patch.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def scaled_distances(classes: Tensor, n_classes: int) -> Tensor:
    """Maps ``[B, L, k, j, i]`` in [-1, 1] of the foreground classes of ``classes [B, k, j, i]``, voxels as unit.

    A class without voxels is -1 everywhere, one without an outside +1.
    """
    maps = np.empty((len(classes), n_classes - 1, *classes.shape[1:]), np.float32)
    for item, scan in zip(maps, classes.cpu().numpy(), strict=True):
        for value, out in enumerate(item, start=1):
            out[:] = _scaled(scan == value)
    return torch.from_numpy(maps).to(classes.device)


def _scaled(mask: np.ndarray) -> np.ndarray:
    if mask.all() or not mask.any():
        return np.full(mask.shape, 1.0 if mask.any() else -1.0, np.float32)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    border = mask & ~ndimage.binary_erosion(mask, border_value=1)
    scaled = inside / inside.max() - outside / outside.max()
    scaled[border] = 0.0
    return scaled
