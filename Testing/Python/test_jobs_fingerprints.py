# SPDX-License-Identifier: Apache-2.0
"""Fingerprints kept with the cases: a plan is the same with and without them, and follows every change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.jobs.fingerprints import NAME
from barl.jobs.train_job import TrainingOptions, prepare_training
from barl.project.labels import Channel, Label
from barl.project.store import Project
from test_jobs_training import make_project, scan

OPTIONS = TrainingOptions(iterations=2, device="cpu", overrides={"widths": [4, 8]})


@pytest.fixture
def folder(tmp_path) -> Path:
    make_project(tmp_path / "study", outlined=1, untouched=1, held_out=0)
    return tmp_path / "study"


def plan_of(folder: Path, read_only: bool = False) -> dict:
    with Project.open(folder, read_only=read_only) as project:
        return prepare_training(project, OPTIONS).plan.to_json()


def overwrite(path: Path, text: bytes) -> None:
    """Other bytes, the same size and time: only who reads the file notices."""
    stat = path.stat()
    path.write_bytes((text * stat.st_size)[: stat.st_size])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_second_plan_is_the_same_and_reads_no_image(folder):
    first = plan_of(folder)
    images = sorted(folder.glob("cases/case_*/*.nii.gz"))
    assert len(images) == 2 and len(list(folder.glob(f"cases/case_*/{NAME}"))) == 2
    for image in images:
        overwrite(image, b"x")
    assert plan_of(folder) == first


def test_an_image_that_has_changed_is_looked_at_again_and_refused(folder):
    plan_of(folder)
    next(folder.glob("cases/case_0002/*.nii.gz")).write_bytes(b"damaged")
    with pytest.raises(InputError, match="case 1"):
        plan_of(folder)
    next(folder.glob("cases/case_0002/*.nii.gz")).unlink()
    with pytest.raises(InputError, match="case 1"):
        plan_of(folder)


def test_damaged_kept_values_are_measured_again(folder):
    first = plan_of(folder)
    kept = next(folder.glob(f"cases/case_0001/{NAME}"))
    for text in (b"", b"[]", b'{"key": 1}', kept.read_bytes().replace(b'"size"', b'"edges"')):
        kept.write_bytes(text)
        assert plan_of(folder) == first


def test_a_new_outline_is_measured(folder):
    plan_of(folder)
    with Project.open(folder) as project:
        label = scan(0)[1]
        project.revisions.store("case 0", label * 0, "accepted", author="reader")
        with pytest.raises(InputError, match="empty"):
            prepare_training(project, OPTIONS)


def test_a_project_opened_for_reading_stays_as_it_is(folder):
    first = plan_of(folder, read_only=True)
    assert not list(folder.glob(f"cases/case_*/{NAME}"))
    assert plan_of(folder) == first


def test_erasing_a_case_takes_its_fingerprint_along(folder):
    plan_of(folder)
    with Project.open(folder) as project:
        project.cases.erase("case_0002")
    assert not list(folder.glob(f"cases/case_0002/{NAME}"))


def test_two_channels_are_kept_in_their_order(tmp_path):
    image, label = scan(0)
    with Project.create(tmp_path, "two", [Label(1, "ball")], [Channel("a"), Channel("b")]) as project:
        project.cases.add("case", [image, sitk.Cast(image, sitk.sitkFloat32) * 3 + 500], label=label)
    first = plan_of(tmp_path)
    assert plan_of(tmp_path) == first
