# SPDX-License-Identifier: Apache-2.0
"""Size, spacing, intensities and components of a case; a training plan is made from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.images.components import bounding_box, components
from barl.images.geometry import Grid, orientation_code
from barl.images.intensity import ImageStatistics


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


def _label_statistics(mask: np.ndarray, grid: Grid) -> LabelStatistics:
    # Only the box around the label: the component numbers take four bytes a voxel.
    box = bounding_box(mask)
    if box is None:
        return LabelStatistics(0, 0.0, 0)
    voxels = int(np.count_nonzero(mask[box]))
    _, count = components(mask[box])
    return LabelStatistics(voxels, voxels * grid.voxel_ml, int(count))
