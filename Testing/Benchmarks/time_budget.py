# SPDX-License-Identifier: Apache-2.0
"""Time that is kept: budgets in minutes against the time taken, the longest pause of the bar, the time left as told.

Each run is a ``barl train --minutes`` of its own process on the hippocampus set, its start and planning included.

python Testing/Benchmarks/time_budget.py --minutes 2 3 6 [--busy 1]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

from barl.benchmark import datasets
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.project.labels import Channel
from barl.project.store import Project

# The time left is asked from this share of a run on.
FROM = 0.1


def make_project(folder: Path, outlined: int, untouched: int) -> None:
    """``outlined`` subjects to learn from, as many held out, and untouched ones."""
    data = datasets.load("hippocampus")
    files = data.training_files(2 * outlined, 0)
    known, others = [f for f in files if f.label], [f for f in files if not f.label][:untouched]
    with Project.create(folder, data.name, data.labels, [Channel(name) for name in data.channels]) as project:
        for number, file in enumerate([*known, *others]):
            channels = read_channels(file.images)
            values = [label.value for label in data.labels]
            label = read_label(file.label, Grid.of(channels[0]), values) if file.label else None
            project.cases.add(f"case {number}", channels, label=label, held_out=len(known) // 2 <= number < len(known))


def watch(folder: Path, minutes: float) -> dict[str, Any]:
    """Train and note when each event comes."""
    from barl.worker.client import worker_environment

    began = time.monotonic()
    command = [sys.executable, "-m", "barl.cli", "train", str(folder), "--minutes", str(minutes), "--from-scratch"]
    job = subprocess.Popen(command, env=worker_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    known = set((folder / "runs").glob("run_*"))
    events: list[tuple[float, dict[str, Any]]] = []
    offset = 0
    while job.poll() is None:
        time.sleep(0.05)
        new = set((folder / "runs").glob("run_*")) - known
        path = next(iter(new)) / "events.jsonl" if new else None
        if path is None or not path.exists():
            continue
        text = path.read_bytes()[offset:].rpartition(b"\n")[0]
        offset += len(text) + 1 if text else 0
        events += [(time.monotonic() - began, json.loads(line)) for line in text.splitlines()]
    if job.returncode:
        sys.exit(f"The training ended with {job.returncode}.")
    return figures(events, time.monotonic() - began, minutes)


def figures(events: list[tuple[float, dict[str, Any]]], taken: float, minutes: float) -> dict[str, Any]:
    bar = [(at, event) for at, event in events if event["event"] == "progress"]
    pauses = [(b - a, was["stage"]) for (a, was), (b, _) in pairwise(bar)]
    end = events[-1][0]  # the result; the process takes some more seconds to end
    left = [
        (int(10 * at / end), abs(event["eta_s"] - (end - at)) / (end - at))
        for at, event in bar
        if "eta_s" in event and FROM * end < at < end
    ]
    tenths = {n: [error for tenth, error in left if tenth == n] for n in range(1, 10)}
    return {
        "asked_s": 60 * minutes,
        "taken_s": round(taken, 1),
        "off_percent": round(100 * (taken / (60 * minutes) - 1), 1),
        "first_event_s": round(bar[0][0], 1),
        "result_s": round(end, 1),
        "longest_pause_s": [round(value, 2) if isinstance(value, float) else value for value in max(pauses)],
        "pauses_over_2_s": sum(pause > 2 for pause, _ in pauses),
        "worst_time_left_by_tenth": {n: round(max(errors), 2) for n, errors in tenths.items() if errors},
        "told_within_30_percent": round(sum(error <= 0.3 for _, error in left) / len(left), 3),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 3, 6])
    parser.add_argument("--outlined", type=int, default=4)
    parser.add_argument("--untouched", type=int, default=20)
    parser.add_argument(
        "--busy", type=int, default=0, help="so many other jobs compute in the middle third of each run"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "study"
        make_project(folder, options.outlined, options.untouched)
        for minutes in options.minutes:
            third = 20 * minutes
            words = f"import time; time.sleep({third}); end = time.time() + {third}\nwhile time.time() < end: pass"
            others = [subprocess.Popen([sys.executable, "-c", words]) for _ in range(options.busy)]
            try:
                print(json.dumps(watch(folder, minutes)), flush=True)
            finally:
                for other in others:
                    other.kill()
                    other.wait()


if __name__ == "__main__":
    main()
