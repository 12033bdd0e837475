# SPDX-License-Identifier: Apache-2.0
"""Erasing cases for good, as when a patient withdraws consent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from barl.errors import ProjectError, StorageError
from barl.images.writing import patiently
from barl.project.database import Database, Transaction, now
from barl.project.files import inside
from barl.project.runs import Runs
from barl.project.states import CaseState

# What the keys of deleted cases begin with; no user's name can, for it counts as a space.
DELETED = "\x1f"
# Lines of the journal that hold a name that the case had.
_NAMING = ("case renamed", "case deleted", "case brought back")


def erased_ids(database: Database) -> set[str]:
    """The cases that were erased: their rows stay."""
    rows = database.rows("SELECT DISTINCT case_id AS id FROM journal WHERE action = 'case erased'")
    return {row["id"] for row in rows}


def check_not_in_use(database: Database, case_id: str) -> None:
    """Refuse to erase a case that a training holds: it would learn on from it.

    Raises:
        ProjectError: With the run.
    """
    for run in Runs(database).all():
        if run.is_running and case_id in _cases_of(run.plan):
            raise ProjectError(
                f"{run.id} is being trained with the case.", "Cancel or finish the training first, then erase the case."
            )


def enter_erased(transaction: Transaction, case_id: str) -> None:
    """Enter that a case is erased, and take its names out of its row and the journal."""
    transaction.execute(
        "UPDATE cases SET name = ?, name_key = ?, state = ?, subject = '', embedding = NULL, uncertainty = NULL, "
        "updated = ? WHERE id = ?",
        (f"\u2003(erased, {case_id})", DELETED + case_id, CaseState.EXCLUDED, now(), case_id),
    )
    transaction.amend(
        "journal",
        f"UPDATE journal SET facts = '{{}}' WHERE case_id = ? AND action IN ({', '.join('?' * len(_NAMING))})",
        (case_id, *_NAMING),
    )
    transaction.log("case erased", case_id, {})


def remove_files(database: Database, case_id: str) -> None:
    """Remove the folder of an erased case, and what stopped trainings have prepared of its scan.

    Raises:
        StorageError: Some files are in use, or may not be removed.
    """
    for folder in _folders(database, case_id):
        try:
            patiently(partial(shutil.rmtree, folder))
        except OSError as error:
            raise StorageError(
                f"Some files of the erased case cannot be removed now ({error.strerror}): {folder}.",
                "Close the programs that use them, then open the project again: that removes them.",
            ) from error


def finish_erasing(database: Database) -> None:
    """Remove the files of erased cases that a killed process, or a file in use, has left."""
    for case_id in erased_ids(database):
        for folder in _folders(database, case_id):
            shutil.rmtree(folder, ignore_errors=True)


def _folders(database: Database, case_id: str) -> Iterator[Path]:
    if (folder := inside(database.folder / "cases", case_id)).is_dir():
        yield folder
    for row in database.rows("SELECT id, plan FROM runs"):
        cache = inside(database.folder / "runs", row["id"]) / "cache"
        if cache.is_dir() and case_id in _cases_of(json.loads(row["plan"])):  # it cannot be resumed without the case
            yield cache


def _cases_of(plan: dict) -> set[str]:
    return {case["id"] for case in plan.get("run", {}).get("cases", ())}
