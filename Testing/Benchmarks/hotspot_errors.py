# SPDX-License-Identifier: Apache-2.0
"""How much of a prediction's error the first places show: run trains and measures, write makes a section of the page.

A look shows a box of edge W mm. Of each subject, the share of the wrongly predicted voxels that lie in the boxes of the
first n places is measured, for several ways to choose the places and several measures of uncertainty.

python Testing/Benchmarks/hotspot_errors.py run RESULTS --seeds 0 1 2
python Testing/Benchmarks/hotspot_errors.py write RESULTS
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import SimpleITK as sitk
from _sections import replace_section
from barl.benchmark import datasets, harness
from barl.evaluation.expected_dice import mean_over_labels
from barl.evaluation.metrics import dice as dice_of
from barl.images.components import components
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.inference.hotspots import LOOK_VOXELS, find_hotspots, half_a_bit
from barl.inference.predictor import Prediction, Predictor
from barl.training.loop import train
from scipy import ndimage, stats

# Set -> outlined subjects and steps of the model, weak on purpose; on BONBID-HIE 200 steps find nothing.
SETS = {"hippocampus": (4, 200), "sts_pet": (4, 200), "bonbid_hie": (8, 500)}
LOOKS = (1, 3, 5, 10, 20)
BEST = "places, uncertainty"
Box = tuple[slice, ...]


def box_at(index: np.ndarray, grid: Grid, look_mm: float) -> Box:
    """The voxels ``[k, j, i]`` within a box of edge ``look_mm`` about a voxel."""
    half = np.maximum(np.round(look_mm / np.array(grid.spacing[::-1]) / 2), 1).astype(int)
    return tuple(slice(max(a - h, 0), a + h) for a, h in zip(index.tolist(), half.tolist(), strict=True))


def places(uncertainty: np.ndarray, grid: Grid, threshold: float, look_mm: float) -> Iterator[Box]:
    """One look each, as ``find_hotspots`` gives them."""
    for spot in find_hotspots(uncertainty, grid, threshold=threshold, look_mm=look_mm):
        bounds = np.array(spot.bounds_mm).reshape(3, 2)
        yield box_at(np.round(grid.mm_to_index(bounds.mean(axis=1))).astype(int)[::-1], grid, look_mm)


def regions(uncertainty: np.ndarray, grid: Grid, threshold: float, look_mm: float) -> Iterator[Box]:
    """Connected regions by volume x mean uncertainty, a look at the most uncertain neighborhood of each (0.2.0)."""
    names, count = components(uncertainty >= threshold)
    totals = ndimage.sum_labels(uncertainty, names, np.arange(1, count + 1)) if count else np.zeros(0)
    smooth = ndimage.uniform_filter(uncertainty, 3, mode="constant")
    for n in (np.argsort(-totals, kind="stable") + 1)[: max(LOOKS)]:
        if np.count_nonzero(names == n) >= 3:
            yield box_at(
                np.array(np.unravel_index(np.where(names == n, smooth, -1).argmax(), names.shape)), grid, look_mm
            )


def at_random(predicted: np.ndarray, grid: Grid, look_mm: float, seed: int) -> Iterator[Box]:
    """Foreground-aware random: looks at random voxels of the predicted surface."""
    surface = np.argwhere((predicted != 0) & (ndimage.minimum_filter(predicted, 3) != predicted))
    if len(surface):
        for n in np.random.default_rng(seed).permutation(len(surface))[: max(LOOKS)]:
            yield box_at(surface[n], grid, look_mm)


def shares(boxes: Iterator[Box], wrong: np.ndarray) -> dict[int, float]:
    """Looks -> share of the wrong voxels seen."""
    seen, found = np.zeros(wrong.shape, bool), {}
    total = max(np.count_nonzero(wrong), 1)
    given = list(boxes)
    for n in range(1, max(LOOKS) + 1):
        if n <= len(given):
            seen[given[n - 1]] = True
        if n in LOOKS:
            found[n] = float(np.count_nonzero(wrong & seen) / total)
    return found


def run(options: argparse.Namespace) -> None:
    """One row for each set, seed and edge of a look; a row that is there is not measured again."""
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        data = datasets.load(name)
        for seed in options.seeds:
            files = {edge: options.results / f"{name}_{edge:g}_{seed}.json" for edge in options.looks}
            predictor = None
            for edge, file in files.items():
                if not file.exists():
                    predictor = predictor or weak_model(data, seed, options.results / "models" / f"{name}_{seed}")
                    file.write_text(json.dumps({"seed": seed, **measure(data, predictor, options.part, edge)}), "utf-8")
                    print(file.name, flush=True)


def weak_model(data: datasets.Dataset, seed: int, folder: Path) -> Predictor:
    outlined, steps = SETS[data.name]
    plan = {"iterations": steps, "loader_workers": 0, "widths": [8, 16, 32, 64]}
    wanted = harness.Run(data.name, "hot-spots", outlined, seed, "barl", {}, plan)
    if not (folder / "model").exists():
        folder.mkdir(parents=True, exist_ok=True)
        files = data.training_files(outlined, seed)
        train(harness.plan_for(wanted, data), files, folder, device="cpu", cache=folder.parent / "cache")
    return Predictor.load(folder / "model", device="cpu")


def mirrored_entropy(
    predictor: Predictor, channels: list[sitk.Image], grid: Grid, prediction: Prediction
) -> np.ndarray:
    """Entropy (0 to 1, ``[k, j, i]``) of the mean of the prediction and of the one of the scan mirrored along i."""
    mirrored = [grid.image(np.ascontiguousarray(sitk.GetArrayFromImage(image)[..., ::-1])) for image in channels]
    other = predictor.predict(mirrored, want_probabilities=True, cleanup=False).probabilities
    assert prediction.probabilities is not None and other is not None  # asked for
    labels = [
        (sitk.GetArrayFromImage(image) + sitk.GetArrayFromImage(other[value])[..., ::-1]) / 2
        for value, image in prediction.probabilities.items()
    ]
    p = np.stack([1 - sum(labels), *labels]).clip(1e-9, 1)
    return -(p * np.log(p)).sum(0) / np.log(len(p))


def measure(data: datasets.Dataset, predictor: Predictor, part: str, look: float) -> dict:
    threshold = half_a_bit(len(predictor.card.values) + 1)
    rows: dict[str, list[dict[int, float]]] = {}
    dice, known = [], []
    for number, case in enumerate(data.part(part)):
        channels = read_channels(case.images)
        grid = Grid.of(channels[0])
        assert case.label is not None
        truth = sitk.GetArrayFromImage(read_label(case.label, grid, predictor.card.values))
        prediction = predictor.predict(channels, want_components=True, want_probabilities=True, cleanup=False)
        predicted = sitk.GetArrayFromImage(prediction.label)
        wrong = predicted != truth
        dice.append(
            float(2 * np.sum((predicted != 0) & (truth != 0)) / max(np.sum(predicted != 0) + np.sum(truth != 0), 1))
        )
        true = mean_over_labels({str(value): dice_of(predicted, truth, value) for value in predictor.card.values})
        agreed = mean_over_labels({str(value): score for value, score in prediction.agreement.items()})
        known.append([true, agreed, prediction.case_uncertainty])
        look_mm = look * float(np.prod(grid.spacing)) ** (1 / 3)
        maps = {
            name: sitk.GetArrayFromImage(image)
            for name, image in (
                ("uncertainty", prediction.uncertainty),
                ("entropy", prediction.entropy),
                ("disagreement", prediction.disagreement),
            )
            if image is not None
        }
        maps["entropy with the mirrored scan"] = mirrored_entropy(predictor, channels, grid, prediction)
        for name, values in maps.items():
            for rule in (places, regions) if name in ("uncertainty", "entropy", "disagreement") else (places,):
                # The disagreement is far smaller than the entropy: the same number of voxels is compared.
                level = threshold
                if name == "disagreement":
                    count = max(int(np.count_nonzero(maps["uncertainty"] >= threshold)), 1)
                    level = max(float(np.sort(values.ravel())[-count]), 1e-3)
                found = shares(rule(values.astype(np.float32), grid, level, look_mm), wrong)
                rows.setdefault(f"{rule.__name__}, {name}", []).append(found)
        rows.setdefault("random on the predicted surface", []).append(
            shares(at_random(predicted, grid, look_mm, number), wrong)
        )
    return {
        "set": data.name,
        "part": part,
        "cases": len(dice),
        "dice": float(np.mean(dice)),
        "look_voxels": look,
        "known": known,
        "shares": {name: {n: float(np.mean([row[n] for row in found])) for n in LOOKS} for name, found in rows.items()},
        "machine": harness.machine(),
    }


def _over_seeds(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def table(rows: list[dict]) -> str:
    """One row for each way to choose, one column for each number of looks; mean and standard deviation over seeds."""
    first = rows[0]
    dice = _over_seeds([row["dice"] for row in rows])
    head = f"{first['set']}, {first['part']} ({first['cases']} cases, Dice {dice}), "
    head += f"look of {first['look_voxels']:g} voxels"
    lines = [f"| {head} | " + " | ".join(f"first {n}" for n in LOOKS) + " |", "|---" * (len(LOOKS) + 1) + "|"]
    for name in first["shares"]:
        found = [_over_seeds([row["shares"][name][str(n)] for row in rows]) for n in LOOKS]
        lines.append(f"| {name} | " + " | ".join(found) + " |")
    return "\n".join(lines)


def spearman(rows: list[dict]) -> str:
    """Spearman's correlation with the true Dice, of the agreement and of the uncertainty, for each seed."""
    found = []
    for column in (1, 2):
        pairs = [np.array(row["known"], float)[:, [0, column]] for row in rows]
        kept = [pair[~np.isnan(pair).any(axis=1)] for pair in pairs]
        found.append(", ".join(f"{stats.spearmanr(pair[:, 0], pair[:, 1]).statistic:.2f}" for pair in kept))
    return f"| {rows[0]['set']} | {found[0]} | {found[1]} | {', '.join(str(len(pair)) for pair in kept)} |"


_TEXT = """## Where a prediction is wrong

This section is written by `Testing/Benchmarks/hotspot_errors.py`.

A clinician looks at places, not at voxels. A look shows a box whose edge is given in voxels of the mean spacing.
Measured is the share of the wrongly predicted voxels that the first n looks show, mean over the subjects, for several
ways to choose them:

* **places**: what BARL does. The box with the most uncertainty, then the next one without the voxels of the first,
  and so on: a region too large for one look becomes several places, and neighbors that one look shows are one.
* **regions**: connected uncertain regions by volume times mean uncertainty, each looked at where it is most uncertain
  (BARL 0.2.0 before this page).
* **the mirrored scan**: entropy of the mean of the prediction and of the mirrored scan's, at twice the time.
* **random on the predicted surface**: what is called foreground-aware random.

The uncertainty is the maximum of the entropy of the branches' mean and of their disagreement. The models are weak on
purpose: BARL, trained on few subjects in few steps
({models}).
The tables show mean ± standard deviation over {seeds} seeds. The edge of a look (24 voxels) is a proposal, not a choice
by these figures; of the tuning subjects the same tables were seen before the rule was kept. Simulated looks flatter: a
reader may overlook what a look shows.

{tables}

Aim: 80 % of the error volume in the first 10 places. {aim}

The same predictions tell whether the Dice to expect of a case (docs/folds.md) sorts the cases: Spearman's correlation
with the true Dice, each seed. A case in which neither branch shows anything has no agreement and is left out.

| set | agreement of the branches | uncertainty of the case | cases |
|---|---|---|---|
{spearman}

Machine: {machine}
"""


def write(options: argparse.Namespace) -> None:
    found = [json.loads(path.read_text("utf-8")) for path in sorted(options.results.glob("*.json"))]
    groups: dict[tuple, list[dict]] = {}
    for row in sorted(found, key=lambda row: (list(SETS).index(row["set"]), row["look_voxels"], row["seed"])):
        groups.setdefault((row["set"], row["look_voxels"]), []).append(row)
    met = [
        f"{name}, look of {look:g} voxels: {_over_seeds([row['shares'][BEST]['10'] for row in rows])}"
        for (name, look), rows in groups.items()
    ]
    text = _TEXT.format(
        tables="\n\n".join(table(rows) for rows in groups.values()),
        aim="; ".join(met) + ".",
        machine=found[0]["machine"],
        spearman="\n".join(spearman(rows) for (_, look), rows in groups.items() if look == LOOK_VOXELS),
        models="; ".join(f"{name}: {outlined} subjects, {steps} steps" for name, (outlined, steps) in SETS.items()),
        seeds=min(map(len, groups.values())),
    )
    replace_section(options.document, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("results", type=Path, help="folder of the rows")
    one.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    one.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    one.add_argument("--part", default="test", choices=("tuning", "test"))
    one.add_argument("--looks", type=float, nargs="*", default=[LOOK_VOXELS / 2, LOOK_VOXELS], help="edges in voxels")
    one.set_defaults(run=run)
    page = commands.add_parser("write")
    page.add_argument("results", type=Path, help="folder of the rows")
    page.add_argument("--document", type=Path, default=Path("docs/guidance.md"))
    page.set_defaults(run=write)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
