# SPDX-License-Identifier: Apache-2.0
"""The handlers of the requests of ``barl.worker.messages``."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barl import __version__
from barl.errors import InputError
from barl.images.geometry import Roi
from barl.progress import Stage
from barl.project.doubts import as_doubts
from barl.project.records import RunRow
from barl.project.scans import NewCase, add_cases
from barl.project.store import Project
from barl.worker import detached, exchange, messages
from barl.worker.protocol import VERSION
from barl.worker.server import Handler, Reports

if TYPE_CHECKING:
    from barl.jobs.compute import Compute, WarmPredictors
    from barl.jobs.fill_job import ScanToFill, WarmScan

# torch and MONAI are imported inside the requests that need them: the worker answers from the first moment.


def handlers(all_of: RequestHandlers | None = None) -> dict[type[messages.Request], Handler]:
    """One handler for each request; loaded models are kept."""
    all_of = all_of or RequestHandlers()
    return {
        messages.SayHello: all_of.hello,
        messages.WarmModel: all_of.warm,
        messages.Predict: all_of.predict,
        messages.PredictFiles: all_of.predict_files,
        messages.PrepareFill: all_of.prepare_fill,
        messages.FillScan: all_of.fill,
        messages.Evaluate: all_of.evaluate,
        messages.CompareModels: all_of.compare,
        messages.AddCases: all_of.add_cases,
        messages.ListSeries: all_of.list_series,
        messages.MeasureAgreement: all_of.measure_agreement,
        **exchange.HANDLERS,
        messages.PlanTraining: all_of.plan,
        messages.StartTraining: all_of.start_training,
        messages.ResumeTraining: all_of.resume_training,
        messages.ListRuns: all_of.runs,
        messages.Attach: all_of.attach,
        messages.StopTraining: all_of.stop_training,
        messages.FinishTraining: all_of.finish_training,
        messages.CancelTraining: all_of.cancel_training,
    }


class RequestHandlers:
    """One method for each request; a dict that one of them returns has the fields of the request's answer."""

    def __init__(self) -> None:
        self._predictors: WarmPredictors | None = None
        self._scan: WarmScan | None = None

    def _compute(self, device: str, fast: bool = False, cleanup: bool = True) -> Compute:
        from barl.jobs.compute import Compute, WarmPredictors

        self._predictors = self._predictors or WarmPredictors()
        return Compute(device, fast, self._predictors, cleanup)

    def hello(self, context: Reports, request: messages.SayHello) -> messages.Hello:
        import torch

        from barl import methods

        return messages.Hello(
            protocol=VERSION,
            version=__version__,
            python=platform.python_version(),
            torch=torch.__version__,
            pid=os.getpid(),
            devices=_devices(),
            methods=[
                messages.TrainingMethod(name, method.title, method.uses_unlabelled)
                for name, method in methods.available(peers=False).items()
            ],
        )

    def warm(self, context: Reports, request: messages.WarmModel) -> messages.LoadedModel:
        context.progress.stage(Stage.LOADING).at(0.0)
        if request.project is None and request.model is None:
            raise InputError("The request 'warm' names neither a project nor a model.", "Give one of them.")
        folder = Path(request.model or "")
        if request.project is not None:
            from barl.jobs.choice import choose_model

            with Project.open(request.project, read_only=True) as opened:
                folder, _ = choose_model(opened, request.model)
        predictor = self._compute(request.device, request.fast).predictor(folder)
        return messages.LoadedModel(predictor.card.id, predictor.card.name, str(predictor.device))

    def predict(self, context: Reports, request: messages.Predict) -> dict[str, Any]:
        from barl.jobs.predict import predict_cases

        with Project.open(request.project) as opened:
            return predict_cases(
                opened,
                request.cases,
                model=request.model,
                compute=self._compute(request.device, request.fast, request.cleanup),
                roi=_roi(request.roi),
                progress=context.progress,
            )

    def predict_files(self, context: Reports, request: messages.PredictFiles) -> Any:
        from barl.jobs.predict import predict_files

        return predict_files(
            Path(request.model),
            [Path(scan) for scan in request.scans],
            Path(request.output),
            uncertainty=Path(request.uncertainty) if request.uncertainty else None,
            compute=self._compute(request.device, request.fast, request.cleanup),
            roi=_roi(request.roi),
            progress=context.progress,
            overwrite=True,  # files of whoever asks, made for this
        )

    def prepare_fill(self, context: Reports, request: messages.PrepareFill) -> messages.Nothing:
        self._scan_to_fill(request)
        return messages.Nothing()

    def fill(self, context: Reports, request: messages.FillScan) -> dict[str, Any]:
        from barl.jobs.fill_job import fill_drawn

        return fill_drawn(self._scan_to_fill(request), Path(request.folder), context.progress)

    def _scan_to_fill(self, request: messages.PrepareFill | messages.FillScan) -> ScanToFill:
        from barl.jobs.fill_job import WarmScan

        self._scan = self._scan or WarmScan()
        return self._scan.read(
            [Path(scan) for scan in request.scans],
            Path(request.prior) if request.prior else None,
            Path(request.prior_uncertainty) if request.prior_uncertainty else None,
        )

    def evaluate(self, context: Reports, request: messages.Evaluate) -> dict[str, Any]:
        from barl.jobs.evaluate import evaluate_model

        with Project.open(request.project, read_only=True) as opened:
            return evaluate_model(
                opened, request.model, compute=self._compute(request.device), progress=context.progress
            )

    def compare(self, context: Reports, request: messages.CompareModels) -> dict[str, Any]:
        from barl.jobs.compare import compare_models

        with Project.open(request.project, read_only=True) as opened:
            return compare_models(
                opened,
                request.model,
                request.reference,
                compute=self._compute(request.device),
                progress=context.progress,
            )

    def add_cases(self, context: Reports, request: messages.AddCases) -> messages.AddedCases:
        cases = [NewCase.from_json(dataclasses.asdict(case)) for case in request.cases]
        with Project.open(request.project) as opened:
            intake = add_cases(opened, cases, context.progress, as_doubts(request.allow or ()))
        return messages.AddedCases(
            cases=[
                messages.AddedCase(item.case.id, item.case.name, item.case.state, list(item.notes))
                for item in intake.added
            ],
            failed=[
                messages.LeftOutCase(item.name, item.reason.message, item.reason.remedy, item.confirmation)
                for item in intake.left_out
            ],
        )

    def list_series(self, context: Reports, request: messages.ListSeries) -> messages.SeriesList:
        from barl.images.dicom.series import list_series

        place = request.files or request.folder
        if not place:
            raise InputError("The request 'list_series' names neither a folder nor files.", "Give one of them.")
        found = list_series(place)
        return messages.SeriesList(
            [
                messages.SeriesFacts(item.number, item.modality, list(item.size), item.n_files, item.description)
                for item in found
            ]
        )

    def measure_agreement(self, context: Reports, request: messages.MeasureAgreement) -> messages.MeasuredAgreement:
        with Project.open(request.project) as opened:
            return messages.MeasuredAgreement(opened.agreements.measure(context.progress))

    def plan(self, context: Reports, request: messages.PlanTraining) -> messages.TrainingPlan:
        from barl.jobs.train_job import TrainingOptions, prepare_training

        with Project.open(request.project, read_only=True) as opened:
            prepared = prepare_training(opened, TrainingOptions.from_json(request.options or {}), context.progress)
        return messages.TrainingPlan(
            prepared.plan.to_json(), prepared.plan.in_words(), prepared.parent, list(prepared.notes)
        )

    def start_training(self, context: Reports, request: messages.StartTraining) -> messages.StartedRun:
        from barl.jobs.train_job import TrainingOptions, prepare_run

        with Project.open(request.project) as opened:
            run = prepare_run(opened, TrainingOptions.from_json(request.options or {}), context.progress)
            context.progress.stage(Stage.STARTING).at(0.0)
            started = run_message(detached.start(opened, run.id))
            return messages.StartedRun(**vars(started), notes=run.plan["run"]["notes"])

    def resume_training(self, context: Reports, request: messages.ResumeTraining) -> messages.Run:
        with Project.open(request.project) as opened:
            return run_message(detached.start(opened, detached.resume(opened, request.run).id))

    def runs(self, context: Reports, request: messages.ListRuns) -> messages.RunList:
        with Project.open(request.project, read_only=True) as opened:
            return messages.RunList([run_message(run) for run in opened.runs.all()])

    def attach(self, context: Reports, request: messages.Attach) -> dict[str, Any]:
        with Project.open(request.project, read_only=True) as opened:
            return detached.attach(opened, request.run, request.offset)

    def stop_training(self, context: Reports, request: messages.StopTraining) -> messages.Run:
        with Project.open(request.project) as opened:
            return run_message(detached.stop(opened, request.run))

    def finish_training(self, context: Reports, request: messages.FinishTraining) -> messages.Run:
        with Project.open(request.project) as opened:
            return run_message(detached.finish(opened, request.run))

    def cancel_training(self, context: Reports, request: messages.CancelTraining) -> messages.Run:
        with Project.open(request.project) as opened:
            return run_message(detached.cancel(opened, request.run))


def _devices() -> list[messages.Device]:
    """The devices there are, the one that "auto" means first."""
    import torch

    from barl.inference.device import choose_device

    names = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    best = choose_device("auto").type
    names.sort(key=lambda name: not name.startswith(best))
    return [
        messages.Device(
            name,
            title=torch.cuda.get_device_name(name) if name.startswith("cuda") else name.upper(),
            memory_bytes=torch.cuda.get_device_properties(name).total_memory if name.startswith("cuda") else None,
        )
        for name in names
    ]


def run_message(row: RunRow) -> messages.Run:
    return messages.Run(
        row.id,
        row.state,
        row.created,
        str(row.folder),
        row.pid,
        row.host,
        row.started,
        row.ended,
        row.model_id,
        row.message,
    )


def _roi(bounds: list[float] | None) -> Roi | None:
    if bounds is None:
        return None
    if len(bounds) != 6:
        raise InputError("The region of interest is not six numbers.", "Give x0, x1, y0, y1, z0, z1 in mm (LPS).")
    return Roi.from_bounds_mm(bounds)
