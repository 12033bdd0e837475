# SPDX-License-Identifier: Apache-2.0
"""Scans whose axes are left-handed: Slicer's reader reverses the order of their slices, the project keeps it."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barl.images.geometry import Grid
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barldriver.loop import settle

pytestmark = pytest.mark.host
GRID = Grid((13, 11, 9), (0.8, 1.1, 3.0), (12.0, 34.0, 56.0), (1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
OUTLINE = (slice(1, 3), slice(2, 5), slice(3, 8))  # far from the middle in every direction


@pytest.fixture
def panel(a_review_panel, tmp_path):
    """The review panel with a predicted case on a left-handed grid."""
    label = np.zeros(GRID.shape, np.uint8)
    label[OUTLINE] = 1
    scan = np.random.default_rng(0).normal(100, 20, GRID.shape).astype(np.float32)
    with Project.create(tmp_path / "left", "left", [Label(1, "a"), Label(2, "b")], [Channel("T1")]) as project:
        project.cases.add("scan", [GRID.image(scan)])
        project.revisions.store(
            "scan", GRID.image(label), "prediction", author="BARL", uncertainty=GRID.image(label.astype(np.float32))
        )
    a_review_panel.session.openProject(tmp_path / "left")
    a_review_panel.session.openCase("case_0001")
    settle(a_review_panel)
    return a_review_panel


def stored(panel) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(panel.session.project.revisions.newest("case_0001").path)))


def test_an_accepted_outline_lies_where_it_was_predicted(panel):
    panel.onAccept()
    settle(panel)
    assert panel.session.case().is_accepted
    wanted = np.zeros(GRID.shape, np.uint8)
    wanted[OUTLINE] = 1
    assert np.array_equal(stored(panel), wanted)


def test_what_is_drawn_is_stored_where_it_was_drawn(panel):
    import slicer

    node, scan = panel.correction.segmentation, panel.session.loaded.volumes[0]
    place = [0.0] * 3
    scan.TransformPointToWorld([-12.0 - 0.8 * 2, -34.0 + 1.1 * 7, 56.0 + 3.0 * 8], place)  # index (2, 7, 8), RAS
    index = slicer.util.arrayFromVolume(scan).shape
    matrix = slicer.util.arrayFromVTKMatrix(ras_to_ijk(scan))
    i, j, k = np.rint(matrix @ [*place, 1.0])[:3].astype(int)
    segmentId = node.GetSegmentation().GetSegmentIdBySegmentName("b")
    voxels = np.zeros(index, np.uint8)
    voxels[k, j, i] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segmentId, scan)
    settle(panel)
    panel.onSaveDraft()
    settle(panel)
    assert np.argwhere(stored(panel) == 2).tolist() == [[8, 7, 2]]


def ras_to_ijk(scan):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    scan.GetRASToIJKMatrix(matrix)
    return matrix


def test_an_outline_put_in_from_outside_comes_back_as_it_was(panel):
    from BARLSegmentationLib.logic.Outline import replaceOutline

    wanted = np.zeros(GRID.shape, np.uint8)
    wanted[7, 8, 1:4], wanted[0, 2, 11] = 1, 2
    scan, labels = panel.session.loaded.volumes[0], panel.session.project.labels
    replaceOutline(panel.correction.segmentation, scan, GRID, wanted, labels)
    assert np.array_equal(panel.correction.snapshot().labelMap()[0], wanted)


def test_what_was_drawn_on_a_finer_grid_is_resampled_to_its_place(panel):
    import slicer
    from vtk.util.numpy_support import numpy_to_vtk

    image, segmentation = slicer.vtkOrientedImageData(), panel.correction.segmentation.GetSegmentation()
    image.SetExtent(0, 1, 0, 1, 0, 1)
    image.SetSpacing(0.4, 0.55, 1.5)
    image.SetOrigin(-12.0 - 0.8 * 2 - 0.2, -34.0 + 1.1 * 7 - 0.275, 56.0 + 3.0 * 8 - 0.75)  # voxel (2, 7, 8) in halves
    scalars = numpy_to_vtk(np.ones(8, np.uint8), deep=True)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("b"))
    segment.AddRepresentation("Binary labelmap", image)
    segment.SetLabelValue(1)
    assert np.argwhere(panel.correction.snapshot().labelMap()[0] == 2).tolist() == [[8, 7, 2]]
