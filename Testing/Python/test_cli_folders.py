# SPDX-License-Identifier: Apache-2.0
"""``barl add`` with folders as people have them: names that do not match, folders that grow, names of patients."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import threading
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.api import add_case
from barl.cli import main
from barl.cli.folder_commands import named
from barl.errors import InputError
from barl.project.anonymous import NameList
from barl.project.names import patients_names
from barl.project.scans import NewCase
from barl.project.store import Project

SHIPPED = Path(__file__).resolve().parents[2] / "BARLSegmentation/Resources/Models/hippocampus"


def barl(capsys, *words, code: int = 0) -> dict:
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def write(path: Path, seed: int, label: int | None = None) -> None:
    """A scan, or an outline: a box whose place depends on ``label``."""
    path.parent.mkdir(exist_ok=True)
    array = np.random.default_rng(seed).normal(100, 20, (6, 7, 8)).astype(np.float32)
    if label is not None:
        array = np.zeros((6, 7, 8), np.uint8)
        array[label : label + 2, 2:5, 2:6] = 1
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


@pytest.fixture
def place(tmp_path, monkeypatch, capsys) -> Path:
    """A project and a folder of three scans, one of them with an outline."""
    monkeypatch.chdir(tmp_path)
    for n in range(3):
        write(Path(f"scans/la_00{n}.nii.gz"), n)
    write(Path("outlines/la_000.nii.gz"), 0, label=1)
    barl(capsys, "project", "new", "study", "--label", "1=atrium")
    return tmp_path


def states(folder: str = "study") -> dict[str, tuple[str, bool]]:
    with Project.open(folder, read_only=True) as project:
        return {case.name: (str(case.state), case.held_out) for case in project.cases.all()}


def test_a_folder_that_grew_is_added_again(place, capsys):
    words = ["add", "study", "--images", "scans", "--labels", "outlines"]
    barl(capsys, *words)
    barl(capsys, "project", "mark", "study", "la_001", "--held-out", "yes")
    write(Path("scans/la_003.nii.gz"), 3)
    write(Path("outlines/la_001.nii.gz"), 1, label=2)
    again = barl(capsys, *words)
    assert [case["name"] for case in again["cases"]] == ["la_003"] and again["failed"] == []
    assert any("stored for cases that were in the project: la_001" in note for note in again["notes"])
    assert any(note.startswith("2 cases are in the project already") for note in again["notes"])
    assert states()["la_001"] == ("accepted", True)
    nothing = barl(capsys, *words)
    assert nothing["cases"] == [] and any(note.startswith("4 cases are in") for note in nothing["notes"])


def test_outlines_come_by_folder_and_replace_only_when_told(place, capsys):
    barl(capsys, "add", "study", "--images", "scans")
    barl(capsys, "project", "mark", "study", "la_002", "--held-out", "yes")
    write(Path("outlines/la_002_seg.nii.gz"), 2, label=2)
    write(Path("outlines/LA_999.nii.gz"), 9, label=2)
    write(Path("outlines/la_0001.nii.gz"), 9, label=2)
    done = barl(capsys, "add", "study", "--labels", "outlines", code=2)
    assert [case["name"] for case in done["cases"]] == ["la_000", "la_002"]
    failed = {item["name"]: item for item in done["failed"]}
    assert set(failed) == {"LA_999.nii.gz", "la_0001.nii.gz"} and "no case" in failed["LA_999.nii.gz"]["message"]
    assert "Did you mean 'la_001'?" in failed["la_0001.nii.gz"]["remedy"], "a typing error is no match"
    assert "Did you mean" not in failed["LA_999.nii.gz"]["remedy"], "another number is another case"
    assert states() == {"la_000": ("accepted", False), "la_001": ("new", False), "la_002": ("accepted", True)}
    shutil.rmtree("outlines")
    write(Path("outlines/la_000.nii.gz"), 0, label=1)
    write(Path("outlines/la_002.nii.gz"), 0, label=3)
    refused = barl(capsys, "add", "study", "--labels", "outlines", code=2)
    assert [item["name"] for item in refused["failed"]] == ["la_002.nii.gz"] and refused["cases"] == []
    assert "--replace" in refused["failed"][0]["remedy"]
    assert any("1 case has the same" in note for note in refused["notes"])
    replaced = barl(capsys, "add", "study", "--labels", "outlines", "--replace", "--allow", "different")
    assert any("It replaces" in note for note in replaced["notes"])


def test_channels_are_seen_in_the_names_or_their_nearest_reading_is_shown(place, capsys):
    for n in range(3):
        write(Path(f"two/p{n}_t1.nii.gz"), n)
        write(Path(f"two/p{n}_FLAIR.nii.gz"), 10 + n)
        write(Path(f"numbered/q{n}_0000.nii.gz"), 20 + n)
        write(Path(f"numbered/q{n}_0001.nii.gz"), 30 + n)
        write(Path(f"unclear/r{n}.nii.gz"), 40 + n)
    barl(capsys, "project", "new", "brain", "--label", "1=tumor", "--channel", "T1", "--channel", "FLAIR")
    added = barl(capsys, "add", "brain", "--images", "two")
    assert [case["name"] for case in added["cases"]] == ["p0", "p1", "p2"]
    assert "names of the channels" in added["cases"][0]["notes"][0]
    error = barl(capsys, "add", "brain", "--images", "numbered", code=2)["error"]
    assert "_0000, _0001" in error["message"]
    command = error["remedy"].partition('"')[2].partition('"')[0]
    assert command == "barl project channels PROJECT --pattern T1=_0000 --pattern FLAIR=_0001"
    barl(capsys, *command.replace("PROJECT", "brain").split()[1:])
    assert [case["name"] for case in barl(capsys, "add", "brain", "--images", "numbered")["cases"]] == [
        "q0",
        "q1",
        "q2",
    ]
    barl(capsys, "project", "new", "other", "--label", "1=tumor", "--channel", "T1", "--channel", "T2")
    assert "--pattern T1=_T1" in barl(capsys, "add", "other", "--images", "unclear", code=2)["error"]["remedy"]


def everything_in(folder: str) -> bytes:
    return b"".join(
        path.read_bytes() + str(path).encode() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    )


def test_names_of_patients_are_asked_about_or_kept_outside(place, capsys):
    for n, name in enumerate(("MEI0423", "KAR1188", "scan-7")):
        write(Path(f"clinic/{name}.nii.gz"), n)
    write(Path("drawn/MEI0423.nii.gz"), 0, label=1)
    words = ["add", "study", "--images", "clinic", "--labels", "drawn"]
    error = barl(capsys, *words, code=2)["error"]
    assert "2 names may be patients'" in error["message"] and "--anonymous" in error["remedy"]
    assert "--allow name" in error["remedy"] and states() == {}
    added = barl(capsys, *words, "--anonymous")
    assert [case["name"] for case in added["cases"]] == ["case_0001", "case_0002", "case_0003"]
    with Path("study-names.csv").open(encoding="utf-8-sig") as file:
        listed = {row["case"]: row["name"] for row in csv.DictReader(file)}
    assert listed == {"case_0001": "KAR1188", "case_0002": "MEI0423", "case_0003": "scan-7"}
    listed = Path("study-names.csv")
    listed.write_text(listed.read_text(encoding="utf-8-sig"), encoding="utf-8")  # as an editor saves it
    write(Path("drawn/KAR1188_seg.nii.gz"), 1, label=2)
    later = barl(capsys, "add", "study", "--labels", "drawn", "--anonymous")
    assert [case["name"] for case in later["cases"]] == ["case_0001"]
    write(Path("clinic/NEU0001.nii.gz"), 9)
    grown = barl(capsys, *words, "--anonymous")
    assert [case["name"] for case in grown["cases"]] == ["case_0004"]
    for name in (b"MEI", b"KAR", b"NEU", b"scan-7"):
        assert name not in everything_in("study")
    barl(capsys, "project", "new", "named", "--label", "1=a")
    assert len(barl(capsys, "add", "named", "--images", "clinic", "--allow", "name")["cases"]) == 4
    write(Path("MEI0424.nii.gz"), 7)
    assert barl(capsys, "add", "named", "MEI0424.nii.gz", code=2)["error"]["message"].startswith("The name 'MEI0424'")
    assert barl(capsys, "add", "named", "MEI0424.nii.gz", "--name", "MRI, T1 of 2024-01-31")["cases"]
    inside = barl(capsys, "add", "named", "--images", "scans", "--anonymous", "--list", "named/names.csv", code=2)
    assert "outside" in inside["error"]["remedy"]


def test_two_programs_that_number_cases_at_once_give_each_its_own_number(place, monkeypatch):
    """``ls disc | xargs -P 2 -I {} barl add study disc/{} --anonymous``"""
    both, number = threading.Barrier(2), NameList.number

    def number_together(names, project, cases):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)  # both have read the list, unless one of them has to wait
        return number(names, project, cases)

    def add(name: str) -> str:
        with Project.open("study") as project:
            (numbered,) = named(project, [NewCase(name, ())], options)
        return numbered.name

    monkeypatch.setattr(NameList, "number", number_together)
    options = Namespace(anonymous=True, list=None)
    with ThreadPoolExecutor(2) as pool:
        numbers = list(pool.map(add, ("Doe, Jane", "Roe, Richard")))
    with Path("study-names.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["case"]: row["name"] for row in csv.DictReader(file)}
    assert rows == dict(zip(numbers, ("Doe, Jane", "Roe, Richard"), strict=True)) and len(rows) == 2


def test_a_note_about_a_file_of_an_anonymous_case_does_not_name_it(place, capsys):
    array = np.zeros((6, 7, 8), np.float32)
    array[2] = np.nan
    array[3] = np.random.default_rng(0).normal(size=(7, 8))
    Path("clinic").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(array), "clinic/MEI0423.nii.gz")
    for words in (["clinic/MEI0423.nii.gz"], ["--images", "clinic"]):
        main(["add", "study", *words, "--anonymous", "--allow", "same-scan", "--allow", "label-map"])
        assert b"MEI0423" not in everything_in("study")


def test_a_common_beginning_of_all_names_is_no_patient():
    assert patients_names(["abc001", "abc002"]) == []
    assert patients_names(["abc001", "xyz002"]) == ["abc001", "xyz002"]
    assert patients_names(["abc001"]) == ["abc001"]
    assert patients_names(["abc_1975-03-21", "abc_x"]) == ["abc_1975-03-21"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainn", "p"], "Did you mean train?"),
        (["project", "showw", "p"], "Did you mean show?"),
        (["train", "p", "--minuts", "3"], "Did you mean --minutes?"),
        (["export", "p", "out", "--layout", "nnunett"], "Did you mean nnunet?"),
        (["qqq"], "--help"),
    ],
)
def test_a_typing_error_gets_one_suggestion(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_la_005_is_not_silently_LA_005(place, capsys):  # noqa: N802
    barl(capsys, "add", "study", "scans/la_000.nii.gz", "--name", "LA_000")
    error = barl(capsys, "project", "mark", "study", "la_000", "--exclude", code=3)["error"]
    assert error["remedy"] == "Did you mean 'LA_000'?"
    shutil.rmtree("scans")
    write(Path("scans/la_000.nii.gz"), 7)
    error = barl(capsys, "add", "study", "--images", "scans", code=2)["error"]
    assert "named 'la_000' already" in error["message"]
    done = barl(capsys, "add", "study", "--labels", "outlines")
    assert "upper and lower case" in done["cases"][0]["notes"][0]


def test_another_scan_under_a_name_that_is_there_gets_no_outline(place, capsys):
    """Two sites call their first scan alike."""
    barl(capsys, "add", "study", "--images", "scans")
    write(Path("site/la_000.nii.gz"), 10)
    write(Path("site/LA_001.nii.gz"), 1)
    write(Path("site/la_009.nii.gz"), 9)
    for name in ("la_000", "LA_001"):
        write(Path(f"drawn/{name}.nii.gz"), 0, label=1)
    told = barl(capsys, "add", "study", "--images", "site", "--labels", "drawn", code=2)
    assert [case["name"] for case in told["cases"]] == ["la_009"]
    ((name, message),) = [(item["name"], item["message"]) for item in told["failed"]]
    assert name == "la_000" and "another scan" in message
    assert {name: state for name, (state, _) in states().items()} == {
        "la_000": "new", "la_001": "accepted", "la_002": "new", "la_009": "new"
    }  # fmt: skip
    assert any("in the project: la_001" in note for note in told["notes"])
    assert not any("unchanged" in note for note in told["notes"])


def test_the_list_of_names_keeps_cases_that_were_deleted_or_renamed(place, capsys):
    words = ["add", "study", "--images", "scans", "--anonymous"]
    barl(capsys, *words)
    names = Path("study-names.csv").read_text()
    barl(capsys, "project", "delete", "study", "case_0001")
    barl(capsys, "project", "rename", "study", "case_0002", "knee")
    told = barl(capsys, *words, code=2)
    assert told["cases"] == [] and [item["name"] for item in told["failed"]] == ["case_0001"]
    assert "was deleted" in told["failed"][0]["message"] and "undelete study" not in told["failed"][0]["message"]
    assert "undelete" in told["failed"][0]["remedy"] and Path("study-names.csv").read_text() == names
    barl(capsys, "add", "study", "scans/la_001.nii.gz", "--anonymous", code=2)
    assert Path("study-names.csv").read_text() == names
    Path("scans/broken.nii.gz").write_bytes(b"no scan")
    barl(capsys, *words, code=2)
    assert Path("study-names.csv").read_text() == names, "a number that became no case is free again"
    barl(capsys, "project", "undelete", "study", "case_0001")
    assert set(states()) == {"case_0001", "knee", "case_0003"}


@pytest.mark.parametrize("other", ["la_000.nrrd", "LA_000.nii.gz", "case_0001.nrrd", "la_000.seg.nrrd"])
def test_two_outlines_of_one_case_are_refused_also_later(place, capsys, other):
    barl(capsys, "add", "study", "--images", "scans")
    write(Path("outlines") / other, 0, label=3)
    write(Path("outlines/la_001.nii.gz"), 1, label=2)
    done = barl(capsys, "add", "study", "--labels", "outlines", "--replace", code=2)
    assert [case["name"] for case in done["cases"]] == ["la_001"], "one case stops no other"
    told = " ".join(f"{item['name']} {item['message']}" for item in done["failed"])
    assert "la_000.nii.gz" in told and other in told and ("both outlines" in told or "Several outlines" in told)
    assert all("away" in item["remedy"] for item in done["failed"])
    assert states()["la_000"] == ("new", False)


def test_two_masks_of_one_outline_are_refused(place, capsys):
    for ending in ("nii.gz", "nrrd"):
        write(Path(f"looked/la_000.{ending}"), 0, label=1)
    words = ["add", "study", "--images", "scans", "--labels", "outlines", "--looked", "looked"]
    (failed,) = barl(capsys, *words, code=2)["failed"]
    assert failed["message"] == ("Any of 'la_000.nii.gz', 'la_000.nrrd' could be the mask of the outline of 'la_000'.")
    assert set(states()) == {"la_001", "la_002"}


def test_the_outline_of_a_second_visit_is_not_that_of_the_first(place, capsys):
    barl(capsys, "add", "study", "scans/la_000.nii.gz", "--name", "q_1")
    write(Path("visits/q_1_2_seg.nii.gz"), 0, label=2)
    (failed,) = barl(capsys, "add", "study", "--labels", "visits", code=2)["failed"]
    assert failed["name"] == "q_1_2_seg.nii.gz" and failed["message"] == "The project has no case 'q_1_2_seg'."
    assert states() == {"q_1": ("new", False)}


def test_files_whose_names_contradict_the_order_of_the_channels_are_refused(place, capsys):
    names = ("p1_FLAIR", "p1_t1", "p1_T1_on_FLAIR", "x", "pT1")
    for n, name in enumerate(names):
        write(Path(f"brain/{name}.nii.gz"), n)
    flair, t1, both, plain, part = (Path(f"brain/{name}.nii.gz") for name in names)
    barl(capsys, "project", "new", "two", "--label", "1=tumor", "--channel", "T1", "--channel", "FLAIR")
    error = barl(capsys, "add", "two", flair, t1, "--name", "p1", code=2)["error"]
    assert error["message"] == "'p1_FLAIR.nii.gz' is given as the channel T1, but its name says FLAIR."
    assert "in this order: p1_t1.nii.gz p1_FLAIR.nii.gz;" in error["remedy"]
    error = barl(capsys, "add", "two", t1, t1, "--name", "p1", code=2)["error"]
    assert "p1_t1.nii.gz' is given as the channel FLAIR" in error["message"] and "T1, FLAIR" in error["remedy"]
    with Project.open("two") as project, pytest.raises(InputError, match="its name says FLAIR"):
        add_case(project, "p1", [str(flair), t1])
    assert states("two") == {}
    for number, files in enumerate(((t1, flair), (flair, both), (flair, plain), (flair, part))):
        barl(capsys, "add", "two", *files, "--name", f"case {number}", "--allow", "same-scan")
    barl(capsys, "project", "new", "gd", "--label", "1=a", "--channel", "T1", "--channel", "T1-Gd")
    shutil.copy(t1, "brain/p1_T1-Gd.nii.gz")
    error = barl(capsys, "add", "gd", "brain/p1_T1-Gd.nii.gz", t1, "--name", "p", code=2)["error"]
    assert "its name says T1-Gd" in error["message"]


def test_a_model_gets_its_channels_by_name(place, capsys):
    """The names are compared with the card before anything is loaded."""
    card = json.loads((SHIPPED / "model.json").read_text())
    card |= {"channels": ["T1", "FLAIR"], "normalisations": 2 * card["normalisations"]}
    card["network"]["in_channels"] = 2
    Path("model").mkdir()
    Path("model/model.json").write_text(json.dumps(card))
    shutil.copy(SHIPPED / "weights.safetensors", "model")
    for n, name in enumerate(("a_FLAIR", "a_T1")):
        write(Path(f"brain/{name}.nii.gz"), n)
    words = ["predict", "brain/a_FLAIR.nii.gz", "brain/a_T1.nii.gz", "--model", "model", "--output", "o.nii.gz"]
    error = barl(capsys, *words, code=2)["error"]
    assert "a_FLAIR.nii.gz' is given as the channel T1" in error["message"]
