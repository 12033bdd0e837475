# SPDX-License-Identifier: Apache-2.0
"""What can be changed in a project later: names and deletion of cases, rows of the label table, channels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError, ProjectError, StorageError
from barl.images.fingerprint import fingerprint_case
from barl.images.writing import write_image
from barl.project import cases, erasing, staging
from barl.project.labels import Channel, Label, check_labels
from barl.project.store import Project
from barl.training.cases import NOT_LOOKED_AT
from barl.training.plan import make_plan


def a_scan(seed: int = 0) -> sitk.Image:
    return sitk.GetImageFromArray(np.random.default_rng(seed).normal(100, 20, (6, 8, 10)).astype(np.float32))


def a_map(value: int = 1) -> sitk.Image:
    array = np.zeros((6, 8, 10), np.uint8)
    array[2:4, 2:6, 3:7] = value
    return sitk.GetImageFromArray(array)


@pytest.fixture
def project(tmp_path: Path):
    with Project.create(tmp_path / "p", "p", [Label(1, "tumor")], [Channel("T1", "_T1")]) as project:
        for number, name in enumerate(("a", "b", "c")):
            project.cases.add(name, [a_scan(number)], label=a_map() if name != "c" else None)
        yield project


def names(project: Project) -> list[str]:
    return [case.name for case in project.cases.all()]


def test_a_deleted_case_is_gone_its_name_is_free_and_it_comes_back(project: Project) -> None:
    before = project.cases.get("a")
    project.cases.delete("a")
    assert names(project) == ["b", "c"] and project.cases.all("accepted") == [project.cases.get("b")]
    with pytest.raises(ProjectError, match="was deleted") as caught:
        project.cases.get(before.id)
    assert f"barl project undelete PROJECT {before.id}" in caught.value.remedy
    other = project.cases.add("a", [a_scan(9)])
    assert other.id != before.id and [case.name for case in project.cases.deleted()] == ["a"]
    with pytest.raises(InputError, match="named 'a' already"):
        project.cases.undelete(before.id)
    assert project.cases.undelete(before.id, "first a").is_accepted
    assert project.cases.get(before.id).name == "first a" and project.cases.deleted() == []
    assert project.revisions.accepted_label(before.id).is_file() and project.verify(everything=True) == []


def test_a_deleted_case_splits_no_subject(project: Project) -> None:
    project.cases.add("s1", [a_scan(5)], group="s", held_out=True)
    project.cases.delete("s1")
    project.cases.add("s2", [a_scan(6)], group="s")
    with pytest.raises(InputError, match="same subject"):
        project.cases.undelete("s1")


def test_an_erased_case_leaves_no_file_no_name_and_no_damage(project: Project) -> None:
    identity = project.cases.get("a").id
    project.cases.erase("a")
    assert not (project.folder / "cases" / identity).exists() and project.cases.deleted() == []
    assert project.verify(everything=True) == [] and names(project) == ["b", "c"]
    with pytest.raises(ProjectError, match="not clear which deleted case"):
        project.cases.undelete(identity)
    assert project.cases.add("a", [a_scan(9)]).id != identity


def test_erasing_that_was_killed_is_finished_by_the_next_opening(project: Project, monkeypatch) -> None:
    identity = project.cases.get("a").id
    with monkeypatch.context() as patch:  # as a kill, or a file that a program of Windows has open
        patch.setattr(
            erasing.shutil, "rmtree", lambda *_args, **_options: (_ for _ in ()).throw(PermissionError(13, ""))
        )
        with pytest.raises(StorageError, match="cannot be removed now"):
            project.cases.erase("a")
    assert (project.cases.folder / identity).is_dir()
    assert project.cases.deleted() == []  # what is erased cannot be brought back, whatever is left of it
    with pytest.raises(ProjectError, match="was erased"):
        project.cases.get(identity)
    Project.open(project.folder).close()
    assert not (project.cases.folder / identity).exists() and project.verify(everything=True) == []


def test_a_deleted_case_can_be_erased(project: Project, capsys) -> None:
    first, second = (project.cases.get(name).id for name in "ab")
    project.cases.rename("a", "Jane Doe")
    project.cases.delete("Jane Doe")
    project.database.back_up(anew=True)
    assert main(["project", "delete", str(project.folder), "b", "b"]) == 0
    assert main(["project", "delete", str(project.folder), "b"]) == 3
    assert main(["project", "delete", str(project.folder), "Jane Doe", second, "--erase"]) == 0
    assert not any((project.cases.folder / name).exists() for name in (first, second))
    assert not [path for path in project.folder.rglob("*") if path.is_file() and b"Jane" in path.read_bytes()]
    assert project.cases.deleted() == [] and "Jane" not in str(project.journal.entries())


def test_what_a_stopped_training_has_prepared_goes_with_an_erased_case(project: Project) -> None:
    both = [{"id": project.cases.get(name).id} for name in "ab"]
    with_it, without = (project.runs.new({"run": {"cases": some}}) for some in (both, both[1:]))
    for run in (with_it, without):
        (run.folder / "cache" / "0123").mkdir(parents=True)
    project.runs.update(with_it.id, "running")  # this very process
    with pytest.raises(ProjectError, match=f"{with_it.id} is being trained with the case"):
        project.cases.erase("a")
    assert names(project) == ["a", "b", "c"]
    project.runs.update(with_it.id, "stopped")
    project.cases.erase("a")
    assert not (with_it.folder / "cache").exists() and (without.folder / "cache").exists()


def test_a_change_of_a_computer_whose_clock_is_behind_is_noticed(project: Project, monkeypatch) -> None:
    before = project.cases.stamp()
    for module in (cases, staging):
        monkeypatch.setattr(module, "now", lambda: "2020-01-01T00:00:00.000Z")
    project.revisions.store("a", a_map(), "accepted", author="a colleague")
    assert project.cases.get("a").updated.startswith("2020") and project.cases.stamp() != before


def test_a_case_is_renamed_but_never_to_what_means_another(project: Project) -> None:
    b = project.cases.get("b")
    assert project.cases.rename("b", "  Knee   2 ").name == "Knee 2" and project.cases.find("Knee 2").id == b.id
    assert project.cases.rename("Knee 2", "knee 2").name == "knee 2"
    for taken in ("A", project.cases.get("a").id):
        with pytest.raises(InputError):
            project.cases.rename(b.id, taken)
    with pytest.raises(InputError, match="id of another case"):
        project.cases.add(b.id, [a_scan(7)])
    with pytest.raises(ProjectError, match="no case 'knee2'") as caught:
        project.cases.find("knee2")
    assert "knee 2" in caught.value.remedy


def test_a_case_named_like_an_id_gets_that_id(project: Project) -> None:
    assert project.cases.add("case_0007", [a_scan(7)]).id == "case_0007"
    ids = [project.cases.add(f"x{n}", [a_scan(n + 20)]).id for n in range(4)]
    assert len({*ids, "case_0007"}) == 5
    # As a version before this one could store it:
    project.database._connection.execute("UPDATE cases SET name = 'case_0001', name_key = 'case_0001' WHERE name = 'b'")
    with pytest.raises(ProjectError, match="id of the case 'a' and the name of another") as caught:
        project.cases.find("case_0001")
    assert "'a'" in caught.value.remedy and "'case_0002'" in caught.value.remedy
    assert project.cases.get("case_0001").name == "a", "ids are exact"


def test_a_label_is_added_and_its_meaning_for_outlines_is_said(project: Project) -> None:
    project.definition.add_label(Label(300, "cyst"))
    assert project.values == [1, 300]
    stored = project.revisions.store("a", sitk.Cast(a_map(1), sitk.sitkUInt16) * 300, "accepted", author="x")
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(stored.path))).max() == 300
    with Project.open(project.folder) as again:
        assert [label.name for label in again.labels] == ["tumor", "cyst"]
    (first, second) = project.definition.add_label(Label(2, "edema"), reopen=True)
    assert "edema" in first and "2 accepted cases are in review again" in second
    assert {case.state for case in project.cases.all()} == {"in_review", "new"}
    long, colored = Label(6, "x" * 300), Label(6, "\x1b[31mred")
    for wrong in (Label(2, "other"), Label(5, "TUMOR"), Label(70000, "x"), long, colored):
        with pytest.raises(InputError):
            project.definition.add_label(wrong)
    assert project.values == [1, 2, 300]


def test_a_label_is_renamed_and_the_table_stays_guarded(project: Project) -> None:
    assert "tumor" in project.definition.rename_label(1, "liver tumor")[0]
    assert [label.name for label in project.labels] == ["liver tumor"]
    with pytest.raises(ProjectError, match="no value 7"):
        project.definition.rename_label(7, "x")
    with pytest.raises(Exception, match="never changed"), project.database.write() as transaction:
        transaction.execute("UPDATE labels SET name = 'x'")
    assert project.journal.entries()[-1].facts == {"value": 1, "before": "tumor", "name": "liver tumor"}


def test_models_with_the_former_name_of_a_channel_still_fit(project: Project) -> None:
    (sentence,) = project.definition.change_channel("t1", new_name="T1w")
    assert "'T1'" in sentence and project.channels == [Channel("T1w", "_T1")]
    assert project.definition.channel_names_for(["T1"]) == ["T1"]
    assert project.definition.channel_names_for(["FLAIR"]) == ["T1w"]
    project.definition.change_channel("T1w", pattern="_t1w")
    project.definition.change_channel("T1w", new_name="T1 weighted")
    assert [project.definition.channel_names_for([name]) for name in ("T1", "T1w")] == [["T1"], ["T1w"]]
    assert project.cases.image_paths("a")[0].is_file() and project.cases.add("d", [a_scan(8)]).name == "d"


def test_more_labels_than_a_model_can_tell_apart_are_refused(tmp_path: Path) -> None:
    labels = [Label(value, f"l{value}") for value in range(1, 256)]
    with pytest.raises(InputError, match="255 labels"):
        Project.create(tmp_path / "p", "p", labels, [Channel("CT")])
    assert not (tmp_path / "p").exists()
    assert len(check_labels(labels[:-1])) == NOT_LOOKED_AT - 1, "every class is another number than the mark"
    case = fingerprint_case([a_scan(0)], None, [1])
    with pytest.raises(InputError, match="255 labels"):  # a project of an older version
        make_plan([case], labels, ["CT"])


@pytest.mark.parametrize("name", ["x" * 300, "\x1b[2Jgone", "a\x00b", "\udcff\udcfe", " \n\t "])
def test_names_that_cannot_be_shown_are_refused(project: Project, name: str) -> None:
    with pytest.raises(InputError) as caught:
        project.cases.add(name, [a_scan(4)])
    assert caught.value.message.isascii() and "\x1b" not in caught.value.message and len(caught.value.message) < 150
    assert names(project) == ["a", "b", "c"]


def test_the_commands(project: Project, tmp_path: Path, capsys) -> None:
    folder = project.folder

    def barl(*words: object, code: int = 0) -> str:
        assert main([str(word) for word in words]) == code
        seen = capsys.readouterr()
        return seen.out + seen.err

    assert "is named knee" in barl("project", "rename", folder, "c", "knee")
    text = barl("project", "delete", folder, "a", "knee")
    assert "knee" in barl("project", "cases", folder, "--deleted")
    command = re.findall(r'"barl ([^"]+)"', text)[0].split()
    assert "a is back: accepted" in barl(*command)
    assert "Did you mean 'b'?" in barl("project", "delete", folder, "B", code=3)
    write_image(a_map(3), tmp_path / "cyst.nii.gz")
    assert barl("project", "accept", folder, "b", tmp_path / "cyst.nii.gz", code=2)
    assert "teach that their cases have none" in barl("project", "labels", folder, "--add", "3=cyst")
    barl("project", "accept", folder, "b", tmp_path / "cyst.nii.gz", "--allow", "different")
    assert "liver" in barl("project", "labels", folder, "--rename", "1=liver")
    assert "T1w" in barl("project", "channels", folder, "--rename", "T1=T1w", "--pattern", "T1w=_t1")
    assert "with all images" in barl("project", "delete", folder, "b", "--erase")
    barl("project", "verify", folder)
