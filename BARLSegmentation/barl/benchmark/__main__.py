# SPDX-License-Identifier: Apache-2.0
"""``python -m barl.benchmark PLAN.json RESULTS``: carry out a benchmark plan; start it as often as there are cores."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from barl.errors import BarlError

from .harness import runs_of, work
from .tables import tables


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m barl.benchmark", description=__doc__)
    parser.add_argument("plan", type=Path, help="benchmark plan, such as docs/benchmark-plan.json")
    parser.add_argument("results", type=Path, help="folder of the result files; finished runs are not done again")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--tables", action="store_true", help="print the tables of what is finished, and run nothing")
    arguments = parser.parse_args()
    try:
        plan = json.loads(arguments.plan.read_text(encoding="utf-8"))
        runs = runs_of(plan)
    except OSError as error:
        print(f"The benchmark plan cannot be read ({error.strerror}). Name an existing JSON file.", file=sys.stderr)
        return 2
    except (ValueError, KeyError) as error:
        print(f"The benchmark plan is not as docs/benchmark-plan.json is ({error!r}). Correct it.", file=sys.stderr)
        return 2
    try:
        if arguments.tables:
            print(tables(arguments.results, plan))
        else:
            work(runs, arguments.results, arguments.device, tell=lambda line: print(line, flush=True))
    except BarlError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
