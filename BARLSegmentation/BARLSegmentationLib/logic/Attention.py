# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

ROLE_TAG = "BARL.Role"  # tag of a segment that is no label
ATTENTION = "attention"
_OVERWRITE_BEFORE = "BARL.OverwriteModeBefore"  # attribute of the segment editor node while editing is limited


@dataclass(frozen=True)
class UnsureRegion:
    """Where the uncertainty reaches a threshold.

    Attributes:
        mask: uint8 ``[k, j, i]`` of 0 and 1, cut to the box around the ones.
        start: Index (k, j, i) of its first voxel in the uncertainty volume.
        threshold: From which a voxel belongs to it.
        voxels: How many do.
    """

    mask: np.ndarray
    start: tuple[int, int, int]
    threshold: float
    voxels: int


def unsureRegion(uncertainty: np.ndarray, threshold: float) -> UnsureRegion:
    """The region of an uncertainty map ``[k, j, i]``; no MRML in here, so that any thread may run it.

    It works slice by slice, because a thread that holds Python's lock for long stops the window.
    """
    mask = np.empty(uncertainty.shape, bool)
    inPlane, planes, voxels = np.zeros(uncertainty.shape[1:], bool), [], 0
    for k, values in enumerate(uncertainty):
        np.greater_equal(values, threshold, out=mask[k])
        count = int(np.count_nonzero(mask[k]))
        if count:
            inPlane |= mask[k]
            planes.append(k)
            voxels += count
    if not voxels:
        return UnsureRegion(np.zeros((1, 1, 1), np.uint8), (0, 0, 0), threshold, 0)
    rows, columns = np.flatnonzero(inPlane.any(axis=1)), np.flatnonzero(inPlane.any(axis=0))
    box = tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in (planes, rows, columns))
    cut = np.ascontiguousarray(mask[box]).view(np.uint8)
    return UnsureRegion(cut, tuple(part.start for part in box), threshold, voxels)


class Attention:
    """Editing only where the model was unsure: a hidden segment of that region is the Segment Editor's mask.

    The segment must survive the painting that it limits. The editor takes what is painted away from the segments that
    it may overwrite, by default from all of them and so from the mask too; afterwards what was painted could not be
    erased any more. Therefore the mask is hidden and only visible segments are overwritten while editing is limited.

    Args:
        editorNode: The vtkMRMLSegmentEditorNode whose mask is set.
    """

    def __init__(self, editorNode) -> None:
        self.editorNode = editorNode
        self._image = None

    def apply(self, segmentation, uncertainty, region: UnsureRegion) -> None:
        """Make or renew the mask and switch it on.

        Args:
            segmentation: vtkMRMLSegmentationNode that is edited.
            uncertainty: Volume that the region was made from; its geometry is the mask's.
            region: See ``unsureRegion``.
        """
        self._drop(segmentation)
        segment = slicer.vtkSegment()
        segment.SetName(_("Only where unsure (mask)"))
        segment.SetColor(1.0, 0.93, 0.30)
        segment.SetTag(ROLE_TAG, ATTENTION)
        names = slicer.vtkSegmentationConverter
        self._image = _orientedImage(region, uncertainty)
        segment.AddRepresentation(names.GetBinaryLabelmapRepresentationName(), self._image)
        if segmentation.GetSegmentation().ContainsRepresentation(names.GetClosedSurfaceRepresentationName()):
            # Else a surface would be made of it, which takes seconds and is shown nowhere.
            segment.AddRepresentation(names.GetClosedSurfaceRepresentationName(), vtk.vtkPolyData())
        segmentId = segmentation.GetSegmentation().GenerateUniqueSegmentID(ATTENTION)
        segmentation.GetSegmentation().AddSegment(segment, segmentId)
        display = segmentation.GetDisplayNode()
        if display is not None:
            display.SetSegmentVisibility(segmentId, False)
        node = self.editorNode
        modified = node.StartModify()
        if node.GetAttribute(_OVERWRITE_BEFORE) is None:
            node.SetAttribute(_OVERWRITE_BEFORE, str(node.GetOverwriteMode()))
        node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteVisibleSegments)
        node.SetMaskSegmentID(segmentId)
        node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
        node.EndModify(modified)

    def remove(self, segmentation) -> None:
        """Allow editing everywhere again and remove the mask."""
        node = self.editorNode
        before = node.GetAttribute(_OVERWRITE_BEFORE)
        if before is not None:
            modified = node.StartModify()
            node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
            node.SetMaskSegmentID("")
            node.SetOverwriteMode(int(before))
            node.RemoveAttribute(_OVERWRITE_BEFORE)
            node.EndModify(modified)
        if segmentation is not None:
            self._drop(segmentation)
        self._image = None

    def isIntact(self, segmentation) -> bool:
        """Whether the mask is as ``apply`` made it: the editor's undo brings back what was there before."""
        segmentIds = attentionIds(segmentation)
        if len(segmentIds) != 1 or self._image is None:
            return False
        segment = segmentation.GetSegmentation().GetSegment(segmentIds[0])
        image = segment.GetRepresentation(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName())
        display = segmentation.GetDisplayNode()
        hidden = display is None or not display.GetSegmentVisibility(segmentIds[0])
        return image is self._image and hidden and self.editorNode.GetMaskSegmentID() == segmentIds[0]

    def _drop(self, segmentation) -> None:
        for segmentId in attentionIds(segmentation):
            segmentation.GetSegmentation().RemoveSegment(segmentId)


def attentionIds(segmentation) -> list[str]:
    """Ids of the segments of a vtkMRMLSegmentationNode that are such masks."""
    segments = segmentation.GetSegmentation()
    return [i for i in segments.GetSegmentIDs() if segmentTag(segments.GetSegment(i), ROLE_TAG) == ATTENTION]


def segmentTag(segment, name: str) -> str:
    """A segment's tag; empty if it has none."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


def _orientedImage(region: UnsureRegion, volume):
    """The region as vtkOrientedImageData in the coordinates of the volume."""
    from vtk.util.numpy_support import numpy_to_vtk

    image = slicer.vtkOrientedImageData()
    (k, j, i), shape = region.start, region.mask.shape
    image.SetExtent(i, i + shape[2] - 1, j, j + shape[1] - 1, k, k + shape[0] - 1)
    scalars = numpy_to_vtk(region.mask.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image
