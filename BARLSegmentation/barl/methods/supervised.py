# SPDX-License-Identifier: Apache-2.0
"""Supervised only: the lower bound. Both branches learn from the outlines alone and never meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from barl.losses.overlap import at_scale, one_hot, overlap_loss, target_at_scale
from barl.methods.base import Batch, Method, add_up
from barl.networks.branches import Network


def multi_scale_supervision(
    log_p: Sequence[Sequence[Tensor]], target: Tensor, weights: Sequence[float], voxels: Tensor | None = None
) -> Tensor:
    """``mean over branches of sum_l w_l 1/2 (CE + Dice)``.

    Args:
        log_p: Per branch and scale (coarse to fine) log-probabilities; their first ``B_l`` items are labeled.
        target: One-hot ground truth ``[B_l, C, k, j, i]``.
        weights: ``w_l`` per scale.
        voxels: Weight of each voxel ``[B_l, 1, k, j, i]``; all the same if not given.
    """
    n = len(target)
    if n == 0:
        return add_up(branch[-1].sum() for branch in log_p) * 0.0
    terms = [
        weight
        * overlap_loss(
            scale[:n], target_at_scale(target, scale, voxels), None if voxels is None else at_scale(voxels, scale)
        )
        for branch in log_p
        for scale, weight in zip(branch, weights, strict=True)
    ]
    return torch.stack(terms).sum() / len(log_p)


def scale_weights(n_scales: int, decay: float) -> list[float]:
    """``w_l`` coarse to fine, summing to 1: each coarser scale weighs ``decay`` times the next finer one."""
    raw = [decay ** (n_scales - 1 - scale) for scale in range(n_scales)]
    return [value / sum(raw) for value in raw]


@dataclass(frozen=True)
class Settings:
    """Attributes: scale_decay: weight of each coarser scale relative to the next finer one."""

    scale_decay: float = 0.5


class Supervised(Method[Settings]):
    """Multi-scale supervision of both branches on outlined cases."""

    name = "supervised"
    title = "Supervised only"
    uses_unlabelled = False
    takes_partial = True
    settings_class = Settings

    def loss(self, network: Network, batch: Batch, iteration: int, total: int) -> dict[str, Tensor]:
        n, outlined = batch.n_labelled, batch.outlined()
        outputs = [network.scales(view[:n], branch) for branch, view in enumerate((batch.weak, batch.strong))]
        order = None if outlined.order is None else outlined.order[:n]
        log_p = [[s if order is None else s[order] for s in output.log_probabilities()] for output in outputs]
        weights = scale_weights(len(log_p[0]), self.settings.scale_decay)
        truth = one_hot(outlined.label, log_p[0][-1].shape[1])
        supervised = multi_scale_supervision(log_p, truth, weights, outlined.voxels)
        return {"total": supervised, "supervised": supervised}
