# SPDX-License-Identifier: Apache-2.0
"""Intervals of volumes: worked out by hand, and their coverage on drawn cases."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import SimpleITK as sitk
from barl.evaluation.intervals import choose_interval, choose_intervals
from barl.images.geometry import Roi
from barl.inference.predictor import Predictor
from barl.networks.branches import NetworkSpec, build_network
from barl.project.model_card import ModelCard, VolumeInterval
from test_inference_predictor import make_card


def test_nine_cases_give_ninety_percent_by_the_largest_score() -> None:
    # The offset is a twentieth of 10 ml; predicted + offset is n % too small: the scores are log(1 + n / 100).
    pairs = [((10 + 0.5) / (1 + n / 100) - 0.5, 10.0) for n in range(1, 10)]
    found = choose_interval(3, pairs)
    assert found == VolumeInterval(3, pytest.approx(1.09), 0.5, 0.9, 9)
    assert found.around(10.0) == pytest.approx((10.5 / 1.09 - 0.5, 10.5 * 1.09 - 0.5))
    assert found.around(0.0) == pytest.approx((0.0, 0.5 * 1.09 - 0.5))
    # With 19 the second largest is enough: ceil(20 * 0.9) = 18.
    more = [*pairs, *[((10 + 0.5) / (1 + n / 100) - 0.5, 10.0) for n in range(10, 20)]]
    assert choose_interval(3, more).factor == pytest.approx(1.18)


def test_with_few_cases_the_level_is_coarse_and_with_fewer_nothing_is_said() -> None:
    pairs = [(10.0, 11.0), (10.0, 10.0), (10.0, 9.0), (10.0, 10.0)]
    assert choose_interval(1, pairs).level == pytest.approx(0.8)
    assert choose_interval(1, pairs).factor == pytest.approx(exp(abs(log(9.5 / 10.5))))
    assert choose_interval(1, pairs[:3]) is None
    assert choose_interval(1, [(1.0, 0.0)] * 9) is None, "no case shows the label"


def test_rows_of_validations_are_put_together_by_label() -> None:
    rows = [{"case": str(n), "volumes": {"1": [9.0, 10.0], "2": [0.0, 0.0]}} for n in range(5)]
    (found,) = choose_intervals([*rows, {"case": "partial"}])
    assert (found.value, found.cases) == (1, 5)


def test_intervals_cover_as_much_as_they_say() -> None:
    rng, inside, total = np.random.default_rng(0), 0, 0
    for _ in range(300):
        true = rng.lognormal(2, 0.5, 40)
        predicted = true * rng.lognormal(0.1, 0.2, 40)
        interval = choose_interval(1, list(zip(predicted[:15], true[:15], strict=True)))
        for ml, expert in zip(predicted[15:], true[15:], strict=True):
            low, high = interval.around(ml)
            inside, total = inside + (low <= expert <= high), total + 1
    assert 0.89 < inside / total < 0.95  # ceil(16 * 0.9) = 15 of 15: 15 / 16


def test_a_prediction_of_a_whole_scan_has_the_interval_of_the_card() -> None:
    spec = NetworkSpec(1, 3, (4, 8))
    network, card = build_network(spec, seed=3), make_card(spec, (16, 16, 16))
    first, second = card.values
    card = replace(card, volume_intervals=[VolumeInterval(first, 2.0, 0.1, 0.8, 4)])
    assert ModelCard.from_json(card.to_json()).volume_intervals == card.volume_intervals
    assert "volume_intervals" not in replace(card, volume_intervals=[]).to_json()
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    volumes = {volume.value: volume for volume in Predictor(card, network).predict([image]).volumes}
    known = volumes[first]
    assert (known.level, known.cases) == (0.8, 4) and volumes[second].interval_ml is None
    assert known.interval_ml == pytest.approx(card.volume_intervals[0].around(known.ml))
    assert Predictor(card, network, fast=True).predict([image]).volumes[0].interval_ml is None
    roi = Roi.from_bounds_mm([2, 12, 2, 12, 2, 12])
    assert Predictor(card, network).predict([image], roi=roi).volumes[0].interval_ml is None
