# SPDX-License-Identifier: Apache-2.0
"""Resampling of arrays ``[..., k, j, i]`` axis by axis, in slabs.

Every axis has a small matrix of weights: a kernel about each target sample, widened by the factor of a down-sampling so
that nothing aliases (as Pillow's ``resize`` does in two dimensions), cut at the array's edge and scaled to the sum 1.
SimpleITK's B-spline would need its coefficients of a whole scan in double precision, 1.3 GB at 512 x 512 x 600.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from barl.images.components import bounding_box
from barl.images.geometry import Triple, triple

# Rough bound of the voxels that one slab holds, before or after: 32 MiB in float32.
_SLAB_VOXELS = 8 * 2**20

# Target samples made by one matrix product: few enough that the band of weights fills the matrix.
_BLOCK = 32


@dataclass(frozen=True)
class AxisWeights:
    """How the target samples along one axis are computed from the source samples.

    Attributes:
        source: The source samples that are needed.
        matrix: float32 ``[target, needed source]``; None where the needed samples are the target, unchanged.
    """

    source: slice
    matrix: np.ndarray | None = None

    @classmethod
    def at(cls, positions: np.ndarray, step: float, n_source: int, *, cubic: bool) -> AxisWeights:
        """Weights for samples at continuous source indices that lie ``step`` source samples apart.

        Args:
            positions: ``[target]``, in source samples; beyond the edge the edge's value goes on.
            step: Above 1 in a down-sampling.
            n_source: Samples of the source.
            cubic: Keys' cubic (IEEE Trans. ASSP 29, 1981, a = -1/2); otherwise linear.
        """
        positions = np.clip(positions, 0, n_source - 1)
        distances = np.abs(np.arange(n_source) - positions[:, None]) / max(step, 1.0)
        weights = _cubic(distances) if cubic else np.maximum(1 - distances, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        return cls(slice(0, n_source), weights.astype(np.float32)).rows(slice(0, len(positions)))

    def __len__(self) -> int:
        return self.source.stop - self.source.start if self.matrix is None else len(self.matrix)

    def rows(self, rows: slice) -> AxisWeights:
        """The same for some of the target samples."""
        first = self.source.start
        if self.matrix is None:
            return AxisWeights(slice(first + rows.start, first + rows.stop))
        matrix = self.matrix[rows]
        used = np.flatnonzero(matrix.any(axis=0))
        start, stop = int(used[0]), int(used[-1]) + 1
        return AxisWeights(slice(first + start, first + stop), np.ascontiguousarray(matrix[:, start:stop]))

    def touched_by(self, source: slice) -> slice:
        """The target samples, as one range, into which some source samples enter (may be empty)."""
        start, stop = (max(0, n - self.source.start) for n in (source.start, source.stop))
        if self.matrix is None:
            return slice(min(start, len(self)), min(stop, len(self)))
        touched = np.flatnonzero(self.matrix[:, start:stop].any(axis=1))
        return slice(int(touched[0]), int(touched[-1]) + 1) if touched.size else slice(0, 0)

    def apply(self, values: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Resample along the last but one axis, or along the ``last``; ``values`` holds the needed samples, float32."""
        if self.matrix is None:
            return values
        values = values.mT if last else values
        result = np.empty((*values.shape[:-2], len(self), values.shape[-1]), dtype=np.float32)
        if last:
            result = np.empty((*values.shape[:-2], values.shape[-1], len(self)), dtype=np.float32).mT
        for start in range(0, len(self), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(self)))
            block = self.rows(rows)
            used = slice(block.source.start - self.source.start, block.source.stop - self.source.start)
            result[..., rows, :] = block.matrix @ values[..., used, :]
        return result.mT if last else result


def _cubic(x: np.ndarray) -> np.ndarray:
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True)
class ResampledRows:
    """Some rows of the target: which part ``[k, j, i]`` of the source they need, and their weights."""

    rows: slice
    axes: Triple[AxisWeights]

    @property
    def source(self) -> Triple[slice]:
        return triple(axis.source for axis in self.axes)

    @property
    def copies(self) -> bool:
        """Whether the target is that part of the source, unchanged."""
        return all(axis.matrix is None for axis in self.axes)

    def resample(self, values: np.ndarray) -> np.ndarray:
        """Target ``[..., rows, j, i]`` of the source's part ``[..., k, j, i]``, float32."""
        along_k, along_j, along_i = self.axes
        values = along_j.apply(along_i.apply(values, last=True))
        flat = along_k.apply(values.reshape(*values.shape[:-2], -1))
        return flat.reshape(*flat.shape[:-1], *values.shape[-2:])


def slabs(axes: Triple[AxisWeights], n_maps: int = 1) -> Iterator[ResampledRows]:
    """Cut the work along k so that a slab of ``n_maps`` maps keeps to a few dozen MiB before and after."""
    along_k, along_j, along_i = axes
    n_source = [axis.source.stop - axis.source.start for axis in axes]
    voxels_per_row = max(
        n_source[1] * n_source[2] * max(1.0, n_source[0] / max(1, len(along_k))), len(along_j) * len(along_i)
    )
    step = max(1, int(_SLAB_VOXELS / (n_maps * voxels_per_row)))
    for start in range(0, len(along_k), step):
        rows = slice(start, min(start + step, len(along_k)))
        yield ResampledRows(rows, (along_k.rows(rows), along_j, along_i))


def resample_labels(
    labels: np.ndarray, axes: Triple[AxisWeights], out: np.ndarray, *, zero_competes: bool = True
) -> None:
    """Write into ``out`` the label with the greatest interpolated share; where nothing is resampled, the label itself.

    Args:
        labels: Whole numbers from 0 ``[k, j, i]``.
        axes: Weights along k, j, i.
        out: Target, any integer type that holds the labels.
        zero_competes: Whether 0 is a label as the others; otherwise it is what is left where none of them has a share.
    """
    out[...] = 0
    occupied = bounding_box(labels)
    if occupied is None:
        return
    # Labels fill a small part of a scan: only the target around them is computed.
    target = tuple(axis.touched_by(part) for axis, part in zip(axes, occupied, strict=True))
    if any(part.stop <= part.start for part in target):
        return
    out = out[target]
    for slab in slabs(triple(axis.rows(part) for axis, part in zip(axes, target, strict=True))):
        part = labels[slab.source]
        if slab.copies:
            out[slab.rows] = part
            continue
        background = np.ones(out[slab.rows].shape, dtype=np.float32)
        best_share = np.zeros_like(background)
        best_value = np.zeros_like(background, dtype=out.dtype)
        for value in np.flatnonzero(np.bincount(part.ravel())):
            if value == 0:
                continue
            share = slab.resample((part == value).astype(np.float32))
            background -= share
            # A tie goes to the lower value, whatever the last bits say, so that flipped copies agree.
            wins = share > best_share + 1e-4
            best_value[wins] = value
            np.maximum(best_share, share, out=best_share)
        if zero_competes:
            best_value[best_share <= background + 1e-4] = 0
        out[slab.rows] = best_value
