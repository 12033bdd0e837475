# SPDX-License-Identifier: Apache-2.0
"""How long PyTorch's threads wait by spinning: a setting of OpenMP that counts only before PyTorch is loaded."""

from __future__ import annotations

from collections.abc import MutableMapping

# GNU's (Linux): turns of the waiting loop, about a microsecond; Intel's and LLVM's (Windows, macOS): milliseconds.
_SHORT = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
_OWN = ("OMP_WAIT_POLICY", *_SHORT)


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Have threads sleep soon when they wait, unless the user has chosen how they wait.

    Spinning threads take the cores from whatever else runs, Slicer's window included, and from each other.
    ``Testing/Benchmarks/busy_machine.py`` measures what it changes.

    Args:
        environment: Of this process, before PyTorch is loaded, or of one to start.
    """
    if not any(name in environment for name in _OWN):
        environment.update(_SHORT)
