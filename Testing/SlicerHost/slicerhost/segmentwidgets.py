# SPDX-License-Identifier: Apache-2.0
"""Stand-ins of the widgets that list segments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .mrmlwidgets import qMRMLNodeComboBox, qMRMLWidget
from .observers import Observers
from .pythonqt import stored
from .uiloader import register

Signal, Property = QtCore.Signal, QtCore.Property
Qt = QtCore.Qt
_VISIBLE, _COLOR, _OPACITY, _NAME = range(4)


@register("qMRMLSegmentsTableView")
class qMRMLSegmentsTableView(qMRMLWidget):
    """A row for each segment: shown or hidden, color, opacity, name."""

    selectionChanged = Signal(object, object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._table = table = QtWidgets.QTableWidget(0, 4, self)
        table.setObjectName("SegmentsTable")
        table.setHorizontalHeaderLabels(["", "", "Opacity", "Name"])
        table.horizontalHeaderItem(_VISIBLE).setToolTip("Visibility")
        table.horizontalHeaderItem(_COLOR).setToolTip("Color")
        table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(24)
        for column, width in ((_VISIBLE, 28), (_COLOR, 28), (_OPACITY, 62)):
            table.setColumnWidth(column, width)
        table.setMinimumHeight(40)
        layout.addWidget(table)
        self._node, self._filling, self._hiddenIDs = None, False, ()
        self._observers = Observers(self)
        table.itemChanged.connect(self._onItemChanged)
        table.itemSelectionChanged.connect(self._onSelectionChanged)
        table.itemDoubleClicked.connect(self._onDoubleClicked)

    headerVisible = QtCore.Property(
        bool,
        lambda self: not self._table.horizontalHeader().isHidden(),
        lambda self, shown: self._table.horizontalHeader().setVisible(shown),
    )

    def segmentationNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        return self._node

    def setSegmentationNode(self, node: slicer.vtkMRMLNode | None) -> None:
        self._observers.clear()
        self._node = node
        if node is not None:
            kind = slicer.vtkSegmentation
            for event in (kind.SegmentAdded, kind.SegmentRemoved, kind.SegmentModified, kind.SegmentsOrderModified):
                self._observers.add(node, event, "_fill")
            self._observers.add(node, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, "_fill")
        self._fill()

    def _segments(self):
        """(ID, segment) of each row."""
        segmentation = None if self._node is None else self._node.GetSegmentation()
        count = 0 if segmentation is None else segmentation.GetNumberOfSegments()
        pairs = [(segmentation.GetNthSegmentID(i), segmentation.GetNthSegment(i)) for i in range(count)]
        return [pair for pair in pairs if pair[0] not in self._hiddenIDs]

    def _fill(self, *_):
        if self._filling:
            return
        table, selected, segments = self._table, self.selectedSegmentIDs(), self._segments()
        display = None if self._node is None else self._node.GetDisplayNode()
        self._filling = True
        table.setRowCount(len(segments))
        for row, (segmentID, segment) in enumerate(segments):
            items = [QtWidgets.QTableWidgetItem() for _ in range(4)]
            items[_VISIBLE].setFlags(Qt.ItemIsEnabled | Qt.ItemIsUserCheckable | Qt.ItemIsSelectable)
            shown = display is not None and display.GetSegmentVisibility(segmentID)
            items[_VISIBLE].setCheckState(Qt.Checked if shown else Qt.Unchecked)
            items[_VISIBLE].setData(Qt.UserRole, segmentID)
            items[_COLOR].setBackground(QtGui.QBrush(QtGui.QColor.fromRgbF(*segment.GetColor())))
            items[_COLOR].setFlags(Qt.ItemIsEnabled)
            items[_OPACITY].setText("" if display is None else f"{display.GetSegmentOpacity3D(segmentID):.2f}")
            items[_NAME].setText(segment.GetName() or "")
            for column, item in enumerate(items):
                table.setItem(row, column, item)
        self.setSelectedSegmentIDs(selected)
        self._filling = False
        if self.selectedSegmentIDs() != selected:
            self.selectionChanged.emit(None, None)

    def _onItemChanged(self, item):
        if self._filling or self._node is None:
            return
        segmentID, display = self.segmentIDForRow(item.row()), self._node.GetDisplayNode()
        if item.column() == _VISIBLE:
            display.SetSegmentVisibility(segmentID, item.checkState() == Qt.Checked)
        elif item.column() == _OPACITY:
            try:
                display.SetSegmentOpacity(segmentID, min(1.0, max(0.0, float(item.text()))))
            except ValueError:
                self._fill()
        elif item.column() == _NAME:
            self._node.GetSegmentation().GetSegment(segmentID).SetName(item.text())

    def _onSelectionChanged(self):
        if not self._filling:
            self.selectionChanged.emit(None, None)

    def _onDoubleClicked(self, item):
        if item.column() == _COLOR and not self.readOnly:
            segment = self._node.GetSegmentation().GetSegment(self.segmentIDForRow(item.row()))
            color = QtWidgets.QColorDialog.getColor(QtGui.QColor.fromRgbF(*segment.GetColor()), self)
            if color.isValid():
                segment.SetColor(color.redF(), color.greenF(), color.blueF())

    # What modules call -----------------------------------------------------------------------------------------------

    def segmentIDForRow(self, row: int) -> str:
        item = self._table.item(row, _VISIBLE)
        return "" if item is None else item.data(Qt.UserRole)

    def rowForSegmentID(self, segmentID: str) -> int:
        rows = range(self._table.rowCount)
        return next((row for row in rows if self.segmentIDForRow(row) == segmentID), -1)

    def displayedSegmentIDs(self) -> tuple[str, ...]:
        return tuple(self.segmentIDForRow(row) for row in range(self._table.rowCount))

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        rows = sorted({index.row() for index in self._table.selectionModel().selectedIndexes})
        return tuple(self.segmentIDForRow(row) for row in rows if self.segmentIDForRow(row))

    def setSelectedSegmentIDs(self, segmentIDs: Iterable[str]) -> None:
        if self.selectedSegmentIDs() == tuple(segmentIDs):
            return
        selection = QtCore.QItemSelection()
        last = self._table.columnCount - 1
        model = self._table.model()
        for row in range(self._table.rowCount):
            if self.segmentIDForRow(row) in segmentIDs:
                selection.select(model.index(row, 0), model.index(row, last))
        flags = QtCore.QItemSelectionModel
        self._table.selectionModel().select(selection, flags.ClearAndSelect | flags.Rows)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def setHideSegments(self, segmentIDs: Iterable[str]) -> None:
        self._hiddenIDs = tuple(segmentIDs)
        self._fill()

    def hideSegments(self) -> tuple[str, ...]:
        return self._hiddenIDs

    def tableWidget(self) -> Any:
        return self._table

    def setSelectionMode(self, mode: int) -> None:
        self._table.setSelectionMode(mode)

    selectionMode = Property(int, lambda self: self._table.selectionMode, setSelectionMode)

    def _setHeaderVisible(self, visible):
        self._table.horizontalHeader().setVisible(visible)

    def setHeaderVisible(self, visible: bool) -> None:
        self._setHeaderVisible(visible)

    headerVisible = Property(bool, lambda self: not self._table.horizontalHeader().isHidden(), _setHeaderVisible)

    def _column(index):
        def put(self, visible):
            self._table.setColumnHidden(index, not visible)

        return Property(bool, lambda self: not self._table.isColumnHidden(index), put), put

    visibilityColumnVisible, setVisibilityColumnVisible = _column(_VISIBLE)
    colorColumnVisible, setColorColumnVisible = _column(_COLOR)
    opacityColumnVisible, setOpacityColumnVisible = _column(_OPACITY)
    del _column
    # Kept only: there are no such columns here, and no bar with filters.
    statusColumnVisible = stored(bool, False)
    layerColumnVisible = stored(bool, False)
    filterBarVisible = stored(bool, False)

    def setReadOnly(self, readOnly: bool) -> None:
        self._readOnly = bool(readOnly)
        triggers = QtWidgets.QAbstractItemView
        self._table.setEditTriggers(
            triggers.NoEditTriggers if readOnly else triggers.DoubleClicked | triggers.EditKeyPressed
        )

    _readOnly = False
    readOnly = Property(bool, lambda self: self._readOnly, setReadOnly)
    segmentCount = Property(int, lambda self: self._table.rowCount)


@register("qMRMLSegmentSelectorWidget")
class qMRMLSegmentSelectorWidget(qMRMLWidget):
    """Chooses a segmentation and one of its segments."""

    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._nodes = qMRMLNodeComboBox(self)
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes.addEnabled = self._nodes.removeEnabled = False
        self._segments = QtWidgets.QComboBox(self)
        layout.addWidget(self._nodes)
        layout.addWidget(self._segments)
        self._observers = Observers(self)
        self._nodes.currentNodeChanged.connect(self._onNodeChanged)
        self._segments.currentIndexChanged.connect(self._onSegmentChanged)

    def _onSceneSet(self):
        self._nodes.setMRMLScene(self._scene)

    def _onNodeChanged(self, node):
        self._observers.clear()
        if node is not None:
            kind = slicer.vtkSegmentation
            for event in (kind.SegmentAdded, kind.SegmentRemoved, kind.SegmentModified):
                self._observers.add(node, event, "_fill")
        self._fill()
        self.currentNodeChanged.emit(node)

    def _fill(self, *_):
        current, node = self.currentSegmentID(), self.currentNode()
        blocked = self._segments.blockSignals(True)
        self._segments.clear()
        if node is not None:
            segmentation = node.GetSegmentation()
            for index in range(segmentation.GetNumberOfSegments()):
                self._segments.addItem(segmentation.GetNthSegment(index).GetName(), segmentation.GetNthSegmentID(index))
        self._segments.setCurrentIndex(max(0, self._segments.findData(current)))
        self._segments.blockSignals(blocked)
        if self.currentSegmentID() != current:
            self._onSegmentChanged()

    def _onSegmentChanged(self, *_):
        self.currentSegmentChanged.emit(self.currentSegmentID())

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        return self._nodes.currentNode()

    def currentNodeID(self) -> str:
        return self._nodes.currentNodeID

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        self._nodes.setCurrentNode(node)

    def currentSegmentID(self) -> str:
        return self._segments.currentData or ""

    def setCurrentSegmentID(self, segmentID: str) -> None:
        self._segments.setCurrentIndex(self._segments.findData(segmentID))
