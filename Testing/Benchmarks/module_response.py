# SPDX-License-Identifier: Apache-2.0
"""How quickly the module answers, with a case of 512 x 512 x 400 voxels. Prints one line of JSON.

In the stand-in for Slicer's window, with the module's own panel, the real worker and a real training. The aims:

* ``start``: the module is there after at most 300 ms, reading the stand-in's signatures left out;
* ``first_picture_s``: at most 2 s from the end of reading to the first picture of a case;
* ``predict``, ``train``: no stall of more than 100 ms. A stall is the longest time between two ticks of a timer in the
  event loop, on the clock and in the main thread's computing time, which a busy machine does not lengthen. What is read
  at the end of a prediction, to show it, is ``predict_show``;
* ``torch_imported``: false, the window's process never holds the network.

python Testing/Benchmarks/module_response.py --response-size 512 512 400
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time, thread_time

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if sys.platform == "linux":
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "SlicerHost"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Driver"))

import numpy as np
from barl.images.geometry import Grid
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barldriver import MODULE

TICK_MS = 5
OPENED, OUTLINED = "case_0001", "case_0002"
BOX_MM = 40.0  # what is predicted of the scan: the time of the network is not what is measured here
LABELS = [Label(1, "ball"), Label(2, "nothing")]  # as many as the model has that comes along
# A network for which a step takes no time: what is measured is the window, not the training.
SHORT = {
    "minutes": None,
    "iterations": 12,
    "device": "cpu",
    "overrides": {"widths": [4, 8], "patch": [16, 16, 16], "loader_workers": 0, "validations": 1, "spacing": [4, 4, 4]},
}


def make_project(folder: Path, size: list[int]) -> Path:
    """Two scans of noise with a ball in it, the second one outlined."""
    grid = Grid(tuple(size), (0.8, 0.8, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    k, j, i = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in grid.shape)]
    ball = (k**2 + j**2 + i**2 < 0.1).astype(np.uint8)
    scan = np.random.default_rng(0).integers(-8, 8, grid.shape, np.int16) + 100 * ball.astype(np.int16)
    with Project.create(folder, "large", LABELS, [Channel("T1")]) as project:
        project.cases.add("opened", [grid.image(scan)])
        project.cases.add("outlined", [grid.image(scan)], label=grid.image(ball))
    return folder


class Stall:
    """The longest time without a tick of the event loop, in ms: (on the clock, of the main thread)."""

    def __init__(self) -> None:
        import qt

        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._tick)

    def begin(self) -> None:
        self._last, self._longest = np.array([perf_counter(), thread_time()]), np.zeros(2)
        self._timer.start()

    def end(self) -> list[float]:
        self._tick()
        self._timer.stop()
        return [round(1000 * float(seconds), 1) for seconds in self._longest]

    def _tick(self) -> None:
        now = np.array([perf_counter(), thread_time()])
        self._longest, self._last = np.maximum(self._longest, now - self._last), now


def start_module(host) -> tuple[object, dict[str, float]]:
    """Make the module's panel and show it, six times.

    The first time the module's Python files are read, and the stand-in reads the signatures of Qt's classes, which
    Slicer has compiled in: ``signatures_ms`` of the first time are the stand-in's own. Then the quickest of the others.
    """
    from shibokensupport import signature

    times, reading = [], [0.0]
    read = signature.get_signature

    def timed(function):
        started = perf_counter()
        try:
            return read(function)
        finally:
            reading[0] += perf_counter() - started

    signature.get_signature = timed  # the stand-in asks for it by name, when it needs it
    for _turn in range(6):
        if times:
            host.unloadModule("BARLSegmentation")
            host.processEvents(0.2)
        began, computed = perf_counter(), process_time()
        module = host.loadModule(MODULE)
        host.app.processEvents()
        times.append((round(1000 * (perf_counter() - began)), round(1000 * (process_time() - computed))))
        signature.get_signature = read
    first, again = times[0], min(times[1:], key=lambda pair: pair[1])
    return module, {
        "first_clock_ms": first[0],
        "first_processor_ms": first[1],
        "signatures_ms": round(1000 * reading[0]),
        "again_clock_ms": again[0],
        "again_processor_ms": again[1],
    }


def open_case(host, module) -> dict[str, float]:
    """Open the large case; what comes after its last file was read, is told apart."""
    from BARLSegmentationLib.logic.CaseLoader import CaseLoader

    read, finished = CaseLoader._read, []

    def reading(*arguments):
        node = read(*arguments)
        finished.append(perf_counter())
        return node

    CaseLoader._read = reading
    began = perf_counter()
    try:
        module.session.openCase(OPENED)
        host.app.processEvents()
        host.window.grab()
    finally:
        CaseLoader._read = read
    ended = perf_counter()
    return {"reading_s": round(finished[-1] - began, 2), "first_picture_s": round(ended - finished[-1], 2)}


def predict(host, module, stall: Stall) -> dict[str, list[float]]:
    """Predict a box of the case on screen with the model that comes along."""
    import slicer
    from slicerhost.clicks import press, waitUntil

    panel, ui = module.panels["Predict"], module.panels["Predict"].ui
    module.steps.show("Predict")
    bounds = [0.0] * 6
    module.session.loaded.volumes[0].GetRASBounds(bounds)
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenter(*[(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)])
    roi.SetSize(BOX_MM, BOX_MM, BOX_MM)
    ui.roiSelector.setCurrentNode(roi)
    host.processEvents(0.5)  # the box is drawn
    figures, casesChanged = {}, module.session.casesChanged

    def arrived():  # the result is stored, and not shown yet
        casesChanged.disconnect(arrived)
        figures["predict"] = stall.end()
        stall.begin()

    casesChanged.connect(arrived)
    stall.begin()
    press(ui.applyButton)
    waitUntil(lambda: not panel.busy, 900)
    host.app.processEvents()
    figures["predict_show"] = stall.end()
    ui.roiSelector.setCurrentNode(None)
    if "predict" not in figures:
        raise RuntimeError(module.ui.statusLabel.text)
    return figures


def train(host, module, stall: Stall) -> dict[str, list[float]]:
    """Train on the large cases for a moment, the case still on screen."""
    from slicerhost.clicks import press, waitUntil

    panel, ui = module.panels["Train"], module.panels["Train"].ui
    module.steps.show("Train")
    panel.moreOptions = SHORT
    host.processEvents(0.5)
    stall.begin()
    press(ui.startButton)
    waitUntil(lambda: panel.run is not None and panel.isIdle, 900)
    figures = {"train": stall.end()}
    if panel.run.state != "finished":
        raise RuntimeError(panel.run.inWords())
    return figures


def measure(size: list[int]) -> dict:
    import slicerhost

    slicerhost.install()
    from slicerhost.host import Host

    host = Host(testing=True)
    host.window.resize(1366, 768)
    host.window.show()
    host.app.processEvents()
    module, start = start_module(host)
    with tempfile.TemporaryDirectory() as folder:
        module.session.openProject(make_project(Path(folder) / "project", size))
        picture = open_case(host, module)
        stall = Stall()
        stall.begin()
        host.processEvents(1.0)
        stalls = {"idle": stall.end(), **predict(host, module, stall), **train(host, module, stall)}
        module.session.closeProject()
        torch = "torch" in sys.modules
        host.close()
    return {
        "benchmark": "module_response",
        "size": size,
        "start": start,
        **picture,
        "longest_stall_ms": {name: {"clock": clock, "thread": own} for name, (clock, own) in stalls.items()},
        "torch_imported": torch,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--response-size", type=int, nargs=3, default=[512, 512, 400], metavar=("X", "Y", "Z"))
    arguments, _others = parser.parse_known_args()
    print(json.dumps(measure(arguments.response_size)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
