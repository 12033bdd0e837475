# SPDX-License-Identifier: Apache-2.0
"""The module in scenes that others change, too: nodes deleted, segments renamed, other segmentations, other modules."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
import SimpleITK as sitk
from barl.images.geometry import Grid
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barldriver.loop import settle

pytestmark = pytest.mark.host
PREDICTED, UNTOUCHED = "case_0001", "case_0002"


@pytest.fixture
def panel(a_review_panel):
    return a_review_panel


def status(panel) -> str:
    return panel.moduleWidget.ui.statusLabel.text


def draw(panel, name: str, *box: slice) -> None:
    """Set voxels of a segment as a script does."""
    import slicer

    node, scan = panel.correction.segmentation, panel.session.loaded.volumes[0]
    segmentId = node.GetSegmentation().GetSegmentIdBySegmentName(name)
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, scan)
    voxels[box] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segmentId, scan)
    settle(panel)


def test_outline_of_a_closed_case_leaves_the_memory(panel):
    outline = weakref.ref(panel.correction.segmentation.GetSegmentation())
    panel.session.openCase(UNTOUCHED)
    settle(panel)
    gc.collect()
    assert outline() is None


def test_another_segmentation_is_not_edited_here(panel):
    import slicer

    panel.session.closeCase()
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "somebody's")
    other.CreateDefaultDisplayNodes()
    settle(panel)
    assert panel.editor.widget.mrmlSegmentEditorNode().GetSegmentationNode() is None


def test_editor_that_lost_its_volume_gets_it_back(panel):
    """Slicer's editor takes what its hidden selectors show when a scene was loaded, and these show nothing then."""
    editor = panel.editor.widget
    for lost in (editor.setSourceVolumeNode, editor.setSegmentationNode):
        lost(None)
        settle(panel)
        node, loaded = editor.mrmlSegmentEditorNode(), panel.session.loaded
        assert node.GetSegmentationNode() is loaded.segmentation
        assert node.GetSourceVolumeNode() is loaded.volumes[0]


def test_settings_of_a_scene_that_cannot_be_read_give_way_to_their_defaults(panel):
    """Slicer's parameter wrapper raises on a number that is none, and takes one out of its range as it is."""
    import slicer

    widget = panel.moduleWidget
    node = widget.logic.getParameterNode().parameterNode
    settings = {"overlayOpacity": "much", "minutes": "", "folds": "2.5", "trainAfter": "-3", "overlayThreshold": "nan"}
    slicer.mrmlScene.StartState(slicer.mrmlScene.ImportState)
    for name, text in settings.items():
        node.SetParameter(name, text)
    node.SetParameter("method", "supervised")
    slicer.mrmlScene.EndState(slicer.mrmlScene.ImportState)
    settle(panel)
    now = widget.logic.getParameterNode()
    values = {name: getattr(now, name) for name in settings}
    defaults = {"overlayOpacity": 0.5, "minutes": 30.0, "folds": 1, "trainAfter": 0, "overlayThreshold": 0.3}
    assert values == defaults
    assert now.method == "supervised"
    assert all(name in status(panel) for name in settings)
    assert panel.session.caseId == PREDICTED


def test_a_scene_added_in_another_module_leaves_the_settings_to_the_jobs(panel, host):
    import slicer

    widget = panel.moduleWidget
    host._leave()
    try:
        assert not widget.parent.isEntered
        slicer.mrmlScene.StartState(slicer.mrmlScene.ImportState)
        widget.logic.getParameterNode().parameterNode.SetParameter("trainAfter", "7")
        slicer.mrmlScene.EndState(slicer.mrmlScene.ImportState)
        settle(panel)
        assert [one.parameterNode.trainAfter for one in widget.panels.values()] == [7] * len(widget.panels)
        assert panel.session.caseId == PREDICTED
    finally:
        host._onModuleSelected("BARLSegmentation")


def use_everything(panel) -> list[str]:
    """Press what can be pressed; returns what the status line said."""
    said = []
    toggle = panel.uncertainty.toggle
    for action in (panel.onNextHotspot, toggle, toggle, panel.onSaveDraft, panel.onRevert):
        action()
        settle(panel)
        said.append(status(panel))
    panel.ui.onlyWhereUnsureCheckBox.checked = True
    settle(panel)
    panel.ui.onlyWhereUnsureCheckBox.checked = False
    panel.moduleWidget.exit()
    panel.moduleWidget.enter()
    settle(panel)
    return said


@pytest.mark.parametrize("kind", ["segmentation", "volumes", "uncertainty"])
def test_nodes_of_the_case_deleted_by_the_user(panel, kind):
    import slicer

    removed = getattr(panel.session.loaded, kind)
    for node in removed if isinstance(removed, list) else [removed]:
        slicer.mrmlScene.RemoveNode(node)
    said = use_everything(panel)
    if kind == "segmentation":
        assert said[-1] == "The outline was removed from the scene. Open the case again."
        panel.onAccept()
        assert panel.session.case().state == "predicted"  # what nobody sees is not accepted
    panel.session.openCase(PREDICTED)
    settle(panel)
    assert all(node.GetScene() is slicer.mrmlScene for node in panel.session.loaded.nodes)
    assert panel.editor.widget.mrmlSegmentEditorNode().GetSegmentationNode() is panel.session.loaded.segmentation


def test_scene_saved_without_its_data_brings_the_outline_from_the_project(panel, tmp_path):
    import slicer

    before = panel.correction.snapshot().labelMap()[0]
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Commit()  # as a script saves the scene; Slicer's dialog saves the nodes' files before
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrml"))
    settle(panel)
    assert panel.session.caseId == PREDICTED
    assert np.array_equal(panel.correction.snapshot().labelMap()[0], before) and before.any()
    outlines = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert outlines == [panel.session.loaded.segmentation]


def test_label_map_becomes_segments_that_share_what_is_drawn(panel, tmp_path):
    import slicer
    from BARLSegmentationLib.logic.CaseLoader import CaseLoader

    loaded, labels = panel.session.loaded, panel.session.project.labels
    label = sitk.ReadImage(str(loaded.revision.path))
    voxels = sitk.GetArrayFromImage(label).astype(np.uint16)
    voxels[8, 9, 10] = 300  # no label of the project
    strange = sitk.GetImageFromArray(voxels)
    strange.CopyInformation(label)
    sitk.WriteImage(strange, str(tmp_path / "strange.nii.gz"))
    node = CaseLoader().readSegmentation(tmp_path / "strange.nii.gz", "strange", labels, loaded.volumes[0], {})
    segments = [node.GetSegmentation().GetNthSegment(n) for n in range(4)]
    images = [segment.GetRepresentation("Binary labelmap") for segment in segments]
    assert [(segment.GetName(), segment.GetLabelValue()) for segment in segments] == [
        ("lesion", 1),
        ("edema", 4),
        ("necrosis", 7),
        ("Label_300", 300),
    ]
    assert segments[0].GetColor() == (1.0, 0.0, 0.0)
    # What is drawn spans more than LARGE_PART of the scan: it is not cut out.
    assert images[0] is images[2] is images[3] and images[0].GetExtent() == (0, 12, 0, 10, 0, 8)
    for segment, value in zip(segments, (1, 4, 7, 300), strict=True):
        segmentId = node.GetSegmentation().GetSegmentIdBySegment(segment)
        drawn = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, loaded.volumes[0])
        assert np.array_equal(drawn > 0, voxels == value)


def test_case_is_loaded_as_slicer_would_have_it(panel):
    """Unchanged since it was read, so that Slicer asks nobody to save it; the scan's window fits what it holds."""
    loaded = panel.session.loaded
    paths = [
        *panel.session.project.cases.image_paths(PREDICTED),
        panel.session.project.revisions.newest(PREDICTED).uncertainty_path,
    ]
    for node, path in zip([*loaded.volumes, loaded.uncertainty], paths, strict=True):
        assert node.GetStorageNode().GetFileName() == str(path) and not node.GetModifiedSinceRead()
    scan, uncertainty = loaded.volumes[0].GetDisplayNode(), loaded.uncertainty.GetDisplayNode()
    ours = scan.GetWindowLevelMin(), scan.GetWindowLevelMax()
    scan.SetAutoWindowLevel(True)  # Slicer looks at all voxels
    assert ours == pytest.approx((scan.GetWindowLevelMin(), scan.GetWindowLevelMax()), abs=5.0)  # it counts in bins
    assert (uncertainty.GetWindowLevelMin(), uncertainty.GetWindowLevelMax()) == (0.0, 1.0)
    assert scan.GetColorNodeID() == "vtkMRMLColorTableNodeGrey"


def test_reload_keeps_an_edit_or_says_why_not(panel, a_predicted_project, monkeypatch, caplog):
    import slicer

    module, names = panel.moduleWidget, ("BARLSegmentationLib", "barl")
    before = {name: there for name, there in sys.modules.items() if name.partition(".")[0] in names}
    try:
        draw(panel, "edema", slice(0, 2), slice(0, 2), slice(0, 2))
        module.onReload()
        fresh = slicer.modules.BARLSegmentationWidget
        assert fresh.session.case().state == "in_review" and fresh.session.loaded.revision.kind == "draft"
        panel = fresh.panels["Review"]
        draw(panel, "edema", slice(2, 4), slice(0, 2), slice(0, 2))
        monkeypatch.setattr(fresh.session.project.database, "read_only", True)
        node = panel.correction.segmentation
        said = []
        fresh.session.statusChanged.connect(lambda text, error: said.append(text) if error else None)
        fresh.onReload()
        assert said and node.GetAttribute("BARL.Unsaved") == "1" and node.GetScene() is slicer.mrmlScene
        assert not [record for record in caplog.records if record.exc_info]
    finally:
        slicer.modules.BARLSegmentationWidget.session.closeProject()
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(before)
        slicer.util.reloadScriptedModule("BARLSegmentation")


@pytest.mark.parametrize("size", [(2, 2, 2), (30, 20, 2)])
def test_tiny_scans_of_two_channels_in_a_folder_of_any_name(panel, tmp_path, size):
    grid = Grid(size, (0.5, 0.5, 4.0), (-100.0, 50.0, 7.5), (0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1.0))
    labels = [Label(1, "Niere links"), Label(2, "Niere rechts — 腎臓")]
    channels = [Channel("T1 größer"), Channel("T2")]
    label = np.zeros(grid.shape, np.uint8)
    label[0, 0, 0] = 1
    with Project.create(tmp_path / "Müller 肝", "Übung", labels, channels) as project:
        scan = np.arange(label.size, dtype=np.int16).reshape(grid.shape)
        project.cases.add("Fall ä", [grid.image(scan), grid.image(scan + 1)])
        project.revisions.store(
            "Fall ä", grid.image(label), "prediction", author="Модель", uncertainty=grid.image(label.astype(np.float32))
        )
    panel.session.openProject(tmp_path / "Müller 肝")
    panel.session.openCase(PREDICTED)
    settle(panel)
    use_everything(panel)
    draw(panel, "Niere rechts — 腎臓", slice(-1, None), slice(-1, None), slice(-1, None))
    label[-1, -1, -1] = 2
    panel.onAccept()
    settle(panel)
    assert status(panel).startswith("Fall ä is accepted.")
    path = panel.session.project.revisions.newest(PREDICTED).path
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), label)


@pytest.mark.parametrize("voxels", [np.full((4, 4, 4), np.nan), np.full((2, 2, 2), 7), np.zeros((0, 2, 2))])
def test_the_window_of_a_scan_with_nothing_to_see(voxels):
    from BARLSegmentationLib.logic.CaseLoader import usualWindow

    low, high = usualWindow(voxels)
    assert np.isfinite([low, high]).all() and low <= high


def test_the_window_of_a_large_scan_is_that_of_all_its_voxels():
    from BARLSegmentationLib.logic.CaseLoader import usualWindow

    voxels = np.random.default_rng(0).gamma(2.0, 100.0, (64, 256, 256)).astype(np.float32)
    voxels[:, :, :64] = 0  # air, in columns of a power of two
    assert usualWindow(voxels) == pytest.approx(tuple(np.percentile(voxels, (0.1, 99.9))), rel=0.03)
