# SPDX-License-Identifier: Apache-2.0
"""``barl benchmark``: carry out a plan, then tables and figures."""

from __future__ import annotations

from argparse import Namespace

from barl.cli.terminal import Terminal
from barl.errors import InputError, storage_error

REPORT = "report"


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
    from barl.benchmark.tables import read_results, tables

    rows = read_results(options.results) if options.results.is_dir() else []
    if not rows:
        raise InputError(f"The folder {options.results} holds no result.", "Run the plan first, without --report.")
    text, folder = tables(options.results, plan), options.results / REPORT
    try:
        figures = draw(options.results, plan, folder)
        lines = [text, *(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in figures)]
        (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise storage_error(error, folder) from error
    document = {"runs": len(rows), "report": folder / "report.md", "figures": figures}
    terminal.answer(document, f"{text}\n{len(rows)} runs; the report is {folder / 'report.md'}.")
