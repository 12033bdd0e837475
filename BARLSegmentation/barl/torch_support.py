# SPDX-License-Identifier: Apache-2.0
"""Which PyTorch the engine needs, and the computers for which there is none."""

from __future__ import annotations

import platform

LOWEST = "2.4.1"  # as in pyproject.toml: the lowest that MONAI 1.5 takes
# PyTorch's project builds no newer one for macOS on Intel processors, nor for programs made for them (Rosetta).
_LAST_ON_INTEL_MACS = "2.2.2"


def reason_against(system: str = "", machine: str = "") -> str:
    """Why no PyTorch that is new enough can be installed on a computer; empty if one can.

    Args:
        system, machine: As Python's ``platform`` names them; this computer's by default.
    """
    if (system or platform.system(), machine or platform.machine()) != ("Darwin", "x86_64"):
        return ""
    return (
        f"PyTorch {_LAST_ON_INTEL_MACS} is the last one for macOS on Intel, and BARL needs {LOWEST}: this computer "
        "cannot predict or train."
    )


WITHOUT_TORCH = (
    "Adding, outlining, filling, reviewing, correcting and exporting work here; predict and train on another computer "
    "(on the command line: --computer), or copy the project's folder to one."
)


def is_too_old(version: str) -> bool:
    """Whether a version such as ``2.2.2`` or ``2.8.0+cu128`` is below the lowest one."""
    numbers = [int(part) for part in version.partition("+")[0].split(".")[:3] if part.isdigit()]
    return numbers < [int(part) for part in LOWEST.split(".")]
