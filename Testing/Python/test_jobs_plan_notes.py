# SPDX-License-Identifier: Apache-2.0
"""Sentences about a training: parts too small for its model, and a model that is poor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.jobs.plan_notes import poor_labels
from barl.jobs.runs import RunFolder
from barl.jobs.train_job import TrainingOptions, prepare_run, run_training
from barl.project.labels import Channel, Label
from barl.project.store import Project

LABELS = [Label(1, "atrium"), Label(2, "vein")]


def a_project(folder: Path, dots: int) -> None:
    """Two outlined cases, one of them held out, with single voxels of label 1."""
    rng = np.random.default_rng(0)
    with Project.create(folder, "dots", LABELS, [Channel("MR")]) as project:
        for n in range(2):
            truth = np.zeros((16, 16, 16), np.uint8)
            truth[4:9, 4:9, 4:9] = 2
            truth[12, 12, 2 : 2 + 3 * dots : 3] = 1
            image = sitk.GetImageFromArray(rng.normal(0, 1, truth.shape).astype(np.float32))
            project.cases.add(f"case {n}", [image], label=sitk.GetImageFromArray(truth), held_out=n == 1)


@pytest.mark.parametrize(
    ("dots", "words"),
    [
        (1, "2 outlined parts of atrium in 2 cases are smaller than a voxel of the model (3 x 3 x 3 mm): each is "),
        (4, "8 outlined parts of atrium in 2 cases are smaller"),
    ],
)
def test_small_parts_are_counted_in_words(dots, words, tmp_path):
    a_project(tmp_path, dots)
    with Project.open(tmp_path) as project:
        run = prepare_run(project, TrainingOptions(iterations=1, device="cpu", overrides={"spacing": [3, 3, 3]}))
        (note,) = [note for note in run.plan["run"]["notes"] if "smaller than a voxel" in note]
        assert note.startswith(words)


def test_a_poor_model_is_told_where_its_training_ends(tmp_path):
    a_project(tmp_path, 4)
    tiny = {"widths": [4, 8], "patch": [16, 16, 16], "loader_workers": 0, "validations": 0}
    with Project.open(tmp_path) as project:
        run = prepare_run(project, TrainingOptions(iterations=1, device="cpu", overrides=tiny))
    told = []
    run_training(tmp_path, run.id, on_event=told.append)
    (note,) = [event["message"] for event in told if event["event"] == "log" and "poor" in event["message"]]
    assert note.startswith("The model is poor: mean Dice on the held-out cases: atrium 0.0")
    assert note in [event.get("message") for event in RunFolder(tmp_path / "runs" / run.id).events()[0]]


def test_a_good_model_and_one_that_nobody_has_judged_are_not_called_poor():
    assert poor_labels(LABELS, {"dice": {"1": 0.5, "2": 0.9}}, "on the held-out cases") == []
    assert poor_labels(LABELS, {"dice": {"1": float("nan")}}, "") == poor_labels(LABELS, {}, "") == []
    (note,) = poor_labels(LABELS, {"dice": {"1": 0.7, "2": 0.123}}, "out of fold")
    assert note.startswith("The model is poor: mean Dice out of fold: vein 0.12. ")
