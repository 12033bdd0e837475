# SPDX-License-Identifier: Apache-2.0
"""Filling the scan on a window's screen: arrays in a folder of files in, arrays out. No PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl import __version__
from barl.errors import InputError
from barl.fill.drawn import bounding_box
from barl.fill.expectation import expect
from barl.fill.files import read_uncertainty
from barl.fill.filling import Filled, Prediction, fill_scan
from barl.fill.next_plane import next_plane
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.inference.hotspots import find_hotspots, half_a_bit
from barl.progress import SILENT, Progress

LABELS, DRAWN, FILLED, UNCERTAINTY = "labels.npy", "drawn.npy", "filled.npy", "uncertainty.npy"
_VALUES = range(1, 65536)


@dataclass(frozen=True)
class ScanToFill:
    """What does not change from fill to fill.

    Attributes:
        grid: Of the scan.
        images: Its channels, ``[k, j, i]``.
        prediction: What a model has said about it, if anything.
    """

    grid: Grid
    images: list[np.ndarray]
    prediction: Prediction | None


class WarmScan:
    """The scan that was filled last, kept in memory for the next fill."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._read: ScanToFill | None = None

    def read(self, scans: Sequence[Path], prior: Path | None, prior_uncertainty: Path | None) -> ScanToFill:
        """Read a scan, unless its files are those of the last one and have not changed.

        Args:
            scans: One file per channel.
            prior: Label map of a prediction.
            prior_uncertainty: Its uncertainty.

        Raises:
            InputError: A file cannot be used.
        """
        files = [path for path in (*scans, prior, prior_uncertainty) if path is not None and path.exists()]
        key = (tuple(scans), prior, prior_uncertainty, tuple(path.stat().st_mtime_ns for path in files))
        if self._read is None or self._key != key:
            images = read_channels(scans)
            grid, prediction = Grid.of(images[0]), None
            if prior is not None:
                labels = sitk.GetArrayFromImage(read_label(prior, grid, _VALUES))
                prediction = Prediction(labels, read_uncertainty(prior_uncertainty, grid))
            self._read = ScanToFill(grid, [sitk.GetArrayFromImage(image) for image in images], prediction)
            self._key = key
        return self._read


def fill_drawn(scan: ScanToFill, folder: Path, progress: Progress = SILENT) -> dict[str, Any]:
    """Fill a scan.

    Args:
        scan: What is filled.
        folder: Holds ``LABELS``, the label map ``[k, j, i]``, and ``DRAWN``, a mask of the voxels that are drawn
            (``numpy.packbits``); gets ``FILLED`` and ``UNCERTAINTY`` of the box outside of which nothing is labeled.
        progress: Of the work.

    Returns:
        The fields of ``barl.worker.messages.FilledScan``.

    Raises:
        InputError: Nothing is drawn, or the outline does not lie on the scan's grid.
        Cancelled: The work was ended.
    """
    grid = scan.grid
    labels = np.load(folder / LABELS, allow_pickle=False)
    drawn = np.unpackbits(np.load(folder / DRAWN, allow_pickle=False), count=labels.size).astype(bool)
    if labels.shape != grid.shape:
        raise InputError("The outline does not lie on the grid of the scan.", "Open the case again.")
    mask = drawn.reshape(labels.shape)
    filled = fill_scan(scan.images, labels, grid.spacing[::-1], mask, scan.prediction, progress=progress.part(0, 0.8))
    progress.raise_if_cancelled()
    uncertainty = filled.uncertainty()
    box = bounding_box((filled.labels != 0) | (uncertainty > 0)) or tuple(slice(0, 1) for _ in range(3))
    threshold = half_a_bit(len(filled.values) + 1)
    hotspots = find_hotspots(uncertainty, grid, _likeliest(filled), threshold)
    progress.stage("fill").at(0.95)
    expected = expect(filled, mask, next_plane(filled, mask))
    np.save(folder / FILLED, filled.labels[box])
    np.save(folder / UNCERTAINTY, uncertainty[box])
    return {
        "start": [side.start for side in box],
        "volume_ml": int(np.count_nonzero(filled.labels[box])) * grid.voxel_ml,
        "unsure_ml": int(np.count_nonzero(uncertainty[box] >= threshold)) * grid.voxel_ml,
        "hotspots": [spot.to_json() for spot in hotspots],
        "trust": filled.trust,
        "expected": None if expected is None else dataclasses.asdict(expected),
        "filled_by": f"barl fill {__version__}",
    }


def _likeliest(filled: Filled) -> np.ndarray:
    """The likeliest label of each voxel, background left out; 0 where none is likely."""
    result = filled.labels.copy()
    for box, probabilities in filled.parts:
        likeliest = np.asarray(filled.values)[probabilities.argmax(axis=0)]
        result[box] = np.where(probabilities.max(axis=0) > 0, likeliest, 0)
    return result
