# SPDX-License-Identifier: Apache-2.0
"""The lesions of the outline on screen and of the subject's other cases, without a window."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseLoader import CaseLoader
from BARLSegmentationLib.logic.Prediction import forgetFile

if TYPE_CHECKING:
    import numpy as np
    from barl.images.geometry import Grid
    from barl.images.lesions import Lesion
    from barl.project.labels import Label
    from barl.project.store import Project

    from BARLSegmentationLib.logic.Outline import Snapshot

_OTHERS = 5  # cases of the same subject, the newest


@dataclass(frozen=True)
class Count:
    """How many lesions a case has, and how large they are together."""

    case: str
    lesions: int
    ml: float


@dataclass(frozen=True)
class OtherCase:
    """The newest outline or prediction of another case of the subject."""

    name: str
    path: Path
    grid: Grid


def otherCases(project: Project, caseId: str) -> list[OtherCase]:
    """The other cases of the same subject that have an outline or a prediction, in the order of the project."""
    own = project.cases.get(caseId)
    alike = [case for case in project.cases.all() if own.group and case.group == own.group and case.id != own.id]
    found = []
    for case in alike[-_OTHERS:]:
        newest = project.revisions.newest(case.id)
        if newest is not None:
            found.append(OtherCase(case.name, newest.path, project.cases.grid(case.id)))
    return found


def measure(
    snapshot: Snapshot, uncertainty: Path | None, others: Sequence[OtherCase]
) -> tuple[list[Lesion], list[Count]]:
    """The lesions of an outline, and the counts of the subject's other cases. Takes a second on a large scan.

    Args:
        snapshot: The outline.
        uncertainty: The file of its prediction's uncertainty, on the same grid.
        others: Of the same subject.
    """
    import SimpleITK as sitk
    from barl.images.lesions import find_lesions

    values = [label.value for label in snapshot.labels]
    unsure: np.ndarray | None = None
    if uncertainty is not None:
        unsure = sitk.GetArrayFromImage(sitk.ReadImage(str(uncertainty)))
    lesions = find_lesions(snapshot.labelMap()[0], snapshot.grid, values, unsure)
    counts = []
    for other in others:
        found = find_lesions(sitk.GetArrayFromImage(sitk.ReadImage(str(other.path))), other.grid, values)
        counts.append(Count(other.name, len(found), sum(lesion.ml for lesion in found)))
    return lesions, counts


def asSegments(
    lesions: Sequence[Lesion], grid: Grid, labels: Sequence[Label], volume: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkMRMLSegmentationNode:
    """A new segmentation in which each lesion is a segment, in the color of its label."""
    from barl.images.lesions import numbered
    from barl.images.writing import write_image
    from barl.project.labels import Label

    rows = {label.value: label for label in labels}
    table = [
        Label(number, lesionName(lesion, rows[lesion.value].name), rows[lesion.value].color)
        for number, lesion in enumerate(lesions, 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lesions.nrrd"
        write_image(grid.image(numbered(lesions, grid.shape)), path)
        name = volume.GetScene().GetUniqueNameByString(_("{volume} lesions").format(volume=volume.GetName()))
        node = CaseLoader(volume.GetScene()).readSegmentation(path, name, table, volume, {})
    forgetFile(node)
    return node


def lesionName(lesion: Lesion, label: str) -> str:
    """The name of a label and the rank of a lesion."""
    return f"{label} {lesion.rank}"
