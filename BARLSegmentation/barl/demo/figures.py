# SPDX-License-Identifier: Apache-2.0
"""The figures of the demo's own chapters, as PNG; the others are those of ``barl.report.figures``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from barl.demo.main_job import Outcome, Training
from barl.demo.sources import DemoCase
from barl.evaluation.calibration import reliability_curve
from barl.images.components import bounding_box
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_image
from barl.jobs.evaluate import Judged
from barl.project.labels import Label
from barl.report.figures import (
    AFTER,
    COLORS,
    HALO,
    doubt_scale,
    legend_of_outlines,
    outline,
    outline_expert,
    png,
    rgb,
    show_doubt,
)

_PANEL = 2.5  # inches


def curves(trainings: Sequence[Training], labels: Sequence[Label]) -> bytes:
    """Parts of the loss, and Dice on the held-out cases, over the iterations of all trainings in a row."""
    figure = Figure(figsize=(10, 4.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    start = 0
    for number, training in enumerate(trainings):
        rows = [event["values"] for event in training.events if "total" in event.get("values", {})]
        parts = [key for key in (rows[0] if rows else {}) if key not in ("iteration", "total")]
        steps = [start + row["iteration"] for row in rows]
        for part, color in zip(["total", *parts], ["black", *COLORS], strict=False):
            values = [row[part] if row.get(part, 0) > 0 else np.nan for row in rows]
            label = part.upper() if part in ("dpr", "pcbc", "cps") else part.replace("_", " ")
            left.plot(steps, values, color=color, lw=1.8 if part == "total" else 1.1, label="" if number else label)
        scores = _held_out_scores(training)
        for entry in labels:
            points = [(start + step, dice[entry.value]) for step, dice in scores if entry.value in dice]
            right.plot(
                [step for step, _ in points],
                [score for _, score in points],
                "o-",
                color=rgb(entry),
                ms=4,
                label="" if number else entry.name,
            )
        start += training.summary["iterations"]
        if number + 1 < len(trainings):
            for axes in (left, right):
                axes.axvline(start, color="0.4", ls=":", lw=1)
                axes.annotate(
                    "corrections",
                    (start, 0.99),
                    xycoords=("data", "axes fraction"),
                    rotation=90,
                    ha="right",
                    va="top",
                    fontsize=8,
                    color="0.3",
                )
    left.set(title="Parts of the loss, unweighted (total: weighted)", xlabel="iteration", yscale="log")
    right.set(title="Dice on the held-out cases, on the model's grid", xlabel="iteration")
    left.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    right.legend(fontsize=8, loc="lower right")
    return png(figure)


def _held_out_scores(training: Training) -> list[tuple[int, dict[int, float]]]:
    """Iteration and Dice by label value, at every validation."""
    scores = []
    for event in training.events:
        values = event.get("values", {})
        found = {int(key[5:]): dice for key, dice in values.items() if key.startswith("dice ")}
        if found:
            scores.append((values["iteration"], found))
    final = training.summary.get("metrics", {}).get("dice", {})
    if final:
        dice = {int(value): score for value, score in final.items() if score is not None}
        scores.append((training.summary["iterations"], dice))
    return scores


def hotspots(outcome: Outcome, limit: int = 4) -> bytes | None:
    """The first hot-spots of the case chosen first, each in its slice; ``None`` if there is none."""
    spots = outcome.doubted.details.get("hotspots", [])
    if not spots:
        return None
    case, labels = outcome.corrected[0], outcome.data.labels
    scan, expert = _scan_and_label(case, labels)
    prediction = _oriented(read_label(outcome.doubted.path, Grid.of(read_image(case.image)), [v.value for v in labels]))
    assert outcome.doubted.uncertainty_path is not None  # every prediction has one
    doubt = _array(_oriented(read_image(outcome.doubted.uncertainty_path)))
    places = [np.array(scan.TransformPhysicalPointToContinuousIndex(spot["position_mm"])) for spot in spots]
    heights = list(dict.fromkeys(round(place[2]) for place in places))[:limit]
    width = max(_PANEL * _width_to_height(scan), 1.4) + 0.15
    figure = Figure(figsize=(max(width * len(heights) + 1.1, 5.5), _PANEL + 0.9), layout="constrained")
    panels = figure.subplots(1, len(heights), squeeze=False)[0]
    for axes, k in zip(panels, heights, strict=True):
        _show_scan(axes, scan, k)
        show_doubt(axes, doubt[k], scan.GetSpacing()[1] / scan.GetSpacing()[0])
        outline(axes, _array(prediction)[k], labels)
        outline_expert(axes, _array(expert)[k], labels)
        for spot, place in zip(spots, places, strict=True):
            if round(place[2]) == k and spot["rank"] <= 10:
                _mark(axes, place, spot["rank"])
        z = scan.TransformIndexToPhysicalPoint((0, 0, k))[2]
        axes.set_title(f"slice at S {z:.0f} mm", fontsize=9)
    _mark_sides(panels[0])
    figure.colorbar(doubt_scale(), ax=panels, shrink=0.8, pad=0.02, label="uncertainty")
    legend_of_outlines(figure, labels)
    return png(figure)


def volumes(judged: Sequence[Judged], labels: Sequence[Label]) -> bytes:
    """Volumes of the held-out cases: the expert's against the model's, with the spread over its branches."""
    figure = Figure(figsize=(3.9 * len(labels) + 0.3, 3.7), layout="constrained")
    panels = figure.subplots(1, len(labels), squeeze=False)[0]
    for n, (axes, label) in enumerate(zip(panels, labels, strict=True)):
        found = [item.prediction.volumes[n] for item in judged]
        truth = [_expert_ml(item, label) for item in judged]
        ml = np.array([v.ml for v in found])
        spread = np.array([[v.ml - v.low_ml for v in found], [v.high_ml - v.ml for v in found]])
        axes.errorbar(truth, ml, yerr=spread, fmt="o", color=AFTER, ecolor="0.55", ms=5, capsize=2)
        top = 1.08 * max([*truth, *(v.high_ml for v in found)] or [1])
        axes.plot([0, top], [0, top], color="0.4", ls="--", lw=1)
        axes.set(title=label.name, xlabel="expert (ml)", ylabel="model (ml)", xlim=(0, top), ylim=(0, top))
        axes.set_aspect("equal")
    return png(figure)


def reliability(judged: Sequence[Judged], labels: Sequence[Label]) -> bytes:
    """Confidence against the share of right voxels around the structures of the held-out cases, after."""
    pairs = [_confidence(item) for item in judged]
    confidence, correct = (np.concatenate(part) for part in zip(*pairs, strict=True))
    curve = reliability_curve(confidence, correct, bins=10)
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes, counts = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color="0.4", ls="--", lw=1, label="ideal")
    filled = curve.count > 0
    axes.plot(curve.confidence[filled], curve.accuracy[filled], "o-", color=AFTER, label="model")
    counts.bar((np.arange(10) + 0.5) / 10, curve.count, width=0.09, color="0.6")
    counts.set(xlabel="probability that the model gives its answer", ylabel="voxels", yscale="log")
    lowest = 1 / (len(labels) + 1)
    axes.set(ylabel="share of right answers", xlim=(lowest - 0.05, 1.02), ylim=(0, 1.03))
    axes.legend(fontsize=8)
    return png(figure)


def _confidence(item: Judged, margin: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Of the voxels within ``margin`` of the structures; the far background is trivially correct and would dominate."""
    truth = sitk.GetArrayFromImage(item.expert)
    predicted = sitk.GetArrayFromImage(item.prediction.label)
    box = bounding_box((truth > 0) | (predicted > 0), margin)
    if box is None or item.prediction.probabilities is None:
        return np.empty(0), np.empty(0, bool)
    p = np.stack([sitk.GetArrayFromImage(image)[box] for image in item.prediction.probabilities.values()])
    confidence = np.maximum(p.max(axis=0), 1 - p.sum(axis=0)).clip(0, 1)
    return confidence.ravel(), (truth[box] == predicted[box]).ravel()


def _scan_and_label(case: DemoCase, labels: Sequence[Label]) -> tuple[sitk.Image, sitk.Image]:
    scan = read_image(case.image)
    label = read_label(case.label, Grid.of(scan), [label.value for label in labels])
    return _oriented(scan), _oriented(label)


def _expert_ml(item: Judged, label: Label) -> float:
    outlined = np.count_nonzero(sitk.GetArrayViewFromImage(item.expert) == label.value)
    return float(outlined * Grid.of(item.expert).voxel_ml)


def _oriented(image: sitk.Image) -> sitk.Image:
    """Axes to the patient's left, back and head: drawn as it is, a slice looks as radiologists see it, from below."""
    return sitk.DICOMOrient(image, "LPS")


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(_oriented(image))


def _width_to_height(scan: sitk.Image) -> float:
    """Of an axial slice."""
    (nx, ny, _), (sx, sy, _) = scan.GetSize(), scan.GetSpacing()
    return nx * sx / (ny * sy)


def _show_scan(axes: Axes, scan: sitk.Image, k: int) -> None:
    array = sitk.GetArrayFromImage(scan)
    low, high = np.percentile(array, (1, 99.7))
    axes.imshow(array[k], cmap="gray", vmin=low, vmax=high, aspect=scan.GetSpacing()[1] / scan.GetSpacing()[0])
    axes.set(xticks=[], yticks=[])


def _mark(axes: Axes, place: np.ndarray, rank: int) -> None:
    axes.plot(*place[:2], "o", ms=11, mfc="none", mec="#00e5ff", mew=1.8)
    axes.annotate(
        str(rank),
        (place[0], place[1]),
        xytext=(7, 5),
        textcoords="offset points",
        color="#00e5ff",
        fontsize=10,
        fontweight="bold",
        path_effects=[HALO],
    )


def _mark_sides(axes: Axes) -> None:
    """The patient's right and left."""
    for side, x, align in (("R", 0.03, "left"), ("L", 0.97, "right")):
        axes.text(
            x,
            0.5,
            side,
            transform=axes.transAxes,
            color="white",
            fontsize=9,
            va="center",
            ha=align,
            path_effects=[HALO],
        )
