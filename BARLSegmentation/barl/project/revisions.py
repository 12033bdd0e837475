# SPDX-License-Identifier: Apache-2.0
"""The label maps of the cases: every stored one is a new revision, none is ever overwritten."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, ProjectError
from barl.images.label_maps import read_label
from barl.project.cases import Cases
from barl.project.database import Database, Transaction
from barl.project.definition import Definition
from barl.project.doubts import Doubt, DoubtError
from barl.project.files import inside, staging_folder
from barl.project.records import Case, Revision
from barl.project.soundness import known_problem
from barl.project.staging import enter_revision, enter_score, stage_revision
from barl.project.states import CaseState, RevisionKind

# Values in one query; SQLite may allow no more than 999.
_ROWS = 500


class Revisions:
    """The revisions of the project that ``database`` holds; their files lie in the cases' folders."""

    def __init__(self, database: Database, definition: Definition, cases: Cases) -> None:
        self._database = database
        self._definition = definition
        self._cases = cases
        self._expected_dice: dict[int, float | None] = {}

    def store(
        self,
        case_id: str,
        label: sitk.Image | Path,
        kind: RevisionKind | str,
        *,
        author: str,
        model_id: str | None = None,
        uncertainty: sitk.Image | None = None,
        looked: sitk.Image | None = None,
        filled_by: str | None = None,
        case_uncertainty: float | None = None,
        embedding: Sequence[float] | np.ndarray | None = None,
        details: dict | None = None,
        journal: dict | None = None,
        since: str | None = None,
        state: CaseState | None = None,
    ) -> Revision:
        """Keep a label map of a case for good.

        Args:
            case_id: The case (id or name).
            label: Label map on the scan's own grid, with values of the label table, or a file that holds one.
            kind: ``prediction`` (by a model), ``draft`` (unfinished correction) or ``accepted`` (by the expert).
            author: Who or what made it: a role or a program, not a patient.
            model_id: The model that made the prediction or from whose prediction the correction started.
            uncertainty: float in [0, 1] per voxel, on the same grid; kept in steps of 1/256.
            looked: Which voxels a person has looked at: a mask on the same grid, not 0 where looked at; None: the whole
                scan. Only these voxels are supervision; the others keep what stood on screen, filled or predicted.
            filled_by: What made the voxels that nobody looked at, such as ``barl fill 0.2.0`` or a model's id.
            case_uncertainty: One number in [0, 1] for the case; kept with the case for ranking.
            embedding: Where the case lies in the model's feature space; kept with the case for ranking.
            details: Anything else that JSON can hold, such as volumes and hot-spots.
            journal: Facts for the journal's line about it, such as what was changed.
            since: Id of the newest revision that the author has seen, empty if there was none: an outline that somebody
                accepted later is then an error. None: do not compare.
            state: The case's state from now on; None: the state that follows from the kind.

        Returns:
            The stored revision: after this returns, nothing short of damage to the disk loses it.

        Raises:
            DoubtError: Another outline was accepted after ``since``; both can stay.
            InputError: The label map or the mask does not fit the case or the label table, or the outline is to be
                accepted but no voxel was looked at.
            ProjectError: The case is unknown, or another program is changing the project.
            StorageError: The disk is full or read-only.
        """
        if kind not in list(RevisionKind):
            raise InputError(f"A revision has no kind {kind!r}.", f"Use one of: {', '.join(RevisionKind)}.")
        self._database.must_be_writable()
        case = self._cases.get(case_id)
        # Staged beside the cases, not in the case: leftovers are then found without looking into thousands of folders.
        with staging_folder(self._cases.folder) as staging:
            told: list[str] = []
            staged = stage_revision(
                staging,
                label,
                self._cases.grid(case.id),
                self._definition.labels,
                uncertainty,
                looked=looked,
                notes=told,
            )
            with self._database.write() as transaction:
                if since is not None:
                    _check_since(transaction, case, since)
                stored = enter_revision(
                    transaction,
                    self._cases.revision_folder(case.id),
                    case.id,
                    staged,
                    RevisionKind(kind),
                    author,
                    model_id=model_id,
                    details={**(details or {}), **({"filled_by": filled_by} if filled_by else {})},
                    journal={**(journal or {}), **({"notes": told} if told else {})},
                    state=state,
                )
                if case_uncertainty is not None or embedding is not None:
                    enter_score(transaction, case.id, case_uncertainty, embedding, model_id)
        return self._as_revision(self._database.one("SELECT * FROM revisions WHERE id = ?", (stored,)))

    def of(self, case_id: str) -> list[Revision]:
        """All revisions of a case, oldest first.

        Raises:
            ProjectError: The case is unknown.
        """
        query = "SELECT * FROM revisions WHERE case_id = ? ORDER BY number"
        return [self._as_revision(row) for row in self._database.rows(query, (self._cases.get(case_id).id,))]

    def newest(self, case_id: str, kinds: Iterable[RevisionKind] = tuple(RevisionKind)) -> Revision | None:
        """The newest revision of a case among ``kinds``, if there is one.

        Raises:
            ProjectError: The case is unknown.
        """
        wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        marks = ", ".join("?" * len(wanted))
        query = f"SELECT * FROM revisions WHERE case_id = ? AND kind IN ({marks}) ORDER BY number DESC LIMIT 1"
        row = self._database.row(query, (self._cases.get(case_id).id, *wanted))
        return self._as_revision(row) if row else None

    def expected_dice(self) -> dict[str, float]:
        """Case id -> the Dice to expect of its newest prediction, where its model says one."""
        query = "SELECT case_id, MAX(number) AS number FROM revisions WHERE kind = 'prediction' GROUP BY case_id"
        newest = {row["case_id"]: row["number"] for row in self._database.rows(query)}
        unread = sorted(set(newest.values()) - set(self._expected_dice))
        for first in range(0, len(unread), _ROWS):  # a revision never changes: each is read once
            some = unread[first : first + _ROWS]
            query = f"SELECT number, details FROM revisions WHERE number IN ({', '.join('?' * len(some))})"
            for row in self._database.rows(query, some):
                text = row["details"]
                value = json.loads(text).get("expected_dice") if "expected_dice" in text else None
                self._expected_dice[row["number"]] = value if isinstance(value, float) else None
        expected = {case_id: self._expected_dice.get(number) for case_id, number in newest.items()}
        return {case_id: value for case_id, value in expected.items() if value is not None}

    def accepted(self, case_id: str) -> Revision:
        """The newest accepted revision of a case, after its label map was compared with its checksum.

        Raises:
            ProjectError: The case is unknown or has none, or the file is missing or not as it was stored.
        """
        revision = self.newest(case_id, (RevisionKind.ACCEPTED,))
        if revision is None:
            raise ProjectError(f"The case {case_id} has no accepted outline.", "Outline it and accept the outline.")
        self.check(revision)
        return revision

    def accepted_label(self, case_id: str) -> Path | None:
        """The newest accepted label map of a case, whatever state the case is in now.

        Raises:
            ProjectError: The case is unknown.
        """
        revision = self.newest(case_id, (RevisionKind.ACCEPTED,))
        return revision.path if revision else None

    def check_since(self, case_id: str, since: str) -> None:
        """Refuse if an outline of the case was accepted after the revision ``since`` (empty: at any time).

        Raises:
            DoubtError: With who accepted it and when.
        """
        _check_since(self._database, self._cases.get(case_id), since)

    def check(self, revision: Revision) -> None:
        """Compare the label map of a revision, and the mask of what was looked at, with their checksums.

        Raises:
            ProjectError: A file is missing or not as it was stored.
        """
        expected = [(revision.path, revision.sha256, "outline")]
        if revision.looked and revision.looked_sha256:
            mask = self._database.folder / revision.looked
            expected.append((mask, revision.looked_sha256, "mask of the voxels looked at for the outline"))
        for path, digest, what in expected:
            if problem := known_problem(path, digest):
                name = self._cases.get(revision.case_id).name
                raise ProjectError(
                    f"The {what} {revision.id} of {name!r} {problem}.",
                    "Put it back from a backup, or outline the case again.",
                )

    def read_looked(self, revision: Revision) -> sitk.Image | None:
        """Which voxels a person has looked at, after the files of the revision were compared with their checksums.

        Returns:
            uint8 on the scan's grid, 1 = looked at; None: the whole scan.

        Raises:
            InputError: The file cannot be read.
            ProjectError: A file is missing or not as it was stored.
        """
        if revision.looked is None:
            return None
        self.check(revision)
        return read_label(self._database.folder / revision.looked, self._cases.grid(revision.case_id), (1,))

    def _as_revision(self, row: sqlite3.Row) -> Revision:
        with self._database.decoding():
            folder, uncertainty_file = self._cases.revision_folder(row["case_id"]), row["uncertainty_file"]
            looked_file = row["looked_file"] if "looked_file" in row.keys() else None  # noqa: SIM118 (a row is no dict)
            return Revision(
                id=row["id"],
                case_id=row["case_id"],
                kind=RevisionKind(row["kind"]),
                created=row["created"],
                author=row["author"],
                path=inside(folder, row["file"]),
                sha256=row["sha256"],
                model_id=row["model_id"],
                uncertainty_path=inside(folder, uncertainty_file) if uncertainty_file else None,
                uncertainty_sha256=row["uncertainty_sha256"],
                details=json.loads(row["details"]),
                looked=inside(folder, looked_file).relative_to(self._database.folder) if looked_file else None,
                looked_sha256=row["looked_sha256"] if looked_file else None,
                looked_share=row["looked_share"] if looked_file else 1.0,
            )


def _check_since(source: Database | Transaction, case: Case, since: str) -> None:
    newer = source.row(
        "SELECT id, author, created FROM revisions WHERE case_id = ? AND kind = ? AND number > "
        "COALESCE((SELECT number FROM revisions WHERE case_id = ? AND id = ?), 0) ORDER BY number DESC LIMIT 1",
        (case.id, RevisionKind.ACCEPTED, case.id, since),
    )
    if newer:
        raise DoubtError(
            Doubt.NEWER,
            f"{newer['author']} has accepted another outline of {case.name!r} meanwhile "
            f"({newer['id']}, {newer['created'][:16].replace('T', ' ')} UTC).",
            "Look at it first; both stay in the project.",
        )
