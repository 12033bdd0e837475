# SPDX-License-Identifier: Apache-2.0
"""The training loop: it resumes bit for bit, stops at any step, and shrinks batch and patch when memory runs out."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch

from barl import __version__, methods
from barl.errors import InputError, NotFiniteError, is_out_of_memory, storage_error
from barl.evaluation.cleanup_choice import OutlinedPieces
from barl.evaluation.intervals import choose_intervals
from barl.images.cleanup import CleanupRule
from barl.inference.device import autocast_dtype, choose_device
from barl.inference.threads import ThreadChoice
from barl.methods.teacher import Teacher
from barl.models.disk import load_model, save_model
from barl.networks.branches import BranchPair, Network, build_network
from barl.progress import SILENT, Progress, Stage
from barl.project.files import write_atomically
from barl.project.model_card import ModelCard
from barl.training.cases import CachedCase, CaseFiles, cache_cases
from barl.training.checkpoint import NAME as CHECKPOINT
from barl.training.checkpoint import load_checkpoint, save_checkpoint
from barl.training.distributed import JoinedNetwork, World, sum_gradients
from barl.training.patches import Patches, loader
from barl.training.plan import Plan, plan_difference, smaller_plan
from barl.training.schedule import LEAST_STEPS, Clock, Schedule
from barl.training.validation import (
    Validation,
    ValidationTimes,
    choose_calibration,
    choose_cleanup,
    outlined_pieces,
    validate,
)

CLIP_NORM = 5.0
REPORT_SECONDS = 1.0
CHECKPOINT_SECONDS = 60.0
# Steps in a row whose loss or gradient is not finite that are left out, before a training counts as diverged.
PATIENCE = 3
# Times that a diverged training goes on with half the learning rate.
RESCUES = 3
# Batches to come for a run whose length is a budget of time.
_ENDLESS = 10**12


@dataclass
class TrainResult:
    """How a run ended.

    Attributes:
        model_folder: The model, or ``None`` if the run was stopped before its end.
        iterations: Steps done.
        seconds: Time of the training steps, all sittings together.
        metrics: Held-out scores (see ``Validation.to_json``), empty without held-out cases.
        cases: The same per held-out case (``Validation.cases``).
        pieces: What all outlines show of the labels' pieces.
        stopped: Whether it was stopped early; it can be resumed.
        plan: The plan as carried out (smaller if memory ran out).
    """

    model_folder: Path | None
    iterations: int
    seconds: float
    metrics: dict[str, Any]
    stopped: bool
    plan: Plan
    cases: list[dict[str, Any]] = field(default_factory=list)
    pieces: dict[int, OutlinedPieces] = field(default_factory=dict)


def train(
    plan: Plan,
    cases: Sequence[CaseFiles],
    folder: Path,
    *,
    device: str = "auto",
    warm_start: Path | None = None,
    resume: bool = False,
    cache: Path | None = None,
    progress: Progress = SILENT,
    should_stop: Callable[[], bool] = lambda: False,
    should_finish: Callable[[], bool] = lambda: False,
    spent: float = 0.0,
    now: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train a model.

    Args:
        plan: What to do.
        cases: Outlined, untouched and held-out cases.
        folder: The run's folder: gets ``plan.json``, the checkpoint, and finally ``model/``.
        device: See ``choose_device``.
        warm_start: Folder of a model to start from.
        resume: Go on from the checkpoint in ``folder``; the plan there wins over ``plan``.
        cache: Where prepared cases are kept, ``folder/cache`` by default.
        progress: Gets the stages preparing, training and validating, and logs.
        should_stop: Asked at every step; true ends the run after a checkpoint.
        should_finish: Asked after every step; true ends the run there as if its budget were used up.
        spent: Seconds of a budget in minutes that are used up already, such as by planning.
        now: Clock of the budget, in seconds; ``time.process_time`` where other jobs share the processor.

    Raises:
        InputError: No outlined case, or a case that cannot be used.
        ModelError: The warm start or the checkpoint cannot be used, or the training diverges even with a lower rate.
        DeviceError: No such device, or too little memory for the smallest patch.
        StorageError: The disk is full or read-only.
    """
    clock = Clock(spent, now)
    target = choose_device(device)
    world = World.join(target)
    if target.type == "cuda" and world.size > 1:
        target = torch.device("cuda", world.local_rank)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    if resume and (folder / "plan.json").exists():
        plan = Plan.from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    if not any(case.label and not case.held_out for case in cases):
        raise InputError("No outlined case to learn from.", "Outline and accept at least one case, then train.")
    progress = progress if world.rank == 0 else SILENT
    place = cache or folder / "cache"
    if world.rank == 0:
        cache_cases(cases, plan, place, progress)
    world.agree(False)  # the others wait for the first
    cached = cache_cases(cases, plan, place)
    if not any(case.labelled and not case.held_out and len(case.foreground) for case in cached):
        raise InputError("All outlined cases are empty.", "Outline a structure, accept the case, then train.")
    if any(case.is_partial and not case.held_out for case in cached):
        methods.get(plan.method).must_take_partial()
    rescues = 0
    while True:
        try:
            attempt = TrainingRun(plan, cached, folder, target, world, progress, should_stop, should_finish, clock)
            return attempt.go(warm_start, resume)
        except NotFiniteError as error:
            rescues += 1
            if rescues > RESCUES:
                raise NotFiniteError(
                    "The training diverges: its values are no longer finite numbers.",
                    "Train with a lower learning_rate, or look for scans with unusual intensities.",
                ) from error
            saved = (folder / CHECKPOINT).exists()
            plan = dataclasses.replace(plan, learning_rate=plan.learning_rate / 2)
            progress.log(
                "The training diverged: it goes on "
                f"{'from its last checkpoint' if saved else 'from its start'} with half the learning rate."
            )
            resume = saved
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            smaller = smaller_plan(plan)
            progress.log(f"Out of memory: {plan_difference(plan, smaller)}.")
            plan, resume = smaller, resume or (folder / CHECKPOINT).exists()
        if target.type == "cuda":
            torch.cuda.empty_cache()


@dataclass
class TrainingRun:
    """One attempt at a plan: holds the network, the optimizer and what has been measured."""

    plan: Plan
    cases: list[CachedCase]
    folder: Path
    device: torch.device
    world: World
    progress: Progress = SILENT
    should_stop: Callable[[], bool] = lambda: False
    should_finish: Callable[[], bool] = lambda: False
    clock: Clock = field(default_factory=Clock)
    seconds: float = 0.0
    not_finite: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.plan, self.clock)
        self.validations = ValidationTimes(self.cases, self.plan)

    @property
    def iteration(self) -> int:
        """Steps done."""
        return self.schedule.iteration

    def go(self, warm_start: Path | None, resume: bool) -> TrainResult:
        """Train to the end or until stopped, validate and save."""
        self.prepare(warm_start, resume)
        self._write_plan()
        stopped = self._steps()
        self.threads.release()
        if self.not_finite:
            raise NotFiniteError()
        self._save_checkpoint()
        if stopped:
            return TrainResult(None, self.iteration, self.seconds, {}, True, self.plan)
        validating = self.progress.stage(Stage.VALIDATING)
        pieces = outlined_pieces(self.cases, self.plan) if any(case.held_out for case in self.cases) else {}
        validation = self._validate(self.validations.last_overlap, validating, pieces)
        metrics = validation.to_json() if validation else {}
        rows = validation.cases if validation else []
        model = self.folder / "model"
        if self.world.rank == 0:
            card = self._card(validation, metrics, choose_cleanup(rows, pieces))
            card = dataclasses.replace(
                card, expected_dice=choose_calibration(rows), volume_intervals=choose_intervals(rows)
            )
            save_model(model, card, self.learned.state_dict())
        validating.at(1.0, values=metrics)
        return TrainResult(model, self.iteration, self.seconds, metrics, False, self.plan, rows, pieces)

    def prepare(self, warm_start: Path | None, resume: bool) -> None:
        """Build network and optimizer, fresh, from a model or from the checkpoint."""
        torch.manual_seed(self.plan.seed)
        self.method = methods.get(self.plan.method)(self.plan.settings)
        self.network = build_network(self.plan.network, self.plan.seed).to(self.device)
        if self.plan.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.parent = self._load_parent(warm_start) if warm_start else None
        self.optimizer = self._make_optimizer()
        self.amp = autocast_dtype(self.device) if self.plan.precision == "auto" else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == torch.float16)
        self.method.prepare(self.network)
        if self.plan.average:
            self.method.kept["average"] = Teacher(self.network)
        # With a fixed length, the run is the same to the bit whenever it is stopped and resumed.
        self.threads = ThreadChoice(self.device, every_start=self.plan.minutes is None)
        if resume:
            self._load_checkpoint()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        weights, rate, decay = self.network.parameters(), self.plan.learning_rate, self.plan.weight_decay
        if self.plan.optimizer == "sgd":
            return torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=decay)
        return torch.optim.AdamW(weights, lr=rate, weight_decay=decay)

    def _load_parent(self, folder: Path) -> str:
        card, parent = load_model(folder, str(self.device))
        if parent.spec != self.plan.network:
            self.progress.log(f"The model {card.name} has another network: training starts afresh.")
            return ""
        self.network.load_state_dict(parent.state_dict())
        return card.id

    def _load_checkpoint(self) -> None:
        facts = load_checkpoint(self.folder, self.network, self.optimizer, self.method)
        self.seconds, self.history = facts["seconds"], facts["history"]
        self.schedule.iteration = facts["iteration"]
        # Checkpoints of version 0.1 lack what a budget needs: their plans have a fixed length.
        self.schedule.done = facts.get("done", self.iteration / self.plan.iterations)
        self.schedule.pace = facts.get("pace", 0.0)
        known = facts.get("threads") or torch.get_num_threads()
        fixed = self.plan.minutes is None
        self.threads = ThreadChoice(self.device, every_start=fixed, chosen=known if fixed else None)
        if facts.get("spent", 0.0) > self.clock.seconds():  # not by an attempt of this very sitting
            self.clock.spent += facts["spent"]
        self.parent = facts["parent"]
        self.scaler.load_state_dict(facts["scaler"])

    def _save_checkpoint(self) -> None:
        if self.world.rank == 0:
            facts = {
                "iteration": self.iteration,
                "seconds": self.seconds,
                "threads": self.threads.chosen,
                "done": self.schedule.done,
                "pace": self.schedule.pace,
                "spent": self.clock.seconds(),
                "history": self.history,
                "parent": self.parent,
                "scaler": self.scaler.state_dict(),
            }
            save_checkpoint(self.folder, self.network, self.optimizer, self.method, facts)

    def _write_plan(self) -> None:
        if self.world.rank == 0:
            text = json.dumps(self.plan.to_json(), indent=1)
            try:
                write_atomically(self.folder / "plan.json", lambda path: path.write_text(text, encoding="utf-8"))
            except OSError as error:
                raise storage_error(error, self.folder) from error

    def batches(self, stop: int) -> Iterator[methods.Batch]:
        """Batches from the present iteration up to ``stop``."""
        patches = Patches(self.plan, self.cases, self.method.uses_unlabelled, self.world.rank, self.world.size)
        workers = self.plan.loader_workers if stop - self.iteration > LEAST_STEPS else 0
        return iter(loader(patches, self.iteration, stop, workers, self.device.type == "cuda"))

    def _steps(self) -> bool:
        """Run to the end; true if stopped before it."""
        last_report = last_checkpoint = time.monotonic()
        started, before = self.clock.now(), self.seconds
        batches = self.batches(_ENDLESS if self.plan.minutes else self.plan.iterations)
        self.network.train()
        while not self.world.agree(self.schedule.is_over):
            if self.world.agree(self.should_stop()):
                return True
            if self.iteration and self.world.agree(self.should_finish()):
                self.progress.log(f"Finished early, after {self.iteration} iterations.")
                return False
            began = self.clock.now()
            batch = next(batches)
            with self.threads.piece():
                losses = self.step(batch)
            ended = self.clock.now()
            self.seconds = before + ended - started
            self._advance(ended - began)
            now = time.monotonic()
            if now - last_report >= REPORT_SECONDS or self.schedule.is_over:
                self._report(losses)
                last_report = now
            if now - last_checkpoint >= CHECKPOINT_SECONDS and not self.not_finite:
                self._save_checkpoint()
                last_checkpoint = now
        return False

    def _advance(self, seconds: float) -> None:
        """Count a step that took ``seconds``, validate where that is due, and set time aside for what follows."""
        before = self.schedule.done
        self.schedule.step(seconds)
        self.schedule.done = self.world.share(self.schedule.done)
        if self.world.rank != 0:
            return
        times = self.validations
        if self.iteration == LEAST_STEPS:
            times.measure_window(self.network, self.device, self.amp)
            times.fit(self.plan.minutes)
            if self.plan.minutes and self.schedule.time_left() < times.left(self.schedule.done):
                self.progress.log(
                    f"A budget of {self.plan.budget} is too small: preparing and validating alone take longer."
                )
        if times.is_due(before, self.schedule.done, self.schedule.is_over):
            began = self.clock.now()
            self._record(self._validate())
            times.took(self.clock.now() - began)
        self.schedule.reserve = times.left(self.schedule.done)

    def step(self, batch: methods.Batch) -> dict[str, torch.Tensor]:
        """One optimizer step on a batch; returns the parts of the loss."""
        batch = batch.to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate()
        network: Network = self.network
        if self.world.size > 1:
            joined = JoinedNetwork(self.network, batch)
            network, batch = joined, joined.joined()
        half = torch.autocast(self.device.type, self.amp) if self.amp else nullcontext()
        # Dropout and noise follow from the step alone, so that a resumed run draws what the whole one would have drawn.
        torch.manual_seed(self.plan.seed * 1_000_003 + self.iteration)
        with half:
            losses = self.method.loss(network, batch, self.iteration, self.schedule.length)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses["total"]).backward()
        if self.world.size > 1:
            sum_gradients(self.network)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
        finite = math.isfinite(float(losses["total"].detach())) and (
            self.scaler.is_enabled() or math.isfinite(float(norm))
        )
        self.not_finite = 0 if finite else self.not_finite + 1
        if self.not_finite > PATIENCE:
            raise NotFiniteError()
        if finite:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.after_step(self.network, self.iteration)
        if self.plan.average:
            mean = cast(Teacher, self.method.kept["average"])
            mean.decay = 1 - 1 / max(self.plan.average * self.schedule.length, 1.0)
            mean.follow(self.network, self.iteration)
        return {name: value.detach() for name, value in losses.items()}

    @property
    def learned(self) -> BranchPair:
        """The network that is validated and saved: that of the last step, or the mean of the last ones."""
        return cast(Teacher, self.method.kept["average"]).network if self.plan.average else self.network

    def _validate(
        self,
        overlap: float = 0.25,
        progress: Progress = SILENT,
        pieces: Mapping[int, OutlinedPieces] | None = None,
    ) -> Validation | None:
        if self.world.rank != 0:
            return None
        self.threads.release()
        # What the steps have found is where the windows start; a run of a fixed length keeps to it.
        fixed = self.plan.minutes is None
        threads = ThreadChoice(self.device, every_start=fixed, chosen=self.threads.chosen)
        try:
            return validate(
                self.learned, self.cases, self.plan, self.device, self.amp, overlap, progress, pieces, threads
            )
        finally:
            threads.release()

    def _record(self, validation: Validation | None) -> None:
        if validation:
            values = {f"dice {value}": score for value, score in validation.dice.items()}
            self.history.append({"iteration": self.iteration, **values})
            self._report({}, values)

    def _report(self, losses: dict[str, torch.Tensor], values: dict[str, float] | None = None) -> None:
        numbers = {name: round(float(value), 5) for name, value in losses.items()}
        if losses and (weight := self.method.consistency_weight(self.iteration, self.schedule.length)) is not None:
            numbers["consistency_weight"] = round(weight, 5)
        self.progress.stage(Stage.TRAINING).at(
            self.schedule.done,
            eta_s=round(self.schedule.remaining_seconds(), 1),
            values={"iteration": self.iteration, **numbers, **(values or {})},
        )

    def _card(self, validation: Validation | None, metrics: dict[str, Any], cleanup: list[CleanupRule]) -> ModelCard:
        plan = self.plan
        training = [case for case in self.cases if not case.held_out]
        partial = sum(case.is_partial for case in training)
        outlined = sum(case.labelled for case in training)
        return ModelCard(
            id=uuid.uuid4().hex[:12],
            name=model_name(self.method.title, outlined),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            labels=list(plan.labels),
            channels=list(plan.channels),
            spacing=plan.spacing,
            orientation=plan.orientation,
            normalisations=list(plan.normalisations),
            patch=plan.patch,
            network=plan.network.to_json(),
            mirror_axes=list(plan.mirror_axes),
            method=plan.method,
            settings={
                **dataclasses.asdict(self.method.settings),
                "iterations": self.iteration if plan.minutes else plan.iterations,
                **{
                    name: getattr(plan, name)
                    for name in ("batch_labelled", "batch_unlabelled", "learning_rate", "seed")
                },
            },
            data={
                "labelled": outlined,
                "unlabelled": sum(not case.labelled for case in training),
                "held_out": sum(case.held_out for case in self.cases),
                **({"partial": partial} if partial else {}),
                **({"familiar": plan.familiar} if plan.familiar else {}),
            },
            metrics=metrics,
            temperature=validation.temperature if validation else 1.0,
            cleanup=cleanup,
            parent=self.parent or None,
            versions=_versions(),
        )


def model_name(method: str, outlined: int) -> str:
    """What a new model is called: its method, how many outlined cases it has learned from, and the local time."""
    return f"{method}, {outlined} outlined, {datetime.now().astimezone():%Y-%m-%d %H:%M}"


def _versions() -> dict[str, str]:
    found = {"barl": __version__}
    for package in ("torch", "monai", "SimpleITK", "numpy", "scipy", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
