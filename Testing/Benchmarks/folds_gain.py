# SPDX-License-Identifier: Apache-2.0
"""What a training with folds costs and brings, and how well its out-of-fold Dice foretells that of new cases.

A run makes a project of a few outlined and some untouched subjects, trains once without folds and once with them, each
member as long as the single training, and predicts test subjects with the single model, each member and all members.
Writes docs/folds.md.

python Testing/Benchmarks/folds_gain.py run RESULTS --set hippocampus --labelled 4 --seed 0
python Testing/Benchmarks/folds_gain.py write RESULTS --document docs/folds.md
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

import numpy as np
import SimpleITK as sitk
from barl.benchmark import datasets, harness
from barl.evaluation.metrics import dice
from barl.evaluation.statistics import paired_test
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.inference.predictor import Predictor
from barl.jobs.compute import Compute
from barl.jobs.evaluate import evaluate_model
from barl.jobs.train_job import TrainingOptions, prepare_run, run_training
from barl.json_text import plain
from barl.project.labels import Channel
from barl.project.store import Project
from scipy import stats

TITLES = {"hippocampus": "Hippocampus, MR", "sts_pet": "Sarcoma, PET"}
# Runs whose files are not kept: their rows of both tables, gain and difference in points. Same machine.
_EARLIER = (
    "| Hippocampus, MR | barl | 200 | 4 (7) + 20 | 4 | 0 | 30 | 0.850 ± 0.013 | 0.811 | 0.825 | 0.800 | +2.5 | < 0.001 "
    "| +2.5 | 6.0 |",
    "| Hippocampus, MR | barl | 100 | 4 (8) + 20 | 4 | 1 | 30 | 0.805 ± 0.016 | 0.788 | 0.804 | 0.790 | +1.5 | 0.119 "
    "| +0.1 | 3.9 |",
    "| Hippocampus, MR | supervised | 200 | 4 (7) + 20 | 4 | 0 | 30 | 0.846 ± 0.013 | 0.814 | 0.828 | 0.811 | +1.7 "
    "| < 0.001 | +1.8 | 4.5 |",
)
_EARLIER_GAINS, _EARLIER_APART = (2.5, 1.5, 1.7), (2.5, 0.1, 1.8)
_EARLIER_FORETOLD = (
    "| Hippocampus, MR | barl | 0 | one training | 0.50 | 0.005 | 0.05 | | | |",
    "| Hippocampus, MR | barl | 0 | all members | 0.70 | < 0.001 | -0.70 | +0.028 | 0.045 | 0.115 (7) |",
    "| Hippocampus, MR | barl | 1 | one training | 0.69 | < 0.001 | -0.31 | | | |",
    "| Hippocampus, MR | barl | 1 | all members | 0.59 | < 0.001 | -0.37 | -0.020 | 0.037 | 0.049 (8) |",
    "| Hippocampus, MR | supervised | 0 | one training | 0.65 | < 0.001 | not kept | | | |",
    "| Hippocampus, MR | supervised | 0 | all members | 0.74 | < 0.001 | not kept | +0.012 | 0.033 | 0.223 (7) |",
)


def run(options: argparse.Namespace) -> None:
    name = "_".join(map(str, (options.set, options.method, options.labelled, options.folds, options.seed)))
    folder = options.results / name
    if (folder / "result.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    data = datasets.load(options.set)
    project = folder / "project"
    _make(data, project, options)
    found = {}
    for name, folds in (("single", None), ("folds", options.folds)):
        wanted = TrainingOptions(
            iterations=options.iterations, method=options.method, seed=options.seed, device="cpu", folds=folds,
            warm_start=False, overrides={"loader_workers": 0, "widths": [8, 16, 32, 64]},
        )  # fmt: skip
        with Project.open(project) as opened:
            prepared = prepare_run(opened, wanted)
        found[name] = run_training(project, prepared.id).model_id
    with Project.open(project, read_only=True) as opened:
        models = {name: opened.models.get(model_id) for name, model_id in found.items()}
        scores = evaluate_model(opened, found["folds"], compute=Compute("cpu"))
    cases = data.part("test")[: options.test]
    wholes = {name: Predictor.load(model.folder, device="cpu") for name, model in models.items()}
    members = [
        Predictor.load(models["folds"].folder, device="cpu", member=n) for n in range(wholes["folds"].card.members)
    ]
    tested = {name: [_test(predictor, case) for case in cases] for name, predictor in wholes.items()}
    facts = {
        **{key: getattr(options, key) for key in ("set", "labelled", "iterations", "seed", "method")},
        "untouched": options.untouched,
        "seconds": {name: model.summary["seconds"] for name, model in models.items()},
        "out_of_fold": [_mean({v: m["dice"] for v, m in row["labels"].items()}) for row in scores["cases"]],
        **{name: [row["dice"] for row in rows] for name, rows in tested.items()},
        "expected": tested,
        "calibration": plain(wholes["folds"].card.expected_dice),
        "members": [[_test(member, case)["dice"] for case in cases] for member in members],
        "machine": harness.machine(),
    }
    (folder / "result.json").write_text(json.dumps(facts), "utf-8")


def _make(data: datasets.Dataset, folder: Path, options: argparse.Namespace) -> None:
    files = data.training_files(options.labelled, options.seed)
    outlined = [file for file in files if file.label]
    others = [file for file in files if not file.label][: options.untouched]
    with Project.create(folder, data.name, data.labels, [Channel(name) for name in data.channels]) as project:
        for number, file in enumerate([*outlined, *others]):
            grid = Grid.of(read_channels(file.images)[0])
            label = read_label(file.label, grid, [label.value for label in data.labels]) if file.label else None
            project.cases.add(f"case {number}", read_channels(file.images), label=label)


def _test(predictor: Predictor, case: datasets.OutlinedCase) -> dict[str, Any]:
    channels = read_channels(case.images)
    assert case.label is not None  # a test case
    values = predictor.card.values
    truth = sitk.GetArrayFromImage(read_label(case.label, Grid.of(channels[0]), values))
    found = predictor.predict(channels)
    predicted = sitk.GetArrayFromImage(found.label)
    agreement = [score for score in found.agreement.values() if score is not None]
    return {
        "dice": _mean({value: dice(predicted, truth, value) for value in values}),
        "agreement": float(np.mean(agreement)) if agreement else None,
        "expected": found.expected_dice,
        "uncertainty": found.case_uncertainty,
    }


def _mean(scores: dict[Any, float]) -> float:
    return float(np.nanmean(list(scores.values())))


def write(options: argparse.Namespace) -> None:
    runs = [json.loads(path.read_text("utf-8")) for path in sorted(options.results.glob("*/result.json"))]
    runs.sort(key=lambda run_: (run_["set"], run_["method"], run_["seed"]))
    lines = [
        "| set | method | iterations | outlined subjects (cases) + untouched | folds | seed | test subjects "
        "| out of fold | test, one member | test, all members | test, one training | gain | p "
        "| out of fold - all members | time, all / one |",
        "|" + "---|" * 15,
        *_EARLIER,
        *map(_line, runs),
    ]
    foretold = [
        "| set | method | seed | model | Spearman: agreement and Dice | p | Spearman: uncertainty and Dice "
        "| expected - Dice, mean | root mean square | the card's error (cases) |",
        "|" + "---|" * 10,
        *_EARLIER_FORETOLD,
    ]
    foretold += [_foretold(run_, name) for run_ in runs for name in ("single", "folds") if _compares(run_, name)]
    titles = ["Hippocampus, MR"] * len(_EARLIER) + [TITLES[run_["set"]] for run_ in runs]
    means = [{name: 100 * np.mean(run_[name]) for name in ("out_of_fold", "folds", "single")} for run_ in runs]
    apart = np.array([*_EARLIER_APART, *(mean["out_of_fold"] - mean["folds"] for mean in means)])
    gains = np.array([*_EARLIER_GAINS, *(mean["folds"] - mean["single"] for mean in means)])
    text = _TEXT.format(
        table="\n".join(lines),
        foretold="\n".join(foretold),
        within=_of_each_set(titles, apart, "in {within} of {count} runs (mean difference {mean:+.1f} points)"),
        gain=_of_each_set(titles, gains, "{mean:+.1f} points in {count} runs"),
        machine=runs[0]["machine"],
    )
    options.document.write_text(text, "utf-8")


def _of_each_set(titles: list[str], values: np.ndarray, words: str) -> str:
    """A figure of each set in words; ``values`` are in points."""
    parts = []
    for title in dict.fromkeys(titles):
        own = np.array([value for name, value in zip(titles, values, strict=True) if name == title])
        parts.append(f"{title}: " + words.format(within=(abs(own) <= 1.5).sum(), count=len(own), mean=own.mean()))
    return ";\n  ".join(parts)


def _line(run_: dict[str, Any]) -> str:
    unseen, whole, single = (np.array(run_[name]) for name in ("out_of_fold", "folds", "single"))
    error = unseen.std(ddof=1) / np.sqrt(len(unseen))
    ratio = run_["seconds"]["folds"] / run_["seconds"]["single"]
    return (
        f"| {TITLES[run_['set']]} | {run_['method']} | {run_['iterations']} | "
        f"{run_['labelled']} ({len(unseen)}) + {run_['untouched']} | {len(run_['members'])} "
        f"| {run_['seed']} | {len(whole)} | {unseen.mean():.3f} ± {error:.3f} | {np.mean(run_['members']):.3f} "
        f"| {whole.mean():.3f} | {single.mean():.3f} "
        f"| {100 * (whole.mean() - single.mean()):+.1f} | {_p(paired_test(whole, single).p)} "
        f"| {100 * (unseen.mean() - whole.mean()):+.1f} | {ratio:.1f} |"
    )


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _compares(run_: dict[str, Any], name: str) -> bool:
    """Whether the model has branches that can agree."""
    return run_["expected"][name][0]["agreement"] is not None


def _foretold(run_: dict[str, Any], name: str) -> str:
    rows, true = run_["expected"][name], np.array(run_[name])
    agreement = stats.spearmanr([row["agreement"] for row in rows], true)
    doubt = [row["uncertainty"] for row in rows]
    other = f"{stats.spearmanr(doubt, true).statistic:.2f}" if None not in doubt else "not kept"
    model = "all members" if name == "folds" else "one training"
    text = (
        f"| {TITLES[run_['set']]} | {run_['method']} | {run_['seed']} | {model} "
        f"| {agreement.statistic:.2f} | {_p(agreement.pvalue)} | {other} "
    )
    if rows[0]["expected"] is None:
        return f"{text}| | | |"
    errors = np.array([row["expected"] for row in rows]) - true
    known = run_["calibration"]
    return (
        f"{text}| {errors.mean():+.3f} | {np.sqrt((errors**2).mean()):.3f} | {known['error']:.3f} ({known['cases']}) |"
    )


_TEXT = """# Folds: how good is a model with few cases?

This page is written by `Testing/Benchmarks/folds_gain.py`.

    barl train study --folds 4 --minutes 60

With few outlined cases nobody wants to hold half of them out. `--folds K` trains K members. Each leaves out one part of
the outlined cases (all cases of a subject together) and is judged by it, out of fold. All members together are one
model: the mean of their branches' probabilities predicts, and their disagreement counts in the uncertainty. What
follows from it:

* The out-of-fold results choose the cleanup (`cleanup.md`), stand in the model's card, and `barl evaluate`, the report
  and the comparison with the current model use them beside the held-out cases. Each case is then judged by the one
  member that has not learned from it.
* Members start from scratch: a model that they started from would have seen the cases that judge them.
* A budget in minutes covers all members; each gets an equal part of what is left. A number of iterations is that of
  each member. A run that was paused or killed goes on in the fold where it was ended; *Finish now* makes a model of the
  folds that are done.
* A prediction takes K times as long. *Fast* uses one branch of the first member.
* The temperature is the geometric mean of the members', each fitted out of fold. No case is left to fit that of all
  members on; their mean is softer than each of them.

## What was measured

Each member takes as many iterations as the single training, which learns from all outlined cases. Dice is the
mean over the labels; out of fold: mean ± standard error over the outlined cases. p: Wilcoxon's
signed-rank test, all members against the single training on the test subjects. Gain and difference are in points. Runs
of one set and seed have the same outlined subjects. Other jobs of unequal weight ran beside, so the ratio of the times
is rough, that of PET meaningless; K trainings take K times the steps.

{table}

* **Gain** over one training of the same number of iterations, for about K times the time:
  {gain}.
* **Is the out-of-fold mean within 1.5 points of the test mean?**
  {within}.
  The standard error of the out-of-fold mean shows how far chance alone goes with so few cases; it is too small where a
  subject has several. Four cases of PET, whose Dice reaches from 0.1 to 0.8, say little, and each is judged by a member
  that has learned from three tumors.
* **Not measured:** one training with K times the iterations, and folds against held-out cases at the same number of
  outlines. Runs of 100 iterations are short: what they reach is less than a training of the default length does.

## The Dice to expect without an outline

The label maps of a network's two branches are compared: their Dice is the *agreement* of a case. The unseen cases of a
training calibrate it (proposed): from four cases on the mean difference is added, from ten on a straight line is
fitted; the error in the card is that of cases left out one after the other. `barl predict`, `barl project cases` and
the table of cases in the module (≈) show the figure. Aim: Spearman's correlation with the true Dice of at least 0.7.

{foretold}

Without folds and without held-out cases there is nothing to calibrate on; the correlation needs no calibration.

Machine: {machine}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("results", type=Path)
    one.add_argument("--set", choices=TITLES, default="hippocampus")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--labelled", type=int, default=4)
    one.add_argument("--untouched", type=int, default=20)
    one.add_argument("--folds", type=int, default=4)
    one.add_argument("--test", type=int, help="so many test subjects; all by default")
    one.add_argument("--method", default="barl")
    one.add_argument("--iterations", type=int, default=200)
    one.set_defaults(command=run)
    page = commands.add_parser("write")
    page.add_argument("results", type=Path)
    page.add_argument("--document", type=Path, default=Path("docs/folds.md"))
    page.set_defaults(command=write)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
