# SPDX-License-Identifier: Apache-2.0
"""Jobs of a cluster: a killed one is sent again and loses nothing; several processes train one model."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from barl.cli import main
from barl.errors import DeviceError, InputError
from barl.jobs.cluster import run_jobs
from barl.project.labels import Channel, Label
from barl.project.store import Project
from test_worker_process import ball

MODEL = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources" / "Models" / "hippocampus"
# Counts its tries in a file; the first ones are killed.
KILLED = """
import os, pathlib, signal, sys
file, deaths = pathlib.Path(sys.argv[1]), int(sys.argv[2])
tries = len(file.read_text()) if file.exists() else 0
file.write_text("x" * (tries + 1))
if tries < deaths:
    os.kill(os.getpid(), signal.SIGKILL)
print(f"done after {tries} deaths")
sys.exit(3 * (deaths == 1))
"""


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder, where the jobs' files lie."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def study(tmp_path) -> Path:
    """Three scans, two of them outlined."""
    with Project.create(tmp_path / "study", "P", [Label(1, "ball")], [Channel("CT")]) as project:
        for seed in range(3):
            image, label = ball(seed)
            case = project.cases.add(f"case {seed}", [image])
            if seed < 2:
                project.revisions.store(case.id, label, "accepted", author="reader")
    return tmp_path / "study"


def test_a_killed_job_is_sent_again_and_its_own_failure_is_not(home):
    files = [home / "a", home / "b"]
    commands = [
        lambda n=n, file=file: [sys.executable, "-c", KILLED, str(file), str(n)] for n, file in enumerate(files)
    ]
    killed = []
    first, second = run_jobs(commands, "local", {}, on_killed=killed.append)
    assert (first.code, first.output) == (0, "done after 0 deaths\n")
    assert (second.code, second.output) == (3, "done after 1 deaths\n") and killed == [1]
    assert not list((home / ".barl" / "jobs").iterdir()), "the files go with the jobs"


def test_a_job_gets_its_arguments_as_they_are(home):
    words = ["a b", "$HOME", "it's", "`date`", "", "Größe", "; exit 7"]
    show = "import json, sys; print(json.dumps(sys.argv[1:])); print('x' * 3000, file=sys.stderr)"
    (ended,) = run_jobs([lambda: [sys.executable, "-c", show, *words]], "local", {})
    assert json.loads(ended.output) == words and ended.code == 0 and len(ended.complaints) == 2000


def test_a_job_that_is_always_killed_and_a_missing_slurm_are_one_sentence(home, monkeypatch):
    monkeypatch.setattr("barl.jobs.cluster._TRIES", 2)
    command = [sys.executable, "-c", KILLED, str(home / "a"), "9"]
    with pytest.raises(DeviceError, match="was killed 2 times"):
        run_jobs([lambda: command], "local", {})
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(DeviceError, match="no sbatch"):
        run_jobs([lambda: command], "slurm", {})


def test_processes_that_there_is_nothing_for_are_refused(study, capsys):
    options = ["train", str(study), "--iterations", "2", "--device", "cpu", "--plan", "--json"]
    assert main([*options, "--gpus", "999"]) == InputError.exit_code
    assert "999" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main([*options, "--gpus", "2", "--folds", "2"]) == InputError.exit_code
    assert "--folds" in json.loads(capsys.readouterr().out)["error"]["remedy"]


def trained(study: Path, *words: str) -> dict:
    """What ``barl train`` answers; it runs in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "barl.cli",
        "train",
        str(study),
        "--device",
        "cpu",
        "--seed",
        "1",
        *words,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(study, tmp_path, monkeypatch):
    """Two gloo processes. Plain steps: AdamW's first ones move every weight by the whole rate, be its gradient 1e-9."""
    from safetensors.numpy import load_file

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(study, tmp_path / "one")
    weights = []
    steps = ("--iterations", "2", "--set", "optimizer=sgd", "--set", "precision=float32", "--set", "learning_rate=0.01")
    whole = ("--set", "batch_labelled=2", "--set", "batch_unlabelled=2")
    for folder, words in ((tmp_path / "one", whole), (study, ("--gpus", "2"))):
        answer = trained(folder, *steps, *words)
        with Project.open(folder, read_only=True) as project:
            weights.append(load_file(project.models.get(answer["model"]).folder / "weights.safetensors"))
    worst = max(abs(weights[0][name] - weights[1][name]).max() for name in weights[0])
    assert worst < 1e-6, worst


SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Slurm with this computer as its only node."""
    if any(shutil.which(name) is None for name in ("slurmctld", "slurmd", "sbatch")):
        pytest.skip("Slurm is not installed")
    folder, host = tmp_path / "slurm", socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (one, other)]
    facts = {"host": host, "user": getpass.getuser(), "ports": ports, "folder": folder, "cores": os.cpu_count()}
    (folder / "slurm.conf").write_text(SLURM.format(**facts))
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen([name, "-D"], **quiet) for name in ("slurmctld", "slurmd")]
    try:
        end = time.monotonic() + 30
        while b"idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, check=False).stdout:
            if time.monotonic() > end or any(process.poll() is not None for process in running):
                pytest.skip("Slurm does not start here")
            time.sleep(0.2)
        yield
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(20)


@pytest.mark.slow
def test_slurm_runs_a_killed_and_a_cancelled_job_again(home, slurm):
    """A real Slurm of one node: a command killed by a signal, and one whose job is cancelled while it sleeps."""
    killed: list[int] = []
    (ended,) = run_jobs(
        [lambda: [sys.executable, "-c", KILLED, str(home / "a"), "1"]], "slurm", {}, on_killed=killed.append
    )
    assert (ended.code, ended.output, killed) == (3, "done after 1 deaths\n", [0])
    sleeps = (
        "import pathlib, sys, time; file = pathlib.Path(sys.argv[1]); first = not file.exists(); file.write_text('');"
        "time.sleep(60 if first else 0); print('done')"
    )
    jobs: list[str] = []

    def cancel() -> None:
        while not (home / "b").exists():
            time.sleep(0.1)
        subprocess.run(["scancel", jobs[0]], check=True)

    threading.Thread(target=cancel, daemon=True).start()
    command = [sys.executable, "-c", sleeps, str(home / "b")]
    (ended,) = run_jobs([lambda: command], "slurm", {}, on_sent=lambda _number, job: jobs.append(job))
    assert (ended.code, ended.output, len(jobs)) == (0, "done\n", 2)
    with pytest.raises(InputError, match="shape"):
        run_jobs([lambda: command], "slurm", {"shape": "red"})


@pytest.mark.slow
def test_slurm_trains_and_a_cancelled_job_is_sent_again(home, study, slurm):
    """A real Slurm of one node."""
    cancelled = []

    def cancel() -> None:
        while not any('"training"' in path.read_text() for path in (study / "runs").glob("*/events.jsonl")):
            time.sleep(0.05)
        queue = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True).stdout.split()
        cancelled.extend(queue)
        subprocess.run(["scancel", *queue], check=True)

    threading.Thread(target=cancel, daemon=True).start()
    # A job that gets none of our variables, as sites often have it.
    settings = ("--cluster-set", "cpus-per-task=1", "--cluster-set", "export=NONE")
    answer = trained(study, "--iterations", "40", "--cluster", "slurm", *settings)
    assert len(cancelled) == 1 and answer["state"] == "finished"
    with Project.open(study, read_only=True) as project:
        assert project.models.get(answer["model"]).summary["iterations"] == 40


def kill_soon(study: Path, deaths: list[int]) -> threading.Thread:
    """Kill the training's process as soon as it trains."""

    def kill() -> None:
        while not any('"training"' in path.read_text() for path in (study / "runs").glob("*/events.jsonl")):
            time.sleep(0.05)
        with Project.open(study, read_only=True) as project:
            deaths.append(project.runs.all()[-1].pid)
        os.kill(deaths[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_killed_training_is_sent_again_and_goes_on(home, study):
    deaths: list[int] = []
    thread = kill_soon(study, deaths)
    answer = trained(study, "--iterations", "40", "--cluster", "local")
    thread.join(1)
    assert deaths and answer["state"] == "finished"
    with Project.open(study, read_only=True) as project:
        assert len(project.runs.all()) == 1 and project.models.get(answer["model"]).summary["iterations"] == 40


@pytest.mark.slow
def test_predictions_in_jobs_are_those_of_one_process(home, tmp_path, capsys):
    import hashlib

    digests = []
    for name, words in (("one", []), ("jobs", ["--cluster", "local", "--jobs", "2"])):
        labels = [Label(1, "Anterior hippocampus"), Label(2, "Posterior hippocampus")]
        with Project.create(tmp_path / name, "P", labels, [Channel("T1")]) as project:
            for seed in range(3):
                project.cases.add(f"case {seed}", [ball(seed)[0]])
        options = ["predict", str(tmp_path / name), "--model", str(MODEL), "--device", "cpu", "--json"]
        assert main([*options, *words]) == 0
        capsys.readouterr()
        with Project.open(tmp_path / name, read_only=True) as project:
            paths = [project.revisions.newest(case.id).path for case in project.cases.all()]
            digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])
    assert digests[0] == digests[1]
