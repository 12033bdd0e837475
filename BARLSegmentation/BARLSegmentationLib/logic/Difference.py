# SPDX-License-Identifier: Apache-2.0
"""What the newest prediction of a case changed against the one before it, as segments."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseLoader import CaseLoader
from BARLSegmentationLib.logic.Prediction import forgetFile

if TYPE_CHECKING:
    from barl.project.records import Revision
    from barl.project.store import Project

NEW_COLOR, GONE_COLOR = (60, 200, 90), (220, 60, 200)


def lastTwo(project: Project, caseId: str) -> tuple[Revision, Revision] | None:
    """The newest prediction of a case and the newest one of another model; None without both."""
    predictions = [revision for revision in project.revisions.of(caseId) if revision.is_prediction]
    if not predictions:
        return None
    new = predictions[-1]
    others = [revision for revision in predictions if revision.model_id != new.model_id]
    return (new, others[-1]) if others else None


def showDifference(
    project: Project, new: Revision, before: Revision, volume: slicer.vtkMRMLScalarVolumeNode
) -> tuple[slicer.vtkMRMLSegmentationNode | None, float]:
    """Segments of what each label gained and lost.

    Args:
        project: Its labels name the segments.
        new, before: Two predictions of one case.
        volume: The scan.

    Returns:
        A new segmentation, or None if nothing changed; and the volume in ml that has another label than before.
    """
    import numpy as np
    import SimpleITK as sitk
    from barl.images.geometry import Grid
    from barl.images.writing import write_image
    from barl.project.labels import Label

    image = sitk.ReadImage(str(new.path))
    grid, now = Grid.of(image), sitk.GetArrayFromImage(image)
    old = sitk.GetArrayFromImage(sitk.ReadImage(str(before.path)))
    label, table = np.zeros(now.shape, np.uint16), []
    for row in project.labels:
        for mask, words, color in (
            ((now == row.value) & (old != row.value), _("{name}: new"), NEW_COLOR),
            ((old == row.value) & (now == 0), _("{name}: gone"), GONE_COLOR),
        ):
            if mask.any():
                table.append(Label(len(table) + 1, words.format(name=row.name), color))
                label[mask] = len(table)
    changed = float(np.count_nonzero(now != old) * grid.voxel_ml)
    if not table:
        return None, changed
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "difference.nrrd"
        write_image(grid.image(label), path)
        name = _("{volume}: {new} against {before}").format(
            volume=volume.GetName(), new=new.model_id or new.author, before=before.model_id or before.author
        )
        unique = volume.GetScene().GetUniqueNameByString(name)
        node = CaseLoader(volume.GetScene()).readSegmentation(path, unique, table, volume, {})
    forgetFile(node)
    return node, changed
