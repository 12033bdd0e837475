# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer

from BARLSegmentationLib.logic.CaseLoader import CASE_ATTRIBUTE, ROLE_ATTRIBUTE
from BARLSegmentationLib.logic.Voxels import imageData

ROLE = "attention"
_NOT_IN_DATA = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
_LIMITED = "BARL.Limited"  # attribute of the editor node, for scenes saved meanwhile: the blanked scan is not saved


@dataclass(frozen=True)
class UnsureScan:
    """A scan where the model was unsure, and below all its values elsewhere.

    Attributes:
        voxels: ``[k, j, i]`` in the scan's geometry.
        range: Smallest and largest value of the scan: what lies between them is where the model was unsure.
        unsure: Number of those voxels.
    """

    voxels: np.ndarray
    range: tuple[float, float]
    unsure: int


def unsureScan(scan: np.ndarray, uncertainty: np.ndarray, threshold: float) -> UnsureScan:
    """Blank a scan where the uncertainty is below a threshold; no MRML in here, so that any thread may run it.

    It works slice by slice, because a thread that holds Python's lock for long stops the window.

    Args:
        scan: ``[k, j, i]``.
        uncertainty: Same shape, 0 to 1.
        threshold: From which a voxel counts as unsure.
    """
    low = min(plane.min() for plane in scan)
    high = max(plane.max() for plane in scan)
    if np.issubdtype(scan.dtype, np.integer):
        below = int(low) - 1
        kind = next(kind for kind in (np.int16, np.int32, np.float64) if _holds(kind, below, int(high)))
    else:
        below, kind = float(low) - max(1.0, 0.01 * (float(high) - float(low))), scan.dtype
    voxels, count = np.empty(scan.shape, kind), 0
    for blank, values, unsure in zip(voxels, scan, uncertainty, strict=True):
        chosen = unsure >= threshold
        blank.fill(below)
        np.copyto(blank, values, where=chosen, casting="unsafe")
        count += int(np.count_nonzero(chosen))
    return UnsureScan(voxels, (float(low), float(high)), count)


def _holds(kind: type, low: int, high: int) -> bool:
    return not np.issubdtype(kind, np.integer) or (np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)


class Attention:
    """Editing only where the model was unsure.

    The Segment Editor gets a copy of the scan that is blank elsewhere as its source volume, and may edit only where
    that has the scan's own intensities. A mask segment looks simpler, but limits painting only: when the mask is a
    single segment, the editor lets the current segment be erased everywhere and adds what was erased to the mask
    (vtkSlicerSegmentEditorLogic::ModifySegmentByLabelmap, Slicer 5.12 and 5.13). With the uncertainty itself as the
    source, effects that look at intensities would no longer see the scan.

    Args:
        editorNode: The vtkMRMLSegmentEditorNode that is limited.
    """

    def __init__(self, editorNode: slicer.vtkMRMLSegmentEditorNode) -> None:
        self.editorNode = editorNode

    def apply(self, volume: slicer.vtkMRMLScalarVolumeNode | None, scan: UnsureScan) -> None:
        """Limit the editor to a region, or to another one.

        Args:
            volume: The scan's node.
            scan: Made from it by ``unsureScan``.
        """
        node = self.node() or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        node.SetName(f"{volume.GetName()} where unsure")
        node.SetAttribute(ROLE_ATTRIBUTE, ROLE)
        node.SetAttribute(CASE_ATTRIBUTE, volume.GetAttribute(CASE_ATTRIBUTE))
        node.SetSaveWithScene(False)
        node.SetAttribute(_NOT_IN_DATA, "1")
        node.CopyOrientation(volume)
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        node.SetAndObserveImageData(imageData(scan.voxels))
        editor = self.editorNode
        # First the volume: the editor's widget fits its range to the new one and would spoil a range set before.
        editor.SetAndObserveSourceVolumeNode(node)
        modified = editor.StartModify()
        editor.SetAttribute(_LIMITED, "1")
        editor.SetSourceVolumeIntensityMaskRange(*scan.range)
        editor.SetSourceVolumeIntensityMask(True)
        editor.EndModify(modified)

    def remove(self, volume: slicer.vtkMRMLScalarVolumeNode | None = None) -> None:
        """Allow editing everywhere again.

        Args:
            volume: The scan that becomes the editor's source volume again.
        """
        editor, node = self.editorNode, self.node()
        if editor.GetAttribute(_LIMITED) is not None:
            editor.RemoveAttribute(_LIMITED)
            editor.SetSourceVolumeIntensityMask(False)
            editor.SetAndObserveSourceVolumeNode(volume)
        if node is not None:
            slicer.mrmlScene.RemoveNode(node)

    def isOn(self) -> bool:
        """Whether the editor is limited now; its user may switch the intensity range off."""
        node = self.node()
        return (
            node is not None
            and self.editorNode.GetSourceVolumeIntensityMask()
            and self.editorNode.GetSourceVolumeNode() is node
        )

    @staticmethod
    def node() -> slicer.vtkMRMLScalarVolumeNode | None:
        """The blanked scan, if there is one."""
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            if node.GetAttribute(ROLE_ATTRIBUTE) == ROLE:
                return node
        return None
