# SPDX-License-Identifier: Apache-2.0
"""``barl project accept``, ``revert`` and ``history``: the outlines of a case, one after the other."""

from __future__ import annotations

from argparse import Namespace, _SubParsersAction
from pathlib import Path
from typing import Any

from barl.cli.command import (
    command,
    looked,
    looked_options,
    project_folder,
    resample_option,
    segment_meaning,
    segment_option,
)
from barl.cli.terminal import Terminal, table
from barl.errors import InputError
from barl.project.acceptance import Stored, accept, find_revision, revert
from barl.project.doubts import Doubt
from barl.project.records import Case, JournalEntry, Revision
from barl.project.states import RevisionKind
from barl.project.store import Project

AUTHOR = "command line"


def add_parsers(actions: _SubParsersAction) -> None:
    """Add the commands to ``barl project``."""
    accepting = command(
        actions,
        "accept",
        accept_outline,
        "store a corrected outline, or accept a prediction or draft as it is",
        "  barl project accept study case7 corrected.nii.gz\n"
        "  barl project accept study case8 --prediction          the newest prediction, as it is\n"
        "  barl project accept study case7 --prediction --replace   in the place of an accepted outline\n"
        "  barl project accept study case9 filled.nii.gz --looked planes.nii.gz   only the planes were looked at",
    )
    project_folder(accepting)
    accepting.add_argument("case", help="name or id of the case")
    accepting.add_argument("label", type=Path, nargs="?", help="label map on the scan's grid")
    accepting.add_argument("--prediction", action="store_true", help="accept the newest prediction")
    accepting.add_argument("--draft", action="store_true", help="accept the newest draft")
    looked_options(accepting)
    accepting.add_argument("--whole", action="store_true", help="the whole scan was looked at, of a partial draft too")
    accepting.add_argument("--replace", action="store_true", help="even if the case has an accepted outline")
    resample_option(accepting)
    segment_option(accepting)
    accepting.add_argument("--since", metavar="REVISION", help="refuse if an outline newer than this was accepted")
    accepting.add_argument(
        "--allow",
        action="append",
        default=[],
        type=Doubt,
        choices=(Doubt.EMPTY, Doubt.DIFFERENT, Doubt.NEWER),
        help="confirm an outline that is empty, different from the accepted one, or older than it",
    )

    reverting = command(
        actions,
        "revert",
        revert_outline,
        "bring an earlier revision of a case back",
        "  barl project revert study case7              the accepted outline before the present one\n"
        "  barl project revert study case7 r002         any revision of 'barl project history study case7'",
    )
    project_folder(reverting)
    reverting.add_argument("case", help="name or id of the case")
    reverting.add_argument("revision", nargs="?", help="id of a revision, or the beginning of it")

    listing = command(actions, "history", history, "show what was done when", "  barl project history study case7")
    project_folder(listing)
    listing.add_argument("name", nargs="?", metavar="case", help="only what concerns this case: its name or id")
    listing.add_argument("--case", help="the same")


def accept_outline(options: Namespace, terminal: Terminal) -> None:
    if sum((options.label is not None, options.prediction, options.draft)) != 1:
        raise InputError(
            "It is not clear which outline is to be accepted.",
            "Name one file, or use --prediction for the newest prediction or --draft for the newest draft.",
        )
    if options.ignore is not None and options.label is None:
        raise InputError("--ignore is about a value in a file.", "Name the file, or give a mask with --looked.")
    if options.whole and looked(options) is not None:
        raise InputError("--whole contradicts --looked and --ignore.", "Use one of them.")
    allow = [*options.allow, *([Doubt.REPLACES] if options.replace else [])]
    with Project.open(options.project) as project:
        case = project.cases.find(options.case)
        revisions = project.revisions.of(case.id)
        since = revisions[-1].id if revisions else ""
        if options.since:
            since = find_revision(case, revisions, options.since).id
        outline = options.label or _newest(project, case, options.prediction)
        stored = accept(
            project,
            case.id,
            outline,
            author=AUTHOR,
            allow=allow,
            since=since,
            resample=options.resample,
            meaning=segment_meaning(options, project.labels),
            looked=looked(options),
            whole=options.whole,
        )
    _answer(case, stored, terminal)


def revert_outline(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project) as project:
        case = project.cases.find(options.case)
        stored = revert(project, case.id, options.revision, author=AUTHOR)
    _answer(case, stored, terminal)


def history(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project, read_only=True) as project:
        wanted = options.name or options.case
        entries = project.journal.entries(project.cases.find(wanted).id if wanted else None)
        names = {case.id: case.name for case in project.cases.all()}
    rows = [[entry.at, entry.action, names.get(entry.case_id or "", entry.case_id), _facts(entry)] for entry in entries]
    document = [
        {
            "at": entry.at,
            "action": entry.action,
            "case": entry.case_id,
            "name": names.get(entry.case_id or ""),
            "program": entry.program,
            "facts": entry.facts,
        }
        for entry in entries
    ]
    terminal.answer({"history": document}, table(rows, ["at", "action", "case", "facts"]))


def _newest(project: Project, case: Case, prediction: bool) -> Revision:
    kind = RevisionKind.PREDICTION if prediction else RevisionKind.DRAFT
    revision = project.revisions.newest(case.id, (kind,))
    if revision is None:
        raise InputError(f"The case {case.name!r} has no {kind} to accept.", "Predict it, or name a file.")
    return revision


def _answer(case: Case, stored: Stored, terminal: Terminal) -> None:
    document: dict[str, Any] = {
        "case": case.id,
        "name": case.name,
        "revision": stored.revision.id,
        "kind": stored.revision.kind,
        "label": stored.revision.path,
        "looked_share": stored.revision.looked_share,
        "replaced": stored.replaced.id if stored.replaced else None,
        "difference": stored.difference,
        "notes": list(stored.notes),
    }
    terminal.answer(document, "\n".join([stored.in_words(case.name), *(f"Note: {note}" for note in stored.notes)]))


def _facts(entry: JournalEntry) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in entry.facts.items() if value is not None)


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"({len(value)})"
    return str(value)
