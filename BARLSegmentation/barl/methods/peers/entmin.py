# SPDX-License-Identifier: Apache-2.0
"""Entropy minimization (Vu et al., ADVENT, CVPR 2019), as in SSL4MIS' 3D code.

    L = L_sup + 0.1 ramp mean_v  -sum_c p_c log p_c / ln C   on all patches

Defaults from SSL4MIS: weight 0.1 with a ramp over 200 "epochs" of 150 iterations, that is over a whole run of 30,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from barl.losses.consistency import entropy
from barl.methods.peers.each_branch import EachBranch, Step, Term


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: see ``EachBranch``."""

    weight: float = 0.1
    ramp: float = 1.0


class EntropyMinimization(EachBranch[Settings]):
    """Minimizes the entropy of the prediction at every voxel."""

    name = "entmin"
    title = "EntMin"
    settings_class = Settings
    takes_partial = True

    def terms(self, step: Step) -> Iterator[Term]:
        _, log_p = step.predict(step.x)
        yield step.supervised(log_p)
        yield "entropy", step.weight, entropy(log_p[-1].exp()).mean()
