# SPDX-License-Identifier: Apache-2.0
"""Dual-Path Regularization: cross-branch supervision in both directions at every decoder scale.

BARL names DPR and its purpose, "fine-grained cross-branch consistency" inspired by co-training and multi-scale
decoding (abstract); the equation is not public. This is our reconstruction: each branch's finest hard label teaches all
scales of the other,

    L_DPR = sum_l w_l 1/2 [ H(z_S^l, argmax p_T) + H(z_T^l, argmax p_S) ],   H = 1/2 (CE + Dice),

optionally with a soft path ``1/2 mean (p_S^l - p_T^l)^2``. With ``weights`` zero but for the finest scale it is the
cross pseudo supervision (CPS) of Chen et al., CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from barl.losses.consistency import squared_difference
from barl.losses.overlap import at_scale, one_hot, overlap_loss


def pseudo_label(log_p: Tensor, known: Tensor | None = None, confidence: float = 0.0) -> tuple[Tensor, Tensor | None]:
    """Hard label of a branch as a detached one-hot ``[B, C, k, j, i]``, and the mask of the voxels above
    ``confidence``.

    Args:
        log_p: Finest log-probabilities ``[B, C, k, j, i]``.
        known: Classes ``[B, k, j, i]`` that need no guess, -1 elsewhere.
        confidence: Voxels whose highest probability lies below are masked out; 0 keeps all (mask ``None``).
    """
    best, classes = log_p.detach().max(dim=1)
    sure = best.exp() >= confidence
    if known is not None:
        classes = torch.where(known >= 0, known, classes)
        sure = sure | (known >= 0)
    return one_hot(classes, log_p.shape[1]), sure.unsqueeze(1).float() if confidence > 0 else None


def dual_path_regularization(
    log_p_s: Sequence[Tensor],
    log_p_t: Sequence[Tensor],
    weights: Sequence[float],
    *,
    known: Tensor | None = None,
    confidence: float = 0.0,
    soft: bool = False,
    voxels: Tensor | None = None,
) -> Tensor:
    """DPR of two branches.

    Args:
        log_p_s: Log-probabilities of branch S per scale, coarse to fine, each ``[B, C, k, j, i]``.
        log_p_t: The same of branch T.
        weights: ``w_l`` per scale; a scale of weight 0 costs nothing.
        known: Classes ``[B, k, j, i]`` that replace the pseudo-labels, -1 where there are none.
        confidence: Pseudo-labels below this probability are ignored.
        soft: Add the soft path.
        voxels: Weight of each voxel ``[B, 1, k, j, i]``; all the same if not given.
    """
    total = log_p_s[-1].sum() * 0.0
    paths = (
        (log_p_s, *pseudo_label(log_p_t[-1], known, confidence)),
        (log_p_t, *pseudo_label(log_p_s[-1], known, confidence)),
    )
    for scale, weight in enumerate(weights):
        if weight == 0:
            continue
        for student, target, sure in paths:
            log_p = student[scale]
            counted = voxels if sure is None else sure if voxels is None else sure * voxels
            mask = None if counted is None else at_scale(counted, log_p)
            total = total + 0.5 * weight * overlap_loss(log_p, at_scale(target, log_p), mask)
        if soft:
            one, two = log_p_s[scale].exp(), log_p_t[scale].exp()
            mask = None if voxels is None else at_scale(voxels, one)
            total = total + 0.5 * weight * squared_difference(one, two, mask)
    return total
