# SPDX-License-Identifier: Apache-2.0
"""Prepares cases once: arrays on the model's grid, on disk, which every step maps into memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, storage_error
from barl.images.geometry import Grid
from barl.images.intensity import Normalization
from barl.images.label_maps import read_label, read_mask
from barl.images.preparation import PreparedScan
from barl.images.reading import read_channels, read_image
from barl.progress import SILENT, Progress, Stage
from barl.project.files import write_atomically
from barl.training.plan import Plan

VERSION = 2
# Of ``CachedCase.classes`` where nobody has looked; no label table has so many labels.
NOT_LOOKED_AT = 255
# Voxels remembered per class to center patches on.
FOREGROUND_SAMPLES = 2000


@dataclass(frozen=True)
class CaseFiles:
    """A case as training sees it.

    Attributes:
        id: Neutral identifier.
        images: One file per channel.
        label: Label map, or ``None`` for an untouched case.
        held_out: Used for validation alone, never for a training step.
        looked: Mask of the voxels that a person has looked at (not 0), on the scan's grid; ``None``: the whole scan.
            The label map teaches there alone; the others are voxels of an untouched scan.
        uncertainty: Of the voxels that were filled, 0 to 1, on the scan's grid (see ``Plan.filled``).
        is_new: The model that a training starts from has not learned this outline (see ``Plan.new_share``).
    """

    id: str
    images: list[Path]
    label: Path | None = None
    held_out: bool = False
    looked: Path | None = None
    uncertainty: Path | None = None
    is_new: bool = False


@dataclass(frozen=True)
class CachedCase:
    """A prepared case on disk; arrays are memory-mapped when asked for.

    Attributes:
        id: Of the case.
        folder: Where its arrays lie.
        grid: Grid of the arrays.
        labelled: Whether there is a label map that somebody has looked at, at least at a part of it.
        held_out: As in ``CaseFiles``.
        looked_share: Share of the voxels of ``grid`` that were looked at; 1: all.
        fill_teaches: Whether ``trust`` says how much the other voxels teach.
        is_new: As in ``CaseFiles``.
    """

    id: str
    folder: Path
    grid: Grid
    labelled: bool
    held_out: bool
    looked_share: float = 1.0
    fill_teaches: bool = False
    is_new: bool = False

    @property
    def image(self) -> np.ndarray:
        """Normalized intensities, float16 ``[C, k, j, i]``."""
        return np.load(self.folder / "image.npy", mmap_mode="r", allow_pickle=False)

    @property
    def classes(self) -> np.ndarray:
        """Class indices, uint8 ``[k, j, i]``; ``NOT_LOOKED_AT`` where nobody has looked."""
        return np.load(self.folder / "classes.npy", mmap_mode="r", allow_pickle=False)

    @property
    def foreground(self) -> np.ndarray:
        """Sampled voxels of labels, int32 ``[n, 4]``: class, k, j, i."""
        return np.load(self.folder / "foreground.npy", mmap_mode="r", allow_pickle=False)

    @property
    def looked(self) -> np.ndarray:
        """Sampled voxels that were looked at, int32 ``[n, 3]``: k, j, i; of partial outlines alone."""
        return np.load(self.folder / "looked.npy", mmap_mode="r", allow_pickle=False)

    @property
    def trust(self) -> np.ndarray:
        """How much each voxel teaches, uint8 ``[k, j, i]``, 255 = 1: 1 where somebody has looked."""
        return np.load(self.folder / "trust.npy", mmap_mode="r", allow_pickle=False)

    @property
    def is_partial(self) -> bool:
        return self.labelled and self.looked_share < 1


def cache_cases(cases: Sequence[CaseFiles], plan: Plan, folder: Path, progress: Progress = SILENT) -> list[CachedCase]:
    """Prepare all cases that are not yet in the cache for this plan and these files.

    Raises:
        InputError: A scan or label map cannot be used.
        StorageError: The cache cannot be written.
    """
    cached = []
    preparing = progress.stage(Stage.PREPARING)
    numbered = list(enumerate(cases, start=1))
    for (_, case), _ in preparing.each(numbered, lambda entry: f"case {entry[0]} of {len(cases)}"):
        target = folder / _key(case, plan)
        try:
            if not (target / "case.json").exists():
                _write(case, plan, target)
        except OSError as error:
            raise storage_error(error, folder) from error
        facts = json.loads((target / "case.json").read_text(encoding="utf-8"))
        share = facts.get("looked_share", 1.0)
        labelled = case.label is not None and share > 0
        fills = (target / "trust.npy").exists()
        grid = Grid.from_json(facts)
        cached.append(CachedCase(case.id, target, grid, labelled, case.held_out, share, fills, case.is_new))
    return cached


def _key(case: CaseFiles, plan: Plan) -> str:
    """Name of a cache entry: changes with the files and with every part of the plan that shapes the arrays."""
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in _existing(case, plan)]
    facts: list[Any] = [
        VERSION,
        files,
        plan.spacing,
        plan.orientation,
        plan.values,
        [n.to_json() for n in plan.normalisations],
    ]
    if case.looked and (filled := _filled(case, plan)) != "ignore":
        facts.append("hard" if filled == "hard" else "weighted")
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def _filled(case: CaseFiles, plan: Plan) -> str:
    """What filled voxels of the case teach. Held-out cases are judged by what was looked at."""
    return "ignore" if case.held_out else plan.filled


def _existing(case: CaseFiles, plan: Plan) -> list[Path]:
    paths = [*case.images, *(path for path in (case.label, case.looked) if path)]
    if case.uncertainty and _filled(case, plan) in ("weighted", "both"):
        paths.append(case.uncertainty)
    for path in paths:
        if not path.exists():
            raise InputError(f"The file {path.name} of case {case.id} is missing.", "Restore it or exclude the case.")
    return paths


def _write(case: CaseFiles, plan: Plan, folder: Path) -> None:
    channels = read_channels(case.images)
    grid = Grid.of(channels[0])
    label = read_label(case.label, grid, plan.values) if case.label else None
    looked = read_mask(case.looked, grid) if case.looked else None
    scan = PreparedScan(channels, plan.normalisations, plan.spacing, plan.orientation)
    folder.mkdir(parents=True, exist_ok=True)
    # float16 holds normalized intensities to 0.1 % and halves what a step reads.
    _save(folder / "image.npy", scan.to_network().astype(np.float16))
    share = 1.0
    if label is not None:
        hard = _filled(case, plan) == "hard"
        if looked is not None and (hard or sitk.GetArrayViewFromImage(looked).all()):
            looked = None
        values = scan.labels_to_network(label, looked)
        classes = np.searchsorted([0, *plan.values], values).astype(np.uint8)
        if looked is not None:
            seen = values >= 0
            classes[~seen] = NOT_LOOKED_AT
            share = float(np.mean(seen))
            _save(folder / "looked.npy", _sample(np.argwhere(seen), np.random.default_rng(0)))
            if case.uncertainty and _filled(case, plan) in ("weighted", "both"):
                filled = np.searchsorted([0, *plan.values], scan.labels_to_network(label)).astype(np.uint8)
                classes = np.where(seen, classes, filled)
                _save(folder / "trust.npy", np.where(seen, 255, _trust(case.uncertainty, scan)).astype(np.uint8))
        _save(folder / "classes.npy", classes)
        _save(folder / "foreground.npy", _sample_foreground(classes))
    text = json.dumps(scan.grid.to_json() | ({"looked_share": share} if share < 1 else {}))
    write_atomically(folder / "case.json", lambda path: path.write_text(text, encoding="utf-8"))


def _trust(path: Path, scan: PreparedScan) -> np.ndarray:
    """How much each filled voxel teaches, 0 to 255, on the model's grid: nothing where the fill is wholly unsure."""
    uncertainty = read_image(path)
    own = PreparedScan([uncertainty], [Normalization("none")], scan.grid.spacing, scan.orientation)
    return np.rint(255 * (1 - own.to_network()[0].clip(0, 1)))


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _sample_foreground(classes: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = [np.zeros((0, 4), np.int32)]
    for value in np.unique(classes[(classes > 0) & (classes != NOT_LOOKED_AT)]):
        voxels = _sample(np.argwhere(classes == value), rng)
        rows.append(np.column_stack([np.full(len(voxels), value), voxels]).astype(np.int32))
    return np.concatenate(rows)


def _sample(voxels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(voxels, FOREGROUND_SAMPLES, replace=False) if len(voxels) > FOREGROUND_SAMPLES else voxels


def label_on_scan(case: CaseFiles, plan: Plan) -> sitk.Image:
    """The label map of an outlined case on the scan's own grid."""
    assert case.label is not None
    return read_label(case.label, Grid.of(read_channels(case.images)[0]), plan.values)
