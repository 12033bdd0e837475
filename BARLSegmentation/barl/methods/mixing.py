# SPDX-License-Identifier: Apache-2.0
"""Copy and paste between patches: boxes of one patch, with what is known of it, at the same place in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from barl.images.components import components
from barl.images.geometry import Triple, triple
from barl.methods.base import Batch


def random_box(size: Sequence[int], share: float, rng: np.random.Generator | None = None) -> Triple[slice]:
    """A box of ``share`` of each edge of ``size``, anywhere inside; drawn with torch's random numbers by default."""
    rng = rng or np.random.default_rng(int(torch.randint(2**31, ())))
    edges = [max(int(edge * share), 1) for edge in size]
    starts = [int(rng.integers(edge - box + 1)) for edge, box in zip(size, edges, strict=True)]
    return triple(slice(start, start + box) for start, box in zip(starts, edges, strict=True))


def exchange(values: Tensor, n: int, box: Triple[slice]) -> Tensor:
    """Bidirectional copy-paste (Bai et al., CVPR 2023) between the first ``n`` items and the others.

    Each outlined item gets the box of an untouched one and the other way round, at the same place. Nothing changes if
    one kind is missing.

    Args:
        values: ``[B, ..., k, j, i]``: scans, class indices, or a map of which voxels are outlined.
        n: Outlined items, which come first.
        box: From ``random_box``.
    """
    outlined, untouched = values[:n], values[n:]
    mixed = values.clone()
    if len(outlined) and len(untouched):
        inside = (..., *box)
        for item in range(len(values)):
            partner = untouched[item % len(untouched)] if item < n else outlined[(item - n) % n]
            mixed[item][inside] = partner[inside]
    return mixed


def paste_in_turn(values: Tensor, box: Triple[slice]) -> Tensor:
    """Each item gets the box of the item before it."""
    mixed = values.clone()
    inside = (..., *box)
    mixed[inside] = values.roll(1, 0)[inside]
    return mixed


def paste_outlines(batch: Batch, iteration: int) -> tuple[Batch, Tensor]:
    """CutMix (Yun et al., ICCV 2019) from outlined into untouched items: one box of half the patch's edge each.

    The box lies at the same place in both patches and in both views. It depends on ``iteration`` alone, so that a run
    resumes exactly.

    Returns:
        The batch, and what is known of its untouched items: classes ``[B_u, k, j, i]``, -1 outside the boxes and where
        nobody has looked.
    """
    size = batch.weak.shape[2:]
    supervision = batch.supervision().flatten(1)
    taught = torch.nonzero((supervision > 0).any(dim=1))[:, 0].tolist()
    donors = torch.nonzero((supervision == 1).any(dim=1))[:, 0].tolist()
    receivers = [item for item in range(len(batch.weak)) if item not in taught]
    sure = batch.label if batch.trust is None else batch.label.masked_fill(batch.trust < 1, -1)
    rng = np.random.default_rng(iteration)
    weak, strong = batch.weak.clone(), batch.strong.clone()
    known = batch.label.new_full((len(receivers), *size), -1)
    for place, item in enumerate(receivers if donors else ()):
        donor = donors[place % len(donors)]
        box = random_box(size, 0.5, rng)
        for view in (weak, strong):
            view[(item, slice(None), *box)] = view[(donor, slice(None), *box)]
        known[(place, *box)] = sure[(donor, *box)]
    return replace(batch, weak=weak, strong=strong), known


def largest_pieces(classes: Tensor) -> Tensor:
    """Class indices ``[B, k, j, i]`` with only the largest connected piece of each foreground class of each item."""
    kept = np.zeros(tuple(classes.shape), np.int64)
    for item, scan in zip(kept, classes.cpu().numpy(), strict=True):
        for value in np.unique(scan[scan > 0]):
            numbers, count = components(scan == value)
            sizes = np.bincount(numbers.ravel(), minlength=count + 1)
            item[numbers == 1 + int(np.argmax(sizes[1:]))] = value
    return torch.from_numpy(kept).to(classes.device)
