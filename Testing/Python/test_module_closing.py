# SPDX-License-Identifier: Apache-2.0
"""A scene that closes, a section that is left, Slicer that quits: nothing of ours is in the way afterwards."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from barl.project.store import Project
from barldriver.loop import settle

pytestmark = pytest.mark.host


@pytest.fixture
def a_painting_panel(a_review_panel):
    """The review panel with Paint active on its case."""
    a_review_panel.editor.widget.setActiveEffectByName("Paint")
    assert a_review_panel.editor.widget.activeEffect() is not None
    return a_review_panel


def test_effect_and_segmentation_are_gone_before_the_views_of_a_closing_scene(a_painting_panel):
    """The layout manager takes the views away at StartClose; a brush that is still there crashes Slicer."""
    import slicer

    editor, seen = a_painting_panel.editor.widget, []
    scene = slicer.mrmlScene

    def views_go(_caller, _event):
        node = editor.mrmlSegmentEditorNode()  # the widget itself does not follow while the scene is closing
        seen.append((node.GetActiveEffectName() or "", node.GetSegmentationNode()))

    tag = scene.AddObserver(scene.StartCloseEvent, views_go, 0.5)
    try:
        scene.Clear(0)
    finally:
        scene.RemoveObserver(tag)
    assert seen == [("", None)]


def test_after_a_scene_was_closed_another_case_can_be_painted(a_painting_panel, a_predicted_project):
    import slicer
    from slicerhost import hands

    panel = a_painting_panel
    slicer.mrmlScene.Clear(0)
    panel.session.openProject(a_predicted_project)
    panel.session.openCase("case_0001")
    settle(panel)
    panel.hotspots.step(1)
    panel.editor.widget.setActiveEffectByName("Paint")
    slicer.app.processEvents()
    hands.drag(slicer.app.layoutManager().sliceWidget("Red"), panel.hotspots.hotspots.spots[0].position)
    settle(panel)
    assert panel.correction.isChanged()


@pytest.mark.parametrize("way", ["step", "module", "accept"])
def test_effect_ends_when_its_place_is_left(a_painting_panel, way):
    panel, module = a_painting_panel, a_painting_panel.moduleWidget
    if way == "step":
        module.steps.show("Cases")
    elif way == "module":
        module.exit()
    else:
        panel.ui.acceptButton.click()
        settle(panel)
    assert panel.editor.widget.activeEffect() is None
    module.enter()


def test_quitting_with_a_project_open_runs_all_of_the_cleanup(a_review_panel, monkeypatch, caplog):
    """While Slicer quits, slicer.modules has lost the module, and its resources cannot be asked for."""
    import slicer

    module = a_review_panel.moduleWidget
    folder = module.session.project.folder

    def gone(_name=""):
        raise AttributeError("module 'modules' has no attribute 'barlsegmentation'")

    monkeypatch.setattr(module, "resourcePath", gone)
    closed = []
    for name, panel in module.panels.items():
        before = panel.cleanup
        monkeypatch.setattr(panel, "cleanup", lambda before=before, name=name: (closed.append(name), before()))
    module.cleanup()
    assert set(closed) == set(module.panels) and module.session.project is None and not module.worker.running
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    with Project.open(folder) as project:  # nobody holds it any more
        project.cases.set_held_out("untouched", True)
    slicer.util.reloadScriptedModule("BARLSegmentation")


def test_a_step_of_the_cleanup_that_fails_keeps_no_other_from_running(a_review_panel, monkeypatch):
    import slicer

    module, closed = a_review_panel.moduleWidget, []

    def fail():
        raise RuntimeError("a panel's mistake")

    monkeypatch.setattr(module.panels["Project"], "cleanup", fail)
    monkeypatch.setattr(module.worker, "close", lambda: closed.append("worker"))
    with pytest.raises(RuntimeError, match="a panel's mistake"):
        module.cleanup()
    assert closed == ["worker"] and module.session.project is None
    slicer.util.reloadScriptedModule("BARLSegmentation")


def test_slicer_asks_nobody_to_save_what_the_project_holds(a_review_panel, host):
    """Over a whole review: opened, jumped, limited, painted, accepted, predicted anew, another case, closed."""
    import slicer

    panel, session = a_review_panel, a_review_panel.session
    steps = {
        "jump": lambda: panel.hotspots.step(1),
        "limit": lambda: panel.ui.onlyWhereUnsureCheckBox.click(),
        "paint": lambda: draw_with_paint(panel),
        "draft": panel.onSaveDraft,
        "accept": panel.onAccept,
        "revert": panel.onRevert,
        "next": lambda: session.openCase("case_0002"),
        "back": lambda: session.openCase("case_0001"),
        "close": session.closeProject,
    }
    asked = {"open": host.askedAtQuit()}
    for name, step in steps.items():
        step()
        settle(panel)
        asked[name] = host.askedAtQuit()
        settle(panel)
    assert asked == dict.fromkeys(asked, ())
    visible = [node for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode") if not node.GetHideFromEditors()]
    assert visible == []


def draw_with_paint(panel) -> None:
    import slicer
    from slicerhost import hands

    panel.editor.widget.setActiveEffectByName("Paint")
    slicer.app.processEvents()
    hands.drag(slicer.app.layoutManager().sliceWidget("Red"), panel.hotspots.hotspots.spots[0].position)
    settle(panel)
    assert panel.correction.isChanged()


def test_nodes_of_the_case_stay_in_data_when_the_user_stays(a_review_panel, host):
    loaded = a_review_panel.session.loaded
    assert host.askedAtQuit() == ()
    settle(a_review_panel)
    assert not any(node.GetHideFromEditors() for node in loaded.nodes)
    assert set(host.unsavedNodes()) >= {loaded.segmentation.GetName()}  # saved with the scene if the user saves it


def test_closing_the_scene_by_its_key_keeps_the_edit_and_asks_nothing(a_review_panel, host):
    panel, folder = a_review_panel, a_review_panel.session.project.folder
    draw_with_paint(panel)
    assert host.askedAtCloseScene() == ()
    assert panel.session.project is None
    with Project.open(folder) as project:
        assert project.revisions.newest("case_0001").kind == "draft"


def test_slicer_still_asks_for_what_the_user_made(a_review_panel, host, monkeypatch):
    import slicer

    panel = a_review_panel
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    mine.GetSegmentation().AddEmptySegment("a", "a")
    asked = host.askedAtQuit()
    assert "mine" in asked
    slicer.mrmlScene.RemoveNode(mine)
    draw_with_paint(panel)
    monkeypatch.setattr(panel.session.project.database, "read_only", True)
    assert panel.session.loaded.segmentation.GetName() in host.askedAtQuit()  # the edit could not be kept


def test_slicer_asks_for_a_segment_that_has_no_label(a_review_panel, host):
    import slicer

    panel, scan = a_review_panel, a_review_panel.session.loaded.volumes[0]
    node = panel.correction.segmentation
    added = node.GetSegmentation().AddEmptySegment("", "vessel")
    voxels = np.zeros(slicer.util.arrayFromVolume(scan).shape, np.uint8)
    voxels[0, 0, 0] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, added, scan)
    settle(panel)
    assert node.GetName() in host.askedAtQuit()  # the draft does not hold the vessel
