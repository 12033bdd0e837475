# SPDX-License-Identifier: Apache-2.0
"""The cases of a project: their names, states, images and subjects."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, ProjectError
from barl.images.fingerprint import scan_features
from barl.images.geometry import Grid
from barl.images.reading import read_channels
from barl.images.writing import write_image
from barl.project import files
from barl.project.case_files import image_names, without_files
from barl.project.database import Database, Transaction, now
from barl.project.definition import Definition
from barl.project.doubts import Doubt, DoubtError, check_mask, check_not_a_label_map, check_not_empty, voxel_digest
from barl.project.erasing import DELETED, check_not_in_use, enter_erased, erased_ids, remove_files
from barl.project.names import check_name, clean, key
from barl.project.records import BY_SCAN, Case, as_cases
from barl.project.soundness import known_problem
from barl.project.staging import Looked, enter_revision, enter_score, stage_revision
from barl.project.states import CaseState, RevisionKind

_ID = re.compile(r"case_\d{4,9}")
_NOT_DELETED = "substr(name_key, 1, 1) != char(31)"


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
        resample: bool = False,
        notes: list[str] | None = None,
        allow: Collection[Doubt] | None = None,
        meaning: Mapping[int | str, int] | None = None,
        looked: Looked | None = None,
        neutral: bool = False,
    ) -> Case:
        """Copy a case into the project, without any metadata of its files.

        Args:
            name: What the user calls it; unique in the project.
            channels: One file (or DICOM folder) or one image for each of the project's channels, in their order.
            label: Its outline, if there is one; kept as an accepted revision.
            held_out: Put it into the fixed group that is only ever used for evaluation.
            group: The subject, if several cases are of one; a subject is held out as a whole.
            author: Who made the outline.
            series: For each channel which series of its DICOM folder is meant, or nothing at all.
            resample: Bring an outline of another grid onto the scan's, nearest voxel.
            notes: Gets a sentence for everything that was changed, left out or is doubtful; the journal keeps them too.
            allow: Doubts that are confirmed; None: no doubt is raised.
            neutral: Keep no note that names a file: the case's name stands in its place.
            meaning: Value or segment's name in the outline's file -> value of the table, where they are others.
            looked: Which voxels its author has looked at (see ``Looked``); None: the whole scan.

        Raises:
            DoubtError: The outline is empty, the scan looks like a label map or is that of another case, and ``allow``
                lacks the doubt.
            InputError: The name is empty or taken, an image or the outline cannot be used, or the group is split.
            ProjectError: Another program is changing the project.
            StorageError: The disk is full or read-only.
        """
        self._database.must_be_writable()
        name = check_name(name, "case")
        group = check_name(group, "subject") if clean(group) else ""
        self._check_new_name(name)
        self._check_subject(name, held_out, group)
        self._check_number_of_images(name, len(channels))
        with files.staging_folder(self.folder) as staging, files.staging_folder(self.folder) as other:
            (staging / "revisions").mkdir()
            told = list(notes or ())
            images = read_channels(channels, told, series)
            voxels, features = [voxel_digest(image) for image in images], scan_features(images)
            if allow is not None:
                for image in images:
                    check_not_a_label_map(image, name, allow)
            names = image_names(self._definition.channels)
            for image, file in zip(images, names, strict=True):
                write_image(image, staging / file)
            grid = Grid.of_file(staging / names[0])
            files.flush_tree(staging)
            digests = [files.sha256(staging / file) for file in names]
            if allow is not None and Doubt.SAME_SCAN not in allow:
                self._check_new_scan(name, held_out, {*voxels, *digests})
            staged = None
            if label is not None:
                table = self._definition.labels
                staged = stage_revision(
                    other, label, grid, table, looked=looked, resample=resample, notes=told, meaning=meaning
                )
                if allow is not None:
                    check_not_empty(staged.is_empty, name, allow)
                    check_mask(staged.mask_doubt, name, allow)
            if neutral:
                told = [
                    without_files(text, name, [*channels, label, None if isinstance(looked, int) else looked])
                    for text in told
                ]
            with self._database.write() as transaction:
                self._check_new_name(name)
                self._check_subject(name, held_out, group)
                case_id = self._new_id(transaction, name)
                transaction.settle(staging, self.folder / case_id, "cases", case_id)
                transaction.execute(
                    "INSERT INTO cases (id, name, name_key, state, held_out, subject, grid, updated) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (case_id, name, key(name), CaseState.NEW, held_out, group, json.dumps(grid.to_json()), now()),
                )
                enter_score(transaction, case_id, None, features, BY_SCAN)
                rows = [(case_id, k, *item) for k, item in enumerate(zip(names, digests, strict=True))]
                transaction.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", rows)
                facts = {"held_out": held_out, "voxels": voxels, **({"notes": told} if told else {})}
                transaction.log("case added", case_id, facts)
                if staged:
                    folder = self.revision_folder(case_id)
                    enter_revision(transaction, folder, case_id, staged, RevisionKind.ACCEPTED, author)
        if notes is not None:
            notes[:] = told
        return self.get(case_id)

    def _check_number_of_images(self, name: str, number: int) -> None:
        channels = self._definition.channels
        if number != len(channels):
            raise InputError(
                f"The case {name!r} has {number} image(s), but the project has {len(channels)} channel(s): "
                f"{', '.join(channel.name for channel in channels)}.",
                "Give one image for each channel, in this order.",
            )

    def _check_new_name(self, name: str, own_id: str = "") -> None:
        if self._database.row("SELECT 1 FROM cases WHERE name_key = ? AND id != ?", (key(name), own_id)):
            raise InputError(f"The project has a case named {name!r} already.", "Give the case another name.")
        taken = self._database.row(f"SELECT {_NOT_DELETED} FROM cases WHERE id = ? AND id != ?", (key(name), own_id))
        if taken and taken[0]:
            raise InputError(f"{name!r} is the id of another case.", "Give the case another name.")
        if taken:
            raise InputError(
                f"{name!r} is the id of a case that was deleted.",
                f'Bring it back ("barl project undelete PROJECT {key(name)}"), or give the case another name.',
            )

    def _check_new_scan(self, name: str, held_out: bool, digests: set[str]) -> None:
        """``digests``: of the voxels, and of the files, for cases that 0.1 added have only those."""
        query = (
            "SELECT c.name, c.held_out, j.facts, i.sha256 FROM cases c JOIN journal j ON j.case_id = c.id "
            f"JOIN images i ON i.case_id = c.id WHERE j.action = 'case added' AND {_NOT_DELETED}"
        )
        for row in self._database.rows(query):
            with self._database.decoding():
                known = [row["sha256"], *json.loads(row["facts"]).get("voxels", ())]
            if digests.isdisjoint(known):
                continue
            split = ""
            if held_out != row["held_out"]:
                split = " Only one of them would be held out: the evaluation would be too good."
            raise DoubtError(
                Doubt.SAME_SCAN,
                f"The scan of {name!r} has the same voxels as that of the case {row['name']!r}.{split}",
                "Leave one of them out.",
            )

    def _new_id(self, transaction: Transaction, name: str) -> str:
        """An id that is no name of another case; a name that could be an id becomes the id."""
        case_id = name if _ID.fullmatch(name) else transaction.free_id("cases", "case")
        while (
            transaction.row("SELECT 1 FROM cases WHERE id = ? OR name_key = ?", (case_id, case_id))
            or (self.folder / case_id).exists()
        ):
            case_id = f"case_{int(case_id.removeprefix('case_')) + 1:04d}"
        return case_id

    def _check_subject(self, name: str, held_out: bool, group: str) -> None:
        split = self._database.row(
            f"SELECT name FROM cases WHERE subject = ? AND subject != '' AND held_out != ? AND {_NOT_DELETED}",
            (group, held_out),
        )
        if split:
            raise InputError(
                f"The case {name!r} is of the same subject as {split[0]!r}, but only one of them is held out.",
                "Hold out all cases of a subject or none: the evaluation would otherwise be too good.",
            )

    def voxel_digests(self, case_id: str) -> list[str]:
        """Digests of the voxels of a case's scan (``voxel_digest``), one for each channel; none for cases of 0.1.

        Raises:
            ProjectError: The case is unknown.
        """
        query = "SELECT facts FROM journal WHERE action = 'case added' AND case_id = ?"
        rows = self._database.rows(query, (self.get(case_id).id,))
        with self._database.decoding():
            return [digest for row in rows for digest in json.loads(row["facts"]).get("voxels", ())]

    def has_scan(self, case_id: str, channels: Sequence[sitk.Image | Path], series: Sequence[str | None] = ()) -> bool:
        """Whether these are a case's scan, by the voxels of each channel; raises what ``add`` raises about images."""
        known = self.voxel_digests(case_id)
        given = [voxel_digest(image) for image in read_channels(channels, [], series)]
        return given == (known or [voxel_digest(sitk.ReadImage(str(path))) for path in self.image_paths(case_id)])

    def all(self, state: CaseState | str | None = None) -> list[Case]:
        """The cases in the order in which they were added, all or those in one state."""
        where, parameters = ("", ()) if state is None else (" AND state = ?", (_as_state(state),))
        query = f"SELECT * FROM cases WHERE {_NOT_DELETED}{where} ORDER BY number"
        rows = self._database.rows(query, parameters)
        with self._database.decoding():
            return as_cases(rows)

    def stamp(self) -> tuple:
        """Changes whenever a case is added, changed or deleted, however clocks differ; costs next to nothing."""
        line = "SELECT max(number) FROM journal"
        return tuple(self._database.one(f"SELECT count(*), max(updated), ({line}) FROM cases WHERE {_NOT_DELETED}"))

    def get(self, id_or_name: str) -> Case:
        """One case by its id or else by its name, in upper or lower case; ``find`` is for what a user types.

        Raises:
            ProjectError: There is none, or it was deleted.
        """
        query = "SELECT * FROM cases WHERE id = ? OR name_key = ? ORDER BY id != ? LIMIT 1"
        row = self._database.row(query, (id_or_name, key(id_or_name), id_or_name))
        if not row:
            raise ProjectError(f"The project has no case {id_or_name!r}.", "Choose one of its cases.")
        if _is_deleted(row):
            if row["id"] in erased_ids(self._database):
                raise ProjectError(f"The case {id_or_name!r} was erased.", "Add its scan again if it shall come back.")
            raise ProjectError(
                f"The case {id_or_name!r} was deleted.", f'Bring it back: "barl project undelete PROJECT {row["id"]}".'
            )
        with self._database.decoding():
            return as_cases([row])[0]

    def find(self, text: str) -> Case:
        """The case that a user means: by its id or by its exact name.

        Raises:
            ProjectError: There is none, it was deleted, or the text is the id of one case and the name of another.
        """
        name = clean(text)
        rows = self._database.rows("SELECT * FROM cases WHERE id = ? OR name = ?", (name, name))
        if len(rows) > 1:
            one, other = sorted(rows, key=lambda row: row["id"] != name)
            raise ProjectError(
                f"{name!r} is the id of the case {one['name']!r} and the name of another.",
                f"Name them by {one['name']!r} and {other['id']!r}, or rename one of them.",
            )
        if rows:
            return self.get(rows[0]["id"])
        names = [case.name for case in self.all()]
        alike = {key(other): other for other in names}
        close = get_close_matches(key(name), alike, n=1)
        remedy = f"Did you mean {alike[close[0]]!r}?" if close else "Choose one of its cases."
        raise ProjectError(f"The project has no case {name!r}.", remedy)

    def rename(self, case_id: str, name: str) -> Case:
        """Give a case another name; its id, files and revisions stay.

        Raises:
            InputError: The name is empty, taken or the id of another case.
            ProjectError: The case is unknown, or another program is changing the project.
        """
        case, name = self.get(case_id), check_name(name, "case")
        with self._database.write() as transaction:
            self._check_new_name(name, case.id)
            transaction.execute(
                "UPDATE cases SET name = ?, name_key = ?, updated = ? WHERE id = ?", (name, key(name), now(), case.id)
            )
            transaction.log("case renamed", case.id, {"before": case.name, "name": name})
        return self.get(case.id)

    def delete(self, case_id: str) -> None:
        """Take a case out of everything; its name is free again, its files stay, ``undelete`` brings it back.

        Raises:
            ProjectError: The case is unknown, or another program is changing the project.
        """
        case = self.get(case_id)
        with self._database.write() as transaction:
            transaction.log("case deleted", case.id, {"name": case.name, "state": case.state})
            # Older versions of BARL show the row as an excluded case of this name. No user's name holds an em space.
            transaction.execute(
                "UPDATE cases SET name = ?, name_key = ?, state = ?, updated = ? WHERE id = ?",
                (f"{case.name}\u2003(deleted, {case.id})", DELETED + case.id, CaseState.EXCLUDED, now(), case.id),
            )

    def deleted(self) -> list[Case]:
        """The deleted cases that can be brought back, with the names and states that they had."""
        rows = self._database.rows(f"SELECT * FROM cases WHERE NOT ({_NOT_DELETED}) ORDER BY number")
        cases, erased = [], erased_ids(self._database)
        for row in rows:
            if row["id"] not in erased and (self.folder / row["id"]).is_dir():
                before = self._before_deletion(row["id"])
                cases.append(replace(as_cases([row])[0], name=before["name"], state=CaseState(before["state"])))
        return cases

    def undelete(self, case_id: str, name: str = "") -> Case:
        """Bring a deleted case back, with the state that it had.

        Args:
            case_id: Its id, or its name if no other deleted case had it.
            name: Its new name; empty: the name that it had.

        Raises:
            InputError: The name is taken by now, or its subject is split between held-out cases and others.
            ProjectError: No such case was deleted, or another program is changing the project.
        """
        case = self.find_deleted(case_id)
        name = check_name(name or case.name, "case")
        with self._database.write() as transaction:
            self._check_new_name(name, case.id)
            self._check_subject(name, case.held_out, case.group)
            transaction.execute(
                "UPDATE cases SET name = ?, name_key = ?, state = ?, updated = ? WHERE id = ?",
                (name, key(name), case.state, now(), case.id),
            )
            transaction.log("case brought back", case.id, {"name": name, "state": case.state})
        return self.get(case.id)

    def find_deleted(self, text: str) -> Case:
        """The deleted case with this id or name.

        Raises:
            ProjectError: There is none, or several had this name.
        """
        matches = [case for case in self.deleted() if case.id == text or key(case.name) == key(text)]
        if len(matches) != 1:
            which = ", ".join(f"{case.id} ({case.name})" for case in matches or self.deleted()) or "none"
            raise ProjectError(f"It is not clear which deleted case {text!r} is.", f"Deleted cases: {which}.")
        return matches[0]

    def erase(self, case_id: str) -> None:
        """Remove a case, deleted before or not, with its images and outlines for good.

        The rows about it stay, without its name: models and the journal refer to them.

        Raises:
            ProjectError: The case is unknown or being trained with, or another program is changing the project.
            StorageError: A file cannot be removed now.
        """
        deleted = [case for case in self.deleted() if case.id == case_id]
        case = deleted[0] if deleted else self.get(case_id)
        check_not_in_use(self._database, case.id)
        with self._database.write() as transaction:
            enter_erased(transaction, case.id)
        try:
            remove_files(self._database, case.id)
        finally:
            self._database.back_up(anew=True)  # the copy of before has the name

    def _before_deletion(self, case_id: str) -> dict[str, str]:
        row = self._database.one(
            "SELECT facts FROM journal WHERE case_id = ? AND action = 'case deleted' ORDER BY number DESC LIMIT 1",
            (case_id,),
        )
        with self._database.decoding():
            return dict(json.loads(row["facts"]))

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
        """Take a case that was excluded back, in the state that follows from its label maps; any other case stays as it
        is.

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
        """Store the values of a case by which cases are ranked.

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
        return [files.inside(self.folder, identity, row["file"]) for row in rows]

    def sound_images(self, case_id: str) -> list[Path]:
        """As ``image_paths``, after each file was compared with its checksum, once as long as it does not change.

        Raises:
            InputError: A file is missing or not as it was stored.
            ProjectError: The case is unknown.
        """
        case = self.get(case_id)
        rows = self._database.rows("SELECT file, sha256 FROM images WHERE case_id = ? ORDER BY position", (case.id,))
        paths = []
        for row in rows:
            paths.append(files.inside(self.folder, case.id, row["file"]))
            if problem := known_problem(paths[-1], row["sha256"]):
                raise InputError(
                    f"The image {row['file']} of {case.name!r} {problem}.",
                    "Put it back from a backup, or delete the case and add its scan again.",
                )
        return paths

    def revision_folder(self, case_id: str) -> Path:
        """Where the revisions of the case with this id lie."""
        return files.inside(self.folder, case_id, "revisions")

    def grid(self, case_id: str) -> Grid:
        """The grid of the case's images, without reading them."""
        (text,) = self._database.one("SELECT grid FROM cases WHERE id = ?", (self.get(case_id).id,))
        with self._database.decoding():
            return Grid.from_json(json.loads(text))


def _is_deleted(row: sqlite3.Row) -> bool:
    return row["name_key"].startswith(DELETED)


def _as_state(state: CaseState | str) -> CaseState:
    if state not in list(CaseState):
        raise InputError(f"A case has no state {state!r}.", f"Use one of: {', '.join(CaseState)}.")
    return CaseState(state)
