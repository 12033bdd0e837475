# SPDX-License-Identifier: Apache-2.0
"""The Dice to expect without an outline: the fit, the branches' agreement, and where the figure is shown."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl.cli import main
from barl.evaluation.expected_dice import calibrate, mean_over_labels
from barl.evaluation.metrics import dice
from barl.inference.maps import ModelMaps
from barl.inference.predictor import Predictor
from barl.inference.sliding_window import Slab, predict_array
from barl.models.disk import save_model
from barl.networks.branches import Members, NetworkSpec, build_network
from barl.project.labels import Channel, Label
from barl.project.model_card import DiceCalibration, read_card
from barl.project.store import Project
from barl.training.validation import choose_calibration
from test_inference_predictor import VALUES, make_card, simulate


def test_too_few_cases_say_nothing():
    assert calibrate([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]) is None
    assert calibrate([0.9, 0.8, 0.7, float("nan")], [0.8, 0.7, 0.6, 0.5]) is None
    assert choose_calibration([{"dice": {"1": 0.5}}] * 9) is None  # one branch


def test_few_cases_shift_the_agreement():
    found = calibrate([0.9, 0.8, 0.7, 0.6], [0.8, 0.7, 0.6, 0.5])
    assert (found.slope, found.cases) == (1.0, 4)
    assert found.intercept == pytest.approx(-0.1) and found.error == pytest.approx(0)
    assert found.expected(0.75) == pytest.approx(0.65)
    assert found.expected(0.05) == 0


def test_ten_cases_fit_a_line_that_never_falls():
    agreement = np.linspace(0.5, 0.95, 10)
    found = calibrate(agreement, 2 * agreement - 1)
    assert found.slope == pytest.approx(2) and found.intercept == pytest.approx(-1)
    assert found.expected(1.2) == 1
    falling = calibrate(agreement, 1 - agreement)
    assert falling.slope == 0 and falling.expected(0.9) == pytest.approx(np.mean(1 - agreement))
    assert calibrate([0.7] * 10, agreement).slope == 0


def test_the_error_is_that_of_cases_left_out():
    found = calibrate([0.5] * 4, [0.6, 0.4, 0.6, 0.4])
    # Without one of the upper two the others' mean is 7/15.
    assert found.error == pytest.approx(0.6 - 7 / 15)


def test_undefined_labels_are_left_out():
    assert mean_over_labels({"1": 0.5, "2": None, "3": float("nan")}) == 0.5
    assert np.isnan(mean_over_labels({}))


def test_branches_of_one_network_are_compared_and_no_others():
    """Four branches of two networks: 2 of 3 voxels shared in the first pair, all in the second."""
    labels = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 2, 2], [0, 0, 2, 2]])
    logits = torch.nn.functional.one_hot(labels, 3).float().movedim(-1, 1)[:, :, None, None] * 20
    relative = logits[:, 1:] - logits[:, :1]
    maps = ModelMaps((1, 1, 4), 3, 4, per_network=2)
    maps.add(Slab(0, relative), (slice(0, 1), slice(0, 1), slice(0, 4)))
    assert maps.agreement() == [pytest.approx(4 / 5), 1.0]
    assert maps.branch_voxels.tolist() == [[2, 0], [3, 0], [0, 2], [0, 2]]
    alone = ModelMaps((1, 1, 4), 3, 1)
    alone.add(Slab(0, relative[:1]), (slice(0, 1), slice(0, 1), slice(0, 4)))
    assert alone.agreement() == [None, None]


def test_a_prediction_expects_what_the_card_says(tmp_path):
    spec = NetworkSpec(1, 3, (4, 8))
    network = build_network(spec, seed=3)
    known = DiceCalibration(-0.1, 1.0, 0.05, 6)
    save_model(tmp_path / "model", replace(make_card(spec, (16, 16, 16)), expected_dice=known), network.state_dict())
    assert read_card(tmp_path / "model").expected_dice == known
    predictor = Predictor.load(tmp_path / "model", device="cpu")
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    found = predictor.predict([image])
    array = sitk.GetArrayFromImage(image)[None]
    first, second = predict_array(network, (array - array.mean()) / array.std(), (16, 16, 16)).argmax(1)
    agreement = {value: dice(first, second, n) for n, value in enumerate(VALUES, start=1)}
    assert found.agreement == {value: pytest.approx(score, abs=0.01) for value, score in agreement.items()}
    assert found.expected_dice == pytest.approx(known.expected(np.mean(list(found.agreement.values()))))
    assert found.details()["expected_dice"] == found.expected_dice
    assert Predictor(predictor.card, network, fast=True).predict([image]).expected_dice is None
    twice = Predictor(predictor.card, Members([network, build_network(spec, seed=3)])).predict([image])
    assert twice.agreement == found.agreement, "each network is compared with itself"


def test_the_list_of_cases_shows_it(tmp_path, capsys):
    image, label = simulate((12, 12, 12))
    label_map = sitk.GetImageFromArray((label > 0).astype(np.uint8))
    with Project.create(tmp_path / "study", "study", [Label(1, "blob")], [Channel("T1")]) as project:
        for name, expected in (("a", 0.81), ("b", None), ("c", 0.5)):
            case = project.cases.add(name, [image])
            project.revisions.store(case.id, label_map, "prediction", author="x", details={"expected_dice": 0.1})
            project.revisions.store(case.id, label_map, "prediction", author="x", details={"expected_dice": expected})
        project.revisions.store("c", label_map, "accepted", author="x")
    assert main(["project", "cases", str(tmp_path / "study"), "--json"]) == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert {case["name"]: case["expected_dice"] for case in cases} == {"a": 0.81, "b": None, "c": None}
    assert main(["project", "cases", str(tmp_path / "study")]) == 0
    assert "expected Dice" in capsys.readouterr().out
