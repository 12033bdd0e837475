# SPDX-License-Identifier: Apache-2.0
"""Summaries, paired tests and Holm's correction, by hand-worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from barl.errors import InputError
from barl.evaluation.metrics import segmentation_metrics
from barl.evaluation.statistics import Summary, holm, paired_test, summarize, summarize_cases

NAN = math.nan


def test_undefined_values_are_left_out_and_counted_out():
    assert summarize([1.0, NAN, 3.0]) == Summary(2.0, pytest.approx(math.sqrt(2)), 2)
    assert summarize([4.0]).n == 1
    assert math.isnan(summarize([4.0]).sd)
    assert summarize([NAN]).n == 0
    assert str(summarize([0.8, 0.9])) == "0.850 ± 0.071"
    assert str(summarize([])) == "undefined"
    assert str(summarize([0.5])) == "0.500"


def case(predicted, true):
    """Metrics of labels 1 and 2 on a row of voxels."""
    return segmentation_metrics(
        *(np.array(values, np.uint8).reshape(1, 1, -1) for values in (predicted, true)), (1, 1, 1), [1, 2]
    )


def test_every_case_counts_once_and_true_negatives_do_not_count():
    cases = [
        case([1, 0, 2, 2, 0], [1, 0, 2, 0, 0]),  # Dice 1 and 2/3
        case([1, 1, 0, 0, 0], [0, 1, 0, 0, 0]),  # Dice 2/3, label 2 a true negative
        case([0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),  # nothing to score
    ]
    summary = summarize_cases(cases)
    assert summary["dice"].mean == pytest.approx(((1 + 2 / 3) / 2 + 2 / 3) / 2)
    assert summary["dice"].n == 2
    assert summarize_cases(cases, [2])["dice"] == Summary(pytest.approx(2 / 3), pytest.approx(NAN, nan_ok=True), 1)


def test_wilcoxon_worked_out_by_hand():
    # Five positive differences: of the 32 sign patterns only 1 is as extreme on each side.
    result = paired_test([2, 4, 6, 8, 10], [1, 2, 3, 4, 5])
    assert result.p == pytest.approx(2 / 32)
    assert (result.median_difference, result.n) == (3, 5)
    assert paired_test([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]).p == pytest.approx(2 / 32)


def test_wilcoxon_without_differences_or_pairs():
    assert paired_test([1.0, 2.0], [1.0, 2.0]).p == 1
    assert paired_test([1.0, NAN, 3.0], [NAN, 2.0, 2.0]).n == 1
    assert math.isnan(paired_test([NAN], [1.0]).p)
    with pytest.raises(InputError):
        paired_test([1.0], [1.0, 2.0])


def test_holm_worked_out_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; never smaller than the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02, NAN, 0.03]) == pytest.approx([0.04, NAN, 0.04], nan_ok=True)
    assert holm([]) == []
