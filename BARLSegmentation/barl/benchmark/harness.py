# SPDX-License-Identifier: Apache-2.0
"""Run a benchmark plan: each run is one file, so several processes may share it and any of them may be killed.

A run that was killed goes on from its last checkpoint, to the same result as if it had not been.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from filelock import FileLock, Timeout

from barl import methods
from barl.benchmark import datasets
from barl.benchmark.field_metrics import field_metrics
from barl.benchmark.memory import PeakMemory
from barl.errors import BarlError, InputError, storage_error
from barl.evaluation.metrics import segmentation_metrics
from barl.images.fingerprint import fingerprint_case
from barl.images.geometry import Grid
from barl.images.preparation import restore_label
from barl.images.reading import read_channels
from barl.inference.device import autocast_dtype, choose_device
from barl.inference.sliding_window import predict_array
from barl.models.disk import load_model
from barl.progress import Event, Progress
from barl.project.files import write_atomically
from barl.training.cases import CaseFiles, cache_cases, label_on_scan
from barl.training.checkpoint import NAME as CHECKPOINT
from barl.training.loop import train
from barl.training.plan import Plan, make_plan

# Scans that a plan is made from; more change no median.
PLANNING_CASES = 30
CURVE_POINTS = 300


@dataclass(frozen=True)
class Run:
    """One training and its evaluation.

    Attributes:
        dataset: Name of the data set.
        arm: Name of what is compared.
        labelled: Outlined subjects; ``None`` for all.
        seed: Chooses the outlined subjects and all random numbers of the training.
        method: Method name.
        settings: Method settings.
        plan: Plan overrides, the same for all arms of a data set.
        on: Part of the split to evaluate on: ``"test"``, or ``"tuning"`` to choose settings.
        stride: Steps ``(k, j, i)`` of the sliding window in voxels; half a patch if not given.
    """

    dataset: str
    arm: str
    labelled: int | None
    seed: int
    method: str
    settings: dict[str, Any]
    plan: dict[str, Any]
    on: str = "test"
    stride: list[int] | None = None

    @property
    def name(self) -> str:
        arm = "".join(c if c.isalnum() else "-" for c in self.arm)
        return f"{self.dataset}_{arm}_{self.labelled or 'all'}_{self.seed}"

    @property
    def file_name(self) -> str:
        return f"{self.name}.json"


def arms_of(block: dict[str, Any]) -> list[str]:
    """The arms of a block of a plan; ``"all"`` means every method there is."""
    return list(methods.available()) if block["arms"] == "all" else list(block["arms"])


def runs_of(plan: dict[str, Any]) -> list[Run]:
    """All runs of a benchmark plan (layout: ``docs/benchmark-plan.json``), seed by seed.

    An arm that the plan does not describe is the method of that name with its default settings.
    """
    runs = []
    for seed in plan["seeds"]:
        for block in plan["runs"]:
            for labelled in block["labelled"]:
                for arm in arms_of(block):
                    what = plan.get("arms", {}).get(arm, {"method": arm})
                    overrides = {**plan.get("plans", {}).get(block["dataset"], {}), **what.get("plan", {})}
                    runs.append(
                        Run(
                            block["dataset"],
                            arm,
                            labelled,
                            seed,
                            what["method"],
                            what.get("settings", {}),
                            overrides,
                            plan.get("on", "test"),
                            plan.get("strides", {}).get(block["dataset"]),
                        )
                    )
    return runs


def work(
    runs: list[Run],
    results: Path,
    device: str = "auto",
    tell: Callable[[str], None] = print,
    sources: datasets.Sources | None = None,
) -> None:
    """Do all runs that have no result yet and that no living process is doing.

    A run that fails does not keep the others waiting; its error is raised at the end.

    Raises:
        InputError: A data set or method is missing: before anything is run.
        BarlError: As ``train`` raises it.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, results) from error
    cache = results / "cache"
    left = [run for run in runs if not (results / run.file_name).exists()]
    for run in left:
        methods.get(run.method)(run.settings)
    found = {name: datasets.load(name, sources, cache) for name in dict.fromkeys(run.dataset for run in left)}
    failed: list[BarlError] = []
    for run in left:
        with Claim(results / run.file_name) as mine:
            if not mine:
                continue
            tell(f"{run.dataset}, {run.labelled or 'all'} outlined, {run.arm}, seed {run.seed}")
            try:
                row = train_and_evaluate(run, found[run.dataset], cache, results / "running" / run.name, device)
            except BarlError as error:
                failed.append(error)
                tell(f"  failed: {error}")
                continue
            text = json.dumps(row)
            write_atomically(results / run.file_name, partial(Path.write_text, data=text, encoding="utf-8"))
            tell(f"  Dice {row['mean_dice']:.4f} ({row['train_seconds']:.0f} s)")
    if failed:
        raise failed[0]


class Claim:
    """Whether this process may do a run: it has no result, and no living process holds the lock beside it.

    The lock is the operating system's: it ends with its process, however that ends.
    """

    def __init__(self, result: Path) -> None:
        self.result = result
        self.lock = FileLock(result.with_suffix(".claim"))

    def __enter__(self) -> bool:
        try:
            self.lock.acquire(blocking=False)
        except Timeout:
            return False
        # Done by another process between the look at the results and the lock.
        return not self.result.exists()

    def __exit__(self, *_: object) -> None:
        if self.lock.is_locked:
            self.lock.release()
            with suppress(OSError):
                Path(self.lock.lock_file).unlink()


def plan_for(run: Run, dataset: datasets.Dataset) -> Plan:
    """The plan of a run: made from training scans, outlines unseen, so that it is the same for all arms.

    The network is the small one (widths 8 to 64) of all tables so far, with its last step's weights, unless the run's
    plan says otherwise.
    """
    scans = dataset.part("training")[:PLANNING_CASES]
    values = [label.value for label in dataset.labels]
    fingerprints = [fingerprint_case(read_channels(case.images), None, values) for case in scans]
    own = {"method": run.method, "settings": run.settings, "seed": run.seed, "validations": 0}
    overrides = {"average": 0.0, "channels_last": False, **run.plan, **own}
    return make_plan(fingerprints, dataset.labels, dataset.channels, overrides=overrides, effort="quick")


def train_and_evaluate(
    run: Run, dataset: datasets.Dataset, cache: Path, folder: Path, device: str = "auto"
) -> dict[str, Any]:
    """Train and evaluate; returns one JSON-able row with the scores of every case.

    Args:
        run: What to do.
        dataset: Its data.
        cache: Where prepared cases are kept.
        folder: Of the training; what a killed process left there is gone on with if it is of the same run.
        device: See ``choose_device``.
    """
    plan, facts = plan_for(run, dataset), json.dumps(dataclasses.asdict(run), sort_keys=True)
    known = folder / "run.json"
    resume = (folder / CHECKPOINT).exists() and known.exists() and known.read_text("utf-8") == facts
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        known.write_text(facts, "utf-8")
    target, started = choose_device(device), time.monotonic()
    with PeakMemory(target) as memory, (folder / "curve.jsonl").open("a", encoding="utf-8") as curve:

        def keep(event: Event) -> None:
            if "total" in event.get("values", {}):
                print(json.dumps(event["values"]), file=curve, flush=True)

        files = dataset.training_files(run.labelled, run.seed)
        result = train(plan, files, folder, device=device, cache=cache, resume=resume, progress=Progress(keep))
    seconds = time.monotonic() - started
    assert result.model_folder is not None  # nobody stops it
    cases = list(evaluate(result.model_folder, result.plan, dataset, run.on, cache, device, run.stride))
    row = {
        **dataclasses.asdict(run),
        "mean_dice": float(np.nanmean([score["dice"] for case in cases for score in case["mean"].values()])),
        "train_seconds": result.seconds,
        "seconds": seconds,
        "iterations": result.iterations,
        "cases": cases,
        "machine": machine(),
        "device": torch.cuda.get_device_name(target) if target.type == "cuda" else target.type,
        "peak_memory_mib": memory.peak_mib,
        "weights": sum(p.numel() for p in load_model(result.model_folder)[1].parameters()),
        "unit": dataset.unit,
        "curve": _curve(folder / "curve.jsonl"),
    }
    shutil.rmtree(folder, ignore_errors=True)
    return row


def _curve(path: Path) -> list[dict[str, float]]:
    """The parts of the loss as reported during the training, thinned out; what was done again counts once."""
    points = {}
    for line in path.read_text("utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # the last line before a loss of power
            continue
        points[values["iteration"]] = values
    kept = [points[iteration] for iteration in sorted(points)]
    return kept[:: max(1, len(kept) // CURVE_POINTS)]


def evaluate(
    model_folder: Path,
    plan: Plan,
    dataset: datasets.Dataset,
    part: str,
    cache: Path,
    device: str,
    stride: list[int] | None = None,
    every: int = 1,
) -> Iterator[dict[str, Any]]:
    """Scores of every ``every``-th case on its scan's own grid: of the branches' mean and of the first branch alone."""
    target = choose_device(device)
    _, network = load_model(model_folder, str(target))
    cases = dataset.part(part)[::every]
    if not cases:
        raise InputError(f"The data set {dataset.name} has no cases in its part {part!r}.", 'Use "on": "test".')
    files = [CaseFiles(case.id, case.images, case.label, held_out=True) for case in cases]
    values = [label.value for label in dataset.labels]
    lookup = np.array([0, *values], dtype=np.int32)
    for case, file, cached in zip(cases, files, cache_cases(files, plan, cache), strict=True):
        p = predict_array(
            network,
            cached.image.astype(np.float32),
            plan.patch,
            stride=stride,
            device=target,
            amp_dtype=autocast_dtype(target),
            branches=range(network.n_branches),
        )
        truth = label_on_scan(file, plan)
        expert = sitk.GetArrayViewFromImage(truth)
        spacing = truth.GetSpacing()[::-1] if dataset.unit == "mm" else (1.0, 1.0, 1.0)
        row: dict[str, Any] = {"case": case.id, "group": case.group}
        for name, probabilities in (("mean", p.mean(0)), ("first", p[0])):
            label = restore_label(lookup[probabilities.argmax(0)], cached.grid, Grid.of(truth))
            predicted = sitk.GetArrayViewFromImage(label)
            metrics = segmentation_metrics(predicted, expert, spacing, values)
            row[name] = {str(value): _plain(scores) for value, scores in metrics.items()}
            if dataset.unit == "voxels":
                for value in values:
                    row[name][str(value)]["field"] = field_metrics(predicted == value, expert == value)
        yield row


def _plain(scores: Any) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(scores).items() if not isinstance(v, float) or not np.isnan(v)} | {
        "dice": scores.dice
    }


def machine() -> str:
    """What a figure was measured on: processor, threads, versions."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads a run, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
