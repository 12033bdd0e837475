# SPDX-License-Identifier: Apache-2.0
"""``python -m barl.benchmark PLAN RESULTS``: carry out a benchmark plan; start it as often as there are cores.

``barl benchmark`` does that, and draws the figures as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from barl.benchmark.harness import runs_of, work
from barl.benchmark.plans import read_plan, sources_of
from barl.benchmark.tables import tables
from barl.errors import BarlError, Cancelled


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m barl.benchmark", description=__doc__, allow_abbrev=False)
    parser.add_argument("plan", help="benchmark plan, such as docs/benchmark-plan.json, or the name of a plan")
    parser.add_argument("results", type=Path, help="folder of the result files; finished runs are not done again")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FOLDER", help="where a data set lies")
    parser.add_argument("--tables", action="store_true", help="print the tables of what is finished, and run nothing")
    arguments = parser.parse_args()
    try:
        plan = read_plan(arguments.plan)
        if arguments.tables:
            print(tables(arguments.results, plan))
        else:
            tell = lambda line: print(line, flush=True)  # noqa: E731
            work(runs_of(plan), arguments.results, arguments.device, tell, sources_of(plan, arguments.data))
    except BarlError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Cancelled.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
