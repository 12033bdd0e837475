# SPDX-License-Identifier: Apache-2.0
"""DBiSL's uncertainty map and the pseudo-supervision that it weights.

The paper (arXiv 2602.09378) names both; the equations are ours. All answers to the same question, the probabilities of
each decoder and those from its distance maps, are the members of an ensemble with mean ``m``:

    U     = mean_members sum_c (p_c - m_c)^2 / (1 - 1/n)        n = number of members or of classes, the smaller
    w     = exp(-U)
    L_pse = H_w(Y, argmax m) + beta wmean (R - T_s2r(argmax m))^2,   H = 1/2 (CE + Dice)

For two classes and two members ``U`` is four times the variance of the foreground's probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from barl.losses.consistency import squared_difference
from barl.losses.overlap import overlap_loss


@torch.no_grad()
def task_uncertainty(members: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean ``[B, C, k, j, i]`` of the members' probabilities, and ``U [B, 1, k, j, i]`` in [0, 1]; no gradient."""
    stacked = torch.stack([member.detach() for member in members])
    mean = stacked.mean(dim=0)
    spread = (stacked - mean).square().mean(dim=0).sum(dim=1, keepdim=True)
    n = min(len(members), mean.shape[1])
    return mean, (spread / max(1.0 - 1.0 / n, 1e-6)).clamp(0.0, 1.0)


def certainty(uncertainty: Tensor) -> Tensor:
    """``w``: 1 where all members agree, 1/e where they disagree as much as they can.

    Relative to the mean of ``U``, which is next to nothing in a patch of mostly sure background, a structure that the
    two tasks do not agree on yet would not be taught at all, and would then be lost (decision 0004).
    """
    return torch.exp(-uncertainty)


def pseudo_supervision(
    log_p: Tensor, r: Tensor, pseudo: Tensor, pseudo_distances: Tensor, weight: Tensor | None, beta: float
) -> Tensor:
    """``L_pse`` of one decoder.

    Args:
        log_p: ``log Y`` on untouched patches.
        r: ``R`` there.
        pseudo: One-hot ``argmax m``.
        pseudo_distances: ``T_s2r`` of it.
        weight: ``w [B, 1, k, j, i]``; every voxel counts the same without it.
        beta: Weight of the regression.
    """
    return overlap_loss(log_p, pseudo, weight) + beta * squared_difference(r, pseudo_distances, weight)
