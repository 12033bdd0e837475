# SPDX-License-Identifier: Apache-2.0
"""How busy the loader keeps the network: steps from the loader against the same steps on a batch in memory.

Prints one line of JSON. The aim: the loader's rate is at least 90 % of the other. Both kinds alternate in one run, on
scans of the size of the hippocampus set filled with noise, with the plan that the tool makes for them on this device.

python Testing/Benchmarks/training_rate.py --steps 12 --repetitions 5
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

import numpy as np
import SimpleITK as sitk
import torch
from barl.images.fingerprint import fingerprint_case
from barl.images.reading import read_channels
from barl.inference.device import choose_device
from barl.project.labels import Label
from barl.training.cases import CaseFiles, cache_cases
from barl.training.distributed import World
from barl.training.loop import TrainingRun
from barl.training.plan import make_plan

SHAPE = (36, 50, 36)


def write_cases(folder: Path, count: int = 12) -> list[CaseFiles]:
    """Noise with a box to find; every third case outlined."""
    rng = np.random.default_rng(0)
    cases = []
    for n in range(count):
        label = np.zeros(SHAPE, np.uint8)
        label[10:20, 12:30, 10:22] = 1
        paths = [folder / f"{kind}_{n}.nii.gz" for kind in ("image", "label")]
        image = rng.normal(100, 10, SHAPE).astype(np.float32) + 20 * label
        for path, array in zip(paths, (image, label), strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        cases.append(CaseFiles(f"case_{n}", [paths[0]], paths[1] if n % 3 == 0 else None))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = write_cases(folder)
        fingerprints = [fingerprint_case(read_channels(case.images), None, [1]) for case in cases]
        overrides = {"iterations": 10_000, "validations": 0}
        plan = make_plan(fingerprints, [Label(1, "Box")], ["MR"], device.type, overrides=overrides)
        run = TrainingRun(plan, cache_cases(cases, plan, folder / "cache"), folder, device, World())
        run.prepare(None, False)
        run.schedule.iteration = plan.iterations // 2  # all terms of the loss at work
        batches = run.batches(plan.iterations)
        kept = next(batches)

        def rate(from_loader: bool) -> float:
            started = time.perf_counter()
            for _ in range(arguments.steps):
                run.step(next(batches) if from_loader else kept)
            if device.type == "cuda":
                torch.cuda.synchronize()
            return arguments.steps / (time.perf_counter() - started)

        rate(True), rate(False)
        pairs = [(rate(True), rate(False)) for _ in range(arguments.repetitions)]
    print(
        json.dumps(
            {
                "benchmark": "training_rate",
                "device": str(device),
                "threads": torch.get_num_threads(),
                "patch": plan.patch,
                "batch": [plan.batch_labelled, plan.batch_unlabelled],
                "steps_per_second_from_loader": round(statistics.median(pair[0] for pair in pairs), 3),
                "steps_per_second_in_memory": round(statistics.median(pair[1] for pair in pairs), 3),
                "ratio_median": round(statistics.median(one / two for one, two in pairs), 3),
                "ratios": [round(one / two, 3) for one, two in pairs],
                "aim": ">= 0.90",
            }
        )
    )


if __name__ == "__main__":
    main()
