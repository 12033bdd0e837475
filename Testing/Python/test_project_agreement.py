# SPDX-License-Identifier: Apache-2.0
"""Agreement of predictions with their corrections, and scans found in folders."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError, ProjectError
from barl.project.case_finding import find_cases
from barl.project.labels import Channel, Label
from barl.project.scans import NewCase, add_cases
from barl.project.store import Project

LABELS = [Label(1, "liver"), Label(3, "tumor")]


def a_map(ones: slice, threes: slice = slice(0)) -> sitk.Image:
    array = np.zeros((4, 5, 20), np.uint8)
    array[1, 2, ones] = 1
    array[2, 2, threes] = 3
    return sitk.GetImageFromArray(array)


@pytest.fixture
def a_project(tmp_path):
    with Project.create(tmp_path / "project", "study", LABELS, [Channel("CT")]) as project:
        project.cases.add("case 1", [sitk.GetImageFromArray(np.zeros((4, 5, 20), np.float32))])
        yield project


def test_dice_is_the_mean_over_the_labels_that_are_there(a_project):
    case = a_project.cases.all()[0].id
    a_project.revisions.store(case, a_map(slice(0, 6), slice(0, 4)), "prediction", author="model")
    assert a_project.agreements.all() == {}, "nothing to compare with yet"
    accepted = a_project.revisions.store(case, a_map(slice(2, 8)), "accepted", author="reader")
    before = a_project.agreements.all()[case]
    assert (before.measured, before.dice) == (False, None)
    assert a_project.agreements.measure() == 1
    # liver: 2 * 4 / (6 + 6); tumor: predicted, but there is none
    after = a_project.agreements.all()[case]
    assert after.correction == accepted.id and after.dice == pytest.approx((2 / 3 + 0) / 2, abs=1e-4)
    facts = a_project.journal.entries(case)[-1].facts
    assert facts["labels"] == {"1": pytest.approx(0.6667), "3": 0.0}
    assert a_project.agreements.measure() == 0, "measured once"


def test_newer_outline_is_compared_with_the_prediction_before_it(a_project):
    case = a_project.cases.all()[0].id
    first = a_project.revisions.store(case, a_map(slice(0, 6)), "prediction", author="model")
    a_project.revisions.store(case, a_map(slice(0, 6)), "accepted", author="reader")
    a_project.revisions.store(case, a_map(slice(9, 12)), "prediction", author="later model")
    a_project.agreements.measure()
    assert a_project.agreements.all()[case].prediction == first.id
    assert a_project.agreements.all()[case].dice == 1
    a_project.revisions.store(case, a_map(slice(9, 12)), "accepted", author="reader")
    assert a_project.agreements.all()[case].measured is False
    a_project.agreements.measure()
    assert a_project.agreements.all()[case].dice == 1


def test_two_empty_maps_have_no_dice_and_are_not_measured_again(a_project):
    case = a_project.cases.all()[0].id
    for kind in ("prediction", "accepted"):
        a_project.revisions.store(case, a_map(slice(0)), kind, author="somebody")
    assert a_project.agreements.measure() == 1
    assert (a_project.agreements.all()[case].measured, a_project.agreements.all()[case].dice) == (True, None)
    assert a_project.agreements.measure() == 0


def test_missing_label_map_is_one_sentence(a_project):
    case = a_project.cases.all()[0].id
    prediction = a_project.revisions.store(case, a_map(slice(1)), "prediction", author="model")
    a_project.revisions.store(case, a_map(slice(1)), "accepted", author="reader")
    prediction.path.unlink()
    with pytest.raises(ProjectError, match="cannot be read"):
        a_project.agreements.measure()


def test_excluded_case_comes_back_as_its_label_maps_tell(a_project):
    case = a_project.cases.all()[0].id
    for kind, state in ((None, "new"), ("prediction", "predicted"), ("draft", "in_review"), ("accepted", "accepted")):
        if kind:
            a_project.revisions.store(case, a_map(slice(2)), kind, author="somebody")
        a_project.cases.set_state(case, "excluded")
        assert a_project.cases.include(case).state == state
    assert a_project.cases.include(case).state == "accepted", "one that was not excluded stays as it is"


def test_folder_is_sorted_into_cases_by_the_channels_patterns(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.float32))
    for name in ("p1_t1.nii.gz", "p1_t1c.nii.gz", "p2_t1.nii.gz", "p2_t1c.nii.gz"):
        sitk.WriteImage(image, str(tmp_path / name))
    channels = [Channel("T1c", "_t1c"), Channel("T1", "_t1")]
    found = find_cases(tmp_path, channels, held_out=True).cases
    assert [(case.name, [path.name for path in case.channels], case.held_out) for case in found] == [
        ("p1", ["p1_t1c.nii.gz", "p1_t1.nii.gz"], True),
        ("p2", ["p2_t1c.nii.gz", "p2_t1.nii.gz"], True),
    ]
    half = find_cases(tmp_path, [Channel("T1c", "_t1c"), Channel("T1")]).cases
    assert [[path.name for path in case.channels] for case in half] == [
        ["p1_t1c.nii.gz", "p1_t1.nii.gz"],
        ["p2_t1c.nii.gz", "p2_t1.nii.gz"],
    ], "the names' ends tell which channel has no pattern yet"
    (tmp_path / "p2_t1.nii.gz").unlink()
    content = find_cases(tmp_path, channels)
    assert [case.name for case in content.cases] == ["p1"]
    assert [(item.name, item.reason.message) for item in content.left_out] == [
        ("p2", "The case 'p2' has no file of channel T1.")
    ]


def test_pattern_of_a_single_channel_counts_and_two_files_of_one_are_told(tmp_path):
    for name in ("p1_0000.nii.gz", "p1_0001.nii.gz", "p2_0000.nrrd"):
        (tmp_path / name).touch()
    found = find_cases(tmp_path, [Channel("CT", "_0000")]).cases
    assert [(case.name, case.channels[0].name) for case in found] == [("p1", "p1_0000.nii.gz"), ("p2", "p2_0000.nrrd")]
    assert [case.name for case in find_cases(tmp_path, [Channel("CT")]).cases] == ["p1_0000", "p1_0001", "p2_0000"]
    (tmp_path / "p2_0000.nii").touch()
    for channel, case in ((Channel("CT", "_0000"), "p2"), (Channel("CT"), "p2_0000")):
        content = find_cases(tmp_path, [channel])
        assert case not in [found.name for found in content.cases]
        (left,) = [item for item in content.left_out if item.name == case]
        assert left.reason.message == f"'p2_0000.nii' and 'p2_0000.nrrd' are both CT of the case '{case}'."


def test_case_that_cannot_be_used_keeps_no_other_waiting(a_project, tmp_path):
    good, missing = tmp_path / "good.nii.gz", tmp_path / "missing.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.float32)), str(good))
    asked = [
        NewCase("lost", (missing,)),
        NewCase("series", ((missing,),)),
        NewCase.from_json({"name": "fine", "channels": [str(good)], "held_out": True, "group": "s1"}),
    ]
    intake = add_cases(a_project, asked)
    assert [(item.case.name, item.case.held_out, item.case.group) for item in intake.added] == [("fine", True, "s1")]
    assert [item.name for item in intake.left_out] == ["lost", "series"]
    assert "drive" in str(intake.left_out[1].reason)
    with pytest.raises(InputError, match="cannot be read"):
        NewCase.from_json({"name": "no channels"})
