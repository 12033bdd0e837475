# SPDX-License-Identifier: Apache-2.0
"""The training runs of a project: their plans, states and processes."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import Any

from barl.errors import InputError
from barl.project.database import Database, now, unknown
from barl.project.files import inside, staging_folder, write_atomically
from barl.project.processes import ProcessId
from barl.project.records import RunRow
from barl.project.states import RunState


class Runs:
    """The runs of the project that ``database`` holds; each is a folder in ``runs``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._folder = database.folder / "runs"

    def new(self, plan: dict[str, Any]) -> RunRow:
        """Enter a training run as queued; its folder holds ``plan.json``.

        Raises:
            ProjectError: Another program is changing the project.
            StorageError: The disk is full or read-only.
        """
        self._database.must_be_writable()
        with staging_folder(self._folder) as staging:
            write_atomically(staging / "plan.json", lambda path: path.write_text(json.dumps(plan, indent=2)))
            with self._database.write() as transaction:
                run_id = transaction.free_id("runs", "run")
                transaction.settle(staging, self._folder / run_id, "runs", run_id)
                transaction.execute(
                    "INSERT INTO runs (id, created, plan, state) VALUES (?, ?, ?, ?)",
                    (run_id, now(), json.dumps(plan), RunState.QUEUED),
                )
                transaction.log("run queued", facts={"run": run_id})
        return self.get(run_id)

    def all(self) -> list[RunRow]:
        """All runs, oldest first; a running one whose process died on this machine is shown as interrupted."""
        return [self._as_run(row) for row in self._database.rows("SELECT * FROM runs ORDER BY number")]

    def get(self, run_id: str) -> RunRow:
        """One run.

        Raises:
            ProjectError: There is none with this id.
        """
        row = self._database.row("SELECT * FROM runs WHERE id = ?", (run_id,))
        if not row:
            raise unknown("runs", run_id)
        return self._as_run(row)

    def update(
        self,
        run_id: str,
        state: RunState | str,
        *,
        process: ProcessId | None = None,
        model_id: str | None = None,
        message: str = "",
    ) -> RunRow:
        """Change the state of a run.

        Args:
            run_id: The run.
            state: Its new state.
            process: The process that trains, for a running one (None: this process).
            model_id: The model that came out.
            message: One sentence for the user, such as why it failed.

        Raises:
            InputError: ``state`` is unknown.
            ProjectError: The run or model is unknown, or another program is changing the project.
        """
        if state not in list(RunState):
            raise InputError(f"A run has no state {state!r}.", f"Use one of: {', '.join(RunState)}.")
        state = RunState(state)
        with self._database.write() as transaction:
            transaction.must_exist("runs", run_id)
            if model_id is not None:
                transaction.must_exist("models", model_id)
            if state is RunState.RUNNING:
                process = process or ProcessId.of(os.getpid())
                transaction.execute(
                    "UPDATE runs SET pid = ?, host = ?, process_start = ?, started = COALESCE(started, ?), "
                    "ended = NULL WHERE id = ?",
                    (process.pid, process.host, process.started, now(), run_id),
                )
            transaction.execute(
                "UPDATE runs SET state = ?, model_id = COALESCE(?, model_id), message = ?, "
                "ended = CASE WHEN ? THEN ? ELSE ended END WHERE id = ?",
                (state, model_id, message, state.has_ended, now(), run_id),
            )
            transaction.log(f"run {state}", facts={"run": run_id, "model": model_id, "message": message})
        return self.get(run_id)

    def _as_run(self, row: sqlite3.Row) -> RunRow:
        with self._database.decoding():
            state = RunState(row["state"])
            if state is RunState.RUNNING:
                process = ProcessId(row["pid"], row["host"], row["process_start"])
                if process.is_here() and not process.is_alive():
                    state = RunState.INTERRUPTED
            return RunRow(
                row["id"],
                state,
                row["created"],
                inside(self._folder, row["id"]),
                json.loads(row["plan"]),
                row["pid"],
                row["host"],
                row["started"],
                row["ended"],
                row["model_id"],
                row["message"],
            )
