# SPDX-License-Identifier: Apache-2.0
"""What a person did with a prediction: the hot-spots looked at and the outline corrected, kept in the journal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import SimpleITK as sitk

from barl.errors import BarlError
from barl.images.label_maps import read_label
from barl.images.overlap import count_labels
from barl.project.acceptance import check_outline
from barl.project.doubts import Doubt
from barl.project.labels import Label
from barl.project.records import Revision
from barl.project.states import RevisionKind
from barl.project.store import Project

_SEEN = "hot-spots seen"


@dataclass(frozen=True, slots=True)
class LabelChange:
    """What a correction did to one label.

    Attributes:
        value, name: The label.
        before_voxels, after_voxels: Its voxels before and after.
        added_voxels, removed_voxels: Voxels that became it and that were taken from it.
        before_ml, after_ml, added_ml, removed_ml: The same in milliliters.
    """

    value: int
    name: str
    before_voxels: int
    after_voxels: int
    added_voxels: int
    removed_voxels: int
    before_ml: float
    after_ml: float
    added_ml: float
    removed_ml: float


def compare_label_maps(
    before: np.ndarray | None, after: np.ndarray, labels: Sequence[Label], voxel_ml: float
) -> list[LabelChange]:
    """What changed between two label maps ``[k, j, i]`` of the same shape, for each label of the table.

    Args:
        before: None: there was nothing before.
    """
    largest = max(label.value for label in labels)
    counts = count_labels(np.zeros_like(after) if before is None else before, after, largest)
    changes = []
    for label in labels:
        old, new, same = (int(row[label.value]) for row in counts)
        voxels = (old, new, new - same, old - same)
        changes.append(LabelChange(label.value, label.name, *voxels, *(round(n * voxel_ml, 6) for n in voxels)))
    return changes


def store_correction(
    project: Project,
    case_id: str,
    label: sitk.Image,
    kind: str,
    *,
    author: str,
    prediction: Revision | None,
    editing_seconds: float,
    looked: sitk.Image | None = None,
    filled_by: str | None = None,
    uncertainty: sitk.Image | None = None,
    since: str | None = None,
    allow: Collection[Doubt] | None = None,
) -> Revision:
    """Keep a corrected outline, and in the journal what the correction changed, by whom and how long it took.

    The same facts are in the revision's ``details["correction"]``: ``prediction`` (id), ``editing_seconds`` since the
    case was last stored, ``editing_seconds_total`` with the drafts of this correction, ``labels``: a ``LabelChange``
    each, against the prediction (against nothing if there was none or its file is damaged).

    Args:
        label: On the case's own grid, with the values of the label table.
        kind: ``draft`` or ``accepted``.
        author: Who corrected: a person's or a role's name, not a patient's.
        prediction: What was corrected, if anything.
        editing_seconds: Time spent since the case was opened or last stored.
        looked, filled_by: As for ``Revisions.store``: which voxels a person has looked at, what made the others.
        uncertainty: Of the voxels that were filled, float in [0, 1] on the same grid.
        since: Id of the newest revision that the author has seen, empty if there was none: an outline that somebody
            accepted later is then an error. None: do not compare.
        allow: Doubts that are confirmed, for an accepted outline that is empty or unlike the accepted one before;
            None: no such doubt is raised.

    Raises:
        DoubtError: Another outline was accepted after ``since``, or a doubt is not in ``allow``.
        BarlError: As for ``Revisions.store``.
    """
    if kind == RevisionKind.ACCEPTED and allow is not None:
        check_outline(project, project.cases.get(case_id), label, allow, looked=looked)
    grid, before, note = project.cases.grid(case_id), None, {}
    if prediction is not None and label.GetSize() == grid.size:  # else store_revision says what is wrong
        try:
            before = sitk.GetArrayFromImage(read_label(prediction.path, grid, project.values))
        except BarlError as error:  # what the expert drew is worth more than the comparison
            note = {"note": f"not compared with the prediction: {error.message}"}
    changes = compare_label_maps(before, sitk.GetArrayViewFromImage(label), project.labels, grid.voxel_ml)
    facts = {
        "prediction": prediction.id if prediction else None,
        "editing_seconds": round(editing_seconds, 1),
        "editing_seconds_total": round(editing_seconds + _spent_on_drafts(project, case_id), 1),
        "labels": [asdict(change) for change in changes],
        **note,
    }
    return project.revisions.store(
        case_id,
        label,
        kind,
        author=author,
        model_id=prediction.model_id if prediction else None,
        uncertainty=uncertainty,
        looked=looked,
        filled_by=filled_by,
        details={"correction": facts},
        journal=facts,
        since=since,
    )


def _spent_on_drafts(project: Project, case_id: str) -> float:
    """Editing time of the drafts since the last outline that was accepted, or since the last prediction."""
    seconds = 0.0
    for revision in reversed(project.revisions.of(case_id)):
        if not revision.is_draft:
            break
        seconds += revision.details.get("correction", {}).get("editing_seconds", 0.0)
    return seconds


def mark_hotspots(project: Project, revision: Revision, ranks: Iterable[int]) -> None:
    """Enter in the journal which hot-spots of a prediction have been looked at: these and no others.

    Raises:
        ProjectError: Another program is changing the project, or it is open for reading only.
    """
    project.journal.log(_SEEN, revision.case_id, revision=revision.id, ranks=sorted(ranks))


def seen_hotspots(project: Project, revision: Revision) -> set[int]:
    """Ranks of the prediction's hot-spots that somebody has looked at."""
    for entry in reversed(project.journal.entries(revision.case_id)):
        if entry.action == _SEEN and entry.facts.get("revision") == revision.id:
            return set(entry.facts["ranks"])
    return set()
