# SPDX-License-Identifier: Apache-2.0
"""Slice views that the user has turned by 20 degrees: jump and mark, a stroke, the next slice, the case closed."""

from __future__ import annotations

import numpy as np
import pytest
from barldriver.loop import settle

pytestmark = pytest.mark.host


@pytest.fixture
def panel(a_review_panel):
    """The review panel with its case open; then its red view is turned by 20 degrees about the patient's left-right."""
    import slicer

    node = red()
    turned = np.eye(4)
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turned[1:3, 1:3] = (c, -s), (s, c)
    turn(node, turned @ slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()))
    settle(a_review_panel)
    yield a_review_panel
    node.SetOrientation("Axial")


def red():
    import slicer

    return slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()


def turn(node, matrix):
    node.GetSliceToRAS().DeepCopy(matrix.ravel())
    node.UpdateMatrices()


def normal(node):
    import slicer

    return slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 2].copy()


def distance(node, place):
    """Of a point from the plane of a view, mm."""
    import slicer

    return abs((np.array(place) - slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 3]) @ normal(node))


def test_a_jump_leaves_the_view_turned_and_marks_the_place_in_it(panel):
    import slicer

    before = normal(red())
    panel.ui.nextHotspotButton.click()
    settle(panel)
    place = panel.hotspots.current().position
    assert np.allclose(normal(red()), before) and red().GetOrientation() == "Reformat"
    assert all(distance(node, place) < 1e-3 for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"))
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    assert np.allclose(crosshair.GetCrosshairRAS(), place) and crosshair.GetCrosshairMode() == crosshair.ShowSmallBasic


def test_a_stroke_in_a_turned_view_is_kept_and_ticks_no_slice(panel):
    import slicer
    from slicerhost import hands

    panel.ui.nextHotspotButton.click()
    settle(panel)
    segments = panel.session.loaded.segmentation.GetSegmentation()
    panel.editor.widget.setCurrentSegmentID(segments.GetSegmentIdBySegmentName("edema"))
    panel.editor.widget.setActiveEffectByName("Paint")
    brush = panel.editor.widget.activeEffect()
    brush.setCommonParameter("BrushDiameterIsRelative", 0)
    brush.setCommonParameter("BrushAbsoluteDiameter", 6.0)
    slicer.app.processEvents()
    hands.drag(slicer.app.layoutManager().sliceWidget("Red"), panel.hotspots.current().position)
    settle(panel)
    assert panel.correction.isChanged() and not panel.correction.drawing.drawn.planes
    assert "tilted against the voxels" in panel.moduleWidget.ui.statusLabel.text


def test_the_next_slice_is_shown_in_the_plane_of_the_voxels_and_the_view_turned_back(panel):
    before, planes = normal(red()), panel.planes
    planes.proposeNext()
    settle(panel)
    proposed = planes._proposed
    assert proposed is not None and red().GetOrientation() == "Reformat"
    node = planes.views.nodeOf(proposed[0])
    assert planes.views.plane(node) == proposed and planes.views.plane(red()) is not None
    panel.session.closeCase()
    settle(panel)
    assert np.allclose(normal(red()), before), "as the user had turned it"


def test_a_next_slice_that_no_view_on_screen_can_show_is_told(panel):
    """Slicer keeps the views of all layouts: one that nobody sees was turned to the slice."""
    import slicer

    manager, planes = slicer.app.layoutManager(), panel.planes
    planes.proposeNext()
    settle(panel)
    view = planes.views.nodeOf(planes._proposed[0]).GetLayoutName()
    alone = {"Red": "Yellow", "Yellow": "Green", "Green": "Red"}[view]
    try:
        manager.setLayout(getattr(slicer.vtkMRMLLayoutNode, f"SlicerLayoutOneUp{alone}SliceView"))
        slicer.app.processEvents()
        assert planes.views.nodeOf(planes._proposed[0]) is None
        planes.proposeNext()
        settle(panel)
        assert "No view on screen shows slices of this direction" in panel.moduleWidget.ui.statusLabel.text
    finally:
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        slicer.app.processEvents()
