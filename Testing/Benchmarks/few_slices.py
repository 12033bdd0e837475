# SPDX-License-Identifier: Apache-2.0
"""How good an outline a few drawn planes make, against what people have today. Writes docs/few-slices.md.

Planes lie at fixed parts of the structure's extent, n of them at 1/(n+1), 2/(n+1) ...; every k-th axial slice starts at
the first one with the structure and ends with the last. All methods get the same planes of the same scans in one run:
``barl.fill``; the interpolated distance map; ITK's morphological contour interpolation, the algorithm of Slicer's "Fill
between slices"; and GrowCut, that of "Grow from seeds" (packages itk-morphologicalcontourinterpolation and itk-growcut,
left out where they are not installed).

python Testing/Benchmarks/few_slices.py --scans 20 --document docs/few-slices.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

import numpy as np
import SimpleITK as sitk
from barl.benchmark import datasets
from barl.fill.drawn import bounding_box
from barl.fill.filling import Prediction, fill_scan
from barl.fill.next_plane import next_plane
from barl.fill.shape import InterpolatedDistance
from barl.images.geometry import Grid

try:
    import itk
except ImportError:
    itk = None
if not all(hasattr(itk, name) for name in ("MorphologicalContourInterpolator", "FastGrowCut")):
    itk = None

MIXED = ((1, 1, 1), (2, 2, 2), (3, 3, 3), (5, 0, 0))
INTERVALS = (3, 6, 10)
SETS = {"hippocampus": ("tuning",), "sts_pet": ("tuning", "test"), "bonbid_hie": ("tuning", "test")}
CORRECTIONS = (1, 2, 3, 4, 6)


@dataclass(frozen=True)
class Scan:
    name: str
    images: list[np.ndarray]
    truth: np.ndarray
    spacing: tuple[float, ...]
    grid: Grid


def scans(name: str, parts: Sequence[str], count: int) -> Iterator[Scan]:
    """Scans that hold any structure; all labels as one."""
    data = datasets.load(name)
    cases = [case for part in parts for case in data.part(part)]
    found = 0
    for case in cases:
        images = [sitk.ReadImage(str(path), sitk.sitkFloat32) for path in case.images]
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(case.label))) > 0
        if truth.any() and found < count:
            found += 1
            arrays = [sitk.GetArrayFromImage(image) for image in images]
            yield Scan(case.id, arrays, truth, images[0].GetSpacing()[::-1], Grid.of(images[0]))


def drawn_planes(truth: np.ndarray, planes: tuple[int, int, int] | int) -> np.ndarray:
    """Mask of the planes: so many (k, j, i), or every so many-th axial slice."""
    drawn = np.zeros(truth.shape, dtype=bool)
    box = bounding_box(truth)
    if isinstance(planes, int):
        drawn[[*range(box[0].start, box[0].stop, planes), box[0].stop - 1]] = True
        return drawn
    for axis, (side, n) in enumerate(zip(box, planes, strict=True)):
        first, last = side.start, side.stop - 1
        for m in range(1, n + 1):
            drawn[(slice(None),) * axis + (round(first + (last - first) * m / (n + 1)),)] = True
    return drawn


def ours(scan: Scan, drawn: np.ndarray) -> np.ndarray:
    labels = np.where(drawn, scan.truth, 0).astype(np.uint8)
    if not labels.any():
        return labels > 0
    return fill_scan(scan.images, labels, scan.spacing, drawn).labels > 0


def distance_map(scan: Scan, drawn: np.ndarray) -> np.ndarray:
    places = np.flatnonzero(drawn.all(axis=(1, 2)))
    planes = [places, np.array([], int), np.array([], int)]
    shares = (scan.truth & drawn)[None].astype(np.float32)
    distance = InterpolatedDistance(shares, planes, np.asarray(scan.spacing))
    index = np.unravel_index(np.arange(drawn.size), drawn.shape)
    inside = distance.at(index)[0][0].reshape(drawn.shape) > 0
    inside[: places[0]] = inside[places[-1] + 1 :] = False
    return np.where(drawn, scan.truth, inside)


def itk_interpolation(scan: Scan, drawn: np.ndarray) -> np.ndarray:
    image = itk.image_from_array(np.where(drawn, scan.truth, 0).astype(np.uint8))
    image.SetSpacing(scan.spacing[::-1])
    interpolator = itk.MorphologicalContourInterpolator.New(image)
    interpolator.SetAxis(2)
    interpolator.Update()
    return np.where(drawn, scan.truth, itk.array_from_image(interpolator.GetOutput()) > 0)


def grow_cut(scan: Scan, drawn: np.ndarray) -> np.ndarray:
    """Of the first channel, in the box of what was drawn with 8 voxels around it."""
    seeds = np.where(drawn, np.where(scan.truth, 2, 1), 0).astype(np.uint8)
    inside = bounding_box(seeds == 2)
    if inside is None:
        return np.zeros(drawn.shape, dtype=bool)
    box = tuple(slice(max(s.start - 8, 0), min(s.stop + 8, n)) for s, n in zip(inside, drawn.shape, strict=True))
    part = seeds[box]
    for axis in range(3):
        for index in (0, -1):
            face = part[(slice(None),) * axis + (index,)]
            face[face == 0] = 1
    image = itk.image_from_array(np.ascontiguousarray(scan.images[0][box]))
    marks = itk.image_from_array(np.ascontiguousarray(part))
    for each in (image, marks):
        each.SetSpacing(scan.spacing[::-1])
    grown = itk.FastGrowCut.New(image)
    grown.SetSeedImage(marks)
    grown.Update()
    result = np.zeros(drawn.shape, dtype=bool)
    result[box] = itk.array_from_image(grown.GetOutput()) == 2
    return np.where(drawn, scan.truth, result)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else 1.0


def compare(name: str, count: int) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Dice of every scan for each choice of planes and method, and the seconds of each of our fills."""
    figures: dict[str, dict[str, list[float]]] = {}
    seconds: list[float] = []
    for scan in scans(name, SETS[name], count):
        for planes in (*MIXED, *INTERVALS):
            drawn = drawn_planes(scan.truth, planes)
            methods: dict[str, Callable] = {"fill": ours}
            if isinstance(planes, int):
                methods["distance map"] = distance_map
                if itk is not None:
                    methods["ITK interpolation"] = itk_interpolation
            if itk is not None:
                methods["GrowCut"] = grow_cut
            row = figures.setdefault(_words(planes), {})
            for method, run in methods.items():
                started = time.process_time()
                row.setdefault(method, []).append(dice(run(scan, drawn), scan.truth))
                if method == "fill":
                    seconds.append(time.process_time() - started)
            row.setdefault("planes", []).append(sum(_count(drawn)))
        print(name, scan.name, file=sys.stderr, flush=True)
    return figures, seconds


def _words(planes: tuple[int, int, int] | int) -> str:
    return f"every {planes}th slice".replace("3th", "3rd") if isinstance(planes, int) else "+".join(map(str, planes))


def _count(drawn: np.ndarray) -> list[int]:
    return [int(drawn.all(axis=tuple(a for a in range(3) if a != axis)).sum()) for axis in range(3)]


def spread(model: Path, count: int, noise: float) -> dict[str, list[float]]:
    """Dice after m corrected planes: only these corrected, and spread; the scan with noise makes the model worse."""
    from barl.inference.predictor import Predictor

    predictor = Predictor.load(model, "cpu")
    rng = np.random.default_rng(0)
    found: dict[str, list[list[float]]] = {"planes alone": [], "spread": [], "expected of spread": []}
    for scan in scans("hippocampus", ("tuning",), count):
        noisy = scan.images[0] + noise * scan.images[0].std() * rng.normal(size=scan.truth.shape).astype(np.float32)
        predicted = predictor.predict([scan.grid.image(noisy.astype(np.float32))])
        labels = (sitk.GetArrayFromImage(predicted.label) > 0).astype(np.uint8)
        uncertainty = sitk.GetArrayFromImage(predicted.uncertainty)
        for name, row in zip(found, _correct(scan, labels, uncertainty), strict=True):
            found[name].append(row)
    return {name: np.mean(rows, axis=0).round(3).tolist() for name, rows in found.items()}


def _correct(scan: Scan, labels: np.ndarray, uncertainty: np.ndarray) -> tuple[list[float], ...]:
    drawn = np.zeros(scan.truth.shape, dtype=bool)
    truth = scan.truth.astype(np.uint8)
    alone = [dice(labels > 0, scan.truth)]
    spreads, expected = alone.copy(), alone.copy()
    sums = [uncertainty.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    axis = max(range(3), key=lambda a: sums[a].max())
    index = int(sums[axis].argmax())
    for m in range(1, CORRECTIONS[-1] + 1):
        drawn[(slice(None),) * axis + (index,)] = True
        filled = fill_scan(scan.images, np.where(drawn, truth, 0), scan.spacing, drawn, Prediction(labels, uncertainty))
        if m in CORRECTIONS:
            alone.append(dice(np.where(drawn, truth, labels) > 0, scan.truth))
            spreads.append(dice(filled.labels > 0, scan.truth))
            expected.append(filled.expected_dice())
        if (plane := next_plane(filled, drawn)) is not None:
            axis, index = plane.axis, plane.index
    return alone, spreads, expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=3, help="of each set")
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--model", type=Path, help="a hippocampus model, for the spread of corrections")
    parser.add_argument("--noise", type=float, nargs="*", default=[0.0, 4.0], help="in standard deviations")
    parser.add_argument("--join", type=Path, nargs="*", default=[], help="answers of earlier runs of other sets")
    parser.add_argument("--document", type=Path, help="write the tables there")
    arguments, _ = parser.parse_known_args()  # the runner hands every benchmark all options
    if "BARL_DATA" not in os.environ:
        print(json.dumps({"benchmark": "few_slices", "left_out": "BARL_DATA does not name the data sets"}))
        return
    result: dict = {"benchmark": "few_slices", "machine": platform.machine(), "sets": {}, "spread": {}}
    for name in arguments.sets:
        figures, seconds = compare(name, arguments.scans)
        result["sets"][name] = {
            "planes": {
                planes: {method: round(float(np.mean(values)), 3) for method, values in row.items()}
                for planes, row in figures.items()
            },
            "scans": len(next(iter(figures.values()))["fill"]),
            "seconds_median": round(float(np.median(seconds)), 3),
        }
    if arguments.model is not None:
        for noise in arguments.noise:
            result["spread"][str(noise)] = spread(arguments.model, arguments.scans, noise)
    for path in arguments.join:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        result["sets"].update(earlier["sets"])
        result["spread"].update(earlier["spread"])
    if arguments.document is not None:
        from _few_slices_document import document

        # filled_teaching.py writes the last section.
        known = arguments.document.read_text(encoding="utf-8") if arguments.document.exists() else ""
        _, heading, teaching = known.partition("## What filled outlines teach")
        arguments.document.write_text(
            document(result) + ("\n" + heading + teaching if heading else ""), encoding="utf-8"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
