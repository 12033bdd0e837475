# SPDX-License-Identifier: Apache-2.0
"""The main job, by the very functions that the command line and Slicer call: train, predict, correct, train again."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from barl.demo.sources import DemoCase, DemoData
from barl.demo.steps import Steps
from barl.errors import ProjectError, storage_error
from barl.jobs.choice import choose_model
from barl.jobs.evaluate import Judged, evaluate_model
from barl.jobs.predict import predict_cases
from barl.jobs.train_job import TrainingOptions, prepare_run, run_training
from barl.progress import Event
from barl.project.labels import Channel
from barl.project.model_card import read_card
from barl.project.next_case import Ranked, rank_cases
from barl.project.records import Revision
from barl.project.states import RevisionKind
from barl.project.store import Project
from barl.report.findings import Findings, Measured, gather, view_of
from barl.training.plan import Plan

# How many of the cases ranked first get the expert's outline.
CORRECTIONS = 2
# Steps of ``run_demo``, the choice of the data before it and the report after it left out.
STEPS = 8
_MARK = ".barl-demo"


@dataclass(frozen=True)
class Training:
    """One training as the report tells it.

    Attributes:
        title: In words.
        plan: What was planned.
        events: All that it told.
        summary: Of the model's row: iterations, seconds, metrics, data.
    """

    title: str
    plan: Plan
    events: list[dict[str, Any]]
    summary: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """All that happened.

    Attributes:
        data: The cases.
        trainings: The first and the second.
        before, after: What ``evaluate_model`` says of both models.
        judged: The held-out cases as the second model predicted them.
        ranking: The untouched cases as ranked by the first model, the most uncertain first.
        corrected: Those that got the expert's outline.
        doubted: The prediction of the first of them, before its correction.
        findings: What the report of any project says of this one.
        seconds: Step -> time.
        machine: Where it ran.
        versions: Library -> version.
    """

    data: DemoData
    trainings: list[Training]
    before: dict[str, Any]
    after: dict[str, Any]
    judged: list[Judged]
    ranking: list[Ranked]
    corrected: list[DemoCase]
    doubted: Revision
    findings: Findings
    seconds: dict[str, float]
    machine: str
    versions: dict[str, str]


def run_demo(data: DemoData, folder: Path, steps: Steps, iterations: int | None = None) -> Outcome:
    """Do the main job in a new project.

    Args:
        data: The cases.
        folder: The project's; an older demo project there is replaced.
        steps: Where progress is shown.
        iterations: Length of each training, by default what the data need. (Half of it for the second lost what a high
            learning rate took from the first model: 0.843 -> 0.838 of Dice on the hippocampus; 300 of 400: 0.862.)

    Raises:
        ProjectError: The folder holds something that is no demo project.
        BarlError: As the jobs raise it.
    """
    iterations = iterations or data.iterations
    n = data.counts
    make_room(folder)
    with steps.step(f"Make a project of {n.total} cases: {n.outlined} outlined, {n.held_out} held out"):
        _make_project(data, folder, steps)
    with Project.open(folder) as project:
        title = f"Train on {n.outlined} outlined and {n.untouched} untouched cases"
        with steps.step(title):
            first = _train(project, TrainingOptions(iterations=iterations, effort="quick"), title, steps)
        with steps.step(f"Evaluate on the {n.held_out} held-out cases"):
            before = evaluate_model(project, progress=steps.progress)
        with steps.step("Predict every case with its uncertainty"):
            predict_cases(project, progress=steps.progress)
        with steps.step(f"Rank the untouched cases by uncertainty, correct the first {CORRECTIONS}"):
            ranking = rank_cases(project.cases.all(), diversity=0.0)
            doubted = next(
                revision
                for revision in reversed(project.revisions.of(ranking[0].case.id))
                if revision.kind is RevisionKind.PREDICTION
            )
            _, model_id = choose_model(project)
            known = {case.name: case for case in data.untouched}
            corrected = [known[ranked.case.name] for ranked in ranking[:CORRECTIONS]]
            for case in corrected:
                project.revisions.store(
                    project.cases.get(case.name).id,
                    case.label,
                    RevisionKind.ACCEPTED,
                    author="expert (label of the data set)",
                    model_id=model_id,
                )
        title = f"Train on, now with {n.outlined + len(corrected)} outlined cases"
        with steps.step(title):
            options = TrainingOptions(iterations=iterations, effort="quick", promote=True)
            second = _train(project, options, title, steps)
        with steps.step("Evaluate on the same held-out cases"):
            judged: list[Judged] = []
            after = evaluate_model(project, progress=steps.progress, look=judged.append)
        with steps.step("Predict the rest again"):
            predict_cases(project, progress=steps.progress)
        versions = read_card(choose_model(project)[0]).versions
        views = {item.case.id: view_of(item) for item in judged}
        findings = gather(project, Measured(after, before, views))
    return Outcome(
        data,
        [first, second],
        before,
        after,
        judged,
        ranking,
        corrected,
        doubted,
        findings,
        dict(steps.seconds),
        _machine(),
        versions,
    )


def make_room(folder: Path) -> None:
    """Remove an older demo project, and nothing else.

    Raises:
        ProjectError: The folder holds something that is no demo project.
        StorageError: It cannot be removed or made.
    """
    try:
        if folder.exists():
            if any(folder.iterdir()) and not (folder / _MARK).exists():
                raise ProjectError(
                    f"{folder} holds something that the demo did not make.", "Choose another folder with --output."
                )
            # The mark goes last: killed before, the rest is still known to be the demo's.
            for path in sorted(folder.iterdir(), key=lambda path: path.name == _MARK):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).write_text("Made by the demo; the next demo replaces this folder.\n", encoding="utf-8")
    except OSError as error:
        raise storage_error(error, folder) from error


def _make_project(data: DemoData, folder: Path, steps: Steps) -> None:
    with Project.create(folder, f"Demo: {data.title}", data.labels, [Channel(data.channel)]) as project:
        # One after the other, as a user's list of files would be, so that no name or number tells the parts.
        parts = [(case, part) for part in ("outlined", "untouched", "held_out") for case in getattr(data, part)]
        for number, (case, part) in enumerate(sorted(parts, key=lambda entry: entry[0].name), start=1):
            label = None if part == "untouched" else case.label
            project.cases.add(case.name, [case.image], label=label, held_out=part == "held_out")
            steps.progress.stage("importing").at(number / len(parts), case.name)


def _train(project: Project, options: TrainingOptions, title: str, steps: Steps) -> Training:
    run = prepare_run(project, options, steps.progress)
    events: list[dict[str, Any]] = []

    def told(event: Event) -> None:
        events.append(dict(event))
        steps.show(event)

    done = run_training(project.folder, run.id, on_event=told)
    plan = Plan.from_json({key: value for key, value in run.plan.items() if key != "run"})
    assert done.model_id is not None  # nobody stops it
    return Training(title, plan, events, project.models.get(done.model_id).summary)


def _machine() -> str:
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = torch.get_num_threads()
    return (
        f"{platform.system()} {platform.machine()}, {name}, {os.cpu_count()} cores, "
        f"{threads} thread{'s' * (threads > 1)}, {device}, Python {platform.python_version()}"
    )
