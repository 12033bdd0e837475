# SPDX-License-Identifier: Apache-2.0
"""How long the window stands still while a large case is reviewed. Prints one line of JSON.

A scan of 512 x 512 x 400 voxels is opened in the stand-in for Slicer's window, with the module's own panel; everything
is done as a user does it. A stall is the longest time between two ticks of a timer in the event loop while an action
and all that follows it run: on the clock, and in the main thread's own time, which other programs cannot stretch.
The aim is 100 ms for all but opening the case; ``idle`` is the same without an action.

python Testing/Benchmarks/review_stall.py --review-size 512 512 400
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from time import monotonic, perf_counter, thread_time

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
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


def make_project(folder: Path, size: list[int]) -> Path:
    """A body with an organ and a tumor in it, and a prediction that is unsure at their rims."""
    grid = Grid(tuple(size), (0.8, 0.8, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    k, j, i = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in grid.shape)]
    radius = np.sqrt(k**2 + j**2 + i**2, dtype=np.float32)
    label = (radius < 0.7).astype(np.uint8) + (radius < 0.2)
    uncertainty = np.exp(-(((radius - 0.7) / 0.03) ** 2)) + np.exp(-(((radius - 0.2) / 0.03) ** 2))
    scan = np.random.default_rng(0).integers(-20, 20, grid.shape, np.int16) + 100 * label.astype(np.int16)
    spots = [
        {
            "rank": rank,
            "position_mm": grid.index_to_mm([s * share for s, share in zip(size, place, strict=True)]).tolist(),
            "volume_ml": 1.0,
            "mean_uncertainty": 0.5,
            "score": 0.5,
            "label": 1,
            "bounds_mm": [0.0] * 6,
        }
        for rank, place in enumerate(((0.5, 0.6, 0.5), (0.5, 0.5, 0.85), (0.6, 0.5, 0.5)), start=1)
    ]
    with Project.create(folder, "large", [Label(1, "organ"), Label(2, "tumor")], [Channel("CT")]) as project:
        project.cases.add("large", [grid.image(scan)])
        project.revisions.store(
            "large",
            grid.image(label),
            "prediction",
            author="benchmark",
            uncertainty=grid.image(uncertainty.clip(0, 1).astype(np.float32)),
            details={"hotspots": spots, "volumes": []},
        )
    return folder


class Stalls:
    """Longest time without a tick of the event loop, per action: on the clock and of the main thread, in ms."""

    def __init__(self, panel) -> None:
        import qt

        self._panel = panel
        self._restart()
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()
        self.clock: dict[str, int] = {}
        self.thread: dict[str, int] = {}

    def _restart(self) -> None:
        self._last, self._longest = np.array([perf_counter(), thread_time()]), np.zeros(2)

    def _tick(self) -> None:
        now = np.array([perf_counter(), thread_time()])
        self._longest, self._last = np.maximum(self._longest, now - self._last), now

    def during(self, name: str, action) -> None:
        import slicer

        self._settle()
        slicer.app.processEvents()
        self._restart()
        action()
        self._settle()
        self._tick()
        self.clock[name], self.thread[name] = (round(1000 * seconds) for seconds in self._longest)

    def _settle(self) -> None:
        import qt
        import slicer

        panel, quiet = self._panel, monotonic() + 1.0
        while monotonic() < quiet:
            slicer.app.processEvents(qt.QEventLoop.AllEvents, 10)
            if not panel.isIdle:
                quiet = monotonic() + 0.5


def measure(size: list[int]) -> dict:
    import slicerhost

    slicerhost.install()
    import slicer
    from slicerhost import hands
    from slicerhost.host import Host

    host = Host(testing=True)
    host.window.resize(1366, 768)
    host.window.show()
    module = host.loadModule(MODULE)
    panel, ui = module.panels["Review"], module.panels["Review"].ui
    with tempfile.TemporaryDirectory() as folder:
        module.session.openProject(make_project(Path(folder) / "project", size))
        stalls = Stalls(panel)
        stalls.during("open", lambda: module.session.openCase("case_0001"))
        stalls.during("idle", lambda: None)
        stalls.during("overlay_off", ui.overlayVisibleCheckBox.click)
        stalls.during("overlay_on", ui.overlayVisibleCheckBox.click)
        stalls.during("opacity", lambda: setattr(ui.overlayOpacitySlider, "value", 0.7))
        stalls.during("threshold", lambda: setattr(ui.overlayThresholdSlider, "value", 0.4))
        stalls.during("next_hotspot", ui.nextHotspotButton.click)
        stalls.during("limit", ui.onlyWhereUnsureCheckBox.click)
        stalls.during("threshold_while_limited", lambda: setattr(ui.overlayThresholdSlider, "value", 0.5))
        editor = panel.editor.widget
        editor.setActiveEffectByName("Paint")
        view, place = slicer.app.layoutManager().sliceWidget("Red"), panel.hotspots.current().position
        stalls.during("stroke_while_limited", lambda: hands.drag(view, place))
        stalls.during("unlimit", ui.onlyWhereUnsureCheckBox.click)
        stalls.during("stroke", lambda: hands.drag(view, [place[0] + 5, place[1], place[2]]))
        stalls.during("fill", ui.fillButton.click)
        stalls.during("next_slice", ui.nextSliceButton.click)
        started = perf_counter()
        stalls.during("accept", ui.acceptButton.click)
        seconds = perf_counter() - started
        state = module.session.case().state
        module.session.closeProject()
    host.close()
    return {
        "benchmark": "review_stall",
        "size": size,
        "longest_stall_ms": stalls.clock,
        "longest_stall_of_main_thread_ms": stalls.thread,
        "accept_s": round(seconds, 1),
        "accepted": state == "accepted",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--review-size", type=int, nargs=3, default=[512, 512, 400], metavar=("X", "Y", "Z"))
    arguments, _others = parser.parse_known_args()
    print(json.dumps(measure(arguments.review_size)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
