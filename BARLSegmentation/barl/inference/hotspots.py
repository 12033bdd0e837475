# SPDX-License-Identifier: Apache-2.0
"""Hot-spots: the connected uncertain regions of a scan, ranked by volume and uncertainty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import log
from typing import Any

import numpy as np
from scipy import ndimage

from barl.images.components import bounding_box, components
from barl.images.geometry import Grid, Triple, triple

Bounds = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class HotSpot:
    """A place to look at: an uncertain region, or a change that cleanup made.

    Attributes:
        rank: From 1, the highest score.
        position_mm: LPS position of a voxel inside the region, where the uncertainty of the 3 x 3 x 3 neighborhood is
            highest, so that a single noisy voxel is not chosen.
        volume_ml: Volume of the region.
        mean_uncertainty: Mean over the region, [0, 1].
        score: ``volume_ml * mean_uncertainty``, by which the regions are ranked.
        label: The label value that the region is mostly about (0 if not known).
        bounds_mm: Extent (x0, x1, y0, y1, z0, z1) in LPS mm, voxel edges included.
        kind: ``uncertain``; or ``removed`` or ``filled`` by cleanup, with uncertainty 1.
    """

    rank: int
    position_mm: Triple[float]
    volume_ml: float
    mean_uncertainty: float
    score: float
    label: int
    bounds_mm: Bounds
    kind: str = "uncertain"

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def half_a_bit(n_classes: int) -> float:
    """The normalized entropy that means half a bit of doubt, whatever the number of classes (0.5 for two).

    With two classes this is a probability of 0.89 for the likelier one. A fixed threshold on the normalized entropy
    would never fire in a model of twenty classes, where a tie of two is 0.23.
    """
    return 0.5 * log(2) / log(n_classes)


def find_hotspots(
    uncertainty: np.ndarray,
    grid: Grid,
    labels: np.ndarray | None = None,
    threshold: float = 0.5,
    min_ml: float | None = None,
    limit: int = 50,
) -> list[HotSpot]:
    """Regions of at least ``threshold``, 26-connected, ranked by volume x mean uncertainty.

    Args:
        uncertainty: ``[k, j, i]`` in [0, 1]; or uint8, 255 meaning 1, which takes a quarter of the memory.
        grid: Where the voxels lie.
        labels: ``[k, j, i]``: the likeliest label value of each voxel, best leaving out the background, so that a
            region of something missed is named as well.
        threshold: Uncertainty from which a voxel belongs to a region.
        min_ml: Smaller regions are left out; by default those of fewer than three voxels.
        limit: At most so many.
    """
    scale = 255.0 if uncertainty.dtype == np.uint8 else 1.0
    mask = uncertainty >= threshold * scale
    box = bounding_box(mask)
    if box is None:
        return []
    corner = np.array([part.start for part in box])
    regions, count = components(mask[box])
    del mask
    uncertainty = uncertainty[box]
    labels = labels[box] if labels is not None else None
    voxels, total = np.zeros(count + 1, np.int64), np.zeros(count + 1)
    for rows in _blocks(regions.shape):
        names = regions[rows].ravel()
        voxels += np.bincount(names, minlength=count + 1)
        total += np.bincount(names, weights=uncertainty[rows].ravel(), minlength=count + 1) / scale
    least = 3 if min_ml is None else min_ml / grid.voxel_ml
    # The score is total x voxel volume; a stable sort keeps ties in scanning order.
    order = [n for n in np.argsort(-total[1:], kind="stable") + 1 if voxels[n] >= least - 1e-6][:limit]
    places = ndimage.find_objects(regions)
    found = []
    for rank, n in enumerate(order, start=1):
        place = places[n - 1]
        index, label = _look_at(uncertainty, labels, regions, place, n)
        start, stop = np.array([(corner[a] + part.start, corner[a] + part.stop) for a, part in enumerate(place)]).T
        volume, mean = float(voxels[n] * grid.voxel_ml), float(total[n] / voxels[n])
        position = grid.index_to_mm((corner + index)[::-1])
        bounds = bounds_mm(grid, start, stop)
        found.append(HotSpot(rank, triple(position.tolist()), volume, mean, volume * mean, label, bounds))
    return found


def _blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Rows along k of about 2 million voxels: numpy's counting makes 8-byte copies of what it is given."""
    step = max(1, 2_000_000 // (shape[1] * shape[2]))
    for k in range(0, shape[0], step):
        yield slice(k, min(k + step, shape[0]))


def _look_at(
    uncertainty: np.ndarray, labels: np.ndarray | None, regions: np.ndarray, place: tuple[slice, ...], n: int
) -> tuple[np.ndarray, int]:
    """Index of the voxel of region ``n`` with the most uncertain neighborhood, and the region's commonest label."""
    wide = tuple(slice(max(p.start - 1, 0), p.stop + 1) for p in place[1:])
    inner = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(place[1:], wide, strict=True))
    best, index = -1.0, np.zeros(3, int)
    names: Counter[int] = Counter()
    for rows in _blocks(tuple(p.stop - p.start for p in place)):
        a, b = place[0].start + rows.start, place[0].start + rows.stop
        halo = slice(max(a - 1, 0), b + 1)
        mean = ndimage.uniform_filter(uncertainty[(halo, *wide)].astype(np.float32), 3, mode="constant")
        inside = regions[(slice(a, b), *place[1:])] == n
        mean = np.where(inside, mean[(slice(a - halo.start, b - halo.start), *inner)], -1)
        top = np.unravel_index(mean.argmax(), mean.shape)
        if mean[top] > best:
            best, index = mean[top], np.add(top, (a, place[1].start, place[2].start))
        if labels is not None:
            counts = np.bincount(labels[(slice(a, b), *place[1:])][inside])
            names.update({value: int(counts[value]) for value in np.flatnonzero(counts).tolist() if value})
    return index, int(names.most_common(1)[0][0]) if names else 0


def bounds_mm(grid: Grid, start: np.ndarray, stop: np.ndarray) -> Bounds:
    """LPS extent (x0, x1, y0, y1, z0, z1) of the index box ``start <= kji < stop``, voxel edges included."""
    ends = np.stack([start - 0.5, stop - 0.5])[:, ::-1]
    corners = np.array(np.meshgrid(*ends.T)).reshape(3, -1).T
    mm = grid.index_to_mm(corners)
    x0, x1, y0, y1, z0, z1 = np.stack([mm.min(axis=0), mm.max(axis=0)], axis=1).ravel().tolist()
    return x0, x1, y0, y1, z0, z1
