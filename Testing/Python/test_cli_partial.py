# SPDX-License-Identifier: Apache-2.0
"""Partial outlines on the command line: in, shown, accepted, predicted again, judged, trained on, and out again."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.evaluation.metrics import segmentation_metrics
from barl.project.store import Project

ARCHIVE = Path(__file__).parent / "data" / "project-of-0.1.0.zip"
SHAPE = (6, 8, 10)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def barl(capsys):
    """Runs a command; gives its JSON document."""

    def run(*words, fails: bool = False) -> dict:
        code = main([*map(str, words), "--json"])
        text = capsys.readouterr()
        assert (code != 0) == fails, text
        return json.loads(text.out) if not fails else {"error": text.err + text.out}

    return run


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def pixels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def scan(folder: Path, name: str, seed: int) -> Path:
    return write(folder / f"{name}.nii.gz", np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def outline() -> tuple[np.ndarray, np.ndarray]:
    """A label map of the values 2 and 5, and a mask of two planes."""
    label = np.zeros(SHAPE, np.uint8)
    label[1:4, 2:6, 2:6] = 2
    label[3:5, 4:8, 4:9] = 5
    looked = np.zeros(SHAPE, np.uint8)
    looked[[2, 3]] = 1
    return label, looked


@pytest.fixture
def study(barl, tmp_path) -> Path:
    barl("project", "new", tmp_path / "study", "--label", "2=organ", "--label", "5=tumor")
    return tmp_path / "study"


def test_an_ignored_value_and_a_mask_say_what_was_looked_at(barl, study, tmp_path):
    label, looked = outline()
    ignored = write(tmp_path / "ignored.nii.gz", np.where(looked, label, 7).astype(np.uint8))
    mask, whole = write(tmp_path / "mask.nii.gz", looked), write(tmp_path / "whole.nii.gz", label)
    barl("add", study, scan(tmp_path, "a", 0), "--label", ignored, "--ignore", 7)
    barl("add", study, scan(tmp_path, "b", 1), "--label", whole, "--looked", mask)
    barl("add", study, scan(tmp_path, "c", 2), "--label", whole)
    cases = barl("project", "cases", study)["cases"]
    assert [case["looked_share"] for case in cases] == [pytest.approx(1 / 3), pytest.approx(1 / 3), 1.0]
    facts = barl("project", "show", study)
    assert (facts["partial"], facts["partial_scans"]) == (2, pytest.approx(2 / 3, abs=1e-3))
    with Project.open(study, read_only=True) as project:
        for name, kept in (("a", np.where(looked, label, 0)), ("b", label)):
            revision = project.revisions.accepted(name)
            assert (sitk.GetArrayFromImage(project.revisions.read_looked(revision)) == looked).all()
            assert (pixels(revision.path) == kept).all()
    for value, reason in ((0, "is that of background"), (5, "is that of a label")):
        words = ("add", study, scan(tmp_path, f"d{value}", 9), "--label", ignored, "--ignore", value)
        assert reason in barl(*words, fails=True)["error"]
    assert "about an outline" in barl("add", study, tmp_path / "a.nii.gz", "--ignore", 7, fails=True)["error"]


def test_the_share_is_listed_for_people_as_well(barl, study, tmp_path, capsys):
    label, looked = outline()
    mask, whole = write(tmp_path / "mask.nii.gz", looked), write(tmp_path / "whole.nii.gz", label)
    barl("add", study, scan(tmp_path, "b", 1), "--label", whole, "--looked", mask)
    assert main(["project", "cases", str(study)]) == 0
    assert "33.3%" in capsys.readouterr().out
    assert main(["project", "show", str(study)]) == 0
    assert "partial   1 outlines: 0.3 scans of them were looked at" in capsys.readouterr().out


def test_a_folder_of_masks_belongs_to_the_outlines_by_name(barl, study, tmp_path):
    label, looked = outline()
    for n, name in enumerate("abc"):
        scan(tmp_path / "scans", name, n)
        write(tmp_path / "outlines" / f"{name}.nii.gz", label)
    write(tmp_path / "masks" / "b.nii.gz", looked)
    words = ["--images", tmp_path / "scans", "--labels", tmp_path / "outlines", "--looked", tmp_path / "masks"]
    barl("add", study, *words)
    assert [case["looked_share"] for case in barl("project", "cases", study)["cases"]] == [1, pytest.approx(1 / 3), 1]


def shares(barl, study: Path) -> dict[str, float]:
    return {case["name"]: round(case["looked_share"], 3) for case in barl("project", "cases", study)["cases"]}


WHOLE = "The folder of masks holds none for this outline: it counts as an outline of the whole scan."


@pytest.fixture
def masked(tmp_path) -> list:
    """Options of ``barl add`` for folders of outlines and masks with names as people give them; beside them scans."""
    label, looked = outline()
    for n, name in enumerate(["alpha", "bravo", "coral", "delta", "eagle"]):
        scan(tmp_path / "scans", name, n)
    for name in ("alpha_seg.nii.gz", "BRAVO.nii.gz", "coral_seg.nii.gz", "delta.seg.nrrd"):
        write(tmp_path / "outlines" / name, label)
    for name in ("alpha.nii.gz", "bravo_looked.nii.gz", "delta.nii.gz", "eagle.nii.gz", "fjord.nii.gz"):
        write(tmp_path / "masks" / name, looked)
    return ["--labels", tmp_path / "outlines", "--looked", tmp_path / "masks"]


@pytest.mark.parametrize("names", [["--anonymous"], []])
@pytest.mark.parametrize("way", ["new", "later", "again"])
def test_masks_belong_to_outlines_by_the_names_of_the_cases_too(way, names, barl, study, masked, tmp_path, capsys):
    scans = ["--images", tmp_path / "scans"]
    if way != "new":
        barl("add", study, *scans, *names)
    words = map(str, ["add", study, *([] if way == "later" else scans), *masked, *names, "--json"])
    assert main([*words]) == 2, "masks without an outline are told as outlines without a scan are"
    done = json.loads(capsys.readouterr().out)
    found = shares(barl, study)
    assert [*found.values()] == [0.333, 0.333, 1, 0.333, 1]
    left = {item["name"]: item["message"] for item in done["failed"]}
    assert left == dict.fromkeys(
        ("eagle.nii.gz", "fjord.nii.gz"), "There is no outline for this mask, or its outline has another one."
    )
    notes = {case["name"]: case["notes"] for case in done["cases"]}
    third = [*found][2]
    told = notes[third] if way != "again" else [note.removesuffix(f" ({third})") for note in done["notes"]]
    assert WHOLE in told
    text = json.dumps(done)
    assert text.count(WHOLE) == 1
    assert "The mask was matched to the scan by a name that differs by '_looked'." in text


@pytest.mark.parametrize("way", ["new", "later"])
def test_an_outline_of_which_several_masks_could_be_is_left_out(way, barl, study, tmp_path, capsys):
    label, looked = outline()
    for n, name in enumerate(["a", "b", "c"]):
        scan(tmp_path / "scans", name, n)
        write(tmp_path / "outlines" / f"{name}.nii.gz", label)
    for name in ("a.nii.gz", "a.nrrd", "b_1st.nii.gz", "b_2nd.nii.gz", "c.nii.gz", "c_old.nii.gz"):
        write(tmp_path / "masks" / name, looked)
    words = ["--labels", tmp_path / "outlines", "--looked", tmp_path / "masks"]
    if way == "later":
        barl("add", study, "--images", tmp_path / "scans")
    else:
        words += ["--images", tmp_path / "scans"]
    assert main([*map(str, ["add", study, *words]), "--json"]) == 2
    failed = {item["name"].partition(".")[0]: item["message"] for item in json.loads(capsys.readouterr().out)["failed"]}
    assert failed == {
        "a": "Any of 'a.nii.gz', 'a.nrrd' could be the mask of the outline of 'a'.",
        "b": "Any of 'b_1st.nii.gz', 'b_2nd.nii.gz' could be the mask of the outline of 'b'.",
        "c_old": "There is no outline for this mask, or its outline has another one.",
    }
    with Project.open(study, read_only=True) as project:
        assert [case.name for case in project.cases.all() if case.is_accepted] == ["c"]
        assert project.cases.find("c").is_partial


def test_a_folder_for_each_case_has_a_folder_for_each_mask(barl, study, tmp_path):
    label, looked = outline()
    for n, name in enumerate(["a", "b"]):
        (tmp_path / "scans" / name).mkdir(parents=True)
        (tmp_path / "outlines" / name).mkdir(parents=True)
        scan(tmp_path / "scans" / name, "t1", n)
        write(tmp_path / "outlines" / name / "seg.nii.gz", label)
    (tmp_path / "masks" / "b").mkdir(parents=True)
    write(tmp_path / "masks" / "b" / "seg.nii.gz", looked)
    words = ["--images", tmp_path / "scans", "--labels", tmp_path / "outlines", "--looked", tmp_path / "masks"]
    barl("add", study, *words)
    assert shares(barl, study) == {"a": 1, "b": 0.333}


def test_a_later_outline_has_a_value_for_what_nobody_has_looked_at(barl, study, tmp_path):
    label, looked = outline()
    for n, name in enumerate(["a", "b"]):
        scan(tmp_path / "scans", name, n)
    write(tmp_path / "outlines" / "a.nii.gz", np.where(looked, label, 9).astype(np.uint8))
    write(tmp_path / "outlines" / "b.nii.gz", label)
    barl("add", study, "--images", tmp_path / "scans")
    done = barl("add", study, "--labels", tmp_path / "outlines", "--ignore", 9)
    assert shares(barl, study) == {"a": 0.333, "b": 1}
    missing = "Outline: It has no voxel of the value 9, which means that nobody has looked: it counts as an outline of "
    notes = {case["name"]: case["notes"] for case in done["cases"]}
    assert notes == {"a": [], "b": [missing + "the whole scan."]}
    again = barl("add", study, "--labels", tmp_path / "outlines", "--ignore", 9)
    assert (again["cases"], again["notes"]) == ([], ["2 cases have the same accepted outline already."])


def test_an_outline_is_the_accepted_one_only_if_the_same_part_was_looked_at(barl, study, tmp_path):
    label, looked = outline()
    scan(tmp_path / "scans", "a", 1)
    write(tmp_path / "outlines" / "a.nii.gz", label)
    write(tmp_path / "masks" / "a.nii.gz", looked)
    barl("add", study, "--images", tmp_path / "scans", "--labels", tmp_path / "outlines")
    words = ["add", study, "--labels", tmp_path / "outlines", "--looked", tmp_path / "masks"]
    assert "has another accepted outline" in barl(*words, fails=True)["error"]
    barl(*words, "--replace")
    assert shares(barl, study) == {"a": 0.333}
    assert barl(*words)["notes"] == ["1 case has the same accepted outline already."]
    assert "has another accepted outline" in barl(*words[:4], fails=True)["error"], "of the whole scan"


def test_a_mask_without_any_labeled_voxel_is_a_doubt(barl, study, tmp_path):
    """As an inverted mask is."""
    label, looked = outline()
    whole = write(tmp_path / "outlines" / "a.nii.gz", label)
    inverted = write(tmp_path / "masks" / "a.nii.gz", (label == 0).astype(np.uint8))
    mask = write(tmp_path / "mask.nii.gz", looked)
    text = "All labeled voxels of the outline of 'a' lie outside of the mask of what was looked at."
    add = ["add", study, scan(tmp_path, "a", 1), "--label", whole, "--looked"]
    said = barl(*add, inverted, fails=True)["error"]
    assert text in said and "it may be inverted" in said and "--allow empty" in said
    assert shares(barl, study) == {}
    nothing = write(tmp_path / "nothing.nii.gz", np.zeros(SHAPE, np.uint8))
    assert "No voxel of the outline was looked at" in barl(*add, nothing, fails=True)["error"]
    barl(*add, mask)
    for words in (
        ["project", "accept", study, "a", whole, "--looked", inverted, "--replace"],
        ["add", study, "--labels", whole.parent, "--looked", inverted.parent, "--replace"],
    ):
        assert text in barl(*words, fails=True)["error"]
        assert shares(barl, study) == {"a": 0.333}
        barl(*words, "--allow", "empty")
        assert shares(barl, study) == {"a": round(float((label == 0).mean()), 3)}
        barl("project", "accept", study, "a", whole, "--looked", mask, "--replace")


def test_an_outline_as_its_own_mask_is_a_doubt(barl, study, tmp_path):
    """As with one folder for --labels and --looked: nothing would be learned about the background."""
    label, _ = outline()
    whole = write(tmp_path / "outlines" / "a.nii.gz", label)
    text = "The mask of what was looked at of 'a' is the outline itself"
    add = ["add", study, scan(tmp_path / "scans", "a", 1), "--label", whole, "--looked", whole]
    assert text in barl(*add, fails=True)["error"] and shares(barl, study) == {}
    folders = ["--labels", whole.parent, "--looked", whole.parent]
    assert text in barl("add", study, "--images", tmp_path / "scans", *folders, fails=True)["error"]
    barl("add", study, tmp_path / "scans" / "a.nii.gz")
    for words in (["add", study, *folders], ["project", "accept", study, "a", whole, "--looked", whole]):
        said = barl(*words, fails=True)["error"]
        assert text in said and "files of their own" in said and "--allow empty" in said
    barl(*words, "--allow", "empty")
    assert shares(barl, study) == {"a": round(float((label != 0).mean()), 3)}


def test_single_planes_are_told_unless_the_outline_is_a_partial_one(barl, study, tmp_path):
    label = np.zeros((9, 8, 10), np.uint8)
    label[[1, 4, 7], 2:6, 2:6] = 2
    label[3:6, 6:8, 6:9] = 5
    case = write(tmp_path / "a.nii.gz", np.random.default_rng(1).normal(size=label.shape).astype(np.float32))
    file = write(tmp_path / "planes.nii.gz", label)
    looked = np.zeros_like(label)
    looked[[1, 4, 7]] = 1
    mask, full = write(tmp_path / "mask.nii.gz", looked), write(tmp_path / "full.nii.gz", np.ones_like(label))
    barl("add", study, case)
    text = (
        "Outline: 'organ' has voxels in 3 single planes and none in the 4 planes between them, which count as "
        "background. If nobody has looked at these, give the outline as a partial one (on the command line: --looked "
        "or --ignore)."
    )
    accept = ["project", "accept", study, "a", file, "--replace"]
    assert barl(*accept)["notes"] == barl(*accept, "--looked", full)["notes"] == [text]
    assert barl(*accept, "--looked", mask)["notes"] == []


def test_accept_takes_a_part_and_a_partial_draft_as_a_part_or_as_a_whole(barl, study, tmp_path):
    label, looked = outline()
    mask, whole = write(tmp_path / "mask.nii.gz", looked), write(tmp_path / "whole.nii.gz", label)
    barl("add", study, scan(tmp_path, "a", 0))
    stored = barl("project", "accept", study, "a", whole, "--looked", mask)
    assert stored["looked_share"] == pytest.approx(1 / 3)
    with Project.open(study) as project:
        draft = sitk.ReadImage(str(mask))
        project.revisions.store("a", whole, "draft", author="a", looked=draft * 0 + (draft == 1), filled_by="barl fill")
    assert barl("project", "accept", study, "a", "--draft", "--replace")["looked_share"] == pytest.approx(1 / 3)
    assert barl("project", "accept", study, "a", "--draft", "--whole", "--replace")["looked_share"] == 1
    for words, reason in (
        (("--draft", "--whole", "--looked", mask), "contradicts"),
        (("--draft", "--ignore", 7), "about a value in a file"),
    ):
        assert reason in barl("project", "accept", study, "a", *words, fails=True)["error"]


def test_nnunet_gets_and_gives_what_was_not_looked_at_as_its_ignore_label(barl, study, tmp_path):
    label, looked = outline()
    mask, whole = write(tmp_path / "mask.nii.gz", looked), write(tmp_path / "whole.nii.gz", label)
    barl("add", study, scan(tmp_path, "a", 0), "--label", whole, "--looked", mask)
    barl("add", study, scan(tmp_path, "b", 1), "--label", whole, "--looked", mask, "--held-out")
    barl("add", study, scan(tmp_path, "c", 2), "--label", whole)
    barl("export", study, tmp_path / "Dataset007_Study")
    table = json.loads((tmp_path / "Dataset007_Study" / "dataset.json").read_text())["labels"]
    assert table == {"background": 0, "organ": 1, "tumor": 2, "ignore": 3}
    consecutive = np.searchsorted([0, 2, 5], label)
    for part, case, expected in (
        ("Tr", "case_0001", np.where(looked, consecutive, 3)),
        ("Ts", "case_0002", np.where(looked, consecutive, 3)),
        ("Tr", "case_0003", consecutive),
    ):
        assert (pixels(tmp_path / "Dataset007_Study" / f"labels{part}" / f"{case}.nii.gz") == expected).all()
    barl("export", study, tmp_path / "plain", "--layout", "plain")
    assert (pixels(tmp_path / "plain" / "case_0001" / "looked.nii.gz") == looked).all()
    assert not (tmp_path / "plain" / "case_0003" / "looked.nii.gz").exists()
    # And back, into a project whose values are others: 3 is a label there.
    barl("project", "new", tmp_path / "other", "--label", "3=tumor", "--label", "4=organ")
    added = barl("add", tmp_path / "other", tmp_path / "Dataset007_Study")
    assert any("nobody has looked" in note for note in added["notes"])
    with Project.open(tmp_path / "other", read_only=True) as project:
        cases = {case.name: case for case in project.cases.all()}
        assert sorted(round(case.looked_share, 3) for case in cases.values()) == [0.333, 0.333, 1.0]
        revision = project.revisions.accepted("case_0001")
        expected = np.choose(np.searchsorted([0, 2, 5], label), [0, 4, 3])
        assert (pixels(revision.path) == np.where(looked, expected, 0)).all()


# With the models of the archived project


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("release")
    with zipfile.ZipFile(ARCHIVE) as packed:
        packed.extractall(place)
    return place


@pytest.fixture
def shapes(unpacked, tmp_path) -> Path:
    return Path(shutil.copytree(unpacked / "project", tmp_path / "project"))


def make_partial(folder: Path, name: str, *planes: int) -> np.ndarray:
    """Accept the outline of a case again with these planes alone, garbage elsewhere; gives the mask."""
    with Project.open(folder) as project:
        old, grid = project.revisions.accepted(name), project.cases.grid(name)
        label, mask = pixels(old.path), np.zeros(grid.shape, np.uint8)
        mask[list(planes)] = 1
        label[mask == 0] = 1
        images = grid.image(label), grid.image(mask)
        project.revisions.store(name, images[0], "accepted", author="reader", looked=images[1], filled_by="garbage")
    return mask != 0


def test_a_held_out_partial_outline_judges_where_it_was_looked_at(barl, shapes):
    with Project.open(shapes, read_only=True) as project:
        name = next(case.name for case in project.cases.all() if case.evaluates)
        truth = pixels(project.revisions.accepted(name).path)
    looked = make_partial(shapes, name, *range(4, 16))
    scores = barl("evaluate", shapes, "--device", "cpu")
    assert any("held-out outlines are partial" in note for note in scores["notes"])
    barl("predict", shapes, name, "--device", "cpu")
    with Project.open(shapes, read_only=True) as project:
        predicted = pixels(project.revisions.newest(name, ("prediction",)).path)
        expected = segmentation_metrics(predicted * looked, truth * looked, (1.0, 1.0, 1.0), project.values)
    row = next(row for row in scores["cases"] if row["name"] == name)["labels"]
    for value, metrics in expected.items():
        assert row[str(value)]["dice"] == pytest.approx(metrics.dice, abs=1e-6)
        assert row[str(value)]["hd95_mm"] is None and row[str(value)]["lesion_f1"] is None


def test_a_partial_case_is_predicted_again_and_its_agreement_is_that_of_the_part(barl, shapes):
    with Project.open(shapes, read_only=True) as project:
        case = next(case for case in project.cases.all() if case.teaches)
    before = [done["name"] for done in barl("predict", shapes, "--device", "cpu")["cases"]]
    assert case.name not in before
    looked = make_partial(shapes, case.name, 8, 9)
    assert case.name in [done["name"] for done in barl("predict", shapes, "--device", "cpu")["cases"]]
    with Project.open(shapes) as project:
        assert project.cases.get(case.id).is_partial  # still accepted
        prediction = project.revisions.newest(case.id, ("prediction",))
        label = pixels(prediction.path)
        label[~looked] = 2 - label[~looked] % 2
        grid = project.cases.grid(case.id)
        project.revisions.store(
            case.id, grid.image(label), "accepted", author="a", looked=grid.image(looked.astype(np.uint8))
        )
        project.agreements.measure()
        assert project.agreements.all()[case.id].dice == 1


def test_a_project_is_trained_with_partial_outlines_and_says_so(barl, shapes):
    with Project.open(shapes, read_only=True) as project:
        names = [case.name for case in project.cases.all() if case.teaches]
    make_partial(shapes, names[0], 8, 9)
    plan = barl("train", shapes, "--plan", "--iterations", 3)
    assert any("1 of" in note and "outlines are partial" in note for note in plan["notes"])
    assert (
        "cannot learn from partial" in barl("train", shapes, "--iterations", 3, "--method", "bcp", fails=True)["error"]
    )
    done = barl("train", shapes, "--iterations", 3, "--set", "validations=0", "--from-scratch")
    card = barl("models", "show", shapes, done["model"])
    assert card["data"]["partial"] == 1
