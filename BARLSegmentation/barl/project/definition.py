# SPDX-License-Identifier: Apache-2.0
"""What a project is about: its name, label table and channels."""

from __future__ import annotations

import json

from barl.project.database import Database
from barl.project.labels import Channel, Label


class Definition:
    """The definition of the project that ``database`` holds.

    Attributes:
        name: What the user calls the project.
        labels: The label table in ascending order of value.
        channels: The images every case has, in this order.
    """

    def __init__(self, database: Database) -> None:
        row = database.row("SELECT name FROM project")
        self.name: str = row["name"] if row else ""
        rows = database.rows("SELECT definition FROM labels ORDER BY value")
        self.labels = [Label.from_json(json.loads(row["definition"])) for row in rows]
        rows = database.rows("SELECT name, pattern FROM channels ORDER BY position")
        self.channels = [Channel(row["name"], row["pattern"]) for row in rows]

    @property
    def values(self) -> list[int]:
        """The values of the label table, ascending."""
        return [label.value for label in self.labels]
