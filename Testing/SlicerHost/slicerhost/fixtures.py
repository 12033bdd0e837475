# SPDX-License-Identifier: Apache-2.0
"""Fixtures of pytest for tests of a scripted module in the stand-in for Slicer's window.

In ``conftest.py``: ``pytest_plugins = ["slicerhost.fixtures"]``. Tests run without a display unless QT_QPA_PLATFORM
names one. A module is opened by ``host.loadModule(path)``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import slicer

    from .app import qSlicerApplication
    from .host import Host

# Qt and VTK read these once, when they are imported.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if sys.platform == "linux":
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # pictures without a display


@pytest.fixture(scope="session")
def qt_application(tmp_path_factory: pytest.TempPathFactory) -> qSlicerApplication:
    """Qt's application of this process, with PySide6 behaving as PythonQt: `qt` and `ctk` can be imported.

    Its settings are its own: processes that test at the same time would read each other's recent projects.
    """
    QtCore = pytest.importorskip("PySide6.QtCore", reason="PySide6 is not installed (the host extra)")
    import slicerhost

    settings = QtCore.QSettings
    settings.setPath(settings.Format.NativeFormat, settings.Scope.UserScope, str(tmp_path_factory.mktemp("settings")))

    slicerhost.install()
    try:
        from slicerhost.app import application
    except ModuleNotFoundError:  # no slicer-core: Qt alone
        from PySide6 import QtWidgets

        return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["test"])
    return application()


@pytest.fixture(scope="session")
def host(qt_application: qSlicerApplication) -> Iterator[Host]:
    """Slicer's window as this package stands in for it; one for all tests of a process.

    The scene is cleared before each test. `host.loadModule(path)` opens the panel of a scripted module.
    """
    pytest.importorskip("slicer", reason="slicer-core is not installed (the host extra)")
    from slicerhost.host import Host

    host = Host(testing=True)
    host.window.show()
    yield host
    host.close()


@pytest.fixture
def a_scene(host: Host) -> slicer.vtkMRMLScene:
    """The host's scene, empty."""
    return host.core.scene


@pytest.fixture(autouse=True)
def _clear_the_scene(request: pytest.FixtureRequest) -> Iterator[None]:
    """An empty scene before each test with the host; what Slicer would only print (errors in slots) fails the test."""
    if "host" not in request.fixturenames:
        yield
        return
    from slicerhost import pythonqt

    host = request.getfixturevalue("host")
    host.core.scene.Clear(0)
    host.app.processEvents()
    pythonqt.complaints.clear()
    yield
    assert pythonqt.complaints == []
