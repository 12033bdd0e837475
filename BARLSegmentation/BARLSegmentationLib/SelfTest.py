# SPDX-License-Identifier: Apache-2.0
"""The module's own test, which Slicer runs from *Reload and Test* and from the command line."""

import tempfile
import time
from pathlib import Path

import numpy as np
import qt
import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest


class BARLSegmentationTest(ScriptedLoadableModuleTest):
    """Runs inside Slicer, on synthetic cases: the loop from an empty folder to an accepted outline, and a prediction
    where PyTorch is installed. The scene is empty afterwards."""

    def setUp(self) -> None:
        from BARLSegmentation import BARLSegmentationLogic

        slicer.mrmlScene.Clear()
        self.addCleanup(slicer.mrmlScene.Clear)  # cleanups run last in, first out
        self.logic = BARLSegmentationLogic()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(self.logic.closeProject)  # before the folder goes
        self.folder = Path(folder.name) / "project"

    def runTest(self) -> None:
        for test in (self.test_loop, self.test_panels, self.test_scene, self.test_predict):
            self.setUp()
            test()
            self.doCleanups()
        self.delayDisplay("Test passed")

    def makeProject(self) -> np.ndarray:
        """One outlined and one untouched case, labels as the demonstration model's; gives the outline [k, j, i]."""
        import SimpleITK as sitk
        from barl.project.labels import Channel, Label

        labels = [Label(1, "Anterior hippocampus", (255, 0, 0)), Label(2, "Posterior hippocampus", (0, 0, 255))]
        self.logic.session.createProject(self.folder, "self test", labels, [Channel("T1")])
        outline = np.zeros((36, 40, 34), np.uint8)
        outline[10:20, 8:18, 9:20], outline[10:20, 18:30, 9:20] = 1, 2
        noise = np.random.default_rng(0).normal(0, 5, outline.shape)
        image = sitk.GetImageFromArray((100 + 60 * (outline > 0) + noise).astype(np.float32))
        label = sitk.GetImageFromArray(outline)
        for item in (image, label):
            item.SetOrigin((10.0, -20.0, 30.0))
        self.logic.session.project.cases.add("outlined", [image], label=label)
        self.logic.session.project.cases.add("untouched", [image])
        return outline

    def test_loop(self) -> None:
        """Open a case, draw in it, accept it."""

        outline = self.makeProject()
        case = self.logic.cases()[0]
        loaded = self.logic.loadCase(case.id)
        matrix = vtk.vtkMatrix4x4()
        loaded.volumes[0].GetIJKToRASMatrix(matrix)
        self.assertEqual([matrix.GetElement(i, 3) for i in range(3)], [-10.0, 20.0, 30.0])  # LPS to RAS
        segmentation = loaded.segmentation.GetSegmentation()
        names = [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]
        self.assertEqual(names, ["Anterior hippocampus", "Posterior hippocampus"])
        anterior = segmentation.GetNthSegmentID(0)
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(loaded.segmentation, anterior, loaded.volumes[0])
        self.assertEqual(int(np.count_nonzero((voxels != 0) != (outline == 1))), 0)

        from BARLSegmentationLib.logic.Correction import Correction

        correction = Correction(self.logic.session)
        correction.begin()
        drawn = voxels.copy()
        drawn[5:8, 10:14, 10:14] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            drawn, loaded.segmentation, anterior, self.logic.session.loaded.volumes[0]
        )
        correction.store("accepted", "self test")
        again = self.logic.loadCase(case.id)
        self.assertEqual(again.revision.kind, "accepted")
        stored = slicer.util.arrayFromSegmentBinaryLabelmap(
            again.segmentation, again.segmentation.GetSegmentation().GetNthSegmentID(0), again.volumes[0]
        )
        self.assertEqual(int(np.count_nonzero(stored)), int(np.count_nonzero(outline == 1)) + 3 * 4 * 4)

    def test_panels(self) -> None:
        """By the module's own widgets: make a project, add a case from the scene, hold it out, open it."""

        widget, settings = slicer.util.getModuleWidget("BARLSegmentation"), qt.QSettings()
        project, cases = widget.panels["Project"], widget.panels["Cases"]
        recent = settings.value("BARLSegmentation/RecentProjects")
        self.addCleanup(settings.setValue, "BARLSegmentation/RecentProjects", recent or [])
        self.addCleanup(widget.session.closeProject)
        for table in (project.ui.labelsTable, project.ui.channelsTable):
            table.setRowCount(0)
        widget.steps.show("Project")
        project.ui.newGroupBox.collapsed = False  # a folded box takes no clicks
        project.ui.newFolderPathLineEdit.currentPath = str(self.folder)
        project.ui.addLabelButton.click()
        project.ui.labelsTable.item(0, 1).setText("Liver")
        project.ui.addChannelButton.click()
        project.ui.channelsTable.item(0, 0).setText("CT")
        project.ui.createButton.click()
        self.assertIsNotNone(widget.session.project, widget.ui.statusLabel.text)
        volume = slicer.util.addVolumeFromArray(np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6))
        cases.ui.addGroupBox.collapsed = False
        cases.ui.sourceComboBox.setCurrentIndex(0)
        cases.ui.nameLineEdit.text = "from the scene"
        cases.adding.selectors[0].setCurrentNode(volume)
        cases.ui.addButton.click()
        end = time.monotonic() + 60
        while not cases.isIdle and time.monotonic() < end:
            slicer.app.processEvents()
        self.assertEqual(cases.ui.casesTable.rowCount, 1, widget.ui.statusLabel.text)
        self.assertEqual(cases.ui.casesTable.item(0, 0).text(), "from the scene")
        cases.ui.casesTable.selectRow(0)
        cases.ui.holdOutButton.click()
        self.assertTrue(widget.session.cases()[0].held_out, widget.ui.statusLabel.text)
        cases.ui.openCaseButton.click()
        self.assertEqual(widget.session.caseId, widget.session.cases()[0].id, widget.ui.statusLabel.text)

    def test_scene(self) -> None:
        """What the scene keeps of the module comes back; a case loaded twice is there once."""
        self.makeProject()
        loaded = self.logic.loadCase(self.logic.cases()[0].id)
        count = slicer.mrmlScene.GetNumberOfNodes()
        again = self.logic.loadCase(self.logic.cases()[0].id)
        self.assertEqual(again.segmentation.GetID(), loaded.segmentation.GetID())
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), count)
        self.logic.closeProject()
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])
        node = self.logic.getParameterNode()
        node.minutes, node.device = 12.5, "cpu"
        again = self.logic.getParameterNode()
        self.assertEqual((again.minutes, again.device), (12.5, "cpu"))

    def test_predict(self) -> None:
        """Predict a case and a volume with the demonstration model."""
        from barl.errors import BarlError
        from barl.worker.messages import SayHello

        from BARLSegmentationLib.logic.Prediction import callWorker

        try:
            callWorker(SayHello())
        except BarlError as error:
            self.delayDisplay(f"Prediction is not tested: {error}")
            return
        model = Path(__file__).parents[1] / "Resources" / "Models" / "hippocampus"
        self.makeProject()
        untouched = self.logic.cases()[1]
        result = self.logic.predict([untouched.id], model=model, device="cpu")
        self.assertEqual([case.case for case in result.cases], [untouched.id])
        loaded = self.logic.loadCase(untouched.id)
        self.assertEqual(loaded.revision.kind, "prediction")
        self.assertIsNotNone(loaded.uncertainty)
        segmentation, uncertainty = self.logic.predictVolumes(loaded.volumes, model, device="cpu", fast=True)
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 2)
        self.assertEqual(uncertainty.GetImageData().GetDimensions(), loaded.volumes[0].GetImageData().GetDimensions())
