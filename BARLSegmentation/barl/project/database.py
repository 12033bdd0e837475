# SPDX-License-Identifier: Apache-2.0
"""``project.db``: its tables, its locks, and its errors as sentences.

Why a rollback journal and not WAL: WAL needs memory shared between the processes and therefore breaks on network
drives, where hospital data often lie. Why ``synchronous=EXTRA``: a transaction that was reported as done survives a
power cut; it costs a few milliseconds per click. Write transactions are short: files are written before, only renamed
inside.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from barl.errors import BarlError, ProjectError, StorageError, storage_error
from barl.images.writing import patiently
from barl.project.files import inside, is_leftover, settle, temporary_path
from barl.project.locks import locks_work
from barl.project.processes import ProcessId
from barl.project.schema import (
    APPLICATION_ID,
    FIRST_FORMAT,
    FORMAT,
    PARTIAL_OUTLINES,
    SCHEMA,
    TRIGGERS,
    foreign_objects,
    guard,
    statements,
)

FILE_NAME = "project.db"
BACKUP_NAME = "project.backup.db"
WRITER_NAME = "project.writer"
_BACKUP_SECONDS = 600
WAIT_SECONDS = 5.0
_NOTE = "unfinished.json"
_TABLES = ("cases", "revisions", "models", "runs")  # those with files
_checked: set[Path] = set()


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_writable(folder: Path) -> bool:
    """Whether this user may change the project (on Windows only the first write can tell)."""
    return os.access(folder, os.W_OK | os.X_OK) and os.access(folder / FILE_NAME, os.W_OK)


class Transaction:
    """What may be done inside ``Database.write``."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._settled: list[tuple[Path, str, str]] = []
        self._note: Path | None = None
        self.execute = connection.execute
        self.executemany = connection.executemany

    def row(self, query: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        return self._connection.execute(query, parameters).fetchone()

    def one(self, query: str, parameters: Sequence[Any] = ()) -> sqlite3.Row:
        """The row of a query that always has one."""
        row = self.row(query, parameters)
        assert row is not None, query
        return row

    def must_exist(self, table: str, row_id: str) -> None:
        """Refuse an id that no row of ``table`` has.

        Raises:
            ProjectError: With the id.
        """
        if not self.row(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,)):
            raise unknown(table, row_id)

    def free_id(self, table: str, prefix: str) -> str:
        """The next id of which there is neither a row nor a folder."""
        (number,) = self.one(f"SELECT COALESCE(MAX(number), 0) + 1 FROM {table}")
        while (self._folder / table / f"{prefix}_{number:04d}").exists():
            number += 1
        return f"{prefix}_{number:04d}"

    def amend(self, table: str, query: str, parameters: Sequence[Any]) -> None:
        """Change a row of a table whose rows are otherwise never changed; its guard is lifted for this statement."""
        self.execute(f"DROP TRIGGER IF EXISTS {table}_keep_update")
        self.execute(query, parameters)
        self.execute(guard(table, "UPDATE"))

    def holds_partial_outlines(self) -> bool:
        """Whether the tables have the columns for partial outlines."""
        return self.one("PRAGMA user_version")[0] > FIRST_FORMAT

    def allow_partial_outlines(self) -> None:
        """Give the tables the columns for partial outlines; earlier versions of BARL then refuse the project."""
        if not self.holds_partial_outlines():
            for statement in statements(PARTIAL_OUTLINES):
                self.execute(statement)

    def settle(self, staged: Path, place: Path, table: str, row_id: str) -> None:
        """Move a staged, flushed file or folder to its place; it belongs to the row of ``table`` with this id."""
        self._settled.append((place, table, row_id))
        # A process that is killed before the commit leaves this note, by which the next opening finds the files. It
        # grows by a line for each: written anew, it would be empty for a moment, and the files moved so far forgotten.
        self._note = self._note or temporary_path(self._folder, _NOTE)
        with suppress(OSError), self._note.open("a") as note:
            note.write(json.dumps([str(place.relative_to(self._folder)), table, row_id]) + "\n")
        settle(staged, place)

    def log(self, action: str, case_id: str | None = None, facts: dict[str, Any] | None = None) -> None:
        """Add a line to the journal."""
        me = ProcessId.current()
        self.execute(
            "INSERT INTO journal (at, action, case_id, facts, program, pid, host) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now(), action, case_id, json.dumps(facts or {}), me.program, me.pid, me.host),
        )

    def take_back_files(self) -> None:
        """After a rollback: remove the files moved, unless their row is there (only the end of the commit failed)."""
        with suppress(sqlite3.Error):
            for path, table, row_id in reversed(self._settled):
                if not self.row(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,)):
                    try:
                        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                    except OSError:  # in use: the note stays, by which a later opening removes it
                        self._note = None

    def end(self) -> None:
        """Remove the note about the files moved: they have their rows, or were removed."""
        if self._note is not None:
            with suppress(OSError):
                self._note.unlink(missing_ok=True)


class Database:
    """One connection to ``project.db``; may be used from several threads, one after the other.

    Args:
        folder: The project folder.
        read_only: Refuse every change.
        wait_seconds: How long to wait for another program that is changing the project. Panels pass less than the
            default: after one timeout, further calls fail at once until the lock was free again, so that the window
            freezes once and not at every query. A training always waits: its model must not be lost.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, wait_seconds: float = WAIT_SECONDS) -> None:
        self.folder = folder
        self.path = folder / FILE_NAME
        self.read_only = read_only
        self._turn = threading.RLock()
        self._wait_seconds, self._waited_in_vain = wait_seconds, False
        with self._plain_errors():
            self._connection = sqlite3.connect(
                self.path, timeout=wait_seconds, isolation_level=None, check_same_thread=False
            )
        self._connection.row_factory = sqlite3.Row
        try:
            with self._plain_errors():
                self._configure()
        except BaseException:
            self._connection.close()
            raise

    def _configure(self) -> None:
        for pragma in (
            "synchronous = EXTRA",
            "foreign_keys = ON",
            "secure_delete = ON",  # an erased name leaves the file
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "cache_spill = OFF",  # a long write locks readers out only while it commits
            f"query_only = {'ON' if self.read_only else 'OFF'}",
        ):
            self._connection.execute(f"PRAGMA {pragma}")
        if hasattr(self._connection, "setconfig"):  # from Python 3.12 on
            self._connection.setconfig(getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE"), True)  # noqa: B009 (mypy: Python 3.11)

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    def create(self, name: str, labels: Sequence[tuple], channels: Sequence[tuple]) -> None:
        """Create the tables, in one transaction.

        Raises:
            ProjectError: The folder holds a project already.
        """
        with self.write() as transaction:
            if transaction.row("SELECT 1 FROM sqlite_master"):
                raise ProjectError(f"There is a project in {self.folder} already.", "Open it, or choose a new folder.")
            for statement in statements(SCHEMA + TRIGGERS):
                transaction.execute(statement)
            transaction.execute("INSERT INTO project (id, name, created) VALUES (1, ?, ?)", (name, now()))
            transaction.executemany("INSERT INTO labels VALUES (?, ?, ?)", labels)
            transaction.executemany("INSERT INTO channels VALUES (?, ?, ?)", channels)
            transaction.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            transaction.execute(f"PRAGMA user_version = {FIRST_FORMAT}")

    def check_format(self) -> None:
        """Refuse what is no project, or one of a newer format.

        Raises:
            ProjectError: With the reason.
        """
        with self._plain_errors():
            application, version = self._pragma("application_id"), self._pragma("user_version")
        if application != APPLICATION_ID:
            restore = f"Restore its copy: barl project restore {self.folder}"
            raise ProjectError(
                f"{self.folder} is not a BARL project: its {FILE_NAME} holds something else.",
                restore
                if (self.folder / BACKUP_NAME).is_file()
                else "Choose a project's folder, or create a new project in an empty folder.",
            )
        if version > FORMAT:
            raise ProjectError(
                f"The project {self.folder} was made by a newer version of BARL "
                f"(format {version}, this version knows {FORMAT}).",
                "Update the BARL extension; the project was not changed.",
            )

    def check_soundness(self) -> None:
        """Refuse a database whose structure is damaged, or that holds code that BARL did not put there.

        The structure is looked at once in each process: it takes 0.1 s for ten thousand cases.

        Raises:
            ProjectError: With the reason.
        """
        with self._turn, self._plain_errors():
            foreign = foreign_objects(self._connection)
        if foreign:
            raise ProjectError(
                f"The project's database holds {foreign[0]!r}, which BARL did not make: {self.path}.",
                "Open only projects from people that you trust; put back a copy from your backup.",
            )
        if self.path not in _checked and self._pragma("quick_check(1)") != "ok":
            raise self._damaged()
        _checked.add(self.path)

    def _pragma(self, name: str) -> Any:
        return self._connection.execute(f"PRAGMA {name}").fetchone()[0]

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query. Nothing stays locked afterwards."""
        with self._turn, self._plain_errors():
            return self._connection.execute(query, parameters).fetchall()

    def data_version(self) -> int:
        """A number that changes when another connection, such as another program's, has changed the database."""
        with self._turn, self._plain_errors():
            return self._pragma("data_version")

    def row(self, query: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, if any."""
        found = self.rows(query, parameters)
        return found[0] if found else None

    def one(self, query: str, parameters: Sequence[Any] = ()) -> sqlite3.Row:
        """The row of a query that always has one."""
        row = self.row(query, parameters)
        assert row is not None, query
        return row

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction: all of it or nothing, the files moved in it included.

        Raises:
            ProjectError: Opened for reading only; or another program kept changing the project for too long.
            StorageError: The disk is full or cannot be written.
        """
        self.must_be_writable()
        with self._turn, self._plain_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(self._connection, self.folder)
            try:
                self._sign()
                yield transaction
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                transaction.take_back_files()
                raise
            finally:
                transaction.end()

    def remove_unfinished(self) -> None:
        """Remove the files that a killed process had moved to their places before its rows were entered."""
        for note in self.folder.glob(f".tmp-*-{_NOTE}"):
            if not is_leftover(note):
                continue
            with suppress(OSError, ValueError, TypeError, ProjectError):  # a line cut off: its file was not moved yet
                for line in note.read_text().splitlines():
                    place, table, row_id = json.loads(line)
                    if table in _TABLES and not self.row(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,)):
                        path = inside(self.folder, *Path(place).parts)
                        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def must_be_writable(self) -> None:
        if self.read_only:
            raise ProjectError("The project was opened for reading only.", "Open it for writing to change it.")

    def problems(self) -> list[str]:
        """What SQLite finds wrong with the file's structure (empty: nothing)."""
        found = [row[0] for row in self.rows("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    def back_up(self, *, anew: bool = False) -> None:
        """Keep a copy beside the database, if it changed and the last copy is some minutes old, or ``anew``.

        Raises:
            ProjectError: The database is damaged: the last sound copy is left as it is.
            StorageError: The disk has no room for it.
        """
        backup = self.folder / BACKUP_NAME
        with suppress(OSError):
            age = time.time() - backup.stat().st_mtime
            changed = self.path.stat().st_mtime > backup.stat().st_mtime
            is_recent = age >= 0 and (not changed or age < _BACKUP_SECONDS)  # below 0 a clock was wrong
            if is_recent and not anew:
                return
        # Before the copy replaces a sound one. 0.1 s for ten thousand cases, hence not at every opening.
        if self._pragma("quick_check(1)") != "ok":
            raise self._damaged()
        temporary = temporary_path(self.folder, BACKUP_NAME)
        try:
            with closing(sqlite3.connect(temporary)) as copy:
                self.copy_to(copy)
            patiently(lambda: temporary.replace(backup))
        except OSError as error:
            raise storage_error(error, backup) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def copy_to(self, copy: sqlite3.Connection) -> None:
        """Write the content as it is now into another database."""
        with self._turn, self._plain_errors():
            self._connection.backup(copy)

    # Who is changing the project: SQLite's lock does not name its holder, so the holder enters itself in a small file.

    def _sign(self) -> None:
        me = ProcessId.current()
        with suppress(OSError):
            (self.folder / WRITER_NAME).write_text(json.dumps([me.pid, me.host, me.started, me.program]))

    def _writer(self) -> str:
        with suppress(OSError, ValueError, TypeError):
            writer = ProcessId(*json.loads((self.folder / WRITER_NAME).read_text()))
            if not writer.is_here() or (writer.is_alive() and writer.pid != os.getpid()):
                return writer.in_words()
        return "another program"

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if busy and self._wait_seconds < WAIT_SECONDS:
                self._wait_at_most(0)
                self._waited_in_vain = True
            raise self._in_words(error) from error
        if self._waited_in_vain:
            self._wait_at_most(self._wait_seconds)
            self._waited_in_vain = False

    def _wait_at_most(self, seconds: float) -> None:
        self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")

    def _in_words(self, error: sqlite3.Error) -> BarlError:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return ProjectError(f"The project database cannot be used ({error}).", "Open the project again.")
        match code & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_IOERR if not locks_work(self.folder):
                return StorageError(
                    f"The drive of the project does not lock files, which keeps programs apart: {self.folder}.",
                    "Move the project to a local disk or to a network drive with file locks.",
                )
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return ProjectError(
                    f"The project is being changed by {self._writer()}.",
                    "Try again when it is done; nothing was lost.",
                )
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return self._damaged()
            case sqlite3.SQLITE_FULL:
                return storage_error(OSError(errno.ENOSPC, ""), self.path)
            case sqlite3.SQLITE_READONLY if code == sqlite3.SQLITE_READONLY_ROLLBACK:
                return StorageError(
                    f"The project was interrupted in the middle of a change and cannot be written now: {self.path}.",
                    "Open it once where it can be written; the change is then undone or completed.",
                )
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return storage_error(OSError(errno.EACCES, ""), self.path)
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_PROTOCOL:
                return StorageError(
                    f"The project's database cannot be read or written: {self.path} ({error}).",
                    "Check the disk, the network drive and the permissions of the folder.",
                )
        return ProjectError(f"The project's database refused a change ({error}).", "Open the project again.")

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Rows become objects inside: what cannot be converted was not written by BARL.

        Raises:
            ProjectError: The database is damaged.
        """
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise self._damaged() from error

    def _damaged(self) -> ProjectError:
        remedy = "Put back a copy from your backup"
        with suppress(OSError):
            made = datetime.fromtimestamp((self.folder / BACKUP_NAME).stat().st_mtime)
            remedy = f"Restore its copy of {made:%Y-%m-%d %H:%M}: barl project restore {shlex.quote(str(self.folder))}"
        remedy += "; the images and outlines in its folder are not touched by this."
        return ProjectError(f"The project's database is damaged: {self.path}.", remedy)


def unknown(table: str, row_id: str) -> ProjectError:
    remedy = {"runs": 'List them: "barl train PROJECT --runs".', "models": 'List them: "barl models list PROJECT".'}
    return ProjectError(
        f"The project has no {table.removesuffix('s')} '{row_id}'.", remedy.get(table, f"Choose one of its {table}.")
    )
