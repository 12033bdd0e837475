# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

# The least that Slicer reads: a volume of one voxel.
_ONE_VOXEL = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 1 1 1\nencoding: raw\n\n\0"


def readAhead(paths: Sequence[Path]) -> Generator[None, None, dict[Path, np.ndarray]]:
    """Read label maps or uncertainty maps of the engine, a few milliseconds between two ``yield``.

    Slicer's reader stops the window until it has read a whole file: 0.5 s of computing for 512 x 512 x 400 floats.

    Returns:
        File -> its voxels ``[k, j, i]``. A file that cannot be read this way is left out: Slicer's reader says why.
    """
    from barl.errors import InputError
    from barl.images.formats.nifti import voxels_in_pieces

    found = {}
    for path in paths:
        try:
            found[path] = yield from voxels_in_pieces(path)
        except (InputError, OSError, MemoryError):
            continue
    return found


def fill(
    node: slicer.vtkMRMLScalarVolumeNode,
    storage: slicer.vtkMRMLStorageNode,
    voxels: np.ndarray,
    like: slicer.vtkMRMLScalarVolumeNode,
) -> None:
    """Make a volume node what its storage node would have read from its file.

    Args:
        voxels: ``[k, j, i]`` in the order of ``like``; the node shares their memory.
        like: A volume on the same grid.
    """
    node.SetAndObserveImageData(imageData(voxels))
    node.CopyOrientation(like)
    # Slicer offers to save what was changed since its storage node has read something.
    file, one = Path(slicer.app.temporaryPath) / "BARL-one-voxel.nrrd", slicer.vtkMRMLScalarVolumeNode()
    read = storage.GetFileName()
    file.write_bytes(_ONE_VOXEL)
    try:
        storage.SetFileName(str(file))
        storage.ReadData(one)
    finally:
        storage.SetFileName(read)
        file.unlink()


def inOrder(
    ahead: Mapping[Path, np.ndarray], volume: slicer.vtkMRMLScalarVolumeNode, order: Sequence[slice] = ()
) -> dict[Path, np.ndarray]:
    """What was read, in the order of a scan's node; what has another size is left out.

    Args:
        volume: The scan's node; its voxels may have been taken away.
        order: Of the node's axes in the file, as ``Outline.order`` gives it; by default the same.
    """
    image = volume.GetImageData()
    shape = image.GetDimensions()[::-1] if image is not None else ()
    return {path: voxels[tuple(order)] for path, voxels in ahead.items() if voxels.shape == shape}


def imageData(voxels: np.ndarray) -> vtk.vtkImageData:
    """The array as image data that shares its memory: a copy of a large scan would stop the window."""
    image = vtk.vtkImageData()
    image.SetDimensions(*voxels.shape[::-1])
    scalars = numpy_to_vtk(voxels.ravel())
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    return image
