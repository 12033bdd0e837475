# SPDX-License-Identifier: Apache-2.0
"""Corrected co-training after SDCL (Students Discrepancy-Informed Correction Learning, MICCAI 2024).

Two students of different architecture learn from the same copy-pasted patches as in BCP, the teacher being the average
of the first. Where they differ, D = [argmax p_1 != argmax p_2], both are pulled to the label, and made less sure where
they are wrong; voxels with pseudo-labels weigh half:

    L_b = L_BCP(b) + 0.5 mean_D (p_b - y)^2 + 0.05 mean_{D, wrong} mean_c(-log p_c)

Defaults from SDCL's code (0.5, 0.05, and BCP's). Here the students see the two views that all methods have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from barl.losses.consistency import squared_difference
from barl.losses.overlap import hard_label, one_hot
from barl.methods.base import Batch, Ramped, add_up
from barl.methods.mixing import exchange, largest_pieces, paste_in_turn, random_box
from barl.methods.peers.each_branch import SCALE_DECAY, WithTeacher
from barl.methods.supervised import multi_scale_supervision, scale_weights
from barl.networks.branches import Network


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, decay, box, pretraining: as of BCP; pull: weight of the squared error where the students
    differ; unlearn: weight of the entropy term where they are wrong as well."""

    weight: float = 0.5
    decay: float = 0.99
    box: float = 2 / 3
    pretraining: float = 2 / 17
    pull: float = 0.5
    unlearn: float = 0.05

    @property
    def ramp(self) -> float:
        """The weight does not ramp up."""
        return 0.0


class DiscrepancyCorrection(WithTeacher[Settings], Ramped[Settings]):
    """Two students correct each other where they differ."""

    name = "sdcl"
    title = "SDCL-style"
    settings_class = Settings

    def loss(self, network: Network, batch: Batch, iteration: int, total: int) -> dict[str, Tensor]:
        s, n = self.settings, batch.n_labelled
        views, box = [batch.weak, batch.strong], random_box(batch.weak.shape[2:], s.box)
        outlined = torch.zeros(len(batch.weak), 1, *batch.weak.shape[2:], device=batch.weak.device)
        outlined[:n] = 1.0
        if len(batch.weak) == n or (n and iteration < s.pretraining * total):
            views, outlined = [paste_in_turn(view[:n], box) for view in views], outlined[:n]
            classes = paste_in_turn(batch.label, box)
        else:
            guess = largest_pieces(hard_label(self.teacher.probabilities(batch.weak[n:], 0)))
            classes, outlined = (exchange(v, n, box) for v in (torch.cat([batch.label, guess]), outlined))
            views = [exchange(view, n, box) for view in views]
        outputs = [network.scales(view, branch) for branch, view in enumerate(views)]
        log_p = [output.log_probabilities() for output in outputs]
        target = one_hot(classes, log_p[0][-1].shape[1])
        scales = scale_weights(len(log_p[0]), SCALE_DECAY)
        losses = {
            "supervised": multi_scale_supervision(log_p, target, scales, outlined),
            "pseudo": multi_scale_supervision(log_p, target, scales, 1.0 - outlined),
        }
        finest = [branch[-1] for branch in log_p]
        best = [hard_label(p) for p in finest]
        voxels = outlined + s.weight * (1.0 - outlined)
        differ = voxels * (best[0] != best[1]).unsqueeze(1)
        losses["pull"] = add_up(0.5 * squared_difference(p.exp(), target, differ) for p in finest)
        wrong = [differ * (b != classes).unsqueeze(1) for b in best]
        flat = [(w * -p.mean(1, keepdim=True)).sum() / w.sum().clamp_min(1) for p, w in zip(finest, wrong, strict=True)]
        losses["unlearn"] = 0.5 * add_up(flat)
        weights = {"supervised": 1.0, "pseudo": s.weight, "pull": s.pull, "unlearn": s.unlearn}
        return {"total": add_up(weights[name] * value for name, value in losses.items()), **losses}
