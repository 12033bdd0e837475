# SPDX-License-Identifier: Apache-2.0
"""What a simulated clinician's work buys, and which rule for the next case or region teaches most: sections of a page.

The simulations are those of ``barl simulate PLAN RESULTS``. A strategy that outlines whole scans in the order of a rule
is compared with the random order; any other with the minutes that whole scans in random order take to the same Dice.

barl simulate docs/simulation-plan.json RESULTS
python Testing/Benchmarks/simulated_work.py RESULTS --document docs/guidance.md

docs/simulation-plan-pet.json is a plan for another set (``--plan``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from _sections import replace_section
from barl.benchmark.simulation import curve, read_rounds, simulations_of, table
from barl.evaluation.statistics import holm, paired_test

BASE = "whole, random"
CUBES = "cubes, foreground-aware random"
WORK, CASES, REGIONS = "## What the work buys", "## Which case next", "## Which region next"
SETS = {"hippocampus": "hippocampus", "sts_pet": "PET", "bonbid_hie": "BONBID-HIE"}
Rounds = list[dict[str, Any]]


def minutes_of(base: Sequence[Rounds], dice: float) -> float | None:
    """Minutes at which the base has a Dice, on the straight lines between its rounds (mean over seeds).

    None: it never has, or already had more after its first round.
    """
    length = min(map(len, base))
    minutes = np.mean([[row["work"]["minutes"] for row in rounds[:length]] for rounds in base], axis=0)
    reached = np.mean([[row["dice"] for row in rounds[:length]] for rounds in base], axis=0)
    for n in range(1, length):
        low, high = reached[n - 1], reached[n]
        if low <= dice <= high:
            part = (dice - low) / (high - low) if high > low else 0.0
            return float(minutes[n - 1] + part * (minutes[n] - minutes[n - 1]))
    return None


def by_case(found: Sequence[Rounds], number: int) -> dict[str, float]:
    """Dice of each test case after a round, mean over the seeds."""
    rows = [rounds[number]["cases"] for rounds in found]
    return {case: float(np.mean([row[case] for row in rows])) for case in rows[0]}


def test_of(one: Sequence[Rounds], other: Sequence[Rounds], number: int, against: int) -> tuple[float, float]:
    """Mean difference in points between two strategies after a round each, and p over the test cases."""
    a, b = by_case(one, number), by_case(other, against)
    cases = sorted(a)
    p = paired_test([a[case] for case in cases], [b[case] for case in cases]).p
    return 100 * float(np.mean([a[case] - b[case] for case in cases])), p


def _mean(found: Sequence[Rounds], number: int, what: str) -> float:
    """Dice or minutes after a round, mean over the seeds."""
    rows = [rounds[number] for rounds in found]
    return float(np.mean([row["dice"] if what == "dice" else row["work"][what] for row in rows]))


def regime(base: Sequence[Rounds]) -> str:
    """Whether more outlines help at all here: the base's last round against its first."""
    last = min(map(len, base)) - 1
    dice = np.array([[row["dice"] for row in rounds[: last + 1]] for rounds in base])
    gains = ", ".join(f"{100 * gain:+.1f}" for gain in dice[:, last] - dice[:, 0])
    points, p = test_of(base, base, last, 0)
    sd = ", ".join(f"{100 * value:.1f}" for value in dice.std(axis=0))
    return (
        f"Can this regime tell strategies apart? From the first to the last round of *{BASE}* the Dice rises by "
        f"{points:.1f} points (seeds: {gains}; p over the test scans {p:.2g}); the seeds differ by {sd} points "
        "(standard deviation, round by round). A difference between two strategies that is smaller than that is noise."
    )


def work_section(results: Path, plan: dict[str, Any], heading: str, picture: str) -> str:
    found = {name: rows for name, rows in read_rounds(results, plan).items() if rows}
    base = found[BASE]
    last = min(map(len, base)) - 1
    lines = [
        f"Each strategy against *{BASE}* with the same seeds: its minutes to the same Dice, and its Dice at the end.",
        "",
        "| strategy | round | minutes | Dice | *random* to that Dice, minutes | share "
        "| points against *random* at its end (minutes; p) |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, rows in found.items():
        for number in range(min(map(len, rows))) if name != BASE else ():
            same = base[: len(rows)]
            mine, dice = _mean(rows, number, "minutes"), _mean(rows, number, "dice")
            theirs, end = minutes_of(same, dice), _mean(same, last, "minutes")
            points, p = test_of(rows, same, number, last)
            if theirs:
                shown = f"{theirs:.1f} | {100 * mine / theirs:.0f} %"
            elif dice > _mean(same, last, "dice"):
                shown = f"over {end:.1f} | under {100 * mine / end:.0f} %"
            else:
                shown = "under its first round | "
            lines.append(
                f"| {name} | {number} | {mine:.1f} | {dice:.3f} | {shown} "
                f"| {points:+.1f} ({100 * mine / end:.0f} % of {end:.1f}; {p:.2g}) |"
            )
    return "\n".join([
        heading, "", _text(results, plan), "", regime(base), "", table(results, plan), "",
        f"![Dice against minutes]({picture})", "", *lines,
    ])  # fmt: skip


def rules_section(results: Path, plan: dict[str, Any], heading: str, baseline: str, picture: str) -> str:
    """Rules for what comes next, each against the baseline after the same rounds."""
    found = {name: rows for name, rows in read_rounds(results, plan).items() if rows}
    base = found[baseline]
    rows, tests = [], []
    for name, runs in found.items():
        for number in range(1, min(len(rounds) for rounds in [*runs, *base])) if name != baseline else ():
            count = min(len(runs), len(base))
            tests.append(test_of(runs[:count], base[:count], number, number))
            each = [100 * (a[number]["dice"] - b[number]["dice"]) for a, b in zip(runs, base, strict=False)]
            rows.append((name, number, each))
    adjusted = holm([p for _, p in tests])
    lines = [
        f"| rule | round | points against *{baseline}* | each seed | p over the test scans (Holm) |",
        "|---|---:|---:|---|---:|",
    ]
    for (name, number, each), (points, _), p in zip(rows, tests, adjusted, strict=True):
        seeds = ", ".join(f"{value:+.1f}" for value in each)
        lines.append(f"| {name} | {number} | {points:+.1f} | {seeds} | {p:.2g} |")
    return "\n".join([
        heading, "", _text(results, plan), "", table(results, plan), "", f"![Dice against minutes]({picture})", "",
        *lines,
    ])  # fmt: skip


def _text(results: Path, plan: dict[str, Any]) -> str:
    one = simulations_of(plan)[0]
    row = json.loads((results / one.file_name).read_text("utf-8"))
    tested = len(row["rounds"][0]["cases"])
    pool = f"{one.pool} scans drawn by the seed take part" if one.pool else "all scans of the training part take part"
    part = f"every {one.every}th of the test part" if one.every > 1 else "the whole test part"
    return (
        f"`barl simulate`, {one.dataset}, {one.method} unless the name of a strategy begins with another method, "
        f"{one.plan['iterations']} steps for each training, always from nothing; {pool}; Dice on {tested} scans of "
        f"unseen subjects ({part}), mean ± standard deviation over the seeds (last column). Minutes "
        f"are those of stated prices, not of people. Machine: {row['machine']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--plan", type=Path, default=Path("docs/simulation-plan.json"))
    parser.add_argument("--document", type=Path, default=Path("docs/guidance.md"))
    options = parser.parse_args()
    plan = json.loads(options.plan.read_text("utf-8"))
    (options.document.parent / "images").mkdir(parents=True, exist_ok=True)
    rows, title = plan["strategies"], SETS[plan["dataset"]]
    parts = {
        WORK: ("work", [row for row in rows if row["name"] == BASE or not ("choose" in row or _is_rule(row))]),
        CASES: ("cases", [row for row in rows if row["name"] == BASE or "choose" in row]),
        REGIONS: ("regions", [row for row in rows if _is_rule(row)]),
    }
    for heading, (name, strategies) in parts.items():
        own = {**plan, "strategies": strategies}
        if sum(map(bool, read_rounds(options.results, own).values())) < 2:  # nothing to compare
            continue
        picture = f"images/guidance-{name}-{title.lower()}.png"
        headed = f"{heading}: {title}"
        curve(options.results, own, options.document.parent / picture)
        if heading == WORK:
            text = work_section(options.results, own, headed, picture)
        else:
            text = rules_section(options.results, own, headed, BASE if heading == CASES else CUBES, picture)
        replace_section(options.document, text)


def _is_rule(row: dict[str, Any]) -> bool:
    """Whether a strategy of the plan is there for the table of regions."""
    return row["name"].startswith("cubes, ")


if __name__ == "__main__":
    main()
