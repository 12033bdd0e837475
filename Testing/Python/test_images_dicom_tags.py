# SPDX-License-Identifier: Apache-2.0
"""Volumes from the tags of every frame: exact voxels and geometry, or one sentence that names the file or the frame."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.images.dicom.series import list_series, read_series
from barl.images.reading import read_image
from dicom_maker import (
    ARRAY,
    CT,
    ENHANCED_MR,
    GRID,
    MR,
    NM,
    PLACES,
    STORAGE,
    assert_exact,
    dataset,
    frames,
    item,
    save,
    slices,
)

# ---- geometry


@pytest.mark.parametrize("value", [2.5, -2.5, 0, "", 7])
def test_positions_decide_whatever_spacing_between_slices_says(value, tmp_path):
    def change(data, k):
        data.SpacingBetweenSlices = value

    assert_exact(read_image(slices(tmp_path / "s", ARRAY, PLACES, change=change)))
    for path in (frames(tmp_path / "e" / "a.dcm", ARRAY, PLACES, edit=lambda data: change(data, 0)), tmp_path / "e"):
        assert_exact(read_image(path))


@pytest.mark.parametrize("order", [[5, 4, 3, 2, 1, 0], [0, 2, 4, 1, 3, 5], [3, 0, 5, 1, 4, 2]])
def test_frames_in_any_order(order, tmp_path):
    places = [PLACES[k] for k in order]
    assert_exact(read_image(frames(tmp_path / "a.dcm", ARRAY[order], places)))
    assert_exact(read_image(slices(tmp_path / "s", ARRAY[order], places)))


def test_an_oblique_stack_lies_where_its_tags_say(tmp_path):
    turn = np.array([[0.8, -0.6, 0.0], [0.36, 0.48, -0.8], [0.48, 0.64, 0.6]])
    places = [np.array([4.0, -7.0, 11.0]) + 2.5 * k * turn[:, 2] for k in range(6)]
    direction = tuple(turn.ravel())
    orientation = [*turn[:, 0], *turn[:, 1]]
    image = read_image(slices(tmp_path / "s", ARRAY, places, orientation=orientation))
    assert_exact(image, grid=((0.7, 0.9, 2.5), (4.0, -7.0, 11.0), direction))
    image = read_image(frames(tmp_path / "a.dcm", ARRAY[::-1], places[::-1], orientations=[orientation] * 6))
    assert_exact(image, grid=((0.7, 0.9, 2.5), (4.0, -7.0, 11.0), direction))


GAP = [p for k, p in enumerate([(-20.0, 30.0, 2.5 * k) for k in range(8)]) if k not in (3, 4)]
TILTED = [(x, y + 0.3 * z, z) for x, y, z in PLACES]
SLIGHTLY = [(x, y + 0.01 * z, z) for x, y, z in PLACES]
SHIFTED = [(x + 3.0 * (k == 2), y, z) for k, (x, y, z) in enumerate(PLACES)]


@pytest.mark.parametrize(
    ("places", "match"),
    [
        (GAP, "unevenly spaced slices .2.50 to 7.50 mm apart; look between .*3.* and .*4"),
        (TILTED, "gantry tilt of 16.7 degrees"),
        (SLIGHTLY, "gantry tilt of 0.6 degrees"),
        (SHIFTED, r"shifted sideways by 3 mm \(.*3"),
    ],
)
def test_stacks_that_are_bent_are_refused_classic_and_enhanced(places, match, tmp_path):
    for path in (slices(tmp_path / "s", ARRAY, places), frames(tmp_path / "a.dcm", ARRAY, places)):
        with pytest.raises(InputError, match=match) as caught:
            read_image(path)
        assert "regularization" in caught.value.remedy


@pytest.mark.parametrize(
    ("keyword", "value", "match"),
    [
        ("PixelSpacing", None, "does not say how large its pixels are"),
        ("PixelSpacing", "", "does not say how large its pixels are"),
        ("PixelSpacing", [0, 0], "impossible pixel spacing"),
        ("PixelSpacing", [-0.7, 0.7], "impossible pixel spacing"),
        ("PixelSpacing", [0.7], "PixelSpacing is damaged"),
        ("ImagePositionPatient", None, "does not say where it lies"),
        ("ImagePositionPatient", "", "does not say where it lies"),
        ("ImagePositionPatient", [0, 0], "ImagePositionPatient is damaged"),
        ("ImageOrientationPatient", None, "does not say which way it lies"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "not at right angles"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "not at right angles"),
        ("RescaleSlope", 0, "slope of 0"),
        ("PhotometricInterpretation", "RGB", "color image"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"], "mosaic"),
        ("ModalityLUTSequence", [pydicom.Dataset()], "given by a table"),
    ],
)
@pytest.mark.parametrize("victim", [0, 3, 5])
def test_a_slice_without_a_needed_tag_is_named(keyword, value, match, victim, tmp_path):
    def change(data, k):
        if k == victim:
            delattr(data, keyword) if value is None else setattr(data, keyword, value)

    with pytest.raises(InputError, match=match) as caught:
        read_image(slices(tmp_path / "scan", ARRAY, PLACES, change=change))
    assert f"'{victim + 1:03d}.dcm'" in caught.value.message


@pytest.mark.parametrize("text", [b"nan\\0", b"0,0\\0,0\\2,5 ", b"1e999\\0\\0 "])
def test_numbers_that_are_none(text, tmp_path):
    path = slices(tmp_path / "scan", ARRAY, PLACES) / "004.dcm"
    content = path.read_bytes()
    start = content.index(b"\x20\x00\x32\x00DS")
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    path.write_bytes(content[: start + 8] + text.ljust(length)[:length] + content[start + 8 + length :])
    with pytest.raises(InputError, match=r"'004.dcm' does not say where it lies"):
        read_image(tmp_path / "scan")


def test_an_enhanced_file_without_geometry_is_refused(tmp_path):
    def bare(data):
        del data.SharedFunctionalGroupsSequence

    with pytest.raises(InputError, match=r"frame 1 of 'a.dcm' does not say how large"):
        read_image(frames(tmp_path / "a.dcm", ARRAY, PLACES, edit=bare))

    def fewer(data):
        del data.PerFrameFunctionalGroupsSequence[5]

    with pytest.raises(InputError, match="says that it has 6 frames but describes 5"):
        read_image(frames(tmp_path / "b.dcm", ARRAY, PLACES, edit=fewer))


@pytest.mark.parametrize("step", [2.5, -2.5])
def test_nuclear_medicine_goes_along_its_normal_or_against_it(step, tmp_path):
    data = dataset(NM, ARRAY, series="1.2.5", instance="1.2.5.1")
    data.NumberOfFrames = data.NumberOfSlices = 6
    data.PixelSpacing, data.SpacingBetweenSlices = [0.9, 0.7], step
    data.DetectorInformationSequence = [
        item(ImagePositionPatient=[-20, 30, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    ]
    image = read_image(save(data, tmp_path / "nm.dcm"))
    if step > 0:
        assert_exact(image)
    else:
        assert_exact(image, ARRAY[::-1], (GRID[0], (-20.0, 30.0, -12.5), GRID[2]))


# ---- what is no scan, or not all of it


OBJECTS = {
    "66.4": "SEG",
    "66.7": "SEG",
    "481.3": "RTSTRUCT",
    "481.2": "RTDOSE",
    "7": "secondary capture",
    "7.3": "secondary capture",
    "88.33": "structured report",
    "104.1": "PDF",
    "11.1": "presentation state",
    "30": "parametric map",
    "1.1": "projection",
}


@pytest.mark.parametrize("ending", OBJECTS)
def test_other_objects_are_named_as_what_they_are(ending, tmp_path):
    def other(data, k):
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = STORAGE + ending

    folder = slices(tmp_path / "s", ARRAY, PLACES, change=other)
    for path in (folder, folder / "001.dcm"):
        with pytest.raises(InputError, match=OBJECTS[ending]) as caught:
            read_image(path)
        assert path.name in caught.value.message
    slices(folder, ARRAY, PLACES, first=101)
    assert_exact(read_image(folder))


def test_a_scout_is_named_and_left_out_on_request(tmp_path):
    folder = slices(tmp_path / "s", ARRAY, PLACES)
    slices(folder, ARRAY[:1], [(0, -50, 20)], orientation=(1, 0, 0, 0, 0, -1), first=7)
    with pytest.raises(InputError, match=r"another direction or size \(a scout\?\): '007.dcm'.*--series 1"):
        read_image(folder)
    notes: list[str] = []
    assert_exact(read_image(folder, notes, series="1"))
    assert notes == ["1 image(s) of another direction or size were left out of the series."]
    # With a series of its own it is no volume that could be meant.
    other = slices(tmp_path / "t", ARRAY, PLACES)
    slices(other, ARRAY[:1], [(0, -50, 20)], orientation=(1, 0, 0, 0, 0, -1), first=7, series="1.2.9")
    notes.clear()
    assert_exact(read_image(other, notes))
    assert "1 single picture" in notes[0]


def test_patients_whose_series_have_one_uid_are_kept_apart(tmp_path):
    """As a program that makes data anonymous may leave them: their slices would interleave into a finer scan."""

    def change(data, k):
        data.PatientID = f"P{k % 2}"

    folder = slices(tmp_path / "s", ARRAY, PLACES, change=change)
    with pytest.raises(InputError, match=r"2 series: 1 .CT, 8 x 9 x 3.; 2 "):
        read_image(folder)
    grid = ((0.7, 0.9, 5.0), (-20.0, 30.0, 2.5), GRID[2])
    assert_exact(read_image(folder, series="2"), ARRAY[1::2], grid)


def test_frames_of_reference_that_change_are_told(tmp_path):
    def change(data, k):
        data.FrameOfReferenceUID = f"1.2.{3 + k // 3}"

    notes: list[str] = []
    assert_exact(read_image(slices(tmp_path / "s", ARRAY, PLACES, change=change), notes))
    assert len(notes) == 1 and "2 coordinate systems" in notes[0]


def test_a_slice_that_lacks_the_scale_of_the_others_is_named(tmp_path):
    def change(data, k):
        if k != 3:
            data.RescaleSlope, data.RescaleIntercept = 2, -5

    def group(frame, k):
        if k != 3:
            frame.PixelValueTransformationSequence = [item(RescaleSlope=2, RescaleIntercept=-5, RescaleType="US")]

    for path, name in (
        (slices(tmp_path / "s", ARRAY, PLACES, change=change), "'004.dcm'"),
        (frames(tmp_path / "a.dcm", ARRAY, PLACES, change=group), "frame 4 of 'a.dcm'"),
    ):
        with pytest.raises(InputError, match=f"without a rescale slope .*: {name}"):
            read_image(path)


def test_a_mosaic_is_named_by_its_private_tag_too(tmp_path):
    def change(data, k):
        data.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
        data.add_new(0x0019100A, "US", 9)

    with pytest.raises(InputError, match="all slices side by side"):
        read_image(slices(tmp_path / "s", ARRAY, PLACES, sop_class=MR, change=change))


def test_identical_copies_are_taken_once_and_told(tmp_path):
    folder = slices(tmp_path / "s", ARRAY, PLACES)
    shutil.copy(folder / "002.dcm", folder / "002(1).dcm")
    (folder / "sub").mkdir()
    shutil.copy(folder / "003.dcm", folder / "sub" / "x.dcm")
    notes: list[str] = []
    assert_exact(read_image(folder, notes))
    assert notes == ["2 of the DICOM files are copies of others and were taken once."]
    data = pydicom.dcmread(folder / "002(1).dcm")
    data.PixelData = bytes(len(data.PixelData))
    data.save_as(folder / "002(1).dcm")
    with pytest.raises(InputError, match=r"same image, but their pixels differ"):
        read_image(folder)


def test_a_series_uid_for_every_slice_is_one_scan(tmp_path):
    for k in range(6):
        slices(tmp_path / "s", ARRAY[k : k + 1], PLACES[k : k + 1], series=f"1.2.8.{k + 1}", first=k + 1)
    notes: list[str] = []
    assert_exact(read_image(tmp_path / "s", notes))
    assert "series UID of its own" in notes[0]


@pytest.mark.parametrize("victim", ["001.dcm", "004.dcm", "006.dcm"])
@pytest.mark.parametrize("keep", [0, 20, 300, 500, -30])
def test_a_damaged_slice_is_named_and_never_just_missing(victim, keep, tmp_path):
    path = slices(tmp_path / "s", ARRAY, PLACES) / victim
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=f"'{victim}'") as caught:
        read_image(tmp_path / "s")
    assert "damaged or cut off" in caught.value.message
    path.write_bytes(bytes(400))
    with pytest.raises(InputError, match=f"'{victim}'"):
        read_image(tmp_path / "s")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("sop_class", ["", "1.2.840.10008.9.9", "1>2.840", "1.3.12.2.1107.5.9.1"])
def test_a_slice_that_does_not_say_what_it_is_is_never_just_missing(sop_class, tmp_path):
    def change(data, k):
        if k == 0:
            data.SOPClassUID, data.Modality = sop_class, ""
            data.file_meta.MediaStorageSOPClassUID = sop_class or "1.2.3"

    with pytest.raises(InputError, match=r"'001.dcm'"):
        read_image(slices(tmp_path / "s", ARRAY, PLACES, change=change))


def test_tags_about_pixels_that_contradict_them(tmp_path):
    for keyword, value in (("Rows", 4), ("BitsStored", 0), ("HighBit", 7), ("PixelRepresentation", 7), ("Columns", 4)):

        def change(data, k, keyword=keyword, value=value):
            setattr(data, keyword, value)

        with pytest.raises(InputError, match=r"\.dcm'"):
            read_image(slices(tmp_path / keyword, ARRAY, PLACES, change=change))


def test_files_of_a_viewer_are_no_slices(tmp_path):
    folder = slices(tmp_path / "disc" / "IMAGES", ARRAY, PLACES, name="IM{:06d}")
    (tmp_path / "disc" / "VIEWER.EXE").write_bytes(b"MZ" + bytes(5000))
    (folder / "readme.txt").write_text("a viewer")
    assert_exact(read_image(tmp_path / "disc"))
    # One of the slices has lost its beginning; its name gives it away.
    (folder / "IM000006").write_bytes(bytes(400))
    with pytest.raises(InputError, match="'IM000006'"):
        read_image(tmp_path / "disc")


def test_a_disc_is_its_folder(tmp_path):
    data = dataset(CT, ARRAY[0], series="1.2", instance="1.2.1")
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    del data.SOPClassUID
    slices(tmp_path / "CD 1" / "IMAGES", ARRAY, PLACES)
    save(data, tmp_path / "CD 1" / "DICOMDIR")
    with pytest.raises(InputError, match=r"'DICOMDIR' is the table of contents .* Choose the folder.*'CD 1'"):
        read_image(tmp_path / "CD 1" / "DICOMDIR")
    assert_exact(read_image(tmp_path / "CD 1"))


# ---- several volumes


def woven(tmp_path: Path, change, sop_class: str = MR, interleaved: bool = True) -> Path:
    """Two volumes in one series: the second one brighter by 500, its slices between or behind those of the first."""
    order = [n for k in range(6) for n in (k, k + 6)] if interleaved else range(12)
    both = np.concatenate([ARRAY, ARRAY + 500])
    places = PLACES * 2
    return slices(
        tmp_path / "s",
        both[list(order)],
        [places[n] for n in order],
        sop_class=sop_class,
        change=lambda data, k: change(data, order[k] // 6),
    )


MARKS = {
    "echo time": lambda data, v: setattr(data, "EchoTime", (10, 80)[v]),
    "time point": lambda data, v: setattr(data, "TemporalPositionIdentifier", v + 1),
    "acquisition": lambda data, v: setattr(data, "AcquisitionNumber", v + 1),
    "image type": lambda data, v: setattr(data, "ImageType", ["ORIGINAL", "PRIMARY", "MP"[v]]),
    "b-value": lambda data, v: data.add_new(0x0019100C, "IS", (0, 1000)[v]),
    "heart phase": lambda data, v: setattr(data, "TriggerTime", (0, 400)[v]),
}


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("interleaved", [True, False])
def test_volumes_woven_together_are_named_and_chosen(mark, interleaved, tmp_path):
    folder = woven(tmp_path, MARKS[mark], interleaved=interleaved)
    with pytest.raises(InputError, match=r"2 series: 1 \(MR, 8 x 9 x 6, .*; 2 \(") as caught:
        read_image(folder)
    assert {"heart phase": "time point"}.get(mark, mark) in caught.value.message
    assert_exact(read_series(folder, "1"))
    assert_exact(read_series(folder, "2"), ARRAY + 500)


def test_volumes_that_only_their_numbers_tell_apart(tmp_path):
    folder = woven(tmp_path, lambda data, v: None, interleaved=False)
    assert [item.description for item in list_series(folder)] == ["volume 1 of 2", "volume 2 of 2"]
    assert_exact(read_series(folder, "2"), ARRAY + 500)
    folder = woven(tmp_path / "a", lambda data, v: None)  # the numbers run through the images at one place first
    assert_exact(read_series(folder, "2"), ARRAY + 500)
    folder = woven(tmp_path / "b", lambda data, v: setattr(data, "InstanceNumber", 1))
    with pytest.raises(InputError, match=r"several slices at one place .* such as '001.dcm' and '002.dcm'"):
        read_image(folder)


def test_slices_of_two_echoes_in_turn_are_no_finer_scan(tmp_path):
    places = [(-20.0, 30.0, 1.25 * k) for k in range(12)]
    both = np.stack([ARRAY, ARRAY + 500], axis=1).reshape(12, 9, 8)

    def change(data, k):
        data.EchoTime = (10, 80)[k % 2]

    folder = slices(tmp_path / "s", both, places, sop_class=MR, change=change)
    with pytest.raises(InputError, match=r"2 series: .*echo time 10.*echo time 80"):
        read_image(folder)
    assert_exact(read_series(folder, "echo time 10"))


def test_enhanced_volumes_in_one_file(tmp_path):
    both, places = np.concatenate([ARRAY, ARRAY + 500]), PLACES * 2

    def time_point(frame, k):
        frame.FrameContentSequence[0].TemporalPositionIndex = k // 6 + 1

    def diffusion(frame, k):
        frame.MRDiffusionSequence = [item(DiffusionBValue=float((0, 800)[k // 6]))]

    for name, change in {"time point": time_point, "b-value": diffusion, "volume": lambda frame, k: None}.items():
        path = frames(tmp_path / name / "a.dcm", both, places, sop_class=ENHANCED_MR, change=change)
        for where in (path, path.parent):
            with pytest.raises(InputError, match=f"2 series: .*{name}"):
                read_image(where)
            assert_exact(read_image(where, series="2"), ARRAY + 500)


def test_directions_at_two_b_values(tmp_path):
    """b 0 once and b 1000 in three directions, as one file."""
    all_four = np.concatenate([ARRAY + 100 * n for n in range(4)])

    def change(frame, k):
        volume = k // 6
        diffusion = item(DiffusionBValue=1000.0 if volume else 0.0)
        if volume:
            way = item(DiffusionGradientOrientation=[float(volume == n) for n in (1, 2, 3)])
            diffusion.DiffusionGradientDirectionSequence = [way]
        frame.MRDiffusionSequence = [diffusion]

    path = frames(tmp_path / "a.dcm", all_four, PLACES * 4, sop_class=ENHANCED_MR, change=change)
    found = list_series(tmp_path)
    assert [entry.description for entry in found] == ["b-value 0"] + [
        f"b-value 1000, direction {n} of 3" for n in (1, 2, 3)
    ]
    for entry in found:
        image = sitk.GetArrayFromImage(read_image(path, series=str(entry.number)))
        assert any(np.array_equal(image, ARRAY + 100 * n) for n in range(4))
    assert_exact(read_image(path, series="1"))


def test_series_of_one_folder_are_listed_and_chosen(tmp_path):
    names = ("native", "arterial", "venous")
    for n, text in enumerate(names):

        def change(data, k, n=n, text=text):
            data.SeriesNumber, data.SeriesDescription = 3 * n + 2, text

        slices(tmp_path, ARRAY + 100 * n, PLACES, series=f"1.2.7.{n}", name=f"{n}" + "{:04d}", change=change)
    found = list_series(tmp_path)
    assert [(s.number, s.description, s.size, s.n_files) for s in found] == [
        (3 * n + 2, text, (8, 9, 6), 6) for n, text in enumerate(names)
    ]
    with pytest.raises(InputError, match=r"3 series: 2 \(CT, 8 x 9 x 6, native\); 5 \(CT.*arterial"):
        read_image(tmp_path)
    for wanted in ("5", "arterial", "ARTER", found[1].uid):
        assert_exact(read_image(tmp_path, series=wanted), ARRAY + 100)
    for wanted in ("1", "portal", "a", ""):
        with pytest.raises(InputError, match="Choose one"):
            read_image(tmp_path, series=wanted)
