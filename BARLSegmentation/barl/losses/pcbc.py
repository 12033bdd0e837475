# SPDX-License-Identifier: Apache-2.0
"""Progressively Cognitive Bias Correction: repair what the branches disagree on, coarse scales first.

BARL names PCBC and its purpose, limiting the accumulation of errors "from coarse to fine scales" (abstract); the
equation is not public. This is our reconstruction: the discrepancy correction of SDCL (MICCAI 2024; weights 0.5 and
0.05, as also in RAIL, which shares BARL's corresponding author), applied per scale behind a gate that opens from
coarse to fine:

    D^l      = [argmax p_S^l != argmax p_T^l]
    t^l      = ground truth, or the argmax of the mean of both branches' next finer output
    mse_b^l  = mean over D^l of || p_b^l - t^l ||^2                                   (pull to the target)
    ent_b^l  = mean over D^l, where argmax p_b^l != t^l, of  mean_c(-log p_c)          (unlearn confident mistakes)
    L_PCBC   = sum_l a_l 1/2 sum_b (0.5 mse_b^l + 0.05 ent_b^l)
    a_l      = clip(L t / T_warm - (l - 1), 0, 1),   l = 1 coarsest

The means weigh the voxels of D^l; ours is the limit of what those of background weigh together (``background``): around
a small lesion nearly all of D^l is background, and the plain mean then pulls the network to leave the lesion out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from barl.losses.overlap import at_scale, hard_label, one_hot, target_at_scale


def scale_gates(n_scales: int, progress: float) -> list[float]:
    """``a_l`` per scale, coarse to fine, for ``progress = t / T_warm >= 0``."""
    return [min(max(n_scales * progress - scale, 0.0), 1.0) for scale in range(n_scales)]


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1.0)


def bias_correction(
    log_p_s: Sequence[Tensor],
    log_p_t: Sequence[Tensor],
    gates: Sequence[float],
    truth: Tensor | None = None,
    *,
    pull: float = 0.5,
    unlearn: float = 0.05,
    background: float = 0.0,
    voxels: Tensor | None = None,
    complete: bool = False,
) -> Tensor:
    """PCBC of two branches.

    Args:
        log_p_s: Log-probabilities of branch S per scale, coarse to fine, each ``[B, C, k, j, i]``.
        log_p_t: The same of branch T.
        gates: ``a_l`` per scale, from ``scale_gates``.
        truth: One-hot ground truth ``[B_l, C, k, j, i]`` of the first ``B_l`` items; the others use pseudo-targets.
        pull: Weight of the squared error.
        unlearn: Weight of the entropy term.
        background: Disagreement on what is background in the goal weighs at most this many times as much as that on
            the other classes; 0 sets no limit.
        voxels: Weight ``[B_l, 1, k, j, i]`` of the truth at each voxel; all 1 if not given. What has weight 0 is left
            out, or, if ``complete``, has the pseudo-target.
        complete: See ``voxels``.
    """
    total = log_p_s[-1].sum() * 0.0
    n_classes = log_p_s[-1].shape[1]
    n_truth = 0 if truth is None else truth.shape[0]
    for scale, gate in enumerate(gates):
        if gate == 0:
            continue
        s, t = log_p_s[scale], log_p_t[scale]
        finer = min(scale + 1, len(log_p_s) - 1)
        with torch.no_grad():
            first = 0 if complete and voxels is not None else n_truth
            mean_finer = log_p_s[finer][first:].exp() + log_p_t[finer][first:].exp()
            goal = at_scale(one_hot(hard_label(mean_finer), n_classes), s)
            if truth is not None and n_truth:
                known = target_at_scale(truth, s, voxels)
                if voxels is not None and complete:
                    share = at_scale(voxels, s)
                    known, goal = share * known + (1 - share) * goal[:n_truth], goal[n_truth:]
                goal = torch.cat([known, goal])
            best_s, best_t, best_goal = hard_label(s), hard_label(t), hard_label(goal)
            differ = (best_s != best_t).unsqueeze(1).float()
            if voxels is not None and not complete:
                differ[:n_truth] *= at_scale(voxels, s)
            if background > 0:
                outside = differ * (best_goal == 0).unsqueeze(1)
                inside = differ - outside
                differ = inside + outside * (background * inside.sum() / outside.sum().clamp_min(1.0)).clamp_max(1.0)
        for log_p, best in ((s, best_s), (t, best_t)):
            error = (log_p.exp() - goal).square().sum(dim=1, keepdim=True)
            flatten = -log_p.mean(dim=1, keepdim=True)
            wrong = differ * (best != best_goal).unsqueeze(1)
            correction = pull * _masked_mean(error, differ) + unlearn * _masked_mean(flatten, wrong)
            total = total + 0.5 * gate * correction
    return total
