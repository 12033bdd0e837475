# SPDX-License-Identifier: Apache-2.0
"""Projects from elsewhere, copies put back, drives without locks, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import BarlError, ProjectError, StorageError
from barl.project import database, files
from barl.project.export import export_dataset
from barl.project.labels import Channel, Label
from barl.project.restore import address, restore, unlisted
from barl.project.store import Project

posix = pytest.mark.skipif(os.name == "nt", reason="links and locks of POSIX")


def a_scan(seed: int = 0) -> sitk.Image:
    return sitk.GetImageFromArray(np.random.default_rng(seed).normal(100, 20, (6, 8, 10)).astype(np.float32))


def a_map() -> sitk.Image:
    array = np.zeros((6, 8, 10), np.uint8)
    array[2:4, 2:6, 3:7] = 1
    return sitk.GetImageFromArray(array)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of one outlined case, closed, with a copy of its database."""
    with Project.create(tmp_path / "p", "p", [Label(1, "tumor")], [Channel("CT")]) as project:
        project.cases.add("a", [a_scan()], label=a_map())
    Project.open(tmp_path / "p").close()
    assert (tmp_path / "p" / database.BACKUP_NAME).is_file()
    return tmp_path / "p"


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / database.FILE_NAME)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


# What a foreign database could do


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER spy AFTER INSERT ON revisions BEGIN DELETE FROM runs; END",
        "CREATE VIEW spy AS SELECT 1",
    ],
)
def test_code_in_a_foreign_database_is_refused(folder: Path, statement: str) -> None:
    change(folder, statement)
    for read_only in (True, False):
        with pytest.raises(ProjectError, match="'spy', which BARL did not make"):
            Project.open(folder, read_only)


def test_functions_of_the_schema_are_not_trusted(folder: Path) -> None:
    with Project.open(folder) as project:
        assert project.database.row("PRAGMA trusted_schema")[0] == 0
        if sys.version_info >= (3, 12):
            with pytest.raises(ProjectError), project.database.write() as transaction:
                transaction.execute("PRAGMA writable_schema = ON")
                transaction.execute("UPDATE sqlite_master SET sql = ''")


@pytest.mark.parametrize("name", ["../../secret.nii.gz", "/etc/passwd", "..", "a/b.nii.gz", ".hidden"])
def test_files_outside_of_the_project_are_never_read(folder: Path, name: str) -> None:
    change(
        folder,
        "DROP TRIGGER images_keep_update",
        f"UPDATE images SET file = '{name}'",
        "DROP TRIGGER revisions_keep_update",
        f"UPDATE revisions SET file = '{name}'",
    )
    with Project.open(folder, read_only=True) as project:
        for use in (project.cases.image_paths, project.cases.sound_images, project.revisions.of):
            with pytest.raises(ProjectError, match="not inside of the project"):
                use("a")
        with pytest.raises(ProjectError, match="not inside of the project"):
            project.verify(everything=True)


@pytest.mark.parametrize("column", ["cases.grid", "journal.facts", "revisions.details", "labels.definition"])
@pytest.mark.parametrize("value", ["", "3", '{"size"', "null"])
def test_columns_that_barl_did_not_write_are_a_damaged_database(folder: Path, column: str, value: str) -> None:
    if column == "revisions.details" and value in ("3", "null"):
        return  # the details are anything that JSON can hold
    table, name = column.split(".")
    change(folder, f"DROP TRIGGER IF EXISTS {table}_keep_update", f"UPDATE {table} SET {name} = '{value}'")
    with pytest.raises(BarlError, match=r"database is damaged|label table cannot") as caught, Project.open(folder) as p:
        p.cases.grid("a")
        p.revisions.of("a")
        p.cases.voxel_digests("a")
    assert caught.value.remedy


@posix
def test_links_are_refused(folder: Path, tmp_path: Path) -> None:
    with Project.open(folder) as project:
        (image,) = project.cases.image_paths("a")
        image.rename(tmp_path / "elsewhere.nii.gz")
        image.symlink_to(tmp_path / "elsewhere.nii.gz")
        with pytest.raises(ProjectError, match="is a link to another place"):
            export_dataset(project, tmp_path / "out")
    shutil.move(folder / "models", tmp_path / "models")
    (folder / "models").symlink_to(tmp_path / "models")
    with pytest.raises(ProjectError, match="'models' in the project's folder is a link"):
        Project.open(folder)


def test_a_damaged_structure_is_found_at_the_first_opening(folder: Path) -> None:
    with Project.open(folder) as project:
        for number in range(40):
            project.journal.log("x" * 500, number=number)
    path = folder / database.FILE_NAME
    content = bytearray(path.read_bytes())
    content[-3 * 4096 : -2 * 4096] = os.urandom(4096)
    path.write_bytes(content)
    code = "import sys; from barl.cli import main; sys.exit(main(['project', 'show', sys.argv[1]]))"
    seen = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert seen.returncode == 3 and "is damaged" in seen.stderr and "barl project restore" in seen.stderr


# Copies put back


def test_a_copy_beside_a_stale_journal_is_put_back_right(folder: Path) -> None:
    with Project.open(folder) as project:
        later = project.cases.add("b", [a_scan(1)])
        kept = project.revisions.store("a", a_map(), "accepted", author="reader")
    path = folder / database.FILE_NAME
    path.with_name(path.name + "-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + os.urandom(2000))
    path.write_bytes(b"damaged" + path.read_bytes()[7:])
    restored = restore(folder)
    assert restored.set_aside and {item.name for item in restored.set_aside.iterdir()} == {
        "project.db",
        "project.db-journal",
    }
    assert restored.unlisted == [folder / "cases" / later.id, kept.path]
    assert "2 files or folders came later" in restored.in_words() and str(kept.path) in restored.in_words()
    with Project.open(folder) as project:
        assert [case.name for case in project.cases.all()] == ["a"] and project.verify(everything=True) == []
        again = project.revisions.store("a", kept.path, "accepted", author="reader")
        assert again.sha256 == kept.sha256 and later.id not in [case.id for case in project.cases.all()]


def test_a_sound_or_used_database_is_not_replaced_by_an_oversight(folder: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(ProjectError, match="is sound"):
        restore(folder)
    with Project.open(folder) as project, project.database.write(), pytest.raises(ProjectError, match="is using"):
        restore(folder)
    (tmp_path / "other.db").write_bytes(b"no database")
    assert main(["project", "restore", str(folder), "--from", str(tmp_path / "other.db"), "--force"]) == 3
    assert "damaged or no project" in capsys.readouterr().err
    assert main(["project", "restore", str(folder), "--force"]) == 0
    (folder / database.FILE_NAME).unlink()
    assert main(["project", "show", str(folder)]) == 3
    assert "barl project restore" in capsys.readouterr().err
    assert main(["project", "restore", str(folder)]) == 0 and main(["project", "show", str(folder)]) == 0


def test_a_copy_on_a_network_drive_of_windows_has_an_address_that_sqlite_takes(folder: Path) -> None:
    assert address(PureWindowsPath(r"\\pacs\study 1\project.db")) == "file:////pacs/study%201/project.db"
    assert address(PureWindowsPath(r"D:\study\project.db")) == "file:///D:/study/project.db"
    path = folder / "50% #1.db"
    shutil.copyfile(folder / database.FILE_NAME, path)
    for text in (address(path), address(path).replace("file:///", "file:////")):
        with closing(sqlite3.connect(f"{text}?mode=ro&immutable=1", uri=True)) as copy:
            assert copy.execute("SELECT count(*) FROM cases").fetchone() == (1,)


def test_a_restored_project_says_of_when_it_is(folder: Path) -> None:
    last = datetime.fromisoformat(Project.open(folder, read_only=True).journal.entries()[-1].at).timestamp()
    os.utime(folder / database.BACKUP_NAME, (1e9, 1e9))  # the folder was copied by a program that keeps no times
    (folder / database.FILE_NAME).unlink()
    assert abs(restore(folder).made.timestamp() - last) < 1


def test_a_wrong_clock_keeps_no_copy_from_being_made(folder: Path) -> None:
    backup = folder / database.BACKUP_NAME
    later = time.time() + 9 * 365 * 24 * 3600  # the battery of the computer's clock was empty
    os.utime(backup, (later, later))
    with Project.open(folder) as project:
        project.cases.add("b", [a_scan(1)])
    Project.open(folder).close()
    assert backup.stat().st_mtime < later
    with closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("SELECT count(*) FROM cases").fetchone()[0] >= 1


# Drives without locks


@posix
def test_a_drive_without_locks_is_named(folder: Path, monkeypatch) -> None:
    import fcntl

    with Project.open(folder) as busy, busy.database.write():
        with pytest.raises(ProjectError, match="is being changed by"), Project.open(folder, wait_seconds=0.01) as other:
            other.journal.log("x")

        def no_locks(*_arguments):
            raise OSError(37, "No locks available")

        monkeypatch.setattr(fcntl, "lockf", no_locks)  # as on such a drive, where SQLite says "busy" for ever
        with (
            pytest.raises(StorageError, match="does not lock files") as caught,
            Project.open(folder, wait_seconds=0.01) as other,
        ):
            other.journal.log("x")
    assert "network drive" in caught.value.remedy
    assert not list(folder.glob(".tmp-*"))


# What a kill leaves

KILLED = """
import os, sys
from barl.project import database
from barl.project.store import Project
import numpy as np, SimpleITK as sitk
settle = database.settle
def settle_and_die(staged, place):
    settle(staged, place)
    os.kill(os.getpid(), 9)
database.settle = settle_and_die
with Project.open(sys.argv[1]) as project:
    if sys.argv[2] == "case":
        project.cases.add("b", [sitk.GetImageFromArray(np.random.rand(6, 8, 10).astype(np.float32))])
    elif sys.argv[2] == "revision":
        project.revisions.store("a", project.revisions.accepted_label("a"), "accepted", author="x")
    else:
        project.runs.new({})
"""


@posix
@pytest.mark.parametrize("what", ["case", "revision", "run"])
def test_files_moved_before_a_kill_are_gone_after_the_next_opening(folder: Path, what: str) -> None:
    def content() -> set[str]:
        return {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if not path.name.startswith("project.") or path.is_dir()
        }

    before = content()
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder), what], check=False).returncode == -9
    assert len(content() - before) >= 2, "the kill left something"
    with Project.open(folder) as project:
        assert [case.name for case in project.cases.all()] == ["a"] and project.runs.all() == []
        assert content() == before and project.verify(everything=True) == []


def test_a_note_removes_nothing_that_has_a_row_or_lies_elsewhere(folder: Path, tmp_path: Path, monkeypatch) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with Project.open(folder) as project:
        revision = project.revisions.newest("a")
        place = str(revision.path.relative_to(folder))
        note = files.temporary_path(folder, "unfinished.json")
        rows = [[place, "revisions", revision.id], ["../outside", "cases", "x"]]
        note.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(files, "start_mark", lambda pid: "")  # its process is gone
    with Project.open(folder) as project:
        assert revision.path.is_file() and outside.is_dir() and not note.exists()


def test_a_file_moved_before_the_note_grew_is_not_forgotten(folder: Path, monkeypatch) -> None:
    with Project.open(folder) as project:
        forgotten = project.revisions.newest("a").path.with_name("r099-00000000.nii.gz")
        forgotten.write_bytes(b"")
        note = files.temporary_path(folder, "unfinished.json")
        row = json.dumps([str(forgotten.relative_to(folder)), "revisions", "unknown"])
        note.write_text(row + "\n" + row[:9])  # killed while it announced the next file
    monkeypatch.setattr(files, "start_mark", lambda pid: "")
    with Project.open(folder) as project:
        assert unlisted(project) == [] and not note.exists()


def test_temporary_files_of_runs_and_exports_are_removed(folder: Path, tmp_path: Path, monkeypatch) -> None:
    with Project.open(folder) as project:
        run = project.runs.new({})
    cached = run.folder / "cache" / "0123"
    cached.mkdir(parents=True)
    leftovers = [
        files.temporary_path(run.folder, "checkpoint.safetensors"),
        files.temporary_path(cached, "case.json"),
        files.temporary_path(tmp_path),
    ]
    for path in leftovers:
        path.write_bytes(b"half")
    monkeypatch.setattr(files, "start_mark", lambda pid: "")
    with Project.open(folder) as project:
        assert [path.exists() for path in leftovers] == [False, False, True]
        export_dataset(project, tmp_path / "out")
    assert not leftovers[2].exists() and (tmp_path / "out").is_dir()
