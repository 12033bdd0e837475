# SPDX-License-Identifier: Apache-2.0
"""Writes scans of the scene to files that the worker can add to a project; lists series of Slicer's DICOM database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Correction import fittedText
from BARLSegmentationLib.logic.Outline import LABEL_TAG, binaryName, segmentTag, takeSnapshot
from BARLSegmentationLib.logic.Prediction import objection, writeNrrd

if TYPE_CHECKING:
    import ctk
    from barl.project.labels import Channel, Label


def writeVolumes(volumes: Sequence, channels: Sequence[Channel], folder: Path) -> list[Path]:
    """Write one volume node for each channel to files in a new folder, named as the channels, which messages will name.

    Raises:
        barl.errors.InputError: A volume is missing or cannot be a scan.
        OSError: The disk is full or cannot be written.
    """
    from barl.errors import InputError

    if problem := objection(volumes):
        raise InputError(problem)
    paths = []
    for position, (channel, volume) in enumerate(zip(channels, volumes, strict=True)):
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in channel.name)
        paths.append(folder / f"{position}_{name}.nrrd")
        for _share in writeNrrd(volume, paths[-1]):
            pass
    return paths


def writeSegmentation(
    segmentation: slicer.vtkMRMLSegmentationNode,
    volumes: Sequence[slicer.vtkMRMLScalarVolumeNode],
    scan: Path,
    labels: Sequence[Label],
    values: Mapping[str, int] | None = None,
    leaveOut: Collection[str] = (),
) -> tuple[Path, str]:
    """Write a segmentation as a label map on its scan's grid; segments are matched to labels by name.

    The node stays as it is, and what a project left in it does not count: the user sees names.

    Args:
        segmentation: vtkMRMLSegmentationNode.
        volumes: The scan, a node for each channel.
        scan: The file that ``writeVolumes`` made of the first one.
        labels: The project's table.
        values: The label value of each segment by the segment's id, instead of names; other segments are left out.
        leaveOut: Names of segments without a label that the user does not want.

    Returns:
        The file, and what is doubtful about it or was changed, in words.

    Raises:
        barl.errors.InputError: A segment has no label of its name, or nothing is outlined.
        barl.errors.StorageError: The disk is full.
    """
    from barl.errors import InputError
    from barl.images.geometry import Grid
    from barl.images.writing import write_image

    grid = Grid.of_file(scan)
    ids = list(segmentation.GetSegmentation().GetSegmentIDs())
    segments = [segmentation.GetSegmentation().GetSegment(id) for id in ids]
    tags = [segmentTag(segment, LABEL_TAG) for segment in segments]
    try:
        for segmentId, segment in zip(ids, segments, strict=True):
            segment.RemoveTag(LABEL_TAG)
            if values is not None:
                segment.SetTag(LABEL_TAG, str(values.get(segmentId, 0)))
        snapshot = takeSnapshot(segmentation, volumes[0], grid, list(labels))
    finally:
        for segment, tag in zip(segments, tags, strict=True):
            segment.SetTag(LABEL_TAG, tag) if tag else segment.RemoveTag(LABEL_TAG)
    strange = [name for name in snapshot.leftOut if name not in leaveOut]
    if strange and values is None:
        raise InputError(
            _("The project has no label for the segment {name}.").format(name=strange[0]),
            _("Rename or remove the segment; the labels are: {names}.").format(
                names=", ".join(label.name for label in labels)
            ),
        )
    array, overlaps = snapshot.labelMap()
    if not array.any():
        raise InputError(
            _("The segmentation {name} is empty where the scan lies.").format(name=segmentation.GetName()),
            _("Choose another one, or add the case without an outline."),
        )
    path, notes = scan.with_name("outline.nii"), []
    write_image(grid.image(array), path)
    if overlaps:
        notes.append(_("{count} voxels outlined twice went to the later label.").format(count=overlaps))
    drawnOn = referenceVolume(segmentation)
    if drawnOn is not None and drawnOn not in volumes:
        text = _("{segmentation} was drawn on {other}, not on {scan}: look whether it belongs to this case.")
        names = {"segmentation": segmentation.GetName(), "other": drawnOn.GetName(), "scan": volumes[0].GetName()}
        notes.append(text.format(**names))
    if snapshot.fitted:
        notes.append(fittedText(snapshot.fitted))
    return path, " ".join(notes)


def segmentsWithoutLabel(segmentation: slicer.vtkMRMLSegmentationNode, labels: Sequence[Label]) -> list[str]:
    """Names of the segments with voxels that have no label's name, if others have one."""
    segments, known = segmentation.GetSegmentation(), {label.name.casefold() for label in labels}
    names = []
    for segmentId in segments.GetSegmentIDs():
        image = segments.GetSegment(segmentId).GetRepresentation(binaryName())
        if image is not None and not image.IsEmpty():
            names.append(segments.GetSegment(segmentId).GetName())
    strange = [name for name in names if name.casefold() not in known]
    return strange if len(strange) < len(names) else []


def referenceVolume(segmentation: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLVolumeNode | None:
    """The volume that a segmentation was drawn on, if it is known."""
    return segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())


def writeLabelMap(
    labelMap: slicer.vtkMRMLLabelMapVolumeNode, folder: Path, labels: Sequence[Label]
) -> tuple[Path, str]:
    """Write a label map node; whether it fits its scan and the project's labels is told where it is read.

    Args:
        labelMap: Its values are those of the project, or other ones if its color table names the project's labels.
        folder: Where to.
        labels: The project's table.

    Returns:
        The file, and what was changed, in words.

    Raises:
        barl.errors.InputError: It is empty or under a transform, or names labels of the project beside others.
        OSError: The disk is full or cannot be written.
    """
    from barl.errors import InputError

    if problem := objection([labelMap]):
        raise InputError(problem)
    voxels, path = slicer.util.arrayFromVolume(labelMap), folder / "outline.nrrd"
    meaning = _meaningByName(labelMap, voxels, labels)
    if all(value == meant for value, meant in meaning.items()):
        voxels, note = None, ""
    else:
        table = np.zeros(max(meaning) + 1, np.uint16)
        for value, meant in meaning.items():
            table[value] = meant
        voxels, note = table[voxels], _("The values of the label map were matched by the names in its color table.")
    for _share in writeNrrd(labelMap, path, voxels):
        pass
    return path, note


def _meaningByName(
    labelMap: slicer.vtkMRMLLabelMapVolumeNode, voxels: np.ndarray, labels: Sequence[Label]
) -> dict[int, int]:
    """Value in a label map -> value in the table, by the names of its own color table; empty if it names no label.

    Slicer's export of segments numbers them as they stand in the segmentation and names them in a color table.
    """
    from barl.errors import InputError

    display = labelMap.GetDisplayNode()
    colors = display.GetColorNode() if display is not None else None
    # The tables that come with Slicer name things, too, but not those of this label map.
    if colors is None or colors.GetTypeAsString() != "UserDefined":
        return {}
    if voxels.dtype.kind not in "iu" or voxels.min() < 0 or voxels.max() > np.iinfo(np.uint16).max:
        return {}  # no labels
    names = {label.name.casefold(): label.value for label in labels}
    present = [int(value) for value in np.flatnonzero(np.bincount(voxels.ravel().astype(np.uint16))) if value]
    called = {n: (colors.GetColorName(n) or "") if n < colors.GetNumberOfColors() else "" for n in present}
    known = {value: names[name.casefold()] for value, name in called.items() if name.casefold() in names}
    strange = [value for value in present if value not in known]
    if known and strange:
        text = _(
            "The value {value} of the label map is called {name!r} in its color table: the project has no such label."
        )
        raise InputError(
            text.format(value=strange[0], name=called[strange[0]]),
            _("Export the labels of the project alone: {names}.").format(
                names=", ".join(label.name for label in labels)
            ),
        )
    return known


def listSeries(database: ctk.ctkDICOMDatabase | None) -> list[tuple[str, str]]:
    """The series of Slicer's DICOM database: (UID, what to show to choose it by), never to be stored.

    Raises:
        barl.errors.InputError: There is no database, or nothing in it.
    """
    from barl.errors import InputError

    if database is None or not database.isOpen:
        raise InputError(_("Slicer's DICOM database is not open."), _("Open the DICOM module once."))
    found = []
    for patient in database.patients():
        person = database.displayedNameForPatient(patient) or database.nameForPatient(patient)
        for study in database.studiesForPatient(patient):
            for series in database.seriesForStudy(study):
                count = len(database.instancesForSeries(series))
                words = (person, database.descriptionForStudy(study), database.descriptionForSeries(series))
                title = " / ".join(word for word in words if word)
                found.append((series, _("{title} ({count} files)").format(title=title, count=count)))
    if not found:
        raise InputError(_("Slicer's DICOM database is empty."), _("Import DICOM files in the DICOM module first."))
    return found
