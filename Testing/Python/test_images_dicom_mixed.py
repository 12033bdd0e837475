# SPDX-License-Identifier: Apache-2.0
"""Slices under one series UID that are of different scans or in different units, and scans that lack slices."""

from __future__ import annotations

import numpy as np
import pytest
from barl.errors import InputError
from barl.images.dicom.series import read_series
from barl.images.reading import read_image
from dicom_maker import ARRAY, CT, GRID, MR, PET, PLACES, assert_exact, frames, item, slices


@pytest.mark.parametrize("kernels", [("B30f", "B70f"), (["B30f", "3"], ["B70f", "3"])])
def test_slices_of_two_kernels_in_turn_are_no_finer_scan(kernels, tmp_path):
    places = [(-20.0, 30.0, 1.25 * k) for k in range(12)]
    both = np.stack([ARRAY, ARRAY + 500], axis=1).reshape(12, 9, 8)

    def change(data, k):
        data.ConvolutionKernel = kernels[k % 2]

    folder = slices(tmp_path / "s", both, places, change=change)
    with pytest.raises(InputError, match=r"2 series: .*kernel B30f.*kernel B70f"):
        read_image(folder)
    assert_exact(read_series(folder, "kernel B30f"))


@pytest.mark.parametrize("acquisition", [None, 4])
def test_images_missing_from_an_acquisition_are_told(acquisition, tmp_path):
    def change(data, k):
        data.ImagesInAcquisition = 6
        if acquisition is not None:
            data.AcquisitionNumber = acquisition

    notes: list[str] = []
    read_image(slices(tmp_path / "s", ARRAY[:5], PLACES[:5], change=change), notes)
    assert len(notes) == 1 and "speak of 6 images in its acquisition, but only 5 are there" in notes[0]
    notes.clear()
    read_image(slices(tmp_path / "t", ARRAY, PLACES, change=change), notes)
    assert notes == []

    def both(data, k):
        change(data, k)
        data.NumberOfSlices = 6

    read_image(slices(tmp_path / "u", ARRAY[:5], PLACES[:5], change=both), notes)
    assert notes == ["The tags of the scan speak of 6 slices, but only 5 are there."]


def test_the_images_of_an_acquisition_may_lie_in_other_stacks(tmp_path):
    """Several acquisitions, a scout and two echoes: no slice is missing."""

    def acquisitions(data, k):
        data.ImagesInAcquisition, data.AcquisitionNumber = 9, k

    def seven(data, k):
        data.ImagesInAcquisition = 7

    def echoes(data, k):
        data.ImagesInAcquisition, data.EchoTime = 12, (10, 80)[k // 6]

    notes: list[str] = []
    read_image(slices(tmp_path / "s", ARRAY, PLACES, sop_class=MR, change=acquisitions), notes)
    assert notes == []
    folder = slices(tmp_path / "t", ARRAY, PLACES, change=seven)
    slices(folder, ARRAY[:1], [(0, -50, 20)], orientation=(1, 0, 0, 0, 0, -1), first=7, change=seven)
    read_image(folder, notes, series="1")
    assert notes == ["1 image(s) of another direction or size were left out of the series."]
    notes.clear()
    folder = slices(tmp_path / "u", np.concatenate([ARRAY, ARRAY]), PLACES * 2, sop_class=MR, change=echoes)
    read_image(folder, notes, series="1")
    assert notes == []


@pytest.mark.parametrize(
    ("keyword", "units", "sop_class"), [("Units", ("BQML", "CNTS"), PET), ("RescaleType", ("HU", "US"), CT)]
)
def test_slices_of_different_units_are_refused(keyword, units, sop_class, tmp_path):
    def change(data, k):
        data.RescaleSlope, data.RescaleIntercept = 2, 0
        setattr(data, keyword, units[k % 2])

    with pytest.raises(InputError, match=f"different units: {units[0]} in '001.dcm', {units[1]} in '002.dcm'"):
        read_image(slices(tmp_path / "s", ARRAY, PLACES, sop_class=sop_class, change=change))

    def group(frame, k):
        frame.PixelValueTransformationSequence = [item(RescaleSlope=2, RescaleIntercept=0, RescaleType=units[k // 4])]

    with pytest.raises(InputError, match=f"{units[0]} in frame 1 of 'a.dcm', {units[1]} in frame 5 of"):
        read_image(frames(tmp_path / "a.dcm", ARRAY, PLACES, change=group))


@pytest.mark.parametrize("values", [("HU", "HU "), ("HU", "hu"), ("HU", ""), ("HU", None)])
def test_a_unit_written_otherwise_or_missing_is_no_other_unit(values, tmp_path):
    def change(data, k):
        if values[k % 2] is not None:
            data.RescaleType = values[k % 2]

    assert_exact(read_image(slices(tmp_path / "s", ARRAY, PLACES, change=change)))


@pytest.mark.parametrize(
    ("name", "study", "apart"),
    [
        ("Roe^Ann", "1.2.3.5", True),
        ("", "1.2.3.5", True),
        ("Roe^Ann", "1.2.3.4", False),  # one examination, whatever the names
        ("DOE^JANE^^", "1.2.3.5", False),
        (" doe jane", "1.2.3.5", False),
        ("Doe, Jane", "1.2.3.5", False),
        ("DoeJane", "1.2.3.5", False),
    ],
)
def test_patients_without_a_number_are_told_apart_by_name_and_study(name, study, apart, tmp_path):
    def change(data, k):
        data.PatientID, data.PatientName, data.StudyInstanceUID = "", "Doe^Jane", "1.2.3.4"
        if k % 2:
            data.PatientName, data.StudyInstanceUID = name, study

    folder = slices(tmp_path / "s", ARRAY, PLACES, change=change)
    if not apart:
        assert_exact(read_image(folder))
        return
    with pytest.raises(InputError, match=r"2 series: 1 .CT, 8 x 9 x 3.; 2 "):
        read_image(folder)
    assert_exact(read_image(folder, series="2"), ARRAY[1::2], ((0.7, 0.9, 5.0), (-20.0, 30.0, 2.5), GRID[2]))
