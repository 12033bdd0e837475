# SPDX-License-Identifier: Apache-2.0
"""BARL: bilateral alignment in label space (DPR, PCBC) and representation space (regions, lesions).

A reconstruction (Gao, Wang, Yu: "BARL: Bilateral Alignment in Representation and Label Spaces for Semi-Supervised
Volumetric Medical Image Segmentation", arXiv 2510.16863); what is stated and what is ours stands in the loss files.

    L = L_sup + lambda(t) (L_DPR + L_PCBC) + mu(t) (L_region + L_inst)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from barl.errors import InputError
from barl.losses.dpr import dual_path_regularization
from barl.losses.instance import instance_alignment
from barl.losses.overlap import hard_label, one_hot
from barl.losses.pcbc import bias_correction, scale_gates
from barl.losses.region import region_alignment
from barl.methods.base import Batch, Outlined, Ramped, ramp_up
from barl.methods.mixing import paste_outlines
from barl.methods.supervised import multi_scale_supervision, scale_weights
from barl.networks.branches import Network

PARTS = ("cps", "dpr", "pcbc", "region", "instance")
CORRECTED = ("labelled", "all")
# Log-probabilities ``[B, C, k, j, i]`` of each branch and scale, coarse to fine.
Scales = list[list[Tensor]]


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
        background: PCBC's limit of the weight of background among the voxels where the branches differ, in multiples
            of the other classes' weight; 0 sets none. Without one PCBC teaches to leave small lesions out (decision
            0003).
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
    background: float = 1.0
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
        if self.correct not in CORRECTED:
            raise InputError(f"PCBC cannot correct {self.correct!r}.", f"Choose {' or '.join(CORRECTED)}.")
        object.__setattr__(self, "parts", tuple(self.parts))

    @property
    def weight(self) -> float:
        return self.lambda_max


class Barl(Ramped[Settings]):
    """Two branches, two views, four alignment terms; each can be switched off for an ablation."""

    name = "barl"
    title = "BARL"
    settings_class = Settings
    takes_partial = True

    def loss(self, network: Network, batch: Batch, iteration: int, total: int) -> dict[str, Tensor]:
        s = self.settings
        outlined = batch.outlined()
        known = None
        if s.cutmix and 0 < len(outlined) < len(batch.weak):
            batch, known = paste_outlines(batch, iteration)
        views = (batch.strong, batch.weak) if s.swap and iteration % 2 else (batch.weak, batch.strong)
        outputs = [network.scales(view, branch) for branch, view in enumerate(views)]
        log_p = [[outlined.first(scale) for scale in output.log_probabilities()] for output in outputs]
        weights = scale_weights(len(log_p[0]), s.scale_decay)
        truth = one_hot(outlined.label, log_p[0][-1].shape[1])

        losses = {"supervised": multi_scale_supervision(log_p, truth, weights, outlined.voxels)}
        label_space = self.consistency_weight(iteration, total)
        feature_space = s.mu_max * ramp_up(iteration, s.ramp * total)
        parts: dict[str, float] = {part: label_space for part in ("cps", "dpr", "pcbc") if part in s.parts}
        if len(outlined) < len(batch.weak) or outlined.open_voxels is not None:
            losses |= self._cross_supervision(outlined, log_p, known, weights)
        if "pcbc" in s.parts:
            losses |= self._correction(outlined, log_p, truth, iteration / max(s.warm * total, 1.0))
        if "region" in s.parts or "instance" in s.parts:
            features = [outlined.first(output.features.float()) for output in outputs]
            aligned = self._alignment(outlined, log_p, features)
            losses |= aligned
            parts |= dict.fromkeys(aligned, feature_space)
        weighted = [weight * losses[part] for part, weight in parts.items() if part in losses]
        return {"total": losses["supervised"] + sum(weighted), **losses}

    def _cross_supervision(
        self, outlined: Outlined, log_p: Scales, known: Tensor | None, weights: list[float]
    ) -> dict[str, Tensor]:
        """DPR, or CPS, where nobody has looked."""
        s, count = self.settings, len(log_p[0][-1])
        part = "dpr" if "dpr" in s.parts else "cps"
        if part not in s.parts:
            return {}
        first, second = ([outlined.untouched(scale) for scale in branch] for branch in log_p)
        loss = dual_path_regularization(
            first,
            second,
            weights if part == "dpr" else [0.0] * (len(weights) - 1) + [1.0],
            known=outlined.known(known, count),
            confidence=s.confidence,
            soft=s.soft and part == "dpr",
            voxels=outlined.unseen(count),
        )
        return {part: loss}

    def _correction(self, outlined: Outlined, log_p: Scales, truth: Tensor, progress: float) -> dict[str, Tensor]:
        """PCBC of the outlined items, or of all."""
        s, everywhere = self.settings, self.settings.correct == "all"
        first, second = log_p if everywhere else ([scale[: len(outlined)] for scale in branch] for branch in log_p)
        if not len(first[0]):
            return {}
        gates = scale_gates(len(first), progress)
        weights = {"pull": s.pull, "unlearn": s.unlearn, "background": s.background}
        voxels = outlined.voxels
        return {"pcbc": bias_correction(first, second, gates, truth, **weights, voxels=voxels, complete=everywhere)}

    def _alignment(self, outlined: Outlined, log_p: Scales, features: list[Tensor]) -> dict[str, Tensor]:
        """Region and instance level: the outline where somebody has looked, each branch's own label elsewhere."""
        s, losses = self.settings, {}
        one, two = features
        classes_one, classes_two = (outlined.completed(hard_label(branch[-1])) for branch in log_p)
        if "region" in s.parts:
            masks_one, masks_two = (one_hot(classes, log_p[0][-1].shape[1]) for classes in (classes_one, classes_two))
            losses["region"] = region_alignment(one, two, masks_one, masks_two, min_voxels=s.region_min_voxels)
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
        return losses
