# SPDX-License-Identifier: Apache-2.0
"""``project.db``: its tables, who may change it when, and what its errors mean in plain words.

Why a rollback journal and not WAL: WAL needs memory shared between the processes and therefore breaks on network
drives, where hospital data often lie. Why ``synchronous=EXTRA``: a transaction that was reported as done survives a
power cut; it costs a few milliseconds per click. Write transactions are short: files are written before, only renamed
inside.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from barl.errors import BarlError, ProjectError, StorageError, storage_error
from barl.project.files import settle, temporary_path
from barl.project.processes import ProcessId
from barl.project.states import CaseState, RevisionKind, RunState

FILE_NAME = "project.db"
BACKUP_NAME = "project.backup.db"
WRITER_NAME = "project.writer"
FORMAT = 1
_BACKUP_SECONDS = 600
WAIT_SECONDS = 5.0
APPLICATION_ID = 0x4241524C  # "BARL": tells a project from any other SQLite file


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"CHECK ({column} IN ({', '.join(repr(value.value) for value in values)}))"


SCHEMA = f"""
CREATE TABLE project (
    id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL, created TEXT NOT NULL,
    current_model TEXT REFERENCES models(id)
);
CREATE TABLE labels (
    value INTEGER PRIMARY KEY CHECK (value BETWEEN 1 AND 65535), name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL
);
CREATE TABLE channels (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, pattern TEXT NOT NULL);
CREATE TABLE cases (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    name_key TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL {_one_of("state", CaseState)},
    held_out INTEGER NOT NULL DEFAULT 0 CHECK (held_out IN (0, 1)),
    subject TEXT NOT NULL DEFAULT '',
    grid TEXT NOT NULL,
    uncertainty REAL,
    embedding BLOB,
    scored_by TEXT,
    newest_revision TEXT REFERENCES revisions(id),
    updated TEXT NOT NULL
);
CREATE INDEX cases_by_state ON cases(state);
CREATE INDEX cases_by_subject ON cases(subject) WHERE subject != '';
CREATE TABLE images (
    case_id TEXT NOT NULL REFERENCES cases(id), position INTEGER NOT NULL REFERENCES channels(position),
    file TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (case_id, position)
);
CREATE TABLE revisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    case_id TEXT NOT NULL REFERENCES cases(id),
    kind TEXT NOT NULL {_one_of("kind", RevisionKind)},
    created TEXT NOT NULL,
    author TEXT NOT NULL,
    model_id TEXT REFERENCES models(id),
    file TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    uncertainty_file TEXT,
    uncertainty_sha256 TEXT,
    details TEXT NOT NULL
);
CREATE INDEX revisions_by_case ON revisions(case_id, number);
CREATE TABLE models (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, created TEXT NOT NULL,
    parent TEXT REFERENCES models(id), summary TEXT NOT NULL
);
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, created TEXT NOT NULL, plan TEXT NOT NULL,
    state TEXT NOT NULL {_one_of("state", RunState)},
    pid INTEGER, host TEXT, process_start TEXT, started TEXT, ended TEXT,
    model_id TEXT REFERENCES models(id), message TEXT NOT NULL DEFAULT ''
);
CREATE TABLE journal (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, action TEXT NOT NULL,
    case_id TEXT REFERENCES cases(id), facts TEXT NOT NULL, program TEXT NOT NULL, pid INTEGER NOT NULL,
    host TEXT NOT NULL
);
CREATE INDEX journal_by_case ON journal(case_id, number);
"""

# What is written once and never changed or removed, by whichever program opens the database.
FIXED_TABLES = ("labels", "channels", "images", "revisions", "journal")


def _guard(table: str, verb: str) -> str:
    return (
        f"CREATE TRIGGER {table}_keep_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} are never changed'); END;\n"
    )


TRIGGERS = "".join(
    _guard(table, verb)
    for table, verbs in [*((table, ("UPDATE", "DELETE")) for table in FIXED_TABLES), ("cases", ("DELETE",))]
    for verb in verbs
)


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
        self.execute(_guard(table, "UPDATE"))

    def settle(self, staged: Path, place: Path, table: str, row_id: str) -> None:
        """Move a staged, flushed file or folder to its place; it belongs to the row of ``table`` with this id."""
        settle(staged, place)
        self._settled.append((place, table, row_id))

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
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


class Database:
    """One connection to ``project.db``; may be used from several threads, one after the other.

    Args:
        folder: The project folder.
        read_only: Refuse every change.
        wait_seconds: How long to wait for another program that is changing the project. A window gives less than the
            default: once that was in vain, it does not wait again until the project could be used, so that five
            questions hold it up once, not five times. A training always waits: its model must not be lost.
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
            "cache_spill = OFF",  # a long write locks readers out only while it commits
            f"query_only = {'ON' if self.read_only else 'OFF'}",
        ):
            self._connection.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    def create(self, name: str, labels: Sequence[tuple], channels: Sequence[tuple]) -> None:
        """Lay the tables, in one transaction.

        Raises:
            ProjectError: The folder holds a project already.
        """
        with self.write() as transaction:
            if transaction.row("SELECT 1 FROM sqlite_master"):
                raise ProjectError(f"There is a project in {self.folder} already.", "Open it, or choose a new folder.")
            for statement in _statements(SCHEMA + TRIGGERS):
                transaction.execute(statement)
            transaction.execute("INSERT INTO project (id, name, created) VALUES (1, ?, ?)", (name, now()))
            transaction.executemany("INSERT INTO labels VALUES (?, ?, ?)", labels)
            transaction.executemany("INSERT INTO channels VALUES (?, ?, ?)", channels)
            transaction.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            transaction.execute(f"PRAGMA user_version = {FORMAT}")

    def check_format(self) -> None:
        """Refuse what is no project, or one of a newer format.

        Raises:
            ProjectError: With the reason.
        """
        with self._plain_errors():
            application, version = self._pragma("application_id"), self._pragma("user_version")
        if application != APPLICATION_ID:
            raise ProjectError(
                f"{self.folder} is not a BARL project: its {FILE_NAME} holds something else.",
                "Choose a project's folder, or create a new project in an empty folder.",
            )
        if version > FORMAT:
            raise ProjectError(
                f"The project {self.folder} was made by a newer version of BARL "
                f"(format {version}, this version knows {FORMAT}).",
                "Update the BARL extension; the project was not changed.",
            )

    def _pragma(self, name: str) -> Any:
        return self._connection.execute(f"PRAGMA {name}").fetchone()[0]

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query. Nothing stays locked afterwards."""
        with self._turn, self._plain_errors():
            return self._connection.execute(query, parameters).fetchall()

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

    def must_be_writable(self) -> None:
        if self.read_only:
            raise ProjectError("The project was opened for reading only.", "Open it for writing to change it.")

    def problems(self) -> list[str]:
        """What SQLite finds wrong with the file's structure (empty: nothing)."""
        found = [row[0] for row in self.rows("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    def back_up(self) -> None:
        """Keep a copy beside the database, if it changed and the last copy is some minutes old.

        Raises:
            ProjectError: The database is damaged: the last sound copy is left as it is.
            StorageError: The disk has no room for it.
        """
        backup = self.folder / BACKUP_NAME
        with suppress(OSError):
            made = backup.stat().st_mtime
            if made >= self.path.stat().st_mtime or time.time() - made < _BACKUP_SECONDS:
                return
        # Before the copy replaces a sound one. 0.1 s for ten thousand cases, hence not at every opening.
        if self._pragma("quick_check(1)") != "ok":
            raise self._damaged()
        temporary = temporary_path(self.folder, BACKUP_NAME)
        try:
            with self._turn, self._plain_errors(), closing(sqlite3.connect(temporary)) as copy:
                self._connection.backup(copy)
            temporary.replace(backup)
        except OSError as error:
            raise storage_error(error, backup) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    # Who is changing the project: SQLite's lock does not tell, so the holder of the lock says it in a small file.

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

    def _damaged(self) -> ProjectError:
        remedy = "Put back a copy from your backup"
        with suppress(OSError):
            made = datetime.fromtimestamp((self.folder / BACKUP_NAME).stat().st_mtime)
            remedy = f"Put {BACKUP_NAME} (of {made:%Y-%m-%d %H:%M}) in its place"
        remedy += "; the images and outlines in its folder are not touched by this."
        return ProjectError(f"The project's database is damaged: {self.path}.", remedy)


def unknown(table: str, row_id: str) -> ProjectError:
    return ProjectError(f"The project has no {table.removesuffix('s')} '{row_id}'.", f"Choose one of its {table}.")


def _statements(script: str) -> Iterator[str]:
    """Single statements of a script: ``executescript`` would end the transaction."""
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \n;"):
                yield statement
            statement = ""
