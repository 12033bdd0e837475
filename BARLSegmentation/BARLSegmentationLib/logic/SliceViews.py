# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Outline import gridToRAS, nodeToRAS

if TYPE_CHECKING:
    from barl.images.geometry import Grid

    from BARLSegmentationLib.logic.Drawing import Plane

DRAWN_COLOR, PROPOSED_COLOR = (0.25, 0.85, 1.0), (1.0, 0.9, 0.4)
_WIDTH = 4  # of a frame, in pixels; half of it lies outside of the view
_LAYER = 5  # above images and outlines
_TILTED = 0.5  # voxels from one side of a scan to the other


class SliceViews:
    """The slice views and the planes of a scan's voxels: which one a view shows, and which view shows one.

    Args:
        volume: The scan's node.
        grid: The scan's grid; planes are those of its arrays ``[k, j, i]``.
    """

    def __init__(self, volume: slicer.vtkMRMLScalarVolumeNode, grid: Grid) -> None:
        self.volume, self.grid = volume, grid

    def toWorld(self) -> np.ndarray:
        """4 x 4: from indices (i, j, k) of the grid to RAS in mm."""
        return self._parent() @ gridToRAS(self.grid)

    def _parent(self) -> np.ndarray:
        parent = vtk.vtkMatrix4x4()
        slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(self.volume.GetParentTransformNode(), None, parent)
        return slicer.util.arrayFromVTKMatrix(parent)

    def plane(self, node: slicer.vtkMRMLSliceNode) -> Plane | None:
        """The plane that a view shows; None if it is tilted against the voxels or outside of the scan."""
        toIndex = np.linalg.inv(self.toWorld()) @ slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        across = np.abs(toIndex[:3, :2]).max(axis=1)  # voxels per mm in the view, for i, j, k
        axis = int(across.argmin())
        millimeters = max(node.GetFieldOfView()[:2])
        index = int(np.floor(toIndex[axis, 3] + 0.5))
        if across[axis] * millimeters > _TILTED or not 0 <= index < self.grid.size[axis]:
            return None
        return 2 - axis, index

    def nodeOf(self, axis: int) -> slicer.vtkMRMLSliceNode | None:
        """The first view on screen whose planes are perpendicular to an axis of the array; None if there is none."""
        for node in sliceNodes(onScreen=True):
            normal = np.linalg.inv(self.toWorld())[:3, :3] @ slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 2]
            if 2 - int(np.abs(normal).argmax()) == axis:
                return node
        return None

    def underMouse(self) -> slicer.vtkMRMLSliceNode | None:
        """The view with the mouse over it."""
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        return crosshair.GetCursorPositionXYZ([0.0, 0.0, 0.0]) if crosshair is not None else None

    def align(self) -> list[Callable[[], None]]:
        """Turn tilted views to the planes of the voxels, as the Segment Editor's own button does.

        Returns:
            What turns them back, unless somebody has turned them since.
        """
        undo, matrix = [], vtk.vtkMatrix4x4()
        matrix.DeepCopy((self._parent() @ nodeToRAS(self.volume)).ravel())
        for node in sliceNodes():
            toIndex = np.linalg.inv(self.toWorld()) @ slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
            if np.abs(toIndex[:3, :2]).max(axis=1).min() * max(node.GetFieldOfView()[:2]) > _TILTED:
                undo.append(_turningBack(node))
                node.RotateToAxes(matrix)
        return undo

    def name(self, plane: Plane) -> str:
        """A plane in words: its direction, and its place as Slicer shows it beside the view's slider."""
        axis, index = plane
        matrix = self.toWorld()
        center = np.array([(n - 1) / 2 for n in self.grid.size])
        center[2 - axis] = index
        direction = matrix[:3, 2 - axis] / np.linalg.norm(matrix[:3, 2 - axis])
        world = int(np.abs(direction).argmax())
        title = (_("sagittal"), _("coronal"), _("axial"))[world]
        place = float((matrix @ [*center, 1.0])[:3] @ direction) * (1 if direction[world] > 0 else -1)
        letters = ("LR", "PA", "IS")[world]
        return f"{title} {letters[place > -0.05]} {abs(place):.1f} mm"

    def position(self, index: Sequence[float]) -> list[float]:
        """RAS in mm, in the scan's own coordinates, of an index (k, j, i)."""
        return (gridToRAS(self.grid) @ [*index[::-1], 1.0])[:3].tolist()


class PlaneFrames:
    """A thin frame in every slice view that shows a drawn plane or the proposed one."""

    def __init__(self) -> None:
        self._actors: dict[str, tuple[vtk.vtkRenderer, vtk.vtkActor2D]] = {}

    def show(self, colors: dict[str, tuple[float, float, float]]) -> None:
        """Frame views.

        Args:
            colors: Name of a view -> color of its frame; other views have none.
        """
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames() if manager is not None else ():
            view = manager.sliceWidget(name).sliceView()
            renderer = view.renderWindow().GetRenderers().GetFirstRenderer()
            before, actor = self._actors.pop(name, (None, None))
            color = colors.get(name)
            if actor is not None and (color is None or before is not renderer):
                before.RemoveViewProp(actor)
                view.scheduleRender()
                actor = None
            if color is None or renderer is None:
                continue
            if actor is None:
                actor = _frame()
                renderer.AddViewProp(actor)
                view.scheduleRender()
            if actor.GetProperty().GetColor() != color:
                actor.GetProperty().SetColor(*color)
                view.scheduleRender()
            self._actors[name] = (renderer, actor)

    def colors(self) -> dict[str, tuple[float, float, float]]:
        """The views that are framed now."""
        return {name: actor.GetProperty().GetColor() for name, (_renderer, actor) in self._actors.items()}

    def remove(self) -> None:
        for renderer, actor in self._actors.values():
            renderer.RemoveViewProp(actor)
        self._actors = {}


def sliceNodes(onScreen: bool = False) -> list[slicer.vtkMRMLSliceNode]:
    """The nodes of the slice views, in the order of their names.

    Args:
        onScreen: Those alone that the layout shows; Slicer keeps the views of all layouts that were shown.
    """
    manager = slicer.app.layoutManager()
    widgets = [manager.sliceWidget(name) for name in sorted(manager.sliceViewNames())] if manager is not None else []
    return [widget.mrmlSliceNode() for widget in widgets if widget.visible or not onScreen]


def _turningBack(node: slicer.vtkMRMLSliceNode) -> Callable[[], None]:
    orientation, before = node.GetOrientation(), vtk.vtkMatrix4x4()
    before.DeepCopy(node.GetSliceToRAS())

    def turnBack() -> None:
        if node.GetScene() is None or node.GetOrientation() != "Reformat":
            return
        if orientation != "Reformat":
            node.SetOrientation(orientation)
            return
        for row in range(3):  # a view that the user had turned shows the same place as now
            before.SetElement(row, 3, node.GetSliceToRAS().GetElement(row, 3))
        node.GetSliceToRAS().DeepCopy(before)
        node.UpdateMatrices()

    return turnBack


def _frame() -> vtk.vtkActor2D:
    points = vtk.vtkPoints()
    lines = vtk.vtkCellArray()
    for corner in ((0, 0), (1, 0), (1, 1), (0, 1)):
        points.InsertNextPoint(*corner, 0)
    lines.InsertNextCell(5)
    for corner in (0, 1, 2, 3, 0):
        lines.InsertCellPoint(corner)
    shape = vtk.vtkPolyData()
    shape.SetPoints(points)
    shape.SetLines(lines)
    place = vtk.vtkCoordinate()
    place.SetCoordinateSystemToNormalizedViewport()
    mapper = vtk.vtkPolyDataMapper2D()
    mapper.SetInputData(shape)
    mapper.SetTransformCoordinate(place)
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.SetLayerNumber(_LAYER)
    actor.GetProperty().SetLineWidth(_WIDTH)
    return actor
