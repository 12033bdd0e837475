# SPDX-License-Identifier: Apache-2.0
"""Segments that are no label of the project, copies of segments, and segments on other grids than the scan's."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barldriver.loop import settle

pytestmark = pytest.mark.host
PREDICTED, UNTOUCHED = "case_0001", "case_0002"


@pytest.fixture
def panel(a_review_panel):
    return a_review_panel


def status(panel) -> str:
    return panel.moduleWidget.ui.statusLabel.text


def segments(panel):
    return panel.correction.segmentation.GetSegmentation()


def names(panel) -> list[str]:
    return [segments(panel).GetSegment(segmentId).GetName() for segmentId in segments(panel).GetSegmentIDs()]


def draw(panel, segmentId: str, *box: slice) -> None:
    """Set the voxels of a segment as a script does."""
    import slicer

    scan = panel.session.loaded.volumes[0]
    voxels = np.zeros(slicer.util.arrayFromVolume(scan).shape, np.uint8)
    voxels[box] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, panel.correction.segmentation, segmentId, scan)
    settle(panel)


def drawn(panel, name: str) -> int:
    """How many voxels a segment has."""
    import slicer

    segmentId = segments(panel).GetSegmentIdBySegmentName(name)
    scan = panel.session.loaded.volumes[0]
    return int(slicer.util.arrayFromSegmentBinaryLabelmap(panel.correction.segmentation, segmentId, scan).sum())


def stored(panel) -> dict[int, int]:
    """Voxels of each label of the newest revision."""
    path = panel.session.project.revisions.newest(PREDICTED).path
    values, counts = np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True) if value}


def test_a_segment_without_a_label_stays_in_the_scene_when_the_case_is_left(panel):
    """As Islands makes them, or the Segment Editor module; the project cannot hold it."""
    outline = panel.correction.segmentation
    draw(panel, segments(panel).AddEmptySegment("", "muscle"), slice(0, 2), slice(0, 2), slice(0, 2))
    panel.session.openCase(UNTOUCHED)
    assert "kept as a draft" in status(panel) and "no such label: muscle" in status(panel)
    settle(panel)
    assert not outline.GetDisplayVisibility()
    panel.session.openCase(PREDICTED)
    settle(panel)
    assert panel.correction.segmentation is outline and drawn(panel, "muscle") == 8
    assert not panel.correction.isChanged()
    panel.session.openCase(UNTOUCHED)
    assert "no such label: muscle" in status(panel), "also if nothing was changed since"
    assert outline.GetScene() is not None
    panel.session.openCase(PREDICTED)
    segments(panel).RemoveSegment(segments(panel).GetSegmentIdBySegmentName("muscle"))
    panel.session.openCase(UNTOUCHED)
    assert outline.GetScene() is None


def test_revert_leaves_segments_without_a_label(panel):
    segments(panel).RemoveSegment(segments(panel).GetSegmentIdBySegmentName("lesion"))
    own = segments(panel).AddEmptySegment("", "muscle")
    draw(panel, own, slice(0, 2), slice(0, 2), slice(0, 2))
    panel.onRevert()
    settle(panel)
    assert sorted(names(panel)) == ["edema", "lesion", "muscle", "necrosis"]
    assert (drawn(panel, "muscle"), drawn(panel, "lesion"), drawn(panel, "necrosis")) == (8, 45, 4)
    panel.onSaveDraft()
    settle(panel)
    assert stored(panel) == {1: 45, 7: 4}


def clone(panel, name: str) -> str:
    """Copy a segment as Clone does in the module Data: under a new id, with the same name and tags."""
    import slicer

    original, copy = segments(panel).GetSegmentIdBySegmentName(name), slicer.vtkSegment()
    copy.DeepCopy(segments(panel).GetSegment(original))
    copied = segments(panel).GenerateUniqueSegmentID(original)
    segments(panel).AddSegment(copy, copied)
    settle(panel)
    return copied


def test_a_copy_of_a_segment_is_not_stored_with_it(panel):
    """It has the tag of its original: what was erased from the original was stored all the same."""
    original = segments(panel).GetSegmentIdBySegmentName("lesion")
    copied = clone(panel, "lesion")
    assert "2 segments are lesion: lesion, lesion." in status(panel)
    draw(panel, original, slice(0, 1), slice(0, 1), slice(0, 1))
    panel.onAccept()
    settle(panel)
    assert "2 segments are lesion" in status(panel) and panel.session.case().state == "predicted"
    segments(panel).GetSegment(copied).SetName("before")
    panel.onSaveDraft()
    settle(panel)
    assert stored(panel) == {1: 1, 7: 4} and "no such label: before" in status(panel)
    panel.planes.tick((0, 0), True)
    panel.planes.fill()
    settle(panel)
    assert drawn(panel, "before") == 45, "Fill changes labels alone"
    segments(panel).RemoveSegment(original)
    segments(panel).GetSegment(copied).SetName("Lesion")
    panel.onSaveDraft()
    settle(panel)
    assert stored(panel)[1] == 45, "the copy takes the place of the removed one"


def test_a_copy_under_the_name_of_another_label_is_refused(panel):
    segments(panel).GetSegment(clone(panel, "lesion")).SetName("edema")
    panel.onSaveDraft()
    settle(panel)
    assert "The segment edema was lesion before it was renamed." in status(panel)


def put(panel, name: str, first: tuple, size: tuple, divided: int = 1) -> None:
    """Give a segment a box of voxels from an index (i, j, k) of the scan on, each a part of the scan's."""
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    toRAS, image = vtk.vtkMatrix4x4(), slicer.vtkOrientedImageData()
    panel.session.loaded.volumes[0].GetIJKToRASMatrix(toRAS)
    matrix = slicer.util.arrayFromVTKMatrix(toRAS)
    matrix[:3, 3] = (matrix @ [*first, 1.0])[:3]
    matrix[:3, :3] /= divided
    image.SetExtent(0, size[0] - 1, 0, size[1] - 1, 0, size[2] - 1)
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(matrix))
    scalars = numpy_to_vtk(np.ones(int(np.prod(size)), np.uint8), deep=True)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    segment = segments(panel).GetSegment(segments(panel).GetSegmentIdBySegmentName(name))
    segment.AddRepresentation("Binary labelmap", image)
    segment.SetLabelValue(1)
    settle(panel)


@pytest.mark.parametrize(
    "first, size, divided, kept, told",
    [
        ((3.3, 4.3, 5.3), (2, 2, 2), 5, 0, "edema (0.000169 ml became 0 ml)"),
        ((2.75, 3.75, 4.75), (4, 4, 4), 2, 8, "edema (0.0211 ml became 0.0211 ml)"),
        ((-1, -2, 8), (3, 4, 2), 1, 4, "edema (0.0634 ml became 0.0106 ml)"),
        ((20, 0, 0), (1, 1, 1), 1, 0, "edema (0.00264 ml became 0 ml)"),
        ((20.5, 0, 0), (2, 2, 2), 2, 0, "edema (0.00264 ml became 0 ml)"),
        ((0, 0, 8), (3, 4, 1), 1, 12, ""),
    ],
)
def test_what_is_lost_on_the_scans_grid_is_told(panel, first, size, divided, kept, told):
    """A segment copied from a finer segmentation, or one that reaches out of the scan."""
    put(panel, "edema", first, size, divided)
    panel.onAccept()
    settle(panel)
    assert stored(panel).get(4, 0) == kept
    assert told in status(panel) and ("another grid" in status(panel)) == bool(told)


def a_preview(panel):
    """As Grow from seeds shows its result before it is applied."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "preview")
    panel.editor.attention.editorNode.SetNodeReferenceID("SegmentationResultPreview", node.GetID())
    settle(panel)
    return node


def test_a_preview_that_was_not_applied_is_not_accepted_for_the_outline(panel):
    """Its seeds would have been accepted, while the views show the whole structure."""
    import slicer

    preview = a_preview(panel)
    segmentId = segments(panel).GetSegmentIdBySegmentName("edema")
    draw(panel, segmentId, slice(0, 1), slice(0, 1), slice(0, 1))
    panel.onAccept()
    settle(panel)
    assert "is a preview" in status(panel) and panel.session.case().state == "predicted"
    panel.onSaveDraft()
    settle(panel)
    assert status(panel).startswith("A draft of predicted is stored.") and "is a preview" in status(panel)
    draw(panel, segmentId, slice(0, 2), slice(0, 1), slice(0, 1))
    panel.session.openCase(UNTOUCHED)
    settle(panel)
    assert "kept as a draft" in status(panel) and "is a preview" in status(panel)
    assert preview.GetScene() is None, "it belongs to the case before"
    preview = a_preview(panel)
    slicer.mrmlScene.RemoveNode(preview)  # Cancel
    panel.session.openCase(PREDICTED)
    settle(panel)
    panel.onAccept()
    settle(panel)
    assert panel.session.case().is_accepted and stored(panel)[4] == 2


@pytest.mark.parametrize("onScreen", [True, False])
def test_a_segment_becomes_a_label_that_is_added_for_it(panel, onScreen):
    """What a user does who reads that the label table has no such label."""
    from barl.project.labels import Label

    session = panel.session
    draw(panel, segments(panel).AddEmptySegment("", "muscle"), slice(0, 2), slice(0, 2), slice(0, 2))
    panel.onSaveDraft()
    settle(panel)
    if not onScreen:
        session.openCase(UNTOUCHED)
    before = session.project.labels
    session.project.definition.add_label(Label(9, "muscle"))
    session.notifyDefinition(before)
    session.openCase(PREDICTED)
    settle(panel)
    assert names(panel).count("muscle") == 1
    session.openCase(UNTOUCHED)
    settle(panel)
    assert "kept as a draft" in status(panel) or onScreen
    assert stored(panel) == {1: 45, 7: 4, 9: 8}
