# SPDX-License-Identifier: Apache-2.0
"""The export: what another program finds in the folder."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import Cancelled, InputError, ProjectError
from barl.progress import Progress
from barl.project.export import export_dataset
from barl.project.labels import Channel, Label
from barl.project.store import Project


def volume(dtype: type, seed: int = 0) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(seed).integers(0, 9, (4, 5, 6)).astype(dtype))
    image.SetSpacing((1, 2, 3))
    return image


def pixels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture
def project(tmp_path: Path):
    labels = [Label(4, "tumor"), Label(7, "edema"), Label(300, "vessel")]
    channels = [Channel("T1"), Channel("FLAIR")]
    with Project.create(tmp_path / "project", "Brain", labels, channels) as project:
        for seed, (name, held_out, outlined) in enumerate(
            [("Ann", False, True), ("Bob", True, True), ("Cy", False, False)]
        ):
            table = np.array([0, 4, 7, 300] * 3, dtype=np.uint16)
            label = sitk.GetImageFromArray(table[pixels_of(volume(np.int16, seed))])
            label.CopyInformation(volume(np.int16))
            scans = [volume(np.float32, seed), volume(np.float32, seed + 10)]
            project.cases.add(name, scans, label=label if outlined else None, held_out=held_out, group=f"Dr {name}")
        yield project


def pixels_of(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def test_a_label_that_nnunet_takes_for_its_ignore_label_is_refused(project: Project, tmp_path: Path) -> None:
    project.definition.labels[0] = Label(4, "ignore")  # as in a project of an older version
    with pytest.raises(InputError, match="nobody has looked at"):
        export_dataset(project, tmp_path / "Dataset001_Brain", "nnunet")
    assert not (tmp_path / "Dataset001_Brain").exists()
    assert export_dataset(project, tmp_path / "plain", "plain").training == ["case_0001"]


def test_nnunet_finds_its_layout_and_consecutive_labels(project: Project, tmp_path: Path) -> None:
    done = export_dataset(project, tmp_path / "Dataset001_Brain", "nnunet")
    assert done.training == ["case_0001"] and done.held_out == ["case_0002"]
    assert done.files == [
        "cases.csv",
        "dataset.json",
        "imagesTr/case_0001_0000.nii.gz",
        "imagesTr/case_0001_0001.nii.gz",
        "imagesTs/case_0002_0000.nii.gz",
        "imagesTs/case_0002_0001.nii.gz",
        "labelsTr/case_0001.nii.gz",
        "labelsTs/case_0002.nii.gz",
        "manifest.json",
    ]
    assert json.loads((done.folder / "dataset.json").read_text()) == {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "tumor": 1, "edema": 2, "vessel": 3},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    stored = pixels(project.revisions.accepted_label("Ann"))
    expected = np.select([stored == 4, stored == 7, stored == 300], [1, 2, 3])
    label = sitk.ReadImage(str(done.folder / "labelsTr/case_0001.nii.gz"))
    assert np.array_equal(pixels_of(label), expected)
    assert label.GetSpacing() == project.cases.grid("Ann").spacing
    second_channel = pixels(done.folder / "imagesTr/case_0001_0001.nii.gz")
    assert np.array_equal(second_channel, pixels(project.cases.image_paths("Ann")[1]))


def test_the_plain_layout_keeps_the_values_and_tells_no_names(project: Project, tmp_path: Path) -> None:
    done = export_dataset(project, tmp_path / "out", "plain")
    assert np.array_equal(
        pixels(done.folder / "case_0002/label.nii.gz"), pixels(project.revisions.accepted_label("Bob"))
    )
    assert (done.folder / "case_0001/image_FLAIR.nii.gz").is_file()
    table = json.loads((done.folder / "labels.json").read_text())
    assert [Label.from_json(row) for row in table] == project.labels
    with (done.folder / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"case": "case_0001", "held_out": "no", "subject": "subject_0001"},
        {"case": "case_0002", "held_out": "yes", "subject": "subject_0002"},
    ]
    assert "Ann" not in (done.folder / "cases.csv").read_text() + str(done.files)


def test_what_cannot_be_exported_is_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(InputError, match="not an empty folder"):
        export_dataset(project, tmp_path / "full")
    with pytest.raises(InputError, match="no layout"):
        export_dataset(project, tmp_path / "out", "coco")
    project.revisions.accepted_label("Bob").write_bytes(b"damaged")
    with pytest.raises(ProjectError, match="of 'Bob' is not as it was stored"):
        export_dataset(project, tmp_path / "out")
    for case in project.cases.all():
        project.cases.set_state(case.id, "excluded")
    with pytest.raises(InputError, match="No case"):
        export_dataset(project, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "project"]


def test_a_cancelled_export_leaves_nothing(project: Project, tmp_path: Path) -> None:
    told: list[float] = []
    progress = Progress(lambda event: told.append(event["fraction"]), lambda: len(told) > 1)
    with pytest.raises(Cancelled):
        export_dataset(project, tmp_path / "out", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


KILLED = """
import os, signal, sys
from barl.progress import Progress
from barl.project.export import export_dataset
from barl.project.store import Project

def kill(event):
    if event.get("fraction", 0) > 0:
        os.kill(os.getpid(), signal.SIGKILL)

with Project.open(sys.argv[1], read_only=True) as project:
    export_dataset(project, sys.argv[2], progress=Progress(kill))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_what_a_killed_export_leaves_goes_at_the_next_opening(project: Project, tmp_path: Path) -> None:
    target = tmp_path / "disk" / "set"
    done = subprocess.run([sys.executable, "-c", KILLED, str(project.folder), str(target)], check=False)
    assert done.returncode == -9 and list(target.parent.glob(".tmp-*")), "no kill hit the export"
    (target.parent / ".tmp-mine").mkdir()  # not a name of BARL's
    Project.open(project.folder, read_only=True).close()
    assert len(list(target.parent.glob(".tmp-*"))) == 2
    Project.open(project.folder).close()
    assert [path.name for path in target.parent.iterdir()] == [".tmp-mine"]
    assert not list(project.folder.rglob(".tmp-*"))
    export_dataset(project, target)
    assert not list(project.folder.rglob(".tmp-*"))
