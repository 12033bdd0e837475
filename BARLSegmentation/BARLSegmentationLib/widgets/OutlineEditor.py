# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from BARLSegmentationLib.logic.Attention import Attention
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.widgets.EditorParts import compact, fitTable, showRare

if TYPE_CHECKING:
    from BARLSegmentationLib.logic.Attention import UnsureScan

NODE_TAG = "BARLSegmentation"  # our own parameters; the Segment Editor module keeps its own
UNDO_STATES = 10  # as in the Segment Editor module
PREVIEW_ROLE = "SegmentationResultPreview"  # as Slicer's effects name it that show a result before it is applied
SHOW_PAUSE_MS = 50  # the views are drawn before the editor gets the case: it looks at all voxels, 0.5 s for 42 million


class OutlineEditor(VTKObservationMixin):
    """Slicer's Segment Editor as a part of the panel, fixed to the segmentation of the case.

    Attributes:
        changed: Voxels of the segmentation were changed, or segments added or removed.
        nodeChanged: The editor's own settings were changed, or a segment other than by an effect.
        widget: The qMRMLSegmentEditorWidget.
        attention: Limits what can be edited.
        isByProgram: The change under way is none that a person makes.
    """

    def __init__(self) -> None:
        VTKObservationMixin.__init__(self)
        self.changed, self.nodeChanged = Signal(), Signal()
        self._segmentation, self._segments, self._tags = None, None, []
        self._volumes: list = []
        self.isByProgram = False
        self._channel = None
        self.widget = slicer.qMRMLSegmentEditorWidget()
        self.widget.setMaximumNumberOfUndoStates(UNDO_STATES)
        self.widget.setAutoShowSourceVolumeNode(False)  # what the views show is the session's choice
        self._showTimer = qt.QTimer(self.widget)
        self._showTimer.setSingleShot(True)
        self._showTimer.setInterval(SHOW_PAUSE_MS)
        self._showTimer.connect("timeout()", self._showOurs)
        self.selectNode()  # before the scene, so that what the editor selects by itself is kept
        self.widget.setMRMLScene(slicer.mrmlScene)
        # Case and labels are the project's: what the editor could choose instead would not be stored.
        self.widget.setSegmentationNodeSelectorVisible(False)
        self.widget.setAddRemoveSegmentButtonsVisible(False)
        self.widget.setSwitchToSegmentationsButtonVisible(False)
        compact(self.widget)
        self.showMore(False)

    @property
    def isIdle(self) -> bool:
        return not self._showTimer.isActive()

    def showMore(self, shown: bool) -> None:
        """Show the parts of the editor that the loop does not need every time."""
        showRare(self.widget, shown)
        self.widget.setShow3DButtonVisible(shown)
        self.widget.setMaskingSectionVisible(shown)

    def selectNode(self) -> None:
        """Take our node of the scene, or make it."""
        node = slicer.mrmlScene.GetSingletonNode(NODE_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(NODE_TAG)
            node = slicer.mrmlScene.AddNode(node)
        self.attention = Attention(node)
        self.removeObservers(self._onNode)
        self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onNode)
        self.widget.setMRMLSegmentEditorNode(node)

    def show(self, segmentation: slicer.vtkMRMLSegmentationNode | None, volumes: list) -> None:
        """Edit another segmentation (None: none) on the channels of its case."""
        self.attention.remove()
        self._removePreview()
        self._segmentation, self._volumes, self._channel = segmentation, volumes, None
        self._observe(segmentation.GetSegmentation() if segmentation is not None else None)
        self.widget.setSegmentationNode(None)
        self.widget.setSourceVolumeNode(None)
        self._showTimer.start()
        self.fitSegments()

    def previewText(self) -> str:
        """That an effect shows something that is not in the outline, in words; empty if none does."""
        if self.attention.editorNode.GetNodeReference(PREVIEW_ROLE) is None:
            return ""
        return _(
            "What Grow from seeds or Fill between slices shows is a preview, and no part of the outline until it is "
            "applied: press Apply or Cancel there."
        )

    def _removePreview(self) -> None:
        """It is that of a case which was left."""
        preview = self.attention.editorNode.GetNodeReference(PREVIEW_ROLE)
        if preview is not None:
            self.attention.editorNode.SetNodeReferenceID(PREVIEW_ROLE, None)
            slicer.mrmlScene.RemoveNode(preview)

    def fitSegments(self) -> None:
        """Make the table of segments as high as its rows."""
        segmentation = self._segmentation
        fitTable(self.widget, segmentation.GetSegmentation().GetNumberOfSegments() if segmentation is not None else 0)

    def _observe(self, segments: slicer.vtkSegmentation | None) -> None:
        # Not by the mixin, which keeps what it has observed, and with it the voxels of every case that was ever open.
        for tag in self._tags:
            self._segments.RemoveObserver(tag)
        kinds = slicer.vtkSegmentation
        events = (kinds.SourceRepresentationModified, kinds.SegmentAdded, kinds.SegmentRemoved)
        self._segments = segments
        self._tags = [segments.AddObserver(event, self._onSegments) for event in events] if segments else []
        if segments:  # Undo and Redo exchange the voxels without saying so
            self._tags.append(segments.AddObserver(kinds.SegmentModified, self._onSegment))

    def channel(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The volume that is edited on, also while the editor sees a part of it only; None without a case."""
        volumes = [volume for volume in self._volumes if volume.GetScene() is not None]
        chosen = self.attention.editorNode.GetSourceVolumeNode()
        if chosen in volumes:
            self._channel = chosen
        if self._channel not in volumes:
            self._channel = volumes[0] if volumes else None
        return self._channel

    def limit(self, scan: UnsureScan | None) -> None:
        """Allow editing only where the model was unsure (``Attention.UnsureScan``); None: everywhere."""
        if scan is not None:
            self._showOurs()  # given the case after this, the editor would take another source volume with it
        channel = self.channel()
        if scan is None:
            self.attention.remove(channel)
        else:
            self.attention.apply(channel, scan)
        self.widget.setSourceVolumeNodeSelectorVisible(scan is None and len(self._volumes) > 1)

    @contextlib.contextmanager
    def byProgram(self) -> Iterator[None]:
        """Change the outline by program: ``changed`` is emitted, but nobody has drawn."""
        self.isByProgram = True
        try:
            yield
        finally:
            self.isByProgram = False

    def enter(self) -> None:
        self.selectNode()
        self.widget.setupViewObservations()
        self.widget.updateWidgetFromMRML()

    def exit(self) -> None:
        self.stop()
        self.enableKeys(False)
        self.widget.removeViewObservations()
        self.limit(None)  # other modules edit everywhere

    def enableKeys(self, enabled: bool) -> None:
        """Let the editor's keys work in Slicer's window, or not."""
        if enabled:
            self.widget.installKeyboardShortcuts()
        else:
            self.widget.uninstallKeyboardShortcuts()

    def stop(self) -> None:
        """End the tool in use, so that the mouse is free and nothing half done is left."""
        self.widget.setActiveEffect(None)

    def sceneCloses(self) -> None:
        """Release segmentation and views before the scene closes, as Slicer's Segment Editor module does.

        A closing scene keeps the editor from updating: an effect that is only set to None stays active until the scene
        has closed, and its brush is drawn in views that have lost their nodes.
        """
        self.stop()
        self.show(None, [])
        self.widget.removeViewObservations()

    def observeViews(self) -> None:
        """Let effects get the mouse in the views again, after ``sceneCloses``."""
        self.widget.setupViewObservations()

    def cleanup(self) -> None:
        self._showTimer.stop()
        self.exit()
        self.removeObservers()
        self._observe(None)
        self.widget.setMRMLScene(None)

    def _onSegments(self, _caller: object = None, _event: object = None) -> None:
        self.changed.emit()

    def _onSegment(self, _caller: object = None, _event: object = None) -> None:
        self.nodeChanged.emit()

    def _onNode(self, _caller: object = None, _event: object = None) -> None:
        if not self._showTimer.isActive():
            self._showOurs()
        self.nodeChanged.emit()

    def _showOurs(self) -> None:
        """Have the editor edit the case: it takes any other segmentation that comes into the scene, and lets go of its
        volume when a scene is loaded."""
        ours = self._segmentation
        if ours is not None and ours.GetScene() is None:  # the user has removed it
            ours = None
        if self.attention.editorNode.GetSegmentationNode() is not ours:
            self.widget.setSegmentationNode(ours)
        if ours is not None and self.attention.editorNode.GetSourceVolumeNode() is None and self.channel() is not None:
            self.widget.setSourceVolumeNode(self.channel())
