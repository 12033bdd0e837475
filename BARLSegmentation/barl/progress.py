# SPDX-License-Identifier: Apache-2.0
"""How long work tells what it is doing: a callable ``(stage, fraction, message)``; it may raise ``Cancelled``."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, str], None]


def silent(stage: str, fraction: float, message: str = "") -> None:
    """A ``Progress`` that tells nobody."""
