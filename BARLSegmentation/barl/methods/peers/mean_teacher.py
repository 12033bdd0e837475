# SPDX-License-Identifier: Apache-2.0
"""Mean Teacher (Tarvainen and Valpola, NeurIPS 2017), as in SSL4MIS' 3D code.

    L = L_sup + 0.1 ramp mean (p - p_teacher(x + noise))^2 on untouched patches

Defaults from SSL4MIS: weight 0.1 with a ramp over 200 "epochs" of 150 iterations, that is over a whole run of 30,000;
decay 0.99; noise sd 0.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from barl.losses.consistency import squared_difference, view_noise
from barl.methods.peers.each_branch import EachBranch, Step, Term, WithTeacher


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: see ``EachBranch``; decay: of the teacher; noise: sd of its view's noise."""

    weight: float = 0.1
    ramp: float = 1.0
    decay: float = 0.99
    noise: float = 0.1


class MeanTeacher(WithTeacher[Settings], EachBranch[Settings]):
    """The student agrees with the average of its past on untouched patches."""

    name = "mean_teacher"
    title = "Mean Teacher"
    settings_class = Settings
    takes_partial = True

    def terms(self, step: Step) -> Iterator[Term]:
        _, log_p = step.predict(step.x)
        yield step.supervised(log_p)
        if len(untouched := step.untouched(step.x)):
            noisy = untouched + view_noise(untouched, self.settings.noise)
            goal = self.teacher.probabilities(noisy, step.branch)
            p = step.untouched(log_p[-1]).exp()
            yield "consistency", step.weight, squared_difference(p, goal, step.outlined.unseen(len(step.x)))
