# SPDX-License-Identifier: Apache-2.0
"""Killed processes, several programs at once, full and read-only disks: nothing saved is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import ProjectError, StorageError
from barl.project import files
from barl.project.labels import Channel, Label
from barl.project.restore import unlisted
from barl.project.store import Project

SHIPPED = Path(__file__).resolve().parents[2] / "BARLSegmentation/Resources/Models/hippocampus"
posix = pytest.mark.skipif(os.name == "nt", reason="needs the signals and permissions of Unix")

# A program as Slicer or the worker is one: it opens the project and writes; it says what it was told is stored.
WRITER = """
import random, sys
from pathlib import Path
import numpy as np
import SimpleITK as sitk
from barl.project.store import Project

folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(seed)
scan = sitk.GetImageFromArray(rng.normal(size=(20, 24, 28)).astype(np.float32))
doubt = sitk.Abs(scan) / 10
model = folder.parent / "model"
print("ready", flush=True)
with Project.open(folder, wait_seconds=60) as project:
    for turn in range(count):
        label = sitk.GetImageFromArray(rng.integers(0, 3, (20, 24, 28)).astype(np.uint8))
        match rng.choice(["revision", "revision", "revision", "case", "model", "run"]) if seed else "revision":
            case "revision":
                case = project.cases.all()[rng.integers(len(project.cases.all()))]
                kind = rng.choice(["accepted", "accepted", "draft", "prediction"]) if seed else "accepted"
                revision = project.revisions.store(case.id, label, str(kind), author="test", uncertainty=doubt)
                print("revision", revision.id, revision.path.name, revision.sha256, flush=True)
            case "case":
                case = project.cases.add(f"{seed}-{turn}", [scan], label=label)
                revision = project.revisions.newest(case.id)
                print("revision", revision.id, revision.path.name, revision.sha256, flush=True)
            case "model":
                print("model", project.models.promote(project.models.add(model, {"seed": seed}).id).id, flush=True)
            case "run":
                print("run", project.runs.update(project.runs.new({"seed": seed}).id, "running").id, flush=True)
print("done", flush=True)
"""


def make_project(folder: Path) -> Path:
    model = folder / "model"
    model.mkdir(parents=True)
    (model / "weights.safetensors").write_bytes(os.urandom(100_000))
    card = json.loads((SHIPPED / "model.json").read_text("utf-8"))
    card["weights_sha256"] = files.sha256(model / "weights.safetensors")
    (model / "model.json").write_text(json.dumps(card), "utf-8")
    labels = [Label(1, "a"), Label(2, "b")]
    with Project.create(folder / "project", "Test", labels, [Channel("CT")]) as project:
        project.cases.add("first", [volume(np.float32)], label=volume(np.uint8))
    return folder / "project"


def volume(dtype: type, size: tuple[int, int, int] = (20, 24, 28)) -> sitk.Image:
    return sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 3, size).astype(dtype))


def start(*arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def stored_lines(output: str) -> list[list[str]]:
    """What the writer said is stored; a last line cut off by the kill does not count."""
    whole = output[: output.rfind("\n") + 1]
    return [line.split() for line in whole.splitlines() if line not in ("ready", "done")]


def everything_is_there(folder: Path, said: list[list[str]]) -> None:
    with Project.open(folder) as project:
        assert project.verify(everything=True) == []
        revisions = {r.id: r for case in project.cases.all() for r in project.revisions.of(case.id)}
        models, runs = {m.id for m in project.models.all()}, {r.id for r in project.runs.all()}
        for what, identity, *rest in said:
            if what == "revision":
                assert [revisions[identity].path.name, revisions[identity].sha256] == rest
                assert files.sha256(revisions[identity].path) == rest[1]
            else:
                assert identity in {"model": models, "run": runs}[what]
        for case in project.cases.all():
            assert case.state != "accepted" or project.revisions.accepted_label(case.id).is_file()
        for model in project.models.all():
            assert (model.folder / "weights.safetensors").stat().st_size == 100_000
        assert all(run.state == "interrupted" for run in project.runs.all() if run.started)
        assert not list(folder.rglob(".tmp-*"))
        # And the project can be used: the next revision is stored.
        project.revisions.store("first", volume(np.uint8), "accepted", author="after the kill")


@posix
@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_loses_nothing_that_was_stored(tmp_path: Path, kills: int) -> None:
    folder = make_project(tmp_path)
    said, in_the_middle = [], 0
    chance = random.Random(kills)
    for turn in range(kills):
        process = start(folder, turn + 1, 10_000)
        assert process.stdout.readline() == "ready\n"
        # Counted in the writer's own acts: on a busy computer it stores little in a share of a second.
        output = "".join(process.stdout.readline() for _ in range(chance.randrange(5)))
        time.sleep(chance.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        said += stored_lines(output + rest)
        in_the_middle += bool(list(folder.rglob(".tmp-*")) or list(folder.glob("*-journal")))
        everything_is_there(folder, said)
    assert len(said) > kills, "the writer was killed before it stored anything: the test shows nothing"
    assert in_the_middle, "no kill hit the writing of a file: the test shows nothing"
    with Project.open(folder) as project:
        assert unlisted(project) == [] and not list(folder.rglob(".tmp-*"))


@posix
def test_several_programs_store_at_once_and_all_of_it_is_there(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    processes = [start(folder, 0, 12) for _ in range(3)]
    said = []
    with Project.open(folder, read_only=True) as reader:
        while any(process.poll() is None for process in processes):
            assert reader.cases.get("first").state == "accepted"
            time.sleep(0.05)
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0 and output.endswith("done\n")
        said += stored_lines(output)
    assert len({line[1] for line in said}) == 36
    everything_is_there(folder, said)


HOLDER = """
import sys
from barl.project.store import Project
with Project.open(sys.argv[1]) as project, project.database.write() as transaction:
    transaction.execute("UPDATE project SET name = 'half done'")
    print("holding", flush=True)
    input()
"""


@contextmanager
def another_program_is_writing(folder: Path) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "holding\n"
        yield process
    finally:
        process.communicate("\n")


def test_while_another_program_writes_reading_works_and_writing_says_who_it_is(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    with another_program_is_writing(folder) as process, Project.open(folder, wait_seconds=0.3) as project:
        assert project.name == "Test"
        assert [case.name for case in project.cases.all()] == ["first"]
        before = sorted(folder.rglob("*"))
        with pytest.raises(ProjectError, match=f"being changed by python.*, process {process.pid} on ") as caught:
            project.revisions.store("first", volume(np.uint8), "accepted", author="reader")
        assert "Try again" in caught.value.remedy
        assert sorted(folder.rglob("*")) == before
    with Project.open(folder) as project:
        assert project.name == "half done"
        project.revisions.store("first", volume(np.uint8), "accepted", author="reader")


def test_a_writer_waits_for_the_other_to_finish(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    with another_program_is_writing(folder) as process, Project.open(folder, wait_seconds=30) as project:
        threading.Timer(0.5, lambda: (process.stdin.write("\n"), process.stdin.flush())).start()
        project.cases.set_state("first", "in_review")
        assert project.cases.get("first").state == "in_review"


@posix
def test_a_program_killed_while_it_holds_the_project_does_not_block_the_next(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    with another_program_is_writing(folder) as process:
        process.kill()
        process.wait()
        with Project.open(folder, wait_seconds=0.3) as project:
            assert project.name == "Test"
            project.cases.set_state("first", "in_review")


def copy_in_the_middle_of_a_commit(folder: Path, place: Path) -> Path:
    """What a power cut leaves when the database is half written: old pages in the journal, new ones in the file."""
    connection = sqlite3.connect(folder / "project.db", isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE project SET name = 'half done'")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
        "INSERT INTO journal (at, action, facts, program, pid, host) SELECT '', 'x', '{}', '', 0, '' FROM n"
    )
    shutil.copytree(folder, place)
    connection.execute("ROLLBACK")
    connection.close()
    assert (place / "project.db-journal").stat().st_size > 0
    assert (place / "project.db").read_bytes() != (folder / "project.db").read_bytes()
    return place


@pytest.mark.parametrize("read_only", [False, True])
def test_a_half_written_database_is_put_back_when_it_is_opened(tmp_path: Path, read_only: bool) -> None:
    broken = copy_in_the_middle_of_a_commit(make_project(tmp_path), tmp_path / "broken")
    with Project.open(broken, read_only=read_only) as project:
        assert project.name == "Test"
        assert "x" not in {entry.action for entry in project.journal.entries()}
        assert project.verify(everything=True) == []


def test_two_threads_of_one_program_may_share_a_project(tmp_path: Path) -> None:
    folder, failures = make_project(tmp_path), []

    def work(project: Project) -> None:
        try:
            for _ in range(5):
                project.revisions.store("first", volume(np.uint8), "draft", author="thread")
        except Exception as error:
            failures.append(error)

    with Project.open(folder) as project:
        threads = [threading.Thread(target=work, args=(project,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(project.revisions.of("first")) == 16
        assert project.verify(everything=True) == []


# Disks


AS_NOBODY = """
import os, sys
from barl.errors import BarlError
from barl.project.labels import Channel, Label
from barl.project.store import Project
os.setgid(65534); os.setuid(65534)  # last: Python itself may lie where only root can read
with Project.open(sys.argv[1], read_only=True) as project:
    print([case.name for case in project.cases.all()], project.verify(everything=True))
for attempt in (
    lambda: Project.open(sys.argv[1]),
    lambda: Project.create(sys.argv[1] + "/cases/new", "x", [Label(1, "a")], [Channel("CT")]),
):
    try:
        attempt()
    except BarlError as error:
        print(error.kind, error.message, error.remedy, sep="|")
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach (pytest's own is private)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@posix
def test_a_project_that_cannot_be_written_can_still_be_read(open_folder: Path) -> None:
    folder = make_project(open_folder)
    script = AS_NOBODY
    if os.getuid() != 0:  # only root may become another user; anyone else takes the rights away from himself
        script = script.replace("os.setgid(65534); os.setuid(65534)", "pass")
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        answer = subprocess.run(
            [sys.executable, "-c", script, folder], capture_output=True, text=True, check=True, cwd=open_folder
        )
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    read, opened, created = answer.stdout.splitlines()
    assert read == "['first'] []"
    assert opened.startswith("StorageError|The project folder cannot be written") and "reading only" in opened
    assert created.startswith("StorageError|There is no permission to write")


@posix
@pytest.mark.skipif(os.name != "nt" and os.getuid() != 0, reason="only root may become another user")
def test_a_half_written_database_that_cannot_be_put_back_says_so(open_folder: Path) -> None:
    broken = copy_in_the_middle_of_a_commit(make_project(open_folder), open_folder / "broken")
    script = AS_NOBODY[: AS_NOBODY.index("with Project")] + (
        "try:\n    Project.open(sys.argv[1], read_only=True)\n"
        "except BarlError as error:\n    print(error.kind, error.message, error.remedy, sep='|')"
    )
    answer = subprocess.run([sys.executable, "-c", script, broken], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("StorageError|The project was interrupted in the middle of a change")


@posix
@posix
def test_nothing_is_written_in_the_place_of_a_drive_that_is_gone(tmp_path: Path) -> None:
    """A mount point that is written to hides what is on the drive, or what was written is hidden by the drive."""
    scan = sitk.GetImageFromArray(np.random.default_rng(0).random((3, 4, 5), np.float32))
    with Project.create(tmp_path / "drive" / "p", "p", [Label(1, "x")], [Channel("CT")]) as project:
        project.cases.add("a", [scan])
        (tmp_path / "drive").rename(tmp_path / "gone")
        for store in (
            lambda: project.cases.add("b", [scan + 1]),
            lambda: project.revisions.store("a", sitk.Cast(scan > 0.5, sitk.sitkUInt8), "draft", author="reader"),
            lambda: project.runs.new({}),
        ):
            with pytest.raises((StorageError, ProjectError)):
                store()
        assert not (tmp_path / "drive").exists()
        (tmp_path / "gone").rename(tmp_path / "drive")
        project.revisions.store("a", sitk.Cast(scan > 0.5, sitk.sitkUInt8), "draft", author="reader")


def test_a_disk_that_fills_up_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
        if sys.platform.startswith("linux")
        else None
    )
    if mounted is None or mounted.returncode:
        pytest.skip("no right to mount a small disk: the full disk is not tested here")
    try:
        folder = make_project(disk)
        said = []
        with Project.open(folder) as project:
            with pytest.raises(StorageError, match="full") as caught:
                for seed in range(10_000):
                    noise = np.random.default_rng(seed).integers(0, 3, (20, 24, 28)).astype(np.uint8)
                    revision = project.revisions.store("first", sitk.GetImageFromArray(noise), "accepted", author="x")
                    said.append(["revision", revision.id, revision.path.name, revision.sha256])
            assert "Free some space" in caught.value.remedy
            assert len(said) > 10
            with pytest.raises(StorageError, match="full"):
                scan = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
                project.cases.add("big", [sitk.GetImageFromArray(scan)])
            assert project.verify(everything=True) == []
            assert len(project.cases.all()) == 1
        with Project.open(folder, read_only=True) as project:
            assert len(project.revisions.of("first")) == len(said) + 1
        (disk / "model" / "weights.safetensors").unlink()  # some space is freed
        everything_is_there(folder, said)
    finally:
        subprocess.run(["umount", disk], check=False)


def test_slicer_can_import_this_room_without_what_it_does_not_have() -> None:
    script = (
        "import sys\n"
        "import barl.project.store, barl.project.next_case, barl.project.export\n"
        "print([m for m in ('torch', 'monai', 'jsonschema', 'tqdm', 'psutil', 'slicer') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
