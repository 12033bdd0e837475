# SPDX-License-Identifier: Apache-2.0
"""The module's start, its stalls and what its process imports, measured by the benchmark's own code on small scans."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
