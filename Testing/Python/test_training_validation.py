# SPDX-License-Identifier: Apache-2.0
"""What the held-out cases measure: each voxel that counts, and no more memory than a slab of probabilities."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from barl.images.geometry import Grid
from barl.training.validation import validate

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


class Intensities(torch.nn.Module):
    """Two branches that read the class off the intensity, one of them less surely."""

    n_branches = 2

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes

    def logits(self, x: torch.Tensor, branches: list[int]) -> list[torch.Tensor]:
        away = torch.stack([-(x[:, 0] - c).abs() for c in range(self.n_classes)], dim=1)
        return [(6.0 if branch == 0 else 4.0) * away for branch in branches]


def a_case(truth: np.ndarray, noise: float = 0.0, seed: int = 0) -> SimpleNamespace:
    image = (truth + noise * np.random.default_rng(seed).standard_normal(truth.shape)).astype(np.float32)
    grid = Grid(truth.shape[::-1], (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), IDENTITY)
    facts = {"id": "case", "held_out": True, "labelled": True, "is_partial": False}
    return SimpleNamespace(image=image[None], classes=truth.astype(np.uint8), grid=grid, **facts)


def a_scan(size: int, n_classes: int = 3) -> np.ndarray:
    truth = np.zeros((size,) * 3, np.uint8)
    middle = size // 2
    truth[middle - 5 : middle + 5, middle - 5 : middle + 5, middle - 5 : middle] = 1
    truth[middle - 5 : middle + 5, middle - 5 : middle + 5, middle : middle + 5] = n_classes - 1
    return truth


def judge(cases: list[SimpleNamespace], values: list[int]) -> object:
    plan = SimpleNamespace(patch=(16, 16, 16), values=values)
    return validate(Intensities(len(values) + 1), cases, plan, torch.device("cpu"), None)


def test_scores_are_those_of_the_whole_maps_under_the_labels_own_values():
    case = a_case(a_scan(24), noise=0.6)
    found = judge([case], [7, 300])
    predicted = np.abs(case.image[0][None] - np.arange(3)[:, None, None, None]).argmin(axis=0)
    for n, value in enumerate((7, 300), start=1):
        both = np.count_nonzero((predicted == n) & (case.classes == n))
        expected = 2 * both / (np.count_nonzero(predicted == n) + np.count_nonzero(case.classes == n))
        assert found.dice[value] == pytest.approx(expected, abs=1e-6)
        assert found.cases[0]["agreement"][str(value)] == pytest.approx(1)
        ml = [np.count_nonzero(found == n) * 2e-3 for found in (predicted, case.classes)]
        assert found.cases[0]["volumes"][str(value)] == pytest.approx(ml)


def test_the_temperature_is_the_same_in_a_large_field_of_view():
    """Far background that is plainly right must not make the model surer where the structures are."""
    small, large = (judge([a_case(a_scan(size), noise=0.6)], [1, 2]) for size in (20, 80))
    assert small.temperature > 1.1
    assert large.temperature > 1.1
    assert large.calibrated_error < 0.5 * large.calibration_error


def test_a_scan_without_any_structure_is_judged():
    found = judge([a_case(np.zeros((16, 16, 16), np.uint8))], [1, 2])
    assert np.isnan(found.mean_dice)
    assert found.temperature == 1


def test_many_classes_do_not_fill_the_memory():
    case = a_case(a_scan(48, 61))
    tracemalloc.start()
    judge([case], list(range(1, 61)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160 * case.classes.size  # two branches of 61 classes in float32 are 488 bytes a voxel
