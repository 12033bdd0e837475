# SPDX-License-Identifier: Apache-2.0
"""What the scans were like that a model has learned from, and in what another scan is unlike them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.images.fingerprint import CaseFingerprint
from barl.images.geometry import Grid, Roi, axes_towards, orientation_code
from barl.images.intensity import ImageStatistics, Normalization

_FACTOR = 2.0
"""Spacing and extent may lie so much below or above what was learned from."""
_MARGIN = 0.5
"""Intensities may lie beyond what was learned from by this share of its range."""
_RAW = ("ct_window", "none")
"""Normalizations that take intensities as they are; the others divide by the scan's own deviation."""

_CT_LOWEST = -50.0
"""CT has lower values than this: fat and air; MR and PET have none."""

_AXES = "from left to right, front to back and head to foot"

UNLIKE = "The scan is unlike those that the model has learned from"


def is_unlike(note: str) -> bool:
    """Whether a prediction's note says that its scan is unlike those that the model has learned from."""
    return note.startswith(UNLIKE)


@dataclass(frozen=True)
class Familiar:
    """Ranges of the scans that a model has learned from; axes are left-right, anterior-posterior, inferior-superior.

    Attributes:
        spacing: Smallest and largest per axis in mm.
        extent: Smallest and largest size of a scan per axis in mm.
        intensities: Per channel the smallest and largest of the scans' lowest, middle and highest intensities (0.5th,
            50th and 99.5th percentile): ``[[low, high], [low, high], [low, high]]``.
    """

    spacing: list[list[float]]
    extent: list[list[float]]
    intensities: list[list[list[float]]]

    @classmethod
    def of(cls, fingerprints: Sequence[CaseFingerprint]) -> Familiar:
        """The ranges of some scans, one at least."""
        spacings, extents = zip(*(_in_lps(f.size, f.spacing, f.orientation) for f in fingerprints), strict=True)
        channels = zip(*(f.channels for f in fingerprints), strict=True)
        return cls(
            _range(spacings), _range(extents), [_range([_levels(scan) for scan in channel]) for channel in channels]
        )

    @classmethod
    def from_json(cls, values: Any) -> Familiar | None:
        """The ranges in a model's card; None if it has none or others."""
        try:
            found = cls(**values)
            sizes = {np.shape(found.spacing), np.shape(found.extent), *map(np.shape, found.intensities)}
        except (TypeError, ValueError):
            return None
        return found if sizes == {(3, 2)} else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def differences(
        self, channels: Sequence[sitk.Image], normalisations: Sequence[Normalization], roi: Roi | None = None
    ) -> list[str]:
        """How a scan differs from those that the model has learned from, as a phrase; empty if it does not.

        Args:
            channels: The scan.
            normalisations: The model's; intensities count where they are taken as they are.
            roi: Only this box is looked at: it may be smaller than the scans learned from.
        """
        grid = Grid.of(channels[0])
        spacing, extent = _in_lps(grid.size, grid.spacing, orientation_code(grid))
        found = []
        low, high = np.array(self.spacing).T
        if (spacing < low / _FACTOR).any() or (spacing > high * _FACTOR).any():
            # The network gets every scan in the spacing that it has learned, axis by axis: turned slices are blurred.
            turned = not (np.sort(spacing) < np.sort(low) / _FACTOR).any()
            turned = turned and not (np.sort(spacing) > np.sort(high) * _FACTOR).any()
            found.append(
                f"{'its slices lie in another direction: ' if turned else ''}its voxels measure {_edges(spacing)} mm "
                f"{_AXES} (learned from: {_edges(low)} to {_edges(high)})"
            )
        if roi is not None:
            half = np.array(roi.half_size_mm)[list(axes_towards(grid).source)]
            extent = np.minimum(extent, 2 * half)
        low, high = np.array(self.extent).T
        # A field of view may be turned: 256 x 120 x 256 mm of a coronal scan are the 256 x 256 x 120 of an axial one.
        sizes, least, most = np.sort(extent), np.sort(low), np.sort(high)
        if (roi is None and (sizes < least / _FACTOR).any()) or (sizes > most * _FACTOR).any():
            found.append(f"it measures {_edges(extent)} mm {_AXES} (learned from: {_edges(low)} to {_edges(high)})")
        for image, normalization, ranges in zip(channels, normalisations, self.intensities, strict=False):
            view = sitk.GetArrayViewFromImage(image)
            if normalization.scheme in _RAW:
                found += _unlike(ImageStatistics.of(view, None), ranges)
            elif ranges[0][0] > _CT_LOWEST >= view.min() and ImageStatistics.of(view, None).looks_like_ct:
                # Scaled by its own deviation any scan gets an answer.
                found.append(f"it looks like CT (learned from: intensities from {ranges[0][0]:.4g} on)")
        return found


def _unlike(scan: ImageStatistics, ranges: list[list[float]]) -> list[str]:
    levels, (low, high) = _levels(scan), np.array(ranges).T
    margin = _MARGIN * max(high[-1] - low[0], 1e-6)
    # A scan that covers a part of the range only (a crop, little air) is like those learned from.
    narrow = (levels[-1] - levels[0]) < 0.1 * (low[-1] - high[0])
    if narrow or (levels < low - margin).any() or (levels > high + margin).any():
        return [
            f"its intensities reach from {levels[0]:.4g} to {levels[-1]:.4g} "
            f"(learned from: {low[0]:.4g} to {high[-1]:.4g})"
        ]
    return []


def _levels(scan: ImageStatistics) -> np.ndarray:
    return np.array([scan.quantiles[0], scan.quantiles[50], scan.quantiles[-1]])


def _range(rows: Sequence[np.ndarray]) -> list[list[float]]:
    low, high = np.min(rows, axis=0), np.max(rows, axis=0)
    return [[round(float(a), 4), round(float(b), 4)] for a, b in zip(low, high, strict=True)]


def _in_lps(size: Sequence[int], spacing: Sequence[float], orientation: str) -> tuple[np.ndarray, np.ndarray]:
    order = [next(n for n, code in enumerate(orientation) if code in pair) for pair in ("LR", "AP", "SI")]
    edges = np.array(spacing)[order]
    return edges, edges * np.array(size)[order]


def _edges(values: np.ndarray) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
