# SPDX-License-Identifier: Apache-2.0
"""Files and states through which the training process and its observers communicate.

The project's database says which process trains. ``runs/<run>/`` holds, beside what the training itself writes:
    events.jsonl   what happened, one JSON object a line, appended
    stop           exists once a stop has been requested: save a checkpoint and end
    finish         exists once a finish has been requested: end with a model now
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from barl.errors import InputError, ProjectError, storage_error
from barl.json_text import dumps
from barl.project.records import RunRow
from barl.project.states import RunState
from barl.project.store import Project

# About how many bytes of events one answer has, and how many are read at once.
_MOST_BYTES = 1 << 20


def claim(project: Project, run_id: str) -> None:
    """Enter this process as the one that trains the run.

    Raises:
        ProjectError: Another process trains it, or it is finished.
    """
    from filelock import FileLock, Timeout  # not in Slicer's own Python; the worker does what it can without

    folder = project.runs.get(run_id).folder
    try:
        with FileLock(folder / "claim.lock", timeout=10):  # for the look and the entry, not for the training
            run = project.runs.get(run_id)
            if run.is_running:
                raise ProjectError(
                    f"{run_id} is being trained already, by process {run.pid} on {run.host}.",
                    "Attach to it, or stop it first.",
                )
            if run.is_finished:
                raise ProjectError(f"{run_id} is finished.", "Start a new training; it begins with the current model.")
            RunFolder(folder).clear_stop()  # not "finish": a paused run is finished by training it on with that wish
            project.runs.update(run_id, RunState.RUNNING)
    except Timeout:
        raise ProjectError(f"Another program is just starting {run_id}.", "Attach to it.") from None
    except OSError as error:
        raise storage_error(error, folder) from error


def choose_run(project: Project, run_id: str | None = None) -> RunRow:
    """The run named, or else the newest.

    Raises:
        InputError: There is no run at all.
        ProjectError: There is none of that name.
    """
    if run_id:
        return project.runs.get(run_id)
    runs = project.runs.all()
    if not runs:
        raise InputError("The project has no training run.", "Start one with a training.")
    return runs[-1]


def process_age() -> float:
    """Seconds since this process began: starting Python and PyTorch takes some, more on a busy machine."""
    import psutil

    return max(time.time() - psutil.Process().create_time(), 0.0)


class RunFolder:
    """The files through which a run is watched and steered.

    Args:
        folder: ``runs/<run>`` of a project; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.events_path = self.folder / "events.jsonl"
        self._stop_path = self.folder / "stop"
        self._finish_path = self.folder / "finish"

    def ask_to_stop(self) -> None:
        """Have the training write a checkpoint and end; it looks once every iteration."""
        _touch(self._stop_path)

    def ask_to_finish(self) -> None:
        """Have the training end now as if its budget were used up, with a model; it looks after every iteration."""
        _touch(self._finish_path)

    def stop_asked(self) -> bool:
        return self._stop_path.exists()

    def finish_asked(self) -> bool:
        return self._finish_path.exists()

    def clear_stop(self) -> None:
        self._stop_path.unlink(missing_ok=True)

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one event; whole lines in one write, so that a reader never sees the start of one without its end."""
        line = dumps(event).encode() + b"\n"
        descriptor = os.open(
            self.events_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644
        )
        try:
            os.write(descriptor, line)
        except OSError as error:
            raise storage_error(error, self.events_path) from error
        finally:
            os.close(descriptor)

    def silence_s(self) -> float:
        """Time since the last event or, without any, since the start (s)."""
        path = self.events_path if self.events_path.exists() else self.folder
        return time.time() - path.stat().st_mtime

    def events(self, offset: int = 0) -> tuple[list[dict], int]:
        """The events from byte ``offset`` on and the offset for the next call.

        Of a long log the reports of progress are thinned out evenly to about a megabyte; the newest of them, scores of
        held-out cases and all other events stay. A line cut short by a killed process is skipped; a last line still
        without its newline is left for later.
        """
        try:
            with self.events_path.open("rb") as file:
                left = os.fstat(file.fileno()).st_size - offset
                file.seek(offset)
                lines, length = _chosen_lines(file, left)
        except FileNotFoundError:
            return [], offset
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    found.append(event)
        return found, offset + length


def _chosen_lines(file: BinaryIO, left: int) -> tuple[list[bytes], int]:
    """The lines of the next ``left`` bytes but for surplus reports of progress, and how many bytes whole lines take."""
    every, count, length = max(1, left // _MOST_BYTES), 0, 0
    chosen: list[bytes] = []
    rest, skipped = b"", b""
    while left > 0 and (block := file.read(min(left, _MOST_BYTES))):
        left -= len(block)
        *lines, rest = (rest + block).split(b"\n")
        length += sum(map(len, lines)) + len(lines)
        for line in lines:
            if every > 1 and b'"progress"' in line and b'"dice ' not in line:
                count += 1
                if count % every:
                    skipped = line
                    continue
            elif skipped:
                chosen.append(skipped)  # the newest before what follows
            skipped = b""
            chosen.append(line)
    return chosen + [skipped] * bool(skipped), length


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        raise storage_error(error, path) from error
