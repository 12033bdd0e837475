# SPDX-License-Identifier: Apache-2.0
"""BARL engine: semi-supervised volumetric segmentation from a few outlined scans.

``import barl`` gives the functions of ``barl.api`` (docs/python.md), each read when it is first used: Slicer's process
imports ``barl`` too and must load neither them nor PyTorch.

Rules:
    * Nothing here imports Slicer, Qt, CTK or VTK; it runs anywhere Python runs.
    * ``errors``, ``progress``, ``images``, ``project`` and ``worker.client`` never import torch or MONAI: Slicer's own
      process imports them.
    * Imports point one way; the ranks are in ``docs/architecture.md`` and a test enforces them.
"""

from __future__ import annotations

import os
import sys

# ``python -m barl.cli`` puts the current folder first, whose json.py or torch.py would be run. While Python looks for
# this package, sys.argv[0] is "-m". The folder stays if this package itself lies in it. pathlib would come from there.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):  # noqa: PTH120
    del sys.path[0]

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from barl.api import (
        BarlError,
        Case,
        Channel,
        Doubt,
        Evaluation,
        Filled,
        Label,
        Model,
        Prediction,
        Project,
        Ranked,
        accept,
        add_case,
        add_dataset,
        add_folder,
        create_project,
        evaluate,
        export_cases,
        export_model,
        fill_planes,
        import_model,
        import_predictions,
        load_model,
        next_cases,
        open_project,
        predict,
        predict_cases,
        train,
        write_report,
        write_volume,
    )

__version__ = "0.2.0"
__all__ = [
    "BarlError",
    "Case",
    "Channel",
    "Doubt",
    "Evaluation",
    "Filled",
    "Label",
    "Model",
    "Prediction",
    "Project",
    "Ranked",
    "accept",
    "add_case",
    "add_dataset",
    "add_folder",
    "create_project",
    "evaluate",
    "export_cases",
    "export_model",
    "fill_planes",
    "import_model",
    "import_predictions",
    "load_model",
    "next_cases",
    "open_project",
    "predict",
    "predict_cases",
    "train",
    "write_report",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'barl' has no attribute {name!r}")
    return getattr(import_module("barl.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
