# SPDX-License-Identifier: Apache-2.0
"""The tables of ``project.db``, and the triggers that keep rows from being changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from enum import StrEnum

from barl.project.states import CaseState, RevisionKind, RunState

FORMAT = 2  # the newest that this version reads
FIRST_FORMAT = 1  # what a new project has: earlier versions of BARL can open it until it needs more
APPLICATION_ID = 0x4241524C  # "BARL": distinguishes a project from any other SQLite file


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

# What a project of format 1 gets with its first partial outline: which voxels were looked at, and their share.
PARTIAL_OUTLINES = """
ALTER TABLE revisions ADD COLUMN looked_file TEXT;
ALTER TABLE revisions ADD COLUMN looked_sha256 TEXT;
ALTER TABLE revisions ADD COLUMN looked_share REAL NOT NULL DEFAULT 1 CHECK (looked_share BETWEEN 0 AND 1);
ALTER TABLE cases ADD COLUMN looked_share REAL NOT NULL DEFAULT 1 CHECK (looked_share BETWEEN 0 AND 1);
PRAGMA user_version = 2;
"""

# What is written once and never changed or removed, by whichever program opens the database.
FIXED_TABLES = ("labels", "channels", "images", "revisions", "journal")


def guard(table: str, verb: str) -> str:
    """The trigger that refuses ``verb`` on rows of ``table``."""
    return (
        f"CREATE TRIGGER {table}_keep_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} are never changed'); END;\n"
    )


TRIGGERS = "".join(
    guard(table, verb)
    for table, verbs in [*((table, ("UPDATE", "DELETE")) for table in FIXED_TABLES), ("cases", ("DELETE",))]
    for verb in verbs
)


def statements(script: str) -> Iterator[str]:
    """Single statements of a script: ``executescript`` would end the transaction."""
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \n;"):
                yield statement
            statement = ""


def foreign_objects(connection: sqlite3.Connection) -> list[str]:
    """Names of the triggers and views of a database that no version of BARL made: they could run on any change."""
    own = {statement.strip(" \n;") for statement in statements(TRIGGERS)}
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'view')")
    return [name for name, sql in rows if (sql or "").strip(" \n;") not in own]
