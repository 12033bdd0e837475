# SPDX-License-Identifier: Apache-2.0
"""Volumes and lesions as tables that a spreadsheet opens.

A lesion is a 26-connected component of a label. Texts that a spreadsheet would take for a formula get an apostrophe.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from barl.images.components import components
from barl.images.geometry import Grid
from barl.project.files import write_atomically
from barl.project.labels import Label

# OWASP, "CSV Injection".
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

VOLUME_COLUMNS = (
    "case",
    "revision",
    "kind",
    "author",
    "label",
    "name",
    "volume_ml",
    "voxels",
    "lesions",
    "looked_share",
)
LESION_COLUMNS = ("case", "label", "name", "lesion", "volume_ml", "voxels", "x_mm", "y_mm", "z_mm", "extent_mm")


def measure(label: np.ndarray, grid: Grid, labels: Sequence[Label]) -> tuple[list[tuple], list[tuple]]:
    """The rows of a case without the columns before ``label``.

    Args:
        label: Label map ``[k, j, i]``.
        grid: Where its voxels lie.
        labels: The label table.

    Returns:
        Rows for volumes (``label``, ``name``, ``volume_ml``, ``voxels``, ``lesions``) and for lesions (``label``,
        ``name``, ``lesion`` from 1 the largest, ``volume_ml``, ``voxels``, center of mass in LPS mm, and the longest
        edge of the box around it in mm).
    """
    volumes, lesions = [], []
    for row in labels:
        numbers, count = components(label == row.value)
        voxels = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        volumes.append((row.value, row.name, round(float(voxels.sum() * grid.voxel_ml), 6), int(voxels.sum()), count))
        if not count:
            continue
        centers = np.array(ndimage.center_of_mass(numbers > 0, numbers, range(1, count + 1))).reshape(count, 3)
        places = grid.index_to_mm(centers[:, ::-1])
        boxes = ndimage.find_objects(numbers)
        for rank, n in enumerate(np.argsort(-voxels, kind="stable"), 1):
            edges = [(part.stop - part.start) * step for part, step in zip(boxes[n][::-1], grid.spacing, strict=True)]
            place = [round(float(part), 3) for part in places[n]]
            ml = round(float(voxels[n] * grid.voxel_ml), 6)
            lesions.append((row.value, row.name, rank, ml, int(voxels[n]), *place, round(max(edges), 3)))
    return volumes, lesions


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as comma-separated values in UTF-8; with a byte order mark, without which Excel breaks accents.

    Raises:
        StorageError: The disk is full or read-only.
    """

    def write(place: Path) -> None:
        with place.open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([header, *([plain_cell(value) for value in row] for row in rows)])

    write_atomically(path, write)


def plain_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return "'" + value
    return value
