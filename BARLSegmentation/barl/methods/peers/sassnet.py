# SPDX-License-Identifier: Apache-2.0
"""SASSNet, shape-aware semi-supervised segmentation (Li et al., MICCAI 2020).

A critic learns to tell signed distance maps of outlined patches from those of untouched ones, the scan at hand; the
network learns to make the latter pass for the former:

    L = L_sup + 0.3 mean (R - R_true)^2 + 0.01 ramp BCE(critic(R, x), "outlined")   (the last one on untouched patches)

Defaults from SASSNet's code: weights above, ramp over 40 "epochs" of 150 iterations, its whole run of 6,000; critic:
Adam, 1e-4, betas (0.9, 0.99). The critic has half the depth and width of the published one, as the network has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barl.losses.consistency import squared_difference
from barl.methods.peers.distance_map import scaled_distances
from barl.methods.peers.each_branch import EachBranch, Step, Term
from barl.networks.branches import BranchPair


class Critic(nn.Sequential):
    """Logit ``[B, 1]`` that a map beside its scan ``[B, C, k, j, i]`` comes from an outlined patch."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        pairs = zip((channels, *widths), widths, strict=False)
        layers = [layer for i, o in pairs for layer in (nn.Conv3d(i, o, 3, 2, 1), nn.LeakyReLU(0.2))]
        super().__init__(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(widths[-1], 1))


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: see ``EachBranch``; regression: weight of the distance map's error; critic_rate:
    learning rate of the critic."""

    weight: float = 0.01
    ramp: float = 1.0
    regression: float = 0.3
    critic_rate: float = 1e-4


class ShapeAware(EachBranch[Settings]):
    """Distance maps of untouched patches look like those of outlined ones."""

    name = "sassnet"
    title = "SASSNet"
    settings_class = Settings

    def network_options(self) -> dict[str, Any]:
        return {"tasks": ("both",)}

    def prepare(self, network: BranchPair) -> None:
        spec, device = network.spec, next(network.parameters()).device
        channels = spec.in_channels + spec.n_classes - 1
        self.kept["critics"] = nn.ModuleList(Critic(channels) for _ in range(network.n_branches)).to(device)
        rate = self.settings.critic_rate
        self.optimizers["critics"] = torch.optim.Adam(self.kept.parameters(), lr=rate, betas=(0.9, 0.99))
        self.seen: dict[int, tuple[Tensor, int]] = {}

    def terms(self, step: Step) -> Iterator[Term]:
        n, critic = step.n, self._critic(step.branch)
        output, log_p = step.predict(step.x)
        yield step.supervised(log_p)
        distances = output.signed_distances()[:, 1:]
        truth = scaled_distances(step.label, log_p[-1].shape[1])
        yield "distance", self.settings.regression, squared_difference(distances[:n], truth)
        shown = torch.cat([distances, step.x], dim=1)
        self.seen[step.branch] = shown.detach(), n
        if len(shown) > n:
            verdict = critic.requires_grad_(False)(shown[n:]).float()
            yield "adversarial", step.weight, F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))

    def _critic(self, branch: int) -> Critic:
        return cast(Critic, cast(nn.ModuleList, self.kept["critics"])[branch])

    def after_step(self, network: BranchPair, iteration: int) -> None:
        """One step of the critics on what they saw."""
        losses = []
        for branch, (shown, n) in self.seen.items():
            verdict = self._critic(branch).requires_grad_(True)(shown)
            outlined = (torch.arange(len(shown), device=shown.device) < n).float()[:, None]
            losses.append(F.binary_cross_entropy_with_logits(verdict, outlined))
        self.optimizers["critics"].zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        self.optimizers["critics"].step()
