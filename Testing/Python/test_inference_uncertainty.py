# SPDX-License-Identifier: Apache-2.0
"""Entropy, disagreement, the score of a case, and the hot-spots."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from barl.images.geometry import Grid
from barl.inference.hotspots import find_hotspots, half_a_bit
from barl.inference.uncertainty import count_levels, join_branches, score_levels


def join(branches: list[list[float]], temperature: float = 1.0):
    """One voxel; probabilities per branch."""
    return join_branches(torch.tensor(branches, dtype=torch.float32).clamp_min(1e-30).log(), temperature)


@pytest.mark.parametrize(
    ("branches", "entropy", "disagreement"),
    [
        ([[1, 0], [1, 0]], 0, 0),
        ([[0.5, 0.5], [0.5, 0.5]], 1, 0),  # both hesitate: undecided, but of one mind
        ([[1, 0], [0, 1]], 1, 1),  # they contradict each other
        ([[1, 0, 0], [0, 1, 0]], log(2) / log(3), 1),
        ([[1 / 3, 1 / 3, 1 / 3]] * 2, 1, 0),
        # By hand: mean (0.75, 0.25), 0.8113 bit; the branches have 0 and 1 bit; 0.8113 - 0.5.
        ([[1, 0], [0.5, 0.5]], 0.8113, 0.3113),
    ],
)
def test_entropy_and_disagreement_by_hand(branches, entropy, disagreement):
    joined = join(branches)
    assert float(joined.entropy) == pytest.approx(entropy, abs=1e-4)
    assert float(joined.disagreement) == pytest.approx(disagreement, abs=1e-4)
    assert float(joined.uncertainty) == pytest.approx(max(entropy, disagreement), abs=1e-4)


def test_one_branch_cannot_disagree():
    joined = join([[0.5, 0.5]])
    assert joined.disagreement is None
    assert float(joined.uncertainty) == pytest.approx(1)


def test_uncertainty_stays_in_range_and_ignores_the_order_of_the_branches():
    logits = torch.randn(3, 4, 5, 6, 7, generator=torch.Generator().manual_seed(0)) * 20
    joined, turned = join_branches(logits.log_softmax(1)), join_branches(logits.flip(0).log_softmax(1))
    for name in ("entropy", "disagreement", "uncertainty"):
        values = getattr(joined, name)
        assert torch.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1
        torch.testing.assert_close(values, getattr(turned, name), atol=1e-5, rtol=0)


def test_temperature_softens_without_changing_a_label():
    branches = [[0.8, 0.15, 0.05], [0.6, 0.3, 0.1]]
    plain, soft, sharp = join(branches), join(branches, 2.0), join(branches, 0.5)
    mean = np.array([0.7, 0.225, 0.075])
    np.testing.assert_allclose(soft.probabilities, np.sqrt(mean) / np.sqrt(mean).sum(), atol=1e-5)
    assert sharp.entropy < plain.entropy < soft.entropy
    assert soft.disagreement == plain.disagreement


def score(uncertainty: np.ndarray, foreground: np.ndarray) -> float:
    levels = np.round(uncertainty * 255).astype(np.uint8)
    background_counts, foreground_counts = count_levels(levels, foreground)
    return score_levels(foreground_counts, background_counts)


def test_case_score_is_not_diluted_by_easy_background():
    uncertainty, foreground = np.full((20, 20, 20), 0.02), np.zeros((20, 20, 20), bool)
    foreground[8:12, 8:12, 8:12] = True
    uncertainty[7:13, 7:13, 7:13] = 0.6
    small = score(uncertainty, foreground)
    large = score(np.pad(uncertainty, 30, constant_values=0.02), np.pad(foreground, 30))
    assert small == pytest.approx(0.6, abs=0.01)
    assert large == small


def test_case_score_of_empty_predictions():
    nothing = np.zeros((9, 9, 9), bool)
    assert score(np.zeros((9, 9, 9)), nothing) == 0
    missed = np.zeros((9, 9, 9))
    missed[4, 4, 3:6] = 0.9
    assert score(missed, nothing) == pytest.approx(0.9, abs=0.01)


OBLIQUE = Grid((30, 20, 10), (1.0, 2.0, 4.0), (10.0, -5.0, 3.0), (0.0, 0.6, 0.8, -1.0, 0.0, 0.0, 0.0, -0.8, 0.6))


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Two regions on an array [10, 20, 30]: large and doubtful, small and very doubtful; and a speck."""
    uncertainty, labels = np.zeros((10, 20, 30), np.float32), np.zeros((10, 20, 30), np.uint8)
    uncertainty[1:4, 2:8, 3:9] = 0.6
    uncertainty[2, 5, 6] = 0.95
    labels[1:4, 2:8, 3:7] = 7
    labels[1:4, 2:8, 7:9] = 2
    uncertainty[7:9, 14:16, 20:23] = 1.0
    uncertainty[5, 18, 28] = 1.0
    return uncertainty, labels


def test_hotspots_are_ranked_and_placed(scene):
    uncertainty, labels = scene
    first, second = find_hotspots(uncertainty, OBLIQUE, labels, look_mm=12.0)
    assert (first.rank, second.rank) == (1, 2)
    assert first.volume_ml == pytest.approx(108 * 8 / 1000)
    assert second.volume_ml == pytest.approx(12 * 8 / 1000)
    assert first.mean_uncertainty == pytest.approx((107 * 0.6 + 0.95) / 108, rel=1e-5)
    assert first.score == pytest.approx(first.volume_ml * first.mean_uncertainty)
    assert (first.label, second.label) == (7, 0)
    i, j, k = np.round(OBLIQUE.mm_to_index(first.position_mm)).astype(int)
    assert np.abs(np.array([k, j, i]) - (2, 5, 6)).max() <= 1
    corners = OBLIQUE.index_to_mm([(2.5, 1.5, 0.5), (8.5, 7.5, 3.5)])
    bounds = np.array(first.bounds_mm).reshape(3, 2)
    assert np.all((bounds[:, 0] - 1e-6 <= corners) & (corners <= bounds[:, 1] + 1e-6))
    # By hand: x runs along -y of the patient, edges 2.5 to 8.5 mm from the origin's -5.
    assert bounds[1].tolist() == pytest.approx([-13.5, -7.5])


def test_hotspots_are_named_by_how_likely_the_labels_are(scene):
    uncertainty, labels = scene
    shares = np.stack([np.full(labels.shape, 30), np.where(labels == 7, 90, 20)]).astype(np.uint8)
    first, second = find_hotspots(uncertainty, OBLIQUE, shares, look_mm=12.0)
    assert (first.label, second.label) == (2, 1)  # the second label leads in two thirds of the first place


def test_hotspot_position_lies_inside_a_hollow_region():
    uncertainty = np.zeros((12, 12, 12), np.float32)
    uncertainty[2:10, 2:10, 2:10] = 0.8
    uncertainty[3:9, 3:9, 3:9] = 0.1
    grid = Grid((12, 12, 12), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    (spot,) = find_hotspots(uncertainty, grid)  # one look shows it
    assert uncertainty[tuple(np.array(spot.position_mm, int)[::-1])] == np.float32(0.8)


def test_hotspots_touching_at_a_corner_are_one_and_limits_hold(scene):
    uncertainty, labels = scene
    grid = Grid((30, 20, 10), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    few = {"min_ml": 0, "look_mm": 6.0}
    assert len(find_hotspots(uncertainty, grid, labels, **few)) == 3
    assert [spot.rank for spot in find_hotspots(uncertainty, grid, labels, **few, limit=1)] == [1]
    assert len(find_hotspots(uncertainty, grid, labels, min_ml=0.05, look_mm=6.0)) == 1
    uncertainty[9, 16, 23] = 1.0
    assert len(find_hotspots(uncertainty, grid, labels, **few)) == 3
    assert find_hotspots(np.zeros_like(uncertainty), grid, labels) == []


def test_a_region_too_large_for_one_look_is_several_places_and_neighbors_are_one():
    grid = Grid((60, 20, 20), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    uncertainty = np.zeros((20, 20, 60), np.float32)
    uncertainty[8:12, 8:12, 5:55] = 0.8  # 50 mm long
    spots = find_hotspots(uncertainty, grid, look_mm=12.0)
    assert len(spots) == 5 and sum(spot.volume_ml for spot in spots) == pytest.approx(
        uncertainty.astype(bool).sum() / 1000
    )
    lengths = [spot.bounds_mm[1] - spot.bounds_mm[0] for spot in spots]
    assert max(lengths) <= 12.0 and [spot.score for spot in spots] == sorted((s.score for s in spots), reverse=True)
    uncertainty[:] = 0
    for x in (10, 14, 18):  # three separate regions within 10 mm, a fourth far away
        uncertainty[10:12, 10:12, x : x + 2] = 0.9
    uncertainty[10:12, 10:12, 50:52] = 0.9
    near, far = find_hotspots(uncertainty, grid, look_mm=12.0)
    assert near.volume_ml == pytest.approx(0.024) and far.volume_ml == pytest.approx(0.008)
    assert near.bounds_mm[:2] == pytest.approx((9.5, 19.5))


def test_places_cover_the_most_uncertainty_on_anisotropic_voxels():
    grid = Grid((40, 40, 10), (1, 1, 5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    rng = np.random.default_rng(0)
    uncertainty = (rng.random((10, 40, 40)) ** 8).astype(np.float32)
    spots = find_hotspots(uncertainty, grid, look_mm=16.0, min_ml=0)
    edges = np.array([spot.bounds_mm for spot in spots])
    assert np.all(edges[:, 1::2] - edges[:, ::2] <= 16.0 + 1e-6)
    inside = uncertainty * (uncertainty >= 0.5)
    best = max(
        inside[k : k + 3, j : j + 16, i : i + 16].sum()
        for k in range(8) for j in range(25) for i in range(25)
    )  # fmt: skip
    assert spots[0].score * 1000 / 5 >= 0.95 * best


def test_hotspots_of_bytes_are_those_of_fractions(scene, monkeypatch):
    uncertainty, labels = scene
    whole = find_hotspots(uncertainty, OBLIQUE, labels)
    # Blocks of one plane: the way a large scan is walked through.
    monkeypatch.setattr("barl.inference.hotspots._blocks", lambda shape: (slice(k, k + 1) for k in range(shape[0])))
    assert find_hotspots(uncertainty, OBLIQUE, labels) == whole
    coarse = find_hotspots(np.round(uncertainty * 255).astype(np.uint8), OBLIQUE, labels)
    assert [spot.position_mm for spot in coarse] == [spot.position_mm for spot in whole]
    assert [spot.score for spot in coarse] == pytest.approx([spot.score for spot in whole], rel=0.01)


def test_half_a_bit():
    assert half_a_bit(2) == 0.5
    tie_of_two_in_twenty = log(2) / log(20)
    assert half_a_bit(20) == pytest.approx(tie_of_two_in_twenty / 2)
