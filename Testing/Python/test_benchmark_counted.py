# SPDX-License-Identifier: Apache-2.0
"""The benchmark of minutes: prices by hand, curves of a small cube, the section that is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from barl.images.geometry import Grid

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Benchmarks"))

import _counted_work_document as page
import _sections
import counted_work as work

SHAPE = (20, 20, 20)


@pytest.fixture
def a_cube(monkeypatch) -> work.Scan:
    monkeypatch.setattr(work, "INTERVALS", (4,))
    monkeypatch.setattr(work, "FIXED", (1, 2, 3))
    monkeypatch.setattr(work, "PROPOSED", 3)
    monkeypatch.setattr(work.few_slices, "itk", None)
    truth = np.zeros(SHAPE, bool)
    truth[6:14, 6:14, 6:14] = True
    scan = (100 * truth + np.random.default_rng(0).normal(0, 5, SHAPE)).astype(np.float32)
    grid = Grid(SHAPE, (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    return work.Scan("cube", [scan], truth, (1.0, 1.0, 1.0), grid)


def test_a_reader_pays_for_what_is_drawn(a_cube):
    reader = work.Reader(a_cube, np.zeros(SHAPE, bool))
    assert reader.draw(0, 8) == 0 and reader.draw(0, 8) == 1  # the second time nothing is wrong
    # 10 s for the case; 2 s a look, 3 s and 28 mm of contour for the first plane alone.
    assert reader.seconds == pytest.approx(10 + 2 + 3 + 0.15 * 28 + 2)
    assert reader.point() == [2, round(reader.seconds / 60, 3), round(2 * 64 / (64 + 512), 4), 28]
    reader.draw(1, 8)
    reader.fill()
    assert reader.point()[1] == round((reader.seconds + 5) / 60, 3)  # looked over
    assert reader.shown[8, 6:14, 6:14].all() and reader.planes == 3


def test_first_outlines_and_corrections_become_a_section(a_cube, tmp_path):
    first = work.outline(a_cube)
    assert first["curves"][work.BY_HAND] == [[8, pytest.approx((10 + 8 * (5 + 0.15 * 28)) / 60, abs=1e-3), 1, 224]]
    assert [point[0] for point in first["curves"][work.NEXT]] == [3, 4, 5, 6]
    assert [step["planes"] for step in first["expected"]] == [3, 4, 5, 6] and first["expected"][0]["parts"] == 1
    predicted = np.roll(a_cube.truth, 2, axis=0)
    unsure = np.where(predicted != a_cube.truth, 0.9, 0.1).astype(np.float32)
    second = work.correct(a_cube, predicted, unsure)
    for way in (work.SLICES, work.WORST):
        assert second["curves"][way][-1][2] == 1 and second["curves"][way][0][:2] == [0, round(10 / 60, 3)]
    rows = []
    for action, found in (("outlines", first), ("corrections", second)):
        model = {"model": "weak"} if action == "corrections" else {}
        rows += [
            {"action": action, "set": "sts_pet", "part": p, "case": "cube"} | model | found for p in ("test", "tuning")
        ]
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    document = tmp_path / "page.md"
    document.write_text("# A page\n\n## Minutes\n\nformer text\n\n## Last\n\nend\n")
    page.write(tmp_path / "rows", document)
    text = document.read_text()
    assert "former text" not in text and text.endswith("\n## Last\n\nend\n") and text.count("## Minutes\n") == 1
    assert "| Soft-tissue sarcoma, PET, 1 scans | every slice: 8 planes" in text and "### The Dice to expect" in text
    assert (tmp_path / "images" / "few-slices-corrections.png").stat().st_size > 1000


def test_a_way_that_ends_early_stays_where_it_was():
    rows = [
        {"curves": {work.BY_HAND: [[9, 4.0, 1.0, 60]], "way": [[1, 1.0, 0.5, 20], [2, 2.0, 0.9, 40]]}},
        {"curves": {work.BY_HAND: [[9, 2.0, 1.0, 60]], "way": [[1, 1.0, 0.7, 20]]}},
    ]
    np.testing.assert_allclose(page.mean_curve(rows, "way")[:, 1:3], [[1, 0.6], [1.5, 0.8]])
    np.testing.assert_allclose(page.mean_curve(rows, "way")[:, -1], [(0.25 + 0.5) / 2, (0.5 + 0.5) / 2])
    # 0.15 s more for a millimeter: 20 mm cost 0.05 minutes more, 60 mm 0.15.
    assert page.mean_curve(rows, "way", 0.30)[0, -1] == pytest.approx((1.05 / 4.15 + 1.05 / 2.15) / 2)


def test_a_section_is_put_at_the_end_of_a_page_that_lacks_it(tmp_path):
    document = tmp_path / "page.md"
    _sections.replace_section(document, "## One\n\na\n")
    _sections.replace_section(document, "## Two\n\nb\n")
    _sections.replace_section(document, "## One\n\nc\n")
    assert document.read_text() == "## One\n\nc\n\n## Two\n\nb\n"
