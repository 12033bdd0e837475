# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from barl.project.labels import Label
    from barl.project.store import Project

# Node attribute that names the label file a segmentation was made from.
REVISION_ATTRIBUTE = "BARL.Revision"


@dataclass(frozen=True)
class LoadedCase:
    """The nodes of one case: a volume for each channel and, if the case has a label map, its segmentation."""

    volumes: list[slicer.vtkMRMLScalarVolumeNode]
    segmentation: slicer.vtkMRMLSegmentationNode | None


class CaseLoader:
    """Brings a case of a project into the scene.

    What is already there is used again, so that loading a case twice neither doubles it nor discards an edit; nothing
    else in the scene is touched.

    Args:
        scene: Where the nodes go.
        volumesLogic: Slicer's own logic of the Volumes module.
        segmentationsLogic: Slicer's own logic of the Segmentations module.
    """

    def __init__(self, scene=None, volumesLogic=None, segmentationsLogic=None) -> None:
        self.scene = scene or slicer.mrmlScene
        self.volumesLogic = volumesLogic or slicer.modules.volumes.logic()
        self.segmentationsLogic = segmentationsLogic or slicer.modules.segmentations.logic()

    def load(self, project: Project, caseId) -> LoadedCase:
        """Load all images of a case and its newest label map; of an accepted case the newest that a person made.

        Raises:
            barl.errors.BarlError: The case does not exist, or one of its files cannot be read.
        """
        case = project.case(caseId)
        paths = project.image_paths(case.id)
        names = [case.name] if len(paths) == 1 else [f"{case.name} {channel.name}" for channel in project.channels]
        volumes = [self._volume(path, name) for path, name in zip(paths, names, strict=True)]
        # A later model's prediction of an accepted case is a measurement, not a better outline.
        byPerson = {"kinds": ("draft", "accepted")} if case.state == "accepted" else {}
        revision = project.newest(case.id, **byPerson)
        if revision is None:
            return LoadedCase(volumes, None)
        return LoadedCase(volumes, self._segmentation(revision.path, case.name, project.labels, volumes[0]))

    def _volume(self, path: Path, name: str) -> slicer.vtkMRMLScalarVolumeNode:
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", self.scene):
            storage = node.GetStorageNode()
            if storage is not None and storage.GetFileName() == str(path):
                return node
        return self._read(path, name, self.volumesLogic.SingleFile | self.volumesLogic.AutoWindowLevel)

    def _segmentation(self, path: Path, name: str, labels: list[Label], volume) -> slicer.vtkMRMLSegmentationNode:
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", self.scene):
            if node.GetAttribute(REVISION_ATTRIBUTE) == str(path):
                return node
        labelmap = self._read(path, name, self.volumesLogic.SingleFile | self.volumesLogic.LabelMap)
        labelmap.GetDisplayNode().SetAndObserveColorNodeID(self._colorTable(labels).GetID())
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        self.segmentationsLogic.ImportLabelmapToSegmentationNode(labelmap, node)
        self.scene.RemoveNode(labelmap)
        self._addMissingSegments(node.GetSegmentation(), labels)
        node.SetAttribute(REVISION_ATTRIBUTE, str(path))
        return node

    def _read(self, path: Path, name: str, options: int):
        node = self.volumesLogic.AddArchetypeVolume(str(path), name, options)
        if node is None:
            from barl.errors import ProjectError

            raise ProjectError(f"The file {path.name} of case {name} cannot be read.", "Restore it from a backup.")
        return node

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
        node.SetNumberOfColors(max(wanted) + 1)
        for value, (name, color) in wanted.items():
            node.SetColor(value, name, *color, 1.0)
        return self.scene.AddNode(node)

    @staticmethod
    def _addMissingSegments(segmentation, labels: list[Label]) -> None:
        """A label without a voxel gets its empty segment, so that it can be outlined; order as in the label table."""
        present = {segmentation.GetSegment(i).GetLabelValue(): i for i in segmentation.GetSegmentIDs()}
        for index, label in enumerate(labels):
            segmentId = present.get(label.value)
            if segmentId is None:
                segmentId = segmentation.AddEmptySegment("", label.name, [part / 255 for part in label.color])
                segmentation.GetSegment(segmentId).SetLabelValue(label.value)
            segmentation.SetSegmentIndex(segmentId, index)
