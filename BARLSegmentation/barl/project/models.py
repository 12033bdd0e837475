# SPDX-License-Identifier: Apache-2.0
"""The models of a project, and which of them is the current one."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from barl.errors import ModelError, ProjectError, storage_error
from barl.images.writing import patiently
from barl.project.database import Database, now, unknown
from barl.project.files import flush_tree, inside, settle, staging_folder
from barl.project.model_card import CARD_FILE, WEIGHTS_FILE, weights_checksum
from barl.project.records import ModelRow
from barl.project.states import RunState

_QUERY = "SELECT m.*, m.id = p.current_model AS is_current FROM models m, project p"
_DIGEST = "weights_sha256"  # in the summary; models that earlier versions added lack it


def weights_digest(model: ModelRow) -> str:
    """SHA-256 of a model's weights when they were stored, or else as its card names it; empty: unknown."""
    return model.summary.get(_DIGEST) or weights_checksum(model.folder)


class Models:
    """The models of the project that ``database`` holds; each is a folder in ``models``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._folder = database.folder / "models"

    def add(self, folder: Path, summary: dict[str, Any], *, name: str = "", parent: str | None = None) -> ModelRow:
        """Copy a model into the project. It becomes the current one only by ``promote``.

        Args:
            folder: Holds ``model.json`` and ``weights.safetensors``.
            summary: What the list of models shows: held-out Dice per label, method, counts.
            name: What the user calls it (empty: its id).
            parent: The model from which it was trained on.

        Raises:
            ModelError: The folder holds no model.
            ProjectError: The parent is unknown, or another program is changing the project.
            StorageError: The disk is full or read-only.
        """
        with self._copied(folder) as staging, self._database.write() as transaction:
            if parent is not None:
                transaction.must_exist("models", parent)
            model_id = transaction.free_id("models", "model")
            summary = {**summary, _DIGEST: weights_checksum(staging)}
            transaction.settle(staging, self._folder / model_id, "models", model_id)
            transaction.execute(
                "INSERT INTO models (id, name, created, parent, summary) VALUES (?, ?, ?, ?, ?)",
                (model_id, name.strip() or model_id, now(), parent, json.dumps(summary)),
            )
            transaction.log("model added", facts={"model": model_id, "parent": parent})
        return self.get(model_id)

    def repair(self, model_id: str, folder: Path) -> ModelRow:
        """Put a copy of the same model in the place of its damaged files; nothing else about it changes.

        A process that is killed between the two renames leaves the model without a folder: it can be repaired again.

        Args:
            model_id: The damaged one.
            folder: Holds ``model.json`` and ``weights.safetensors``.

        Raises:
            ModelError: The folder holds no model.
            ProjectError: There is none with this id, or another program is changing the project.
            StorageError: The disk is full or read-only, or a file is in use.
        """
        place = self.get(model_id).folder
        with (
            self._copied(folder) as staging,
            staging_folder(self._folder) as aside,
            self._database.write() as transaction,
        ):
            try:
                if place.exists():
                    patiently(lambda: place.rename(aside / "replaced"))
            except OSError as error:
                raise storage_error(error, place) from error
            settle(staging, place)
            transaction.log("model repaired", facts={"model": model_id})
        return self.get(model_id)

    @contextmanager
    def _copied(self, folder: Path) -> Iterator[Path]:
        """A flushed copy of a model's folder, ready to be moved to its place."""
        self._database.must_be_writable()
        folder = Path(folder)
        missing = [file for file in (CARD_FILE, WEIGHTS_FILE) if not (folder / file).is_file()]
        if missing:
            raise ModelError(f"{folder} holds no model: {missing[0]} is missing.", "Choose a model's folder.")
        with staging_folder(self._folder) as staging:
            try:
                for path in folder.iterdir():
                    if path.is_file():
                        shutil.copyfile(path, staging / path.name)
            except OSError as error:
                raise storage_error(error, self._folder) from error
            flush_tree(staging)
            yield staging

    def all(self, *, removed: bool = False) -> list[ModelRow]:
        """All models, oldest first; with ``removed`` those without weights as well."""
        rows = [self._as_model(row) for row in self._database.rows(f"{_QUERY} ORDER BY m.number")]
        return [row for row in rows if removed or not row.is_removed]

    def get(self, model_id: str) -> ModelRow:
        """One model.

        Raises:
            ProjectError: There is none with this id.
        """
        row = self._database.row(f"{_QUERY} WHERE m.id = ?", (model_id,))
        if not row:
            raise unknown("models", model_id)
        return self._as_model(row)

    def current(self) -> ModelRow | None:
        """The model used unless another is named; None before the first ``promote``."""
        row = self._database.row(f"{_QUERY} WHERE m.id = p.current_model")
        return self._as_model(row) if row else None

    def promote(self, model_id: str) -> ModelRow:
        """Make a model the current one.

        Raises:
            ProjectError: There is none with this id, its weights were removed, or another program is changing the
                project.
        """
        if self.get(model_id).is_removed:
            raise ProjectError(f"The weights of {model_id} were removed.", "Choose another model, or import it again.")
        with self._database.write() as transaction:
            (before,) = transaction.one("SELECT current_model FROM project")
            transaction.execute("UPDATE project SET current_model = ?", (model_id,))
            transaction.log("model promoted", facts={"model": model_id, "before": before})
        return self.get(model_id)

    def remove(self, model_id: str) -> ModelRow:
        """Delete the weights of a model for good.

        Its card stays: predictions and later models name it as what they were made with.

        Raises:
            ProjectError: There is none with this id, it is the current one, or a training that is not finished starts
                from it; or another program is changing the project.
            StorageError: The disk is read-only.
        """
        row = self.get(model_id)
        if row.is_current:
            raise ProjectError(
                f"{model_id} is the model that predicts.", "Make another one the current one first, then remove it."
            )
        with self._database.write() as transaction:
            for run_id, plan in transaction.execute(
                "SELECT id, plan FROM runs WHERE state NOT IN (?, ?)", (RunState.FINISHED, RunState.FAILED)
            ).fetchall():
                if json.loads(plan).get("run", {}).get("parent") == model_id:
                    raise ProjectError(f"The training {run_id} starts from {model_id}.", "Finish or cancel it first.")
            if not row.is_removed:
                summary = json.dumps({**row.summary, "removed": now()})
                transaction.execute("UPDATE models SET summary = ? WHERE id = ?", (summary, model_id))
                transaction.log("model removed", facts={"model": model_id})
        try:
            patiently(lambda: (row.folder / WEIGHTS_FILE).unlink(missing_ok=True))
        except OSError as error:
            raise storage_error(error, row.folder) from error
        return self.get(model_id)

    def _as_model(self, row: sqlite3.Row) -> ModelRow:
        with self._database.decoding():
            return ModelRow(
                row["id"],
                row["name"],
                row["created"],
                inside(self._folder, row["id"]),
                row["parent"],
                dict(json.loads(row["summary"])),
                bool(row["is_current"]),
            )
