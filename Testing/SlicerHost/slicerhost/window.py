# SPDX-License-Identifier: Apache-2.0
"""The main window: module panel on the left, views on the right."""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from .ctkwidgets import ctkCollapsibleButton
from .layoutmanager import qSlicerLayoutManager
from .modulepanel import qSlicerModulePanel
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


class qSlicerMainWindow(QtWidgets.QMainWindow):
    """The parts of Slicer's window that leave a module its room: menus, tool bar, logo, Data Probe and status bar.

    At 1366 x 768 a module's panel is about 440 x 450 pixels, as measured in Slicer.
    """

    def __init__(self, scene: slicer.vtkMRMLScene | None) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle(TITLE)
        self.resize(1366, 768)
        for title in ("File", "Edit", "View", "Help"):
            self.menuBar().addMenu(f"&{title}").setObjectName(f"{title}Menu")
        self._asked: list[tuple[str, ...]] | None = None
        self._addCloseAction()
        self._selector = qSlicerModuleSelectorToolBar(self)
        self._selector.setMinimumHeight(40)
        self.addToolBar(self._selector)

        self._dock = QtWidgets.QDockWidget("Module panel", self)
        self._dock.setObjectName("PanelDockWidget")
        self._dock.setFeatures(QtWidgets.QDockWidget.DockWidgetFeature.NoDockWidgetFeatures)
        logo = QtWidgets.QLabel(" Test host")
        logo.setFixedHeight(36)
        self._dock.setTitleBarWidget(logo)
        contents = QtWidgets.QWidget()
        contents.setObjectName("dockWidgetContents")
        contents.setSizePolicy(QtWidgets.QSizePolicy.Policy.Minimum, QtWidgets.QSizePolicy.Policy.Preferred)
        column = QtWidgets.QVBoxLayout(contents)
        column.setSpacing(2)
        column.setContentsMargins(0, 2, 0, 0)
        self._panel = qSlicerModulePanel(contents)
        column.addWidget(self._panel)
        column.addWidget(self._dataProbe(contents))
        self._dock.setWidget(contents)
        self.addDockWidget(QtCore.Qt.DockWidgetArea.LeftDockWidgetArea, self._dock)

        views = QtWidgets.QWidget()
        views.setObjectName("CentralWidgetLayoutFrame")
        self.setCentralWidget(views)
        self._scene = scene
        self._layoutManager = qSlicerLayoutManager(scene, views)
        note = "Test host, not 3D Slicer: real scene and views, stand-in widgets"
        self.statusBar().addPermanentWidget(QtWidgets.QLabel(note))
        self.statusBar().setMinimumHeight(36)
        self.resizeDocks([self._dock], [470], QtCore.Qt.Orientation.Horizontal)

    @staticmethod
    def _dataProbe(parent):
        probe = ctkCollapsibleButton(parent)
        probe.setObjectName("DataProbeCollapsibleWidget")
        probe.setText("Data Probe")
        probe.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)
        probe.collapsedHeight = 0
        QtWidgets.QHBoxLayout(probe).addWidget(QtWidgets.QLabel("Not in this test host"))
        probe.setFixedHeight(168)
        return probe

    def moduleSelector(self) -> qSlicerModuleSelectorToolBar:
        return self._selector

    def _modifiedNodes(self):
        """Names of the nodes that were changed since they were read, as Slicer's question lists them."""
        found = vtk.vtkCollection()
        self._scene.GetStorableNodesModifiedSinceRead(found)
        self._scene.GetModifiedSinceRead(found)
        nodes = {found.GetItemAsObject(index) for index in range(found.GetNumberOfItems())}
        return tuple(sorted(node.GetName() or "unnamed" for node in nodes))

    def _addCloseAction(self):
        action = QtGui.QAction("Close Scene", self)
        action.setObjectName("FileCloseSceneAction")
        action.setShortcut(QtGui.QKeySequence("Ctrl+W"))
        action.triggered.connect(self._closeScene)
        self.findChild(QtWidgets.QMenu, "FileMenu").addAction(action)

    def _closeScene(self):
        if self._mayGo("Save before closing scene?"):
            self._scene.Clear(0)

    def _mayGo(self, title):
        """Asks as Slicer does when the scene was changed; notes it instead if `_asked` is a list."""
        names = self._modifiedNodes()
        if self._asked is not None:
            self._asked.append(names)
            return True
        text = "The scene has been modified and cannot be saved in this test host. Go on?\n\n" + "\n".join(names)
        buttons = QtWidgets.QMessageBox
        return not names or buttons.question(self, title, text) == buttons.Yes

    def closeEvent(self, event: QtGui.QCloseEvent) -> None:
        """Asks before a person closes the window, as Slicer does."""
        asks = event.spontaneous() or self._asked is not None
        event.setAccepted(not asks or self._mayGo("Save before exit?"))


for _class in (qSlicerModuleSelectorToolBar, qSlicerMainWindow, qSlicerLayoutManager):
    register(_class.__name__, _class)
