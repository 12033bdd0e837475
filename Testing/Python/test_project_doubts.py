# SPDX-License-Identifier: Apache-2.0
"""Scans and outlines that are usable but probably a mistake: told, and taken only when confirmed."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import Cancelled, InputError, NotFiniteError
from barl.images.writing import write_image
from barl.project.doubts import Doubt, DoubtError, as_doubts
from barl.project.labels import Channel, Label
from barl.project.scans import NewCase, add_cases
from barl.project.store import Project


def a_scan(seed: int = 0) -> sitk.Image:
    values = np.random.default_rng(seed).normal(100, 20, (6, 8, 10))
    return sitk.GetImageFromArray(values.round().astype(np.int16))


def a_map() -> sitk.Image:
    array = np.zeros((6, 8, 10), np.uint8)
    array[2:4, 2:6, 3:7] = 1
    return sitk.GetImageFromArray(array)


@pytest.fixture
def project(tmp_path: Path):
    with Project.create(tmp_path / "p", "p", [Label(1, "tumor")], [Channel("CT")]) as project:
        project.cases.add("a", [a_scan()], label=a_map())
        yield project


def test_the_same_voxels_are_found_whatever_the_file(project: Project) -> None:
    other = sitk.Cast(a_scan(), sitk.sitkFloat32)
    other.SetSpacing((2, 2, 2))
    with pytest.raises(DoubtError, match="same voxels as that of the case 'a'") as caught:
        project.cases.add("b", [other], allow=())
    assert caught.value.doubt is Doubt.SAME_SCAN and "held out" not in caught.value.message
    with pytest.raises(DoubtError, match="Only one of them would be held out"):
        project.cases.add("b", [a_scan()], held_out=True, allow=())
    assert project.cases.add("b", [other], allow=[Doubt.SAME_SCAN]).name == "b"
    assert project.cases.add("c", [a_scan(1)], allow=()).name == "c"
    project.cases.delete("c")
    assert project.cases.add("c", [a_scan(1)], allow=()).name == "c", "what was deleted does not count"


def test_scans_of_older_versions_are_compared_by_their_files(project: Project) -> None:
    with project.database.write() as transaction:
        transaction.amend("journal", "UPDATE journal SET facts = ?", ('{"held_out": false}',))
    with pytest.raises(DoubtError, match="same voxels"):
        project.cases.add("b", [a_scan()], allow=())


def test_a_label_map_is_no_scan_and_an_empty_outline_is_asked_about(project: Project) -> None:
    with pytest.raises(DoubtError, match="only 2 different values, like a label map") as caught:
        project.cases.add("b", [a_map()], allow=())
    assert caught.value.doubt is Doubt.LABEL_MAP
    empty = sitk.Image([10, 8, 6], sitk.sitkUInt8)
    with pytest.raises(DoubtError) as caught:
        project.cases.add("b", [a_scan(1)], label=empty, allow=())
    assert caught.value.doubt is Doubt.EMPTY
    constant = sitk.Image([10, 8, 6], sitk.sitkInt16)
    assert project.cases.add("b", [constant], allow=()).name == "b", "a constant scan is no label map"
    assert project.cases.add("c", [a_map()], label=empty, allow=[Doubt.LABEL_MAP, Doubt.EMPTY]).is_accepted


def test_a_folder_takes_what_is_right_and_tells_the_rest(project: Project, tmp_path: Path, capsys) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    write_image(a_scan(), scans / "again.nii.gz")
    write_image(a_map(), scans / "map.nii.gz")
    write_image(a_scan(2), scans / "right.nii.gz")
    assert main(["add", str(project.folder), "--images", str(scans), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert [case["name"] for case in answer["cases"]] == ["right"]
    assert ["--allow same-scan" in case["remedy"] for case in answer["failed"]] == [True, False]
    again = ["add", str(project.folder), str(scans / "again.nii.gz"), "--allow", "same-scan"]
    assert main(again) == 0


def test_requests_say_true_or_false_and_name_doubts_that_exist(project: Project) -> None:
    case = {"name": "b", "channels": ["b.nii.gz"]}
    for wrong in ("false", 0, None, []):
        with pytest.raises(InputError, match="neither true nor false"):
            NewCase.from_json({**case, "held_out": wrong})
    with pytest.raises(InputError, match="neither true nor false"):
        Label.from_json({"value": 1, "name": "x", "lateral": "no"})
    with pytest.raises(InputError, match="no doubt 'everything'"):
        as_doubts(["everything"])
    intake = add_cases(project, [NewCase("b", (Path("missing.nii.gz"),))], allow=as_doubts(["empty"]))
    assert len(intake.left_out) == 1


def test_every_error_comes_back_from_another_process_as_it_was():
    """A pool of multiprocessing waits for ever for one that does not."""

    doubt = DoubtError(Doubt.EMPTY, "The outline is empty.", "Look again.")
    for error in (InputError("What is wrong.", "What to do."), NotFiniteError(), Cancelled(), doubt):
        again = copy.copy(error)  # by the same way
        assert (type(again), str(again), again.args, vars(again)) == (type(error), str(error), error.args, vars(error))
