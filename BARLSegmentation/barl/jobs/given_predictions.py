# SPDX-License-Identifier: Apache-2.0
"""Predictions that other programs made become predictions of cases, to be reviewed, corrected and learned from."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.errors import BarlError, Cancelled, InputError, ProjectError, StorageError
from barl.images.formats.nifti_names import nifti_label_names
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.probabilities import holds_probabilities, read_probabilities, with_background
from barl.images.reading import is_dicom, load
from barl.inference.given import predict_from_label_map, predict_from_probabilities
from barl.inference.predictor import Prediction
from barl.jobs.failures import explain
from barl.jobs.given_files import GivenFiles
from barl.jobs.given_matching import Plan
from barl.progress import SILENT, Progress, Stage
from barl.project.labels import Label, structures
from barl.project.names import key
from barl.project.records import Case
from barl.project.states import RevisionKind
from barl.project.store import Project

# Label map and likeliest class may differ where two classes are equally likely.
_LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Origin:
    """Where predictions come from.

    Attributes:
        author: The program or model that made them.
        made: When, as an ISO 8601 date; empty: the date of each file.
        names: What the values of the label maps mean there; empty: what the label table says.
        renamed: Name or value there -> name of a label of the project.
    """

    author: str = "another program"
    made: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def label_of(self, name: str, value: int, labels: Sequence[Label]) -> Label | None:
        """The label of the project that a name (or a value without one) there means."""
        wanted = self.renamed.get(name) or self.renamed.get(str(value)) or name
        return next((label for label in labels if key(label.name) == key(wanted)), None)

    @property
    def named_values(self) -> dict[int, str]:
        """The values that were given the name of a label."""
        return {int(value): name for value, name in self.renamed.items() if value.isdigit()}


@dataclass(frozen=True)
class Given:
    """A prediction of another program.

    Attributes:
        prediction: On the scan's grid.
        has_uncertainty: It was made from probabilities; else its uncertainty means nothing.
    """

    prediction: Prediction
    has_uncertainty: bool = True


def add_given_predictions(
    project: Project, plan: Plan, origin: Origin, *, resample: bool = False, progress: Progress = SILENT
) -> dict[str, Any]:
    """Store the predictions of a plan; what cannot be used keeps no other waiting.

    From probabilities come uncertainty and hot-spots, as the engine's own predictions have them. Labels there that the
    project does not have become background, which is told.

    Args:
        project: Open for writing.
        plan: As ``plan_given_predictions`` gives it.
        origin: Who made them, and what their values mean.
        resample: Bring label maps of another grid onto the scan's, nearest voxel.

    Returns:
        ``cases``: what was stored, with ``notes``; ``failed``: name, message and remedy of each that was not.

    Raises:
        ProjectError: Another program is changing the project.
        StorageError: The disk is full or read-only.
    """
    done, failed = [], []
    for (case, files), _ in progress.stage(Stage.ADDING).each(plan.pairs, lambda pair: pair[0].name):
        notes: list[str] = []
        try:
            given = read_prediction(project, case, files, origin, resample=resample, notes=notes)
            prediction = given.prediction
            details = {**prediction.details(), "notes": notes, "made": origin.made or _date(files.newest)}
            if not given.has_uncertainty:
                details |= {"hotspots": [], "case_uncertainty": None}
            revision = project.revisions.store(
                case.id,
                prediction.label,
                RevisionKind.PREDICTION,
                author=origin.author,
                uncertainty=prediction.uncertainty if given.has_uncertainty else None,
                case_uncertainty=prediction.case_uncertainty if given.has_uncertainty else None,
                details=details,
                journal={"from": "another program", "notes": notes},
            )
        except Exception as error:
            cause = explain(error, project.folder)
            if isinstance(cause, Cancelled | ProjectError | StorageError):
                raise cause from error
            failed.append(_failure(case, cause))
            continue
        done.append({"case": case.id, "name": case.name, "revision": revision.id, **details})
    return {"cases": done, "failed": failed}


def _failure(case: Case, cause: BarlError) -> dict[str, str]:
    return {"case": case.id, "name": case.name, "message": cause.message, "remedy": cause.remedy}


def read_prediction(
    project: Project, case: Case, files: GivenFiles, origin: Origin, *, resample: bool, notes: list[str]
) -> Given:
    """The prediction in files of another program, on the scan's grid.

    Raises:
        InputError: The files cannot be used, or none of their labels is one of the project's.
    """
    grid, labels = project.cases.grid(case.id), project.labels
    if files.parts:
        return _of_parts(files, grid, labels, origin, resample, notes)
    label_map = None
    if files.label_map:
        names = dict(origin.names) or nifti_label_names(files.label_map)
        if not files.probabilities and _is_probability(files.label_map):
            return _of_probabilities(files.label_map, None, names, grid, labels, origin, notes)
        label_map = _label_map(files.label_map, names, grid, labels, origin, resample, notes)
    if files.probabilities:
        names = dict(origin.names)
        own = _grid_of(files.label_map) if files.label_map else None
        try:
            return _of_probabilities(files.probabilities, own, names, grid, labels, origin, notes, label_map)
        except InputError as error:
            if label_map is None:
                raise
            notes.append(f"The probabilities were not used: {error.message}")
    assert label_map is not None  # GivenFiles has one of them
    return _without_uncertainty(label_map, labels, notes)


def _is_probability(path: Path) -> bool:
    if is_dicom(path) or path.is_dir():
        return False
    array = load(path, several=True).array
    return array.ndim == 4 or holds_probabilities(array)


def _label_map(
    path: Path,
    names: Mapping[int, str],
    grid: Grid,
    labels: Sequence[Label],
    origin: Origin,
    resample: bool,
    notes: list[str],
) -> sitk.Image:
    """A label map with the values of the project's table."""
    meaning: dict[int | str, int] = {}
    if names or origin.renamed:
        # Where values are named, the others have no meaning: the table's own would be a guess.
        named = dict(names) | origin.named_values
        meaning = _meaning(named or {label.value: label.name for label in labels}, labels, origin)
    values = [label.value for label in labels]
    told: list[str] = []
    read = read_label(path, grid, values, structures=structures(labels), resample=resample, notes=told, meaning=meaning)
    notes += told
    if left := sorted(name for value, name in names.items() if value in meaning and meaning[value] == 0):
        listed = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        notes.append(f"Labels that the project does not have became background: {listed}.")
    return read


def _meaning(names: Mapping[int, str], labels: Sequence[Label], origin: Origin) -> dict[int | str, int]:
    """Value there -> value of the project, 0 for labels that it does not have."""
    found = {value: origin.label_of(name, value, labels) for value, name in names.items()}
    if not any(found.values()):
        raise InputError(
            f"None of the labels there ({', '.join(list(names.values())[:5])}) is one of the project's "
            f"({', '.join(label.name for label in labels)}).",
            "Say which is which with --label THERE=HERE.",
        )
    return {value: label.value if label else 0 for value, label in found.items()}


def _of_probabilities(
    path: Path,
    own: Grid | None,
    names: Mapping[int, str],
    grid: Grid,
    labels: Sequence[Label],
    origin: Origin,
    notes: list[str],
    label_map: sitk.Image | None = None,
) -> Given:
    names = dict(sorted((names or origin.named_values or {label.value: label.name for label in labels}).items()))
    array = with_background(read_probabilities(path, grid, own), len(names), path.name)
    meaning = _meaning(names, labels, origin)
    joined = np.zeros((len(labels) + 1, *grid.shape), np.float32)
    places = {0: 0, **{label.value: place for place, label in enumerate(labels, 1)}}
    for part, value in zip(array, [0, *names], strict=True):
        joined[places[meaning.get(value, 0)]] += part
    if left := sorted(name for value, name in names.items() if meaning[value] == 0):
        notes.append(f"Labels that the project does not have count as background: {', '.join(left[:4])}.")
    given = None
    if label_map is not None:
        given = sitk.GetArrayFromImage(label_map)
        likeliest = np.array([0, *(meaning[value] for value in names)])[array.argmax(axis=0)]
        differs = float(np.mean(given != likeliest))
        if differs > _LARGEST_DIFFERENCE:
            raise InputError(
                f"They disagree with the label map in {differs:.1%} of the voxels: they lie on another grid, are of "
                "another case, or the label map was processed further.",
                "Give the label map alone.",
            )
    return Given(predict_from_probabilities([joined], grid, labels, given))


def _of_parts(
    files: GivenFiles, grid: Grid, labels: Sequence[Label], origin: Origin, resample: bool, notes: list[str]
) -> Given:
    """From one file for each structure, each named as its label."""
    chosen = {path: origin.label_of(files.part_name(path), -1, labels) for path in files.parts}
    own = {path: label for path, label in chosen.items() if label}
    if not own:
        names = ", ".join(files.part_name(path) for path in files.parts[:5])
        raise InputError(f"None of the files ({names}) is named as a label of the project.", "Use --label THERE=HERE.")
    if others := len(files.parts) - len(own):
        notes.append(f"{others} files are of labels that the project does not have and were not read.")
    if any(_is_probability(path) for path in own):  # that of a structure that is not there may hold nothing but 0
        array = np.zeros((len(labels), *grid.shape), np.float32)
        for path, label in own.items():
            array[labels.index(label)] += read_probabilities(path, grid)[0]
        return Given(predict_from_probabilities([with_background(array, len(labels), files.name)], grid, labels))
    result = np.zeros(grid.shape, np.uint16)
    overlap = 0
    for path, label in own.items():
        told: list[str] = []
        read = read_label(path, grid, (1,), resample=resample, notes=told, meaning={255: 1, 1: 1})
        mask = sitk.GetArrayViewFromImage(read)
        notes += [note for note in told if note not in notes and "is empty" not in note]
        overlap += int(np.count_nonzero((mask != 0) & (result != 0)))
        result[mask != 0] = label.value
    if overlap:
        notes.append(f"The structures overlap in {overlap} voxels, which got the label read last.")
    return _without_uncertainty(grid.image(result), labels, notes)


def _without_uncertainty(label_map: sitk.Image, labels: Sequence[Label], notes: list[str]) -> Given:
    """A prediction of a label map alone."""
    notes.append("There are no probabilities: the prediction has no uncertainty and no hot-spots.")
    return Given(predict_from_label_map(label_map, labels), has_uncertainty=False)


def _grid_of(path: Path) -> Grid:
    return load(path).grid


def _date(path: Path) -> str:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date().isoformat()
