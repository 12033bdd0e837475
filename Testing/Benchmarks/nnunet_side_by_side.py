# SPDX-License-Identifier: Apache-2.0
"""nnU-Net v2 and this engine on the same cases, each with the same processor time of one core.

nnU-Net lives in an environment of its own (``pip install nnunetv2``), named by its Python. Every run is one JSON file.

python Testing/Benchmarks/nnunet_side_by_side.py run RESULTS --who nnunet --nnunet ENV/bin/python --minutes 10
python Testing/Benchmarks/nnunet_side_by_side.py run RESULTS --who engine --minutes 10 --labelled all
python Testing/Benchmarks/nnunet_side_by_side.py table RESULTS --document docs/engine.md --figure CURVES.png
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

import numpy as np
import SimpleITK as sitk
import torch
from barl.benchmark import datasets, harness
from barl.evaluation.metrics import segmentation_metrics
from barl.evaluation.statistics import paired_test
from barl.images.geometry import Grid
from barl.project.palette import FIGURE_COLORS, hexadecimal
from barl.training.cases import CaseFiles, cache_cases
from barl.training.loop import train
from matplotlib.figure import Figure

DATASET = "Dataset900_SideBySide"
MARKS = ("<!-- table of nnunet_side_by_side.py -->", "<!-- end of the table -->")
TITLES = {
    "engine": "BARL's engine, supervised",
    "engine-float32": "BARL's engine, supervised, float32",
    "barl": "BARL's engine, method BARL",
    "nnunet": "nnU-Net v2",
    "nnunet-bfloat16": "nnU-Net v2, bfloat16 (not its own)",
}


def run(options: argparse.Namespace) -> None:
    labelled = None if options.labelled == "all" else int(options.labelled)
    name = f"{options.set}_{options.who}_{options.labelled}_{options.minutes:g}_{options.seed}_{options.on}"
    target = options.results / f"{name}.json"
    if target.exists():
        return
    folder = options.results / "running" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data = datasets.load(options.set)
    tested = _tested(data, options)
    files = data.training_files(labelled, options.seed)
    measure = _nnunet if options.who.startswith("nnunet") else _engine
    torch.set_num_threads(1)
    began = time.monotonic()
    row = measure(data, files, tested, folder, options)
    row |= {name: getattr(options, name) for name in ("set", "who", "labelled", "minutes", "seed", "on")}
    row |= {"wall_s": time.monotonic() - began, "machine": harness.machine()}
    row["dice"] = float(np.mean([np.mean(list(case["dice"].values())) for case in row["cases"]]))
    target.write_text(json.dumps(row, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({key: value for key, value in row.items() if key != "cases"}))


def _tested(data: datasets.Dataset, options: argparse.Namespace) -> list[datasets.OutlinedCase]:
    """The cases of the part, or the first scan of each of its first subjects."""
    cases = data.part(options.on)
    if options.subjects is None:
        return cases
    first = {case.group: case for case in reversed(cases)}
    return [first[group] for group in sorted(first)[: options.subjects]]


def _engine(
    data: datasets.Dataset,
    files: list[CaseFiles],
    tested: list[datasets.OutlinedCase],
    folder: Path,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train for the budget and score. Preparing the cases is not counted, as nnU-Net's preprocessing is not."""
    method = "barl" if options.who == "barl" else "supervised"
    chosen = harness.Run(data.name, options.who, None, options.seed, method, {}, dict(options.set_plan), options.on)
    plan = replace(harness.plan_for(chosen, data), minutes=options.minutes)
    if options.who == "engine-float32":
        plan = replace(plan, precision="float32")
    if method == "supervised":
        files = [file for file in files if file.label]
    cache = options.results / "cache"
    cache_cases(files, plan, cache)
    began = time.process_time()
    result = train(plan, files, folder, device="cpu", cache=cache, now=time.process_time)
    spent, began = time.process_time() - began, time.process_time()
    assert result.model_folder is not None  # nobody stops it
    part = replace(data, cases=tested, split={options.on: [case.group for case in tested]})
    cases = [
        {"case": row["case"], "group": row["group"], "dice": {v: s["dice"] for v, s in row["mean"].items()}}
        for row in harness.evaluate(result.model_folder, result.plan, part, options.on, cache, "cpu")
    ]
    return {
        "cases": cases,
        "steps": result.iterations,
        "train_s": spent,
        "predict_s": time.process_time() - began,
        "patch": plan.patch,
        "batch": plan.batch_labelled,
        "widths": plan.network.widths,
        "weights": sum(p.numel() for p in harness.load_model(result.model_folder)[1].parameters()),
    }


def _nnunet(
    data: datasets.Dataset,
    files: list[CaseFiles],
    tested: list[datasets.OutlinedCase],
    folder: Path,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Plan, preprocess (neither counted), train for the budget and predict in nnU-Net's environment; score here."""
    if options.nnunet is None:
        raise SystemExit("Name the Python of nnU-Net's environment: --nnunet ENV/bin/python")
    raw = folder / "raw" / DATASET
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / part).mkdir(parents=True)
    outlined = [file for file in files if file.label]
    for case in outlined:
        assert case.label is not None
        shutil.copyfile(case.label, raw / "labelsTr" / f"{case.id}.nii.gz")
        _copy_channels(case.images, raw / "imagesTr", case.id)
    for case in tested:
        _copy_channels(case.images, raw / "imagesTs", case.id)
    labels = {"background": 0, **{label.name: label.value for label in data.labels}}
    if sorted(labels.values()) != list(range(len(labels))):
        raise SystemExit("nnU-Net needs labels 1, 2, 3 ... without gaps.")
    facts = {"channel_names": {str(n): name for n, name in enumerate(data.channels)}, "labels": labels}
    facts |= {"numTraining": len(outlined), "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    places = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    environment = {**os.environ, **places, "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f", "nnUNet_def_n_proc": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    number = DATASET[7:10]
    entry = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as go"
    command = [options.nnunet, "-c", f"{entry}; go()", "-d", number, "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
    script = str(Path(__file__).with_name("_nnunet_budget.py"))
    command = [options.nnunet, script, DATASET, "--images", str(raw / "imagesTs"), "--seed", str(options.seed)]
    command += ["--predictions", str(folder / "predictions"), "--seconds", str(60 * options.minutes)]
    command += ["--half"] if options.who == "nnunet-bfloat16" else []
    environment["nnUNet_n_proc_DA"] = "0"  # for the planner 0 is an error
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    return {"cases": [_score(case, folder / "predictions", data) for case in tested], **facts}


def _copy_channels(images: list[Path], folder: Path, case: str) -> None:
    for n, image in enumerate(images):
        shutil.copyfile(image, folder / f"{case}_{n:04d}.nii.gz")


def _score(case: datasets.OutlinedCase, predictions: Path, data: datasets.Dataset) -> dict[str, Any]:
    """Dice on the scan's own grid, by the same function as the engine's.

    Raises:
        SystemExit: The prediction lies on another grid.
    """
    assert case.label is not None
    expert, predicted = sitk.ReadImage(str(case.label)), sitk.ReadImage(str(predictions / f"{case.id}.nii.gz"))
    if not Grid.of(expert).matches(Grid.of(predicted)):
        raise SystemExit(f"nnU-Net's prediction of {case.id} is on another grid than the outline.")
    arrays = [sitk.GetArrayViewFromImage(image) for image in (predicted, expert)]
    values = [label.value for label in data.labels]
    scores = segmentation_metrics(*arrays, expert.GetSpacing()[::-1], values)
    return {"case": case.id, "group": case.group, "dice": {str(v): scores[v].dice for v in values}}


def table(options: argparse.Namespace) -> None:
    """Print the rows as Markdown, and put them into the document between its two marks."""
    text = "\n".join(_rows(options))
    print(text)
    if options.figure:
        rows = [json.loads(path.read_text("utf-8")) for path in sorted(options.results.glob("*.json"))]
        _draw(rows, options.figure)
    if options.document:
        before, rest = options.document.read_text(encoding="utf-8").split(MARKS[0] + "\n")
        after = rest.split(MARKS[1])[1]
        options.document.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def _rows(options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table; nnU-Net's row of the same cases, budget and seed is what the others are compared with."""
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(options.results.glob("*.json"))]
    heads = ("outlined subjects", "budget (processor minutes)", "who", "seed", "steps", "weights (millions)")
    heads = (*heads, "predicting 1 scan (s)", "Dice", "to nnU-Net v2", "p")
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for row in sorted(rows, key=lambda r: (str(r["labelled"]), r["minutes"], r["seed"], r["who"])):
        same = ("set", "labelled", "minutes", "seed", "on")
        rival = next((r for r in rows if r["who"] == "nnunet" and all(r[k] == row[k] for k in same)), None)
        gain = p = ""
        if rival is not None and rival is not row:
            pair = [_by_subject(r) for r in (row, rival)]
            test = paired_test(*([scores[group] for group in sorted(pair[0])] for scores in pair))
            gain, p = f"{100 * (row['dice'] - rival['dice']):+.1f} points", f"{test.p:.3g}"
        cells = (row["labelled"], f"{row['minutes']:g}", TITLES[row["who"]], row["seed"], row["steps"])
        cells = (*cells, f"{row['weights'] / 1e6:.1f}", f"{row['predict_s'] / len(row['cases']):.1f}")
        yield "| " + " | ".join(map(str, (*cells, f"{row['dice']:.3f}", gain, p))) + " |"


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Dice, the mean over the seeds, against the processor time of the training: a line for each method.

    Rows with all subjects outlined are left to the table.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    lines: dict[tuple[str, str], dict[float, list[float]]] = {}
    rows = [row for row in rows if row["labelled"] != "all"]
    for row in rows:
        lines.setdefault((row["who"], str(row["labelled"])), {}).setdefault(row["minutes"], []).append(row["dice"])
    colors = {who: hexadecimal(name) for who, name in zip(TITLES, FIGURE_COLORS, strict=False)}
    for (who, labelled), found in sorted(lines.items()):
        points = [(minutes, float(np.mean(dice))) for minutes, dice in sorted(found.items())]
        axes.plot(
            *zip(*points, strict=True), label=f"{TITLES[who]}, {labelled} outlined", marker="o", color=colors[who]
        )
    axes.set_xscale("log")
    axes.set_xticks(budgets := sorted({row["minutes"] for row in rows}), [f"{minutes:g}" for minutes in budgets])
    axes.minorticks_off()
    axes.set_xlabel("minutes of one core that the training took")
    axes.set_ylabel("Dice")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _by_subject(row: dict[str, Any]) -> dict[str, float]:
    """Mean Dice over labels and scans of each subject."""
    found: dict[str, list[float]] = {}
    for case in row["cases"]:
        found.setdefault(case["group"], []).extend(case["dice"].values())
    return {group: float(np.mean(values)) for group, values in found.items()}


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, json.loads(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("results", type=Path)
    one.add_argument("--who", choices=TITLES, required=True)
    one.add_argument("--nnunet", metavar="PYTHON", help="of nnU-Net's environment")
    one.add_argument("--set", default="hippocampus")
    one.add_argument("--labelled", default="4", help="outlined subjects, or all")
    one.add_argument("--minutes", type=float, default=10, help="processor minutes of training")
    one.add_argument("--seed", type=int, default=0, help="chooses the outlined subjects")
    one.add_argument("--on", choices=("tuning", "test"), default="tuning")
    one.add_argument("--subjects", type=int, help="judge on one scan of so many subjects; on all scans by default")
    one.add_argument("--set-plan", type=_setting, nargs="*", default=[], metavar="KEY=VALUE")
    one.set_defaults(command=run)
    page = commands.add_parser("table")
    page.add_argument("results", type=Path)
    page.add_argument("--document", type=Path)
    page.add_argument("--figure", type=Path, help="PNG of Dice against processor time")
    page.set_defaults(command=table)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
