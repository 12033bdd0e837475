# SPDX-License-Identifier: Apache-2.0
"""Outlines of a folder for cases that are in the project already."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.progress import SILENT, Progress, Stage
from barl.project.acceptance import Stored, accept, accepted_outline, check_outline
from barl.project.doubts import Doubt, DoubtError
from barl.project.masks import Outlined, match_masks
from barl.project.matching import Match, match_names, matched_note
from barl.project.names import clean, key
from barl.project.records import Case
from barl.project.scans import LeftOut, stem, twice
from barl.project.staging import read_outline
from barl.project.store import Project


@dataclass(frozen=True)
class LaterOutline:
    """An outline and the case of the project that it belongs to.

    Attributes:
        case: The case.
        path: The file, or a folder with a file for each label.
        notes: Sentences for the user.
        looked: Mask of the voxels looked at, or the value in the outline that means that nobody has looked; None: the
            whole scan.
    """

    case: Case
    path: Path
    notes: tuple[str, ...] = ()
    looked: Path | int | None = None


@dataclass
class LaterIntake:
    """What became of the outlines.

    Attributes:
        stored: The case of each one stored, and what ``accept`` answered.
        unchanged: Cases whose accepted outline is equal to the file.
        left_out: The others.
    """

    stored: list[tuple[Case, Stored]] = field(default_factory=list)
    unchanged: list[Case] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def match_outlines(
    cases: Sequence[Case],
    files: Sequence[Path],
    names: dict[str, str] | None = None,
    looked: Path | int | None = None,
) -> tuple[list[LaterOutline], list[LeftOut]]:
    """Find the case of each file: by equal names, else by its id, else by a name that goes on, such as ``case7_seg``.

    Two files of one case are both left out, and so is an outline of which several masks could be.

    Args:
        cases: Of the project.
        files: The outlines.
        names: Case id -> the name that its files have, where that is not the case's name.
        looked: Folder with masks of the voxels looked at, named as the outlines or the cases (``match_masks``), or the
            value in the outlines that means that nobody has looked.

    Raises:
        InputError: The folder of masks is missing.
        StorageError: The folder of masks cannot be read.
    """
    shown = {case.id: (names or {}).get(case.id, case.name) for case in cases}
    by_name = {name: case for case in cases if (name := shown[case.id])}
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(stem(path).removesuffix(".seg"), []).append(path)
    own = {case.id: list(by_stem[case.id]) for case in cases if case.id in by_stem and case.id not in by_name}
    matches = match_names(list(by_name), [name for name in by_stem if name not in own])
    notes = {}
    for match in matches.pairs:
        case = by_name[match.case]
        own.setdefault(case.id, []).extend(by_stem[match.file])
        notes[case.id] = _notes(match)
    by_id = {case.id: case for case in cases}
    found = [LaterOutline(by_id[i], paths[0], notes.get(i, ())) for i, paths in own.items() if len(paths) == 1]
    left_out = [twice(paths, "outlines", shown[case_id]) for case_id, paths in own.items() if len(paths) > 1]
    matched = set(own)
    free = [name for name, case in by_name.items() if case.id not in matched]
    for name in (*matches.unmatched, *matches.unclear):
        # Another number is another case, and no typing error.
        keys = {key(other): other for other in free if _numbers(other) == _numbers(name)}
        close = get_close_matches(key(name), keys, n=1)
        remedy = f"Did you mean {keys[close[0]]!r}? Then give the file this name." if close else "Add its scan first."
        reason = InputError(f"The project has no case {name!r}.", remedy)
        if name in matches.unclear:
            text = f"Several outlines could belong to the case {matches.unclear[name]!r}."
            reason = InputError(text, "Move the wrong ones away.")
        left_out += [LeftOut(path.name, reason) for path in by_stem[name]]
    if not isinstance(looked, Path):
        return [dataclasses.replace(item, looked=looked) for item in found], left_out
    outlines = {item.case.id: item.path for item in found}
    also = {case.id: (case.id,) if case.id not in by_name else () for case in cases}
    masks = match_masks(
        looked,
        [Outlined(case.id, (shown[case.id] or case.id, *also[case.id]), outlines.get(case.id)) for case in cases],
    )
    left_out += [LeftOut(outlines[case_id].name, reason) for case_id, reason in masks.unclear.items()]
    return [
        dataclasses.replace(
            item, looked=masks.of.get(item.case.id), notes=(*item.notes, *masks.notes.get(item.case.id, ()))
        )
        for item in found
        if item.case.id not in masks.unclear
    ], left_out + masks.left_out


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"[0-9]+", name)]


def _notes(match: Match) -> tuple[str, ...]:
    if match.added:
        return (matched_note(match),)
    return () if clean(match.file) == match.case else ("The name of the outline differs in upper and lower case.",)


def add_outlines(
    project: Project,
    outlines: Sequence[LaterOutline],
    *,
    author: str = "import",
    replace: bool = False,
    resample: bool = False,
    meaning: Mapping[int | str, int] | None = None,
    allow: Collection[Doubt] = (),
    neutral: bool = False,
    progress: Progress = SILENT,
) -> LaterIntake:
    """Store outlines as the accepted ones of their cases; held-out marks stay.

    Args:
        project: Open for writing.
        outlines: As ``match_outlines`` finds them.
        author: Who made them.
        replace: Also where a case has another accepted outline.
        resample: Bring an outline of another grid onto the scan's, nearest voxel.
        meaning: Value or segment's name in the files -> value of the label table, where they are others.
        allow: Doubts that are confirmed.
        neutral: Keep no sentence that names a file.
        progress: Of the work.

    Raises:
        ProjectError: Another program is changing the project.
        StorageError: The disk is full or read-only.
    """
    intake = LaterIntake()
    for item, _ in progress.stage(Stage.ADDING).each(outlines, lambda item: item.case.name):
        case = item.case
        try:
            grid = project.cases.grid(case.id)
            notes: list[str] = []
            how: dict[str, Any] = {"resample": resample, "meaning": meaning}
            label, seen = read_outline(item.path, grid, project.labels, item.looked, notes=notes, **how)
            if case.is_accepted:
                if _is_accepted(project, case, label, seen):
                    intake.unchanged.append(case)
                    continue
                if not replace:
                    raise DoubtError(
                        Doubt.REPLACES,
                        f"The case {case.name!r} has another accepted outline.",
                        "Leave the file away.",
                    )
            if neutral:
                stored = accept(project, case.id, label, author=author, allow=allow, looked=seen)
                stored = dataclasses.replace(stored, notes=tuple(notes))
            else:
                stored = accept(project, case.id, item.path, author=author, allow=allow, looked=item.looked, **how)
            intake.stored.append((case, stored))
        except InputError as error:
            intake.left_out.append(LeftOut(item.path.name, error))
    return intake


def _is_accepted(project: Project, case: Case, label: sitk.Image, seen: sitk.Image | None) -> bool:
    """Whether the accepted outline of a case is equal, and that of the same part of the scan."""
    if check_outline(project, case, label, tuple(Doubt), looked=seen) != 0:
        return False
    accepted = accepted_outline(project, case)
    before = project.revisions.read_looked(accepted) if accepted else None
    masks = [np.ones(1) if mask is None else sitk.GetArrayViewFromImage(mask) for mask in (seen, before)]
    if any((mask != 0).all() for mask in masks):
        return all((mask != 0).all() for mask in masks)
    return np.array_equal(masks[0] != 0, masks[1] != 0)
