# SPDX-License-Identifier: Apache-2.0
"""Files whole or not at all; live processes told from dead ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from barl.errors import StorageError
from barl.images import writing
from barl.project import files
from barl.project.processes import ProcessId, start_mark


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    place = tmp_path / "a.json"
    files.write_atomically(place, lambda path: path.write_text("old"))

    def fail(path: Path) -> None:
        path.write_text("half")
        raise ValueError

    with pytest.raises(ValueError):
        files.write_atomically(place, fail)
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        files.write_atomically(tmp_path / "no" / "a", lambda path: path.write_text("x"))


def test_nothing_is_ever_settled_over_something(tmp_path: Path) -> None:
    (tmp_path / "staged").write_text("new")
    (tmp_path / "place").write_text("old")
    with pytest.raises(FileExistsError):
        files.settle(tmp_path / "staged", tmp_path / "place")
    assert (tmp_path / "place").read_text() == "old"


def test_a_program_that_looks_at_a_new_file_of_windows_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    """A virus scanner opens each new file; Windows renames none that is open."""
    refused = iter([PermissionError(13, "in use")] * 3)
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        for error in refused:
            raise error
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError):  # elsewhere it is a matter of permissions
        files.write_atomically(tmp_path / "a", lambda path: path.write_text("new"))
    monkeypatch.setattr(writing, "_IS_WINDOWS", True)
    files.write_atomically(tmp_path / "a", lambda path: path.write_text("new"))
    assert (tmp_path / "a").read_text() == "new"
    monkeypatch.setattr(writing, "_PATIENCE_S", 0.2)
    refused = iter([PermissionError(13, "in use")] * 99)
    with pytest.raises(StorageError, match="no permission"):
        files.write_atomically(tmp_path / "a", lambda path: path.write_text("newer"))
    assert (tmp_path / "a").read_text() == "new"


def test_a_leftover_that_cannot_be_removed_keeps_no_project_closed(tmp_path: Path, monkeypatch) -> None:
    path = files.temporary_path(tmp_path, "a.nii.gz")
    path.touch()
    monkeypatch.setattr(files, "is_leftover", lambda path: True)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(PermissionError(13, "")))
    assert files.remove_leftovers(tmp_path) == []
    assert path.exists()


def test_only_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from barl.project.files import temporary_path\n"
        "temporary_path(Path(sys.argv[1]), 'a.nii.gz').touch(); temporary_path(Path(sys.argv[1])).mkdir()\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    mine = files.temporary_path(tmp_path, "b.nii.gz")
    mine.touch()
    (tmp_path / ".tmp-foreign").touch()
    assert files.remove_leftovers(tmp_path) == []
    process.kill()
    assert process.wait() != 0
    process.stdout.close()
    assert len(files.remove_leftovers(tmp_path)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, ".tmp-foreign"])


def test_leftovers_of_another_machine_are_kept_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        elsewhere = ProcessId(os.getpid(), "another-machine", start_mark(os.getpid()))
        there.setattr(ProcessId, "current", lambda: elsewhere)
        path = files.temporary_path(tmp_path, "a.nii.gz")
    path.touch()
    assert files.remove_leftovers(tmp_path) == []
    long_ago = time.time() - 25 * 3600
    os.utime(path, (long_ago, long_ago))
    assert files.remove_leftovers(tmp_path) == [path]


def test_a_process_number_used_again_is_not_mistaken_for_the_old_process() -> None:
    me = ProcessId.current()
    assert me.is_alive()
    assert not ProcessId(me.pid, me.host, "an earlier start").is_alive()
    assert not ProcessId(me.pid, "another-machine", me.started).is_alive()


def test_a_process_that_ended_but_was_not_collected_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child = ProcessId.of(process.pid)
    assert child.is_alive()
    process.kill()
    time.sleep(0.3)  # a zombie now: nobody has waited for it
    assert not child.is_alive()
    process.communicate()
    assert start_mark(process.pid) == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares two ways that only Linux has both of")
def test_the_way_for_macos_sees_the_same_lives_as_the_way_for_linux() -> None:
    from barl.project.processes import _posix_start

    assert _posix_start(os.getpid())
    assert _posix_start(os.getpid()) == _posix_start(os.getpid())
    assert _posix_start(2**22 + 1) == ""
