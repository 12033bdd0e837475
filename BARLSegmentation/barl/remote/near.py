# SPDX-License-Identifier: Apache-2.0
"""The worker's requests where another computer predicts and trains; this computer keeps the project."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import SimpleITK as sitk

from barl.errors import BarlError, DeviceError, InputError, ProjectError
from barl.images.reading import read_channels
from barl.images.writing import write_image
from barl.jobs.choice import choose_cases, choose_model
from barl.jobs.runs import RunFolder, choose_run
from barl.progress import Progress, Stage
from barl.project.files import sha256, write_atomically
from barl.project.processes import ProcessId
from barl.project.records import RunRow
from barl.project.states import RunState
from barl.project.store import Project
from barl.remote import transfer
from barl.remote.computer import Computer
from barl.remote.messages import LayOut, QueueTraining
from barl.remote.project_copy import (
    Copy,
    database_of,
    discard,
    files_of_case,
    files_of_model,
    send_project,
    take_predictions,
)
from barl.worker import detached, messages
from barl.worker.client import Pending, WorkerError, WorkerProcess
from barl.worker.requests import RequestHandlers, run_message
from barl.worker.server import Reports

Answer = TypeVar("Answer")

# In the folder of a run that another computer trains: which computer, which copy of the project, which run of it.
ELSEWHERE = "elsewhere.json"
_LOOK_S = 0.1


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """Where a run is trained.

    Attributes:
        address, python, home: Of ``Computer``.
        copy: Name of the copy of the project there.
        path: The copy's folder there, absolute.
        run: The run of the copy.
    """

    address: str
    python: str
    home: str
    copy: str
    path: str
    run: str

    @property
    def computer(self) -> Computer:
        return Computer(self.address, self.python, self.home)

    @property
    def folder(self) -> str:
        """The run's folder among BARL's ``work`` there."""
        return f"{self.copy}/runs/{self.run}"

    @classmethod
    def of(cls, run: RunRow) -> Elsewhere | None:
        """Where a run is trained if not on this computer.

        Raises:
            ProjectError: The file that says so cannot be read.
        """
        try:
            return cls(**json.loads((run.folder / ELSEWHERE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ProjectError(
                f"{run.id} was trained on another computer, and the file {ELSEWHERE} that names it is damaged.",
                "Start a new training.",
            ) from error


class NearHandlers(RequestHandlers):
    """Answers every request: what computes, by the worker of ``computer``; the others here.

    A run is followed and steered on the computer that it was started on, whichever is chosen now.

    Args:
        computer: Where predictions are made and new trainings start; None: runs are followed and steered only.
    """

    def __init__(self, computer: Computer | None = None) -> None:
        super().__init__()
        self._chosen = computer
        self._workers: dict[Computer, WorkerProcess] = {}
        self._connecting = threading.Lock()  # quick requests come from threads of their own

    def close(self) -> None:
        """End the connections; trainings go on."""
        for worker in self._workers.values():
            worker.close()

    @property
    def computer(self) -> Computer:
        """Where predictions are made.

        Raises:
            InputError: None was chosen.
        """
        if self._chosen is None:
            raise InputError("No other computer was chosen.", "Name it with --computer.")
        return self._chosen

    # Computing

    def hello(self, context: Reports, request: messages.SayHello) -> messages.Hello:
        hello = self._ask(self.computer, context, request)
        devices = [
            dataclasses.replace(device, title=f"{device.title} ({self.computer.address})") for device in hello.devices
        ]
        return dataclasses.replace(hello, devices=devices)

    def warm(self, context: Reports, request: messages.WarmModel) -> messages.LoadedModel:
        if request.project is None:
            raise InputError(
                "A model outside of a project is not loaded on another computer beforehand.", "Just predict with it."
            )
        with self._copy(context, request.project, [], [request.model]) as (project, copy):
            model = copy.models[str(choose_model(project, request.model)[0])]
            return self._ask(self.computer, context, dataclasses.replace(request, project=copy.path, model=model))

    def predict(self, context: Reports, request: messages.Predict) -> dict[str, Any]:
        with Project.open(request.project) as project:
            folder, model_id = choose_model(project, request.model)
            cases = choose_cases(project, request.cases, model_id)
        with self._copy(context, request.project, [(case.id, False) for case in cases], [request.model]) as (_, copy):
            answer = self._ask(
                self.computer,
                context,
                dataclasses.replace(request, project=copy.path, model=copy.models[str(folder)]),
            )
            known = {case.name: case.id for case in cases}
            with Project.open(request.project) as project:
                stored = take_predictions(
                    self._worker(self.computer),
                    copy.name,
                    project,
                    [case.revision for case in answer.cases],
                    [known[name] for name in answer.compared],
                )
                done = [
                    {
                        **dataclasses.asdict(case),
                        "state": project.cases.get(case.case).state,
                        "revision": revision.id,
                        "label": str(revision.path),
                        "uncertainty": str(revision.uncertainty_path) if revision.uncertainty_path else None,
                    }
                    for case, revision in zip(answer.cases, stored, strict=True)
                ]
        return {**dataclasses.asdict(answer), "model": model_id or str(folder), "cases": done}

    def evaluate(self, context: Reports, request: messages.Evaluate) -> Any:
        with self._copy(context, request.project, _held_out(request.project), [request.model]) as (project, copy):
            model = copy.models[str(choose_model(project, request.model)[0])]
            return self._ask(self.computer, context, dataclasses.replace(request, project=copy.path, model=model))

    def compare(self, context: Reports, request: messages.CompareModels) -> Any:
        wanted = [request.model, request.reference]
        with self._copy(context, request.project, _held_out(request.project), wanted) as (project, copy):
            one, other = (copy.models[str(choose_model(project, model)[0])] for model in wanted)
            asked = dataclasses.replace(request, project=copy.path, model=one, reference=other)
            return self._ask(self.computer, context, asked)

    def plan(self, context: Reports, request: messages.PlanTraining) -> Any:
        with self._copy(context, request.project, _all(request.project), _parents(request.project)) as (_, copy):
            return self._ask(self.computer, context, dataclasses.replace(request, project=copy.path))

    def predict_files(self, context: Reports, request: messages.PredictFiles) -> Any:
        notes: list[str] = []
        channels = read_channels([Path(scan) for scan in request.scans], notes)  # DICOM stays here
        name, worker = f"job-{secrets.token_hex(8)}", self._worker(self.computer)
        with tempfile.TemporaryDirectory() as folder, _told(self.computer):
            places = {f"model/{path.name}": path for path in files_of_model(Path(request.model))}
            for number, image in enumerate(channels):
                places[f"scan{number}.nrrd"] = Path(folder) / f"scan{number}.nrrd"
                write_image(image, places[f"scan{number}.nrrd"])
            layout = {place: sha256(path) for place, path in places.items()}
            sending = context.progress.stage(Stage.SENDING)
            transfer.send(worker, {layout[place]: path for place, path in places.items()}, sending)
            there = worker.call(LayOut(name, layout)).path
            try:
                asked = dataclasses.replace(
                    request,
                    model=f"{there}/model",
                    scans=[f"{there}/scan{number}.nrrd" for number in range(len(channels))],
                    output=f"{there}/label.nrrd",
                    uncertainty=f"{there}/uncertainty.nrrd" if request.uncertainty else None,
                )
                answer = self._ask(self.computer, context, asked)
                for wanted, made in ((request.output, "label"), (request.uncertainty, "uncertainty")):
                    if wanted is not None:
                        transfer.fetch(worker, f"{name}/{made}.nrrd", Path(folder) / f"{made}.nrrd")
                        write_image(sitk.ReadImage(str(Path(folder) / f"{made}.nrrd")), Path(wanted))
            finally:
                with contextlib.suppress(BarlError):
                    discard(worker, name)
        return dataclasses.replace(
            answer, label=request.output, uncertainty=request.uncertainty, notes=[*notes, *answer.notes]
        )

    # Training

    def start_training(self, context: Reports, request: messages.StartTraining) -> messages.StartedRun:
        name = f"train-{secrets.token_hex(8)}"
        files = _all(request.project)
        with self._copy(context, request.project, files, _parents(request.project), name=name) as (_, copy):
            queued = self._ask(self.computer, context, QueueTraining(copy.path, request.options))
            plan = self._fetch_json(self.computer, f"{copy.name}/runs/{queued.run}/plan.json")
        there = self.computer
        where = Elsewhere(there.address, there.python, there.home, copy.name, copy.path, queued.run)
        text = json.dumps(dataclasses.asdict(where))
        with Project.open(request.project) as project:
            run = project.runs.new(plan)
            write_atomically(run.folder / ELSEWHERE, lambda path: path.write_text(text, encoding="utf-8"))
            context.progress.stage(Stage.STARTING).at(0.0)
            started = self._resume(context, project, run, where)
        return messages.StartedRun(**vars(run_message(started)), notes=plan["run"]["notes"])

    def resume_training(self, context: Reports, request: messages.ResumeTraining) -> Any:
        with Project.open(request.project) as project:
            run = detached.resume(project, request.run)
            where = Elsewhere.of(run)
            if where is not None:
                try:
                    return run_message(self._resume(context, project, run, where))
                except ProjectError:  # it went on, or came to its end, while it counted as stopped here
                    followed = self._follow(context, project, run, where)
                    if followed.state is run.state:
                        raise
                    return run_message(followed)
        return super().resume_training(context, request)

    def attach(self, context: Reports, request: messages.Attach) -> dict[str, Any]:
        with Project.open(request.project, read_only=True) as project:
            run = choose_run(project, request.run)
            where = Elsewhere.of(run)
            follows = where is not None and (run.is_running or run.state is RunState.QUEUED)
        if where is not None and follows:
            with Project.open(request.project) as project:
                self._follow(context, project, run, where)
        return super().attach(context, dataclasses.replace(request, run=run.id))

    def stop_training(self, context: Reports, request: messages.StopTraining) -> Any:
        return self._steer(context, request) or super().stop_training(context, request)

    def finish_training(self, context: Reports, request: messages.FinishTraining) -> Any:
        return self._steer(context, request) or super().finish_training(context, request)

    def cancel_training(self, context: Reports, request: messages.CancelTraining) -> Any:
        return self._steer(context, request) or super().cancel_training(context, request)

    def _steer(
        self,
        context: Reports,
        request: messages.StopTraining | messages.FinishTraining | messages.CancelTraining,
    ) -> messages.Run | None:
        """Pass a wish about a run on to its computer; None if it is trained here."""
        with Project.open(request.project) as project:
            training = [run for run in project.runs.all() if run.is_running]
            run = training[-1] if training and request.run is None else choose_run(project, request.run)
            where = Elsewhere.of(run)
            if where is None:
                return None
            there = dataclasses.replace(request, project=where.path, run=where.run)
            try:
                self._ask(where.computer, context, there)
            except BarlError as error:
                silent = RunFolder(run.folder).silence_s() > detached.GONE_S
                if not (isinstance(request, messages.CancelTraining) and run.is_running and silent):
                    raise
                message = f"Marked as stopped: no update from {where.address} for half an hour. {error.message}"
                return run_message(project.runs.update(run.id, RunState.STOPPED, message=message))
            return run_message(self._follow(context, project, run, where))

    def _resume(self, context: Reports, project: Project, run: RunRow, where: Elsewhere) -> RunRow:
        started = self._ask(where.computer, context, messages.ResumeTraining(where.path, where.run))
        process = ProcessId(started.pid or 0, where.address, "")
        return project.runs.update(run.id, RunState.RUNNING, process=process)

    def _follow(self, context: Reports, project: Project, run: RunRow, where: Elsewhere) -> RunRow:
        """Bring what has happened in a run there into the project here: events, state and, at its end, the model."""
        worker = self._worker(where.computer)
        # State before events: whoever sees the end has all events.
        try:
            runs = self._ask(where.computer, context, messages.ListRuns(where.path)).runs
        except ProjectError:
            ended = project.runs.get(run.id)
            if ended.state is run.state:
                raise
            return ended  # another program has seen its end meanwhile, and removed the copy there
        now = next(item for item in runs if item.run == where.run)
        with _told(where.computer):
            transfer.append(worker, f"{where.folder}/events.jsonl", RunFolder(run.folder).events_path)
        state = RunState(now.state)
        if state is RunState.RUNNING and not run.is_running:  # started, but this computer had not entered that
            return project.runs.update(run.id, state, process=ProcessId(now.pid or 0, where.address, ""))
        if state in (run.state, RunState.QUEUED):
            return run
        from filelock import FileLock  # not in Slicer's own Python, which follows no training itself

        with FileLock(run.folder / "model.lock"):  # a window and a terminal see the end at the same time
            model_id = self._take_model(worker, project, run, where, now.model_id) if now.model_id else None
        ended = project.runs.update(run.id, state, model_id=model_id, message=now.message)
        if state is RunState.FINISHED:
            with contextlib.suppress(BarlError):  # only room on the disk there
                discard(worker, where.copy)
        return ended

    def _take_model(self, worker: WorkerProcess, project: Project, run: RunRow, where: Elsewhere, model_id: str) -> str:
        """Put the model of a finished run into the project, once, however often its end is seen."""
        for model in project.models.all(removed=True):
            if model.summary.get("run") == run.id:
                return model.id
        with _told(where.computer), database_of(worker, where.copy) as there:
            trained = there.models.get(model_id)
        place = run.folder / "model"
        place.mkdir(exist_ok=True)
        with _told(where.computer):
            transfer.fetch_folder(worker, f"{where.copy}/models/{model_id}", place)
        parent = run.plan["run"]["parent"]
        model = project.models.add(place, {**trained.summary, "run": run.id}, name=trained.name, parent=parent)
        if project.models.current() is None or run.plan["run"]["options"]["promote"]:
            project.models.promote(model.id)
        return model.id

    # The other computer

    def _worker(self, computer: Computer) -> WorkerProcess:
        """The worker there, connected anew if the connection has ended."""
        with self._connecting:
            worker = self._workers.get(computer)
            if worker is None or not worker.alive:
                worker = self._workers[computer] = computer.start()
            return worker

    def _ask(self, computer: Computer, context: Reports, request: messages.Request[Answer]) -> Answer:
        """Send a request there, pass its progress on, and give its answer; a cancel here cancels it there.

        Raises:
            BarlError: What it raised there, or that the connection ended.
        """
        worker = self._worker(computer)
        progress = context.progress
        with _told(computer):
            pending: Pending[Answer] = worker.request(request, lambda event: _pass_on(progress, event))
            while True:
                try:
                    return pending.wait(_LOOK_S)
                except TimeoutError:
                    if progress.is_cancelled() and not pending.ended:
                        worker.cancel(pending)
                        return pending.wait(30.0)

    def _fetch_json(self, computer: Computer, path: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, _told(computer):
            place = Path(folder) / "file.json"
            transfer.fetch(self._worker(computer), path, place)
            return json.loads(place.read_text(encoding="utf-8"))

    @contextlib.contextmanager
    def _copy(
        self,
        context: Reports,
        project_folder: str,
        cases: Sequence[tuple[str, bool]],
        models: Sequence[str | None],
        name: str = "",
    ) -> Iterator[tuple[Project, _CopyWithModels]]:
        """Send the files of some cases (with their outlines, where True) and models; the copy goes at the end.

        One with a ``name`` stays unless the body fails.
        """
        worker = self._worker(self.computer)
        with Project.open(project_folder, read_only=True) as project, _told(self.computer):
            files: dict[Path, str] = {}
            for case_id, outline in cases:
                files |= files_of_case(project, project.cases.get(case_id), outline)
            others: dict[str, Path] = {}
            places: dict[str, str] = {}
            for wanted in models:
                folder, model_id = choose_model(project, wanted)
                if model_id is not None:
                    files |= files_of_model(folder)
                    places[str(folder)] = model_id
                else:
                    others |= {f"models/{folder.name}/{path.name}": path for path in files_of_model(folder)}
                    places[str(folder)] = f"models/{folder.name}"
            progress = context.progress.stage(Stage.SENDING)
            copy = send_project(worker, project, name or f"job-{secrets.token_hex(8)}", files, others, progress)
            models_there = {
                folder: f"{copy.path}/{place}" if "/" in place else place for folder, place in places.items()
            }
            try:
                yield project, _CopyWithModels(copy, models_there)
            except BaseException:
                name = ""
                raise
            finally:
                if not name:
                    with contextlib.suppress(BarlError):
                        discard(worker, copy.name)


@dataclasses.dataclass(frozen=True)
class _CopyWithModels:
    copy: Copy
    models: dict[str, str]  # folder here -> what names the model there

    @property
    def name(self) -> str:
        return self.copy.name

    @property
    def path(self) -> str:
        return self.copy.path


def _held_out(project_folder: str) -> list[tuple[str, bool]]:
    with Project.open(project_folder, read_only=True) as project:
        return [(case.id, True) for case in project.cases.all() if case.evaluates]


def _all(project_folder: str) -> list[tuple[str, bool]]:
    with Project.open(project_folder, read_only=True) as project:
        return [(case.id, case.is_accepted) for case in project.cases.all() if not case.is_excluded]


def _parents(project_folder: str) -> list[str | None]:
    """The model that a training starts from, if there is one."""
    with Project.open(project_folder, read_only=True) as project:
        current = project.models.current()
        return [current.id] if current else []


def _pass_on(progress: Progress, event: messages.Event) -> None:
    if event.event == "progress":
        progress.send(
            {"event": "progress", "stage": event.stage, "fraction": event.fraction or 0.0, "message": event.message}
        )
    elif event.event == "log":
        progress.log(event.message or "")


@contextlib.contextmanager
def _told(computer: Computer) -> Iterator[None]:
    """Say which computer a connection went to when it ends."""
    try:
        yield
    except WorkerError as error:
        raise DeviceError(
            f"The connection to {computer.address} ended before the job was done.",
            "Nothing is lost: give the command again; what was sent is there already, and a training there goes on.",
        ) from error
