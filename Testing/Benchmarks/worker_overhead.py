# SPDX-License-Identifier: Apache-2.0
"""What a warm prediction through the worker costs beside the engine's own time. Prints one line of JSON.

The aim: at most 150 ms. "The engine's own time" can be read in two ways, so both are given, in turn, several rounds:

* ``over_same_job``: the request against the same job (read the scan, predict, store the result) called in this process;
  the difference is the worker: the pipe, JSON, a process that is not ours.
* ``over_prediction``: the request against the prediction alone, as timed inside that very request; the difference also
  holds reading the scan, compressing and flushing label map and uncertainty, and the database.

python Testing/Benchmarks/worker_overhead.py --overhead-rounds 9
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

import numpy as np
import SimpleITK as sitk
from barl.images.intensity import Normalization
from barl.jobs.compute import Compute, WarmPredictors
from barl.jobs.predict import predict_cases
from barl.models.disk import save_model
from barl.networks.branches import NetworkSpec, build_network
from barl.project.labels import Channel, Label
from barl.project.model_card import ModelCard
from barl.project.store import Project
from barl.worker.client import WorkerProcess
from barl.worker.messages import Predict

LIMIT_MS = 150.0
SIZES = {"small": (36, 50, 35), "medium": (64, 96, 96)}
LABELS = [Label(1, "first"), Label(2, "second")]


def make_project(folder: Path, shape: tuple[int, int, int]) -> None:
    """One scan with a smooth structure in it, and an untrained model that predicts it."""
    spec = NetworkSpec(in_channels=1, n_classes=3, widths=(8, 16, 32))
    card = ModelCard(
        id="overhead",
        name="untrained",
        created="2026-01-01T00:00:00+00:00",
        labels=LABELS,
        channels=["CT"],
        spacing=(1.0, 1.0, 1.0),
        normalisations=[Normalization("zscore")],
        patch=(32, 48, 32),
        network=spec.to_json(),
        method="supervised",
    )
    k, j, i = np.indices(shape)
    scan = 100 * np.sin(k / 9) * np.sin(j / 11) * np.sin(i / 7) + np.random.default_rng(0).normal(0, 5, shape)
    with Project.create(folder, "overhead", LABELS, [Channel("CT")]) as project:
        project.cases.add("scan", [sitk.GetImageFromArray(scan.astype(np.float32))])
        save_model(folder.parent / f"{folder.name}_model", card, build_network(spec, seed=0).state_dict())
        project.models.promote(project.models.add(folder.parent / f"{folder.name}_model", {}).id)


def measure(worker: WorkerProcess, folder: Path, rounds: int) -> dict[str, object]:
    warm = WarmPredictors()

    def through_the_worker() -> tuple[float, float]:
        began = perf_counter()
        result = worker.call(Predict(str(folder), ["scan"], device="cpu"))
        return perf_counter() - began, sum(result.cases[0].seconds.values())

    def in_this_process() -> float:
        began = perf_counter()
        with Project.open(folder) as project:
            predict_cases(project, ["scan"], compute=Compute("cpu", warm=warm))
        return perf_counter() - began

    cold, _ = through_the_worker()
    in_this_process()
    through, own, inside = [], [], []
    for _ in range(rounds):
        wall, prediction = through_the_worker()
        through.append(wall)
        own.append(prediction)
        inside.append(in_this_process())
    beside = [1000 * (wall - prediction) for wall, prediction in zip(through, own, strict=True)]
    more = [1000 * (wall - job) for wall, job in zip(through, inside, strict=True)]
    return {
        "cold_s": round(cold, 3),
        "request_s": round(statistics.median(through), 3),
        "prediction_s": round(statistics.median(own), 3),
        "over_same_job_ms": {"median": round(statistics.median(more), 1), "worst": round(max(more), 1)},
        "over_prediction_ms": {"median": round(statistics.median(beside), 1), "worst": round(max(beside), 1)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overhead-rounds", type=int, default=9)
    options, _ = parser.parse_known_args()
    sizes: dict[str, dict] = {}
    with (
        tempfile.TemporaryDirectory() as place,
        WorkerProcess(stderr=subprocess.DEVNULL) as worker,
    ):
        for name, shape in SIZES.items():
            folder = Path(place) / name
            make_project(folder, shape)
            sizes[name] = {"size": list(shape[::-1]), **measure(worker, folder, options.overhead_rounds)}
            print(f"{name}: {sizes[name]}", file=sys.stderr, flush=True)
    kept = {
        f"{name}_{what}_at_most_{LIMIT_MS:.0f}_ms": figures[f"{what}_ms"]["median"] <= LIMIT_MS
        for name, figures in sizes.items()
        for what in ("over_same_job", "over_prediction")
    }
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    print(json.dumps({"rounds": options.overhead_rounds, "load": load, **sizes, "kept": kept}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
