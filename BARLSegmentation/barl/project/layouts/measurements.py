# SPDX-License-Identifier: Apache-2.0
"""Volumes and lesions as tables that a spreadsheet opens.

A lesion is a 26-connected component of a label. Cases of one subject have the same ``subject``. ``looked_share`` is
that of an accepted outline; nobody need have looked at a prediction. Texts that a spreadsheet would take for a formula
get an apostrophe.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from barl.images.geometry import Grid
from barl.images.lesions import Lesion, find_lesions
from barl.project.files import write_atomically
from barl.project.labels import Label

# OWASP, "CSV Injection".
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

VOLUME_COLUMNS = (
    "case",
    "subject",
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
LESION_COLUMNS = (
    "case",
    "subject",
    "label",
    "name",
    "lesion",
    "volume_ml",
    "voxels",
    "x_mm",
    "y_mm",
    "z_mm",
    "extent_mm",
    "diameter_mm",
    "confidence",
)


def measure(
    label: np.ndarray, grid: Grid, labels: Sequence[Label], uncertainty: np.ndarray | None = None
) -> tuple[list[tuple], list[tuple]]:
    """The rows of a case without the columns before ``label``.

    Args:
        label: Label map ``[k, j, i]``.
        grid: Where its voxels lie.
        labels: The label table.
        uncertainty: ``[k, j, i]`` in [0, 1]; None: not known.

    Returns:
        Rows for volumes (``label``, ``name``, ``volume_ml``, ``voxels``, ``lesions``) and for lesions (``label``,
        ``name``, ``lesion`` from 1 the largest, and so on; ``barl.images.lesions.Lesion``).
    """
    found = find_lesions(label, grid, [row.value for row in labels], uncertainty)
    names = {row.value: row.name for row in labels}
    volumes = []
    for row in labels:
        own = [lesion.voxels for lesion in found if lesion.value == row.value]
        volumes.append((row.value, row.name, round(sum(own) * grid.voxel_ml, 6), sum(own), len(own)))
    return volumes, [_lesion_row(lesion, names[lesion.value]) for lesion in found]


def _lesion_row(lesion: Lesion, name: str) -> tuple:
    place = [round(part, 3) for part in lesion.center_mm]
    sure = "" if lesion.confidence is None else round(lesion.confidence, 3)
    sizes = (round(lesion.extent_mm, 3), round(lesion.diameter_mm, 3))
    return (lesion.value, name, lesion.rank, round(lesion.ml, 6), lesion.voxels, *place, *sizes, sure)


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
