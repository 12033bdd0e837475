# SPDX-License-Identifier: Apache-2.0
"""Overlap and surface metrics: examples worked out by hand, brute force, MONAI, and invariances."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings

import numpy as np
import pytest
from barl.errors import InputError
from barl.evaluation.metrics import DISTANCES, RATIOS, dice, segmentation_metrics

SPACING = (3.0, 0.5, 1.0)


def blob(shape, seed, share=0.2):
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


def brute_force_surface(mask):
    """Voxels with a face neighbor outside, by asking each voxel."""
    points = []
    for at in np.argwhere(mask):
        for axis, step in itertools.product(range(3), (-1, 1)):
            near = at.copy()
            near[axis] += step
            if not (0 <= near[axis] < mask.shape[axis]) or not mask[tuple(near)]:
                points.append(at)
                break
    return np.array(points, dtype=float)


def brute_force(prediction, truth, spacing, tolerance):
    first, second = (brute_force_surface(mask) * spacing for mask in (prediction, truth))
    distance = np.sqrt(((first[:, None] - second[None]) ** 2).sum(-1))
    there, back = distance.min(1), distance.min(0)
    pooled = np.concatenate([there, back])
    return max(np.percentile(there, 95), np.percentile(back, 95)), pooled.mean(), np.mean(pooled <= tolerance)


def test_two_boxes_worked_out_by_hand():
    truth = np.zeros((3, 3, 12), np.uint8)
    prediction = truth.copy()
    truth[1, 1, 2:6] = 5  # i = 2 3 4 5
    prediction[1, 1, 4:10] = 5  # i = 4 ... 9
    measured = segmentation_metrics(prediction, truth, (1, 1, 2.0), [5], tolerance_mm=2.0)[5]
    assert measured.dice == pytest.approx(2 * 2 / (4 + 6))
    assert measured.jaccard == pytest.approx(2 / 8)
    # A row of voxels is all surface. Distances in voxels: 0 0 1 2 3 4 from the prediction, 2 1 0 0 from the truth.
    assert measured.assd_mm == pytest.approx(2 * 13 / 10)
    assert measured.hd95_mm == pytest.approx(2 * np.percentile([0, 0, 1, 2, 3, 4], 95))
    assert measured.surface_dice == pytest.approx((3 + 3) / 10)
    assert (measured.truth_ml, measured.predicted_ml) == (pytest.approx(0.008), pytest.approx(0.012))


def test_spacing_decides_which_shift_is_worse():
    truth = np.zeros((9, 9, 9), np.uint8)
    truth[3:6, 3:6, 3:6] = 1
    for axis in range(3):
        measured = segmentation_metrics(np.roll(truth, 1, axis), truth, SPACING, [1])[1]
        assert measured.hd95_mm == pytest.approx(SPACING[axis])


@pytest.mark.parametrize("seed", range(6))
def test_surfaces_agree_with_brute_force(seed):
    shape = (5, 7, 6)
    share = (0.02, 0.2, 0.7)[seed % 3]
    prediction, truth = blob(shape, seed, share), blob(shape, seed + 100, share)
    prediction[0, 0, 0] = truth[-1, -1, -1] = 1  # never empty, and at the border of the array
    measured = segmentation_metrics(prediction, truth, SPACING, [1], tolerance_mm=1.2)[1]
    expected = brute_force(prediction, truth, SPACING, 1.2)
    assert (measured.hd95_mm, measured.assd_mm, measured.surface_dice) == pytest.approx(expected)


def test_surfaces_agree_with_monai():
    torch = pytest.importorskip("torch")
    from monai import metrics as monai

    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (20, 40, 30)], indexing="ij"), -1) * SPACING
    truth = (np.linalg.norm((grid - (30, 10, 15)) / (1, 0.8, 1), axis=-1) < 9).astype(np.uint8)
    prediction = (np.linalg.norm((grid - (33, 11, 14)) / (1, 0.7, 1.2), axis=-1) < 9).astype(np.uint8)
    measured = segmentation_metrics(prediction, truth, SPACING, [1], tolerance_mm=1.5)[1]
    pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": SPACING}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's own deprecated argument
        hd95 = monai.compute_hausdorff_distance(*pair, percentile=95, **options)
        assd = monai.compute_average_surface_distance(*pair, symmetric=True, **options)
        surface = monai.compute_surface_dice(*pair, [1.5], **options)
    assert measured.hd95_mm == pytest.approx(hd95.item(), rel=1e-5)
    assert measured.assd_mm == pytest.approx(assd.item(), rel=1e-5)
    assert measured.surface_dice == pytest.approx(surface.item(), rel=1e-5)


def test_empty_on_both_sides_is_undefined():
    nothing = np.zeros((4, 4, 4), np.uint8)
    measured = segmentation_metrics(nothing, nothing, (1, 1, 1), [1])[1]
    assert all(math.isnan(getattr(measured, name)) for name in RATIOS + DISTANCES)
    assert (measured.lesions.truth, measured.lesions.predicted, measured.truth_ml) == (0, 0, 0)
    assert math.isnan(dice(nothing, nothing, 1))


def test_empty_on_one_side_scores_zero_and_has_no_distance():
    nothing = np.zeros((4, 4, 4), np.uint8)
    something = nothing.copy()
    something[1, 1, 1] = 1
    missed = segmentation_metrics(nothing, something, (1, 1, 1), [1])[1]
    invented = segmentation_metrics(something, nothing, (1, 1, 1), [1])[1]
    for measured in (missed, invented):
        assert measured.dice == measured.jaccard == measured.surface_dice == measured.lesion_f1 == 0
        assert math.isnan(measured.hd95_mm)
        assert math.isnan(measured.assd_mm)
    assert missed.lesion_recall == 0
    assert math.isnan(missed.lesion_precision)
    assert invented.lesion_precision == 0
    assert math.isnan(invented.lesion_recall)


def test_equal_maps_are_perfect():
    truth = blob((6, 6, 6), 1)
    measured = segmentation_metrics(truth, truth.copy(), SPACING, [1])[1]
    assert all(getattr(measured, name) == 1 for name in RATIOS)
    assert all(getattr(measured, name) == 0 for name in DISTANCES)


def test_swapping_prediction_and_truth_swaps_precision_and_recall_only():
    first, second = blob((12, 12, 12), 2, 0.03), blob((12, 12, 12), 3, 0.05)
    second |= np.where(first & blob(first.shape, 4, 0.5), 1, 0).astype(np.uint8)
    there = segmentation_metrics(first, second, SPACING, [1])[1]
    back = segmentation_metrics(second, first, SPACING, [1])[1]
    assert 0 < there.lesion_precision != there.lesion_recall > 0
    assert (there.lesion_precision, there.lesion_recall) == (back.lesion_recall, back.lesion_precision)
    for name in {*RATIOS, *DISTANCES} - {"lesion_precision", "lesion_recall"}:
        assert getattr(there, name) == pytest.approx(getattr(back, name))


def test_crop_and_position_do_not_matter():
    small = [blob((6, 7, 8), seed) for seed in (5, 6)]
    large = [np.pad(mask, ((3, 9), (0, 5), (11, 0))) for mask in small]
    inside, outside = (segmentation_metrics(*pair, SPACING, [1])[1] for pair in (small, large))
    for name in RATIOS + DISTANCES:
        assert getattr(outside, name) == pytest.approx(getattr(inside, name)), name
    assert outside.lesions == inside.lesions


def test_labels_are_measured_each_by_itself():
    rng = np.random.default_rng(8)
    prediction, truth = (rng.choice([0, 3, 200, 40_000], size=(6, 8, 7)).astype(np.uint16) for _ in range(2))
    measured = segmentation_metrics(prediction, truth, SPACING, [40_000, 3, 7])
    assert list(measured) == [40_000, 3, 7]
    assert math.isnan(measured[7].dice)
    for value in (3, 40_000):
        alone = segmentation_metrics(
            *((array == value).astype(np.int64) for array in (prediction, truth)), SPACING, [1]
        )
        assert dataclasses.asdict(measured[value]) == dataclasses.asdict(alone[1])
        assert measured[value].dice == dice(prediction, truth, value)


@pytest.mark.parametrize(
    ("prediction", "spacing", "values"),
    [
        (np.zeros((4, 4, 5), int), (1, 1, 1), [1]),
        (np.zeros((4, 4, 4)), (1, 1, 1), [1]),
        (np.zeros((4, 4, 4), int), (1, 0, 1), [1]),
        (np.zeros((4, 4, 4), int), (1, 1), [1]),
        (np.zeros((4, 4, 4), int), (1, math.nan, 1), [1]),
        (np.zeros((4, 4, 4), int), (1, 1, 1), [0]),
    ],
)
def test_bad_input_is_refused_with_a_remedy(prediction, spacing, values):
    with pytest.raises(InputError) as caught:
        segmentation_metrics(prediction, np.zeros((4, 4, 4), int), spacing, values)
    assert caught.value.remedy


@pytest.mark.slow
def test_full_size_pair_is_measured():
    """A liver-like pair on 512x512x600 voxels: 1.9 s on one core of a 2024 server CPU."""
    k, j, i = np.ogrid[:600, :512, :512]

    def organ(shift):
        return (((k - 300 - shift) / 110) ** 2 + ((j - 256) / 110) ** 2 + ((i - 200) / 140) ** 2 < 1).astype(np.uint8)

    prediction, truth = organ(3), organ(0)
    measured = segmentation_metrics(prediction, truth, (0.7, 0.7, 0.7), [1])[1]
    assert measured.hd95_mm == pytest.approx(2.1, abs=0.3)
