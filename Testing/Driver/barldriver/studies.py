# SPDX-License-Identifier: Apache-2.0
"""Tiny scans and projects for tests of panels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from barl.project.labels import Channel, Label
from barl.project.store import Project

LABELS = [Label(1, "liver"), Label(3, "tumor")]


def an_image(value: float = 0.0) -> sitk.Image:
    """A scan of 6 x 5 x 4 voxels of one value."""
    image = sitk.GetImageFromArray(np.full((4, 5, 6), value, np.float32))
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetOrigin((-7.0, 8.0, 9.0))
    return image


def a_map(count: int) -> sitk.Image:
    """An outline of ``an_image``: ``count`` voxels of liver."""
    array = np.zeros((4, 5, 6), np.uint8)
    array[1, 2, :count] = 1
    label = sitk.GetImageFromArray(array)
    label.CopyInformation(an_image())
    return label


def make_study(folder: Path) -> Path:
    """A project with the cases 2 (accepted, Dice 0.67), 10 (predicted) and 1 (new)."""
    with Project.create(folder, "Study", LABELS, [Channel("CT")]) as project:
        for number in (2, 10, 1):
            project.cases.add(f"case {number}", [an_image()])
        second, tenth, _first = (case.id for case in project.cases.all())
        for case, uncertainty in ((second, 0.2), (tenth, 0.6)):
            project.revisions.store(case, a_map(4), "prediction", author="model", case_uncertainty=uncertainty)
        project.revisions.store(second, a_map(2), "accepted", author="reader")
    return folder


def cells(panel, column: int) -> list[str]:
    """The texts of a column of the table of cases."""
    table = panel.ui.casesTable
    return [table.item(row, column).text() for row in range(table.rowCount)]
