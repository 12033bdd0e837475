# SPDX-License-Identifier: Apache-2.0
"""Stores a label map in a project: check, write under a temporary name, flush, rename, enter.

The order is what makes it safe to kill any process at any moment: the files are written and flushed under a temporary
name; then, inside one short transaction, renamed and entered in the database with their SHA-256. A process killed
before the end leaves at most a file that no row names.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.images.geometry import Grid
from barl.images.label_maps import read_label, read_mask, read_partial_label
from barl.images.segments import in_single_planes
from barl.images.writing import write_image
from barl.project.database import Transaction, now
from barl.project.doubts import MaskDoubt, mask_doubt
from barl.project.files import flush_tree, sha256
from barl.project.labels import LARGEST_VALUE, Label, structures
from barl.project.states import CaseState, RevisionKind

_ROUNDING = 1e-3  # by how much an uncertainty may miss 0 or 1


@dataclass(frozen=True)
class StagedRevision:
    """Label map (and uncertainty, and what was looked at) written and flushed under temporary names, with digests.

    ``mask_doubt``: see ``doubts.mask_doubt``.
    """

    label: Path
    sha256: str
    is_empty: bool
    uncertainty: Path | None = None
    uncertainty_sha256: str | None = None
    looked: Path | None = None
    looked_sha256: str | None = None
    looked_share: float = 1.0
    mask_doubt: MaskDoubt | None = None


# Which voxels a person has looked at: a mask (image or file), not 0 where looked at; or the value in a file of a label
# map that means that nobody has.
Looked = sitk.Image | Path | int


def read_outline(
    label: Path,
    grid: Grid,
    labels: Sequence[Label],
    looked: Looked | None = None,
    *,
    resample: bool = False,
    notes: list[str] | None = None,
    meaning: Mapping[int | str, int] | None = None,
) -> tuple[sitk.Image, sitk.Image | None]:
    """A label map from a file, and the mask of what was looked at; None: the whole scan.

    Args:
        label: The file.
        grid: The scan's.
        labels: The label table.
        looked: See ``Looked``; None: the whole scan.
        resample, notes, meaning: As for ``read_label``.

    Raises:
        InputError: A file cannot be used.
    """
    values, rows = [row.value for row in labels], structures(labels)
    how: dict[str, Any] = {"resample": resample, "notes": notes}
    if isinstance(looked, int):
        image, looked = read_partial_label(label, grid, values, looked, structures=rows, meaning=meaning, **how)
    else:
        image = read_label(label, grid, values, structures=rows, meaning=meaning, **how)
        if isinstance(looked, Path):
            looked = read_mask(looked, grid, **how)
    if notes is not None and (looked is None or sitk.GetArrayViewFromImage(looked).all()):
        _tell_single_planes(image, labels, notes)
    return image, looked


def _tell_single_planes(label: sitk.Image, labels: Sequence[Label], notes: list[str]) -> None:
    """Say which labels of an outline of the whole scan look as if only some planes were outlined."""
    single = in_single_planes(sitk.GetArrayViewFromImage(label))
    for row in labels:
        if row.value in single:
            planes, empty = single[row.value]
            notes.append(
                f"Outline: '{row.name}' has voxels in {planes} single planes and none in the {empty} planes between "
                "them, which count as background. If nobody has looked at these, give the outline as a partial one (on "
                "the command line: --looked or --ignore)."
            )


def stage_revision(
    staging: Path,
    label: sitk.Image | Path,
    grid: Grid,
    labels: Sequence[Label],
    uncertainty: sitk.Image | None = None,
    *,
    looked: Looked | None = None,
    resample: bool = False,
    notes: list[str] | None = None,
    meaning: Mapping[int | str, int] | None = None,
) -> StagedRevision:
    """Check a label map (with its uncertainty and what was looked at) and write it into the folder ``staging``.

    Args:
        staging: An empty temporary folder inside the project.
        label: Label map, or a file that holds one.
        grid: The scan's grid, on which all of them must lie.
        labels: The label table.
        uncertainty: float in [0, 1] per voxel.
        looked: See ``Looked``; None: the whole scan.
        resample: Bring a file of another grid onto the scan's, nearest voxel.
        notes: Gets a sentence for everything that was changed or is doubtful.
        meaning: Value or segment's name in the file -> value of the table, where they are others.

    Raises:
        InputError: The label map, the uncertainty or the mask does not fit.
        StorageError: The disk is full or read-only.
    """
    if isinstance(label, sitk.Image):
        label = _checked(label, grid, [row.value for row in labels])
        if isinstance(looked, Path):
            looked = read_mask(looked, grid, resample=resample, notes=notes)
    else:
        label, looked = read_outline(Path(label), grid, labels, looked, resample=resample, notes=notes, meaning=meaning)
    label_file = staging / "label.nii.gz"
    write_image(label, label_file)
    uncertainty_file = None
    if uncertainty is not None:
        uncertainty_file = staging / "uncertainty.nii.gz"
        write_image(_stepped(uncertainty, grid), uncertainty_file)
    looked_file, share, doubt = None, 1.0, None
    if isinstance(looked, sitk.Image):
        mask, share = _mask(looked, grid)
        doubt = mask_doubt(label, mask)
        if share < 1:
            looked_file = staging / "looked.nii.gz"
            write_image(mask, looked_file)
    flush_tree(staging)
    return StagedRevision(
        label_file,
        sha256(label_file),
        not sitk.GetArrayViewFromImage(label).any(),
        uncertainty_file,
        sha256(uncertainty_file) if uncertainty_file else None,
        looked_file,
        sha256(looked_file) if looked_file else None,
        share,
        doubt,
    )


def enter_revision(
    transaction: Transaction,
    folder: Path,
    case_id: str,
    staged: StagedRevision,
    kind: RevisionKind,
    author: str,
    *,
    model_id: str | None = None,
    details: dict | None = None,
    journal: dict | None = None,
    state: CaseState | None = None,
) -> str:
    """Rename the staged files into ``folder``, the case's folder of revisions, and add the row; returns its id.

    The case gets ``state``, or by default the state that follows from the kind.

    Raises:
        InputError: It is to be accepted, but no voxel was looked at.
        ProjectError: The model is unknown.
    """
    if kind is RevisionKind.ACCEPTED and staged.looked_share == 0:
        raise InputError(
            "No voxel of the outline was looked at.", "Draw on a slice, or accept the outline of the whole scan."
        )
    if model_id is not None:
        transaction.must_exist("models", model_id)
    (count,) = transaction.one("SELECT COUNT(*) FROM revisions WHERE case_id = ?", (case_id,))
    # The random part keeps a file that lost its row (an older database was put back) from being overwritten.
    revision_id = f"r{count + 1:03d}-{secrets.token_hex(4)}"
    file, uncertainty_file = f"{revision_id}.nii.gz", None
    transaction.settle(staged.label, folder / file, "revisions", revision_id)
    if staged.uncertainty:
        uncertainty_file = f"{revision_id}_uncertainty.nii.gz"
        transaction.settle(staged.uncertainty, folder / uncertainty_file, "revisions", revision_id)
    row: dict[str, Any] = {
        "id": revision_id,
        "case_id": case_id,
        "kind": kind,
        "created": now(),
        "author": author,
        "model_id": model_id,
        "file": file,
        "sha256": staged.sha256,
        "uncertainty_file": uncertainty_file,
        "uncertainty_sha256": staged.uncertainty_sha256,
        "details": json.dumps(details or {}),
    }
    if staged.looked:
        transaction.allow_partial_outlines()
        file = f"{revision_id}_looked.nii.gz"
        transaction.settle(staged.looked, folder / file, "revisions", revision_id)
        row |= {"looked_file": file, "looked_sha256": staged.looked_sha256, "looked_share": staged.looked_share}
    transaction.execute(
        f"INSERT INTO revisions ({', '.join(row)}) VALUES ({', '.join(f':{column}' for column in row)})", row
    )
    (before,) = transaction.one("SELECT state FROM cases WHERE id = ?", (case_id,))
    transaction.execute(
        "UPDATE cases SET state = ?, newest_revision = ?, updated = ? WHERE id = ?",
        (state or CaseState(before).after(kind), revision_id, row["created"], case_id),
    )
    facts: dict[str, Any] = {"revision": revision_id, "kind": kind, "author": author}
    if staged.looked:
        facts["looked_share"] = round(staged.looked_share, 6)
    if kind is RevisionKind.ACCEPTED and transaction.holds_partial_outlines():
        transaction.execute("UPDATE cases SET looked_share = ? WHERE id = ?", (staged.looked_share, case_id))
    transaction.log("revision stored", case_id, {**(journal or {}), **facts})
    return revision_id


def enter_score(
    transaction: Transaction,
    case_id: str,
    uncertainty: float | None,
    embedding: Sequence[float] | np.ndarray | None,
    model_id: str | None,
) -> None:
    """Keep uncertainty (0 to 1) and embedding (finite numbers) with a case; ``model_id`` gave both.

    Raises:
        InputError: A number is out of range.
    """
    if uncertainty is not None and not 0 <= uncertainty <= 1:
        raise InputError(f"The case's uncertainty {uncertainty} is not in 0 to 1.", "Store a share of 1.")
    transaction.execute(
        "UPDATE cases SET uncertainty = ?, embedding = ?, scored_by = ? WHERE id = ?",
        (uncertainty, _as_blob(embedding), model_id, case_id),
    )


def _as_blob(embedding: Sequence[float] | np.ndarray | None) -> bytes | None:
    if embedding is None:
        return None
    vector = np.asarray(embedding, dtype="<f4").ravel()
    if not np.isfinite(vector).all():
        raise InputError("The case's embedding holds numbers that are not finite.", "Predict the case again.")
    return vector.tobytes()


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
        # As 64 bits: numpy 2.0 does not compare numbers that a small type cannot hold.
        wide = given.astype(np.int64) if given.dtype.kind in "iu" else np.nan_to_num(given)
        whole = np.clip(wide, 0, LARGEST_VALUE).astype(np.uint16)
        if not (whole == given).all() or not allowed[whole].all():
            wrong = given[(whole != given) | ~allowed[whole]].flat[0]
            raise InputError(
                f"The label map holds the value {wrong:g}, which the label table does not have.",
                f"Use 0 for background and {', '.join(map(str, values))} for the labels.",
            )
        kept[...] = whole
    return grid.image(checked)


def _mask(looked: sitk.Image, grid: Grid) -> tuple[sitk.Image, float]:
    """The voxels looked at, uint8 0 or 1, exactly on ``grid``, and their share of the scan."""
    if looked.GetDimension() != 3 or looked.GetNumberOfComponentsPerPixel() != 1 or not Grid.of(looked).matches(grid):
        raise InputError(
            "The mask of the voxels that were looked at does not lie on its scan's grid.",
            "Make it with the scan as the reference geometry.",
        )
    mask = (sitk.GetArrayViewFromImage(looked) != 0).astype(np.uint8)
    return grid.image(mask), int(np.count_nonzero(mask)) / mask.size


def _stepped(uncertainty: sitk.Image, grid: Grid) -> sitk.Image:
    """An uncertainty map exactly on ``grid``, float32 in steps of 1/256.

    A finer step is not visible, and the steps make the file small: a map of 256 x 256 x 180 voxels took 42 MiB and 4.0
        s
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
