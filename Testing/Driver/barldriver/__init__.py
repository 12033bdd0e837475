# SPDX-License-Identifier: Apache-2.0
"""Drives BARL's module in the stand-in for Slicer's window: for tests, `make app`, `make demo` and the tutorial."""

from __future__ import annotations

from pathlib import Path

MODULE = Path(__file__).resolve().parents[3] / "BARLSegmentation" / "BARLSegmentation.py"
