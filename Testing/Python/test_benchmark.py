# SPDX-License-Identifier: Apache-2.0
"""The benchmark: splits that leak nothing, runs that survive a kill, tables that say what was measured."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import barl
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl import methods
from barl.benchmark import datasets
from barl.benchmark.field_sets import FIELD_SETS
from barl.benchmark.harness import runs_of, work
from barl.benchmark.plans import named_plans, read_plan, sources_of
from barl.benchmark.plots import draw
from barl.benchmark.tables import differences, mean_ranks, read_results, run_score, subjects_csv, table, tables
from barl.cli import main
from barl.errors import InputError
from barl.images.fingerprint import fingerprint_case
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barl.training import loop as train_module
from barl.training.plan import make_plan

DOCS = Path(__file__).resolve().parents[2] / "docs"
PLAN = {
    "seeds": [0],
    "runs": [{"dataset": "hippocampus", "labelled": [2], "arms": ["supervised", "BARL"]}],
    "arms": {"supervised": {"method": "supervised"}, "BARL": {"method": "barl"}},
    "plans": {"hippocampus": {"iterations": 3, "patch": [12, 12, 12], "widths": [4, 8], "loader_workers": 0}},
    "tables": [{"dataset": "hippocampus", "labelled": [2], "baseline": "supervised", "arms": ["supervised", "BARL"]}],
}


@pytest.fixture
def small_data(tmp_path, monkeypatch) -> Path:
    """64 tiny subjects in the layout of the hippocampus folder; subject 1 has two scans."""
    folder = tmp_path / "data" / "hippocampus"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    with (folder / "stats.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, ["case", "subject_group"])
        rows.writeheader()
        for n in range(65):
            label = np.zeros((12, 12, 12), np.uint8)
            label[2:6, 3:9, 3:9] = 1
            label[6:10, 3:9, 3:9] = 2
            scan = (label * 50 + rng.normal(100, 10, label.shape)).astype(np.float32)
            for kind, array in (("images", scan), ("labels", label)):
                sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / kind / f"case_{n:03d}.nii.gz"))
            rows.writerow({"case": f"case_{n:03d}", "subject_group": max(n, 1)})
    monkeypatch.setenv("BARL_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def small_project(tmp_path) -> dict:
    """A plan on a project of 6 tiny outlined scans, 2 of them held out: its runs take a second."""
    rng = np.random.default_rng(0)
    with Project.create(tmp_path / "study", "study", [Label(1, "Box")], [Channel("T1")]) as project:
        for n in range(6):
            label = np.zeros((12, 12, 12), np.uint8)
            label[3:8, 3:8, 3:8] = 1
            scan = (label * 50 + rng.normal(100, 10, label.shape)).astype(np.float32)
            images = [sitk.GetImageFromArray(array) for array in (scan, label)]
            project.cases.add(f"scan {n}", images[:1], label=images[1], held_out=n < 2)
    return {
        "seeds": [0],
        "datasets": {"boxes": {"reader": "project", "folder": str(tmp_path / "study")}},
        "runs": [{"dataset": "boxes", "labelled": [2], "arms": ["supervised", "mean_teacher"]}],
        "plans": {"boxes": {"iterations": 3, "patch": [8, 8, 8], "widths": [4, 8], "loader_workers": 0}},
    }


def carry_out(plan: dict, results: Path, tell=lambda line: None) -> None:
    work(runs_of(plan), results, "cpu", tell, sources_of(plan))


def test_no_subject_is_on_two_sides_of_the_split(small_data):
    data = datasets.load("hippocampus")
    parts = {name: {case.group for case in data.part(name)} for name in ("test", "tuning", "training")}
    assert [len(part) for part in parts.values()] == [40, 20, 4]
    assert not parts["test"] & parts["training"]
    assert not parts["tuning"] & (parts["training"] | parts["test"])
    few, more = ({f.id for f in data.training_files(n, seed=1) if f.label} for n in (1, 3))
    assert few < more
    assert all(f.label for f in data.training_files(None, seed=1))


def test_a_plan_is_carried_out_once_and_tabulated(small_project, tmp_path):
    results, said, again = tmp_path / "results", [], []
    carry_out(small_project, results, said.append)
    rows = read_results(results)
    assert sorted(row["arm"] for row in rows) == ["mean_teacher", "supervised"]
    assert all(len(row["cases"]) == 2 and row["iterations"] == 3 for row in rows)
    assert all(0 <= run_score(row) <= 1 for row in rows)
    carry_out(small_project, results, again.append)
    assert said
    assert not again
    (tmp_path / "plan.json").write_text(json.dumps(small_project))
    text = tables(results, read_plan(tmp_path / "plan.json"))
    assert "boxes, 2 outlined subjects" in text
    assert "points" in text
    assert "Measured on:" in text


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(barl.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def test_two_processes_share_the_runs_and_a_loss_of_power_costs_those_under_way(small_project, tmp_path):
    results, plan = tmp_path / "results", tmp_path / "plan.json"
    slow = {**small_project, "plans": {"boxes": {**small_project["plans"]["boxes"], "iterations": 1_000_000}}}
    plan.write_text(json.dumps(slow))
    command = [sys.executable, "-m", "barl.cli", "benchmark", str(plan), str(results), "--device", "cpu"]
    command += ["--processes", "2"]
    with subprocess.Popen(command, env=environment(), start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 300
            while len(list(results.glob("running/*/plan.json"))) < 2 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert len(list(results.glob("running/*/plan.json"))) == 2
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert not list(results.glob("*.json"))
    # Another plan for the same names: what was begun under the first one is not gone on with.
    deadline = time.monotonic() + 60
    while len(list(results.glob("*.json"))) < 2 and time.monotonic() < deadline:  # the killed ones take a moment to die
        carry_out(small_project, results)
    assert {row["iterations"] for row in read_results(results)} == {3}
    assert len(read_results(results)) == 2
    assert not list(results.glob("*.claim")) and not list(results.glob("running/*"))


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_result(small_project, tmp_path, monkeypatch):
    one = {**small_project, "runs": [{"dataset": "boxes", "labelled": [2], "arms": ["mean_teacher"]}]}
    one["plans"] = {"boxes": {**small_project["plans"]["boxes"], "iterations": 80}}
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(one))
    script = "import sys, barl.training.loop as t; t.CHECKPOINT_SECONDS = 0; from barl.benchmark.__main__ import main"
    command = [sys.executable, "-c", f"{script}; main()", str(plan), str(tmp_path / "killed"), "--device", "cpu"]
    checkpoint = tmp_path / "killed" / "running" / "boxes_mean-teacher_2_0" / "checkpoint.safetensors"
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert checkpoint.exists()
    done = []
    real = train_module.TrainingRun.step
    monkeypatch.setattr(train_module.TrainingRun, "step", lambda run, batch: (done.append(1), real(run, batch))[1])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process before: sums in another order are other numbers
    try:
        carry_out(one, tmp_path / "killed")
        assert 0 < len(done) < 80
        carry_out(one, tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    (killed,), (whole,) = read_results(tmp_path / "killed"), read_results(tmp_path / "whole")
    assert killed["cases"] == whole["cases"]
    assert killed["iterations"] == whole["iterations"] == 80


def test_a_failing_run_does_not_keep_the_others_waiting_and_rows_say_what_a_run_took(small_project, tmp_path):
    bad = {**small_project, "arms": {"supervised": {"method": "supervised", "plan": {"patch": [9, 9, 9]}}}}
    said = []
    with pytest.raises(InputError, match="cannot be halved"):
        carry_out(bad, tmp_path / "results", said.append)
    assert any("failed" in line for line in said)
    (row,) = read_results(tmp_path / "results")
    assert row["arm"] == row["method"] == "mean_teacher"
    assert row["peak_memory_mib"] > 50 and row["weights"] > 1000
    assert row["curve"][-1]["iteration"] == 3 and "consistency" in row["curve"][-1]
    assert row["unit"] == "mm" and row["device"] == "cpu"
    assert 0 < row["train_seconds"] <= row["seconds"]


def rows_of(shifts: dict[str, float], seeds=(0, 1), labelled: int = 4) -> list[dict]:
    """Runs on 12 subjects whose Dice differs by a shift per arm, and a little by chance."""
    rows = []
    for number, (arm, shift) in enumerate(shifts.items()):
        for seed in seeds:
            rng = np.random.default_rng([number, seed])
            cases = []
            for n in range(12):
                scores = {"1": {"dice": 0.5 + 0.01 * n + shift + rng.normal(0, 0.002), "hd95_mm": 2.0}}
                cases.append({"case": f"c{n}", "group": f"g{n}", "mean": scores, "first": scores})
            curve = [{"iteration": t, "total": 1 / t, "supervised": (1 - shift) / t} for t in range(1, 50, 4)]
            what = {"dataset": "balls", "arm": arm, "seed": seed, "labelled": labelled, "curve": curve}
            facts = {"machine": "here", "device": "cpu", "train_seconds": 5.0, "iterations": 50}
            rows.append({**what, **facts, "cases": cases, "weights": 10_000, "peak_memory_mib": 500.0, "unit": "mm"})
    return rows


def test_the_table_ranks_and_tests_against_the_best_other_method():
    shifts = {"supervised": 0.0, "A": 0.03, "B": 0.05}
    bound = [{**row, "labelled": None} for row in rows_of({"bound": 0.2})]
    text = table([*rows_of(shifts), *bound], ["supervised", "A", "B", "bound"], "supervised", labelled=4)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()}
    assert lines["B"].endswith("| 1.00 |") and lines["A"].endswith("| 2.00 |")
    assert lines["supervised"].endswith("| 3.00 |")
    assert "points (A)" in lines["B"] and "points (B)" in lines["A"] and "points (B)" in lines["supervised"]
    assert "+2" in lines["B"].split("(A)")[0].split(" | ")[-1] and lines["B"].count("| 0.001 |") == 2
    assert lines["bound"].endswith("|  |")  # trained on all outlines: compared with the baseline, nobody's rival
    assert "+20" in lines["bound"]


def test_seeds_that_only_one_arm_has_are_not_compared():
    rows = [*rows_of({"A": 0.0}, seeds=(0, 1)), *rows_of({"B": 0.3}, seeds=(2,))]
    assert differences(rows, "B", "A").size == 0
    assert mean_ranks(rows, ["A", "B"]) == {}


def test_the_test_can_be_done_again_from_the_published_dice_of_each_subject():
    rows = rows_of({"A": 0.0, "B": 0.001})
    bound = [{**row, "labelled": None} for row in rows_of({"bound": 0.2}, seeds=(0,))]
    missing = bound[0]["cases"][0] = {**bound[0]["cases"][0], "mean": {"1": {"dice": float("nan")}}}
    lines = list(csv.DictReader(io.StringIO(subjects_csv([*bound, *rows]))))
    assert len(lines) == 5 * 12
    assert [line["outlined"] for line in lines[::12]] == ["4", "4", "4", "4", "all"]
    assert next(line for line in lines if line["method"] == "bound")["dice"] == "" and missing["group"] == "g0"
    dice = {arm: np.array([float(line["dice"]) for line in lines if line["method"] == arm]) for arm in "AB"}
    again = (dice["B"] - dice["A"]).reshape(2, 12).mean(axis=0)  # seed by seed, then their mean for each subject
    groups = sorted(f"g{n}" for n in range(12))
    published = dict(zip([f"g{n}" for n in range(12)], differences(rows, "B", "A"), strict=True))
    assert again == pytest.approx([published[group] for group in groups], abs=2e-6)


def test_figures_are_drawn(tmp_path):
    shifts = {"supervised": 0.0, "A": 0.03, "B": 0.05, "C": -0.02}
    for labelled in (2, 4):
        for row in rows_of(shifts, labelled=labelled):
            (tmp_path / f"{row['arm']}_{labelled}_{row['seed']}.json").write_text(json.dumps(row))
    plan = {"tables": [{"dataset": "balls", "labelled": [2, 4], "baseline": "supervised", "arms": list(shifts)}]}
    files = draw(tmp_path, plan, tmp_path / "report")
    names = sorted(path.name for path in files)
    counts = ["curves_balls_2.png", "curves_balls_4.png"]
    assert names == sorted([*counts, "dice_balls.png", "differences_balls_2.png", "differences_balls_4.png"])
    for path in files:
        pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        assert pixels.shape[1] > 500 and len(np.unique(pixels)) > 20
    text = tables(tmp_path, plan)
    assert "### Mean rank over all tables" in text
    assert "| B | 1.00 |" in text
    assert "### Cost" in text and "| balls | A | 0.01 | 100 | 500 | cpu |" in text


def test_a_report_of_runs_without_a_common_seed_has_no_figure_of_differences(tmp_path):
    for row in [*rows_of({"supervised": 0.0}, seeds=(0,)), *rows_of({"A": 0.03}, seeds=(1,))]:
        (tmp_path / f"{row['arm']}.json").write_text(json.dumps(row))
    block = {"dataset": "balls", "labelled": [4], "baseline": "supervised", "arms": ["supervised", "A"]}
    files = draw(tmp_path, {"tables": [block]}, tmp_path / "report")
    assert [path.name for path in files] == ["curves_balls_4.png"]
    assert "| A | 1 |" in tables(tmp_path, {"tables": [block]})


@cache
def a_fingerprint(spacing):
    image = sitk.Image(120, 120, 120, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    return fingerprint_case([image], None, [1])


def test_every_plan_that_comes_along_can_be_carried_out():
    for name in named_plans():
        plan = read_plan(name)
        for run in runs_of(plan):
            labels = [Label(value, text) for value, text in FIELD_SETS[run.dataset].labels.items()]
            overrides = {**run.plan, "method": run.method, "settings": run.settings}
            made = make_plan([a_fingerprint(FIELD_SETS[run.dataset].spacing)], labels, ["MR"], overrides=overrides)
            assert made.patch == tuple(run.plan["patch"])
        assert all(block["baseline"] in block["arms"] for block in plan["tables"])
    assert {"la2018", "la2018_half", "pancreas_ct", "brats2019", "acdc"} <= set(named_plans())


@pytest.mark.parametrize("file", sorted(DOCS.glob("benchmark-plan*.json")), ids=lambda file: file.stem)
def test_the_plans_of_the_documentation_name_methods_that_exist(file):
    plan = read_plan(file)
    for run in runs_of(plan):
        methods.get(run.method)(run.settings)
    known = {run.arm for run in runs_of(plan)}
    assert all(set(block["arms"]) <= known for block in plan.get("tables", []))


def test_plans_and_folders_that_cannot_be_are_one_sentence(tmp_path, capsys):
    assert main(["benchmark", "no-such-plan", str(tmp_path)]) == 2
    assert "la2018" in capsys.readouterr().err
    (tmp_path / "plan.json").write_text("{}")
    assert main(["benchmark", str(tmp_path / "plan.json"), str(tmp_path)]) == 2
    assert "is not as docs/benchmark-plan.json is" in capsys.readouterr().err
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    plan = [str(tmp_path / "plan.json"), str(tmp_path / "r")]
    assert main(["benchmark", *plan, "--report"]) == 2
    assert "holds no result" in capsys.readouterr().err
    assert main(["benchmark", *plan, "--data", "liver=/x"]) == 2
    assert "has no data set 'liver'" in capsys.readouterr().err
    assert main(["benchmark", *plan, "--data", "hippocampus=/nowhere"]) == 2
    assert "is not in the folder /nowhere" in capsys.readouterr().err


def test_missing_data_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("BARL_DATA", raising=False)
    with pytest.raises(InputError, match="BARL_DATA is not set"):
        datasets.load("hippocampus")
    monkeypatch.setenv("BARL_DATA", str(tmp_path))
    with pytest.raises(InputError, match="not in the folder"):
        datasets.load("bonbid_hie")
    with pytest.raises(InputError, match="no data set 'liver'"):
        datasets.load("liver")
