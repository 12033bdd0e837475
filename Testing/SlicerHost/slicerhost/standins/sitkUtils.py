# SPDX-License-Identifier: Apache-2.0
"""Stand-in of sitkUtils: SimpleITK images (LPS) to and from volume nodes (RAS).

Voxels are ordered alike on both sides; only the first two rows of the matrix change sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def PullVolumeFromSlicer(nodeObjectOrName: Any) -> Any:
    node = slicer.util.getNode(nodeObjectOrName) if isinstance(nodeObjectOrName, str) else nodeObjectOrName
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    matrix = _LPS_TO_RAS @ slicer.util.arrayFromVTKMatrix(matrix)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    voxels = slicer.util.arrayFromVolume(node)
    image = sitk.GetImageFromArray(voxels, isVector=voxels.ndim == 4)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    return image


def PushVolumeToSlicer(
    sitkimage: Any, targetNode: Any = None, name: str | None = None, className: str = "vtkMRMLScalarVolumeNode"
) -> Any:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(sitkimage.GetDirection()).reshape(3, 3) * np.array(sitkimage.GetSpacing())
    matrix[:3, 3] = sitkimage.GetOrigin()
    node = targetNode
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass(className, name or "")
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(_LPS_TO_RAS @ matrix))
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayFromImage(sitkimage))
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    return node
