# SPDX-License-Identifier: Apache-2.0
"""What the tests of BARL share: data, projects, the module in the window of `slicerhost.fixtures`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before torch or matplotlib are imported by anyone: they read these once. Threads are set in pytest-xdist's workers
# alone, which inherit what the process that starts them sets; two with two threads each on two cores took 18 times as
# long.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
    )
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from barldriver import MODULE

pytest_plugins = ["slicerhost.fixtures"]
REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_configure(config: pytest.Config) -> None:
    """A number of threads that is set is not chosen by measurement: results are the same to the last bit."""
    if not getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))


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


@pytest.fixture
def a_module(host):
    """The Python widget of BARL's module, its panel on screen; one for all tests of a process."""
    return host.loadModule(MODULE)


@pytest.fixture
def a_predicted_project(tmp_path):
    """Folder of a project on oblique scans of 13 x 11 x 9 voxels with the labels lesion 1, edema 4 and necrosis 7.

    Its first case is predicted: 45 voxels of lesion, 4 of necrosis, uncertainty 0.6 in a box of 210 voxels that holds
    the upper part of the lesion, three hot-spots. Its second case is untouched.
    """
    import numpy as np
    import SimpleITK as sitk
    from barl.project.labels import Channel, Code, Label, Terminology
    from barl.project.store import Project

    def image(array):
        made = sitk.GetImageFromArray(array)
        c, s = np.cos(0.3), np.sin(0.3)
        made.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
        made.SetSpacing((0.8, 1.1, 3.0))
        made.SetOrigin((12.0, -34.0, 56.0))
        return made

    shape, rng = (9, 11, 13), np.random.default_rng(0)
    label, uncertainty = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    label[2:5, 3:6, 4:9], label[6, 2:4, 2:4] = 1, 7
    uncertainty[2:7, 3:9, 5:12] = 0.6
    scan = image(rng.normal(100, 20, shape).astype(np.float32))
    lesion = Terminology(
        Code("SCT", "49755003", "Morphologically Altered Structure"), Code("SCT", "52988006", "Lesion")
    )
    labels = [
        Label(1, "lesion", (255, 0, 0), lesion),
        Label(4, "edema", (0, 128, 255)),
        Label(7, "necrosis", (20, 40, 60)),
    ]
    places = [scan.TransformContinuousIndexToPhysicalPoint(index) for index in ((6, 4, 3), (9, 7, 5), (5, 3, 2))]
    hotspots = [
        {
            "rank": rank,
            "position_mm": list(place),
            "volume_ml": 0.6 / rank,
            "mean_uncertainty": 0.6,
            "score": 0.36 / rank,
            "label": (1, 4, 0)[rank - 1],
            "bounds_mm": [0.0] * 6,
        }
        for rank, place in enumerate(places, start=1)
    ]
    volumes = [{"value": 1, "name": "lesion", "ml": 0.1188, "low_ml": 0.1, "high_ml": 0.13}]
    with Project.create(tmp_path / "project", "study", labels, [Channel("T1")]) as project:
        project.cases.add("predicted", [scan])
        project.cases.add("untouched", [scan])
        project.revisions.store(
            "predicted",
            image(label),
            "prediction",
            author="BARL model_0001",
            uncertainty=image(uncertainty),
            case_uncertainty=0.3,
            details={"hotspots": hotspots, "volumes": volumes},
        )
    return tmp_path / "project"


@pytest.fixture
def a_review_panel(a_module, a_predicted_project):
    """The review panel with the predicted case open and its section expanded; its pauses are short."""
    from barldriver.loop import settle

    module = a_module
    module.steps.show("Review")
    module.session.openProject(a_predicted_project)
    module.session.openCase("case_0001")
    panel = module.panels["Review"]
    panel.setPauses(10)
    panel.ui.detailsButton.checked = True
    panel.ui.goOnCheckBox.checked = False
    panel.ui.onlyWhereUnsureCheckBox.checked = False
    panel.ui.overlayVisibleCheckBox.checked = True
    panel.ui.overlayThresholdSlider.value = 0.3
    settle(panel)
    yield panel
    module.session.closeProject()
    settle(panel)


@pytest.fixture
def a_panel_of(host):
    """Makes a panel by itself, without the module's window; ``said`` collects (error, text) of its status line."""
    import importlib
    from types import SimpleNamespace

    from BARLSegmentationLib.logic.Session import Session

    resources, made = REPOSITORY / "BARLSegmentation" / "Resources", []

    def make(name: str, worker=None, height: int = 620):
        kind = getattr(importlib.import_module(f"BARLSegmentationLib.widgets.{name}Panel"), f"{name}Panel")
        panel = kind(Session(), worker, SimpleNamespace(resourcePath=lambda file: str(resources / file)))
        panel.said = []
        panel.session.statusChanged.connect(lambda text, error: panel.said.append((error, text)))
        panel.setup()
        panel.update()
        panel.widget.resize(460, height)
        panel.widget.show()
        made.append(panel)
        return panel

    yield make
    for panel in made:
        panel.cleanup()
        panel.session.end()
        panel.widget.hide()
        panel.widget.deleteLater()


@pytest.fixture(scope="module")
def a_worker_link(host):
    """The module's link to a worker process of this Python, ended after the tests of a file."""
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

    worker = WorkerLink(sys.executable)
    yield worker
    worker.close()


@pytest.fixture
def a_cases_panel(a_panel_of, a_worker_link):
    return a_panel_of("Cases", a_worker_link)


@pytest.fixture
def a_study(tmp_path) -> Path:
    """Folder of a project with an accepted, a predicted and a new case."""
    from barldriver.studies import make_study

    return make_study(tmp_path / "study")
