# SPDX-License-Identifier: Apache-2.0
"""Filling files: a scan and what was drawn on it in, the whole outline out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.fill.drawn import drawn_voxels
from barl.fill.expectation import expect
from barl.fill.filling import Prediction, fill_scan
from barl.fill.next_plane import next_plane
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels, read_image
from barl.images.writing import check_outputs, write_image
from barl.progress import SILENT, Progress

_VALUES = range(1, 65536)


@dataclass(frozen=True)
class Task:
    """The files of one scan.

    Attributes:
        scan: One file or DICOM folder per channel.
        labels: Label map of what was drawn, on the scan's grid.
        output: Gets the whole outline.
        drawn: Mask of the voxels that were drawn or looked at; None: found by ``drawn_voxels``.
        prior: A model's label map, which pulls.
        prior_uncertainty: Its uncertainty, 0 to 1.
        uncertainty: Gets the uncertainty of the fill.
    """

    scan: Sequence[Path]
    labels: Path
    output: Path
    drawn: Path | None = None
    prior: Path | None = None
    prior_uncertainty: Path | None = None
    uncertainty: Path | None = None


def fill_files(task: Task, *, overwrite: bool = False, progress: Progress = SILENT) -> dict[str, Any]:
    """Fill one scan.

    Returns:
        What was done, for JSON: ``output``, ``drawn_voxels``, ``ml`` (per label value), ``expected_dice``,
        ``planes_worth`` and ``expected_dice_after`` (null where the calibration does not hold), ``trust``,
        ``next_plane`` and ``notes``.

    Raises:
        InputError: A file cannot be used, or an output is there already and may not be overwritten.
        StorageError: An output cannot be written.
        Cancelled: The work was ended.
    """
    outputs = [path for path in (task.output, task.uncertainty) if path is not None]
    others = (task.drawn, task.prior, task.prior_uncertainty)
    check_outputs(outputs, [*task.scan, task.labels, *(path for path in others if path is not None)], overwrite)
    if task.prior_uncertainty is not None and task.prior is None:
        raise InputError(
            "An uncertainty of a prediction is given without the prediction.", "Name its label map with --prior."
        )
    notes: list[str] = []
    scans = read_channels(task.scan, notes)
    grid = Grid.of(scans[0])
    labels = _labels(task.labels, grid, notes)
    drawn = drawn_voxels(labels)
    if task.drawn is not None:
        drawn = _labels(task.drawn, grid) != 0
        if (outside := np.count_nonzero((labels != 0) & ~drawn)) > 0:
            notes.append(f"{outside} labeled voxels lie outside of the mask of drawn voxels and were not used.")
    prediction = None
    if task.prior is not None:
        prediction = Prediction(_labels(task.prior, grid), read_uncertainty(task.prior_uncertainty, grid))
    arrays = [sitk.GetArrayViewFromImage(scan) for scan in scans]
    filled = fill_scan(arrays, labels, grid.spacing[::-1], drawn, prediction, progress=progress)
    write_image(grid.image(filled.labels), task.output)
    if task.uncertainty is not None:
        write_image(grid.image(filled.uncertainty()), task.uncertainty)
    plane = next_plane(filled, drawn)
    expected = expect(filled, drawn, plane)
    return {
        "output": task.output,
        "drawn_voxels": int(np.count_nonzero(drawn)),
        "ml": {str(v): float(np.count_nonzero(filled.labels == v)) * grid.voxel_ml for v in filled.values},
        "expected_dice": None if expected is None else expected.dice,
        "planes_worth": None if expected is None else expected.planes,
        "expected_dice_after": None if expected is None else expected.dice_after,
        "trust": filled.trust,
        "next_plane": None if plane is None else {"axis": "kji"[plane.axis], "index": plane.index},
        "notes": notes,
    }


def _labels(path: Path, grid: Grid, notes: list[str] | None = None) -> np.ndarray:
    """The values of a label map ``[k, j, i]``, in one byte each where that holds them."""
    array = _array(read_label(path, grid, _VALUES, notes=notes))
    return array.astype(np.uint8) if array.max() < 256 else array


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def read_uncertainty(path: Path | None, grid: Grid) -> np.ndarray | None:
    """A map of uncertainty, ``[k, j, i]``, float32, 0 to 1; None without a file.

    Raises:
        InputError: It does not lie on the grid, or holds other values.
    """
    if path is None:
        return None
    image = read_image(path)
    if not grid.matches(Grid.of(image)):
        raise InputError(f"'{path.name}' does not lie on the scan's grid.", "Use the uncertainty of this scan.")
    array = _array(image).astype(np.float32)
    if array.max() > 1:  # projects store it as whole numbers from 0 to 255
        array /= 255
    if array.min() < 0 or array.max() > 1:
        raise InputError(f"'{path.name}' holds values beyond 0 to 1 (or 255).", "Use a map of uncertainty.")
    return array
