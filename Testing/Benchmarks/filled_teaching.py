# SPDX-License-Identifier: Apache-2.0
"""What filled outlines teach: few scans outlined whole against the same number of planes spread over many scans.

A simulated reader outlines the scans of a few subjects whole, or one plane in each direction (1+1+1; 2+2+2 and 3+3+3
for *hard*) of as many scans as the same number of planes allows; the planes are cut out of the expert's outline and
filled by ``barl.fill``. All other training scans are untouched. Each run is one training; its row is kept, and a run
that is there is not repeated.

python Testing/Benchmarks/filled_teaching.py run RESULTS --set hippocampus --seeds 0 1 2
python Testing/Benchmarks/filled_teaching.py run RESULTS --set la2018 --la FOLDER --whole 8
python Testing/Benchmarks/filled_teaching.py weights RESULTS --set hippocampus --scans 40
python Testing/Benchmarks/filled_teaching.py write RESULTS --document docs/few-slices.md
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import SimpleITK as sitk
from barl.benchmark import datasets, harness
from barl.fill.drawn import bounding_box
from barl.fill.filling import fill_scan
from barl.images.geometry import Grid
from barl.images.reading import read_channels
from barl.training.cases import CaseFiles
from barl.training.loop import train
from few_slices import drawn_planes

# Arm -> the plan's value ``filled`` and the planes in each direction; None: scans outlined whole, a few of them or all.
ALL = "all whole"
ARMS = {
    "whole scans": None,
    ALL: None,
    "drawn only": ("ignore", 1),
    "hard": ("hard", 1),
    "weighted": ("weighted", 1),
    "both": ("both", 1),
    "hard 2+2+2": ("hard", 2),
    "hard 3+3+3": ("hard", 3),
}
SETS = ("hippocampus", "sts_pet", "la2018")
METHODS = ("supervised", "barl", "dbisl")
# Borders of the weights (1 minus the fill's uncertainty) that are counted together.
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
# Around the structure, in voxels, that is looked at.
MARGIN = 8


def load(options: argparse.Namespace) -> datasets.Dataset:
    sources = {"la2018": {"folder": options.la}} if options.la else None
    return datasets.load(options.set, sources, options.results / "cache")


def subjects(dataset: datasets.Dataset, seed: int) -> list[list[CaseFiles]]:
    """The training subjects with their scans, in the order in which ``seed`` draws them."""
    files = {case.id: case for case in dataset.training_files(None, seed)}
    group_of = {case.id: case.group for case in dataset.part("training")}
    order: list[str] = []
    for n in range(1, len(set(group_of.values())) + 1):
        outlined = {group_of[case.id] for case in dataset.training_files(n, seed) if case.label}
        order += sorted(outlined - set(order))
    return [[files[case] for case in files if group_of[case] == group] for group in order]


def truth_of(case: CaseFiles) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(case.label)))


def whole(groups: Sequence[Sequence[CaseFiles]], count: int) -> tuple[list[CaseFiles], int]:
    """The scans of ``count`` subjects, and how many axial planes hold the structure."""
    cases = [case for group in groups[:count] for case in group]
    return cases, sum(int(np.count_nonzero(truth_of(case).any(axis=(1, 2)))) for case in cases)


def spread(
    groups: Sequence[Sequence[CaseFiles]], planes: int, folder: Path, each: int = 1
) -> tuple[list[CaseFiles], float]:
    """As many scans, ``each`` planes in each direction, as ``planes`` allow, filled; and the fills' mean Dice."""
    cases, dice = [], []
    for case in [case for group in groups for case in group][: planes // (3 * each)]:
        filled, score = fill_case(case, folder, each)
        cases.append(filled)
        dice.append(score)
    return cases, float(np.mean(dice))


def fill_case(case: CaseFiles, folder: Path, each: int = 1) -> tuple[CaseFiles, float]:
    """The case with ``each`` drawn planes in each direction, the fill of the rest and its uncertainty, as files.

    What is in the folder already is kept: neither the fill nor what a training prepares is made again for another arm.
    """
    truth = truth_of(case)
    paths = {name: folder / f"{case.id}_{each}_{name}.nii.gz" for name in ("looked", "uncertainty", "label")}
    if not paths["label"].exists():
        _fill(case, truth, each, paths)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(paths["label"])))
    scores = [_dice(labels == value, truth == value) for value in np.unique(truth[truth > 0])]
    return replace(case, **paths), float(np.mean(scores))


def _fill(case: CaseFiles, truth: np.ndarray, each: int, paths: dict[str, Path]) -> None:
    images = read_channels(case.images)
    drawn = drawn_planes(truth > 0, (each, each, each))
    grid = Grid.of(images[0])
    labels = np.where(drawn, truth, 0).astype(np.uint8)
    filled = fill_scan([sitk.GetArrayViewFromImage(image) for image in images], labels, grid.spacing[::-1], drawn)
    arrays = {"looked": drawn, "uncertainty": filled.uncertainty(), "label": filled.labels.astype(np.uint8)}
    for name, path in paths.items():
        array = arrays[name]
        sitk.WriteImage(grid.image(array.astype(np.uint8) if array.dtype == bool else array), str(path))


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else 1.0


def runs(options: argparse.Namespace) -> Iterator[tuple[int, str, str]]:
    """Seed, arm and method of each run, in the order in which they are worth most if the time ends."""
    for seed in options.seeds:
        for method in options.methods:
            for arm in options.arms:
                # Supervised training has no terms without outlines; with all outlined the others cannot use theirs.
                if (method, arm) != ("supervised", "both") and (method == "supervised" or arm != ALL):
                    yield seed, arm, method


def run(options: argparse.Namespace) -> None:
    options.results.mkdir(parents=True, exist_ok=True)
    dataset = load(options)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for seed, arm, method in runs(options):
            path = options.results / f"{options.set}_{arm.replace(' ', '-')}_{method}_{options.iterations}_{seed}.json"
            if path.exists():
                continue
            row = one_run(options, dataset, seed, arm, method, place)
            path.write_text(json.dumps(row), encoding="utf-8")
            print(
                json.dumps({name: row[name] for name in ("set", "arm", "method", "seed", "dice", "seconds")}),
                flush=True,
            )


def one_run(
    options: argparse.Namespace, dataset: datasets.Dataset, seed: int, arm: str, method: str, place: Path
) -> dict[str, Any]:
    """Train and test; the row that is kept."""
    began = time.process_time()
    groups = subjects(dataset, seed)
    outlined, planes = whole(groups, len(groups) if arm == ALL else options.whole)
    of_outlines = 1.0
    filled = "ignore"
    if way := ARMS[arm]:
        filled, each = way
        outlined, of_outlines = spread(groups, planes, place, each)
        planes = 3 * each * len(outlined)
    known = {case.id for case in outlined}
    untouched = [replace(case, label=None) for group in groups for case in group if case.id not in known]
    values = {**options.plan, "iterations": options.iterations, "filled": filled}
    wanted = harness.Run(options.set, arm, None, seed, method, {}, values, options.on)
    plan = harness.plan_for(wanted, dataset)
    cache = place / "cache"
    with tempfile.TemporaryDirectory(dir=place) as training:
        result = train(plan, [*outlined, *untouched], Path(training), device="cpu", cache=cache)
        assert result.model_folder is not None
        stride = [max(1, edge * 2 // 3) for edge in plan.patch]
        cases = list(harness.evaluate(result.model_folder, result.plan, dataset, options.on, cache, "cpu", stride))
    scores = {case["case"]: float(np.nanmean([label["dice"] for label in case["mean"].values()])) for case in cases}
    return {
        "set": options.set,
        "arm": arm,
        "method": method,
        "seed": seed,
        "iterations": options.iterations,
        "patch": plan.patch,
        "widths": plan.network.widths,
        "spacing": plan.spacing,
        "on": options.on,
        "scans": len(outlined),
        "planes": planes,
        "dice_of_outlines": round(of_outlines, 4),
        "dice": round(float(np.nanmean(list(scores.values()))), 4),
        "cases": {case: round(score, 4) for case, score in scores.items()},
        "seconds": round(result.seconds, 1),
        "processor_seconds": round(time.process_time() - began, 1),
        "machine": harness.machine(),
        "load": round(os.getloadavg()[0], 1),
        "when": time.strftime("%Y-%m-%d"),
    }


def weigh(options: argparse.Namespace) -> None:
    """How right filled voxels of each weight are, on scans of the training part; the row that is kept."""
    dataset = load(options)
    counts = np.zeros((len(WEIGHTS) - 1, 2), np.int64)  # all, and right ones
    mass = np.zeros(2)  # of right and of wrong voxels
    cases = [case for case in dataset.training_files(None, 0) if case.label][: options.scans]
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            filled, _ = fill_case(case, Path(folder))
            label, looked, unsure, truth = (
                sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
                for path in (filled.label, filled.looked, filled.uncertainty, case.label)
            )
            near = np.zeros(truth.shape, bool)
            near[_around(truth > 0)] = True
            near &= looked == 0
            weight, right = 1 - unsure[near], (label == truth)[near]
            place = np.clip(np.searchsorted(WEIGHTS, weight, side="right") - 1, 0, len(WEIGHTS) - 2)
            counts[:, 0] += np.bincount(place, minlength=len(counts))
            counts[:, 1] += np.bincount(place[right], minlength=len(counts))
            mass += float(weight[right].sum()), float(weight[~right].sum())
    row = {"set": options.set, "scans": len(cases), "counts": counts.tolist(), "mass": mass.round(1).tolist()}
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"weights_{options.set}.json").write_text(json.dumps(row), encoding="utf-8")
    print(json.dumps(row))


def _around(mask: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(max(side.start - MARGIN, 0), side.stop + MARGIN) for side in bounding_box(mask))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action")
    running = actions.add_parser("run")
    running.add_argument("--set", default="hippocampus", choices=SETS)
    running.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    running.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    running.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    running.add_argument("--whole", type=int, default=4, help="subjects outlined whole")
    running.add_argument("--iterations", type=int, default=600)
    running.add_argument("--plan", type=json.loads, default={}, help="further values of the plan, as JSON")
    running.add_argument("--on", default="tuning", choices=("tuning", "test"))
    weighing = actions.add_parser("weights")
    weighing.add_argument("--set", default="hippocampus", choices=SETS)
    weighing.add_argument("--scans", type=int, default=40)
    writing = actions.add_parser("write")
    writing.add_argument("--document", type=Path, required=True)
    for action in (running, weighing):
        action.add_argument("--la", type=Path, help="folder of the left atria (UA-MT's data), if not in BARL_DATA")
    for action in (running, weighing, writing):
        action.add_argument("results", type=Path, help="folder of the rows")
    options, _ = parser.parse_known_args()  # the runner hands every benchmark all options
    if options.action is None or (options.action != "write" and "BARL_DATA" not in os.environ):
        left_out = (
            "needs an action: run, weights or write"
            if options.action is None
            else "BARL_DATA does not name the data sets"
        )
        print(json.dumps({"benchmark": "filled_teaching", "left_out": left_out}))
        return
    if options.action == "write":
        from _filled_teaching_document import write

        write(options.results, options.document)
        return
    {"run": run, "weights": weigh}[options.action](options)


if __name__ == "__main__":
    main()
