# SPDX-License-Identifier: Apache-2.0
"""From scans to the array a network sees, and from its result back onto the scan's own grid.

The array keeps the scan's own axes: they are re-ordered and reversed towards the model's orientation, never rotated by
interpolation because a scan is oblique. Only axes whose spacing differs are resampled, each by itself, in index space.
So every permuted or flipped copy of a scan gives the same array, bit for bit, and without resampling the way back is
exact. All work is done in slabs: besides its result no step holds a second copy of a scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import DTypeLike
from scipy import ndimage

from barl.errors import InputError
from barl.images.components import bounding_box, components
from barl.images.geometry import Grid, Roi, Triple, axes_between, axes_towards, triple
from barl.images.intensity import Normalization
from barl.images.resampling import AxisWeights, resample_labels, slabs

# Spacings nearer than this are the same: the voxels of a 20 cm scan shift by at most 1 mm at its edge.
_SAME_SPACING = 0.01

# An axis this much coarser than the finest is interpolated linearly: a cubic kernel overshoots between thick slices.
_ANISOTROPY = 3.0


class PreparedScan:
    """A scan as a model's network gets it, and the way back onto the scan's own grid.

    Intensity statistics are those of the whole scan, and a region of interest is cut from the lattice of the whole
    scan, so that its array is the same part of the whole scan's array.

    Args:
        channels: The scan's images, all on one grid.
        normalisations: One per channel.
        spacing: The model's (x, y, z) spacing in mm in the model's orientation; None keeps the scan's.
        orientation: The model's, such as ``LPS``.
        roi: Only this box.
        patch: The network's patch ``(k, j, i)``: it gets a quarter of one beyond the box, and a whole one at least.

    Attributes:
        scan_grid: The scan's own grid.
        orientation: The model's.
        grid: Grid of the network's array.
        inside: The part ``(k, j, i)`` of that array that was asked for: all of it, or the box without its surroundings.
        result_grid: Grid of that part.
        kept_small: Label value -> components of the last label map that are smaller than a voxel of ``grid``.

    Raises:
        InputError: Channel count or grids differ, or the ROI lies outside the scan.
    """

    def __init__(
        self,
        channels: Sequence[sitk.Image],
        normalisations: Sequence[Normalization],
        spacing: Sequence[float] | None,
        orientation: str = "LPS",
        *,
        roi: Roi | None = None,
        patch: Sequence[int] | None = None,
    ) -> None:
        if len(channels) != len(normalisations):
            raise InputError(
                f"The scan has {len(channels)} channel(s), the model needs {len(normalisations)}.",
                "Give one image for each channel of the model, in its order.",
            )
        self._channels, self._normalizations = channels, normalisations
        self.scan_grid = Grid.of(channels[0])
        for image in channels[1:]:
            self._must_match(image)
        self.orientation = orientation
        self._axes = axes_towards(self.scan_grid, orientation)
        self._source = self.scan_grid.oriented(self._axes)
        self.grid = _model_grid(self._source, spacing)
        start, stop = (0, 0, 0), self.grid.size
        if roi is not None:
            roi = roi.along(self.scan_grid)
            wide = roi if patch is None else _with_context(roi, patch, spacing or self.grid.spacing)
            self.grid = self.grid.crop(*wide.box(self.grid))
            start, stop = roi.box(self.grid)
        self.result_grid = self.grid.crop(start, stop)
        self.kept_small: dict[int, int] = {}
        self.inside = triple(slice(a, b) for a, b in zip(start[::-1], stop[::-1], strict=True))

    @property
    def keeps_voxels(self) -> bool:
        """Whether the model's grid is the scan's with its axes re-ordered: the way back needs no interpolation."""
        oriented = self.result_grid.oriented(axes_between(self.result_grid, self.scan_grid))
        return bool(np.allclose(oriented.spacing, self.scan_grid.spacing, rtol=1e-6))

    def to_network(self) -> np.ndarray:
        """Normalized intensities, float32 ``[C, k, j, i]``, in the model's orientation and spacing."""
        weights = _weights(self._source, self.grid, cubic=True)
        array = np.empty((len(self._channels), *self.grid.shape), dtype=np.float32)
        for image, normalization, out in zip(self._channels, self._normalizations, array, strict=True):
            view = self._axes.view(sitk.GetArrayViewFromImage(image))
            fitted = normalization.fitted(view)
            for slab in slabs(weights):
                out[slab.rows] = slab.resample(fitted.apply(view[slab.source]))
        return array

    def labels_to_network(self, label: sitk.Image, looked: sitk.Image | None = None) -> np.ndarray:
        """Label values (not classes) ``[k, j, i]`` on ``grid``, int16 (int32 for values above 32767).

        A connected component that no voxel of ``grid`` is left of keeps one, the nearest to its center: ``kept_small``
        counts them.

        Args:
            label: Label map on the scan's own grid.
            looked: Which of its voxels were looked at: not 0 where they were; None: all. The others have no part in
                the result, which is -1 where no such voxel lies in a voxel of ``grid`` or is the nearest to it.

        Raises:
            InputError: It lies on another grid.
        """
        self._must_match(label)
        view = self._axes.view(sitk.GetArrayViewFromImage(label))
        labels = np.empty(self.grid.shape, dtype=np.int16 if view.max() < np.iinfo(np.int16).max else np.int32)
        weights = _weights(self._source, self.grid, cubic=False)
        if looked is None:
            resample_labels(view, weights, labels)
            self.kept_small = self._keep_small(view, labels) if self._is_coarser else {}
            return labels
        self._must_match(looked)
        seen = self._axes.view(sitk.GetArrayViewFromImage(looked)) != 0
        # Background is a label as the others here, 1; 0 is what nobody has looked at, and does not compete.
        resample_labels(np.where(seen, view.astype(labels.dtype) + 1, 0), weights, labels, zero_competes=False)
        covered = self._covered_by(seen)
        labels[:] = np.where(covered, np.maximum(labels - 1, 0), 0)
        self.kept_small = self._keep_small(np.where(seen, view, 0), labels) if self._is_coarser else {}
        labels[~covered & (labels == 0)] = -1
        return labels

    def _covered_by(self, mask: np.ndarray) -> np.ndarray:
        """Voxels of ``grid`` with a voxel of ``mask`` inside or as the nearest; ``mask`` has the model's axis order."""
        first = self._source.mm_to_index(self.grid.index_to_mm((0, 0, 0)))[::-1]
        for axis in range(3):
            step = self.grid.spacing[::-1][axis] / self._source.spacing[::-1][axis]
            n_source, n_grid = mask.shape[axis], self.grid.shape[axis]
            if step <= 1 + 1e-6:
                nearest = np.rint(np.round(first[axis] + step * np.arange(n_grid), 6)).astype(int)
                mask = mask.take(nearest.clip(0, n_source - 1), axis=axis)
                continue
            voxel = np.rint(np.round((np.arange(n_source) - first[axis]) / step, 6)).astype(int).clip(0, n_grid - 1)
            covered = np.zeros((*mask.shape[:axis], n_grid, *mask.shape[axis + 1 :]), dtype=bool)
            planes, covered_planes = np.moveaxis(mask, axis, 0), np.moveaxis(covered, axis, 0)
            for plane, place in zip(planes, voxel, strict=True):
                covered_planes[place] |= plane
            mask = covered
        return mask

    @property
    def _is_coarser(self) -> bool:
        return any(new > old * (1 + 1e-6) for new, old in zip(self.grid.spacing, self._source.spacing, strict=True))

    def _keep_small(self, view: np.ndarray, labels: np.ndarray) -> dict[int, int]:
        """Give every component of ``view`` (the scan's voxels, in the model's axis order) a voxel of ``labels``."""
        kept: dict[int, int] = {}
        box = bounding_box(view)
        if box is None:
            return kept
        corner = np.array([part.start for part in box])
        first = self.grid.mm_to_index(self._source.index_to_mm((0.0, 0.0, 0.0)))[::-1]
        step = np.array(self._source.spacing[::-1]) / np.array(self.grid.spacing[::-1])
        shape = np.array(labels.shape)
        for value in (value for value in np.flatnonzero(np.bincount(view[box].ravel())).tolist() if value):
            numbers, _ = components(view[box] == value)
            for number, place in enumerate(ndimage.find_objects(numbers), start=1):
                ends = np.array([(part.start, part.stop - 1) for part in place]).T + corner
                low, high = np.clip(np.rint(first + ends * step).astype(int), 0, shape - 1)
                around = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
                if (labels[around] == value).any():
                    continue
                center = np.mean(np.nonzero(numbers[place] == number), axis=1) + ends[0]
                voxel = tuple(np.clip(np.rint(first + center * step).astype(int), 0, shape - 1))
                inside = all(-0.5 <= n < size - 0.5 for n, size in zip(first + center * step, shape, strict=True))
                if inside and labels[voxel] == 0:
                    labels[voxel] = value
                    kept[value] = kept.get(value, 0) + 1
        return kept

    def restore_label(self, array: np.ndarray) -> sitk.Image:
        """Label values ``[k, j, i]`` on ``result_grid`` as a label map on the scan's own grid."""
        return restore_label(array, self.result_grid, self.scan_grid)

    def restore(self, maps: np.ndarray, finish: Callable[[np.ndarray], np.ndarray], dtype: DTypeLike) -> sitk.Image:
        """One image on the scan's own grid from interpolated maps.

        Args:
            maps: ``[L, k, j, i]`` on ``result_grid``.
            finish: Turns float32 ``[L, rows, j, i]`` on the scan's grid into the image's ``[rows, j, i]``.
            dtype: Of the image.
        """
        out = np.empty(self.scan_grid.shape, dtype)
        for rows, slab in restore_probabilities(maps, self.result_grid, self.scan_grid):
            out[rows] = finish(slab)
        return self.scan_grid.image(out)

    def _must_match(self, image: sitk.Image) -> None:
        if not self.scan_grid.matches(Grid.of(image)):
            raise InputError(
                "Channels or label map of the case lie on different grids.", "Resample them onto one grid."
            )


def _with_context(roi: Roi, patch: Sequence[int], spacing: Sequence[float]) -> Roi:
    """The box with a quarter of a patch around it, and at least as large as a patch."""
    edge = max(n * mm for n, mm in zip(patch[::-1], spacing, strict=True))
    return replace(roi, half_size_mm=triple(max(half + edge / 4, edge / 2) for half in roi.half_size_mm))


def restore_label(array: np.ndarray, grid: Grid, scan_grid: Grid) -> sitk.Image:
    """A label map back on the scan's own grid.

    Args:
        array: Label values ``[k, j, i]`` on ``grid``.
        grid: ``PreparedScan.result_grid`` (of a region of interest, too).
        scan_grid: ``PreparedScan.scan_grid``.

    Returns:
        uint8 (uint16 if a value needs it) on ``scan_grid``; background outside ``grid``.
    """
    view, source = _along_scan(array, grid, scan_grid)
    result = scan_grid.empty(sitk.sitkUInt8 if int(array.max(initial=0)) < 256 else sitk.sitkUInt16)
    out = np.zeros(scan_grid.shape, dtype=sitk.GetArrayViewFromImage(result).dtype)
    box, part = _covered(source, scan_grid)
    resample_labels(view, _weights(source, part, cubic=False), out[box])
    return scan_grid.image(out)


def restore_probabilities(array: np.ndarray, grid: Grid, scan_grid: Grid) -> Iterator[tuple[slice, np.ndarray]]:
    """Probability (or other float) maps back on the scan's own grid, slab by slab.

    Args:
        array: ``[L, k, j, i]`` on ``grid``, any float type.
        grid: ``PreparedScan.result_grid`` (of a region of interest, too).
        scan_grid: ``PreparedScan.scan_grid``.

    Yields:
        ``(rows, slab)``: ``slab`` float32 ``[L, rows, j, i]`` belongs at ``[:, rows]`` of the scan's array. The slabs
        cover the scan from first to last slice; 0 outside ``grid``.
    """
    view, source = _along_scan(array, grid, scan_grid)
    box, covered = _covered(source, scan_grid)
    weights = _weights(source, covered, cubic=False)
    done = 0
    for part in slabs(weights, len(view)):
        start, stop = part.rows.start + box[0].start, part.rows.stop + box[0].start
        # The slices before the covered part go along with its first slab, those after with its last.
        end = scan_grid.shape[0] if stop == box[0].stop else stop
        slab = np.zeros((array.shape[0], end - done, *scan_grid.shape[1:]), dtype=np.float32)
        values = np.ascontiguousarray(view[(slice(None), *part.source)], dtype=np.float32)
        slab[:, start - done : stop - done, box[1], box[2]] = part.resample(values)
        yield slice(done, end), slab
        done = end


def _model_grid(source: Grid, spacing: Sequence[float] | None) -> Grid:
    """The grid with the model's spacing that covers ``source`` and shares its center and axes."""
    if spacing is None:
        return source
    old = np.array(source.spacing)
    wanted = np.array(spacing, dtype=np.float64)
    if wanted.shape != (3,) or not (np.isfinite(wanted).all() and (wanted > 0).all()):
        raise InputError("The spacing of the model is not three positive numbers.", "Give x, y and z spacing in mm.")
    new = np.where(np.abs(old / wanted - 1) <= _SAME_SPACING, old, wanted)
    # Rounded up, so that every voxel of the scan lies inside; the 1e-3 voxel forgives rounding.
    size = np.where(new == old, source.size, np.maximum(np.ceil(np.array(source.size) * old / new - 1e-3), 1))
    size = size.astype(int)
    first = (np.array(source.size) - 1) / 2 - (size - 1) / 2 * new / old
    return Grid(
        triple(size.tolist()), triple(new.tolist()), triple(source.index_to_mm(first).tolist()), source.direction
    )


def _along_scan(array: np.ndarray, grid: Grid, scan_grid: Grid) -> tuple[np.ndarray, Grid]:
    """The array's view in the scan's axis order, and its grid."""
    if array.shape[-3:] != grid.shape:
        raise ValueError(f"array of shape {array.shape} on a grid of shape {grid.shape}")
    axes = axes_between(grid, scan_grid)
    return axes.view(array), grid.oriented(axes)


def _covered(source: Grid, scan_grid: Grid) -> tuple[Triple[slice], Grid]:
    """The part of the scan whose voxel centers ``source`` covers: as (k, j, i) slices and as a grid."""
    low = scan_grid.mm_to_index(source.index_to_mm((-0.5, -0.5, -0.5)))
    high = scan_grid.mm_to_index(source.index_to_mm(np.array(source.size) - 0.5))
    start = np.clip(np.ceil(low - 1e-3), 0, scan_grid.size).astype(int)
    stop = np.clip(np.floor(high + 1e-3) + 1, start, scan_grid.size).astype(int)
    if (stop == start).any():
        raise InputError("The result lies outside the scan.", "Use the scan from which the result was made.")
    box = triple(slice(a, b) for a, b in zip(start.tolist()[::-1], stop.tolist()[::-1], strict=True))
    return box, scan_grid.crop(start, stop)


def _weights(source: Grid, target: Grid, *, cubic: bool) -> Triple[AxisWeights]:
    """Per axis (k, j, i) how ``target``'s samples are computed from ``source``'s; both have the same axes."""
    first = source.mm_to_index(target.index_to_mm((0, 0, 0)))
    finest = min(source.spacing)
    weights = []
    for axis in (2, 1, 0):
        step = target.spacing[axis] / source.spacing[axis]
        if abs(step - 1) < 1e-6:
            start = round(first[axis])
            weights.append(AxisWeights(slice(start, start + target.size[axis])))
            continue
        # Rounded: a flipped copy's position differs in the last bits, its result must not.
        positions = np.round(first[axis] + step * np.arange(target.size[axis]), 6)
        thick = source.spacing[axis] >= _ANISOTROPY * finest
        weights.append(AxisWeights.at(positions, step, source.size[axis], cubic=cubic and not thick))
    return triple(weights)
