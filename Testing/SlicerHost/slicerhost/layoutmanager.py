# SPDX-License-Identifier: Apache-2.0
"""Arranges views as the scene's layout node describes. The descriptions and the view nodes are Slicer's own."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .observers import Observers
from .viewwidgets import qMRMLPlotWidget, qMRMLSliceWidget, qMRMLThreeDWidget

_WIDGETS = {
    "vtkMRMLSliceNode": (qMRMLSliceWidget, "setMRMLSliceNode"),
    "vtkMRMLViewNode": (qMRMLThreeDWidget, "setMRMLViewNode"),
    "vtkMRMLPlotViewNode": (qMRMLPlotWidget, "setMRMLPlotViewNode"),
}


class qSlicerLayoutManager(QtCore.QObject):
    """Stand-in of Slicer's layout manager. Table views are not offered: a layout with one shows a note in its place."""

    layoutChanged = QtCore.Signal(int)

    def __init__(self, scene: slicer.vtkMRMLScene | None, viewport: QtWidgets.QWidget) -> None:
        super().__init__(viewport)
        self._scene, self._viewport = scene, viewport
        self._widgets = {}  # (class of the view node, its singleton tag) -> widget, in the order of their making
        self._paused = 0
        self._frame = QtWidgets.QVBoxLayout(viewport)
        self._frame.setContentsMargins(0, 0, 0, 0)
        self._root = None
        self._arrangement = None
        self._observers = Observers(self)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)
        self._observers.add(self._logic.GetLayoutNode(), vtk.vtkCommand.ModifiedEvent, "_onLayoutNodeModified")
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    # Arrangement -----------------------------------------------------------------------------------------------------

    def _onLayoutNodeModified(self, *_):
        node = self._logic.GetLayoutNode()
        state = (node.GetViewArrangement(), node.GetCurrentLayoutDescription())
        if state != self._arrangement and state[1]:
            self._arrangement = state
            self._build(ElementTree.fromstring(state[1]))
            self.layoutChanged.emit(state[0])

    def _build(self, description):
        old = self._root
        for widget in self._widgets.values():
            widget.setParent(self._viewport)
            widget.hide()
        self._root = self._layoutWidget(description)
        self._frame.addWidget(self._root)
        if old is not None:
            self._frame.removeWidget(old)
            old.deleteLater()

    def _layoutWidget(self, element):
        kind = element.get("type", "horizontal")
        if kind == "tab":
            box = QtWidgets.QTabWidget()
            for item in element:
                box.addTab(self._itemWidget(item), item.get("name") or "")
            return box
        box = QtWidgets.QWidget()
        if kind == "grid":
            grid = QtWidgets.QGridLayout(box)
            grid.setContentsMargins(0, 0, 0, 0)
            for n, item in enumerate(element):
                grid.addWidget(self._itemWidget(item), int(item.get("row", n)), int(item.get("column", 0)))
            return box
        if element.get("split") == "true":
            direction = QtCore.Qt.Orientation.Vertical if kind == "vertical" else QtCore.Qt.Orientation.Horizontal
            splitter = QtWidgets.QSplitter(direction)
            for item in element:
                splitter.addWidget(self._itemWidget(item))
            return splitter
        row = (QtWidgets.QVBoxLayout if kind == "vertical" else QtWidgets.QHBoxLayout)(box)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for item in element:
            row.addWidget(self._itemWidget(item), int(item.get("splitSize", 1)))
        return box

    def _itemWidget(self, item):
        content = item[0]
        if content.tag == "layout":
            return self._layoutWidget(content)
        widget = self._viewWidget(content.get("class"), content.get("singletontag"))
        widget.show()
        return widget

    def _viewWidget(self, className, tag):
        if className not in _WIDGETS:
            return QtWidgets.QLabel(f"No {className} in this test host")
        if (className, tag) not in self._widgets:
            widgetClass, setter = _WIDGETS[className]
            node = self._scene.GetSingletonNode(tag, className)
            widget = widgetClass(self._viewport)
            widget.setObjectName(f"{widgetClass.__name__}{tag}")
            widget.setMRMLScene(self._scene)
            getattr(widget, setter)(node)
            for _ in range(self._paused):
                widget.pauseRender()
            self._widgets[className, tag] = widget
        return self._widgets[className, tag]

    def _ofClass(self, className):
        return [widget for (kind, _), widget in self._widgets.items() if kind == className]

    # What modules call -----------------------------------------------------------------------------------------------

    def setLayout(self, layout: int) -> None:
        self._logic.GetLayoutNode().SetViewArrangement(int(layout))
        self._onLayoutNodeModified()

    layout = QtCore.Property(int, lambda self: self._logic.GetLayoutNode().GetViewArrangement(), setLayout)
    threeDViewCount = QtCore.Property(int, lambda self: len(self._ofClass("vtkMRMLViewNode")))
    plotViewCount = QtCore.Property(int, lambda self: len(self._ofClass("vtkMRMLPlotViewNode")))
    tableViewCount = QtCore.Property(int, lambda self: 0)

    def layoutLogic(self) -> slicer.vtkMRMLLayoutLogic:
        return self._logic

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self._scene

    def sliceViewNames(self) -> tuple[str, ...]:
        """In an order that nobody may rely on: in Slicer it came as Yellow, Red, Green."""
        return tuple(tag for kind, tag in reversed(self._widgets) if kind == "vtkMRMLSliceNode")

    def sliceWidget(self, name: str) -> Any:
        return self._widgets.get(("vtkMRMLSliceNode", name))

    def _nth(self, className, index):
        found = self._ofClass(className)
        return found[index] if 0 <= index < len(found) else None

    def threeDWidget(self, index: int | str) -> Any:
        if isinstance(index, str):
            return self._widgets.get(("vtkMRMLViewNode", index))
        return self._nth("vtkMRMLViewNode", index)

    def plotWidget(self, index: int) -> Any:
        return self._nth("vtkMRMLPlotViewNode", index)

    def tableWidget(self, index: int) -> Any:
        return None

    def viewWidget(self, node: slicer.vtkMRMLNode | None) -> Any:
        return self._widgets.get((node.GetClassName(), node.GetSingletonTag()))

    def viewWidgets(self) -> tuple[QtWidgets.QWidget, ...]:
        return tuple(self._widgets.values())

    def mrmlSliceLogics(self) -> vtk.vtkCollection:
        return slicer.app.applicationLogic().GetSliceLogics()

    def mrmlViewLogics(self) -> vtk.vtkCollection:
        return slicer.app.applicationLogic().GetViewLogics()

    def activeMRMLThreeDViewNode(self) -> slicer.vtkMRMLViewNode | None:
        widget = self._nth("vtkMRMLViewNode", 0)
        return None if widget is None else widget.mrmlViewNode()

    def resetSliceViews(self) -> None:
        for widget in self._ofClass("vtkMRMLSliceNode"):
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        for widget in self._ofClass("vtkMRMLViewNode"):
            widget.threeDView().resetFocalPoint()

    def setRenderPaused(self, pause: bool) -> None:
        self._paused = max(0, self._paused + (1 if pause else -1))
        for widget in self._widgets.values():
            widget.setRenderPaused(pause)

    def pauseRender(self) -> None:
        self.setRenderPaused(True)

    def resumeRender(self) -> None:
        self.setRenderPaused(False)

    def _close(self):
        self._observers.clear()
        for widget in self._widgets.values():
            widget._close()
        self._widgets.clear()
        self._logic.SetMRMLScene(None)
