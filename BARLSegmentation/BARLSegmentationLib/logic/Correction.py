# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseFolder import putIntoFolder
from BARLSegmentationLib.logic.CaseLoader import (
    REVISION_ATTRIBUTE,
    ROLE_ATTRIBUTE,
    CaseLoader,
    caseAttributes,
    segmentationName,
)
from BARLSegmentationLib.logic.Drawing import Drawing
from BARLSegmentationLib.logic.Outline import (
    LABEL_TAG,
    Fitted,
    Snapshot,
    binaryName,
    segmentTag,
    tagSegments,
    takeLabels,
    takeSnapshot,
    untagCopies,
    withoutLabel,
)
from BARLSegmentationLib.logic.Session import UNSAVED_ATTRIBUTE, Session

if TYPE_CHECKING:
    import SimpleITK as sitk
    from barl.project.doubts import Doubt
    from barl.project.labels import Label
    from barl.project.records import Revision

    from BARLSegmentationLib.logic.Hotspots import Box

COMPLETED = ("Segmentation.Status", "completed")  # as the segments' table of Slicer's editor writes and shows it
LONGEST_PAUSE = 60.0  # seconds without an edit or a look that still count as work on the case


@dataclass(frozen=True)
class Stored:
    """What became of an outline that was stored.

    Attributes:
        revision: As the project keeps it.
        overlaps: Voxels that lay in several labels and went to the later one.
        leftOut: Names of segments that were not stored, for no label has their name.
        replaced: The accepted outline until then, if there was one.
        missing: Names of labels that the outline has no segment of: somebody has removed it.
        fitted: What was brought onto the scan's grid.
    """

    revision: Revision
    overlaps: int
    leftOut: list[str]
    replaced: Revision | None = None
    missing: Sequence[str] = ()
    fitted: Sequence[Fitted] = ()

    def inWords(self, caseName: str) -> str:
        """What was stored, and what of the outline was not."""
        accepted = self.revision.is_accepted
        stored = (_("{name} is accepted.") if accepted else _("A draft of {name} is stored.")).format(name=caseName)
        return " ".join([stored, *self.notes()])

    def notes(self) -> list[str]:
        """Sentences: what was replaced, changed and left out."""
        sentences = []
        if self.replaced is not None:
            text = _("It takes the place of {revision} by {author}, which stays in the project.")
            sentences.append(text.format(revision=self.replaced.id, author=self.replaced.author))
        if self.overlaps:
            text = _("{count} voxels lay in several labels and went to the one that is later in the label table.")
            sentences.append(text.format(count=self.overlaps))
        if self.fitted:
            sentences.append(fittedText(self.fitted))
        if self.leftOut:
            sentences.append(leftOutText(self.leftOut))
        if self.missing:
            text = _("Stored without {names}, whose segment was removed; a new segment of that name would be stored.")
            sentences.append(text.format(names=", ".join(self.missing)))
        return sentences


def fittedText(fitted: Sequence[Fitted]) -> str:
    """What segments became on the scan's grid that were not drawn on it."""
    each = [
        _("{name} ({drawn:.3g} ml became {kept:.3g} ml)").format(name=one.name, drawn=one.drawn, kept=one.kept)
        for one in fitted
    ]
    return _("Drawn on another grid than the scan's, or in part outside of it: {names}.").format(names=", ".join(each))


def leftOutText(names: Sequence[str]) -> str:
    """That segments without a label were not stored; a segmentation that has some stays in the scene."""
    text = _("Not stored but kept in the scene, because the label table has no such label: {names}.")
    return text.format(names=", ".join(names))


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

    Attributes:
        clock: How long somebody has worked on the case.
        drawing: Which planes and voxels of it were drawn by hand.
    """

    def __init__(self, session: Session, now: Callable[[], float] = time.monotonic) -> None:
        self.session = session
        self.clock = EditingClock(now)
        self.drawing = Drawing()
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
            self.drawing.begin((0, 0, 0))
            return
        newest = self.session.project.revisions.newest(loaded.caseId)
        self._seen = newest.id if newest is not None else ""
        labels = self.session.project.labels
        if loaded.segmentation is None:
            attributes = caseAttributes(self.session.project, loaded.caseId) | {ROLE_ATTRIBUTE: "label"}
            name = self.session.case().name
            node = CaseLoader().emptySegmentation(segmentationName(name), labels, loaded.volumes[0], attributes)
            putIntoFolder([node], name)
            self.session.loaded = replace(loaded, segmentation=node)
        own, wasShown = self.leftOut(), self._hasLabels()
        tagSegments(self.segmentation, labels)
        self._beginDrawing()
        becameLabel = wasShown and own != self.leftOut()  # it was added since: no revision holds its segment
        if self.segmentation.GetAttribute(UNSAVED_ATTRIBUTE) != "1" and not becameLabel:
            self._storedState = self._state()

    def _hasLabels(self) -> bool:
        """Whether the segmentation was on screen before: its segments say which labels they are."""
        segments = self.segmentation.GetSegmentation()
        return any(segmentTag(segments.GetSegment(name), LABEL_TAG) for name in segments.GetSegmentIDs())

    def _beginDrawing(self) -> None:
        """What was drawn on the case when its outline was stored counts as drawn again."""
        project, loaded = self.session.project, self.session.loaded
        revision, looked = loaded.revision, None
        if revision is not None and revision.looked is not None:
            looked = self.session.ask(project.revisions.read_looked, revision, otherwise=None)
        if looked is None:
            self.drawing.begin(project.cases.grid(loaded.caseId).shape)
        else:
            mask = _maskOf(looked)
            self.drawing.begin(mask.shape, mask, revision.filled_by or "")

    def takeLabels(self, before: Sequence[Label]) -> None:
        """Follow the project's labels, which were others until now (``before``).

        This counts as no edit, unless a segment of the user's own becomes one of them.
        """
        if self.segmentation is None or self.segmentation.GetScene() is None:
            return
        changed, own = self.isChanged(), self.leftOut()
        takeLabels(self.segmentation, before, self.session.project.labels)
        if own != self.leftOut():
            self._storedState = ()
        elif not changed:
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
        shown = loaded.revision
        if shown is None:
            return None  # drawn from nothing, though the case may have been predicted meanwhile
        predictions = [item for item in project.revisions.of(loaded.caseId) if item.is_prediction]
        origin = shown.id if shown.is_prediction else shown.details.get("correction", {}).get("prediction")
        known = [item for item in predictions if item.id == origin]
        return (known or predictions or [None])[-1]

    def prior(self) -> Revision | None:
        """The whole outline that a fill goes by where nothing is drawn: what was on screen when the case was opened; if
        that was a part of an outline, the accepted one before it, else the prediction."""
        project, loaded = self.session.project, self.session.loaded
        shown = loaded.revision
        if shown is None or shown.is_prediction:
            return shown or self.prediction()
        if shown.looked is None:
            return shown
        whole = [one for one in project.revisions.of(loaded.caseId) if one.is_accepted and one.looked is None]
        return whole[-1] if whole else self.prediction()

    def snapshot(self) -> Snapshot:
        """Copy the outline.

        Raises:
            barl.errors.InputError: It was removed from the scene, lies under another transform than the scan, or has
                no voxels to give; or it is not clear which of several segments is a label.
        """
        self._requireOutline()
        project, loaded = self.session.project, self.session.loaded
        untagCopies(self.segmentation, project.labels)
        grid = project.cases.grid(loaded.caseId)
        return takeSnapshot(self.segmentation, loaded.volumes[0], grid, project.labels)

    def preparedToStore(
        self, kind: str, author: str, allow: Collection[Doubt] = (), looked: Sequence[Box] | None = None
    ) -> Callable[[], Stored]:
        """Take a snapshot to be stored as ``draft`` or ``accepted``.

        Args:
            kind: One of these two. A draft keeps what counts as drawn.
            author: Who corrects.
            allow: The doubts that the user has confirmed.
            looked: The outline is right in these boxes and where something counts as drawn, and says nothing about the
                rest; None: it is right everywhere.

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
        seconds, state = self.clock.seconds, self.outlineState()
        snapshot, prediction = self.snapshot(), self.prediction()
        drawing, looking = self.drawing, self.drawing.looking()

        def store() -> Stored:
            labelMap, overlaps = snapshot.labelMap()
            look = looking(labelMap)
            drawn = drawing.after(look)
            partly = looked is not None or (not accepts and not drawn.isEmpty)
            mask = drawn.mask()
            for box in looked or ():
                mask[box] = True
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
                looked=snapshot.grid.image(mask.astype(np.uint8)) if partly else None,
                filled_by=drawn.filledBy or None,
            )
            self._pending = ((*state, drawn.key), seconds, look)
            return Stored(revision, overlaps, snapshot.leftOut, replaced, snapshot.missing, snapshot.fitted)

        return store

    def settle(self, stored: Stored) -> None:
        """Take note of what was stored, if its case is still on screen; edits made meanwhile still count as edits."""
        loaded = self.session.loaded
        if loaded is None or loaded.caseId != stored.revision.case_id:
            return
        self._storedState, seconds, look = self._pending
        self.drawing.take(look)
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
        return withoutLabel(self.segmentation) if self.segmentation is not None else []

    def revert(self) -> None:
        """Replace the outline on screen by the newest prediction; nothing is stored by this. Segments that are no label
        of the project stay.

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
                if segmentTag(segments.GetSegment(segmentId), LABEL_TAG):
                    segments.RemoveSegment(segmentId)
            for segmentId in fresh.GetSegmentation().GetSegmentIDs():
                segments.CopySegmentFromSegmentation(fresh.GetSegmentation(), segmentId)
        finally:
            slicer.mrmlScene.RemoveNode(fresh)
        loaded.segmentation.SetAttribute(REVISION_ATTRIBUTE, prediction.id)
        shown = loaded.revision
        self.session.loaded = replace(loaded, revision=prediction)
        self.drawing.replaced()  # else the prediction would count as drawn by hand where it differs
        # A draft on disk is newer than the prediction: the outline must be stored again to be what opens next time.
        self._storedState = self._state() if shown is not None and shown.id == prediction.id else ()
        self.clock.tick()

    def _requireOutline(self) -> None:
        if self.segmentation.GetScene() is None:
            from barl.errors import InputError

            raise InputError("The outline was removed from the scene.", "Open the case again.")

    def _state(self) -> tuple:
        """Changes whenever a label's voxels do, or what counts as drawn."""
        return (*self.outlineState(), self.drawing.drawn.key)

    def outlineState(self) -> tuple:
        """Changes whenever a label's voxels do: arrays of the labels' segments and when they were last modified."""
        if self.segmentation is None:
            return ()
        segments = self.segmentation.GetSegmentation()
        state = []
        for segmentId in segments.GetSegmentIDs():
            image = segments.GetSegment(segmentId).GetRepresentation(binaryName())
            # An empty one is not drawn yet, however often the editor prepares it.
            drawn = image is not None and not image.IsEmpty()
            state.append((segmentId, image.GetMTime() if drawn else None))
        return tuple(state)


def _maskOf(image: sitk.Image) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(image) != 0
