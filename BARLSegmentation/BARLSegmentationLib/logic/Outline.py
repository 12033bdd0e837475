# SPDX-License-Identifier: Apache-2.0
"""The outline in the scene as a label map, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

if TYPE_CHECKING:
    from barl.images.geometry import Grid
    from barl.project.labels import Label

LABEL_TAG = "BARL.Label"  # tag of a segment: its value in the project's label table
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Layer:
    """Segments that share one array: voxels ``[k, j, i]``, index of the first in the scan, segment -> table value."""

    voxels: np.ndarray
    start: tuple[int, int, int]
    values: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Fitted:
    """A segment that lay on another grid than the scan's, or in part outside of it: its name, and its volume in ml
    as it was drawn and on the scan's grid."""

    name: str
    drawn: float
    kept: float


@dataclass(frozen=True)
class Snapshot:
    """The outline at one moment, apart from the scene, so that any thread may work on it.

    Attributes:
        grid: Of the scan.
        labels: The project's table.
        layers: The voxels.
        leftOut: Names of segments without a label in the table; they are not part of the label map.
        missing: Names of labels whose segment was removed.
        fitted: What was brought onto the scan's grid.
    """

    grid: Grid
    labels: list[Label]
    layers: list[Layer]
    leftOut: list[str]
    missing: list[str]
    fitted: Sequence[Fitted] = ()

    def labelMap(self) -> tuple[np.ndarray, int]:
        """The outline with the values of the label table, ``[k, j, i]`` on the scan's grid.

        Where segments overlap, the label that comes later in the table wins.

        Returns:
            The label map, and how many voxels lay in several labels.
        """
        highest = max(label.value for label in self.labels)
        merged = np.zeros(self.grid.shape, np.uint8 if highest < 256 else np.uint16)
        overlaps = 0
        for layer in self.layers:
            table = np.zeros(max(int(layer.voxels.max(initial=0)), *(a for a, _ in layer.values)) + 1, merged.dtype)
            for segmentValue, value in layer.values:
                table[segmentValue] = value
            for k, drawn in enumerate(layer.voxels, start=layer.start[0]):
                if not drawn.any():
                    continue
                _, j, i = layer.start
                place = merged[k, j : j + drawn.shape[0], i : i + drawn.shape[1]]
                new = table[drawn]
                overlaps += int(np.count_nonzero((place > 0) & (new > 0) & (place != new)))
                np.maximum(place, new, out=place)  # the table is in ascending order of value
        return merged, overlaps

    def volumes(self, labelMap: np.ndarray) -> dict[int, float]:
        """Milliliters of each label of the outline's ``labelMap`` by its value."""
        counts = np.zeros(int(np.iinfo(labelMap.dtype).max) + 1, np.int64)
        for plane in labelMap:
            if plane.any():
                found = np.bincount(plane.ravel())
                counts[: len(found)] += found
        return {label.value: int(counts[label.value]) * self.grid.voxel_ml for label in self.labels}


def tagSegments(segmentation: slicer.vtkMRMLSegmentationNode, labels: list[Label]) -> None:
    """Write each label's value into its segment, found by its name: it may be renamed and re-numbered in editing."""
    values = {label.name.casefold(): label.value for label in labels}
    segments = segmentation.GetSegmentation()
    for segmentId in segments.GetSegmentIDs():
        segment = segments.GetSegment(segmentId)
        if not segmentTag(segment, LABEL_TAG) and segment.GetName().casefold() in values:
            segment.SetTag(LABEL_TAG, str(values[segment.GetName().casefold()]))


def untagCopies(segmentation: slicer.vtkMRMLSegmentationNode, labels: Sequence[Label]) -> None:
    """Of several segments that are one label, only the one with its name stays it: a copy has the tag of its original.

    Raises:
        barl.errors.InputError: None of them has the label's name, or several have it.
    """
    from barl.errors import InputError

    tagSegments(segmentation, list(labels))
    segments = segmentation.GetSegmentation()
    each = [segments.GetSegment(segmentId) for segmentId in segments.GetSegmentIDs()]
    taken = {label.name.casefold() for label in labels}
    for label in labels:
        found = [segment for segment in each if segmentTag(segment, LABEL_TAG) == str(label.value)]
        others = [segment for segment in found if segment.GetName().casefold() != label.name.casefold()]
        if len(found) > 1 and len(others) != len(found) - 1:
            raise InputError(
                f"{len(found)} segments are {label.name}: {', '.join(segment.GetName() for segment in found)}.",
                f"Name the one that counts {label.name} and give the others another name, or remove them.",
            )
        for segment in others if len(found) > 1 else ():
            if segment.GetName().casefold() not in taken:  # else it was renamed, which takeSnapshot refuses
                segment.RemoveTag(LABEL_TAG)


def takeLabels(segmentation: slicer.vtkMRMLSegmentationNode, before: Sequence[Label], labels: Sequence[Label]) -> None:
    """Give segments the names of a label table, and each new label an empty segment; what is drawn stays.

    Args:
        segmentation: vtkMRMLSegmentationNode.
        before: The table until now; a segment that the user has renamed keeps its name.
        labels: The table; a segment that has the name of a new label already becomes it.
    """
    tagSegments(segmentation, list(before))
    former = {label.value: label.name for label in before}
    segments = segmentation.GetSegmentation()
    each = [segments.GetSegment(segmentId) for segmentId in segments.GetSegmentIDs()]
    present = {segmentTag(segment, LABEL_TAG): segment for segment in each}
    tagSegments(segmentation, [label for label in labels if str(label.value) not in present])
    present |= {segmentTag(segment, LABEL_TAG): segment for segment in each}
    for label in labels:
        segment = present.get(str(label.value))
        if segment is None:
            segmentId = segments.AddEmptySegment("", label.name, [part / 255 for part in label.color])
            segments.GetSegment(segmentId).SetTag(LABEL_TAG, str(label.value))
        elif segment.GetName() == former.get(label.value):
            segment.SetName(label.name)


def takeSnapshot(
    segmentation: slicer.vtkMRMLSegmentationNode,
    volume: slicer.vtkMRMLScalarVolumeNode,
    grid: Grid,
    labels: list[Label],
) -> Snapshot:
    """Copy the segments of a label table from a segmentation node.

    Args:
        segmentation: vtkMRMLSegmentationNode.
        volume: The scan's volume node.
        grid: The scan's grid.
        labels: The table.

    Raises:
        barl.errors.InputError: The segmentation lies under another transform than the scan, the scan no longer lies
            where its file says, a segment has no voxels to give because it is kept as a surface, or a segment was given
            the name of another label than its own.
    """
    from barl.errors import InputError

    if segmentation.GetParentTransformNode() is not volume.GetParentTransformNode():
        raise InputError(
            "The outline lies under another transform than its scan.", "Put both under the same one, or under none."
        )
    if not _lies(volume, grid):
        raise InputError(
            "The scan was moved in the scene, with a transform that was hardened: its outline would lie elsewhere.",
            "Apply the inverse transform to both, or remove both in Data and open the case again without the edit.",
        )
    tagSegments(segmentation, labels)
    known = {str(label.value): label.value for label in labels}
    named = {label.name.casefold(): str(label.value) for label in labels}
    segments, layers, leftOut, arrays = segmentation.GetSegmentation(), [], [], {}
    for segmentId in segments.GetSegmentIDs():
        segment = segments.GetSegment(segmentId)
        image = segment.GetRepresentation(binaryName())
        if image is None:
            raise InputError(
                f"The segment {segment.GetName()} has no label map.",
                "Make the binary label map the source representation in the Segmentations module.",
            )
        if image.IsEmpty():
            continue
        tag = segmentTag(segment, LABEL_TAG)
        value = known.get(tag)
        if value is None:
            leftOut.append(segment.GetName())
            continue
        if named.get(segment.GetName().casefold(), tag) != tag:  # by its tag it would be stored as what it was before
            label = next(label.name for label in labels if label.value == value)
            raise InputError(
                f"The segment {segment.GetName()} was {label} before it was renamed.",
                f"Name it {label} again; what is in it becomes {segment.GetName()} by Logical operators of the editor.",
            )
        arrays.setdefault(image.GetAddressAsString(""), (image, []))[1].append(
            (segmentId, segment.GetLabelValue(), value)
        )
    tags = {segmentTag(segments.GetSegment(segmentId), LABEL_TAG) for segmentId in segments.GetSegmentIDs()}
    missing = [label.name for label in labels if str(label.value) not in tags]
    fitted: list[Fitted] = []
    for image, members in arrays.values():
        voxels, toRAS = _voxels(image), nodeToRAS(image)
        placed = _placed(voxels, image.GetExtent()[::2], toRAS, grid)
        layer, outside = None, []
        if placed is not None:
            layer, outside = _cut(*placed, grid.shape, tuple((a, b) for _, a, b in members))
            layers += [layer] if layer else []
        for segmentId, segmentValue, value in members:
            lost, kept = sum(int(np.count_nonzero(part == segmentValue)) for part in outside), 0
            if placed is None:  # drawn on another grid: Slicer resamples it
                array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume)
                if array is not None:
                    kept = int(np.count_nonzero(array))
                    layers.append(Layer(array[order(volume, grid)], (0, 0, 0), ((1, value),)))
            elif lost and layer:
                kept = int(np.count_nonzero(layer.voxels == segmentValue))
            if placed is None or lost:
                drawn = lost + kept if placed is not None else int(np.count_nonzero(voxels == segmentValue))
                voxelMl = abs(float(np.linalg.det(toRAS[:3, :3]))) / 1000
                fitted.append(Fitted(segments.GetSegment(segmentId).GetName(), drawn * voxelMl, kept * grid.voxel_ml))
    return Snapshot(grid, list(labels), layers, leftOut, missing, fitted)


def withoutLabel(segmentation: slicer.vtkMRMLSegmentationNode) -> list[str]:
    """Names of the segments with voxels that are no label of the project, which does not hold them."""
    segments, names = segmentation.GetSegmentation(), []
    for segmentId in segments.GetSegmentIDs():
        segment = segments.GetSegment(segmentId)
        image = segment.GetRepresentation(binaryName())
        if image is not None and not image.IsEmpty() and not segmentTag(segment, LABEL_TAG):
            names.append(segment.GetName())
    return names


def segmentTag(segment: slicer.vtkSegment, name: str) -> str:
    """A segment's tag; empty if it has none."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


def binaryName() -> str:
    return slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()


def _voxels(image: slicer.vtkOrientedImageData) -> np.ndarray:
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def nodeToRAS(node: slicer.vtkOrientedImageData | slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """4 x 4: from indices (i, j, k) of an oriented image or a volume node to RAS in mm."""
    matrix = vtk.vtkMatrix4x4()
    read = node.GetIJKToRASMatrix if node.IsA("vtkMRMLVolumeNode") else node.GetImageToWorldMatrix
    read(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _placed(
    voxels: np.ndarray, first: Sequence[int], toRAS: np.ndarray, grid: Grid
) -> tuple[np.ndarray, tuple[int, int, int]] | None:
    """Voxels in the order of a grid, if they are voxels of it.

    Args:
        voxels: ``[k, j, i]``; Slicer's reader reverses an axis of left-handed scans.
        first: Index (i, j, k) of the first voxel for ``toRAS``.
        toRAS: 4 x 4, from indices to RAS in mm.
        grid: Of the scan.

    Returns:
        A view of the voxels and the index (k, j, i) in the grid of its first one; None if these are no voxels of it.
    """
    toIndex = np.linalg.inv(gridToRAS(grid)) @ toRAS
    signs = np.where(np.diag(toIndex)[:3] < 0, -1, 1)
    corners = np.array(first) + np.array([*np.ndindex(2, 2, 2)]) * (np.array(voxels.shape[::-1]) - 1)
    wanted = signs * corners + np.rint(toIndex[:3, 3]).astype(int)
    if np.abs(corners @ toIndex[:3, :3].T + toIndex[:3, 3] - wanted).max() > 0.02:
        return None
    k, j, i = (int(n) for n in wanted.min(axis=0)[::-1])
    return voxels[tuple(slice(None, None, sign) for sign in signs[::-1])], (k, j, i)


def _lies(volume: slicer.vtkMRMLScalarVolumeNode, grid: Grid) -> bool:
    """Whether a scan's node lies where its grid does, within a tenth of a voxel; axes may be reversed."""
    toIndex = np.linalg.inv(gridToRAS(grid)) @ nodeToRAS(volume)
    size = np.array(volume.GetImageData().GetDimensions()) - 1
    corners = np.array([*np.ndindex(2, 2, 2)]) * size
    there = corners @ toIndex[:3, :3].T + toIndex[:3, 3]
    signs = np.sign(np.diag(toIndex)[:3])
    wanted = np.where(signs < 0, size - corners, corners)
    return bool(np.abs(there - wanted).max() < 0.1)


def order(volume: slicer.vtkMRMLScalarVolumeNode, grid: Grid) -> tuple[slice, slice, slice]:
    """What brings an array of a scan's node, [k, j, i], into the order of the scan's grid, and back."""
    signs = np.diag(np.linalg.inv(gridToRAS(grid)) @ nodeToRAS(volume))[:3]
    k, j, i = (slice(None, None, -1 if sign < 0 else 1) for sign in signs[::-1])
    return k, j, i


def gridToRAS(grid: Grid) -> np.ndarray:
    """4 x 4: from indices (i, j, k) of an engine's grid to RAS in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = grid.axes * grid.spacing
    matrix[:3, 3] = grid.origin
    return _LPS_TO_RAS @ matrix


def _cut(
    voxels: np.ndarray, offset: tuple[int, int, int], shape: tuple[int, int, int], values: Sequence[tuple[int, int]]
) -> tuple[Layer | None, list[np.ndarray]]:
    """A copy of the part of ``voxels`` that lies on the scan, and the parts that do not."""
    start = tuple(max(n, 0) for n in offset)
    stop = tuple(min(n + size, whole) for n, size, whole in zip(offset, voxels.shape, shape, strict=True))
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        return None, [voxels]
    outside = []
    for axis, (a, b, n) in enumerate(zip(start, stop, offset, strict=True)):
        sides = [slice(0, a - n), slice(b - n, None), slice(a - n, b - n)]
        below, above, voxels = (voxels[(slice(None),) * axis + (side,)] for side in sides)
        outside += [part for part in (below, above) if part.size]
    return Layer(voxels.copy(), start, values), outside


def replaceOutline(
    segmentation: slicer.vtkMRMLSegmentationNode,
    volume: slicer.vtkMRMLScalarVolumeNode,
    grid: Grid,
    labelMap: np.ndarray,
    labels: list[Label],
) -> None:
    """Make the segments of a label table what a label map says.

    Args:
        segmentation: vtkMRMLSegmentationNode.
        volume: The scan's volume node.
        grid: Of the scan.
        labelMap: ``[k, j, i]`` on that grid.
        labels: The table.
    """
    from barl.fill.drawn import bounding_box

    logic, segments = slicer.vtkSlicerSegmentationsModuleLogic, segmentation.GetSegmentation()
    tagged = {segmentTag(segments.GetSegment(name), LABEL_TAG): name for name in segments.GetSegmentIDs()}
    names = {label.value: tagged[str(label.value)] for label in labels if str(label.value) in tagged}
    for name in names.values():  # first all, so that no two share a voxel meanwhile, which would part their layers
        logic.ClearSegment(segmentation, name)
    labelMap = labelMap[order(volume, grid)]
    box = bounding_box(labelMap != 0)
    if box is None:
        return
    part, matrix, image = labelMap[box], vtk.vtkMatrix4x4(), slicer.vtkOrientedImageData()
    volume.GetIJKToRASMatrix(matrix)
    image.SetExtent([n for side in reversed(box) for n in (side.start, side.stop - 1)])
    image.SetGeometryFromImageToWorldMatrix(matrix)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    voxels = _voxels(image)
    for value, name in names.items():
        np.equal(part, value, out=voxels, casting="unsafe")
        if voxels.any():
            logic.SetBinaryLabelmapToSegment(image, segmentation, name, logic.MODE_REPLACE, image.GetExtent())
