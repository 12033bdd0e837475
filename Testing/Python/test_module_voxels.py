# SPDX-License-Identifier: Apache-2.0
"""What is read between two turns of the event loop becomes the nodes that Slicer's own reader makes."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from barl.images.geometry import Grid
from barl.project.labels import Channel, Label
from barl.project.states import RevisionKind
from barl.project.store import Project

pytestmark = pytest.mark.host
C, S = np.cos(0.3), np.sin(0.3)
DIRECTIONS = {"oblique": (C, -S, 0, S, C, 0, 0, 0, 1.0), "left-handed": (1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}


@pytest.fixture(params=[(name, size) for name in DIRECTIONS for size in ("small", "as the scan")], ids=str)
def session(a_module, tmp_path, request):
    direction, size = request.param
    grid = Grid((13, 11, 9), (0.8, 1.1, 3.0), (12.0, 34.0, 56.0), DIRECTIONS[direction])
    label = np.zeros(grid.shape, np.uint8)
    label[1:3, 2:5, 3:8], label[5, 6, 7] = 1, 2
    if size != "small":
        label[8, 9, 11] = 1
    unsure = np.random.default_rng(0).random(grid.shape, np.float32)
    with Project.create(tmp_path / "p", "p", [Label(1, "a"), Label(2, "b")], [Channel("T1")]) as project:
        project.cases.add("scan", [grid.image(unsure)])
        project.revisions.store(
            "scan", grid.image(label), "prediction", author="BARL", uncertainty=grid.image(unsure)
        )  # fmt: skip
    a_module.session.openProject(tmp_path / "p")
    yield a_module.session
    a_module.session.closeProject()


def read(paths):
    from BARLSegmentationLib.logic.Voxels import readAhead

    pieces, count = readAhead(paths), 0
    while True:
        try:
            next(pieces)
            count += 1
        except StopIteration as end:
            return end.value, count


def seen(loaded):
    """What of a case's nodes a user or Slicer can see."""
    import slicer
    import vtk

    matrix, unsure = vtk.vtkMatrix4x4(), loaded.uncertainty
    unsure.GetIJKToRASMatrix(matrix)
    segments = loaded.segmentation.GetSegmentation()
    arrays = [
        slicer.util.arrayFromSegmentBinaryLabelmap(loaded.segmentation, name, loaded.volumes[0])
        for name in segments.GetSegmentIDs()
    ]
    facts = [unsure.GetName(), unsure.GetStorageNode().GetFileName(), unsure.GetModifiedSinceRead()]
    return facts, [slicer.util.arrayFromVolume(unsure).copy(), slicer.util.arrayFromVTKMatrix(matrix), *arrays]


def test_nodes_are_those_of_slicers_reader(session):
    import slicer

    loaded = session.openCase("case_0001")
    facts, arrays = seen(loaded)
    for node in (loaded.segmentation, loaded.uncertainty):
        slicer.mrmlScene.RemoveNode(node)
    revision = session.project.revisions.newest("case_0001", (RevisionKind.PREDICTION,))
    ahead, pieces = read([revision.path, revision.uncertainty_path])
    assert len(ahead) == 2 and pieces >= 2
    ahead[revision.uncertainty_path] = ahead[revision.uncertainty_path] / 2  # shows where the voxels come from
    session.openCase("case_0001", ahead)
    del ahead
    gc.collect()
    again, others = seen(session.loaded)
    assert again == facts and facts[-1] is False
    assert np.array_equal(others[0], arrays[0] / 2)
    assert np.allclose(others[1], arrays[1], atol=1e-5)
    assert len(arrays) == 4 and all(np.array_equal(a, b) for a, b in zip(arrays[2:], others[2:], strict=True))


def test_an_outline_that_was_read_ahead_is_painted_and_undone(session):
    """The segments share the voxels that were read."""
    import slicer

    revision = session.project.revisions.newest("case_0001")
    ahead, _pieces = read([revision.path])
    session.openCase("case_0001")
    slicer.mrmlScene.RemoveNode(session.loaded.segmentation)
    outline = session.openCase("case_0001", ahead).segmentation
    scan, segments = session.loaded.volumes[0], outline.GetSegmentation()
    first, second = segments.GetSegmentIDs()
    before = [slicer.util.arrayFromSegmentBinaryLabelmap(outline, name, scan) for name in (first, second)]
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(segments)
    history.SaveState()
    painted = before[0].copy()
    painted[0, 0, :3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted, outline, first, scan)
    drawn = [slicer.util.arrayFromSegmentBinaryLabelmap(outline, name, scan) for name in (first, second)]
    assert np.array_equal(drawn[0], painted) and np.array_equal(drawn[1], before[1])
    history.RestorePreviousState()
    undone = [slicer.util.arrayFromSegmentBinaryLabelmap(outline, name, scan) for name in (first, second)]
    assert all(np.array_equal(a, b) for a, b in zip(undone, before, strict=True))


def test_a_changed_map_counts_as_changed(session):
    import slicer

    session.openCase("case_0001")
    revision = session.project.revisions.newest("case_0001")
    slicer.mrmlScene.RemoveNode(session.loaded.uncertainty)
    node = session.openCase("case_0001", read([revision.uncertainty_path])[0]).uncertainty
    assert not node.GetModifiedSinceRead()
    slicer.util.arrayFromVolume(node)[0] = 1
    slicer.util.arrayFromVolumeModified(node)
    assert node.GetModifiedSinceRead()


def test_what_cannot_be_read_ahead_is_left_to_slicers_reader(session, tmp_path):
    revision = session.project.revisions.newest("case_0001")
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(revision.uncertainty_path.read_bytes()[:-40])
    ahead, _pieces = read([cut, tmp_path / "none.nii.gz", revision.path])
    assert list(ahead) == [revision.path]
