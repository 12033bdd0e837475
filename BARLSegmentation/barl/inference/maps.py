# SPDX-License-Identifier: Apache-2.0
"""The maps of a prediction on the model's grid, in compact types."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from barl.images.geometry import Triple
from barl.inference.sliding_window import Slab
from barl.inference.uncertainty import count_levels, join_branches, score_levels


class ModelMaps:
    """Maps on the model's grid, filled slab by slab: three bytes a voxel unless more is asked for, one and one for each
    label if the label map is made on another grid.

    Args:
        shape: ``(k, j, i)``.
        n_classes: Classes including background.
        n_branches: Branches joined.
        per_network: Branches of one network, whose label maps are compared; they follow each other.
        temperature: Calibration of the probabilities.
        keep_probabilities: Keep the probabilities of the labels, too.
        keep_classes: False: keep coarse probabilities instead of classes, to make the label map of on another grid.
        keep_components: Keep entropy and disagreement, too.

    Attributes:
        classes: Class of each voxel, uint8 (uint16 for more than 255); None without ``keep_classes``.
        candidates: Likeliest class leaving out the background; None without ``keep_classes``: the probabilities say it.
        uncertainty: uint8, 255 means 1.
        entropy, disagreement: Its components, uint8, or None.
        probabilities: Of classes 1..L, float16 ``[L, k, j, i]`` if they are kept; uint8, 255 means 1, without
            ``keep_classes``; else None.
        branch_voxels: Voxels of each label in each branch by itself, ``[n_branches, L]``.
        shared_voxels: Of these, those that the next branch of the same network has, too.
    """

    def __init__(
        self,
        shape: Triple[int],
        n_classes: int,
        n_branches: int,
        *,
        per_network: int = 1,
        temperature: float = 1.0,
        keep_probabilities: bool = False,
        keep_classes: bool = True,
        keep_components: bool = False,
    ) -> None:
        dtype = np.uint8 if n_classes <= 256 else np.uint16
        self.temperature = temperature
        self.classes = np.empty(shape, dtype) if keep_classes else None
        self.candidates = np.empty(shape, dtype) if keep_classes else None
        self.uncertainty = np.empty(shape, np.uint8)
        self.entropy = np.empty(shape, np.uint8) if keep_components else None
        self.disagreement = np.empty(shape, np.uint8) if keep_components and n_branches > 1 else None
        self.probabilities: np.ndarray | None = None
        if keep_probabilities or not keep_classes:
            self.probabilities = np.empty((n_classes - 1, *shape), np.float16 if keep_probabilities else np.uint8)
        self.branch_voxels = np.zeros((n_branches, n_classes - 1), np.int64)
        self.shared_voxels = np.zeros_like(self.branch_voxels)
        self._pairs = [n for n in range(n_branches - 1) if (n + 1) % per_network]
        self._levels = np.zeros((2, 256), np.int64)

    def add(self, slab: Slab, box: Triple[slice]) -> None:
        """Enter a slab of the windowed volume, of which these maps are the part ``box`` (k, j, i)."""
        first, last = max(slab.planes.start, box[0].start), min(slab.planes.stop, box[0].stop)
        if first >= last:
            return
        logits = slab.logits[:, :, first - slab.start : last - slab.start, box[1], box[2]]
        log_probabilities = Slab(first, logits).log_probabilities()
        joined = join_branches(log_probabilities, self.temperature)
        rows = slice(first - box[0].start, last - box[0].start)
        classes, candidates = _likeliest(joined.probabilities)
        found = classes.cpu().numpy()
        if self.classes is not None:
            self.classes[rows] = found
        if self.candidates is not None:
            self.candidates[rows] = candidates.cpu().numpy()
        self.uncertainty[rows] = _levels(joined.uncertainty)
        if self.entropy is not None:
            self.entropy[rows] = _levels(joined.entropy)
        if self.disagreement is not None and joined.disagreement is not None:
            self.disagreement[rows] = _levels(joined.disagreement)
        if self.probabilities is not None:
            kept = joined.probabilities[1:]
            coarse = self.probabilities.dtype == np.uint8
            self.probabilities[:, rows] = _levels(kept) if coarse else kept.half().cpu().numpy()
        before = classes
        for n, branch in enumerate(log_probabilities):
            own = classes if len(log_probabilities) == 1 else _likeliest(branch)[0]
            self.branch_voxels[n] += _count(own, len(branch))
            if n - 1 in self._pairs:
                self.shared_voxels[n - 1] += _count(own[own == before], len(branch))
            before = own
        self._levels += count_levels(self.uncertainty[rows], found > 0)

    def agreement(self) -> list[float | None]:
        """For each label the Dice between the branches' label maps, mean over the pairs; None where none shows it."""
        found: list[float | None] = []
        for label in range(self.branch_voxels.shape[1]):
            own = self.branch_voxels[:, label]
            sums = [(int(self.shared_voxels[n, label]), int(own[n] + own[n + 1])) for n in self._pairs]
            scores = [2 * shared / total for shared, total in sums if total]
            found.append(sum(scores) / len(scores) if scores else None)
        return found

    @property
    def kept_probabilities(self) -> np.ndarray:
        """``probabilities`` of maps that keep them."""
        assert self.probabilities is not None  # keep_probabilities, or no keep_classes
        return self.probabilities

    @property
    def kept_classes(self) -> np.ndarray:
        """``classes`` of maps that keep them."""
        assert self.classes is not None  # keep_classes
        return self.classes

    @property
    def kept_labels(self) -> np.ndarray:
        """Which label each voxel is most about, as ``hotspots.find_hotspots`` takes it."""
        return self.kept_probabilities if self.candidates is None else self.candidates

    def case_uncertainty(self) -> float:
        """See ``uncertainty.score_levels``."""
        background, foreground = self._levels
        return score_levels(foreground, background)


def _likeliest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Likeliest class of ``[L+1, ...]``, with and without background, as bytes where they suffice.

    Arithmetic on bytes, one comparison per class: a voxel of three classes takes 2 ns, with filling of masked voxels 12
    and with ``argmax`` along the first axis 100 (one core).
    """
    best = values[1]
    candidates = torch.ones(best.shape, dtype=torch.uint8 if len(values) <= 256 else torch.int32, device=best.device)
    for n in range(2, len(values)):
        candidates = torch.maximum(candidates, (values[n] > best).to(candidates.dtype).mul_(n))
        best = torch.maximum(best, values[n])
    return candidates * (best > values[0]), candidates


def _count(classes: Tensor, n_classes: int) -> np.ndarray:
    """Voxels of the classes 1, 2 ..."""
    return classes.flatten().bincount(minlength=n_classes)[1:].cpu().numpy()


def _levels(fraction: Tensor) -> np.ndarray:
    return (fraction * 255).round_().byte().cpu().numpy()
