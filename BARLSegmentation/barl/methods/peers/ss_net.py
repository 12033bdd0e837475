# SPDX-License-Identifier: Apache-2.0
"""SS-Net (Wu et al., MICCAI 2022): predictions that are smooth around a scan, classes that are apart in feature space.

    L = L_sup + 1.0 ramp [ Dice(p(x + r), p(x)) + 0.1 (L_class on outlined + L_class on untouched patches) ]

Smoothness: r is the adversarial direction (virtual adversarial training, one power iteration) with length 10 in a patch
of 112 x 112 x 80; here scaled to the same length per voxel. Separation: features of each foreground class are pulled to
a memory of 256 features of rightly predicted outlined voxels, ``L_class = mean_c mean_{v in c} mean_m (1 - cos)``.
Defaults from SS-Net's code: weights above, ramp over 40 "epochs" of 150 of its 15,000 iterations. Left out: its
learned selection and weighting of features (here the surest voxels enter the memory) and its prediction head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barl.losses.overlap import dice_loss, hard_label
from barl.methods.peers.each_branch import EachBranch, Step, Term
from barl.networks.branches import BranchPair

# Of the patch for which the length of the disturbance is given.
REFERENCE_VOXELS = 112 * 112 * 80


class ClassMemory(nn.Module):
    """Directions of features of each branch and class ``[branches, C, size, F]``, newest first; zero where empty."""

    def __init__(self, branches: int, classes: int, size: int, width: int) -> None:
        super().__init__()
        self.features: Tensor
        self.register_buffer("features", torch.zeros(branches, classes, size, width))

    @torch.no_grad()
    def add(self, branch: int, value: int, features: Tensor) -> None:
        kept = self.features[branch, value]
        kept.copy_(torch.cat([F.normalize(features.float(), dim=1), kept])[: len(kept)])

    def distance(self, branch: int, features: Tensor, classes: Tensor) -> Tensor:
        """``L_class`` of ``features [B, F, k, j, i]`` under ``classes [B, k, j, i]``."""
        directions = F.normalize(features.float(), dim=1)
        total = directions.sum() * 0.0
        for value in range(1, self.features.shape[1]):
            kept = self.features[branch, value]
            filled = kept.norm(dim=1) > 0
            voxels = directions.movedim(1, -1)[classes == value]
            if filled.any() and len(voxels):
                # The mean cosine to many unit vectors is the product with their mean.
                total = total + (1.0 - voxels @ kept[filled].mean(0)).mean()
        return total / self.features.shape[1]


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: see ``EachBranch``; length: of the disturbance; contrast: weight of the separation;
    memory: features kept per class."""

    weight: float = 1.0
    ramp: float = 0.4
    length: float = 10.0
    contrast: float = 0.1
    memory: int = 256


class SmoothSeparated(EachBranch[Settings]):
    """Smooth around each scan, separated between classes."""

    name = "ss_net"
    title = "SS-Net"
    settings_class = Settings

    def prepare(self, network: BranchPair) -> None:
        spec, device = network.spec, next(network.parameters()).device
        memory = ClassMemory(spec.n_branches, spec.n_classes, self.settings.memory, spec.projector)
        self.kept["memory"] = memory.to(device)

    @property
    def memory(self) -> ClassMemory:
        return cast(ClassMemory, self.kept["memory"])

    def terms(self, step: Step) -> Iterator[Term]:
        s, n, memory = self.settings, step.n, self.memory
        output, log_p = step.predict(step.x)
        yield step.supervised(log_p)
        p, best = log_p[-1].detach().exp(), hard_label(log_p[-1])
        yield "smoothness", step.weight, self._smoothness(step, p)
        self._remember(step, output.features, p, best)
        apart = memory.distance(step.branch, output.features[:n], step.label)
        apart = apart + memory.distance(step.branch, output.features[n:], best[n:])
        yield "separation", step.weight * s.contrast, apart

    def _smoothness(self, step: Step, p: Tensor) -> Tensor:
        length = self.settings.length * (step.x[0, 0].numel() / REFERENCE_VOXELS) ** 0.5
        direction = (_unit(torch.rand_like(step.x) - 0.5) * length).requires_grad_()
        distance = dice_loss(step.predict(step.x + direction)[1][-1].exp(), p)
        (direction,) = torch.autograd.grad(distance, direction)
        return dice_loss(step.predict(step.x + _unit(direction) * length)[1][-1].exp(), p)

    @torch.no_grad()
    def _remember(self, step: Step, features: Tensor, p: Tensor, best: Tensor) -> None:
        right = (best[: step.n] == step.label) & (step.label > 0)
        for value in step.label[right].unique().tolist():
            here = right & (step.label == value)
            surest = p[: step.n, value][here].topk(min(self.settings.memory, int(here.sum())))[1]
            self.memory.add(step.branch, value, features[: step.n].movedim(1, -1)[here][surest])


def _unit(direction: Tensor) -> Tensor:
    """Each item divided by its length over all voxels and channels."""
    return direction / direction.flatten(1).norm(dim=1).clamp_min(1e-8).view(-1, 1, 1, 1, 1)
