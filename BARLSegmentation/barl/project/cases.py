# SPDX-License-Identifier: Apache-2.0
"""The cases of a project: their names, states, images and subjects."""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, ProjectError
from barl.images.geometry import Grid
from barl.images.reading import read_channels, write_image
from barl.project import files
from barl.project.database import Database, now
from barl.project.definition import Definition
from barl.project.labels import Channel
from barl.project.records import Case
from barl.project.staging import enter_revision, enter_score, stage_revision
from barl.project.states import CaseState, RevisionKind


class Cases:
    """The cases of the project that ``database`` holds; each is a folder in ``folder``."""

    def __init__(self, database: Database, definition: Definition) -> None:
        self._database = database
        self._definition = definition
        self.folder = database.folder / "cases"

    def add(
        self,
        name: str,
        channels: Sequence[Path | str | sitk.Image],
        *,
        label: Path | sitk.Image | None = None,
        held_out: bool = False,
        group: str = "",
        author: str = "import",
        series: Sequence[str | None] = (),
        notes: list[str] | None = None,
    ) -> Case:
        """Copy a case into the project, without any metadata of its files.

        Args:
            name: What the user calls it; unique in the project.
            channels: One file (or DICOM folder) or one image for each of the project's channels, in their order.
            label: Its outline, if there is one; kept as an accepted revision.
            held_out: Put it into the fixed group that is only ever used for evaluation.
            group: Whom it belongs to, if several cases are of one subject; a subject is held out as a whole.
            author: Who made the outline.
            series: For each channel which series of its DICOM folder is meant, or nothing at all.
            notes: Gets a sentence for everything that was changed, left out or is doubtful; the journal keeps them too.

        Raises:
            InputError: The name is empty or taken, an image or the outline cannot be used, or the group is split.
            ProjectError: Another program is changing the project.
            StorageError: The disk is full or read-only.
        """
        self._database.must_be_writable()
        name, group = _text(name), _text(group)
        if not name:
            raise InputError("The case has no name.", "Give it a name.")
        self._check_new_case(name, held_out, group)
        self._check_number_of_images(name, len(channels))
        with files.staging_folder(self.folder) as staging, files.staging_folder(self.folder) as other:
            (staging / "revisions").mkdir()
            told: list[str] = []
            paths = [_as_file(item, other / f"{k}.nrrd") for k, item in enumerate(channels)]
            images = read_channels(paths, told, series)
            names = _image_names(self._definition.channels)
            for image, file in zip(images, names, strict=True):
                write_image(image, staging / file)
            grid = Grid.of_file(staging / names[0])
            files.flush_tree(staging)
            digests = [files.sha256(staging / file) for file in names]
            staged = None if label is None else stage_revision(other, label, grid, self._definition.values)
            with self._database.write() as transaction:
                self._check_new_case(name, held_out, group)
                case_id = transaction.free_id("cases", "case")
                transaction.settle(staging, self.folder / case_id, "cases", case_id)
                transaction.execute(
                    "INSERT INTO cases (id, name, name_key, state, held_out, subject, grid, updated) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (case_id, name, _key(name), CaseState.NEW, held_out, group, json.dumps(grid.to_json()), now()),
                )
                rows = [(case_id, k, *item) for k, item in enumerate(zip(names, digests, strict=True))]
                transaction.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", rows)
                transaction.log("case added", case_id, {"held_out": held_out, **({"notes": told} if told else {})})
                if staged:
                    folder = self.revision_folder(case_id)
                    enter_revision(transaction, folder, case_id, staged, RevisionKind.ACCEPTED, author)
        if notes is not None:
            notes += told
        return self.get(case_id)

    def _check_number_of_images(self, name: str, number: int) -> None:
        channels = self._definition.channels
        if number != len(channels):
            raise InputError(
                f"The case {name!r} has {number} image(s), but the project has {len(channels)} channel(s): "
                f"{', '.join(channel.name for channel in channels)}.",
                "Give one image for each channel, in this order.",
            )

    def _check_new_case(self, name: str, held_out: bool, group: str) -> None:
        if self._database.row("SELECT 1 FROM cases WHERE name_key = ?", (_key(name),)):
            raise InputError(f"The project has a case named {name!r} already.", "Give the case another name.")
        split = self._database.row(
            "SELECT name FROM cases WHERE subject = ? AND subject != '' AND held_out != ?", (group, held_out)
        )
        if split:
            raise InputError(
                f"The case {name!r} is of the same subject as {split[0]!r}, but only one of them is held out.",
                "Hold out all cases of a subject or none: the evaluation would otherwise be too good.",
            )

    def all(self, state: CaseState | str | None = None) -> list[Case]:
        """The cases in the order in which they were added, all or those in one state."""
        if state is None:
            return [_as_case(row) for row in self._database.rows("SELECT * FROM cases ORDER BY number")]
        query = "SELECT * FROM cases WHERE state = ? ORDER BY number"
        return [_as_case(row) for row in self._database.rows(query, (_as_state(state),))]

    def get(self, id_or_name: str) -> Case:
        """One case by its id or the name the user gave it.

        Raises:
            ProjectError: There is none.
        """
        query = "SELECT * FROM cases WHERE id = ? OR name_key = ? ORDER BY id != ? LIMIT 1"
        row = self._database.row(query, (id_or_name, _key(id_or_name), id_or_name))
        if not row:
            raise ProjectError(f"The project has no case {id_or_name!r}.", "Choose one of its cases.")
        return _as_case(row)

    def set_state(self, case_id: str, state: CaseState | str) -> Case:
        """Put a case into another state.

        Raises:
            InputError: The state is unknown.
            ProjectError: The case is unknown, or is to be accepted without an accepted outline.
        """
        state, case = _as_state(state), self.get(case_id)
        with self._database.write() as transaction:
            if state is CaseState.ACCEPTED and RevisionKind.ACCEPTED not in self._kinds(case.id):
                raise ProjectError(f"The case {case.name!r} has no accepted outline.", "Store its outline first.")
            (before,) = transaction.one("SELECT state FROM cases WHERE id = ?", (case.id,))
            transaction.execute("UPDATE cases SET state = ?, updated = ? WHERE id = ?", (state, now(), case.id))
            transaction.log("state set", case.id, {"state": state, "before": before})
        return self.get(case.id)

    def include(self, case_id: str) -> Case:
        """Take a case that was excluded back, in the state that its label maps tell; any other stays as it is.

        Raises:
            ProjectError: The case is unknown, or another program is changing the project.
        """
        case = self.get(case_id)
        if case.state is not CaseState.EXCLUDED:
            return case
        state = CaseState.NEW
        for kind in self._kinds(case.id):
            state = state.after(kind)
        return self.set_state(case.id, state)

    def _kinds(self, case_id: str) -> set[RevisionKind]:
        rows = self._database.rows("SELECT DISTINCT kind FROM revisions WHERE case_id = ?", (case_id,))
        return {RevisionKind(row["kind"]) for row in rows}

    def set_held_out(self, case_id: str, held_out: bool) -> list[Case]:
        """Move a case, and all cases of its subject, into the held-out group or out of it; returns those moved."""
        case = self.get(case_id)
        with self._database.write() as transaction:
            together = transaction.execute(
                "SELECT id FROM cases WHERE (id = ? OR (subject = ? AND subject != '')) AND held_out != ?",
                (case.id, case.group, held_out),
            ).fetchall()
            moved_ids = [row["id"] for row in together]
            for moved in moved_ids:
                transaction.execute("UPDATE cases SET held_out = ?, updated = ? WHERE id = ?", (held_out, now(), moved))
                transaction.log("held out" if held_out else "no longer held out", moved)
        return [self.get(moved) for moved in moved_ids]

    def score(
        self,
        case_id: str,
        uncertainty: float | None,
        embedding: Sequence[float] | np.ndarray | None,
        model_id: str | None,
    ) -> None:
        """Keep what ranking needs of a case.

        Args:
            case_id: Id or name.
            uncertainty: One number in [0, 1].
            embedding: Finite numbers [n]: where the case lies in the model's feature space.
            model_id: The model that gave both.

        Raises:
            InputError: A number is out of range.
            ProjectError: The case is unknown, or another program is changing the project.
        """
        identity = self.get(case_id).id
        with self._database.write() as transaction:
            enter_score(transaction, identity, uncertainty, embedding, model_id)

    def image_paths(self, case_id: str) -> list[Path]:
        """The case's images, in the order of the channels."""
        identity = self.get(case_id).id
        rows = self._database.rows("SELECT file FROM images WHERE case_id = ? ORDER BY position", (identity,))
        return [self.folder / identity / row["file"] for row in rows]

    def revision_folder(self, case_id: str) -> Path:
        """Where the revisions of the case with this id lie."""
        return self.folder / case_id / "revisions"

    def grid(self, case_id: str) -> Grid:
        """The grid of the case's images, without reading them."""
        (text,) = self._database.one("SELECT grid FROM cases WHERE id = ?", (self.get(case_id).id,))
        return Grid.from_json(json.loads(text))


def _as_file(image: sitk.Image | Path | str, place: Path) -> Path:
    """Images in memory take the way through a file too: one place says what a usable scan is."""
    if isinstance(image, sitk.Image):
        write_image(image, place)
        return place
    return Path(image)


def _image_names(channels: Iterable[Channel]) -> list[str]:
    """File names from the channels' names where these are fit for it, else from their numbers."""
    names = [re.sub(r"[^A-Za-z0-9-]+", "_", channel.name).strip("_") for channel in channels]
    fit = all(names) and len({name.casefold() for name in names}) == len(names) and max(map(len, names)) <= 40
    return [f"image_{name if fit else position}.nii.gz" for position, name in enumerate(names)]


def _text(text: str) -> str:
    # Names from a Mac's files come with accents apart from their letters; they are the same names.
    return " ".join(unicodedata.normalize("NFC", str(text)).split())


def _key(name: str) -> str:
    """What two equal names have in common."""
    return _text(name).casefold()


def _as_state(state: CaseState | str) -> CaseState:
    if state not in list(CaseState):
        raise InputError(f"A case has no state {state!r}.", f"Use one of: {', '.join(CaseState)}.")
    return CaseState(state)


def _as_case(row: sqlite3.Row) -> Case:
    embedding = row["embedding"]
    return Case(
        row["id"],
        row["name"],
        CaseState(row["state"]),
        bool(row["held_out"]),
        row["subject"],
        row["uncertainty"],
        row["newest_revision"],
        None if embedding is None else np.frombuffer(embedding, dtype="<f4"),
        row["scored_by"],
        row["updated"],
    )
