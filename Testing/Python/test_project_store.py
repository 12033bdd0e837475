# SPDX-License-Identifier: Apache-2.0
"""The case store: what goes in comes out, what may not happen is refused in one sentence."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError, ModelError, ProjectError
from barl.images.geometry import Grid
from barl.project.labels import Channel, Label
from barl.project.store import Project

SIZE = (8, 7, 6)


def make_scan(seed: int = 0, spacing: tuple[float, ...] = (1.0, 1.5, 3.0)) -> sitk.Image:
    """An oblique scan with metadata that must not travel."""
    rng = np.random.default_rng(seed)
    scan = sitk.GetImageFromArray(rng.normal(100, 20, SIZE[::-1]).astype(np.float32))
    scan.SetSpacing(spacing)
    scan.SetOrigin((-12.25, 7.5, 33.0))
    cos, sin = np.cos(0.3), np.sin(0.3)
    scan.SetDirection((cos, -sin, 0, sin, cos, 0, 0, 0, 1))
    scan.SetMetaData("0010|0010", "DOE^JANE")
    return scan


def make_label(scan: sitk.Image, value: int = 3, seed: int = 0) -> sitk.Image:
    mask = np.random.default_rng(seed).random(SIZE[::-1]) > 0.5
    return Grid.of(scan).image((mask * value).astype(np.uint8))


@pytest.fixture
def project(tmp_path: Path):
    labels = [Label(3, "lesion", (255, 0, 0)), Label(1, "liver", lateral=False)]
    with Project.create(tmp_path / "project", "Livers", labels, [Channel("CT", "_ct")]) as project:
        yield project


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"weights")
    return folder


# What goes in comes out


def test_a_project_opens_as_it_was_made(project: Project) -> None:
    with Project.open(project.folder) as again:
        assert again.name == "Livers"
        assert again.labels == [Label(1, "liver"), Label(3, "lesion", (255, 0, 0))]
        assert again.values == [1, 3]
        assert again.channels == [Channel("CT", "_ct")]
        assert again.cases() == [] and again.models() == [] and again.runs() == []
        assert again.current_model() is None


def test_a_case_keeps_pixels_and_geometry_but_no_metadata_and_no_name(project: Project) -> None:
    scan = make_scan()
    case = project.add_case("Case 7", [scan], group="subject 1", held_out=True)
    assert (case.id, case.name, case.state, case.held_out, case.group) == (
        "case_0001",
        "Case 7",
        "new",
        True,
        "subject 1",
    )
    (path,) = project.image_paths("Case 7")
    assert path == project.folder / "cases/case_0001/image_CT.nii.gz"
    stored = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(scan))
    assert Grid.of(stored).matches(Grid.of(scan))
    assert project.case_grid(case.id) == Grid.of(stored)
    assert b"DOE" not in gzip.decompress(path.read_bytes()) + (project.folder / "project.db").read_bytes()
    assert "Case 7" not in str(list(project.folder.rglob("*")))


def test_a_file_gives_the_same_case_as_the_image_in_memory(project: Project, tmp_path: Path) -> None:
    scan = make_scan()
    sitk.WriteImage(scan, str(tmp_path / "scan.nrrd"))
    sitk.WriteImage(make_label(scan), str(tmp_path / "label.nrrd"))
    a = project.add_case("memory", [scan], label=make_label(scan))
    b = project.add_case("file", [tmp_path / "scan.nrrd"], label=tmp_path / "label.nrrd")
    assert a.state == b.state == "accepted"
    pixels = [sitk.GetArrayFromImage(sitk.ReadImage(str(project.accepted_label(case.id)))) for case in (a, b)]
    assert np.array_equal(*pixels)
    assert project.case_grid(a.id) == project.case_grid(b.id)


def test_every_label_map_is_a_revision_of_its_own(project: Project) -> None:
    scan = make_scan()
    case = project.add_case("a", [scan])
    assert project.newest("a") is None and project.accepted_label("a") is None
    model = project.add_model(make_model(project.folder.parent / "m"), {})
    shares = np.random.default_rng(5).random(SIZE[::-1]).astype(np.float32)
    uncertainty = Grid.of(scan).image(shares)
    prediction = project.store_revision(
        case.id,
        make_label(scan, seed=1),
        "prediction",
        author="BARL",
        model_id=model.id,
        uncertainty=uncertainty,
        case_uncertainty=0.25,
        embedding=[1, 2, 3],
        details={"ml": 3.5},
    )
    assert project.case("a").state == "predicted"
    draft = project.store_revision("a", make_label(scan, seed=2), "draft", author="reader 1")
    assert project.case("a").state == "in_review"
    first = project.store_revision("a", make_label(scan, seed=3), "accepted", author="reader 1")
    second = project.store_revision("a", make_label(scan, seed=4), "accepted", author="reader 2")
    assert [revision.id for revision in project.revisions("a")] == [prediction.id, draft.id, first.id, second.id]
    assert project.newest("a") == second
    assert project.newest("a", ("prediction", "draft")) == draft
    assert project.newest("a", "prediction") == prediction
    assert prediction.details == {"ml": 3.5} and prediction.model_id == model.id
    kept = sitk.ReadImage(str(prediction.uncertainty_path))
    assert np.abs(sitk.GetArrayFromImage(kept) - shares).max() <= 1 / 512
    assert Grid.of(kept) == project.case_grid("a")
    for seed, revision in enumerate((prediction, draft, first, second), start=1):
        stored = sitk.ReadImage(str(revision.path))
        assert np.array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(make_label(scan, seed=seed)))
        assert Grid.of(stored) == project.case_grid("a")
    assert project.accepted_label("a") == second.path
    now = project.case("a")
    assert (now.state, now.uncertainty, now.newest_revision, now.model_id) == ("accepted", 0.25, second.id, model.id)
    assert now.embedding.tolist() == [1, 2, 3]
    assert project.verify(everything=True) == []


def test_a_new_prediction_does_not_take_back_an_acceptance(project: Project) -> None:
    scan = make_scan()
    project.add_case("a", [scan], label=make_label(scan))
    project.add_case("b", [scan])
    project.set_state("b", "excluded")
    for name in "ab":
        project.store_revision(name, make_label(scan, seed=9), "prediction", author="BARL", case_uncertainty=0.5)
    assert [case.state for case in project.cases()] == ["accepted", "excluded"]
    assert project.newest("a").kind == "prediction"
    assert project.newest("a", "accepted").path == project.accepted_label("a")


def test_several_channels_get_readable_file_names(tmp_path: Path) -> None:
    channels = [Channel("T1 post-contrast"), Channel("FLAIR")]
    with Project.create(tmp_path / "p", "MS", [Label(1, "lesion")], channels) as project:
        project.add_case("a", [make_scan(0), make_scan(1)])
        assert [path.name for path in project.image_paths("a")] == [
            "image_T1_post-contrast.nii.gz",
            "image_FLAIR.nii.gz",
        ]
    with Project.create(tmp_path / "q", "MS", [Label(1, "lesion")], [Channel("a/b"), Channel("a\\b")]) as project:
        project.add_case("a", [make_scan(0), make_scan(1)])
        assert [path.name for path in project.image_paths("a")] == ["image_0.nii.gz", "image_1.nii.gz"]


def test_cases_are_found_by_id_and_name_and_listed_by_state(project: Project) -> None:
    for name in ("a", "b", "c"):
        project.add_case(name, [make_scan()])
    project.set_state("b", "in_review")
    assert project.case("case_0002").name == project.case(" B ").name == "b"
    assert [case.name for case in project.cases()] == ["a", "b", "c"]
    assert [case.name for case in project.cases("new")] == ["a", "c"]


def test_a_subject_is_held_out_as_a_whole(project: Project) -> None:
    for name, group in (("a", "s1"), ("b", "s1"), ("c", "s2"), ("d", ""), ("e", "")):
        project.add_case(name, [make_scan()], group=group)
    assert [case.name for case in project.set_held_out("a", True)] == ["a", "b"]
    assert [case.name for case in project.set_held_out("d", True)] == ["d"]
    assert [case.held_out for case in project.cases()] == [True, True, False, True, False]
    with pytest.raises(InputError, match="same subject"):
        project.add_case("f", [make_scan()], group="s1")
    project.add_case("f", [make_scan()], group="s1", held_out=True)


def test_the_journal_tells_what_happened_and_cannot_be_changed(project: Project) -> None:
    scan = make_scan()
    project.add_case("a", [scan], label=make_label(scan))
    project.set_state("a", "excluded")
    project.log("opened", "case_0001", seconds=3)
    assert [entry.action for entry in project.history("case_0001")] == [
        "case added",
        "revision stored",
        "state set",
        "opened",
    ]
    last = project.history()[-1]
    assert last.facts == {"seconds": 3} and last.pid == os.getpid()
    with sqlite3.connect(project.folder / "project.db") as connection:
        for statement in (
            "UPDATE journal SET action = 'x'",
            "DELETE FROM journal",
            "UPDATE revisions SET sha256 = 'x'",
            "DELETE FROM revisions",
            "UPDATE labels SET value = 9 WHERE value = 1",
            "DELETE FROM images",
            "DELETE FROM cases",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="never changed"):
                connection.execute(statement)
    connection.close()


def test_models_are_copied_and_one_is_current(project: Project, tmp_path: Path) -> None:
    source = make_model(tmp_path / "m")
    first = project.add_model(source, {"dice": {"liver": 0.9}}, name="first try")
    second = project.add_model(source, {}, parent=first.id)
    assert project.current_model() is None
    project.promote(first.id)
    assert project.current_model() == project.model(first.id)
    project.promote(second.id)
    assert [(row.id, row.name, row.parent, row.is_current) for row in project.models()] == [
        ("model_0001", "first try", None, False),
        ("model_0002", "model_0002", "model_0001", True),
    ]
    assert (second.folder / "weights.safetensors").read_bytes() == b"weights"
    assert source.is_dir()
    assert [entry.action for entry in project.history()].count("model promoted") == 2
    with pytest.raises(ProjectError, match="no model"):
        project.promote("model_0009")
    with pytest.raises(ModelError, match=r"weights\.safetensors is missing"):
        (source / "weights.safetensors").unlink()
        project.add_model(source, {})
    with pytest.raises(ModelError):
        project.add_model(tmp_path / "nowhere", {})


def test_a_run_goes_from_queued_to_finished(project: Project, tmp_path: Path) -> None:
    run = project.new_run({"patch": [32, 32, 32]})
    assert (run.id, run.state, run.plan) == ("run_0001", "queued", {"patch": [32, 32, 32]})
    assert json.loads((run.folder / "plan.json").read_text()) == run.plan
    running = project.update_run(run.id, "running")
    assert running.state == "running" and running.pid == os.getpid() and running.ended is None
    assert project.reconcile_runs() == []
    model = project.add_model(make_model(tmp_path / "m"), {})
    done = project.update_run(run.id, "finished", model_id=model.id)
    assert done.state == "finished" and done.model_id == model.id and done.ended >= done.started
    assert project.runs() == [done]
    with pytest.raises(InputError, match="no state"):
        project.update_run(run.id, "sleeping")
    with pytest.raises(ProjectError, match="no run"):
        project.update_run("run_0002", "failed")


def test_a_run_whose_process_died_is_shown_as_interrupted_and_can_run_again(project: Project) -> None:
    run = project.new_run({})
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    project.update_run(run.id, "running", pid=process.pid)
    assert project.run(run.id).state == "running"
    process.kill()
    process.communicate()
    assert project.run(run.id).state == "interrupted"
    with Project.open(project.folder, read_only=True) as reader:
        assert reader.runs()[0].state == "interrupted"
    (entered,) = project.reconcile_runs()
    assert entered.state == "interrupted" and entered.ended and entered.message
    assert project.reconcile_runs() == []
    again = project.update_run(run.id, "running")
    assert again.state == "running" and again.ended is None and again.started == entered.started


def test_a_project_folder_can_be_moved(project: Project, tmp_path: Path) -> None:
    scan = make_scan()
    project.add_case("a", [scan], label=make_label(scan))
    project.close()
    shutil.move(project.folder, tmp_path / "elsewhere")
    with Project.open(tmp_path / "elsewhere") as moved:
        assert moved.verify(everything=True) == []
        assert moved.accepted_label("a").is_file()


# Soundness


def test_damage_is_found_and_named(project: Project) -> None:
    scan = make_scan()
    for name in ("whole", "changed", "gone"):
        project.add_case(name, [scan], label=make_label(scan))
    path = project.accepted_label("changed")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    project.accepted_label("gone").unlink()
    assert [(damage.case_name, damage.problem) for damage in project.verify()] == [
        ("changed", "is not as it was stored"),
        ("gone", "is missing"),
    ]
    project.image_paths("whole")[0].write_bytes(b"")
    assert "whole" in [damage.case_name for damage in project.verify(everything=True)]
    assert project.verify()[0].in_words().startswith("changed: r001-")


def test_a_file_that_lost_its_row_is_never_overwritten(project: Project) -> None:
    """As after putting back an older database."""
    scan = make_scan()
    project.add_case("a", [scan])
    project.close()
    shutil.copy(project.folder / "project.db", project.folder.parent / "older.db")
    with Project.open(project.folder) as newer:
        newer.add_case("b", [scan])
        kept = newer.store_revision("a", make_label(scan, seed=1), "accepted", author="reader")
    content = kept.path.read_bytes()
    shutil.copy(project.folder.parent / "older.db", project.folder / "project.db")
    with Project.open(project.folder) as older:
        assert older.strays() == [kept.path]
        older.store_revision("a", make_label(scan, seed=2), "accepted", author="reader")
        assert older.add_case("c", [scan]).id == "case_0003"
        assert older.verify() == []
    assert kept.path.read_bytes() == content
