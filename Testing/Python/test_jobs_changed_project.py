# SPDX-License-Identifier: Apache-2.0
"""Jobs in a project that was changed since its model was trained, or whose files are damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError, ModelError, ProjectError
from barl.jobs.compute import Compute
from barl.jobs.evaluate import evaluate_model
from barl.jobs.predict import predict_cases
from barl.jobs.train_job import TrainingOptions, prepare_run, prepare_training, run_training
from barl.project.export import export_dataset
from barl.project.labels import Channel, Label
from barl.project.states import RunState
from barl.project.store import Project

OPTIONS = TrainingOptions(
    iterations=1,
    device="cpu",
    overrides={"widths": [4, 8], "patch": [16, 16, 16], "validations": 0, "loader_workers": 0},
)
WARM = TrainingOptions(iterations=1, device="cpu", overrides={"loader_workers": 0})
CPU = Compute("cpu")


def ball(seed: int) -> tuple[sitk.Image, sitk.Image]:
    size = (20, 22, 24)
    mask = sum((axis - 10) ** 2 for axis in np.indices(size)) < 25
    scan = (100 * mask + np.random.default_rng(seed).normal(0, 10, size)).astype(np.float32)
    return sitk.GetImageFromArray(scan), sitk.GetImageFromArray(mask.astype(np.uint8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("changed") / "project"
    with Project.create(folder, "balls", [Label(1, "ball")], [Channel("T1")]) as project:
        for number in range(4):
            scan, label = ball(number)
            project.cases.add(f"case {number}", [scan], label=label if number < 3 else None, held_out=number == 2)
        run = prepare_run(project, OPTIONS)
    assert run_training(folder, run.id).state == "finished"
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path):
    with Project.open(shutil.copytree(trained, tmp_path / "project")) as project:
        yield project


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_model_goes_on_predicting_after_a_label_was_added_and_a_channel_renamed(project: Project) -> None:
    project.definition.add_label(Label(300, "cyst"))
    project.definition.rename_label(1, "sphere")
    project.definition.change_channel("T1", new_name="T1w")
    (done,) = predict_cases(project, compute=CPU)["cases"]
    assert done["name"] == "case 3" and project.cases.get("case 3").state == "predicted"
    scores = evaluate_model(project, compute=CPU)["labels"]
    assert scores["1"]["name"] == "sphere" and scores["300"]["dice"]["n"] == 0
    run = prepare_run(project, WARM)
    assert any("No case has an outline of cyst" in note for note in run.plan["run"]["notes"])
    assert any("from scratch" in note for note in run.plan["run"]["notes"]), "the network needs one more class"
    assert run_training(project.folder, run.id).state == "finished"
    project.definition.change_channel("T1w", new_name="FLAIR")
    assert predict_cases(project, ["case 3"], model="model_0001", compute=CPU)["cases"]
    other = project.folder.parent / "other"
    with Project.create(other, "other", [Label(1, "ball")], [Channel("FLAIR")]) as stranger:
        stranger.cases.add("a", [ball(9)[0]])
        with pytest.raises(ModelError, match="needs the channels T1"):
            predict_cases(stranger, model=project.models.all()[0].folder, compute=CPU)


def test_a_damaged_image_is_found_by_every_job(project: Project, tmp_path: Path) -> None:
    scan, _label = ball(7)
    project.cases.add("sound", [scan])
    for name in ("case 0", "case 2", "case 3"):
        damage(project.cases.image_paths(name)[0])
    result = predict_cases(project, ["case 3", "sound"], compute=CPU)
    assert [case["name"] for case in result["cases"]] == ["sound"]
    assert [case["name"] for case in result["failed"]] == ["case 3"]
    assert "is not as it was stored" in result["failed"][0]["message"]
    for job in (
        lambda: prepare_training(project, OPTIONS),
        lambda: evaluate_model(project, compute=CPU),
        lambda: export_dataset(project, tmp_path / "out"),
    ):
        with pytest.raises(InputError, match="is not as it was stored"):
            job()
    assert not (tmp_path / "out").exists()


def test_damage_after_the_plan_and_of_outlines_stops_a_training(project: Project) -> None:
    run = prepare_run(project, OPTIONS)
    damage(project.cases.image_paths("case 1")[0])
    with pytest.raises(InputError, match="of 'case 1' is not as it was stored"):
        run_training(project.folder, run.id)
    assert project.runs.get(run.id).state == "failed"
    project.cases.set_state("case 1", "excluded")
    damage(project.revisions.accepted_label("case 0"))
    with pytest.raises(ProjectError, match="of 'case 0' is not as it was stored"):
        prepare_training(project, OPTIONS)


def test_two_trainings_of_one_project_are_told(project: Project) -> None:
    first, second = (prepare_run(project, WARM) for _ in range(2))
    project.runs.update(first.id, RunState.RUNNING)  # this very process
    events: list[dict] = []
    assert run_training(project.folder, second.id, on_event=events.append).state == "finished"
    logs = [event["message"] for event in events if event["event"] == "log"]
    assert any(f"{first.id} of this project is being trained as well" in text for text in logs)


def test_a_deleted_case_of_a_run_is_named(project: Project) -> None:
    run = prepare_run(project, WARM)
    identity = project.cases.get("case 0").id
    project.cases.delete("case 0")
    with pytest.raises(ProjectError, match=f"{identity}' was deleted"):
        run_training(project.folder, run.id)
    project.cases.undelete("case 0")
    assert run_training(project.folder, run.id).state == "finished"
