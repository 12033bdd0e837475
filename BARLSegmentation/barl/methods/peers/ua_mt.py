# SPDX-License-Identifier: Apache-2.0
"""Uncertainty-aware Mean Teacher (Yu et al., MICCAI 2019).

As Mean Teacher, but only where the teacher is sure: the entropy of its mean over 8 noisy passes with dropout lies
below ``(0.75 + 0.25 ramp(t, T)) ln C``.

    L = L_sup + 0.1 ramp  sum_{sure} (p - p_teacher)^2 / (C |sure|)

Defaults from UA-MT's code: weight 0.1 with a ramp over 40 "epochs" of 150 iterations, its whole run of 6,000; decay
0.99; noise sd 0.1; 8 passes. Dropout is the 0.3 of SSL4MIS' 3D U-Net (the V-Net of UA-MT has 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from barl.losses.consistency import entropy, squared_difference, view_noise
from barl.methods.base import ramp_up
from barl.methods.peers.each_branch import EachBranch, Step, Term, WithTeacher


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: see ``EachBranch``; decay, noise: as of Mean Teacher; passes: forward passes that
    the uncertainty is estimated from; dropout: of the network."""

    weight: float = 0.1
    ramp: float = 1.0
    decay: float = 0.99
    noise: float = 0.1
    passes: int = 8
    dropout: float = 0.3


class UncertaintyAwareMeanTeacher(WithTeacher[Settings], EachBranch[Settings]):
    """Mean Teacher where the teacher is sure."""

    name = "ua_mt"
    title = "UA-MT"
    settings_class = Settings
    takes_partial = True

    def network_options(self) -> dict[str, Any]:
        return {"dropout": self.settings.dropout}

    def terms(self, step: Step) -> Iterator[Term]:
        _, log_p = step.predict(step.x)
        yield step.supervised(log_p)
        if len(untouched := step.untouched(step.x)):
            views = (untouched + view_noise(untouched, self.settings.noise) for _ in range(self.settings.passes + 1))
            goal, *passes = (self.teacher.probabilities(view, step.branch) for view in views)
            uncertainty = entropy(torch.stack(passes).mean(0))
            sure = (uncertainty < 0.75 + 0.25 * ramp_up(step.progress, 1.0)).float()
            unseen = step.outlined.unseen(len(step.x))
            weight = sure if unseen is None else sure * unseen
            yield "consistency", step.weight, squared_difference(step.untouched(log_p[-1]).exp(), goal, weight)
