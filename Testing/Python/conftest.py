# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the folder with real data, and a machine left usable for others while they run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before torch, matplotlib or Qt are imported by anyone: they read these once.
os.environ.setdefault(
    "OMP_NUM_THREADS",
    str(max(1, min(2, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))),
)
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if sys.platform == "linux":
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # pictures without a display

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root folder of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real scans named by the variable BARL_DATA; the test is skipped if there is none."""
    name = os.environ.get("BARL_DATA", "")
    if not name:
        pytest.skip("BARL_DATA is not set: tests on real scans are skipped")
    folder = Path(name)
    if not folder.is_dir():
        pytest.skip(f"BARL_DATA names no folder: {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _children_find_the_engine() -> None:
    """Lets processes started by a test (worker, CLI) import `barl`, as `pythonpath` does for the test itself."""
    engine = str(REPOSITORY / "BARLSegmentation")
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if engine not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([engine, *filter(None, paths)])


@pytest.fixture(scope="session")
def qt_application():
    """Qt's application of this process, with PySide6 behaving as PythonQt: `qt` and `ctk` can be imported."""
    pytest.importorskip("PySide6", reason="PySide6 is not installed (the host extra)")
    import slicerhost

    slicerhost.install()
    try:
        from slicerhost.app import application
    except ModuleNotFoundError:  # no slicer-core: Qt alone
        from PySide6 import QtWidgets

        return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["test"])
    return application()


@pytest.fixture(scope="session")
def host(qt_application):
    """Slicer's window as Testing/SlicerHost stands in for it: real scene and views, stand-in widgets.

    `host.loadModule()` opens BARL's panel (slicer.modules.BARLSegmentationWidget). One for all tests of a process;
    the scene is cleared before each of them.
    """
    pytest.importorskip("slicer", reason="slicer-core is not installed (the host extra)")
    from slicerhost.host import Host

    host = Host(testing=True)
    host.window.show()
    yield host
    host.close()


@pytest.fixture
def a_scene(host):
    """The host's scene, empty."""
    return host.core.scene


@pytest.fixture(autouse=True)
def _clear_the_scene(request):
    if "host" in request.fixturenames:
        host = request.getfixturevalue("host")
        host.core.scene.Clear(0)
        host.app.processEvents()
