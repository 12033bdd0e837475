# SPDX-License-Identifier: Apache-2.0
"""A teacher whose weights are the moving average of the student's (Tarvainen and Valpola, NeurIPS 2017)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from barl.networks.branches import BranchOutput, BranchPair


class Teacher(nn.Module):
    """A copy of the branches that learns by following them, without gradient.

    Args:
        network: The student; the copy starts from its present weights.
        decay: Largest share of the old average kept at a step (0.99 in the field's 3D code).
    """

    def __init__(self, network: BranchPair, decay: float = 0.99) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def follow(self, network: BranchPair, iteration: int) -> None:
        """``w <- a w + (1 - a) w_student`` with ``a = min(1 - 1/(t+1), decay)``: early averages forget quickly."""
        keep = min(1.0 - 1.0 / (iteration + 1), self.decay)
        for own, new in zip(self.network.parameters(), network.parameters(), strict=True):
            own.lerp_(new, 1.0 - keep)

    @torch.no_grad()
    def scales(self, x: Tensor, branch: int = 0) -> BranchOutput:
        return self.network.scales(x, branch)

    @torch.no_grad()
    def views(self, x: Tensor) -> list[BranchOutput]:
        return self.network.views(x)

    @torch.no_grad()
    def probabilities(self, x: Tensor, branch: int = 0) -> Tensor:
        """Softmax of the finest scale ``[B, L+1, k, j, i]`` in float32."""
        return self.network(x, branch).float().softmax(dim=1)
