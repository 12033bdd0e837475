# SPDX-License-Identifier: Apache-2.0
"""Data set folders of others: what comes in has the values, names and places that their authors meant."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError
from barl.project.datasets.description import read_description
from barl.project.datasets.intake import prepare_intake, read_dataset
from barl.project.labels import Channel, Label
from barl.project.matching import match_names
from barl.project.store import Project

AFFINE = np.array([[0, -1.5, 0, 20.0], [2.0, 0, 0, -30.0], [0, 0, 3.0, 40.0], [0, 0, 0, 1.0]])
SHAPE = (6, 7, 8)


def barl(capsys, *words, code: int = 0) -> dict:
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def scan(seed: int, *more: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, (*SHAPE, *more)).astype(np.float32)


def outline(seed: int, values=(0, 1, 2)) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), SHAPE)


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, AFFINE)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def stored(project: Project, name: str, channel: int | None = None) -> np.ndarray:
    """Voxels ``[i, j, k]`` of a case's accepted outline or of a channel, after the place was compared."""
    path = project.revisions.accepted_label(name) if channel is None else project.cases.image_paths(name)[channel]
    image = nibabel.load(path)
    assert np.abs(image.affine - AFFINE).max() < 1e-6
    return np.asarray(image.dataobj)


@pytest.fixture
def an_nnunet_folder(tmp_path) -> Path:
    """Two channels; three cases for training, one of them with its outline under another name; two for testing."""
    folder = tmp_path / "Dataset007_Brain"
    for seed, case in enumerate(("a_01", "b", "c")):
        write(folder / f"imagesTr/{case}_0000.nii.gz", scan(seed))
        write(folder / f"imagesTr/{case}_0001.nii.gz", scan(seed + 50))
        write(folder / f"labelsTr/{case}{'_seg' if case == 'c' else ''}.nii.gz", outline(seed))
    for seed, case in enumerate(("t1", "t2"), 20):
        write(folder / f"imagesTs/{case}_0000.nii.gz", scan(seed))
        write(folder / f"imagesTs/{case}_0001.nii.gz", scan(seed + 50))
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "T1", "1": "FLAIR"},
                "labels": {"background": 0, "edema": 1, "tumor": 2},
                "numTraining": 3,
                "file_ending": ".nii.gz",
            }
        )
    )
    return folder


def test_an_nnunet_folder_makes_a_project_and_its_cases(an_nnunet_folder, tmp_path, capsys):
    made = barl(capsys, "project", "new", tmp_path / "p", "--like", an_nnunet_folder)
    assert [(label["value"], label["name"]) for label in made["labels"]] == [(1, "edema"), (2, "tumor")]
    assert made["channels"] == ["T1", "FLAIR"]
    plan = barl(capsys, "add", tmp_path / "p", an_nnunet_folder, "--plan")
    assert [case["name"] for case in plan["cases"]] == ["a_01", "b", "c", "t1", "t2"]
    assert plan["cases"][2]["outline"].endswith("c_seg.nii.gz")
    done = barl(capsys, "add", tmp_path / "p", an_nnunet_folder)
    assert [case["state"] for case in done["cases"]] == ["accepted"] * 3 + ["new"] * 2
    assert any("'_seg'" in note for note in done["cases"][2]["notes"]) and not done["cases"][0]["notes"]
    with Project.open(tmp_path / "p") as project:
        assert np.array_equal(stored(project, "a_01"), outline(0))
        assert np.array_equal(stored(project, "c", 1), scan(52))
        assert np.array_equal(stored(project, "t2", 0), scan(21))
    again = barl(capsys, "add", tmp_path / "p", an_nnunet_folder)
    assert again["cases"] == [] and any("5 cases are in the project already" in note for note in again["notes"])


def test_values_and_channels_are_matched_by_their_names(an_nnunet_folder, tmp_path, capsys):
    labels, channels = [Label(3, "Tumor"), Label(5, "edema")], [Channel("flair"), Channel("t1")]
    Project.create(tmp_path / "p", "P", labels, channels).close()
    done = barl(capsys, "add", tmp_path / "p", an_nnunet_folder)
    assert any("1 becomes 5, 2 becomes 3" in note for note in done["notes"])
    with Project.open(tmp_path / "p") as project:
        assert np.array_equal(stored(project, "b"), np.array([0, 5, 3])[outline(1)])
        assert np.array_equal(stored(project, "b", 0), scan(51))


def test_labels_that_the_table_lacks_are_added_only_when_asked_for(an_nnunet_folder, tmp_path, capsys):
    Project.create(tmp_path / "p", "P", [Label(1, "cyst")], [Channel("T1"), Channel("FLAIR")]).close()
    error = barl(capsys, "add", tmp_path / "p", an_nnunet_folder, code=2)["error"]
    assert "edema" in error["message"] and "--add-labels" in error["remedy"]
    barl(capsys, "add", tmp_path / "p", an_nnunet_folder, "--add-labels")
    with Project.open(tmp_path / "p") as project:
        table = {label.name: label.value for label in project.labels}
        assert table == {"cyst": 1, "edema": 2, "tumor": 3}
        assert np.array_equal(stored(project, "b"), np.array([0, table["edema"], table["tumor"]])[outline(1)])


def test_what_is_incomplete_is_left_out_and_named(an_nnunet_folder, tmp_path, capsys):
    (an_nnunet_folder / "imagesTr/b_0001.nii.gz").unlink()
    (an_nnunet_folder / "imagesTs/readme.txt").write_text("words")
    write(an_nnunet_folder / "labelsTr/zz.nii.gz", outline(3))
    write(an_nnunet_folder / "labelsTr/c_seg.nii.gz", outline(2, (0, 1, 9)))
    barl(capsys, "project", "new", tmp_path / "p", "--like", an_nnunet_folder)
    done = barl(capsys, "add", tmp_path / "p", an_nnunet_folder, code=2)
    assert [case["name"] for case in done["cases"]] == ["a_01", "t1", "t2"]
    reasons = {item["name"]: item["message"] for item in done["failed"]}
    assert "has no file _0001" in reasons["b"] and "value(s) 9" in reasons["c"]
    assert set(reasons) == {"b", "b.nii.gz", "c", "zz.nii.gz", "readme.txt"}


def test_test_cases_with_outlines_are_held_out(an_nnunet_folder, tmp_path, capsys):
    write(an_nnunet_folder / "labelsTs/t1.nii.gz", outline(20))
    barl(capsys, "project", "new", tmp_path / "p", "--like", an_nnunet_folder)
    done = barl(capsys, "add", tmp_path / "p", an_nnunet_folder)
    assert {case["name"]: case["held_out"] for case in done["cases"]} == {
        "a_01": False,
        "b": False,
        "c": False,
        "t1": True,
        "t2": False,
    }


def test_what_barl_exports_comes_back(an_nnunet_folder, tmp_path, capsys):
    write(an_nnunet_folder / "labelsTs/t1.nii.gz", outline(20))
    barl(capsys, "project", "new", tmp_path / "p", "--like", an_nnunet_folder)
    barl(capsys, "add", tmp_path / "p", an_nnunet_folder)
    barl(capsys, "export", tmp_path / "p", tmp_path / "out")
    barl(capsys, "project", "new", tmp_path / "q", "--like", tmp_path / "out")
    done = barl(capsys, "add", tmp_path / "q", tmp_path / "out")
    assert sorted(case["held_out"] for case in done["cases"]) == [False] * 3 + [True]
    with Project.open(tmp_path / "q") as project:
        assert np.array_equal(stored(project, "case_0001"), outline(0))
        assert np.array_equal(stored(project, "case_0004", 1), scan(70))


def test_a_decathlon_folder_with_all_channels_in_one_file(tmp_path, capsys):
    folder = tmp_path / "Task05_Prostate"
    for seed in (0, 1):
        write(folder / f"imagesTr/prostate_{seed}.nii.gz", scan(seed, 2))
        write(folder / f"labelsTr/prostate_{seed}.nii.gz", outline(seed))
    write(folder / "imagesTs/prostate_9.nii.gz", scan(9, 2))
    (folder / "imagesTr/._prostate_0.nii.gz").write_bytes(b"of a Mac")
    description = {
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "training": [{"image": "./imagesTr/prostate_0.nii.gz", "label": "./labelsTr/prostate_0.nii.gz"}],
        "test": ["./imagesTs/prostate_9.nii.gz"],
    }
    description["training"].append({"image": "./imagesTr/prostate_5.nii.gz", "label": "./labelsTr/prostate_5.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps(description))
    barl(capsys, "project", "new", tmp_path / "p", "--like", folder)
    done = barl(capsys, "add", tmp_path / "p", folder, code=2)
    assert [case["state"] for case in done["cases"]] == ["accepted", "accepted", "new"]
    assert [item["name"] for item in done["failed"]] == ["prostate_5.nii.gz"]
    with Project.open(tmp_path / "p") as project:
        assert np.array_equal(stored(project, "prostate_1"), outline(1))
        for channel in (0, 1):
            assert np.array_equal(stored(project, "prostate_9", channel), scan(9, 2)[..., channel])


def test_a_list_of_files_counts_more_than_the_folders(tmp_path):
    """nnU-Net's `dataset` key: images may lie anywhere below the folder."""
    folder = tmp_path / "Dataset008_X"
    write(folder / "scans/one.nii.gz", scan(0))
    write(folder / "truth/one_l.nii.gz", outline(0))
    (folder / "imagesTr").mkdir()
    listed = {"one": {"images": ["scans/one.nii.gz"], "label": "truth/one_l.nii.gz"}}
    listed["two"] = {"images": ["scans/two.nii.gz"], "label": "truth/two.nii.gz"}
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1, "y": 2}, "dataset": listed}
    (folder / "dataset.json").write_text(json.dumps(description))
    dataset = read_dataset(folder)
    assert [entry.name for entry in dataset.entries] == ["one"]
    assert dataset.entries[0].label == folder / "truth/one_l.nii.gz"
    assert [item.name for item in dataset.left_out] == ["two"]


@pytest.mark.parametrize(
    ("labels", "values", "ignore"),
    [
        ({"background": 0, "liver": 1, "tumor": 2}, {1: "liver", 2: "tumor"}, None),
        ({"0": "background", "1": "liver"}, {1: "liver"}, None),
        ({"background": 0, "liver": 1, "ignore": 2}, {1: "liver"}, 2),
        (
            {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
            {1: "whole", 2: "core", 3: "enhancing"},
            None,
        ),
        ({"background": 0, "whole": [1, 2, 3], "core": [3]}, {1: "whole 1", 2: "whole 2", 3: "core"}, None),
    ],
)
def test_labels_of_every_form_are_read(tmp_path, labels, values, ignore):
    place = tmp_path / "dataset.json"
    place.write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}))
    described = read_description(place)
    assert (described.labels, described.ignore) == (values, ignore)


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"labels": {"a": "b"}}', '{"labels": [1]}', '{"modality": {"x": "y"}}']
)
def test_a_damaged_description_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json") as caught:
        read_description(tmp_path / "dataset.json")
    assert caught.value.remedy


def test_bids_names_make_cases_of_sessions(tmp_path, capsys):
    folder = tmp_path / "bids"
    for seed, subject in enumerate(("01", "02", "03")):
        home = folder / f"sub-{subject}/ses-a/anat"
        write(home / f"sub-{subject}_ses-a_T1w.nii.gz", scan(seed))
        if subject != "03":
            write(home / f"sub-{subject}_ses-a_FLAIR.nii.gz", scan(seed + 50))
        write(home / f"sub-{subject}_ses-a_T2w.nii.gz", scan(seed + 80))
    derived = folder / "derivatives/manual"
    write(derived / "sub-01/ses-a/anat/sub-01_ses-a_space-orig_desc-manual_dseg.nii.gz", outline(0))
    write(derived / "sub-09/ses-a/anat/sub-09_ses-a_dseg.nii.gz", outline(0))
    (derived / "desc-manual_dseg.tsv").write_text("index\tname\n0\tbackground\n1\tlesion\n2\tscar\n")
    channels = [Channel("FLAIR"), Channel("T1")]
    Project.create(tmp_path / "p", "P", [Label(1, "scar"), Label(2, "lesion")], channels).close()
    done = barl(capsys, "add", tmp_path / "p", folder, code=2)
    assert [(c["name"], c["state"], c["group"]) for c in done["cases"]] == [
        ("sub-01_ses-a", "accepted", "sub-01"),
        ("sub-02_ses-a", "new", "sub-02"),
    ]
    reasons = {item["name"]: item["message"] for item in done["failed"]}
    assert "no scan of channel FLAIR" in reasons["sub-03_ses-a"] and "3 scans of the kind T2w" in reasons["*_T2w"]
    assert any(name.startswith("sub-09") for name in reasons)
    with Project.open(tmp_path / "p") as project:
        assert np.array_equal(stored(project, "sub-01_ses-a"), np.array([0, 2, 1])[outline(0)])
        assert np.array_equal(stored(project, "sub-02_ses-a", 1), scan(1))
    with pytest.raises(InputError, match="belongs to a channel") as caught:
        read_dataset(folder, [Channel("image")])
    assert "--pattern" in caught.value.remedy


def test_a_bids_mask_is_of_the_structure_in_its_name(tmp_path, capsys):
    folder = tmp_path / "bids"
    for number, structure in enumerate(("tumor", "cyst")):
        name = f"sub-0{number}"
        write(folder / name / "anat" / f"{name}_T1w.nii.gz", scan(number))
        mask = folder / "derivatives" / "manual" / name / "anat" / f"{name}_label-{structure}_desc-final_mask.nii.gz"
        write(mask, outline(number, (0, 1)))
    Project.create(tmp_path / "p", "P", [Label(1, "liver"), Label(2, "Tumor")], [Channel("T1w")]).close()
    done = barl(capsys, "add", tmp_path / "p", folder)
    assert [case["state"] for case in done["cases"]] == ["accepted", "new"]
    assert any("has no 'cyst'" in note for note in done["cases"][1]["notes"])
    with Project.open(tmp_path / "p") as project:
        assert np.array_equal(stored(project, "sub-00"), 2 * outline(0, (0, 1)))


@pytest.mark.parametrize(
    ("part", "file", "what"),
    [("labelsTr", "b", "outlines"), ("labelsTr", "c_seg", "outlines"), ("imagesTr", "b_0001", "channel _0001")],
)
def test_two_files_of_one_name_leave_their_case_out(an_nnunet_folder, part, file, what):
    write(an_nnunet_folder / f"{part}/{file}.nii", outline(9))
    dataset = read_dataset(an_nnunet_folder)
    case = file[0]
    (left,) = [item for item in dataset.left_out if item.name == case]
    assert left.reason.message == f"'{file}.nii' and '{file}.nii.gz' are both {what} of the case '{case}'."
    assert case not in [entry.name for entry in dataset.entries] and len(dataset.entries) == 4


def test_two_scans_of_one_name_are_refused(tmp_path):
    for ending in ("nii", "nii.gz"):
        write(tmp_path / f"D/imagesTr/a.{ending}", scan(1))
    write(tmp_path / "D/imagesTr/b.nii.gz", scan(2))
    dataset = read_dataset(tmp_path / "D")
    assert [entry.name for entry in dataset.entries] == ["b"]
    assert "both scans of the case 'a'" in dataset.left_out[0].reason.message


def test_other_channels_are_refused_or_told(an_nnunet_folder):
    dataset = read_dataset(an_nnunet_folder)
    with pytest.raises(InputError, match="channels T1, FLAIR") as caught:
        prepare_intake(dataset, [Channel("a"), Channel("b"), Channel("c")], [])
    assert "--like" in caught.value.remedy
    intake = prepare_intake(dataset, [Channel("a"), Channel("b")], [])
    assert any("a is T1, b is FLAIR" in note for note in intake.notes)
    only = prepare_intake(dataset, [Channel("FLAIR")], [])
    assert only.cases[0].channels == (an_nnunet_folder / "imagesTr/a_01_0001.nii.gz",)
    assert any("no channel T1" in note for note in only.notes)


@pytest.mark.parametrize(
    ("cases", "files", "pairs"),
    [
        (["a", "b"], ["a_seg", "b_seg"], {"a": "a_seg", "b": "b_seg"}),
        (["p1", "p1_b"], ["p1_seg", "p1_b_seg"], {"p1": "p1_seg", "p1_b": "p1_b_seg"}),
        (["case_1", "case_12"], ["case_12", "case_1_2"], {"case_12": "case_12"}),
        (["x_0000"], ["x"], {"x_0000": "x"}),
        (["liver7"], ["mask-liver7"], {"liver7": "mask-liver7"}),
        (["a"], ["a_seg", "a_mask"], {}),
        (["abc"], ["abcd"], {}),
        (["A"], ["a"], {"A": "a"}),
        (["p1"], ["P1", "p1"], {}),
        (["q_1"], ["q_1_2_seg"], {}),
        (["q_1"], ["seg_2_q_1"], {}),
        (["q_1"], ["q_1_0000_seg"], {"q_1": "q_1_0000_seg"}),
        (["q_1"], ["q_1_T1_seg"], {"q_1": "q_1_T1_seg"}),
    ],
)
def test_names_that_differ_by_a_suffix(cases, files, pairs):
    found = match_names(cases, files)
    assert {match.case: match.file for match in found.pairs} == pairs
    assert {*pairs.values(), *found.unmatched, *found.unclear} == set(files)


def test_outlines_of_a_plain_folder_may_have_a_suffix(tmp_path, capsys):
    for seed, name in enumerate(("k1", "k2")):
        write(tmp_path / f"scans/{name}.nii.gz", scan(seed))
        write(tmp_path / f"outlines/{name}-label.nii.gz", outline(seed))
    labels = [Label(1, "a"), Label(2, "b")]
    Project.create(tmp_path / "p", "P", labels, [Channel("CT")]).close()
    done = barl(capsys, "add", tmp_path / "p", "--images", tmp_path / "scans", "--labels", tmp_path / "outlines")
    assert [case["state"] for case in done["cases"]] == ["accepted"] * 2
    assert all(any("'-label'" in note for note in case["notes"]) for case in done["cases"])
    with Project.open(tmp_path / "p") as project:
        kept = [entry.facts.get("notes") for entry in project.journal.entries() if entry.action == "case added"]
        assert len(kept) == 2 and all("'-label'" in notes[0] for notes in kept)
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.accepted_label("k2")))).any()
