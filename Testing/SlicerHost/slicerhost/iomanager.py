# SPDX-License-Identifier: Apache-2.0
"""Stand-in of Slicer's file readers and writers: which one a file belongs to is decided here, the work is done by the
storage nodes and module logics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from PySide6 import QtCore

if TYPE_CHECKING:
    from .core import Core

# Ending -> type of file, as Slicer's readers name it. The longest ending that fits wins.
_FILE_TYPES = {
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".seg.vtm": "SegmentationFile",
    ".nrrd": "VolumeFile",
    ".nhdr": "VolumeFile",
    ".nii": "VolumeFile",
    ".nii.gz": "VolumeFile",
    ".mha": "VolumeFile",
    ".mhd": "VolumeFile",
    ".hdr": "VolumeFile",
    ".dcm": "VolumeFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".obj": "ModelFile",
    ".ply": "ModelFile",
    ".ctbl": "ColorTableFile",
    ".h5": "TransformFile",
    ".tfm": "TransformFile",
    ".mrk.json": "MarkupsFile",
    ".fcsv": "MarkupsFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".txt": "TextFile",
}
_WRITER_TYPES = {
    "vtkMRMLSegmentationNode": "SegmentationFile",
    "vtkMRMLVolumeNode": "VolumeFile",
    "vtkMRMLModelNode": "ModelFile",
    "vtkMRMLColorNode": "ColorTableFile",
    "vtkMRMLTransformNode": "TransformFile",
    "vtkMRMLMarkupsNode": "MarkupsFile",
    "vtkMRMLTableNode": "TableFile",
    "vtkMRMLTextNode": "TextFile",
}


class qSlicerIOManager(QtCore.QObject):
    newFileLoaded = QtCore.Signal(object)
    fileSaved = QtCore.Signal(object)

    def __init__(self, core: Core, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        self._core = core

    def fileType(self, file: str) -> str:
        name = str(file).lower()
        fitting = [ending for ending in _FILE_TYPES if name.endswith(ending)]
        return _FILE_TYPES[max(fitting, key=len)] if fitting else "NoFile"

    def fileTypes(self, file: str) -> tuple[str, ...]:
        return (self.fileType(file),)

    def registeredFileReaderCount(self, fileType: str) -> int:
        return int(fileType in _FILE_TYPES.values())

    def registeredFileWriterCount(self, fileType: str) -> int:
        return int(fileType in {*_WRITER_TYPES.values(), "SceneFile"})

    def fileWriterFileType(self, node: slicer.vtkMRMLNode | None, extension: str = "") -> str:
        return next((kind for name, kind in _WRITER_TYPES.items() if node.IsA(name)), "NoFile")

    # Reading ---------------------------------------------------------------------------------------------------------

    def loadNodes(
        self,
        fileType: str,
        parameters: dict[str, Any],
        loadedNodes: vtk.vtkCollection | None = None,
        userMessages: Any = None,
    ) -> bool:
        parameters = dict(parameters)
        path = str(parameters["fileName"])
        reader = getattr(self, f"_read{fileType}", None)
        if reader is None:
            return self._fail(userMessages, f"No reader for the file type {fileType} in this test host: {path}")
        if not Path(path).exists():
            return self._fail(userMessages, f"File does not exist: {path}")
        name = parameters.get("name") or self._stem(path)
        node = reader(path, name, parameters)
        if node is None or node is False:
            return self._fail(userMessages, f"File could not be read: {path}")
        nodes = [] if node is True else [node]
        for one in nodes:
            if loadedNodes is not None:
                loadedNodes.AddItem(one)
        self.newFileLoaded.emit({**parameters, "fileType": fileType, "nodeIDs": [one.GetID() for one in nodes]})
        return True

    def loadScene(self, fileName: str, clear: bool = True, userMessages: Any = None) -> bool:
        return self.loadNodes("SceneFile", {"fileName": fileName, "clear": clear}, None, userMessages)

    def loadFile(self, fileName: str, userMessages: Any = None) -> bool:
        return self.loadNodes(self.fileType(fileName), {"fileName": fileName}, None, userMessages)

    @staticmethod
    def _fail(userMessages, text):
        if userMessages is not None:
            userMessages.AddMessage(vtk.vtkCommand.ErrorEvent, text)
        return False

    @staticmethod
    def _stem(path):
        name = Path(path).name
        fitting = [ending for ending in _FILE_TYPES if name.lower().endswith(ending)]
        return name[: -len(max(fitting, key=len))] if fitting else Path(path).stem

    def _readVolumeFile(self, path, name, parameters):
        logic = self._core.logics["Volumes"]
        options = {
            logic.LabelMap: parameters.get("labelmap", False),
            logic.CenterImage: parameters.get("center", False),
            logic.SingleFile: parameters.get("singleFile", False),
            logic.AutoWindowLevel: parameters.get("autoWindowLevel", True),
            logic.DiscardOrientation: parameters.get("discardOrientation", False),
        }
        node = logic.AddArchetypeVolume(path, name, sum(bit for bit, on in options.items() if on), None)
        if node is None:
            return None
        if parameters.get("colorNodeID"):
            node.GetDisplayNode().SetAndObserveColorNodeID(parameters["colorNodeID"])
        if parameters.get("show", True):
            selection = self._core.applicationLogic.GetSelectionNode()
            if node.IsA("vtkMRMLLabelMapVolumeNode"):
                selection.SetActiveLabelVolumeID(node.GetID())
            else:
                selection.SetActiveVolumeID(node.GetID())
            self._core.applicationLogic.PropagateVolumeSelection()
        return node

    def _readSegmentationFile(self, path, name, parameters):
        logic = self._core.logics["Segmentations"]
        return logic.LoadSegmentationFromFile(path, parameters.get("autoOpacities", True), name)

    def _readModelFile(self, path, name, parameters):
        node = self._core.logics["Models"].AddModel(path)
        if node is not None and parameters.get("name"):
            node.SetName(name)
        return node

    def _readColorTableFile(self, path, name, parameters):
        return self._core.logics["Colors"].LoadColorFile(path, name)

    def _readTransformFile(self, path, name, parameters):
        return self._core.logics["Transforms"].AddTransform(path, self._core.scene)

    def _readTableFile(self, path, name, parameters):
        return self._core.logics["Tables"].AddTable(path, name)

    def _readMarkupsFile(self, path, name, parameters):
        nodeID = self._core.logics["Markups"].LoadMarkups(path, name)
        return self._core.scene.GetNodeByID(nodeID) if nodeID else None

    def _readTextFile(self, path, name, parameters):
        node = self._core.scene.AddNewNodeByClass("vtkMRMLTextNode", name)
        node.SetText(Path(path).read_text(encoding="utf-8"))
        return node

    def _readSceneFile(self, path, name, parameters):
        scene, path = self._core.scene, str(Path(path).resolve())
        if parameters.get("clear", False):
            scene.Clear(False)
        if path.lower().endswith(".mrb"):
            return bool(scene.ReadFromMRB(path))
        scene.SetURL(path)
        scene.SetRootDirectory(str(Path(path).parent))
        return bool(scene.Import())

    # Writing ---------------------------------------------------------------------------------------------------------

    def saveNodes(
        self,
        fileType: str,
        parameters: dict[str, Any],
        userMessages: Any = None,
        scene: slicer.vtkMRMLScene | None = None,
    ) -> bool:
        parameters = dict(parameters)
        path = Path(str(parameters["fileName"]))
        if fileType == "SceneFile":
            saved = self._saveScene(path)
        else:
            node = self._core.scene.GetNodeByID(parameters["nodeID"])
            saved = node is not None and self._saveNode(node, path, parameters)
        if not saved:
            return self._fail(userMessages, f"File could not be written: {path}")
        self.fileSaved.emit(parameters)
        return True

    @staticmethod
    def _saveNode(node, path, parameters):
        storage = node.GetStorageNode()
        if storage is None or not storage.SupportedFileType(str(path)):
            storage = slicer.mrmlScene.AddNewNodeByClass(node.GetDefaultStorageNodeClassName(str(path)))
            if storage is None:
                return False
            node.SetAndObserveStorageNodeID(storage.GetID())
        storage.SetFileName(str(path))
        if "useCompression" in parameters:
            storage.SetUseCompression(int(parameters["useCompression"]))
        return bool(storage.WriteData(node))

    def saveScene(self, fileName: str, screenShot: Any, userMessages: Any = None) -> bool:
        return self.saveNodes("SceneFile", {"fileName": fileName, "screenShot": screenShot}, userMessages)

    def _saveScene(self, path):
        path = path.resolve()
        scene = self._core.scene
        if path.suffix.lower() == ".mrb":
            path.parent.mkdir(parents=True, exist_ok=True)
            return bool(scene.WriteToMRB(str(path)))
        if path.suffix.lower() != ".mrml":  # a folder: the scene and its data side by side
            path.mkdir(parents=True, exist_ok=True)
            return bool(scene.SaveSceneToSlicerDataBundleDirectory(str(path), None))
        scene.SetURL(str(path))
        scene.SetRootDirectory(str(path.parent))
        return bool(scene.Commit())

    def fileWriterExtensions(self, node: slicer.vtkMRMLNode | None) -> tuple[str, ...]:
        storage = node.GetStorageNode()
        if storage is None:
            storage = self._core.scene.CreateNodeByClass(node.GetDefaultStorageNodeClassName())
            storage.UnRegister(None)
        types = storage.GetSupportedWriteFileTypes()
        return tuple(types.GetValue(i) for i in range(types.GetNumberOfValues()))

    def extractKnownExtension(self, fileName: str, node: slicer.vtkMRMLNode | None) -> str:
        helper = slicer.vtkDataFileFormatHelper
        endings = [helper.GetFileExtensionFromFormatString(text) for text in self.fileWriterExtensions(node)]
        return max((e for e in endings if str(fileName).lower().endswith(e.lower())), key=len, default="")

    def exportNodes(
        self,
        nodeIDs: Sequence[str],
        fileNames: Any,
        commonParameterMap: Mapping[str, Any] | None,
        hardenTransforms: bool,
        userMessages: Any = None,
    ) -> bool:
        if hardenTransforms:
            return self._fail(userMessages, "Export in world coordinates is not possible in this test host")
        for nodeID, fileName in zip(nodeIDs, fileNames, strict=True):
            node = self._core.scene.GetNodeByID(nodeID)
            storage = self._core.scene.CreateNodeByClass(node.GetDefaultStorageNodeClassName(fileName))
            storage.UnRegister(None)
            storage.SetFileName(fileName)
            if not storage.WriteData(node):
                return self._fail(userMessages, f"File could not be written: {fileName}")
        return True
