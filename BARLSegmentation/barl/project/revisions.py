# SPDX-License-Identifier: Apache-2.0
"""The label maps of the cases: every stored one is a new revision, none is ever overwritten."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.project.cases import Cases
from barl.project.database import Database
from barl.project.definition import Definition
from barl.project.files import staging_folder
from barl.project.records import Revision
from barl.project.staging import enter_revision, stage_revision
from barl.project.states import RevisionKind


class Revisions:
    """The revisions of the project that ``database`` holds; their files lie in the cases' folders."""

    def __init__(self, database: Database, definition: Definition, cases: Cases) -> None:
        self._database = database
        self._definition = definition
        self._cases = cases

    def store(
        self,
        case_id: str,
        label: sitk.Image | Path,
        kind: RevisionKind | str,
        *,
        author: str,
        model_id: str | None = None,
        uncertainty: sitk.Image | None = None,
        case_uncertainty: float | None = None,
        embedding: Sequence[float] | np.ndarray | None = None,
        details: dict | None = None,
        journal: dict | None = None,
    ) -> Revision:
        """Keep a label map of a case for good.

        Args:
            case_id: The case (id or name).
            label: Label map on the scan's own grid, with values of the label table, or a file that holds one.
            kind: ``prediction`` (by a model), ``draft`` (unfinished correction) or ``accepted`` (by the expert).
            author: Who or what made it: a role or a program, not a patient.
            model_id: The model that made the prediction or from whose prediction the correction started.
            uncertainty: float in [0, 1] per voxel, on the same grid; kept in steps of 1/256.
            case_uncertainty: One number in [0, 1] for the case; kept with the case for ranking.
            embedding: Where the case lies in the model's feature space; kept with the case for ranking.
            details: Anything else that JSON can hold, such as volumes and hot-spots.
            journal: Facts for the journal's line about it, such as what was changed.

        Returns:
            The stored revision: after this returns, nothing short of damage to the disk loses it.

        Raises:
            InputError: The label map does not fit the case or the label table.
            ProjectError: The case is unknown, or another program is changing the project.
            StorageError: The disk is full or read-only.
        """
        if kind not in list(RevisionKind):
            raise InputError(f"A revision has no kind {kind!r}.", f"Use one of: {', '.join(RevisionKind)}.")
        if case_uncertainty is not None and not 0 <= case_uncertainty <= 1:
            raise InputError(f"The case's uncertainty {case_uncertainty} is not in 0 to 1.", "Store a share of 1.")
        self._database.must_be_writable()
        case = self._cases.get(case_id)
        # Staged beside the cases, not in the case: leftovers are then found without looking into thousands of folders.
        with staging_folder(self._cases.folder) as staging:
            staged = stage_revision(staging, label, self._cases.grid(case.id), self._definition.values, uncertainty)
            with self._database.write() as transaction:
                stored = enter_revision(
                    transaction,
                    self._cases.revision_folder(case.id),
                    case.id,
                    staged,
                    RevisionKind(kind),
                    author,
                    model_id=model_id,
                    details=details,
                    journal=journal,
                )
                if case_uncertainty is not None or embedding is not None:
                    transaction.execute(
                        "UPDATE cases SET uncertainty = ?, embedding = ?, scored_by = ? WHERE id = ?",
                        (case_uncertainty, _as_blob(embedding), model_id, case.id),
                    )
        return self._as_revision(self._database.row("SELECT * FROM revisions WHERE id = ?", (stored,)))

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
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        marks = ", ".join("?" * len(kinds))
        query = f"SELECT * FROM revisions WHERE case_id = ? AND kind IN ({marks}) ORDER BY number DESC LIMIT 1"
        row = self._database.row(query, (self._cases.get(case_id).id, *kinds))
        return self._as_revision(row) if row else None

    def accepted_label(self, case_id: str) -> Path | None:
        """The newest accepted label map of a case, whatever state the case is in now.

        Raises:
            ProjectError: The case is unknown.
        """
        revision = self.newest(case_id, (RevisionKind.ACCEPTED,))
        return revision.path if revision else None

    def _as_revision(self, row: sqlite3.Row) -> Revision:
        folder, uncertainty_file = self._cases.revision_folder(row["case_id"]), row["uncertainty_file"]
        return Revision(
            id=row["id"],
            case_id=row["case_id"],
            kind=RevisionKind(row["kind"]),
            created=row["created"],
            author=row["author"],
            path=folder / row["file"],
            sha256=row["sha256"],
            model_id=row["model_id"],
            uncertainty_path=folder / uncertainty_file if uncertainty_file else None,
            uncertainty_sha256=row["uncertainty_sha256"],
            details=json.loads(row["details"]),
        )


def _as_blob(embedding: Sequence[float] | np.ndarray | None) -> bytes | None:
    if embedding is None:
        return None
    vector = np.asarray(embedding, dtype="<f4").ravel()
    if not np.isfinite(vector).all():
        raise InputError("The case's embedding holds numbers that are not finite.", "Predict the case again.")
    return vector.tobytes()
