# SPDX-License-Identifier: Apache-2.0
"""Lesion-wise counts: hand-worked matches, and real lesion maps of two raters and of thirty patients."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barl.evaluation.lesions import MINIMUM_IOU, LesionCounts, count_lesions
from barl.images.components import components, match_components


def row(*runs):
    """A 1x1x30 mask with ones in the given [start, stop) runs."""
    mask = np.zeros((1, 1, 30), bool)
    for start, stop in runs:
        mask[..., start:stop] = True
    return mask


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        # (true, predicted, matched)
        (row((0, 5), (10, 12)), row((0, 5), (20, 22)), (2, 2, 1)),  # one found, one missed, one invented
        (row((0, 12)), row((0, 5), (6, 12)), (2, 1, 1)),  # one prediction melts two lesions: only one counts
        (row((0, 5), (6, 12)), row((0, 12)), (1, 2, 1)),  # split into two: the other half is an extra
        (row((0, 10)), row((9, 10)), (1, 1, 1)),  # IoU exactly 0.1
        (row((0, 11)), row((10, 11)), (1, 1, 0)),  # IoU 1/11: touching is not finding
        (row(), row((3, 4)), (1, 0, 0)),
        (row(), row(), (0, 0, 0)),
    ],
)
def test_hand_worked_counts(prediction, truth, expected):
    assert count_lesions(prediction, truth) == LesionCounts(*expected)


def test_assignment_is_the_best_overall_not_greedy():
    # Predicted 1 = i 0..9, 2 = i 10..13; true 1 = i 4..13, 2 = i 0..2.
    # IoU: p1-t1 6/14 (largest of all), p1-t2 3/10, p2-t1 4/10, p2-t2 0. Greedy takes p1-t1 and strands the others.
    prediction, truth = np.zeros((2, 1, 1, 20), np.int32)
    prediction[..., 0:10], prediction[..., 10:14] = 1, 2
    truth[..., 4:14], truth[..., 0:3] = 1, 2
    assert sorted(match_components(prediction, truth, MINIMUM_IOU)) == [(1, 2), (2, 1)]


def test_ratios_follow_from_the_counts_and_add_up():
    counts = LesionCounts(truth=4, predicted=6, matched=3)
    assert (counts.precision, counts.recall, counts.f1) == (0.5, 0.75, 0.6)
    assert counts + LesionCounts(1, 0, 0) == LesionCounts(5, 6, 3)
    assert np.isnan([LesionCounts(0, 0, 0).f1, LesionCounts(0, 1, 0).recall, LesionCounts(1, 0, 0).precision]).all()


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    assert components(mask)[1] == 1


def test_numbering_of_the_components_does_not_matter():
    rng = np.random.default_rng(0)
    prediction, n_predicted = components(rng.random((20, 20, 20)) < 0.03)
    truth, n_true = components((rng.random((20, 20, 20)) < 0.02) | ((prediction > 0) & (rng.random((20,) * 3) < 0.5)))
    pairs = match_components(prediction, truth, MINIMUM_IOU)
    assert len(pairs) > 20
    new_predicted, new_true = (np.r_[0, 1 + rng.permutation(n)] for n in (n_predicted, n_true))
    again = match_components(new_predicted[prediction], new_true[truth], MINIMUM_IOU)

    def summed_iou(first, second, chosen):
        return sum(((first == a) & (second == b)).sum() / ((first == a) | (second == b)).sum() for a, b in chosen)

    assert len(again) == len(pairs)
    assert summed_iou(new_predicted[prediction], new_true[truth], again) == pytest.approx(
        summed_iou(prediction, truth, pairs)
    )


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_two_raters_of_the_same_scan(data_dir):
    """Numbers of lesions are those of the data's description; the IoU > 0.25 pairs there are a lower bound here."""
    folder = data_dir / "instance_pairs" / "isbi2015_ms"
    documented = [(26, 21, 14), (41, 89, 33), (26, 27, 21), (20, 21, 10), (19, 30, 13)]
    paths = sorted((folder / "rater1").glob("*.nii.gz"))
    assert len(paths) == len(documented)
    for path, (n_first, n_second, pairs) in zip(paths, documented, strict=True):
        first, second = read(path) > 0, read(folder / "rater2" / path.name) > 0
        counts = count_lesions(first, second)
        assert (counts.predicted, counts.truth) == (n_first, n_second)
        assert pairs <= counts.matched <= min(n_first, n_second)
        swapped = count_lesions(second, first)
        assert (swapped.precision, swapped.recall, swapped.f1) == (counts.recall, counts.precision, counts.f1)


def test_instances_matched_by_others_are_matched_here(data_dir):
    folder = data_dir / "instance_pairs" / "panoptica_spine" / "matched_instance"
    prediction, truth = (read(folder / f"{name}.nii.gz").astype(np.int64) for name in ("pred", "ref"))
    pairs = match_components(prediction, truth, MINIMUM_IOU)
    shared = set(np.unique(prediction)) & set(np.unique(truth)) - {0}
    assert len(shared) > 10
    assert all((value, value) in pairs for value in shared)


def test_full_size_lesion_maps_are_matched(data_dir):
    paths = sorted((data_dir / "open_ms" / "labels_only_native").glob("*.nii.gz"))
    truth = read(max(paths, key=lambda path: path.stat().st_size)) > 0
    prediction = np.roll(truth, (1, 1, 0), axis=(0, 1, 2))
    counts = count_lesions(prediction, truth)
    assert counts.truth == counts.predicted > 100
    assert 0 < counts.matched < counts.truth
