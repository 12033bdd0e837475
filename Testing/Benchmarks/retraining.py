# SPDX-License-Identifier: Apache-2.0
"""Quick retraining after new outlines: warm, with the new cases drawn more often, and from scratch.

A run trains a model on 4 outlined hippocampi, then, with more outlined, from scratch for as many steps, and from the
first model in a quarter of the steps, with all cases drawn alike and with shares of the new ones, and in as many steps.
Writes docs/retraining.md.

python Testing/Benchmarks/retraining.py run RESULTS --seeds 0 1 2 --more 4
python Testing/Benchmarks/retraining.py run RESULTS --seeds 0 1 2 --more 16 --arms scratch warm "warm, as many steps"
python Testing/Benchmarks/retraining.py write RESULTS --document docs/retraining.md
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

import numpy as np
import SimpleITK as sitk
from barl.benchmark import datasets, harness
from barl.evaluation.metrics import dice
from barl.evaluation.statistics import paired_test
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.inference.predictor import Predictor
from barl.training.cases import CaseFiles
from barl.training.loop import train

# Arm -> share of the steps, starts from the first model, least share of the new cases.
ARMS = {
    "scratch": (1.0, False, 0.0),
    "scratch, a quarter": (0.25, False, 0.0),
    "warm": (0.25, True, 0.0),
    "warm, as many steps": (1.0, True, 0.0),
    "warm, new cases half": (0.25, True, 0.5),
    "warm, new cases three quarters": (0.25, True, 0.75),
}
FIRST = "first model"


def run(options: argparse.Namespace) -> None:
    for seed in options.seeds:
        one_run(options, seed)


def one_run(options: argparse.Namespace, seed: int) -> None:
    data = datasets.load("hippocampus")
    first = data.training_files(options.first, seed)
    more = data.training_files(options.first + options.more, seed)
    old = {file.id for file in first if file.label}
    own = harness.Run(
        data.name, "retraining", options.first, seed, "barl", {},
        {"iterations": options.iterations, "loader_workers": 0},
    )  # fmt: skip
    plan = harness.plan_for(own, data)
    rest = [file for file in more if not file.label][: options.untouched]
    outlined = [replace(file, is_new=file.id not in old) for file in more if file.label]
    result = options.results / f"hippocampus_{options.more}_{seed}.json"
    state: dict[str, Any] = json.loads(result.read_text("utf-8")) if result.exists() else {}
    state |= {
        "iterations": options.iterations,
        "seed": seed,
        "more": options.more,
        "untouched": len(rest),
        "old": sorted(old),
    }
    state["machine"] = harness.machine()
    result.parent.mkdir(parents=True, exist_ok=True)
    folder = options.results / f"{options.more}_{seed}"
    unknown = [CaseFiles(file.id, file.images) for file in outlined if file.is_new]
    base = [file for file in outlined if not file.is_new]
    arms = {FIRST: (1.0, False, 0.0), **{arm: ARMS[arm] for arm in options.arms}}
    for name, (share, warm, new_share) in arms.items():
        if name in state:
            continue
        files = [*base, *unknown, *rest] if name == FIRST else [*outlined, *rest]
        steps = replace(plan, iterations=round(options.iterations * share), new_share=new_share)
        place = folder / "".join(c if c.isalnum() else "-" for c in name)
        place.mkdir(parents=True, exist_ok=True)
        parent = folder / "first-model" / "model" if warm else None
        done = train(steps, files, place, device="cpu", warm_start=parent, cache=options.results / "cache")
        assert done.model_folder is not None
        predictor = Predictor.load(done.model_folder, device="cpu")
        cases = data.part("test")[: options.test]
        state[name] = {
            "seconds": done.seconds,
            "test": [_judge(predictor, case.images, case.label) for case in cases],
            "old": [_judge(predictor, file.images, file.label) for file in base],
        }
        result.write_text(json.dumps(state), "utf-8")
        print(f"{options.more} more, seed {seed}, {name}: Dice {_mean(state[name]['test']):.4f}", flush=True)


def _judge(predictor: Predictor, images: list[Path], label: Path | None) -> dict[str, Any]:
    """Mean Dice on the scan's own grid."""
    assert label is not None
    channels = read_channels(images)
    grid = Grid.of(channels[0])
    truth = sitk.GetArrayFromImage(read_label(label, grid, predictor.card.values))
    predicted = sitk.GetArrayFromImage(predictor.predict(channels).label)
    values = predictor.card.values
    return {"dice": float(np.nanmean([dice(predicted, truth, v) for v in values]))}


def _mean(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([row["dice"] for row in rows]))


def _by_case(runs: list[dict[str, Any]], arm: str) -> list[float]:
    """Dice of each test case, mean over the seeds."""
    return np.mean([[row["dice"] for row in one[arm]["test"]] for one in runs], axis=0).tolist()


def _each(values: np.ndarray) -> str:
    return f"{values.mean():+.1f} ({', '.join(f'{value:+.1f}' for value in values)})"


def write(options: argparse.Namespace) -> None:
    groups: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(options.results.glob("hippocampus_*.json")):
        one = json.loads(path.read_text("utf-8"))
        groups.setdefault(one["more"], []).append(one)
    lines = [
        "# Retraining after new outlines",
        "",
        "This page is written by `Testing/Benchmarks/retraining.py`.",
        "",
        f"Hippocampus, BARL: a first model from the scans of 4 outlined subjects in {one['iterations']} steps; then",
        f"more subjects are outlined, {one['untouched']} scans stay untouched. Mean ± standard deviation of the",
        f"seeds on {len(one[FIRST]['test'])} cases; *old cases*: the change of the Dice of the first model's cases,",
        "in points, against it. *New cases half* (`--set new_share=0.5`): half of the labeled patches are of outlines",
        "that the first model has not learned.",
        "",
        "| new subjects | training | steps | Dice | against scratch, points (each seed) | p "
        "| old cases, points (each seed) |",
        "|---|---|---|---|---|---|---|",
    ]
    for more, found in sorted(groups.items()):
        for arm in (FIRST, *ARMS):
            runs = [run_ for run_ in found if arm in run_]
            if not runs:
                continue
            share = 1.0 if arm == FIRST else ARMS[arm][0]
            scores = np.array([_mean(run_[arm]["test"]) for run_ in runs])
            apart = 100 * (scores - [_mean(run_["scratch"]["test"]) for run_ in runs])
            kept = 100 * np.array([_mean(run_[arm]["old"]) - _mean(run_[FIRST]["old"]) for run_ in runs])
            p = "" if arm == "scratch" else f"{paired_test(_by_case(runs, arm), _by_case(runs, 'scratch')).p:.2g}"
            lines.append(
                f"| {more} | {arm} | {round(one['iterations'] * share)} | {scores.mean():.3f} ± {scores.std():.3f} "
                f"| {_each(apart)} | {p} | {_each(kept)} |"
            )
    lines += [
        "",
        "p: Wilcoxon signed-rank over the test cases, each the mean over the seeds, not corrected for several rows.",
        "",
        "Aim: within a quarter of the steps as good as from scratch, old cases at most 0.5 points lower. A training of",
        "the command line and of the module starts from the current model and draws all cases alike (*warm*).",
        "",
        f"Machine: {one['machine']}",
        "",
    ]
    options.document.write_text("\n".join(lines), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("results", type=Path)
    running.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    running.add_argument("--first", type=int, default=4)
    running.add_argument("--more", type=int, default=4, help="so many subjects are outlined afterwards")
    running.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    running.add_argument("--untouched", type=int, default=24)
    running.add_argument("--iterations", type=int, default=400)
    running.add_argument("--test", type=int, default=58)
    running.set_defaults(act=run)
    writing = commands.add_parser("write")
    writing.add_argument("results", type=Path)
    writing.add_argument("--document", type=Path, default=Path("docs/retraining.md"))
    writing.set_defaults(act=write)
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()
