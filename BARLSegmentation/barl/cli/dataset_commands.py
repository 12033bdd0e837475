# SPDX-License-Identifier: Apache-2.0
"""``barl add PROJECT FOLDER``, where the folder is a data set of nnU-Net, the Decathlon or BIDS."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from barl.cli.folder_commands import named, remember, sorted_out
from barl.cli.intake import tell_intake
from barl.cli.terminal import Terminal, table
from barl.errors import InputError
from barl.project.datasets.intake import DatasetIntake, prepare_intake, read_dataset
from barl.project.scans import Intake, LeftOut, NewCase, add_cases
from barl.project.store import Project


def dataset_options(add: ArgumentParser) -> None:
    """The options of ``barl add`` that concern data sets."""
    add.add_argument("--plan", action="store_true", help="only list what of a data set folder would be added")
    add.add_argument("--add-labels", action="store_true", help="add the labels of a data set that the table lacks")


def add_dataset(options: Namespace, terminal: Terminal) -> int:
    """Add the cases of a data set; what cannot be used is listed at the end, the others are added."""
    if options.name or options.label or options.series or options.group:
        raise InputError(
            "--name, --label, --series and --group are for one case, not for a data set.", "Leave them away."
        )
    with Project.open(options.project, read_only=options.plan) as project:
        dataset = read_dataset(options.scan[0], project.channels)
        intake = prepare_intake(dataset, project.channels, project.labels, resample=options.resample)
        cases = intake.cases if options.plan else named(project, intake.cases, options)
        new, known, others = sorted_out(project, cases, terminal.progress)
        passed_over = (*others, *intake.left_out)
        if options.held_out:
            new = [replace(case, held_out=True) for case in new]
        notes = [*intake.notes]
        if there := len(known):
            cases_are = "case is" if there == 1 else "cases are"
            notes.append(f"{there} {cases_are} in the project already and unchanged.")
        if options.plan:
            _tell_plan(intake, new, passed_over, notes, terminal)
            return 0
        _add_labels(project, intake, options.add_labels, notes)
        done = add_cases(project, new, terminal.progress, options.allow)
        remember(project, new, options)
    left_out = (*done.left_out, *passed_over)
    n_outlined = sum(item.case.is_accepted for item in done.added)
    n_held_out = sum(item.case.held_out for item in done.added)
    first = f"Added {len(done.added)} cases, {n_outlined} of them with an outline, {n_held_out} of them held out."
    tell_intake(Intake(done.added, left_out), first, terminal, notes)
    return InputError.exit_code if any(item.is_scan for item in left_out) else 0


def _add_labels(project: Project, intake: DatasetIntake, allowed: bool, notes: list[str]) -> None:
    if not intake.labels:
        return
    names = ", ".join(f"{label.value} {label.name}" for label in intake.labels)
    if not allowed:
        raise InputError(
            f"The data set has labels that the label table lacks: {names}.",
            "Add them with --add-labels, or rename labels of the project so that the names are equal.",
        )
    for label in intake.labels:
        notes += project.definition.add_label(label)


def _tell_plan(
    intake: DatasetIntake, new: list[NewCase], left_out: Sequence[LeftOut], notes: list[str], terminal: Terminal
) -> None:
    """What would be added, case by case."""
    missing = [f"{label.value} {label.name}" for label in intake.labels]
    if missing:
        notes = [*notes, f"The label table lacks {', '.join(missing)} (--add-labels)."]
    rows = [
        [case.name, _names(case), case.label.name if case.label else None, case.held_out, case.group or None]
        for case in new
    ]
    heads = ["case", "images", "outline", "held out", "subject"]
    text = [table(rows, heads) if rows else "No case.", *(f"Note: {note}" for note in notes)]
    text += [f"{case.name}: {note}" for case in new for note in case.notes]
    text += [f"Left out {item.name}: {item.reason}" for item in left_out]
    document = {
        "cases": [
            {"name": c.name, "images": c.channels, "outline": c.label, "held_out": c.held_out, "subject": c.group}
            for c in new
        ],
        "left_out": [{"name": item.name, "message": item.reason.message} for item in left_out],
        "notes": notes,
    }
    terminal.answer(document, "\n".join(text))


def _names(case: NewCase) -> str:
    paths = dict.fromkeys(item if isinstance(item, Path) else item[0] for item in case.channels)
    return ", ".join(path.name for path in paths)
