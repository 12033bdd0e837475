# SPDX-License-Identifier: Apache-2.0
"""Prediction alone and beside another job that keeps each core busy, in the environment that BARL gives its processes.

Each figure is the time of one process that predicts a scan four times, its start left out. It means something only on
a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from barl.worker.client import worker_environment

MODELS = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources" / "Models"
ROUNDS = 2
# A process that takes longer (s) says that the machine is busy with something else.
LONGEST = 300
SPIN = "while True: pass"
PREDICT = """
import sys, time
import numpy as np, SimpleITK as sitk
from pathlib import Path
from barl.inference.predictor import Predictor
predictor = Predictor.load(Path(sys.argv[1]), "cpu")
noise = np.random.default_rng(0).normal(100, 20, (72, 100, 72)).astype(np.float32)
scan = sitk.GetImageFromArray(noise)
began = time.perf_counter()
for _ in range(4):
    predictor.predict([scan])
print(time.perf_counter() - began)
"""


def seconds(environment: dict[str, str]) -> float:
    model = next(MODELS.rglob("model.json")).parent
    command = [sys.executable, "-c", PREDICT, str(model)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        sys.exit(
            f"A process took longer than {LONGEST} s: something else keeps the machine busy. Measure another time."
        )
    return float(done.stdout)


def main() -> None:
    """Measure idle and busy in turns and print one JSON object."""
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")}
    plain["PYTHONPATH"] = worker_environment()["PYTHONPATH"]
    environments = {"PyTorch's own waiting, all threads": plain | {"OMP_NUM_THREADS": str(os.cpu_count())}}
    environments["as BARL runs it"] = worker_environment(plain)
    best: dict[str, dict[str, float]] = {name: {} for name in environments}
    for _ in range(ROUNDS):
        for busy in (False, True):
            others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range((os.cpu_count() or 1) * busy)]
            key = "beside_another_job_on_each_core_s" if busy else "idle_s"
            try:
                for name, environment in environments.items():
                    taken = seconds(environment)
                    best[name][key] = min(taken, best[name].get(key, taken))
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    for figures in best.values():
        figures["ratio"] = figures["beside_another_job_on_each_core_s"] / figures["idle_s"]
    print(json.dumps(best))


if __name__ == "__main__":
    main()
