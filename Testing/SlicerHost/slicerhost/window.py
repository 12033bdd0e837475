# SPDX-License-Identifier: Apache-2.0
"""The main window: module panel on the left, views on the right."""

from __future__ import annotations

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .layoutmanager import qSlicerLayoutManager
from .uiloader import register

TITLE = "Test host for Slicer modules (this is not 3D Slicer)"


class qSlicerModuleSelectorToolBar(QtWidgets.QToolBar):
    moduleSelected = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__("Module Selection", parent)
        self.setObjectName("ModuleSelectorToolBar")
        self._name = ""
        self.addWidget(QtWidgets.QLabel(" Modules: "))
        self._combo = QtWidgets.QComboBox()
        self._combo.setMinimumContentsLength(28)
        self._combo.activated.connect(self._onActivated)
        self.addWidget(self._combo)

    def _addModule(self, module):
        if self._combo.findData(module.name) < 0:
            self._combo.addItem(module.title, module.name)

    def _forget(self, name):
        self._name = "" if self._name == name else self._name  # loaded again, it can be selected again

    def _onActivated(self, index):
        self.selectModule(self._combo.itemData(index))

    def selectModule(self, name: str) -> None:
        if slicer.app.moduleManager().module(name) is None or name == self._name:
            return
        self._name = name
        self._combo.setCurrentIndex(self._combo.findData(name))
        self.moduleSelected.emit(name)

    selectedModule = QtCore.Property(str, lambda self: self._name)


class _PanelArea(QtWidgets.QScrollArea):
    """Scrolls a panel up and down only: it is never narrower than the panel, as in Slicer."""

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarAlwaysOff)
        self.setMinimumWidth(430)

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:
        if watched is self.widget() and event.type() in (QtCore.QEvent.Resize, QtCore.QEvent.LayoutRequest):
            bar = self.verticalScrollBar().sizeHint.width()
            self.setMinimumWidth(max(430, watched.minimumSizeHint.width() + bar + 2 * self.frameWidth))
        return super().eventFilter(watched, event)


class qSlicerMainWindow(QtWidgets.QMainWindow):
    def __init__(self, scene: slicer.vtkMRMLScene | None) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle(TITLE)
        self.resize(1366, 768)
        self._selector = qSlicerModuleSelectorToolBar(self)
        self.addToolBar(self._selector)

        self._dock = QtWidgets.QDockWidget("Module panel", self)
        self._dock.setObjectName("PanelDockWidget")
        self._dock.setFeatures(QtWidgets.QDockWidget.DockWidgetFeature.NoDockWidgetFeatures)
        self._dock.setTitleBarWidget(QtWidgets.QWidget())
        self._scroll = _PanelArea()
        self._dock.setWidget(self._scroll)
        self.addDockWidget(QtCore.Qt.DockWidgetArea.LeftDockWidgetArea, self._dock)

        views = QtWidgets.QWidget()
        views.setObjectName("CentralWidgetLayoutFrame")
        self.setCentralWidget(views)
        self._layoutManager = qSlicerLayoutManager(scene, views)
        note = "Test host, not 3D Slicer: real scene and views, stand-in widgets"
        self.statusBar().addPermanentWidget(QtWidgets.QLabel(note))

    def moduleSelector(self) -> qSlicerModuleSelectorToolBar:
        return self._selector

    def _showPanel(self, widget):
        self._scroll.takeWidget()
        self._scroll.setWidget(widget)
        widget.show()

    def closeEvent(self, event: QtGui.QCloseEvent) -> None:
        event.accept()


for _class in (qSlicerModuleSelectorToolBar, qSlicerMainWindow, qSlicerLayoutManager):
    register(_class.__name__, _class)
