# SPDX-License-Identifier: Apache-2.0
"""The models and training runs of a project, and its journal."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from barl.errors import InputError, ModelError, ProjectError, storage_error
from barl.project.database import Database, Transaction, now
from barl.project.files import flush_tree, staging_folder, write_atomically
from barl.project.processes import ProcessId
from barl.project.records import RUN_STATES, JournalEntry, ModelRow, RunRow

_MODEL_FILES = ("model.json", "weights.safetensors")
_ENDED = ("stopped", "finished", "failed", "interrupted")
_RUN_COLUMNS = "id, state, created, plan, pid, host, process_start, started, ended, model_id, message"


class Work:
    """The part of a project that keeps models, runs and the journal."""

    folder: Path
    _database: Database

    # Models

    def add_model(
        self, folder: Path, summary: dict[str, Any], *, name: str = "", parent: str | None = None
    ) -> ModelRow:
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
        self._database.must_be_writable()
        folder = Path(folder)
        missing = [file for file in _MODEL_FILES if not (folder / file).is_file()]
        if missing:
            raise ModelError(f"{folder} holds no model: {missing[0]} is missing.", "Choose a model's folder.")
        with staging_folder(self.folder / "models") as staging:
            try:
                shutil.copytree(folder, staging, dirs_exist_ok=True)
            except (OSError, shutil.Error) as error:
                cause = error if isinstance(error, OSError) and error.errno else OSError(str(error))
                raise storage_error(cause, self.folder / "models") from error
            flush_tree(staging)
            with self._database.write() as transaction:
                if parent is not None:
                    self._need(transaction, "models", parent)
                model_id = self._free_id(transaction, "models", "model")
                transaction.settle(staging, self.folder / "models" / model_id, "models", model_id)
                transaction.execute(
                    "INSERT INTO models (id, name, created, parent, summary) VALUES (?, ?, ?, ?, ?)",
                    (model_id, name.strip() or model_id, now(), parent, json.dumps(summary)),
                )
                transaction.log("model added", facts={"model": model_id, "parent": parent})
        return self.model(model_id)

    def models(self) -> list[ModelRow]:
        """All models, oldest first."""
        rows = self._database.rows(
            "SELECT m.id, m.name, m.created, m.parent, m.summary, m.id = p.current_model "
            "FROM models m, project p ORDER BY m.number"
        )
        return [
            ModelRow(
                identity, name, created, self.folder / "models" / identity, parent, json.loads(text), bool(current)
            )
            for identity, name, created, parent, text, current in rows
        ]

    def model(self, model_id: str) -> ModelRow:
        """One model.

        Raises:
            ProjectError: There is none with this id.
        """
        for model in self.models():
            if model.id == model_id:
                return model
        raise _unknown("models", model_id)

    def current_model(self) -> ModelRow | None:
        """The model used unless another is named; None before the first ``promote``."""
        return next((model for model in self.models() if model.is_current), None)

    def promote(self, model_id: str) -> ModelRow:
        """Make a model the current one.

        Raises:
            ProjectError: There is none with this id, or another program is changing the project.
        """
        with self._database.write() as transaction:
            self._need(transaction, "models", model_id)
            (before,) = transaction.row("SELECT current_model FROM project")
            transaction.execute("UPDATE project SET current_model = ?", (model_id,))
            transaction.log("model promoted", facts={"model": model_id, "before": before})
        return self.model(model_id)

    # Runs

    def new_run(self, plan: dict[str, Any]) -> RunRow:
        """Enter a training run with the state ``queued``; its folder holds ``plan.json``.

        Raises:
            ProjectError: Another program is changing the project.
            StorageError: The disk is full or read-only.
        """
        self._database.must_be_writable()
        with staging_folder(self.folder / "runs") as staging:
            write_atomically(staging / "plan.json", lambda path: path.write_text(json.dumps(plan, indent=2)))
            with self._database.write() as transaction:
                run_id = self._free_id(transaction, "runs", "run")
                transaction.settle(staging, self.folder / "runs" / run_id, "runs", run_id)
                transaction.execute(
                    "INSERT INTO runs (id, created, plan, state) VALUES (?, ?, ?, 'queued')",
                    (run_id, now(), json.dumps(plan)),
                )
                transaction.log("run queued", facts={"run": run_id})
        return self.run(run_id)

    def runs(self) -> list[RunRow]:
        """All runs, oldest first; a running one whose process died on this machine is shown as ``interrupted``."""
        return [self._as_run(row) for row in self._database.rows(f"SELECT {_RUN_COLUMNS} FROM runs ORDER BY number")]

    def run(self, run_id: str) -> RunRow:
        """One run.

        Raises:
            ProjectError: There is none with this id.
        """
        row = self._database.row(f"SELECT {_RUN_COLUMNS} FROM runs WHERE id = ?", (run_id,))
        if not row:
            raise _unknown("runs", run_id)
        return self._as_run(row)

    def update_run(
        self,
        run_id: str,
        state: str,
        *,
        pid: int | None = None,
        model_id: str | None = None,
        message: str = "",
    ) -> RunRow:
        """Enter what became of a run.

        Args:
            run_id: The run.
            state: One of ``RUN_STATES``.
            pid: The process that trains, for ``running`` (None: this one); a process of this machine.
            model_id: The model that came out.
            message: One sentence for the user, such as why it failed.

        Raises:
            InputError: ``state`` is unknown.
            ProjectError: The run or model is unknown, or another program is changing the project.
        """
        if state not in RUN_STATES:
            raise InputError(f"'{state}' is no state of a run.", f"Use one of: {', '.join(RUN_STATES)}.")
        with self._database.write() as transaction:
            self._need(transaction, "runs", run_id)
            if model_id is not None:
                self._need(transaction, "models", model_id)
            if state == "running":
                process = ProcessId.of(pid or os.getpid())
                transaction.execute(
                    "UPDATE runs SET pid = ?, host = ?, process_start = ?, started = COALESCE(started, ?), "
                    "ended = NULL WHERE id = ?",
                    (process.pid, process.host, process.started, now(), run_id),
                )
            transaction.execute(
                "UPDATE runs SET state = ?, model_id = COALESCE(?, model_id), message = ?, "
                "ended = CASE WHEN ? THEN ? ELSE ended END WHERE id = ?",
                (state, model_id, message, state in _ENDED, now(), run_id),
            )
            transaction.log(f"run {state}", facts={"run": run_id, "model": model_id, "message": message})
        return self.run(run_id)

    def reconcile_runs(self) -> list[RunRow]:
        """Enter every run whose process died on this machine as ``interrupted``; returns those."""
        dead = [run.id for run in self.runs() if run.state == "interrupted" and run.ended is None]
        return [self.update_run(run_id, "interrupted", message="Its process ended unexpectedly.") for run_id in dead]

    def _as_run(self, row: tuple) -> RunRow:
        identity, state, created, plan, pid, host, process_start, started, ended, model_id, message = row
        if state == "running":
            process = ProcessId(pid, host, process_start)
            if process.is_here() and not process.is_alive():
                state = "interrupted"
        return RunRow(
            identity,
            state,
            created,
            self.folder / "runs" / identity,
            json.loads(plan),
            pid,
            host,
            started,
            ended,
            model_id,
            message,
        )

    # Journal

    def log(self, action: str, case_id: str | None = None, **facts: Any) -> None:
        """Add a line to the journal, which is never changed afterwards.

        Args:
            action: What was done, in a word or two.
            case_id: The case it concerns, if one.
            facts: Anything that JSON can hold; never anything about the patient.
        """
        with self._database.write() as transaction:
            if case_id is not None:
                self._need(transaction, "cases", case_id)
            transaction.log(action, case_id, facts)

    def history(self, case_id: str | None = None) -> list[JournalEntry]:
        """The journal, oldest first: all of it, or what concerns one case."""
        where, parameters = ("", ()) if case_id is None else ("WHERE case_id = ?", (case_id,))
        rows = self._database.rows(
            f"SELECT number, at, action, case_id, facts, program, pid, host FROM journal {where} ORDER BY number",
            parameters,
        )
        return [JournalEntry(*row[:4], json.loads(row[4]), *row[5:]) for row in rows]

    # What the parts of a project share

    def _free_id(self, transaction: Transaction, table: str, prefix: str) -> str:
        """The next id of which there is neither a row nor a folder; inside a transaction."""
        (number,) = transaction.row(f"SELECT COALESCE(MAX(number), 0) + 1 FROM {table}")
        while (self.folder / table / f"{prefix}_{number:04d}").exists():
            number += 1
        return f"{prefix}_{number:04d}"

    def _need(self, transaction: Transaction, table: str, row_id: str) -> None:
        if not transaction.row(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,)):
            raise _unknown(table, row_id)


def _unknown(table: str, row_id: str) -> ProjectError:
    return ProjectError(f"The project has no {table.removesuffix('s')} '{row_id}'.", f"Choose one of its {table}.")
