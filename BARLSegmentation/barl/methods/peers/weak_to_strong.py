# SPDX-License-Identifier: Apache-2.0
"""What UniMatch and CrossMatch share: two strong streams with CutMix, and hard pseudo-labels of the weak view.

The second strong view is drawn as the first one was. Each stream has boxes of its own (UniMatch's medical code, and
CrossMatch's in 3D): with probability 1/2 a box of 2 to 40 % of the patch, its edges apart by up to 0.3 : 1. The partner
of an untouched patch is the one before it in the batch; where the batch has one untouched patch only, the first
outlined one, its outline unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from barl.losses.overlap import dice_loss, one_hot
from barl.methods.base import Batch
from barl.methods.strong_view import disturb

BOX_PROBABILITY = 0.5
BOX_SHARE = (0.02, 0.4)
BOX_ASPECT = (0.3, 1 / 0.3)


@dataclass
class Streams:
    """What one branch is shown of the untouched patches of a batch.

    Attributes:
        weak: Weak view ``[B_u, C, k, j, i]``.
        partner: Weak view of the patches that the boxes come from.
        strong: Two strong views with the boxes of the partner's strong view pasted.
        boxes: Where, per strong view: bool ``[B_u, 1, k, j, i]``.
    """

    weak: Tensor
    partner: Tensor
    strong: list[Tensor]
    boxes: list[Tensor]


@dataclass
class PseudoLabel:
    """Hard labels without gradient.

    Attributes:
        classes: Class indices ``[B, 1, k, j, i]``.
        confidence: Probability of that class ``[B, 1, k, j, i]``.
    """

    classes: Tensor
    confidence: Tensor

    @classmethod
    def of(cls, log_p: Tensor) -> PseudoLabel:
        """Labels from log-probabilities ``[B, C, k, j, i]``."""
        confidence, classes = log_p.detach().exp().max(dim=1, keepdim=True)
        return cls(classes, confidence)

    def pasted(self, partner: PseudoLabel, box: Tensor) -> PseudoLabel:
        """The partner's labels inside ``box``."""
        classes = torch.where(box, partner.classes, self.classes)
        return PseudoLabel(classes, torch.where(box, partner.confidence, self.confidence))

    def dice_loss(self, log_p: Tensor, threshold: float) -> Tensor:
        """Dice loss of ``log_p [B, C, k, j, i]`` against the labels that are at least as sure as ``threshold``."""
        sure = (self.confidence >= threshold).float()
        return dice_loss(log_p.exp(), one_hot(self.classes[:, 0], log_p.shape[1]), sure)


def streams_of(batch: Batch) -> Streams:
    """Draw the streams of a batch with at least one untouched patch."""
    n = batch.n_labelled
    weak, partner = batch.weak[n:], _partners(batch.weak, n)
    boxes = [random_boxes(weak.shape[2:], len(weak)).to(weak.device) for _ in range(2)]
    views = [batch.strong, _second_view(batch.weak)]
    pasted = [torch.where(box, _partners(view, n), view[n:]) for view, box in zip(views, boxes, strict=True)]
    return Streams(weak, partner, pasted, boxes)


def random_boxes(size: Sequence[int], count: int) -> Tensor:
    """Bool ``[count, 1, k, j, i]``, true inside a box that half of the items have; drawn with torch's numbers."""
    rng = np.random.default_rng(int(torch.randint(2**31, ())))
    boxes = torch.zeros(count, 1, *size, dtype=torch.bool)
    for item in boxes:
        if rng.random() >= BOX_PROBABILITY:
            continue
        volume, aspect = rng.uniform(*BOX_SHARE), rng.uniform(*BOX_ASPECT)
        shares = np.cbrt([volume, volume * aspect, volume / aspect])
        edges = [min(max(int(share * edge), 1), edge) for share, edge in zip(shares, size, strict=True)]
        starts = [int(rng.integers(edge - box + 1)) for edge, box in zip(size, edges, strict=True)]
        item[(0, *(slice(start, start + box) for start, box in zip(starts, edges, strict=True)))] = True
    return boxes


def _partners(values: Tensor, n: int) -> Tensor:
    untouched = values[n:]
    return untouched.roll(1, 0) if len(untouched) > 1 or not n else values[:1]


def _second_view(weak: Tensor) -> Tensor:
    rng = np.random.default_rng(int(torch.randint(2**31, ())))
    return torch.stack([disturb(patch, rng) for patch in weak.detach().float().cpu()]).to(weak.device)
