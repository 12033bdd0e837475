# SPDX-License-Identifier: Apache-2.0
"""``barl train``: start, watch, stop, cancel and resume a training."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from barl.cli import cluster_commands, computer_commands
from barl.cli.terminal import Terminal, minute, table
from barl.errors import Cancelled, InputError
from barl.project.states import RunState
from barl.project.store import Project

if TYPE_CHECKING:
    from barl.jobs.runs import RunFolder
    from barl.jobs.train_job import TrainingOptions

_LOOK_S = 0.5
_EXIT_CODES = {
    RunState.FINISHED: 0,
    RunState.RUNNING: 0,
    RunState.QUEUED: 0,
    RunState.STOPPED: Cancelled.exit_code,
    RunState.FAILED: 1,
    RunState.INTERRUPTED: 1,
}


def train(options: Namespace, terminal: Terminal) -> int:
    if options.then_predict and (options.detach or options.computer):
        raise InputError(
            "--then-predict needs a training that this terminal watches, on this computer.",
            'Leave away --detach or --computer, or predict afterwards with "barl predict PROJECT".',
        )
    if options.cluster and (options.detach or options.computer):
        raise InputError("--cluster waits for its job.", "Leave --detach and --computer away.")
    cluster_commands.check_options(options)
    _refuse_unused(options)
    if options.runs:
        return _list_runs(options, terminal)
    if options.attach is not None:
        return _watch(options, options.attach or None, terminal)
    if options.stop is not None or options.cancel is not None:
        return _end(options, terminal)
    if options.resume is not None:
        return _resume(options, terminal)
    if options.computer and not options.plan:
        run_id = computer_commands.start_training(options, terminal, _training_options(options))
        if not options.detach:
            return _watch(options, run_id, terminal)
        text = f'{run_id} trains on {options.computer}; see "barl train {_typed(options)} --attach".'
        terminal.answer({"run": run_id, "state": RunState.RUNNING}, text)
        return 0
    from barl.jobs.train_job import prepare_run, prepare_training

    with Project.open(options.project, read_only=options.plan) as project:
        if options.plan:
            prepared = prepare_training(project, _training_options(options), terminal.progress)
            document = {"plan": prepared.plan.to_json(), "parent": prepared.parent, "notes": prepared.notes}
            terminal.answer(document, "\n".join([prepared.plan.in_words(), *prepared.notes]))
            return 0
        run = prepare_run(project, _training_options(options), terminal.progress)
        return _go(project, run.id, options, terminal)


def _refuse_unused(options: Namespace) -> None:
    """Refuse options of a new training where none is begun: they would do nothing.

    Raises:
        InputError: With the first of them.
    """
    about = next(
        (word for word in ("resume", "attach", "stop", "cancel") if getattr(options, word) is not None), "runs"
    )
    if about == "runs" and not options.runs:
        return
    new = ("minutes", "effort", "iterations", "method", "folds", "seed", "set", "from_scratch", "promote", "computer")
    given = next((name for name in new if getattr(options, name)), "")
    if not given and options.device != "auto":
        given = "device"
    if given or options.gpus != 1:
        option = (given or "gpus").replace("_", "-")
        raise InputError(
            f"--{option} is for a new training: a run keeps what it began with.", f"Leave it away with --{about}."
        )


def _go(project: Project, run_id: str, options: Namespace, terminal: Terminal) -> int:
    """Train a run here, in the background, in several processes, or as a job of a cluster."""
    if options.cluster:
        cluster_commands.train(options, terminal, run_id)
        return _finish(project, run_id, options, terminal)
    gpus = project.runs.get(run_id).plan["run"]["options"].get("gpus", 1)
    if gpus > 1 and not options.detach:
        from barl.worker import detached

        detached.start(project, run_id)
        return _watch(options, run_id, terminal)
    if options.detach:
        from barl.worker import detached

        run = detached.start(project, run_id)
        terminal.answer(
            {"run": run.id, "state": run.state, "pid": run.pid, "folder": run.folder},
            f'{run.id} trains in the background; see "barl train {_typed(options)} --attach".',
        )
        return 0
    from barl.jobs.runs import RunFolder, process_age
    from barl.jobs.train_job import run_training

    with _interrupt_stops(RunFolder(project.runs.get(run_id).folder), terminal):
        run = run_training(project.folder, run_id, on_event=terminal.show, spent=process_age())
    return _finish(project, run.id, options, terminal)


def _finish(project: Project, run_id: str, options: Namespace, terminal: Terminal) -> int:
    run = project.runs.get(run_id)
    document: dict[str, Any] = {"run": run.id, "state": run.state, "model": run.model_id, "message": run.message}
    text = f"{run.id} is {run.state}. {run.message}".strip()
    if run.model_id:
        model = project.models.get(run.model_id)
        document["summary"] = model.summary
        document["current"] = model.is_current
        text = f"{run.id} is finished: {model.id}" + (", now the current model." if model.is_current else ".")
        dice = model.summary.get("metrics", {}).get("mean_dice")
        judged = "out of fold" if "out_of_fold" in model.summary else "on the held-out cases"
        text += f"\nMean Dice {judged}: {dice:.3f}" if dice is not None else ""
        if not model.is_current:
            text += f'\nMake it the current model with "barl models promote {_typed(options)} {model.id}".'
        elif options.then_predict:
            document["predicted"], words = _predict_untouched(project, options, terminal)
            text += f"\n{words}"
    elif run.state.has_ended:
        text += f'\nGo on with "barl train {_typed(options)} --resume {run.id}".'
    terminal.answer(document, text)
    return _EXIT_CODES[run.state]


def _typed(options: Namespace) -> str:
    """The project's folder as a word of a command."""
    return shlex.quote(str(options.project))


def _predict_untouched(project: Project, options: Namespace, terminal: Terminal) -> tuple[dict[str, Any], str]:
    """Predict the cases that wait for a prediction; the answer and a sentence."""
    from barl.jobs.compute import Compute
    from barl.jobs.predict import predict_cases

    if not any(case.wants_prediction for case in project.cases.all()):
        return {"cases": [], "failed": [], "compared": []}, "No case waits for a prediction."
    result = predict_cases(project, compute=Compute(options.device), progress=terminal.progress)
    lines = [f"Predicted: {len(result['cases'])} of {len(result['cases']) + len(result['failed'])} cases."]
    lines += [f"Left out {case['name']}: {case['message']} {case['remedy']}" for case in result["failed"]]
    return result, "\n".join(lines)


@contextlib.contextmanager
def _interrupt_stops(folder: RunFolder, terminal: Terminal) -> Iterator[None]:
    """The first Ctrl-C makes the training save a checkpoint and end, the second one ends it at once."""

    def asked(number: int, frame: FrameType | None) -> None:
        folder.ask_to_stop()
        terminal.note("Saving a checkpoint, then stopping. Press Ctrl-C again to stop at once.")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = signal.signal(signal.SIGINT, asked)
    except ValueError:  # not in the main thread: then Ctrl-C does not come here either
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _watch(options: Namespace, run_id: str | None, terminal: Terminal) -> int:
    """Show a run's events until it ends; Ctrl-C stops the watching, not the training."""
    from barl.remote.near import NearHandlers
    from barl.worker.messages import Attach

    offset, told = 0, False
    handlers = NearHandlers()
    try:
        while True:
            seen = handlers.attach(terminal, Attach(str(options.project), run_id, offset))
            run_id, offset = seen["run"], seen["offset"]
            if seen["state"] == RunState.QUEUED and not told:
                told = True
                start = f'"barl train {_typed(options)} --resume {run_id}"'
                terminal.note(
                    f"{run_id} waits, nothing trains it yet. If no job of a cluster shall, start it: {start}."
                )
            for event in seen["events"]:
                terminal.show(event)
            if not seen["events"] and RunState(seen["state"]).has_ended:
                with Project.open(options.project, read_only=not options.then_predict) as project:
                    return _finish(project, seen["run"], options, terminal)
            if not seen["events"]:
                time.sleep(_LOOK_S)
    finally:
        handlers.close()


def _end(options: Namespace, terminal: Terminal) -> int:
    from barl.remote.near import NearHandlers
    from barl.worker.messages import CancelTraining, StopTraining

    handlers, folder = NearHandlers(), str(options.project)
    try:
        if options.cancel is not None:
            run = handlers.cancel_training(terminal, CancelTraining(folder, options.cancel or None))
            text = f"{run.run} has ended."
        else:
            run = handlers.stop_training(terminal, StopTraining(folder, options.stop or None))
            text = f"{run.run} will save a checkpoint and end."
    finally:
        handlers.close()
    terminal.answer({"run": run.run, "state": run.state}, text)
    return 0


def _resume(options: Namespace, terminal: Terminal) -> int:
    from barl.remote.near import Elsewhere, NearHandlers
    from barl.worker import detached
    from barl.worker.messages import ResumeTraining

    with Project.open(options.project) as project:
        run = detached.resume(project, options.resume or None)
        if Elsewhere.of(run) is None:
            return _go(project, run.id, options, terminal)
    handlers = NearHandlers()
    try:
        handlers.resume_training(terminal, ResumeTraining(str(options.project), run.id))
    finally:
        handlers.close()
    return _watch(options, run.id, terminal)


def _list_runs(options: Namespace, terminal: Terminal) -> int:
    with Project.open(options.project, read_only=True) as project:
        runs = project.runs.all()
    rows = [[run.id, run.state, run.started, run.ended, run.model_id, run.message] for run in runs]
    heads = ["id", "state", "started", "ended", "model", "message"]
    document = [dict(zip(heads, row, strict=True)) for row in rows]
    rows = [[*row[:2], minute(row[2]), minute(row[3]), *row[4:]] for row in rows]
    terminal.answer({"runs": document}, table(rows, heads) if rows else "No run yet.")
    return 0


def _training_options(options: Namespace) -> TrainingOptions:
    from barl.jobs.train_job import TrainingOptions

    return TrainingOptions(
        minutes=options.minutes,
        iterations=options.iterations,
        method=options.method,
        seed=options.seed,
        device=options.device,
        warm_start=not options.from_scratch,
        promote=options.promote,
        folds=options.folds,
        effort=options.effort,
        gpus=options.gpus,
        overrides=dict(_override(text) for text in options.set),
    )


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"'{text}' is not a value of the plan.", "Write it as KEY=VALUE, such as patch=[32,48,48].")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
