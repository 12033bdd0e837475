# SPDX-License-Identifier: Apache-2.0
"""Hot-spots: the places of a scan that are worth a look, ranked by the uncertainty that one look shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import log
from typing import Any

import numpy as np
from scipy import ndimage

from barl.images.components import bounding_box, components
from barl.images.geometry import Grid, Triple, triple

Bounds = tuple[float, float, float, float, float, float]

# Edge of what one look shows, in voxels of the mean spacing (PROPOSED; Testing/Benchmarks/hotspot_errors.py).
LOOK_VOXELS = 24
# Places are found to a sixth of that.
_CELLS = 6


@dataclass(frozen=True)
class HotSpot:
    """A place to look at: an uncertain region, or a change that cleanup made.

    Attributes:
        rank: From 1, the highest score.
        position_mm: LPS position of an uncertain voxel where the uncertainty of the 3 x 3 x 3 neighborhood is
            highest, so that a single noisy voxel is not chosen.
        volume_ml: Volume of the uncertain voxels.
        mean_uncertainty: Mean over them, [0, 1].
        score: ``volume_ml * mean_uncertainty``, by which the places are ranked.
        label: The label value that they are mostly about (0 if not known).
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
    look_mm: float | None = None,
) -> list[HotSpot]:
    """Places of one look each, in the order in which they cover most uncertainty.

    The first place is the box of edge ``look_mm`` with the largest sum of uncertainty over the voxels of at least
    ``threshold``; the next one the same without the voxels of the first, and so on. So a region too large for one look
    becomes several places, and neighbors that one look shows are one.

    Args:
        uncertainty: ``[k, j, i]`` in [0, 1]; or uint8, 255 meaning 1, which takes a quarter of the memory.
        grid: Where the voxels lie.
        labels: ``[k, j, i]``: the likeliest label value of each voxel, best leaving out the background, so that a
            region of something missed is named as well. Or ``[L, k, j, i]``: how likely the labels 1 to L are.
        threshold: Uncertainty from which a voxel belongs to a region.
        min_ml: Smaller regions (26-connected) and smaller places are left out; by default those of fewer than three
            voxels.
        limit: At most so many.
        look_mm: Edge of what one look shows; by default ``LOOK_VOXELS`` times the geometric mean of the spacing.
    """
    scale = 255.0 if uncertainty.dtype == np.uint8 else 1.0
    mask = uncertainty >= threshold * scale
    box = bounding_box(mask)
    if box is None:
        return []
    corner = np.array([part.start for part in box])
    least = 3 if min_ml is None else min_ml / grid.voxel_ml - 1e-6
    mask = _without_small(mask[box], least)
    uncertainty = uncertainty[box]
    labels = labels[(..., *box)] if labels is not None else None
    look_mm = look_mm or LOOK_VOXELS * float(np.prod(grid.spacing)) ** (1 / 3)
    found: list[HotSpot] = []
    for place in _looks(mask, uncertainty, np.array(grid.spacing[::-1]), look_mm, 0.5 * threshold * scale):
        voxels = int(np.count_nonzero(mask[place]))
        if voxels >= least:
            inner = bounding_box(mask[place])
            assert inner is not None
            tight = tuple(slice(p.start + q.start, p.start + q.stop) for p, q in zip(place, inner, strict=True))
            mean = float(uncertainty[tight][mask[tight]].sum(dtype=np.float64) / voxels / scale)
            index, label = _look_at(uncertainty, labels, mask, tight)
            start, stop = np.array([(corner[a] + part.start, corner[a] + part.stop) for a, part in enumerate(tight)]).T
            volume = float(voxels * grid.voxel_ml)
            position = triple(grid.index_to_mm((corner + index)[::-1]).tolist())
            bounds = bounds_mm(grid, start, stop)
            found.append(HotSpot(len(found) + 1, position, volume, mean, volume * mean, label, bounds))
        mask[place] = False
        if len(found) == limit:
            break
    # Leftovers beside a place may score less than a later place that is whole.
    found.sort(key=lambda spot: -spot.score)
    return [replace(spot, rank=rank) for rank, spot in enumerate(found, start=1)]


def _without_small(mask: np.ndarray, least: float) -> np.ndarray:
    """``mask`` without its components of fewer than ``least`` voxels, which are taken out of it in place."""
    if least <= 1:
        return mask
    regions, count = components(mask)
    voxels = np.zeros(count + 1, np.int64)
    for rows in _blocks(regions.shape):
        voxels += np.bincount(regions[rows].ravel(), minlength=count + 1)
    large = voxels >= least
    large[0] = False
    for rows in _blocks(regions.shape):
        mask[rows] = large[regions[rows]]
    return mask


def _looks(
    mask: np.ndarray, uncertainty: np.ndarray, spacing: np.ndarray, look_mm: float, least: float
) -> Iterator[tuple[slice, ...]]:
    """Boxes ``[k, j, i]`` of at most ``look_mm`` with the most uncertainty in ``mask``, each after the one before was
    taken out of the mask; none with less than ``least``."""
    step = np.maximum(1, np.floor(look_mm / (_CELLS * spacing))).astype(int)
    sums = _cell_sums(mask, uncertainty, step)
    width = np.clip(np.floor(look_mm / (step * spacing) + 1e-6).astype(int), 1, sums.shape)
    windows = _window_sums(sums, width)
    while True:
        first = np.array(np.unravel_index(windows.argmax(), windows.shape))
        if windows[tuple(first)] < least:
            return
        yield tuple(
            slice(a * s, (a + w) * s) for a, s, w in zip(first.tolist(), step.tolist(), width.tolist(), strict=True)
        )
        sums[tuple(slice(a, a + w) for a, w in zip(first, width, strict=True))] = 0
        # Only the windows that overlap the one taken have changed.
        near = [slice(max(a - w + 1, 0), min(a + w, n)) for a, w, n in zip(first, width, windows.shape, strict=True)]
        part = sums[tuple(slice(p.start, p.stop + w - 1) for p, w in zip(near, width, strict=True))]
        windows[tuple(near)] = _window_sums(part, width)


def _cell_sums(mask: np.ndarray, uncertainty: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Sum of the uncertainty inside ``mask`` over cells of ``step`` voxels, float64."""
    counts = -(-np.array(mask.shape) // step)
    sums = np.zeros(counts)
    for k in range(counts[0]):
        rows = slice(k * step[0], (k + 1) * step[0])
        plane = np.where(mask[rows], uncertainty[rows], 0).sum(axis=0, dtype=np.float64)
        plane = np.add.reduceat(plane, np.arange(0, plane.shape[0], step[1]), axis=0)
        sums[k] = np.add.reduceat(plane, np.arange(0, plane.shape[1], step[2]), axis=1)
    return sums


def _window_sums(sums: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Sums over all windows of ``width`` cells that lie inside; shape ``sums.shape - width + 1``."""
    for axis, cells in enumerate(width):
        total = np.cumsum(sums, axis=axis)
        total = np.concatenate([np.zeros_like(total.take([0], axis)), total], axis)
        stops, starts = [slice(None)] * 3, [slice(None)] * 3
        stops[axis], starts[axis] = slice(cells, None), slice(None, total.shape[axis] - cells)
        sums = total[tuple(stops)] - total[tuple(starts)]
    return sums


def _blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Rows along k of about 2 million voxels: numpy's counting makes 8-byte copies of what it is given."""
    step = max(1, 2_000_000 // (shape[1] * shape[2]))
    for k in range(0, shape[0], step):
        yield slice(k, min(k + step, shape[0]))


def _look_at(
    uncertainty: np.ndarray, labels: np.ndarray | None, mask: np.ndarray, place: tuple[slice, ...]
) -> tuple[np.ndarray, int]:
    """Index of the voxel of ``mask`` in ``place`` with the most uncertain neighborhood, and the commonest label."""
    wide = tuple(slice(max(p.start - 1, 0), p.stop + 1) for p in place)
    inner = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(place, wide, strict=True))
    inside = mask[place]
    mean = ndimage.uniform_filter(uncertainty[wide].astype(np.float32), 3, mode="constant")[inner]
    index = np.array(np.unravel_index(np.where(inside, mean, -1).argmax(), mean.shape))
    index += [part.start for part in place]
    label = 0
    if labels is not None:
        here: tuple[Any, ...] = (..., *place)
        values = labels[here][..., inside]
        values = values if values.ndim == 1 else 1 + values.argmax(axis=0)
        counts = np.bincount(values, minlength=1)
        counts[0] = 0
        label = int(counts.argmax()) if counts.any() else 0
    return index, label


def bounds_mm(grid: Grid, start: np.ndarray, stop: np.ndarray) -> Bounds:
    """LPS extent (x0, x1, y0, y1, z0, z1) of the index box ``start <= kji < stop``, voxel edges included."""
    center = grid.index_to_mm((start + stop - 1)[::-1] / 2)
    reach = np.abs(grid.axes * grid.spacing) @ (stop - start)[::-1] / 2
    x0, x1, y0, y1, z0, z1 = np.stack([center - reach, center + reach], axis=1).ravel().tolist()
    return x0, x1, y0, y1, z0, z1
