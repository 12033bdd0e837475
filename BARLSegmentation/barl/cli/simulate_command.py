# SPDX-License-Identifier: Apache-2.0
"""``barl simulate``: rounds of a simulated clinician, then the table and the curve of Dice against work."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from barl.cli.command import command, device_option
from barl.cli.terminal import Terminal
from barl.errors import InputError

if TYPE_CHECKING:
    from barl.cli.command import Commands


def add_parser(commands: Commands) -> None:
    """Add ``barl simulate``."""
    parser = command(
        commands,
        "simulate",
        simulate,
        "let a simulated clinician correct cases in rounds, and count the work",
        "  barl simulate docs/simulation-plan.json results/\n"
        "  barl simulate plan.json results/ --report      table and curve of what is finished so far",
    )
    parser.add_argument("plan", type=Path, help="a plan as JSON, such as docs/simulation-plan.json")
    parser.add_argument("results", type=Path, help="folder of the results; started again, it goes on")
    parser.add_argument("--report", action="store_true", help="simulate nothing, only write table and curve")
    device_option(parser)


def simulate(options: Namespace, terminal: Terminal) -> None:
    from barl.benchmark import simulation

    try:
        plan = json.loads(options.plan.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"The plan {options.plan} cannot be read ({error}).", "Name a JSON file.") from error
    wanted = simulation.simulations_of(plan)
    if not options.report:
        simulation.simulate(wanted, options.results, options.device, terminal.note)
    if not any((options.results / one.file_name).exists() for one in wanted):
        raise InputError(f"The folder {options.results} holds no result.", "Run the plan first, without --report.")
    text, curve = simulation.table(options.results, plan), options.results / "curve.png"
    simulation.curve(options.results, plan, curve)
    (options.results / "report.md").write_text(f"{text}\n\n![Dice against minutes]({curve.name})\n", encoding="utf-8")
    terminal.answer({"report": options.results / "report.md", "curve": curve}, text)
