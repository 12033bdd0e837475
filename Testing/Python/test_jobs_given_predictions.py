# SPDX-License-Identifier: Apache-2.0
"""Predictions of other programs: what nnU-Net, TotalSegmentator and MONAI write becomes predictions of cases."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.inference.predictor import Predictor
from barl.project.labels import Channel, Label
from barl.project.states import CaseState
from barl.project.store import Project

SHIPPED = Path(__file__).resolve().parents[2] / "BARLSegmentation/Resources/Models/hippocampus"
SHAPE = (9, 11, 13)


def barl(capsys, *words, code: int = 0) -> dict:
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def image(array: np.ndarray) -> sitk.Image:
    made = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    c, s = np.cos(0.3), np.sin(0.3)
    made.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    made.SetSpacing((0.8, 1.1, 3.0))
    made.SetOrigin((12.0, -34.0, 56.0))
    return made


@pytest.fixture
def a_project(tmp_path) -> Path:
    """Cases k1 and k2 on an oblique grid of 13 x 11 x 9 voxels; labels 2 tumor and 5 liver."""
    rng = np.random.default_rng(0)
    with Project.create(tmp_path / "p", "P", [Label(2, "tumor"), Label(5, "liver")], [Channel("CT")]) as project:
        for name in ("k1", "k2"):
            project.cases.add(name, [image(rng.normal(100, 20, SHAPE).astype(np.float32))])
    return tmp_path / "p"


def softmax(seed: int = 0, classes: int = 3) -> np.ndarray:
    """Probabilities ``[class, k, j, i]``, float32; the first class is likeliest in most voxels."""
    logits = np.random.default_rng(seed).normal(0, 2, (classes, *SHAPE))
    logits[0] += 2
    share = np.exp(logits - logits.max(axis=0))
    return (share / share.sum(axis=0)).astype(np.float32)


def newest(folder: Path, case: str):
    with Project.open(folder, read_only=True) as project:
        revision = project.revisions.newest(case)
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(revision.path)))
        uncertainty = None
        if revision.uncertainty_path:
            uncertainty = sitk.GetArrayFromImage(sitk.ReadImage(str(revision.uncertainty_path)))
        return revision, label, uncertainty, project.cases.get(case)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Normalized, by hand."""
    return -(probabilities * np.log(probabilities.clip(1e-12))).sum(axis=0) / np.log(len(probabilities))


def test_what_nnunet_writes_becomes_predictions_with_uncertainty(a_project, tmp_path, capsys):
    """Label maps and probabilities of the same name; liver is 1 and tumor 2 there; a spleen is not in the project."""
    out = tmp_path / "out"
    out.mkdir()
    names = {"background": 0, "liver": 1, "tumor": 2, "spleen": 3}
    (out / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": names, "file_ending": ".nii.gz"})
    )
    (out / "plans.json").write_text("{}")
    (out / "k1.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    given = softmax(classes=4)
    np.savez_compressed(out / "k1.npz", probabilities=given)
    sitk.WriteImage(image(given.argmax(axis=0).astype(np.uint8)), str(out / "k1.nii.gz"))
    os.utime(out / "k1.nii.gz", (0, 1_700_000_000))
    os.utime(out / "k1.npz", (0, 1_700_000_000))
    done = barl(capsys, "import-predictions", a_project, out, "--author", "nnU-Net Dataset501")
    (case,) = done["cases"]
    assert case["made"] == "2023-11-14" and any("spleen" in note for note in case["notes"])
    assert [item["name"] for item in done["left_out"]] == ["k1.pkl"] and "never read" in done["left_out"][0]["message"]
    revision, label, uncertainty, row = newest(a_project, "k1")
    assert (revision.kind, revision.author, revision.model_id) == ("prediction", "nnU-Net Dataset501", None)
    assert np.array_equal(label, np.array([0, 5, 2, 0])[given.argmax(axis=0)])
    own = np.stack([given[0] + given[3], given[2], given[1]])
    assert np.abs(uncertainty - entropy(own)).max() < 1 / 255 + 1 / 512
    assert row.state is CaseState.PREDICTED and row.uncertainty == pytest.approx(case["case_uncertainty"])
    assert revision.details["hotspots"] and revision.details["made"] == "2023-11-14"


def test_the_engines_own_probabilities_come_back_as_its_own_prediction(tmp_path, capsys):
    """Label map, uncertainty, hot-spots and volumes are those of the prediction that the probabilities are from."""
    predictor = Predictor.load(SHIPPED, device="cpu", fast=True)
    scan = sitk.GetImageFromArray(np.random.default_rng(3).normal(200, 60, (24, 26, 28)).astype(np.float32))
    expected = predictor.predict([scan], want_probabilities=True)
    parts = [sitk.GetArrayFromImage(part) for part in expected.probabilities.values()]
    np.savez(tmp_path / "s.npz", probabilities=np.stack([1 - sum(parts), *parts]))
    labels, channels = predictor.card.labels, [Channel(name) for name in predictor.card.channels]
    with Project.create(tmp_path / "p", "P", labels, channels) as project:
        project.cases.add("s", [scan])
    (case,) = barl(capsys, "import-predictions", tmp_path / "p", tmp_path / "s.npz")["cases"]
    _, label, uncertainty, _ = newest(tmp_path / "p", "s")
    assert (label != sitk.GetArrayFromImage(expected.label)).mean() < 1e-3
    # The engine keeps probabilities in half precision: they are exact to 5e-4, the entropy of 3 classes to 6e-3.
    assert np.abs(uncertainty - sitk.GetArrayFromImage(expected.uncertainty)).max() < 0.012
    assert case["case_uncertainty"] == pytest.approx(expected.case_uncertainty, abs=2e-3)
    for mine, theirs in zip(case["hotspots"][:3], expected.hotspots[:3], strict=True):
        assert mine["position_mm"] == pytest.approx(theirs.position_mm) and mine["label"] == theirs.label


def test_one_file_for_each_structure_as_totalsegmentator_writes(a_project, tmp_path, capsys):
    out = tmp_path / "segmentations"
    out.mkdir()
    rng = np.random.default_rng(1)
    masks = {name: rng.random(SHAPE) > 0.7 for name in ("liver", "hepatic_tumor", "spleen")}
    for name, mask in masks.items():
        sitk.WriteImage(image(mask.astype(np.uint8)), str(out / f"{name}.nii.gz"))
    (out / "statistics.json").write_text("{}")
    words = (
        "--case",
        "k2",
        "--author",
        "TotalSegmentator 2.4",
        "--date",
        "2025-01-31",
        "--label",
        "hepatic_tumor=tumor",
    )
    (case,) = barl(capsys, "import-predictions", a_project, out, *words)["cases"]
    assert any("1 files are of labels" in note for note in case["notes"])
    assert any("overlap in" in note for note in case["notes"]) and any(
        "no uncertainty" in note for note in case["notes"]
    )
    revision, label, uncertainty, row = newest(a_project, "k2")
    expected = np.where(masks["liver"], 5, np.where(masks["hepatic_tumor"], 2, 0))
    assert np.array_equal(label, expected) and uncertainty is None and row.uncertainty is None
    assert revision.details["made"] == case["made"] == "2025-01-31" and revision.details["hotspots"] == []


def test_one_label_map_with_names_in_its_header_as_totalsegmentator_writes(a_project, tmp_path, capsys):
    values = np.random.default_rng(2).choice(np.array([0, 1, 5, 9], np.uint8), SHAPE)
    sitk.WriteImage(image(values), str(tmp_path / "plain.nii.gz"))
    table = "".join(
        f'<Label Key="{value}" Red="1" Green="1" Blue="1" Alpha="1"><![CDATA[{name}]]></Label>'
        for value, name in ((1, "spleen"), (5, "liver"), (9, "tumor"))
    )
    text = f'<?xml version="1.0" encoding="UTF-8"?> <CaretExtension><LabelTable>{table}</LabelTable></CaretExtension>'
    made = nibabel.load(tmp_path / "plain.nii.gz")
    made.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, text.encode()))
    nibabel.save(made, tmp_path / "k1_ts.nii.gz")
    (case,) = barl(capsys, "import-predictions", a_project, tmp_path / "k1_ts.nii.gz")["cases"]
    assert any("spleen" in note for note in case["notes"])
    assert np.array_equal(newest(a_project, "k1")[1], np.select([values == 5, values == 9], [5, 2]))


def test_a_value_without_a_name_has_no_meaning_where_others_are_named(a_project, tmp_path, capsys):
    values = np.random.default_rng(2).choice(np.array([0, 2, 7], np.uint8), SHAPE)
    sitk.WriteImage(image(values), str(tmp_path / "k1.nii.gz"))
    words = ["import-predictions", a_project, tmp_path / "k1.nii.gz"]
    error = barl(capsys, *words, "--label", "7=tumor", code=2)
    assert "value(s) 2, which have no name there" in json.dumps(error)
    barl(capsys, *words, "--label", "7=tumor", "--label", "2=liver")
    assert np.array_equal(newest(a_project, "k1")[1], np.select([values == 7, values == 2], [2, 5]))


def test_probabilities_of_two_structures_of_one_label_add_up(a_project, tmp_path, capsys):
    home = tmp_path / "k1"
    home.mkdir()
    left, right = np.zeros((2, *SHAPE), np.float32)
    left[:, :, :4], right[:, :, 8:] = 0.9, 0.8
    for name, part in (("left", left), ("right", right), ("liver", np.zeros_like(left))):
        sitk.WriteImage(image(part), str(home / f"{name}.nii.gz"))
    words = ["import-predictions", a_project, tmp_path, "--label", "left=tumor", "--label", "right=tumor"]
    barl(capsys, *words)
    assert np.array_equal(newest(a_project, "k1")[1], np.where(left + right > 0.5, 2, 0))


def test_as_many_maps_as_labels_that_leave_no_background_are_refused(a_project, tmp_path, capsys):
    np.savez(tmp_path / "k1.npz", probabilities=softmax(classes=2))
    words = ["import-predictions", a_project, tmp_path / "k1.npz"]
    assert "sum to 1 in every voxel" in json.dumps(barl(capsys, *words, code=2))
    barl(capsys, *words, "--label", "1=tumor")
    assert set(np.unique(newest(a_project, "k1")[1])) == {0, 2}


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_probability_volumes_in_a_folder_for_each_case_as_monai_writes(a_project, tmp_path, capsys, ending):
    given = softmax(4)
    home = tmp_path / "out/k1"
    home.mkdir(parents=True)
    if ending == ".nrrd":
        sitk.WriteImage(image(np.moveaxis(given, 0, -1)), str(home / f"k1_trans{ending}"))
    else:
        sitk.WriteImage(image(given[0]), str(tmp_path / "place.nii.gz"))
        affine = nibabel.load(tmp_path / "place.nii.gz").affine
        made = nibabel.Nifti1Image(np.moveaxis(given, 0, -1).transpose(2, 1, 0, 3), affine)
        nibabel.save(made, home / f"k1_trans{ending}")
    barl(capsys, "import-predictions", a_project, tmp_path / "out")
    _, label, uncertainty, _ = newest(a_project, "k1")
    assert np.array_equal(label, np.array([0, 2, 5])[given.argmax(axis=0)])
    assert np.abs(uncertainty - entropy(given)).max() < 1 / 255 + 1 / 512


def test_a_probability_map_for_each_structure(a_project, tmp_path, capsys):
    given = softmax(5)
    home = tmp_path / "out/k1"
    home.mkdir(parents=True)
    sitk.WriteImage(image(given[1]), str(home / "tumor.nii.gz"))
    sitk.WriteImage(image(given[2]), str(home / "liver.nii.gz"))
    barl(capsys, "import-predictions", a_project, tmp_path / "out")
    _, label, uncertainty, _ = newest(a_project, "k1")
    assert np.array_equal(label, np.array([0, 2, 5])[given.argmax(axis=0)])
    assert np.abs(uncertainty - entropy(given)).max() < 1 / 255 + 1 / 512


def test_voxels_count_where_they_lie(a_project, tmp_path, capsys):
    """Axes stored in another order: the probabilities lie as the label map beside them says."""
    given = softmax(6)
    turned = image(given.argmax(axis=0).astype(np.uint8))
    turned = sitk.Flip(sitk.PermuteAxes(turned, [2, 0, 1]), [True, False, False])
    again = np.flip(given.transpose(0, 2, 3, 1), axis=3)
    assert np.array_equal(again.argmax(axis=0), sitk.GetArrayFromImage(turned))
    sitk.WriteImage(turned, str(tmp_path / "k1.nii.gz"))
    np.savez(tmp_path / "k1.npz", softmax=again)
    words = ("--label", "1=tumor", "--label", "2=liver")
    barl(capsys, "import-predictions", a_project, tmp_path / "k1.nii.gz", *words)
    assert np.array_equal(newest(a_project, "k1")[1], np.array([0, 2, 5])[given.argmax(axis=0)])
    (tmp_path / "o").mkdir()
    for name in ("k1.nii.gz", "k1.npz"):
        (tmp_path / name).rename(tmp_path / "o" / name)
    (case,) = barl(capsys, "import-predictions", a_project, tmp_path / "o", *words)["cases"]
    _, label, uncertainty, _ = newest(a_project, "k1")
    assert np.array_equal(label, np.array([0, 2, 5])[given.argmax(axis=0)]) and case["notes"] == []
    assert np.abs(uncertainty - entropy(given)).max() < 1 / 255 + 1 / 512


def test_probabilities_that_contradict_the_label_map_are_not_used(a_project, tmp_path, capsys):
    given = softmax(7)
    sitk.WriteImage(image(np.array([0, 2, 5], np.uint8)[given.argmax(axis=0)]), str(tmp_path / "k1.nii.gz"))
    (tmp_path / "o").mkdir()
    (tmp_path / "k1.nii.gz").rename(tmp_path / "o/k1.nii.gz")
    np.savez(tmp_path / "o/k1.npz", probabilities=np.flip(given, axis=1))
    (case,) = barl(capsys, "import-predictions", a_project, tmp_path / "o")["cases"]
    assert any("disagree with the label map" in note for note in case["notes"])
    assert newest(a_project, "k1")[2] is None


def a_pickle(path: Path) -> None:
    np.savez(path, probabilities=np.array([{"a": 1}] * 4, dtype=object))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (a_pickle, "no numbers"),
        (lambda path: path.write_bytes(b"no zip"), "damaged"),
        (lambda path: np.savez(path, probabilities=softmax()[:, :-1]), "has the shape"),
        (lambda path: np.savez(path, a=softmax(), b=softmax()), "holds no array of probabilities"),
        (lambda path: np.savez(path, probabilities=5 * softmax()), "outside of 0 to 1"),
        (lambda path: np.savez(path, probabilities=0.5 * softmax()), "do not sum to 1"),
        (lambda path: np.savez(path, probabilities=softmax(classes=6)), "6 classes"),
        (lambda path: np.savez(path, probabilities=np.full((3, *SHAPE), np.nan, np.float32)), "outside of 0 to 1"),
    ],
)
def test_files_that_hold_no_probabilities_of_the_case_are_refused(a_project, tmp_path, capsys, write, words):
    write(tmp_path / "k1.npz")
    done = barl(capsys, "import-predictions", a_project, tmp_path / "k1.npz", code=2)
    assert words in done["failed"][0]["message"] and done["failed"][0]["remedy"] and done["cases"] == []


def test_a_plan_stores_nothing_and_names_what_fits_no_case(a_project, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("k1_seg", "k2", "k2_seg", "other"):
        sitk.WriteImage(image(np.zeros(SHAPE, np.uint8)), str(out / f"{name}.nii.gz"))
    planned = barl(capsys, "import-predictions", a_project, out, "--plan")
    assert [(item["case"], Path(item["label"]).name) for item in planned["plan"]] == [
        ("k2", "k2.nii.gz"),
        ("k1", "k1_seg.nii.gz"),
    ]
    assert {item["name"] for item in planned["left_out"]} == {"other", "k2_seg"}
    with Project.open(a_project) as project:
        assert project.revisions.of("k1") == []
    assert (
        "k9"
        in barl(capsys, "import-predictions", a_project, out / "other.nii.gz", "--case", "k9", code=3)["error"][
            "message"
        ]
    )
    assert (
        "no label 'x'"
        in barl(capsys, "import-predictions", a_project, out, "--label", "1=x", code=2)["error"]["message"]
    )


def test_two_predictions_of_one_case_are_refused(a_project, tmp_path, capsys):
    """In two folders, in one folder, by name and by id, and as a file beside a folder."""
    zero = image(np.zeros(SHAPE, np.uint8))

    def fill(folder: str, *names: str) -> Path:
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(zero, str(tmp_path / folder / name))
        return tmp_path / folder

    first, second = fill("A", "k1.nii.gz", "k2.nii.gz"), fill("B", "k1.nrrd")
    planned = barl(capsys, "import-predictions", a_project, first, second, "--plan")
    assert [item["case"] for item in planned["plan"]] == ["k2"]
    (left,) = planned["left_out"]
    assert left["message"] == "'A/k1.nii.gz' and 'B/k1.nrrd' are both predictions of the case 'k1'."
    error = barl(capsys, "import-predictions", a_project, first / "k1.nii.gz", second, code=2)["error"]
    assert "both predictions of the case 'k1'" in error["message"] and error["remedy"] == "Move one of them away."
    for folder in (
        fill("C", "k1.nii.gz", "k1.nrrd", "k2.nii.gz"),
        fill("D", "k1.nii.gz", "case_0001.nii.gz", "k2.nii.gz"),
        fill("E", "k1.nii.gz", "k1/seg.nii.gz", "k2.nii.gz"),
        fill("F", "k1/tumor.nii.gz", "k1/tumor.nrrd", "k1/liver.nrrd", "k2.nii.gz"),
    ):
        planned = barl(capsys, "import-predictions", a_project, folder, "--plan")
        assert [item["case"] for item in planned["plan"]] == ["k2"], folder.name
        assert ["both" in item["message"] for item in planned["left_out"]] == [True], folder.name
    error = barl(capsys, "import-predictions", a_project, tmp_path / "F/k1", "--case", "k1", code=2)["error"]
    assert "'tumor.nii.gz' and 'tumor.nrrd'" in error["message"]


def test_a_label_map_and_its_probabilities_may_be_given_as_two_paths(a_project, tmp_path, capsys):
    sitk.WriteImage(image(np.zeros(SHAPE, np.uint8)), str(tmp_path / "k1.nii.gz"))
    np.savez(tmp_path / "k1.npz", probabilities=softmax())
    paths = [tmp_path / "k1.nii.gz", tmp_path / "k1.npz", tmp_path / "k1.nii.gz"]
    (row,) = barl(capsys, "import-predictions", a_project, *paths, "--plan")["plan"]
    assert Path(row["label"]).name == "k1.nii.gz" and Path(row["probabilities"]).name == "k1.npz"


def test_what_was_exported_comes_back_by_the_ids_of_the_cases(a_project, tmp_path, capsys):
    sitk.WriteImage(image(np.full(SHAPE, 5, np.uint8)), str(tmp_path / "case_0002.nii.gz"))
    (case,) = barl(capsys, "import-predictions", a_project, tmp_path / "case_0002.nii.gz")["cases"]
    assert (case["case"], case["name"]) == ("case_0002", "k2")


def test_an_accepted_outline_stays(a_project, tmp_path, capsys):
    outline = image(np.full(SHAPE, 2, np.uint8))
    with Project.open(a_project) as project:
        accepted = project.revisions.store("k1", outline, "accepted", author="reader")
    sitk.WriteImage(image(np.full(SHAPE, 5, np.uint8)), str(tmp_path / "k1.nii.gz"))
    barl(capsys, "import-predictions", a_project, tmp_path / "k1.nii.gz")
    with Project.open(a_project) as project:
        assert project.cases.get("k1").state is CaseState.ACCEPTED
        assert project.revisions.accepted("k1").id == accepted.id
