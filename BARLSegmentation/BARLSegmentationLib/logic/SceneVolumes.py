# SPDX-License-Identifier: Apache-2.0
"""What the scene holds beside cases: volumes that can become cases, segmentations that can become labels."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import slicer

from BARLSegmentationLib.logic.CaseLoader import ROLE_ATTRIBUTE, isOurs
from BARLSegmentationLib.logic.Correction import segmentTag

if TYPE_CHECKING:
    from barl.project.labels import Code, Label, Terminology

_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
# A date, a patient's name as DICOM writes it, or letters and digits as hospitals number patients.
_PERSONAL = re.compile(r"[\^,]|(19|20)\d{2}[-_. ]?\d{2}[-_. ]?\d{2}|\b[A-Za-z]{0,3}\d{5,}\b")


def usersVolumes(scene: slicer.vtkMRMLScene | None = None) -> list[slicer.vtkMRMLScalarVolumeNode]:
    """The scalar volumes of the scene that belong to no case, in the order in which they came.

    A copy of a case's volume, as Clone and Crop Volume make it, has the attributes of its original and belongs to none.
    """
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene or slicer.mrmlScene)
    return [
        node
        for node in nodes
        if node.GetClassName() == "vtkMRMLScalarVolumeNode"
        and (node.GetAttribute(ROLE_ATTRIBUTE) is None or not isOurs(node))
        and not node.GetHideFromEditors()
        and node.GetImageData() is not None
    ]


def comesFromDicom(node: slicer.vtkMRMLStorableNode) -> bool:
    """Whether a node was made from DICOM files: its name may hold a patient's."""
    if node.GetAttribute("DICOM.instanceUIDs"):
        return True
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if item and hierarchy.GetItemUID(item, "DICOM"):
        return True
    storage = node.GetStorageNode()
    name = (storage.GetFileName() or "") if storage is not None else ""
    return name.lower().endswith(_DICOM_ENDINGS)


def nameOf(node: slicer.vtkMRMLStorableNode) -> str:
    """The name of a node for a case; empty if it may be a patient's."""
    return "" if comesFromDicom(node) else node.GetName()


def proposedNames(names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Names of new cases: as given, but ``case_001`` for an empty one and for one that may be a patient's.

    Args:
        names: Of files or nodes.
        taken: Names that the project's cases have.
    """
    used = {name.casefold() for name in taken}
    proposed, number = [], 0
    for given in names:
        name = " ".join(given.split())
        neutral = not name or _PERSONAL.search(name)
        while neutral or name.casefold() in used:
            number += 1
            name, neutral = f"case_{number:03d}", None
        used.add(name.casefold())
        proposed.append(name)
    return proposed


def labelsOf(segmentation: slicer.vtkMRMLSegmentationNode) -> list[tuple[str, Label]]:
    """A label for each segment, with its name, color and terminology; values from 1, left/right pairs marked.

    Returns:
        Id of the segment and label, in the order of the segments.
    """
    from barl.project.labels import Label
    from barl.project.sides import with_sides

    segments = segmentation.GetSegmentation()
    ids = list(segments.GetSegmentIDs())
    labels = []
    for value, segmentId in enumerate(ids, start=1):
        segment = segments.GetSegment(segmentId)
        color = tuple(round(255 * part) for part in segment.GetColor())
        coded = terminologyOf(segmentTag(segment, segment.GetTerminologyEntryTagName()))
        labels.append(Label(value, segment.GetName(), color, coded))
    return list(zip(ids, with_sides(labels), strict=True))


def terminologyOf(entry: str) -> Terminology | None:
    """What Slicer's serialized terminology entry says; None if it says nothing of a type, or just "Tissue" as each new
    segment's does."""
    from barl.project.labels import Terminology

    parts = entry.split("~")
    category, kind, modifier = (_code(part) for part in (*parts[1:4], *[""] * 3)[:3])
    if category is None or kind is None or kind.value == category.value:
        return None
    return Terminology(category, kind, modifier)


def _code(text: str) -> Code | None:
    """A code of the form scheme^value^meaning."""
    from barl.project.labels import Code

    parts = text.split("^")
    return Code(*parts) if len(parts) == 3 and all(parts) else None
