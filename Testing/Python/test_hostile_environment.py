# SPDX-License-Identifier: Apache-2.0
"""Files in the current folder and variables of the environment neither run nor change a result."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel, Label
from barl.project.model_card import weights_checksum
from barl.project.store import Project
from barl.worker import messages
from barl.worker.client import WorkerProcess, worker_environment

ROOT = Path(__file__).resolve().parents[2] / "BARLSegmentation"
MODEL = ROOT / "Resources" / "Models" / "hippocampus"
MODULES = ("json", "torch", "random", "typing", "argparse", "SimpleITK", "pydicom", "sitecustomize", "usercustomize")
PACKAGES = ("numpy", "scipy", "safetensors", "monai")
# Variables that are set, or unset (None), and the umask.
ENVIRONMENTS = {
    "python's": (
        {
            "PYTHONSTARTUP": "json.py",
            "PYTHONHASHSEED": "7",
            "PYTHONWARNINGS": "error",
            "PYTHONIOENCODING": "ascii",
            "MPLBACKEND": "nonsense",
        },
        0o077,
    ),
    "places": ({"TMPDIR": "/nowhere", "HOME": None, "XDG_CACHE_HOME": "/nowhere", "LC_ALL": "C"}, 0o000),
    "ours and others'": (
        {
            "BARL_DATA": "/nowhere",
            "BARL_SSH": "'",
            "BARL_NONSENSE": "1",
            "HOME": "/proc/1",
            "LD_PRELOAD": "/nowhere.so",
            "OMP_NUM_THREADS": "nonsense",
            "CUDA_VISIBLE_DEVICES": "nonsense",
        },
        0o022,
    ),
}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the variables are those of POSIX systems")


@pytest.fixture
def a_hostile_folder(tmp_path, monkeypatch) -> Path:
    """The current folder; each file in it writes its name to ``ran`` when it is imported."""
    folder, ran = tmp_path / "here", tmp_path / "ran"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('{name} ')\n")
    for name in PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"open({str(ran)!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(folder)
    return folder


def surrounded(variables: dict[str, str | None]) -> dict[str, str]:
    """This environment with the variables; ``barl`` is found as the installed package would be."""
    environment = {name: value for name, value in os.environ.items() if variables.get(name, "") is not None}
    wanted = {name: value for name, value in variables.items() if value is not None}
    return environment | wanted | {"PYTHONPATH": str(ROOT)}


def ran(folder: Path) -> str:
    file = folder.parent / "ran"
    return file.read_text() if file.exists() else ""


def a_scan(folder: Path) -> Path:
    """A scan whose name is not of ASCII."""
    array = np.random.default_rng(0).normal(100, 20, (24, 26, 28)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / "größe.nii.gz"))
    return folder / "größe.nii.gz"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_command_line_does_the_same_in_any_surroundings(name, a_hostile_folder, tmp_path):
    variables, umask = ENVIRONMENTS[name]
    Project.create(tmp_path / "p", "Größen", [Label(1, "Leber")], [Channel("CT")]).close()
    command = [sys.executable, "-m", "barl.cli", "add", str(tmp_path / "p"), str(a_scan(tmp_path))]
    done = subprocess.run(command, env=surrounded(variables), capture_output=True, umask=umask, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"Added gr") and b"Traceback" not in done.stderr and ran(a_hostile_folder) == ""
    with Project.open(tmp_path / "p") as project:
        (case,) = project.cases.all()
        stored = sitk.ReadImage(str(project.cases.image_paths(case.id)[0]))
    assert np.array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(sitk.ReadImage(str(a_scan(tmp_path)))))


def test_the_current_folder_may_lie_above_the_package(a_hostile_folder):
    """As a home folder does, with the environment below it."""
    (a_hostile_folder / "lib").mkdir()
    (a_hostile_folder / "lib" / "barl").symlink_to(ROOT / "barl", target_is_directory=True)
    environment = dict(os.environ, PYTHONPATH=str(a_hostile_folder / "lib"))
    command = [sys.executable, "-m", "barl.cli", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "predict" in done.stdout and ran(a_hostile_folder) == ""


def test_settings_of_matplotlib_that_are_no_text_are_one_sentence(a_hostile_folder):
    """MONAI loads matplotlib, which looks into the current folder first."""
    (a_hostile_folder / "matplotlibrc").write_bytes(b"\xff\xfe")
    script = """
from barl.jobs.failures import explain
try:
    import matplotlib
except Exception as error:
    print(explain(error))
"""
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, env=surrounded({}), capture_output=True, text=True, check=False)
    assert "matplotlibrc. Rename that file in the current folder" in done.stdout, done.stderr


def test_a_relative_place_of_packages_is_not_handed_on():
    """It would mean the current folder of whatever process reads it."""
    given = os.pathsep.join(["", ".", "lib", "/opt/packages", ""])
    assert worker_environment({"PYTHONPATH": given})["PYTHONPATH"] == os.pathsep.join([str(ROOT), "/opt/packages"])


def test_a_job_that_gets_no_variables_runs_nothing_of_the_current_folder(a_hostile_folder, monkeypatch):
    """Sites set SBATCH_EXPORT=NONE: the script of the job itself says what its environment needs."""
    from barl.jobs.cluster import run_jobs

    monkeypatch.setenv("HOME", str(a_hostile_folder.parent))
    command, variables = [sys.executable, "-m", "json.tool", "--help"], {"PYTHONSAFEPATH": "1", "WORDS": "it's $HOME"}
    (ended,) = run_jobs([lambda: command], "local", {}, variables=variables)
    assert ended.code == 0 and ran(a_hostile_folder) == ""
    (ended,) = run_jobs([lambda: ["printenv", "WORDS"]], "local", {}, variables=variables)
    assert ended.output == "it's $HOME\n"


def predicted(scan: Path, output: Path, environment: dict[str, str]) -> str:
    """SHA-256 of the voxels that a worker predicts."""
    request = messages.PredictFiles(str(MODEL), [str(scan)], str(output), device="cpu")
    with WorkerProcess(environment=worker_environment(environment)) as worker:
        worker.call(request)
    return hashlib.sha256(sitk.GetArrayFromImage(sitk.ReadImage(str(output))).tobytes()).hexdigest()


def everything() -> dict[str, str | None]:
    """All variables at once: loading PyTorch takes seconds."""
    joined: dict[str, str | None] = {}
    for variables, _umask in ENVIRONMENTS.values():
        joined |= variables
    return joined


def test_the_worker_reads_the_same_in_any_surroundings(a_hostile_folder, tmp_path):
    Project.create(tmp_path / "p", "Größen", [Label(1, "Leber")], [Channel("CT")]).close()
    files = messages.CaseFiles("größe", [str(a_scan(tmp_path))])
    with WorkerProcess(environment=worker_environment(surrounded(everything()))) as worker:
        added = worker.call(messages.AddCases(str(tmp_path / "p"), [files]))
    assert [case.name for case in added.cases] == ["größe"] and ran(a_hostile_folder) == ""


@pytest.mark.slow
def test_the_worker_predicts_the_same_in_any_surroundings(a_hostile_folder, tmp_path):
    scan = a_scan(tmp_path)
    plain = predicted(scan, tmp_path / "plain.nii.gz", dict(os.environ))
    assert predicted(scan, tmp_path / "hostile.nii.gz", surrounded(everything())) == plain
    assert ran(a_hostile_folder) == ""


@pytest.mark.slow
def test_a_detached_training_is_the_same_in_any_surroundings(a_hostile_folder, tmp_path):
    from test_worker_process import ball

    weights = []
    hostile = surrounded(everything() | {"OMP_NUM_THREADS": "1"})
    for number, environment in enumerate((dict(os.environ, OMP_NUM_THREADS="1"), hostile)):
        folder = tmp_path / f"p{number}"
        with Project.create(folder, "P", [Label(1, "ball")], [Channel("CT")]) as project:
            for seed in range(3):
                image, label = ball(seed)
                case = project.cases.add(f"case {seed}", [image])
                if seed < 2:
                    project.revisions.store(case.id, label, "accepted", author="reader")
        with WorkerProcess(environment=worker_environment(environment)) as worker:
            options = {"iterations": 4, "seed": 1, "device": "cpu"}
            started = worker.call(messages.StartTraining(str(folder), options))
            state = "running"
            while state == "running":
                time.sleep(0.2)
                state = worker.call(messages.Attach(str(folder), started.run)).state
        with Project.open(folder, read_only=True) as project:
            weights.append(weights_checksum(project.models.current().folder))
    assert weights[0] == weights[1] and ran(a_hostile_folder) == ""


@pytest.mark.slow
def test_several_processes_of_a_job_run_nothing_of_the_current_folder(a_hostile_folder, tmp_path):
    from test_worker_process import ball

    with Project.create(tmp_path / "p", "P", [Label(1, "ball")], [Channel("CT")]) as project:
        for seed in range(2):
            image, label = ball(seed)
            project.cases.add(f"case {seed}", [image], label=label)
    words = ["--iterations", "2", "--device", "cpu", "--gpus", "2", "--cluster", "local"]
    hostile = surrounded(everything() | {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"})
    command = [sys.executable, "-m", "barl.cli", "train", str(tmp_path / "p"), *words]
    done = subprocess.run(command, env=hostile, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Project.open(tmp_path / "p", read_only=True) as project:
        assert project.models.current() and ran(a_hostile_folder) == ""


def test_another_computer_runs_nothing_of_the_current_folder(a_hostile_folder, tmp_path, monkeypatch):
    """An ssh that starts a shell here, with this environment and folder."""
    from barl.remote.computer import Computer

    Project.create(tmp_path / "p", "P", [Label(1, "liver")], [Channel("CT")]).close()
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nexec sh -c "$3"\n')
    program.chmod(0o755)
    variables = {**ENVIRONMENTS["python's"][0], "PYTHONHOME": "/nowhere", "PYTHONPATH": str(a_hostile_folder)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BARL_SSH", str(program))
    computer = Computer("anybody", python=sys.executable, home=str(tmp_path / "there"))
    assert computer.look().python.startswith("3.")
    with computer.start() as worker:
        assert worker.call(messages.ListRuns(str(tmp_path / "p"))).runs == []
    assert ran(a_hostile_folder) == ""
