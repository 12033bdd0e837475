# SPDX-License-Identifier: Apache-2.0
"""Figures of a benchmark as PNG: Dice against label count, differences per subject, training curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from barl.benchmark.tables import Row, blocks_of, compared_arms, differences, read_results, run_score
from barl.evaluation.statistics import summarize
from barl.project.palette import FIGURE_COLORS, hexadecimal

_DPI = 110
_COLORS = [hexadecimal(name) for name in FIGURE_COLORS]
_MARKERS = "osD^vP*X<>hpd8H"
_MUTED = "0.62"


def draw(results: Path, plan: dict[str, Any], folder: Path) -> list[Path]:
    """All figures of a plan's results; returns their files."""
    rows = read_results(results)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    blocks = list(blocks_of(rows, plan))
    for dataset in dict.fromkeys(block["dataset"] for block, *_ in blocks):
        own = [(labelled, compared_arms(chosen, arms, labelled)) for b, labelled, chosen, arms in blocks
               if b["dataset"] == dataset]  # fmt: skip
        if len({labelled for labelled, _ in own}) > 1:
            files.append(_save(_by_count(rows, dataset, own), folder / f"dice_{dataset}.png"))
    for block, labelled, chosen, arms in blocks:
        rivals = compared_arms(chosen, arms, labelled)
        name = f"{block['dataset']}_{labelled}"
        title = f"{block['dataset']}, {labelled} outlined subjects"
        data = {arm: 100 * differences(chosen, arm, block["baseline"]) for arm in rivals if arm != block["baseline"]}
        data = {arm: found for arm, values in data.items() if (found := values[~np.isnan(values)]).size}
        if data:  # some run has the seed of one of the baseline's
            figure = _differences(data, block["baseline"], title)
            files.append(_save(figure, folder / f"differences_{name}.png"))
        if any(len(row.get("curve", [])) > 1 for row in chosen):
            files.append(_save(_curves(chosen, rivals, block["baseline"], title), folder / f"curves_{name}.png"))
    return files


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=_DPI)
    return path


def _styles(arms: Sequence[str], ranked: Sequence[str], baseline: str | None) -> dict[str, dict[str, Any]]:
    """The baseline black and dashed, the best six in color, the others gray; each its own marker within its color."""
    styles = {}
    for number, arm in enumerate(arms):
        style = {"color": _MUTED, "marker": _MARKERS[number % len(_MARKERS)], "lw": 1.0, "zorder": 2}
        if arm in ranked[: len(_COLORS)]:
            style |= {"color": _COLORS[ranked.index(arm)], "lw": 1.8, "zorder": 4}
        if arm == baseline:
            style |= {"color": "black", "ls": "--", "lw": 1.8, "zorder": 5}
        styles[arm] = style
    return styles


def _by_count(rows: Sequence[Row], dataset: str, own: Sequence[tuple[int, list[str]]]) -> Figure:
    arms = list(dict.fromkeys(arm for _, some in own for arm in some))
    own_rows = [row for row in rows if row["dataset"] == dataset]
    points: dict[str, list[tuple[int, float, float]]] = {}
    for arm in arms:
        for labelled in sorted({labelled for labelled, some in own if arm in some}):
            scores = [run_score(r) for r in own_rows if r["arm"] == arm and r["labelled"] == labelled]
            summary = summarize(scores)
            points.setdefault(arm, []).append((labelled, summary.mean, summary.sd if summary.n > 1 else 0.0))
    ranked = sorted(arms, key=lambda arm: -max(mean for _, mean, _ in points[arm]))
    styles = _styles(arms, [a for a in ranked if a != "supervised"], "supervised")
    figure = Figure(figsize=(8.2, 4.6), layout="constrained")
    axes = figure.subplots()
    counts = sorted({labelled for labelled, _ in own})
    there = {count: [arm for arm in ranked if count in {x for x, _, _ in points[arm]}] for count in counts}
    for arm in ranked:
        x, mean, sd = zip(*points[arm], strict=True)
        # Side by side within a count, so that the error bars can be told apart.
        shifts = [(there[c].index(arm) - (len(there[c]) - 1) / 2) * min(0.6 / len(there[c]), 0.1) for c in x]
        places = [counts.index(value) + shift for value, shift in zip(x, shifts, strict=True)]
        axes.errorbar(places, mean, yerr=sd, label=arm, capsize=2, ms=5, elinewidth=0.8, **styles[arm])
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set_xlabel("outlined subjects")
    axes.set_ylabel("Dice (mean ± sd over seeds)")
    bound = [run_score(row) for row in own_rows if row["labelled"] is None]
    if bound:
        axes.axhline(float(np.mean(bound)), color="0.3", ls=":", lw=1.2)
        place = (0.008, float(np.mean(bound)))
        axes.annotate("all outlined", place, xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color="0.3")
    axes.set_title(dataset)
    axes.grid(axis="y", color="0.9")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _differences(data: dict[str, np.ndarray], baseline: str, title: str) -> Figure:
    order = sorted(data, key=lambda arm: float(np.median(data[arm])))
    figure = Figure(figsize=(8.2, 1.2 + 0.36 * len(order)), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for place, arm in enumerate(order):
        values = data[arm]
        axes.plot(values, place + rng.uniform(-0.16, 0.16, values.size), "o", ms=3, color=_COLORS[5], alpha=0.7, mew=0)
    axes.boxplot([data[arm] for arm in order], orientation="horizontal", positions=range(len(order)), widths=0.55,
                 showfliers=False, medianprops={"color": _COLORS[1], "lw": 2})  # fmt: skip
    axes.axvline(0, color="black", lw=1, ls="--")
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel(f"Dice points against {baseline}, one dot a subject (mean over seeds)")
    axes.set_title(title)
    axes.grid(axis="x", color="0.9")
    return figure


def _curves(rows: Sequence[Row], arms: Sequence[str], baseline: str, title: str) -> Figure:
    """Supervised part of the loss, which is the same term for all methods, smoothed, mean over seeds."""
    curves = {}
    for arm in arms:
        runs = [r["curve"] for r in rows if r["arm"] == arm and len(r.get("curve", [])) > 1]
        if runs:
            steps = np.linspace(0, max(run[-1]["iteration"] for run in runs), 60)
            curves[arm] = steps, np.mean([_smooth(run, steps) for run in runs], axis=0)
    ranked = sorted(curves, key=lambda arm: float(curves[arm][1][-1]))
    styles = _styles(arms, [arm for arm in ranked if arm != baseline], baseline)
    figure = Figure(figsize=(8.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for arm in ranked:
        style = {key: value for key, value in styles[arm].items() if key != "marker"}
        axes.plot(*curves[arm], label=arm, marker=styles[arm]["marker"], markevery=10, ms=4, **style)
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("iteration")
    axes.set_ylabel("supervised loss on the outlined patches")
    axes.set_title(title)
    axes.grid(color="0.93")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _smooth(curve: Sequence[dict[str, float]], steps: np.ndarray) -> np.ndarray:
    """Mean of the reported values weighted by nearness: single steps are too noisy to be read."""
    at = np.array([point["iteration"] for point in curve], dtype=float)
    values = np.array([point.get("supervised", np.nan) for point in curve])
    width = max((steps[-1] - steps[0]) / 15, 1e-6)
    weights = np.exp(-0.5 * ((steps[:, None] - at) / width) ** 2) * ~np.isnan(values)
    return (weights * np.nan_to_num(values)).sum(1) / np.maximum(weights.sum(1), 1e-12)
