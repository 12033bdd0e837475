# SPDX-License-Identifier: Apache-2.0
"""Rules by which regions and first cases are chosen, by hand-computed choices."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk
from barl.benchmark import simulation
from barl.benchmark.clinician import Prices, Scan, Strategy, correct_regions
from barl.benchmark.regions import Pool, Spot, choose_regions, exponent
from barl.images.fingerprint import scan_features
from barl.images.geometry import Grid

GRID = Grid((20, 20, 20), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def a_pool(case: int, *spots: Spot) -> Pool:
    structure = np.zeros((20, 20, 20), dtype=bool)
    structure[8:12, 8:12, 8:12] = True
    return Pool(case, structure, np.zeros_like(structure), list(spots))


def chosen(rule, count, pools, edge=3, power=1.0, seed=0):
    return choose_regions(rule, count, pools, edge, np.random.default_rng(seed), power)


def test_uncertainty_alone_takes_the_highest_scores_of_all_scans():
    pools = [
        a_pool(0, Spot((5, 5, 5), 3.0, 0.9, 1), Spot((15, 15, 15), 1.0, 0.9, 1)),
        a_pool(1, Spot((5, 5, 5), 2.0, 0.5, 1), Spot((5, 5, 6), 1.9, 0.5, 1)),
    ]
    found = chosen("uncertain", 3, pools)
    # The fourth spot lies in the cube of the third: it is seen already.
    assert [region.case for region in found] == [0, 1, 0]
    assert [region.box[0] for region in found] == [slice(4, 7), slice(4, 7), slice(14, 17)]
    assert pools[1].looked[4:7, 4:7, 4:7].all() and pools[1].looked.sum() == 27


def test_foreground_aware_random_has_two_thirds_in_the_structures():
    found = chosen("foreground", 9, [a_pool(n) for n in range(12)], edge=1)
    inside = [all(8 <= side.start < 12 for side in region.box) for region in found]
    assert inside[:6] == 6 * [True] and sum(inside[6:]) < 3  # 0.8 % of the voxels by chance


def test_a_cube_at_the_border_is_moved_inside_and_one_of_a_thin_scan_is_cut():
    thin = Pool(0, np.ones((2, 20, 20), bool), np.zeros((2, 20, 20), bool), [Spot((0, 19, 0), 1.0, 1.0, 1)])
    (region,) = chosen("uncertain", 1, [thin], edge=4)
    assert region.box == (slice(0, 2), slice(16, 20), slice(0, 4))


def test_clasp_shares_two_thirds_by_labels_and_prefers_the_unsure_at_a_high_power():
    spots = [Spot((2, 2, n), 1.0, 0.9 - 0.02 * n, 1) for n in range(20)]
    spots += [Spot((17, 17, n), 9.0, 0.5 - 0.02 * n, 2) for n in range(20)]
    found = chosen("clasp", 6, [a_pool(0, *spots)], edge=1, power=100.0)
    labels = [1 if region.box[0].start == 2 else 2 for region in found[:4]]
    assert labels == [1, 2, 1, 2]
    # 0.90 ^ 100 is nine times 0.88 ^ 100: the first voxels of both rows.
    assert all(region.box[2].start < 4 for region in found[:4])
    assert len(found) == 6


def test_clasp_draws_in_proportion_to_the_powered_uncertainty():
    pool = [Spot((2, 2, 2), 1.0, 0.8, 1), Spot((9, 9, 9), 1.0, 0.4, 1)]
    first = [chosen("clasp", 2, [a_pool(0, *pool)], edge=1, power=2.0, seed=n)[0].box[0].start for n in range(1000)]
    # 0.8^2 : 0.4^2 = 4 : 1
    assert np.mean(np.array(first) == 2) == pytest.approx(0.8, abs=0.04)


def test_the_exponent_grows_from_1_to_100_in_equal_factors():
    assert [exponent(n, 4) for n in (1, 2, 3)] == pytest.approx([1, 10, 100])
    assert exponent(1, 2) == 1


def test_without_spots_the_budget_is_random_and_a_scan_seen_whole_gives_nothing():
    seen = a_pool(1)
    seen.looked[:] = True
    assert {region.case for region in chosen("uncertain", 5, [a_pool(0), seen])} == {0}
    assert chosen("random", 5, [seen]) == []


def test_regions_are_added_to_what_was_corrected_before():
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[8:12, 8:12, 8:12] = 1
    looked = np.zeros(truth.shape, bool)
    looked[8:10] = True
    before = np.where(looked, truth, 0).astype(np.uint8)
    box = (slice(9, 11), slice(8, 12), slice(8, 12))
    prices = Prices(case=60, look=6, plane=12, mm=0.6, fill=0)
    done = correct_regions(Scan([], truth, GRID), [box], prices, before, looked)
    assert done.looked[:10].all() == looked[:10].all() and done.looked[10, 8:12, 8:12].all()
    assert np.flatnonzero(done.labels.any(axis=(1, 2))).tolist() == [8, 9, 10]
    # One new slice of 4 x 4: 12 mm of contour.
    assert (done.work.planes, done.work.places, done.work.voxels) == (1, 1, 16)
    assert done.work.minutes == pytest.approx((60 + 6 + 12 + 12 * 0.6) / 60)


def image(seed: int, gain: float, sides=(20, 20, 20), spacing=(1.0, 1.0, 1.0)) -> sitk.Image:
    made = sitk.GetImageFromArray(np.random.default_rng(seed).gamma(2.0, gain, sides).astype(np.float32))
    made.SetSpacing(spacing)
    return made


def test_features_of_scans_of_one_scanner_lie_together():
    one, same = scan_features([image(0, 100)]), scan_features([image(1, 100)])
    other = scan_features([image(2, 3000)])
    thick = scan_features([image(3, 100, (5, 20, 20), (1.0, 1.0, 4.0))])
    assert len(one) == len(other) == 6 + 5 and np.isfinite([one, same, other, thick]).all()
    near = np.linalg.norm(np.subtract(one, same))
    assert near < 0.3 * min(np.linalg.norm(np.subtract(one, far)) for far in (other, thick))
    assert np.isfinite(scan_features([image(0, 0.0)])).all()  # a constant scan


def test_the_first_cases_are_one_of_each_scanner():
    one = simulation.simulations_of(
        {
            "dataset": "hippocampus",
            "seeds": [0],
            "common": {"start": 3, "step": 1, "rounds": 1, "choose_first": "k-center"},
            "strategies": [{"name": "a", "correct": {"kind": "whole"}}],
        }
    )[0]
    assert one.choose_first == "k-center" and dataclasses.replace(one).strategy == Strategy("whole")
    features = [scan_features([image(n, gain)]) for n, gain in enumerate((100, 100, 3000, 100, 90000, 3000))]
    ranked = simulation.first_cases([*range(6)], features, 3)
    assert sorted((0, 0, 1, 0, 2, 1)[n] for n in ranked[:3]) == [0, 1, 2]
