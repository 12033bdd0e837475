# SPDX-License-Identifier: Apache-2.0
import sys
import tempfile
from pathlib import Path

import qt
import slicer
import vtk
from BARLSegmentationLib.logic.CaseLoader import REVISION_ATTRIBUTE, CaseLoader, LoadedCase
from BARLSegmentationLib.logic.ProjectReader import ProjectReader
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class BARLSegmentation(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("BARL Segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Volumes", "Segmentations"]
        parent.contributors = ["BARL for 3D Slicer maintainers"]
        parent.helpText = _(
            "Look into a BARL project: its cases, their states and how sure the model was of each, and load a case "
            "with its newest outline. Training and prediction run from the command line (barl --help) for now."
        )
        parent.acknowledgementText = _(
            "The training method is a reconstruction of BARL (arXiv 2510.16863) from public descriptions of it; "
            "it is not the authors' code."
        )


class BARLSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel: choose a project, see its cases, load one."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/BARLSegmentation.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = BARLSegmentationLogic()

        self.ui.projectPathLineEdit.connect("currentPathChanged(QString)", self.onProjectChosen)
        self.ui.casesTable.connect("itemSelectionChanged()", self.updateLoadButton)
        self.ui.casesTable.connect("cellDoubleClicked(int,int)", self.onLoad)
        self.ui.loadButton.connect("clicked(bool)", self.onLoad)
        self.onProjectChosen()  # the path line starts with the last project of the previous session

    def cleanup(self):
        self.removeObservers()
        if self.logic:
            self.logic.closeProject()

    def enter(self):
        """Show what other programs (training, the command line) changed meanwhile."""
        if self.logic.projectIsOpen():
            self.updateCases()

    def onReload(self):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("BARLSegmentationLib", "barl")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onProjectChosen(self):
        self.logic.closeProject()
        folder = self.ui.projectPathLineEdit.currentPath
        failed = bool(folder) and self._attempt(lambda: self.logic.openProject(folder)) is None
        if self.logic.projectIsOpen():
            # Re-ordering its list, the widget would announce other paths on the way.
            blocked = self.ui.projectPathLineEdit.blockSignals(True)
            self.ui.projectPathLineEdit.addCurrentPathToHistory()
            self.ui.projectPathLineEdit.blockSignals(blocked)
        self.updateCases(keepStatus=failed)

    def updateCases(self, keepStatus=False):
        cases = self._attempt(self.logic.cases)
        if cases is None:  # the reason is in the status line
            cases, keepStatus = [], True
        table = self.ui.casesTable
        table.clearContents()
        table.rowCount = len(cases)
        self._caseIds = [case.id for case in cases]
        for row, case in enumerate(cases):
            uncertainty = "" if case.uncertainty is None else f"{case.uncertainty:.2f}"
            for column, text in enumerate((case.name, self.stateText(case.state), uncertainty)):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        if not keepStatus:
            self._showStatus(self.summaryText(cases))
        self.updateLoadButton()

    def updateLoadButton(self):
        chosen = self._selectedCaseId() is not None
        self.ui.loadButton.enabled = chosen
        self.ui.loadButton.toolTip = (
            _("Load the images and the newest outline of the selected case") if chosen else _("Select a case first")
        )

    def onLoad(self, *_arguments):
        caseId = self._selectedCaseId()
        if caseId is None:
            return
        with slicer.util.WaitCursor():
            loaded = self._attempt(lambda: self.logic.loadCase(caseId))
        if loaded:
            slicer.util.setSliceViewerLayers(background=loaded.volumes[0], fit=True)
            for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
                if segmentation.GetAttribute(REVISION_ATTRIBUTE):  # leave the user's own ones alone
                    segmentation.SetDisplayVisibility(segmentation is loaded.segmentation)
            self._showStatus(_("Loaded {name}.").format(name=loaded.volumes[0].GetName()))

    @staticmethod
    def stateText(state):
        return {
            "new": _("New"),
            "predicted": _("Predicted"),
            "in_review": _("In review"),
            "accepted": _("Accepted"),
            "excluded": _("Excluded"),
        }.get(state, state)

    def summaryText(self, cases):
        if not self.logic.projectIsOpen():
            return _("Choose a project folder. New projects are made on the command line: barl project --help")
        counts = self.logic.reader.stateCounts(cases)
        parts = ", ".join(f"{self.stateText(state)}: {count}" for state, count in sorted(counts.items()))
        total = _("{count} cases").format(count=len(cases))
        return f"{total} ({parts})" if parts else total

    def _selectedCaseId(self):
        row = self.ui.casesTable.currentRow()
        return self._caseIds[row] if 0 <= row < len(self._caseIds) else None

    def _attempt(self, action):
        """Run ``action``; what goes wrong is shown in the status line. Returns its result, or True if it has none."""
        from barl.errors import BarlError

        try:
            result = action()
        except BarlError as error:
            self._showStatus(str(error))
            return None
        return True if result is None else result

    def _showStatus(self, text):
        self.ui.statusLabel.text = text


class BARLSegmentationLogic(ScriptedLoadableModuleLogic):
    """Open a project and load its cases, without a window::

    logic = slicer.util.getModuleLogic("BARLSegmentation")
    logic.openProject("/data/liver-project")
    logic.loadCase(logic.cases()[0].id)
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.reader = ProjectReader()

    def openProject(self, folder: str) -> None:
        self.reader.open(folder)

    def closeProject(self) -> None:
        self.reader.close()

    def projectIsOpen(self) -> bool:
        return self.reader.project is not None

    def cases(self) -> list:
        """The open project's cases (``barl.project.store.Case``); none if no project is open."""
        return self.reader.cases()

    def loadCase(self, caseId) -> LoadedCase:
        """Load the images and the newest label map of a case of the open project into the scene."""
        return CaseLoader().load(self.reader.project, caseId)


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
            case = logic.cases()[0]
            loaded = logic.loadCase(case.id)
            again = logic.loadCase(case.id)
            logic.closeProject()

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
