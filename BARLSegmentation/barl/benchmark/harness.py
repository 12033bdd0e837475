# SPDX-License-Identifier: Apache-2.0
"""Run a benchmark plan: each run is one file, so several processes may share it and any of them may be killed."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from barl.evaluation.metrics import segmentation_metrics
from barl.images.fingerprint import fingerprint_case
from barl.images.geometry import Grid
from barl.images.preparation import restore_label
from barl.images.reading import read_channels
from barl.inference.device import autocast_dtype, choose_device
from barl.inference.sliding_window import predict_array
from barl.models.disk import load_model
from barl.project.files import write_atomically
from barl.project.processes import ProcessId
from barl.training.cases import CaseFiles, cache_cases, label_on_scan
from barl.training.plan import Plan, make_plan
from barl.training.train import train

from . import datasets

PLANNING_CASES = 30
"""Scans that a plan is made from; more change no median."""


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
    """

    dataset: str
    arm: str
    labelled: int | None
    seed: int
    method: str
    settings: dict[str, Any]
    plan: dict[str, Any]
    on: str = "test"

    @property
    def file_name(self) -> str:
        arm = "".join(c if c.isalnum() else "-" for c in self.arm)
        return f"{self.dataset}_{arm}_{self.labelled or 'all'}_{self.seed}.json"


def runs_of(plan: dict[str, Any]) -> list[Run]:
    """All runs of a benchmark plan (layout: ``docs/benchmark-plan.json``), seed by seed."""
    return [
        Run(
            block["dataset"],
            arm,
            labelled,
            seed,
            plan["arms"][arm]["method"],
            plan["arms"][arm].get("settings", {}),
            {**plan["plans"].get(block["dataset"], {}), **plan["arms"][arm].get("plan", {})},
            plan.get("on", "test"),
        )
        for seed in plan["seeds"]
        for block in plan["runs"]
        for labelled in block["labelled"]
        for arm in block["arms"]
    ]


def work(runs: list[Run], results: Path, device: str = "auto", tell=print) -> None:
    """Do all runs that have no result yet and that no living process is doing.

    Raises:
        BarlError: As ``train`` raises it.
    """
    results.mkdir(parents=True, exist_ok=True)
    for run in runs:
        with _Claim(results / run.file_name) as mine:
            if mine:
                tell(f"{run.dataset}, {run.labelled or 'all'} outlined, {run.arm}, seed {run.seed}")
                row = carry_out(run, results / "cache", device)
                text = json.dumps(row)
                write_atomically(results / run.file_name, lambda path, text=text: path.write_text(text, "utf-8"))
                tell(f"  Dice {row['mean_dice']:.4f} ({row['train_seconds']:.0f} s)")


class _Claim:
    """Whether this process may do a run: it has no result, and no living process holds the claim beside it."""

    def __init__(self, result: Path) -> None:
        self.result = result
        self.claim = result.with_suffix(".claim")
        self.mine = False

    def __enter__(self) -> bool:
        if self.result.exists():
            return False
        if self.claim.exists() and not ProcessId(**json.loads(self.claim.read_text("utf-8") or "{}")).is_alive():
            self.claim.unlink()
        try:
            with self.claim.open("x", encoding="utf-8") as file:
                json.dump(dataclasses.asdict(ProcessId.current()), file)
        except FileExistsError:
            return False
        self.mine = True
        return True

    def __exit__(self, *_: object) -> None:
        if self.mine:
            self.claim.unlink(missing_ok=True)


def plan_for(run: Run, dataset: datasets.Dataset) -> Plan:
    """The plan of a run: made from training scans, outlines unseen, so that it is the same for all arms."""
    scans = dataset.part("training")[:PLANNING_CASES]
    values = [label.value for label in dataset.labels]
    fingerprints = [fingerprint_case(read_channels(case.images), None, values) for case in scans]
    overrides = {**run.plan, "method": run.method, "settings": run.settings, "seed": run.seed, "validations": 0}
    return make_plan(fingerprints, dataset.labels, dataset.channels, overrides=overrides)


def carry_out(run: Run, cache: Path, device: str = "auto") -> dict[str, Any]:
    """Train and evaluate; returns one JSON-able row with the scores of every case."""
    dataset = datasets.load(run.dataset)
    plan = plan_for(run, dataset)
    folder = Path(tempfile.mkdtemp(prefix="barl-benchmark-"))
    try:
        started = time.monotonic()
        result = train(plan, dataset.training_files(run.labelled, run.seed), folder, device=device, cache=cache)
        trained = time.monotonic()
        cases = list(evaluate(result.model_folder, result.plan, dataset, run.on, cache, device))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        **dataclasses.asdict(run),
        "mean_dice": float(np.nanmean([score["dice"] for case in cases for score in case["mean"].values()])),
        "train_seconds": result.seconds,
        "seconds": trained - started,
        "iterations": result.iterations,
        "cases": cases,
        "machine": machine(),
    }


def evaluate(
    model_folder: Path, plan: Plan, dataset: datasets.Dataset, part: str, cache: Path, device: str
) -> Iterator[dict[str, Any]]:
    """Scores of each case on its scan's own grid: of the branches' mean and of the first branch alone."""
    target = choose_device(device)
    _, network = load_model(model_folder, str(target))
    cases = dataset.part(part)
    files = [CaseFiles(case.id, case.images, case.label, held_out=True) for case in cases]
    values = [label.value for label in dataset.labels]
    lookup = np.array([0, *values], dtype=np.int32)
    for case, file, cached in zip(cases, files, cache_cases(files, plan, cache), strict=True):
        p = predict_array(
            network,
            cached.image.astype(np.float32),
            plan.patch,
            device=target,
            amp_dtype=autocast_dtype(target),
            branches=range(network.n_branches),
        )
        truth = label_on_scan(file, plan)
        row: dict[str, Any] = {"case": case.id, "group": case.group}
        for name, probabilities in (("mean", p.mean(0)), ("first", p[0])):
            label = restore_label(lookup[probabilities.argmax(0)], cached.grid, Grid.of(truth))
            metrics = segmentation_metrics(
                sitk.GetArrayViewFromImage(label), sitk.GetArrayViewFromImage(truth), truth.GetSpacing()[::-1], values
            )
            row[name] = {str(value): _plain(scores) for value, scores in metrics.items()}
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
