# SPDX-License-Identifier: Apache-2.0
"""Interpolation Consistency Training (Verma et al., IJCAI 2019), as in SSL4MIS' 3D code.

    x_m = (1 - a) x_1 + a x_2,   a ~ Beta(0.2, 0.2),   x_1, x_2 untouched
    L = L_sup + 0.1 ramp mean (p(x_m) - (1 - a) p_teacher(x_1) - a p_teacher(x_2))^2

The partner of an untouched patch is the next one of the batch; where the batch has one untouched patch only, an
outlined one, its outline unseen. Defaults from SSL4MIS: weight 0.1 with a ramp over 200 "epochs" of 150 iterations, a
whole run; teacher's decay 0.99; Beta parameter 0.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from barl.losses.consistency import squared_difference
from barl.methods.peers.each_branch import EachBranch, Step, Term, WithTeacher


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: see ``EachBranch``; decay: of the teacher; beta: parameter of the mixing factor."""

    weight: float = 0.1
    ramp: float = 1.0
    decay: float = 0.99
    beta: float = 0.2


class InterpolationConsistency(WithTeacher[Settings], EachBranch[Settings]):
    """Between two scans the prediction lies between their predictions."""

    name = "ict"
    title = "ICT"
    settings_class = Settings

    def terms(self, step: Step) -> Iterator[Term]:
        first = step.x[step.n :]
        second = first.roll(1, 0) if len(first) > 1 or not step.n else step.x[:1]
        beta = torch.tensor(self.settings.beta)
        a = torch.distributions.Beta(beta, beta).sample((len(first), 1, 1, 1, 1)).to(first)
        _, log_p = step.predict(torch.cat([step.x[: step.n], torch.lerp(first, second, a)]) if len(first) else step.x)
        yield step.supervised(log_p)
        if len(first):
            one, two = (self.teacher.probabilities(x, step.branch) for x in (first, second))
            yield "consistency", step.weight, squared_difference(log_p[-1][step.n :].exp(), torch.lerp(one, two, a))
