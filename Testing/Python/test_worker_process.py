# SPDX-License-Identifier: Apache-2.0
"""A real worker process and real detached trainings, as Slicer would use them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from barl.errors import Cancelled, DeviceError, InputError, ModelError, ProjectError
from barl.jobs.compute import Compute
from barl.jobs.runs import RunFolder
from barl.jobs.train_job import TrainingOptions, prepare_run, run_training
from barl.project import processes
from barl.project.labels import Channel, Label
from barl.project.processes import start_mark
from barl.project.store import Project
from barl.worker import detached
from barl.worker.client import WorkerError, WorkerProcess, worker_environment
from barl.worker.messages import (
    Attach,
    CancelTraining,
    Evaluate,
    ListRuns,
    PlanTraining,
    Predict,
    Request,
    ResumeTraining,
    SayHello,
    Shutdown,
    StartTraining,
    WarmModel,
)
from barl.worker.process_tree import end_process_tree
from barl.worker.protocol import decode

OVERRIDES = {"widths": [4, 8], "patch": [16, 16, 16], "validations": 0, "loader_workers": 0}


def ball(seed: int, size: tuple[int, int, int] = (20, 22, 24)) -> tuple[sitk.Image, sitk.Image]:
    rng = np.random.default_rng(seed)
    center = rng.uniform(8, 12, 3)
    mask = sum((axis - c) ** 2 for axis, c in zip(np.indices(size), center, strict=True)) < 25
    scan = (100 * mask + rng.normal(0, 10, size)).astype(np.float32)
    return sitk.GetImageFromArray(scan), sitk.GetImageFromArray(mask.astype(np.uint8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("worker") / "project"
    with Project.create(folder, "balls", [Label(1, "ball")], [Channel("image")]) as project:
        for number in range(4):
            scan, label = ball(number)
            project.cases.add(f"case {number}", [scan], label=label if number < 3 else None, held_out=number == 2)
        run = prepare_run(project, TrainingOptions(iterations=3, device="cpu", overrides=dict(OVERRIDES)))
    run_training(folder, run.id)
    return folder


@pytest.fixture
def project(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "project"))


@pytest.fixture(scope="module")
def worker():
    with WorkerProcess(stderr=subprocess.DEVNULL) as worker:
        yield worker


def test_hello_tells_versions_and_devices(worker):
    hello = worker.call(SayHello(), timeout=60)
    assert hello.protocol == 1 and hello.pid == worker.pid
    assert "cpu" in [device.name for device in hello.devices]


def test_predict_plan_evaluate_and_their_events(worker, project):
    events = []
    predicted = worker.call(Predict(str(project), ["case 3"], device="cpu"), events.append, 60)
    assert Path(predicted.cases[0].label).is_file() and predicted.model == "model_0001"
    assert events[0].event == "started"
    assert {event.stage for event in events if event.event == "progress"} == {"loading", "predicting"}
    options = {"iterations": 7, "overrides": OVERRIDES}
    plan = worker.call(PlanTraining(str(project), options), timeout=60)
    assert plan.plan["iterations"] == 7 and plan.parent == "model_0001" and "BARL" in plan.words
    table = worker.call(Evaluate(str(project), device="cpu"), timeout=60)
    assert set(table.labels) == {"1"}


def test_answers_of_jobs_have_the_fields_of_their_messages(trained, tmp_path):
    """A job that answers more than its message says would lose it on the way to the window."""
    from barl.jobs.evaluate import evaluate_model
    from barl.jobs.predict import predict_cases, predict_files
    from barl.worker import messages

    def fields(kind: type) -> set[str]:
        return {field.name for field in dataclasses.fields(kind)}

    copy = Path(shutil.copytree(trained, tmp_path / "project"))
    with Project.open(copy) as project:
        predicted = predict_cases(project, ["case 3"], compute=Compute("cpu"))
        assert set(predicted) == fields(messages.PredictedCases)
        assert set(predicted["cases"][0]) == fields(messages.PredictedCase)
        evaluated = evaluate_model(project, compute=Compute("cpu"))
        assert set(evaluated) == fields(messages.Evaluation)
        assert set(evaluated["mean"]) == fields(messages.Scores)
        assert set(evaluated["mean"]["dice"]) == fields(messages.Summary)
        assert set(detached.attach(project)) == fields(messages.RunEvents)
        model, scan = project.models.all()[0].folder, project.cases.image_paths("case_0004")[0]
    assert set(predict_files(model, [scan], tmp_path / "out.nii.gz", compute=Compute("cpu"))) == fields(
        messages.Prediction
    )


@dataclasses.dataclass(frozen=True)
class FormatDisk(Request):
    name = "format_disk"


def test_errors_arrive_as_their_class(worker, project, tmp_path):
    with pytest.raises(ProjectError):
        worker.call(ListRuns(str(tmp_path / "nowhere")), timeout=60)
    with pytest.raises(ModelError):
        worker.call(WarmModel(model=str(tmp_path)), timeout=60)
    with pytest.raises(InputError, match="six numbers"):
        worker.call(Predict(str(project), roi=[1, 2]), timeout=60)
    with pytest.raises(InputError, match="no request"):
        worker.call(FormatDisk(), timeout=60)


def test_cancel_stops_a_prediction_between_windows(worker, project):
    with Project.open(project) as opened:
        opened.cases.add("large", [ball(9, (160, 160, 160))[0]])
    moving, events = [], []

    def listen(event):
        events.append(event)
        if event.event == "progress" and event.stage == "predicting" and 0.05 < event.fraction < 0.8:
            moving.append(time.monotonic())

    request = worker.request(Predict(str(project), ["large"], device="cpu"), listen)
    end = time.monotonic() + 60
    while not moving and time.monotonic() < end:
        time.sleep(0.01)
    began = time.monotonic()
    worker.cancel(request)
    with pytest.raises(Cancelled):
        request.wait(10)
    assert time.monotonic() - began < 2
    with Project.open(project, read_only=True) as opened:
        assert opened.cases.get("large").state == "new" and opened.revisions.of("large") == []
    assert worker.call(ListRuns(str(project)), timeout=10).runs  # the worker lives on


def test_stdout_carries_nothing_but_messages_and_its_end_ends_the_worker():
    """Libraries may print, in Python and in C; a child may print; garbage comes in."""
    chatter = (
        "import os, sys; sys.argv = ['worker']\n"
        "import barl.worker.requests as r, barl.worker.__main__ as m\n"
        "from dataclasses import dataclass\n"
        "from barl.worker.messages import Request\n"
        "@dataclass(frozen=True)\n"
        "class Noise(Request): name = 'noise'\n"
        "def noise(context, request):\n"
        "    print('from Python'); os.write(1, b'from C\\n'); os.system('echo from a child')\n"
        "    return {'stdin': sys.stdin.read() if False else os.read(0, 1).decode()}\n"
        "r.handlers = lambda: {Noise: noise}\n"
        "sys.exit(m.main())\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", chatter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    worker.stdin.write(b'{"id":1,"request":"noise"}\nnot json\n')
    worker.stdin.flush()
    # Two for the request, one for the garbage; only then the end, which cancels whatever has not been answered.
    lines = [worker.stdout.readline() for _ in range(3)]
    rest, err = worker.communicate(timeout=60)
    messages = [decode(line) for line in [*lines, *rest.splitlines()]]
    assert len(messages) == 3
    assert sorted(message["event"] for message in messages if message["id"] == 1) == ["result", "started"]
    assert [message["class"] for message in messages if message["id"] is None] == ["ProtocolError"]
    assert next(message["value"] for message in messages if message["event"] == "result") == {"stdin": ""}
    assert all(text in err for text in (b"from Python", b"from C", b"from a child"))
    assert worker.returncode == 0


def test_shutdown_and_a_killed_worker():
    with WorkerProcess(stderr=subprocess.DEVNULL) as worker:
        worker.call(Shutdown(), timeout=30)
        assert worker.close(10) == 0
        with pytest.raises(WorkerError):
            worker.call(SayHello(), timeout=10)
    worker = WorkerProcess(stderr=subprocess.DEVNULL)
    began = time.monotonic()
    request = worker.request(SayHello())
    worker.kill()
    with pytest.raises(WorkerError):
        request.wait(10)
    assert time.monotonic() - began < 2 and not worker.alive


def test_modules_of_the_current_folder_are_never_imported(tmp_path, monkeypatch):
    for name in ("random", "json", "numpy", "barl", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a foreign module was imported')\n")
    monkeypatch.chdir(tmp_path)
    with WorkerProcess() as worker:
        assert worker.call(SayHello(), timeout=120).pid == worker.pid
    code = "import random, json, numpy, barl; print('sound')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=worker_environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "sound", done.stderr


def test_an_interpreter_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(WorkerError, match="could not be started"):
        WorkerProcess(str(tmp_path / "python"))


# Detached training


@pytest.fixture
def running(worker, project):
    """A project and a run that trains, detached, for longer than any test; ended afterwards."""
    options = {"iterations": 100_000, "device": "cpu", "overrides": {**OVERRIDES, "loader_workers": 1}}
    started = worker.call(StartTraining(str(project), options), timeout=120)
    yield project, started
    with contextlib.suppress(psutil.NoSuchProcess):
        end_process_tree(started.pid)


def wait_for_steps(project: Path, run: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if any(event.get("stage") == "training" for event in RunFolder(project / "runs" / run).events()[0]):
            return
        time.sleep(0.1)
    raise AssertionError("the training has not begun")


def test_a_training_outlives_its_worker_is_found_again_and_stops_in_peace(project):
    options = {"iterations": 100_000, "device": "cpu", "overrides": OVERRIDES}
    with WorkerProcess(stderr=subprocess.DEVNULL) as first:
        started = first.call(StartTraining(str(project), options), timeout=120)
        first.kill()
    process = psutil.Process(started.pid)
    assert process.is_running() and os.getpgid(process.pid) != os.getpgid(0)
    wait_for_steps(project, started.run)
    # "The next day", another program:
    with Project.open(project) as opened:
        seen = detached.attach(opened)
        assert (seen["run"], seen["state"]) == (started.run, "running") and seen["events"]
        assert detached.attach(opened, offset=seen["offset"])["offset"] >= seen["offset"]
        with pytest.raises(ProjectError, match="running already"):
            detached.start(opened, started.run)
        detached.stop(opened)
        end = time.monotonic() + 60
        while detached.attach(opened)["state"] == "running" and time.monotonic() < end:
            time.sleep(0.1)
        assert detached.attach(opened)["state"] == "stopped"
        assert (project / "runs" / started.run / "checkpoint.safetensors").is_file()
        with pytest.raises(ProjectError, match="stopped"):
            detached.cancel(opened)


def test_a_training_that_cannot_begin_says_why(project):
    with Project.open(project) as opened:
        run = prepare_run(opened, TrainingOptions(iterations=1, device="cpu", overrides=OVERRIDES))
        (run.folder / "claim.lock").mkdir()  # before the run is the process's own: no event can tell it
        (run.folder / "output.log").write_text("barl: of another day\n")
        with pytest.raises(ProjectError, match=f"{run.id} was not started: ") as caught:
            detached.start(opened, run.id)
        assert "another day" not in str(caught.value)
        assert opened.runs.get(run.id).state == "queued"


def test_cancel_ends_the_whole_tree_within_two_seconds(worker, running):
    project, started = running
    wait_for_steps(project, started.run)
    process = psutil.Process(started.pid)
    family = [process, *process.children(recursive=True)]
    assert len(family) > 1, "the loader's process is part of the tree"
    began = time.monotonic()
    cancelled = worker.call(CancelTraining(str(project)), timeout=10)
    assert time.monotonic() - began < 2
    assert cancelled.state == "stopped"
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_a_killed_training_is_interrupted_and_can_be_resumed(worker, running):
    project, started = running
    end_process_tree(started.pid, grace_s=0)
    assert worker.call(Attach(str(project)), timeout=10).state == "interrupted"
    again = worker.call(ResumeTraining(str(project)), timeout=120)
    assert again.state == "running" and again.pid != started.pid
    assert worker.call(CancelTraining(str(project)), timeout=10).state == "stopped"


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (
            "ModuleNotFoundError('No module named torch', name='torch')",
            "torch, which prediction and training need, is not",
        ),
        ("ImportError('DLL load failed')", "is installed, but cannot be loaded (ImportError)"),
        ("OSError('[WinError 126] Error loading c10.dll')", "is installed, but cannot be loaded (OSError)"),
    ],
)
def test_a_python_without_a_torch_that_works_is_told_where_to_get_one(tmp_path, monkeypatch, failure, words):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(f"raise {failure}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # for the log
    with WorkerProcess(stderr=subprocess.DEVNULL) as worker, pytest.raises(DeviceError) as told:
        worker.call(SayHello(), timeout=60)
    assert words in told.value.message and "step Setup" in told.value.remedy


def test_a_run_of_a_machine_that_is_gone_can_be_given_up(tmp_path, monkeypatch):
    with Project.create(tmp_path / "project", "study", [Label(1, "ball")], [Channel("CT")]) as project:
        run = project.runs.new({"run": {"cases": []}})
        with monkeypatch.context() as there:
            there.setattr(processes, "host_name", lambda: "lab-3")
            project.runs.update(run.id, "running")
        events = run.folder / "events.jsonl"
        events.write_text("{}\n")
        with pytest.raises(ProjectError, match=r"on lab-3, which cannot be reached.*after its last update"):
            detached.cancel(project, run.id)
        assert project.runs.get(run.id).state == "running"
        os.utime(events, (time.time() - 1900,) * 2)
        ended = detached.cancel(project, run.id)
        assert ended.state == "stopped" and "no update from lab-3" in ended.message
        assert detached.resume(project, run.id).id == run.id


def test_ending_a_tree_without_psutil(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    script = "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    script += "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    child = int(parent.stdout.readline())
    began = time.monotonic()
    end_process_tree(parent.pid, grace_s=0.3)
    assert time.monotonic() - began < 2
    parent.wait(2)
    while start_mark(child) and time.monotonic() - began < 2:  # the signal is sent; dying takes a turn on the processor
        time.sleep(0.01)
    assert not start_mark(child)  # gone, or a zombie
