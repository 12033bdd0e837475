# SPDX-License-Identifier: Apache-2.0
"""DBiSL's terms between the two tasks: cross-task supervision and bidirectional consistency.

Both are named in the paper (arXiv 2602.09378); their equations are not public, these are reconstructions. ``Y`` and
``R`` are a decoder's probabilities and signed distance maps, ``y`` and ``D`` the outline and its exact maps:

    L_cross = 1/2 Dice(T_r2s(R), y) + mean (T_s2r(Y) - D)^2            each task is taught through the other
    L_con   = mean (Y - T_r2s(R))^2 + mean (R - T_s2r(Y))^2            on all patches, gradient on both sides

No cross-entropy stands on ``T_r2s(R)``: with k = 50 its gradient is that many times as steep, drives all distances of a
scan with small lesions outside, where tanh is flat, and the lesions are never found (decision 0004).
"""

from __future__ import annotations

from torch import Tensor

from barl.losses.consistency import squared_difference
from barl.losses.overlap import dice_loss


def cross_task_supervision(
    log_p_of_r: Tensor,
    r_of_p: Tensor,
    truth: Tensor,
    distances: Tensor,
    voxels: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """``L_cross`` of one decoder on outlined patches.

    Args:
        log_p_of_r: ``log T_r2s(R)``.
        r_of_p: ``T_s2r(Y)``.
        truth: One-hot outlines.
        distances: Exact maps of the outlines.
        voxels: Weight of each voxel's outline ``[B, 1, k, j, i]``; all the same if not given.
        known: Weight of each distance ``[B, C, k, j, i]``; all the same if not given.
    """
    return 0.5 * dice_loss(log_p_of_r.exp(), truth, voxels) + squared_difference(r_of_p, distances, known)


def bidirectional_consistency(p: Tensor, r: Tensor, p_of_r: Tensor, r_of_p: Tensor, detach: bool = False) -> Tensor:
    """``L_con`` of one decoder.

    Args:
        p: ``Y``.
        r: ``R``.
        p_of_r: ``T_r2s(R)``.
        r_of_p: ``T_s2r(Y)``.
        detach: Take the transformed side for given, so that each task learns from the other in its own terms only.
    """
    if detach:
        p_of_r, r_of_p = p_of_r.detach(), r_of_p.detach()
    return squared_difference(p, p_of_r) + squared_difference(r, r_of_p)
