# SPDX-License-Identifier: Apache-2.0
"""Calibration and risk-coverage: hand-worked examples and recovery of a known temperature."""

from __future__ import annotations

import numpy as np
import pytest
from barl.errors import InputError
from barl.evaluation.calibration import (
    apply_temperature,
    area_under_risk_coverage,
    expected_calibration_error,
    fit_temperature,
    reliability_curve,
    risk_coverage_curve,
)


def drawn(temperature, n=40_000, classes=3):
    """Probabilities that are over-confident by ``temperature`` and classes drawn from the honest ones."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(n, classes)) * 1.5
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (rng.random(n)[:, None] > honest.cumsum(1)).sum(1)
    return apply_temperature(honest, 1 / temperature), np.minimum(truth, classes - 1), honest


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_known_temperature_is_found_and_calibrates(temperature):
    predicted, truth, honest = drawn(temperature)
    found = fit_temperature(predicted, truth)
    assert found == pytest.approx(temperature, rel=0.03)
    repaired = apply_temperature(predicted, found)
    np.testing.assert_allclose(repaired, honest, atol=0.02)
    correct = predicted.argmax(1) == truth
    before, after = (expected_calibration_error(p.max(1), correct) for p in (predicted, repaired))
    assert after < 0.015
    if temperature != 1:
        assert before > 5 * after


def test_temperature_keeps_the_decision_and_the_type():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]], np.float32)
    softer = apply_temperature(probabilities, 4.0)
    assert softer.dtype == np.float32
    np.testing.assert_allclose(softer.sum(1), 1, rtol=1e-6)
    assert (softer.argmax(1) == probabilities.argmax(1)).all()
    assert softer[0, 0] < 0.7
    np.testing.assert_array_equal(apply_temperature(probabilities, 1.0), probabilities)
    channels_first = apply_temperature(probabilities.T, 4.0, axis=0)
    np.testing.assert_allclose(channels_first, softer.T)
    assert np.isfinite(apply_temperature(np.full((2, 500), 1 / 500, np.float32), 0.05)).all()


def test_temperature_of_extreme_predictions_is_bounded():
    sure = np.array([[1.0, 0.0], [0.0, 1.0]] * 10)
    right = np.array([0, 1] * 10)
    assert fit_temperature(sure * 0.2 + 0.4, right) == pytest.approx(0.05, rel=0.05)
    assert fit_temperature(sure, 1 - right) == pytest.approx(20, rel=0.05)
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, int)) == 1


def test_reliability_and_error_worked_out_by_hand():
    confidence = np.array([0.1, 0.3, 0.6, 0.9, 1.0])
    correct = np.array([0, 1, 1, 1, 0])
    curve = reliability_curve(confidence, correct, bins=2)
    np.testing.assert_array_equal(curve.count, [2, 3])
    np.testing.assert_allclose(curve.confidence, [0.2, 2.5 / 3])
    np.testing.assert_allclose(curve.accuracy, [0.5, 2 / 3])
    expected = 2 / 5 * 0.3 + 3 / 5 * (2.5 / 3 - 2 / 3)
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(expected)
    assert np.isnan(reliability_curve(confidence[:2], correct[:2], bins=2).accuracy[1])
    assert expected_calibration_error(confidence[:2], correct[:2], bins=2) == pytest.approx(0.3)
    assert np.isnan(expected_calibration_error([], []))


def test_risk_coverage_worked_out_by_hand():
    coverage, risk = risk_coverage_curve([0.9, 0.2, 0.8, 0.5], [1, 0, 0, 1])
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert area_under_risk_coverage([0.9, 0.2, 0.8, 0.5], [1, 0, 0, 1]) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert np.isnan(area_under_risk_coverage([], []))


def test_confidence_that_says_nothing_gives_the_error_rate():
    rng = np.random.default_rng(0)
    correct = rng.random(100) < 0.7
    area = area_under_risk_coverage(np.ones(100), correct)
    assert area == pytest.approx(1 - correct.mean())
    assert area == area_under_risk_coverage(np.ones(100), rng.permutation(correct))
    assert area_under_risk_coverage(correct, correct) < area < area_under_risk_coverage(~correct, correct)


def test_any_scale_of_confidence_and_partial_correctness_are_allowed():
    case_dice, uncertainty = np.array([0.9, 0.5, 0.7]), np.array([1.0, 30.0, 2.0])
    assert area_under_risk_coverage(-uncertainty, case_dice) == pytest.approx((0.1 + 0.2 + 0.3) / 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: expected_calibration_error([0.5], [1, 0]),
        lambda: expected_calibration_error([3.2], [1]),
        lambda: expected_calibration_error([np.nan], [1]),
        lambda: fit_temperature(np.ones((3, 2)) / 2, np.zeros(2, int)),
    ],
)
def test_bad_input_is_refused_with_a_remedy(call):
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.remedy
