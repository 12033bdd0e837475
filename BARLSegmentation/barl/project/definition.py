# SPDX-License-Identifier: Apache-2.0
"""What a project is about: its name, label table and channels, and the changes that are possible later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from barl.errors import ProjectError
from barl.project.database import Database, now
from barl.project.labels import Channel, Label, check_channels, check_labels
from barl.project.names import clean, key
from barl.project.states import CaseState


class Definition:
    """The definition of the project that ``database`` holds.

    Labels and channels can be added to (labels) and renamed, never removed: outlines and models refer to their values
    and positions.

    Attributes:
        name: What the user calls the project.
        created: When it was made, ISO 8601: another project in the same folder has another one.
        labels: The label table in ascending order of value.
        channels: The images every case has, in this order.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reload()

    def reload(self) -> None:
        """Read the definition again: another program may have changed it."""
        row = self._database.row("SELECT name, created FROM project")
        self.name: str = row["name"] if row else ""
        self.created: str = row["created"] if row else ""
        rows = self._database.rows("SELECT definition FROM labels ORDER BY value")
        with self._database.decoding():
            self.labels = [Label.from_json(json.loads(row["definition"])) for row in rows]
        rows = self._database.rows("SELECT name, pattern FROM channels ORDER BY position")
        self.channels = [Channel(row["name"], row["pattern"]) for row in rows]

    @property
    def values(self) -> list[int]:
        """The values of the label table, ascending."""
        return [label.value for label in self.labels]

    def add_label(self, label: Label, *, reopen: bool = False) -> list[str]:
        """Add a row to the label table.

        Args:
            label: The new row.
            reopen: Put the accepted cases back to review, because their outlines lack the new label.

        Returns:
            Sentences: what it means for outlines and models.

        Raises:
            InputError: The value or name is wrong or taken.
            ProjectError: Another program is changing the project.
        """
        check_labels([*self.labels, label])
        label = replace(label, name=clean(label.name))
        with self._database.write() as transaction:
            (outlined,) = transaction.one("SELECT COUNT(*) FROM cases WHERE state = ?", (CaseState.ACCEPTED,))
            row = (label.value, label.name, json.dumps(label.to_json()))
            transaction.execute("INSERT INTO labels VALUES (?, ?, ?)", row)
            if reopen:
                transaction.execute(
                    "UPDATE cases SET state = ?, updated = ? WHERE state = ?",
                    (CaseState.IN_REVIEW, now(), CaseState.ACCEPTED),
                )
            transaction.log("label added", facts={"value": label.value, "name": label.name, "reopened": reopen})
        self.reload()
        sentences = [f"Models trained until now do not find {label.name}: train a new one when some cases show it."]
        if outlined and reopen:
            sentences.append(
                f"{outlined} accepted cases are in review again: add {label.name} to them and accept them."
            )
        elif outlined:
            sentences.append(f"{outlined} accepted outlines lack {label.name}: they teach that their cases have none.")
        return sentences

    def rename_label(self, value: int, name: str) -> list[str]:
        """Give a label another name; label maps and models hold its value and stay valid.

        Returns:
            Sentences: what it means for outlines and models.

        Raises:
            InputError: The name is wrong or taken.
            ProjectError: The table has no such value, or another program is changing the project.
        """
        before = self._label(value)
        after = replace(before, name=clean(name))
        check_labels([*(label for label in self.labels if label.value != value), after])
        with self._database.write() as transaction:
            query = "UPDATE labels SET name = ?, definition = ? WHERE value = ?"
            transaction.amend("labels", query, (after.name, json.dumps(after.to_json()), value))
            transaction.log("label renamed", facts={"value": value, "before": before.name, "name": after.name})
        self.reload()
        return [
            f"Outlines and models hold the value {value} and stay valid; cards of older models say {before.name!r}."
        ]

    def set_lateral(self, value: int, lateral: bool) -> list[str]:
        """Say whether a label is one of a left/right pair, whatever its name looks like.

        Returns:
            Sentences: what it means for trainings and models.

        Raises:
            ProjectError: The table has no such value, or another program is changing the project.
        """
        after = replace(self._label(value), lateral=lateral, not_lateral=not lateral)
        with self._database.write() as transaction:
            query = "UPDATE labels SET definition = ? WHERE value = ?"
            transaction.amend("labels", query, (json.dumps(after.to_json()), value))
            transaction.log("label sides changed", facts={"value": value, "name": after.name, "lateral": lateral})
        self.reload()
        what = "is one of a left/right pair: scans are" if lateral else "is of no side: it is no reason why scans are"
        return [f"{after.name} {what} not mirrored in the next training. Models that are there stay as they are."]

    def _label(self, value: int) -> Label:
        label = next((label for label in self.labels if label.value == value), None)
        if label is None:
            raise ProjectError(f"The label table has no value {value}.", f"Its values: {_listed(self.values)}.")
        return label

    def change_channel(self, name: str, *, new_name: str = "", pattern: str | None = None) -> list[str]:
        """Give a channel another name, or another pattern for the names of its files.

        Returns:
            Sentences: what it means for cases and models.

        Raises:
            InputError: The new name is wrong or taken.
            ProjectError: There is no such channel, or another program is changing the project.
        """
        names = [key(channel.name) for channel in self.channels]
        if key(name) not in names:
            known = ", ".join(channel.name for channel in self.channels)
            raise ProjectError(f"The project has no channel {name!r}.", f"Its channels: {known}.")
        position = names.index(key(name))
        before = self.channels[position]
        after = Channel(clean(new_name) or before.name, before.pattern if pattern is None else pattern)
        check_channels([after if k == position else channel for k, channel in enumerate(self.channels)])
        with self._database.write() as transaction:
            query = "UPDATE channels SET name = ?, pattern = ? WHERE position = ?"
            transaction.amend("channels", query, (after.name, after.pattern, position))
            facts = {"position": position, "before": before.name, "name": after.name, "pattern": after.pattern}
            transaction.log("channel changed", facts=facts)
        self.reload()
        if after.name == before.name:
            return [f"Files whose name holds {after.pattern!r} are {after.name} from now on; cases stay as they are."]
        return [
            f"Cases stay as they are. Models of this project that call the channel {before.name!r} still fit; "
            f"other models need a channel {after.name!r}."
        ]

    def channel_names_for(self, wanted: Sequence[str]) -> list[str]:
        """The names of the channels as a model calls them: a former name counts as the present one.

        Args:
            wanted: The model's channels, in order.
        """
        former: dict[int, set[str]] = {}
        rows = self._database.rows("SELECT facts FROM journal WHERE action = 'channel changed'")
        with self._database.decoding():
            for facts in (json.loads(row["facts"]) for row in rows):
                former.setdefault(facts["position"], set()).add(key(facts["before"]))
        names = [channel.name for channel in self.channels]
        for position, name in enumerate(wanted[: len(names)]):
            if key(name) in former.get(position, ()):
                names[position] = name
        return names


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
