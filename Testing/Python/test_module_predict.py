# SPDX-License-Identifier: Apache-2.0
"""The Predict panel with a real worker and the model that comes along, driven through its widgets."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel, Label
from barl.project.store import Project

pytestmark = pytest.mark.host
MODULE = Path(__file__).resolve().parents[2] / "BARLSegmentation"
MODEL = MODULE / "Resources" / "Models" / "hippocampus"
LABELS = [Label(1, "Anterior hippocampus", (230, 80, 60)), Label(2, "Posterior hippocampus", (80, 140, 230))]
ANSWER_S = 300.0  # torch has to be read once; a loaded machine takes its time
CASE_ON_SCREEN, SELECTED_CASES, OPEN_CASES, VOLUMES = range(4)


@pytest.fixture(scope="module", autouse=True)
def _torch():
    pytest.importorskip("torch", reason="the engine's packages are not installed")
    yield
    slicer = sys.modules.get("slicer")
    if slicer is not None and hasattr(slicer, "modules") and hasattr(slicer.modules, "BARLSegmentationWidget"):
        slicer.modules.BARLSegmentationWidget.worker.close()


@pytest.fixture
def module(a_module):
    return a_module


@pytest.fixture
def panel(module):
    panel = module.panels["Predict"]
    panel.ui.modelComboBox.currentIndex = 0
    panel.ui.inputComboBox.currentIndex = VOLUMES
    return panel


def wait_until(condition, seconds=ANSWER_S):
    import slicer

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        slicer.app.processEvents()
        time.sleep(0.005)


def wait_for_prediction(panel):
    wait_until(lambda: not panel.busy)


def choose_model(panel, text):
    combo = panel.ui.modelComboBox
    combo.currentIndex = next(n for n in range(combo.count) if text in combo.itemText(n))


def an_image(seed=0, shape=(36, 44, 34)):
    """Nothing anatomical: a bright body in noise, oblique and off the origin."""
    rng = np.random.default_rng(seed)
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    body = ((k - 18) / 8) ** 2 + ((j - 22) / 12) ** 2 + ((i - 17) / 7) ** 2 < 1
    image = sitk.GetImageFromArray((200 + 150 * body + rng.normal(0, 20, shape)).astype(np.float32))
    c, s = np.cos(0.2), np.sin(0.2)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    image.SetOrigin((12.0, -34.0, 56.0))
    return image


def a_volume(image, name="scan"):
    import slicer
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayFromImage(image))
    toRAS = np.eye(4)
    toRAS[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    toRAS[:3, 3] = image.GetOrigin()
    toRAS = np.diag([-1.0, -1.0, 1.0, 1.0]) @ toRAS
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(toRAS.ravel())
    node.SetIJKToRASMatrix(matrix)
    node.CreateDefaultDisplayNodes()
    return node


@pytest.fixture
def a_project(tmp_path):
    with Project.create(tmp_path / "project", "study", LABELS, [Channel("T1")]) as project:
        for number in range(3):
            project.cases.add(f"case {number}", [an_image(number)])
    return tmp_path / "project"


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b))


def label_map(segmentation, volume):
    import slicer

    segments, merged = segmentation.GetSegmentation(), None
    for n in range(segments.GetNumberOfSegments()):
        array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segments.GetNthSegmentID(n), volume)
        merged = np.zeros(array.shape, int) if merged is None else merged
        merged[array != 0] = segments.GetNthSegment(n).GetLabelValue()
    return merged


# ---------------------------------------------------------------------------------------------------------------------
# What can be chosen, and why Apply cannot be pressed


def reason_against_apply(panel):
    assert not panel.ui.applyButton.enabled
    return panel.ui.applyButton.toolTip


def test_apply_says_what_is_wrong_with_the_volume(panel, module):
    import slicer

    ui = panel.ui
    assert "Choose a volume" in reason_against_apply(panel)
    volume = a_volume(an_image())
    ui.volumeSelector.setCurrentNode(volume)
    assert ui.applyButton.enabled and "Segment" in ui.applyButton.toolTip
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    ui.applyButton.click()  # nobody has told the panel
    assert "harden its transform" in module.ui.statusLabel.text and not panel.busy
    assert "harden its transform" in reason_against_apply(panel)
    volume.SetAndObserveTransformNodeID(None)
    panel.update()
    assert ui.applyButton.enabled


def test_apply_says_what_is_wrong_with_the_box(panel):
    import slicer

    ui, volume = panel.ui, a_volume(an_image())
    ui.volumeSelector.setCurrentNode(volume)
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    ui.roiSelector.setCurrentNode(roi)
    assert "box is empty" in reason_against_apply(panel)
    roi.SetSize(10.0, 10.0, 10.0)  # drawn in a view
    assert ui.applyButton.enabled
    ui.roiSelector.setCurrentNode(None)
    ui.roiSelector.addNode()
    lower, upper = np.zeros(6), np.zeros(6)
    ui.roiSelector.currentNode().GetRASBounds(lower)
    volume.GetRASBounds(upper)
    np.testing.assert_allclose(lower, upper, atol=1e-6)
    assert ui.applyButton.enabled, "a new box is as large as the scan"
    ui.roiSelector.setCurrentNode(None)
    assert ui.applyButton.enabled


def test_apply_says_what_is_wrong_with_the_model(panel, a_project):
    ui = panel.ui
    ui.volumeSelector.setCurrentNode(a_volume(an_image()))
    choose_model(panel, "another folder")
    assert not ui.modelPathLineEdit.isHidden()
    ui.modelPathLineEdit.currentPath = str(a_project)
    assert "model.json" in reason_against_apply(panel)
    ui.modelPathLineEdit.currentPath = str(MODEL)
    assert ui.applyButton.enabled
    ui.modelPathLineEdit.currentPath = ""
    assert "Choose a model" in reason_against_apply(panel)


def test_apply_says_which_cases_it_needs(panel, module, a_project):
    ui, session = panel.ui, module.session
    for scope in (CASE_ON_SCREEN, SELECTED_CASES):
        ui.inputComboBox.currentIndex = scope
        assert "Open a project" in reason_against_apply(panel)
    session.openProject(a_project)
    ui.inputComboBox.currentIndex = CASE_ON_SCREEN
    assert "Open a case first" in reason_against_apply(panel)
    ui.inputComboBox.currentIndex = SELECTED_CASES
    assert "Select cases" in reason_against_apply(panel)
    session.selectCases(["case_0001", "case_0003"])
    assert ui.applyButton.enabled
    assert "(2)" in ui.inputComboBox.itemText(SELECTED_CASES)
    assert "(3)" in ui.inputComboBox.itemText(OPEN_CASES)


def test_models_of_the_project_come_first_and_the_current_one_stays_chosen(panel, module, a_project):
    session, combo = module.session, panel.ui.modelComboBox
    session.openProject(a_project)
    assert combo.itemText(0) == "Hippocampus (demonstration)"
    first = session.project.models.add(MODEL, {}, name="first")
    second = session.project.models.add(MODEL, {}, name="second")
    session.project.models.promote(first.id)
    session.notifyModels()
    texts = [combo.itemText(n) for n in range(combo.count)]
    assert texts == ["first (current)", "second", "Hippocampus (demonstration)", "Model in another folder"]
    assert combo.currentIndex == 0
    session.project.models.promote(second.id)
    session.notifyModels()
    assert combo.currentIndex == 0 and combo.currentText == "second (current)"
    choose_model(panel, "Hippocampus")
    session.notifyModels()
    assert combo.currentText == "Hippocampus (demonstration)"


def test_one_selector_for_each_channel(panel, tmp_path):
    import json

    card = json.loads((MODEL / "model.json").read_text())
    card["channels"] = ["T1", "FLAIR", "T2"]
    card["normalisations"], card["network"]["in_channels"] = card["normalisations"] * 3, 3
    (tmp_path / "model.json").write_text(json.dumps(card))
    choose_model(panel, "another folder")
    panel.ui.modelPathLineEdit.currentPath = str(tmp_path)
    assert panel.ui.volumeLabel.text == "T1:"
    rows = [(label.text, selector) for label, selector in panel.volumeRows.rows[1:] if not selector.isHidden()]
    assert [text for text, _ in rows] == ["FLAIR:", "T2:"]
    scans = [a_volume(an_image(seed, (6, 6, 6)), name) for seed, name in enumerate(("a", "b", "c"))]
    panel.ui.volumeSelector.setCurrentNode(scans[0])
    rows[0][1].setCurrentNode(scans[1])
    rows[1][1].setCurrentNode(scans[1])
    assert "two channels" in panel.ui.applyButton.toolTip
    rows[1][1].setCurrentNode(scans[2])
    assert panel.ui.applyButton.enabled
    choose_model(panel, "Hippocampus")
    assert all(selector.isHidden() for _, selector in panel.volumeRows.rows[1:])
    assert panel.ui.volumeLabel.text == "Volume:" and panel.ui.applyButton.enabled


def test_files_for_the_worker_have_the_volumes_geometry(host, tmp_path):
    from BARLSegmentationLib.logic.Prediction import writeNrrd

    for kind in (np.int16, np.uint8, np.float32, np.float64):
        image = sitk.Cast(an_image(1, (5, 6, 7)), sitk.GetImageFromArray(np.zeros((1, 1, 1), kind)).GetPixelID())
        shares = list(writeNrrd(a_volume(image), tmp_path / "scan.nrrd"))
        assert shares[-1] == 1.0
        read = sitk.ReadImage(str(tmp_path / "scan.nrrd"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(image))
        for index in ((0, 0, 0), (6, 5, 4)):
            np.testing.assert_allclose(
                read.TransformIndexToPhysicalPoint(index), image.TransformIndexToPhysicalPoint(index), atol=1e-6
            )


# ---------------------------------------------------------------------------------------------------------------------
# Predictions


def test_devices_are_those_of_the_worker(panel, module):
    module.steps.show("Predict")
    panel.opened()
    wait_until(lambda: panel.ui.deviceComboBox.count > 1)
    names = [panel.ui.deviceComboBox.itemData(n) for n in range(panel.ui.deviceComboBox.count)]
    assert names[0] == "auto" and "cpu" in names
    panel.ui.deviceComboBox.currentIndex = names.index("cpu")
    assert module.panels["Train"].parameterNode.device == "cpu"


def test_volume_is_segmented_while_slicer_stays_alive(panel, module):
    import qt
    import slicer

    image = an_image()
    volume = a_volume(image)
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.closedSurfaceCheckBox.checked = True
    ticks, stages = [], set()
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: (ticks.append(time.monotonic()), stages.add(panel.ui.progressLabel.text[:12])))
    timer.start(10)
    panel.ui.applyButton.click()
    assert not panel.ui.applyButton.enabled and "under way" in panel.ui.applyButton.toolTip
    assert panel.ui.cancelButton.enabled and not panel.ui.progressBar.isHidden()
    wait_for_prediction(panel)
    timer.stop()
    assert "is ready" in module.ui.statusLabel.text
    assert len(ticks) > 5 and len(stages) > 1
    node = module.panels["Train"].parameterNode
    assert node.segmentation.GetName() == "scan segmentation" and node.uncertainty.GetName() == "scan uncertainty"
    segments = node.segmentation.GetSegmentation()
    assert [segments.GetNthSegment(n).GetName() for n in range(2)] == [label.name for label in LABELS]
    assert [segments.GetNthSegment(n).GetLabelValue() for n in range(2)] == [1, 2]
    assert segments.ContainsRepresentation("Closed surface")
    uncertainty = slicer.util.arrayFromVolume(node.uncertainty)
    assert uncertainty.shape == sitk.GetArrayFromImage(image).shape and 0 <= uncertainty.min() <= uncertainty.max() <= 1
    ours, theirs = (slicer.util.arrayFromVTKMatrix(to_ras(n)) for n in (volume, node.uncertainty))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert not list(Path(slicer.app.temporaryPath).glob("BARL-*")), "no scan is left behind"
    panel.ui.closedSurfaceCheckBox.checked = False


def to_ras(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_cases_are_predicted_and_the_one_on_screen_shows_it(panel, module, a_project):
    session = module.session
    session.openProject(a_project)
    session.openCase("case_0002")
    choose_model(panel, "Hippocampus")
    panel.ui.fastCheckBox.checked = True
    session.selectCases(["case_0001", "case_0002"])
    panel.ui.inputComboBox.currentIndex = SELECTED_CASES
    panel.ui.applyButton.click()
    wait_for_prediction(panel)
    assert "2 cases predicted." in module.ui.statusLabel.text
    assert [case.state for case in session.cases()] == ["predicted", "predicted", "new"]
    assert session.loaded.revision.kind == "prediction" and session.loaded.uncertainty is not None
    assert "(1)" not in panel.ui.inputComboBox.itemText(OPEN_CASES), "predicted is not outlined yet"
    panel.ui.fastCheckBox.checked = False


def test_cancel_stops_and_says_so(panel, module, a_project):
    session = module.session
    session.openProject(a_project)
    choose_model(panel, "Hippocampus")
    panel.ui.inputComboBox.currentIndex = OPEN_CASES
    panel.ui.applyButton.click()
    panel.ui.cancelButton.click()
    wait_for_prediction(panel)
    assert "Cancelled" in module.ui.statusLabel.text and module.ui.statusIconLabel.isHidden()
    assert panel.ui.applyButton.enabled and not panel.ui.cancelButton.enabled
    assert panel.ui.progressBar.isHidden()


def test_what_is_wrong_with_a_volume_names_the_volume(panel, module):
    panel.ui.volumeSelector.setCurrentNode(a_volume(an_image(shape=(1, 44, 34)), "localizer"))
    panel.ui.applyButton.click()
    wait_for_prediction(panel)
    assert module.ui.statusLabel.text.startswith("'localizer' has 34 x 44 x 1 voxels: it is a single slice")
    assert not module.ui.statusIconLabel.isHidden()


def test_a_volume_emptied_while_it_is_written_ends_the_prediction_in_one_sentence(panel, module):
    volume = a_volume(an_image())
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.applyButton.click()
    volume.SetAndObserveImageData(None)
    wait_for_prediction(panel)
    assert module.ui.statusLabel.text == "The volume scan is empty." and not module.ui.statusIconLabel.isHidden()


def test_a_result_that_memory_does_not_suffice_for_is_told(panel, module, monkeypatch):
    from BARLSegmentationLib.logic import Prediction

    def fail(*_arguments):
        raise MemoryError

    monkeypatch.setattr(Prediction.CaseLoader, "readSegmentation", fail)
    panel.ui.volumeSelector.setCurrentNode(a_volume(an_image()))
    panel.ui.applyButton.click()
    wait_for_prediction(panel)
    assert module.ui.statusLabel.text.startswith("This computer does not have enough memory. Close other programs")
    assert panel.ui.applyButton.enabled and panel.isIdle


def test_files_that_cannot_be_removed_do_not_keep_the_module_from_closing(host, monkeypatch):
    """As on Windows while the worker has them open."""
    import os

    from BARLSegmentationLib.logic.Prediction import VolumePrediction, readModel

    def refuse(path, *_arguments, **_named):
        raise PermissionError(13, "in use", path)

    prediction = VolumePrediction(readModel(MODEL), [a_volume(an_image(shape=(6, 6, 6)))])
    list(prediction.write())
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        prediction.close()
    for path in prediction._scans:
        path.unlink()
        path.parent.rmdir()


def test_a_result_is_shown_without_slice_views_too(host, monkeypatch):
    """Slicer started with --no-main-window has no layout manager."""
    import slicer
    from BARLSegmentationLib.widgets.PredictVolumes import showVolume

    volume = a_volume(an_image(shape=(6, 6, 6)))
    monkeypatch.setattr(type(slicer.app), "layoutManager", lambda self: None)
    showVolume(volume)
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert all(view.GetBackgroundVolumeID() == volume.GetID() for view in views)


def test_scene_closed_during_a_prediction_leaves_nothing(panel, module):
    import slicer

    panel.ui.volumeSelector.setCurrentNode(a_volume(an_image()))
    panel.ui.applyButton.click()
    slicer.app.processEvents()
    slicer.mrmlScene.Clear(0)
    wait_for_prediction(panel)
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert not list(Path(slicer.app.temporaryPath).glob("BARL-*"))


def test_a_scene_added_during_a_prediction_does_not_end_it(panel, module):
    import slicer

    panel.ui.volumeSelector.setCurrentNode(a_volume(an_image()))
    panel.ui.applyButton.click()
    slicer.app.processEvents()
    slicer.mrmlScene.StartState(slicer.mrmlScene.ImportState)
    slicer.mrmlScene.EndState(slicer.mrmlScene.ImportState)
    wait_for_prediction(panel)
    assert "is ready" in module.ui.statusLabel.text


def test_hippocampus_is_found_in_a_real_scan(panel, module, data_dir):
    """A scan of a subject that neither training nor tuning of the model has read."""
    from barl.benchmark import datasets

    dataset = datasets.load("hippocampus")
    case = dataset.part("test")[0]
    image, truth = sitk.ReadImage(str(case.images[0])), sitk.GetArrayFromImage(sitk.ReadImage(str(case.label)))
    volume = a_volume(sitk.Cast(image, sitk.sitkFloat32))
    panel.ui.volumeSelector.setCurrentNode(volume)
    choose_model(panel, "Hippocampus")
    panel.ui.applyButton.click()
    wait_for_prediction(panel)
    found = label_map(module.panels["Train"].parameterNode.segmentation, volume)
    assert dice(found == 1, truth == 1) > 0.7 and dice(found == 2, truth == 2) > 0.7


@pytest.mark.slow
def test_large_scan_is_handed_over_in_pieces(panel, module):
    """512 x 512 x 400 voxels: the event loop turns between the pieces; its stalls are measured by `make bench`."""
    import qt
    import slicer

    rng = np.random.default_rng(0)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "large")
    slicer.util.updateVolumeFromArray(volume, rng.integers(0, 1000, (400, 512, 512), np.int16))
    volume.CreateDefaultDisplayNodes()
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenter(100.0, 100.0, 100.0)
    roi.SetSize(40.0, 50.0, 40.0)
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.roiSelector.setCurrentNode(roi)
    slicer.app.processEvents()
    turns = []
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: turns.append(panel.ui.progressLabel.text))
    loads = []
    panel.volumes.ended.connect(lambda *nodes: loads.append(nodes))
    timer.start(0)
    try:
        panel.ui.applyButton.click()
        wait_for_prediction(panel)
    finally:
        timer.stop()
        panel.ui.roiSelector.setCurrentNode(None)
    assert loads and "is ready" in module.ui.statusLabel.text
    assert len(turns) > 20, turns


def test_failing_case_and_killed_worker_are_told(panel, module, a_project):
    session = module.session
    session.openProject(a_project)
    choose_model(panel, "Hippocampus")
    session.project.cases.image_paths("case_0001")[0].write_bytes(b"damaged")
    session.selectCases(["case_0001", "case_0003"])
    panel.ui.inputComboBox.currentIndex = SELECTED_CASES
    panel.ui.applyButton.click()
    wait_for_prediction(panel)
    text = module.ui.statusLabel.text
    assert "1 case predicted." in text and "case 0:" in text and not module.ui.statusIconLabel.isHidden()
    panel.ui.applyButton.click()
    wait_until(lambda: module.worker.running)
    os.kill(module.worker.pid, signal.SIGKILL)
    wait_for_prediction(panel)
    assert "ended before it had finished" in module.ui.statusLabel.text
    assert panel.ui.applyButton.enabled, "and one may try again"


@pytest.mark.slow
def test_console_predicts_without_the_panel(module, a_project):
    logic = module.logic
    logic.openProject(str(a_project))
    predicted = logic.predict(["case 0"], model=MODEL, device="cpu", fast=True)
    assert [case.name for case in predicted.cases] == ["case 0"]
    assert logic.loadCase("case_0001").revision.kind == "prediction"
