# SPDX-License-Identifier: Apache-2.0
"""The case store: what goes in comes out, what may not happen is refused in one sentence."""

from __future__ import annotations

import gzip
import hashlib
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
from barl.project.next_case import rank_cases
from barl.project.processes import ProcessId
from barl.project.records import BY_SCAN
from barl.project.store import Project

SIZE = (8, 7, 6)
SHIPPED = Path(__file__).resolve().parents[2] / "BARLSegmentation/Resources/Models/hippocampus"


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
    card = json.loads((SHIPPED / "model.json").read_text("utf-8"))
    card["weights_sha256"] = hashlib.sha256(b"weights").hexdigest()
    (folder / "model.json").write_text(json.dumps(card), "utf-8")
    (folder / "weights.safetensors").write_bytes(b"weights")
    return folder


# What goes in comes out


def test_a_project_opens_as_it_was_made(project: Project) -> None:
    with Project.open(project.folder) as again:
        assert again.name == "Livers"
        assert again.labels == [Label(1, "liver"), Label(3, "lesion", (255, 0, 0))]
        assert again.values == [1, 3]
        assert again.channels == [Channel("CT", "_ct")]
        assert again.cases.all() == [] and again.models.all() == [] and again.runs.all() == []
        assert again.models.current() is None


def test_a_case_keeps_pixels_and_geometry_but_no_metadata_and_no_name(project: Project) -> None:
    scan = make_scan()
    case = project.cases.add("Case 7", [scan], group="subject 1", held_out=True)
    assert (case.id, case.name, case.state, case.held_out, case.group) == (
        "case_0001",
        "Case 7",
        "new",
        True,
        "subject 1",
    )
    (path,) = project.cases.image_paths("Case 7")
    assert path == project.folder / "cases/case_0001/image_CT.nii.gz"
    stored = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(scan))
    assert Grid.of(stored).matches(Grid.of(scan))
    assert project.cases.grid(case.id) == Grid.of(stored)
    assert b"DOE" not in gzip.decompress(path.read_bytes()) + (project.folder / "project.db").read_bytes()
    assert "Case 7" not in str(list(project.folder.rglob("*")))


def test_new_cases_are_ranked_by_their_scans(project: Project) -> None:
    for name, seed, spacing in (("a", 0, (1, 1, 3)), ("b", 1, (1, 1, 3)), ("c", 2, (4, 4, 1))):
        project.cases.add(name, [make_scan(seed, spacing)])
    first, second, third = rank_cases(project.cases.all(), 1.0, by_scan=True)
    assert (first.case.name, second.case.name, third.case.name) == ("a", "c", "b")
    assert third.case.uncertainty is None and third.case.model_id == BY_SCAN


def test_a_file_gives_the_same_case_as_the_image_in_memory(project: Project, tmp_path: Path) -> None:
    scan = make_scan()
    sitk.WriteImage(scan, str(tmp_path / "scan.nrrd"))
    sitk.WriteImage(make_label(scan), str(tmp_path / "label.nrrd"))
    a = project.cases.add("memory", [scan], label=make_label(scan))
    b = project.cases.add("file", [tmp_path / "scan.nrrd"], label=tmp_path / "label.nrrd")
    assert a.state == b.state == "accepted"
    pixels = [sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.accepted_label(case.id)))) for case in (a, b)]
    assert np.array_equal(*pixels)
    assert project.cases.grid(a.id) == project.cases.grid(b.id)


def test_every_label_map_is_a_revision_of_its_own(project: Project) -> None:
    scan = make_scan()
    case = project.cases.add("a", [scan])
    assert project.revisions.newest("a") is None and project.revisions.accepted_label("a") is None
    model = project.models.add(make_model(project.folder.parent / "m"), {})
    shares = np.random.default_rng(5).random(SIZE[::-1]).astype(np.float32)
    uncertainty = Grid.of(scan).image(shares)
    prediction = project.revisions.store(
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
    assert project.cases.get("a").state == "predicted"
    draft = project.revisions.store("a", make_label(scan, seed=2), "draft", author="reader 1")
    assert project.cases.get("a").state == "in_review"
    first = project.revisions.store("a", make_label(scan, seed=3), "accepted", author="reader 1")
    second = project.revisions.store("a", make_label(scan, seed=4), "accepted", author="reader 2")
    assert [revision.id for revision in project.revisions.of("a")] == [prediction.id, draft.id, first.id, second.id]
    assert project.revisions.newest("a") == second
    assert project.revisions.newest("a", ("prediction", "draft")) == draft
    assert project.revisions.newest("a", "prediction") == prediction
    assert prediction.details == {"ml": 3.5} and prediction.model_id == model.id
    kept = sitk.ReadImage(str(prediction.uncertainty_path))
    assert np.abs(sitk.GetArrayFromImage(kept) - shares).max() <= 1 / 512
    assert Grid.of(kept) == project.cases.grid("a")
    for seed, revision in enumerate((prediction, draft, first, second), start=1):
        stored = sitk.ReadImage(str(revision.path))
        assert np.array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(make_label(scan, seed=seed)))
        assert Grid.of(stored) == project.cases.grid("a")
    assert project.revisions.accepted_label("a") == second.path
    now = project.cases.get("a")
    assert (now.state, now.uncertainty, now.newest_revision, now.model_id) == ("accepted", 0.25, second.id, model.id)
    assert now.embedding.tolist() == [1, 2, 3]
    assert project.verify(everything=True) == []


def test_a_new_prediction_does_not_take_back_an_acceptance(project: Project) -> None:
    scan = make_scan()
    project.cases.add("a", [scan], label=make_label(scan))
    project.cases.add("b", [scan])
    project.cases.set_state("b", "excluded")
    for name in "ab":
        project.revisions.store(name, make_label(scan, seed=9), "prediction", author="BARL", case_uncertainty=0.5)
    assert [case.state for case in project.cases.all()] == ["accepted", "excluded"]
    assert project.revisions.newest("a").kind == "prediction"
    assert project.revisions.newest("a", "accepted").path == project.revisions.accepted_label("a")


def test_several_channels_get_readable_file_names(tmp_path: Path) -> None:
    channels = [Channel("T1 post-contrast"), Channel("FLAIR")]
    with Project.create(tmp_path / "p", "MS", [Label(1, "lesion")], channels) as project:
        project.cases.add("a", [make_scan(0), make_scan(1)])
        assert [path.name for path in project.cases.image_paths("a")] == [
            "image_T1_post-contrast.nii.gz",
            "image_FLAIR.nii.gz",
        ]
    with Project.create(tmp_path / "q", "MS", [Label(1, "lesion")], [Channel("a/b"), Channel("a\\b")]) as project:
        project.cases.add("a", [make_scan(0), make_scan(1)])
        assert [path.name for path in project.cases.image_paths("a")] == ["image_0.nii.gz", "image_1.nii.gz"]


def test_cases_are_found_by_id_and_name_and_listed_by_state(project: Project) -> None:
    for name in ("a", "b", "c"):
        project.cases.add(name, [make_scan()])
    project.cases.set_state("b", "in_review")
    assert project.cases.get("case_0002").name == project.cases.get(" B ").name == "b"
    assert [case.name for case in project.cases.all()] == ["a", "b", "c"]
    assert [case.name for case in project.cases.all("new")] == ["a", "c"]


def test_a_subject_is_held_out_as_a_whole(project: Project) -> None:
    for name, group in (("a", "s1"), ("b", "s1"), ("c", "s2"), ("d", ""), ("e", "")):
        project.cases.add(name, [make_scan()], group=group)
    assert [case.name for case in project.cases.set_held_out("a", True)] == ["a", "b"]
    assert [case.name for case in project.cases.set_held_out("d", True)] == ["d"]
    assert [case.held_out for case in project.cases.all()] == [True, True, False, True, False]
    with pytest.raises(InputError, match="same subject"):
        project.cases.add("f", [make_scan()], group="s1")
    project.cases.add("f", [make_scan()], group="s1", held_out=True)


def test_the_journal_tells_what_happened_and_cannot_be_changed(project: Project) -> None:
    scan = make_scan()
    project.cases.add("a", [scan], label=make_label(scan))
    project.cases.set_state("a", "excluded")
    project.journal.log("opened", "case_0001", seconds=3)
    assert [entry.action for entry in project.journal.entries("case_0001")] == [
        "case added",
        "revision stored",
        "state set",
        "opened",
    ]
    last = project.journal.entries()[-1]
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
    first = project.models.add(source, {"dice": {"liver": 0.9}}, name="first try")
    second = project.models.add(source, {}, parent=first.id)
    assert project.models.current() is None
    project.models.promote(first.id)
    assert project.models.current() == project.models.get(first.id)
    project.models.promote(second.id)
    assert [(row.id, row.name, row.parent, row.is_current) for row in project.models.all()] == [
        ("model_0001", "first try", None, False),
        ("model_0002", "model_0002", "model_0001", True),
    ]
    assert (second.folder / "weights.safetensors").read_bytes() == b"weights"
    assert source.is_dir()
    assert [entry.action for entry in project.journal.entries()].count("model promoted") == 2
    with pytest.raises(ProjectError, match="no model"):
        project.models.promote("model_0009")
    with pytest.raises(ModelError, match=r"weights\.safetensors is missing"):
        (source / "weights.safetensors").unlink()
        project.models.add(source, {})
    with pytest.raises(ModelError):
        project.models.add(tmp_path / "nowhere", {})


def test_a_run_goes_from_queued_to_finished(project: Project, tmp_path: Path) -> None:
    run = project.runs.new({"patch": [32, 32, 32]})
    assert (run.id, run.state, run.plan) == ("run_0001", "queued", {"patch": [32, 32, 32]})
    assert json.loads((run.folder / "plan.json").read_text()) == run.plan
    running = project.runs.update(run.id, "running")
    assert running.state == "running" and running.pid == os.getpid() and running.ended is None
    model = project.models.add(make_model(tmp_path / "m"), {})
    done = project.runs.update(run.id, "finished", model_id=model.id)
    assert done.state == "finished" and done.model_id == model.id and done.ended >= done.started
    assert project.runs.all() == [done]
    with pytest.raises(InputError, match="no state"):
        project.runs.update(run.id, "sleeping")
    with pytest.raises(ProjectError, match="no run"):
        project.runs.update("run_0002", "failed")


def test_a_run_whose_process_died_is_shown_as_interrupted_and_can_run_again(project: Project) -> None:
    run = project.runs.new({})
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    project.runs.update(run.id, "running", process=ProcessId.of(process.pid))
    assert project.runs.get(run.id).state == "running"
    process.kill()
    process.communicate()
    assert project.runs.get(run.id).state == "interrupted"
    with Project.open(project.folder, read_only=True) as reader:
        assert reader.runs.all()[0].state == "interrupted"
    again = project.runs.update(run.id, "running")
    assert again.state == "running" and again.ended is None and again.started == project.runs.get(run.id).started


def test_a_project_folder_can_be_moved(project: Project, tmp_path: Path) -> None:
    scan = make_scan()
    project.cases.add("a", [scan], label=make_label(scan))
    project.close()
    shutil.move(project.folder, tmp_path / "elsewhere")
    with Project.open(tmp_path / "elsewhere") as moved:
        assert moved.verify(everything=True) == []
        assert moved.revisions.accepted_label("a").is_file()


# Soundness


def test_damage_is_found_and_named(project: Project) -> None:
    scan = make_scan()
    for name in ("whole", "changed", "gone"):
        project.cases.add(name, [scan], label=make_label(scan))
    path = project.revisions.accepted_label("changed")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    project.revisions.accepted_label("gone").unlink()
    assert [(damage.case_name, damage.problem) for damage in project.verify()] == [
        ("changed", "is not as it was stored"),
        ("gone", "is missing"),
    ]
    project.cases.image_paths("whole")[0].write_bytes(b"")
    assert "whole" in [damage.case_name for damage in project.verify(everything=True)]
    assert project.verify()[0].in_words().startswith("changed: r001-")


def test_a_file_that_lost_its_row_is_never_overwritten(project: Project) -> None:
    """As after putting back an older database."""
    scan = make_scan()
    project.cases.add("a", [scan])
    project.close()
    shutil.copy(project.folder / "project.db", project.folder.parent / "older.db")
    with Project.open(project.folder) as newer:
        newer.cases.add("b", [scan])
        kept = newer.revisions.store("a", make_label(scan, seed=1), "accepted", author="reader")
    content = kept.path.read_bytes()
    shutil.copy(project.folder.parent / "older.db", project.folder / "project.db")
    with Project.open(project.folder) as older:
        older.revisions.store("a", make_label(scan, seed=2), "accepted", author="reader")
        assert older.cases.add("c", [scan]).id == "case_0003"
        assert older.verify() == []
    assert kept.path.read_bytes() == content
