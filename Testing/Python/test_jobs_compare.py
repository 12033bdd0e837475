# SPDX-License-Identifier: Apache-2.0
"""A new model against the current one: which cases count, what the numbers say, and in which words."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError, ProjectError
from barl.evaluation.statistics import paired_test
from barl.jobs.compare import compare_models, in_words
from barl.jobs.compute import Compute
from barl.jobs.evaluate import evaluate_model
from barl.jobs.model_files import import_model
from barl.jobs.runs import RunFolder
from barl.jobs.train_job import TrainingOptions, prepare_run, prepare_training, run_training
from barl.progress import Progress
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barl.worker import detached
from barl.worker.client import WorkerProcess
from barl.worker.messages import CompareModels, FinishTraining, SayHello, StartTraining

TINY = {"widths": [4, 8], "patch": [16, 16, 16], "loader_workers": 0, "validations": 0}


def ball(seed: int) -> tuple[sitk.Image, sitk.Image]:
    rng = np.random.default_rng(seed)
    center = rng.uniform(8, 12, 3)
    mask = sum((axis - c) ** 2 for axis, c in zip(np.indices((20, 22, 24)), center, strict=True)) < 25
    scan = (100 * mask + rng.normal(0, 10, mask.shape)).astype(np.float32)
    return sitk.GetImageFromArray(scan), sitk.GetImageFromArray(mask.astype(np.uint8))


def train(folder: Path, iterations: int, **options) -> str:
    with Project.open(folder) as project:
        run = prepare_run(
            project, TrainingOptions(iterations=iterations, device="cpu", overrides=dict(TINY), **options)
        )
    return run_training(folder, run.id).model_id


@pytest.fixture(scope="module")
def two_models(tmp_path_factory) -> Path:
    """The current model has learned for 2 steps, the one trained on from it for 40; 2 of 6 cases are held out."""
    folder = tmp_path_factory.mktemp("compare") / "project"
    with Project.create(folder, "balls", [Label(3, "ball")], [Channel("image")]) as project:
        for number in range(6):
            image, label = ball(number)
            label *= 3
            project.cases.add(f"case {number}", [image], label=label if number < 5 else None, held_out=number in (3, 4))
    assert train(folder, 2, method="supervised") == "model_0001"
    assert train(folder, 40, method="supervised") == "model_0002"
    return folder


@pytest.fixture
def copy(two_models, tmp_path) -> Path:
    return Path(shutil.copytree(two_models, tmp_path / "copy"))


def test_the_figures_are_those_of_either_model_alone(two_models):
    stages = []
    with Project.open(two_models, read_only=True) as project:
        progress = Progress(lambda event: stages.append((event["stage"], event["fraction"])))
        result = compare_models(
            project,
            "model_0002",
            compute=Compute("cpu"),
            progress=progress,
        )
        alone = {name: evaluate_model(project, name, compute=Compute("cpu")) for name in ("model_0001", "model_0002")}
    assert (result["model"]["model"], result["reference"]["model"]) == ("model_0002", "model_0001")
    for side, name in (("model", "model_0002"), ("reference", "model_0001")):
        assert result[side]["mean"]["dice"] == alone[name]["mean"]["dice"]
        expected = [row["labels"]["3"]["dice"] for row in alone[name]["cases"]]
        assert [row[side] for row in result["cases"]] == expected
    assert [row["name"] for row in result["cases"]] == ["case 3", "case 4"]
    differences = [row["model"] - row["reference"] for row in result["cases"]]
    assert result["test"]["n"] == 2 and result["test"]["median_difference"] == pytest.approx(np.median(differences))
    assert result["labels"]["3"] == result["test"]  # one label: nothing to correct for
    assert "a difference may be chance" in result["words"]
    fractions = [fraction for _, fraction in stages]
    assert {stage for stage, _ in stages} == {"comparing"} and fractions == sorted(fractions) and fractions[-1] == 1


def test_a_case_that_a_model_has_learned_from_does_not_count(copy):
    with Project.open(copy) as project:
        project.cases.set_held_out("case 0", True)
        result = compare_models(project, "model_0002", "model_0001", compute=Compute("cpu"))
        assert [row["name"] for row in result["cases"]] == ["case 3", "case 4"]
        assert result["notes"] == ["Left out, because one of the models has learned from it: case 0."]
        for name in ("case 3", "case 4"):
            project.cases.set_held_out(name, False)
        with pytest.raises(InputError, match="has learned from every case"):
            compare_models(project, "model_0002", compute=Compute("cpu"))
        project.cases.set_held_out("case 0", False)
        with pytest.raises(InputError, match="No held-out case"):
            compare_models(project, "model_0002", compute=Compute("cpu"))
        with pytest.raises(InputError, match="with itself"):
            compare_models(project, "model_0001", compute=Compute("cpu"))


def test_what_the_parents_have_learned_counts_as_well(copy):
    """Learned by the first model, held out before the second one was trained on from it."""
    with Project.open(copy) as project:
        project.cases.set_held_out("case 1", True)
    third = train(copy, 2, method="supervised")
    with Project.open(copy) as project:
        assert project.models.get(third).parent == "model_0001"
        result = compare_models(project, third, compute=Compute("cpu"))
        alone = evaluate_model(project, third, compute=Compute("cpu"))
        run = project.runs.get(project.models.get(third).summary["run"])
    assert "case 1" in result["notes"][0] and "case 1" not in [row["name"] for row in result["cases"]]
    assert [row["name"] for row in alone["cases"]] == ["case 3", "case 4"]
    assert "1 held-out case was left out: the model has learned from it." in alone["notes"]
    assert [case["id"] for case in run.plan["run"]["cases"] if case["held_out"]] == ["case_0004", "case_0005"]


def test_a_model_is_not_evaluated_on_what_it_has_learned_from(copy, capsys):
    """Held out after the training."""
    assert main(["project", "mark", str(copy), "case 3", "case 4", "--held-out", "yes"]) == 0
    assert "Note" not in capsys.readouterr().out
    assert main(["project", "mark", str(copy), "case 0", "case 1", "--held-out", "yes"]) == 0
    text = capsys.readouterr().out
    assert "Note: The current model model_0001 has learned from case 0: an evaluation leaves this case out" in text
    with Project.open(copy) as project:
        result = evaluate_model(project, compute=Compute("cpu"))
        assert [row["name"] for row in result["cases"]] == ["case 3", "case 4"]
        assert result["notes"] == ["2 held-out cases were left out: the model has learned from them."]
        project.cases.set_held_out("case 4", False)
        notes = evaluate_model(project, compute=Compute("cpu"))["notes"]
        assert notes[0] == "Only 1 case was judged: the figures are rough."
        project.cases.set_held_out("case 3", False)
        with pytest.raises(InputError, match="has learned from every case that is held out now") as caught:
            evaluate_model(project, compute=Compute("cpu"))
        assert "--from-scratch" in caught.value.remedy


def test_a_model_from_elsewhere_may_have_learned_from_the_held_out_cases(copy, tmp_path):
    other = tmp_path / "other"
    with Project.open(copy) as project, Project.create(other, "balls", project.labels, project.channels) as second:
        sentence = "whether it has learned from these cases is not known"
        assert not any(sentence in note for note in evaluate_model(project, compute=Compute("cpu"))["notes"])
        image, label = ball(9)
        second.cases.add("case 9", [image], label=label * 3, held_out=True)
        second.models.promote(import_model(second, project.models.get("model_0001").folder)[0].id)
        assert sentence in evaluate_model(second, compute=Compute("cpu"))["notes"][-1]


def test_a_training_is_not_measured_on_what_its_parents_have_learned_from(copy):
    options = TrainingOptions(iterations=2, device="cpu", overrides=dict(TINY), method="supervised")
    with Project.open(copy) as project:
        project.cases.set_held_out("case 0", True)
        warm = prepare_training(project, options)
        fresh = prepare_training(project, replace(options, warm_start=False))
    assert warm.parent == "model_0001" and any("1 held-out case does not measure the model" in n for n in warm.notes)
    held_out = [[case["id"] for case in prepared.cases if case["held_out"]] for prepared in (warm, fresh)]
    assert held_out == [["case_0004", "case_0005"], ["case_0001", "case_0004", "case_0005"]]
    assert not any("does not measure" in note for note in fresh.notes)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0.9], [0.8], "On the only held-out case the mean Dice is 0.900, with the current model 0.800. On so few"),
        ([0.9] * 5, [0.8] * 5, "a difference may be chance"),
        ([0.9, 0.91, 0.92, 0.93, 0.94, 0.95], [0.8] * 6, "p = 0.031). The new model is better beyond chance."),
        ([0.7, 0.71, 0.72, 0.73, 0.74, 0.75], [0.8] * 6, "The new model is worse beyond chance."),
        ([0.9, 0.7, 0.9, 0.7, 0.9, 0.7], [0.8] * 6, "The difference may be chance."),
        ([float("nan")], [0.8], "show none of the labels"),
    ],
)
def test_the_words_promise_no_more_than_the_cases_allow(first, second, expected):
    assert expected in in_words(float(np.mean(first)), float(np.mean(second)), paired_test(first, second))


def test_worker_compares_names_its_methods_and_finishes_a_run_early(copy):
    with WorkerProcess(stderr=subprocess.DEVNULL) as worker:
        methods = {method.name: method for method in worker.call(SayHello(), timeout=60).methods}
        assert set(methods) == {"barl", "dbisl", "supervised"}, "those to compare with are not offered"
        assert methods["barl"].uses_unlabelled and not methods["supervised"].uses_unlabelled
        result = worker.call(CompareModels(str(copy), "model_0002", device="cpu"), timeout=60)
        assert result.test["n"] == 2 and result.words

        options = {"minutes": 10, "device": "cpu", "overrides": TINY}  # should the test die, it ends all the same
        run = worker.call(StartTraining(str(copy), options), timeout=120).run
        events = RunFolder(copy / "runs" / run)

        def steps() -> list[dict]:
            values = [event.get("values", {}) for event in events.events()[0]]
            return [entry for entry in values if "total" in entry]

        wait(lambda: steps())
        assert 0 <= steps()[0]["consistency_weight"] <= 1
        assert worker.call(FinishTraining(str(copy)), timeout=10).run == run
        with Project.open(copy, read_only=True) as project:
            wait(lambda: project.runs.get(run).state == "finished")
            model = project.models.get(project.runs.get(run).model_id)
            assert model.summary["iterations"] > 0 and model.summary["metrics"]["mean_dice"] is not None
            assert not model.is_current


def test_a_paused_run_is_finished_by_going_on_for_a_moment(copy):
    with Project.open(copy) as project:
        run = prepare_run(project, TrainingOptions(minutes=10, device="cpu", overrides=dict(TINY)))
        seen = []

        def stop_soon(event):
            seen.append(event)
            if "total" in event.get("values", {}):
                RunFolder(run.folder).ask_to_stop()

        assert run_training(copy, run.id, on_event=stop_soon).state == "stopped"
        detached.finish(project, run.id)
        wait(lambda: project.runs.get(run.id).state == "finished")
        with pytest.raises(ProjectError, match="finished already"):
            detached.finish(project, run.id)
        steps = [event["values"]["iteration"] for event in seen if "total" in event.get("values", {})]
        assert project.models.get(project.runs.get(run.id).model_id).summary["iterations"] >= steps[-1]


def wait(condition, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)
