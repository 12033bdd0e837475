# SPDX-License-Identifier: Apache-2.0
"""Bidirectional Copy-Paste (Bai et al., CVPR 2023).

First trained on boxes pasted between outlined patches; then a box is exchanged between outlined and untouched patches,
the teacher's hard labels (largest piece of each class) standing for the missing outlines:

    L = 1/2 (CE + Dice) on outlined voxels + 0.5 * 1/2 (CE + Dice) on pseudo-labeled voxels

Defaults from BCP's code: box of 2/3 of each edge; pseudo-label weight 0.5; decay 0.99; 2,000 of 17,000 iterations of
pre-training. With one outlined patch a step there is no pair to paste, and the pre-training is plain supervision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from barl.losses.overlap import hard_label
from barl.methods.mixing import exchange, largest_pieces, paste_in_turn, random_box
from barl.methods.peers.each_branch import EachBranch, Step, Term, WithTeacher


@dataclass(frozen=True)
class Settings:
    """Attributes: weight: of pseudo-labeled voxels; ramp: none by default; decay: of the teacher; box: share of
    each edge; pretraining: share of the iterations; largest: keep only the largest piece of a pseudo-label."""

    weight: float = 0.5
    ramp: float = 0.0
    decay: float = 0.99
    box: float = 2 / 3
    pretraining: float = 2 / 17
    largest: bool = True


class BidirectionalCopyPaste(WithTeacher[Settings], EachBranch[Settings]):
    """Outlined and untouched patches exchange a box."""

    name = "bcp"
    title = "BCP"
    settings_class = Settings

    def terms(self, step: Step) -> Iterator[Term]:
        s, n, x = self.settings, step.n, step.x
        box = random_box(x.shape[2:], s.box)
        if len(x) == n or (n and step.progress < s.pretraining):
            _, log_p = step.predict(paste_in_turn(x[:n], box))
            yield step.supervised(log_p, paste_in_turn(step.label, box))
            return
        guess = hard_label(self.teacher.probabilities(x[n:], step.branch))
        classes = exchange(torch.cat([step.label, largest_pieces(guess) if s.largest else guess]), n, box)
        outlined = torch.zeros(len(x), 1, *x.shape[2:], device=x.device)
        outlined[:n] = 1.0
        outlined = exchange(outlined, n, box)
        _, log_p = step.predict(exchange(x, n, box))
        yield step.supervised(log_p, classes, outlined)
        yield "pseudo", step.weight, step.supervised(log_p, classes, 1.0 - outlined)[2]
