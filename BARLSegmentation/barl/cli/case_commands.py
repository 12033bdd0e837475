# SPDX-License-Identifier: Apache-2.0
"""``barl project``, ``barl add`` and ``barl export``."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from barl.cli.command import looked, segment_meaning
from barl.cli.dataset_commands import add_dataset
from barl.cli.definition_commands import parse_label
from barl.cli.folder_commands import add_folder, add_labels, named, remember
from barl.cli.intake import case_facts, tell_intake
from barl.cli.terminal import Terminal, table
from barl.errors import InputError, ProjectError
from barl.jobs.unseen import learned_though_held_out
from barl.project.channel_patterns import check_order
from barl.project.datasets.intake import is_dataset, labels_of, read_dataset
from barl.project.export import TO_TRAIN_ON, export_dataset, write_names
from barl.project.labels import Channel, Label
from barl.project.records import Case
from barl.project.scans import NewCase, add_cases, stem
from barl.project.sides import with_sides
from barl.project.states import CaseState
from barl.project.store import Project


def new_project(options: Namespace, terminal: Terminal) -> None:
    labels = _read_table(options.labels) if options.labels else []
    if options.like:
        described = read_dataset(options.like)
        labels += labels_of(described)
        options.channel = options.channel or list(described.channels)
    labels += [parse_label(text, position, options.lateral) for position, text in enumerate(options.label, len(labels))]
    if unknown := {*options.lateral, *options.not_lateral} - {label.value for label in labels}:
        raise InputError(f"There is no label {min(unknown)} that could be lateral.", "Name it with --label first.")
    if both := set(options.lateral) & set(options.not_lateral):
        raise InputError(f"Label {min(both)} cannot be lateral and not lateral.", "Give one of the two options.")
    given = [replace(label, not_lateral=label.not_lateral or label.value in options.not_lateral) for label in labels]
    labels = with_sides(given)
    proposed = [after for before, after in zip(given, labels, strict=True) if after.lateral and not before.lateral]
    channels = [Channel(*text.partition("=")[::2]) for text in options.channel or ["image"]]
    name = options.name or options.project.resolve().name
    with Project.create(options.project, name, labels, channels) as project:
        text = f'Made the project "{project.name}" in {project.folder}.'
        if proposed:
            names = ", ".join(label.name for label in proposed)
            text += f"\nTaken as left or right by their names, and never mirrored: {names}."
            text += ' If one of them is of no side: "barl project labels PROJECT --set-lateral VALUE=no".'
        terminal.answer(_facts(project), text)


def show_project(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project, read_only=True) as project:
        facts = _facts(project)
    counts, partial, scans = facts["cases"], facts["partial"], facts["partial_scans"]
    lines = [
        f"{facts['name']}  ({facts['folder']})",
        "labels    " + ", ".join(f"{label['value']} {label['name']}" for label in facts["labels"]),
        "channels  " + ", ".join(facts["channels"]),
        f"cases     {sum(counts.values())}: " + ", ".join(f"{n} {s.replace('_', ' ')}" for s, n in counts.items() if n),
        f"held out  {facts['held_out']}",
        *([f"partial   {partial} outlines: {scans:.1f} scans of them were looked at"] if partial else []),
        f"model     {facts['current_model'] or 'none yet'} (of {facts['models']})",
        "runs      " + (", ".join(f"{run['id']} {run['state']}" for run in facts["runs"][-5:]) or "none yet"),
    ]
    terminal.answer(facts, "\n".join(lines))


def list_cases(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project, read_only=True) as project:
        cases = project.cases.deleted() if options.deleted else project.cases.all(options.state)
        predicted = project.revisions.expected_dice()
    expected = {case.id: predicted.get(case.id) for case in cases if not case.is_accepted}  # else there is no need
    heads = ["id", "name", "state", "looked at", "held out", "group", "uncertainty", "expected Dice"]
    rows = [
        [c.id, c.name, c.state, _looked(c), c.held_out, c.group or None, c.uncertainty, expected.get(c.id)]
        for c in cases
    ]
    text = table(rows, heads) if rows else "No case."
    document = [case_facts(case) | {"expected_dice": expected.get(case.id)} for case in cases]
    terminal.answer({"cases": document}, text)


def mark(options: Namespace, terminal: Terminal) -> None:
    if not (options.exclude or options.include or options.held_out):
        raise InputError(
            "No change of the cases was given.", "Use --held-out yes, --held-out no, --exclude or --include."
        )
    with Project.open(options.project) as project:
        cases = [project.cases.find(name) for name in options.cases]  # all names are right before the first is changed
        moved = {case.id for case in cases}
        for case in cases:
            if options.held_out:
                moved |= {one.id for one in project.cases.set_held_out(case.id, options.held_out == "yes")}
            if options.exclude:
                project.cases.set_state(case.id, CaseState.EXCLUDED)
            if options.include and case.is_excluded:
                project.cases.include(case.id)
        cases = [project.cases.get(case.id) for case in cases]
        notes = _learned_notes(project, moved) if options.held_out == "yes" else []
    lines = [f"{c.name}: {c.state.replace('_', ' ')}{', held out' if c.held_out else ''}" for c in cases]
    lines += [f"Note: {note}" for note in notes]
    terminal.answer({"cases": [case_facts(case) for case in cases], "notes": notes}, "\n".join(lines))


def _learned_notes(project: Project, moved: set[str]) -> list[str]:
    """What a user should know if the current model has learned from cases that are held out now."""
    current = project.models.current()
    if current is None:
        return []
    names = [case.name for case in learned_though_held_out(project, current.id) if case.id in moved]
    return [
        f"The current model {current.id} has learned from {name}: an evaluation leaves this case out until a model is "
        "trained from scratch (--from-scratch)."
        for name in names
    ]


def rename(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project) as project:
        before = project.cases.find(options.case)
        case = project.cases.rename(before.id, options.name)
    terminal.answer({"cases": [case_facts(case)]}, f"{before.name} is named {case.name} now.")


def delete(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project) as project:
        named = [_to_delete(project, name, options.erase) for name in options.cases]
        cases = list({case.id: case for case in named}.values())
        for case in cases:
            (project.cases.erase if options.erase else project.cases.delete)(case.id)
    names = ", ".join(case.name for case in cases)
    text = f"Erased {names} with all images and outlines."
    if not options.erase:
        text = f"Deleted {names}. Bring a case back: " + "; ".join(
            f'"barl project undelete {options.project} {case.id}"' for case in cases
        )
    terminal.answer({"deleted": [case_facts(case) for case in cases], "erased": options.erase}, text)


def _to_delete(project: Project, name: str, erase: bool) -> Case:
    """The case that a user names; to be erased it may be a deleted one."""
    try:
        return project.cases.find(name)
    except ProjectError:
        if erase and any(name in (case.id, case.name) for case in project.cases.deleted()):
            return project.cases.find_deleted(name)
        raise


def undelete(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project) as project:
        case = project.cases.undelete(options.case, options.name or "")
    terminal.answer({"cases": [case_facts(case)]}, f"{case.name} is back: {case.state.replace('_', ' ')}.")


def restore(options: Namespace, terminal: Terminal) -> None:
    from barl.project.restore import restore as put_back

    restored = put_back(options.project, options.copy, even_if_sound=options.force)
    document = {"made": restored.made.isoformat(), "set_aside": restored.set_aside, "unlisted": restored.unlisted}
    terminal.answer(document, restored.in_words())


def verify(options: Namespace, terminal: Terminal) -> int:
    with Project.open(options.project, read_only=True) as project:
        damages = project.verify(everything=True)
    texts = [damage.in_words() for damage in damages]
    terminal.answer({"damaged": texts}, "\n".join(texts) or "All files are as they were stored.")
    return ProjectError.exit_code if damages else 0


def add(options: Namespace, terminal: Terminal) -> int:
    later = bool(options.labels) and not options.images and not options.scan
    if bool(options.scan) == bool(options.images) and not later:
        raise InputError(
            "Give the scan of one case, --images with a folder of scans, or --labels with a folder of outlines.",
            'See "barl add --help".',
        )
    if options.images and (options.name or options.label or options.list_series):
        raise InputError(
            "--name, --label and --list-series are for one case, not for a folder.", "Use --labels with a folder."
        )
    if options.labels and options.scan:
        raise InputError("--labels is for a whole folder of scans.", "Use --label, or --images with a folder.")
    if looked(options) is not None and not (options.label or options.labels):
        raise InputError("--looked and --ignore are about an outline.", "Give one with --label or --labels.")
    if options.list_series:
        return _list_series(options.scan, terminal)
    if len(options.scan) == 1 and is_dataset(options.scan[0]):
        return add_dataset(options, terminal)
    with Project.open(options.project) as project:
        if options.images:
            return add_folder(project, options, terminal)
        if later:
            return add_labels(project, options, terminal)
        check_order(options.scan, project.channels)
        name = options.name or stem(options.scan[0])
        scans, series = _with_series(options.scan, options.series)
        new = NewCase(
            name,
            tuple(scans),
            options.label,
            options.held_out,
            options.group,
            tuple(series),
            options.resample,
            tuple(segment_meaning(options, project.labels).items()),
            looked=looked(options),
        )
        cases = named(project, [new], options)
        intake = add_cases(project, cases, terminal.progress, options.allow)
        remember(project, cases, options)
    if intake.left_out:
        raise intake.left_out[0].reason
    tell_intake(intake, f"Added {intake.added[0].case.name} ({intake.added[0].case.state}).", terminal)
    return 0


def _with_series(scans: list[Path], series: list[str]) -> tuple[list[Path], list[str | None]]:
    """One series for each channel; several series of one folder are several channels."""
    if len(scans) == 1 and len(series) > 1:
        scans = scans * len(series)
    if len(series) not in (0, len(scans)):
        raise InputError(
            f"There are {len(scans)} scans but {len(series)} --series.", "Give one for each scan, or none."
        )
    return scans, list(series)


def _list_series(folders: list[Path], terminal: Terminal) -> int:
    from barl.images.dicom.series import list_series

    found = [(folder, item) for folder in folders for item in list_series(folder)]
    facts = [
        {
            "folder": folder,
            "series": item.number,
            "modality": item.modality,
            "size": list(item.size),
            "files": item.n_files,
            "description": item.description,
        }
        for folder, item in found
    ]
    rows = [
        [item.number, item.modality, " x ".join(map(str, item.size)), item.n_files, item.description]
        for _, item in found
    ]
    heads = ["series", "modality", "voxels", "files", "description"]
    terminal.answer({"series": facts}, table(rows, heads) if rows else "No DICOM series.")
    return 0


def export(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project, read_only=True) as project:
        done = export_dataset(
            project,
            options.folder,
            options.layout,
            terminal.progress,
            predictions=options.predictions,
            source=options.source,
        )
        table_of_names = write_names(project, [*done.training, *done.held_out], done.folder)
    n, held_out = len(done.training), len(done.held_out)
    what = f"{n} cases for training and {held_out} held-out" if done.layout in TO_TRAIN_ON else str(n + held_out)
    text = f"Exported {what} cases to {done.folder}."
    text += f"\nThe files bear the ids of the cases; {table_of_names} says which case is which, and stays with you."
    text = "\n".join([text, *(f"Note: {note}" for note in done.notes)])
    terminal.answer({**asdict(done), "names": table_of_names}, text)


def _read_table(path: Path) -> list[Label]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows's editors write a mark in front
    except (OSError, ValueError) as error:
        raise InputError(f"The label table {path.name} cannot be read.", "Give a JSON file in UTF-8.") from error
    rows = rows.get("labels", rows) if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise InputError(
            f"The label table {path.name} is not a list of labels.", 'See "barl project labels PROJECT --json".'
        )
    return [Label.from_json(row) for row in rows]


def _facts(project: Project) -> dict:
    cases = project.cases.all()
    states = Counter(case.state for case in cases)
    current = project.models.current()
    return {
        "name": project.name,
        "folder": project.folder,
        "labels": [label.to_json() for label in project.labels],
        "channels": [channel.name for channel in project.channels],
        "cases": {state: states[state] for state in CaseState},
        "held_out": sum(case.held_out for case in cases),
        "partial": sum(case.is_partial for case in cases),
        "partial_scans": round(sum(case.looked_share for case in cases if case.is_partial), 3),
        "models": len(project.models.all()),
        "current_model": current.id if current else None,
        "runs": [{"id": run.id, "state": run.state, "model": run.model_id} for run in project.runs.all()],
    }


def _looked(case: Case) -> str | None:
    """Share of the scan that was looked at for an accepted outline; None for those of a whole scan."""
    return f"{case.looked_share:.1%}" if case.is_partial else None
