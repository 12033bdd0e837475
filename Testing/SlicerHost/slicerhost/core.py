# SPDX-License-Identifier: Apache-2.0
"""The part of Slicer that is real here: one MRML scene with the application logic and the modules' logics. No Qt."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import slicer
import vtk

from .hierarchy import HierarchyPlugins

# Logics of Slicer's own modules, in the order in which they are told about the scene: later ones look up earlier ones.
# Terminologies is left out, because the wheel lacks the share folder with its JSON files.
LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Models": "vtkSlicerModelsLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Data": "vtkSlicerDataModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Texts": "vtkSlicerTextsLogic",
}


class Core:
    """A scene and all that observes it, wired together as Slicer's application does at start.

    Attributes:
        scene: the one ``vtkMRMLScene``; also ``slicer.mrmlScene`` as long as this object is open.
        applicationLogic: ``vtkSlicerApplicationLogic`` of that scene.
        logics: the modules' logics by module name.
        temporaryPath: folder that lives as long as this object, unless one was given.
    """

    def __init__(self, temporaryPath: str | None = None) -> None:
        self._ownsTemporaryPath = temporaryPath is None
        self.temporaryPath = temporaryPath or tempfile.mkdtemp(prefix="slicerhost-")
        self.scene = scene = slicer.vtkMRMLScene()
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)
        # Before any view node exists: a slice node looks its orientation up among these.
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)

        self.applicationLogic = logic = slicer.vtkSlicerApplicationLogic()
        logic.SetTemporaryPath(self.temporaryPath)
        logic.SetMRMLScene(scene)  # makes the selection and interaction nodes
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        colors = logic.GetColorLogic()
        colors.SetMRMLScene(scene)
        colors.AddDefaultColorNodes()
        logic.SetModuleLogic("Colors", colors)
        self.logics = {"Colors": colors}

        self._wireDataIO()
        for name, className in LOGICS.items():
            self._addLogic(name, getattr(slicer, className)())
        self._hierarchy = HierarchyPlugins(scene)
        slicer.mrmlScene = scene

    def _wireDataIO(self) -> None:
        """Reading and writing .mrb goes through these two, also for local files."""
        cache = Path(self.temporaryPath) / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        self._remoteIO = slicer.vtkMRMLRemoteIOLogic()
        self._remoteIO.SetMRMLScene(self.scene)
        self._remoteIO.SetMRMLApplicationLogic(self.applicationLogic)
        self._remoteIO.GetCacheManager().SetRemoteCacheDirectory(str(cache))
        self._dataIO = slicer.vtkDataIOManagerLogic()
        self._dataIO.SetMRMLScene(self.scene)
        self._dataIO.SetMRMLApplicationLogic(self.applicationLogic)
        self._dataIO.SetAndObserveDataIOManager(self._remoteIO.GetDataIOManager())
        self._remoteIO.AddDataIOToScene()

    def _addLogic(self, name: str, logic) -> None:
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.applicationLogic)
        self.applicationLogic.SetModuleLogic(name, logic)
        self.logics[name] = logic

    def close(self) -> None:
        """Lets go of everything that the scene holds; a second scene may be made afterwards."""
        if getattr(slicer, "mrmlScene", None) is self.scene:
            del slicer.mrmlScene
        self._hierarchy.close()
        self.scene.Clear(True)
        for logic in self.logics.values():
            logic.SetMRMLScene(None)
        self._dataIO.SetMRMLScene(None)
        self.applicationLogic.SetMRMLScene(None)
        if self._ownsTemporaryPath:
            shutil.rmtree(self.temporaryPath, ignore_errors=True)
