# SPDX-License-Identifier: Apache-2.0
"""``python -m barl.demo`` (or ``make demo``): the main job on a fresh machine, with a report at the end."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from barl.demo.sources import SOURCES, DemoData, choose
from barl.demo.steps import Steps
from barl.errors import InputError, storage_error
from barl.jobs.failures import explain
from barl.openmp import wait_briefly


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Returns:
        The exit code: 0, or that of the error (as for the command ``barl``).
    """
    parser = argparse.ArgumentParser(
        prog="python -m barl.demo",
        description="The main job on example data, with a report at the end.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data",
        choices=SOURCES,
        default="auto",
        help="hippocampus: in the folder that BARL_DATA names; download: the Decathlon's; simulated; "
        "auto: the first of these that can be had (default)",
    )
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder of report and project")
    parser.add_argument("--iterations", type=int, help="length of each of the two trainings")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    wait_briefly(os.environ)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries: nothing that a user could act on
    try:
        if options.iterations is not None and options.iterations < 1:
            raise InputError(f"A training of {options.iterations} iterations is not possible.", "Give 1 or more.")
        report = run(options.data, options.output, options.iterations)
    except (Exception, KeyboardInterrupt) as error:
        cause = explain(error)
        print(f"demo: {cause}", file=sys.stderr)
        return cause.exit_code
    print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes. Open the report: {report}")
    return 0


def run(source: str, output: Path, iterations: int | None = None, data: DemoData | None = None) -> Path:
    """Do the main job and write the report.

    Args:
        source: One of ``SOURCES``.
        output: Gets ``report.html``, the project, and the data that were downloaded or simulated.
        iterations: See ``run_demo``.
        data: Cases to use instead of those of ``source``.

    Returns:
        The report.

    Raises:
        BarlError: Whatever stops it.
    """
    report = output / "report.html"
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, output) from error
    print("Loading PyTorch and MONAI ...", flush=True)
    from barl.demo.main_job import STEPS, make_room, run_demo
    from barl.demo.report import answer, summary_rows, write_report

    make_room(output / "project")  # before the work, not after it
    steps = Steps(STEPS + 2)
    if data is None:
        with steps.step("Get the data"):
            data = choose(source, output, progress=steps.progress, tell=steps.note)
    else:
        steps.total -= 1
    print(f"      {data.title}", flush=True)
    outcome = run_demo(data, output / "project", steps, iterations)
    with steps.step("Write the report"):
        write_report(outcome, report)
    _print_table(["label", "", "before", "after"], summary_rows(outcome))
    print(answer(outcome))
    if data.simulated:
        print("The cases are SIMULATED: this shows that the tool works, not how good the method is.")
    return report


def _print_table(heads: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[n]) for row in [heads, *rows]) for n in range(len(heads))]
    print()
    for row in [heads, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


if __name__ == "__main__":
    sys.exit(main())
