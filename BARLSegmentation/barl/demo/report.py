# SPDX-License-Identifier: Apache-2.0
"""The demo's report: that of any project, with chapters of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from barl.demo import figures
from barl.demo.main_job import Outcome
from barl.evaluation.statistics import paired_test
from barl.report.page import write_page

_METRICS = {
    "dice": ("Dice", 3),
    "surface_dice": ("surface Dice at 1 mm", 3),
    "hd95_mm": ("HD95 (mm)", 2),
    "lesion_precision": ("lesion precision", 3),
    "lesion_recall": ("lesion recall", 3),
    "lesion_f1": ("lesion F1", 3),
}


def write_report(outcome: Outcome, path: Path) -> None:
    """Write the report.

    Raises:
        StorageError: It cannot be written.
    """
    test = outcome.findings.comparison["test"] if outcome.findings.comparison else {}
    write_page(
        outcome.findings,
        path,
        "demo.html.jinja",
        Path(__file__).parent,
        outcome=outcome,
        data=outcome.data,
        own=figures,
        answer=answer(outcome),
        summary=summary_rows(outcome),
        test=test,
        ranking=_ranking_rows(outcome),
        spots_picture=figures.hotspots(outcome),
        spots=_hotspot_rows(outcome),
        volumes=_volume_rows(outcome),
        calibration=_calibration_rows(outcome),
        trainings=_training_rows(outcome),
        seconds=_seconds_rows(outcome),
    )


def answer(outcome: Outcome) -> str:
    """The outcome as a sentence, good or bad."""
    before, after = (table["mean"]["dice"]["mean"] for table in (outcome.before, outcome.after))
    pairs = list(zip(_case_means(outcome.before), _case_means(outcome.after), strict=True))
    better, n = sum(second > first for first, second in pairs), len(outcome.corrected)
    where = f"on {len(pairs)} held-out cases, better in {better} of them"
    if after > before:
        chance = paired_test([second for _, second in pairs], [first for first, _ in pairs]).p
        doubt = "" if chance < 0.05 else " On so few cases the difference may be chance."
        return f"Mean Dice rose from {before:.3f} to {after:.3f} with {n} corrected cases ({where}).{doubt}"
    return f"Mean Dice did NOT rise: {before:.3f} before, {after:.3f} after {n} corrected cases ({where})."


def summary_rows(outcome: Outcome) -> list[list[str]]:
    """Label, metric, before, after: mean ± standard deviation over the held-out cases."""
    names = [name for name in _METRICS if outcome.data.lesions or not name.startswith("lesion")]
    blocks = [(label.name, str(label.value)) for label in outcome.data.labels]
    if len(blocks) > 1:
        blocks.append(("mean of the labels", ""))
    rows = []
    for title, value in blocks:
        tables = [table["labels"][value] if value else table["mean"] for table in (outcome.before, outcome.after)]
        for name in names:
            text, digits = _METRICS[name]
            rows.append([title, text, *(_mean_sd(table[name], digits) for table in tables)])
            title = ""  # said once a block
    return rows


def _ranking_rows(outcome: Outcome) -> list[list[str]]:
    return [
        [str(rank), ranked.case.name, f"{ranked.score:.2f}", ranked.reason]
        for rank, ranked in enumerate(outcome.ranking[:5], start=1)
    ]


def _hotspot_rows(outcome: Outcome) -> list[list[str]]:
    names = {label.value: label.name for label in outcome.data.labels}
    return [
        [
            str(spot["rank"]),
            names.get(spot["label"], "-"),
            *(f"{mm:.1f}" for mm in spot["position_mm"]),
            f"{spot['volume_ml']:.3f}",
            f"{spot['mean_uncertainty']:.2f}",
            f"{spot['score']:.3f}",
        ]
        for spot in outcome.doubted.details.get("hotspots", [])[:10]
    ]


def _volume_rows(outcome: Outcome) -> list[list[str]]:
    return [
        [item.case.name, volume.name, f"{volume.ml:.2f}", f"{volume.low_ml:.2f} to {volume.high_ml:.2f}"]
        for item in outcome.judged
        for volume in item.prediction.volumes
    ]


def _calibration_rows(outcome: Outcome) -> list[list[str]]:
    names = {"calibration_error": "expected calibration error", "risk_coverage_area": "area under risk-coverage"}
    return [[text, *(f"{table[key]:.4f}" for table in (outcome.before, outcome.after))] for key, text in names.items()]


def _training_rows(outcome: Outcome) -> list[list[str]]:
    rows = []
    for training in outcome.trainings:
        iterations, seconds = training.summary["iterations"], training.summary["seconds"]
        rows.append([training.title, str(iterations), f"{seconds:.0f}", f"{seconds / max(iterations, 1):.2f}"])
    return rows


def _seconds_rows(outcome: Outcome) -> list[list[str]]:
    rows = [[title, f"{seconds:.1f}"] for title, seconds in outcome.seconds.items()]
    return [*rows, ["together", f"{sum(outcome.seconds.values()):.1f}"]]


def _case_means(table: dict[str, Any]) -> list[float]:
    return [float(np.nanmean([scores["dice"] for scores in row["labels"].values()])) for row in table["cases"]]


def _mean_sd(summary: dict[str, Any], digits: int) -> str:
    if not summary["n"]:
        return "-"
    mean = f"{summary['mean']:.{digits}f}"
    return mean if np.isnan(summary["sd"]) else f"{mean} ± {summary['sd']:.{digits}f}"
