# SPDX-License-Identifier: Apache-2.0
"""Accepting an outline, and bringing an earlier revision back, without replacing an expert's work by an oversight."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, ProjectError
from barl.images.label_maps import read_label, read_mask
from barl.images.reading import read_image
from barl.project.doubts import Doubt, DoubtError, check_alike, check_mask, check_not_empty, mask_doubt
from barl.project.records import Case, Revision
from barl.project.staging import Looked, read_outline
from barl.project.states import CaseState, RevisionKind
from barl.project.store import Project

_STATES = {
    RevisionKind.PREDICTION: CaseState.PREDICTED,
    RevisionKind.DRAFT: CaseState.IN_REVIEW,
    RevisionKind.ACCEPTED: CaseState.ACCEPTED,
}


@dataclass(frozen=True)
class Stored:
    """A revision that was stored, and the accepted one that it took the place of.

    Attributes:
        revision: The new revision.
        replaced: The accepted outline until then, if there was one.
        difference: Share of the voxels outlined in either in which they differ; None: there was nothing to compare.
        notes: What a user should know of the file that was read.
    """

    revision: Revision
    replaced: Revision | None = None
    difference: float | None = None
    notes: tuple[str, ...] = ()

    def in_words(self, case_name: str) -> str:
        """One or two sentences."""
        verb = "is now the accepted outline" if self.revision.is_accepted else f"is now the {self.revision.kind}"
        text = f"{self.revision.id} {verb} of {case_name}."
        if self.revision.looked:
            text += (
                f" {self.revision.looked_share:.1%} of the scan's voxels were looked at; only these are taken as true."
            )
        if self.replaced is None:
            return text
        old = f"{self.replaced.id} (by {self.replaced.author}, {self.replaced.created[:10]})"
        share = "" if self.difference is None else f"; they differ in {self.difference:.0%} of their voxels"
        return f"{text} It replaces {old}{share}. Nothing was removed."


def accept(
    project: Project,
    case_id: str,
    outline: Path | sitk.Image | Revision,
    *,
    author: str,
    allow: Collection[Doubt] = (),
    since: str | None = None,
    resample: bool = False,
    meaning: Mapping[int | str, int] | None = None,
    looked: Looked | None = None,
    filled_by: str | None = None,
    uncertainty: sitk.Image | None = None,
    whole: bool = False,
) -> Stored:
    """Store an outline as the accepted one of a case.

    Args:
        project: Open for writing.
        case_id: Id or name.
        outline: A label map, a file that holds one, or a revision of the case, such as its prediction.
        author: Who accepts it: a person's or a role's name, not a patient's.
        allow: The doubts that are confirmed.
        since: Id of the newest revision that the author has seen, empty if there was none; None: do not compare.
        resample: Bring a file of another grid onto the scan's, nearest voxel.
        meaning: Value or segment's name in the file -> value of the label table, where they are others.
        looked: Which voxels the author has looked at: a mask on the scan's grid (image or file), not 0 where looked at,
            or the value in the file that means that nobody has. None: those of the revision, if a partial one is
            accepted, else the whole scan.
        filled_by: What made the voxels that nobody looked at; None: what the revision says.
        uncertainty: Of the filled voxels, float in [0, 1] on the scan's grid; None: that of a partial revision.
        whole: The whole scan was looked at, whatever the revision says.

    Raises:
        DoubtError: The outline is empty or unlike the accepted one, a revision that is not accepted would take the
            place of an accepted one, or another outline was accepted since; and ``allow`` lacks the doubt. An outline
            that is unlike the accepted one or older than it is kept as a draft.
        InputError: The label map does not fit the case or the label table.
        ProjectError: The case is unknown, or another program is changing the project.
        StorageError: The disk is full or read-only.
    """
    case = project.cases.get(case_id)
    since = None if Doubt.NEWER in allow else since
    replaced = accepted_outline(project, case)
    journal: dict[str, Any] = {"from": "outline"}
    model_id = None
    given, masked = outline, looked is not None
    if isinstance(outline, Revision):
        check_replacement(project, case, outline, allow)
        journal, model_id = {"from": f"{outline.kind} {outline.id}"}, outline.model_id
        filled_by = filled_by or outline.filled_by
        if outline.looked and not whole:
            looked = looked or project.revisions.read_looked(outline)
            uncertainty = uncertainty or _uncertainty(outline)
        outline = outline.path
    grid = project.cases.grid(case.id)
    notes: list[str] = []
    if isinstance(outline, Path):
        how: dict[str, Any] = {"resample": resample, "notes": notes, "meaning": meaning}
        label, seen = read_outline(outline, grid, project.labels, looked, **how)
    elif isinstance(looked, int):
        raise InputError("A value that means that nobody has looked needs a file.", "Give a mask instead.")
    else:
        label = outline
        seen = read_mask(looked, grid, resample=resample, notes=notes) if isinstance(looked, Path) else looked
    if masked and seen is not None and seen.GetSize() == label.GetSize():  # storing says what is wrong with the size
        check_mask(mask_doubt(label, seen), case.name, allow)
    if notes:
        journal["notes"] = notes
    if replaced is not None:
        journal["replaces"] = replaced.id
    facts: dict[str, Any] = {"author": author, "model_id": model_id}
    facts |= {"looked": seen, "filled_by": filled_by, "uncertainty": uncertainty}
    try:
        # Once more while storing; here before the comparison with an outline that nobody has seen.
        if since is not None:
            project.revisions.check_since(case.id, since)
        difference = check_outline(project, case, label, allow, looked=seen)
        revision = project.revisions.store(case.id, label, RevisionKind.ACCEPTED, **facts, journal=journal, since=since)
    except DoubtError as error:
        if error.doubt not in (Doubt.NEWER, Doubt.DIFFERENT):
            raise
        kept = given if isinstance(given, Revision) else _keep_draft(project, case, label, facts, journal["from"])
        remedy = (
            "Look at both outlines." if error.doubt is Doubt.NEWER else "Check that the outline belongs to this case."
        )
        raise DoubtError(error.doubt, f"{error.message} Yours is kept as the {kept.kind} {kept.id}.", remedy) from None
    return Stored(revision, replaced, difference, tuple(notes))


def _keep_draft(project: Project, case: Case, label: sitk.Image, facts: dict[str, Any], source: str) -> Revision:
    """Store an outline that was refused as a draft, unless it is the newest one already."""
    newest = project.revisions.newest(case.id)
    if newest is not None and newest.is_draft and newest.author == facts["author"]:
        before = read_label(newest.path, project.cases.grid(case.id), project.values)
        looked = [
            None if mask is None else mask != 0 for mask in (project.revisions.read_looked(newest), facts["looked"])
        ]
        if _equal(before, label) and _equal(*looked):
            return newest
    return project.revisions.store(case.id, label, RevisionKind.DRAFT, **facts, journal={"from": source})


def _equal(first: sitk.Image | None, second: sitk.Image | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(sitk.GetArrayViewFromImage(first), sitk.GetArrayViewFromImage(second))


def check_outline(
    project: Project,
    case: Case,
    label: sitk.Image,
    allow: Collection[Doubt] = (),
    *,
    looked: sitk.Image | None = None,
) -> float | None:
    """Whether an outline may be accepted without a question.

    Args:
        label: Label map on the case's grid.
        allow: The doubts that are confirmed.
        looked: Which voxels were looked at for it: a mask on the case's grid; None: the whole scan.

    Returns:
        Share of the voxels outlined in it or in the accepted outline in which the two differ, of those that were looked
        at for both; None if the case has no accepted outline that can be read.

    Raises:
        DoubtError: The outline is empty or unlike the accepted one, and ``allow`` lacks the doubt.
    """
    check_not_empty(not sitk.GetArrayViewFromImage(label).any(), case.name, allow)
    accepted = accepted_outline(project, case)
    grid = project.cases.grid(case.id)
    if accepted is None or label.GetSize() != grid.size:  # storing says what is wrong with the size
        return None
    try:
        before = read_label(accepted.path, grid, project.values)
        masks = [mask for mask in (looked, project.revisions.read_looked(accepted)) if mask is not None]
    except (InputError, ProjectError):  # a damaged file must not keep its replacement away
        return None
    if any(mask.GetSize() != grid.size for mask in masks):  # storing says what is wrong with the size
        return None
    return check_alike(label, before, case.name, accepted, allow, masks)


def revert(project: Project, case_id: str, revision_id: str | None = None, *, author: str) -> Stored:
    """Bring a revision of a case back: a copy of it becomes the newest revision, with the same kind.

    Args:
        revision_id: Its id or the beginning of it; None: the accepted outline before the present one.
        author: Who decides it.

    Raises:
        InputError: The case has no such revision, or it is the newest already.
        ProjectError: The case is unknown, the revision's file is damaged, or another program is changing the project.
        StorageError: The disk is full or read-only.
    """
    case = project.cases.get(case_id)
    revisions = project.revisions.of(case.id)
    wanted = _choose(case, revisions, revision_id)
    project.revisions.check(wanted)
    replaced = next((item for item in reversed(revisions) if item.is_accepted), None) if case.is_accepted else None
    revision = project.revisions.store(
        case.id,
        wanted.path,
        wanted.kind,
        author=author,
        model_id=wanted.model_id,
        uncertainty=_uncertainty(wanted),
        looked=project.revisions.read_looked(wanted),
        details={**wanted.details, "reverted_to": wanted.id},
        journal={"from": f"{wanted.kind} {wanted.id}", **({"replaces": replaced.id} if replaced else {})},
        state=_STATES[wanted.kind],
    )
    return Stored(revision, replaced)


def _uncertainty(revision: Revision) -> sitk.Image | None:
    return read_image(revision.uncertainty_path) if revision.uncertainty_path else None


def accepted_outline(project: Project, case: Case) -> Revision | None:
    """The outline that counts as the right one of a case now; None unless the case is accepted."""
    return project.revisions.newest(case.id, (RevisionKind.ACCEPTED,)) if case.is_accepted else None


def check_replacement(project: Project, case: Case, outline: Revision, allow: Collection[Doubt]) -> None:
    """Refuse a prediction or a draft in the place of an accepted outline.

    Raises:
        DoubtError: ``outline`` is not accepted, the case has an accepted outline, and ``allow`` lacks
            ``Doubt.REPLACES``.
    """
    replaced = accepted_outline(project, case)
    if replaced is None or outline.is_accepted or Doubt.REPLACES in allow:
        return
    raise DoubtError(
        Doubt.REPLACES,
        f"The {outline.kind} {outline.id} would take the place of the accepted outline of {case.name!r} "
        f"({replaced.id}, by {replaced.author}).",
        "Leave the accepted outline as it is, or give a corrected one as a file.",
    )


def _choose(case: Case, revisions: list[Revision], revision_id: str | None) -> Revision:
    if revision_id is None:
        accepted = [revision for revision in revisions if revision.is_accepted]
        if len(accepted) < 2:
            raise InputError(
                f"The case {case.name!r} has no accepted outline before the present one.",
                f"Name a revision: {_listed(revisions)}.",
            )
        return accepted[-2]
    wanted = find_revision(case, revisions, revision_id)
    if wanted is revisions[-1] and _STATES[wanted.kind] is case.state:
        raise ProjectError(f"{wanted.id} is the newest revision of {case.name!r} already.", "Name an earlier one.")
    return wanted


def find_revision(case: Case, revisions: Sequence[Revision], revision_id: str) -> Revision:
    """The revision with this id, or the only one whose id begins so.

    Raises:
        InputError: There is none, or several begin so.
    """
    matches = [revision for revision in revisions if revision.id.startswith(revision_id)]
    exact = [revision for revision in matches if revision.id == revision_id]
    if len(exact or matches) != 1:
        raise InputError(
            f"The case {case.name!r} has no revision {revision_id!r}.", f"Name one of: {_listed(revisions)}."
        )
    return (exact or matches)[0]


def _listed(revisions: Sequence[Revision]) -> str:
    return ", ".join(f"{item.id} ({item.kind} by {item.author})" for item in revisions[-8:]) or "there is none"
