# SPDX-License-Identifier: Apache-2.0
"""The section of docs/few-slices.md on minutes, from the rows of counted_work.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import counted_work as work
import numpy as np
from _few_slices_document import TITLES
from _sections import replace_section
from barl.fill.expectation import INTERCEPT, SLOPE

HEADING = "## Minutes"
TARGETS = (0.85, 0.90, 0.95)
FIRST_AIM, CORRECTION_AIM = 0.15, 0.40
# Prices of a millimeter of contour, in seconds, that the shares are computed for once more.
OTHER_PRICES = (0.05, 0.5)
PLANES, MINUTES, DICE, MM = range(4)
OUTLINES = (work.SLICER, work.EVERY, work.PLANES, work.NEXT)
CORRECTIONS = (work.SLICES, work.WORST, work.SPREAD_FIXED, work.SPREAD)
Row = dict[str, Any]

_TEXT = """
This section is written by `Testing/Benchmarks/counted_work.py`. A simulated reader draws without an error, so the
minutes flatter everybody alike. The prices are proposed, no measurement of clinicians stands behind them: {case:g} s to
open and accept a case, {look:g} s to look at a plane, {plane:g} s to begin drawing in it, {mm:g} s for a millimeter of
contour, {click:g} s for a key (*Fill*, *Next slice*), {fill:g} s to look over a fill before it is accepted. All labels
count as one structure. A way reaches a Dice at the first step at which the mean over the scans does; the share is the
mean of each scan's minutes divided by those of drawing every axial slice that holds the structure.
"""

_COMMANDS = """\
    B=Testing/Benchmarks/counted_work.py
    python $B outlines rows --set SET --part PART          SET: hippocampus, sts_pet, bonbid_hie; PART: tuning, test
    python $B corrections rows --set SET --part PART --model FOLDER --name NAME
    python $B write rows --document docs/few-slices.md

The model *weak*: BARL, 4 outlined subjects, 200 steps; *good*: the one that comes along. One core of a shared AMD EPYC.
"""


def write(results: Path, document: Path) -> None:
    """Write the section and its figures."""
    rows = [
        json.loads(line)
        for path in sorted(results.glob("*.jsonl"))
        for line in path.read_text("utf-8").split("\n")
        if line
    ]
    images = document.parent / "images"
    images.mkdir(exist_ok=True)
    outlines = _groups([row for row in rows if row["action"] == "outlines" and row["part"] == "test"])
    corrections = _groups([row for row in rows if row["action"] == "corrections" and row["part"] == "test"])
    parts = [HEADING, _TEXT.format(**vars(work.PRICES))]
    if outlines:
        parts += [
            "### First outlines",
            "",
            *_first_table(outlines),
            "",
            *_first_aims(outlines),
            "",
            *_other_prices(outlines),
            "",
        ]
        _figure(outlines, (work.BY_HAND, *OUTLINES), images / "few-slices-first.png")
        parts += ["![Dice against minutes, first outlines](images/few-slices-first.png)", ""]
    if corrections:
        parts += ["### Corrections", "", *_correction_table(corrections), ""]
        _figure(corrections, CORRECTIONS, images / "few-slices-corrections.png")
        parts += ["![Dice against minutes, corrections](images/few-slices-corrections.png)", ""]
    if expectation := _expectation(rows):
        parts += ["### The Dice to expect", "", *expectation, ""]
    parts += ["### How to repeat it", "", _COMMANDS]
    replace_section(document, "\n".join(parts))


def _groups(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: list(TITLES).index(row["set"])):
        found.setdefault((row["set"], row.get("model", "")), []).append(row)
    return found


def mean_curve(rows: Sequence[Row], way: str, mm_price: float | None = None) -> np.ndarray:
    """Per step, mean over the scans: planes, minutes, Dice, mm, share of the minutes of every slice.

    A scan whose curve has ended stays where it was.
    """
    curves = [np.array(row["curves"][way], dtype=float) for row in rows if row["curves"].get(way)]
    hands = [np.array(row["curves"][work.BY_HAND][0], dtype=float) for row in rows if row["curves"].get(way)]
    steps = max(map(len, curves), default=0)
    held = []
    for curve, hand in zip(curves, hands, strict=True):
        if mm_price is not None:
            for points in (curve, hand[None]):
                points[:, MINUTES] += (mm_price - work.PRICES.mm) * points[:, MM] / 60
        curve = np.concatenate([curve, np.repeat(curve[-1:], steps - len(curve), axis=0)])
        held.append(np.column_stack([curve, curve[:, MINUTES] / hand[MINUTES]]))
    return np.mean(held, axis=0) if held else np.zeros((0, 5))


def _reached(curve: np.ndarray, target: float) -> np.ndarray | None:
    steps = np.flatnonzero(curve[:, DICE] >= target)
    return curve[steps[0]] if len(steps) else None


def _cell(point: np.ndarray | None) -> str:
    return "not reached" if point is None else f"{point[-1]:.0%} ({point[PLANES]:.0f} planes)"


def _first_table(groups: dict[tuple[str, str], list[Row]]) -> list[str]:
    lines = [
        "Share of the minutes of drawing every slice until the mean Dice is reached, and planes drawn.",
        "",
        "| set | way | " + " | ".join(f"Dice {target:.2f}" for target in TARGETS) + " |",
        "|---|---|" + "---:|" * len(TARGETS),
    ]
    for (name, _), rows in groups.items():
        hand = mean_curve(rows, work.BY_HAND)[0]
        lines.append(
            f"| {TITLES[name]}, {len(rows)} scans | every slice: {hand[PLANES]:.0f} planes, {hand[MINUTES]:.1f} min |"
            + " 100% |" * len(TARGETS)
        )
        for way in OUTLINES:
            if len(curve := mean_curve(rows, way)):
                lines.append(f"| | {way} | " + " | ".join(_cell(_reached(curve, t)) for t in TARGETS) + " |")
    return lines


def _least(rows: Sequence[Row], mm_price: float | None = None) -> tuple[float, str] | None:
    """Share and way of ours that reaches Dice 0.90 with the fewest minutes."""
    found = []
    for way in (work.EVERY, work.PLANES, work.NEXT):
        curve = mean_curve(rows, way, mm_price)
        if len(curve) and (point := _reached(curve, 0.90)) is not None:
            found.append((float(point[-1]), way))
    return min(found, default=None)


def _first_aims(groups: dict[tuple[str, str], list[Row]]) -> list[str]:
    lines = [f"| aim: Dice 0.90 in at most {FIRST_AIM:.0%} of the minutes | measured | |", "|---|---:|---|"]
    for (name, _), rows in groups.items():
        least = _least(rows)
        measured = "not reached" if least is None else f"{least[0]:.0%} ({least[1]})"
        lines.append(f"| {TITLES[name]} | {measured} | {'met' if least and least[0] <= FIRST_AIM else 'missed'} |")
    return lines


def _other_prices(groups: dict[tuple[str, str], list[Row]]) -> list[str]:
    parts = []
    for price in OTHER_PRICES:
        shares = []
        for (name, _), rows in groups.items():
            least = _least(rows, price)
            shares.append(f"{TITLES[name]} {'not reached' if least is None else f'{least[0]:.0%}'}")
        parts.append(f"With {price:g} s for a millimeter: {', '.join(shares)}.")
    return [" ".join(parts)]


def _correction_table(groups: dict[tuple[str, str], list[Row]]) -> list[str]:
    lines = [
        f"Minutes until the mean Dice is reached. *Ratio*: spread (next plane) to {work.SLICES}; the aim is at most",
        f"{CORRECTION_AIM:.0%}. *{work.WORST}* sees the true errors: nobody can do better slice by slice.",
        "",
        "| set and model | start | Dice | every slice by hand | " + " | ".join(CORRECTIONS) + " | ratio | |",
        "|---|---:|---:|---:|" + "---:|" * len(CORRECTIONS) + "---:|---|",
    ]
    for (name, model), rows in groups.items():
        curves = {way: mean_curve(rows, way) for way in (work.BY_HAND, *CORRECTIONS)}
        start = curves[work.SLICES][0, DICE]
        for target in (t for t in TARGETS if t > start):
            points = {way: _reached(curves[way], target) for way in CORRECTIONS}
            cells = ["" if p is None else f"{p[MINUTES]:.2f}" for p in points.values()]
            ours, theirs = points[work.SPREAD], points[work.SLICES]
            ratio = None if ours is None or theirs is None else ours[MINUTES] / theirs[MINUTES]
            met = "missed" if ratio is None or ratio > CORRECTION_AIM else "met"
            lines.append(
                f"| {TITLES[name]}, {model} ({len(rows)} scans) | {start:.3f} | {target:.2f} | "
                f"{curves[work.BY_HAND][0, MINUTES]:.2f} | {' | '.join(cells)} | "
                f"{'' if ratio is None else f'{ratio:.0%}'} | {met} |"
            )
    return lines


def _expectation(rows: Sequence[Row]) -> list[str]:
    """How right the Dice is that a fill expects, of itself and of the planes to come."""
    of = {(part, name): _steps(rows, "outlines", part, name) for part in ("tuning", "test") for name in TITLES}
    calibrated = [name for name in TITLES if name != "bonbid_hie" and of["tuning", name]]
    if not calibrated:
        return []
    intercept, slope = _line([of["tuning", name] for name in calibrated])
    lines = [
        "A fill's probabilities promise a Dice that is too low. Without a prediction a straight line mends that:",
        f"Dice = {intercept:.3f} + {slope:.3f} * promised, fitted on the tuning subjects of hippocampus and PET, both",
        f"counting alike (`barl/fill/expectation.py` has {INTERCEPT} and {SLOPE}). The table shows absolute errors on",
        "test subjects, for 3 to 13 planes. *Ahead*: the Dice of the fill with n more planes, expected before they are",
        "drawn. *Other set*: the line was fitted on the other set alone.",
        "",
        "| set | mean error as promised | calibrated, mean (90 %) | 1 plane ahead | 2 ahead | 3 ahead | other set |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in TITLES:
        if not (steps := of["test", name]):
            continue
        errors = [_errors(steps, intercept, slope, ahead) for ahead in range(4)]
        others = [of["tuning", other] for other in calibrated if other != name]
        cells = [
            f"{np.mean(_errors(steps, 0, 1, 0)):.3f}",
            f"{np.mean(errors[0]):.3f} ({np.quantile(errors[0], 0.9):.3f})",
        ]
        cells += [f"{np.mean(error):.3f}" for error in errors[1:]]
        cells.append(f"{np.mean(_errors(steps, *_line(others), 0)):.3f}" if others else "")
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    lines += ["", *_not_expected(rows)]
    return lines


def _not_expected(rows: Sequence[Row]) -> list[str]:
    """Where nothing is shown, and why."""
    text = (
        "It is shown where nine tenths of the filled voxels or more are one piece (26-connected), from three planes "
        "on, without a prediction. Of 15 scans each, with 1+1+1 and with 3+3+3 planes, that is so in all of the first "
        "two sets and in 4 of BONBID-HIE, where it misleads (mean error 0.11 and 0.13). "
    )
    parts = []
    for name, model in (("hippocampus", "weak"), ("hippocampus", "good"), ("sts_pet", "weak")):
        tuning, test = (_steps(rows, "corrections", part, name, model) for part in ("tuning", "test"))
        if tuning and test:
            parts.append(f"{TITLES[name]}, {model}: {np.mean(_errors(test, *_line([tuning]), 0)):.3f}")
    if parts:
        text += (
            "With a prediction, a line fitted on the tuning subjects of the same set and model leaves mean errors of "
        )
        text += f"{'; '.join(parts)}: not good enough to be shown."
    return [text]


def _steps(rows: Sequence[Row], action: str, part: str, name: str, model: str = "") -> list[list[Row]]:
    """The expectations of each scan."""
    wanted = (action, part, name, model)
    found = [row for row in rows if (row["action"], row["part"], row["set"], row.get("model", "")) == wanted]
    return [row["expected"] for row in found if row["expected"]]


def _line(sets: Sequence[list[list[Row]]]) -> tuple[float, float]:
    """Intercept and slope by least squares; every set counts alike."""
    columns, targets = [], []
    for scans in sets:
        steps = [step for scan in scans for step in scan]
        weight = len(steps) ** -0.5
        columns += [[weight, weight * step["now"]] for step in steps]
        targets += [weight * step["dice"] for step in steps]
    intercept, slope = np.linalg.lstsq(np.array(columns), np.array(targets), rcond=None)[0]
    return float(intercept), float(slope)


def _errors(scans: Sequence[list[Row]], intercept: float, slope: float, ahead: int) -> list[float]:
    """Absolute errors of the Dice that each fill expects with ``ahead`` more planes."""
    found = []
    for scan in scans:
        for step, later in zip(scan, scan[ahead:], strict=False):
            missing = 1 - step["now"]
            if ahead:
                settled = 1 - (1 - step["after"]) / missing if missing else 0.0
                missing *= (1 - settled) ** ahead
            found.append(abs(min(intercept + slope * (1 - missing), 1.0) - later["dice"]))
    return found


def _figure(groups: dict[tuple[str, str], list[Row]], ways: Sequence[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(groups), figsize=(4.2 * len(groups), 3.8), squeeze=False, layout="constrained"
    )
    for panel, ((name, model), rows) in zip(panels[0], groups.items(), strict=True):
        for way in ways:
            curve = mean_curve(rows, way)
            if len(curve):
                panel.plot(curve[:, MINUTES], curve[:, DICE], marker=".", label=way)
        panel.set_title(f"{TITLES[name]}{model and ', ' + model}", fontsize=10)
        panel.set_xlabel("minutes of the simulated reader")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("mean Dice")
    panels[0][-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
