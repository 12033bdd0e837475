# SPDX-License-Identifier: Apache-2.0
"""The stand-in of the Segment Editor: real mouse events in slice views, Slicer's own logic behind."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.host


@pytest.fixture
def an_editor(host):
    """An editor with an empty segment on a 60 x 60 x 40 volume of 1 mm voxels, seen in fitted views."""
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((40, 60, 60), np.float32), name="scan")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "outline")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name in ("lesion", "edema"):
        segmentation.GetSegmentation().AddEmptySegment(name, name)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
    editor.setupViewObservations()
    host.processEvents(0.1)
    yield editor
    editor.removeViewObservations()
    editor.setMRMLSegmentEditorNode(None)
    editor.setMRMLScene(None)
    editor.deleteLater()


def voxels(editor, segmentID) -> np.ndarray:
    import slicer

    return slicer.util.arrayFromSegmentBinaryLabelmap(editor.segmentationNode(), segmentID, editor.sourceVolumeNode())


def drag(host, *points, **options):
    import slicer
    from slicerhost import hands

    hands.drag(slicer.app.layoutManager().sliceWidget("Red"), *points, **options)


def paint(editor, name="Paint", diameter=8.0, sphere=False):
    editor.setActiveEffectByName(name)
    effect = editor.activeEffect()
    effect.setCommonParameter("BrushDiameterIsRelative", 0)
    effect.setCommonParameter("BrushAbsoluteDiameter", diameter)
    effect.setCommonParameter("BrushSphere", int(sphere))


def center(editor):
    import slicer

    offset = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceOffset()
    return 30.0, 30.0, offset


def test_brush_paints_a_disk_of_its_size_in_one_slice(host, an_editor):
    paint(an_editor)
    x, y, z = center(an_editor)
    drag(host, (x, y, z))
    found = voxels(an_editor, "lesion")
    assert np.count_nonzero(found.any(axis=(1, 2))) == 1, "a disk lies in one slice"
    assert abs(found.sum() - np.pi * 16) < 10
    drag(host, (x, y, z), (x + 15, y, z))
    stroke = voxels(an_editor, "lesion").sum()
    assert abs(stroke - (np.pi * 16 + 8 * 15)) < 0.15 * stroke


def test_relative_brush_has_a_share_of_the_screens_height(host, an_editor):
    import slicer

    paint(an_editor)
    an_editor.activeEffect().setCommonParameter("BrushDiameterIsRelative", 1)
    an_editor.activeEffect().setCommonParameter("BrushRelativeDiameter", 3.0)
    drag(host, center(an_editor))
    node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    perPixel = node.GetFieldOfView()[1] / node.GetDimensions()[1]
    radius = 0.015 * slicer.app.primaryScreen.size.height() * perPixel
    painted = voxels(an_editor, "lesion").sum()
    assert abs(painted - np.pi * radius**2) < 0.2 * painted + 4


def test_sphere_brush_and_eraser(host, an_editor):
    paint(an_editor, sphere=True, diameter=12)
    drag(host, center(an_editor))
    ball = voxels(an_editor, "lesion").sum()
    assert abs(ball - 4 / 3 * np.pi * 6**3) < 0.1 * ball
    paint(an_editor, "Erase", sphere=False, diameter=100)
    drag(host, center(an_editor))
    assert 0 < voxels(an_editor, "lesion").sum() < ball, "one slice is gone"


def test_undo_and_redo_take_whole_strokes(host, an_editor):
    paint(an_editor)
    x, y, z = center(an_editor)
    drag(host, (x, y, z), (x + 10, y, z), (x + 10, y + 10, z))
    first = voxels(an_editor, "lesion")
    drag(host, (x - 15, y, z))
    second = voxels(an_editor, "lesion")
    assert second.sum() > first.sum()
    an_editor.undo()
    np.testing.assert_array_equal(voxels(an_editor, "lesion"), first)
    an_editor.redo()
    np.testing.assert_array_equal(voxels(an_editor, "lesion"), second)


@pytest.mark.parametrize("overlap", [False, True])
def test_overwriting_follows_the_mode(host, an_editor, overlap):
    import slicer

    modes = slicer.vtkMRMLSegmentEditorNode
    an_editor.mrmlSegmentEditorNode().SetOverwriteMode(modes.OverwriteNone if overlap else modes.OverwriteAllSegments)
    paint(an_editor)
    drag(host, center(an_editor))
    before = voxels(an_editor, "lesion").sum()
    an_editor.setCurrentSegmentID("edema")
    paint(an_editor, diameter=4)
    drag(host, center(an_editor))
    small = voxels(an_editor, "edema").sum()
    assert small > 0
    assert voxels(an_editor, "lesion").sum() == before - (0 if overlap else small)


def test_mask_keeps_the_brush_inside_a_segment(host, an_editor):
    import slicer

    allowed = np.zeros((40, 60, 60), np.uint8)
    allowed[:, :, 30:] = 1
    node = an_editor.segmentationNode()
    slicer.util.updateSegmentBinaryLabelmapFromArray(allowed, node, "edema", an_editor.sourceVolumeNode())
    settings = an_editor.mrmlSegmentEditorNode()
    settings.SetMaskSegmentID("edema")
    settings.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    settings.SetOverwriteMode(settings.OverwriteNone)
    paint(an_editor, diameter=20)
    drag(host, center(an_editor))
    found = voxels(an_editor, "lesion")
    assert found.sum() > 0 and not found[allowed == 0].any()


def test_drawn_outline_is_filled_by_a_right_click(host, an_editor):
    import qt

    an_editor.setActiveEffectByName("Draw")
    x, y, z = center(an_editor)
    corners = [(x - 10, y - 10, z), (x + 10, y - 10, z), (x + 10, y + 10, z), (x - 10, y + 10, z)]
    drag(host, *corners)
    assert voxels(an_editor, "lesion") is None or not voxels(an_editor, "lesion").any()
    drag(host, corners[-1], button=qt.Qt.RightButton)
    found = voxels(an_editor, "lesion").sum()
    assert abs(found - 400) < 45


def test_another_effect_or_none_leaves_the_view_to_the_mouse(host, an_editor):
    import slicer

    paint(an_editor)
    an_editor.setActiveEffect(None)
    drag(host, center(an_editor), tuple(np.add(center(an_editor), (5, 0, 0))))
    assert not np.any(voxels(an_editor, "lesion"))
    assert slicer.app.layoutManager().sliceWidget("Red").sliceView().interactorStyle() is not None


def test_editor_shows_what_its_node_says(host, an_editor):
    import qt

    table = an_editor.findChild("qMRMLSegmentsTableView")
    buttons = {button.text: button for button in an_editor.findChildren(qt.QAbstractButton)}
    an_editor.setCurrentSegmentID("edema")
    assert table.selectedSegmentIDs() == ("edema",)
    table.setSelectedSegmentIDs(["lesion"])
    assert an_editor.currentSegmentID() == "lesion"
    assert an_editor.activeEffect() is None
    an_editor.setActiveEffectByName("Paint")
    assert buttons["Paint"].checked
    buttons["Erase"].click()
    assert an_editor.activeEffect().name == "Erase"
    assert an_editor.mrmlSegmentEditorNode().GetActiveEffectName() == "Erase"


def test_effects_have_their_options_after_the_scene_was_closed(host, an_editor):
    """The editor's node is a singleton: it stays, empty, and the editor writes what the effects begin with anew."""
    import slicer

    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
    node.UnRegister(None)
    node.SetSingletonTag("kept")
    an_editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNode(node))
    slicer.mrmlScene.Clear(0)
    assert node.GetScene() is not None
    outline = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    outline.GetSegmentation().AddEmptySegment("lesion", "lesion")
    an_editor.setSegmentationNode(outline)
    an_editor.setSourceVolumeNode(slicer.util.addVolumeFromArray(np.zeros((4, 6, 6), np.float32)))
    an_editor.setActiveEffectByName("Paint")
    assert an_editor.activeEffect().doubleParameter("BrushRelativeDiameter") == 3.0
    assert an_editor.findChild("QGroupBox", "OptionsGroupBox").isHidden() is False
