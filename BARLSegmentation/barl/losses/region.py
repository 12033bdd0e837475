# SPDX-License-Identifier: Apache-2.0
"""Region-level alignment: cross-masked class prototypes of the two branches agree in direction.

As stated for BARL (methods section, as quoted by its public review): for each class c in {background, foreground} with
masks M_S, M_T and features f_S, f_T of the two branches

    R_c  = 1/|M_S^c| sum_{p in M_S^c} f_T(p)        R~_c = 1/|M_T^c| sum_{p in M_T^c} f_S(p)
    L    = 1 - <R_c, R~_c> / (||R_c|| ||R~_c||).

Several foreground classes make one region each. Ours, since nothing is said: the mean over the classes that have enough
voxels in both masks, per batch item.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from barl.losses.overlap import at_scale


def prototypes(features: Tensor, masks: Tensor) -> Tensor:
    """Masked means ``[B, C, F]`` of ``features [B, F, k, j, i]`` under ``masks [B, C, k, j, i]`` (0..1)."""
    masks = at_scale(masks, features).flatten(2)
    sums = masks @ features.flatten(2).transpose(1, 2)
    return sums / masks.sum(dim=2, keepdim=True).clamp_min(1e-6)


def region_alignment(
    features_s: Tensor, features_t: Tensor, masks_s: Tensor, masks_t: Tensor, min_voxels: int = 8
) -> Tensor:
    """Region-level loss of two branches, in [0, 2].

    Args:
        features_s: Features of branch S ``[B, F, k, j, i]``.
        features_t: Features of branch T, same shape.
        masks_s: Hard class masks of branch S ``[B, C, k, j, i]``, detached (ground truth on labeled items).
        masks_t: The same of branch T.
        min_voxels: A class with fewer voxels in either mask of an item is left out.
    """
    valid = (masks_s.flatten(2).sum(2) >= min_voxels) & (masks_t.flatten(2).sum(2) >= min_voxels)
    distance = 1.0 - F.cosine_similarity(prototypes(features_t, masks_s), prototypes(features_s, masks_t), -1, 1e-6)
    return (distance * valid).sum() / valid.sum().clamp_min(1)
