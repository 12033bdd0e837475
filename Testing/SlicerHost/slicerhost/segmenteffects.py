# SPDX-License-Identifier: Apache-2.0
"""Paint, Erase and Draw in slice views.

What they draw is written into the segmentation by Slicer's own editor logic, which also applies masks and overwrite
modes.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from PySide6 import QtCore
from vtk.util.numpy_support import vtk_to_numpy

from .uiloader import register

_Logic = slicer.vtkSlicerSegmentEditorLogic


@register("qSlicerSegmentEditorAbstractEffect")
class qSlicerSegmentEditorAbstractEffect(QtCore.QObject):
    """An effect keeps its parameters as attributes of the segment editor node, like Slicer's."""

    _commonDefaults: typing.ClassVar[dict] = {}
    _ownDefaults: typing.ClassVar[dict] = {}

    def __init__(self, editor: Any, name: str) -> None:
        super().__init__(editor)
        self._editor, self._name = editor, name

    name = QtCore.Property(str, lambda self: self._name)
    title = QtCore.Property(str, lambda self: self._name)
    perSegment = QtCore.Property(bool, lambda self: True)

    def active(self) -> bool:
        return self._editor.activeEffect() is self

    def parameterSetNode(self) -> slicer.vtkMRMLSegmentEditorNode:
        return self._editor.mrmlSegmentEditorNode()

    def scene(self) -> slicer.vtkMRMLScene:
        return self._editor.mrmlScene()

    def saveStateForUndo(self) -> None:
        self._editor.saveStateForUndo()

    # Parameters ------------------------------------------------------------------------------------------------------

    def _setDefaults(self):
        node = self.parameterSetNode()
        defaults = {**self._commonDefaults, **{f"{self._name}.{k}": v for k, v in self._ownDefaults.items()}}
        for name, value in defaults.items():
            if node.GetAttribute(name) is None:
                node.SetAttribute(name, str(value))

    def parameter(self, name: str) -> str:
        node = self.parameterSetNode()
        value = node.GetAttribute(f"{self._name}.{name}")
        return (node.GetAttribute(name) if value is None else value) or ""

    def integerParameter(self, name: str) -> int:
        return int(float(self.parameter(name) or 0))

    def doubleParameter(self, name: str) -> float:
        return float(self.parameter(name) or 0)

    def setParameter(self, name: str, value: object) -> None:
        self._setAttribute(f"{self._name}.{name}", value)

    def setCommonParameter(self, name: str, value: object) -> None:
        self._setAttribute(name, value)

    def _setAttribute(self, name, value):
        self.parameterSetNode().SetAttribute(name, str(value))
        self._editor._showOptions()

    def parameterDefined(self, name: str) -> bool:
        return self.parameterSetNode().GetAttribute(f"{self._name}.{name}") is not None

    def commonParameterDefined(self, name: str) -> bool:
        return self.parameterSetNode().GetAttribute(name) is not None

    # Masks -----------------------------------------------------------------------------------------------------------

    def modifierLabelmap(self) -> slicer.vtkOrientedImageData:
        return self._editor._logic.GetModifierLabelmap()

    def defaultModifierLabelmap(self) -> slicer.vtkOrientedImageData | None:
        logic = self._editor._logic
        if not logic.UpdateReferenceGeometryImage() or not logic.ResetModifierLabelmapToDefault():
            return None
        return logic.GetModifierLabelmap()

    def _modify(self, labelmap, mode, extent=None):
        node = self.parameterSetNode()
        arguments = [node.GetSegmentationNode(), node.GetSelectedSegmentID(), labelmap, mode]
        if extent is not None:
            arguments.append([int(bound) for bound in extent])
        self._editor._logic.ModifySegmentByLabelmap(*arguments, self.perSegment, False)

    # Events ----------------------------------------------------------------------------------------------------------

    def _process(self, interactor, event, sliceWidget) -> bool:
        """Handles an event of a slice view; True keeps it from the view itself."""
        return False

    def _stop(self):
        """Called when another effect becomes active."""

    def _withModifierKey(self, interactor):
        return bool(interactor.GetShiftKey() or interactor.GetControlKey() or interactor.GetAltKey())


class _Feedback:
    """What is being drawn, over a slice view, in display coordinates."""

    def __init__(self, sliceWidget: Any, color: Sequence[float], opacity: float, closed: bool) -> None:
        self._renderer = sliceWidget.sliceView()._view.renderer
        self._scheduleRender = sliceWidget.sliceView().scheduleRender
        self._data, self._closed = vtk.vtkPolyData(), closed
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputData(self._data)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(mapper)
        self._actor.GetProperty().SetColor(*color)
        self._actor.GetProperty().SetOpacity(opacity)
        self._actor.GetProperty().SetLineWidth(2)
        self._renderer.AddViewProp(self._actor)

    def show(self, outlines: Iterable[Sequence[Sequence[float]]]) -> None:
        points, cells = vtk.vtkPoints(), vtk.vtkCellArray()
        for outline in outlines:
            cells.InsertNextCell(len(outline))
            for x, y in outline:
                cells.InsertCellPoint(points.InsertNextPoint(x, y, 0))
        self._data.SetPoints(points)
        (self._data.SetPolys if self._closed else self._data.SetLines)(cells)
        self._data.Modified()
        self._scheduleRender()

    def remove(self) -> None:
        self._renderer.RemoveViewProp(self._actor)
        self._scheduleRender()


@register("qSlicerSegmentEditorPaintEffect")
class qSlicerSegmentEditorPaintEffect(qSlicerSegmentEditorAbstractEffect):
    """A disk in the slice, as thick as the slice, or a sphere; applied when the button is let go, as in Slicer."""

    _commonDefaults: typing.ClassVar[dict] = {
        "BrushMinimumAbsoluteDiameter": 0.01,
        "BrushMaximumAbsoluteDiameter": 100.0,
        "BrushAbsoluteDiameter": 5.0,
        "BrushRelativeDiameter": 3.0,
        "BrushDiameterIsRelative": 1,
        "BrushSphere": 0,
        "EditIn3DViews": 0,
        "BrushPixelMode": 0,
    }
    _ownDefaults: typing.ClassVar[dict] = {"ColorSmudge": 0, "EraseAllSegments": 0}

    def __init__(self, editor: Any, name: str) -> None:
        super().__init__(editor, name)
        self._stroke, self._view, self._feedback = [], None, None

    def _process(self, interactor, event, sliceWidget):
        if event in ("MouseWheelForwardEvent", "MouseWheelBackwardEvent") and interactor.GetShiftKey():
            self._scale(1.2 if event == "MouseWheelForwardEvent" else 0.8)
            return True
        if event == "LeftButtonPressEvent" and not self._withModifierKey(interactor):
            self._view, self._stroke = sliceWidget, []
            self.saveStateForUndo()
            segmentation = self.parameterSetNode().GetSegmentationNode().GetSegmentation()
            color = segmentation.GetSegment(self.parameterSetNode().GetSelectedSegmentID()).GetColor()
            self._feedback = _Feedback(sliceWidget, (1, 1, 1) if self._erases() else color, 0.5, closed=True)
        if self._view is not sliceWidget:
            return False
        if event in ("LeftButtonPressEvent", "MouseMoveEvent"):
            self._addPoint(interactor.GetEventPosition())
            return True
        if event == "LeftButtonReleaseEvent":
            self._apply()
            return True
        return False

    def _scale(self, factor):
        name = "BrushRelativeDiameter" if self.integerParameter("BrushDiameterIsRelative") else "BrushAbsoluteDiameter"
        self.setCommonParameter(name, self.doubleParameter(name) * factor)

    def _erases(self):
        return False

    def _radius(self):
        """In millimeters."""
        if self.integerParameter("BrushDiameterIsRelative"):
            axes = self._view.mrmlSliceNode().GetXYToSlice()
            perPixel = np.linalg.norm([axes.GetElement(i, 1) for i in range(3)])
            height = slicer.app.primaryScreen.size.height()
            diameter = height * self.doubleParameter("BrushRelativeDiameter") / 100 * perPixel
            self.parameterSetNode().SetAttribute("BrushAbsoluteDiameter", str(diameter))
        return self.doubleParameter("BrushAbsoluteDiameter") / 2

    def _addPoint(self, position):
        """Points lie at most half a radius apart, however fast the mouse was."""
        axes = self._view.mrmlSliceNode().GetXYToSlice()
        perPixel = np.linalg.norm([axes.GetElement(i, 0) for i in range(3)])
        radius = self._radius() / perPixel
        new = np.array(position, float)
        if self._stroke:
            step = new - self._stroke[-1]
            count = int(np.ceil(np.linalg.norm(step) / max(1.0, radius / 2)))
            self._stroke += [self._stroke[-1] + step * i / count for i in range(1, count + 1)]
        else:
            self._stroke.append(new)
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius
        self._feedback.show([circle + point for point in self._stroke])

    def _stop(self):
        if self._feedback is not None:
            self._feedback.remove()
        self._feedback, self._view, self._stroke = None, None, []

    def _apply(self):
        sliceNode = self._view.mrmlSliceNode()
        centers = [sliceNode.GetXYToRAS().MultiplyPoint((x, y, 0, 1))[:3] for x, y in self._stroke]
        radius = self._radius()
        normal, thickness = None, None
        if not self.integerParameter("BrushSphere"):
            axes = sliceNode.GetSliceToRAS()
            normal = np.array([axes.GetElement(i, 2) for i in range(3)])
            thickness = _Logic.GetSliceSpacing(sliceNode, self._view.sliceLogic())
        self._stop()
        self._paint(centers, radius, normal, thickness)

    def _paint(self, centers, radius, normal, thickness):
        labelmap = self.defaultModifierLabelmap()
        if labelmap is None:
            return
        extent = _stamp(labelmap, centers, radius, normal, thickness)
        if extent is None:
            return
        mode = _Logic.ModificationModeAdd
        if self._erases():
            everything = self.integerParameter("EraseAllSegments")
            mode = _Logic.ModificationModeRemoveAll if everything else _Logic.ModificationModeRemove
        self._modify(labelmap, mode, extent)


def _stamp(labelmap, centers, radius, normal, thickness):
    """Sets the voxels inside balls (``normal`` None) or disks to 1.

    Args:
        labelmap: vtkOrientedImageData in the world's coordinate system.
        centers: points in RAS, millimeters.
        radius: millimeters.
        normal: unit vector in RAS on the disks.
        thickness: millimeters, of the disks.

    Returns:
        Extent (i, i, j, j, k, k) of what may have changed; None if that is empty.
    """
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    toWorld = slicer.util.arrayFromVTKMatrix(matrix)
    toIJK = np.linalg.inv(toWorld)
    whole = np.array(labelmap.GetExtent()).reshape(3, 2)
    voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(*(whole[::-1, 1] - whole[::-1, 0] + 1))
    reach = np.hypot(radius, (thickness or 0) / 2) * np.linalg.norm(toIJK[:3, :3], axis=1)
    changed = None
    for center in np.asarray(centers):
        middle = toIJK[:3, :3] @ center + toIJK[:3, 3]
        low = np.maximum(whole[:, 0], np.floor(middle - reach).astype(int))
        high = np.minimum(whole[:, 1], np.ceil(middle + reach).astype(int))
        if np.any(low > high):
            continue
        k, j, i = np.meshgrid(*(np.arange(low[n], high[n] + 1) for n in (2, 1, 0)), indexing="ij")
        offset = np.stack([i, j, k], axis=-1) @ toWorld[:3, :3].T + (toWorld[:3, 3] - center)
        if normal is None:
            inside = np.sum(offset**2, axis=-1) <= radius**2
        else:
            height = offset @ normal
            # Half open, so that a plane just between two layers of voxels takes one of them, not both.
            inside = (height >= -thickness / 2 - 1e-6) & (height < thickness / 2 - 1e-6)
            inside &= np.sum(offset**2, axis=-1) - height**2 <= radius**2
        start = low - whole[:, 0]
        stop = high - whole[:, 0] + 1
        voxels[start[2] : stop[2], start[1] : stop[1], start[0] : stop[0]][inside] = 1
        changed = (
            np.stack([low, high], axis=1)
            if changed is None
            else np.stack([np.minimum(changed[:, 0], low), np.maximum(changed[:, 1], high)], axis=1)
        )
    labelmap.Modified()
    return None if changed is None else changed.ravel()


@register("qSlicerSegmentEditorEraseEffect")
class qSlicerSegmentEditorEraseEffect(qSlicerSegmentEditorPaintEffect):
    def _erases(self):
        return True


@register("qSlicerSegmentEditorScriptedEffect")
class qSlicerSegmentEditorScriptedEffect(qSlicerSegmentEditorAbstractEffect):
    """Draw: an outline in a slice, filled by a right click, the Enter key or the key a."""

    def __init__(self, editor: Any, name: str) -> None:
        super().__init__(editor, name)
        self._points, self._view, self._feedback, self._pressed = [], None, None, False

    def _process(self, interactor, event, sliceWidget):
        if event == "LeftButtonPressEvent" and not self._withModifierKey(interactor):
            if self._view is not sliceWidget:
                self._stop()
                self._view = sliceWidget
                self._feedback = _Feedback(sliceWidget, (1, 1, 0), 1.0, closed=False)
            self._pressed = True
        if self._view is not sliceWidget:
            return False
        if self._pressed and event in ("LeftButtonPressEvent", "MouseMoveEvent"):
            self._points.append(interactor.GetEventPosition())
            self._feedback.show([[*self._points, self._points[0]]])
            return True
        if event == "LeftButtonReleaseEvent":
            self._pressed = False
            return True
        entered = event == "KeyPressEvent" and interactor.GetKeySym() in ("a", "Return")
        if event == "RightButtonPressEvent" or entered:
            self._apply()
            return True
        return False

    def _stop(self):
        if self._feedback is not None:
            self._feedback.remove()
        self._feedback, self._view, self._points, self._pressed = None, None, [], False

    def _apply(self):
        points, sliceNode = self._points, self._view.mrmlSliceNode()
        self._stop()
        labelmap = self.defaultModifierLabelmap()
        if len(points) < 3 or labelmap is None:
            return
        outline, corners, cell = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
        cell.InsertNextCell(len(points) + 1)
        for x, y in points:
            cell.InsertCellPoint(corners.InsertNextPoint(x, y, 0))
        cell.InsertCellPoint(0)
        outline.SetPoints(corners)
        outline.SetLines(cell)
        self.saveStateForUndo()
        _Logic.AppendPolyMask(labelmap, outline, sliceNode, self.parameterSetNode().GetSegmentationNode())
        self._modify(labelmap, _Logic.ModificationModeAdd)


EFFECTS = {
    "Paint": qSlicerSegmentEditorPaintEffect,
    "Draw": qSlicerSegmentEditorScriptedEffect,
    "Erase": qSlicerSegmentEditorEraseEffect,
}
