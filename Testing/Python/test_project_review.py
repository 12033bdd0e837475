# SPDX-License-Identifier: Apache-2.0
"""Corrections and hot-spots looked at: what the journal says about them."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError, ProjectError
from barl.images.geometry import Grid
from barl.project.labels import Channel, Label
from barl.project.review import compare_label_maps, mark_hotspots, seen_hotspots, store_correction
from barl.project.store import Project

LABELS = [Label(1, "liver"), Label(300, "tumor")]
GRID = Grid((7, 6, 5), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (0, -1, 0, 1, 0, 0, 0, 0, 1))


def a_map(**voxels: slice) -> sitk.Image:
    array = np.zeros(GRID.shape, np.uint16)
    for name, part in voxels.items():
        array[1, 2, part] = {"liver": 1, "tumor": 300}[name]
    return GRID.image(array)


@pytest.fixture
def a_project(tmp_path):
    with Project.create(tmp_path / "project", "study", LABELS, [Channel("CT")]) as project:
        project.cases.add("case 1", [GRID.image(np.zeros(GRID.shape, np.float32))])
        yield project


def test_changes_are_counted_per_label_in_voxels_and_milliliters():
    before = sitk.GetArrayFromImage(a_map(liver=slice(0, 4)))
    after = sitk.GetArrayFromImage(a_map(liver=slice(1, 6), tumor=slice(5, 6)))
    liver, tumor = compare_label_maps(before, after, LABELS, GRID.voxel_ml)
    # voxel 0 was taken away, voxel 4 came on top, voxel 5 went to the tumor
    assert (liver.before_voxels, liver.after_voxels, liver.added_voxels, liver.removed_voxels) == (4, 4, 1, 1)
    assert (tumor.before_voxels, tumor.after_voxels, tumor.added_voxels, tumor.removed_voxels) == (0, 1, 1, 0)
    assert (tumor.added_ml, liver.before_ml) == (pytest.approx(0.006), pytest.approx(0.024))
    assert [change.removed_voxels for change in compare_label_maps(after, before * 0, LABELS, 1.0)] == [4, 1]
    assert [change.added_voxels for change in compare_label_maps(None, after, LABELS, 1.0)] == [4, 1]


def test_correction_says_who_changed_what_and_how_long_it_took(a_project):
    case = a_project.cases.all()[0].id
    prediction = a_project.revisions.store(case, a_map(liver=slice(0, 4)), "prediction", author="model")
    corrected = a_map(liver=slice(0, 5))
    draft = store_correction(
        a_project, case, corrected, "draft", author="reader 1", prediction=prediction, editing_seconds=30
    )
    assert draft.details["correction"]["editing_seconds_total"] == 30
    revision = store_correction(
        a_project, case, corrected, "accepted", author="reader 1", prediction=prediction, editing_seconds=12.34
    )
    stored = sitk.ReadImage(str(revision.path))
    assert np.array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(corrected))
    entry = a_project.journal.entries(case)[-1]
    assert entry.action == "revision stored"
    assert {name: entry.facts[name] for name in ("revision", "kind", "author", "prediction")} == {
        "revision": revision.id,
        "kind": "accepted",
        "author": "reader 1",
        "prediction": prediction.id,
    }
    assert (entry.facts["editing_seconds"], entry.facts["editing_seconds_total"]) == (12.3, 42.3)
    liver = entry.facts["labels"][0]
    assert (liver["name"], liver["added_voxels"], liver["added_ml"]) == ("liver", 1, pytest.approx(0.006))
    assert revision.details["correction"]["labels"] == entry.facts["labels"]
    later = store_correction(
        a_project, case, corrected, "accepted", author="reader 2", prediction=prediction, editing_seconds=1
    )
    assert later.details["correction"]["editing_seconds_total"] == 1, "the drafts belong to the outline before"


def test_outline_from_nothing_and_a_damaged_prediction_do_not_keep_a_correction_from_being_stored(a_project):
    case = a_project.cases.all()[0].id
    first = store_correction(
        a_project, case, a_map(liver=slice(0, 2)), "accepted", author="reader", prediction=None, editing_seconds=5
    )
    assert first.details["correction"]["prediction"] is None
    assert first.details["correction"]["labels"][0]["added_voxels"] == 2
    prediction = a_project.revisions.store(case, a_map(), "prediction", author="model")
    prediction.path.write_bytes(b"damaged")
    second = store_correction(
        a_project, case, a_map(liver=slice(0, 3)), "accepted", author="reader", prediction=prediction, editing_seconds=5
    )
    assert "not compared" in second.details["correction"]["note"]
    with pytest.raises(InputError):
        store_correction(
            a_project,
            case,
            sitk.GetImageFromArray(np.zeros((2, 2, 2), np.uint8)),
            "accepted",
            author="reader",
            prediction=prediction,
            editing_seconds=0,
        )


def test_ticks_survive_and_belong_to_one_prediction(a_project):
    case = a_project.cases.all()[0].id
    first = a_project.revisions.store(case, a_map(), "prediction", author="model")
    assert seen_hotspots(a_project, first) == set()
    mark_hotspots(a_project, first, {3, 1})
    mark_hotspots(a_project, first, {1})
    second = a_project.revisions.store(case, a_map(), "prediction", author="model")
    mark_hotspots(a_project, second, {2})
    with Project.open(a_project.folder, read_only=True) as again:
        assert seen_hotspots(again, first) == {1} and seen_hotspots(again, second) == {2}
        with pytest.raises(ProjectError):
            mark_hotspots(again, first, {2})
