# SPDX-License-Identifier: Apache-2.0
"""The label maps of the cases: every stored one is a new revision, none is ever overwritten.

The order is what makes it safe to kill any process at any moment: the files are written and flushed under a temporary
name; then, inside one short transaction, renamed and entered in the database with their SHA-256. A process killed
before the end leaves at most a file that no row names.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, ProjectError
from barl.images.geometry import Grid
from barl.images.reading import read_label, write_image
from barl.project.database import Database, Transaction, now
from barl.project.files import flush_tree, sha256, staging_folder
from barl.project.labels import LARGEST_VALUE
from barl.project.records import REVISION_KINDS, Revision

_COLUMNS = "id, case_id, kind, created, author, model_id, file, sha256, uncertainty_file, uncertainty_sha256, details"
_ROUNDING = 1e-3  # by how much an uncertainty may miss 0 or 1
# What a new revision makes of a case's state; an accepted or excluded case stays so until the user says otherwise.
_NEXT_STATE = {
    "prediction": {"new": "predicted"},
    "draft": {"new": "in_review", "predicted": "in_review"},
    "accepted": dict.fromkeys(("new", "predicted", "in_review", "excluded"), "accepted"),
}


@dataclass(frozen=True)
class StagedRevision:
    """Label map (and uncertainty) written and flushed under temporary names, with their digests."""

    label: Path
    sha256: str
    uncertainty: Path | None = None
    uncertainty_sha256: str | None = None


class Revisions:
    """The part of a project that keeps label maps. Needs what ``Project`` has: ``folder``, ``values`` and the cases."""

    folder: Path
    _database: Database

    def store_revision(
        self,
        case_id: str,
        label: sitk.Image | Path,
        kind: str,
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
        if kind not in REVISION_KINDS:
            raise InputError(f"'{kind}' is no kind of revision.", f"Use one of: {', '.join(REVISION_KINDS)}.")
        if case_uncertainty is not None and not 0 <= case_uncertainty <= 1:
            raise InputError(f"The case's uncertainty {case_uncertainty} is not in 0 to 1.", "Store a share of 1.")
        self._database.must_be_writable()
        case = self.case(case_id)
        # Staged beside the cases, not in the case: leftovers are then found without looking into thousands of folders.
        with staging_folder(self.folder / "cases") as staging:
            staged = self._stage_revision(staging, label, self.case_grid(case.id), uncertainty)
            with self._database.write() as transaction:
                stored = self._enter_revision(transaction, case.id, staged, kind, author, model_id, details, journal)
                if case_uncertainty is not None or embedding is not None:
                    transaction.execute(
                        "UPDATE cases SET uncertainty = ?, embedding = ?, scored_by = ? WHERE id = ?",
                        (case_uncertainty, _as_blob(embedding), model_id, case.id),
                    )
        return self._as_revision(self._database.row(f"SELECT {_COLUMNS} FROM revisions WHERE id = ?", (stored,)))

    def revisions(self, case_id: str) -> list[Revision]:
        """All revisions of a case, oldest first."""
        query = f"SELECT {_COLUMNS} FROM revisions WHERE case_id = ? ORDER BY number"
        return [self._as_revision(row) for row in self._database.rows(query, (self.case(case_id).id,))]

    def newest(self, case_id: str, kinds: Iterable[str] = REVISION_KINDS) -> Revision | None:
        """The newest revision of a case among ``kinds``, if there is one."""
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        marks = ", ".join("?" * len(kinds))
        query = f"SELECT {_COLUMNS} FROM revisions WHERE case_id = ? AND kind IN ({marks}) ORDER BY number DESC LIMIT 1"
        row = self._database.row(query, (self.case(case_id).id, *kinds))
        return self._as_revision(row) if row else None

    def accepted_label(self, case_id: str) -> Path | None:
        """The newest accepted label map of a case, whatever state the case is in now."""
        revision = self.newest(case_id, ("accepted",))
        return revision.path if revision else None

    def _stage_revision(
        self, staging: Path, label: sitk.Image | Path, grid: Grid, uncertainty: sitk.Image | None = None
    ) -> StagedRevision:
        if isinstance(label, sitk.Image):
            label = _checked(label, grid, self.values)
        else:
            label = read_label(Path(label), grid, self.values)
        label_file = staging / "label.nii.gz"
        write_image(label, label_file)
        uncertainty_file = None
        if uncertainty is not None:
            uncertainty_file = staging / "uncertainty.nii.gz"
            write_image(_stepped(uncertainty, grid), uncertainty_file)
        flush_tree(staging)
        return StagedRevision(
            label_file,
            sha256(label_file),
            uncertainty_file,
            sha256(uncertainty_file) if uncertainty_file else None,
        )

    def _enter_revision(
        self,
        transaction: Transaction,
        case_id: str,
        staged: StagedRevision,
        kind: str,
        author: str,
        model_id: str | None = None,
        details: dict | None = None,
        journal: dict | None = None,
    ) -> str:
        """Rename the staged files and add the row. Returns the revision's id."""
        if model_id is not None and not transaction.row("SELECT 1 FROM models WHERE id = ?", (model_id,)):
            raise ProjectError(f"The project has no model '{model_id}'.", "Choose one of the project's models.")
        (count,) = transaction.row("SELECT COUNT(*) FROM revisions WHERE case_id = ?", (case_id,))
        # The random part keeps a file that lost its row (an older database was put back) from being overwritten.
        revision_id = f"r{count + 1:03d}-{secrets.token_hex(4)}"
        folder = self._revision_folder(case_id)
        file, uncertainty_file = f"{revision_id}.nii.gz", None
        transaction.settle(staged.label, folder / file, "revisions", revision_id)
        if staged.uncertainty:
            uncertainty_file = f"{revision_id}_uncertainty.nii.gz"
            transaction.settle(staged.uncertainty, folder / uncertainty_file, "revisions", revision_id)
        made = now()
        transaction.execute(
            f"INSERT INTO revisions ({_COLUMNS}) VALUES ({', '.join('?' * 11)})",
            (
                revision_id,
                case_id,
                kind,
                made,
                author,
                model_id,
                file,
                staged.sha256,
                uncertainty_file,
                staged.uncertainty_sha256,
                json.dumps(details or {}),
            ),
        )
        (state,) = transaction.row("SELECT state FROM cases WHERE id = ?", (case_id,))
        transaction.execute(
            "UPDATE cases SET state = ?, newest_revision = ?, updated = ? WHERE id = ?",
            (_NEXT_STATE[kind].get(state, state), revision_id, made, case_id),
        )
        facts = {"revision": revision_id, "kind": kind, "author": author}
        transaction.log("revision stored", case_id, {**(journal or {}), **facts})
        return revision_id

    def _revision_folder(self, case_id: str) -> Path:
        return self.folder / "cases" / case_id / "revisions"

    def _as_revision(self, row: tuple) -> Revision:
        identity, case_id, kind, created, author, model_id, file, digest, map_file, map_digest, details = row
        folder = self._revision_folder(case_id)
        return Revision(
            id=identity,
            case_id=case_id,
            kind=kind,
            created=created,
            author=author,
            path=folder / file,
            sha256=digest,
            model_id=model_id,
            uncertainty_path=folder / map_file if map_file else None,
            uncertainty_sha256=map_digest,
            details=json.loads(details),
        )


def _checked(label: sitk.Image, grid: Grid, values: Sequence[int]) -> sitk.Image:
    """A label map from memory as ``read_label`` gives one from a file: uint8 or uint16, exactly on ``grid``."""
    if label.GetDimension() != 3 or label.GetNumberOfComponentsPerPixel() != 1 or not Grid.of(label).matches(grid):
        raise InputError(
            "The label map does not lie on its scan's grid.", "Make it with the scan as the reference geometry."
        )
    array = sitk.GetArrayViewFromImage(label)
    allowed = np.zeros(LARGEST_VALUE + 1, dtype=bool)
    allowed[[0, *values]] = True
    checked = np.empty(array.shape, dtype=np.uint8 if max(values) < 256 else np.uint16)
    for given, kept in zip(array, checked, strict=True):  # slice by slice: a whole scan's copies would take gigabytes
        whole = np.clip(np.nan_to_num(given), 0, LARGEST_VALUE).astype(np.uint16)
        if not (whole == given).all() or not allowed[whole].all():
            wrong = given[(whole != given) | ~allowed[whole]].flat[0]
            raise InputError(
                f"The label map holds the value {wrong:g}, which the label table does not have.",
                f"Use 0 for background and {', '.join(map(str, values))} for the labels.",
            )
        kept[...] = whole
    return grid.image(checked)


def _stepped(uncertainty: sitk.Image, grid: Grid) -> sitk.Image:
    """An uncertainty map exactly on ``grid``, float32 in steps of 1/256.

    Nobody sees a finer step, and it is what makes the file small: a map of 256 x 256 x 180 voxels took 42 MiB and 4.0 s
    to write as it came, 2.2 MiB and 1.0 s in steps.
    """
    if uncertainty.GetNumberOfComponentsPerPixel() != 1 or not Grid.of(uncertainty).matches(grid):
        raise InputError("The uncertainty map is not on the scan's grid.", "Store it on the scan's own grid.")
    stepped = np.empty(grid.shape, dtype=np.float32)
    for given, kept in zip(sitk.GetArrayViewFromImage(uncertainty), stepped, strict=True):
        if not (given.min() >= -_ROUNDING and given.max() <= 1 + _ROUNDING):  # NaN fails as well
            raise InputError("The uncertainty map has values outside of 0 to 1.", "Store shares of 1.")
        np.rint(given * np.float32(256), out=kept)
    stepped /= 256
    return grid.image(stepped.clip(0, 1, out=stepped))


def _as_blob(embedding: Sequence[float] | np.ndarray | None) -> bytes | None:
    if embedding is None:
        return None
    vector = np.asarray(embedding, dtype="<f4").ravel()
    if not np.isfinite(vector).all():
        raise InputError("The case's embedding holds numbers that are not finite.", "Predict the case again.")
    return vector.tobytes()
