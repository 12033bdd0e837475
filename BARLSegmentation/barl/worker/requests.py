# SPDX-License-Identifier: Apache-2.0
"""What the worker can be asked for (``docs/worker-protocol.md``)."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path

from barl import __version__
from barl.errors import InputError
from barl.images.geometry import Roi
from barl.project.scans import NewCase, add_cases
from barl.project.store import Project
from barl.worker import detached
from barl.worker.protocol import VERSION
from barl.worker.server import Context, Handler

# torch and MONAI are imported inside the requests that need them: the worker answers from the first moment.


def handlers() -> dict[str, Handler]:
    """All requests, with the models they keep loaded."""
    worker = Worker()
    return {
        "hello": Handler(worker.hello),
        "warm": Handler(worker.warm),
        "predict": Handler(worker.predict),
        "predict_files": Handler(worker.predict_files),
        "evaluate": Handler(worker.evaluate),
        "add_cases": Handler(worker.add_cases, quick=True),
        "measure_agreement": Handler(worker.measure_agreement, quick=True),
        "compare": Handler(worker.compare),
        "plan": Handler(worker.plan),
        "start_training": Handler(worker.start_training),
        "resume_training": Handler(worker.resume_training),
        "runs": Handler(worker.runs, quick=True),
        "attach": Handler(worker.attach, quick=True),
        "stop_training": Handler(worker.stop_training, quick=True),
        "finish_training": Handler(worker.finish_training, quick=True),
        "cancel_training": Handler(worker.cancel_training, quick=True),
    }


class Worker:
    """Answers requests; keyword arguments are a request's params."""

    def __init__(self) -> None:
        self._predictors = None

    @property
    def _warm(self):
        if self._predictors is None:
            from barl.jobs.predict import WarmPredictors

            self._predictors = WarmPredictors()
        return self._predictors

    def hello(self, context: Context) -> dict:
        """Versions, devices, and the methods to offer: those for comparison are left out."""
        import torch

        from barl import methods

        return {
            "protocol": VERSION,
            "version": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "devices": _devices(),
            "methods": [
                {"name": name, "title": method.title, "uses_unlabelled": method.uses_unlabelled}
                for name, method in methods.available(peers=False).items()
            ],
            "pid": os.getpid(),
        }

    def warm(
        self,
        context: Context,
        *,
        project: str | None = None,
        model: str | None = None,
        device: str = "auto",
        fast: bool = False,
    ) -> dict:
        """Load a model before it is needed."""
        context.progress("loading", 0.0)
        if project is None and model is None:
            raise InputError("The request 'warm' names neither a project nor a model.", "Give one of them.")
        folder = Path(model or "")
        if project is not None:
            from barl.jobs.choice import choose_model

            with Project.open(project, read_only=True) as opened:
                folder, _ = choose_model(opened, model)
        predictor = self._warm.get(folder, device, fast)
        return {"model": predictor.card.id, "name": predictor.card.name, "device": str(predictor.device)}

    def predict(
        self,
        context: Context,
        *,
        project: str,
        cases: list | None = None,
        model: str | None = None,
        device: str = "auto",
        fast: bool = False,
        roi: list | None = None,
    ) -> dict:
        """Predict cases of a project and store the results there."""
        from barl.jobs.predict import predict_cases

        with Project.open(project) as opened:
            return predict_cases(
                opened,
                cases,
                model=model,
                device=device,
                fast=fast,
                roi=_roi(roi),
                progress=context.progress,
                warm=self._warm,
            )

    def predict_files(
        self,
        context: Context,
        *,
        model: str,
        scans: list,
        output: str,
        uncertainty: str | None = None,
        device: str = "auto",
        fast: bool = False,
        roi: list | None = None,
    ) -> dict:
        """Predict one scan without a project."""
        from barl.jobs.predict import predict_files

        return predict_files(
            Path(model),
            [Path(scan) for scan in scans],
            Path(output),
            uncertainty=Path(uncertainty) if uncertainty else None,
            device=device,
            fast=fast,
            roi=_roi(roi),
            progress=context.progress,
            warm=self._warm,
        )

    def evaluate(self, context: Context, *, project: str, model: str | None = None, device: str = "auto") -> dict:
        """Measure a model on the held-out cases."""
        from barl.jobs.evaluate import evaluate_model

        with Project.open(project, read_only=True) as opened:
            return evaluate_model(opened, model, device=device, progress=context.progress, warm=self._warm)

    def compare(
        self,
        context: Context,
        *,
        project: str,
        model: str,
        reference: str | None = None,
        device: str = "auto",
    ) -> dict:
        """Measure two models on the same held-out cases."""
        from barl.jobs.compare import compare_models

        with Project.open(project, read_only=True) as opened:
            return compare_models(opened, model, reference, device=device, progress=context.progress, warm=self._warm)

    def add_cases(self, context: Context, *, project: str, cases: list) -> dict:
        """Copy scans into a project; those that cannot be used are told and keep no other waiting."""
        with Project.open(project) as opened:
            intake = add_cases(opened, [NewCase.from_json(case) for case in cases], context.progress)
        return {
            "cases": [
                {"case": item.case.id, "name": item.case.name, "state": item.case.state, "notes": list(item.notes)}
                for item in intake.added
            ],
            "failed": [
                {"name": item.name, "message": item.reason.message, "remedy": item.reason.remedy}
                for item in intake.left_out
            ],
        }

    def measure_agreement(self, context: Context, *, project: str) -> dict:
        """Compare the accepted outlines with the predictions they were corrected from, where nobody has done so yet."""
        with Project.open(project) as opened:
            return {"measured": opened.agreements.measure(context.progress)}

    def plan(self, context: Context, *, project: str, options: dict | None = None) -> dict:
        """What a training would do, without starting it."""
        from barl.jobs.train import TrainingOptions, prepare

        with Project.open(project, read_only=True) as opened:
            prepared = prepare(opened, TrainingOptions.from_json(options or {}), context.progress)
        return {
            "plan": prepared.plan.to_json(),
            "words": prepared.plan.in_words(),
            "parent": prepared.parent,
            "notes": prepared.notes,
        }

    def start_training(self, context: Context, *, project: str, options: dict | None = None) -> dict:
        """Start a training that outlives this worker."""
        from barl.jobs.train import TrainingOptions, prepare_run

        with Project.open(project) as opened:
            run = prepare_run(opened, TrainingOptions.from_json(options or {}), context.progress)
            context.progress("starting", 0.0)
            return _run_json(detached.start(opened, run.id)) | {"notes": run.plan["run"]["notes"]}

    def resume_training(self, context: Context, *, project: str, run: str | None = None) -> dict:
        """Go on with a run that was stopped or interrupted."""
        with Project.open(project) as opened:
            return _run_json(detached.start(opened, detached.resume(opened, run).id))

    def runs(self, context: Context, *, project: str) -> dict:
        """All runs of a project, the oldest first."""
        with Project.open(project, read_only=True) as opened:
            return {"runs": [_run_json(run) for run in opened.runs.all()]}

    def attach(self, context: Context, *, project: str, run: str | None = None, offset: int = 0) -> dict:
        """What happened in a run since an offset."""
        with Project.open(project, read_only=True) as opened:
            return detached.attach(opened, run, offset)

    def stop_training(self, context: Context, *, project: str, run: str | None = None) -> dict:
        """Have a run save a checkpoint and end."""
        with Project.open(project) as opened:
            return _run_json(detached.stop(opened, run))

    def finish_training(self, context: Context, *, project: str, run: str | None = None) -> dict:
        """Have a run end with a model of what it has learned so far."""
        with Project.open(project) as opened:
            return _run_json(detached.finish(opened, run))

    def cancel_training(self, context: Context, *, project: str, run: str | None = None) -> dict:
        """End a run and all its processes at once."""
        with Project.open(project) as opened:
            return _run_json(detached.cancel(opened, run))


def _devices() -> list[dict]:
    """The devices there are, the one that "auto" means first."""
    import torch

    from barl.inference.device import choose_device

    names = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    best = choose_device("auto").type
    names.sort(key=lambda name: not name.startswith(best))
    return [
        {
            "name": name,
            "title": torch.cuda.get_device_name(name) if name.startswith("cuda") else name.upper(),
            "memory_bytes": torch.cuda.get_device_properties(name).total_memory if name.startswith("cuda") else None,
        }
        for name in names
    ]


def _run_json(run) -> dict:
    facts = {key: value for key, value in dataclasses.asdict(run).items() if key != "plan"}
    return {**facts, "run": facts.pop("id")}


def _roi(bounds: list | None) -> Roi | None:
    if bounds is None:
        return None
    if len(bounds) != 6 or not all(isinstance(value, int | float) for value in bounds):
        raise InputError("The region of interest is not six numbers.", "Give x0, x1, y0, y1, z0, z1 in mm (LPS).")
    return Roi.from_bounds_mm(bounds)
