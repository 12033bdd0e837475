# SPDX-License-Identifier: Apache-2.0
"""How much of a prediction's error the first places show: measure prints one JSON line, write makes docs/guidance.md.

A look shows a box of edge W mm. Of each subject, the share of the wrongly predicted voxels that lie in the boxes of the
first n places is measured, for several ways to choose the places and several measures of uncertainty.

python Testing/Benchmarks/hotspot_errors.py measure --set hippocampus --model MODEL_FOLDER --part test >> RESULTS
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

import numpy as np
import SimpleITK as sitk
from barl.benchmark import datasets, harness
from barl.images.components import components
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.inference.hotspots import LOOK_VOXELS, find_hotspots, half_a_bit
from barl.inference.predictor import Predictor
from scipy import ndimage

LOOKS = (1, 3, 5, 10, 20)
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


def measure(options: argparse.Namespace) -> dict:
    data = datasets.load(options.set, None, options.cache)
    predictor = Predictor.load(options.model, device="cpu")
    threshold = half_a_bit(len(predictor.card.values) + 1)
    rows: dict[str, list[dict[int, float]]] = {}
    dice = []
    for number, case in enumerate(data.part(options.part)[: options.count]):
        channels = read_channels(case.images)
        grid = Grid.of(channels[0])
        assert case.label is not None
        truth = sitk.GetArrayFromImage(read_label(case.label, grid, predictor.card.values))
        prediction = predictor.predict(channels, want_components=True, cleanup=False)
        predicted = sitk.GetArrayFromImage(prediction.label)
        wrong = predicted != truth
        dice.append(
            float(2 * np.sum((predicted != 0) & (truth != 0)) / max(np.sum(predicted != 0) + np.sum(truth != 0), 1))
        )
        look_mm = options.look * float(np.prod(grid.spacing)) ** (1 / 3)
        maps = {
            name: sitk.GetArrayFromImage(image)
            for name, image in (
                ("uncertainty", prediction.uncertainty),
                ("entropy", prediction.entropy),
                ("disagreement", prediction.disagreement),
            )
            if image is not None
        }
        for name, values in maps.items():
            for rule in (places, regions):
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
        "set": options.set,
        "part": options.part,
        "cases": len(dice),
        "dice": float(np.mean(dice)),
        "look_voxels": options.look,
        "shares": {
            name: {
                n: [float(np.mean([row[n] for row in found])), float(np.std([row[n] for row in found]))] for n in LOOKS
            }
            for name, found in rows.items()
        },
        "machine": harness.machine(),
    }


def table(result: dict) -> str:
    """One row for each way to choose, one column for each number of looks."""
    head = f"{result['set']}, {result['part']} ({result['cases']} cases, Dice {result['dice']:.3f}), look of "
    head += f"{result['look_voxels']:g} voxels"
    lines = [f"| {head} | " + " | ".join(f"first {n}" for n in LOOKS) + " |", "|---" * (len(LOOKS) + 1) + "|"]
    for name, found in result["shares"].items():
        lines.append(f"| {name} | " + " | ".join(f"{found[str(n)][0]:.3f}" for n in LOOKS) + " |")
    return "\n".join(lines)


_TEXT = """# Where a prediction is wrong

This page is written by `Testing/Benchmarks/hotspot_errors.py`.

A clinician looks at places, not at voxels. A look shows a box whose edge is given in voxels of the mean spacing.
Measured is the share of the wrongly predicted voxels that the first n looks show, mean over the subjects, for several
ways to choose them:

* **places**: what BARL does. The box with the most uncertainty, then the next one without the voxels of the first,
  and so on: a region too large for one look becomes several places, and neighbors that one look shows are one.
* **regions**: connected uncertain regions by volume times mean uncertainty, each looked at where it is most uncertain
  (BARL 0.2.0 before this page).
* **random on the predicted surface**: what is called foreground-aware random.

The uncertainty is the maximum of the entropy of the branches' mean and of their disagreement. The models are weak on
purpose: BARL, 4 outlined subjects, 200 iterations, one seed. The edge of a look (24 voxels) is a proposal, not a
choice by these figures; of the tuning subjects the same tables were seen before the rule was kept. Simulated looks
flatter: a reader may overlook what a look shows.

{tables}

Aim: 80 % of the error volume in the first 10 places. {aim}

Machine: {machine}
"""


def write(options: argparse.Namespace) -> None:
    results = [json.loads(line) for line in options.results.read_text("utf-8").splitlines() if line.startswith("{")]
    shown = [result for result in results if result["part"] == "test"]
    met = []
    for result in shown:
        share = result["shares"]["places, uncertainty"]["10"][0]
        met.append(f"{result['set']}, look of {result['look_voxels']:g} voxels: {share:.3f}")
    tables = "\n\n".join(table(result) for result in shown)
    text = _TEXT.format(tables=tables, aim="; ".join(met) + ".", machine=shown[0]["machine"])
    page = options.document.read_text("utf-8") if options.document.exists() else ""
    _, heading, kept = page.partition("\n## ")  # sections that are written by hand
    options.document.write_text(text + heading + kept, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure")
    one.add_argument("--set", required=True)
    one.add_argument("--model", type=Path, required=True)
    one.add_argument("--part", default="tuning", choices=("tuning", "test"))
    one.add_argument("--count", type=int, help="so many cases; all by default")
    one.add_argument("--look", type=float, default=LOOK_VOXELS, help="edge of a look in voxels of the mean spacing")
    one.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "barl-benchmark")
    one.set_defaults(run=lambda options: print(json.dumps(measure(options))))
    page = commands.add_parser("write")
    page.add_argument("results", type=Path, help="lines that measure has printed")
    page.add_argument("--document", type=Path, default=Path("docs/guidance.md"))
    page.set_defaults(run=write)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
