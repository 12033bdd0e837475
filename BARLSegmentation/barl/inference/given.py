# SPDX-License-Identifier: Apache-2.0
"""Predictions from probabilities that BARL's networks did not compute: of other programs and of other models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk
import torch

from barl.images.geometry import Grid
from barl.inference.hotspots import find_hotspots, half_a_bit
from barl.inference.maps import ModelMaps
from barl.inference.predictor import LabelVolume, Prediction
from barl.inference.sliding_window import Slab
from barl.project.labels import Label

# Below this a probability counts as this much: the logarithm of 0 is no number.
_SMALLEST = 1e-7
_PLANES_VOXELS = 2_000_000


def predict_from_probabilities(
    members: Sequence[np.ndarray], grid: Grid, labels: Sequence[Label], label_map: np.ndarray | None = None
) -> Prediction:
    """Label map, uncertainty, hot-spots and volumes as ``Predictor.predict`` gives them; no embedding.

    Args:
        members: The probabilities of each member of an ensemble, ``[L + 1, k, j, i]`` in [0, 1], background first, then
            the labels in ascending order of value; they sum to 1. With one member the uncertainty is the entropy, with
            more the larger of entropy and disagreement (``barl.inference.uncertainty``).
        grid: Where the voxels lie.
        labels: The labels, ascending.
        label_map: ``[k, j, i]`` with label values, if it is known; else each voxel gets its likeliest class.
    """
    table = np.array([0, *(label.value for label in labels)], np.uint16)
    if len(labels) > 0 and table.max() < 256:
        table = table.astype(np.uint8)
    maps = ModelMaps(grid.shape, len(table), len(members))
    step = max(1, _PLANES_VOXELS // (grid.shape[1] * grid.shape[2]))
    whole = (slice(0, grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2]))
    for start in range(0, grid.shape[0], step):
        rows = slice(start, min(start + step, grid.shape[0]))
        logs = [torch.from_numpy(np.log(member[:, rows].clip(_SMALLEST, 1))) for member in members]
        stacked = torch.stack(logs).float()
        maps.add(Slab(start, stacked[:, 1:] - stacked[:, :1]), whole)
    values = table[maps.kept_classes] if label_map is None else label_map.astype(table.dtype)
    spots = find_hotspots(maps.uncertainty, grid, maps.kept_labels, threshold=half_a_bit(len(table)))
    return Prediction(
        label=grid.image(values),
        uncertainty=grid.image(maps.uncertainty.astype(np.float32) / np.float32(255)),
        hotspots=[replace(spot, label=int(table[spot.label])) for spot in spots],
        volumes=_volumes(values, maps.branch_voxels, grid, labels),
        case_uncertainty=maps.case_uncertainty(),
        embedding=[],
    )


def predict_from_label_map(label: sitk.Image, labels: Sequence[Label]) -> Prediction:
    """Label map and volumes without probabilities: no hot-spots, and an uncertainty of 0 that says nothing."""
    grid = Grid.of(label)
    none = np.zeros((1, len(labels)), np.int64)
    return Prediction(
        label=label,
        uncertainty=grid.empty(),
        hotspots=[],
        volumes=_volumes(sitk.GetArrayViewFromImage(label), none, grid, labels),
        case_uncertainty=0.0,
        embedding=[],
    )


def _volumes(values: np.ndarray, member_voxels: np.ndarray, grid: Grid, labels: Sequence[Label]) -> list[LabelVolume]:
    """The volume of each label, and its smallest and largest among the members."""
    counts = np.bincount(values.ravel(), minlength=max(label.value for label in labels) + 1)
    found = []
    for place, label in enumerate(labels):
        ml = float(counts[label.value] * grid.voxel_ml)
        several = len(member_voxels) > 1
        each = [ml, *(member_voxels[:, place] * grid.voxel_ml).tolist()] if several else [ml]
        found.append(LabelVolume(label.value, label.name, ml, min(each), max(each)))
    return found
