# SPDX-License-Identifier: Apache-2.0
"""Nothing of the expert's is replaced by an oversight: accepting, replacing and bringing back outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError, ProjectError
from barl.images.writing import write_image
from barl.project.acceptance import accept, revert
from barl.project.doubts import Doubt, DoubtError
from barl.project.labels import Channel, Label
from barl.project.review import store_correction
from barl.project.store import Project


def a_scan(seed: int = 0) -> sitk.Image:
    return sitk.GetImageFromArray(np.random.default_rng(seed).normal(100, 20, (6, 8, 10)).astype(np.float32))


def a_map(*slices: int) -> sitk.Image:
    array = np.zeros((6, 8, 10), np.uint8)
    array[list(slices), 2:6, 3:7] = 1
    return sitk.GetImageFromArray(array)


def pixels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture
def project(tmp_path: Path):
    with Project.create(tmp_path / "p", "p", [Label(1, "tumor")], [Channel("CT")]) as project:
        project.cases.add("a", [a_scan()], label=a_map(1, 2, 3), author="expert")
        project.revisions.store("a", a_map(1, 2, 4), "prediction", author="BARL", case_uncertainty=0.2)
        yield project


def doubt_of(call, *arguments, **options) -> Doubt:
    with pytest.raises(DoubtError) as caught:
        call(*arguments, **options)
    assert caught.value.message.endswith(".") and "--" in caught.value.remedy
    return caught.value.doubt


def test_a_prediction_takes_no_expert_outline_away_unless_that_is_said(project: Project) -> None:
    expert, prediction = project.revisions.of("a")
    assert doubt_of(accept, project, "a", prediction, author="x") is Doubt.REPLACES
    assert project.revisions.accepted_label("a") == expert.path and len(project.revisions.of("a")) == 2
    stored = accept(project, "a", prediction, author="x", allow=[Doubt.REPLACES])
    assert stored.replaced == expert and stored.difference == pytest.approx(2 / 4)
    assert np.array_equal(pixels(stored.revision.path), pixels(prediction.path))
    words = stored.in_words("a")
    assert expert.id in words and "expert" in words and "50%" in words and "Nothing was removed" in words
    facts = project.journal.entries("case_0001")[-1].facts
    assert facts["from"] == f"prediction {prediction.id}" and facts["replaces"] == expert.id


def test_empty_and_strange_outlines_are_taken_only_if_confirmed(project: Project) -> None:
    assert doubt_of(accept, project, "a", a_map(), author="x") is Doubt.EMPTY
    assert doubt_of(accept, project, "a", a_map(5), author="x") is Doubt.DIFFERENT
    assert accept(project, "a", a_map(1, 2), author="x").difference == pytest.approx(1 / 3)
    assert accept(project, "a", a_map(5), author="x", allow=[Doubt.DIFFERENT]).difference == 1
    stored = accept(project, "a", a_map(), author="x", allow=[Doubt.EMPTY, Doubt.DIFFERENT])
    assert not pixels(stored.revision.path).any()


def test_an_outline_refused_as_different_stays_as_a_draft(project: Project, tmp_path: Path) -> None:
    with pytest.raises(DoubtError, match="kept as the draft r003") as caught:
        accept(project, "a", a_map(5), author="x")
    draft = project.revisions.newest("a")
    assert draft.is_draft and draft.id in caught.value.message and project.cases.get("a").is_accepted
    assert np.array_equal(pixels(draft.path), sitk.GetArrayFromImage(a_map(5)))
    assert doubt_of(accept, project, "a", a_map(5), author="x") is Doubt.DIFFERENT
    assert project.revisions.newest("a") == draft, "the same outline once more is not another draft"
    assert doubt_of(accept, project, "a", a_map(4, 5), author="x") is Doubt.DIFFERENT
    newest = project.revisions.newest("a")
    assert newest.id != draft.id
    assert doubt_of(accept, project, "a", draft, author="x", allow=[Doubt.REPLACES]) is Doubt.DIFFERENT
    assert project.revisions.newest("a") == newest, "a revision is in the project already"
    stored = accept(project, "a", draft, author="x", allow=[Doubt.DIFFERENT, Doubt.REPLACES])
    assert np.array_equal(pixels(stored.revision.path), pixels(draft.path))


def test_a_damaged_outline_does_not_keep_its_replacement_away(project: Project) -> None:
    project.revisions.accepted_label("a").write_bytes(b"rot")
    assert accept(project, "a", a_map(5), author="x").difference is None


def test_the_second_of_two_people_is_told_and_both_outlines_stay(project: Project) -> None:
    seen = project.revisions.newest("a").id  # both opened the case now
    first = accept(project, "a", a_map(1, 2), author="reader 1", since=seen)
    with pytest.raises(DoubtError, match=f"reader 1 has accepted .*{first.revision.id}") as caught:
        accept(project, "a", a_map(1, 2, 3), author="reader 2", since=seen)
    assert caught.value.doubt is Doubt.NEWER
    with pytest.raises(DoubtError):
        store_correction(
            project, "a", a_map(2, 3), "accepted", author="2", prediction=None, editing_seconds=1, since=seen
        )
    draft = project.revisions.newest("a")
    assert draft.is_draft and draft.id in caught.value.message and draft.author == "reader 2"
    assert project.cases.get("a").is_accepted and np.array_equal(
        pixels(draft.path), sitk.GetArrayFromImage(a_map(1, 2, 3))
    )
    accept(project, "a", a_map(1, 2, 3), author="reader 2", since=first.revision.id)
    accept(project, "a", a_map(1, 3), author="reader 1", since=seen, allow=[Doubt.NEWER])
    assert len(project.revisions.of("a")) == 6


def test_the_check_of_a_correction_is_the_same_in_the_window(project: Project) -> None:
    options = {"author": "x", "prediction": None, "editing_seconds": 1.0}
    assert doubt_of(store_correction, project, "a", a_map(), "accepted", **options, allow=()) is Doubt.EMPTY
    assert store_correction(project, "a", a_map(), "draft", **options, allow=()).is_draft
    assert store_correction(project, "a", a_map(), "accepted", **options).is_accepted


def test_any_revision_comes_back_as_what_it_was(project: Project) -> None:
    expert, prediction = project.revisions.of("a")
    accept(project, "a", prediction, author="x", allow=[Doubt.REPLACES])
    back = revert(project, "a", author="y")
    assert np.array_equal(pixels(back.revision.path), pixels(expert.path)) and back.revision.is_accepted
    assert project.journal.entries("case_0001")[-1].facts["from"] == f"accepted {expert.id}"
    revert(project, "a", prediction.id[:4], author="y")
    case = project.cases.get("a")
    assert case.state == "predicted" and not case.teaches, "a prediction does not teach"
    revert(project, "a", expert.id, author="y")
    assert project.cases.get("a").is_accepted and len(project.revisions.of("a")) == 6
    assert project.verify(everything=True) == []


def test_what_cannot_come_back_is_one_sentence(project: Project) -> None:
    with pytest.raises(InputError, match="no accepted outline before") as caught:
        revert(project, "a", author="x")
    assert all(revision.id in caught.value.remedy for revision in project.revisions.of("a"))
    with pytest.raises(InputError, match="no revision 'r009'"):
        revert(project, "a", "r009", author="x")
    with pytest.raises(InputError, match="no revision 'r'"):
        revert(project, "a", "r", author="x")
    expert = project.revisions.of("a")[0]
    expert.path.write_bytes(b"rot")
    with pytest.raises(ProjectError, match="not as it was stored"):
        revert(project, "a", expert.id, author="x")


def test_the_terminal_asks_what_is_meant(project: Project, tmp_path: Path, capsys) -> None:
    folder = str(project.folder)

    def barl(*words: object) -> tuple[int, str]:
        code = main([str(word) for word in words])
        seen = capsys.readouterr()
        return code, seen.out + seen.err

    code, text = barl("project", "accept", folder, "a")
    assert code == 2 and "--prediction" in text
    code, text = barl("project", "accept", folder, "a", "--prediction")
    assert code == 2 and "--replace" in text
    code, text = barl("project", "accept", folder, "a", "--prediction", "--replace")
    assert code == 0 and "It replaces r001-" in text
    code, text = barl("project", "revert", folder, "a")
    assert code == 0 and "accepted outline of a" in text
    write_image(a_map(), tmp_path / "empty.nii.gz")
    code, text = barl("project", "accept", folder, "a", tmp_path / "empty.nii.gz")
    assert code == 2 and "--allow empty" in text
    words = ("--allow", "empty", "--allow", "different")
    assert barl("project", "accept", folder, "a", tmp_path / "empty.nii.gz", *words)[0] == 0
    code, text = barl("project", "accept", folder, "a", tmp_path / "empty.nii.gz", *words, "--since", "r001")
    assert code == 2 and "meanwhile" in text
    code, text = barl("project", "history", folder)
    assert code == 0 and "from prediction r002-" in text and "case_0001" not in text
