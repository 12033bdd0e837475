# SPDX-License-Identifier: Apache-2.0
"""The label table: what is refused, and that a table survives JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError
from barl.images.fingerprint import fingerprint_case
from barl.project.labels import Channel, Code, Label, Terminology, check_channels, check_labels
from barl.project.store import Project
from barl.training.plan import make_plan

LEFT_KIDNEY = Terminology(
    category=Code("SCT", "123037004", "Anatomical Structure"),
    type=Code("SCT", "64033007", "Kidney"),
    modifier=Code("SCT", "7771000", "Left"),
)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([], "empty"),
        ([Label(0, "air")], "value 0"),
        ([Label(-1, "a")], "out of range"),
        ([Label(65536, "a")], "out of range"),
        ([Label(1.5, "a")], "whole number"),
        ([Label(True, "a")], "whole number"),
        ([Label("1", "a")], "whole number"),
        ([Label(1, "a"), Label(1, "b")], "value 1 is used twice"),
        ([Label(1, "Liver"), Label(2, " liver ")], "'liver' is used twice"),
        ([Label(1, "  ")], "no name"),
        ([Label(1, "Background")], "'Background', which is the value 0"),
        ([Label(1, "a"), Label(2, "Ignore")], "value 2 is named 'Ignore', .* nobody has looked at"),
        ([Label(1, "a", color=(0, 0, 256))], "color"),
        ([Label(1, "a", color=(0, 0))], "color"),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence(labels: list[Label], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check_labels(labels)
    assert caught.value.remedy


def test_a_table_is_sorted_by_value_up_to_the_largest() -> None:
    table = check_labels([Label(65535, "b"), Label(1, "a")])
    assert [label.value for label in table] == [1, 65535]


def test_a_label_survives_json() -> None:
    label = Label(7, "left kidney", (1, 2, 3), LEFT_KIDNEY, lateral=True)
    assert Label.from_json(json.loads(json.dumps(label.to_json()))) == label
    assert Label.from_json({"value": 1, "name": "a"}) == Label(1, "a")


@pytest.mark.parametrize("row", [{}, {"value": 1}, [], {"value": 1, "name": "a", "terminology": {"type": 3}}])
def test_a_row_that_is_no_label_is_refused(row: object) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Label.from_json(row)


@pytest.mark.parametrize(
    ("channels", "words"),
    [([], "no image channel"), ([Channel(" ")], "no name"), ([Channel("T1"), Channel("t1")], "used twice")],
)
def test_wrong_channels_are_refused(channels: list[Channel], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_channels(channels)


def test_a_label_whose_name_sounds_like_a_side_can_be_of_no_side(tmp_path, capsys):
    folder = str(tmp_path / "p")
    assert main(["project", "new", folder, "--label", "1=right atrium", "--label", "2=left atrium"]) == 0
    assert "--set-lateral VALUE=no" in capsys.readouterr().out
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 10, (8, 9, 10)).astype(np.float32))

    def mirrored() -> bool:
        with Project.open(folder, read_only=True) as project:
            print_ = fingerprint_case([image], None, project.values)
            return make_plan([print_], project.labels, ["image"]).mirror_axes == (2,)

    assert not mirrored()
    assert main(["project", "labels", folder, "--set-lateral", "1=no"]) == 0
    assert not mirrored(), "the other one is of a side still"
    assert main(["project", "labels", folder, "--set-lateral", "2=no"]) == 0
    assert mirrored() and "not mirrored" in capsys.readouterr().out
    with Project.open(folder, read_only=True) as project:
        assert [label.to_json()["not_lateral"] for label in project.labels] == [True, True]
    assert main(["project", "labels", folder, "--set-lateral", "2=yes"]) == 0
    assert not mirrored()
    for wrong in ("2=perhaps", "x=yes", "2"):
        assert main(["project", "labels", folder, "--set-lateral", wrong]) == 2
    assert main(["project", "labels", folder, "--set-lateral", "7=no"]) == 3
    words = ["--label", "1=right atrium", "--not-lateral", "1"]
    assert main(["project", "new", str(tmp_path / "q"), *words]) == 0
    with Project.open(tmp_path / "q", read_only=True) as project:
        (label,) = project.labels
        assert not label.lateral and label.not_lateral
    assert main(["project", "new", str(tmp_path / "r"), *words, "--lateral", "1"]) == 2
