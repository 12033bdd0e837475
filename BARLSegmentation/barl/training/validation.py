# SPDX-License-Identifier: Apache-2.0
"""The held-out cases: Dice per label during a run, temperature and calibration at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from barl.evaluation.calibration import apply_temperature, expected_calibration_error, fit_temperature
from barl.evaluation.cleanup_choice import OutlinedPieces, Row, choose_rule, score_candidates
from barl.evaluation.expected_dice import DiceCalibration, calibrate, mean_over_labels
from barl.evaluation.metrics import dice
from barl.images.cleanup import CleanupRule
from barl.inference.sliding_window import count_windows, predict_array
from barl.inference.threads import ThreadChoice
from barl.networks.branches import BranchPair
from barl.progress import SILENT, Progress, Stage
from barl.training.cases import NOT_LOOKED_AT, CachedCase
from barl.training.plan import Plan

# Of a budget in minutes that the validations between, and the last one, may use each.
_SHARE_OF_BUDGET = 0.15
_SAVING_SECONDS = 0.5
# Voxels a case contributes to the temperature, drawn at random.
CALIBRATION_VOXELS = 20_000


@dataclass(frozen=True)
class Validation:
    """The scores of a network on held-out cases, on the training grid.

    Attributes:
        dice: Label value -> mean Dice of the branches' mean; nan where no case has the label.
        branch_dice: The same for each branch by itself.
        temperature: Fitted on these cases.
        calibration_error: Expected calibration error at temperature 1.
        calibrated_error: The same at ``temperature``.
        cases: Per case ``case`` (its id), ``dice`` (label value -> Dice), with two branches ``agreement`` (label value
            -> Dice between their label maps), where ``pieces`` were given ``cleanup`` (label value -> Dice of each
            candidate).
    """

    dice: dict[int, float]
    branch_dice: list[dict[int, float]]
    temperature: float
    calibration_error: float
    calibrated_error: float
    cases: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mean_dice(self) -> float:
        return _mean(list(self.dice.values()))

    def to_json(self) -> dict[str, Any]:
        return {
            "dice": {str(value): score for value, score in self.dice.items()},
            "mean_dice": self.mean_dice,
            "branch_dice": [{str(v): score for v, score in branch.items()} for branch in self.branch_dice],
            "calibration_error": self.calibration_error,
            "calibrated_error": self.calibrated_error,
        }


def validate(
    network: BranchPair,
    cases: Sequence[CachedCase],
    plan: Plan,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    overlap: float = 0.25,
    progress: Progress = SILENT,
    pieces: Mapping[int, OutlinedPieces] | None = None,
    threads: ThreadChoice | None = None,
) -> Validation | None:
    """Predict the held-out cases and compare; ``None`` if no held-out case is outlined.

    ``progress`` gets the stage validating. ``pieces`` (see ``outlined_pieces``): also try the candidates of cleanup.
    ``threads`` chooses the number of threads of each window.
    """
    cases = [case for case in cases if case.held_out and case.labelled]
    if not cases:
        return None
    rng = np.random.default_rng(0)
    scores: list[list[dict[int, float]]] = []
    rows: list[dict[str, Any]] = []
    sampled_p, sampled_classes = [], []
    for case, part in progress.stage(Stage.VALIDATING).each(cases):
        p = predict_array(
            network,
            case.image.astype(np.float32),
            plan.patch,
            overlap=overlap,
            device=device,
            amp_dtype=amp_dtype,
            branches=range(network.n_branches),
            progress=part,
            threads=threads,
        )
        whole = np.asarray(case.classes)
        truth = whole.reshape(-1)
        maps = [m.reshape(len(m), -1) for m in (p.mean(axis=0), *p)]
        if case.is_partial:  # judged where somebody has looked
            looked = truth != NOT_LOOKED_AT
            truth, maps = truth[looked], [m[:, looked] for m in maps]
        scores.append([{v: dice(m.argmax(0), truth, c) for c, v in enumerate(plan.values, start=1)} for m in maps])
        rows.append({"case": case.id, "dice": {str(v): score for v, score in scores[-1][0].items()}})
        if len(maps) > 2:
            first, second = maps[1].argmax(0), maps[2].argmax(0)
            rows[-1]["agreement"] = {str(v): dice(first, second, c) for c, v in enumerate(plan.values, start=1)}
        if not case.is_partial:
            rows[-1]["volumes"] = _volumes(maps[0].argmax(0), truth, plan, case.grid.voxel_ml)
        if pieces is not None and not case.is_partial:  # a part of a structure has other pieces
            predicted = maps[0].argmax(0).reshape(whole.shape)
            rows[-1]["cleanup"] = _cleanup_row(predicted, whole, plan, pieces, case.grid.voxel_ml)
        chosen = rng.choice(truth.size, min(CALIBRATION_VOXELS, truth.size), replace=False)
        sampled_p.append(maps[0][:, chosen].T)
        sampled_classes.append(truth[chosen])
    probabilities, classes = np.concatenate(sampled_p), np.concatenate(sampled_classes)
    temperature = fit_temperature(probabilities, classes)
    means = [{v: _mean([case[m][v] for case in scores]) for v in plan.values} for m in range(len(scores[0]))]
    return Validation(
        means[0],
        means[1:],
        temperature,
        _calibration_error(probabilities, classes),
        _calibration_error(apply_temperature(probabilities, temperature), classes),
        rows,
    )


def outlined_pieces(cases: Sequence[CachedCase], plan: Plan) -> dict[int, OutlinedPieces]:
    """Label value -> what the outlines of all cases, but for partial ones, show of its pieces, on the training grid."""
    found = {value: OutlinedPieces() for value in plan.values}
    for case in cases:
        if case.labelled and not case.is_partial:
            classes, ml = np.asarray(case.classes), case.grid.voxel_ml
            found = {v: found[v].with_outline(classes, c, ml) for c, v in enumerate(plan.values, start=1)}
    return found


def choose_cleanup(rows: Sequence[Mapping[str, Any]], pieces: Mapping[int, OutlinedPieces]) -> list[CleanupRule]:
    """The rules that the ``cases`` of one or more validations, tried with these ``pieces``, speak for."""
    tried = [row["cleanup"] for row in rows if "cleanup" in row]  # partial outlines lack it
    rules = (choose_rule([row[str(value)] for row in tried], shown, value) for value, shown in pieces.items())
    return [rule for rule in rules if rule is not None]


def choose_calibration(rows: Sequence[Mapping[str, Any]]) -> DiceCalibration | None:
    """What the ``cases`` of one or more validations say about the Dice to expect; None with too few."""
    known = [row for row in rows if "agreement" in row]
    means = [[mean_over_labels(row[name]) for row in known] for name in ("agreement", "dice")]
    return calibrate(*means)


def _volumes(predicted: np.ndarray, truth: np.ndarray, plan: Plan, voxel_ml: float) -> dict[str, list[float]]:
    """Label value -> predicted and true volume in ml."""
    count = len(plan.values) + 1
    voxels = [np.bincount(classes.ravel(), minlength=count) for classes in (predicted, truth)]
    return {str(v): [float(n[c] * voxel_ml) for n in voxels] for c, v in enumerate(plan.values, start=1)}


def _cleanup_row(
    predicted: np.ndarray, truth: np.ndarray, plan: Plan, pieces: Mapping[int, OutlinedPieces], voxel_ml: float
) -> dict[str, Row]:
    return {
        str(value): score_candidates(predicted, truth, pieces[value], n, voxel_ml)
        for n, value in enumerate(plan.values, start=1)
    }


class ValidationTimes:
    """When the held-out cases are predicted during a run, and how long that will take.

    Args:
        cases: Of the run.
        plan: Its ``validations`` are shared out evenly; the last one is at the end.

    Attributes:
        count: Validations of the run, the last one included.
        last_overlap: Overlap of the windows of the last one.
    """

    def __init__(self, cases: Sequence[CachedCase], plan: Plan) -> None:
        self._cases = [case for case in cases if case.held_out and case.labelled]
        self._plan = plan
        self.count = plan.validations if self._cases else 0
        self.last_overlap = 0.5
        self.window_seconds = 0.0

    def measure_window(self, network: BranchPair, device: torch.device, amp_dtype: torch.dtype | None) -> None:
        """Time a window of the first held-out case, the faster of two: the first one warms up."""
        if not self._cases:
            return
        part = tuple(slice(0, edge) for edge in self._plan.patch)
        image = self._cases[0].image[(slice(None), *part)].astype(np.float32)
        branches, times = range(network.n_branches), []
        for _ in range(2):
            began = time.perf_counter()
            predict_array(network, image, self._plan.patch, device=device, amp_dtype=amp_dtype, branches=branches)
            times.append(time.perf_counter() - began)
        self.window_seconds = min(times)

    def fit(self, minutes: float | None) -> None:
        """Leave validations out, and windows of the last one, where they would use up the budget."""
        if minutes is None or not self._cases:
            return
        share = minutes * 60 * _SHARE_OF_BUDGET
        if self._seconds(0.5) > share:
            self.last_overlap = 0.25
        each = self._seconds(0.25)
        while self.count > 1 and (self.count - 1) * each > share:
            self.count -= 1

    def is_due(self, before: float, done: float, is_over: bool) -> bool:
        """Whether a step from the share ``before`` to ``done`` of the run is followed by a validation."""
        # Rounded: 0.29999999999999993 of a run is three tenths.
        return not is_over and int(round(done * self.count, 9)) > int(round(before * self.count, 9))

    def took(self, seconds: float) -> None:
        """A validation, not the last one, took ``seconds``."""
        self.window_seconds = seconds / max(self._windows(0.25), 1)

    def left(self, done: float) -> float:
        """Seconds for the validations that are still to come once the share ``done`` of the run is done."""
        if not self._cases:
            return _SAVING_SECONDS
        between = max(self.count - 1 - int(round(done * self.count, 9)), 0)
        return between * self._seconds(0.25) + self._seconds(self.last_overlap) + _SAVING_SECONDS

    def _seconds(self, overlap: float) -> float:
        return self._windows(overlap) * self.window_seconds

    def _windows(self, overlap: float) -> int:
        return sum(count_windows(case.grid.shape, self._plan.patch, overlap) for case in self._cases)


def _calibration_error(probabilities: np.ndarray, classes: np.ndarray) -> float:
    return float(expected_calibration_error(probabilities.max(1), probabilities.argmax(1) == classes))


def _mean(values: list[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
