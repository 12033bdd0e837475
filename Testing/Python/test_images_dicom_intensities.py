# SPDX-License-Identifier: Apache-2.0
"""Intensities of DICOM frames: slopes and intercepts, unused bits, transfer syntaxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from barl.images.reading import read_image
from dicom_maker import ARRAY, PET, PLACES, assert_exact, frames, item, slices


@pytest.mark.parametrize(
    "scales",
    [
        [(1.0, 0), (0.37, 0), (0.61, 5), (0.2, 0), (0.9, -7.5), (0.45, 0)],
        [(s * 1e-8, 0) for s in (1.02609, 1.04, 1.5, 0.75, 2.4, 3.1)],
        [(1.0, 0), (1e-4, 0), (1.1e-4, 0), (0.9e-4, 0), (1e-4, 0), (1.2e-4, 0)],
        [(1.0, 0), (20.0, 0), (20.0, 3), (19.0, 0), (20.0, 0), (20.0, -1024)],
        [(1.0, -1024.0)] * 6,
    ],
)
def test_each_slice_has_its_own_slope_and_intercept(scales, tmp_path):
    raw = np.random.default_rng(0).integers(1000, 30000, (6, 9, 8)).astype(np.uint16)
    true = np.stack([plane * slope + shift for plane, (slope, shift) in zip(raw, scales, strict=True)])

    def change(data, k):
        data.RescaleSlope, data.RescaleIntercept = scales[k]

    image = read_image(slices(tmp_path / "s", raw, PLACES, sop_class=PET, change=change))
    assert_exact(image, true, rtol=1e-6)

    def change_frame(frame, k):
        values = item(RescaleSlope=scales[k][0], RescaleIntercept=scales[k][1], RescaleType="US")
        frame.PixelValueTransformationSequence = [values]

    assert_exact(read_image(frames(tmp_path / "a.dcm", raw, PLACES, change=change_frame)), true, rtol=1e-6)
    whole = all(float(slope).is_integer() for slope, _ in scales)
    assert (image.GetPixelID() in (sitk.sitkInt16, sitk.sitkInt32)) == whole


@pytest.mark.parametrize(
    ("scales", "kind"),
    [
        ([(1, -9000), (1, 0), (1, 10000), (1, 30000), (1, 0), (1, 0)], sitk.sitkInt32),
        ([(1, 0), (1, 10000), (1, 30000), (1, 0), (1, 0), (1, 2)], sitk.sitkUInt16),
        ([(1, 0), (-1, 0), (-1, 7), (1, -3), (1, 0), (1, 0)], sitk.sitkInt16),
        ([(1, 0), (90000, -1), (1, 0), (-70000, 0), (1, 0), (1, 0)], sitk.sitkFloat32),
        ([(1, 0)] * 6, sitk.sitkUInt16),
    ],
)
def test_whole_intensities_have_the_smallest_type_that_holds_them(scales, kind, tmp_path):
    raw = np.random.default_rng(0).integers(10, 30000, (6, 9, 8)).astype(np.uint16)
    true = np.stack([plane * float(slope) + shift for plane, (slope, shift) in zip(raw, scales, strict=True)])

    def change(data, k):
        data.RescaleSlope, data.RescaleIntercept = scales[k]

    image = read_image(slices(tmp_path / "s", raw, PLACES, sop_class=PET, change=change))
    assert image.GetPixelID() == kind
    assert_exact(image, true, rtol=1e-6 if kind == sitk.sitkFloat32 else 0)


def test_unused_bits_are_no_intensity(tmp_path):
    raw = np.random.default_rng(0).integers(0, 4096, (6, 9, 8)).astype(np.uint16)

    def twelve(data, k):
        data.BitsStored, data.HighBit = 12, 11

    overlaid = raw | np.uint16(0xF000)
    assert_exact(read_image(slices(tmp_path / "s", overlaid, PLACES, change=twelve)), raw)
    signed = np.random.default_rng(0).integers(-2048, 2048, (6, 9, 8)).astype(np.int16)
    assert_exact(read_image(slices(tmp_path / "t", signed & np.int16(0x0FFF), PLACES, change=twelve)), signed)


@pytest.mark.parametrize("name", ["RLELossless", "DeflatedExplicitVRLittleEndian", "ImplicitVRLittleEndian"])
def test_other_transfer_syntaxes(name, tmp_path):
    syntax = getattr(pydicom.uid, name)
    folder = slices(tmp_path / "s", ARRAY, PLACES)
    whole = frames(tmp_path / "e" / "a.dcm", ARRAY, PLACES)
    for path in (*folder.iterdir(), whole):
        data = pydicom.dcmread(path)
        if syntax.is_encapsulated:
            data.compress(syntax, generate_instance_uid=False)
        else:
            data.file_meta.TransferSyntaxUID = syntax
        data.save_as(path, enforce_file_format=True, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    assert_exact(read_image(folder))
    assert_exact(read_image(whole))


@pytest.mark.parametrize("implicit", [False, True])
def test_files_without_preamble_and_meta_header(implicit, tmp_path):
    folder = slices(tmp_path / "s", ARRAY, PLACES, name="IM{:04d}")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        )
        data.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
        content = path.read_bytes()
        path.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])
        assert path.read_bytes()[:2] == b"\x08\x00"
    assert_exact(read_image(folder))


def test_compressed_public_files_agree_with_the_plain_one():
    from pydicom.data import get_testdata_file

    pixels = []
    for name in ("", "_RLE", "_jp2klossless", "_jpeg_ls_lossless", "_bigendian", "_implicit", "_expb"):
        path = get_testdata_file(f"MR_small{name}.dcm")
        from barl.images.dicom.frames import frames_of
        from barl.images.dicom.headers import read_header
        from barl.images.dicom.pixels import intensities

        pixels.append(intensities(frames_of(read_header(Path(path)))))
    plain = pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array
    assert all(np.array_equal(found[0], plain) for found in pixels)
