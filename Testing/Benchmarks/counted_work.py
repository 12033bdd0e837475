# SPDX-License-Identifier: Apache-2.0
"""Minutes of a simulated reader until an outline is good, and how right the Dice is that a fill expects.

No training is part of it. ``outlines`` begins with nothing: every slice by hand; every k-th slice, the rest made by
Slicer's *Fill between slices* (ITK's morphological interpolation, left out where its package is not installed) or by
``barl.fill``; planes of three directions, at fixed parts of the structure's extent or one by one where ``next_plane``
says. ``corrections`` begins with the prediction of a model: slices corrected by themselves, or spread by ``barl.fill``.
Each scan becomes one row: for each way the minutes and the Dice after each step.

python Testing/Benchmarks/counted_work.py outlines RESULTS --set hippocampus --part tuning --scans 20
python Testing/Benchmarks/counted_work.py corrections RESULTS --set hippocampus --model FOLDER --part tuning
python Testing/Benchmarks/counted_work.py write RESULTS --document docs/few-slices.md
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import few_slices
import numpy as np
import SimpleITK as sitk
from barl.benchmark.clinician import Prices, contour_mm
from barl.fill.drawn import bounding_box
from barl.fill.filling import Filled, Prediction, fill_scan
from barl.fill.next_plane import most_uncertain_plane, next_plane
from few_slices import Scan, dice, drawn_planes

PRICES = Prices()
INTERVALS = (10, 6, 4, 3, 2)
FIXED = (1, 2, 3, 4)
# Planes that are proposed one by one, after 1+1+1 or after a prediction.
PROPOSED = 10
BY_HAND, SLICER, EVERY, PLANES, NEXT = (
    "every slice",
    "every k-th slice, Fill between slices",
    "every k-th slice, barl fill",
    "fixed planes, barl fill",
    "next plane, barl fill",
)
SLICES, WORST, SPREAD, SPREAD_FIXED = (
    "slices where unsure",
    "slices where worst",
    "spread, next plane",
    "spread, fixed planes",
)


@dataclass
class Reader:
    """Draws planes of one scan, and counts what that costs.

    Attributes:
        scan: With the expert's outline.
        shown: What stands on screen, boolean ``[k, j, i]``.
        drawn: Voxels drawn or looked at.
        seconds: Spent.
        planes: Drawn.
        mm: Of contour.
        filled: Whether *Fill* was pressed.
    """

    scan: Scan
    shown: np.ndarray
    drawn: np.ndarray = field(init=False)
    seconds: float = PRICES.case
    planes: int = 0
    mm: float = 0.0
    filled: bool = False

    def __post_init__(self) -> None:
        self.drawn = np.zeros(self.shown.shape, dtype=bool)

    def draw(self, axis: int, index: int) -> float:
        """Correct one plane of what is shown; gives the Dice that the plane had before."""
        place = (slice(None),) * axis + (index,)
        pixel = [s for a, s in enumerate(self.scan.spacing) if a != axis]
        truth, shown = self.scan.truth[place], np.where(self.drawn[place], self.scan.truth[place], self.shown[place])
        contour = contour_mm(truth, shown, pixel)
        self.seconds += PRICES.look + (PRICES.plane if contour else 0) + PRICES.mm * contour
        self.planes += 1
        self.mm += contour
        before = dice(shown, truth)
        self.drawn[place] = True
        self.shown = np.where(self.drawn, self.scan.truth, self.shown)
        return before

    def fill(self, prediction: Prediction | None = None) -> Filled:
        """Press *Fill*."""
        labels = np.where(self.drawn, self.scan.truth, 0).astype(np.uint8)
        filled = fill_scan(self.scan.images, labels, self.scan.spacing, self.drawn, prediction)
        self.shown = filled.labels > 0
        self.seconds += PRICES.click
        self.filled = True
        return filled

    def point(self) -> list[float]:
        """Planes, minutes, Dice and mm of contour if the outline is accepted now; a fill is looked over before."""
        seconds = self.seconds + (PRICES.fill if self.filled else 0)
        return [self.planes, round(seconds / 60, 3), round(dice(self.shown, self.scan.truth), 4), round(self.mm)]


def outline(scan: Scan) -> dict[str, Any]:
    """The curves of one scan that nobody has outlined, and what each fill of ``NEXT`` expects."""
    nothing = np.zeros(scan.truth.shape, dtype=bool)
    curves: dict[str, list[list[float]]] = {BY_HAND: [_draw_slices(scan, 1).point()]}
    for k in INTERVALS:
        reader = _draw_slices(scan, k)
        if few_slices.itk is not None:
            by_slicer = few_slices.itk_interpolation(scan, reader.drawn)
            minutes = (reader.seconds + PRICES.click + PRICES.fill) / 60
            row = [reader.planes, round(minutes, 3), round(dice(by_slicer, scan.truth), 4), round(reader.mm)]
            curves.setdefault(SLICER, []).append(row)
        reader.fill()
        curves.setdefault(EVERY, []).append(reader.point())
    for n in FIXED:
        reader = Reader(scan, nothing)
        _draw(reader, drawn_planes(scan.truth, (n, n, n)))
        if reader.shown.any():
            reader.fill()
        curves.setdefault(PLANES, []).append(reader.point())
    reader = Reader(scan, nothing)
    _draw(reader, drawn_planes(scan.truth, (1, 1, 1)))
    curves[NEXT], expected = _one_by_one(reader, None)
    return {"curves": curves, "expected": expected}


def _draw_slices(scan: Scan, k: int) -> Reader:
    reader = Reader(scan, np.zeros(scan.truth.shape, dtype=bool))
    _draw(reader, drawn_planes(scan.truth, k))
    return reader


def _draw(reader: Reader, mask: np.ndarray) -> None:
    for axis in range(3):
        for index in np.flatnonzero(mask.all(axis=tuple(a for a in range(3) if a != axis))):
            reader.draw(axis, int(index))


def _one_by_one(reader: Reader, prediction: Prediction | None) -> tuple[list[list[float]], list[dict[str, float]]]:
    """Fill, draw the plane that is proposed, and so on; and what each fill expected of itself and of the next."""
    points, expected = [], []
    if not reader.shown.any() and prediction is None:  # fixed planes may miss scattered lesions
        return [reader.point()], []
    plane_dice = float("nan")
    for _ in range(PROPOSED + 1):
        filled = reader.fill(prediction)
        plane = next_plane(filled, reader.drawn)
        points.append(reader.point())
        row = {"planes": reader.planes, "now": filled.expected_dice(), "dice": points[-1][2]}
        row |= {"plane_dice": plane_dice, "trust": filled.trust}
        row["parts"] = len(filled.parts)
        row["after"] = 1 - (1 - row["now"]) * (1 - plane.settles) if plane else None
        expected.append({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()})
        if plane is None or len(points) > PROPOSED:
            break
        reader.seconds += PRICES.click  # Next slice
        plane_dice = reader.draw(plane.axis, plane.index)
    return points, expected


def correct(scan: Scan, labels: np.ndarray, uncertainty: np.ndarray) -> dict[str, Any]:
    """The curves of one scan with a prediction."""
    prediction = Prediction(labels.astype(np.uint8), uncertainty)
    curves = {
        BY_HAND: [_draw_slices(scan, 1).point()],
        SLICES: _slices(scan, labels, uncertainty.sum(axis=(1, 2))),
        WORST: _slices(scan, labels, np.count_nonzero(labels != scan.truth, axis=(1, 2)).astype(float)),
    }
    reader = Reader(scan, labels)
    before = reader.point()
    first = most_uncertain_plane(uncertainty, [np.array([], int)] * 3)
    if first is not None:
        reader.seconds += PRICES.click
        reader.draw(*first)
        points, expected = _one_by_one(reader, prediction)
    else:
        points, expected = [], []
    curves[SPREAD] = [before, *points]
    curves[SPREAD_FIXED] = [before]
    for n in FIXED[:3]:
        reader = Reader(scan, labels)
        box = bounding_box(scan.truth | labels)
        planes = [_even(side, n) for side in box] if box else [[], [], []]
        for axis, indices in enumerate(planes):
            for index in indices:
                reader.draw(axis, index)
        reader.fill(prediction)
        curves[SPREAD_FIXED].append(reader.point())
    return {"curves": curves, "expected": expected}


def _even(side: slice, n: int) -> list[int]:
    return [round(side.start + (side.stop - 1 - side.start) * m / (n + 1)) for m in range(1, n + 1)]


def _slices(scan: Scan, labels: np.ndarray, order: np.ndarray) -> list[list[float]]:
    """Axial slices corrected by themselves, in descending ``order``, until nothing is wrong."""
    reader = Reader(scan, labels)
    points = [reader.point()]
    for index in np.argsort(-order, kind="stable"):
        if not order[index] or points[-1][2] == 1:
            break
        reader.draw(0, int(index))
        points.append(reader.point())
    return points


def predictions(options: argparse.Namespace) -> Iterator[tuple[Scan, np.ndarray, np.ndarray]]:
    """Scans with a model's label map (all labels as one) and uncertainty."""
    from barl.inference.predictor import Predictor

    predictor = Predictor.load(options.model, device="cpu")
    for scan in few_slices.scans(options.set, (options.part,), options.scans):
        found = predictor.predict([scan.grid.image(image) for image in scan.images])
        uncertainty = sitk.GetArrayFromImage(found.uncertainty).astype(np.float32)
        yield scan, sitk.GetArrayFromImage(found.label) > 0, uncertainty


def run(options: argparse.Namespace) -> None:
    """Measure scan by scan; a row that is there is kept."""
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{options.action}_{options.set}_{options.part}{options.name and '_' + options.name}.jsonl"
    known = {json.loads(line)["case"] for line in path.read_text("utf-8").splitlines()} if path.exists() else set()
    found: Iterator[tuple[Any, ...]] = (
        predictions(options)
        if options.action == "corrections"
        else ((scan,) for scan in few_slices.scans(options.set, (options.part,), options.scans))
    )
    for scan, *predicted in found:
        if scan.name in known:
            continue
        row = {"action": options.action, "set": options.set, "part": options.part, "case": scan.name}
        row |= correct(scan, *predicted) if predicted else outline(scan)
        if options.name:
            row["model"] = options.name
        with path.open("a", encoding="utf-8") as file:
            print(json.dumps(row), file=file, flush=True)
        print(scan.name, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action")
    outlines, corrections, writing = (actions.add_parser(name) for name in ("outlines", "corrections", "write"))
    for action in (outlines, corrections):
        action.add_argument("--set", default="hippocampus", choices=list(few_slices.SETS))
        action.add_argument("--part", default="tuning", choices=("tuning", "test"))
        action.add_argument("--scans", type=int, default=20)
    corrections.add_argument("--model", type=Path, required=True)
    corrections.add_argument("--name", required=True, help="of the model, for the tables")
    outlines.set_defaults(name="")
    writing.add_argument("--document", type=Path, required=True)
    for action in (outlines, corrections, writing):
        action.add_argument("results", type=Path, help="folder of the rows")
    options, _ = parser.parse_known_args()  # the runner hands every benchmark all options
    if options.action is None or (options.action != "write" and "BARL_DATA" not in os.environ):
        left_out = "needs an action" if options.action is None else "BARL_DATA does not name the data sets"
        print(json.dumps({"benchmark": "counted_work", "left_out": left_out}))
        return
    if options.action == "write":
        from _counted_work_document import write

        write(options.results, options.document)
    else:
        run(options)


if __name__ == "__main__":
    main()
