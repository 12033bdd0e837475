# SPDX-License-Identifier: Apache-2.0
"""The sections on simulated work: minutes to the same Dice, rules against a baseline."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from barl.benchmark.simulation import simulations_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Benchmarks"))

import simulated_work as page

WHOLE, CUBES = {"kind": "whole"}, {"kind": "regions"}
PLAN = {
    "dataset": "hippocampus", "seeds": [0, 1], "plan": {"iterations": 3}, "pool": 9, "every": 4,
    "common": {"start": 1, "step": 1, "rounds": 2},
    "strategies": [
        {"name": page.BASE, "correct": WHOLE},
        {"name": "slices", "correct": {"kind": "slices", "n": 4}},
        {"name": "whole, BARL's next", "correct": WHOLE, "choose": "next"},
        {"name": page.CUBES, "correct": CUBES},
        {"name": "cubes, ClaSP PE", "correct": CUBES},
    ],
}  # fmt: skip
# Minutes and Dice after each round; each case is 0.1 below or above.
FOUND = {
    page.BASE: ((10, 0.6), (20, 0.8)),
    "slices": ((4, 0.7), (8, 0.9)),
    "whole, BARL's next": ((10, 0.6), (20, 0.75)),
    page.CUBES: ((5, 0.5), (9, 0.6)),
    "cubes, ClaSP PE": ((5, 0.5), (9, 0.62)),
}


@pytest.fixture
def a_study(tmp_path):
    for one in simulations_of(PLAN):
        rounds = [
            {
                "work": {"cases": 1, "planes": 1, "voxels": 1, "places": 1, "minutes": minutes},
                "dice": dice,
                "cases": {f"case {n}": dice + (n % 2 - 0.5) / 5 for n in range(8)},
            }
            for minutes, dice in FOUND[one.name]
        ]
        (tmp_path / one.file_name).write_text(json.dumps({"rounds": rounds, "machine": "this one"}), "utf-8")
    return tmp_path


def test_minutes_to_a_dice_lie_between_two_rounds(a_study):
    base = page.read_rounds(a_study, PLAN)[page.BASE]
    assert page.minutes_of(base, 0.7) == pytest.approx(15)
    assert page.minutes_of(base, 0.8) == pytest.approx(20)
    assert page.minutes_of(base, 0.9) is None and page.minutes_of(base, 0.5) is None


def test_sections_compare_each_strategy_with_its_baseline(a_study, monkeypatch):
    document = a_study / "page.md"
    (a_study / "plan.json").write_text(json.dumps(PLAN), "utf-8")
    document.write_text("# A page\n\n## Aims\n\nkept\n", "utf-8")
    command = ["simulated_work.py", str(a_study), "--plan", str(a_study / "plan.json"), "--document", str(document)]
    monkeypatch.setattr(sys, "argv", command)
    page.main()
    text = document.read_text("utf-8")
    assert "| slices | 0 | 4.0 | 0.700 | 15.0 | 27 % | -10.0 (20 % of 20.0; 0.0078) |" in text
    assert "| slices | 1 | 8.0 | 0.900 | over 20.0 | under 40 % | +10.0 (40 % of 20.0; 0.0078) |" in text
    assert "the Dice rises by 20.0 points (seeds: +20.0, +20.0; p over the test scans 0.0078)" in text
    assert "| whole, BARL's next | 1 | -5.0 | -5.0, -5.0 | 0.0078 |" in text
    assert "| cubes, ClaSP PE | 1 | +2.0 | +2.0, +2.0 | 0.0078 |" in text
    assert "Dice on 8 scans of unseen subjects (every 4th of the test part)" in text and "\n## Aims\n\nkept\n" in text
    for name in ("work", "cases", "regions"):
        assert (a_study / "images" / f"guidance-{name}-hippocampus.png").stat().st_size > 1000
