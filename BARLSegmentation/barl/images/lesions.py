# SPDX-License-Identifier: Apache-2.0
"""The single lesions of a label map: 26-connected components of a label, with their sizes and places."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import pdist

from barl.images.components import components
from barl.images.geometry import Grid, Triple, triple


@dataclass(frozen=True)
class Lesion:
    """One lesion.

    Attributes:
        value: Its label.
        rank: From 1, the largest of its label.
        voxels: Number of voxels.
        ml: Volume.
        center_mm: Center of mass, LPS.
        diameter_mm: The longest diameter within a slice of the scan, from edge to edge of the voxels.
        extent_mm: The longest edge of the box around it.
        confidence: One minus the mean uncertainty over its voxels; None without an uncertainty.
        box: Where it lies, ``[k, j, i]``.
        mask: Its voxels in the box.
    """

    value: int
    rank: int
    voxels: int
    ml: float
    center_mm: Triple[float]
    diameter_mm: float
    extent_mm: float
    confidence: float | None
    box: tuple[slice, ...]
    mask: np.ndarray = field(compare=False, repr=False)


def find_lesions(
    label: np.ndarray, grid: Grid, values: Collection[int], uncertainty: np.ndarray | None = None
) -> list[Lesion]:
    """The lesions of each of the labels ``values``, in their order, the largest of a label first.

    Args:
        label: Label map ``[k, j, i]``.
        grid: Where its voxels lie.
        values: The labels.
        uncertainty: ``[k, j, i]`` in [0, 1].
    """
    found: list[Lesion] = []
    for value in values:
        numbers, count = components(label == value)
        voxels = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        boxes = ndimage.find_objects(numbers)
        for rank, n in enumerate(np.argsort(-voxels, kind="stable").tolist(), 1):
            box = boxes[n]
            inside = numbers[box] == n + 1
            start = [part.start for part in box]
            center = np.argwhere(inside).mean(axis=0) + start
            edges = [(part.stop - part.start) * step for part, step in zip(box[::-1], grid.spacing, strict=True)]
            sure = None if uncertainty is None else 1 - float(uncertainty[box][inside].mean(dtype=np.float64))
            found.append(
                Lesion(
                    value,
                    rank,
                    int(voxels[n]),
                    float(voxels[n] * grid.voxel_ml),
                    triple(grid.index_to_mm(center[::-1]).tolist()),
                    _diameter(inside, grid),
                    max(edges),
                    sure,
                    box,
                    inside,
                )
            )
    return found


def _diameter(mask: np.ndarray, grid: Grid) -> float:
    """The longest distance between two voxels of a slice ``[j, i]``, and one voxel more."""
    step_i, step_j, _ = grid.spacing
    longest = 0.0
    for plane in mask:
        rows = np.flatnonzero(plane.any(axis=1))
        if not len(rows):
            continue
        # The two voxels that lie farthest apart are the first or the last of their rows.
        first = plane[rows].argmax(axis=1)
        last = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
        points = np.column_stack([np.concatenate([first, last]) * step_i, np.concatenate([rows, rows]) * step_j])
        longest = max(longest, float(pdist(points).max()))
    return longest + (step_i + step_j) / 2


def numbered(lesions: Sequence[Lesion], shape: Sequence[int]) -> np.ndarray:
    """A label map ``[k, j, i]`` in which the n-th lesion has the value n, from 1."""
    label = np.zeros(tuple(shape), np.uint8 if len(lesions) < 256 else np.uint16)
    for number, lesion in enumerate(lesions, 1):
        label[lesion.box][lesion.mask] = number
    return label
