# SPDX-License-Identifier: Apache-2.0
"""BARL: bilateral alignment in label space (DPR, PCBC) and representation space (regions, lesions).

A reconstruction (Gao, Wang, Yu: "BARL: Bilateral Alignment in Representation and Label Spaces for Semi-Supervised
Volumetric Medical Image Segmentation", arXiv 2510.16863); what is stated and what is ours stands in the loss files.

    L = L_sup + lambda(t) (L_DPR + L_PCBC) + mu(t) (L_region + L_inst)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from barl.errors import InputError
from barl.losses.dpr import dual_path_regularization
from barl.losses.instance import instance_alignment
from barl.losses.overlap import hard_label, one_hot
from barl.losses.pcbc import bias_correction, scale_gates
from barl.losses.region import region_alignment
from barl.methods.base import Batch, Ramped, ramp_up
from barl.methods.mixing import random_box
from barl.methods.supervised import multi_scale_supervision, scale_weights
from barl.networks.branches import Network

PARTS = ("cps", "dpr", "pcbc", "region", "instance")


def paste_outlines(batch: Batch, iteration: int) -> tuple[Batch, Tensor]:
    """CutMix (Yun et al., ICCV 2019) from labeled into unlabeled items: one box of half the patch's edge each.

    The box lies at the same place in both patches and in both views. It depends on ``iteration`` alone, so that a run
    resumes exactly.

    Returns:
        The batch, and what is known of its unlabeled items: classes ``[B_u, k, j, i]``, -1 outside the boxes.
    """
    n, size = batch.n_labelled, batch.weak.shape[2:]
    rng = np.random.default_rng(iteration)
    weak, strong = batch.weak.clone(), batch.strong.clone()
    known = batch.label.new_full((len(weak) - n, *size), -1)
    for item in range(n, len(weak)):
        donor = (item - n) % n
        box = random_box(size, 0.5, rng)
        for view in (weak, strong):
            view[(item, slice(None), *box)] = view[(donor, slice(None), *box)]
        known[(item - n, *box)] = batch.label[(donor, *box)]
    return Batch(weak, strong, batch.label), known


@dataclass(frozen=True)
class Settings:
    """Every choice that the paper does not state.

    Attributes:
        parts: Terms in use: ``cps`` (cross pseudo-labels at the finest scale only) or ``dpr`` (at every scale),
            ``pcbc``, ``region``, ``instance``.
        lambda_max: Weight of the label-space terms after the ramp.
        mu_max: Weight of the representation-space terms after the ramp.
        ramp: Length of both ramps as a share of all iterations.
        warm: ``T_warm`` of PCBC's gates as a share of all iterations.
        scale_decay: Weight of each coarser scale relative to the next finer one (supervision and DPR).
        confidence: Pseudo-labels below this probability are ignored in DPR; 0 uses all.
        soft: Add DPR's soft path.
        swap: Exchange the branches' views at every other iteration.
        pull: PCBC's weight of the squared error. SDCL and RAIL use 0.5 and 0.05; a fifth of both measured the same
            on large structures and better on small lesions.
        unlearn: PCBC's weight of the entropy term.
        correct: Where PCBC works: ``labelled`` items against the ground truth, or ``all``, the unlabeled ones
            against the branches' mean.
        cutmix: Paste a box of half the patch's edge, with its ground truth, from labeled into unlabeled items.
        region_min_voxels: Smaller regions are not aligned.
        lesion_min_voxels: Smaller components are no lesions.
        lesion_min_iou: Lesions that overlap less are not matched.
        contrast: Instance level as InfoNCE as well.
    """

    parts: tuple[str, ...] = ("dpr", "pcbc", "region", "instance")
    lambda_max: float = 1.0
    mu_max: float = 0.1
    ramp: float = 0.4
    warm: float = 0.4
    scale_decay: float = 0.5
    confidence: float = 0.0
    soft: bool = False
    swap: bool = True
    pull: float = 0.1
    unlearn: float = 0.01
    correct: str = "labelled"
    cutmix: bool = True
    region_min_voxels: int = 8
    lesion_min_voxels: int = 27
    lesion_min_iou: float = 0.1
    contrast: bool = False

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise InputError(f"BARL has no part {unknown[0]!r}.", f"Its parts are: {', '.join(PARTS)}.")
        object.__setattr__(self, "parts", tuple(self.parts))

    @property
    def weight(self) -> float:
        return self.lambda_max


class Barl(Ramped[Settings]):
    """Two branches, two views, four alignment terms; each can be switched off for an ablation."""

    name = "barl"
    title = "BARL"
    settings_class = Settings

    def loss(self, network: Network, batch: Batch, iteration: int, total: int) -> dict[str, Tensor]:
        s = self.settings
        n = batch.n_labelled
        known = None
        if s.cutmix and 0 < n < len(batch.weak):
            batch, known = paste_outlines(batch, iteration)
        views = (batch.strong, batch.weak) if s.swap and iteration % 2 else (batch.weak, batch.strong)
        outputs = [network.scales(view, branch) for branch, view in enumerate(views)]
        log_p = [output.log_probabilities() for output in outputs]
        n_scales, n_classes = len(log_p[0]), log_p[0][-1].shape[1]
        weights = scale_weights(n_scales, s.scale_decay)
        truth = one_hot(batch.label, n_classes)

        losses = {"supervised": multi_scale_supervision(log_p, truth, weights)}
        label_space = self.consistency_weight(iteration, total)
        feature_space = s.mu_max * ramp_up(iteration, s.ramp * total)
        parts: dict[str, float] = {part: label_space for part in ("cps", "dpr", "pcbc") if part in s.parts}
        if n < len(batch.weak):
            first, second = ([scale[n:] for scale in branch] for branch in log_p)
            if "dpr" in s.parts or "cps" in s.parts:
                part = "dpr" if "dpr" in s.parts else "cps"
                scales = weights if part == "dpr" else [0.0] * (n_scales - 1) + [1.0]
                losses[part] = dual_path_regularization(
                    first, second, scales, known=known, confidence=s.confidence, soft=s.soft and part == "dpr"
                )
        if "pcbc" in s.parts:
            gates = scale_gates(n_scales, iteration / max(s.warm * total, 1.0))
            first, second = log_p if s.correct == "all" else ([scale[:n] for scale in branch] for branch in log_p)
            if len(first[0]):
                losses["pcbc"] = bias_correction(first, second, gates, truth, pull=s.pull, unlearn=s.unlearn)
        if "region" in s.parts or "instance" in s.parts:
            one, two = (output.features.float() for output in outputs)
            classes_one, classes_two = (torch.cat([batch.label, hard_label(branch[-1][n:])]) for branch in log_p)
            if "region" in s.parts:
                masks = one_hot(classes_one, n_classes), one_hot(classes_two, n_classes)
                losses["region"] = region_alignment(one, two, *masks, min_voxels=s.region_min_voxels)
                parts["region"] = feature_space
            if "instance" in s.parts:
                losses["instance"] = instance_alignment(
                    one,
                    two,
                    classes_one,
                    classes_two,
                    min_voxels=s.lesion_min_voxels,
                    min_iou=s.lesion_min_iou,
                    contrast=s.contrast,
                )
                parts["instance"] = feature_space
        weighted = [weight * losses[part] for part, weight in parts.items() if part in losses]
        return {"total": losses["supervised"] + sum(weighted), **losses}
