# SPDX-License-Identifier: Apache-2.0
"""The answer of the commands that add cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from barl.cli.terminal import Terminal
from barl.project.records import Case
from barl.project.scans import Intake


def tell_intake(intake: Intake, first: str, terminal: Terminal, notes: Sequence[str] = ()) -> None:
    """What was added, what a user should know of it, and what was left out."""
    about = defaultdict(list)
    for item in intake.added:
        for note in item.notes:
            about[note].append(item.case.name)
    text = [first, *(f"Note: {note}" for note in notes)]
    text += [f"Note: {note} ({some_names(names)})" for note, names in about.items()]
    alike = defaultdict(list)  # reasons that differ by the case's name alone
    for left in intake.left_out:
        alike[str(left.reason).replace(left.name, "")].append(left)
    text += [f"Left out {some_names([item.name for item in items])}: {items[0].reason}" for items in alike.values()]
    document = {
        "notes": list(notes),
        "cases": [{**case_facts(item.case), "notes": list(item.notes)} for item in intake.added],
        "failed": [
            {
                "name": item.name,
                "message": item.reason.message,
                "remedy": item.reason.remedy,
                "is_scan": item.is_scan,
            }
            for item in intake.left_out
        ],
    }
    terminal.answer(document, "\n".join(text))


def some_names(names: list[str]) -> str:
    """The names, or the first of them and how many more."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more"


def case_facts(case: Case) -> dict:
    """What the commands say of a case with ``--json``."""
    names = ("id", "name", "state", "held_out", "group", "uncertainty", "newest_revision", "updated", "looked_share")
    return {name: getattr(case, name) for name in names}
