# SPDX-License-Identifier: Apache-2.0
"""Every name of Slicer, CTK, Qt and VTK that the module's code uses stands in a header or source file of theirs."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("PySide6", reason="PySide6 is not installed (the host extra)")
pytest.importorskip("slicer", reason="slicer-core is not installed (the host extra)")
pytestmark = pytest.mark.host


def test_module_uses_only_names_that_exist(repository):
    paths = os.pathsep.join([str(repository / "Testing" / "SlicerHost"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "slicerhost.ledger", str(repository / "BARLSegmentation"), "--leave-out", "barl"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "not found" not in done.stdout
    counted = re.match(r"(\d+) names in (\d+) places", done.stdout)
    assert counted and int(counted[1]) > 300, "names are no longer collected"
