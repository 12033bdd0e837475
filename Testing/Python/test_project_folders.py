# SPDX-License-Identifier: Apache-2.0
"""Folders of scans: what is right is taken, the rest is reported; patterns, links and sides of the body."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.project.case_finding import find_cases
from barl.project.doubts import Doubt
from barl.project.labels import Channel, Code, Label, Terminology
from barl.project.scans import add_cases, stem
from barl.project.sides import sided_values
from barl.project.store import Project
from dicom_maker import CT, PET, STORAGE, dataset, item, save, slices
from pydicom.dataset import Dataset

ARRAY = np.random.default_rng(0).integers(0, 200, (6, 9, 8)).astype(np.int16)


def scan(path: Path, shift: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY + np.int16(shift)), str(path))
    return path


def run(capsys, *words, code: int = 0) -> dict:
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def a_project(folder: Path, *channels: Channel) -> Project:
    return Project.create(folder, "study", [Label(1, "liver"), Label(2, "tumor")], list(channels) or [Channel("CT")])


def left(content) -> dict[str, str]:
    return {item.name: item.reason.message for item in content.left_out}


def test_one_incomplete_case_stops_no_other(tmp_path, capsys):
    for n in range(4):
        for channel in ("T1", "FLAIR"):
            if (n, channel) != (2, "FLAIR"):
                scan(tmp_path / "i" / f"s{n}_{channel}.nii.gz", 10 * n + len(channel))
        scan(tmp_path / "l" / f"s{n}.nii.gz")
    (tmp_path / "i" / "s1_T1.nii.gz").write_bytes(b"damaged")
    run(capsys, "project", "new", tmp_path / "p", "--label", "1=a", "--channel", "T1=T1", "--channel", "FLAIR=FLAIR")
    answer = run(capsys, "add", tmp_path / "p", "--images", tmp_path / "i", code=2)
    assert [case["name"] for case in answer["cases"]] == ["s0", "s3"]
    assert {item["name"]: item["message"] for item in answer["failed"]} == {
        "s1": "'s1_T1.nii.gz' is not an image file of a known kind, or its beginning is damaged.",
        "s2": "The case 's2' has no file of channel FLAIR.",
    }
    # The folder has grown: the new one is added, those that are there already are told.
    scan(tmp_path / "i" / "s2_FLAIR.nii.gz", 25)
    answer = run(capsys, "add", tmp_path / "p", "--images", tmp_path / "i", code=2)
    assert [case["name"] for case in answer["cases"]] == ["s2"]
    assert {item["name"] for item in answer["failed"]} == {"s1"}
    assert "2 cases are in the project already and unchanged." in answer["notes"]


def test_every_file_that_is_not_taken_is_told(tmp_path):
    images = tmp_path / "images"
    for name in ("c1.nii.gz", "c2.nrrd", "c3/t1.nii.gz"):
        scan(images / name)
    nib.save(nib.Nifti1Pair(ARRAY.T, np.eye(4)), images / "c4.img")
    nib.save(nib.MGHImage(ARRAY.T.astype(np.float32), np.eye(4)), images / "c5.mgz")
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(images / "c6.mhd"))
    for name in ("c7.gipl", "notes.txt", "._c1.nii.gz", "c8.seg.nrrd", "lonely.img"):
        (images / name).write_bytes(b"x")
    content = find_cases(images, [Channel("CT")])
    assert [case.name for case in content.cases] == ["c1", "c2", "c4", "c5", "c6"]
    assert left(content) == {
        "c3": "It is a folder.",
        "c7.gipl": "It is a GIPL file, which is not supported.",
        "notes.txt": "It is no volume file.",
        "c8.seg.nrrd": "It is a segmentation, not a scan.",
        "lonely.img": "It is no volume file.",
    }
    assert [item.name for item in content.left_out if not item.is_scan] == ["c8.seg.nrrd", "lonely.img", "notes.txt"]
    with a_project(tmp_path / "p") as project:
        intake = add_cases(project, content.cases, allow=[Doubt.SAME_SCAN])
    assert (len(intake.added), intake.left_out) == (5, ())


def test_outlines_without_a_scan_and_twice_the_same(tmp_path):
    for name in ("i/a.nii.gz", "i/b.nii.gz", "l/a.nii.gz", "l/a.nrrd", "l/gone.nii.gz", "l/b.seg.nrrd"):
        scan(tmp_path / name)
    content = find_cases(tmp_path / "i", [Channel("CT")], tmp_path / "l")
    assert [(case.name, case.label.name) for case in content.cases] == [("b", "b.seg.nrrd")]
    assert left(content) == {
        "a": "'a.nii.gz' and 'a.nrrd' are both outlines of the case 'a'.",
        "gone.nii.gz": "There is no scan for this outline.",
    }


@pytest.mark.parametrize(
    ("names", "channels", "expected"),
    [
        (
            ["T1study_p1_T2.nii", "T1study_p1_T1.nii"],
            "T1 T2",
            {"T1study_p1": ["T1study_p1_T1.nii", "T1study_p1_T2.nii"]},
        ),
        (["p1_T1.nii", "p1_T1c.nii"], "T1 T1c", {"p1": ["p1_T1.nii", "p1_T1c.nii"]}),
        (["T1_p1.nii", "T2_p1.nii"], "T1 T2", {"p1": ["T1_p1.nii", "T2_p1.nii"]}),
        (["PT1_T1.nii", "PT1_CT.nii"], "T1 CT", {"PT1": ["PT1_T1.nii", "PT1_CT.nii"]}),
        (["a_0000_0000.nii", "a_0000_0001.nii"], "_0000 _0001", {"a_0000": ["a_0000_0000.nii", "a_0000_0001.nii"]}),
        (["b001flair.nii", "b001t2.nii"], "flair t2", {"b001": ["b001flair.nii", "b001t2.nii"]}),
        (["flair_x_t1.nii", "flair_x_flair.nii"], "t1 flair", {"flair_x": ["flair_x_t1.nii", "flair_x_flair.nii"]}),
    ],
)
def test_patterns_match_where_they_are_meant(names, channels, expected, tmp_path):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    content = find_cases(tmp_path, [Channel(word.strip("_"), word) for word in channels.split()])
    assert {case.name: [path.name for path in case.channels] for case in content.cases} == expected
    assert not content.left_out


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_links_keep_their_own_names(tmp_path):
    for n in (1, 2):
        scan(tmp_path / "store" / f"MD5E-s{n}--cafe{n}.nii.gz", n)
        scan(tmp_path / f"pat{n}" / "T1.nii.gz", n)
        for folder, target in (("annex", f"store/MD5E-s{n}--cafe{n}.nii.gz"), ("links", f"pat{n}/T1.nii.gz")):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"sub-{n:02d}.nii.gz").symlink_to(tmp_path / target)
    for folder in ("annex", "links"):
        content = find_cases(tmp_path / folder, [Channel("CT")], tmp_path / "links")
        assert [(case.name, case.label.name) for case in content.cases] == [
            ("sub-01", "sub-01.nii.gz"),
            ("sub-02", "sub-02.nii.gz"),
        ]
    (tmp_path / "links" / "sub-03.nii.gz").symlink_to(tmp_path / "gone")
    with a_project(tmp_path / "p") as project:
        intake = add_cases(project, find_cases(tmp_path / "links", [Channel("CT")]).cases)
        assert [item.case.name for item in intake.added] == ["sub-01", "sub-02"]
        assert [item.name for item in intake.left_out] == ["sub-03"]
    assert stem(tmp_path / "links" / "sub-01.nii.gz") == "sub-01"


def test_the_outline_that_was_named_is_the_one_that_is_stored(tmp_path):
    scan(tmp_path / "s.nii.gz")
    outline = np.zeros(ARRAY.shape, np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(outline), str(tmp_path / "x.nii"))
    outline[1:4, 2:6, 1:5] = 1
    sitk.WriteImage(sitk.GetImageFromArray(outline), str(tmp_path / "x.nii.gz"))
    with a_project(tmp_path / "p") as project:
        for name, count in (("x.nii.gz", 48), ("x.nii", 0)):
            case = project.cases.add(name, [tmp_path / "s.nii.gz"], label=tmp_path / name)
            stored = sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.newest(case.id).path)))
            assert np.count_nonzero(stored) == count


def test_what_was_changed_stays_in_the_journal_and_names_no_file(tmp_path, capsys):
    array = ARRAY.astype(np.float32)
    array[3, 4, 5] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(np.pad(array, 20)), str(tmp_path / "Doe_Jane.nrrd"))
    run(capsys, "project", "new", tmp_path / "p", "--label", "1=a")
    answer = run(capsys, "add", tmp_path / "p", tmp_path / "Doe_Jane.nrrd", "--name", "c1")
    note = "1 voxels without a finite value were set to the scan's minimum."
    assert note in answer["cases"][0]["notes"]
    with Project.open(tmp_path / "p", read_only=True) as project:
        (entry,) = [entry for entry in project.journal.entries() if entry.action == "case added"]
    assert note in entry.facts["notes"]
    assert "Doe" not in json.dumps(entry.facts)
    assert (
        main(["add", str(tmp_path / "p"), str(tmp_path / "Doe_Jane.nrrd"), "--name", "c2", "--allow", "same-scan"]) == 0
    )
    assert f"Note: {note} (c2)" in capsys.readouterr().out


# ---- sides


@pytest.mark.parametrize(
    ("names", "sided"),
    [
        ("left kidney|right kidney|liver", [1, 2]),
        ("kidney_L|kidney_R|liver", [1, 2]),
        ("KidneyLeft|KidneyRight", [1, 2]),
        ("Niere links|Niere rechts|Leber", [1, 2]),
        ("rein gauche|rein droit", [1, 2]),
        ("riñón izquierdo|riñón derecho", [1, 2]),
        ("RKidney|LKidney|spleen", [1, 2]),
        ("lh.hippocampus|rh.hippocampus", [1, 2]),
        ("left|tumor", [1]),
        ("左腎|右腎|肝", [1, 2]),
        ("bright spot|leftover|cleft", []),
        ("L1|L2|L3", []),
        ("l|tumor", []),
        ("plaque|vessel D|vessel S2", []),
        ("ureter dex|ureter sin", [1, 2]),
    ],
)
def test_labels_that_say_a_side(names, sided):
    labels = [Label(n, name) for n, name in enumerate(names.split("|"), 1)]
    assert sided_values(labels) == sided


def test_sides_from_terminology():
    right = Terminology(Code("SCT", "1", "Organ"), Code("SCT", "64033007", "Kidney"), Code("SCT", "24028007", "Right"))
    assert sided_values([Label(1, "Organ A", terminology=right), Label(2, "Organ B")]) == [1]


def test_a_project_with_sides_is_told_and_never_mirrored(tmp_path, capsys):
    words = ["project", "new", str(tmp_path / "p"), "--label", "1=left kidney", "--label", "2=right kidney"]
    assert main(words) == 0
    assert (
        "Taken as left or right by their names, and never mirrored: left kidney, right kidney."
        in capsys.readouterr().out
    )
    with Project.open(tmp_path / "p") as project:
        assert [label.lateral for label in project.labels] == [True, True]


def test_a_folder_for_each_case_with_its_scan_and_outline_in_it(tmp_path, capsys):
    for n in range(3):
        home = tmp_path / "ward" / f"baby {n}"
        scan(home / "ADC.nrrd", 10 * n)
        scan(home / "Z_ADC.nrrd", 10 * n + 5)
        if n != 1:
            label = sitk.GetImageFromArray((ARRAY > 150).astype(np.uint8))
            (home / "manual").mkdir()
            sitk.WriteImage(label, str(home / "manual" / "lesion.nii.gz"))
    (tmp_path / "ward" / "baby 2" / "Z_ADC.nrrd").rename(tmp_path / "ward" / "baby 2" / "other.nrrd")
    (tmp_path / "ward" / "papers").mkdir()
    words = ["--label", "1=lesion", "--channel", "ADC", "--channel", "Z_ADC"]
    run(capsys, "project", "new", tmp_path / "p", *words)
    added = run(capsys, "add", tmp_path / "p", "--images", tmp_path / "ward", "--labels", tmp_path / "ward", code=2)
    assert [(case["name"], case["state"]) for case in added["cases"]] == [("baby 0", "accepted"), ("baby 1", "new")]
    (problem,) = (item["message"] for item in added["failed"] if item["name"] == "baby 2")
    assert problem == "Of the files of 'baby 2' ('ADC.nrrd', 'other.nrrd') none could be the channel Z_ADC."
    with Project.open(tmp_path / "p", read_only=True) as project:
        images = [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in project.cases.image_paths("baby 1")]
        assert np.array_equal(images[0], ARRAY + 10) and np.array_equal(images[1], ARRAY + 15)


@pytest.mark.parametrize("home", ["scan", "MR_T1/scan", "."])
def test_a_structure_set_in_a_dicom_folder_is_the_outline_wherever_it_lies(home, tmp_path, capsys):
    places = [(0.0, 0.0, 2.0 * k) for k in range(len(ARRAY))]
    for n in range(3):
        case, uid = tmp_path / "ward" / f"A{n}", f"1.2.3.{n}"
        slices(case / home, ARRAY + np.int16(n), places, series=uid, spacing=(1, 1))
        if n < 2:
            save(a_square(f"1.2.9.{n}", places[2][2]), case / home.replace("scan", "mask") / "RS.dcm")
    run(capsys, "project", "new", tmp_path / "p", "--label", "1=tumor")
    words = ["add", tmp_path / "p", "--images", tmp_path / "ward", "--labels", tmp_path / "ward"]
    added = run(capsys, *words)
    assert [(case["name"], case["state"]) for case in added["cases"]] == [
        ("A0", "accepted"), ("A1", "accepted"), ("A2", "new"),
    ]  # fmt: skip
    assert any("structure set in the case's folder" in note for note in added["cases"][0]["notes"])
    assert added["cases"][2]["notes"] == [] and added["notes"] == []
    with Project.open(tmp_path / "p", read_only=True) as project:
        (path,) = (project.folder / "cases" / "case_0001").rglob("revision*/*.nii.gz")
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).sum() == 9


def a_square(instance: str, z: float) -> Dataset:
    """A structure set with a square of 3 x 3 voxels."""
    data = dataset(STORAGE + "481.3", ARRAY[:0], series="1.2.3.77", instance=instance)
    corners = [(2, 2), (4, 2), (4, 4), (2, 4)]
    data.StructureSetROISequence = [item(ROINumber=1, ROIName="tumor")]
    contour = item(
        ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=4,
        ContourData=[float(value) for x, y in corners for value in (x, y, z)],
    )  # fmt: skip
    data.ROIContourSequence = [item(ReferencedROINumber=1, ContourSequence=[contour])]
    return data


def test_what_is_left_out_for_one_reason_is_told_in_one_line(tmp_path, capsys):
    for n in range(5):
        scan(tmp_path / "scans" / f"c{n}.nrrd", n)
    run(capsys, "project", "new", tmp_path / "p", "--label", "1=tumor")
    for n in range(5):
        label = sitk.GetImageFromArray((ARRAY > 150).astype(np.uint8) * 7)
        (tmp_path / "outlines").mkdir(exist_ok=True)
        sitk.WriteImage(label, str(tmp_path / "outlines" / f"c{n}.nrrd"))
    words = ["add", tmp_path / "p", "--images", tmp_path / "scans", "--labels", tmp_path / "outlines"]
    assert main([*map(str, words)]) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Left out")]
    assert len(lines) == 1 and lines[0].startswith(
        "Left out c0 and 4 more: The label map 'c0.nrrd' holds the value(s) 7"
    )


def test_a_dicom_folder_for_each_case_with_outlines_elsewhere(tmp_path, capsys):
    places = [(0.0, 0.0, 2.0 * k) for k in range(len(ARRAY))]
    for n in range(2):
        for number, sop_class, shift in ((2, CT, 0), (3, PET, 50)):

            def change(data, k, number=number, n=n):
                data.SeriesNumber, data.PatientID = number, f"P{n}"

            home = tmp_path / "pacs" / f"A{n}" / "20200101" / str(number)
            pixels, uid = (ARRAY + n + shift).astype(np.int16), f"1.2.3.{n}.{number}"
            slices(home, pixels, places, sop_class=sop_class, series=uid, change=change, spacing=(1, 1))
    label = sitk.GetImageFromArray((ARRAY > 150).astype(np.uint8))
    label.SetSpacing((1, 1, 2))
    for name in ("A0_seg.nii.gz", "A7.nii.gz"):
        (tmp_path / "truth").mkdir(exist_ok=True)
        sitk.WriteImage(label, str(tmp_path / "truth" / name))
    run(capsys, "project", "new", tmp_path / "p", "--label", "1=tumor", "--channel", "PET")
    words = ["add", tmp_path / "p", "--images", tmp_path / "pacs", "--labels", tmp_path / "truth"]
    refused = run(capsys, *words, code=2)
    assert [item["name"] for item in refused["failed"]] == ["A0", "A1", "A7.nii.gz"]
    assert "2 series: 2 (CT, 8 x 9 x 6); 3 (PT, 8 x 9 x 6)" in refused["failed"][0]["message"]
    added = run(capsys, *words, "--series", "3", code=2)
    assert [(case["name"], case["state"]) for case in added["cases"]] == [("A0", "accepted"), ("A1", "new")]
    assert [item["name"] for item in added["failed"]] == ["A7.nii.gz"]
    with Project.open(tmp_path / "p", read_only=True) as project:
        (path,) = project.cases.image_paths("A1")
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), ARRAY + 51)
