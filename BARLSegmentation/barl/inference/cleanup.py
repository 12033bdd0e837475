# SPDX-License-Identifier: Apache-2.0
"""Applies a model's cleanup to a prediction; each change becomes a hot-spot, and uncertainty there is 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from barl.images.cleanup import REMOVED, Change, CleanupRule, clean
from barl.images.geometry import Grid, triple
from barl.inference.hotspots import HotSpot, bounds_mm


def clean_images(
    label: sitk.Image, uncertainty: sitk.Image, rules: Sequence[CleanupRule]
) -> tuple[sitk.Image, sitk.Image, list[Change]]:
    """The label map after cleanup, the uncertainty with 1 at each changed voxel, and the changes.

    Args:
        label: Label values; both images lie on one grid.
        uncertainty: float32 in [0, 1].
        rules: Of the model's card.
    """
    labels = sitk.GetArrayFromImage(label)
    changes = clean(labels, rules, Grid.of(label).voxel_ml)
    if not changes:
        return label, uncertainty, []
    doubt = sitk.GetArrayFromImage(uncertainty)
    for change in changes:
        doubt[change.box][change.mask] = 1.0
    return _like(labels, label), _like(doubt, uncertainty), changes


def add_changes(hotspots: Sequence[HotSpot], changes: Sequence[Change], grid: Grid, limit: int = 50) -> list[HotSpot]:
    """The hot-spots with one for each change, ranked anew by score.

    A change scores its volume, as an uncertain region with uncertainty 1 does. An uncertain region whose position lies
    in a changed voxel is left out: the change is the same place.

    Args:
        hotspots: Uncertain regions.
        changes: On the scan's grid.
        grid: The scan's.
        limit: At most so many hot-spots.
    """
    spots = [spot for spot in hotspots if not any(_holds(change, grid, spot.position_mm) for change in changes)]
    for change in changes[:limit]:
        start, stop = np.array([(part.start, part.stop) for part in change.box]).T
        position = triple(grid.index_to_mm(change.center[::-1]).tolist())
        volume = change.voxels * grid.voxel_ml
        bounds = bounds_mm(grid, start, stop)
        spots.append(HotSpot(0, position, volume, 1.0, volume, change.value, bounds, change.kind))
    spots.sort(key=lambda spot: -spot.score)
    return [replace(spot, rank=rank) for rank, spot in enumerate(spots[:limit], start=1)]


def in_words(changes: Sequence[Change], names: Mapping[int, str], voxel_ml: float) -> list[str]:
    """One sentence for each label and kind of change."""
    sentences = []
    for kind, value in sorted({(change.kind, change.value) for change in changes}, reverse=True):
        own = [change for change in changes if (change.kind, change.value) == (kind, value)]
        ml = sum(change.voxels for change in own) * voxel_ml
        thing = "piece of" if kind == REMOVED else "hole in"
        thing = thing if len(own) == 1 else f"{thing.split()[0]}s {thing.split()[1]}"
        sentences.append(f"Cleanup {kind} {len(own)} {thing} {names[value]} ({ml:.3g} ml).")
    return sentences


def _holds(change: Change, grid: Grid, position: Sequence[float]) -> bool:
    index = np.rint(grid.mm_to_index(position)).astype(int)[::-1]
    if not all(part.start <= n < part.stop for n, part in zip(index, change.box, strict=True)):
        return False
    return bool(change.mask[tuple(index - [part.start for part in change.box])])


def _like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result
