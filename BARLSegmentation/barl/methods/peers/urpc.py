# SPDX-License-Identifier: Apache-2.0
"""Uncertainty Rectified Pyramid Consistency (Luo et al., MICCAI 2021).

The scales of one decoder agree with their mean, less so where they differ from it:

    pbar = mean_s p_s,   D_s = KL(pbar || p_s)   (scales brought to full resolution)
    L = L_sup + 0.1 ramp mean_s [ mean((pbar - p_s)^2 e^{-D_s}) / mean(e^{-D_s}) + mean(D_s) ]   on untouched patches

Defaults from SSL4MIS: weight 0.1 with a ramp over 400 "epochs" of 150 iterations, twice its run of 30,000. Published
with four scales; here as many as all methods have (three).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from barl.methods.peers.each_branch import EachBranch, Step, Term


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: see ``EachBranch``."""

    weight: float = 0.1
    ramp: float = 2.0


class PyramidConsistency(EachBranch[Settings]):
    """The decoder's scales agree."""

    name = "urpc"
    title = "URPC"
    settings_class = Settings

    def terms(self, step: Step) -> Iterator[Term]:
        output, log_p = step.predict(step.x)
        yield step.supervised(log_p)
        if len(step.x) == step.n:
            return
        shape = tuple(step.x.shape[2:])
        logits = [F.interpolate(z[step.n :].float(), shape, mode="trilinear") for z in output.logits]
        log_scales = torch.stack([z.log_softmax(1) for z in logits])
        mean_p = log_scales.exp().mean(0)
        divergence = (mean_p * (mean_p.clamp_min(1e-8).log() - log_scales)).sum(2, keepdim=True)
        certain = (-divergence).exp()
        squares = (mean_p - log_scales.exp()).square()
        voxels = (1, 2, 3, 4, 5)
        rectified = (squares * certain).mean(voxels) / certain.mean(voxels)
        yield "pyramid", step.weight, (rectified + divergence.mean(voxels)).mean()
