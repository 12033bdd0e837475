# SPDX-License-Identifier: Apache-2.0
"""Putting a copy of ``project.db`` back, and what of the folder it does not list."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath
from urllib.parse import quote

from barl.errors import ProjectError, storage_error
from barl.project.database import BACKUP_NAME, FILE_NAME
from barl.project.files import write_atomically
from barl.project.locks import locks_work
from barl.project.schema import APPLICATION_ID
from barl.project.store import Project

# The journal belongs to the database that it was written beside: SQLite would apply it to the copy and damage that.
_BESIDE = ("", "-journal", "-wal", "-shm")


@dataclass(frozen=True)
class Restored:
    """A copy that was put back.

    Attributes:
        made: The newest change that the copy holds (local time).
        set_aside: The folder inside the project with the database until now; None if there was none.
        unlisted: Label maps and folders of cases that the copy does not list: they came after it.
    """

    made: datetime
    set_aside: Path | None
    unlisted: list[Path]

    def in_words(self) -> str:
        """A few sentences."""
        text = f"The project is as it was at {self.made:%Y-%m-%d %H:%M}."
        if self.set_aside:
            text += f" The database until now lies in {self.set_aside.name}."
        if self.unlisted:
            text += f" {len(self.unlisted)} files or folders came later; store again what you miss:"
            text += "".join(f"\n  {path}" for path in self.unlisted)
        return text


def restore(folder: Path | str, copy: Path | None = None, *, even_if_sound: bool = False) -> Restored:
    """Put a copy of the database in the place of a damaged or missing one.

    Other programs must have closed the project. Nothing is removed: the database until now is set aside.

    Args:
        folder: The project's folder.
        copy: The copy; None: the one that BARL keeps beside the database.
        even_if_sound: Also if the present database is sound.

    Raises:
        ProjectError: There is no copy, it is damaged, the present database is sound, or a program is changing it.
        StorageError: The disk is full or cannot be written.
    """
    folder = Path(folder).absolute()
    copy = copy or folder / BACKUP_NAME
    present = folder / FILE_NAME
    if not copy.is_file():
        raise ProjectError(f"There is no copy {copy}.", "Name a copy of project.db from your backup with --from.")
    if _state(copy) != "sound":
        raise ProjectError(f"The copy {copy} is damaged or no project.", "Name another one with --from.")
    if present.is_file():
        journal = present.with_name(present.name + "-journal")
        if _is_used(present, journal):
            raise ProjectError("Another program is using the project.", "Close the project there first.")
        if _state(present) == "sound" and not journal.exists() and not even_if_sound:
            raise ProjectError(
                f"The project's database is sound: {present}.",
                "Open the project. To go back to the copy all the same and lose what came later, use --force.",
            )
    made = _last_change(copy)
    set_aside = _set_aside(folder)
    write_atomically(present, lambda path: shutil.copyfile(copy, path))
    with Project.open(folder) as project:
        project.journal.log("database restored", copy_made=f"{made:%Y-%m-%d %H:%M:%S}")
        return Restored(made, set_aside, unlisted(project))


def _set_aside(folder: Path) -> Path | None:
    present = [folder / (FILE_NAME + ending) for ending in _BESIDE if (folder / (FILE_NAME + ending)).exists()]
    if not present:
        return None
    place = folder / f"project.replaced-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}"
    try:
        place.mkdir()
        for path in present[::-1]:  # the journal first: never a database without the journal that completes it
            path.rename(place / path.name)
    except OSError as error:
        raise storage_error(error, place) from error
    return place


def _is_used(present: Path, journal: Path) -> bool:
    if journal.exists():  # SQLite would apply it, which may be what has damaged the database
        return not locks_work(present.parent, present)
    try:
        with closing(sqlite3.connect(present, timeout=0)) as database:
            database.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    except sqlite3.DatabaseError:
        return False
    return False


def _state(path: Path) -> str:
    """``sound`` or ``damaged``. A journal beside it is not applied."""
    try:
        with closing(sqlite3.connect(f"{address(path.absolute())}?mode=ro&immutable=1", uri=True)) as database:
            (check,) = database.execute("PRAGMA quick_check(1)").fetchone()
            (application,) = database.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError:
        return "damaged"
    return "sound" if check == "ok" and application == APPLICATION_ID else "damaged"


def _last_change(copy: Path) -> datetime:
    """The time of the newest line of its journal: that of the file may be when somebody copied the folder."""
    with closing(sqlite3.connect(f"{address(copy.absolute())}?mode=ro&immutable=1", uri=True)) as database:
        (at,) = database.execute("SELECT COALESCE(MAX(at), (SELECT created FROM project)) FROM journal").fetchone()
    return datetime.fromisoformat(at).astimezone().replace(tzinfo=None)


def address(path: PurePath) -> str:
    """The path as SQLite takes it in a URI: that of a network drive (//server/share) as well, without a host."""
    slashes = path.as_posix()
    return "file://" + quote(slashes if slashes.startswith("/") else f"/{slashes}", safe="/:")


def unlisted(project: Project) -> list[Path]:
    """Label maps and folders of cases in the project's folder that its database does not list."""
    listed = {
        (row["case_id"], row[column])
        for row in project.database.rows("SELECT * FROM revisions")
        for column in row.keys()  # noqa: SIM118 (a row is no dict; a project without partial outlines lacks a column)
        if column in ("file", "uncertainty_file", "looked_file")
    }
    cases = {row["id"] for row in project.database.rows("SELECT id FROM cases")}
    missing = [path for path in sorted(project.cases.folder.glob("case_*")) if path.name not in cases]
    for path in sorted(project.cases.folder.glob("case_*/revisions/*.nii.gz")):
        case_id = path.parent.parent.name
        if case_id in cases and (case_id, path.name) not in listed:
            missing.append(path)
    return missing
