# SPDX-License-Identifier: Apache-2.0
"""Stand-ins of `slicer.app`, `slicer.modules` and the module manager."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from .iomanager import qSlicerIOManager
from .uiloader import register

VERSION = (5, 13)  # of the slicer-core wheel
Signal, Property = QtCore.Signal, QtCore.Property


class qSlicerLoadableModule(QtCore.QObject):
    """A module: its name, its logic and the texts that a scripted module sets."""

    def __init__(self, name: str, logic: Any = None, parent: QtCore.QObject | None = None, path: str = "") -> None:
        super().__init__(parent)
        self._name, self._logic, self._path = name, logic, path
        self._texts = {"title": name}

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> QtWidgets.QWidget | None:
        return None

    name = Property(str, lambda self: self._name)
    path = Property(str, lambda self: self._path)

    def _text(name, empty=""):
        def put(self, value):
            self._texts[name] = value

        kind = {list: "QStringList", bool: bool, str: str}.get(type(empty), "QVariant")
        return Property(kind, lambda self: self._texts.get(name, empty), put)

    title = _text("title")
    categories = _text("categories", [])
    dependencies = _text("dependencies", [])
    contributors = _text("contributors", [])
    helpText = _text("helpText")
    acknowledgementText = _text("acknowledgementText")
    hidden = _text("hidden", False)
    icon = _text("icon", None)
    del _text


class Modules:
    """``slicer.modules``: modules in lower case, and what widgets enter themselves, such as NameWidget."""

    def __getattr__(self, name):
        raise AttributeError(f"module 'modules' has no attribute '{name}'")


class qSlicerModuleFactoryManager(QtCore.QObject):
    def __init__(self, modules: Any, parent: QtCore.QObject | None) -> None:
        super().__init__(parent)
        self._modules = modules

    def loadedModuleNames(self) -> tuple[str, ...]:
        return tuple(module.name for module in self._modules())

    def isLoaded(self, name: str) -> bool:
        return name in self.loadedModuleNames()

    def registeredModuleNames(self) -> tuple[str, ...]:
        return self.loadedModuleNames()


class qSlicerModuleManager(QtCore.QObject):
    modulesLoaded = Signal("QStringList")
    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)
    moduleUnloaded = Signal(str)

    def __init__(self, modules: Any, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        self._namespace = modules
        self._factory = qSlicerModuleFactoryManager(self._modules, self)

    def _modules(self):
        return [value for value in vars(self._namespace).values() if isinstance(value, qSlicerLoadableModule)]

    def module(self, name: str) -> Any:
        return next((module for module in self._modules() if module.name == name), None)

    def modulesNames(self) -> tuple[str, ...]:
        return tuple(module.name for module in self._modules())

    def factoryManager(self) -> qSlicerModuleFactoryManager:
        return self._factory


class qSlicerCommandOptions(QtCore.QObject):
    noMainWindow = Property(bool, lambda self: False)
    runPythonAndExit = Property(bool, lambda self: False)
    disableSettings = Property(bool, lambda self: False)
    verbose = Property(bool, lambda self: False)


class qSlicerApplication(QtWidgets.QApplication):
    """``slicer.app``. What is not defined here and not in Qt's application class is not there."""

    startupCompleted = Signal()
    mrmlSceneChanged = Signal(object)
    renderPaused = Signal(bool)

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments)
        self.setApplicationName("Slicer")
        self.setOrganizationName("slicerhost")
        self._core = self._io = self._moduleManager = self._layoutManager = self._settings = None
        self._testing = False
        self._pauses = 0
        self._options = qSlicerCommandOptions(self)

    def _open(self, core, modules):
        self._core = core
        self._io = qSlicerIOManager(core, self)
        self._moduleManager = qSlicerModuleManager(modules, self)
        self._settings = QtCore.QSettings(self.slicerUserSettingsFilePath, QtCore.QSettings.Format.IniFormat)
        self.mrmlSceneChanged.emit(core.scene)

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self._core.scene

    def applicationLogic(self) -> slicer.vtkSlicerApplicationLogic:
        return self._core.applicationLogic

    def moduleLogic(self, name: str) -> slicer.vtkMRMLAbstractLogic | None:
        return self._core.logics.get(name)

    def coreIOManager(self) -> qSlicerIOManager:
        return self._io

    def ioManager(self) -> qSlicerIOManager:
        return self._io

    def moduleManager(self) -> qSlicerModuleManager:
        return self._moduleManager

    def layoutManager(self) -> Any:
        return self._layoutManager

    def mainWindow(self) -> Any:
        return slicer.util.mainWindow()

    def commandOptions(self) -> qSlicerCommandOptions:
        return self._options

    def testingEnabled(self) -> bool:
        return self._testing

    # Settings and paths ----------------------------------------------------------------------------------------------

    def userSettings(self) -> QtCore.QSettings:
        return self._settings

    def settings(self) -> QtCore.QSettings:
        return self._settings

    def revisionUserSettings(self) -> QtCore.QSettings:
        return self._settings

    def setTemporaryPath(self, path: str) -> None:
        self._core.temporaryPath = path

    temporaryPath = Property(str, lambda self: self._core.temporaryPath, setTemporaryPath)
    slicerHome = Property(str, lambda self: self._core.temporaryPath)
    defaultScenePath = Property(str, lambda self: self._core.temporaryPath)
    slicerSharePath = Property(str, lambda self: self._core.temporaryPath)
    cachePath = Property(str, lambda self: str(Path(self._core.temporaryPath) / "cache"))
    extensionsInstallPath = Property(str, lambda self: self._core.temporaryPath)
    slicerUserSettingsFilePath = Property(str, lambda self: str(Path(self._core.temporaryPath) / "Slicer.ini"))
    slicerRevisionUserSettingsFilePath = slicerUserSettingsFilePath
    majorVersion = Property(int, lambda self: VERSION[0])
    minorVersion = Property(int, lambda self: VERSION[1])
    revision = Property(str, lambda self: "test host")
    repositoryRevision = Property(str, lambda self: "test host")
    applicationVersion = Property(str, lambda self: f"{VERSION[0]}.{VERSION[1]}.0 (test host)")
    os = Property(str, lambda self: {"win32": "win", "darwin": "macosx"}.get(sys.platform, "linux"))
    arch = Property(str, lambda self: platform.machine().lower())
    platform = Property(str, lambda self: f"{self.os}-{self.arch}")
    isInstalled = Property(bool, lambda self: True)

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def environment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def setEnvironmentVariable(self, key: str, value: str) -> None:
        os.environ[key] = value

    # Behavior --------------------------------------------------------------------------------------------------------

    def setRenderPaused(self, pause: bool) -> None:
        if self._layoutManager is not None:
            self._layoutManager.setRenderPaused(pause)
        self.renderPaused.emit(bool(pause))

    def pauseRender(self) -> None:
        self.setRenderPaused(True)

    def resumeRender(self) -> None:
        self.setRenderPaused(False)

    def logUsageEvent(self, component: str, event: str) -> None:
        pass

    def openNodeModule(self, node: slicer.vtkMRMLNode | None, role: str = "", context: str = "") -> None:
        pass

    def pythonConsole(self) -> None:
        return None

    def dicomDatabase(self) -> None:
        return None


def application() -> qSlicerApplication:
    """The one application of this process; made at the first call."""
    app = QtWidgets.QApplication.instance()
    if app is None:
        app = qSlicerApplication(["Slicer"])
    if not isinstance(app, qSlicerApplication):
        raise RuntimeError("Another QApplication exists in this process: the test host needs a process of its own.")
    return app


for _class in (
    qSlicerLoadableModule,
    qSlicerModuleFactoryManager,
    qSlicerModuleManager,
    qSlicerCommandOptions,
    qSlicerApplication,
    qSlicerIOManager,
):
    register(_class.__name__, _class)
