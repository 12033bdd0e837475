# SPDX-License-Identifier: Apache-2.0
"""The benchmark: splits that leak nothing, runs that survive a kill, tables that say what was measured."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import barl
import numpy as np
import pytest
import SimpleITK as sitk
from barl.benchmark import datasets
from barl.benchmark.harness import runs_of, work
from barl.benchmark.tables import read_results, run_score, table, tables
from barl.errors import InputError

PLAN = {
    "seeds": [0],
    "runs": [{"dataset": "hippocampus", "labelled": [2], "arms": ["supervised", "BARL"]}],
    "arms": {"supervised": {"method": "supervised"}, "BARL": {"method": "barl"}},
    "plans": {"hippocampus": {"iterations": 3, "patch": [16, 16, 16], "widths": [4, 8], "loader_workers": 0}},
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
            label = np.zeros((18, 18, 18), np.uint8)
            label[4:9, 4:12, 4:12] = 1
            label[9:14, 4:12, 4:12] = 2
            scan = (label * 50 + rng.normal(100, 10, label.shape)).astype(np.float32)
            for kind, array in (("images", scan), ("labels", label)):
                sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / kind / f"case_{n:03d}.nii.gz"))
            rows.writerow({"case": f"case_{n:03d}", "subject_group": max(n, 1)})
    monkeypatch.setenv("BARL_DATA", str(tmp_path / "data"))
    return tmp_path


def test_no_subject_is_on_two_sides_of_the_split(small_data):
    data = datasets.load("hippocampus")
    parts = {name: {case.group for case in data.part(name)} for name in ("test", "tuning", "training")}
    assert [len(part) for part in parts.values()] == [40, 20, 4]
    assert not parts["test"] & parts["training"]
    assert not parts["tuning"] & (parts["training"] | parts["test"])
    few, more = ({f.id for f in data.training_files(n, seed=1) if f.label} for n in (1, 3))
    assert few < more
    assert all(f.label for f in data.training_files(None, seed=1))


def test_a_plan_is_carried_out_once_and_tabulated(small_data):
    results, said = small_data / "results", []
    work(runs_of(PLAN), results, "cpu", said.append)
    rows = read_results(results)
    assert sorted(row["arm"] for row in rows) == ["BARL", "supervised"]
    assert all(len(row["cases"]) >= 40 and row["iterations"] == 3 for row in rows)
    assert all(0 <= run_score(row) <= 1 for row in rows)
    again = []
    work(runs_of(PLAN), results, "cpu", again.append)
    assert said
    assert not again
    text = tables(results, PLAN)
    assert "hippocampus, 2 outlined subjects" in text
    assert "points" in text
    assert "Measured on:" in text


def test_a_killed_run_costs_itself_alone(small_data):
    results = small_data / "results"
    plan = small_data / "plan.json"
    slow = {**PLAN, "plans": {"hippocampus": {**PLAN["plans"]["hippocampus"], "iterations": 100_000}}}
    plan.write_text(json.dumps(slow))
    environment = {**os.environ, "PYTHONPATH": str(Path(barl.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "barl.benchmark", str(plan), str(results), "--device", "cpu"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list(results.glob("*.claim")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(results.glob("*.claim"))
        process.send_signal(signal.SIGKILL)
    assert not list(results.glob("*.json"))
    work(runs_of(PLAN), results, "cpu", lambda line: None)
    assert len(list(results.glob("*.json"))) == 2
    assert not list(results.glob("*.claim"))


def test_the_table_tests_pairs_of_subjects():
    def row(arm: str, shift: float) -> dict:
        scores = [{"case": f"c{n}", "group": f"g{n}"} for n in range(12)]
        for n, case in enumerate(scores):
            metrics = {"1": {"dice": 0.5 + 0.01 * n + shift, "hd95_mm": 2.0}}
            case.update(mean=metrics, first=metrics)
        return {"arm": arm, "seed": 0, "cases": scores}

    text = table([row("supervised", 0.0), row("BARL", 0.05)], ["supervised", "BARL"], "supervised")
    line = next(line for line in text.splitlines() if line.startswith("| BARL"))
    assert "+5.00 points" in line
    assert "< 0.001" in line


def test_missing_data_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("BARL_DATA", raising=False)
    with pytest.raises(InputError, match="BARL_DATA is not set"):
        datasets.load("hippocampus")
    monkeypatch.setenv("BARL_DATA", str(tmp_path))
    with pytest.raises(InputError, match="not in the folder"):
        datasets.load("bonbid_hie")
    with pytest.raises(InputError, match="no data set 'liver'"):
        datasets.load("liver")
