# SPDX-License-Identifier: Apache-2.0
"""Lesions of a label map, measured by hand."""

from __future__ import annotations

import numpy as np
import pytest
from barl.images.geometry import Grid
from barl.images.lesions import find_lesions, numbered

GRID = Grid((12, 10, 8), (1.0, 2.0, 5.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def test_sizes_places_and_confidence():
    label = np.zeros((8, 10, 12), np.uint8)
    label[1, 2, 3] = 1
    label[4:6, 1:5, 2:5] = 1  # 2 x 4 x 3 voxels
    label[7, 9, 11] = 4
    uncertainty = np.full(label.shape, 0.25, np.float32)
    uncertainty[4] = 0.75
    large, small, other = find_lesions(label, GRID, [1, 4], uncertainty)
    assert (large.value, large.rank, large.voxels, large.ml) == (1, 1, 24, pytest.approx(0.24))
    assert large.center_mm == pytest.approx((3.0, 5.0, 22.5))
    # From (2, 1) to (4, 4): 2 mm and 6 mm, and a voxel of 1 x 2 mm around.
    assert large.diameter_mm == pytest.approx(np.hypot(2, 6) + 1.5) and large.extent_mm == 10.0
    assert large.confidence == pytest.approx(0.5)
    assert (small.rank, small.voxels, small.diameter_mm, small.confidence) == (2, 1, 1.5, 0.75)
    assert (other.value, other.rank) == (4, 1) and other.box == (slice(7, 8), slice(9, 10), slice(11, 12))
    made = numbered([large, small, other], label.shape)
    assert np.array_equal(made > 0, label > 0) and np.bincount(made.ravel())[1:].tolist() == [24, 1, 1]
    assert find_lesions(label, GRID, [1])[0].confidence is None and find_lesions(label, GRID, [7]) == []


def test_the_diameter_is_that_of_the_widest_slice_and_of_any_direction():
    rng = np.random.default_rng(0)
    grid = Grid((30, 30, 3), (1.0, 1.0, 3.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    label = np.zeros((3, 30, 30), np.uint8)
    label[:, 5:25, 5:25] = 1
    label[1] *= rng.random((30, 30)) < 0.9
    label[2, :, 15] = 1
    (one,) = find_lesions(label, grid, [1])[:1]
    points = [np.argwhere(plane) for plane in label]
    farthest = max(np.linalg.norm(p[:, None] - p[None], axis=2).max() for p in points)
    assert one.diameter_mm == pytest.approx(farthest + 1)
