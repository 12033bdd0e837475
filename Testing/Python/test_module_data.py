# SPDX-License-Identifier: Apache-2.0
"""What a user does with the nodes of a case in Slicer's other modules."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError

pytestmark = pytest.mark.host
PREDICTED, UNTOUCHED = "case_0001", "case_0002"


@pytest.fixture
def review(a_review_panel):
    return a_review_panel


@pytest.fixture
def label(review) -> np.ndarray:
    """The prediction, as the project holds it."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(review.session.project.revisions.newest(PREDICTED).path)))


def test_a_scan_that_was_moved_in_the_scene_is_refused(review, label):
    """A transform that both were put under and that was hardened: the outline would be stored beside its place."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 10.0)
    for node in (review.session.loaded.volumes[0], review.session.loaded.segmentation):
        node.ApplyTransformMatrix(matrix)
    with pytest.raises(InputError, match="moved in the scene"):
        review.correction.store("draft", "reader 1")
    matrix.Invert()
    for node in (review.session.loaded.volumes[0], review.session.loaded.segmentation):
        node.ApplyTransformMatrix(matrix)
    snapshot = review.correction.snapshot()
    assert np.array_equal(snapshot.labelMap()[0], label) and snapshot.missing == []
    slicer.app.processEvents()


def test_an_edit_that_was_moved_with_its_scan_stays_with_it(review, label):
    """The scan read anew from its file would lie beside the outline, which then would be stored beside its place."""
    import slicer
    import vtk

    scan, outline = review.session.loaded.volumes[0], review.session.loaded.segmentation
    segmentId = outline.GetSegmentation().GetSegmentIdBySegmentName("edema")
    edited = np.zeros(label.shape, np.uint8)
    edited[0, 0, 0] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, outline, segmentId, scan)
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(2, 3, 6.0)  # two slices
    for node in (scan, outline):
        node.ApplyTransformMatrix(matrix)
    review.session.openCase(UNTOUCHED)
    assert "could not be stored; it stays in the scene" in review.moduleWidget.ui.statusLabel.text
    assert scan.GetScene() is not None and outline.GetScene() is not None
    review.session.openCase(PREDICTED)
    assert review.session.loaded.volumes == [scan] and review.session.loaded.segmentation is outline
    with pytest.raises(InputError, match="moved in the scene"):
        review.correction.store("draft", "reader 1")
    matrix.Invert()
    for node in (scan, outline):
        node.ApplyTransformMatrix(matrix)
    path = review.correction.store("draft", "reader 1").revision.path
    edited = edited * 4
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), np.maximum(label, edited))
    review.session.openCase(UNTOUCHED)
    assert scan.GetScene() is None and outline.GetScene() is None


def test_a_label_whose_segment_was_removed_is_told(review):
    segments = review.session.loaded.segmentation.GetSegmentation()
    segments.RemoveSegment(segments.GetSegmentIdBySegmentName("necrosis"))
    stored = review.correction.store("draft", "reader 1")
    assert stored.missing == ["necrosis"] and "Stored without necrosis" in stored.inWords("predicted")


def test_segments_that_exchanged_their_names_are_not_stored(review, label):
    """Each would have been stored as the label that it was before, whatever its name says on screen."""
    from barldriver.loop import settle

    segments = review.session.loaded.segmentation.GetSegmentation()
    lesion, necrosis = (
        segments.GetSegment(segments.GetSegmentIdBySegmentName(name)) for name in ("lesion", "necrosis")
    )
    lesion.SetName("necrosis")
    necrosis.SetName("lesion")
    settle(review)
    assert "was lesion before it was renamed" in review.moduleWidget.ui.statusLabel.text
    review.onAccept()
    settle(review)
    assert review.session.case().state == "predicted"
    lesion.SetName("lesion")
    necrosis.SetName("necrosis")
    settle(review)
    assert np.array_equal(review.correction.snapshot().labelMap()[0], label)
    lesion.SetName("what I saw")  # no other label's name
    review.onAccept()
    settle(review)
    assert review.session.case().state == "accepted"


def test_a_copy_of_the_outline_in_data_is_not_taken_for_it(review, label):
    """Data > Clone copies the attributes, too."""
    import slicer
    from BARLSegmentationLib.logic.SceneVolumes import usersVolumes

    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    clones = []
    for node in (review.session.loaded.segmentation, review.session.loaded.volumes[0]):
        item = slicer.vtkSlicerSubjectHierarchyModuleLogic.CloneSubjectHierarchyItem(
            hierarchy, hierarchy.GetItemByDataNode(node)
        )
        clones.append(hierarchy.GetItemDataNode(item))
    assert usersVolumes() == [clones[1]], "a new project can begin with it"
    clones[0].GetSegmentation().RemoveAllSegments()
    slicer.util.arrayFromVolume(clones[1])[:] = 0
    review.session.openCase(UNTOUCHED)
    assert clones[0].GetDisplayVisibility(), "the user's own"
    review.session.openCase(PREDICTED)
    assert review.session.loaded.segmentation not in clones and review.session.loaded.volumes[0] not in clones
    assert np.array_equal(review.correction.snapshot().labelMap()[0], label)


def test_nodes_of_a_scene_that_is_added_are_ours_under_their_new_ids(review):
    import slicer
    from BARLSegmentationLib.logic.CaseLoader import NODE_ATTRIBUTE, adopt, isOurs

    node = review.session.loaded.segmentation
    assert isOurs(node)
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    for name in ("BARL.Project", "BARL.Case", "BARL.Role", NODE_ATTRIBUTE):
        other.SetAttribute(name, node.GetAttribute(name))
    assert not isOurs(other)
    adopt([other, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")])
    assert isOurs(other)


def test_what_is_read_of_a_scan_under_a_transform_lies_where_the_scan_lies(review, label):
    """A prediction that came meanwhile lay beside its scan, and Accept refused it."""
    import slicer

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[0, 3] = 30.0
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for node in review.session.loaded.nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())
    revisions = review.session.project.revisions
    image = sitk.ReadImage(str(revisions.newest(PREDICTED).path))
    certain = sitk.Cast(image, sitk.sitkFloat32) * 0.1
    revisions.store(PREDICTED, image, "prediction", author="BARL model_0002", uncertainty=certain)
    review.session.openCase(PREDICTED)
    assert {node.GetTransformNodeID() for node in review.session.loaded.nodes} == {transform.GetID()}
    assert np.array_equal(review.correction.snapshot().labelMap()[0], label)
    stored = review.correction.store("draft", "reader 1").revision
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(stored.path))), label)


def test_a_scan_that_was_changed_in_the_scene_is_not_lost_with_its_case(review):
    """As a filter does whose output is its input; the project's own scan stays, and what is learned from is that."""
    import slicer

    scan = review.session.loaded.volumes[0]
    before = slicer.util.arrayFromVolume(scan).copy()
    scan.GetDisplayNode().SetWindowLevelMinMax(0, 50)  # the window is no change
    scan.SetName("brighter")
    assert review.session.loaded.changedVolumes() == []
    slicer.util.arrayFromVolume(scan)[:] += 100
    slicer.util.arrayFromVolumeModified(scan)
    review.session.openCase(UNTOUCHED)
    assert review.moduleWidget.ui.statusLabel.text.startswith("brighter: changed in the scene and kept there")
    assert scan.GetScene() is not None
    review.session.openCase(PREDICTED)
    shown = review.session.loaded.volumes[0]
    assert shown is not scan and np.array_equal(slicer.util.arrayFromVolume(shown), before)
    assert review.moduleWidget.ui.statusLabel.text == ""
    slicer.mrmlScene.RemoveNode(scan)
