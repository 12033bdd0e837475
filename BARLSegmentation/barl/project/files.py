# SPDX-License-Identifier: Apache-2.0
"""Files that are there completely or not at all, whatever happens to the process or the power.

A file or folder is first written under a temporary name beside its place. The name says which process writes it: what a
killed process left behind can be told from what a running one is just writing.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from barl.errors import ProjectError, storage_error
from barl.images.writing import patiently
from barl.project.processes import ProcessId, start_mark

_TEMPORARY = re.compile(r"\.tmp-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>[0-9a-f]{8})-[0-9a-f]{8}(-.*)?")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OTHER_HOST_SECONDS = 24 * 3600.0
_ANNOUNCED = "outside"


def write_atomically(path: Path | str, writer: Callable[[Path], object]) -> None:
    """Write a file so that ``path`` holds the old content or the whole new one, never a part.

    Args:
        path: The file's place. Its folder must exist.
        writer: Called with a temporary path in the same folder that ends with the name of ``path`` (so that libraries
            which choose a format by the ending work); writes the whole file there.

    Raises:
        StorageError: The disk is full or read-only, or the folder cannot be written.
    """
    path = Path(path)
    temporary = temporary_path(path.parent, path.name)
    try:
        writer(temporary)
        flush_file(temporary)
        patiently(lambda: temporary.replace(path))
        flush_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder inside ``parent`` to fill and then ``settle``; gone at the end if it was not moved.

    ``parent`` is made if need be, but not what it lies in: where a drive is gone, nothing is written in its place.
    """
    folder = temporary_path(parent)
    try:
        parent.mkdir(exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise storage_error(error, parent) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def announced_staging_folder(parent: Path, home: Path) -> Iterator[Path]:
    """A ``staging_folder`` outside of a project, named in the project's folder ``home`` as long as it exists.

    ``remove_announced`` finds what a killed process has left there. A folder that cannot be written gets no note.
    """
    note = temporary_path(home, _ANNOUNCED)
    with suppress(OSError):
        note.write_text(str(parent.absolute()), encoding="utf-8")
    try:
        with staging_folder(parent) as folder:
            yield folder
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)


def remove_announced(home: Path) -> None:
    """Remove the temporary folders outside of the project ``home`` that its killed processes have left."""
    for note in home.glob(f".tmp-*-{_ANNOUNCED}"):
        with suppress(OSError, ValueError):
            if is_leftover(note):
                remove_leftovers(Path(note.read_text(encoding="utf-8")))


def settle(staged: Path, place: Path) -> None:
    """Move a staged file or folder, already flushed, to its place, which must be free.

    Raises:
        FileExistsError: Something is there already; nothing is ever overwritten.
        StorageError: The disk refused.
    """
    if place.exists():
        raise FileExistsError(place)
    try:
        patiently(lambda: staged.rename(place))
        flush_folder(place.parent)
        if staged.parent != place.parent:
            flush_folder(staged.parent)
    except OSError as error:
        raise storage_error(error, place) from error


def flush_tree(folder: Path) -> None:
    """Flush all files and folders under ``folder`` to the disk itself."""
    try:
        for root, _, names in os.walk(folder):
            for name in names:
                flush_file(Path(root) / name)
            flush_folder(Path(root))
    except OSError as error:
        raise storage_error(error, folder) from error


def flush_file(path: Path) -> None:
    # Windows flushes only what is open for writing.
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # Some network file systems refuse this; the rename itself has succeeded.
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def inside(home: Path, *names: str) -> Path:
    """The file or folder ``home/name/name/...`` for names that come from a database.

    Raises:
        ProjectError: A name could lead out of ``home``, or one of them is a link.
    """
    path = home
    for name in names:
        if not _PLAIN_NAME.fullmatch(name):
            raise ProjectError(
                f"The project's database names a file {name!r}, which is not inside of the project.",
                "Open only projects from people that you trust.",
            )
        path = path / name
        if path.is_symlink():
            raise ProjectError(
                f"{name!r} in the project's folder is a link to another place.",
                "Put the file itself in its place; open only projects from people that you trust.",
            )
    return path


def sha256(path: Path | str) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_path(folder: Path, name: str = "") -> Path:
    """A free temporary name in ``folder`` that names its process and ends with ``name``."""
    me = ProcessId.current()
    parts = [".tmp", _short(me.host), str(me.pid), _short(me.started), secrets.token_hex(4)]
    return folder / "-".join([*parts, name] if name else parts)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the temporary files and folders right inside ``folder`` that no running process is writing.

    What a process of another machine wrote is left alone for a day: whether it still runs cannot be known here.

    Returns:
        The paths removed.
    """
    removed = []
    for path in folder.glob(".tmp-*") if folder.is_dir() else ():
        if is_leftover(path):
            with suppress(OSError):  # of another user, or in use: a later opening removes it
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                removed.append(path)
    return removed


def is_leftover(path: Path) -> bool:
    """Whether no running process is writing the temporary file or folder ``path``."""
    found = _TEMPORARY.fullmatch(path.name)
    if not found:
        return False
    if found["host"] == _short(ProcessId.current().host):
        mark = start_mark(int(found["pid"]))
        return not mark or _short(mark) != found["start"]
    try:
        return time.time() - path.stat().st_mtime > _OTHER_HOST_SECONDS
    except OSError:
        return False  # Just renamed or removed by its writer.


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
