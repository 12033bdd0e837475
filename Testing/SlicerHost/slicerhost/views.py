# SPDX-License-Identifier: Apache-2.0
"""Slice, 3D and plot views on Slicer's own displayable managers and interactor styles.

No Qt: a view draws into the render window that it is given.
"""

from __future__ import annotations

import slicer
import vtk

SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
)
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager3D",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLTransformsDisplayableManager3D",
    "vtkMRMLVolumeRenderingDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)


_AXES = {"X": vtk.vtkAxis.BOTTOM, "Y": vtk.vtkAxis.LEFT}


class _DisplayableView:
    """What slice and 3D views share: a renderer and a group of displayable managers that asks for redrawing."""

    def __init__(
        self,
        applicationLogic: slicer.vtkSlicerApplicationLogic,
        renderWindow: vtk.vtkRenderWindow,
        interactor: vtk.vtkRenderWindowInteractor,
    ) -> None:
        self.applicationLogic, self.renderWindow, self.interactor = applicationLogic, renderWindow, interactor
        self.renderRequested = None  # called without arguments when the picture is out of date
        self.renderer = vtk.vtkRenderer()
        renderWindow.AddRenderer(self.renderer)

    def _instantiateManagers(self, factoryClass, names, viewNode) -> None:
        factory = factoryClass.GetInstance()
        if factory.GetMRMLApplicationLogic() is not self.applicationLogic:
            factory.SetMRMLApplicationLogic(self.applicationLogic)
        for name in names:
            if hasattr(slicer, name) and not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.managers = factory.InstantiateDisplayableManagers(self.renderer)
        self.managers.SetMRMLDisplayableNode(viewNode)
        self._managersTag = self.managers.AddObserver(vtk.vtkCommand.UpdateEvent, self._requestRender)

    def _requestRender(self, *_) -> None:
        if self.renderRequested is not None:
            self.renderRequested()

    def render(self) -> None:
        self.renderWindow.Render()

    def close(self) -> None:
        self.renderRequested = None
        self.managers.RemoveObserver(self._managersTag)
        self.style.SetInteractor(None)
        self.managers.SetMRMLDisplayableNode(None)
        self.renderWindow.Finalize()


class SliceView(_DisplayableView):
    """One slice view: the slice logic blends the volumes, everything else comes from the displayable managers."""

    def __init__(
        self,
        applicationLogic: slicer.vtkSlicerApplicationLogic,
        node: slicer.vtkMRMLNode | None,
        renderWindow: vtk.vtkRenderWindow,
        interactor: vtk.vtkRenderWindowInteractor,
    ) -> None:
        super().__init__(applicationLogic, renderWindow, interactor)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(applicationLogic)
        applicationLogic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(applicationLogic.GetMRMLScene())
        self.logic.SetSliceNode(node)
        self.node = node
        self.compositeNode = self.logic.GetSliceCompositeNode()

        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._imageActor = vtk.vtkActor2D()
        self._imageActor.SetMapper(self._mapper)
        self._imageActor.GetProperty().SetDisplayLocationToBackground()
        self._imageActor.SetVisibility(False)
        # The first prop of the renderer: drawn after the segments' translucent fill, the image would lose the depth
        # test against it, and segments would look black inside.
        self.renderer.AddViewProp(self._imageActor)
        self._connection = None
        self._logicTag = self.logic.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onLogicModified)

        self._instantiateManagers(slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS, self.node)
        self.style = slicer.vtkMRMLSliceViewInteractorStyle()
        self.style.SetSliceLogic(self.logic)
        self.style.SetDisplayableManagers(self.managers)
        interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self.style.SetInteractor(interactor)
        self._onLogicModified()

    def resize(self, width: int, height: int) -> None:
        self.logic.ResizeSliceNode(width, height)

    def _onLogicModified(self, *_) -> None:
        connection = self.logic.GetImageDataConnection()
        if connection is not self._connection:
            self._connection = connection
            self._mapper.SetInputConnection(connection)
            self._imageActor.SetVisibility(connection is not None)
        self._requestRender()

    def fit(self) -> None:
        self.logic.ResizeSliceNode(*self.renderWindow.GetSize())
        self.logic.FitSliceToBackground()
        self.logic.SnapSliceOffsetToIJK()

    def close(self) -> None:
        self.logic.RemoveObserver(self._logicTag)
        super().close()
        self.applicationLogic.GetSliceLogics().RemoveItem(self.logic)
        self.logic.SetMRMLScene(None)


class ThreeDView(_DisplayableView):
    def __init__(
        self,
        applicationLogic: slicer.vtkSlicerApplicationLogic,
        node: slicer.vtkMRMLNode | None,
        renderWindow: vtk.vtkRenderWindow,
        interactor: vtk.vtkRenderWindowInteractor,
    ) -> None:
        super().__init__(applicationLogic, renderWindow, interactor)
        self.node = node
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetName(node.GetLayoutName())  # by which the logic finds the node and its camera
        self.logic.SetMRMLApplicationLogic(applicationLogic)
        applicationLogic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(applicationLogic.GetMRMLScene())
        self._instantiateManagers(slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS, self.node)
        self.style = slicer.vtkMRMLThreeDViewInteractorStyle()
        self.style.SetDisplayableManagers(self.managers)
        interactor.SetInteractorStyle(vtk.vtkInteractorStyle3D())
        self.style.SetInteractor(interactor)

    def resize(self, width: int, height: int) -> None:
        self._requestRender()

    def fit(self) -> None:
        """Focus on what is shown, the wire box and its letters left out of account."""
        box, letters = self.node.GetBoxVisible(), self.node.GetAxisLabelsVisible()
        self.node.SetBoxVisible(0)
        self.node.SetAxisLabelsVisible(0)
        self.renderer.ResetCamera()
        self.node.SetBoxVisible(box)
        self.node.SetAxisLabelsVisible(letters)
        self.node.InvokeEvent(slicer.vtkMRMLViewNode.ResetFocalPointRequestedEvent)
        self.renderer.ResetCameraClippingRange()
        self._requestRender()

    def close(self) -> None:
        super().close()
        self.applicationLogic.GetViewLogics().RemoveItem(self.logic)
        self.logic.SetMRMLScene(None)


class PlotView:
    """Draws the chart node of a plot view node with VTK's charts: lines, scatter, bars; titles, axes, grid, legend."""

    def __init__(
        self,
        applicationLogic: slicer.vtkSlicerApplicationLogic,
        node: slicer.vtkMRMLNode | None,
        renderWindow: vtk.vtkRenderWindow,
        interactor: vtk.vtkRenderWindowInteractor,
    ) -> None:
        self.scene, self.renderWindow = applicationLogic.GetMRMLScene(), renderWindow
        self.renderRequested = None
        renderWindow.SetMultiSamples(8)  # thin lines
        self.chart = vtk.vtkChartXY()
        self.contextScene = vtk.vtkContextScene()
        self.contextScene.AddItem(self.chart)
        self.actor = vtk.vtkContextActor()
        self.actor.SetScene(self.contextScene)
        self.renderer = vtk.vtkRenderer()
        self.renderer.SetBackground(1, 1, 1)
        self.renderer.AddActor(self.actor)
        renderWindow.AddRenderer(self.renderer)
        self.contextScene.SetRenderer(self.renderer)
        style = vtk.vtkContextInteractorStyle()
        style.SetScene(self.contextScene)
        interactor.SetInteractorStyle(style)
        self._observed = []
        self._viewTag = None
        self.node = None
        self.setNode(node)

    def setNode(self, node: slicer.vtkMRMLNode | None) -> None:
        if self._viewTag is not None:
            self.node.RemoveObserver(self._viewTag)
        self.node = node
        self._viewTag = None if node is None else node.AddObserver(vtk.vtkCommand.AnyEvent, self._onModified)
        self.update()

    def _onModified(self, caller, event) -> None:
        if event in ("ModifiedEvent", "UserEvent", "AnyEvent") or event.startswith(("Reference", "NoEvent")):
            self.update()

    def chartNode(self) -> slicer.vtkMRMLPlotChartNode | None:
        return None if self.node is None else self.node.GetPlotChartNode()

    def _observe(self, objects) -> None:
        for thing, tag in self._observed:
            thing.RemoveObserver(tag)
        self._observed = [
            (thing, thing.AddObserver(vtk.vtkCommand.AnyEvent, self._onModified))
            for thing in objects
            if thing is not None
        ]

    def update(self) -> None:
        """Draws everything anew."""
        chart, node = self.chart, self.chartNode()
        series = []
        if node is not None:
            series = [node.GetNthPlotSeriesNode(i) for i in range(node.GetNumberOfPlotSeriesNodes())]
            series = [one for one in series if one is not None]
        tables = [one.GetTableNode() for one in series]
        self._observe([node, *series, *dict.fromkeys(tables)])
        chart.ClearPlots()
        chart.SetVisible(node is not None)
        if node is not None:
            self._setAppearance(chart, node)
            for one, table in zip(series, tables, strict=True):
                if table is not None and table.GetTable() is not None:
                    self._addSeries(chart, one, table.GetTable())
            chart.RecalculateBounds()
        if self.renderRequested is not None:
            self.renderRequested()

    def _setAppearance(self, chart, node) -> None:
        chart.SetTitle((node.GetTitle() or "") if node.GetTitleVisibility() else "")
        chart.GetTitleProperties().SetFontSize(node.GetTitleFontSize())
        chart.GetTitleProperties().SetColor(0, 0, 0)
        chart.SetShowLegend(bool(node.GetLegendVisibility()))
        chart.GetLegend().SetLabelSize(node.GetLegendFontSize())
        for letter, index in _AXES.items():
            axis = chart.GetAxis(index)
            title = getattr(node, f"Get{letter}AxisTitle")() or ""
            axis.SetTitle(title if getattr(node, f"Get{letter}AxisTitleVisibility")() else "")
            axis.GetTitleProperties().SetFontSize(node.GetAxisTitleFontSize())
            axis.GetLabelProperties().SetFontSize(node.GetAxisLabelFontSize())
            axis.SetGridVisible(bool(node.GetGridVisibility()))
            axis.SetLogScale(bool(getattr(node, f"Get{letter}AxisLogScale")()))
            if getattr(node, f"Get{letter}AxisRangeAuto")():
                axis.SetBehavior(vtk.vtkAxis.AUTO)
            else:
                low, high = getattr(node, f"Get{letter}AxisRange")()
                axis.SetBehavior(vtk.vtkAxis.FIXED)
                axis.SetRange(low, high)

    @staticmethod
    def _addSeries(chart, node, table) -> None:
        xName, yName = node.GetXColumnName(), node.GetYColumnName()
        y = table.GetColumnByName(yName) if yName else None
        if y is None or table.GetNumberOfRows() == 0:
            return
        scatter = node.IsPlotTypeScatter() if hasattr(node, "IsPlotTypeScatter") else True
        isBar = node.GetPlotType() in (node.PlotTypeBar, node.PlotTypeScatterBar)
        plot = chart.AddPlot(vtk.vtkChart.BAR if isBar else vtk.vtkChart.LINE)
        x = table.GetColumnByName(xName) if scatter and xName else None
        if x is None:
            plot.SetUseIndexForXSeries(True)
            index = next(i for i in range(table.GetNumberOfColumns()) if table.GetColumnName(i) == yName)
            plot.SetInputData(table, index, index)
        else:
            plot.SetInputData(table, xName, yName)
        plot.SetLabel(node.GetName() or "")
        r, g, b = node.GetColor()
        plot.SetColorF(r, g, b, node.GetOpacity())
        if isBar:
            return
        plot.SetWidth(node.GetLineWidth())
        if plot.GetPen() is not None:
            styles = {
                node.LineStyleNone: vtk.vtkPen.NO_PEN,
                node.LineStyleSolid: vtk.vtkPen.SOLID_LINE,
                node.LineStyleDash: vtk.vtkPen.DASH_LINE,
                node.LineStyleDot: vtk.vtkPen.DOT_LINE,
                node.LineStyleDashDot: vtk.vtkPen.DASH_DOT_LINE,
                node.LineStyleDashDotDot: vtk.vtkPen.DASH_DOT_DOT_LINE,
            }
            plot.GetPen().SetLineType(styles.get(node.GetLineStyle(), vtk.vtkPen.SOLID_LINE))
        markers = {
            node.MarkerStyleNone: vtk.vtkPlotPoints.NONE,
            node.MarkerStyleCross: vtk.vtkPlotPoints.CROSS,
            node.MarkerStylePlus: vtk.vtkPlotPoints.PLUS,
            node.MarkerStyleSquare: vtk.vtkPlotPoints.SQUARE,
            node.MarkerStyleCircle: vtk.vtkPlotPoints.CIRCLE,
            node.MarkerStyleDiamond: vtk.vtkPlotPoints.DIAMOND,
        }
        plot.SetMarkerStyle(markers.get(node.GetMarkerStyle(), vtk.vtkPlotPoints.NONE))
        plot.SetMarkerSize(node.GetMarkerSize())

    def resize(self, width: int, height: int) -> None:
        if self.renderRequested is not None:
            self.renderRequested()

    def fit(self) -> None:
        self.chart.RecalculateBounds()
        if self.renderRequested is not None:
            self.renderRequested()

    def render(self) -> None:
        self.renderWindow.Render()

    def close(self) -> None:
        self.renderRequested = None
        self._observe([])
        if self._viewTag is not None:
            self.node.RemoveObserver(self._viewTag)
        self._viewTag = None
        self.renderWindow.Finalize()
