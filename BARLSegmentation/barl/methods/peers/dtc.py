# SPDX-License-Identifier: Apache-2.0
"""Dual-Task Consistency (Luo et al., AAAI 2021): a segmentation and a signed distance map of the same patch agree.

    L = L_sup + 0.3 mean (R - R_true)^2 + 1.0 ramp mean (sigmoid(1500 R) - p)^2   (the last one on all patches)

Defaults from DTC's code: weights above, ramp over 40 "epochs" of 150 iterations, its whole run of 6,000; steepness
1500. Distances are positive inside, hence no minus in the sigmoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from barl.losses.consistency import squared_difference
from barl.methods.peers.distance_map import scaled_distances
from barl.methods.peers.each_branch import EachBranch, Step, Term


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: see ``EachBranch``; regression: weight of the distance map's error; steepness: of
    the step from distance to probability."""

    weight: float = 1.0
    ramp: float = 1.0
    regression: float = 0.3
    steepness: float = 1500.0


class DualTaskConsistency(EachBranch[Settings]):
    """Segmentation and distance map agree."""

    name = "dtc"
    title = "DTC"
    settings_class = Settings

    def network_options(self) -> dict[str, Any]:
        return {"tasks": ("both",)}

    def terms(self, step: Step) -> Iterator[Term]:
        s, n = self.settings, step.n
        output, log_p = step.predict(step.x)
        yield step.supervised(log_p)
        distances = output.signed_distances()[:, 1:]
        truth = scaled_distances(step.label, log_p[-1].shape[1])
        yield "distance", s.regression, squared_difference(distances[:n], truth)
        agreement = squared_difference((s.steepness * distances).sigmoid(), log_p[-1][:, 1:].exp())
        yield "consistency", step.weight, agreement
