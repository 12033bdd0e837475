# SPDX-License-Identifier: Apache-2.0
"""The journal of a project: what was done, when and by which program. Lines are only ever added."""

from __future__ import annotations

import json
from typing import Any

from barl.project.database import Database
from barl.project.records import JournalEntry


class Journal:
    """The journal of the project that ``database`` holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def log(self, action: str, case_id: str | None = None, **facts: Any) -> None:
        """Add a line.

        Args:
            action: What was done, in a word or two.
            case_id: The case it concerns, if one.
            facts: Anything that JSON can hold; never anything about the patient.

        Raises:
            ProjectError: The case is unknown, or another program is changing the project.
        """
        with self._database.write() as transaction:
            if case_id is not None:
                transaction.must_exist("cases", case_id)
            transaction.log(action, case_id, facts)

    def entries(self, case_id: str | None = None) -> list[JournalEntry]:
        """The journal, oldest first: all of it, or what concerns one case."""
        where, parameters = ("", ()) if case_id is None else ("WHERE case_id = ?", (case_id,))
        rows = self._database.rows(f"SELECT * FROM journal {where} ORDER BY number", parameters)
        with self._database.decoding():
            return [JournalEntry(**{**row, "facts": json.loads(row["facts"])}) for row in rows]
