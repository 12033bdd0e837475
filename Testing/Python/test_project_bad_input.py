# SPDX-License-Identifier: Apache-2.0
"""The case store and bad input: one sentence, a remedy, and nothing is lost."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import BarlError, InputError, ProjectError, StorageError
from barl.images.geometry import Grid
from barl.project import database
from barl.project.labels import Channel, Label
from barl.project.restore import restore
from barl.project.store import Project

SHAPE = (6, 7, 8)


def make_scan(spacing: tuple[float, ...] = (1.0, 1.5, 3.0)) -> sitk.Image:
    scan = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32))
    scan.SetSpacing(spacing)
    return scan


def make_label(scan: sitk.Image, value: int = 3) -> sitk.Image:
    mask = np.random.default_rng(0).random(SHAPE) > 0.5
    return Grid.of(scan).image((mask * value).astype(np.uint8))


@pytest.fixture
def project(tmp_path: Path):
    labels = [Label(3, "lesion"), Label(1, "liver")]
    with Project.create(tmp_path / "project", "Livers", labels, [Channel("CT")]) as project:
        yield project


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "  "}, "no name"),
        ({"name": "FIRST"}, "already"),
        ({"name": "First "}, "already"),
        ({"channels": []}, "0 image"),
        ({"channels": [make_scan(), make_scan()]}, "2 image"),
        ({"channels": [Path("no-such-file.nii.gz")]}, "no-such-file"),
        ({"channels": [make_scan()[:, :, 2]]}, "two-dimensional|2D"),
        ({"label": make_label(make_scan(), value=2)}, "value 2"),
        ({"label": make_label(make_scan(spacing=(1, 1, 1)))}, "grid"),
        ({"label": Path("no-such-label.nii.gz")}, "no-such-label"),
        ({"label": sitk.Cast(make_label(make_scan()), sitk.sitkFloat32) * 0.5}, "value 1.5"),
    ],
)
def test_a_case_that_cannot_be_used_is_refused_and_leaves_nothing(
    project: Project, arguments: dict, words: str
) -> None:
    project.cases.add("First", [make_scan()])
    before = sorted(project.folder.rglob("*"))
    with pytest.raises(InputError, match=words) as caught:
        project.cases.add(**{"name": "second", "channels": [make_scan()]} | arguments)
    assert caught.value.remedy
    assert sorted(project.folder.rglob("*")) == before
    assert [case.name for case in project.cases.all()] == ["First"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"kind": "guess"}, InputError, "no kind"),
        ({"label": make_label(make_scan(), value=200)}, InputError, "value 200"),
        ({"label": sitk.Cast(make_label(make_scan()), sitk.sitkInt32) * -1}, InputError, "value -3"),
        ({"label": sitk.Cast(make_label(make_scan()), sitk.sitkFloat32) * np.nan}, InputError, "value nan"),
        ({"label": make_label(make_scan(spacing=(1, 1, 1)))}, InputError, "grid"),
        ({"uncertainty": make_scan(spacing=(1, 1, 1))}, InputError, "uncertainty map"),
        ({"uncertainty": make_scan()}, InputError, "outside of 0 to 1"),
        ({"uncertainty": make_scan() * np.nan}, InputError, "outside of 0 to 1"),
        ({"case_uncertainty": 1.5}, InputError, "not in 0 to 1"),
        ({"case_uncertainty": float("nan")}, InputError, "not in 0 to 1"),
        ({"embedding": [1.0, float("inf")]}, InputError, "finite"),
        ({"model_id": "model_0001"}, ProjectError, "no model"),
        ({"case_id": "case_0009"}, ProjectError, "no case"),
    ],
)
def test_a_label_map_that_cannot_be_used_is_refused_and_leaves_nothing(
    project: Project, arguments: dict, error: type[BarlError], words: str
) -> None:
    scan = make_scan()
    case = project.cases.add("a", [scan])
    before = sorted(project.folder.rglob("*"))
    good = {"case_id": case.id, "label": make_label(scan), "kind": "accepted", "author": "reader"}
    with pytest.raises(error, match=words) as caught:
        project.revisions.store(**good | arguments)
    assert caught.value.remedy
    assert sorted(project.folder.rglob("*")) == before
    assert project.cases.get("a") == case


def test_states_are_checked(project: Project) -> None:
    project.cases.add("a", [make_scan()])
    with pytest.raises(InputError, match="no state"):
        project.cases.set_state("a", "done")
    with pytest.raises(InputError, match="no state"):
        project.cases.all("done")
    with pytest.raises(ProjectError, match="no accepted outline"):
        project.cases.set_state("a", "accepted")


def truncate(folder: Path) -> None:
    path = folder / "project.db"
    path.write_bytes(path.read_bytes()[:5000])


def overwrite(folder: Path) -> None:
    (folder / "project.db").write_bytes(b"This is not a database. " * 1000)


def garble(folder: Path) -> None:
    path = folder / "project.db"
    content = bytearray(path.read_bytes())
    content[100:] = os.urandom(len(content) - 100)
    path.write_bytes(content)


def make_newer(folder: Path) -> None:
    with sqlite3.connect(folder / "project.db") as connection:
        connection.execute(f"PRAGMA user_version = {database.FORMAT + 1}")
    connection.close()


def make_foreign(folder: Path) -> None:
    (folder / "project.db").unlink()
    with sqlite3.connect(folder / "project.db") as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shutil.rmtree, "no project folder"),
        (lambda folder: (folder / "project.db").unlink(), r"not a BARL project: it has no project\.db"),
        (lambda folder: (folder / "project.db").write_bytes(b""), "not a BARL project"),
        (make_foreign, "not a BARL project"),
        (make_newer, "newer version"),
        (truncate, "damaged"),
        (overwrite, "damaged"),
        (garble, "damaged"),
    ],
    ids=[
        "missing",
        "no database",
        "empty database",
        "foreign database",
        "newer",
        "truncated",
        "overwritten",
        "garbled",
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_what_cannot_be_opened_says_why_and_keeps_the_outlines(
    project: Project, spoil, words: str, read_only: bool
) -> None:
    scan = make_scan()
    project.cases.add("a", [scan], label=make_label(scan))
    outline = project.revisions.accepted_label("a")
    content = outline.read_bytes()
    project.close()
    spoil(project.folder)
    with pytest.raises(ProjectError, match=words) as caught:
        Project.open(project.folder, read_only=read_only)
    assert caught.value.remedy
    if project.folder.exists():
        assert outline.read_bytes() == content


def test_a_damaged_database_is_replaced_by_the_copy_that_its_remedy_names(project: Project) -> None:
    scan = make_scan()
    project.cases.add("a", [scan], label=make_label(scan))
    project.close()
    Project.open(project.folder).close()
    garble(project.folder)
    with pytest.raises(ProjectError) as caught:
        Project.open(project.folder)
    command = caught.value.remedy.partition("barl ")[2].partition(";")[0]
    assert main(shlex.split(command)) == 0
    with Project.open(project.folder) as restored:
        assert restored.cases.get("a").state == "accepted"
        assert restored.verify(everything=True) == []


@pytest.mark.parametrize("content", ["file", "project", "foreign"])
def test_a_project_is_made_only_in_an_empty_folder(project: Project, tmp_path: Path, content: str) -> None:
    folder = project.folder if content == "project" else tmp_path / content
    if content == "file":
        folder.write_text("x")
    elif content == "foreign":
        folder.mkdir()
        (folder / "scan.nii.gz").write_text("x")
    with pytest.raises(ProjectError) as caught:
        Project.create(folder, "x", [Label(1, "a")], [Channel("CT")])
    assert caught.value.remedy
    if content == "foreign":
        assert [path.name for path in folder.iterdir()] == ["scan.nii.gz"]


def test_a_creation_that_was_killed_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "project.db").touch()
    (tmp_path / "cases").mkdir()
    with Project.create(tmp_path, "x", [Label(1, "a")], [Channel("CT")]) as project:
        assert project.cases.all() == []


@pytest.mark.parametrize("content", [None, b""])
def test_no_project_is_made_over_one_that_has_lost_its_database(project: Project, content: bytes | None) -> None:
    project.cases.add("a", [make_scan()])
    project.close()
    Project.open(project.folder).close()
    backup, path = project.folder / database.BACKUP_NAME, project.folder / database.FILE_NAME
    sound = backup.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProjectError) as made:
        Project.create(project.folder, "x", [Label(1, "a")], [Channel("CT")])
    with pytest.raises(ProjectError) as opened:
        Project.open(project.folder)
    assert all("barl project restore" in caught.value.remedy for caught in (made, opened))
    assert backup.read_bytes() == sound
    backup.unlink()
    with pytest.raises(ProjectError, match=r"lost its project\.db"):
        Project.create(project.folder, "x", [Label(1, "a")], [Channel("CT")])
    backup.write_bytes(sound)
    restore(project.folder)
    with Project.open(project.folder) as restored:
        assert [case.name for case in restored.cases.all()] == ["a"]


def test_a_name_with_an_accent_is_one_name_however_it_is_coded(project: Project) -> None:
    project.cases.add("Jose\u0301", [make_scan()])
    assert project.cases.get("Jos\u00e9").name == "Jos\u00e9"
    with pytest.raises(InputError, match="already"):
        project.cases.add("JOS\u00c9", [make_scan()])


def test_a_database_damaged_inside_does_not_replace_the_sound_copy(project: Project) -> None:
    for number in range(40):
        project.journal.log("x" * 500, number=number)
    project.close()
    Project.open(project.folder).close()
    backup, path = project.folder / database.BACKUP_NAME, project.folder / database.FILE_NAME
    sound = backup.read_bytes()
    os.utime(backup, (1e9, 1e9))
    content = bytearray(path.read_bytes())
    content[-3 * 4096 : -2 * 4096] = os.urandom(4096)
    path.write_bytes(content)
    with pytest.raises(ProjectError, match="damaged"):
        Project.open(project.folder)
    assert backup.read_bytes() == sound


def test_wrong_labels_make_no_project(tmp_path: Path) -> None:
    for labels, channels in (([], [Channel("CT")]), ([Label(0, "a")], [Channel("CT")]), ([Label(1, "a")], [])):
        with pytest.raises(InputError):
            Project.create(tmp_path / "p", "x", labels, channels)
    with pytest.raises(InputError, match="no name"):
        Project.create(tmp_path / "p", " ", [Label(1, "a")], [Channel("CT")])
    assert not (tmp_path / "p").exists()


def test_a_project_opened_for_reading_refuses_changes(project: Project) -> None:
    project.cases.add("a", [make_scan()])
    with Project.open(project.folder, read_only=True) as reader:
        assert reader.read_only and len(reader.cases.all()) == 1
        for change in (
            lambda: reader.cases.set_state("a", "excluded"),
            lambda: reader.cases.add("b", [make_scan()]),
            lambda: reader.revisions.store("a", make_label(make_scan()), "draft", author="x"),
            lambda: reader.journal.log("x"),
            lambda: reader.runs.new({}),
        ):
            with pytest.raises(ProjectError, match="reading only"):
                change()


def test_a_closed_project_says_so(project: Project) -> None:
    project.close()
    with pytest.raises(ProjectError) as caught:
        project.cases.all()
    assert caught.value.remedy


def test_a_full_database_is_a_storage_error_and_changes_nothing(project: Project) -> None:
    """SQLite's own limit on pages gives the very error that a full disk gives."""
    scan = make_scan()
    project.cases.add("a", [scan])
    pages = project.database.row("PRAGMA page_count")[0]
    project.database.row(f"PRAGMA max_page_count = {pages}")
    before = sorted(project.folder.rglob("*"))
    with pytest.raises(StorageError, match="full") as caught:
        for _ in range(200):
            project.revisions.store("a", make_label(scan), "draft", author="x", details={"text": "x" * 4000})
            before = sorted(project.folder.rglob("*"))
    assert "Free some space" in caught.value.remedy
    assert sorted(project.folder.rglob("*")) == before
    assert project.verify(everything=True) == []
