# SPDX-License-Identifier: Apache-2.0
"""Grids, axes and boxes, checked against SimpleITK and against cases worked out by hand."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.images.geometry import Grid, Roi, axes_between, axes_towards, orientation_code
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_euler("xyz", (20, -15, 30), degrees=True).as_matrix()
GRID = Grid((7, 5, 4), (0.8, 1.3, 2.5), (-12.0, 30.5, 7.25), tuple(OBLIQUE.ravel().tolist()))


def test_positions_are_simpleitks():
    image = GRID.empty()
    for index in ((0, 0, 0), (3, 1, 2), (6, 4, 3)):
        assert GRID.index_to_mm(index) == pytest.approx(image.TransformIndexToPhysicalPoint(index))
        assert GRID.mm_to_index(image.TransformIndexToPhysicalPoint(index)) == pytest.approx(index, abs=1e-9)
    assert Grid.of(image) == GRID
    assert Grid.from_json(GRID.to_json()) == GRID
    assert GRID.shape == (4, 5, 7)
    assert GRID.voxel_ml == pytest.approx(0.8 * 1.3 * 2.5 / 1000)


def test_grids_match_within_the_rounding_of_a_header_only():
    moved = Grid(GRID.size, GRID.spacing, (-12.001, 30.5, 7.25), GRID.direction)
    far = Grid(GRID.size, GRID.spacing, (-11.9, 30.5, 7.25), GRID.direction)
    stretched = Grid(GRID.size, (0.81, 1.3, 2.5), GRID.origin, GRID.direction)
    turned = Grid(GRID.size, GRID.spacing, GRID.origin, (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert GRID.matches(moved)
    assert not GRID.matches(moved, tolerance_mm=1e-4)
    assert not any(GRID.matches(other) for other in (far, stretched, turned))
    assert not GRID.matches(Grid((7, 5, 5), GRID.spacing, GRID.origin, GRID.direction))


@pytest.mark.parametrize("order", list(permutations("xyz")))
@pytest.mark.parametrize("signs", list(product((0, 1), repeat=3)))
def test_orientation_code_is_simpleitks(order, signs):
    code = "".join({"x": "LR", "y": "PA", "z": "SI"}[axis][sign] for axis, sign in zip(order, signs, strict=True))
    image = sitk.DICOMOrient(sitk.Image(5, 6, 7, sitk.sitkUInt8), code)
    assert orientation_code(Grid.of(image)) == code
    # From LPS to that code, the voxels move as in SimpleITK.
    source = sitk.GetImageFromArray(np.arange(210, dtype=np.int16).reshape(7, 6, 5))
    expected = sitk.DICOMOrient(source, code)
    axes = axes_towards(Grid.of(source), code)
    assert np.array_equal(axes.view(sitk.GetArrayFromImage(source)), sitk.GetArrayFromImage(expected))
    assert Grid.of(source).oriented(axes).matches(Grid.of(expected), tolerance_mm=1e-9)


@pytest.mark.parametrize("angle", [0, 10, 44, 45, 60])
def test_the_choice_of_axes_depends_on_the_lines_in_space_only(angle):
    """Also at 45 degrees, where two choices are equally near."""
    turn = Rotation.from_euler("xyz", (angle, 0, angle / 3), degrees=True).as_matrix()
    outcomes = set()
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            direction = turn[:, order] * signs
            grid = Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(direction.ravel().tolist()))
            oriented = grid.oriented(axes_towards(grid, "LPS"))
            outcomes.add(tuple(np.round(oriented.axes, 9).ravel() + 0.0))
    assert len(outcomes) == 1


def test_axes_of_another_scan_are_refused():
    other = Grid(GRID.size, GRID.spacing, GRID.origin, (1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(InputError, match="different axes"):
        axes_between(GRID, other)


@pytest.mark.parametrize("code", ["", "LP", "LPX", "LRS", "LPSS"])
def test_orientations_that_are_none(code):
    with pytest.raises(InputError, match="not an orientation"):
        axes_towards(GRID, code)


def test_roi_along_the_scans_axes_takes_the_voxels_it_touches():
    center = tuple(GRID.index_to_mm((3, 2, 1)).tolist())
    # 3 x 1 x 1 voxels, exactly: half sizes 1.5, 0.5, 0.5 voxels.
    roi = Roi(center, (1.5 * 0.8, 0.5 * 1.3, 0.5 * 2.5))
    assert roi.box(GRID) == ((2, 2, 1), (5, 3, 2))
    # A little more touches the neighbors; far more is cut to the scan.
    assert Roi(center, (1.6 * 0.8, 0.6 * 1.3, 0.6 * 2.5)).box(GRID) == ((1, 1, 0), (6, 4, 3))
    assert Roi(center, (1e3, 1e3, 1e3)).box(GRID) == ((0, 0, 0), GRID.size)


def test_roi_along_the_patients_axes_covers_its_corners_in_an_oblique_scan():
    bounds = (-11.0, -8.0, 31.0, 34.0, 9.0, 12.0)
    roi = Roi.from_bounds_mm(bounds)
    start, stop = roi.box(GRID)
    corners = GRID.mm_to_index(list(product(bounds[:2], bounds[2:4], bounds[4:])))
    inside = np.clip(corners, -0.5, np.array(GRID.size) - 0.5)
    assert (inside >= np.array(start) - 0.5 - 1e-6).all()
    assert (inside <= np.array(stop) - 0.5 + 1e-6).all()


@pytest.mark.parametrize(
    ("roi", "match"),
    [
        (Roi((500.0, 0.0, 0.0), (5.0, 5.0, 5.0)), "outside the scan"),
        (Roi((0.0, 0.0, 0.0), (0.0, 5.0, 5.0)), "no extent"),
        (Roi((0.0, 0.0, float("nan")), (5.0, 5.0, 5.0)), "no extent"),
        (Roi.from_bounds_mm((5, -5, -5, 5, -5, 5)), "no extent"),
    ],
)
def test_unusable_rois(roi, match):
    with pytest.raises(InputError, match=match) as caught:
        roi.box(GRID)
    assert caught.value.remedy
