# SPDX-License-Identifier: Apache-2.0
"""The command ``barl``: the engine's jobs for a terminal or a script."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from barl.blas import reserve_buffer
from barl.cli.parser import build_parser
from barl.cli.terminal import Terminal
from barl.jobs.failures import explain
from barl.openmp import wait_briefly


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one command.

    Returns:
        The exit code: 0; 2 for input, 3 project, 4 model, 5 device, 6 disk, 130 stopped by the user, 1 anything else.
    """
    wait_briefly(os.environ)
    reserve_buffer()
    os.environ["MPLBACKEND"] = "Agg"  # MONAI loads matplotlib, which refuses to load with a backend that is not there
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries: nothing that a user could act on
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    terminal = Terminal(as_json="--json" in arguments)  # known before parsing, which may fail
    project: Path | None = None
    try:
        options = build_parser().parse_args(arguments)
        project = getattr(options, "project", None)
        code = options.run(options, terminal)
    except (Exception, KeyboardInterrupt) as error:
        cause = explain(error, project)
        terminal.failed(cause)
        return cause.exit_code
    finally:
        terminal.end_bar()
    return code or 0
