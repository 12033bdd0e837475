# SPDX-License-Identifier: Apache-2.0
"""The box that limits a prediction: in which coordinates it is told."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.host


@pytest.fixture
def a_roi(a_scene):
    import slicer

    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenter(10.0, 20.0, 30.0)
    roi.SetSize(4.0, 6.0, 8.0)
    return roi


def test_region_is_told_in_lps(a_roi):
    from BARLSegmentationLib.logic.Prediction import roiBounds

    np.testing.assert_allclose(roiBounds(a_roi), [-12, -8, -23, -17, 26, 34], atol=1e-6)
    assert roiBounds(None) is None


def test_region_lies_where_it_was_drawn_though_the_scan_lies_under_a_transform(a_roi):
    """The scan of a case is predicted from its file, which knows no transform."""
    import slicer
    import vtk
    from BARLSegmentationLib.logic.Prediction import roiBounds

    volume = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.float32))
    assert roiBounds(a_roi, volume) == roiBounds(a_roi)
    moved = vtk.vtkTransform()
    moved.Translate(100.0, 0.0, -50.0)
    moved.RotateZ(90.0)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(moved.GetMatrix())
    volume.SetAndObserveTransformNodeID(transform.GetID())
    # World (10, 20, 30) RAS is (20, 90, 80) in the scan's own: 90 degrees back, after the shift.
    np.testing.assert_allclose(roiBounds(a_roi, volume), [-23, -17, -92, -88, 76, 84], atol=1e-6)
