# SPDX-License-Identifier: Apache-2.0
"""``python -m barl.worker.run_process PROJECT RUN``: train one run, in this process, until it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# What the line begins with that a training which fails writes to its output.
SAID = "barl: "


def main(arguments: list[str] | None = None) -> int:
    """Train; events go to the run's ``events.jsonl``, the output of a crash and the reason to its ``output.log``.

    Of several processes that ``torchrun`` has started only the first writes.
    """
    project, run = sys.argv[1:] if arguments is None else arguments
    from barl.blas import reserve_buffer
    from barl.openmp import wait_briefly

    wait_briefly(os.environ)
    reserve_buffer()
    from barl.errors import BarlError
    from barl.jobs.runs import process_age
    from barl.jobs.train_job import run_training, share_training

    try:
        if int(os.environ.get("RANK", "0")) > 0:
            share_training(Path(project), run)
        else:
            run_training(Path(project), run, spent=process_age())
    except BarlError as error:  # the run's events have told it, unless it came before the run was this process's
        print(f"{SAID}{error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
