# SPDX-License-Identifier: Apache-2.0
"""How often the intervals of volumes hold the true volume, on test subjects of models that exist.

Writes docs/intervals.md.

python Testing/Benchmarks/volume_intervals.py run RESULTS --set hippocampus --seed 0 --model MODEL
python Testing/Benchmarks/volume_intervals.py write RESULTS --document docs/intervals.md
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

import numpy as np
import SimpleITK as sitk
from barl.benchmark import datasets, harness
from barl.evaluation.intervals import LEAST, choose_interval
from barl.evaluation.metrics import dice
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.inference.predictor import Predictor

DRAWS, CALIBRATING = 500, (5, 10, 20)
TITLES = {"hippocampus": "Hippocampus, MR", "sts_pet": "Sarcoma, PET", "bonbid_hie": "BONBID-HIE, MR"}


def run(options: argparse.Namespace) -> None:
    data, predictor = datasets.load(options.set), Predictor.load(options.model, device="cpu")
    options.results.mkdir(parents=True, exist_ok=True)
    place = options.results / f"{options.set}_{options.seed}.json"
    state = json.loads(place.read_text("utf-8")) if place.exists() else {"cases": {}}
    state |= {"set": options.set, "model": predictor.card.name, "machine": harness.machine()}
    for case in data.part("test"):
        if case.id in state["cases"]:
            continue
        assert case.label is not None  # a test case
        channels, values = read_channels(case.images), predictor.card.values
        grid = Grid.of(channels[0])
        truth = sitk.GetArrayFromImage(read_label(case.label, grid, values))
        predicted = sitk.GetArrayFromImage(predictor.predict(channels).label)
        state["cases"][case.id] = {
            "dice": float(np.nanmean([dice(predicted, truth, value) for value in values])),
            "volumes": {str(v): [float(np.sum(a == v) * grid.voxel_ml) for a in (predicted, truth)] for v in values},
        }
        place.write_text(json.dumps(state), "utf-8")
    print(f"{options.set}, seed {options.seed}: {len(state['cases'])} cases", flush=True)


def coverage(rows: list[dict[str, Any]], count: int) -> tuple[float, float, float]:
    """Share of cases inside the interval that ``count`` others gave, its stated level, and its relative width.

    Means over random divisions of the cases and over the labels; of the width the median.
    """
    rng = np.random.default_rng(0)
    inside, width, level = [], [], float("nan")
    for value in rows[0]["volumes"]:
        pairs = [tuple(row["volumes"][value]) for row in rows]
        for _ in range(DRAWS):
            order = rng.permutation(len(pairs)).tolist()
            interval = choose_interval(int(value), [pairs[n] for n in order[:count]])
            if interval is None:
                continue
            level = interval.level
            for n in order[count:]:
                low, high = interval.around(pairs[n][0])
                inside.append(low <= pairs[n][1] <= high)
                width.append((high - low) / pairs[n][1] if pairs[n][1] else np.nan)
    return float(np.mean(inside)), level, float(np.nanmedian(width))


def write(options: argparse.Namespace) -> None:
    lines = [
        "# Intervals of volumes",
        "",
        "This page is written by `Testing/Benchmarks/volume_intervals.py`.",
        "",
        "Beside a predicted volume BARL gives the range in which the true one lies in a stated share of cases",
        "(`barl.evaluation.intervals`, split-conformal), from held-out or out-of-fold cases. Here some test subjects",
        "of a model give the interval of each label, the others are looked up in it; means over three models (those",
        f"of guidance.md), {DRAWS} random divisions and the labels. With fewer than {LEAST} cases nothing is said,",
        "with 4 to 8 only the coarse level n / (n + 1). The width is the median of the interval's width over the true",
        "volume: a weak model has honest intervals, but wide ones.",
        "",
        "| set | Dice | cases that give the interval | stated level | covered (each model) | width |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[list[dict[str, Any]]]] = {}
    for path in sorted(options.results.glob("*.json")):
        state = json.loads(path.read_text("utf-8"))
        groups.setdefault(state["set"], []).append(list(state["cases"].values()))
    for name, models in groups.items():
        mean = np.mean([np.nanmean([row["dice"] for row in rows]) for rows in models])
        for count in (count for count in CALIBRATING if count <= len(models[0]) - 4):
            found = [coverage(rows, count) for rows in models]
            covered, level, width = np.mean(found, axis=0)
            each = ", ".join(f"{100 * one[0]:.1f}" for one in found)
            title = f"{TITLES[name]} ({len(models[0])} subjects)"
            lines.append(f"| {title} | {mean:.2f} | {count} | {level:.0%} | {covered:.1%} ({each}) | {width:.0%} |")
    lines += ["", "Aim: 90 % intervals that cover 85 to 95 %.", "", f"Machine: {state['machine']}", ""]
    options.document.write_text("\n".join(lines), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("results", type=Path)
    running.add_argument("--set", choices=list(TITLES), default="hippocampus")
    running.add_argument("--seed", type=int, default=0, help="of the model's training, to keep several models apart")
    running.add_argument("--model", type=Path, required=True)
    running.set_defaults(act=run)
    writing = commands.add_parser("write")
    writing.add_argument("results", type=Path)
    writing.add_argument("--document", type=Path, default=Path("docs/intervals.md"))
    writing.set_defaults(act=write)
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()
