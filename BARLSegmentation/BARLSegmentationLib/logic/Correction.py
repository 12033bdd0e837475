# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from BARLSegmentationLib.logic.CaseFolder import putIntoFolder
from BARLSegmentationLib.logic.CaseLoader import (
    CASE_ATTRIBUTE,
    PROJECT_ATTRIBUTE,
    REVISION_ATTRIBUTE,
    ROLE_ATTRIBUTE,
    CaseLoader,
    segmentationName,
)
from BARLSegmentationLib.logic.Session import UNSAVED_ATTRIBUTE, Session

if TYPE_CHECKING:
    from barl.images.geometry import Grid
    from barl.project.doubts import Doubt
    from barl.project.labels import Label
    from barl.project.records import Revision

LABEL_TAG = "BARL.Label"  # tag of a segment: its value in the project's label table
COMPLETED = ("Segmentation.Status", "completed")  # as the segments' table of Slicer's editor writes and shows it
LONGEST_PAUSE = 60.0  # seconds without an edit or a look that still count as work on the case
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Layer:
    """Segments that share one array: voxels ``[k, j, i]``, index of the first in the scan, segment -> table value."""

    voxels: np.ndarray
    start: tuple[int, int, int]
    values: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Snapshot:
    """The outline at one moment, apart from the scene, so that any thread may work on it.

    Attributes:
        grid: Of the scan.
        labels: The project's table.
        layers: The voxels.
        leftOut: Names of segments without a label in the table; they are not part of the label map.
    """

    grid: Grid
    labels: list[Label]
    layers: list[Layer]
    leftOut: list[str]

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

    def volumes(self) -> dict[int, float]:
        """Milliliters of each label by its value."""
        merged, _ = self.labelMap()
        counts = np.zeros(int(np.iinfo(merged.dtype).max) + 1, np.int64)
        for plane in merged:
            if plane.any():
                found = np.bincount(plane.ravel())
                counts[: len(found)] += found
        return {label.value: int(counts[label.value]) * self.grid.voxel_ml for label in self.labels}


@dataclass(frozen=True)
class Stored:
    """What became of an outline that was stored.

    Attributes:
        revision: As the project keeps it.
        overlaps: Voxels that lay in several labels and went to the later one.
        leftOut: Names of segments that were not stored, for no label has their name.
        replaced: The accepted outline until then, if there was one.
    """

    revision: Revision
    overlaps: int
    leftOut: list[str]
    replaced: Revision | None = None

    def inWords(self, caseName: str) -> str:
        """What was stored, and what of the outline was not."""
        accepted = self.revision.is_accepted
        sentences = [
            (_("{name} is accepted.") if accepted else _("A draft of {name} is stored.")).format(name=caseName)
        ]
        if self.replaced is not None:
            text = _("It takes the place of {revision} by {author}, which stays in the project.")
            sentences.append(text.format(revision=self.replaced.id, author=self.replaced.author))
        if self.overlaps:
            text = _("{count} voxels lay in several labels and went to the one that is later in the label table.")
            sentences.append(text.format(count=self.overlaps))
        if self.leftOut:
            text = _("Not stored, because the label table has no such label: {names}.")
            sentences.append(text.format(names=", ".join(self.leftOut)))
        return " ".join(sentences)


class EditingClock:
    """How long somebody has worked on the case: the time between signs of life, long pauses left out."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.restart()

    def restart(self) -> None:
        self._last, self.seconds = self._now(), 0.0

    def tick(self) -> None:
        """A sign of life: an edit or a look at another place."""
        now = self._now()
        self.seconds += min(now - self._last, LONGEST_PAUSE)
        self._last = now


class Correction:
    """The outline of the case on screen on its way back into the project.

    Args:
        session: What is open.
        now: Clock of the editing time, in seconds.
    """

    def __init__(self, session: Session, now: Callable[[], float] = time.monotonic) -> None:
        self.session = session
        self.clock = EditingClock(now)
        self._storedState: tuple = ()
        self._seen = ""  # id of the newest revision when the case was opened or stored

    @property
    def segmentation(self) -> slicer.vtkMRMLSegmentationNode | None:
        return self.session.loaded.segmentation if self.session.loaded else None

    def begin(self) -> None:
        """Call when a case was opened: what is on screen now counts as stored.

        A case without an outline gets an empty segmentation to draw in.
        """
        self.clock.restart()
        self._storedState, self._seen = (), ""
        loaded = self.session.loaded
        if loaded is None:
            return
        newest = self.session.project.revisions.newest(loaded.caseId)
        self._seen = newest.id if newest is not None else ""
        labels = self.session.project.labels
        if loaded.segmentation is None:
            attributes = {
                PROJECT_ATTRIBUTE: str(self.session.project.folder),
                CASE_ATTRIBUTE: loaded.caseId,
                ROLE_ATTRIBUTE: "label",
            }
            name = self.session.case().name
            node = CaseLoader().emptySegmentation(segmentationName(name), labels, loaded.volumes[0], attributes)
            putIntoFolder([node], name)
            self.session.loaded = replace(loaded, segmentation=node)
        tagSegments(self.segmentation, labels)
        if self.segmentation.GetAttribute(UNSAVED_ATTRIBUTE) != "1":
            self._storedState = self._state()

    def isChanged(self) -> bool:
        """Whether the outline may differ from what is stored."""
        return self.segmentation is not None and self._state() != self._storedState

    def isAccepted(self) -> bool:
        """Whether exactly this outline is an accepted one already."""
        revision = self.session.loaded.revision if self.session.loaded else None
        return (
            revision is not None and revision.is_accepted and not self.isChanged() and self.session.case().is_accepted
        )

    def prediction(self) -> Revision | None:
        """What the outline on screen was corrected from; the newest prediction if that is not known."""
        project, loaded = self.session.project, self.session.loaded
        predictions = [item for item in project.revisions.of(loaded.caseId) if item.is_prediction]
        shown = loaded.revision
        origin = None
        if shown is not None:
            origin = shown.id if shown.is_prediction else shown.details.get("correction", {}).get("prediction")
        known = [item for item in predictions if item.id == origin]
        return (known or predictions or [None])[-1]

    def snapshot(self) -> Snapshot:
        """Copy the outline.

        Raises:
            barl.errors.InputError: It was removed from the scene, lies under another transform than the scan, or has
                no voxels to give.
        """
        self._requireOutline()
        project, loaded = self.session.project, self.session.loaded
        grid = project.cases.grid(loaded.caseId)
        return takeSnapshot(self.segmentation, loaded.volumes[0], grid, project.labels)

    def preparedToStore(self, kind: str, author: str, allow: Collection[Doubt] = ()) -> Callable[[], Stored]:
        """Take a snapshot to be stored as ``draft`` or ``accepted``.

        Args:
            kind: One of these two.
            author: Who corrects.
            allow: The doubts that the user has confirmed.

        Returns:
            What stores it; takes seconds on a large scan and may run in another thread. It raises a ``DoubtError`` for
            an outline to accept that is empty or unlike the accepted one, for a prediction in the place of an accepted
            outline, and where somebody else has accepted one meanwhile. Give its result to ``settle``.

        Raises:
            barl.errors.BarlError: The outline cannot be stored.
        """
        from barl.project.acceptance import accepted_outline, check_replacement
        from barl.project.doubts import Doubt
        from barl.project.review import store_correction

        project, caseId, shown = self.session.project, self.session.caseId, self.session.loaded.revision
        accepts = kind == "accepted"
        since = self._seen if accepts and Doubt.NEWER not in allow else None
        self.clock.tick()
        seconds, state = self.clock.seconds, self._state()
        snapshot, prediction = self.snapshot(), self.prediction()

        def store() -> Stored:
            labelMap, overlaps = snapshot.labelMap()
            if since is not None:  # before the comparison with an outline that this user has not seen
                project.revisions.check_since(caseId, since)
            case = project.cases.get(caseId)
            if accepts and shown is not None and shown.is_prediction:
                check_replacement(project, case, shown, allow)
            replaced = accepted_outline(project, case) if accepts else None
            revision = store_correction(
                project,
                caseId,
                snapshot.grid.image(labelMap),
                kind,
                author=author,
                prediction=prediction,
                editing_seconds=seconds,
                since=since,
                allow=allow,
            )
            self._pending = (state, seconds)
            return Stored(revision, overlaps, snapshot.leftOut, replaced)

        return store

    def settle(self, stored: Stored) -> None:
        """Take note of what was stored, if its case is still on screen; edits made meanwhile still count as edits."""
        loaded = self.session.loaded
        if loaded is None or loaded.caseId != stored.revision.case_id:
            return
        self._storedState, seconds = self._pending
        self.clock.seconds -= seconds
        self._seen = stored.revision.id
        node = loaded.segmentation
        node.SetAttribute(REVISION_ATTRIBUTE, stored.revision.id)
        node.RemoveAttribute(UNSAVED_ATTRIBUTE)
        if stored.revision.is_accepted:
            segments = node.GetSegmentation()
            for segmentId in segments.GetSegmentIDs():
                segments.GetSegment(segmentId).SetTag(*COMPLETED)
        self.session.loaded = replace(loaded, revision=stored.revision)

    def store(self, kind: str, author: str) -> Stored:
        """Store the outline now; see ``preparedToStore``."""
        stored = self.preparedToStore(kind, author)()
        self.settle(stored)
        return stored

    def keep(self, author: str) -> Stored | None:
        """Store an edit that would be lost as a draft; if that fails, the node is marked to stay in the scene.

        Raises:
            barl.errors.BarlError: It could not be stored.
        """
        self.mark()
        return self.store("draft", author) if self.isChanged() else None

    def mark(self) -> None:
        """Tell the node whether it is newer than the project, so that a saved scene knows, too."""
        if self.isChanged():
            self.segmentation.SetAttribute(UNSAVED_ATTRIBUTE, "1")
        elif self.segmentation is not None:
            self.segmentation.RemoveAttribute(UNSAVED_ATTRIBUTE)

    def leftOut(self) -> list[str]:
        """Names of segments with voxels but without a label: the project does not hold them."""
        if self.segmentation is None:
            return []
        segments = self.segmentation.GetSegmentation()
        drawn = [segments.GetSegment(segmentId) for segmentId, modified in self._state() if modified is not None]
        return [segment.GetName() for segment in drawn if not segmentTag(segment, LABEL_TAG)]

    def revert(self) -> None:
        """Replace the outline on screen by the newest prediction; nothing is stored by this.

        Raises:
            barl.errors.BarlError: There is no prediction, its file cannot be read, or the outline was removed from the
                scene.
        """
        from barl.errors import InputError
        from barl.project.states import RevisionKind

        self._requireOutline()
        project, loaded = self.session.project, self.session.loaded
        prediction = project.revisions.newest(loaded.caseId, (RevisionKind.PREDICTION,))
        if prediction is None:
            raise InputError("The case has no prediction to go back to.", "Predict the case first.")
        loader, name = CaseLoader(), loaded.segmentation.GetName()
        fresh = loader.readSegmentation(prediction.path, name, project.labels, loaded.volumes[0], {})
        try:
            tagSegments(fresh, project.labels)
            segments = loaded.segmentation.GetSegmentation()
            for segmentId in list(segments.GetSegmentIDs()):
                segments.RemoveSegment(segmentId)
            for segmentId in fresh.GetSegmentation().GetSegmentIDs():
                segments.CopySegmentFromSegmentation(fresh.GetSegmentation(), segmentId)
        finally:
            slicer.mrmlScene.RemoveNode(fresh)
        loaded.segmentation.SetAttribute(REVISION_ATTRIBUTE, prediction.id)
        shown = loaded.revision
        self.session.loaded = replace(loaded, revision=prediction)
        # A draft on disk is newer than the prediction: the outline must be stored again to be what opens next time.
        self._storedState = self._state() if shown is not None and shown.id == prediction.id else ()
        self.clock.tick()

    def _requireOutline(self) -> None:
        if self.segmentation.GetScene() is None:
            from barl.errors import InputError

            raise InputError("The outline was removed from the scene.", "Open the case again.")

    def _state(self) -> tuple:
        """Changes whenever a label's voxels do: arrays of the labels' segments and when they were last modified."""
        if self.segmentation is None:
            return ()
        segments = self.segmentation.GetSegmentation()
        state = []
        for segmentId in segments.GetSegmentIDs():
            image = segments.GetSegment(segmentId).GetRepresentation(_binaryName())
            # An empty one is not drawn yet, however often the editor prepares it.
            drawn = image is not None and not image.IsEmpty()
            state.append((segmentId, image.GetMTime() if drawn else None))
        return tuple(state)


def tagSegments(segmentation: slicer.vtkMRMLSegmentationNode, labels: list[Label]) -> None:
    """Write each label's value into its segment, found by its name: it may be renamed and re-numbered in editing."""
    values = {label.name.casefold(): label.value for label in labels}
    segments = segmentation.GetSegmentation()
    for segmentId in segments.GetSegmentIDs():
        segment = segments.GetSegment(segmentId)
        if not segmentTag(segment, LABEL_TAG) and segment.GetName().casefold() in values:
            segment.SetTag(LABEL_TAG, str(values[segment.GetName().casefold()]))


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
        barl.errors.InputError: The segmentation lies under another transform than the scan, or a segment has no voxels
            to give because it is kept as a surface.
    """
    from barl.errors import InputError

    if segmentation.GetParentTransformNode() is not volume.GetParentTransformNode():
        raise InputError(
            "The outline lies under another transform than its scan.", "Put both under the same one, or under none."
        )
    tagSegments(segmentation, labels)
    known = {str(label.value): label.value for label in labels}
    segments, layers, leftOut, arrays = segmentation.GetSegmentation(), [], [], {}
    for segmentId in segments.GetSegmentIDs():
        segment = segments.GetSegment(segmentId)
        image = segment.GetRepresentation(_binaryName())
        if image is None:
            raise InputError(
                f"The segment {segment.GetName()} has no label map.",
                "Make the binary label map the source representation in the Segmentations module.",
            )
        if image.IsEmpty():
            continue
        value = known.get(segmentTag(segment, LABEL_TAG))
        if value is None:
            leftOut.append(segment.GetName())
            continue
        arrays.setdefault(image.GetAddressAsString(""), (image, []))[1].append(
            (segmentId, segment.GetLabelValue(), value)
        )
    for image, members in arrays.values():
        offset = _offset(image, grid)
        if offset is not None:
            layer = _cut(_voxels(image), offset, grid.shape, tuple((a, b) for _, a, b in members))
            layers += [layer] if layer else []
            continue
        for segmentId, _ignored, value in members:  # drawn on another grid: Slicer resamples it
            array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume)
            layers += [Layer(array, (0, 0, 0), ((1, value),))] if array is not None else []
    return Snapshot(grid, list(labels), layers, leftOut)


def segmentTag(segment: slicer.vtkSegment, name: str) -> str:
    """A segment's tag; empty if it has none."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


def _binaryName() -> str:
    return slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()


def _voxels(image: slicer.vtkOrientedImageData) -> np.ndarray:
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def _offset(image: slicer.vtkOrientedImageData, grid: Grid) -> tuple[int, int, int] | None:
    """Index (k, j, i) in the grid of an image's first voxel, if its voxels are voxels of the grid."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    toIndex = np.linalg.inv(gridToRAS(grid)) @ slicer.util.arrayFromVTKMatrix(matrix)
    corners = np.array([[*point, 1.0] for point in np.ndindex(2, 2, 2)]).T
    corners[:3] *= np.array(image.GetDimensions())[:, None]
    corners[:3] += np.array(image.GetExtent()[::2])[:, None]
    first = np.rint(toIndex[:3, 3]).astype(int)
    if np.abs((toIndex @ corners)[:3] - corners[:3] - first[:, None]).max() > 0.02:
        return None
    return tuple(int(n) for n in (first + image.GetExtent()[::2])[::-1])


def gridToRAS(grid: Grid) -> np.ndarray:
    """4 x 4: from indices (i, j, k) of an engine's grid to RAS in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = grid.axes * grid.spacing
    matrix[:3, 3] = grid.origin
    return _LPS_TO_RAS @ matrix


def _cut(
    voxels: np.ndarray, offset: tuple[int, int, int], shape: tuple[int, int, int], values: Sequence[tuple[int, int]]
) -> Layer | None:
    """A copy of the part of ``voxels`` that lies on the scan."""
    start = tuple(max(n, 0) for n in offset)
    stop = tuple(min(n + size, whole) for n, size, whole in zip(offset, voxels.shape, shape, strict=True))
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        return None
    part = tuple(slice(a - n, b - n) for a, b, n in zip(start, stop, offset, strict=True))
    return Layer(voxels[part].copy(), start, values)
