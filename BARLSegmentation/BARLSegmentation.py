# SPDX-License-Identifier: Apache-2.0
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import qt
import slicer
import vtk
from BARLSegmentationLib.logic.CaseLoader import LoadedCase
from BARLSegmentationLib.logic.Session import Session
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Each is the class <name>Panel of BARLSegmentationLib.widgets.<name>Panel, in the section <name>CollapsibleButton.
PANELS = [
    "Predict",
]


class BARLSegmentation(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("BARL Segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Volumes", "Segmentations", "SegmentEditor"]
        parent.contributors = ["BARL for 3D Slicer maintainers"]
        parent.helpText = _(
            "Segment a whole series of scans from a few outlined ones: outline some cases, train, look where the model "
            "is unsure, correct, train again, and see which case to look at next."
        )
        parent.acknowledgementText = _(
            "The training method is a reconstruction of BARL (arXiv 2510.16863) from public descriptions of it; "
            "it is not the authors' code."
        )


@parameterNodeWrapper
class BARLSegmentationParameterNode:
    """What the module keeps in the scene, so that a saved scene reopens as it was.

    projectFolder - The open project.
    caseId - The case on screen.
    volume - A scan that is no case, to predict.
    segmentation - The segmentation on screen: of the case, or predicted.
    uncertainty - How unsure the model was of it.
    device - Where to compute, as the worker names it; "auto" for the best there is.
    fast - One branch of the network instead of both.
    closedSurface - Show predictions in 3D.
    roi - Predict inside this box only.
    overlayVisible, overlayOpacity, overlayThreshold, overlayColor - How the uncertainty is shown.
    onlyWhereUnsure - Edit only where the uncertainty is above the threshold.
    method, minutes, warmStart - How to train, and for how long.
    trainAfter - Train by itself after so many newly accepted cases; 0 for never.
    """

    projectFolder: str = ""
    caseId: str = ""
    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    uncertainty: vtkMRMLScalarVolumeNode
    device: str = "auto"
    fast: bool = False
    closedSurface: bool = False
    roi: vtkMRMLMarkupsROINode
    overlayVisible: bool = True
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.5
    overlayThreshold: Annotated[float, WithinRange(0, 1)] = 0.3
    overlayColor: str = ""
    onlyWhereUnsure: bool = False
    method: str = "barl"
    minutes: Annotated[float, WithinRange(1, 100000)] = 30.0
    warmStart: bool = True
    trainAfter: int = 0


class BARLSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel: a line of status and one section per step of the work. Keeps session and scene in step."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.session = None
        self.worker = None
        self.panels = {}
        self._parameterNode = None
        self._restoring = False

    def setup(self):
        from BARLSegmentationLib.widgets.Worker import Worker

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/BARLSegmentation.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = BARLSegmentationLogic()
        self.session = self.logic.session
        self.worker = Worker()
        self.session.statusChanged.connect(self.onStatus)
        self.session.projectChanged.connect(self.onProjectChanged)
        self.session.caseOpened.connect(self.onCaseOpened)

        for name in PANELS:
            panelClass = getattr(importlib.import_module(f"BARLSegmentationLib.widgets.{name}Panel"), f"{name}Panel")
            panel = self.panels[name] = panelClass(self.session, self.worker, self)
            section = self._section(name)
            section.layout().addWidget(panel.widget)
            panel.setup()
            section.connect("contentsCollapsed(bool)", self.onSectionToggled)

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()

    def cleanup(self):
        """Slicer quits, or the module is reloaded."""
        self.removeObservers()
        self.setParameterNode(None)
        if self.session is not None:
            self.session.end()
        for panel in self.panels.values():
            panel.cleanup()
        if self.worker is not None:
            self.worker.close()

    def enter(self):
        self.initializeParameterNode()
        for panel in self.panels.values():
            panel.enter()
        self._tellExpanded()

    def exit(self):
        for panel in self.panels.values():
            panel.exit()

    def onReload(self):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("BARLSegmentationLib", "barl")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSectionToggled(self, collapsed):
        if not collapsed:
            self._tellExpanded()

    def _section(self, name):
        return getattr(self.ui, f"{name.lower()}CollapsibleButton")

    def _tellExpanded(self):
        for name, panel in self.panels.items():
            if not self._section(name).collapsed:
                panel.expanded()

    # Scene and session in step

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)  # before the session forgets, so that the scene's own copy keeps what it is
        self.session.sceneCloses()

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        self._restore()

    def setParameterNode(self, node):
        self._parameterNode = node
        for panel in self.panels.values():
            panel.setParameterNode(node)
        for panel in self.panels.values():
            panel.update()

    def _restore(self):
        """Bring the session to where the scene says it was, or tell the scene where the session is."""
        node, session = self._parameterNode, self.session
        folder, caseId = node.projectFolder, node.caseId
        if not folder or (session.project is not None and str(session.project.folder) == folder):
            self.onProjectChanged()
            self.onCaseOpened()
            return
        self._restoring = True  # what fails must not be wiped from the scene: the drive may come back
        try:
            if session.attempt(session.openProject, folder) and caseId:
                session.attempt(session.openCase, caseId)
        finally:
            self._restoring = False
        if session.project is not None:
            self.onCaseOpened()

    def onProjectChanged(self):
        if self._parameterNode is not None and not self._restoring:
            project = self.session.project
            self._parameterNode.projectFolder = str(project.folder) if project is not None else ""

    def onCaseOpened(self):
        node, loaded = self._parameterNode, self.session.loaded
        if node is None or self._restoring:
            return
        node.caseId = self.session.caseId or ""
        if loaded is not None:
            node.segmentation, node.uncertainty = loaded.segmentation, loaded.uncertainty

    def onStatus(self, text, isError):
        self.ui.statusLabel.text = text
        self.ui.statusIconLabel.visible = isError
        if isError:
            icon = slicer.app.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
            self.ui.statusIconLabel.setPixmap(icon.pixmap(qt.QSize(16, 16)))


class BARLSegmentationLogic(ScriptedLoadableModuleLogic):
    """The module without a window::

    logic = slicer.util.getModuleLogic("BARLSegmentation")
    logic.openProject("/data/liver-project")
    logic.loadCase(logic.cases()[0].id)
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.session = Session()

    def getParameterNode(self):
        return BARLSegmentationParameterNode(super().getParameterNode())

    def openProject(self, folder: str, readOnly: bool = False) -> None:
        self.session.openProject(folder, readOnly)

    def closeProject(self) -> None:
        self.session.closeProject()

    def cases(self) -> list:
        """The open project's cases (``barl.project.store.Case``); none if no project is open."""
        return self.session.cases()

    def loadCase(self, caseId: str) -> LoadedCase:
        """Load a case with its newest outline and uncertainty into the scene and show it."""
        return self.session.openCase(caseId)


class BARLSegmentationTest(ScriptedLoadableModuleTest):
    """Runs inside Slicer: makes a small project with the engine and loads its case."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_loadCase()

    def test_loadCase(self):
        import numpy as np
        import SimpleITK as sitk
        from barl.project.labels import Channel, Label
        from barl.project.store import Project

        voxels = np.zeros((6, 7, 8), np.uint8)
        voxels[2:4, 2:5, 2:6] = 1
        image = sitk.GetImageFromArray(voxels.astype(np.float32) * 100)
        label = sitk.GetImageFromArray(voxels)
        for item in (image, label):
            item.SetSpacing((1.0, 2.0, 3.0))
            item.SetOrigin((10.0, -20.0, 30.0))

        logic = BARLSegmentationLogic()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "project"
            labels = [Label(1, "lesion", (255, 0, 0)), Label(2, "edema", (0, 255, 0))]
            with Project.create(path, "self test", labels, [Channel("T1")]) as project:
                project.add_case("case 1", [image], label=label)
            logic.openProject(str(path))
            self.addCleanup(logic.closeProject)
            case = logic.cases()[0]
            loaded = logic.loadCase(case.id)
            again = logic.loadCase(case.id)

        self.assertEqual(again.volumes[0].GetID(), loaded.volumes[0].GetID())
        self.assertEqual(again.segmentation.GetID(), loaded.segmentation.GetID())
        matrix = vtk.vtkMatrix4x4()
        loaded.volumes[0].GetIJKToRASMatrix(matrix)
        self.assertEqual([matrix.GetElement(i, 3) for i in range(3)], [-10.0, 20.0, 30.0])  # LPS to RAS
        segmentation = loaded.segmentation.GetSegmentation()
        names = [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]
        self.assertEqual(names, ["lesion", "edema"])
        lesion = segmentation.GetNthSegmentID(0)
        found = slicer.util.arrayFromSegmentBinaryLabelmap(loaded.segmentation, lesion, loaded.volumes[0])
        self.assertEqual(int(np.count_nonzero(found != voxels)), 0)
        self.delayDisplay("Test passed")
