# SPDX-License-Identifier: Apache-2.0
"""Size, spacing, intensities and components of a case: for a training plan, and for a comparison of scans."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.images.components import bounding_box, components
from barl.images.geometry import Grid, orientation_code
from barl.images.intensity import ImageStatistics

_FEATURE_VOXELS = 50_000


@dataclass(frozen=True)
class LabelStatistics:
    """One label in one case: its voxels, its volume in ml, and its 26-connected components."""

    voxels: int
    ml: float
    components: int


@dataclass(frozen=True)
class CaseFingerprint:
    """Size, spacing, intensities and components of one case.

    Attributes:
        size, spacing: Of the scan, (x, y, z), voxels and mm, in the scan's own axis order.
        orientation: Where those axes point to, such as ``LPS`` (nearest axis).
        channels: Intensity statistics per channel.
        labels: Per label value of the table, 0 voxels where absent; empty for a case without a label map.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str
    channels: tuple[ImageStatistics, ...]
    labels: dict[int, LabelStatistics] = field(default_factory=dict)

    def to_json(self) -> dict:
        return {
            "size": list(self.size),
            "spacing": list(self.spacing),
            "orientation": self.orientation,
            "channels": [channel.to_json() for channel in self.channels],
            "labels": {str(value): asdict(label) for value, label in self.labels.items()},
        }

    @classmethod
    def from_json(cls, data: dict) -> CaseFingerprint:
        return cls(
            tuple(data["size"]),
            tuple(data["spacing"]),
            data["orientation"],
            tuple(ImageStatistics.from_json(channel) for channel in data["channels"]),
            {int(value): LabelStatistics(**label) for value, label in data["labels"].items()},
        )


def fingerprint_case(
    channels: Sequence[sitk.Image], label: sitk.Image | None, values: Collection[int]
) -> CaseFingerprint:
    """Measure a case.

    Args:
        channels: Its images, all on one grid.
        label: Its label map on the same grid, or None.
        values: The label values of the project's table (background 0 not among them).

    Raises:
        InputError: The label map is not on the grid of the images.
    """
    grid = Grid.of(channels[0])
    foreground, labels = None, {}
    if label is not None:
        if not grid.matches(Grid.of(label)):
            raise InputError("The label map is not on the grid of its scan.", "Outline the scan itself.")
        array = sitk.GetArrayViewFromImage(label)
        foreground = array != 0
        labels = {value: _label_statistics(array == value, grid) for value in sorted(values)}
    return CaseFingerprint(
        grid.size,
        grid.spacing,
        orientation_code(grid),
        tuple(ImageStatistics.of(sitk.GetArrayViewFromImage(channel), foreground) for channel in channels),
        labels,
    )


def scan_features(channels: Sequence[sitk.Image]) -> list[float]:
    """Numbers by which scans can be compared before there is a model; like scans have like numbers.

    The logarithms of extent and spacing along each axis in mm; for each channel where the quartiles lie between the
    0.5th and the 99.5th percentile, the logarithm of 1 + the distance of these two, and the share of zeros. Measured on
    at most ``_FEATURE_VOXELS`` voxels.
    """
    grid = Grid.of(channels[0])
    extent = np.array(grid.size) * grid.spacing
    features = [*np.log(extent).tolist(), *np.log(grid.spacing).tolist()]
    step = max(1, round((np.prod(grid.size) / _FEATURE_VOXELS) ** (1 / 3)))
    for channel in channels:
        sample = sitk.GetArrayViewFromImage(channel)[::step, ::step, ::step].astype(np.float64).ravel()
        sample = np.nan_to_num(sample)
        low, *quartiles, high = np.quantile(sample, [0.005, 0.25, 0.5, 0.75, 0.995])
        width = max(float(high - low), 1e-12)
        features += [float((q - low) / width) for q in quartiles]
        features += [float(np.log1p(width)), float(np.mean(sample == 0))]
    return features


def _label_statistics(mask: np.ndarray, grid: Grid) -> LabelStatistics:
    # Only the box around the label: the component numbers take four bytes a voxel.
    box = bounding_box(mask)
    if box is None:
        return LabelStatistics(0, 0.0, 0)
    voxels = int(np.count_nonzero(mask[box]))
    _, count = components(mask[box])
    return LabelStatistics(voxels, voxels * grid.voxel_ml, int(count))
