# SPDX-License-Identifier: Apache-2.0
"""From result files to the tables of ``docs/benchmark.md``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from barl.evaluation.lesions import LesionCounts
from barl.evaluation.statistics import holm, paired_test, summarise

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
    """Mean of a metric over the cases of one run, nan where no case defines it."""
    values = [value for case in row["cases"] for value in _values(case, metric, which)]
    return summarise(values).mean


def lesion_f1(row: Row, which: str = "mean") -> float:
    """F1 over all lesions of a run, each lesion weighing the same."""
    counts = (LesionCounts(**scores["lesions"]) for case in row["cases"] for scores in case[which].values())
    return sum(counts, LesionCounts(0, 0, 0)).f1


def _values(case: dict[str, Any], metric: str, which: str) -> list[float]:
    return [scores.get(metric, float("nan")) for scores in case[which].values()]


def table(rows: Sequence[Row], arms: Sequence[str], baseline: str, lesions: bool = False) -> str:
    """One Markdown table: the runs of one data set and one label count, arm by arm.

    Args:
        rows: All runs of that data set and count.
        arms: In the order of the table.
        baseline: The arm that the others are tested against.
        lesions: Add the lesion-wise F1.
    """
    by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in arms}
    tests = {}
    for arm in arms:
        # Only seeds that both have: the seed chooses the outlined subjects.
        shared = {row["seed"] for row in by_arm[arm]} & {row["seed"] for row in by_arm[baseline]}
        if arm != baseline and shared:
            scores, reference = (
                subject_scores([row for row in by_arm[name] if row["seed"] in shared]) for name in (arm, baseline)
            )
            tests[arm] = paired_test([scores[group] for group in reference], list(reference.values()))
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    head = ["method", "seeds", "Dice", "Dice, first branch alone", "HD95 (mm)"]
    head += ["lesion F1"] if lesions else []
    head += [f"median difference to {baseline}", "p (Holm)"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for arm in arms:
        runs = by_arm[arm]
        if not runs:
            continue
        cells = [arm, str(len(runs))]
        cells += [str(summarise([run_score(run, "dice", which) for run in runs])) for which in ("mean", "first")]
        cells.append(_two_digits([run_score(run, "hd95_mm") for run in runs]))
        if lesions:
            cells.append(str(summarise([lesion_f1(run) for run in runs])))
        if arm in tests:
            cells += [f"{100 * tests[arm].median_difference:+.2f} points", _p(adjusted[arm])]
        else:
            cells += ["", ""]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _two_digits(values: Sequence[float]) -> str:
    summary = summarise(values)
    return f"{summary.mean:.2f} ± {summary.sd:.2f}" if summary.n > 1 else f"{summary.mean:.2f}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def tables(folder: Path, plan: dict[str, Any]) -> str:
    """All tables of a plan's results in Markdown, one section per data set and label count."""
    rows = read_results(folder)
    parts = []
    for block in plan["tables"]:
        for labelled in block["labelled"]:
            chosen = [row for row in rows if row["dataset"] == block["dataset"] and row["labelled"] in (labelled, None)]
            title = f"### {block['dataset']}, {labelled} outlined subjects"
            arms = [arm for arm in block["arms"] if any(row["arm"] == arm for row in chosen)]
            if block["baseline"] in arms:
                parts.append(f"{title}\n\n{table(chosen, arms, block['baseline'], block.get('lesions', False))}")
    parts.append("Measured on: " + "; ".join(sorted({row["machine"] for row in rows})) + ".")
    return "\n\n".join(parts) + "\n"
