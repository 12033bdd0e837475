# SPDX-License-Identifier: Apache-2.0
"""The benchmark of what filled outlines teach, on small spheres."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.benchmark import datasets
from barl.project.labels import Label

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Benchmarks"))

import _filled_teaching_document as document
import filled_teaching as benchmark

SHAPE = (16, 18, 20)


@pytest.fixture
def a_set(tmp_path, monkeypatch) -> datasets.Dataset:
    """Seven subjects, of which two are tested: bright spheres in noise."""
    rng = np.random.default_rng(0)
    cases = []
    for n in range(7):
        distance = np.sqrt(((np.indices(SHAPE) - rng.uniform(7, 10, 3)[:, None, None, None]) ** 2).sum(0))
        label = (distance < 4.5).astype(np.uint8)
        paths = [tmp_path / f"{n}_{what}.nii.gz" for what in ("image", "label")]
        sitk.WriteImage(
            sitk.GetImageFromArray((3 * label + rng.normal(0, 1.5, SHAPE)).astype(np.float32)), str(paths[0])
        )
        sitk.WriteImage(sitk.GetImageFromArray(label), str(paths[1]))
        cases.append(datasets.OutlinedCase(f"case{n}", [paths[0]], paths[1], f"subject{n}"))
    made = datasets.Dataset("spheres", [Label(1, "sphere")], ["T1"], cases, 1, 2)
    monkeypatch.setattr(datasets, "load", lambda *_: made)
    return made


def options(tmp_path: Path, **values) -> argparse.Namespace:
    given = {"results": tmp_path / "rows", "set": "sts_pet", "seeds": [0], "methods": ["supervised"], "whole": 1}
    given |= {
        "arms": ["whole scans", "all whole", "drawn only", "hard", "weighted", "both"],
        "iterations": 2,
        "plan": {},
        "on": "tuning",
        "la": None,
    }
    return argparse.Namespace(**{**given, **values})


def test_subjects_come_in_one_order_and_the_same_planes_are_spread(a_set, tmp_path):
    groups = benchmark.subjects(a_set, 0)
    assert len(groups) == 4 and sorted(case.id for group in groups for case in group) == sorted(
        case.id for case in a_set.part("training")
    )
    cases, planes = benchmark.whole(groups, 1)
    assert cases == groups[0] and 8 <= planes <= 10
    filled, dice = benchmark.spread(groups, planes, tmp_path)
    assert len(filled) == planes // 3 and filled[0].id == groups[0][0].id and 0.6 < dice < 1
    twice, better = benchmark.spread(groups, 2 * planes, tmp_path, 2)
    assert len(twice) == planes // 3 and dice < better < 1


def test_a_case_is_drawn_in_three_planes_and_filled(a_set, tmp_path):
    case = benchmark.subjects(a_set, 0)[0][0]
    filled, dice = benchmark.fill_case(case, tmp_path)
    label, looked, unsure, truth = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        for path in (filled.label, filled.looked, filled.uncertainty, case.label)
    )
    assert [int(looked.all(axis=axes).sum()) for axes in ((1, 2), (0, 2), (0, 1))] == [1, 1, 1]
    assert (label[looked == 1] == truth[looked == 1]).all() and unsure[looked == 1].max() == 0 < unsure.max() <= 1
    assert dice == pytest.approx(2 * (label & truth).sum() / (label.sum() + truth.sum()))


def test_filled_voxels_are_counted_by_their_weight(a_set, tmp_path, capsys):
    benchmark.weigh(options(tmp_path, scans=3))
    row = json.loads(capsys.readouterr().out)
    counts = np.array(row["counts"])
    assert row["scans"] == 3 and (counts[:, 1] <= counts[:, 0]).all() and counts[-1, 0] > counts[0, 0]
    near = [sitk.GetArrayFromImage(sitk.ReadImage(str(case.label))) for case in a_set.training_files(None, 0)[:3]]
    boxes = [np.zeros(SHAPE, bool) for _ in near]
    for box, truth in zip(boxes, near, strict=True):
        box[benchmark._around(truth > 0)] = True
    assert counts[:, 0].sum() < sum(box.sum() for box in boxes)  # without what was drawn
    right, wrong = counts[:, 1].sum(), (counts[:, 0] - counts[:, 1]).sum()
    assert wrong > 0 and row["mass"][1] / wrong < 0.8 < row["mass"][0] / right
    document.write(tmp_path / "rows", tmp_path / "page.md")
    assert "which of them teaches best is not known" in (tmp_path / "page.md").read_text()
    assert "| Soft-tissue sarcoma, PET | 3 |" in (tmp_path / "page.md").read_text()


def test_each_run_is_kept_and_the_page_gets_a_section_of_its_own(a_set, tmp_path):
    benchmark.run(options(tmp_path))
    rows = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "rows").glob("*.json")}
    assert sorted(row["arm"] for row in rows.values()) == ["all whole", "drawn only", "hard", "weighted", "whole scans"]
    assert len({row["dice"] for row in rows.values()}) > 1  # the arms teach otherwise
    assert {row["scans"] for row in rows.values()} == {1, 4, rows["sts_pet_hard_supervised_2_0"]["planes"] // 3}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").glob("*.json")}
    benchmark.run(options(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").glob("*.json")} == before
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n## First\n\ntext\n\n## Last\n\nend\n")
    for _ in range(2):
        document.write(tmp_path / "rows", page)
    text = page.read_text()
    assert text.count(document.HEADING) == 1 and text.startswith("# A page\n\n## First") and "## Last\n\nend" in text
    assert (
        "| supervised | hard |" in text and "points, p = " in text and "### Soft-tissue sarcoma, PET, 2 steps" in text
    )
    assert "| supervised, *hard*: within 1 point of all whole |" in text


def test_a_published_table_of_another_set_stays(a_set, tmp_path):
    page = tmp_path / "page.md"
    old = "### Hippocampus, MR, 200 steps\n\n| method | kept |\n|---|---|\n| supervised | 0.8 |\n"
    page.write_text(f"# A page\n\n{document.HEADING}\n\nold\n\n{old}\n## Last\n\nend\n")
    row = {"set": "sts_pet", "scans": 1, "counts": [[2, 1]] * 5, "mass": [4.0, 2.0]}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "weights.json").write_text(json.dumps(row))
    for _ in range(2):
        document.write(tmp_path / "rows", page)
    text = page.read_text()
    assert text.count(old) == 1 and "| Soft-tissue sarcoma, PET | 1 |" in text and "is not known" not in text
    assert text.index(old) < text.index("### How right filled voxels are") < text.index("## Last\n\nend")


def test_an_aim_is_met_level_or_missed():
    behind = document.Aim("not behind", ("hard",), ("supervised", "whole scans"))
    found = [behind.verdict(own, 0.8, p) for own, p in ((0.8, 1), (0.79, 0.05), (0.79, 0.04))]
    assert found == ["met", "level", "missed"]
    share = document.Aim("99 %", ("hard",), ("supervised", "all whole"), share=0.99)
    assert [share.verdict(own, 0.8, 0.5) for own in (0.792, 0.791)] == ["met", "missed"]
