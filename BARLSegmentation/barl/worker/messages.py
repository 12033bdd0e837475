# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the worker protocol: one dataclass for each request, answer and event; standard library only.

Both ends read it: the server checks the parameters of a request against its class, the client makes an answer of what
comes back. ``docs/worker-protocol.md`` lists all of them in tables made from this file
(``Testing/protocol_tables.py``). Fields are the keys of the JSON objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

Answer = TypeVar("Answer")


# Answers


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

    ``volumes``: value, name, ml, low_ml, high_ml of each label. ``hotspots``: rank, position_mm (LPS), volume_ml,
    mean_uncertainty, score, label, bounds_mm, kind (uncertain, removed, filled).
    """

    label: str
    uncertainty: str | None = None
    case_uncertainty: float | None = None
    volumes: list[dict[str, Any]] = field(default_factory=list)
    hotspots: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
class AddedCases:
    """What was added and what was not."""

    cases: list[AddedCase]
    failed: list[FailedCase]


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


# Requests


@dataclass(frozen=True)
class Request(Generic[Answer]):
    """A request of the protocol; a subclass is a dataclass whose fields are the parameters.

    Attributes:
        name: On the wire.
        quick: Answered beside a long request; the others wait for one another.
        answer: What its result is made of.
    """

    name: ClassVar[str]
    quick: ClassVar[bool] = False
    answer: ClassVar[type]


@dataclass(frozen=True)
class SayHello(Request[Hello]):
    """Say what the worker is and what it can do."""

    name, answer = "hello", Hello


@dataclass(frozen=True)
class WarmModel(Request[LoadedModel]):
    """Load a model before it is needed: of a project, or from a folder. One of both is needed."""

    name, answer = "warm", LoadedModel
    project: str | None = None
    model: str | None = None
    device: str = "auto"
    fast: bool = False


@dataclass(frozen=True)
class Predict(Request[PredictedCases]):
    """Predict cases of a project and store the results there. Without ``model``: the current one.

    Without ``cases``: all without an accepted outline; once per model each outlined case is measured, with which
    choosing the next case compares the others, without storing a prediction. ``cleanup``: that of the model's card.
    """

    name, answer = "predict", PredictedCases
    project: str
    cases: list[str] | None = None
    model: str | None = None
    device: str = "auto"
    fast: bool = False
    roi: list[float] | None = None
    cleanup: bool = True


@dataclass(frozen=True)
class PredictFiles(Request[Prediction]):
    """Predict one scan without a project. ``model``: a folder. ``scans``: one file per channel. Without
    ``uncertainty``, none is written."""

    name, answer = "predict_files", Prediction
    model: str
    scans: list[str]
    output: str
    uncertainty: str | None = None
    device: str = "auto"
    fast: bool = False
    roi: list[float] | None = None
    cleanup: bool = True


@dataclass(frozen=True)
class Evaluate(Request[Evaluation]):
    """Measure a model (without ``model``: the current one) on the held-out cases."""

    name, answer = "evaluate", Evaluation
    project: str
    model: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class CompareModels(Request[ModelComparison]):
    """Measure two models on the same held-out cases. Without ``reference``: the current one."""

    name, answer = "compare", ModelComparison
    project: str
    model: str
    reference: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class CaseFiles:
    """A case to add. ``channels``: for each channel a path, or the paths of a DICOM series. ``group``: the subject.
    ``series``: for each channel which one of its folder. ``resample``: an outline of another grid is brought over."""

    name: str
    channels: list[str | list[str]]
    label: str | None = None
    held_out: bool = False
    group: str = ""
    series: list[str] | None = None
    resample: bool = False


@dataclass(frozen=True)
class AddCases(Request[AddedCases]):
    """Copy scans into a project. Those that cannot be used are told and keep no other waiting. ``allow``: doubts that
    the user has confirmed: "empty", "same-scan", "label-map"."""

    name, answer, quick = "add_cases", AddedCases, True
    project: str
    cases: list[CaseFiles]
    allow: list[str] | None = None


@dataclass(frozen=True)
class MeasureAgreement(Request[MeasuredAgreement]):
    """Compare accepted outlines with the predictions they were corrected from, where that was not done yet."""

    name, answer, quick = "measure_agreement", MeasuredAgreement, True
    project: str


@dataclass(frozen=True)
class PlanTraining(Request[TrainingPlan]):
    """Say what a training would do, without starting it."""

    name, answer = "plan", TrainingPlan
    project: str
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class StartTraining(Request[StartedRun]):
    """Start a training that outlives the worker."""

    name, answer = "start_training", StartedRun
    project: str
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class ResumeTraining(Request[Run]):
    """Go on with a run that was stopped or interrupted. Without ``run``: the newest unfinished."""

    name, answer = "resume_training", Run
    project: str
    run: str | None = None


@dataclass(frozen=True)
class ListRuns(Request[RunList]):
    """List the runs of a project."""

    name, answer, quick = "runs", RunList, True
    project: str


@dataclass(frozen=True)
class Attach(Request[RunEvents]):
    """Tell what has happened in a run since an offset. Without ``run``: the newest."""

    name, answer, quick = "attach", RunEvents, True
    project: str
    run: str | None = None
    offset: int = 0


@dataclass(frozen=True)
class StopTraining(Request[Run]):
    """Have a run save a checkpoint and end after the step it is at."""

    name, answer, quick = "stop_training", Run, True
    project: str
    run: str | None = None


@dataclass(frozen=True)
class FinishTraining(Request[Run]):
    """Have a run end after the step it is at as if its budget were used up, with a model. A paused one goes on for
    that."""

    name, answer, quick = "finish_training", Run, True
    project: str
    run: str | None = None


@dataclass(frozen=True)
class CancelTraining(Request[Run]):
    """End a run and its whole process tree, within 2 s."""

    name, answer, quick = "cancel_training", Run, True
    project: str
    run: str | None = None


@dataclass(frozen=True)
class Cancel(Request[CancelRequested]):
    """Ask a request to stop. A prediction stops at the next window; its own answer is an error of class ``Cancelled``.
    ``target``: its id."""

    name, answer, quick = "cancel", CancelRequested, True
    target: str | int


@dataclass(frozen=True)
class Shutdown(Request[Nothing]):
    """End the worker after the answer."""

    name, answer, quick = "shutdown", Nothing, True


# All of the above.
REQUESTS: tuple[type[Request], ...] = tuple(Request.__subclasses__())
