# SPDX-License-Identifier: Apache-2.0
"""Training in a project: chooses cases and the initial model, trains, and stores the new model."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from barl import methods
from barl.errors import BarlError, Cancelled, InputError
from barl.inference.device import choose_device, half_precision_trouble
from barl.jobs.failures import explain
from barl.jobs.fingerprints import measure_cases
from barl.jobs.folds import FoldRun, assign_folds, check_folds, folds_in_words
from barl.jobs.heartbeat import Heartbeat
from barl.jobs.plan_notes import partial_outlines, poor_labels, short_budget, small_parts
from barl.jobs.runs import RunFolder, claim
from barl.jobs.unseen import learned_revisions
from barl.json_text import plain
from barl.networks.branches import NetworkSpec
from barl.progress import SILENT, Event, Progress
from barl.project.model_card import read_card
from barl.project.records import Case, ModelRow, RunRow
from barl.project.states import RunState
from barl.project.store import Project
from barl.training.budgets import budgets_of
from barl.training.checkpoint import NAME as CHECKPOINT
from barl.training.distributed import check_processes
from barl.training.loop import CaseFiles, TrainResult, train
from barl.training.plan import Plan, check_overrides, make_plan

# Reading, resampling and writing a scan for training takes 1.3 times (MR of 35 x 51 x 35) to 1.7 times (CT of
# 256 x 256 x 108) as long as looking at it for the plan.
_PREPARING = 1.7
# A plan reads at most so many untouched scans: spacing and intensities repeat.
_SCANS_FOR_PLAN = 40
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a training that the user may set.

    Attributes:
        minutes, iterations: Budget; the plan chooses if neither is given.
        method: A name of ``methods.available()``; ``barl`` by default.
        seed: Start of all random numbers.
        device: As for ``choose_device``.
        warm_start: Start from the current model, if there is one and it fits.
        promote: Make the new model the current one even if there is one already.
        folds: Train so many members, each without one part of the outlined cases; None for one training.
        effort: One of ``barl.training.budgets.EFFORTS``; None: what makes most of ``minutes``.
        gpus: Graphics cards that share each step; on the CPU so many processes.
        overrides: Values of the plan to replace, by name.
    """

    minutes: float | None = None
    iterations: int | None = None
    method: str | None = None
    seed: int | None = None
    device: str = "auto"
    warm_start: bool = True
    promote: bool = False
    folds: int | None = None
    effort: str | None = None
    gpus: int = 1
    overrides: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingOptions:
        """Read options as they come from a request.

        Raises:
            InputError: An option is unknown or has an impossible value.
        """
        unknown = set(values) - {entry.name for entry in dataclasses.fields(cls)}
        if unknown:
            known = ", ".join(entry.name for entry in dataclasses.fields(cls))
            raise InputError(f"Training has no option '{sorted(unknown)[0]}'.", f"It has: {known}.")
        return cls(**values)

    def plan_overrides(self) -> dict[str, Any]:
        """The values of the plan that these options decide."""
        for name in ("minutes", "iterations"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 < value < 1e9):
                raise InputError(f"A training of {value} {name} is not possible.", "Give a number above 0.")
        chosen = {name: getattr(self, name) for name in ("minutes", "iterations", "method", "seed")}
        values = {name: value for name, value in chosen.items() if value is not None} | self.overrides
        check_overrides(values)
        return values


@dataclass(frozen=True)
class PreparedTraining:
    """A planned training: plan, cases, the model it starts from, and notes for the user."""

    plan: Plan
    cases: list[dict[str, Any]]
    parent: str | None
    notes: list[str]


def prepare_training(project: Project, options: TrainingOptions, progress: Progress = SILENT) -> PreparedTraining:
    """Choose cases and plan without starting anything.

    Outlined cases (state accepted) are learned from; the scans of untouched ones (new, predicted, in review) are used
    by the method without outlines; excluded ones not at all; held-out ones are never trained on, and measure the model
    unless the one that it starts from has learned from them.

    Raises:
        InputError: No outlined case, all outlines empty, or a scan that cannot be read.
    """
    outlined, untouched, held_out = _sort(project.cases.all())
    notes = []
    if not outlined:
        raise InputError(
            "No case has an accepted outline to learn from.",
            "Outline at least one scan that is not held out, and accept it; three or four are a good start.",
        )
    notes += partial_outlines(outlined)
    if options.folds is not None:
        check_folds(options.folds, outlined)
    if len(outlined) == 1:
        notes.append(
            "Only one case is outlined: the model will know only what that one shows. Outline two or three more."
        )
    if not held_out and options.folds is None:
        notes.append("No outlined case is held out: the model's quality will not be measured. Hold out one or two.")
    if not untouched:
        notes.append("There is no untouched scan: training learns from the outlines alone.")
    began = time.monotonic()
    looked_at = [*outlined, *untouched[:: max(1, -(-len(untouched) // _SCANS_FOR_PLAN))]]
    measured = measure_cases(project, looked_at, progress)
    fingerprints = [one.fingerprint for one in measured]
    planning, reading = time.monotonic() - began, sum(one.seconds for one in measured)
    voxels = {
        value: sum(print_.labels[value].voxels for print_ in fingerprints if print_.labels) for value in project.values
    }
    if not any(voxels.values()):
        raise InputError(
            "The outlines of all cases are empty.", "Outline the structure in at least one scan and accept it again."
        )
    for label in project.labels:
        if not voxels[label.value]:
            notes.append(f"No case has an outline of {label.name}: the model cannot learn it.")
    device = choose_device(options.device)
    notes += [half_precision_trouble()] if device.type == "cuda" and half_precision_trouble() else []
    if options.gpus != 1:
        check_processes(options.gpus, device)
        if options.folds is not None:
            raise InputError("Folds train one after the other, each on one card.", "Leave --gpus or --folds away.")
    own = options.plan_overrides()
    if any(case.is_partial for case in outlined) and own.get("filled") != "hard":
        methods.get(own.get("method", "barl")).must_take_partial()
    parent = project.models.current() if options.warm_start and options.folds is None else None
    inherited = _from_parent(parent, own, notes) if parent else None
    channels = [channel.name for channel in project.channels]
    plan = make_plan(
        fingerprints, project.labels, channels, device.type, _memory_bytes(device), {**(inherited or {}), **own},
        options.effort,
    )  # fmt: skip
    if parent and inherited:
        notes += _other_network(options.effort, plan, device.type, parent)
    plan = plan.for_cards(options.gpus, own)
    if parent and inherited and "spacing" not in own:
        plan = dataclasses.replace(plan, reasons={**plan.reasons, "spacing": f"as in {parent.id}"})
    if parent and inherited is None:
        parent = None
    elif parent and NetworkSpec.from_json(read_card(parent.folder).network) != plan.network:
        notes.append(f"Training starts from scratch: {plan.method} needs another network than {parent.id} has.")
        parent = None
    learned = learned_revisions(project, parent.id if parent else None)
    if parent and (known := [case for case in held_out if case.id in learned]):
        held_out = [case for case in held_out if case.id not in learned]
        notes.append(_not_judged_by(len(known), parent.id))
    n_cases = len(outlined) + len(held_out) + len(untouched)
    notes += short_budget(plan, planning + _PREPARING * reading / len(measured) * n_cases)
    notes += small_parts(project, [*outlined, *held_out], plan)
    if options.folds is not None:
        notes.append(folds_in_words(options.folds, plan))
    fold_of = assign_folds(outlined, options.folds) if options.folds is not None else {}
    cases = [
        {"id": case.id, "revision": revision, "held_out": case.held_out}
        | ({"fold": fold_of[case.id]} if case.id in fold_of else {})
        | ({"new": True} if parent and group is outlined and learned.get(case.id) != revision else {})
        for group, labelled in ((outlined, True), (untouched, False), (held_out, True))
        for case in group
        for revision in [project.revisions.accepted(case.id).id if labelled else None]
    ]
    return PreparedTraining(plan, cases, parent.id if parent else None, notes)


def prepare_run(project: Project, options: TrainingOptions, progress: Progress = SILENT) -> RunRow:
    """Enter a training as a queued run; its plan and its very revisions are fixed from here on.

    Raises:
        InputError: As ``prepare_training``.
        BarlError: The project cannot be written.
    """
    began = time.monotonic()
    prepared = prepare_training(project, options, progress)
    facts: dict[str, Any] = {"cases": prepared.cases, "parent": prepared.parent, "notes": prepared.notes}
    facts["planning_s"] = round(time.monotonic() - began, 1)
    return project.runs.new({**prepared.plan.to_json(), "run": {**facts, "options": dataclasses.asdict(options)}})


def run_training(
    project_folder: Path, run_id: str, *, on_event: OnEvent = lambda event: None, spent: float = 0.0
) -> RunRow:
    """Train a queued, stopped or interrupted run in this process until it ends.

    Every event of ``train`` goes to ``runs/<run>/events.jsonl`` and to ``on_event``. The new model becomes current
    if there is none yet or the options ask for it. A training without an event for a second repeats its last report,
    extrapolated by the time passed.

    Args:
        project_folder: The project's folder.
        run_id: The run.
        on_event: Gets every event, from more than one thread but one after the other.
        spent: Seconds of a budget that this process has used up before, such as by starting.

    Returns:
        The run as it ended: finished or stopped.

    Raises:
        BarlError: Why it failed; the run then is ``failed`` with this message.
    """
    with Project.open(project_folder) as project:
        run = project.runs.get(run_id)
        folder = RunFolder(run.folder)

        def record(event: Event) -> None:
            folder.append(event)
            on_event(event)

        others = [other.id for other in project.runs.all() if other.is_running and other.id != run_id]
        claim(project, run_id)
        heart = Heartbeat(record)
        tell = heart.send
        try:
            if others:
                tell({"event": "log", "message": _beside(others)})
            with heart:
                result = _train(project, run, folder, tell, spent)
            model_id = _keep(project, run, result, result.model_folder) if result.model_folder else None
            judged = "out of fold" if run.plan["run"]["options"].get("folds") else "on the held-out cases"
            for sentence in poor_labels(result.plan.labels, result.metrics, judged):
                tell({"event": "log", "message": sentence})
            state = RunState.STOPPED if result.stopped else RunState.FINISHED
            if not result.stopped:
                for part in (run.folder / "cache", *run.folder.glob("fold-*")):  # only of use to this run
                    shutil.rmtree(part, ignore_errors=True)
            done = project.runs.update(run_id, state, model_id=model_id)
        except BaseException as error:
            cause = explain(error, project.folder)
            state = RunState.STOPPED if isinstance(cause, Cancelled) else RunState.FAILED
            project.runs.update(run_id, state, message=str(cause))
            tell({"event": "error", "class": cause.kind, "message": cause.message, "remedy": cause.remedy})
            raise cause from error
        tell({"event": "result", "value": {"state": state, "model": model_id, "metrics": plain(result.metrics)}})
        return done


def share_training(project_folder: Path, run_id: str) -> None:
    """Compute this process's share of a run that the first process of ``torchrun`` trains; write nothing."""
    with Project.open(project_folder, read_only=True) as project:
        run = project.runs.get(run_id)
        _train(project, run, RunFolder(run.folder), lambda event: None, 0.0)


def _not_judged_by(count: int, parent: str) -> str:
    """A note for the user about held-out cases that the model that training starts from has learned from."""
    cases = "1 held-out case does" if count == 1 else f"{count} held-out cases do"
    them = "it" if count == 1 else "them"
    return (
        f"{cases} not measure the model: {parent}, which it starts from, has learned from {them}. Train from scratch "
        f"(--from-scratch) to be measured on {them}."
    )


def _beside(others: list[str]) -> str:
    """A note for the user if other runs of the project are training."""
    names = ", ".join(others)
    return f"{names} of this project is being trained as well: both become slower, and neither learns from the other."


def _train(project: Project, run: RunRow, folder: RunFolder, tell: OnEvent, spent: float) -> TrainResult:
    plan = Plan.from_json({key: value for key, value in run.plan.items() if key != "run"})
    facts = run.plan["run"]
    for note in facts["notes"]:
        tell({"event": "log", "message": note})
    if facts["options"].get("folds") is not None:
        return _train_folds(project, run, plan, folder, tell, spent)
    resume = (run.folder / CHECKPOINT).exists()  # killed before the first one: from the start, which is as exact
    return train(
        plan,
        [_case_files(project, case) for case in facts["cases"]],
        run.folder,
        device=facts["options"]["device"],
        warm_start=project.models.get(facts["parent"]).folder if facts["parent"] else None,
        resume=resume,
        progress=Progress(tell),
        should_stop=folder.stop_asked,
        should_finish=folder.finish_asked,
        spent=spent if resume else spent + facts.get("planning_s", 0.0),
    )


def _train_folds(
    project: Project, run: RunRow, plan: Plan, folder: RunFolder, tell: OnEvent, spent: float
) -> TrainResult:
    facts = run.plan["run"]
    cases = [case for case in facts["cases"] if not case["held_out"]]
    return FoldRun(
        plan,
        [_case_files(project, case) for case in cases],
        {case["id"]: case["fold"] for case in cases if "fold" in case},
        run.folder,
        device=facts["options"]["device"],
        held_out=len(facts["cases"]) - len(cases),
        send=tell,
        should_stop=folder.stop_asked,
        should_finish=folder.finish_asked,
        spent=spent + facts.get("planning_s", 0.0),
    ).train()


def _case_files(project: Project, case: Mapping[str, Any]) -> CaseFiles:
    """The files of a case as it was when the run was prepared: revisions never change, so a resumed run is the same."""
    label = looked = uncertainty = None
    if case["revision"] is not None:
        revision = next(r for r in project.revisions.of(case["id"]) if r.id == case["revision"])
        project.revisions.check(revision)
        label = revision.path
        if revision.looked:
            looked, uncertainty = project.folder / revision.looked, revision.uncertainty_path
    images = project.cases.sound_images(case["id"])
    return CaseFiles(case["id"], images, label, case["held_out"], looked, uncertainty, case.get("new", False))


def _keep(project: Project, run: RunRow, result: TrainResult, model_folder: Path) -> str:
    """Put the trained model into the project, once, however often the end of this run is reached."""
    for model in project.models.all(removed=True):
        if model.summary.get("run") == run.id:
            return model.id
    card = read_card(model_folder)
    options = run.plan["run"]["options"]
    summary = {
        "run": run.id,
        "method": card.method,
        "data": card.counts,
        "metrics": card.metrics,
        "iterations": result.iterations,
        "seconds": round(result.seconds, 1),
    }
    if card.settings.get("folds"):
        summary["out_of_fold"] = {
            row["case"]: {"member": row["member"], "dice": plain(row["dice"])} for row in result.cases
        }
    model = project.models.add(model_folder, summary, name=card.name, parent=run.plan["run"]["parent"])
    if project.models.current() is None or options["promote"]:
        project.models.promote(model.id)
    return model.id


def _sort(cases: list[Case]) -> tuple[list[Case], list[Case], list[Case]]:
    """Outlined, untouched and outlined held-out cases."""
    outlined = [case for case in cases if case.teaches]
    untouched = [case for case in cases if case.awaits_outline and not case.held_out]
    return outlined, untouched, [case for case in cases if case.evaluates]


def _from_parent(parent: ModelRow, own: Mapping[str, Any], notes: list[str]) -> dict[str, Any] | None:
    """The values of a plan that let training start from the weights of ``parent``; None if it cannot be used.

    A few new cases would shift the median spacing a little, and with it the shape of the network.
    """
    try:
        card = read_card(parent.folder)
    except BarlError as error:
        notes.append(f"Training starts from scratch: {error.message}")
        return None
    if card.program:
        notes.append(f"Training starts from scratch: {parent.id} is a network of {card.program}.")
        return None
    network = NetworkSpec.from_json(card.network)
    kept = {
        "spacing": card.spacing,
        "patch": card.patch,
        "widths": network.widths,
        "strides": network.strides,  # planned before the patch was rounded: the rounded one might be halved more often
        "kernels": network.kernels,
        "blocks": network.blocks,
        "normalisations": tuple(card.normalisations),
    }
    changed = [name for name, value in kept.items() if name in own and list(own[name]) != list(value)]
    if changed:
        notes.append(f"Training starts from scratch: {changed[0]} is not that of {parent.id}.")
        return None
    return kept


def _other_network(effort: str | None, plan: Plan, device: str, parent: ModelRow) -> list[str]:
    """A sentence if the user asks for an effort whose network is another one than that of the model trained on."""
    if effort is None or budgets_of(device)[effort].widths == plan.network.widths:
        return []
    return [
        f"The network stays that of {parent.id}. From scratch (--from-scratch) the {effort} plan trains one of widths "
        f"{', '.join(map(str, budgets_of(device)[effort].widths))}."
    ]


def _memory_bytes(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory
