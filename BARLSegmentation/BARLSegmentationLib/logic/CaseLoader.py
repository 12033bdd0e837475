# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from BARLSegmentationLib.logic.Voxels import fill

if TYPE_CHECKING:
    from barl.project.labels import Label, Terminology
    from barl.project.records import Revision
    from barl.project.store import Project

# Node attributes by which a node is found again, also after its scene was saved and opened.
PROJECT_ATTRIBUTE = "BARL.Project"  # the project's folder
CREATED_ATTRIBUTE = "BARL.Created"  # when the project was made: not another one in its folder; older scenes lack it
CASE_ATTRIBUTE = "BARL.Case"  # id of the case
ROLE_ATTRIBUTE = "BARL.Role"  # image, label, uncertainty, attention or roi
CHANNEL_ATTRIBUTE = "BARL.Channel"  # name of an image's channel
# Id of the node that the attributes were written for: a copy that the user makes in Data has them too, and is no node
# of a case. Nodes of scenes of version 0.1 lack it.
NODE_ATTRIBUTE = "BARL.Node"
REVISION_ATTRIBUTE = "BARL.Revision"  # id of the revision a segmentation or an uncertainty map was made from

# Slicer's names of the lists that come with it; codes that are in neither are shown with their own meaning.
_TERMINOLOGY = "Segmentation category and type - DICOM master list"
_ANATOMIC_REGIONS = "Anatomic codes - DICOM master list"
LARGE_PART = 0.3  # of the scan: a smaller part is cut out of a label map
SAMPLED_VOXELS = 500_000  # of a scan, for its window: 10 ms instead of 300 for all of 42 million


@dataclass(frozen=True)
class LoadedCase:
    """The nodes of one case.

    Attributes:
        caseId: Its id in the project.
        volumes: One for each channel.
        segmentation: Its newest label map, if it has one.
        uncertainty: How unsure the model was, 0 to 1 per voxel, of its newest prediction, if there is one.
        revision: What ``segmentation`` was made from.
    """

    caseId: str
    volumes: list[slicer.vtkMRMLScalarVolumeNode]
    segmentation: slicer.vtkMRMLSegmentationNode | None = None
    uncertainty: slicer.vtkMRMLScalarVolumeNode | None = None
    revision: Revision | None = None

    def changedVolumes(self) -> list[slicer.vtkMRMLScalarVolumeNode]:
        """Those in the scene whose voxels are not those that the project holds; one that was only moved is none."""
        return [node for node in self.volumes if node.GetScene() is not None and _isChanged(node)]

    @property
    def nodes(self) -> list:
        return [node for node in (*self.volumes, self.segmentation, self.uncertainty) if node is not None]


class CaseLoader:
    """Brings a case of a project into the scene.

    What is already there is used again, so that loading a case twice neither doubles it nor discards an edit; nothing
    else in the scene is touched.

    Args:
        scene: Where the nodes go.
        ahead: Voxels of files that were read already, ``[k, j, i]`` in the order of the scan's node.
    """

    def __init__(
        self, scene: slicer.vtkMRMLScene | None = None, ahead: Mapping[Path, np.ndarray] | None = None
    ) -> None:
        self.scene, self.ahead = scene or slicer.mrmlScene, ahead or {}

    def load(self, project: Project, caseId: str) -> LoadedCase:
        """Load all images of a case, its newest label map and the uncertainty of its newest prediction.

        Of an accepted case the newest label map that a person made is loaded.

        Raises:
            barl.errors.BarlError: The case does not exist, or one of its files cannot be read.
        """
        from barl.project.states import RevisionKind

        case = project.cases.get(caseId)
        known = caseAttributes(project, case.id)
        volumes = []
        for path, channel in zip(project.cases.image_paths(case.id), project.channels, strict=True):
            name = case.name if len(project.channels) == 1 else f"{case.name} {channel.name}"
            attributes = known | {ROLE_ATTRIBUTE: "image", CHANNEL_ATTRIBUTE: channel.name}
            volumes.append(
                self._present("vtkMRMLScalarVolumeNode", attributes) or self.readVolume(path, name, attributes)
            )
        # A later model's prediction of an accepted case is a measurement, not a better outline.
        byPerson = {"kinds": (RevisionKind.DRAFT, RevisionKind.ACCEPTED)} if case.is_accepted else {}
        revision, segmentation = project.revisions.newest(case.id, **byPerson), None
        if revision is not None:
            attributes = known | {ROLE_ATTRIBUTE: "label", REVISION_ATTRIBUTE: revision.id}
            segmentation = self._present("vtkMRMLSegmentationNode", attributes) or self.readSegmentation(
                revision.path, segmentationName(case.name), project.labels, volumes[0], attributes
            )
        predicted, uncertainty = project.revisions.newest(case.id, (RevisionKind.PREDICTION,)), None
        if predicted is not None and predicted.uncertainty_path is not None:
            attributes = known | {ROLE_ATTRIBUTE: "uncertainty", REVISION_ATTRIBUTE: predicted.id}
            uncertainty = self._present("vtkMRMLScalarVolumeNode", attributes) or self.readUncertainty(
                predicted.uncertainty_path, f"{case.name} uncertainty", attributes, volumes[0]
            )
        return LoadedCase(case.id, volumes, segmentation, uncertainty, revision)

    def readVolume(self, path: Path, name: str, attributes: dict[str, str]) -> slicer.vtkMRMLScalarVolumeNode:
        """A scan from a file, its window set to what it holds."""
        node = self._readVolume(path, name)
        self._addDisplay(node, *usualWindow(slicer.util.arrayFromVolume(node)))
        return _marked(node, attributes)

    def readUncertainty(
        self, path: Path, name: str, attributes: dict[str, str], volume: slicer.vtkMRMLScalarVolumeNode
    ) -> slicer.vtkMRMLScalarVolumeNode:
        """A map of 0 to 1 of a scan from a file, under the scan's transform, its window the same for every case."""
        node = self._readVolume(path, name, volume)
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        self._addDisplay(node, 0.0, 1.0)
        return _marked(node, attributes)

    def _addDisplay(self, node: slicer.vtkMRMLScalarVolumeNode, low: float, high: float) -> None:
        """Show a volume in gray from ``low`` to ``high``."""
        display = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
        display.SetAutoWindowLevel(False)  # before it sees the voxels, or it looks at them all
        display.SetWindowLevelMinMax(low, high)
        display.SetDefaultColorMap()
        node.SetAndObserveDisplayNodeID(display.GetID())

    def readSegmentation(
        self,
        path: Path,
        name: str,
        labels: list[Label],
        volume: slicer.vtkMRMLScalarVolumeNode,
        attributes: dict[str, str],
    ) -> slicer.vtkMRMLSegmentationNode:
        """A label map from a file as segments with the names, colors, values and terminology of a label table."""
        labelmap, _storage = self._read(path, name, "vtkMRMLLabelMapVolumeNode", volume)
        node = self.emptySegmentation(name, [], volume, attributes)
        node.SetLabelmapConversionColorTableNodeID(self._colorTable(labels).GetID())
        with slicer.util.NodeModify(node):
            self._addSegments(node.GetSegmentation(), labelmap, labels)
            self._completeSegments(node.GetSegmentation(), labels)
        return node

    def emptySegmentation(
        self, name: str, labels: list[Label], volume: slicer.vtkMRMLScalarVolumeNode, attributes: dict[str, str]
    ) -> slicer.vtkMRMLSegmentationNode:
        """Segments of a label table with nothing in them, to draw on a scan; under the scan's transform."""
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        self._completeSegments(node.GetSegmentation(), labels)
        return _marked(node, attributes)

    def _present(self, className: str, attributes: dict[str, str]) -> slicer.vtkMRMLDisplayableNode | None:
        for node in slicer.util.getNodesByClass(className, self.scene):
            if isOurs(node) and _has(node, attributes):
                if not _isHollow(node):
                    return node
                self.scene.RemoveNode(node)
        return None

    def _readVolume(
        self, path: Path, name: str, like: slicer.vtkMRMLScalarVolumeNode | None = None
    ) -> slicer.vtkMRMLScalarVolumeNode:
        node, storage = self._read(path, name, "vtkMRMLScalarVolumeNode", like)
        self.scene.AddNode(storage)
        self.scene.AddNode(node)
        node.SetAndObserveStorageNodeID(storage.GetID())
        return node

    def _read(self, path: Path, name: str, className: str, like: slicer.vtkMRMLScalarVolumeNode | None = None) -> tuple:
        """A volume node from a file and what has read it, both not yet in the scene: nobody looks at the voxels yet.

        Args:
            like: A volume on the same grid; None for a scan, which is never read ahead.
        """
        node, storage = (
            self.scene.CreateNodeByClass(kind) for kind in (className, "vtkMRMLVolumeArchetypeStorageNode")
        )
        for made in (node, storage):
            made.UnRegister(None)  # Python owns it now
        storage.SetFileName(str(path))
        storage.SetSingleFile(True)
        if like is not None and path in self.ahead:
            fill(node, storage, self.ahead[path], like)
            node.SetName(name)
            return node, storage
        # Slicer logs a page of errors about a missing file.
        if not path.is_file() or not storage.ReadData(node):
            from barl.errors import ProjectError

            raise ProjectError(f"The file {path.name} of case {name} cannot be read.", "Restore it from a backup.")
        node.SetName(name)
        return node, storage

    @staticmethod
    def _addSegments(
        segmentation: slicer.vtkSegmentation, labelmap: slicer.vtkMRMLLabelMapVolumeNode, labels: list[Label]
    ) -> None:
        """Segments for the labels that a label map has; they share its voxels.

        Slicer's own import looks at every voxel several times for each label, which stops the window for seconds.
        """
        voxels = slicer.util.arrayFromVolume(labelmap)
        drawn = [np.flatnonzero(voxels.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        if drawn[0].size == 0:
            return
        box = tuple(slice(int(places[0]), int(places[-1]) + 1) for places in drawn)
        if voxels[box].size < LARGE_PART * voxels.size:
            voxels = voxels[box].copy()
        else:  # the label map goes, its voxels stay: a copy of 100 million would stop the window
            box = tuple(slice(0, n) for n in voxels.shape)
        highest, present = int(voxels.max()), set()
        for plane in voxels:
            present.update(np.flatnonzero(np.bincount(plane.ravel())).tolist())
            if len(present - {0}) == highest:  # every label is there: the other planes can add none
                break
        scalars, matrix = numpy_to_vtk(voxels.ravel()), vtk.vtkMatrix4x4()
        scalars.SetName("ImageScalars")
        labelmap.GetIJKToRASMatrix(matrix)
        image = slicer.vtkOrientedImageData()
        image.SetExtent([n for side in reversed(box) for n in (side.start, side.stop - 1)])
        image.SetGeometryFromImageToWorldMatrix(matrix)
        image.GetPointData().SetScalars(scalars)
        known = {label.value: label for label in labels}
        for value in sorted(present - {0}):
            label, segment = known.get(value), slicer.vtkSegment()
            segment.SetName(label.name if label else f"Label_{value}")
            segment.SetColor([part / 255 for part in label.color] if label else [0.5, 0.5, 0.5])
            segment.SetLabelValue(value)
            segment.AddRepresentation(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName(), image)
            segmentation.AddSegment(segment)

    def _colorTable(self, labels: list[Label]) -> slicer.vtkMRMLColorTableNode:
        """The label table as a color table: import takes names and colors from it, export takes the values."""
        wanted = {label.value: (label.name, tuple(part / 255 for part in label.color)) for label in labels}
        for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode", self.scene):
            if node.GetAttribute("BARL.Labels") == repr(wanted):
                return node
        node = slicer.vtkMRMLColorTableNode()
        node.SetTypeToUser()
        node.SetName(self.scene.GenerateUniqueName("BARL labels"))
        node.SetAttribute("BARL.Labels", repr(wanted))
        node.SetSaveWithScene(False)  # made anew when needed: Slicer must not ask to save it
        node.SetHideFromEditors(True)
        node.SetNumberOfColors(max(wanted) + 1)
        for value, (name, color) in wanted.items():
            node.SetColor(value, name, *color, 1.0)
        return self.scene.AddNode(node)

    @staticmethod
    def _completeSegments(segmentation: slicer.vtkSegmentation, labels: list[Label]) -> None:
        """A label without a voxel gets its empty segment, so that it can be outlined; order as in the label table."""
        present = {segmentation.GetSegment(i).GetLabelValue(): i for i in segmentation.GetSegmentIDs()}
        for index, label in enumerate(labels):
            segmentId = present.get(label.value)
            if segmentId is None:
                segmentId = segmentation.AddEmptySegment("", label.name, [part / 255 for part in label.color])
                segmentation.GetSegment(segmentId).SetLabelValue(label.value)
            segmentation.SetSegmentIndex(segmentId, index)
            if label.terminology:
                segment = segmentation.GetSegment(segmentId)
                segment.SetTag(segment.GetTerminologyEntryTagName(), terminologyEntry(label.terminology))


def usualWindow(voxels: np.ndarray) -> tuple[float, float]:
    """Where Slicer's automatic window begins and ends: at the 0.1st and 99.9th percentile, here of a sample."""
    step = voxels.size // SAMPLED_VOXELS | 1  # odd: a power of two would keep to a few columns of the scan
    sample = voxels.ravel()[::step]
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, (0.1, 99.9)) if sample.size else (0.0, 1.0)
    return float(low), float(high)


def segmentationName(name: str) -> str:
    """Name of the segmentation of a case or a scan."""
    return f"{name} segmentation"


def terminologyEntry(terminology: Terminology) -> str:
    """A ``barl.project.labels.Terminology`` in Slicer's serialized form."""
    codes = [terminology.category, terminology.type, terminology.modifier]
    # Slicer's own function takes value, scheme, meaning; it writes scheme, value, meaning.
    parts = [part for code in codes for part in ((code.value, code.scheme, code.meaning) if code else ("", "", ""))]
    return slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(
        _TERMINOLOGY, *parts, _ANATOMIC_REGIONS, *[""] * 6
    )


def caseAttributes(project: Project, caseId: str) -> dict[str, str]:
    """The attributes of all nodes of a case."""
    return {
        PROJECT_ATTRIBUTE: str(project.folder),
        CREATED_ATTRIBUTE: project.definition.created,
        CASE_ATTRIBUTE: caseId,
    }


def _has(node: slicer.vtkMRMLNode, attributes: dict[str, str]) -> bool:
    absent = CREATED_ATTRIBUTE if node.GetAttribute(CREATED_ATTRIBUTE) is None else ""
    return all(node.GetAttribute(name) == value for name, value in attributes.items() if name != absent)


def _isHollow(node: slicer.vtkMRMLDisplayableNode) -> bool:
    """Whether a node came back without its voxels: from a scene saved without its data, or whose files have moved."""
    if node.IsA("vtkMRMLSegmentationNode"):
        return node.GetSegmentation().GetNumberOfSegments() == 0
    return node.GetImageData() is None


def _isChanged(node: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Whether somebody has changed the voxels of a scan since they were read."""
    storage, image = node.GetStorageNode(), node.GetImageData()
    if storage is None or image is None or not node.GetModifiedSinceRead():
        return False
    return image.GetMTime() > storage.GetStoredTime().GetMTime()


def isOurs(node: slicer.vtkMRMLNode) -> bool:
    """Whether the attributes of a node were written for it, and not for one that it is a copy of."""
    return node.GetAttribute(NODE_ATTRIBUTE) in (None, node.GetID())


def adopt(nodes: Iterable[slicer.vtkMRMLNode]) -> None:
    """Take nodes that came with a scene for ours although they have got other ids there, as the scene had theirs."""
    names = (PROJECT_ATTRIBUTE, CASE_ATTRIBUTE, ROLE_ATTRIBUTE, CHANNEL_ATTRIBUTE)
    ours = set()
    for node in sorted(nodes, key=lambda node: not isOurs(node)):
        what = tuple(node.GetAttribute(name) for name in names)
        if node.GetAttribute(ROLE_ATTRIBUTE) is not None and what not in ours:
            ours.add(what)
            node.SetAttribute(NODE_ATTRIBUTE, node.GetID())


def disown(node: slicer.vtkMRMLNode) -> None:
    """Make a node of a case one of the user's own."""
    for name in (
        PROJECT_ATTRIBUTE,
        CREATED_ATTRIBUTE,
        CASE_ATTRIBUTE,
        ROLE_ATTRIBUTE,
        CHANNEL_ATTRIBUTE,
        NODE_ATTRIBUTE,
    ):
        node.RemoveAttribute(name)


def _marked(node: slicer.vtkMRMLDisplayableNode, attributes: dict[str, str]) -> slicer.vtkMRMLDisplayableNode:
    for name, value in attributes.items():
        node.SetAttribute(name, value)
    node.SetAttribute(NODE_ATTRIBUTE, node.GetID())
    return node
