# SPDX-License-Identifier: Apache-2.0
"""Quick retraining after new outlines: warm, with the new cases drawn more often, and from scratch.

A run trains a model on 4 outlined hippocampi, then, with 4 more outlined, from scratch for as many steps, and from the
first model in a quarter of the steps, with all cases drawn alike and with shares of the new ones. Writes
docs/retraining.md.

python Testing/Benchmarks/retraining.py run RESULTS --seed 0
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
    "warm, new cases half": (0.25, True, 0.5),
    "warm, new cases three quarters": (0.25, True, 0.75),
}
FIRST = "first model"


def run(options: argparse.Namespace) -> None:
    data = datasets.load("hippocampus")
    first = data.training_files(options.first, options.seed)
    more = data.training_files(options.first + options.more, options.seed)
    old = {file.id for file in first if file.label}
    own = harness.Run(
        data.name, "retraining", options.first, options.seed, "barl", {},
        {"iterations": options.iterations, "loader_workers": 0},
    )  # fmt: skip
    plan = harness.plan_for(own, data)
    rest = [file for file in more if not file.label][: options.untouched]
    outlined = [replace(file, is_new=file.id not in old) for file in more if file.label]
    result = options.results / f"hippocampus_{options.seed}.json"
    state: dict[str, Any] = json.loads(result.read_text("utf-8")) if result.exists() else {}
    state |= {"iterations": options.iterations, "seed": options.seed, "untouched": len(rest), "old": sorted(old)}
    state["machine"] = harness.machine()
    result.parent.mkdir(parents=True, exist_ok=True)
    folder = options.results / f"seed{options.seed}"
    unknown = [CaseFiles(file.id, file.images) for file in outlined if file.is_new]
    base = [file for file in outlined if not file.is_new]
    arms = {FIRST: (1.0, False, 0.0), **ARMS}
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
        print(f"seed {options.seed}, {name}: Dice {_mean(state[name]['test']):.4f}", flush=True)


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
    runs = [json.loads(path.read_text("utf-8")) for path in sorted(options.results.glob("hippocampus_*.json"))]
    runs = [one for one in runs if all(arm in one for arm in (FIRST, *ARMS))]
    one = runs[0]
    lines = [
        "# Retraining after new outlines",
        "",
        "This page is written by `Testing/Benchmarks/retraining.py`.",
        "",
        f"Hippocampus, BARL: a first model from {len(one['old'])} outlined scans of 4 subjects in {one['iterations']}",
        f"steps; then four more subjects are outlined, {one['untouched']} scans stay untouched. Dice on",
        f"{len(one[FIRST]['test'])} test cases, mean ± standard deviation over {len(runs)} seed(s); *old cases*:",
        "the change of the Dice of the first model's cases, in points, against it. *New cases half*",
        "(`--set new_share=0.5`): half of the labeled patches are of outlines that the first model has not learned.",
        "",
        "| training | steps | Dice | against scratch, points (each seed) | p | old cases, points (each seed) |",
        "|---|---|---|---|---|---|",
    ]
    for arm in (FIRST, *ARMS):
        share = 1.0 if arm == FIRST else ARMS[arm][0]
        scores = np.array([_mean(run_[arm]["test"]) for run_ in runs])
        apart = 100 * (scores - [_mean(run_["scratch"]["test"]) for run_ in runs])
        kept = 100 * np.array([_mean(run_[arm]["old"]) - _mean(run_[FIRST]["old"]) for run_ in runs])
        p = "" if arm == "scratch" else f"{paired_test(_by_case(runs, arm), _by_case(runs, 'scratch')).p:.2g}"
        lines.append(
            f"| {arm} | {round(one['iterations'] * share)} | {scores.mean():.3f} ± {scores.std():.3f} "
            f"| {_each(apart)} | {p} | {_each(kept)} |"
        )
    lines += [
        "",
        "p: Wilcoxon signed-rank over the test cases, each the mean over the seeds, not corrected for several rows.",
        "",
        "Aim: within a quarter of the steps as good as from scratch, old cases at most 0.5 points lower.",
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
    running.add_argument("--seed", type=int, default=0)
    running.add_argument("--first", type=int, default=4)
    running.add_argument("--more", type=int, default=4)
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
