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


def is_too_old(version: str, lowest: str = LOWEST) -> bool:
    """Whether a version such as ``2.2.2`` or ``2.8.0+cu128`` is below ``lowest``."""
    numbers = [int(part) for part in version.partition("+")[0].split(".")[:3] if part.isdigit()]
    return numbers < [int(part) for part in lowest.split(".")]


# Apple's graphics: transposed 3D convolutions are there from this version on, in float32 only (pytorch issue 130256).
LOWEST_ON_APPLE = "2.8.0"


def slow_in_half_precision(version: str, cuda: str | None, cudnn: str = "") -> str:
    """A sentence if this PyTorch computes 3D convolutions in half precision without cuDNN; empty if not.

    PyTorch 2.9 does so on CUDA with cuDNN 9.8 to 9.14: several times slower, with up to three times the memory (pytorch
    issues 166122 and 166643). PyTorch 2.10 brings a cuDNN that mends it.

    Args:
        version: Of PyTorch.
        cuda: The version that it was built for; empty or None: none.
        cudnn: The version of cuDNN, such as ``9.10.2``; empty: not known.
    """
    if not cuda or version.split(".")[:2] != ["2", "9"] or (cudnn and not is_too_old(cudnn, "9.15.0")):
        return ""
    return (
        f"PyTorch {version} is slow with 3D convolutions in half precision on NVIDIA cards: BARL computes in full "
        "precision with it; PyTorch 2.10 is faster."
    )
