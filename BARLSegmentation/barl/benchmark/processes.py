# SPDX-License-Identifier: Apache-2.0
"""A benchmark by several processes: each takes runs that no other has, and may be killed at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import barl
from barl.errors import BarlError


def work_in_processes(plan: str, results: Path, count: int, device: str = "auto", data: Sequence[str] = ()) -> None:
    """Carry out a plan with ``count`` processes, which share the cores, or the GPUs in turn, and wait for them.

    Raises:
        BarlError: One of them failed; it has said why on standard error.
    """
    threads = max((os.cpu_count() or 1) // count, 1)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "PYTHONSAFEPATH": "1",  # a file of the current folder, such as random.py, is never imported
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(Path(barl.__file__).parents[1]), os.environ.get("PYTHONPATH")])
        ),
    }
    options = [part for text in data for part in ("--data", text)]
    gpus = torch.cuda.device_count() if device == "auto" else 0
    children = []
    for number in range(count):
        own = f"cuda:{number % gpus}" if gpus else device
        command = [sys.executable, "-m", "barl.benchmark", plan, str(results), "--device", own, *options]
        children.append(subprocess.Popen(command, env=environment))
    try:
        codes = [child.wait() for child in children]
    except BaseException:
        for child in children:
            child.terminate()
        raise
    if any(codes):
        raise BarlError("A process of the benchmark failed.", "Its error stands above; what is finished is kept.")
