# SPDX-License-Identifier: Apache-2.0
"""CrossMatch (Zhao et al., "CrossMatch: Enhance Semi-Supervised Medical Image Segmentation with Perturbation Strategies
and Knowledge Distillation", IEEE JBHI 2024, arXiv 2405.00354).

One weak and two strong views with CutMix; of the weak and the second strong one the decoder is run three times: on the
encoder's features, and with a quarter (w) and three quarters (s) of their channels dropped at every level. ``D(p, q)``
is the Dice loss of p against the hard labels of q, the boxes pasted, where q is sure:

    L_ip  = 1/4 (D(s1, u) + D(s2, u))                                            image perturbation
    L_tkd = 1/4 (D(u_w, u) + D(u_s, u) + D(s2_w, u) + D(s2_s, u))                the plain decoder is the teacher
    L_dkd = 1/2 (D(s2_w, u_w) + D(s2_s, u_s))                                    decoders of one kind
    L     = L_sup + L_ip + 0.7 L_tkd + 0.3 L_dkd

Sure: a probability of at least ``(0.75 + 0.25 ramp(t, 17/14 T)) ln 2``, the rule of the code for the left atrium, of
which the weights are as well (14,000 iterations, ramp over 17,000); that code divides all by 2. The network, the views
and the supervised term are those of all methods (the V-Net's own dropout is left out).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import torch

from barl.methods.base import ramp_up
from barl.methods.peers.each_branch import EachBranch, Step, Term
from barl.methods.peers.weak_to_strong import PseudoLabel, streams_of


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: of all terms that need no outline, see ``EachBranch``; none by default; image: weight
    of the two strong streams' mean; eta: share of ``L_dkd`` in the distillation; dropout: shares of the channels that
    the two further decoder runs drop; confidence: the 0.75 of the rule above; confidence_ramp: length of its ramp as a
    share of all iterations."""

    weight: float = 1.0
    ramp: float = 0.0
    image: float = 0.5
    eta: float = 0.3
    dropout: tuple[float, float] = (0.25, 0.75)
    confidence: float = 0.75
    confidence_ramp: float = 17 / 14

    def threshold(self, progress: float) -> float:
        """Least probability of a pseudo-label at the share ``progress`` of a run."""
        return (self.confidence + (1.0 - self.confidence) * ramp_up(progress, self.confidence_ramp)) * log(2.0)


class CrossMatch(EachBranch[Settings]):
    """Views and features disturbed to different degrees learn from those less disturbed."""

    name = "crossmatch"
    title = "CrossMatch"
    settings_class = Settings

    def terms(self, step: Step) -> Iterator[Term]:
        s, n = self.settings, step.n
        yield step.supervised(step.predict(step.x[: max(n, 1)])[1])
        if len(step.x) == n:
            return
        streams, threshold = streams_of(step.batch), s.threshold(step.progress)
        (view_1, view_2), (box_1, box_2) = streams.strong, streams.boxes
        weak = step.perturbed(streams.weak, s.dropout)
        with torch.no_grad():
            partners = [PseudoLabel.of(log_p) for log_p in step.perturbed(streams.partner, s.dropout)]
        labels = [PseudoLabel.of(log_p) for log_p in weak]
        goals = [label.pasted(partner, box_2) for label, partner in zip(labels, partners, strict=True)]
        first, second = step.finest(view_1), step.perturbed(view_2, s.dropout)
        image = [
            labels[0].pasted(partners[0], box_1).dice_loss(first, threshold),
            goals[0].dice_loss(second[0], threshold),
        ]
        yield "image", step.weight * s.image, torch.stack(image).mean()
        teacher = [labels[0].dice_loss(log_p, threshold) for log_p in weak[1:]]
        teacher += [goals[0].dice_loss(log_p, threshold) for log_p in second[1:]]
        yield "teacher", step.weight * (1.0 - s.eta), torch.stack(teacher).mean()
        decoders = [goal.dice_loss(log_p, threshold) for goal, log_p in zip(goals[1:], second[1:], strict=True)]
        yield "decoders", step.weight * s.eta, torch.stack(decoders).mean()
