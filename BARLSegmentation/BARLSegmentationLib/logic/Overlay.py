# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import slicer

from BARLSegmentationLib.logic.CaseLoader import CASE_ATTRIBUTE, ROLE_ATTRIBUTE
from BARLSegmentationLib.logic.Voxels import imageData

FILL_ROLE = "uncertainty of the fill"
OVERLAY_COLORS_ROLE = "uncertainty colors"
_SHIPPED = ("Iron", "Warm1", "PET-Heat", "Cool1", "Inferno", "Plasma", "Viridis")  # by name; those the scene has
# Red, green, blue from sure to unsure. Each step is lighter than the one before, so that the order also shows to
# somebody who cannot tell the hues apart; none is gray, so that it shows on a scan, and none is red, as outlines are.
_ANCHORS = ((0.13, 0.16, 0.55), (0.08, 0.40, 0.76), (0.16, 0.64, 0.70), (0.62, 0.82, 0.38), (1.0, 0.93, 0.30))


class Overlay:
    """The uncertainty in color over the scan: the foreground of the slice views, transparent below a threshold.

    Args:
        scene: Where the nodes are.
    """

    def __init__(self, scene: slicer.vtkMRMLScene | None = None) -> None:
        self.scene = scene or slicer.mrmlScene

    def show(
        self,
        uncertainty: slicer.vtkMRMLScalarVolumeNode,
        opacity: float,
        threshold: float,
        colorNode: slicer.vtkMRMLColorNode | None = None,
    ) -> None:
        """Show an uncertainty volume in all slice views.

        Nothing here looks at all the voxels, so that it takes no longer on a large scan.

        Args:
            uncertainty: Scalar volume of 0 to 1.
            opacity: 0 to 1.
            threshold: What is below is transparent.
            colorNode: Its colors; by default our own.
        """
        if uncertainty.GetDisplayNode() is None:
            uncertainty.CreateDefaultDisplayNodes()
        display = uncertainty.GetDisplayNode()
        modified = display.StartModify()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0.0, 1.0)
        # Order matters: with an automatic threshold on, setting one does nothing.
        display.SetAutoThreshold(False)
        display.SetThreshold(threshold, 1.0)
        display.SetApplyThreshold(True)
        display.SetAndObserveColorNodeID((colorNode or self.colorNode()).GetID())
        display.EndModify(modified)
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", self.scene):
            composite.SetForegroundVolumeID(uncertainty.GetID())
            composite.SetForegroundOpacity(opacity)

    def hide(self, uncertainty: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Take the volume out of the views that show it; another foreground stays."""
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", self.scene):
            if composite.GetForegroundVolumeID() == uncertainty.GetID():
                composite.SetForegroundVolumeID(None)

    @staticmethod
    def setFilled(segmentation: slicer.vtkMRMLSegmentationNode | None, filled: bool) -> None:
        """Fill the segments in the slice views or show their outlines only, which leaves the uncertainty visible."""
        display = segmentation.GetDisplayNode() if segmentation is not None else None
        if display is not None:
            display.SetVisibility2DFill(filled)

    def choices(self) -> list:
        """Color nodes fit for an uncertainty, our own first."""
        shipped = [self._named(name) for name in _SHIPPED]
        return [self.colorNode(), *(node for node in shipped if node is not None)]

    def colorNodeNamed(self, name: str) -> slicer.vtkMRMLColorNode:
        """The one of ``choices`` with this name; our own if there is none."""
        return next((node for node in self.choices() if node.GetName() == name), self.colorNode())

    def colorNode(self) -> slicer.vtkMRMLColorNode:
        """Our own color table, made when first asked for; saved with the scene."""
        for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode", self.scene):
            if node.GetAttribute("BARL.Role") == OVERLAY_COLORS_ROLE:
                return node
        node = slicer.vtkMRMLColorTableNode()
        node.SetTypeToUser()
        node.SetName("BARL uncertainty")
        node.SetAttribute("BARL.Role", OVERLAY_COLORS_ROLE)
        node.SetNumberOfColors(256)
        steps = np.linspace(0, len(_ANCHORS) - 1, 256)
        parts = [np.interp(steps, range(len(_ANCHORS)), part) for part in np.transpose(_ANCHORS)]
        for n, color in enumerate(np.transpose(parts)):
            node.SetColor(n, f"{n / 255:.2f}", *color.tolist(), 1.0)
        return self.scene.AddNode(node)

    def _named(self, name: str) -> slicer.vtkMRMLColorNode | None:
        for node in slicer.util.getNodesByClass("vtkMRMLColorNode", self.scene):
            if node.GetName() == name:
                return node
        return None


def fillNode() -> slicer.vtkMRMLScalarVolumeNode | None:
    """The node of a fill's uncertainty, if there is one."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return next((one for one in volumes if one.GetAttribute(ROLE_ATTRIBUTE) == FILL_ROLE), None)


def fillUncertainty(volume: slicer.vtkMRMLScalarVolumeNode, uncertainty: np.ndarray) -> slicer.vtkMRMLScalarVolumeNode:
    """The node of a fill's uncertainty, made or changed; it is not saved with the scene.

    Args:
        volume: The scan.
        uncertainty: ``[k, j, i]``, float32, 0 to 1; the node shares its memory.
    """
    node = fillNode()
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        node.SetAttribute(ROLE_ATTRIBUTE, FILL_ROLE)
        node.SetSaveWithScene(False)
        display = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
        display.SetAutoWindowLevel(False)  # before it sees the voxels, or it looks at them all
        display.SetSaveWithScene(False)
        node.SetAndObserveDisplayNodeID(display.GetID())
    node.SetName(f"{volume.GetName()} uncertainty of the fill")
    node.SetAttribute(CASE_ATTRIBUTE, volume.GetAttribute(CASE_ATTRIBUTE))
    node.CopyOrientation(volume)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetAndObserveImageData(imageData(uncertainty))
    return node


def removeFillUncertainty(node: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Take the node out of the scene, with its display."""
    if node.GetScene() is not None:
        display = node.GetDisplayNode()
        slicer.mrmlScene.RemoveNode(node)
        if display is not None:
            slicer.mrmlScene.RemoveNode(display)
