# SPDX-License-Identifier: Apache-2.0
"""Partial outlines: which voxels a person has looked at is kept with the label map, and survives as it does."""

from __future__ import annotations

import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError, ProjectError
from barl.images.geometry import Grid
from barl.project.acceptance import accept, check_outline, revert
from barl.project.doubts import Doubt, DoubtError
from barl.project.labels import Channel, Label
from barl.project.restore import restore, unlisted
from barl.project.review import store_correction
from barl.project.schema import FIRST_FORMAT, FORMAT
from barl.project.store import Project

ARCHIVE = Path(__file__).parent / "data" / "project-of-0.1.0.zip"
GRID = Grid((7, 6, 5), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (0, -1, 0, 1, 0, 0, 0, 0, 1))
LABEL = np.zeros(GRID.shape, np.uint8)
LABEL[1:4, 2:4, 1:5] = 1


def image(array: np.ndarray) -> sitk.Image:
    return GRID.image(array)


def planes(*k: int) -> sitk.Image:
    """The mask of whole planes, with another value than 1."""
    mask = np.zeros(GRID.shape, np.int16)
    mask[list(k)] = 5
    return image(mask)


def pixels(source: sitk.Image | Path) -> np.ndarray:
    return sitk.GetArrayFromImage(source if isinstance(source, sitk.Image) else sitk.ReadImage(str(source)))


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "project", "study", [Label(1, "liver")], [Channel("CT")]) as project:
        project.cases.add("one", [image(np.zeros(GRID.shape, np.float32))])
        yield project


def format_of(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "project.db")) as database:
        return database.execute("PRAGMA user_version").fetchone()[0]


def test_what_was_looked_at_and_what_filled_the_rest_comes_back(project):
    unsure = image(np.full(GRID.shape, 0.25, np.float32))
    stored = store_correction(
        project, "one", image(LABEL), "accepted", author="reader", prediction=None, editing_seconds=9,
        looked=planes(1, 3), filled_by="barl fill 0.2.0", uncertainty=unsure,
    )  # fmt: skip
    revision = project.revisions.accepted("one")
    assert revision == stored
    assert (revision.looked_share, revision.filled_by) == (pytest.approx(2 / 5), "barl fill 0.2.0")
    assert revision.looked and not revision.looked.is_absolute() and (project.folder / revision.looked).is_file()
    mask = project.revisions.read_looked(revision)
    assert mask.GetPixelID() == sitk.sitkUInt8 and Grid.of(mask).matches(GRID)
    assert (pixels(mask) == (pixels(planes(1, 3)) != 0)).all() and pixels(mask).max() == 1
    assert (pixels(revision.path) == LABEL).all()
    assert pixels(revision.uncertainty_path) == pytest.approx(0.25)
    case = project.cases.get("one")
    assert case.is_accepted and case.is_partial and case.teaches and case.looked_share == revision.looked_share
    assert project.journal.entries(case.id)[-1].facts["looked_share"] == 0.4


def test_the_whole_scan_is_the_default_and_a_full_mask_is_the_whole_scan(project):
    for looked in (None, planes(*range(5))):
        revision = project.revisions.store("one", image(LABEL), "accepted", author="a", looked=looked)
        assert (revision.looked, revision.looked_share, revision.filled_by) == (None, 1.0, None)
        assert project.revisions.read_looked(revision) is None
        assert not project.cases.get("one").is_partial
    assert format_of(project.folder) == FIRST_FORMAT  # nothing that an earlier version would misread


def test_a_mask_of_another_grid_and_an_accepted_outline_that_nobody_looked_at_are_refused(project):
    with pytest.raises(InputError, match="does not lie on its scan's grid"):
        project.revisions.store("one", image(LABEL), "accepted", author="a", looked=sitk.Image(7, 6, 4, sitk.sitkUInt8))
    with pytest.raises(InputError, match="No voxel of the outline was looked at"):
        project.revisions.store("one", image(LABEL), "accepted", author="a", looked=planes())
    assert project.revisions.of("one") == []
    draft = project.revisions.store("one", image(LABEL), "draft", author="a", looked=planes())
    assert draft.looked_share == 0
    assert sorted(path.name for path in draft.path.parent.iterdir()) == [
        f"{draft.id}.nii.gz",
        f"{draft.id}_looked.nii.gz",
    ]


def test_a_mask_that_was_changed_or_lost_is_found(project):
    revision = project.revisions.store("one", image(LABEL), "accepted", author="a", looked=planes(2))
    path = project.folder / revision.looked
    sitk.WriteImage(planes(4), str(path), useCompression=True)
    assert [damage.path for damage in project.verify()] == [path]
    for call in (project.revisions.read_looked, project.revisions.check):
        with pytest.raises(ProjectError, match=r"mask of the voxels looked at .* is not as it was stored"):
            call(revision)
    with pytest.raises(ProjectError, match="is not as it was stored"):
        project.revisions.accepted("one")
    path.unlink()
    assert "is missing" in project.verify(everything=True)[0].problem


def test_rows_about_it_are_never_changed_and_its_file_goes_with_the_case(project):
    revision = project.revisions.store("one", image(LABEL), "accepted", author="a", looked=planes(2))
    with pytest.raises(ProjectError, match="never changed"), project.database.write() as transaction:
        transaction.execute("UPDATE revisions SET looked_share = 1")
    project.cases.delete("one")
    assert project.cases.undelete("one").is_partial
    project.cases.erase("one")
    assert not (project.folder / revision.looked).exists()
    assert project.verify(everything=True) == []


def test_another_connection_sees_a_partial_outline_of_a_project_that_had_none(project):
    with Project.open(project.folder) as other:
        assert other.revisions.of("one") == [] and other.cases.get("one").looked_share == 1
        revision = project.revisions.store("one", image(LABEL), "accepted", author="a", looked=planes(2))
        assert other.revisions.accepted("one") == revision
        assert other.cases.get("one").is_partial
        again = other.revisions.store("one", image(LABEL), "accepted", author="a", looked=planes(2, 3))
    assert project.cases.get("one").looked_share == again.looked_share == pytest.approx(0.4)
    assert format_of(project.folder) == FORMAT == 2


def test_a_draft_that_is_accepted_stays_partial_and_an_earlier_one_comes_back_as_it_was(project):
    unsure = image(np.full(GRID.shape, 0.5, np.float32))
    draft = project.revisions.store(
        "one", image(LABEL), "draft", author="a", looked=planes(1), filled_by="barl fill 0.2.0", uncertainty=unsure
    )
    stored = accept(project, "one", draft, author="b")
    first = stored.revision
    assert (first.looked_share, first.filled_by) == (pytest.approx(0.2), "barl fill 0.2.0")
    assert pixels(first.uncertainty_path) == pytest.approx(0.5)
    assert "20.0% of the scan's voxels were looked at" in stored.in_words("one")
    whole = accept(project, "one", image(LABEL), author="b").revision
    assert whole.looked is None and not project.cases.get("one").is_partial
    again = revert(project, "one", author="b").revision
    assert (again.looked_share, again.sha256, again.looked_sha256, again.filled_by) == (
        first.looked_share, first.sha256, first.looked_sha256, first.filled_by,
    )  # fmt: skip
    assert project.cases.get("one").is_partial


def test_only_what_was_looked_at_twice_is_compared_with_the_accepted_outline(project):
    project.revisions.store("one", image(LABEL), "accepted", author="a", looked=planes(1, 2))
    other = np.zeros_like(LABEL)
    other[1, 2:4, 1:5] = 1  # as before in plane 1, nothing in plane 2, which is looked at only in the last call
    case = project.cases.get("one")
    assert check_outline(project, case, image(other), looked=planes(1)) == 0
    assert check_outline(project, case, image(other), looked=planes(4)) == 0  # nothing in common to compare
    other[1, 2, 1] = 0  # looked at for both: 9 of 16 voxels differ
    with pytest.raises(DoubtError, match="in 56% of their voxels") as raised:
        check_outline(project, case, image(other), looked=planes(1, 2))
    assert raised.value.doubt is Doubt.DIFFERENT


def test_a_project_of_0_1_0_takes_a_partial_outline_and_stays_as_it_was_until_then(tmp_path):
    with zipfile.ZipFile(ARCHIVE) as packed:
        packed.extractall(tmp_path)
    folder = tmp_path / "project"
    with Project.open(folder, read_only=True) as project:
        assert all(case.looked_share == 1 for case in project.cases.all())
        before = [project.revisions.of(case.id) for case in project.cases.all()]
    with Project.open(folder) as project:
        assert format_of(folder) == 1
        shutil.copy(folder / "project.db", tmp_path / "old.db")
        case = next(case for case in project.cases.all() if case.teaches)
        old = project.revisions.accepted(case.id)
        mask = np.zeros(project.cases.grid(case.id).shape, np.uint8)
        mask[4] = 1
        looked = project.cases.grid(case.id).image(mask)
        new = project.revisions.store(case.id, old.path, "accepted", author="reader", looked=looked)
        assert project.revisions.of(case.id)[:-1] == before[[c.id for c in project.cases.all()].index(case.id)]
        assert project.cases.get(case.id).is_partial and format_of(folder) == 2
        assert project.verify(everything=True) == [] and unlisted(project) == []
    # A copy of the database from before: the mask is listed as what came later, and nothing is lost.
    restored = restore(folder, tmp_path / "old.db", even_if_sound=True)
    assert {path.name for path in restored.unlisted} == {new.path.name, new.looked.name}
    with Project.open(folder) as project:
        assert project.revisions.accepted(case.id) == old and not project.cases.get(case.id).is_partial
