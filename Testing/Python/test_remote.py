# SPDX-License-Identifier: Apache-2.0
"""Predicting and training on another computer: a real worker behind ssh's command line, and behind a real sshd."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import getpass
import json
import os
import random
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from barl.errors import DeviceError, InputError
from barl.progress import SILENT
from barl.project.labels import Channel, Label
from barl.project.processes import ProcessId
from barl.project.states import RunState
from barl.project.store import Project
from barl.remote import near as near_room
from barl.remote.computer import NEEDED, Computer, Found
from barl.remote.messages import FileNames, GivePiece, LayOut, ListFiles, ListMissing, Piece, TakePiece
from barl.remote.near import NearHandlers
from barl.remote.transfer import append
from barl.worker import messages

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the other computer needs a POSIX shell")

TINY = {"widths": [4, 8], "patch": [16, 16, 16], "loader_workers": 0, "validations": 0}
MODEL = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources" / "Models" / "hippocampus"
SSHD = shutil.which("sshd") or next((path for path in ("/usr/sbin/sshd",) if Path(path).exists()), None)


class Reports:
    """What a handler reports to."""

    progress = SILENT


def ball(seed: int) -> tuple[sitk.Image, sitk.Image]:
    rng = np.random.default_rng(seed)
    center = rng.uniform(8, 12, 3)
    mask = sum((axis - c) ** 2 for axis, c in zip(np.indices((20, 22, 24)), center, strict=True)) < 25
    scan = (100 * mask + rng.normal(0, 10, mask.shape)).astype(np.float32)
    return sitk.GetImageFromArray(scan), sitk.GetImageFromArray(mask.astype(np.uint8))


@pytest.fixture
def a_project(tmp_path) -> Path:
    with Project.create(
        tmp_path / "study", "balls", [Label(1, "Anterior"), Label(2, "Posterior")], [Channel("T1")]
    ) as project:
        for number in range(4):
            scan, label = ball(number)
            project.cases.add(f"case {number}", [scan], label=label if number < 3 else None, held_out=number == 2)
    return tmp_path / "study"


@pytest.fixture
def a_computer(tmp_path, monkeypatch) -> Computer:
    """This computer behind a program that takes ssh's arguments and runs the command line in another home folder."""
    (tmp_path / "their home").mkdir()
    program = tmp_path / "ssh"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n[ "$2" = nobody ] && { echo "Name unknown" >&2; exit 255; }\n'
        f'cd {shlex.quote(str(tmp_path / "their home"))} && exec sh -c "$3"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("BARL_SSH", shlex.quote(str(program)))
    return Computer("workstation", sys.executable)


@pytest.fixture
def handlers(a_computer):
    near = NearHandlers(a_computer)
    yield near
    near.close()


def follow(near: NearHandlers, project: Path, run: str, until: RunState, seconds: float = 120.0) -> dict:
    end = time.monotonic() + seconds
    while True:
        answer = near.attach(Reports(), messages.Attach(str(project), run))
        if answer["state"] == until:
            return answer
        assert time.monotonic() < end and answer["state"] not in ("failed",), answer
        time.sleep(0.2)


def test_predictions_of_another_computer_are_those_of_this_one(a_project, handlers, tmp_path):
    from barl.jobs.predict import predict_cases

    with Project.open(a_project) as project:
        model = project.models.add(MODEL, {}, name="demonstration")
        project.models.promote(model.id)
        here = predict_cases(project, ["case 3"])["cases"][0]
        before = sitk.GetArrayFromImage(sitk.ReadImage(str(here["label"])))
    answer = handlers.predict(Reports(), messages.Predict(str(a_project), ["case 3"]))
    (case,) = answer["cases"]
    assert answer["model"] == model.id and case["name"] == "case 3"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(case["label"])), before)
    assert case["volumes"] == here["volumes"] and case["hotspots"] == here["hotspots"]
    with Project.open(a_project, read_only=True) as project:
        revision = project.revisions.newest("case 3")
        stored = project.cases.get("case 3")
        assert revision.id == case["revision"] and revision.model_id == model.id and revision.uncertainty_path
        assert stored.embedding is not None and stored.model_id == model.id and not project.verify(everything=True)
    assert not list((tmp_path / "their home" / ".barl" / "work").iterdir()), "the copy there is gone"
    files = tmp_path / "their home" / ".barl" / "files"
    first = {path.name for path in files.iterdir()}
    handlers.predict(Reports(), messages.Predict(str(a_project), ["case 3"]))
    added = [path for path in files.iterdir() if path.name not in first]
    assert len(added) == 1 and added[0].read_bytes()[:15] == b"SQLite format 3", "scans and weights travel once"


def test_a_training_there_is_stopped_and_resumed_and_becomes_a_model_here(a_project, handlers, tmp_path):
    options = {"minutes": 10.0, "device": "cpu", "overrides": TINY}
    started = handlers.start_training(Reports(), messages.StartTraining(str(a_project), options))
    assert started.state == "running" and started.host == "workstation"
    handlers.stop_training(Reports(), messages.StopTraining(str(a_project), started.run))
    follow(handlers, a_project, started.run, RunState.STOPPED)
    handlers.close()  # the laptop's lid
    later = NearHandlers(Computer("nobody"))  # another computer is chosen by now
    try:
        resumed = later.resume_training(Reports(), messages.ResumeTraining(str(a_project), started.run))
        assert resumed.state == "running"
        later.finish_training(Reports(), messages.FinishTraining(str(a_project), started.run))
        answer = follow(later, a_project, started.run, RunState.FINISHED)
    finally:
        later.close()
    assert "result" in [event["event"] for event in answer["events"]], "the events came along"
    with Project.open(a_project, read_only=True) as project:
        model = project.models.get(answer["model"])
        assert model.is_current and model.summary["run"] == started.run
        assert model.summary["metrics"]["mean_dice"] is not None and project.runs.get(started.run).is_finished
    assert not list((tmp_path / "their home" / ".barl" / "work").iterdir())


class There:
    """The worker of another computer that has one folder: files, and a project whose run has ended."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.alive, self.asked = folder, True, threading.Barrier(2)

    def call(self, request):
        if isinstance(request, ListFiles):
            return FileNames(sorted(path.name for path in (self.folder / request.folder).glob("*") if path.is_file()))
        data = (self.folder / request.path).read_bytes()[request.offset :]
        with contextlib.suppress(threading.BrokenBarrierError):
            self.asked.wait(2)  # both have asked before one of them writes
        return Piece(base64.b64encode(data).decode(), True)


def both(action) -> list:
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(action, number) for number in range(2)]]


def test_a_window_and_a_terminal_that_follow_one_training_take_its_events_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").write_bytes(b"one\ntwo\nthree\n")
    (tmp_path / "here").write_bytes(b"one\n")
    there = There(tmp_path)
    both(lambda _: append(there, "run/events.jsonl", tmp_path / "here"))
    both(lambda _: append(there, "run/events.jsonl", tmp_path / "new"))
    assert (tmp_path / "here").read_bytes() == (tmp_path / "new").read_bytes() == b"one\ntwo\nthree\n"


def test_a_window_and_a_terminal_that_see_the_end_of_a_training_take_its_model_once(a_project, tmp_path, monkeypatch):
    with Project.open(a_project) as project:
        run = project.runs.new({"run": {"parent": None, "options": {"promote": False}}})
        project.runs.update(run.id, RunState.RUNNING, process=ProcessId(1, "gpu", ""))
        where = near_room.Elsewhere("gpu", "", ".barl", "copy", "/copy", "run_0001")
        (run.folder / near_room.ELSEWHERE).write_text(json.dumps(dataclasses.asdict(where)))
    ended = messages.Run("run_0001", "finished", "", "", model_id="model_0001")
    seen = threading.Barrier(2)

    def ask(self, computer, context, request):
        seen.wait(10)
        return messages.RunList([ended])

    def fetch_folder(worker, folder, place):
        shutil.copytree(MODEL, place, dirs_exist_ok=True)
        time.sleep(0.3)

    @contextlib.contextmanager
    def database_of(worker, name):
        yield SimpleNamespace(models=SimpleNamespace(get=lambda _: SimpleNamespace(summary={}, name="there")))

    monkeypatch.setattr(NearHandlers, "_ask", ask)
    monkeypatch.setattr(NearHandlers, "_worker", lambda self, computer: There(tmp_path))
    monkeypatch.setattr(near_room.transfer, "fetch_folder", fetch_folder)
    monkeypatch.setattr(near_room, "database_of", database_of)
    monkeypatch.setattr(near_room, "discard", lambda worker, name: None)
    answers = both(lambda _: NearHandlers().attach(Reports(), messages.Attach(str(a_project), run.id)))
    with Project.open(a_project, read_only=True) as project:
        assert [model.id for model in project.models.all()] == [answers[0]["model"]] == [answers[1]["model"]]


def test_a_training_on_a_computer_that_is_gone_can_be_given_up(a_project, a_computer, monkeypatch):
    with Project.open(a_project) as project:
        run = project.runs.new({"run": {"parent": None, "options": {"promote": False}}})
        project.runs.update(run.id, RunState.RUNNING, process=ProcessId(1, "nobody", ""))
        where = near_room.Elsewhere("nobody", "", ".barl", "copy", "/copy", "run_0001")
        (run.folder / near_room.ELSEWHERE).write_text(json.dumps(dataclasses.asdict(where)))
        near, cancel = NearHandlers(), messages.CancelTraining(str(a_project), run.id)
        with pytest.raises(DeviceError, match="cannot be reached"):
            near.cancel_training(Reports(), cancel)
        assert project.runs.get(run.id).is_running, "it may be the network"
        os.utime(run.folder, (0, time.time() - 3600))
        assert near.cancel_training(Reports(), cancel).state == "stopped"
        assert "half an hour" in project.runs.get(run.id).message


def test_evaluation_comparison_plan_and_a_scan_are_asked_there(a_project, handlers, tmp_path):
    with Project.open(a_project) as project:
        project.models.promote(project.models.add(MODEL, {}).id)
        other = project.models.add(MODEL, {}).id
    plan = handlers.plan(Reports(), messages.PlanTraining(str(a_project), {"iterations": 4, "device": "cpu"}))
    assert plan.plan["iterations"] == 4 and "4 iterations" in plan.words and plan.parent is not None
    answer = handlers.evaluate(Reports(), messages.Evaluate(str(a_project), other))
    assert answer.model == other and [case["name"] for case in answer.cases] == ["case 2"]
    compared = handlers.compare(Reports(), messages.CompareModels(str(a_project), other))
    assert [(case.name, case.model == case.reference) for case in compared.cases] == [("case 2", True)]
    scan, out, unsure = tmp_path / "scan.nii.gz", tmp_path / "out.nii.gz", tmp_path / "unsure.nii.gz"
    sitk.WriteImage(ball(7)[0], str(scan))
    asked = messages.PredictFiles(str(MODEL), [str(scan)], str(out), str(unsure))
    answer = handlers.predict_files(Reports(), asked)
    assert answer.label == str(out) and sitk.ReadImage(str(out)).GetSize() == ball(7)[0].GetSize()
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(unsure))).max() <= 1 and answer.case_uncertainty is not None
    hello = handlers.hello(Reports(), messages.SayHello())
    assert all("workstation" in device.title for device in hello.devices)


def test_the_terminal_uses_another_computer(a_project, a_computer, capsys, tmp_path):
    from barl.cli import main

    python = ["--computer-python", sys.executable]
    assert main(["computer", "check", "workstation", *python, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True
    with Project.open(a_project) as project:
        project.models.promote(project.models.add(MODEL, {}).id)
    assert main(["predict", str(a_project), "case 3", "--computer", "workstation", *python]) == 0
    assert "case 3: uncertainty" in capsys.readouterr().out
    there = tmp_path / "their home" / ".barl" / "files"
    assert list(there.iterdir())
    assert main(["computer", "forget", "workstation", *python]) == 0
    assert not list(there.iterdir())
    assert main(["computer", "check", "nobody"]) != 0
    assert "nobody cannot be reached" in capsys.readouterr().err


def test_a_computer_says_what_it_is_and_lacks(a_computer):
    found = a_computer.look()
    assert found.is_ready and found.python.startswith("3.") and "It is ready" in found.in_words()
    lacking = Found("3.12.1", ("torch", "monai"), 1 << 30, False)
    assert not lacking.is_ready and lacking.in_words() == "Its Python 3.12.1 lacks torch, monai."
    assert "3.11 or newer" in Found("3.9.2", (), 1 << 30, False).in_words()


def test_a_python_that_makes_no_environment_names_the_package_that_does(a_computer, tmp_path, monkeypatch):
    """Debian's own python3 without python3-venv leaves an environment without pip behind; then nothing is installed."""
    python = tmp_path / "python3"
    python.write_text(
        "#!/bin/sh\nmkdir -p venv/bin; cp $0 venv/bin/python; echo 'Failing command: ensurepip' >&2; exit 1\n"
    )
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for _again in range(2):
        with pytest.raises(DeviceError) as told:
            Computer("workstation").prepare()
        assert "cannot make an environment (Failing command: ensurepip). Install the package python3-venv" in str(
            told.value
        )


@pytest.mark.parametrize("address", ["-oProxyCommand=x", "", "a b", "host;ls", "$(ls)"])
def test_an_address_is_an_address(address):
    with pytest.raises(InputError, match="no address"):
        Computer(address)


def test_a_computer_that_cannot_be_used_is_named_with_the_reason(a_computer, a_project):
    with pytest.raises(DeviceError) as told:
        Computer("nobody").look()
    assert "nobody cannot be reached (Name unknown)" in str(told.value) and 'Try "ssh nobody"' in str(told.value)
    with pytest.raises(DeviceError, match="has no Python"):
        Computer("workstation", "/no/such/python").look()


def test_the_far_end_keeps_to_its_folder_and_checks_what_comes(a_computer, tmp_path):
    import base64
    import hashlib

    data = b"voxels" * 1000
    digest = hashlib.sha256(data).hexdigest()
    worker = a_computer.start()
    try:
        assert worker.call(ListMissing([digest])).hashes == [digest]
        with pytest.raises(InputError, match="altered"):
            worker.call(TakePiece(digest, 0, base64.b64encode(data[:-1]).decode(), last=True))
        worker.call(TakePiece(digest, 0, base64.b64encode(data[:99]).decode()))
        worker.call(TakePiece(digest, 99, base64.b64encode(data[99:]).decode(), last=True))
        assert worker.call(ListMissing([digest])).hashes == []
        for path in ("../escape", "/etc/passwd", "a/../../b", ".hidden"):
            with pytest.raises(InputError, match="no name"):
                worker.call(LayOut("job", {path: digest}))
            with pytest.raises(InputError, match="no name"):
                worker.call(GivePiece(path))
        for bad in ("../" * 20 + "etc", digest.upper(), "0" * 63):
            with pytest.raises(InputError, match="no SHA-256"):
                worker.call(ListMissing([bad]))
    finally:
        worker.close()
    home = tmp_path / "their home" / ".barl"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_the_packages_looked_for_are_those_that_are_required():

    required = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources" / "requirements.txt"
    names = [line.split(">")[0].strip() for line in required.read_text().splitlines() if line and line[0] != "#"]
    assert set(names) <= set(NEEDED) and "torch" in NEEDED


@pytest.fixture
def a_real_sshd(tmp_path, monkeypatch) -> Computer:
    if SSHD is None:
        pytest.skip("no sshd is installed (Debian, Ubuntu: openssh-server)")
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o700)
    for name in ("host_key", "my_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "authorized").write_bytes((folder / "my_key.pub").read_bytes())
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nUsePAM no\n"
    )
    key = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    (folder / "config").write_text(
        f"Host loopback\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder}/my_key\n  UserKnownHostsFile {folder}/known_hosts\n  IdentitiesOnly yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd shuts itself in
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE)
    end = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        if server.poll() is not None or time.monotonic() > end:
            pytest.skip(f"sshd does not start here: {server.stderr.read().decode()[:200]}")
        time.sleep(0.05)
    monkeypatch.setenv("BARL_SSH", f"ssh -F {shlex.quote(str(folder / 'config'))}")
    yield Computer("loopback", sys.executable, str(tmp_path / "far"))
    server.terminate()
    server.wait(5)
    server.stderr.close()


def test_a_prediction_goes_through_a_real_sshd(a_project, a_real_sshd):
    with Project.open(a_project) as project:
        project.models.promote(project.models.add(MODEL, {}).id)
    near = NearHandlers(a_real_sshd)
    try:
        answer = near.predict(Reports(), messages.Predict(str(a_project), ["case 3"]))
        assert answer["cases"][0]["revision"]
    finally:
        near.close()


def kill_there(program: str, home: str) -> None:
    """Kill the processes of the other computer, which is this one, that run a program for BARL's folder there."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[1:3] == ["-m", program] and any(word.startswith(home) for word in words[3:]):
            process.kill()


@pytest.mark.slow
def test_what_is_killed_20_times_loses_nothing(a_project, a_real_sshd):
    """At random moments ssh, the worker there and the training there are killed; all is asked for until it is done."""
    rng = random.Random(0)
    with Project.open(a_project) as project:
        project.models.promote(project.models.add(MODEL, {}).id)
    near = NearHandlers(a_real_sshd)
    options = {"iterations": 300, "device": "cpu", "warm_start": False, "overrides": TINY}
    run = near.start_training(Reports(), messages.StartTraining(str(a_project), options)).run
    kills, resumed, state = 0, 0, "running"
    while kills < 20 or state != "finished":
        if kills < 20:
            time.sleep(rng.uniform(0.0, 3.0))
            if kills % 3 == 0:
                near._workers[a_real_sshd]._process.kill()
            else:
                kill_there(("barl.remote.far", "barl.worker.run_process")[kills % 3 - 1], a_real_sshd.home)
            kills += 1
        try:
            state = near.attach(Reports(), messages.Attach(str(a_project), run))["state"]
            if state == "interrupted":
                near.resume_training(Reports(), messages.ResumeTraining(str(a_project), run))
                resumed += 1
            if kills % 4 == 0 and kills < 20:
                near.predict(Reports(), messages.Predict(str(a_project), ["case 3"]))
        except DeviceError as error:
            assert "ended before" in str(error) or "cannot be reached" in str(error)
        assert state in ("running", "interrupted", "finished")
    near.close()
    with Project.open(a_project) as project:
        assert not project.verify(everything=True)
        (model,) = [model for model in project.models.all() if model.summary.get("run") == run]
        assert model.summary["iterations"] == 300 and resumed > 0
