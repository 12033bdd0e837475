# SPDX-License-Identifier: Apache-2.0
"""``barl benchmark``: carry out a plan, then tables, figures and the Dice of each subject."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from barl.cli.command import command, device_option
from barl.cli.terminal import Terminal
from barl.errors import InputError, storage_error

if TYPE_CHECKING:
    from barl.cli.command import Commands

REPORT = "report"


def add_parser(commands: Commands) -> None:
    parser = command(
        commands,
        "benchmark",
        benchmark,
        "compare methods on data sets with expert outlines",
        "  barl benchmark docs/benchmark-plan.json results/ --processes 2\n"
        "  barl benchmark la2018 results/ --data la2018=/data/LA      a plan that comes along; GPUs are used in turn\n"
        "  barl benchmark my-plan.json results/ --report              tables and figures of what is finished so far",
    )
    parser.add_argument("plan", help="a plan as JSON, or one that comes along: la2018, pancreas_ct, brats2019, ...")
    parser.add_argument(
        "results", type=Path, help="folder of the results; started again, it goes on where it was stopped or killed"
    )
    parser.add_argument("--processes", type=int, default=1, help="how many runs at the same time (1)")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="where a data set lies (else: $BARL_DATA/NAME)",
    )
    parser.add_argument("--report", action="store_true", help="run nothing, only write tables and figures")
    device_option(parser)


def benchmark(options: Namespace, terminal: Terminal) -> None:
    from barl.benchmark.harness import runs_of, work
    from barl.benchmark.plans import read_plan, sources_of
    from barl.benchmark.processes import work_in_processes

    plan = read_plan(options.plan)
    sources = sources_of(plan, options.data)
    if options.processes < 1:
        raise InputError(f"A benchmark cannot run in {options.processes} processes.", "Use --processes 1 or more.")
    if options.report:
        pass
    elif options.processes == 1:
        work(runs_of(plan), options.results, options.device, terminal.note, sources)
    else:
        work_in_processes(options.plan, options.results, options.processes, options.device, options.data)
    _report(plan, options, terminal)


def _report(plan: dict, options: Namespace, terminal: Terminal) -> None:
    from barl.benchmark.plots import draw
    from barl.benchmark.tables import read_results, subjects_csv, tables

    rows = read_results(options.results) if options.results.is_dir() else []
    if not rows:
        raise InputError(f"The folder {options.results} holds no result.", "Run the plan first, without --report.")
    text, folder = tables(options.results, plan), options.results / REPORT
    try:
        figures = draw(options.results, plan, folder)
        lines = [text, *(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in figures)]
        (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "subjects.csv").write_text(subjects_csv(rows), encoding="utf-8")
    except OSError as error:
        raise storage_error(error, folder) from error
    document = {"runs": len(rows), "report": folder / "report.md", "figures": figures}
    terminal.answer(document, f"{text}\n{len(rows)} runs; the report is {folder / 'report.md'}.")
