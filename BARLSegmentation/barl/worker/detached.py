# SPDX-License-Identifier: Apache-2.0
"""Starts trainings in processes of their own, and lets any later process find, stop and end them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from typing import Any

from barl.errors import ProjectError
from barl.jobs.runs import RunFolder, choose_run
from barl.json_text import plain
from barl.project.processes import ProcessId
from barl.project.records import RunRow
from barl.project.states import RunState
from barl.project.store import Project
from barl.worker.client import worker_environment
from barl.worker.process_tree import end_process_tree
from barl.worker.run_process import SAID

# Importing torch from a cold disk takes its time.
_START_S = 120.0
# A training sends an update every second; another machine without any for so long (s) is taken for gone.
GONE_S = 1800.0
# Starts the training and leaves, so that it is nobody's child: ending the worker's process tree must not reach it.
_LAUNCH = """
import json, subprocess, sys
command, log, options = json.loads(sys.argv[1])
with open(log, "ab") as output:
    print(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options).pid)
"""


def run_command(project: Project, run: RunRow) -> list[str]:
    """The program and arguments that train a run, in several processes if its options say so."""
    gpus = run.plan.get("run", {}).get("options", {}).get("gpus", 1)
    torchrun = ["-m", "torch.distributed.run", *("--" + word for word in ("standalone", f"nproc-per-node={gpus}"))]
    several = torchrun if gpus > 1 else []
    return [sys.executable, *several, "-m", "barl.worker.run_process", str(project.folder), run.id]


def start(project: Project, run_id: str) -> RunRow:
    """Train a queued, stopped or interrupted run in a process that goes on when this one ends.

    Returns:
        The run once its process trains.

    Raises:
        ProjectError: It is being trained already, or its process ended at once.
    """
    run = project.runs.get(run_id)
    if run.is_running or run.is_finished:
        raise ProjectError(f"{run_id} is {run.state} already.", "Attach to it, or start a new training.")
    options: dict[str, Any] = {"start_new_session": True}
    if (
        sys.platform == "win32"
    ):  # a console of its own, unseen: without one, each process that loads cases would open a window
        options = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    command = run_command(project, run)
    log = run.folder / "output.log"
    before = log.stat().st_size if log.exists() else 0
    launched = subprocess.run(
        [sys.executable, "-c", _LAUNCH, json.dumps([command, str(log), options])],
        env=worker_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if launched.returncode != 0:
        raise ProjectError("The training process could not be started.", "Check the Python that runs the worker.")
    process = ProcessId.of(int(launched.stdout))
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        now = project.runs.get(run_id)
        if now.state != run.state or now.pid != run.pid:
            if now.state is RunState.FAILED:
                raise ProjectError(now.message)
            return now
        if not process.is_alive():
            break
        time.sleep(0.05)
    with contextlib.suppress(OSError), log.open("rb") as output:
        output.seek(before)
        said = [line for line in output.read().decode(errors="replace").splitlines() if line.startswith(SAID)]
        if said:
            raise ProjectError(f"{run_id} was not started: {said[-1].removeprefix(SAID)}", "It can be resumed.")
    raise ProjectError(f"The training process of {run_id} ended at once.", f"See the end of {log}.")


def attach(project: Project, run_id: str | None = None, offset: int = 0) -> dict[str, Any]:
    """What has happened in a run since ``offset`` (a number from an earlier answer; 0 for all).

    Returns:
        ``run``, ``state`` (interrupted: its process died), ``message``, ``model`` (once there is one), ``events`` and
        the next ``offset``.
    """
    run = choose_run(project, run_id)  # before the events: whoever sees the end has seen all events, or asks once more
    events, offset = RunFolder(run.folder).events(offset)
    return {
        "run": run.id,
        "state": run.state,
        "message": run.message,
        "model": run.model_id,
        "events": [plain(event) for event in events],
        "offset": offset,
    }


def stop(project: Project, run_id: str | None = None) -> RunRow:
    """Ask a run to write a checkpoint and end; it does so after the step it is at."""
    run = _running(project, run_id)
    RunFolder(run.folder).ask_to_stop()
    return run


def finish(project: Project, run_id: str | None = None) -> RunRow:
    """Have a run end as if its budget were used up, with a model of what it has learned so far.

    A paused or interrupted one is started for that.

    Raises:
        ProjectError: It is finished, or its process ended at once.
    """
    run = choose_run(project, run_id)
    if run.is_finished:
        raise ProjectError(f"{run.id} is finished already.", "Start a new training; it begins with the current model.")
    RunFolder(run.folder).ask_to_finish()
    return run if run.is_running else start(project, run.id)


def cancel(project: Project, run_id: str | None = None) -> RunRow:
    """End a run and all its processes within 2 s; its last checkpoint stays and it can be resumed from there.

    Raises:
        ProjectError: It does not run, or runs on another machine that has sent an update in the last half hour.
    """
    run = _running(project, run_id)
    assert run.pid is not None  # it runs
    process = ProcessId.of(run.pid)
    if run.host != process.host:
        if RunFolder(run.folder).silence_s() > GONE_S:
            message = f"Marked as stopped: no update from {run.host} for half an hour."
            return project.runs.update(run.id, RunState.STOPPED, message=message)
        raise ProjectError(
            f"{run.id} is being trained on {run.host}, which cannot be reached from here.",
            "Cancel it on that machine, or have it stop by itself, which works from here as well. If that machine is "
            "gone, cancel half an hour after its last update.",
        )
    end_process_tree(run.pid)
    if project.runs.get(run.id).state in (RunState.RUNNING, RunState.INTERRUPTED):
        project.runs.update(run.id, RunState.STOPPED, message="Cancelled.")
    return project.runs.get(run.id)


def _running(project: Project, run_id: str | None) -> RunRow:
    """The run named, or else the newest that is being trained."""
    if run_id is None:
        training = [run for run in project.runs.all() if run.is_running]
        run = training[-1] if training else choose_run(project)
    else:
        run = project.runs.get(run_id)
    if not run.is_running:
        raise ProjectError(f"{run.id} is not being trained: it is {run.state}.", "Nothing needs to be stopped.")
    return run


def resume(project: Project, run_id: str | None = None) -> RunRow:
    """The run to go on with: the one named, or the newest that is not finished.

    Raises:
        ProjectError: There is none, or it runs or is finished.
    """
    if run_id is None:
        waiting = [run for run in project.runs.all() if run.state.can_go_on]
        run = waiting[-1] if waiting else choose_run(project)
    else:
        run = project.runs.get(run_id)
    if run.is_running or run.is_finished:
        raise ProjectError(f"{run.id} is {run.state}: there is nothing to resume.", "Start a new training.")
    return run
