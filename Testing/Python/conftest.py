# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the folder with real data, and a machine left usable for others while they run."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch, matplotlib or Qt are imported by anyone: they read these once.
os.environ.setdefault(
    "OMP_NUM_THREADS",
    str(max(1, min(2, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))),
)
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

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
