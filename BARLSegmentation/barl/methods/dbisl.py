# SPDX-License-Identifier: Apache-2.0
"""DBiSL: segmentation and distance regression teach each other in both directions, differentiably.

A reconstruction (Li: "Fully Differentiable Bidirectional Dual-Task Synergistic Learning for Semi-Supervised 3D Medical
Image Segmentation", arXiv 2602.09378). Stated: one encoder with two decoders, the two transforms, and the four
components; how the decoders carry the heads can be read in two ways, and equations and weights of the components are
not public.

    L = L_sup + beta L_reg + gamma r(t) L_cross + lambda r(t) (L_con + L_pse),    means over decoders

``r(t)`` ramps up from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from barl.errors import InputError
from barl.losses.consistency import squared_difference
from barl.losses.dual_task import bidirectional_consistency, cross_task_supervision
from barl.losses.overlap import hard_label, one_hot
from barl.losses.task_transforms import (
    distance_to_segmentation,
    exact_distances,
    known_distances,
    segmentation_to_distance,
)
from barl.losses.task_uncertainty import certainty, pseudo_supervision, task_uncertainty
from barl.methods.base import Batch, Outlined, Ramped, add_up, ramp_up
from barl.methods.mixing import paste_outlines
from barl.methods.supervised import multi_scale_supervision, scale_weights
from barl.methods.teacher import Teacher
from barl.networks.branches import BranchOutput, BranchPair, Network

PARTS = ("cross", "consistency", "pseudo", "uncertainty")
ARCHITECTURES = ("2x2", "1+1")


@dataclass(frozen=True)
class Settings:
    """Every choice that the paper does not state, and the parts in use.

    Attributes:
        parts: ``cross`` (cross-task supervision), ``consistency`` (bidirectional), ``pseudo`` (pseudo-supervision)
            and ``uncertainty`` (its weights; without it every voxel weighs the same). Supervision of both tasks
            is always there.
        architecture: ``"2x2"``: two decoders with both heads each; ``"1+1"``: one decoder per task.
        lambda_max: Weight of consistency and pseudo-supervision after the ramp. With 1 and without CutMix
            pseudo-supervision alone melts structures away (decision 0004).
        ramp: Length of the ramp as a share of all iterations.
        beta: Weight of the regression of distances. With 0.3, as in DTC and SASSNet, small lesions were
            lost with some outlined cases (decision 0004).
        gamma: Weight of cross-task supervision after the ramp: distances that have not learned yet teach nothing.
        k: Steepness of ``T_r2s`` per reach.
        h: Decay of the kernel of ``T_s2r``.
        radius: Of the kernel in voxels.
        reach: Distance that is 1 in the maps.
        sharpening: Temperature before ``T_s2r``; 1 for none.
        spacing: Edges of a voxel ``(k, j, i)`` in the unit of ``h`` and ``reach``; distances count voxels by
            default, along each axis alike.
        exchange: Consistency of each decoder's segmentation with the other decoder's distances.
        detach: Consistency without gradient through the transforms.
        alternate: Show the strong view at every other iteration, not the weak one alone (one encoder sees one view
            at a time).
        cutmix: Paste a box of half the patch's edge, with its ground truth, from outlined into untouched patches.
        teacher: Decay of a moving average of the network that makes the pseudo-labels; 0 for none.
        scale_decay: Weight of each coarser scale relative to the next finer one.
    """

    parts: tuple[str, ...] = PARTS
    architecture: str = "2x2"
    lambda_max: float = 0.3
    ramp: float = 0.4
    beta: float = 0.1
    gamma: float = 0.1
    k: float = 50.0
    h: float = 0.5
    radius: int = 7
    reach: float = 6.0
    sharpening: float = 0.5
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    exchange: bool = False
    detach: bool = False
    alternate: bool = True
    cutmix: bool = True
    teacher: float = 0.0
    scale_decay: float = 0.5

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise InputError(f"DBiSL has no part {unknown[0]!r}.", f"Its parts are: {', '.join(PARTS)}.")
        if self.architecture not in ARCHITECTURES:
            known = " or ".join(ARCHITECTURES)
            raise InputError(f"DBiSL has no architecture {self.architecture!r}.", f"Choose {known}.")
        spacing = tuple(self.spacing)
        if len(spacing) != 3 or min(self.k, self.h, self.radius, self.reach, *spacing) <= 0:
            raise InputError(
                "DBiSL's k, h, radius, reach and spacing cannot be 0 or less.",
                "Give numbers above 0; spacing needs three.",
            )
        if not 0 < self.sharpening <= 1:
            raise InputError("DBiSL's sharpening lies above 0 and up to 1.", "Give 1 for none.")
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "spacing", spacing)

    @property
    def weight(self) -> float:
        return self.lambda_max


class Dbisl(Ramped[Settings]):
    """Two tasks, two transforms, four parts; each part can be switched off for an ablation."""

    name = "dbisl"
    title = "DBiSL"
    settings_class = Settings
    takes_partial = True

    def network_options(self) -> dict[str, Any]:
        tasks = ("both",) if self.settings.architecture == "2x2" else ("segmentation", "distance")
        return {"shared_encoder": True, "residual": (False,), "tasks": tasks, "steepness": self.settings.k}

    def prepare(self, network: BranchPair) -> None:
        if self.settings.teacher:
            self.kept["teacher"] = Teacher(network, self.settings.teacher)

    def after_step(self, network: BranchPair, iteration: int) -> None:
        if self.settings.teacher:
            cast(Teacher, self.kept["teacher"]).follow(network, iteration)

    def loss(self, network: Network, batch: Batch, iteration: int, total: int) -> dict[str, Tensor]:
        s, outlined = self.settings, batch.outlined()
        n, pasted = len(outlined), None
        if s.cutmix and 0 < n < len(batch.weak):
            batch, pasted = paste_outlines(batch, iteration)
        segmenting, measuring = self._tasks(
            network.views(batch.strong if s.alternate and iteration % 2 else batch.weak)
        )
        log_p = [[outlined.first(scale) for scale in output.log_probabilities()] for output in segmenting]
        p = [scales[-1].exp() for scales in log_p]
        r = [outlined.first(output.signed_distances()) for output in measuring]
        log_p_of_r = [distance_to_segmentation(one, s.k) for one in r]
        p_of_r = [one.exp() for one in log_p_of_r]
        r_of_p = [self._distances(one) for one in p] if {"cross", "consistency"} & set(s.parts) else []

        n_classes = p[0].shape[1]
        truth = one_hot(outlined.label, n_classes)
        weights = scale_weights(len(log_p[0]), s.scale_decay)
        losses = {"supervised": multi_scale_supervision(log_p, truth, weights, outlined.voxels)}
        factors = {"supervised": 1.0}
        if n:
            shape = (outlined.label, n_classes, s.reach, s.spacing)
            exact = exact_distances(*shape)
            sure = None if outlined.voxels is None else known_distances(*shape) * outlined.voxels
            losses["regression"] = _mean(squared_difference(one[:n], exact, sure) for one in r)
            factors["regression"] = s.beta
            if "cross" in s.parts:
                losses["cross"] = _mean(
                    cross_task_supervision(q[:n], d[:n], truth, exact, outlined.voxels, sure)
                    for q, d in zip(log_p_of_r, r_of_p, strict=True)
                )
                factors["cross"] = s.gamma * ramp_up(iteration, s.ramp * total)
        ramped = self.consistency_weight(iteration, total)
        if "consistency" in s.parts:
            turn = -1 if s.exchange else 1
            both = zip(p, r_of_p, r[::turn], p_of_r[::turn], strict=True)
            losses["consistency"] = _mean(bidirectional_consistency(y, d, q, t, s.detach) for y, t, d, q in both)
            factors["consistency"] = ramped
        if "pseudo" in s.parts and (n < len(p[0]) or outlined.open_voxels is not None):
            members = self._teacher_members(outlined, batch.weak) if s.teacher else [*p, *p_of_r]
            losses["pseudo"] = self._pseudo_supervision(outlined, pasted, log_p, r, members)
            factors["pseudo"] = ramped
        return {"total": add_up(factors[part] * value for part, value in losses.items()), **losses}

    def _tasks(self, outputs: list[BranchOutput]) -> tuple[list[BranchOutput], list[BranchOutput]]:
        """The decoders' outputs that have a segmentation, and those that have distances."""
        return (outputs, outputs) if self.settings.architecture == "2x2" else (outputs[:1], outputs[1:])

    def _teacher_members(self, outlined: Outlined, x: Tensor) -> list[Tensor]:
        """The teacher's probabilities ``[B, C, k, j, i]`` of each decoder and task."""
        segmenting, measuring = self._tasks(cast(Teacher, self.kept["teacher"]).views(x))
        log_p = [output.log_probabilities()[-1] for output in segmenting]
        log_p += [distance_to_segmentation(output.signed_distances(), self.settings.k) for output in measuring]
        return [outlined.first(one.exp()) for one in log_p]

    def _pseudo_supervision(
        self,
        outlined: Outlined,
        pasted: Tensor | None,
        log_p: Sequence[Sequence[Tensor]],
        r: Sequence[Tensor],
        members: Sequence[Tensor],
    ) -> Tensor:
        """``L_pse``, where nobody has looked; ``pasted``: what CutMix has brought there (``paste_outlines``)."""
        count = len(members[0])
        mean, uncertainty = task_uncertainty([outlined.untouched(member) for member in members])
        classes, known = hard_label(mean), outlined.known(pasted, count)
        weight = certainty(uncertainty) if "uncertainty" in self.settings.parts else None
        if known is not None:
            classes = torch.where(known >= 0, known, classes)
            weight = None if weight is None else weight.masked_fill(known.unsqueeze(1) >= 0, 1.0)
        pseudo = one_hot(classes, mean.shape[1])
        unseen = outlined.unseen(count)
        if unseen is not None:
            weight = unseen if weight is None else weight * unseen
        distances = self._distances(pseudo)
        return _mean(
            pseudo_supervision(
                outlined.untouched(y[-1]), outlined.untouched(d), pseudo, distances, weight, self.settings.beta
            )
            for y, d in zip(log_p, r, strict=True)
        )

    def _distances(self, p: Tensor) -> Tensor:
        s = self.settings
        return segmentation_to_distance(p, s.h, s.reach, s.radius, s.sharpening, s.spacing)


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
