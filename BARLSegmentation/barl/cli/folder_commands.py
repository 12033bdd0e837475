# SPDX-License-Identifier: Apache-2.0
"""``barl add --images`` and ``--labels``: folders of scans and of outlines; and names that must not be kept."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from barl.cli.command import looked, segment_meaning
from barl.cli.intake import some_names, tell_intake
from barl.cli.terminal import Terminal
from barl.errors import InputError
from barl.progress import Progress
from barl.project.anonymous import NameList
from barl.project.case_finding import find_cases
from barl.project.doubts import Doubt, DoubtError
from barl.project.later_outlines import LaterIntake, LaterOutline, add_outlines, match_outlines
from barl.project.names import key, patients_names
from barl.project.records import Case
from barl.project.scans import Added, Intake, LeftOut, NewCase, add_cases, list_volumes, with_other_scan
from barl.project.store import Project


def folder_options(add: ArgumentParser) -> None:
    """The options of ``barl add`` about names and about cases that are there."""
    add.add_argument("--replace", action="store_true", help="outlines of --labels replace other accepted outlines")
    add.add_argument(
        "--anonymous", action="store_true", help="number the cases; a list outside of the project keeps their names"
    )
    add.add_argument(
        "--list", type=Path, metavar="FILE", help="with --anonymous: this list (default: PROJECT-names.csv beside it)"
    )


def add_folder(project: Project, options: Namespace, terminal: Terminal) -> int:
    """Add every scan of a folder; scans that cannot be used are listed at the end, the others are added.

    Cases that are in the project stay as they are, but for outlines that they lack.
    """
    content = find_cases(
        options.images,
        project.channels,
        options.labels,
        held_out=options.held_out,
        group=options.group,
        resample=options.resample,
        looked=looked(options),
    )
    meaning = tuple(segment_meaning(options, project.labels).items())
    if options.series and len(options.series) != len(project.channels):
        raise InputError(
            f"There are {len(project.channels)} channels but {len(options.series)} --series.",
            "Give one for each channel.",
        )
    if options.series:
        content = replace(content, cases=tuple(_with_series(case, options.series) for case in content.cases))
    cases = named(project, [replace(case, meaning=meaning) for case in content.cases], options)
    new, there, others = sorted_out(project, cases, terminal.progress)
    later = [LaterOutline(row, case.label, case.notes, case.looked) for case, row in there if case.label]
    outlined = _store(project, later, options, terminal)
    intake = add_cases(project, new, terminal.progress, options.allow)
    remember(project, new, options)
    left_out = (*others, *intake.left_out, *outlined.left_out, *content.left_out)
    scans = [item for item in left_out if item.is_scan]
    if not intake.added and not there and len(scans) == 1:
        raise scans[0].reason
    n_outlined = sum(item.case.is_accepted for item in intake.added)
    added = f"{len(intake.added)} {'case' if len(intake.added) == 1 else 'cases'}"
    first = f"Added {added}, {n_outlined} of them with an outline."
    notes = [*_about(outlined), *_notes_of(outlined, later)]
    if options.labels and cases and not any(case.label for case in cases):
        notes.append(f"No outline of these cases was found in {options.labels}.")
    if unchanged := len(there) - len(outlined.stored) - len(outlined.left_out):
        is_there = "case is" if unchanged == 1 else "cases are"
        notes.append(f"{unchanged} {is_there} in the project already and unchanged.")
    tell_intake(Intake(intake.added, left_out), first, terminal, notes)
    return InputError.exit_code if scans else 0


def sorted_out(
    project: Project, cases: Sequence[NewCase], progress: Progress
) -> tuple[list[NewCase], list[tuple[NewCase, Case]], list[LeftOut]]:
    """Cases that are new, those that are in the project, and other scans under a name of the project."""
    rows = project.cases.all()
    known = {row.id: row for row in rows} | {key(row.name): row for row in rows}
    named_alike = [(case, known[key(case.name)]) for case in cases if key(case.name) in known]
    others = with_other_scan(project, [(case, row.id) for case, row in named_alike], progress)
    there = [(case, row) for case, row in named_alike if case.name not in others]
    return [case for case in cases if key(case.name) not in known], there, list(others.values())


def _with_series(case: NewCase, series: Sequence[str]) -> NewCase:
    """A case that comes from a folder of DICOM files with the series that are meant."""
    is_folder = any(isinstance(item, Path) and item.is_dir() for item in case.channels)
    return replace(case, series=tuple(series)) if is_folder else case


def add_labels(project: Project, options: Namespace, terminal: Terminal) -> int:
    """Add a folder of outlines to the cases that are there."""
    files, left_out = list_volumes(options.labels, outlines=True)
    if not files:
        raise InputError(f"The folder {options.labels} holds no outline.", "Name the folder of the outlines.")
    shown = {}
    if options.anonymous:
        shown = {case: name for case, (name, _, _) in NameList.beside(project, options.list).rows.items()}
    cases = project.cases.all()
    names = {case.id: shown[case.name] for case in cases if case.name in shown}
    found, unknown = match_outlines(cases, files, names, looked(options))
    outlined = _store(project, found, options, terminal)
    left_out = [*outlined.left_out, *unknown, *left_out]
    notes = _about(outlined)[1:]
    if outlined.unchanged:
        n_same = len(outlined.unchanged)
        notes.append(f"{n_same} {'case has' if n_same == 1 else 'cases have'} the same accepted outline already.")
    about = {item.case.id: item.notes for item in found}
    stored = Intake(
        tuple(Added(project.cases.get(case.id), (*about[case.id], *s.notes)) for case, s in outlined.stored),
        tuple(left_out),
    )
    n = len(outlined.stored)
    tell_intake(stored, f"Stored {n} {'outline' if n == 1 else 'outlines'} of cases in the project.", terminal, notes)
    return InputError.exit_code if any(item.is_scan for item in left_out) else 0


def named(project: Project, cases: Sequence[NewCase], options: Namespace) -> list[NewCase]:
    """The cases under the names that they are to have.

    Raises:
        DoubtError: A name may be a patient's, and neither ``--anonymous`` nor ``--allow name`` is given.
    """
    if options.list and not options.anonymous:
        raise InputError("--list goes with --anonymous.", "Add --anonymous.")
    if options.anonymous:
        with project.database.write():  # one program at a time: two would give one number to two patients
            names = NameList.beside(project, options.list)
            numbered = names.number(project, cases)
            names.write()  # before the cases: no number without its name
        return numbered
    # A name that was typed is meant; one that a file brought along may have been overlooked.
    doubtful = [] if options.name else patients_names([case.name for case in cases])
    if doubtful and Doubt.NAME not in options.allow:
        some = ", ".join(repr(name) for name in doubtful[:3])
        several = f"{len(doubtful)} names may be patients', such as {some}." if len(doubtful) > 1 else ""
        raise DoubtError(
            Doubt.NAME, several or f"The name {some} may be a patient's.", "Number the cases with --anonymous."
        )
    return list(cases)


def remember(project: Project, new: Sequence[NewCase], options: Namespace) -> None:
    """Take the numbers that became no case out of the list of names again; those of deleted cases stay."""
    if options.anonymous:
        with project.database.write():
            names = NameList.beside(project, options.list)
            used = {case.id for case in (*project.cases.all(), *project.cases.deleted())}
            names.forget([case.name for case in new if case.name not in used])
            names.write()


def _store(project: Project, later: Sequence[LaterOutline], options: Namespace, terminal: Terminal) -> LaterIntake:
    return add_outlines(
        project,
        later,
        replace=options.replace,
        resample=options.resample,
        meaning=segment_meaning(options, project.labels),
        allow=options.allow,
        neutral=options.anonymous,
        progress=terminal.progress,
    )


def _about(outlined: LaterIntake) -> list[str]:
    """What became of outlines of cases that were there."""
    notes = []
    if outlined.stored:
        names = ", ".join(case.name for case, _ in outlined.stored[:5])
        more = f" and {len(outlined.stored) - 5} more" if len(outlined.stored) > 5 else ""
        notes.append(f"Outlines were stored for cases that were in the project: {names}{more}.")
    for case, stored in outlined.stored:
        if stored.replaced is not None:
            notes.append(stored.in_words(case.name))
    return notes


def _notes_of(outlined: LaterIntake, later: Sequence[LaterOutline]) -> list[str]:
    """What a user should know of outlines of cases that were there: each sentence with the cases that it is about."""
    about = defaultdict(list)
    found = {item.case.id: item.notes for item in later}
    for case, stored in outlined.stored:
        for note in (*found[case.id], *stored.notes):
            about[note].append(case.name)
    return [f"{note} ({some_names(names)})" for note, names in about.items()]
