# SPDX-License-Identifier: Apache-2.0
"""The answers and events of the worker protocol, and their parts; standard library only.

``barl.worker.messages`` holds the requests and offers all of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Nothing:
    """The request is done; the answer has no fields."""


@dataclass(frozen=True)
class Device:
    """Where the worker can compute. ``memory_bytes``: of a graphics card."""

    name: str
    title: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class TrainingMethod:
    """A way to train."""

    name: str
    title: str
    uses_unlabelled: bool


@dataclass(frozen=True)
class Hello:
    """Versions, devices and the methods to offer (those for comparison are left out). The first device is the one that
    ``auto`` means."""

    protocol: int
    version: str
    python: str
    torch: str
    pid: int
    devices: list[Device]
    methods: list[TrainingMethod]


@dataclass(frozen=True)
class LoadedModel:
    """The model that is ready."""

    model: str
    name: str
    device: str


@dataclass(frozen=True)
class Prediction:
    """Files and findings of one scan.

    ``volumes``: value, name, ml, low_ml, high_ml of each label; interval_ml, level and cases, if it is known where the
    true volume lies. ``hotspots``: rank, position_mm (LPS), volume_ml,
    mean_uncertainty, score, label, bounds_mm, kind (uncertain, removed, filled). ``agreement``: of each label value the
    Dice between the branches' label maps. ``expected_dice``: what it lets expect, if the model's card says so.
    """

    label: str
    uncertainty: str | None = None
    case_uncertainty: float | None = None
    agreement: dict[str, float | None] = field(default_factory=dict)
    expected_dice: float | None = None
    volumes: list[dict[str, Any]] = field(default_factory=list)
    hotspots: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FilledScan:
    """A fill; the request's folder holds ``filled.npy`` and ``uncertainty.npy`` of a box that begins at ``start``.

    ``start``: k, j, i. Outside of the box nothing is labeled. ``volume_ml``: of all labels. ``unsure_ml``: of the
    voxels with at least half a bit of doubt. ``hotspots``: as in a prediction. ``trust``: Dice with which the
    prediction was trusted. ``filled_by``: program and version. ``expected``: ``dice`` to expect, ``planes`` that are
    worth outlining and ``dice_after`` them; null where that is not known.
    """

    start: list[int]
    volume_ml: float
    unsure_ml: float
    hotspots: list[dict[str, Any]]
    trust: float | None
    filled_by: str
    expected: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class PredictedCase(Prediction):
    """A case whose prediction is stored. ``case``: its id. ``state``: after the prediction."""

    case: str
    name: str
    state: str
    revision: str


@dataclass(frozen=True)
class FailedCase:
    """A case that could not be used, and why."""

    name: str
    message: str
    remedy: str


@dataclass(frozen=True)
class FailedPrediction(FailedCase):
    """A case that could not be predicted. ``case``: its id."""

    case: str


@dataclass(frozen=True)
class PredictedCases:
    """What was predicted and what was not. ``compared``: names of outlined cases measured for ``next``."""

    model: str
    cases: list[PredictedCase]
    failed: list[FailedPrediction]
    compared: list[str]


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation over the ``n`` cases in which a metric is defined."""

    mean: float | None
    sd: float | None
    n: int


@dataclass(frozen=True)
class Scores:
    """Metrics of one label, or the mean over the labels."""

    name: str
    dice: Summary
    jaccard: Summary
    hd95_mm: Summary
    assd_mm: Summary
    surface_dice: Summary
    lesion_precision: Summary
    lesion_recall: Summary
    lesion_f1: Summary


@dataclass(frozen=True)
class Evaluation:
    """A model on the held-out cases. ``labels``: by value. ``cases``: case, name, and all metrics of each label."""

    model: str
    labels: dict[str, Scores]
    mean: Scores
    calibration_error: float | None
    risk_coverage_area: float | None
    cases: list[dict[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class ComparedCase:
    """Mean Dice of a held-out case with the new model and with the reference; null where it is not defined."""

    case: str
    name: str
    model: float | None
    reference: float | None


@dataclass(frozen=True)
class ModelComparison:
    """Two models on the same held-out cases.

    ``test``: p, median_difference and n of Wilcoxon's signed-rank test on the cases' mean Dice. ``labels``: the same
    for each label by value, p by Holm's correction. ``words``: the outcome in one or two sentences.
    """

    model: Evaluation
    reference: Evaluation
    cases: list[ComparedCase]
    test: dict[str, float | None]
    labels: dict[str, dict[str, float | None]]
    words: str
    notes: list[str]


@dataclass(frozen=True)
class AddedCase:
    """A case that is in the project now. ``case``: its id. ``state``: accepted if it came with an outline. ``notes``:
    what was changed or left out."""

    case: str
    name: str
    state: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LeftOutCase(FailedCase):
    """A case that was not added. ``confirmation``: what takes it if the user confirms it: a doubt for ``allow`` of
    ``add_cases``, or "resample" of the case."""

    confirmation: str = ""


@dataclass(frozen=True)
class AddedCases:
    """What was added and what was not."""

    cases: list[AddedCase]
    failed: list[LeftOutCase]


@dataclass(frozen=True)
class CaseFiles:
    """A case to add. ``channels``: for each channel a path, or the paths of a DICOM series. ``group``: the subject.
    ``series``: for each channel which one of its folder. ``resample``: an outline of another grid is brought over.
    ``meaning``: pairs of a value or a segment's name in the outline's file and the value of the label table.
    ``looked``: the value in the outline's file that means that nobody has looked, or a mask of what was looked at."""

    name: str
    channels: list[str | list[str]]
    label: str | None = None
    held_out: bool = False
    group: str = ""
    series: list[str] | None = None
    resample: bool = False
    meaning: list[list[Any]] | None = None
    looked: int | str | None = None
    notes: list[str] | None = None


@dataclass(frozen=True)
class DatasetContent:
    """A data set folder. ``cases``: as ``add_cases`` takes them. ``outlines``: files that belong to no case by their
    names. ``labels``: value, name and color of those that the label table lacks. ``channels``: their names."""

    layout: str
    channels: list[str]
    labels: list[dict[str, Any]]
    cases: list[CaseFiles]
    left_out: list[FailedCase]
    outlines: list[str]
    notes: list[str]


@dataclass(frozen=True)
class GivenPrediction:
    """What another program predicted of one case. ``case``: the id of the case of that name. ``files``: in words."""

    name: str
    files: str
    case: str | None = None


@dataclass(frozen=True)
class GivenPredictions:
    """The predictions in files of another program. ``labels``: what the labels are called there, if that is said."""

    found: list[GivenPrediction]
    left_out: list[FailedCase]
    labels: list[str]
    notes: list[str]


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction of another program that is stored. ``case``: its id."""

    case: str
    name: str
    revision: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StoredPredictions:
    """What was stored and what was not."""

    cases: list[StoredPrediction]
    failed: list[FailedPrediction]


@dataclass(frozen=True)
class ExportedCases:
    """What was written. ``training``, ``held_out``: how many cases. ``names``: the table of the cases' names, beside
    the folder."""

    folder: str
    training: int
    held_out: int
    names: str
    notes: list[str]


@dataclass(frozen=True)
class ModelFile:
    """A model as one file."""

    name: str
    file: str
    bytes: int


@dataclass(frozen=True)
class ImportedModel:
    """A model that is in the project now. ``model``: its id. ``current``: it is the one that predicts."""

    model: str
    name: str
    current: bool
    notes: list[str]


@dataclass(frozen=True)
class SoundModel:
    """A model that was checked. ``words``: what it finds."""

    name: str
    words: str


@dataclass(frozen=True)
class SeriesFacts:
    """A volume among DICOM files, to be shown and never stored. ``series``: chooses it. ``size``: voxels along x, y, z.
    ``files``: how many."""

    series: int
    modality: str
    size: list[int]
    files: int
    description: str


@dataclass(frozen=True)
class SeriesList:
    """The volumes among DICOM files."""

    series: list[SeriesFacts]


@dataclass(frozen=True)
class MeasuredAgreement:
    """How many accepted outlines were compared with their predictions; the Dice goes to the journal."""

    measured: int


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would do. ``words``: the plan for a person. ``parent``: the model it would start from."""

    plan: dict[str, Any]
    words: str
    parent: str | None
    notes: list[str]


@dataclass(frozen=True)
class Run:
    """A training run. ``run``: its id."""

    run: str
    state: str
    created: str
    folder: str
    pid: int | None = None
    host: str | None = None
    started: str | None = None
    ended: str | None = None
    model_id: str | None = None
    message: str = ""


@dataclass(frozen=True)
class StartedRun(Run):
    """A run that trains now."""

    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RunList:
    """All runs of a project, the oldest first."""

    runs: list[Run]


@dataclass(frozen=True)
class Event:
    """What happens during a request or in a run, until its end.

    ``event``: ``started``, ``progress`` or ``log``; of a run ``result`` or ``error`` as well. ``eta_s``: seconds left
    of the stage, null if not known. ``values``: of a training's progress, see below.
    """

    event: str
    stage: str = ""
    fraction: float | None = None
    eta_s: float | None = None
    message: str | None = ""
    values: dict[str, Any] | None = None


@dataclass(frozen=True)
class RunEvents:
    """What has happened in a run. ``offset``: for the next request. ``model``: the id of the model that came out."""

    run: str
    state: str
    message: str
    model: str | None
    events: list[Event]
    offset: int


@dataclass(frozen=True)
class CancelRequested:
    """Whether a request of that id was open."""

    found: bool
