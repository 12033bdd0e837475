# SPDX-License-Identifier: Apache-2.0
"""``barl report``: a project as a page, or a case as a picture."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from barl.cli.command import command, device_option, project_folder
from barl.cli.terminal import Terminal
from barl.errors import InputError
from barl.project.database import is_writable
from barl.project.store import Project

if TYPE_CHECKING:
    from barl.cli.command import Commands


def add_parser(commands: Commands) -> None:
    """Add the command to ``barl``."""
    parser = command(
        commands,
        "report",
        report,
        "write how far a project has come as one page with pictures, or one case as a picture",
        "  barl report study                                    study/report.html\n"
        "  barl report study --output results.html\n"
        "  barl report study --case case7 --output case7.png    outlines and uncertainty of one case",
    )
    project_folder(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="the HTML file (or PNG file with --case)")
    parser.add_argument("--case", metavar="CASE", help="only a picture of this case")
    device_option(parser)


def report(options: Namespace, terminal: Terminal) -> None:
    from barl.report.picture import check_libraries, write_picture

    check_libraries()
    ending = ".png" if options.case else ".html"
    if options.output and options.output.suffix.lower() != ending:
        what = "A picture of a case" if options.case else "The report"
        raise InputError(f"{what} is a {ending} file.", f"Use a name that ends with {ending}.")
    with Project.open(options.project, read_only=not is_writable(options.project)) as project:
        if options.case:
            case = project.cases.find(options.case)
            path = options.output or Path(f"{case.id}.png")
            write_picture(project, case.id, path)
        else:
            from barl.jobs.compute import Compute
            from barl.report.page import write_report

            path = options.output or project.folder / "report.html"
            write_report(project, path, compute=Compute(options.device), progress=terminal.progress)
    terminal.answer({"written": path}, f"Wrote {path}.")
