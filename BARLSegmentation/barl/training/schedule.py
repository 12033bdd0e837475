# SPDX-License-Identifier: Apache-2.0
"""How far a run is: in steps, or within a budget of time whose steps are planned anew as the run goes on.

A step of a run with a fixed length covers ``1 / iterations`` of it. With a budget it covers ``1 / n`` of what is left,
``n`` being the steps that still fit the time at the pace of the last ones; learning rate and ramps follow that share,
so that they reach their ends together with the budget whatever the machine does meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from barl.training.plan import Plan

# Steps that a run takes however little time it has.
LEAST_STEPS = 10
# Weight of the past in the mean time of a step: the last dozen steps count.
_MEMORY = 0.85


@dataclass
class Clock:
    """The time that a run has used up, all its sittings together.

    Attributes:
        spent: Seconds before this sitting, what was done before the training included.
    """

    spent: float = 0.0
    now: Callable[[], float] = time.monotonic
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.now()

    def seconds(self) -> float:
        return self.spent + self.now() - self._began


@dataclass
class Schedule:
    """The share of a run that is done.

    Args:
        plan: With ``minutes`` the run has a budget, else ``iterations``.
        clock: Of the run.
        done: Share from 0 to 1.
        iteration: Steps done.
        reserve: Seconds that come after the steps or between them: validations and saving.
        pace: Seconds a step takes; 0 until one was taken.
    """

    plan: Plan
    clock: Clock
    done: float = 0.0
    iteration: int = 0
    reserve: float = 0.0
    pace: float = 0.0

    @property
    def is_over(self) -> bool:
        if self.plan.minutes is None:
            return self.iteration >= self.plan.iterations
        return self.iteration >= LEAST_STEPS and self.steps_left() < 0.5

    @property
    def length(self) -> int:
        """Steps of the whole run, as far as known, for the ramps of a method at step ``iteration``."""
        if self.plan.minutes is None:
            return self.plan.iterations
        if self.done <= 0:
            return max(self.plan.iterations, 1)
        return max(round(self.iteration / self.done), self.iteration + 1)

    def learning_rate(self) -> float:
        """``lr (1 - t/T)^0.9``."""
        share = self.iteration / self.plan.iterations if self.plan.minutes is None else self.done
        return self.plan.learning_rate * (1.0 - min(share, 1.0)) ** 0.9

    def time_left(self) -> float:
        """Seconds of the budget that are left for everything."""
        assert self.plan.minutes is not None
        return self.plan.minutes * 60 - self.clock.seconds()

    def steps_left(self) -> float:
        """Steps that still fit."""
        if self.plan.minutes is None:
            return self.plan.iterations - self.iteration
        return max(self.time_left() - self.reserve, 0.0) / self.pace if self.pace else float("inf")

    def step(self, seconds: float) -> None:
        """One more step, which took ``seconds``."""
        self.pace = _MEMORY * self.pace + (1 - _MEMORY) * seconds if self.pace else seconds
        self.iteration += 1
        if self.plan.minutes is None:
            self.done = self.iteration / self.plan.iterations
            return
        left = max(self.steps_left(), float(LEAST_STEPS - self.iteration), 0.0)
        self.done += (1.0 - self.done) / (left + 1.0)

    def remaining_seconds(self) -> float:
        """Until the run has ended, validations included."""
        if self.plan.minutes is None:
            return self.steps_left() * self.pace + self.reserve
        least = max(LEAST_STEPS - self.iteration, 0) * self.pace + self.reserve
        return max(self.time_left(), least)
