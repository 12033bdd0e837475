# SPDX-License-Identifier: Apache-2.0
"""Stand-ins of the widgets in which Slicer shows slices, 3D scenes and plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from . import views
from .mrmlwidgets import qMRMLSliderWidget, qMRMLWidget
from .observers import Observers
from .qtviews import VTKCanvas
from .uiloader import register

Signal, Property = QtCore.Signal, QtCore.Property


class _View(QtWidgets.QWidget):
    """What ctkVTKAbstractView offers, over one canvas."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._canvas = VTKCanvas(self)
        layout.addWidget(self._canvas)
        self._view = None

    def _setView(self, view):
        self._view = view
        view.renderRequested = self._canvas.scheduleRender
        self._canvas.resized.connect(view.resize)
        if self._canvas._renderWindow.GetSize()[0] > 0:
            view.resize(*self._canvas._renderWindow.GetSize())

    def VTKWidget(self) -> QtWidgets.QWidget:
        return self._canvas

    def renderWindow(self) -> vtk.vtkRenderWindow:
        return self._canvas._renderWindow

    def interactor(self) -> vtk.vtkRenderWindowInteractor:
        return self._canvas._interactor

    def scheduleRender(self) -> None:
        self._canvas.scheduleRender()

    def forceRender(self) -> None:
        self._canvas.forceRender()
        self._canvas.update()

    def setRenderPaused(self, pause: bool) -> None:
        self._canvas.setPaused(bool(pause))

    def pauseRender(self) -> None:
        self._canvas.setPaused(True)

    def resumeRender(self) -> None:
        self._canvas.setPaused(False)

    def _close(self):
        self._canvas.closeCanvas()
        if self._view is not None:
            self._view.close()
            self._view = None


class _DisplayableView(_View):
    """What slice and 3D views share beyond that."""

    def renderer(self) -> vtk.vtkRenderer:
        return self._view.renderer

    def interactorStyle(self) -> vtk.vtkInteractorObserver:
        return self._view.style

    def interactorObserver(self) -> vtk.vtkInteractorObserver:
        return self._view.style

    def getDisplayableManagers(self, collection: vtk.vtkCollection) -> None:
        for index in range(self._view.managers.GetDisplayableManagerCount()):
            collection.AddItem(self._view.managers.GetNthDisplayableManager(index))

    def displayableManagerByClassName(self, className: str) -> slicer.vtkMRMLAbstractDisplayableManager | None:
        return self._view.managers.GetDisplayableManagerByClassName(className)

    def setViewCursor(self, cursor: Any) -> None:
        self._canvas.setCursor(cursor)

    def unsetViewCursor(self) -> None:
        self._canvas.unsetCursor()


class qMRMLSliceView(_DisplayableView):
    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        return self._view.node

    def sliceViewInteractorStyle(self) -> vtk.vtkInteractorObserver:
        return self._view.style

    def convertDeviceToXYZ(self, xy: Sequence[float]) -> tuple[float, ...]:
        x, y = xy
        return (float(x), float(self._canvas.height - 1 - y), 0.0)

    def convertRASToXYZ(self, ras: Sequence[float]) -> tuple[float, ...]:
        inverse = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self._view.node.GetXYToRAS(), inverse)
        return tuple(inverse.MultiplyPoint((*ras, 1.0))[:3])

    def convertXYZToRAS(self, xyz: Sequence[float]) -> tuple[float, ...]:
        return tuple(self._view.node.GetXYToRAS().MultiplyPoint((*xyz, 1.0))[:3])


class qMRMLThreeDView(_DisplayableView):
    def mrmlViewNode(self) -> slicer.vtkMRMLViewNode:
        return self._view.node

    def cameraNode(self) -> slicer.vtkMRMLCameraNode | None:
        logic = slicer.app.applicationLogic().GetModuleLogic("Cameras")
        if logic is not None:
            return logic.GetViewActiveCameraNode(self._view.node)
        for node in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
            if node.GetLayoutName() == self._view.node.GetLayoutName():
                return node
        return None

    def resetFocalPoint(self) -> None:
        self._view.fit()

    def resetCamera(
        self, resetRotation: bool = True, resetTranslation: bool = True, resetDistance: bool = True
    ) -> None:
        self._view.fit()

    def rotateToViewAxis(self, axis: int) -> None:
        self.cameraNode().RotateTo(axis)
        self.scheduleRender()


class qMRMLPlotView(_View):
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._setView(views.PlotView(slicer.app.applicationLogic(), None, self.renderWindow(), self.interactor()))

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self._view.scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        self._view.scene = scene
        self.mrmlSceneChanged.emit(scene)

    def chart(self) -> vtk.vtkChartXY:
        return self._view.chart

    def mrmlPlotViewNode(self) -> slicer.vtkMRMLPlotViewNode | None:
        return self._view.node

    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._view.setNode(node)

    def fitToContent(self) -> None:
        self._view.fit()


class _Bar(QtWidgets.QWidget):
    """The narrow bar above a view: its letter on its color."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._row = QtWidgets.QHBoxLayout(self)
        self._row.setContentsMargins(2, 1, 2, 1)
        self._row.setSpacing(4)
        self._letter = QtWidgets.QLabel(self)
        self._row.addWidget(self._letter)

    def _setNode(self, node):
        color = QtGui.QColor.fromRgbF(*node.GetLayoutColor())
        self._letter.setText(node.GetLayoutLabel() or "")
        self._letter.setStyleSheet(f"background: {color.name()}; color: black; padding: 1px 6px;")
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Fixed)


class qMRMLSliceControllerWidget(_Bar):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._logic = None
        self._updating = False
        self._slider = qMRMLSliderWidget(self)
        self._slider.suffix = " mm"
        self._slider.valueChanged.connect(self.setSliceOffsetValue)
        self._row.addWidget(self._slider, 1)
        self._fit = QtWidgets.QToolButton(self)
        self._fit.setText("Fit")
        self._fit.clicked.connect(self.fitSliceToBackground)
        self._row.addWidget(self._fit)
        self._observers = Observers(self)

    def setSliceLogic(self, logic: slicer.vtkMRMLSliceLogic) -> None:
        self._observers.clear()
        self._logic = logic
        self._setNode(logic.GetSliceNode())
        self._observers.add(logic, vtk.vtkCommand.ModifiedEvent, "_fromLogic")
        self._observers.add(logic.GetSliceNode(), vtk.vtkCommand.ModifiedEvent, "_fromLogic")
        self._fromLogic()

    def _fromLogic(self, *_):
        bounds, resolution = [0.0, -1.0], vtk.reference(1.0)
        if self._updating or not self._logic.GetSliceOffsetRangeResolution(bounds, resolution):
            return
        self._updating = True
        # A little further than the last slice, as in Slicer: its half thickness must remain reachable.
        self._slider.minimum, self._slider.maximum = bounds[0], max(bounds)
        self._slider.singleStep = float(resolution) or 1.0
        self._slider.setValue(self._logic.GetSliceOffset())
        self._updating = False

    def sliceLogic(self) -> slicer.vtkMRMLSliceLogic:
        return self._logic

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> slicer.vtkMRMLSliceCompositeNode:
        return self._logic.GetSliceCompositeNode()

    def sliceOffsetSlider(self) -> qMRMLSliderWidget:
        return self._slider

    def fitToWindowToolButton(self) -> QtWidgets.QToolButton:
        return self._fit

    def setSliceOffsetValue(self, offset: float) -> None:
        if not self._updating:
            self._logic.StartSliceOffsetInteraction()
            self._logic.SetSliceOffset(offset)
            self._logic.EndSliceOffsetInteraction()

    def fitSliceToBackground(self, *_: object) -> None:
        self._logic.FitSliceToBackground()
        self._logic.SnapSliceOffsetToIJK()

    def setSliceVisible(self, visible: bool) -> None:
        self.mrmlSliceNode().SetSliceVisible(bool(visible))

    def setSliceLink(self, linked: bool) -> None:
        for logic in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            logic.SetLinkedControl(bool(linked))


class _ViewWidget(qMRMLWidget):
    """What qMRMLAbstractViewWidget offers: a bar and a view."""

    def __init__(self, parent: QtWidgets.QWidget | None, bar: QtWidgets.QWidget, view: QtWidgets.QWidget) -> None:
        super().__init__(parent)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self._bar, self._viewWidget = bar, view
        layout.addWidget(bar)
        layout.addWidget(view, 1)

    def viewWidget(self) -> Any:
        return self._viewWidget

    def controllerWidget(self) -> QtWidgets.QWidget:
        return self._bar

    def setRenderPaused(self, pause: bool) -> None:
        self._viewWidget.setRenderPaused(pause)

    def pauseRender(self) -> None:
        self._viewWidget.pauseRender()

    def resumeRender(self) -> None:
        self._viewWidget.resumeRender()

    def _close(self):
        if hasattr(self._bar, "_observers"):
            self._bar._observers.clear()
        self._viewWidget._close()


class qMRMLSliceWidget(_ViewWidget):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent, qMRMLSliceControllerWidget(), qMRMLSliceView())

    def setMRMLSliceNode(self, node: Any) -> None:
        view = self._viewWidget
        view._setView(views.SliceView(slicer.app.applicationLogic(), node, view.renderWindow(), view.interactor()))
        self._bar.setSliceLogic(view._view.logic)

    def sliceView(self) -> qMRMLSliceView:
        return self._viewWidget

    def sliceController(self) -> qMRMLSliceControllerWidget:
        return self._bar

    def sliceLogic(self) -> slicer.vtkMRMLSliceLogic:
        return self._viewWidget._view.logic

    logic = sliceLogic

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        return self._viewWidget._view.node

    mrmlAbstractViewNode = mrmlSliceNode

    def mrmlSliceCompositeNode(self) -> slicer.vtkMRMLSliceCompositeNode:
        return self._viewWidget._view.compositeNode

    def interactorStyle(self) -> vtk.vtkInteractorObserver:
        return self._viewWidget._view.style

    def fitSliceToBackground(self) -> None:
        self._viewWidget._view.fit()

    def setSliceOrientation(self, orientation: str) -> None:
        self.mrmlSliceNode().SetOrientation(orientation)

    sliceOrientation = Property(str, lambda self: self.mrmlSliceNode().GetOrientation(), setSliceOrientation)
    sliceViewName = Property(str, lambda self: self.mrmlSliceNode().GetLayoutName())


class qMRMLThreeDWidget(_ViewWidget):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent, _Bar(), qMRMLThreeDView())
        self._bar._row.addStretch(1)

    def setMRMLViewNode(self, node: Any) -> None:
        view = self._viewWidget
        view._setView(views.ThreeDView(slicer.app.applicationLogic(), node, view.renderWindow(), view.interactor()))
        self._bar._setNode(node)

    def threeDView(self) -> qMRMLThreeDView:
        return self._viewWidget

    def threeDController(self) -> QtWidgets.QWidget:
        return self._bar

    def viewLogic(self) -> slicer.vtkMRMLViewLogic:
        return self._viewWidget._view.logic

    logic = viewLogic

    def mrmlViewNode(self) -> slicer.vtkMRMLViewNode:
        return self._viewWidget._view.node

    mrmlAbstractViewNode = mrmlViewNode


class qMRMLPlotWidget(_ViewWidget):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent, _Bar(), qMRMLPlotView())
        self._bar._row.addStretch(1)

    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._viewWidget.setMRMLPlotViewNode(node)
        if node is not None:
            self._bar._setNode(node)

    def mrmlPlotViewNode(self) -> slicer.vtkMRMLPlotViewNode | None:
        return self._viewWidget.mrmlPlotViewNode()

    mrmlAbstractViewNode = mrmlPlotViewNode

    def plotView(self) -> qMRMLPlotView:
        return self._viewWidget

    def plotController(self) -> QtWidgets.QWidget:
        return self._bar


for _class in (
    qMRMLSliceView,
    qMRMLThreeDView,
    qMRMLPlotView,
    qMRMLSliceControllerWidget,
    qMRMLSliceWidget,
    qMRMLThreeDWidget,
    qMRMLPlotWidget,
):
    register(_class.__name__, _class)
