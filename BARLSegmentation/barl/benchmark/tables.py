# SPDX-License-Identifier: Apache-2.0
"""From result files to the tables of ``docs/benchmark-500-steps.md``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from barl.evaluation.lesions import LesionCounts
from barl.evaluation.statistics import holm, paired_test, summarize

Row = dict[str, Any]


def read_results(folder: Path) -> list[Row]:
    """All finished runs of a results folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def subject_scores(rows: Sequence[Row], metric: str = "dice", which: str = "mean") -> dict[str, float]:
    """Score of each subject, averaged over its scans, labels and the runs' seeds: what paired tests compare.

    Args:
        rows: Runs of one arm.
        metric: Name of a metric.
        which: ``"mean"`` of the branches or the ``"first"`` branch alone.
    """
    collected: dict[str, list[float]] = {}
    for row in rows:
        for case in row["cases"]:
            collected.setdefault(case["group"], []).extend(_values(case, metric, which))
    return {group: float(np.nanmean(v)) if np.any(~np.isnan(v)) else float("nan") for group, v in collected.items()}


def run_score(row: Row, metric: str = "dice", which: str = "mean") -> float:
    """Mean of a metric over the cases of one run, nan where no case defines it.

    ``"field hd95"`` and the like are the metrics of ``field_metrics``.
    """
    values = [value for case in row["cases"] for value in _values(case, metric, which)]
    return summarize(values).mean


def subjects_csv(rows: Sequence[Row]) -> str:
    """The Dice of every subject in every run, as the paired tests and ranks take it: one line of CSV each.

    Averaged over the subject's scans and labels, of the branches' mean; empty where no scan defines it. Subjects are
    numbered in the order of their names.
    """
    named: dict[str, set[str]] = {}
    for row in rows:
        named.setdefault(row["dataset"], set()).update(case["group"] for case in row["cases"])
    numbers = {name: {group: n for n, group in enumerate(sorted(groups), 1)} for name, groups in named.items()}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["dataset", "outlined", "method", "seed", "subject", "dice"])
    for row in sorted(rows, key=lambda row: (row["dataset"], row["labelled"] or math.inf, row["arm"], row["seed"])):
        for subject, dice in sorted(subject_scores([row]).items()):
            outlined = row["labelled"] or "all"
            cell = "" if math.isnan(dice) else f"{dice:.6f}"
            number = numbers[row["dataset"]][subject]
            lines.writerow([row["dataset"], outlined, row["arm"], row["seed"], number, cell])
    return text.getvalue()


def lesion_f1(row: Row, which: str = "mean") -> float:
    """F1 over all lesions of a run, each lesion weighing the same."""
    counts = (LesionCounts(**scores["lesions"]) for case in row["cases"] for scores in case[which].values())
    return sum(counts, LesionCounts(0, 0, 0)).f1


def _values(case: dict[str, Any], metric: str, which: str) -> list[float]:
    if metric.startswith("field "):
        name = metric.removeprefix("field ")
        return [scores.get("field", {}).get(name, float("nan")) for scores in case[which].values()]
    return [scores.get(metric, float("nan")) for scores in case[which].values()]


def differences(rows: Sequence[Row], arm: str, other: str, metric: str = "dice") -> np.ndarray:
    """Difference of two arms per subject, over the seeds that both have: the seed chooses the outlined subjects."""
    by_arm = {name: [row for row in rows if row["arm"] == name] for name in (arm, other)}
    shared = {row["seed"] for row in by_arm[arm]} & {row["seed"] for row in by_arm[other]}
    first, second = (subject_scores([r for r in by_arm[name] if r["seed"] in shared], metric) for name in (arm, other))
    return np.array([first[group] - second[group] for group in second if group in first])


def mean_ranks(rows: Sequence[Row], arms: Sequence[str]) -> dict[str, float]:
    """Rank by Dice within each subject (1 is best, ties share), averaged over subjects; seeds that all arms have."""
    seeds = [{row["seed"] for row in rows if row["arm"] == arm} for arm in arms]
    shared = set.intersection(*seeds) if seeds else set()
    if not shared:
        return {}
    scores = [subject_scores([row for row in rows if row["arm"] == arm and row["seed"] in shared]) for arm in arms]
    subjects = [g for g in scores[0] if all(g in s and not np.isnan(s[g]) for s in scores)]
    ranks = [rankdata([-s[group] for s in scores]) for group in subjects]
    return dict(zip(arms, np.mean(ranks, axis=0).tolist(), strict=True)) if ranks else {}


def _tests(rows: Sequence[Row], pairs: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Per arm median difference to its partner and Holm's p."""
    found = {}
    for arm, other in pairs.items():
        difference = differences(rows, arm, other)
        if difference.size:
            found[arm] = paired_test(difference.tolist(), [0.0] * len(difference))
    adjusted = holm([test.p for test in found.values()])
    return {arm: (test.median_difference, p) for (arm, test), p in zip(found.items(), adjusted, strict=True)}


def compared_arms(rows: Sequence[Row], arms: Sequence[str], labelled: int | None = None) -> list[str]:
    """The arms of a table that compete: not those with more outlines than the others (the upper bound)."""
    return [arm for arm in arms if any(r["arm"] == arm and r.get("labelled") == labelled for r in rows)]


def table(
    rows: Sequence[Row], arms: Sequence[str], baseline: str, lesions: bool = False, labelled: int | None = None
) -> str:
    """One Markdown table: the runs of one data set and one label count, arm by arm.

    Args:
        rows: All runs of that data set and count.
        arms: In the order of the table.
        baseline: The arm that the others are tested against.
        lesions: Add the lesion-wise F1.
        labelled: The count; arms with another one are shown, but are nobody's rival.
    """
    by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in arms}
    rivals = compared_arms(rows, arms, labelled)
    # The rival is the same for all seeds: the other arm with the best mean.
    level = {arm: float(np.mean([run_score(run) for run in by_arm[arm]])) for arm in rivals}
    best = {
        arm: max((other for other in rivals if other != arm), key=level.__getitem__, default=None) for arm in rivals
    }
    to_baseline = _tests(rows, {arm: baseline for arm in arms if arm != baseline and by_arm[arm]})
    to_best = _tests(rows, {arm: other for arm, other in best.items() if other})
    ranks = mean_ranks(rows, rivals)
    field = any(row.get("unit") == "voxels" for row in rows)
    head = ["method", "seeds", "Dice", "Dice, first branch alone"]
    head += ["Jaccard", "95HD (voxels)", "ASD (voxels)"] if field else ["HD95 (mm)"]
    head += ["lesion F1"] if lesions else []
    head += [f"median difference to {baseline}", "p (Holm)", "to the best other method", "p (Holm)", "mean rank"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for arm in arms:
        runs = by_arm[arm]
        if not runs:
            continue
        cells = [arm, str(len(runs))]
        cells += [str(summarize([run_score(run, "dice", which) for run in runs])) for which in ("mean", "first")]
        if field:
            cells.append(str(summarize([run_score(run, "field jaccard") for run in runs])))
            cells += [_two_digits([run_score(run, f"field {name}") for run in runs]) for name in ("hd95", "asd")]
        else:
            cells.append(_two_digits([run_score(run, "hd95_mm") for run in runs]))
        if lesions:
            cells.append(str(summarize([lesion_f1(run) for run in runs])))
        for tests, rival in ((to_baseline, ""), (to_best, best.get(arm))):
            name = f" ({rival})" if rival else ""
            cells += [f"{100 * tests[arm][0]:+.2f} points{name}", _p(tests[arm][1])] if arm in tests else ["", ""]
        cells.append(f"{ranks[arm]:.2f}" if arm in ranks else "")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _two_digits(values: Sequence[float]) -> str:
    summary = summarize(values)
    return f"{summary.mean:.2f} ± {summary.sd:.2f}" if summary.n > 1 else f"{summary.mean:.2f}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def blocks_of(rows: Sequence[Row], plan: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int, list[Row], list[str]]]:
    """Per table of a plan: its block, the label count, its runs, and the arms that have some."""
    for block in plan["tables"]:
        for labelled in block["labelled"]:
            chosen = [row for row in rows if row["dataset"] == block["dataset"] and row["labelled"] in (labelled, None)]
            arms = [arm for arm in block["arms"] if any(row["arm"] == arm for row in chosen)]
            if any(row["arm"] == block["baseline"] and row["labelled"] == labelled for row in chosen):
                yield block, labelled, chosen, arms


def tables(folder: Path, plan: dict[str, Any]) -> str:
    """All tables of a plan's results in Markdown, one section per data set and label count."""
    rows = read_results(folder)
    parts, ranks = [], []
    for block, labelled, chosen, arms in blocks_of(rows, plan):
        title = f"### {block['dataset']}, {labelled} outlined subjects"
        parts.append(f"{title}\n\n{table(chosen, arms, block['baseline'], block.get('lesions', False), labelled)}")
        ranks.append(mean_ranks(chosen, compared_arms(chosen, arms, labelled)))
    everywhere = [arm for arm in (ranks[0] if ranks else {}) if all(arm in rank for rank in ranks)]
    if len(ranks) > 1 and len(everywhere) > 1:
        overall = {arm: float(np.mean([rank[arm] for rank in ranks])) for arm in everywhere}
        lines = [f"| {arm} | {overall[arm]:.2f} |" for arm in sorted(overall, key=overall.__getitem__)]
        head = "### Mean rank over all tables, of the methods that are in each\n\n| method | mean rank |\n| --- | --- |"
        parts.append("\n".join([head, *lines]))
    if costs := _costs(rows):
        parts.append(costs)
    parts.append("Measured on: " + "; ".join(sorted({row["machine"] for row in rows})) + ".")
    return "\n\n".join(parts) + "\n"


def _costs(rows: Sequence[Row]) -> str:
    """What each method took, of the runs that say so."""
    rows = [row for row in rows if "peak_memory_mib" in row]
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for arm in dict.fromkeys(row["arm"] for row in rows if row["dataset"] == dataset):
            runs = [row for row in rows if row["dataset"] == dataset and row["arm"] == arm]
            step = np.median([1000 * row["train_seconds"] / row["iterations"] for row in runs])
            memory = max(row["peak_memory_mib"] for row in runs)
            cells = [dataset, arm, f"{runs[0]['weights'] / 1e6:.2f}", f"{step:.0f}", f"{memory:.0f}", runs[0]["device"]]
            lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return ""
    head = ["data set", "method", "weights (millions)", "time a step (ms, median)", "peak memory (MiB)", "device"]
    return "\n".join(["### Cost", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines])
