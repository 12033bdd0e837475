# SPDX-License-Identifier: Apache-2.0
"""The simulated clinician: corrections and prices by hand, rounds that go on after a kill to the same result."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.benchmark import simulation
from barl.benchmark.clinician import Prices, Scan, Strategy, Work, contour_mm, correct, prices_of
from barl.cli import main
from barl.errors import InputError
from barl.images.geometry import Grid

GRID = Grid((20, 20, 20), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
PRICES = Prices(case=60, look=6, plane=12, mm=0.6, fill=30, click=3)
PLAN = {
    "dataset": "hippocampus",
    "seeds": [0],
    "pool": 3,
    "stride": [12, 12, 12],
    "every": 3,
    "plan": {"iterations": 2, "patch": [12, 12, 12], "widths": [4, 8], "loader_workers": 0},
    "common": {"start": 1, "step": 1, "rounds": 2},
    "strategies": [
        {"name": "slices", "correct": {"kind": "slices", "n": 2}, "choose": "next"},
        {"name": "spread", "correct": {"kind": "spread", "n": 2}, "first": {"kind": "fill"}, "method": "supervised"},
    ],
}


@pytest.fixture
def a_cube() -> Scan:
    """A bright cube of 8 voxels."""
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[6:14, 6:14, 6:14] = 1
    noise = np.random.default_rng(0).normal(0, 5, truth.shape)
    return Scan([(truth * 100 + noise).astype(np.float32)], truth, GRID)


def a_correction(scan, kind, predicted=None, uncertainty=None, **numbers):
    return correct(scan, Strategy(kind, **numbers), PRICES, np.random.default_rng(0), predicted, uncertainty)


def test_a_contour_is_paid_where_it_is_drawn(a_cube):
    plane = a_cube.truth[8]
    assert contour_mm(plane, np.zeros_like(plane), (1, 1)) == 28  # the edge of 8 x 8
    assert contour_mm(plane, plane, (1, 1)) == 0
    assert contour_mm(plane, np.zeros_like(plane), (2, 2)) == 56
    half = plane.copy()
    half[:, 10:] = 0
    assert 8 < contour_mm(plane, half, (1, 1)) < 28
    assert contour_mm(np.zeros_like(plane), plane, (1, 1)) == 28  # erased


def test_a_whole_outline_and_its_price(a_cube):
    done = a_correction(a_cube, "whole")
    np.testing.assert_array_equal(done.labels, a_cube.truth)
    assert done.looked is None and done.uncertainty is None
    # 8 slices, each 28 mm: 60 + 8 * (6 + 12 + 28 * 0.6) s
    assert done.work == Work(1, 8, 512, 8, pytest.approx((60 + 8 * (18 + 16.8)) / 60))


def test_every_third_slice_of_a_prediction(a_cube):
    predicted = np.zeros_like(a_cube.truth)
    predicted[6:14, 6:14, 6:10] = 1
    done = a_correction(a_cube, "slices", predicted, np.zeros(predicted.shape, np.float32), n=3)
    assert np.flatnonzero(done.looked.any(axis=(1, 2))).tolist() == [6, 9, 12, 13]
    np.testing.assert_array_equal(done.labels[9], a_cube.truth[9])
    np.testing.assert_array_equal(done.labels[7], predicted[7])
    assert done.work.planes == 4 and done.work.voxels == 4 * 32


def test_places_and_cubes_are_looked_at_and_no_more(a_cube):
    predicted, uncertainty = a_cube.truth.copy(), np.zeros(a_cube.truth.shape, np.float32)
    predicted[6:8, 6:14, 6:14] = 0
    uncertainty[6:8, 6:14, 6:14] = 0.9
    predicted[13, 13, 13] = 0  # sure and wrong: not seen
    done = a_correction(a_cube, "places", predicted, uncertainty, n=1)
    np.testing.assert_array_equal(done.labels[6:8], a_cube.truth[6:8])
    assert done.labels[13, 13, 13] == 0 and not done.looked[13, 13, 13] and done.looked[6, 6, 6]
    cubes = a_correction(a_cube, "cubes", predicted, uncertainty, n=2, edge=3)
    assert 27 <= cubes.looked.sum() <= 54 and a_cube.truth[cubes.looked].any()


def test_three_planes_are_filled_and_spread(a_cube):
    filled = a_correction(a_cube, "fill", n=1)
    assert filled.work.planes == 3 and filled.uncertainty is not None
    assert 2 * np.sum((filled.labels == 1) & (a_cube.truth == 1)) / (filled.labels.sum() + 512) > 0.9
    np.testing.assert_array_equal(filled.labels[filled.looked], a_cube.truth[filled.looked])
    predicted = np.roll(a_cube.truth, 3, axis=0)
    uncertainty = np.where(predicted != a_cube.truth, 0.9, 0.1).astype(np.float32)
    spread = a_correction(a_cube, "spread", predicted, uncertainty, n=2)
    assert spread.work.planes == 2
    # The first plane is erased (28 mm), the fill was right in the second: 60 + 2 * (6 + 12 + 2 * 3) + 28 * 0.6 + 30 s.
    assert 60 * spread.work.minutes == pytest.approx(154.8)
    assert np.sum(spread.labels != a_cube.truth) < np.sum(predicted != a_cube.truth)


def test_bad_plans_are_refused():
    with pytest.raises(InputError, match="does not correct by"):
        Strategy("guess")
    with pytest.raises(InputError, match="must be 1 or more"):
        Strategy("slices", 0)
    for prices in ({"hour": 1}, {"mm": -1}, {"mm": "1"}):
        with pytest.raises(InputError, match="price"):
            prices_of({"prices": prices})
    with pytest.raises(InputError, match="simulation plan"):
        simulation.simulations_of({"seeds": [0]})
    best = {**PLAN, "common": {**PLAN["common"], "choose": "best"}}
    with pytest.raises(InputError, match="no choice"):
        simulation.simulations_of({**best, "strategies": [{"name": "a", "correct": {"kind": "whole"}}]})
    with pytest.raises(InputError, match="choose by 'guess'"):
        Strategy("regions", rule="guess")
    first = {"name": "a", "correct": {"kind": "whole"}, "first": {"kind": "regions", "rule": "clasp"}}
    with pytest.raises(InputError, match="Without a model"):
        simulation.simulations_of({**PLAN, "strategies": [first]})


@pytest.fixture
def a_small_set(tmp_path, monkeypatch) -> Path:
    """64 tiny subjects in the layout of the hippocampus folder."""
    folder = tmp_path / "data" / "hippocampus"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "stats.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, ["case", "subject_group"])
        rows.writeheader()
        for n in range(64):
            label = np.zeros((12, 12, 12), np.uint8)
            label[2:6, 3:9, 3:9] = 1
            label[6:10, 3:9, 3:9] = 2
            scan = (label * 50 + rng.normal(100, 10, label.shape)).astype(np.float32)
            for kind, array in (("images", scan), ("labels", label)):
                sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / kind / f"case_{n:03d}.nii.gz"))
            rows.writerow({"case": f"case_{n:03d}", "subject_group": n})
    monkeypatch.setenv("BARL_DATA", str(tmp_path / "data"))
    return tmp_path


def test_a_simulation_goes_on_after_a_kill_to_the_same_result(a_small_set, capsys):
    plan, whole, killed = a_small_set / "plan.json", a_small_set / "whole", a_small_set / "killed"
    plan.write_text(json.dumps(PLAN))
    assert main(["simulate", str(plan), str(whole), "--device", "cpu"]) == 0
    assert "| slices | 1 | 2 |" in capsys.readouterr().out
    # What is tested, every third of 40; no case of the training part.
    assert len(list((whole / "cache").iterdir())) == 14
    too_many = {**PLAN, "common": {**PLAN["common"], "start": 3}}
    with pytest.raises(InputError, match="needs 4 outlined cases, hippocampus has 3"):
        simulation.simulate(simulation.simulations_of(too_many), killed, "cpu")
    assert (whole / "curve.png").stat().st_size > 1000 and "Dice" in (whole / "report.md").read_text("utf-8")
    _, second = simulation.simulations_of(PLAN)

    def stop(line):
        if " cases" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulation.simulate([second], killed, "cpu", stop)
    assert len(json.loads((killed / second.file_name).read_text())["rounds"]) == 1
    simulation.simulate([second], killed, "cpu", lambda line: None)
    results = [json.loads((folder / second.file_name).read_text())["rounds"] for folder in (whole, killed)]
    assert [one["dice"] for one in results[0]] == [one["dice"] for one in results[1]]
    assert [one["work"] for one in results[0]] == [one["work"] for one in results[1]]
    assert all(np.mean([*one["cases"].values()]) == pytest.approx(one["dice"]) for one in results[0])
    assert len(results[0][0]["cases"]) == 14
    assert not (killed / "running" / second.file_name.removesuffix(".json")).exists()


def test_strategies_share_the_training_on_the_same_outlines(a_small_set):
    rows = [{"name": name, "correct": {"kind": kind, "n": 2}} for name, kind in (("a", "whole"), ("b", "slices"))]
    plan, results = {**PLAN, "strategies": rows}, a_small_set / "results"
    simulations = simulation.simulations_of(plan)
    simulation.simulate(simulations, results, "cpu", lambda line: None)
    a, b = (json.loads((results / one.file_name).read_text())["rounds"] for one in simulations)
    # The seconds are those of one training, to the last digit; then the outlines differ.
    assert a[0] == b[0] and a[1]["train_seconds"] != b[1]["train_seconds"]
    assert len(list((results / "shared").iterdir())) == 3
    alone = a_small_set / "alone"
    simulation.simulate(simulations[1:], alone, "cpu", lambda line: None)
    again = json.loads((alone / simulations[1].file_name).read_text())["rounds"]
    assert [one["cases"] for one in again] == [one["cases"] for one in b]
    assert again[0]["train_seconds"] != b[0]["train_seconds"]
