# SPDX-License-Identifier: Apache-2.0
"""Keeps the subject hierarchy in step with the scene, as Slicer's subject hierarchy plugins do."""

from __future__ import annotations

import slicer
import vtk

# What Slicer's plugins take into the hierarchy, as far as it is needed here.
_CLASSES = (
    "vtkMRMLScalarVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLModelNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
)


class HierarchyPlugins:
    """A node that comes into the scene gets an item, unless it is hidden; the item goes with its node."""

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self.scene = scene

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(_scene, _event, node):
            if not scene.IsImporting():
                self._add(node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removed(_scene, _event, node):
            if not scene.IsClosing() and not node.IsA("vtkMRMLSubjectHierarchyNode"):
                item = self._node().GetItemByDataNode(node)
                if item:
                    self._node().RemoveItem(item, False, False)

        self._tags = [
            scene.AddObserver(scene.NodeAddedEvent, added),
            scene.AddObserver(scene.NodeAboutToBeRemovedEvent, removed),
            scene.AddObserver(scene.EndImportEvent, self._onImported),
            scene.AddObserver(scene.EndCloseEvent, lambda _scene, _event: self._node()),
        ]

    def _node(self) -> slicer.vtkMRMLSubjectHierarchyNode:
        return slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(self.scene)

    def _add(self, node) -> None:
        if node.GetHideFromEditors() or not any(node.IsA(name) for name in _CLASSES):
            return
        hierarchy = self._node()
        if not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    def _onImported(self, _scene, _event) -> None:
        for name in _CLASSES:
            for node in slicer.util.getNodesByClass(name, self.scene):
                self._add(node)

    def close(self) -> None:
        for tag in self._tags:
            self.scene.RemoveObserver(tag)
        self._tags = []
