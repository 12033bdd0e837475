# SPDX-License-Identifier: Apache-2.0
"""The held-out cases: Dice per label during a run, temperature and calibration at its end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from barl.evaluation.calibration import apply_temperature, expected_calibration_error, fit_temperature
from barl.evaluation.cleanup_choice import OutlinedPieces, Row, choose_rule, score_candidates
from barl.evaluation.expected_dice import DiceCalibration, calibrate, mean_over_labels
from barl.images.cleanup import CleanupRule
from barl.images.components import bounding_box
from barl.images.overlap import count_labels, dice_by_label
from barl.inference.sliding_window import Slab, count_windows, predict_array, stream
from barl.inference.threads import ThreadChoice
from barl.networks.branches import BranchPair
from barl.progress import SILENT, Progress, Stage
from barl.training.cases import NOT_LOOKED_AT, CachedCase
from barl.training.plan import Plan

# Of a budget in minutes that the validations between, and the last one, may use each.
_SHARE_OF_BUDGET = 0.15
_SAVING_SECONDS = 0.5
# Voxels a case contributes to the temperature, drawn at random among those predicted as a structure and those within so
# many voxels of a true one. Nearly all others of a large scan are plainly background: they would make a model sharper.
CALIBRATION_VOXELS = 20_000
_MARGIN = 5


@dataclass(frozen=True)
class Validation:
    """The scores of a network on held-out cases, on the training grid.

    Attributes:
        dice: Label value -> mean Dice of the branches' mean; nan where no case has the label.
        branch_dice: The same for each branch by itself.
        temperature: Fitted on voxels of these cases that are predicted as a structure or lie near a true one.
        calibration_error: Expected calibration error of these voxels at temperature 1.
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
    sampled: list[_Sample] = []
    for case, part in progress.stage(Stage.VALIDATING).each(cases):
        slabs = stream(
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
        truth = np.array(case.classes)
        looked = truth != NOT_LOOKED_AT  # judged where somebody has looked
        truth[~looked] = 0
        maps, sample = _classes(slabs, network.n_branches, truth, looked, rng)
        sampled.append(sample)
        scores.append([_dice(found, truth, plan) for found in maps])
        rows.append({"case": case.id, "dice": {str(v): score for v, score in scores[-1][0].items()}})
        if len(maps) > 2:
            rows[-1]["agreement"] = {str(v): score for v, score in _dice(maps[1], maps[2], plan).items()}
        if not case.is_partial:
            rows[-1]["volumes"] = _volumes(maps[0], truth, plan, case.grid.voxel_ml)
        if pieces is not None and not case.is_partial:  # a part of a structure has other pieces
            rows[-1]["cleanup"] = _cleanup_row(maps[0], truth, plan, pieces, case.grid.voxel_ml)
    probabilities = np.concatenate([sample.probabilities for sample in sampled])
    classes = np.concatenate([sample.classes for sample in sampled])
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


class _Sample:
    """Voxels drawn at random while a scan is predicted, each as likely as the others.

    Attributes:
        probabilities: Of their classes, ``[n, L+1]``.
        classes: The true ones, ``[n]``.
    """

    def __init__(self, n_classes: int, rng: np.random.Generator) -> None:
        self.probabilities, self.classes = np.zeros((0, n_classes), np.float32), np.zeros(0, np.uint8)
        self._keys, self._rng = np.zeros(0), rng

    def add(self, probabilities: torch.Tensor, classes: np.ndarray, places: np.ndarray) -> None:
        """Let the voxels at the flat indices ``places`` of ``probabilities [L+1, ...]`` and ``classes`` take part."""
        keys = self._rng.random(len(places))
        if len(places) > CALIBRATION_VOXELS:
            chosen = np.argpartition(keys, CALIBRATION_VOXELS)[:CALIBRATION_VOXELS]
            keys, places = keys[chosen], places[chosen]
        at = torch.from_numpy(places).to(probabilities.device)
        rows = probabilities.flatten(1)[:, at].T.cpu().numpy()
        self._keys = np.concatenate([self._keys, keys])
        self.probabilities = np.concatenate([self.probabilities, rows])
        self.classes = np.concatenate([self.classes, classes.ravel()[places]])
        if len(self._keys) > CALIBRATION_VOXELS:
            kept = np.argpartition(self._keys, CALIBRATION_VOXELS)[:CALIBRATION_VOXELS]
            self._keys = self._keys[kept]
            self.probabilities, self.classes = self.probabilities[kept], self.classes[kept]


def _classes(
    slabs: Iterable[Slab], n_branches: int, truth: np.ndarray, looked: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, _Sample]:
    """Classes ``[1 + n_branches, k, j, i]`` of the branches' mean and of each branch, 0 where nobody has looked; and
    voxels for the temperature. No more than a slab of probabilities is held: those of all classes fill the memory."""
    maps = np.zeros((1 + n_branches, *truth.shape), np.uint8)
    near, sample = _near(truth), None
    for slab in slabs:
        rows = slab.planes
        branches = slab.log_probabilities().exp_()
        mean = branches.mean(dim=0)
        for found, one in zip(maps, (mean, *branches), strict=True):
            found[rows] = one.max(dim=0)[1].byte().cpu().numpy()
        maps[:, rows][:, ~looked[rows]] = 0
        sample = sample or _Sample(len(mean), rng)
        sample.add(mean, truth[rows], np.flatnonzero(looked[rows] & (near[rows] | (maps[0, rows] > 0))))
    assert sample is not None  # a scan has a slab
    return maps, sample


def _near(truth: np.ndarray) -> np.ndarray:
    """Mask of the voxels within ``_MARGIN`` voxels of a structure along each axis."""
    near = np.zeros(truth.shape, bool)
    box = bounding_box(truth, _MARGIN)
    if box is not None:
        near[box] = ndimage.maximum_filter(truth[box] > 0, 2 * _MARGIN + 1, mode="constant")
    return near


def _dice(first: np.ndarray, second: np.ndarray, plan: Plan) -> dict[int, float]:
    """Label value -> Dice of two maps of classes ``[k, j, i]``; nan where neither has the label."""
    found = dice_by_label(first, second, range(1, len(plan.values) + 1))
    return {v: found.get(c, float("nan")) for c, v in enumerate(plan.values, start=1)}


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
    *voxels, _ = count_labels(predicted, truth, len(plan.values))
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
