# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the worker protocol: one dataclass for each request, answer and event; standard library only.

Both ends read it: the server checks the parameters of a request against its class, the client makes an answer of what
comes back. ``docs/worker-protocol.md`` lists all of them in tables made from this file
(``Testing/protocol_tables.py``). Fields are the keys of the JSON objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from barl.worker.answers import (  # noqa: F401 (some are parts of answers, for both ends)
    AddedCase,
    AddedCases,
    CancelRequested,
    CaseFiles,
    ComparedCase,
    DatasetContent,
    Device,
    Evaluation,
    Event,
    ExportedCases,
    FailedCase,
    FailedPrediction,
    FilledScan,
    GivenPrediction,
    GivenPredictions,
    Hello,
    ImportedModel,
    LeftOutCase,
    LoadedModel,
    MeasuredAgreement,
    ModelComparison,
    ModelFile,
    Nothing,
    PredictedCase,
    PredictedCases,
    Prediction,
    Run,
    RunEvents,
    RunList,
    Scores,
    SeriesFacts,
    SeriesList,
    SoundModel,
    StartedRun,
    StoredPrediction,
    StoredPredictions,
    Summary,
    TrainingMethod,
    TrainingPlan,
)

Answer = TypeVar("Answer")


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
class PrepareFill(Request[Nothing]):
    """Read a scan and its prediction before it is filled; parameters as of ``fill``."""

    name, answer = "prepare_fill", Nothing
    scans: list[str]
    prior: str | None = None
    prior_uncertainty: str | None = None


@dataclass(frozen=True)
class FillScan(Request[FilledScan]):
    """Fill a scan from what was drawn on it. ``scans``: one file per channel. ``folder``: holds ``labels.npy``, the
    label map [k, j, i], and ``drawn.npy``, which voxels of it are drawn (``numpy.packbits``). ``prior``: a predicted
    label map, ``prior_uncertainty``: its uncertainty."""

    name, answer = "fill", FilledScan
    scans: list[str]
    folder: str
    prior: str | None = None
    prior_uncertainty: str | None = None


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
class AddCases(Request[AddedCases]):
    """Copy scans into a project. Those that cannot be used are told and keep no other waiting. ``allow``: doubts that
    the user has confirmed: "empty", "same-scan", "label-map"."""

    name, answer, quick = "add_cases", AddedCases, True
    project: str
    cases: list[CaseFiles]
    allow: list[str] | None = None


@dataclass(frozen=True)
class ListSeries(Request[SeriesList]):
    """List the volumes of a DICOM folder, or among the files of a series. One of both is needed."""

    name, answer, quick = "list_series", SeriesList, True
    folder: str | None = None
    files: list[str] | None = None


@dataclass(frozen=True)
class MeasureAgreement(Request[MeasuredAgreement]):
    """Compare accepted outlines with the predictions they were corrected from, where that was not done yet."""

    name, answer, quick = "measure_agreement", MeasuredAgreement, True
    project: str


@dataclass(frozen=True)
class ReadDataset(Request[DatasetContent]):
    """List the cases of a data set folder (nnU-Net, Decathlon, BIDS, an export of BARL) as they would be added. Without
    ``project``: its labels and channels for a new one."""

    name, answer, quick = "read_dataset", DatasetContent, True
    folder: str
    project: str | None = None


@dataclass(frozen=True)
class ListPredictions(Request[GivenPredictions]):
    """List what another program predicted, with the case of the same name. ``path``: a file or folder. ``one_case``:
    all of it is of one case."""

    name, answer, quick = "list_predictions", GivenPredictions, True
    project: str
    path: str
    one_case: bool = False


@dataclass(frozen=True)
class StorePredictions(Request[StoredPredictions]):
    """Store what another program predicted as predictions of cases. ``pairs``: name in the folder and id of the case.
    ``made``: when (2026-11-28; empty: the files' dates). ``labels``: name or value there and label of the project."""

    name, answer = "store_predictions", StoredPredictions
    project: str
    path: str
    pairs: dict[str, str]
    author: str = "another program"
    made: str = ""
    labels: dict[str, str] | None = None
    resample: bool = False
    one_case: bool = False


@dataclass(frozen=True)
class ExportCases(Request[ExportedCases]):
    """Write the accepted outlines for other programs, with ``predictions`` also the newest predictions of other cases.
    ``layout``: as of ``barl export``. ``source``: for DICOM segmentations the folder with the series."""

    name, answer, quick = "export", ExportedCases, True
    project: str
    folder: str
    layout: str = "nnunet"
    predictions: bool = False
    source: str | None = None


@dataclass(frozen=True)
class ExportModel(Request[ModelFile]):
    """Write a model into one file that can be sent. ``model``: its id or folder. ``file``: a new file (.zip)."""

    name, answer = "export_model", ModelFile
    project: str
    model: str
    file: str


@dataclass(frozen=True)
class ImportModel(Request[ImportedModel]):
    """Check a model and copy it into a project. ``source``: a file of ``export_model``, a model's folder, the folder of
    a trained nnU-Net configuration, or a MONAI bundle."""

    name, answer = "import_model", ImportedModel
    project: str
    source: str
    promote: bool = False


@dataclass(frozen=True)
class CheckModel(Request[SoundModel]):
    """Check a model's folder or file: card, checksum, weights, network."""

    name, answer = "check_model", SoundModel
    source: str


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
