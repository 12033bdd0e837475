# SPDX-License-Identifier: Apache-2.0
"""The state of training runs for the panel: progress, reasons against a start, when the next one is due."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Words import durationText, readOnlyReason, stageText, timeLeftText

if TYPE_CHECKING:
    from barl.project.records import Case, ModelRow, RunRow
    from barl.project.store import Project
    from barl.worker.messages import RunEvents

# The message of a run that the user has cancelled (``barl.worker.detached.cancel``).
CANCELLED = "Cancelled."
# In a run's folder (``barl.training.checkpoint.NAME``); with folds, in one of each.
_CHECKPOINTS = ("checkpoint.safetensors", "fold-*/checkpoint.safetensors")
# Where each stage of a run begins on the bar, and how much of it it takes.
SHARES = {"planning": (0.0, 0.02), "preparing": (0.02, 0.08), "training": (0.1, 0.85), "validating": (0.95, 0.05)}
# A training sends an event every second; a validation or one step on a slow machine may take a while.
SILENCE_S = 300.0
# Where the second column of a plan in words begins.
_PLAN_COLUMN = 15


class WatchedRun:
    """One run, followed by the worker's answers to ``barl.worker.messages.Attach``.

    Attributes:
        id: The run.
        state: The run's ``barl.project.states.RunState``.
        offset: Where the next ``attach`` begins.
        stage: The current one.
        fraction: How much of the run is done (0 to 1); it never goes back.
        etaSeconds: Time left of the training proper; None if not known.
        iteration: The last one it told.
        message: Why it ended as it did.
        modelId: The model that came out.
        notes: What it logged.
        verdict: What it said of its model in the end, if anything.
    """

    def __init__(self, run: RunRow) -> None:
        self.id = run.id
        self.state = run.state
        self.offset = 0
        self.stage, self.fraction, self.etaSeconds = "", 0.0, None
        self.iteration = 0
        self.message, self.modelId = run.message, run.model_id
        self.notes: list[str] = []
        self.verdict = self._latest = ""
        self._folder = Path(run.folder)
        self._remedy = ""
        self._heardAt = time.monotonic()

    @property
    def alive(self) -> bool:
        """Its process may still send events."""
        from barl.project.states import RunState

        return self.state is RunState.RUNNING

    @property
    def told(self) -> list[str]:
        """What it said last while it goes on, and of its model once there is one."""
        if self.alive:
            return self.notes[-1:]
        return [self.verdict] if self.verdict and self.modelId else []

    @property
    def paused(self) -> bool:
        """It can go on."""
        return self.state.can_go_on

    def afterResume(self) -> str:
        """Where the training goes on from."""
        if any(any(self._folder.glob(pattern)) for pattern in _CHECKPOINTS):
            return _("Resume goes on from its last checkpoint.")
        return _("It had stored no checkpoint yet: Resume begins anew.")

    def take(self, answer: RunEvents) -> bool:
        """Take an answer to ``Attach``; true if the run's state has changed."""
        from barl.project.states import RunState

        changed = answer.state != self.state
        self.state, self.message, self.modelId = RunState(answer.state), answer.message, answer.model
        self.offset = answer.offset
        for event in answer.events:
            self._heardAt = time.monotonic()
            if event.event == "progress":
                self.stage, self.etaSeconds = event.stage, event.eta_s
                start, share = SHARES.get(event.stage, (0.0, 0.0))
                self.fraction = max(self.fraction, start + share * (event.fraction or 0.0))
                self.iteration = (event.values or {}).get("iteration", self.iteration)
            elif event.event == "log":
                self.notes.append(event.message or "")
            elif event.event == "result" and self._latest == "log":
                self.verdict = self.notes[-1]
            self._latest = event.event
        return changed

    def inWords(self) -> str:
        """One line: state or stage, iteration, time left; for a run that failed, why."""
        from barl.project.states import RunState

        if self.state is RunState.QUEUED:
            return _("{run} waits to be started.").format(run=self.id)
        if self.state is RunState.RUNNING:
            parts = [stageText(self.stage)]
            if self.stage == "training":
                parts.append(_("iteration {number}").format(number=self.iteration))
            if self.etaSeconds is not None:
                parts.append(timeLeftText(self.etaSeconds))
            silence = time.monotonic() - self._heardAt
            if silence > SILENCE_S:
                parts.append(_("no update for {time}").format(time=durationText(silence)))
            return ", ".join(parts)
        if self.state is RunState.FINISHED:
            return _("{run} is finished: {model}.").format(run=self.id, model=self.modelId or _("no model"))
        if self.state is RunState.INTERRUPTED:
            return _(
                "{run} was interrupted: its process was ended, memory or disk was full, or the computer restarted. "
                "{then}"
            ).format(run=self.id, then=self.afterResume())
        if self.state is RunState.FAILED:
            return _("{run} failed. {why}").format(run=self.id, why=self.message)
        where = _(" at iteration {number}").format(number=self.iteration) if self.iteration else ""
        if self.message == CANCELLED:
            return _("{run} was cancelled{where}. {then}").format(run=self.id, where=where, then=self.afterResume())
        return _("{run} is paused{where}. Resume it when you like.").format(run=self.id, where=where)


def planText(words: str) -> str:
    """The worker's plan, columns of a terminal, as lines of running text."""
    lines = [(line[:_PLAN_COLUMN].strip(), line[_PLAN_COLUMN:]) for line in words.splitlines()]
    return "\n".join(f"{name.capitalize()}: {text}" for name, text in lines)


def reasonAgainstStart(
    project: Project | None, cases: Sequence[Case], runs: Sequence[RunRow], elsewhere: bool = False
) -> str:
    """Why no training can be started, as a sentence; empty if one can. ``elsewhere``: another computer trains."""
    from barl.torch_support import reason_against

    if project is None:
        return _("Open a project first.")
    if reason := readOnlyReason(project) or ("" if elsewhere else reason_against()):
        return reason
    busy = next((run for run in runs if run.is_running), None)
    if busy is not None:
        return _("{run} is training already: pause, stop or cancel it first.").format(run=busy.id)
    return nothingToLearn(cases)


def nothingToLearn(cases: Sequence[Case]) -> str:
    """What to do if no case has an outline to learn from; empty if one has."""
    teaches = any(case.teaches for case in cases)
    return "" if teaches else _("Outline and accept at least one case that is not held out.")


def foldsText(cases: Sequence[Case], folds: int) -> str:
    """What a training with folds says about the new model; empty without folds."""
    count = len({case.group or case.id for case in cases if case.teaches})
    if folds < 2:
        return ""
    if count < folds:
        return _("{folds} folds need as many outlined subjects that are not held out; there are {count}.").format(
            folds=folds, count=count
        )
    return _("Each outlined case is judged by a member of the model that has not learned from it.")


def heldOutText(cases: Sequence[Case]) -> str:
    """What the number of held-out cases allows to say about a model; empty if it is enough for a test."""
    count = sum(case.evaluates for case in cases)
    if not count:
        return _("No outlined case is held out: the quality of the new model will not be measured.")
    if count < 6:
        number = _("Only one outlined case is") if count == 1 else _("Only {count} outlined cases are")
        return number.format(count=count) + _(" held out: enough for a rough figure, too few for a statistical test.")
    return ""


def acceptedSince(project: Project) -> int:
    """How many cases have an accepted outline, not held out, that the newest run does not learn from."""
    from barl.project.states import RevisionKind

    runs = project.runs.all()
    known = {case["id"]: case["revision"] for case in runs[-1].plan["run"]["cases"]} if runs else {}
    outlined = [case for case in project.cases.all() if case.teaches]
    return sum(
        known.get(case.id) != project.revisions.newest(case.id, (RevisionKind.ACCEPTED,)).id for case in outlined
    )


def undecidedModel(project: Project) -> ModelRow | None:
    """The model of the newest finished run, if it is not decided yet whether it becomes the current one."""
    finished = [run for run in project.runs.all() if run.is_finished and run.model_id]
    if not finished:
        return None
    model = project.models.get(finished[-1].model_id)
    if model.is_current:
        return None
    decisions = [entry for entry in project.journal.entries() if entry.action in ("model promoted", "model kept out")]
    return None if any(entry.facts.get("model") == model.id for entry in decisions) else model


def keepCurrent(project: Project, model: ModelRow) -> None:
    """Enter in the journal that ``model`` was looked at and does not become the current one."""
    current = project.models.current()
    project.journal.log("model kept out", model=model.id, current=current.id if current else None)
