# SPDX-License-Identifier: Apache-2.0
"""The folder of a case in Slicer's subject hierarchy, as the Data module shows it."""

from __future__ import annotations

from collections.abc import Iterable

import slicer
import vtk

from BARLSegmentationLib.logic.CaseLoader import CASE_ATTRIBUTE, PROJECT_ATTRIBUTE


def putIntoFolder(nodes: Iterable, name: str) -> None:
    """Put nodes of one case into the case's folder, which is made if it is not there.

    Args:
        nodes: In one scene; each with the attributes of its project and case.
        name: Of the case.
    """
    for node in nodes:
        hierarchy = _hierarchy(node.GetScene())
        folder = _folder(hierarchy, node)
        if not folder:
            folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
            for key in (PROJECT_ATTRIBUTE, CASE_ATTRIBUTE):
                hierarchy.SetItemAttribute(folder, key, node.GetAttribute(key) or "")
        item = hierarchy.GetItemByDataNode(node)
        if not item:
            hierarchy.CreateItem(folder, node)
        elif hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():  # the user's own order stays
            hierarchy.SetItemParent(item, folder)


def renameNodes(nodes: Iterable, before: str, after: str) -> None:
    """Rename the nodes of a case and its folder, whose names begin with the case's."""
    for node in nodes:
        hierarchy = _hierarchy(node.GetScene())
        folder = _folder(hierarchy, node)
        if folder and hierarchy.GetItemName(folder) == before:
            hierarchy.SetItemName(folder, after)
        if node.GetName().startswith(before):
            node.SetName(after + node.GetName()[len(before) :])


def removeEmptyFolders(scene: slicer.vtkMRMLScene) -> None:
    """Remove the folders of cases that hold nothing."""
    hierarchy = _hierarchy(scene)
    for folder in _folders(hierarchy):
        if hierarchy.GetNumberOfItemChildren(folder) == 0:
            hierarchy.RemoveItem(folder)


def _hierarchy(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLSubjectHierarchyNode:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def _folder(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, node: slicer.vtkMRMLNode) -> int:
    """The folder of a node's case; 0 if there is none."""
    for folder in _folders(hierarchy):
        if all(
            hierarchy.GetItemAttribute(folder, key) == (node.GetAttribute(key) or "")
            for key in (PROJECT_ATTRIBUTE, CASE_ATTRIBUTE)
        ):
            return folder
    return 0


def _folders(hierarchy: slicer.vtkMRMLSubjectHierarchyNode) -> list[int]:
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    found = [items.GetId(index) for index in range(items.GetNumberOfIds())]
    return [item for item in found if hierarchy.HasItemAttribute(item, CASE_ATTRIBUTE)]
