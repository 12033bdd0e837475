# SPDX-License-Identifier: Apache-2.0
"""The module's start, its stalls and what its process imports, measured by the benchmark's own code on small scans."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from barldriver.loop import settle

pytestmark = pytest.mark.host


def test_a_fresh_process_predicts_and_trains_without_torch(repository):
    for library in ("slicer", "PySide6", "torch"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    done = subprocess.run(
        [sys.executable, repository / "Testing/Benchmarks/module_response.py", "--response-size", "96", "80", "64"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found))
    assert found["torch_imported"] is False
    # How long is the business of `make bench`: a busy machine must not fail a test.
    assert {"predict", "train"} <= set(found["longest_stall_ms"])


def test_a_jump_draws_each_view_once(a_review_panel):
    """Slicer's views queue some requests: views that resume within the click would be drawn for them once more."""
    import slicer

    manager, panel = slicer.app.layoutManager(), a_review_panel
    drawn, paused = dict.fromkeys(manager.sliceViewNames(), 0), []

    def count(name):
        drawn[name] += 1

    windows = [(name, manager.sliceWidget(name).sliceView().renderWindow()) for name in drawn]
    tags = [window.AddObserver("EndEvent", lambda *_, name=name: count(name)) for name, window in windows]
    slicer.app.connect("renderPaused(bool)", paused.append)
    try:
        panel.ui.nextHotspotButton.click()
        panel.ui.nextHotspotButton.click()  # a key held down
        assert paused == [True] and set(drawn.values()) == {0}
        settle(panel)
    finally:
        slicer.app.disconnect("renderPaused(bool)", paused.append)
        for (_name, window), tag in zip(windows, tags, strict=True):
            window.RemoveObserver(tag)
    assert paused == [True, False] and set(drawn.values()) == {1}
