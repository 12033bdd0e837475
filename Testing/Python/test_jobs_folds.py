# SPDX-License-Identifier: Apache-2.0
"""Trainings with folds: who judges whom, several members as one model, interruptions, budgets."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl.errors import InputError
from barl.inference.predictor import Predictor
from barl.inference.sliding_window import predict_array
from barl.jobs import folds as folds_module
from barl.jobs.compare import compare_models
from barl.jobs.compute import Compute
from barl.jobs.evaluate import evaluate_model
from barl.jobs.folds import FoldRun, assign_folds, check_folds
from barl.jobs.runs import RunFolder
from barl.jobs.train_job import TrainingOptions, prepare_run, prepare_training, run_training
from barl.models.disk import load_members
from barl.networks.branches import Members
from barl.project.labels import Channel, Label
from barl.project.model_card import read_card
from barl.project.records import Case
from barl.project.states import CaseState
from barl.project.store import Project
from barl.training.plan import Plan
from safetensors.torch import load_file
from test_jobs_training import TINY, options, scan


def case(name: str, group: str = "") -> Case:
    return Case(name, name, CaseState.ACCEPTED, False, group)


def test_subjects_stay_together_and_folds_are_even():
    cases = [case("a"), case("b", "s1"), case("c", "s1"), case("d"), case("e", "s2"), case("f")]
    assert assign_folds(cases, 3) == {"a": 0, "b": 1, "c": 1, "d": 2, "e": 0, "f": 1}


@pytest.mark.parametrize(
    ("folds", "names", "words"),
    [
        (1, "abc", "from 2 to 20"),
        (2.5, "abc", "from 2 to 20"),
        (True, "abc", "from 2 to 20"),
        (21, "abc", "from 2 to 20"),
        (4, "abc", "--folds 3"),
        (2, "a", "Outline more"),
    ],
)
def test_folds_that_the_cases_do_not_allow_are_refused(folds, names, words):
    with pytest.raises(InputError) as caught:
        check_folds(folds, [case(name) for name in names])
    assert words in str(caught.value)


def make_project(folder: Path) -> None:
    """4 outlined cases, 1 held out, 2 untouched."""
    with Project.create(folder, "balls", [Label(1, "ball")], [Channel("image")]) as project:
        for number in range(7):
            image, label = scan(number)
            project.cases.add(f"case {number}", [image], label=label if number < 5 else None, held_out=number == 4)


def train(folder: Path, wanted: TrainingOptions, **how) -> tuple[str, str]:
    with Project.open(folder) as project:
        run = prepare_run(project, wanted)
    return run.id, run_training(folder, run.id, **how).model_id


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("folds") / "project"
    make_project(folder)
    events: list[dict] = []
    train(folder, options(40, folds=2), on_event=events.append)
    return folder, events


def test_the_card_and_the_project_say_who_judges_whom(trained):
    folder, events = trained
    with Project.open(folder, read_only=True) as project:
        model, run = project.models.current(), project.runs.all()[0]
        assert run.plan["run"]["parent"] is None
        assert [(c["id"][-1], c.get("fold")) for c in run.plan["run"]["cases"]] == [
            ("1", 0), ("2", 1), ("3", 0), ("4", 1), ("6", None), ("7", None), ("5", None),
        ]  # fmt: skip
        assert not (run.folder / "cache").exists() and not list(run.folder.glob("fold-*"))
    card = read_card(model.folder)
    assert card.members == 2 and card.settings["folds"] == 2
    assert re.fullmatch(r"\w+, 4 outlined, 20\d\d-\d\d-\d\d \d\d:\d\d, 2 folds", card.name), card.name
    assert card.counts == {"labelled": 4, "unlabelled": 2, "held_out": 1}
    assert card.metrics["out_of_fold"] == 4
    members = {case_id[-1]: row["member"] for case_id, row in model.summary["out_of_fold"].items()}
    assert members == {"1": 0, "3": 0, "2": 1, "4": 1}
    scores = [row["dice"]["1"] for row in model.summary["out_of_fold"].values()]
    assert card.metrics["mean_dice"] == pytest.approx(np.mean(scores)) and card.metrics["mean_dice"] > 0.2
    fractions = [event["fraction"] for event in events if event.get("stage") == "training"]
    assert fractions == sorted(fractions) and fractions[-1] <= 1
    assert max(event["values"]["iteration"] for event in events if "iteration" in event.get("values", {})) == 80


def test_evaluation_lets_each_case_be_judged_by_the_member_that_has_not_seen_it(trained):
    folder, _ = trained
    with Project.open(folder, read_only=True) as project:
        model = project.models.current()
        result = evaluate_model(project, compute=Compute("cpu", cleanup=False))
        rows = {row["case"]: row for row in result["cases"]}
        assert {case_id[-1]: row["member"] for case_id, row in rows.items()} == {
            "1": 0,
            "2": 1,
            "3": 0,
            "4": 1,
            "5": None,
        }
        assert "4 of 5 cases were judged out of fold" in result["notes"][0]
        for case_id, row in model.summary["out_of_fold"].items():
            assert rows[case_id]["labels"]["1"]["dice"] == pytest.approx(row["dice"]["1"], abs=0.02)


def test_the_mean_of_the_members_predicts_and_their_disagreement_counts(trained):
    folder, _ = trained
    with Project.open(folder, read_only=True) as project:
        model = project.models.current()
    card, members = load_members(model.folder)
    assert len(members) == 2 and not torch.equal(*(next(member.parameters()) for member in members))
    image = scan(5)[0]
    together = Members(members)
    volume = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    alone = np.concatenate([predict_array(member, volume, card.patch) for member in members])
    assert together.n_branches == 4
    np.testing.assert_allclose(predict_array(together, volume, card.patch, branches=range(4)), alone, atol=1e-5)

    card = replace(card, temperature=1.0, cleanup=[])
    joint = Predictor(card, together).predict([image], want_probabilities=True, want_components=True)
    single = [
        Predictor(card, member).predict([image], want_probabilities=True, want_components=True) for member in members
    ]
    mean = sum(as_array(found.probabilities[1]) for found in single) / 2
    np.testing.assert_allclose(as_array(joint.probabilities[1]), mean, atol=2e-3)
    within = sum(as_array(found.disagreement).mean() for found in single) / 2 * np.log(2) / np.log(4)
    assert as_array(joint.disagreement).mean() > within * 1.05, "members disagree beyond their own branches"
    fast = Predictor(card, together, fast=True)
    assert fast.branches == (0,)


def as_array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def test_a_run_stopped_in_its_second_fold_goes_on_there_to_the_same_model(tmp_path):
    make_project(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    _, whole = train(tmp_path / "whole", options(6, folds=2))

    def stop(event) -> None:
        if (event.get("values") or {}).get("iteration") == 6:
            stopped.append(event)
            RunFolder(run_folder).ask_to_stop()

    stopped: list = []
    with Project.open(tmp_path / "part") as project:
        run = prepare_run(project, options(6, folds=2))
        run_folder = run.folder
    first = run_training(tmp_path / "part", run.id, on_event=stop)
    assert first.state == "stopped" and stopped and (run_folder / "fold-1" / "fold.json").exists()
    assert not (run_folder / "fold-2" / "fold.json").exists()
    logs: list = []
    done = run_training(tmp_path / "part", run.id, on_event=lambda event: logs.append(event.get("message")))
    assert done.state == "finished"
    assert "Fold 1 of 2." not in logs and any(log and log.startswith("Fold 2 of 2") for log in logs)
    one, two = (load_file(tmp_path / name / "models" / whole / "weights.safetensors") for name in ("whole", "part"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_finishing_early_leaves_a_model_of_the_folds_that_are_done(tmp_path):
    make_project(tmp_path)
    with Project.open(tmp_path) as project:
        run = prepare_run(project, options(6, folds=4))
    RunFolder(run.folder).ask_to_finish()
    logs: list = []
    done = run_training(tmp_path, run.id, on_event=lambda event: logs.append(event.get("message")))
    with Project.open(tmp_path, read_only=True) as project:
        model = project.models.get(done.model_id)
    assert read_card(model.folder).members == 1 and len(model.summary["out_of_fold"]) == 1
    assert "Finished early, after 1 of 4 folds." in logs


def test_a_model_with_folds_meets_another_one_on_the_cases_that_neither_has_seen(trained, tmp_path):
    folder = Path(shutil.copytree(trained[0], tmp_path / "copy"))
    _, plain_model = train(folder, options(2))
    with Project.open(folder, read_only=True) as project:
        result = compare_models(project, plain_model, compute=Compute("cpu"))
        assert [row["name"] for row in result["cases"]] == ["case 4"] and "held-out" in result["words"]
    _, folds_model = train(folder, options(2, folds=2))
    with Project.open(folder, read_only=True) as project:
        result = compare_models(project, folds_model, "model_0001", compute=Compute("cpu"))
        assert [row["name"] for row in result["cases"]] == [f"case {n}" for n in range(5)]
        assert result["words"].startswith("On 5 unseen cases")
        assert [[row["member"] for row in result[which]["cases"]] for which in ("model", "reference")] == [
            [0, 1, 0, 1, None]
        ] * 2


def test_the_plan_says_what_folds_cost_and_warm_starts_are_left_out(trained):
    with Project.open(trained[0], read_only=True) as project:
        prepared = prepare_training(project, TrainingOptions(minutes=30, device="cpu", folds=4, overrides=dict(TINY)))
        assert prepared.parent is None
        assert any(note.startswith("4 trainings") and "budget of 30 minutes" in note for note in prepared.notes)
        with pytest.raises(InputError, match="5 folds need 5"):
            prepare_training(project, options(folds=5))


def test_what_is_left_of_a_budget_is_shared_out_anew(trained, monkeypatch, tmp_path):
    with Project.open(trained[0], read_only=True) as project:
        plan = Plan.from_json({key: value for key, value in project.runs.all()[0].plan.items() if key != "run"})
    now = [100.0]
    monkeypatch.setattr(folds_module.time, "monotonic", lambda: now[0])
    run = FoldRun(
        replace(plan, minutes=10.0), [], {"a": 0, "b": 1, "c": 2, "d": 3}, tmp_path, "cpu", 0,
        send=print, should_stop=bool, should_finish=bool, spent=40.0,
    )  # fmt: skip
    now[0] += 20  # preparing
    assert run._plan(0).minutes == pytest.approx((600 - 60) / 4 / 60)
    now[0] += 200
    run.done = [{"wall": 220.0, "here": True}]
    assert run._plan(1).minutes == pytest.approx((600 - 260) / 3 / 60)
    run.done = [{"wall": 220.0}]  # of an earlier sitting
    assert run._plan(1).minutes == pytest.approx((600 - 480) / 3 / 60)


def test_a_partial_outline_is_learned_from_and_judged_where_it_was_looked_at(tmp_path):
    found = []
    for elsewhere in (0, 1):
        folder = tmp_path / str(elsewhere)
        make_project(folder)
        with Project.open(folder) as project:
            grid = project.cases.grid("case 0")
            truth = sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.accepted("case 0").path)))
            mask = np.zeros(grid.shape, np.uint8)
            mask[grid.shape[0] // 2 - 1 :][:3] = 1
            label, looked = grid.image(np.where(mask, truth, elsewhere).astype(np.uint8)), grid.image(mask)
            project.revisions.store("case 0", label, "accepted", author="a", looked=looked)
        _, model = train(folder, options(3, folds=2))
        with Project.open(folder, read_only=True) as project:
            row = project.models.get(model)
            assert read_card(row.folder).data["partial"] == 1
            found.append(row.summary["out_of_fold"])
    assert found[0] == found[1] and len(found[0]) == 4
