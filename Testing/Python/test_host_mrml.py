# SPDX-License-Identifier: Apache-2.0
"""The stand-in for Slicer's window: scene, files, views, node selectors, parameter nodes."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.host


@pytest.fixture
def a_volume(host):
    """A cube in a box, oblique and anisotropic."""
    import slicer

    voxels = np.zeros((20, 30, 40), np.float32)
    voxels[5:15, 10:20, 10:30] = 100
    matrix = np.array([[0.8, -0.2, 0, 5], [0.2, 0.8, 0, -7], [0, 0, 2, 9], [0, 0, 0, 1]])
    return slicer.util.addVolumeFromArray(voxels, ijkToRAS=matrix, name="box")


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".mha"])
def test_volume_comes_back_from_its_file(a_volume, tmp_path, ending):
    import slicer

    path = tmp_path / f"box{ending}"
    assert slicer.util.saveNode(a_volume, str(path), {})
    again = slicer.util.loadVolume(str(path), {"name": "again"})
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again), slicer.util.arrayFromVolume(a_volume))
    matrices = []
    for node in (a_volume, again):
        import vtk

        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        matrices.append(slicer.util.arrayFromVTKMatrix(matrix))
    np.testing.assert_allclose(*matrices, atol=1e-4)
    assert again.GetName() == "again"


def test_missing_file_is_an_error(host, tmp_path):
    import slicer

    with pytest.raises(RuntimeError, match="does not exist"):
        slicer.util.loadVolume(str(tmp_path / "none.nrrd"))


def test_slice_views_show_the_volume(host, a_volume):
    import slicer

    slicer.util.setSliceViewerLayers(background=a_volume, fit=True)
    host.processEvents(0.2)
    for name in slicer.app.layoutManager().sliceViewNames():
        picture = slicer.app.layoutManager().sliceWidget(name).sliceView().grab().toImage()
        assert picture.pixelColor(picture.width() // 2, picture.height() // 2).lightness() > 200, name
        assert picture.pixelColor(3, picture.height() - 3).lightness() < 20, name
