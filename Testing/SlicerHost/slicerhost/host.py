# SPDX-License-Identifier: Apache-2.0
"""Everything put together: application, scene, window, modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from . import segmenteditor, standins, window
from .app import Modules, application, qSlicerLoadableModule
from .core import Core
from .mrmlwidgets import qMRMLWidget
from .uiloader import register, registered


class qSlicerScriptedLoadableModule(qSlicerLoadableModule):
    """A scripted module. Its Python class sets title, categories and so on as attributes."""

    def __init__(self, name: str, path: str | Path, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(name, None, parent, path)
        self._python, self._make, self._widget = None, None, None

    def widgetRepresentation(self) -> QtWidgets.QWidget | None:
        if self._widget is None and self._make is not None:
            self._widget = self._make()
        return self._widget

    def createNewWidgetRepresentation(self) -> QtWidgets.QWidget:
        return self._make()


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._python = self._make = None
        self._isEntered = False

    isEntered = QtCore.Property(bool, lambda self: self._isEntered)

    def reload(self) -> None:
        """Makes the Python widget anew from the module's present code, as slicer.util.reloadScriptedModule wants."""
        self._make()

    def self(self) -> Any:
        return self._python

    def module(self) -> Any:
        return slicer.app.moduleManager().module(self._python.moduleName)


class Host:
    """``slicer.app``, ``slicer.mrmlScene``, ``slicer.modules`` and a window; one at a time in a process.

    Call `close` at the end. Tests share one host and clear the scene between them.
    """

    def __init__(self, testing: bool = False) -> None:
        self.app = slicer.app = application()
        self.app._testing = testing
        self.core = Core()
        self.modules = slicer.modules = Modules()
        for name, logic in self.core.logics.items():
            setattr(self.modules, name.lower(), qSlicerLoadableModule(name, logic, self.app))
        self.app._open(self.core, self.modules)
        assert segmenteditor  # imported so that its widgets are registered
        for name, widgetClass in registered().items():
            if name.startswith(("qMRML", "qSlicer")):
                setattr(slicer, name, widgetClass)
        standins.install()
        self.window = window.qSlicerMainWindow(self.core.scene)
        self.app._layoutManager = self.window._layoutManager
        self.window._selector.moduleSelected.connect(self._onModuleSelected)
        self._entered = None

    def loadModule(self, path: str | Path) -> Any:
        """Imports a scripted module, unless that was done before, and shows its panel.

        Args:
            path: the module's Python file.

        Returns:
            The module's Python widget, also ``slicer.modules.<name>Widget``.
        """
        name = Path(path).stem
        if self.app.moduleManager().module(name) is None:
            self.addModule(path)
            self.app.startupCompleted.emit()
        slicer.util.selectModule(name)
        return slicer.util.getModuleWidget(name)

    def addModule(self, path: str | Path) -> qSlicerScriptedLoadableModule:
        """Imports a scripted module as Slicer does at start: its panel is made when it is first chosen."""
        path = Path(path).resolve()
        name = path.stem
        module = qSlicerScriptedLoadableModule(name, str(path), self.app)
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(name, path)
        python = importlib.util.module_from_spec(spec)
        sys.modules[name] = python
        spec.loader.exec_module(python)
        module._python = getattr(python, name)(module)
        setattr(self.modules, name.lower(), module)
        setattr(self.modules, f"{name}Instance", module._python)

        def make():
            widget = qSlicerScriptedLoadableModuleWidget()
            widget.setObjectName(f"{name}ModuleWidget")
            widget.setLayout(QtWidgets.QVBoxLayout())
            widget.setMRMLScene(slicer.mrmlScene)

            def makePython():
                widget._python = getattr(sys.modules[name], f"{name}Widget")(widget)
                setattr(self.modules, f"{name}Widget", widget._python)
                widget._python.setup()

            widget._make = makePython
            makePython()
            return widget

        module._make = make
        self.window._selector._addModule(module)
        self.app.moduleManager().moduleLoaded.emit(name)
        return module

    def _onModuleSelected(self, name):
        self._leave()
        module = self.app.moduleManager().module(name)
        widget = module.widgetRepresentation()
        if widget is None:
            return
        self.window._panel._setModule(module, widget)
        self._entered = widget
        widget._isEntered = True
        if hasattr(widget._python, "enter"):
            widget._python.enter()

    def _leave(self):
        widget, self._entered = self._entered, None
        if widget is not None:
            widget._isEntered = False
            if hasattr(widget._python, "exit"):
                widget._python.exit()

    def processEvents(self, seconds: float = 0.0) -> None:
        """Lets the event loop run until nothing is left to do, or for ``seconds``."""
        timer = QtCore.QElapsedTimer()
        timer.start()
        self.app.processEvents()
        while timer.elapsed() < 1000 * seconds:
            self.app.processEvents(QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents, 10)

    def unsavedNodes(self) -> tuple[str, ...]:
        """Names of the nodes for whose sake Slicer asks whether to save the scene when it quits."""
        return self.window._modifiedNodes()

    def askedAtQuit(self) -> tuple[str, ...]:
        """Names that Slicer's question lists when a person closes the window; empty: no question. The window stays."""
        return self._asked(lambda: self.app.sendEvent(self.window, QtGui.QCloseEvent()))

    def askedAtCloseScene(self) -> tuple[str, ...]:
        """Names that Slicer's question lists when a person closes the scene by its key, which closes it."""
        action = self.window.findChild(QtGui.QAction, "FileCloseSceneAction")
        return self._asked(lambda: self.app.sendEvent(action, QtGui.QShortcutEvent(QtGui.QKeySequence("Ctrl+W"), 0)))

    def _asked(self, act):
        self.window._asked = asked = []
        try:
            act()
        finally:
            self.window._asked = None
        return asked[0]

    def unloadModule(self, name: str) -> None:
        """What Slicer does with a module when it quits: exit, cleanup, delete.

        ``slicer.modules.<name>``, and with it the module's path, is gone when `cleanup` runs, as in Slicer.
        """
        module = self.app.moduleManager().module(name)
        widget = module._widget
        if widget is not None:
            if self._entered is widget:
                self._leave()
            vars(self.modules).pop(name.lower(), None)
            self.app.moduleManager().moduleAboutToBeUnloaded.emit(name)  # ScriptedLoadableModuleWidget calls cleanup
            if self.window._panel._module is widget:
                self.window._panel._setModule(None, None)
            widget.deleteLater()
        self.window._selector._forget(name)
        for entry in (name.lower(), f"{name}Widget", f"{name}Instance"):
            vars(self.modules).pop(entry, None)

    def close(self) -> None:
        """Ends it: modules are cleaned up, views are closed, the scene is let go."""
        for name in [
            module.name
            for module in self.app.moduleManager()._modules()
            if isinstance(module, qSlicerScriptedLoadableModule)
        ]:
            self.unloadModule(name)
        self.window._layoutManager._close()
        self.app._layoutManager = None
        self.window.close()
        self.window.deleteLater()
        QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
        QtCore.QCoreApplication.processEvents()
        self.core.close()
        for name in ("app", "modules"):
            delattr(slicer, name)


for _class in (qSlicerScriptedLoadableModule, qSlicerScriptedLoadableModuleWidget):
    register(_class.__name__, _class)
