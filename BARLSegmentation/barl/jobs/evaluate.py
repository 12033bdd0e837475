# SPDX-License-Identifier: Apache-2.0
"""How good a model is on the cases that it has not learned from: held out, or out of fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.evaluation.calibration import area_under_risk_coverage, expected_calibration_error
from barl.evaluation.metrics import LabelMetrics, segmentation_metrics
from barl.evaluation.statistics import Summary, summarize_cases
from barl.images.components import bounding_box
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.inference.predictor import Prediction
from barl.jobs.choice import choose_model
from barl.jobs.compute import AUTOMATIC, Compute, WarmPredictors
from barl.jobs.unseen import is_from_elsewhere, judged_cases, learned_though_held_out, out_of_fold
from barl.models.disk import check_channels
from barl.progress import SILENT, Progress, Stage
from barl.project.model_card import read_card
from barl.project.records import Case
from barl.project.store import Project

# Calibration looks at this many voxels (in each direction) around the predicted and the true structures: the far
# background is trivially correct and would dominate.
_MARGIN = 5
_VOXELS_PER_CASE = 50_000
_ELSEWHERE = (
    "The model, or one that it was trained on from, was not trained in this project: whether it has learned from these "
    "cases is not known."
)


@dataclass(frozen=True)
class Judged:
    """An unseen case as it was evaluated.

    Attributes:
        case: The case.
        channels: Its images.
        expert: Its accepted label map, on the scan's grid.
        prediction: The model's, with probabilities.
    """

    case: Case
    channels: list[sitk.Image]
    expert: sitk.Image
    prediction: Prediction


def evaluate_model(
    project: Project,
    model: str | Path | None = None,
    *,
    cases: Sequence[Case] | None = None,
    compute: Compute = AUTOMATIC,
    progress: Progress = SILENT,
    look: Callable[[Judged], None] | None = None,
) -> dict[str, Any]:
    """Predict the unseen cases and compare with their accepted outlines, on the scans' own grids.

    An outlined case that one member of the model has not learned from is judged by that member alone.

    Args:
        project: May be open for reading only; nothing is stored.
        model: Id or folder; by default the current model.
        cases: Those to evaluate on, outlined; by default ``judged_cases``, and a note tells how many held-out cases
            the model has learned from.
        compute: Device and loaded models.
        progress: Gets the stages loading and evaluating.
        look: Called with each case once it is predicted, such as to draw it.

    Returns:
        ``model``; ``labels``: per label name and ``dice``, ``hd95_mm`` ... as mean, sd, n; ``mean`` over the labels;
        ``calibration_error`` and ``risk_coverage_area`` of the voxels around the structures; ``cases``: per case and
        label all metrics, and ``member`` (None: all of them); ``notes``.

    Raises:
        InputError: No unseen case has an accepted outline.
        BarlError: Of model or device.
    """
    folder, model_id = choose_model(project, model)
    left_out = [] if cases is not None else learned_though_held_out(project, model_id)
    cases = judged_cases(project, model_id) if cases is None else cases
    members = out_of_fold(project, model_id)
    card = read_card(folder)
    check_channels(card, project.definition.channel_names_for(card.channels))
    progress.stage(Stage.LOADING).at(0.0)
    compute = replace(compute, warm=compute.warm or WarmPredictors())
    rows, scores, confidences, hits = [], [], [], []
    rng = np.random.default_rng(0)
    for case, part in progress.stage(Stage.EVALUATING).each(cases, lambda case: case.name):
        channels = read_channels(project.cases.sound_images(case.id))
        grid = Grid.of(channels[0])
        revision = project.revisions.accepted(case.id)
        expert = read_label(revision.path, grid, project.values)
        truth = sitk.GetArrayViewFromImage(expert)
        mask = project.revisions.read_looked(revision)
        looked = None if mask is None else sitk.GetArrayFromImage(mask) != 0
        if mask is not None:  # elsewhere it is no expert's
            expert = expert * sitk.Cast(mask, expert.GetPixelID())
            truth = sitk.GetArrayViewFromImage(expert)
        predictor = compute.predictor(folder, members.get(case.id))
        prediction = predictor.predict(channels, want_probabilities=True, progress=part, cleanup=compute.cleanup)
        predicted = sitk.GetArrayViewFromImage(prediction.label)
        score = segmentation_metrics(predicted, truth, grid.spacing[::-1], project.values, looked=looked)
        confidence, correct = _sample(prediction, predicted, truth, looked, rng)
        scores.append(score)
        confidences.append(confidence)
        hits.append(correct)
        labels = {str(value): _row(metrics) for value, metrics in score.items()}
        rows.append({"case": case.id, "name": case.name, "labels": labels, "member": members.get(case.id)})
        if look is not None:
            look(Judged(case, channels, expert, prediction))
    confidence, correct = np.concatenate(confidences), np.concatenate(hits)
    return {
        "model": model_id or str(folder),
        "labels": {str(label.value): _summary(label.name, scores, [label.value]) for label in project.labels},
        "mean": _summary("mean", scores, None),
        "calibration_error": expected_calibration_error(confidence, correct),
        "risk_coverage_area": area_under_risk_coverage(confidence, correct),
        "cases": rows,
        "notes": _notes(cases, len({case.id for case in cases} & set(members)), len(left_out))
        + ([_ELSEWHERE] if is_from_elsewhere(project, model_id) else []),
    }


def _notes(cases: Sequence[Case], apart: int, left_out: int) -> list[str]:
    """``apart``: cases judged by one member. ``left_out``: held-out cases that the model has learned from."""
    notes = ["Only 1 case was judged: the figures are rough."] if len(cases) == 1 else []
    if left_out:
        words = (
            "case was left out: the model has learned from it."
            if left_out == 1
            else ("cases were left out: the model has learned from them.")
        )
        notes.append(f"{left_out} held-out {words}")
    if apart:
        notes.append(f"{apart} of {len(cases)} cases were judged out of fold: by the member that has not seen them.")
    if partial := sum(case.is_partial for case in cases):
        notes.append(
            f"{partial} held-out outlines are partial: their Dice is that of the voxels looked at; surfaces and "
            "lesions are measured on the others alone."
        )
    return notes


def _sample(
    prediction: Prediction,
    predicted: np.ndarray,
    truth: np.ndarray,
    looked: np.ndarray | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of the predicted class and whether it is right, for voxels around the structures."""
    either = (predicted > 0) | (truth > 0)
    box = bounding_box(either if looked is None else either & looked, _MARGIN)
    if box is None or prediction.probabilities is None:
        return np.empty(0), np.empty(0, bool)
    here, there = predicted[box].ravel(), truth[box].ravel()
    known = np.arange(here.size) if looked is None else np.flatnonzero(looked[box])
    chosen = rng.choice(known, min(_VOXELS_PER_CASE, known.size), replace=False)
    foreground = np.stack(
        [sitk.GetArrayViewFromImage(image)[box].ravel()[chosen] for image in prediction.probabilities.values()]
    )
    confidence = np.maximum(foreground.max(axis=0), 1 - foreground.sum(axis=0))
    return np.clip(confidence, 0, 1), here[chosen] == there[chosen]


def _summary(name: str, scores: Sequence[Mapping[int, LabelMetrics]], values: list[int] | None) -> dict[str, Any]:
    """Metric -> mean, sd and n over the cases."""
    summaries: dict[str, Summary] = summarize_cases(scores, values)
    return {"name": name, **{metric: asdict(summary) for metric, summary in summaries.items()}}


def _row(metrics: LabelMetrics) -> dict[str, float]:
    return {key: value for key, value in asdict(metrics).items() if isinstance(value, float)}
