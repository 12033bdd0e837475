# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one training step of every method, relative to supervised training.

Prints one line of JSON. All methods take turns on the same batch in one run, so what else the machine does falls on all
alike; the ratio is the median over the rounds. The plan is the one that the tool makes for scans of the size of the
hippocampus set, filled with noise, at half of the training (all terms at work). A method that uses no untouched
patches is not given any, as in training.

python Testing/Benchmarks/method_steps.py --rounds 9
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

import torch
from barl import methods
from barl.images.fingerprint import fingerprint_case
from barl.images.reading import read_channels
from barl.inference.device import choose_device
from barl.project.labels import Label
from barl.training.cases import cache_cases
from barl.training.distributed import World
from barl.training.loop import TrainingRun
from barl.training.plan import make_plan
from training_rate import write_cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--methods", nargs="*", default=list(methods.available()), help="only these (and supervised)")
    arguments, _ = parser.parse_known_args()  # the runner hands every benchmark all options
    device = choose_device(arguments.device)
    names = list(dict.fromkeys(["supervised", *arguments.methods]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = write_cases(folder)
        fingerprints = [fingerprint_case(read_channels(case.images), None, [1]) for case in cases]
        runs, batches = {}, {}
        for method in names:
            overrides = {"iterations": 10_000, "validations": 0, "method": method, "loader_workers": 0}
            plan = make_plan(fingerprints, [Label(1, "Box")], ["MR"], device.type, overrides=overrides)
            run = TrainingRun(plan, cache_cases(cases, plan, folder / "cache"), folder / method, device, World())
            run.prepare(None, False)
            run.schedule.iteration = plan.iterations // 2
            runs[method], batches[method] = run, next(run.batches(plan.iterations))

        def one(method: str) -> float:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            started = time.perf_counter()
            runs[method].step(batches[method])
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                peaks[method] = max(peaks.get(method, 0), torch.cuda.max_memory_allocated(device))
            return time.perf_counter() - started

        peaks: dict[str, int] = {}
        for method in names:
            one(method), one(method)  # warm
        rounds = [{method: one(method) for method in names} for _ in range(arguments.rounds)]
    ratios = {m: statistics.median(r[m] / r["supervised"] for r in rounds) for m in names}
    result = {
        "benchmark": "method_steps",
        "device": str(device),
        "threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "supervised_ms": round(1000 * statistics.median(r["supervised"] for r in rounds), 1),
        "times_supervised": {method: round(ratio, 2) for method, ratio in sorted(ratios.items(), key=lambda i: i[1])},
        "weights": {method: sum(p.numel() for p in run.network.parameters()) for method, run in runs.items()},
    }
    if peaks:
        result["peak_mib"] = {method: round(peak / 2**20, 1) for method, peak in peaks.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
