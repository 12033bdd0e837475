# SPDX-License-Identifier: Apache-2.0
"""What the Data module shows of a case: a folder with names that say what each node is."""

from __future__ import annotations

import pytest
from barldriver.loop import settle

pytestmark = pytest.mark.host


def data_tree() -> dict:
    """The subject hierarchy as nested names, without the segments of segmentations."""
    import slicer
    import vtk

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)

    def below(item):
        ids, found = vtk.vtkIdList(), {}
        hierarchy.GetItemChildren(item, ids, False)
        for index in range(ids.GetNumberOfIds()):
            child = ids.GetId(index)
            isFolder = hierarchy.GetItemDataNode(child) is None
            found[hierarchy.GetItemName(child)] = below(child) if isFolder else None
        return found

    return below(hierarchy.GetSceneItemID())


def test_a_case_has_a_folder_of_its_own(a_review_panel):
    session = a_review_panel.session
    names = dict.fromkeys(["predicted", "predicted segmentation", "predicted uncertainty"])
    assert data_tree() == {"predicted": names}
    session.openCase("case_0002")
    settle(a_review_panel)
    assert data_tree() == {"untouched": dict.fromkeys(["untouched", "untouched segmentation"])}
    session.closeCase()
    assert data_tree() == {}


def test_what_the_user_put_into_the_folder_keeps_it(a_review_panel):
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "my points")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(mine), hierarchy.GetItemByName("predicted"))
    scan = hierarchy.GetItemByDataNode(a_review_panel.session.loaded.volumes[0])
    assert hierarchy.GetItemName(hierarchy.GetItemParent(scan)) == "predicted"
    a_review_panel.session.closeCase()
    assert data_tree() == {"predicted": {"my points": None}}


def test_a_scene_that_was_saved_and_opened_has_the_same_folder(a_review_panel, tmp_path):
    import slicer

    before = data_tree()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert data_tree() == {}
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    settle(a_review_panel)
    assert a_review_panel.session.caseId == "case_0001" and data_tree() == before
    a_review_panel.session.closeCase()
    assert data_tree() == {}


def test_the_blanked_scan_is_not_listed_in_data(a_review_panel):
    import slicer
    from BARLSegmentationLib.logic.Attention import Attention

    a_review_panel.ui.onlyWhereUnsureCheckBox.click()
    settle(a_review_panel)
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
    assert Attention.node().GetAttribute(name) == "1"
