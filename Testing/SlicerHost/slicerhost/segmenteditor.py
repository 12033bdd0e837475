# SPDX-License-Identifier: Apache-2.0
"""Stand-in of the Segment Editor's widget on Slicer's own vtkSlicerSegmentEditorLogic.

Masks, overwriting and undo are Slicer's; the effects are Paint, Draw and Erase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .mrmlwidgets import qMRMLWidget
from .observers import Observers
from .pythonqt import stored
from .segmenteffects import EFFECTS
from .segmentevents import SegmentEditorEvents
from .segmentparts import SegmentEditorParts
from .uiloader import register

if TYPE_CHECKING:
    from .segmenteffects import qSlicerSegmentEditorAbstractEffect

Signal, Property = QtCore.Signal, QtCore.Property


@register("qMRMLSegmentEditorWidget")
class qMRMLSegmentEditorWidget(SegmentEditorParts, SegmentEditorEvents, qMRMLWidget):
    currentSegmentIDChanged = Signal(str)
    segmentationNodeChanged = Signal(object)
    sourceVolumeNodeChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._logic.SetSegmentationHistory(slicer.vtkSegmentationHistory())
        self._logic.SetMaximumNumberOfUndoStates(10)
        self._node = self._shownSegmentation = self._shownVolume = None
        self._shownSegment = ""
        self._effects = {name: kind(self, name) for name, kind in EFFECTS.items()}
        self._lastEffect, self._shownEffect = None, None
        self._nodeObservers, self._segmentObservers = Observers(self), Observers(self)
        self._sceneObservers = Observers(self)
        self._logicObservers, self._viewTags, self._shortcuts = Observers(self), [], []
        self._logicObservers.add(self._logic, self._logic.SegmentationHistoryChangedEvent, "_updateUndo")
        self._updating = False
        self._build()
        self._update()

    # The nodes -------------------------------------------------------------------------------------------------------

    def logic(self) -> Any:
        return self._logic

    def _onSceneSet(self):
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._logic.SetMRMLScene(self._scene)
        for combo in (self._segmentations, self._volumes):
            blocked = combo.blockSignals(True)
            combo.setMRMLScene(self._scene)
            combo.blockSignals(blocked)
        self._table.setMRMLScene(self._scene)
        self._sceneObservers.clear()
        if self._scene is not None:  # after everybody who may still end the effect
            self._sceneObservers.add(self._scene, self._scene.StartCloseEvent, "_onSceneCloses", -1000.0)
            self._sceneObservers.add(self._scene, self._scene.EndCloseEvent, "_onSceneClosed")
        self._update()

    def _onSceneClosed(self, *_):
        """A scene that closes has emptied the editor's node, which outlives it."""
        self._setDefaults()
        self._update()

    def _setDefaults(self):
        if self._node is not None:
            for effect in self._effects.values():
                effect._setDefaults()

    def setMRMLSegmentEditorNode(self, node: slicer.vtkMRMLNode | None) -> None:
        if node is self._node:
            return
        self._nodeObservers.clear()
        self._node = node
        self._logic.SetSegmentEditorNode(node)
        if node is not None:
            self._nodeObservers.add(node, vtk.vtkCommand.ModifiedEvent, "_update")
            self._setDefaults()
        self._update()

    def mrmlSegmentEditorNode(self) -> slicer.vtkMRMLSegmentEditorNode | None:
        return self._node

    def updateWidgetFromMRML(self) -> None:
        self._update()

    def _update(self, *_):
        """Shows what the nodes say."""
        if self._updating:
            return
        self._updating = True
        try:
            node = self._node if self._scene is not None else None
            self._updateSegmentation(None if node is None else node.GetSegmentationNode())
            self._updateVolume(None if node is None else node.GetSourceVolumeNode())
            self._updateSegment()
            self._updateEffect()
            self._updateMasking()
            self._updateUndo()
        finally:
            self._updating = False

    @staticmethod
    def _put(combo, node):
        blocked = combo.blockSignals(True)
        combo.setCurrentNode(node)
        combo.blockSignals(blocked)

    def _updateSegmentation(self, node):
        self._put(self._segmentations, node)
        if node is not self._shownSegmentation:
            self._shownSegmentation = node
            self._segmentObservers.clear()
            self._table.setSegmentationNode(node)
            if node is not None:
                kind = slicer.vtkSegmentation
                for event in (
                    kind.SegmentAdded,
                    kind.SegmentRemoved,
                    kind.SegmentModified,
                    kind.ContainedRepresentationNamesModified,
                ):
                    self._segmentObservers.add(node, event, "_update")
                reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
                if reference is not None:
                    self._logic.SetSourceVolumeNode(reference)
                node.CreateDefaultDisplayNodes()
                self._logic.SelectFirstSegment(False)
            self.segmentationNodeChanged.emit(node)
        count = 0 if node is None else node.GetSegmentation().GetNumberOfSegments()
        if count and not self._logic.GetCurrentSegmentID():
            self._logic.SelectFirstSegment(False)
        self._add.enabled, self._remove.enabled = node is not None, count > 0
        self._show3D.enabled = count > 0
        self._show3D.checked = count > 0 and self._logic.ContainsClosedSurfaceRepresentation()

    def _updateVolume(self, node):
        self._put(self._volumes, node)
        self._volumes.enabled = self._scene is not None and self._shownSegmentation is not None
        if node is self._shownVolume:
            return
        self._shownVolume = node
        if node is not None and self.autoShowSourceVolumeNode:
            self.showSourceVolumeInSliceViewers()
        self.sourceVolumeNodeChanged.emit(node)

    def _updateSegment(self):
        segmentID = self.currentSegmentID()
        self._table.setSelectedSegmentIDs([segmentID] if segmentID else [])
        if segmentID != self._shownSegment:
            self._shownSegment = segmentID
            self.currentSegmentIDChanged.emit(segmentID)

    def _updateEffect(self):
        ready = bool(self._shownSegmentation and self._shownVolume and self.currentSegmentID()) and not self.readOnly
        for name, button in self._effectButtons.items():
            button.enabled = ready or name == "None"
        effect = self.activeEffect()
        if effect is not self._shownEffect:
            self._switchEffect(effect if ready else None)
        effect = self._shownEffect  # as in Slicer it stays when its segmentation, volume or node goes
        self._effectButtons["None" if effect is None else effect.name].checked = True
        self._showOptions()

    def _showOptions(self):
        effect = self._shownEffect
        self._options.visible = effect is not None and effect.commonParameterDefined("BrushSphere")
        if not self._options.isHidden():
            relative = effect.integerParameter("BrushDiameterIsRelative")
            blocked = self._diameter.blockSignals(True)
            self._diameter.suffix = "%" if relative else " mm"
            self._diameter.value = effect.doubleParameter(
                "BrushRelativeDiameter" if relative else "BrushAbsoluteDiameter"
            )
            self._diameter.blockSignals(blocked)
            blocked = self._sphere.blockSignals(True)
            self._sphere.checked = bool(effect.integerParameter("BrushSphere"))
            self._sphere.blockSignals(blocked)

    def _updateMasking(self):
        node, kind, combo = self._node, slicer.vtkMRMLSegmentationNode, self._maskMode
        self._masking.enabled = node is not None and self._shownSegmentation is not None
        combo.clear()
        for text, mode in (
            ("Everywhere", kind.EditAllowedEverywhere),
            ("Inside all segments", kind.EditAllowedInsideAllSegments),
            ("Inside all visible segments", kind.EditAllowedInsideVisibleSegments),
            ("Outside all segments", kind.EditAllowedOutsideAllSegments),
            ("Outside all visible segments", kind.EditAllowedOutsideVisibleSegments),
        ):
            combo.addItem(text, mode)
        if not self._masking.enabled:
            return
        segmentation = self._shownSegmentation.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            combo.addItem(f"Inside {segmentation.GetNthSegment(index).GetName()}", segmentation.GetNthSegmentID(index))
        single = node.GetMaskMode() == kind.EditAllowedInsideSingleSegment
        combo.setCurrentIndex(combo.findData(node.GetMaskSegmentID() if single else node.GetMaskMode()))
        self._overwrite.setCurrentIndex(self._overwrite.findData(node.GetOverwriteMode()))

    def _updateUndo(self, *_):
        self._undo.enabled, self._redo.enabled = self._logic.CanUndo(), self._logic.CanRedo()

    # What the user does ----------------------------------------------------------------------------------------------

    def _onSegmentationChosen(self, node):
        if self._scene is not None and not self._scene.IsBatchProcessing() and not self._updating:
            self.setSegmentationNode(node)

    def _onVolumeChosen(self, node):
        if self._scene is not None and not self._scene.IsBatchProcessing() and not self._updating:
            self.setSourceVolumeNode(node)

    def _onSegmentChosen(self, *_):
        chosen = self._table.selectedSegmentIDs()
        if chosen and not self._updating and self._node is not None:
            self.setCurrentSegmentID(chosen[0])

    def _onEffectButton(self, *_):
        name = next(name for name, button in self._effectButtons.items() if button.checked)
        self.setActiveEffectByName("" if name == "None" else name)

    def _onAdd(self, *_):
        self.saveStateForUndo()
        self._logic.SetCurrentSegmentID(self._logic.AddEmptySegment())

    def _onRemove(self, *_):
        self.saveStateForUndo()
        self._logic.RemoveSelectedSegment()

    def _onShow3D(self, *_):
        self._logic.ToggleSegmentationSurfaceRepresentation(self._show3D.checked)

    def _onGoToSegmentations(self, *_):
        slicer.app.openNodeModule(self._shownSegmentation)

    def _onDiameter(self, value):
        relative = self._shownEffect.integerParameter("BrushDiameterIsRelative")
        name = "BrushRelativeDiameter" if relative else "BrushAbsoluteDiameter"
        self._shownEffect.setCommonParameter(name, value)

    def _onSphere(self, checked):
        self._shownEffect.setCommonParameter("BrushSphere", int(checked))

    def _onMaskMode(self, index):
        chosen = self._maskMode.itemData(index)
        if isinstance(chosen, str):
            self._node.SetMaskSegmentID(chosen)
            chosen = slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
        self._node.SetMaskMode(chosen)

    def _onOverwrite(self, index):
        self._node.SetOverwriteMode(self._overwrite.itemData(index))

    # What modules call -----------------------------------------------------------------------------------------------

    def segmentationNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        return self._logic.GetSegmentationNode()

    def segmentationNodeID(self) -> str:
        node = self.segmentationNode()
        return "" if node is None else node.GetID()

    def setSegmentationNode(self, node: slicer.vtkMRMLNode | None) -> None:
        if self.segmentationNode() is not node:
            self._logic.SetSegmentationNode(node)
            self.setActiveEffect(None)

    def setSegmentationNodeID(self, nodeID: str) -> None:
        self.setSegmentationNode(self._scene.GetNodeByID(nodeID))

    def sourceVolumeNode(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        return self._logic.GetSourceVolumeNode()

    def sourceVolumeNodeID(self) -> str:
        node = self.sourceVolumeNode()
        return "" if node is None else node.GetID()

    def setSourceVolumeNode(self, node: slicer.vtkMRMLNode | None) -> None:
        self._logic.SetSourceVolumeNode(node)

    def setSourceVolumeNodeID(self, nodeID: str) -> None:
        self.setSourceVolumeNode(self._scene.GetNodeByID(nodeID))

    def currentSegmentID(self) -> str:
        return (self._node.GetSelectedSegmentID() or "") if self._node is not None else ""

    def setCurrentSegmentID(self, segmentID: str) -> None:
        if self._node is not None:
            self._node.SetSelectedSegmentID(segmentID)

    def availableEffectNames(self) -> tuple[str, ...]:
        return tuple(self._effects)

    def effectCount(self) -> int:
        return len(self._effects)

    def effectByName(self, name: str) -> qSlicerSegmentEditorAbstractEffect | None:
        return self._effects.get(name)

    def effectByIndex(self, index: int) -> qSlicerSegmentEditorAbstractEffect | None:
        return list(self._effects.values())[index] if 0 <= index < len(self._effects) else None

    def activeEffect(self) -> qSlicerSegmentEditorAbstractEffect | None:
        return None if self._node is None else self._effects.get(self._node.GetActiveEffectName() or "")

    def setActiveEffect(self, effect: qSlicerSegmentEditorAbstractEffect | None) -> None:
        if self._node is not None:
            self._node.SetActiveEffectName("" if effect is None else effect.name)
            if effect is not None:
                self._lastEffect = effect.name

    def setActiveEffectByName(self, name: str) -> None:
        self.setActiveEffect(self._effects.get(name))

    def saveStateForUndo(self) -> None:
        if self.undoEnabled:
            self._logic.SaveStateForUndo()

    def undo(self, *_: object) -> None:
        self._logic.Undo()

    def redo(self, *_: object) -> None:
        self._logic.Redo()

    def setMaximumNumberOfUndoStates(self, count: int) -> None:
        self._logic.SetMaximumNumberOfUndoStates(count)

    def setEffectColumnCount(self, count: int) -> None:
        self._effectColumns = count
        for place, button in enumerate(self._effectButtons.values()):
            self._effectsGrid.addWidget(button, *divmod(place, count))

    effectColumnCount = Property(int, lambda self: self._effectColumns, setEffectColumnCount)
    maximumNumberOfUndoStates = Property(
        int, lambda self: self._logic.GetMaximumNumberOfUndoStates(), setMaximumNumberOfUndoStates
    )

    def showSourceVolumeInSliceViewers(self, forceShowInBackground: bool = False, fitSlice: bool = False) -> None:
        slicer.util.setSliceViewerLayers(background=self.sourceVolumeNode(), fit=fitSlice)

    def selectPreviousSegment(self) -> None:
        self._logic.SelectPreviousSegment(True)

    def selectNextSegment(self) -> None:
        self._logic.SelectNextSegment(True)

    def _shown(*names):
        def put(self, visible):
            for name in names:
                getattr(self, name).visible = bool(visible)

        return Property(bool, lambda self: not getattr(self, names[0]).isHidden(), put), put

    segmentationNodeSelectorVisible, setSegmentationNodeSelectorVisible = _shown("_segmentations", "_segmentationLabel")
    sourceVolumeNodeSelectorVisible, setSourceVolumeNodeSelectorVisible = _shown("_volumes", "_volumeLabel")
    maskingSectionVisible, setMaskingSectionVisible = _shown("_masking")
    show3DButtonVisible, setShow3DButtonVisible = _shown("_show3D")
    addRemoveSegmentButtonsVisible, setAddRemoveSegmentButtonsVisible = _shown("_add", "_remove")
    switchToSegmentationsButtonVisible, setSwitchToSegmentationsButtonVisible = _shown("_goToSegmentations")
    del _shown
    undoEnabled = stored(bool, True)
    autoShowSourceVolumeNode = stored(bool, True)
    readOnly = stored(bool, False, "_update")

    def setUndoEnabled(self, enabled: bool) -> None:
        self.undoEnabled = enabled

    def setAutoShowSourceVolumeNode(self, show: bool) -> None:
        self.autoShowSourceVolumeNode = show

    def setReadOnly(self, readOnly: bool) -> None:
        self.readOnly = readOnly
