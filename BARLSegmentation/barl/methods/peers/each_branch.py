# SPDX-License-Identifier: Apache-2.0
"""What methods of one network share here: each branch is trained by the method, on its own, and all are averaged.

So every method has the same two networks, sees the same two views and is tested as the same ensemble (and, in the
column "first branch alone", as the single network it was published with). The supervised term is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, cast

import torch
from torch import Tensor

from barl.losses.overlap import one_hot
from barl.methods.base import Batch, Method, Outlined, R, Ramped
from barl.methods.supervised import multi_scale_supervision, scale_weights
from barl.methods.teacher import Teacher
from barl.networks.branches import BranchOutput, BranchPair, Network

# Weight of each coarser scale relative to the next finer one, as of ``supervised``.
SCALE_DECAY = 0.5
# Name, weight and value of a part of the loss.
Term = tuple[str, float, Tensor]


@dataclass
class Step:
    """One branch at one iteration.

    Attributes:
        network: The branches.
        branch: Which of them learns.
        batch: Both views of the patches.
        x: Its view of the patches ``[B, C, k, j, i]``: weak for even branches, strong for odd ones.
        outlined: What is known of the patches.
        weight: Of the terms that need no outline, after the ramp.
        progress: ``t / T`` in [0, 1).
    """

    network: Network
    branch: int
    batch: Batch
    x: Tensor
    outlined: Outlined
    weight: float
    progress: float

    @property
    def label(self) -> Tensor:
        """Class indices ``[B_l, k, j, i]`` of the first ``n`` patches."""
        return self.batch.label

    @property
    def n(self) -> int:
        """``B_l``."""
        return self.batch.n_labelled

    def predict(self, x: Tensor) -> tuple[BranchOutput, list[Tensor]]:
        """Everything the branch says about ``x``, and its log-probabilities per scale, coarse to fine."""
        output = self.network.scales(x, self.branch)
        return output, output.log_probabilities()

    def finest(self, x: Tensor) -> Tensor:
        """The branch's log-probabilities ``[B, C, k, j, i]`` of ``x`` at full resolution."""
        return self.predict(x)[1][-1]

    def perturbed(self, x: Tensor, shares: Sequence[float]) -> list[Tensor]:
        """As ``finest``, then the same with each of ``shares`` of the encoder's feature channels dropped."""
        return [output.log_probabilities()[-1] for output in self.network.perturbed(x, shares, self.branch)]

    def untouched(self, values: Tensor) -> Tensor:
        """``values [B, ...]`` of the patches with voxels that nobody has looked at."""
        return self.outlined.untouched(self.outlined.first(values))

    def supervised(self, log_p: list[Tensor], label: Tensor | None = None, voxels: Tensor | None = None) -> Term:
        """The supervised term that all methods have: ``1/2 (CE + Dice)`` at every scale.

        Args:
            log_p: From ``predict``.
            label: Other class indices than those of the outlined patches; ``voxels`` goes with them.
            voxels: Weight of each voxel ``[B, 1, k, j, i]``; all the same if not given.
        """
        if label is None:
            label, voxels = self.outlined.label, self.outlined.voxels
            log_p = [self.outlined.first(scale) for scale in log_p]
        target = one_hot(label, log_p[-1].shape[1])
        weights = scale_weights(len(log_p), SCALE_DECAY)
        return "supervised", 1.0, multi_scale_supervision([log_p], target, weights, voxels)


class EachBranch(Ramped[R]):
    """A method of one network: ``terms`` is all that a subclass writes."""

    def terms(self, step: Step) -> Iterator[Term]:
        """Name, weight and value of each part of one branch's loss, the first being ``step.supervised``."""
        raise NotImplementedError

    def loss(self, network: Network, batch: Batch, iteration: int, total: int) -> dict[str, Tensor]:
        weight = self.consistency_weight(iteration, total)
        outlined, progress = batch.outlined(), iteration / max(total, 1)
        losses: dict[str, Tensor] = {}
        sums = torch.zeros((), device=batch.weak.device)
        share = 1.0 / network.n_branches
        for branch in range(network.n_branches):
            x = batch.strong if branch % 2 else batch.weak
            step = Step(network, branch, batch, x, outlined, weight, progress)
            for name, factor, value in self.terms(step):
                part = share * value
                losses[name] = losses[name] + part if name in losses else part
                sums = sums + share * factor * value
        return {"total": sums, **losses}


class TeacherSettings(Protocol):
    """Settings of a method with a teacher.

    Attributes:
        decay: Of the teacher's moving average.
    """

    @property
    def decay(self) -> float: ...

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=TeacherSettings)


class WithTeacher(Method[T]):
    """A method that keeps a moving average of its network."""

    def prepare(self, network: BranchPair) -> None:
        self.kept["teacher"] = Teacher(network, self.settings.decay)

    def after_step(self, network: BranchPair, iteration: int) -> None:
        self.teacher.follow(network, iteration)

    @property
    def teacher(self) -> Teacher:
        return cast(Teacher, self.kept["teacher"])
