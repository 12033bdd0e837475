# SPDX-License-Identifier: Apache-2.0
"""What ``import barl`` offers to a researcher's script or notebook; docs/python.md shows it in use.

Arrays are ``[k, j, i]`` as ``SimpleITK.GetArrayFromImage`` gives them, on the scan's own grid. A scan is a file, a
DICOM folder or a SimpleITK image, or one of these for each channel. PyTorch is loaded by the functions that train,
predict or evaluate, not before.
"""

from barl.api.arrays import Model, Prediction, fill_planes, load_model, predict, write_volume
from barl.api.exchange import add_dataset, export_cases, export_model, import_model, import_predictions
from barl.api.projects import (
    Evaluation,
    accept,
    add_case,
    add_folder,
    create_project,
    evaluate,
    next_cases,
    open_project,
    predict_cases,
    train,
    write_report,
)
from barl.errors import BarlError
from barl.fill.filling import Filled
from barl.project.doubts import Doubt
from barl.project.labels import Channel, Label
from barl.project.next_case import Ranked
from barl.project.records import Case
from barl.project.store import Project

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
