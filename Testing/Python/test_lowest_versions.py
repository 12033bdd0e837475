# SPDX-License-Identifier: Apache-2.0
"""The lowest versions that pyproject.toml declares are installed together, and the whole loop runs with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

TINY = ["--set", "patch=[8,16,16]", "--set", "widths=[4,8]", "--set", "validations=1", "--iterations", "4"]


def lowest(repository: Path) -> list[str]:
    """The engine's requirements with ``==`` in the place of ``>=``."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["engine"]]
    assert all(re.fullmatch(r"[A-Za-z0-9-]+>=[0-9.]+", text) for text in declared), declared
    return [text.replace(">=", "==") for text in declared]


def write_scans(folder: Path) -> None:
    folder.mkdir()
    for number in range(4):
        scan = np.random.default_rng(number).normal(100, 10, (12, 20, 18)).astype(np.float32)
        label = np.zeros(scan.shape, np.uint8)
        label[3:8, 5:12, 4:10] = 1
        scan[label == 1] += 80
        for array, name in ((scan, "scan"), (label, "label")):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{name}{number}.nii.gz"))


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the lowest numpy has no wheel for this Python")
def test_the_lowest_versions_train_predict_and_store(repository: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    environment = {**os.environ, "PYTHONPATH": str(repository / "BARLSegmentation"), "OMP_NUM_THREADS": "1"}
    environment.pop("PIP_CONSTRAINT", None)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *lowest(repository)], env=environment, check=True)
    write_scans(tmp_path / "scans")

    def barl(*words: object) -> str:
        command = [str(python), "-m", "barl.cli", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        assert "download" not in done.stderr.lower(), "nothing fetches anything on its own"
        return done.stdout

    project, scans = tmp_path / "project", tmp_path / "scans"
    barl("project", "new", project, "--label", "1=tumor")
    for number in range(3):
        outline = scans / f"label{number}.nii.gz"
        barl("add", project, scans / f"scan{number}.nii.gz", "--label", outline, "--name", f"case {number}")
    barl("project", "mark", project, "case 2", "--held-out", "yes")
    barl("add", project, scans / "scan3.nii.gz", "--name", "case 3")
    barl("train", project, "--device", "cpu", *TINY)
    barl("predict", project, "--device", "cpu")
    assert "case 3" in barl("next", project)
    barl("evaluate", project, "--device", "cpu")
    barl("project", "accept", project, "case 3", scans / "label3.nii.gz")
    barl("train", project, "--device", "cpu", *TINY)  # from the model there is
    barl("export", project, tmp_path / "set")
    barl("project", "verify", project)
