# SPDX-License-Identifier: Apache-2.0
"""Patches and their two views. Each is a function of (seed, iteration, slot) alone, so a run resumes exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from barl.errors import InputError
from barl.methods import Batch
from barl.methods.strong_view import disturb
from barl.training.cases import NOT_LOOKED_AT, CachedCase
from barl.training.plan import Plan

_LABELLED, _UNLABELLED = 0, 1


class Patches(Dataset):
    """Batch number t, made from scratch.

    Args:
        plan: Patch, batch and augmentation.
        cases: Prepared cases; held-out ones are left out.
        unlabelled: Whether to add unlabeled patches.
        rank: This process among ``world``; each takes its share of the slots.
        world: Number of processes.

    Raises:
        InputError: The batch cannot be shared evenly among the processes.
    """

    def __init__(
        self, plan: Plan, cases: Sequence[CachedCase], unlabelled: bool = True, rank: int = 0, world: int = 1
    ) -> None:
        self.plan = plan
        self.pools = (
            _repeated([case for case in cases if case.labelled and not case.held_out], plan.new_share),
            [case for case in cases if not case.labelled and not case.held_out] if unlabelled else [],
        )
        self.wanted = (plan.batch_labelled if self.pools[0] else 0, plan.batch_unlabelled if self.pools[1] else 0)
        if any(count % world for count in self.wanted):
            raise InputError(
                f"A batch of {self.wanted[0]} + {self.wanted[1]} patches cannot be shared by {world} processes.",
                "Choose a batch_labelled and batch_unlabelled that are multiples of the number of processes.",
            )
        self.slots = [(kind, slot) for kind, count in enumerate(self.wanted) for slot in range(rank, count, world)]

    def __len__(self) -> int:
        return self.plan.iterations

    def __getitem__(self, iteration: int) -> Batch:
        weak, strong, labels, trusts = [], [], [], []
        for kind, slot in self.slots:
            rng = np.random.default_rng([self.plan.seed, iteration, kind, slot])
            pool = self.pools[kind]
            # Shuffled rounds: every case comes once before any comes twice.
            turn, place = divmod(iteration * self.wanted[kind] + slot, len(pool))
            case = pool[np.random.default_rng([self.plan.seed, kind, turn]).permutation(len(pool))[place]]
            image, classes, trust = cut_patch(case, self.plan, rng, kind == _LABELLED)
            weak.append(image)
            strong.append(disturb(image, rng))
            if classes is not None and trust is not None:
                labels.append(classes)
                trusts.append(trust)
        empty = torch.zeros(0, *self.plan.patch, dtype=torch.long)
        batch = Batch(torch.stack(weak), torch.stack(strong), torch.stack(labels) if labels else empty)
        if self.plan.filled in ("weighted", "both") and labels:
            batch.trust = torch.stack(trusts)
            batch.unseen = 1 - batch.trust if self.plan.filled == "both" else (batch.label < 0).float()
        return batch


def _repeated(cases: list[CachedCase], new_share: float) -> list[CachedCase]:
    """The cases, the new ones so often that they make up the share ``new_share`` of the list."""
    new = [case for case in cases if case.is_new]
    old = len(cases) - len(new)
    if not new or not old:
        return cases
    times = max(1, math.ceil(round(new_share * old / ((1 - new_share) * len(new)), 9)))
    return [case for case in cases for _ in range(times if case.is_new else 1)]


def loader(patches: Patches, start: int, stop: int, workers: int, pin: bool = False) -> DataLoader:
    """Batches ``start .. stop`` in order, prepared ahead by ``workers`` processes."""
    return DataLoader(
        patches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
    )


def cut_patch(
    case: CachedCase, plan: Plan, rng: np.random.Generator, labelled: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A randomly placed, rotated, scaled and mirrored patch.

    Outside the scan, intensities and labels repeat the edge, as prediction does: background there would contradict the
    outline of the same slice. Labels of a partial outline are there what nobody has looked at.

    Returns:
        Image float32 ``[C, k, j, i]``; classes int64 ``[k, j, i]``, -1 where they are not known; and how much each
        voxel teaches, float32 ``[k, j, i]``. The last two are ``None`` if not labeled.
    """
    image = case.image
    shape, patch = np.array(image.shape[1:]), np.array(plan.patch)
    center = _center(case, shape, patch, rng, labelled, plan.foreground)
    angles = np.array(plan.rotate_degrees) * rng.uniform(-1, 1, 3)
    factor = np.exp(rng.uniform(-1, 1) * np.log(plan.scale))
    # Columns are where the patch's axes (k, j, i) point to in the scan, in voxels; spacing keeps rotations rigid.
    spacing = np.array(case.grid.spacing)[::-1]
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    axes = (turn * spacing) / spacing[:, None] * factor
    for axis in plan.mirror_axes:
        if rng.random() < 0.5:
            axes[:, axis] *= -1
    reach = np.abs(axes) @ (patch / 2) + 1
    low = np.clip(np.floor(center - reach), 0, shape - 1).astype(int)
    high = np.clip(np.ceil(center + reach) + 1, low + 1, shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = _sampling_grid(axes, center - low, patch, high - low)
    source = torch.from_numpy(image[(slice(None), *box)].astype(np.float32))[None]
    out = F.grid_sample(source, grid, "bilinear", "border", align_corners=True)[0]
    if not labelled:
        return out, None, None
    classes = case.classes[box].astype(np.float32)
    if case.is_partial:  # one more, so that 0, which fills what lies outside, is what nobody has looked at
        classes = np.where(classes == NOT_LOOKED_AT, 0, classes + 1)
    outside = "zeros" if case.is_partial else "border"
    sampled = F.grid_sample(torch.from_numpy(classes)[None, None], grid, "nearest", outside, align_corners=True)
    label = sampled[0, 0].long() - int(case.is_partial)
    if not case.fill_teaches:
        return out, label, (label >= 0).float()
    weights = torch.from_numpy(case.trust[box].astype(np.float32) / 255)[None, None]
    return out, label, F.grid_sample(weights, grid, "nearest", "zeros", align_corners=True)[0, 0]


def _center(
    case: CachedCase, shape: np.ndarray, patch: np.ndarray, rng: np.random.Generator, labelled: bool, foreground: float
) -> np.ndarray:
    """Center of a patch in voxels, the patch inside the scan where it fits.

    A share ``foreground`` of the labeled patches lies on a random label voxel; the others lie anywhere, of a partial
    outline on a voxel that was looked at.
    """
    half = (patch - 1) / 2
    low, high = np.minimum(half, (shape - 1) / 2), np.maximum(shape - 1 - half, (shape - 1) / 2)
    if labelled and rng.random() < foreground and len(known := case.foreground):
        present = np.unique(known[:, 0])
        voxels = known[known[:, 0] == rng.choice(present)]
        return np.clip(voxels[rng.integers(len(voxels)), 1:], low, high)
    if labelled and case.is_partial:
        looked = case.looked
        return np.clip(looked[rng.integers(len(looked))], low, high)
    return rng.uniform(low, high)


def _sampling_grid(axes: np.ndarray, center: np.ndarray, patch: np.ndarray, shape: np.ndarray) -> Tensor:
    """``grid_sample`` coordinates ``[1, k, j, i, 3]`` (x, y, z in -1..1) of a patch in a box of ``shape``."""
    half = np.maximum((shape - 1) / 2, 0.5)
    # affine_grid runs over -1..1 of the patch in (x, y, z); the matrix brings that to -1..1 of the box.
    matrix = axes * ((patch - 1) / 2) / half[:, None]
    shift = (center - (shape - 1) / 2) / half
    theta = np.column_stack([matrix[::-1, ::-1], shift[::-1]]).astype(np.float32)
    return F.affine_grid(torch.from_numpy(theta)[None], [1, 1, *map(int, patch)], align_corners=True)
