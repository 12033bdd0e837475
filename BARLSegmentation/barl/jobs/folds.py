# SPDX-License-Identifier: Apache-2.0
"""Cross-validation: K trainings, of which each leaves out one part of the outlined cases; all together are the model.

Each outlined case is judged by the one member that has not learned from it (out of fold). These results choose the
cleanup and stand in the model's card; the mean of all members predicts other scans. Cases of one subject lie in one
fold; the cases held out in the project take part in no training. Every member starts from scratch: a model that it
started from would have seen the cases that the member is judged by.

A run with folds holds, beside what every run does, ``fold-<n>/`` for each training (n from 1) with its checkpoint,
plan, model and ``fold.json`` once it is done. A budget in minutes is shared out anew before each fold.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from barl import methods
from barl.errors import InputError, storage_error
from barl.evaluation.cleanup_choice import OutlinedPieces
from barl.evaluation.intervals import choose_intervals
from barl.models.disk import join_members, load_model, save_model
from barl.progress import Event, Progress, Stage
from barl.project.files import write_atomically
from barl.project.model_card import ModelCard
from barl.project.records import Case
from barl.training.cases import CaseFiles, cache_cases
from barl.training.checkpoint import NAME as CHECKPOINT
from barl.training.loop import TrainResult, model_name, train
from barl.training.plan import Plan
from barl.training.validation import choose_calibration, choose_cleanup

MOST_FOLDS = 20
# Of a fold's part of the bar that its steps take; preparing comes before, validating after them.
_STEPS_SHARE = 0.95


def check_folds(folds: Any, outlined: Sequence[Case]) -> None:
    """Refuse a number of folds that these cases cannot be shared out to.

    Raises:
        InputError: It is no whole number from 2 to 20, or larger than the number of outlined subjects.
    """
    if not isinstance(folds, int) or isinstance(folds, bool) or not 2 <= folds <= MOST_FOLDS:
        raise InputError(f"A training with {folds} folds is not possible.", f"Give a number from 2 to {MOST_FOLDS}.")
    subjects = len({_subject(case) for case in outlined})
    if subjects < folds:
        raise InputError(
            f"{folds} folds need {folds} outlined subjects that are not held out; the project has {subjects}.",
            f"Give --folds {subjects}, or outline more cases." if subjects > 1 else "Outline more cases.",
        )


def assign_folds(outlined: Sequence[Case], folds: int) -> dict[str, int]:
    """Case id -> fold (from 0): subjects in the order of their first case, one fold after the other."""
    subjects = dict.fromkeys(_subject(case) for case in outlined)
    place = {subject: n % folds for n, subject in enumerate(subjects)}
    return {case.id: place[_subject(case)] for case in outlined}


def folds_in_words(folds: int, plan: Plan) -> str:
    """What a training with folds does, as two sentences."""
    length = f"share the budget of {plan.budget}" if plan.minutes else f"take {plan.iterations} iterations each"
    return (
        f"{folds} trainings, each without one part of the outlined cases, {length}. "
        "They start from scratch, so that each case is judged by a model that has never seen it."
    )


@dataclass
class FoldRun:
    """The K trainings of a run.

    Args:
        plan: Of the run; its budget is that of all folds.
        cases: Outlined and untouched cases, none held out.
        fold_of: Case id -> fold of the outlined ones.
        folder: Of the run.
        device: See ``choose_device``.
        held_out: Number of cases held out in the project.
        send: Gets every event.
        should_stop: See ``train``.
        should_finish: See ``train``; the folds that are left are then not trained.
        spent: Seconds of the budget that are used up already.
    """

    plan: Plan
    cases: Sequence[CaseFiles]
    fold_of: Mapping[str, int]
    folder: Path
    device: str
    held_out: int
    send: Callable[[Event], None]
    should_stop: Callable[[], bool]
    should_finish: Callable[[], bool]
    spent: float = 0.0

    def __post_init__(self) -> None:
        self.count = max(self.fold_of.values()) + 1
        self.done: list[dict[str, Any]] = []
        self._began = time.monotonic()

    def train(self) -> TrainResult:
        """Train the folds that are not done yet and join them.

        Returns:
            ``metrics`` and ``cases`` are out of fold; each of ``cases`` has the ``member`` that judged it.

        Raises:
            BarlError: As ``train``.
        """
        cache_cases(self.cases, self.plan, self.folder / "cache", Progress(self.send))  # else fold 1 alone would pay
        for fold in range(self.count):
            known = self._read(fold)
            if known is None:
                if fold and self.should_finish():
                    Progress(self.send).log(f"Finished early, after {fold} of {self.count} folds.")
                    break
                result = self._train(fold)
                if result.stopped:
                    return replace(result, iterations=self._iterations + result.iterations)
                known = self._write(fold, result)
            self.done.append(known)
        return self._join()

    def _train(self, fold: int) -> TrainResult:
        folder = self._folder(fold)
        resume = (folder / CHECKPOINT).exists()
        Progress(self.send).log(f"Fold {fold + 1} of {self.count}{' goes on' if resume else ''}.")
        files = [replace(case, held_out=self.fold_of.get(case.id) == fold) for case in self.cases]
        return train(
            self._plan(fold),
            files,
            folder,
            device=self.device,
            resume=resume,
            cache=self.folder / "cache",
            progress=Progress(self._telling(fold)),
            should_stop=self.should_stop,
            should_finish=self.should_finish,
        )

    def _plan(self, fold: int) -> Plan:
        """The plan of a fold that begins now: random numbers of its own and its share of what is left of the budget."""
        plan = replace(self.plan, seed=self.plan.seed + fold)
        if plan.minutes is None:
            return plan
        used = self.spent + sum(known["wall"] for known in self.done if not known.get("here")) + self._here
        left = max(plan.minutes * 60 - used, 1.0)
        return replace(plan, minutes=left / (self.count - fold) / 60)

    @property
    def _here(self) -> float:
        return time.monotonic() - self._began

    @property
    def _iterations(self) -> int:
        return sum(known["iterations"] for known in self.done)

    def _telling(self, fold: int) -> Callable[[Event], None]:
        """Passes events on as parts of the one stage *training* of the whole run."""
        before, began = self._iterations, time.monotonic()
        parts = {Stage.PREPARING: (0.0, 0.0), Stage.TRAINING: (0.0, _STEPS_SHARE)}

        def tell(event: Event) -> None:
            if event.get("event") == "progress":
                start, share = parts.get(event["stage"], (_STEPS_SHARE, 1 - _STEPS_SHARE))
                fraction = (fold + start + share * event["fraction"]) / self.count
                event = {**event, "stage": Stage.TRAINING, "fraction": fraction}
                event["message"] = f"fold {fold + 1} of {self.count}"
                if "eta_s" in event:
                    own = time.monotonic() - began + event["eta_s"]
                    event["eta_s"] = round(event["eta_s"] + (self.count - fold - 1) * own, 1)
                if values := event.get("values"):
                    shown = {name: value for name, value in values.items() if not isinstance(value, dict | list)}
                    if "iteration" in shown:
                        shown["iteration"] += before
                    event["values"] = shown
            self.send(event)

        return tell

    def _folder(self, fold: int) -> Path:
        return self.folder / f"fold-{fold + 1}"

    def _read(self, fold: int) -> dict[str, Any] | None:
        """What a fold that is done has left; None if it is not done."""
        try:
            return json.loads((self._folder(fold) / "fold.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def _write(self, fold: int, result: TrainResult) -> dict[str, Any]:
        earlier = sum(known["wall"] for known in self.done if known.get("here"))
        facts = {
            "iterations": result.iterations,
            "seconds": result.seconds,
            "wall": max(self._here - earlier, result.seconds),
            "metrics": result.metrics,
            "cases": [{**row, "member": fold} for row in result.cases],
            "pieces": {str(value): asdict(shown) for value, shown in result.pieces.items()},
        }
        text = json.dumps(facts)  # NaN and infinities come back, too
        path = self._folder(fold) / "fold.json"
        try:
            write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise storage_error(error, self.folder) from error
        return {**json.loads(text), "here": True}

    def _join(self) -> TrainResult:
        loaded = [load_model(self._folder(fold) / "model") for fold in range(len(self.done))]
        rows = [row for known in self.done for row in known["cases"]]
        pieces = {int(value): OutlinedPieces(**shown) for value, shown in self.done[0]["pieces"].items()}
        metrics = _metrics(self.done, rows)
        card = self._card([card for card, _ in loaded], metrics)
        card = replace(
            card,
            cleanup=choose_cleanup(rows, pieces),
            expected_dice=choose_calibration(rows),
            volume_intervals=choose_intervals(rows),
        )
        save_model(self.folder / "model", card, join_members([network.state_dict() for _, network in loaded]))
        Progress(self.send).stage(Stage.VALIDATING).at(1.0, values=metrics)
        seconds = sum(known["seconds"] for known in self.done)
        return TrainResult(self.folder / "model", self._iterations, seconds, metrics, False, self.plan, rows, pieces)

    def _card(self, cards: Sequence[ModelCard], metrics: dict[str, Any]) -> ModelCard:
        first = cards[0]
        counts = {
            "labelled": sum(case.label is not None for case in self.cases),
            "unlabelled": sum(case.label is None for case in self.cases),
            "held_out": self.held_out,
        }
        if any(card.data.get("partial") for card in cards):
            counts["partial"] = sum(case.looked is not None for case in self.cases)
        return replace(
            first,
            id=uuid.uuid4().hex[:12],
            name=model_name(methods.get(first.method).title, counts["labelled"])
            + (f", {len(cards)} folds" if len(cards) > 1 else ""),
            members=len(cards),
            data={**first.data, **counts},
            settings={**first.settings, "folds": len(cards)},
            metrics=metrics,
            temperature=float(np.exp(np.mean(np.log([card.temperature for card in cards])))),
        )


def _metrics(done: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of all folds as those of one validation; undefined ones are nan."""
    values = rows[0]["dice"].keys()
    dice = {value: _mean([row["dice"][value] for row in rows]) for value in values}
    errors = {
        name: _mean([known["metrics"].get(name) for known in done])
        for name in ("calibration_error", "calibrated_error")
    }
    return {"dice": dice, "mean_dice": _mean(list(dice.values())), **errors, "out_of_fold": len(rows)}


def _mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _subject(case: Case) -> str:
    return case.group or case.id
