# SPDX-License-Identifier: Apache-2.0
"""The section of docs/few-slices.md on what filled outlines teach, from the rows of filled_teaching.py."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import filled_teaching as work
import numpy as np
from _sections import replace_section
from barl.evaluation.statistics import paired_test

HEADING = "## What filled outlines teach"
WEIGHT_HEADING = "How right filled voxels are"
TITLES = {"hippocampus": "Hippocampus, MR", "sts_pet": "Soft-tissue sarcoma, PET", "la2018": "Left atrium, MR"}
WHOLE, DRAWN, HARD = "whole scans", "drawn only", "hard"
HARDS = tuple(arm for arm in work.ARMS if arm.startswith(HARD))
Row = dict[str, Any]
# Rows of one arm, by seed.
Rows = dict[int, Row]

# What is to be known beside the table of a set and a number of steps.
REMARKS = {
    ("hippocampus", 200): """\
Here the same number of planes teaches more on a few whole scans, and *hard* is half a point
ahead of *weighted* (p < 0.001 over the scans, behind it in one seed of three). A likely reason: one plane in each
direction leaves the border between the two labels to the fill (Dice of the outlines: the mean of
both). **The regime is short:** after 200 steps all subjects outlined teach less than four, so these networks are
undertrained.""",
    ("hippocampus", 400): """\
One plane in each direction is too little here: whatever the filled voxels teach, the same drawing spent on whole scans
teaches more. **Two planes in each direction (half as many scans), and three (a third), are level with it**: the fill of
1+1+1 planes leaves the border between the two labels open. Proposed: where shapes are alike from subject to subject,
outline two slices in each view, or follow *Next slice*, before *Accept*. With each method the drawn voxels of 1+1+1
alone teach more than the fills of them, by 0.4 to 1.4 points: the opposite of PET. BARL with four whole subjects is
level with supervised; DBiSL has two seeds. All subjects outlined teach only 0.4 points more than four, so this regime
hardly tells the two
apart.
""",
    ("la2018", 300): """\
One plane in each direction of all 80 scans is half the drawing of eight whole scans and teaches less than these; *hard*
is ahead of *weighted* and far ahead of *drawn only*. Eight whole scans teach more than all 80: the networks are
undertrained, so this regime does not show what more outlines are worth. BARL: one seed. Twice the planes in each scan
and DBiSL were not compared.
""",
    ("sts_pet", 400): """\
By the mean over the seeds, *hard* is the best use of the same 72 planes with each of the three methods, and
supervised it is level with all 24 scans outlined whole (799 planes). *weighted* and *both* are behind it with each
method. A likely reason: the fill is right in 99 % of the voxels, and its unsure voxels lie on the border, which is
what a network has to learn. With four scans outlined whole BARL is ahead of supervised; with the fills it is
behind, and DBiSL is level: no scan is untouched, so the terms without outlines have little to add. All methods had
the same steps, of which each costs BARL and DBiSL more. Supervised, more planes in each of fewer scans teach less
than one in each direction of all 24.""",
}

_TEXT = """
This section is written by `Testing/Benchmarks/filled_teaching.py`. A simulated reader outlines the scans of
a few subjects whole, or one plane in each direction of as many scans as the same number of planes allows;
the rest is filled. *hard*: filled voxels teach as an expert's; *weighted*: by 1 minus the uncertainty of the
fill; *drawn only*: not at all, they are as of an untouched scan; *both*: weighted, the rest of the weight is
for the method's terms without outlines (the plan's `filled`: `hard`, `weighted`, `ignore`, `both`).
*2+2+2*, *3+3+3*: more planes in each direction, of fewer scans. `supervised` has no terms without outlines: for
it *both* would be *weighted*. *all whole*: every training scan outlined whole. The plans are small, so that one
core can train them: what counts is the difference, not the height. Points are means over the seeds that both
sides have; p is of the paired test over the test scans; *level* in the list of aims: behind, but p >= 0.05.
After a fill *Accept* stores the outline whole, which teaches as *hard* does: ahead of *weighted*, *both* and *drawn
only* by the mean over the seeds on PET with each method and on the left atrium; on the hippocampus (1+1+1,
400 steps) *drawn only* leads by 0.4 to 1.4 points. *Only what I drew* teaches as the plan says (`filled`),
by default as *drawn only*: a person chooses it for a fill that is not to be trusted, and the voxels outside of a mask
that came from elsewhere were filled by nobody.
"""


@dataclass(frozen=True)
class Aim:
    """What is aimed at: ``method`` with one of ``arms`` reaches ``share`` of what ``base`` has, less ``points``."""

    text: str
    arms: tuple[str, ...]
    base: tuple[str, str]
    method: str = "supervised"
    share: float = 1.0
    points: float = 0.0

    def verdict(self, own: float, other: float, p: float) -> str:
        """*level*: an aim without a margin is missed by no more than chance."""
        if own >= self.share * other - self.points:
            return "met"
        return "level" if self.share == 1 and not self.points and p >= 0.05 else "missed"


_BEHIND = Aim("not behind the same drawing spent on whole scans", HARDS, ("supervised", WHOLE))
_OF_ALL = Aim("at least 99 % of all whole", HARDS, ("supervised", work.ALL), share=0.99)
AIMS = {
    "hippocampus": (_BEHIND, _OF_ALL),
    "sts_pet": (
        Aim("within 1 point of all whole", (HARD,), ("supervised", work.ALL), points=0.01),
        Aim("not behind supervised", (HARD,), ("supervised", HARD), method="barl"),
    ),
    "la2018": (_BEHIND, _OF_ALL),
}


def write(results: Path, document: Path) -> None:
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    replace_section(document, section(rows, published_parts(document)))


def section(rows: Sequence[Row], published: dict[str, str] | None = None) -> str:
    """The page's section: a table for each set and number of steps, and what the rows allow to say.

    Args:
        rows: What was measured.
        published: Parts that the page has, by their headings: kept where there is no row to make them anew.
    """
    texts = dict(published or {})
    regimes = defaultdict(list)
    for row in rows:
        if "arm" in row:
            regimes[row["set"], row["iterations"]].append(row)
    for (name, steps), own in regimes.items():
        texts[f"{TITLES[name]}, {steps} steps"] = "\n".join(_table(name, steps, own))
    if weights := [row for row in rows if "mass" in row]:
        texts[WEIGHT_HEADING] = "\n".join(_weight_table(weights))
    weighed = texts.pop(WEIGHT_HEADING, "")
    parts = [HEADING, _TEXT]
    if not texts:
        parts += ["No training of this comparison has been run yet: which of them teaches best is not known.", ""]
    parts += [f"{texts[title].strip()}\n" for title in sorted(texts, key=_place)]
    return "\n".join([*parts, f"{weighed.strip()}\n"] if weighed else parts)


def _place(title: str) -> tuple[int, int]:
    """Where the part of a heading stands: by set, then by steps."""
    name, _, steps = title.removesuffix(" steps").rpartition(", ")
    return list(TITLES.values()).index(name), int(steps)


def published_parts(document: Path) -> dict[str, str]:
    """The parts of the page's section as they are, by their headings."""
    page = document.read_text(encoding="utf-8") if document.exists() else ""
    own = page.partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    return {part.split("\n", 1)[0]: f"### {part}" for part in own.split("\n### ")[1:]}


def _table(name: str, steps: int, rows: Sequence[Row]) -> list[str]:
    found: dict[tuple[str, str], Rows] = defaultdict(dict)
    for row in rows:
        found[row["method"], row["arm"]][row["seed"]] = row
    seeds, parts = sorted({row["seed"] for row in rows}), sorted({row["on"] for row in rows})
    bases = [f"against {arm}" for arm in (WHOLE, work.ALL, DRAWN, HARD)]
    return [
        f"### {TITLES[name]}, {steps} steps",
        "",
        f"{_network(rows)}. Tested on the {'/'.join(parts)} part ({len(rows[0]['cases'])} scans), "
        f"seeds {', '.join(map(str, seeds))}. {rows[0]['machine']}, beside other work.",
        "",
        "| method | teaches | scans | planes | Dice of the outlines | Dice of the model, each seed | mean | "
        f"{' | '.join(bases)} | against supervised |",
        f"|---|---|---:|---:|---:|---|---:|{'---|' * (len(bases) + 1)}",
        *_lines(found),
        "",
        *_aims(name, found),
        *([REMARKS[name, steps], ""] if (name, steps) in REMARKS else []),
    ]


def _lines(found: dict[tuple[str, str], Rows]) -> Iterator[str]:
    for method in work.METHODS:
        for arm in work.ARMS:
            if not (own := found.get((method, arm))):
                continue
            bases = [(method, WHOLE), ("supervised", work.ALL), (method, DRAWN), (method, HARD), ("supervised", arm)]
            cells = [
                method,
                arm,
                _mean(own, "scans", 0),
                _mean(own, "planes", 0),
                _mean(own, "dice_of_outlines", 3),
                ", ".join(f"{own[seed]['dice']:.3f}" for seed in sorted(own)),
                _mean(own, "dice", 3),
                *("" if (method, arm) == base else _against(own, found.get(base, {})) for base in bases),
            ]
            yield f"| {' | '.join(cells)} |"


def _aims(name: str, found: dict[tuple[str, str], Rows]) -> list[str]:
    """What the aims say, on the seeds that both sides have."""
    lines = ["| aim | measured | |", "|---|---:|---|"]
    for aim in AIMS[name]:
        for arm in aim.arms:
            rows, base = found.get((aim.method, arm), {}), found.get(aim.base, {})
            if seeds := sorted(set(rows) & set(base)):
                own, other = (np.mean([part[seed]["dice"] for seed in seeds]) for part in (rows, base))
                measured = f"{own:.3f} against {other:.3f}, seeds {', '.join(map(str, seeds))}"
                verdict = aim.verdict(float(own), float(other), _difference(rows, base)[1])
                lines.append(f"| {aim.method}, *{arm}*: {aim.text} | {measured} | {verdict} |")
    return [*lines, ""] if len(lines) > 2 else []


def _network(rows: Sequence[Row]) -> str:
    """The values of the plan that were chosen to be quick."""
    texts = []
    for name, unit in (("patch", "voxels"), ("widths", "channels"), ("spacing", "mm")):
        values = {"x".join(f"{value:g}" for value in row[name]) for row in rows}
        unit = "voxels of the scans" if name == "spacing" and rows[0]["set"] == "la2018" else unit
        texts.append(f"{name} {' or '.join(sorted(values))} {unit}")
    return ", ".join(texts).capitalize()


def _mean(rows: Rows, name: str, digits: int) -> str:
    return f"{np.mean([row[name] for row in rows.values()]):.{digits}f}"


def _difference(own: Rows, base: Rows) -> tuple[float, float, list[int]]:
    """Mean difference in points over common seeds; p of the paired test over the scans' means; the seeds."""
    both = sorted(set(own) & set(base))
    cases = sorted(own[both[0]]["cases"])
    first, second = (
        [float(np.mean([rows[seed]["cases"][case] for seed in both])) for case in cases] for rows in (own, base)
    )
    return 100 * float(np.mean(first) - np.mean(second)), paired_test(first, second).p, both


def _against(own: Rows, base: Rows) -> str:
    if not set(own) & set(base):
        return ""
    points, p, both = _difference(own, base)
    seeds = f", seeds {', '.join(map(str, both))}" if both != sorted(own) else ""
    return f"{points:+.1f} points, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}{seeds}"


def _weight_table(rows: Sequence[Row]) -> list[str]:
    bins = " | ".join(f"{a:g} to {b:g}" for a, b in pairwise(work.WEIGHTS))
    lines = [
        f"### {WEIGHT_HEADING}",
        "",
        f"1+1+1 planes of training scans, voxels within {work.MARGIN} voxels of the structure's box that were not",
        "drawn, by their weight: how many are right, and their share. *Weight of the wrong*: the mean; taken as true",
        "each has 1.",
        "",
        f"| set | scans | {bins} | wrong voxels | weight of the wrong |",
        f"|---|---:|{'---:|' * (len(work.WEIGHTS) - 1)}---:|---:|",
    ]
    for row in rows:
        counts = np.array(row["counts"])
        every, wrong = counts[:, 0].sum(), (counts[:, 0] - counts[:, 1]).sum()
        cells = [f"{right / n:.1%} right ({n / every:.1%})" if n else "" for n, right in counts]
        cells += [f"{wrong / every:.1%}", f"{row['mass'][1] / wrong:.2f}" if wrong else ""]
        lines.append(f"| {TITLES[row['set']]} | {row['scans']} | {' | '.join(cells)} |")
    return [*lines, ""]
