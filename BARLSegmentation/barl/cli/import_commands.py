# SPDX-License-Identifier: Apache-2.0
"""``barl import-predictions``: what other programs predicted becomes predictions of cases."""

from __future__ import annotations

import datetime
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from barl.cli.command import command, project_folder, resample_option
from barl.cli.terminal import Terminal, table
from barl.errors import InputError
from barl.project.store import Project

if TYPE_CHECKING:
    from barl.cli.command import Commands
    from barl.jobs.given_matching import Plan


def add_parser(commands: Commands) -> None:
    """Add the command to ``barl``."""
    importing = command(
        commands,
        "import-predictions",
        import_predictions,
        "take label maps or probabilities of other programs as predictions of cases",
        '  barl import-predictions study nnunet-output/ --author "nnU-Net Dataset501"\n'
        "  barl import-predictions study monai-output/ --plan            only list which file belongs to which case\n"
        "  barl import-predictions study segmentations/ --case case7 --author TotalSegmentator --label lung_left=lung",
    )
    project_folder(importing)
    importing.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files, or folders of them")
    importing.add_argument("--case", default="", help="the case that it belongs to; by default matched by name")
    importing.add_argument("--author", default="another program", help="the program or model that made them")
    importing.add_argument("--date", default="", help="when they were made (2026-11-28); by default the files' dates")
    importing.add_argument(
        "--label", action="append", default=[], metavar="THERE=HERE", help="a name or value there and the label here"
    )
    importing.add_argument(
        "--dataset",
        type=Path,
        metavar="FILE",
        help="dataset.json that names the values; by default the one beside them",
    )
    resample_option(importing)
    importing.add_argument("--plan", action="store_true", help="only list which file belongs to which case")


def import_predictions(options: Namespace, terminal: Terminal) -> int:
    from barl.jobs.given_matching import described_names, plan_given_predictions
    from barl.jobs.given_predictions import Origin, add_given_predictions

    if options.date:
        try:
            datetime.date.fromisoformat(options.date)
        except ValueError:
            raise InputError(f"'{options.date}' is no date.", "Write it as 2026-11-28.") from None
    renamed = {}
    for text in options.label:
        there, _, here = text.partition("=")
        if not (there.strip() and here.strip()):
            raise InputError(f"'{text}' does not say which label is which.", "Write THERE=HERE, such as 5=liver.")
        renamed[there.strip()] = here.strip()
    origin = Origin(options.author, options.date, described_names(options.paths, options.dataset), renamed)
    with Project.open(options.project, read_only=options.plan) as project:
        known = {label.name.casefold() for label in project.labels}
        if unknown := [here for here in renamed.values() if here.casefold() not in known]:
            raise InputError(
                f"The project has no label '{unknown[0]}'.",
                f"Its labels: {', '.join(label.name for label in project.labels)}.",
            )
        plan = plan_given_predictions(project, options.paths, options.case)
        if options.plan:
            _tell_plan(plan, terminal)
            return 0
        done = add_given_predictions(project, plan, origin, resample=options.resample, progress=terminal.progress)
    lines = [f"Added the predictions of {len(done['cases'])} cases.", *(f"Note: {note}" for note in plan.notes)]
    lines += [f"{case['name']}: {' '.join(case['notes'])}" for case in done["cases"] if case["notes"]]
    lines += [f"Left out {case['name']}: {case['message']} {case['remedy']}" for case in done["failed"]]
    lines += [f"Left out {item.name}: {item.reason}" for item in plan.left_out]
    terminal.answer({**done, **_left_out(plan), "notes": list(plan.notes)}, "\n".join(lines))
    return InputError.exit_code if done["failed"] or any(item.is_scan for item in plan.left_out) else 0


def _tell_plan(plan: Plan, terminal: Terminal) -> None:
    rows = [
        [
            case.name,
            files.label_map.name if files.label_map else None,
            files.probabilities is not None,
            len(files.parts),
        ]
        for case, files in plan.pairs
    ]
    text = [
        table(rows, ["case", "label map", "probabilities", "structures"]),
        *(f"Note: {note}" for note in plan.notes),
    ]
    text += [f"Left out {item.name}: {item.reason}" for item in plan.left_out]
    pairs = [
        {"case": case.name, "label": files.label_map, "probabilities": files.probabilities, "parts": files.parts}
        for case, files in plan.pairs
    ]
    terminal.answer({"plan": pairs, **_left_out(plan), "notes": list(plan.notes)}, "\n".join(text))


def _left_out(plan: Plan) -> dict[str, list[dict[str, str]]]:
    return {
        "left_out": [
            {"name": item.name, "message": item.reason.message, "remedy": item.reason.remedy} for item in plan.left_out
        ]
    }
