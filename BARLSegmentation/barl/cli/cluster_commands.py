# SPDX-License-Identifier: Apache-2.0
"""What ``barl train`` and ``barl predict`` do as jobs of a cluster."""

from __future__ import annotations

import argparse
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from barl.cli.terminal import Terminal
from barl.errors import InputError
from barl.jobs.cluster import CLUSTERS, Ended, run_jobs
from barl.project.states import RevisionKind, RunState
from barl.project.store import Project


def cluster_options(parser: argparse.ArgumentParser) -> None:
    """Let a command run as jobs of a cluster."""
    parser.add_argument("--cluster", choices=CLUSTERS, help="send it to a cluster as a job (slurm; local: to try it)")
    parser.add_argument(
        "--cluster-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of Slurm's sbatch, such as partition=gpu, time=600 (minutes), mem=32G, gpus-per-node=1",
    )


def check_options(options: Namespace) -> None:
    """Refuse what says how jobs are sent where none is, before anything is begun.

    Raises:
        InputError: With the option.
    """
    _settings(options)
    if getattr(options, "jobs", 1) != 1 and not options.cluster:
        raise InputError("--jobs divides the cases among jobs of a cluster.", "Add --cluster, or leave it away.")
    if getattr(options, "jobs", 1) < 1:
        raise InputError(f"{options.jobs} jobs are not possible.", "Give --jobs 1 or more.")


def train(options: Namespace, terminal: Terminal, run_id: str) -> None:
    """Train a run as a job and wait; a job that is killed is sent again and goes on from its checkpoint."""
    from barl.worker.detached import run_command

    with Project.open(options.project, read_only=True) as project:
        run = project.runs.get(run_id)
        command = run_command(project, run)
    gpus = run.plan["run"]["options"].get("gpus", 1)
    settings = ({"gpus-per-node": str(gpus)} if gpus > 1 and run.plan["run"]["options"]["device"] != "cpu" else {}) | (
        _settings(options)
    )

    def killed(_number: int) -> None:
        terminal.note(f"The job of {run_id} was killed; it is sent again.")
        with Project.open(options.project) as project:
            if project.runs.get(run_id).state in (RunState.RUNNING, RunState.INTERRUPTED):
                project.runs.update(run_id, RunState.STOPPED, message="Its job was killed.")

    def sent(_number: int, job: str) -> None:
        terminal.note(f"{run_id} is the job {job} of {options.cluster}.")

    run_jobs([lambda: command], options.cluster, settings, variables=_this_package(), on_sent=sent, on_killed=killed)


def predict(options: Namespace, terminal: Terminal, wanted: list[str]) -> int:
    """Predict cases of a project in ``--jobs`` jobs; what a killed job has done is not done again.

    Args:
        wanted: Ids of cases; empty: all without an accepted outline.
    """
    from barl.jobs.choice import choose_cases, choose_model

    folder = Path(options.inputs[0]).absolute()
    with Project.open(folder, read_only=True) as project:
        model = choose_model(project, options.model)[1]
        chosen = [case.id for case in choose_cases(project, wanted or None, model)]
    before = _newest(folder, chosen)
    count = min(max(options.jobs, 1), len(chosen))
    words = ["--device", options.device, "--json", *(["--model", options.model] if options.model else [])]
    words += ["--fast"] * options.fast + ["--no-cleanup"] * options.no_cleanup
    words += ["--roi", *map(str, options.roi)] if options.roi else []

    def share(number: int) -> Callable[[], list[str]]:
        def command() -> list[str]:
            mine = chosen[number::count]
            now = _newest(folder, mine)
            left = [case for case in mine if now[case] == before[case]]
            return [sys.executable, "-m", "barl.cli", "predict", str(folder), *left, *words] if left else []

        return command

    def sent(number: int, job: str) -> None:
        terminal.note(f"Part {number + 1} of {count} is the job {job} of {options.cluster}.")

    def killed(number: int) -> None:
        terminal.note(f"The job of part {number + 1} was killed; what is left of it is sent again.")

    shares = [share(number) for number in range(count)]
    settings, variables = _settings(options), _this_package()
    ended = run_jobs(shares, options.cluster, settings, variables=variables, on_sent=sent, on_killed=killed)
    now = _newest(folder, chosen)
    predicted = [case for case in chosen if now[case] != before[case]]
    failed = [case for outcome in ended for case in _document(outcome).get("failed", [])]
    text = [f"Predicted {len(predicted)} of {len(chosen)} cases in {count} jobs."]
    text += [f"Left out {case['name']}: {case['message']} {case['remedy']}" for case in failed]
    text += [outcome.complaints.strip() for outcome in ended if outcome.code and not _document(outcome)]
    terminal.answer({"cases": predicted, "failed": failed, "jobs": count}, "\n".join(text))
    return next((outcome.code for outcome in ended if outcome.code), 0)


def _newest(folder: Path, cases: Sequence[str]) -> dict[str, str | None]:
    """Id of a case -> id of its newest prediction."""
    with Project.open(folder, read_only=True) as project:
        found = {case: project.revisions.newest(case, [RevisionKind.PREDICTION]) for case in cases}
    return {case: revision.id if revision else None for case, revision in found.items()}


def _document(outcome: Ended) -> dict[str, Any]:
    """The JSON document that a command has printed; empty if it has printed none."""
    try:
        document = json.loads(outcome.output or "{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) and "cases" in document else {}


def _this_package() -> dict[str, str]:
    """What a job's environment needs to find this very package, and nothing of the current folder."""
    from barl.worker.client import worker_environment

    whole = worker_environment()
    return {name: whole[name] for name in worker_environment({}) if name in whole}


def _settings(options: Namespace) -> dict[str, str]:
    if options.cluster_set and options.cluster != "slurm":
        raise InputError("--cluster-set is for --cluster slurm.", "Leave it out.")
    settings = {}
    for text in options.cluster_set:
        name, _equals, value = text.partition("=")
        if not (name and value):
            raise InputError(f"'{text}' is no setting of a job.", "Write it as KEY=VALUE, such as time=600.")
        settings[name] = value
    return settings
