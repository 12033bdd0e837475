# SPDX-License-Identifier: Apache-2.0
"""Which predictions of other programs belong to which cases; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from barl.errors import InputError
from barl.images.formats.nifti_names import nifti_label_names
from barl.jobs.given_files import GivenFiles, both_given, find_given_files
from barl.project.datasets.description import FILE_NAME, read_description
from barl.project.matching import match_names
from barl.project.records import Case
from barl.project.scans import LeftOut
from barl.project.store import Project

_NO_CASE = "There is no case of this name."


@dataclass(frozen=True)
class Plan:
    """Which files become the prediction of which case.

    Attributes:
        pairs: Case and files.
        left_out: Files that belong to no case, and why.
        notes: Sentences for the user.
    """

    pairs: tuple[tuple[Case, GivenFiles], ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def plan_given_predictions(project: Project, paths: Sequence[Path], case: str = "") -> Plan:
    """Match the files and folders of other programs to cases by their names or ids.

    Args:
        project: Open, also for reading only.
        paths: Files, or folders of them.
        case: The case that all of it belongs to; empty: by name.

    Raises:
        InputError: Nothing is there, or nothing belongs to a case.
        ProjectError: There is no case of that name.
    """
    left_out: list[LeftOut] = []
    if case:
        home = project.cases.find(case)
        if len(paths) != 1:
            raise InputError("Several paths cannot be the prediction of one case.", "Give one file or folder.")
        return Plan(((home, find_given_files(paths[0], left_out, one_case=True)[0]),), tuple(left_out), ())
    found = [item for path in paths for item in find_given_files(path, left_out)]
    matched = match_given_files(project, found)
    if not matched.pairs:
        unclear = [item.reason for item in matched.left_out if item.reason.message != _NO_CASE]
        raise next(
            iter(unclear),
            InputError(
                "None of the files has the name of a case.",
                'Name the case with --case, or rename the files as the cases: "barl project cases PROJECT".',
            ),
        )
    return Plan(matched.pairs, (*left_out, *matched.left_out), matched.notes)


def match_given_files(project: Project, found: Sequence[GivenFiles]) -> Plan:
    """Match what was found to cases by their names or ids; there may be no pair. Two predictions of one case are left
    out.

    Args:
        project: Open, also for reading only.
        found: As ``find_given_files`` gives it.
    """
    left_out: list[LeftOut] = []
    cases = {item.name: item for item in project.cases.all()}
    # What BARL exported bears the ids of the cases.
    by_id = {item.id: item.name for item in cases.values() if item.id not in cases}
    by_name: dict[str, list[GivenFiles]] = {}
    for item in dict.fromkeys(found):  # a path may be given twice
        by_name.setdefault(by_id.get(item.name, item.name), []).append(item)
    by_name = {name: _joined(items) for name, items in by_name.items()}
    matches = match_names(list(cases), list(by_name))
    for name in matches.unmatched:
        reason = InputError(_NO_CASE, "Name the case with --case, or add its scan first.")
        left_out.append(LeftOut(name, reason))
    for name, its_case in matches.unclear.items():
        reason = InputError(f"Several files could belong to the case '{its_case}'.", "Name one with --case.")
        left_out.append(LeftOut(name, reason))
    single = [match for match in matches.pairs if len(by_name[match.file]) == 1]
    left_out += [both_given(by_name[match.file], match.case) for match in matches.pairs if match not in single]
    notes = tuple(f"'{m.file}' was matched to the case {m.case}." for m in single if m.added)
    return Plan(tuple((cases[match.case], by_name[match.file][0]) for match in single), tuple(left_out), notes)


def _joined(items: list[GivenFiles]) -> list[GivenFiles]:
    """As one prediction a label map and probabilities of one name and folder that were each given as a path."""
    maps = [item.label_map for item in items if item.label_map and not item.probabilities]
    arrays = [item.probabilities for item in items if item.probabilities and not item.label_map]
    if len(items) == 2 and len(maps) == len(arrays) == 1 and maps[0].parent == arrays[0].parent:
        return [GivenFiles(items[0].name, maps[0], arrays[0])]
    return items


def plan_chosen(project: Project, path: Path, pairs: Mapping[str, str], *, one_case: bool = False) -> Plan:
    """Which files become the prediction of which case, as a person has chosen it.

    Args:
        project: Open.
        path: A file or folder.
        pairs: Name there -> id of the case.
        one_case: All of it is of one case.

    Raises:
        InputError: The files are not there any more, or two are of one case.
        ProjectError: There is no such case.
    """
    found = {item.name: item for item in find_given_files(path, [], one_case=one_case)}
    if gone := [name for name in pairs if name not in found]:
        raise InputError(f"There is no prediction of '{gone[0]}' any more.", "Choose the folder again.")
    if len(set(pairs.values())) < len(pairs):
        raise InputError("Two files are chosen for one case.", "Choose another case for one of them.")
    return Plan(tuple((project.cases.get(case), found[name]) for name, case in pairs.items()), (), ())


def described_names(paths: Sequence[Path], place: Path | None = None) -> dict[int, str]:
    """What the values mean, from the description named or found beside the files; empty if there is none."""
    beside = (path / FILE_NAME if path.is_dir() else path.with_name(FILE_NAME) for path in paths)
    place = place or next((one for one in beside if one.is_file()), None)
    return dict(read_description(place).labels) if place else {}


def labels_there(path: Path, found: Sequence[GivenFiles]) -> list[str]:
    """What the labels are called in files of another program; empty if nothing says it."""
    if names := described_names([path]):
        return list(names.values())
    if parts := dict.fromkeys(GivenFiles.part_name(part) for item in found for part in item.parts):
        return list(parts)
    first = next((item.label_map for item in found if item.label_map), None)
    return list(nifti_label_names(first).values()) if first else []
