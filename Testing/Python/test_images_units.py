# SPDX-License-Identifier: Apache-2.0
"""Lengths in NRRD and MetaImage headers: other units than millimeters, and directions that carry the spacing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.images.geometry import Grid
from barl.images.reading import read_image

ARRAY = np.random.default_rng(5).integers(-900, 900, size=(6, 7, 8)).astype(np.int16)  # [k, j, i]
SHAPE = "type: short\ndimension: 3\nsizes: 8 7 6"
LPS = "space: left-posterior-superior"
PLACED = f"{LPS}\nspace directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)"


def nrrd(path: Path, head: str, shape: str = SHAPE) -> Path:
    text = f"NRRD0004\n{shape}\nendian: little\nencoding: raw\n{head}\n\n"
    path.write_bytes(text.encode() + ARRAY.tobytes())
    return path


def mha(path: Path, head: str) -> Path:
    text = f"NDims = 3\n{head}\nDimSize = 8 7 6\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path.write_bytes(text.encode() + ARRAY.tobytes())
    return path


def read(path: Path) -> tuple[sitk.Image, str]:
    notes: list[str] = []
    image = read_image(path, notes)
    assert np.array_equal(sitk.GetArrayFromImage(image), ARRAY)
    return image, " ".join(notes)


@pytest.mark.parametrize(
    ("unit", "factor"), [("um", 1e-3), ("\u00b5m", 1e-3), ("microns", 1e-3), ("cm", 10), ("mm", 1), ("MM", 1)]
)
def test_lengths_in_other_units_are_converted_and_told(unit, factor, tmp_path):
    three = " ".join([f'"{unit}"'] * 3)
    spaced = "spacings: 2 3 4\nspace origin: (10,20,30)"
    for path in (
        nrrd(tmp_path / "a.nrrd", f"{PLACED}\nspace units: {three}"),
        nrrd(tmp_path / "b.nrrd", f"{spaced}\nunits: {three}"),
        nrrd(tmp_path / "c.nrrd", f"{LPS}\n{spaced}\nspace units: {three}"),
        nrrd(tmp_path / "d.nrrd", f"{PLACED}\nunits: {three.replace(chr(34), '')}"),
        mha(tmp_path / "e.mha", f"ElementSpacing = 2 3 4\nOffset = 10 20 30\nDistanceUnits = {unit}"),
    ):
        image, told = read(path)
        assert image.GetSpacing() == pytest.approx(np.array([2, 3, 4]) * factor, rel=1e-9), path.name
        assert image.GetOrigin() == pytest.approx(np.array([10, 20, 30]) * factor, rel=1e-9), path.name
        assert (f"gives lengths in {unit}; they were converted" in told) == (factor != 1), path.name
        assert "not known; millimeters" not in told, path.name


@pytest.mark.parametrize("unit", ["pixel", "?", "furlong"])
def test_an_unknown_unit_is_told(unit, tmp_path):
    for path in (
        nrrd(tmp_path / "a.nrrd", f'{PLACED}\nspace units: "{unit}" "{unit}" "{unit}"'),
        mha(tmp_path / "b.mha", f"ElementSpacing = 2 3 4\nDistanceUnits = {unit}"),
    ):
        image, told = read(path)
        assert image.GetSpacing() == (2, 3, 4)
        assert f"unit of length ({unit}) is not known; millimeters are assumed" in told


@pytest.mark.parametrize("field", ["", 'space units: "" "" ""', 'units: "" "" ""', 'space units: "mm" "mm" "mm"'])
def test_millimeters_and_no_unit_are_as_before(field, tmp_path):
    image, told = read(nrrd(tmp_path / "a.nrrd", PLACED + (f"\n{field}" if field else "")))
    assert image.GetSpacing() == (2, 3, 4) and told == ""


def test_units_of_single_axes(tmp_path):
    """Those of the file's space count for the space, not for the axes; an axis without one is told."""
    turned = PLACED.replace("(2,0,0) (0,3,0) (0,0,4)", "(0,0,4) (2000,0,0) (0,3000,0)")
    image, told = read(nrrd(tmp_path / "a.nrrd", f'{turned}\nspace units: "um" "um" "mm"'))
    assert image.GetSpacing() == pytest.approx((4, 2, 3))
    assert image.GetOrigin() == pytest.approx((0.01, 0.02, 30))
    assert "lengths in um;" in told
    image, told = read(nrrd(tmp_path / "b.nrrd", f'{PLACED}\nspace units: "cm" "cm"'))
    assert image.GetSpacing() == (20, 30, 4) and "unit of length (none) is not known" in told
    four = SHAPE.replace("3\n", "4\n").replace("8 7 6", "1 8 7 6")
    listed = 'kinds: list domain domain domain\nspacings: nan 2 3 4\nunits: "s" "cm" "cm" "cm"'
    image, told = read(nrrd(tmp_path / "c.nrrd", listed, four))
    assert image.GetSpacing() == (20, 30, 40) and "lengths in cm;" in told and "not known;" not in told


@pytest.mark.parametrize("spacing", ["ElementSpacing = 1 1 1", "Comment = none"])
@pytest.mark.parametrize("matrix", ["2 0 0 0 2 0 0 0 3", "0 2 0 -2 0 0 0 0 3", "1.2 1.6 0 -1.6 1.2 0 0 0 3"])
def test_directions_that_carry_the_spacing_lie_where_itk_places_them(spacing, matrix, tmp_path):
    path = mha(tmp_path / "a.mha", f"{spacing}\nTransformMatrix = {matrix}\nOffset = 1 2 3")
    image, told = read(path)
    assert image.GetSpacing() == pytest.approx((2, 2, 3))
    assert told == "The directions in the header have lengths of 2 x 2 x 3, which are taken as the spacing."
    expected = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (7, 6, 5), (7, 0, 2)):
        place = image.TransformIndexToPhysicalPoint(index)
        assert place == pytest.approx(expected.TransformIndexToPhysicalPoint(index), abs=1e-9)


def test_directions_and_spacing_that_both_scale_are_refused(tmp_path):
    scaled = "ElementSpacing = 2 2 3\nTransformMatrix = 2 0 0 0 2 0 0 0 3"
    with pytest.raises(InputError, match="gives a spacing of 2 x 2 x 3, but its directions have lengths of 2 x 2 x 3"):
        read_image(mha(tmp_path / "a.mha", scaled))


def test_directions_with_rounded_numbers_have_length_one(tmp_path):
    path = mha(tmp_path / "a.mha", "ElementSpacing = 0.7 0.7 2\nTransformMatrix = 0.707 0.707 0 -0.707 0.707 0 0 0 1")
    image, told = read(path)
    assert image.GetSpacing() == (0.7, 0.7, 2) and told == ""
    axes = Grid.of(image).axes
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-9


def test_micrometers_in_directions_and_unit(tmp_path):
    path = mha(tmp_path / "a.mha", "TransformMatrix = 25 0 0 0 25 0 0 0 50\nDistanceUnits = um")
    image, told = read(path)
    assert image.GetSpacing() == pytest.approx((0.025, 0.025, 0.05))
    assert "lengths in um;" in told and "taken as the spacing" in told
