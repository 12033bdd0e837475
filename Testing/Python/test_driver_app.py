# SPDX-License-Identifier: Apache-2.0
"""`make app` without a display: pictures of the module on a project."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel, Label
from barl.project.store import Project

pytest.importorskip("PySide6", reason="PySide6 is not installed (the host extra)")
pytest.importorskip("slicer", reason="slicer-core is not installed (the host extra)")
pytestmark = pytest.mark.host


def run(repository, folder, *arguments):
    testing = repository / "Testing"
    path = os.pathsep.join([str(testing / "SlicerHost"), str(testing / "Driver"), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return subprocess.run(
        [sys.executable, "-m", "barldriver", *map(str, arguments)],
        env={**environment, "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_section_gets_its_picture(repository, tmp_path):
    voxels = np.zeros((12, 20, 24), np.uint8)
    voxels[4:8, 5:15, 6:18] = 1
    with Project.create(tmp_path / "project", "study", [Label(1, "lesion", (230, 159, 0))], [Channel("T1")]) as project:
        image = sitk.GetImageFromArray(voxels.astype(np.float32) * 100)
        project.cases.add("one", [image], label=sitk.GetImageFromArray(voxels))
    done = run(repository, tmp_path, tmp_path / "project", "--output", "pictures")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    shown = {path.stem.split("-")[1] for path in pictures}
    assert shown == {"project", "cases", "predict", "review", "train", "setup"}
    assert len({path.read_bytes() for path in pictures}) == len(pictures), "two sections look alike"
    for path in pictures:
        size = sitk.ReadImage(str(path)).GetSize()
        assert size == (1366, 768), f"{path.name}: {size}"
        assert f"wrote {path.relative_to(tmp_path)}" in done.stdout


def test_a_folder_that_is_no_project_is_one_sentence(repository, tmp_path):
    done = run(repository, tmp_path, tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == f"{tmp_path} is no BARL project: name the folder with its project.db"
