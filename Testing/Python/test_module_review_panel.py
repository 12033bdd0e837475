# SPDX-License-Identifier: Apache-2.0
"""The review panel by mouse and keyboard: every button, every way an edit could be lost, its error sentences."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.store import Project
from barldriver.loop import settle
from slicerhost.clicks import strike

pytestmark = pytest.mark.host
PREDICTED, UNTOUCHED = "case_0001", "case_0002"


@pytest.fixture
def panel(a_review_panel):
    a_review_panel.ui.readerLineEdit.text = "reader 1"
    settle(a_review_panel)
    return a_review_panel


def click(widget, *place) -> None:
    import qt
    from slicerhost import clicks

    if isinstance(widget, qt.QCheckBox):  # on its mark: the middle of a wide one is empty
        place = (qt.QPoint(8, widget.height // 2),)
    clicks.mouse(widget, *(place or (widget.rect.center(),)))


def status(panel) -> str:
    return panel.moduleWidget.ui.statusLabel.text


def stroke(panel, name: str, effect: str, *points) -> None:
    """Draw with the mouse in the axial view; ``points`` in RAS."""
    import slicer
    from slicerhost import hands

    editor = panel.editor.widget
    segments = panel.correction.segmentation.GetSegmentation()
    editor.setCurrentSegmentID(segments.GetSegmentIdBySegmentName(name))
    editor.setActiveEffectByName(effect)
    brush = editor.activeEffect()
    brush.setCommonParameter("BrushDiameterIsRelative", 0)
    brush.setCommonParameter("BrushAbsoluteDiameter", 5.0)
    slicer.app.processEvents()
    hands.drag(slicer.app.layoutManager().sliceWidget("Red"), *points)


def spot(panel, rank: int):
    return panel.hotspots.hotspots.spots[rank - 1].position


def outline(panel) -> np.ndarray:
    return panel.correction.snapshot().labelMap()[0]


def stored(revision) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(revision.path)))


def edit(panel) -> np.ndarray:
    """A stroke of edema on the first hot-spot; returns the outline after it."""
    before = outline(panel)
    panel.hotspots.step(1)
    stroke(panel, "edema", "Paint", spot(panel, 1))
    after = outline(panel)
    assert (after == 4).any() and not np.array_equal(before, after)
    return after


# Looking


def test_overlay_follows_its_switches(panel):
    import slicer

    ui, uncertainty = panel.ui, panel.session.loaded.uncertainty
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    fill = panel.correction.segmentation.GetDisplayNode().GetVisibility2DFill
    assert composite.GetForegroundVolumeID() == uncertainty.GetID() and not fill()
    ui.overlayOpacitySlider.value = 0.7
    ui.overlayThresholdSlider.value = 0.4
    assert composite.GetForegroundOpacity() == pytest.approx(0.7)
    assert uncertainty.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.4)
    click(ui.overlayVisibleCheckBox)
    assert composite.GetForegroundVolumeID() is None and fill()
    assert panel.parameterNode.overlayVisible is False
    click(ui.overlayVisibleCheckBox)
    assert composite.GetForegroundVolumeID() == uncertainty.GetID()
    assert ui.overlayColorComboBox.currentText == "BARL uncertainty"
    ui.overlayColorComboBox.currentIndex = ui.overlayColorComboBox.findText("Iron")
    ui.overlayColorComboBox.activated(ui.overlayColorComboBox.currentIndex)
    assert uncertainty.GetDisplayNode().GetColorNode().GetName() == "Iron"
    assert panel.parameterNode.overlayColor == "Iron"
    panel.parameterNode.overlayColor = ""


def test_hotspots_by_button_row_and_tick(panel):
    import qt
    import slicer
    from barl.project.review import seen_hotspots

    table, project = panel.ui.hotspotsTable, panel.session.project
    prediction = project.revisions.newest(PREDICTED, ("prediction",))
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")

    def at(rank: int) -> bool:
        centers = [[node.GetSliceToRAS().GetElement(row, 3) for row in range(3)] for node in nodes]
        return all(np.allclose(center, spot(panel, rank), atol=1e-3) for center in centers)

    assert (table.rowCount, panel.ui.hotspotsLabel.text) == (3, "Hot-spot – of 3, 0 seen")
    click(panel.ui.nextHotspotButton)
    assert at(1)
    click(panel.ui.nextHotspotButton)
    assert at(2) and panel.ui.hotspotsLabel.text == "Hot-spot 2 of 3, 2 seen"
    click(panel.ui.previousHotspotButton)
    assert at(3), "the only one not seen"
    click(table.viewport(), table.visualItemRect(table.item(0, 1)).center())
    assert at(1)
    strike(table, qt.Qt.Key_Down)
    assert at(2)
    table.item(1, 0).setCheckState(qt.Qt.Unchecked)
    settle(panel)
    assert seen_hotspots(project, prediction) == {1, 3}
    panel.session.openCase(UNTOUCHED)
    assert table.rowCount == 0
    panel.session.openCase(PREDICTED)
    assert [table.item(row, 0).checkState() == qt.Qt.Checked for row in range(3)] == [True, False, True]


def test_a_hotspot_is_marked_in_every_view_until_the_first_stroke(panel):
    import slicer

    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    before = crosshair.GetCrosshairMode(), crosshair.GetCrosshairThickness()

    def texts() -> list[str]:
        manager, found = slicer.app.layoutManager(), []
        for name in manager.sliceViewNames():
            props = (
                manager.sliceWidget(name).sliceView().renderWindow().GetRenderers().GetFirstRenderer().GetViewProps()
            )
            found += [prop.GetInput() for prop in props if prop.IsA("vtkTextActor")]
        return [text for text in found if text.startswith("Hot-spot")]

    for rank, label in ((1, "lesion, 0.60 ml"), (2, "edema, 0.30 ml")):
        panel.onNextHotspot()
        assert np.allclose(crosshair.GetCrosshairRAS(), spot(panel, rank), atol=1e-3)
        assert crosshair.GetCrosshairMode() == crosshair.ShowSmallBasic
        assert texts() == [f"Hot-spot {rank} of 3: {label}"] * 3, "one in each view, of the spot shown"
    stroke(panel, "edema", "Paint", spot(panel, 2))
    assert texts() == [] and (crosshair.GetCrosshairMode(), crosshair.GetCrosshairThickness()) == before
    panel.onNextHotspot()
    panel.session.openCase(UNTOUCHED)
    assert texts() == [] and (crosshair.GetCrosshairMode(), crosshair.GetCrosshairThickness()) == before


def test_a_jump_shows_the_surroundings_of_a_region_and_no_more_than_the_scan(panel):
    import slicer
    from BARLSegmentationLib.logic.Hotspots import SMALLEST_VIEW_MM, SURROUNDINGS, jumpTo

    volume = slicer.util.addVolumeFromArray(np.zeros((100, 100, 100), np.uint8))  # 100 mm
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")

    def shown() -> list[float]:
        return [min(node.GetFieldOfView()[:2]) for node in nodes]

    for node in nodes:
        node.SetFieldOfView(500.0, 500.0 * node.GetDimensions()[1] / node.GetDimensions()[0], 1.0)
    jumpTo((50.0, 50.0, 50.0), volume, extentMm=19.0)
    assert np.allclose(shown(), SURROUNDINGS * 19.0)
    jumpTo((50.0, 50.0, 50.0), volume, extentMm=15.0)
    assert np.allclose(shown(), SURROUNDINGS * 19.0), "near enough: the zoom stays"
    jumpTo((50.0, 50.0, 50.0), volume, extentMm=1.0)
    assert np.allclose(shown(), SURROUNDINGS * 19.0) and SMALLEST_VIEW_MM > SURROUNDINGS * 19.0 / 2
    for node in nodes:
        node.SetFieldOfView(2.0, 2.0 * node.GetDimensions()[1] / node.GetDimensions()[0], 1.0)
    jumpTo((50.0, 50.0, 50.0), volume, extentMm=90.0)  # half the scan
    assert np.allclose(shown(), 100.0)
    for node in nodes:
        x, y, _z = node.GetFieldOfView()
        width, height, _depth = node.GetDimensions()
        assert np.isclose(x / y, width / height), "the view is not stretched"


def test_keys_work_only_while_the_module_is_open(host, panel):
    import qt

    strike(host.window, qt.Qt.Key_N)
    assert panel.hotspots.current().rank == 1
    strike(host.window, qt.Qt.Key_N)
    strike(host.window, qt.Qt.Key_N, qt.Qt.ShiftModifier)
    assert panel.hotspots.current().rank == 3
    strike(host.window, qt.Qt.Key_U)
    assert not panel.ui.overlayVisibleCheckBox.checked
    strike(host.window, qt.Qt.Key_U)
    panel.moduleWidget.exit()
    strike(host.window, qt.Qt.Key_U)
    assert panel.ui.overlayVisibleCheckBox.checked, "out of the module the keys are not ours"
    panel.moduleWidget.enter()
    panel.moduleWidget.steps.show("Cases")
    strike(host.window, qt.Qt.Key_U)
    strike(host.window, qt.Qt.Key_D)
    strike(host.window, qt.Qt.Key_1)
    assert panel.ui.overlayVisibleCheckBox.checked, "keys of Review and of its editor work in Review alone"
    assert panel.editor.widget.activeEffect() is None and panel.planes.drawn.isEmpty
    panel.moduleWidget.steps.show("Review")
    strike(host.window, qt.Qt.Key_Return, qt.Qt.ControlModifier)
    settle(panel)
    assert panel.session.case().state == "accepted"
    strike(host.window, qt.Qt.Key_N, qt.Qt.ControlModifier, qt.Qt.ShiftModifier)
    assert panel.session.caseId == UNTOUCHED


def test_without_a_case_the_panel_says_what_to_do(panel):
    panel.session.closeCase()
    settle(panel)
    assert "Open a case" in panel.ui.caseLabel.text
    for name in ("acceptButton", "saveDraftButton", "revertButton"):
        button = getattr(panel.ui, name)
        assert not button.enabled and "Open a case first" in button.toolTip
    panel.onAccept()
    assert status(panel) == "Open a case first."
    panel.onNextHotspot()
    panel.uncertainty.toggle()


# Correcting


def test_painting_with_the_mouse_is_limited_to_where_the_model_was_unsure(panel):
    click(panel.ui.onlyWhereUnsureCheckBox)
    settle(panel, lambda: "ml" in panel.ui.editableLabel.text)
    assert panel.ui.editableLabel.text == "(0.6 ml)"  # 210 voxels of 0.00264 ml
    unsure = stored_uncertainty(panel) >= 0.3
    before = outline(panel)
    panel.hotspots.step(1)
    x, y, z = spot(panel, 1)
    stroke(panel, "edema", "Paint", (x - 5, y - 4, z), (x + 5, y + 4, z))
    after = outline(panel)
    changed = before != after
    assert changed.any() and not changed[~unsure].any()
    stroke(panel, "edema", "Erase", (x - 5, y - 4, z), (x + 5, y + 4, z))
    stroke(panel, "lesion", "Erase", (x - 5, y - 4, z), (x + 5, y + 4, z))
    erased = outline(panel)
    assert not (erased == 4).any() and not (erased != before)[~unsure].any()
    click(panel.ui.onlyWhereUnsureCheckBox)
    stroke(panel, "edema", "Paint", (x - 5, y - 4, z), (x + 5, y + 4, z))
    assert (outline(panel) != erased)[~unsure].any()


def stored_uncertainty(panel) -> np.ndarray:
    import slicer

    return slicer.util.arrayFromVolume(panel.session.loaded.uncertainty)


def test_limit_follows_the_threshold_and_the_module(panel):
    from BARLSegmentationLib.logic.Attention import Attention

    click(panel.ui.onlyWhereUnsureCheckBox)
    settle(panel, lambda: "ml" in panel.ui.editableLabel.text)
    panel.ui.overlayThresholdSlider.value = 0.9
    settle(panel, lambda: panel.ui.editableLabel.text == "(0.0 ml)")
    panel.moduleWidget.exit()
    assert Attention.node() is None, "other modules edit everywhere"
    panel.moduleWidget.enter()
    settle(panel, lambda: Attention.node() is not None)
    panel.editor.attention.editorNode.SetSourceVolumeIntensityMask(False)
    settle(panel, lambda: not panel.ui.onlyWhereUnsureCheckBox.checked)
    assert Attention.node() is None


def test_volumes_follow_the_outline(panel):
    table = panel.ui.volumesTable

    def row(n: int) -> list[str]:
        return [table.item(n, column).text() for column in range(4)]

    assert row(0) == ["lesion", "0.12 (0.10–0.13)", "0.12", "-0.00"] or row(0)[3] == "+0.00"
    assert row(1) == ["edema", "–", "0.00", "–"]
    after = edit(panel)
    settle(panel)
    assert row(1)[2] == f"{np.count_nonzero(after == 4) * 0.00264:.2f}"
    assert "Edited, not stored" in panel.ui.caseLabel.text and panel.ui.saveDraftButton.enabled


# Back into the project


def test_accept_twice_quickly_stores_once(panel):
    after = edit(panel)
    click(panel.ui.acceptButton)
    panel.onAccept()  # a double click
    settle(panel)
    project = panel.session.project
    (_, accepted) = project.revisions.of(PREDICTED)
    assert accepted.kind == "accepted" and accepted.author == "reader 1" and np.array_equal(stored(accepted), after)
    assert status(panel) == "predicted is accepted." and "accepted by reader 1" in panel.ui.caseLabel.text
    assert not panel.ui.acceptButton.enabled and "already" in panel.ui.acceptButton.toolTip
    panel.onAccept()
    settle(panel)
    assert "already" in status(panel) and len(project.revisions.of(PREDICTED)) == 2
    facts = next(
        entry for entry in reversed(project.journal.entries(PREDICTED)) if entry.action == "revision stored"
    ).facts
    assert facts["labels"][1]["added_voxels"] == np.count_nonzero(after == 4) and facts["editing_seconds"] > 0


def test_an_unforeseen_error_after_storing_ends_in_a_sentence(panel, monkeypatch):
    after = edit(panel)
    monkeypatch.setattr(panel.correction, "settle", lambda _stored: 1 / 0)
    click(panel.ui.acceptButton)
    settle(panel)
    assert status(panel).startswith("The outline is stored, but") and "Open the case again" in status(panel)
    assert np.array_equal(stored(panel.session.project.revisions.newest(PREDICTED)), after)
    monkeypatch.setattr("barl.project.review.store_correction", lambda *_values, **_options: 1 / 0)
    panel.onSaveDraft()
    settle(panel)
    assert status(panel).startswith("The outline could not be stored.")


def test_draft_and_revert(panel):
    before, after = outline(panel), edit(panel)
    settle(panel)
    click(panel.ui.saveDraftButton)
    settle(panel)
    project = panel.session.project
    assert (
        np.array_equal(stored(project.revisions.newest(PREDICTED)), after) and panel.session.case().state == "in_review"
    )
    assert not panel.ui.saveDraftButton.enabled
    edit_again = stroke_and_outline(panel)
    click(panel.ui.revertButton)
    settle(panel)
    assert np.array_equal(outline(panel), before)
    assert "kept as a draft" in status(panel)
    assert np.array_equal(stored(project.revisions.newest(PREDICTED)), edit_again)


def stroke_and_outline(panel) -> np.ndarray:
    stroke(panel, "necrosis", "Paint", spot(panel, 1))
    settle(panel)
    return outline(panel)


@pytest.mark.parametrize("way", ["other case", "close project", "close scene", "leave"])
def test_no_way_out_loses_an_edit(panel, a_predicted_project, way):
    import slicer

    after = edit(panel)
    if way == "other case":
        panel.session.openCase(UNTOUCHED)
        assert status(panel) == "Your edit of predicted was kept as a draft."
    elif way == "close project":
        panel.session.closeProject()
    elif way == "close scene":
        slicer.mrmlScene.Clear(0)
    else:
        panel.onBeforeClose()
    with Project.open(a_predicted_project, read_only=True) as project:
        newest = project.revisions.newest(PREDICTED)
    assert newest.kind == "draft" and np.array_equal(stored(newest), after)


def test_saved_scene_knows_of_an_edit_that_the_project_lacks(panel, tmp_path, a_predicted_project, monkeypatch):
    import slicer

    click(panel.ui.onlyWhereUnsureCheckBox)
    settle(panel, lambda: "ml" in panel.ui.editableLabel.text)
    after = edit(panel)
    settle(panel)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    with monkeypatch.context() as crash:  # of Slicer: nothing more is stored
        crash.setattr(panel.correction, "keep", lambda _author: None)
        panel.session.closeProject()
    slicer.mrmlScene.Clear(0)
    panel.editor._showTimer.setInterval(700)  # the limit is ready before the editor has the case
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    settle(panel)
    assert panel.session.caseId == PREDICTED
    assert np.array_equal(outline(panel), after) and panel.correction.isChanged()
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert sum(node.GetAttribute("BARL.Role") == "attention" for node in nodes) <= 1
    assert panel.ui.onlyWhereUnsureCheckBox.checked and panel.editor.attention.isOn()


# What goes wrong is one sentence, and the edit stays


HOLDER = """
import sys
from barl.project.store import Project
with Project.open(sys.argv[1]) as project, project.database.write():
    print("holding", flush=True)
    sys.stdin.readline()
"""


def test_project_held_by_another_slicer(panel, a_predicted_project):
    panel.session.use(Project.open(a_predicted_project, wait_seconds=0.2))
    panel.session.openCase(PREDICTED)
    settle(panel)
    after = edit(panel)
    settle(panel)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, a_predicted_project], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "holding\n"
        click(panel.ui.acceptButton)
        settle(panel)
        assert "is being changed by" in status(panel)
        panel.session.closeProject()
        assert panel.correction.segmentation is None
    finally:
        holder.communicate("\n")
    import slicer

    (kept,) = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        if node.GetAttribute("BARL.Unsaved") == "1"
    ]
    panel.session.openProject(a_predicted_project)
    panel.session.openCase(PREDICTED)
    assert panel.correction.segmentation is kept and np.array_equal(outline(panel), after)
    settle(panel)
    click(panel.ui.acceptButton)
    settle(panel)
    assert panel.session.case().state == "accepted"


def test_full_disk(panel):
    """SQLite's own limit on pages gives the very error that a full disk gives."""
    database = panel.session.project.database
    database.row(f"PRAGMA max_page_count = {database.row('PRAGMA page_count')[0]}")
    panel.hotspots.step(1)
    for name in ("edema", "necrosis", "lesion") * 10:  # until the last page is full
        stroke(panel, name, "Paint", spot(panel, 1))
        settle(panel)
        click(panel.ui.saveDraftButton)
        settle(panel)
        if "draft" not in status(panel):
            break
    assert "disk is full" in status(panel) and "Free some space" in status(panel)
    after = outline(panel)
    assert panel.correction.isChanged() and panel.ui.saveDraftButton.enabled
    database.row("PRAGMA max_page_count = 1073741823")
    click(panel.ui.saveDraftButton)
    settle(panel)
    assert np.array_equal(stored(panel.session.project.revisions.newest(PREDICTED)), after)


def test_project_for_reading_only(panel, a_predicted_project):
    panel.session.openProject(a_predicted_project, readOnly=True)
    panel.session.openCase(PREDICTED)
    settle(panel)
    assert not panel.ui.acceptButton.enabled and "reading only" in panel.ui.acceptButton.toolTip
    panel.hotspots.step(1)
    settle(panel)
    assert panel.ui.hotspotsLabel.text == "Hot-spot 1 of 3, 1 seen"
    edit(panel)
    panel.session.closeProject()
    assert "stays in the scene" in status(panel)


def test_case_without_an_outline_is_drawn_and_accepted(panel):
    panel.session.openCase(UNTOUCHED)
    settle(panel)
    assert "no outline yet" in panel.ui.caseLabel.text and not panel.ui.revertButton.enabled
    stroke(panel, "lesion", "Paint", scan_center(panel))
    after = outline(panel)
    assert (after == 1).any()
    settle(panel)
    click(panel.ui.acceptButton)
    settle(panel)
    assert np.array_equal(stored(panel.session.project.revisions.newest(UNTOUCHED)), after)
    assert panel.session.case().state == "accepted"


def scan_center(panel) -> list[float]:
    from BARLSegmentationLib.logic.Hotspots import jumpTo

    bounds = [0.0] * 6
    panel.session.loaded.volumes[0].GetRASBounds(bounds)
    center = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
    jumpTo(center)
    return center
