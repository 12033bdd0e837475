# SPDX-License-Identifier: Apache-2.0
"""UniMatch (Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation", CVPR 2023),
in 3D.

The weak view's hard labels, where its probability is at least 0.95, teach two strong views with CutMix and the weak
view again with half of the encoder's feature channels dropped at every level:

    L = L_sup + 0.5 Dice(p_fp, y) + 0.25 (Dice(p_s1, y_1) + Dice(p_s2, y_2))

``y_1`` and ``y_2`` are the labels with the boxes pasted. Defaults, and Dice instead of the paper's cross-entropy, from
UniMatch's medical code (ACDC), which divides all by 2. The network, the views and the supervised term are those of all
methods; ``weak_to_strong`` has the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from barl.methods.peers.each_branch import EachBranch, Step, Term
from barl.methods.peers.weak_to_strong import PseudoLabel, streams_of


@dataclass(frozen=True)
class Settings:
    """Attributes: weight, ramp: of all terms that need no outline, see ``EachBranch``; none by default; strong: weight
    of the two strong streams' mean; features: weight of the feature stream; dropout: share of the channels that it
    drops; confidence: least probability of a pseudo-label."""

    weight: float = 1.0
    ramp: float = 0.0
    strong: float = 0.5
    features: float = 0.5
    dropout: float = 0.5
    confidence: float = 0.95


class UniMatch(EachBranch[Settings]):
    """One weak view teaches two strong views and one view of perturbed features."""

    name = "unimatch"
    title = "UniMatch"
    settings_class = Settings

    def terms(self, step: Step) -> Iterator[Term]:
        s, n = self.settings, step.n
        yield step.supervised(step.predict(step.x[: max(n, 1)])[1])
        if len(step.x) == n:
            return
        streams = streams_of(step.batch)
        plain, dropped = step.perturbed(streams.weak, [s.dropout])
        with torch.no_grad():
            partner = PseudoLabel.of(step.finest(streams.partner))
        label = PseudoLabel.of(plain)
        yield "features", step.weight * s.features, label.dice_loss(dropped, s.confidence)
        pairs = zip(streams.strong, streams.boxes, strict=True)
        both = [label.pasted(partner, box).dice_loss(step.finest(view), s.confidence) for view, box in pairs]
        yield "strong", step.weight * s.strong, torch.stack(both).mean()
