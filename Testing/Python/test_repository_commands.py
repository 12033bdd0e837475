# SPDX-License-Identifier: Apache-2.0
"""What `make` says on a machine where something is missing, and the benchmark runner."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="make and sh are not part of Windows")
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def a_checkout(tmp_path) -> Path:
    """A folder with the files that the set-up needs, without an environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "MAKE", "MFLAGS"))}
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def a_python(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return f"PYTHON={path}"


@needs_make
@pytest.mark.parametrize("target", ["demo", "test"])
def test_too_old_python_is_named_in_one_sentence(a_checkout, target):
    done = make(a_checkout, target, a_python(a_checkout / "python3.9", "exit 1"))
    assert done.returncode != 0
    assert "No Python 3.11 or newer was found" in done.stderr and "Traceback" not in done.stderr
    assert not (a_checkout / ".venv").exists()


@needs_make
def test_missing_venv_package_is_named_and_leaves_nothing_half_made(a_checkout):
    # As on Debian without python3-venv: the folder appears, pip does not.
    script = 'case "$*" in *venv*) mkdir -p .venv/bin; exit 1;; esac; exit 0'
    done = make(a_checkout, "demo", a_python(a_checkout / "python3.12", script))
    assert done.returncode != 0
    assert "python3-venv" in done.stderr
    assert not (a_checkout / ".venv").exists()


@needs_make
def test_offline_is_named_and_the_next_run_goes_on(a_checkout):
    empty = a_checkout / "wheels"
    empty.mkdir()
    for _ in range(2):
        done = make(a_checkout, "demo", f"PYTHON={sys.executable}", f"PIP_ARGS=--no-index --find-links {empty}")
        assert done.returncode != 0
        assert "connect to the internet" in done.stderr
        assert (a_checkout / ".venv/bin/python").exists() and not (a_checkout / ".venv/engine.stamp").exists()
    assert "[1/3]" not in done.stdout, "the environment is not made again"


def test_benchmark_runner_collects_figures_and_reports_a_failure(tmp_path):
    folder = tmp_path / "Testing" / "Benchmarks"
    folder.mkdir(parents=True)
    shutil.copy(REPOSITORY / "Testing" / "Benchmarks" / "run.py", folder)
    (folder / "good.py").write_text("print('warming up')\nprint('{\"time\": {\"ratio\": 1.25}}')\n", encoding="utf-8")
    (folder / "bad.py").write_text("raise SystemExit(3)\n", encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(folder / "run.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    done = run("good", "bad")
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "benchmark-output" / "benchmark.json").read_text(encoding="utf-8"))
    assert report["results"]["good"] == {"time": {"ratio": 1.25}}
    assert "exit code 3" in report["results"]["bad"]["error"]
    assert {"cpu", "cores", "torch_threads", "versions"} <= set(report["machine"])
    assert "time.ratio" in done.stdout and "1.25" in done.stdout
    assert run("good").returncode == 0
    assert "no such benchmark" in run("missing").stderr


def test_benchmarks_of_make_bench_need_neither_arguments_nor_data():
    run = runpy.run_path(str(REPOSITORY / "Testing" / "Benchmarks" / "run.py"))
    for name in run["SPEED_AND_MEMORY"]:
        source = (REPOSITORY / "Testing" / "Benchmarks" / f"{name}.py").read_text(encoding="utf-8")
        assert "json.dumps" in source and "BARL_DATA" not in source, name
        assert not re.search(r"add_subparsers|required=True|add_argument\(\s*\"[^-]", source), name
