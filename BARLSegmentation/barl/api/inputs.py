# SPDX-License-Identifier: Apache-2.0
"""What the functions of ``barl.api`` take: scans, label arrays and a function to report to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, ProjectError
from barl.images.geometry import Grid
from barl.images.reading import read_channels
from barl.openmp import wait_briefly
from barl.progress import Event, Progress
from barl.project.channel_patterns import check_order
from barl.project.labels import LARGEST_VALUE, Channel
from barl.project.records import Case, ModelRow
from barl.project.store import Project

Scan: TypeAlias = Path | str | sitk.Image
# Stage, share of it that is done (0 to 1), and what is being done, in words.
OnProgress: TypeAlias = Callable[[str, float, str], None]


def as_values(array: np.ndarray) -> np.ndarray:
    """Label values, whole numbers of any type, in the smallest type that holds them.

    Raises:
        InputError: Not all values are whole numbers from 0 to the largest label value.
    """
    real = array.dtype.kind in "buif"
    if not real or (array.size and not (0 <= array.min() <= array.max() <= LARGEST_VALUE)):  # NaN fails as well
        raise InputError("The array is no label map.", f"Give whole numbers from 0 to {LARGEST_VALUE}.")
    values = array.astype(np.uint8 if array.size == 0 or array.max() < 256 else np.uint16)
    if array.dtype.kind == "f" and not np.array_equal(values, array):
        raise InputError("The array is no label map: not all of its values are whole.", "Give no probabilities.")
    return values


def on_grid(array: np.ndarray, grid: Grid) -> sitk.Image:
    if array.shape != grid.shape:
        raise InputError(
            f"The array has the shape {array.shape}, the scan {grid.shape}.", "Give an array [k, j, i] of the scan."
        )
    return grid.image(array)


def as_label(labels: Path | str | sitk.Image | np.ndarray, grid: Grid) -> sitk.Image | Path:
    """A label map on a scan's grid; a file stays one.

    Raises:
        InputError: It is no label map, or lies on another grid.
    """
    if isinstance(labels, Path | str):
        return Path(labels)
    if isinstance(labels, np.ndarray):
        return on_grid(as_values(labels), grid)
    if not isinstance(labels, sitk.Image):
        raise InputError(
            f"{type(labels).__name__} is no label map.", "Give an array [k, j, i], a SimpleITK image or a file."
        )
    if labels.GetNumberOfComponentsPerPixel() != 1 or not grid.matches(Grid.of(labels)):
        raise InputError(
            "The label map does not lie on its scan's grid.", "Make it with the scan as the reference geometry."
        )
    return on_grid(as_values(sitk.GetArrayViewFromImage(labels)), grid)


def as_channels(scan: Scan | Sequence[Scan]) -> list[Scan]:
    """One file, folder or image for each channel.

    Raises:
        InputError: Something else is among them.
    """
    items: list[Any] = list(scan) if isinstance(scan, list | tuple) else [scan]
    for item in items:
        if not isinstance(item, Path | str | sitk.Image):
            raise InputError(
                f"A scan is no {type(item).__name__}: it has a spacing, an origin and axes.",
                "Give a file, a DICOM folder or a SimpleITK image.",
            )
    return items


def case_id(project: Project, case: Case | str) -> str:
    """Of a case, its name or its id.

    Raises:
        ProjectError: The project has no such case, or one of this id with another name.
    """
    if not isinstance(case, Case):
        return project.cases.find(case).id
    known = project.cases.get(case.id)
    if known.name != case.name:
        raise ProjectError(
            f"{case.id} is the case {known.name!r} in this project, and not {case.name!r}.",
            "Give a case of this project as it is now, or its name.",
        )
    return known.id


def model_place(model: ModelRow | Path | str, project: Project | None = None) -> Path | str:
    """The id of a project's model, or else a folder."""
    if not isinstance(model, ModelRow):
        return model
    return model.id if project and model.folder.parent.parent == project.folder else model.folder


def check_files(scan: Scan | Sequence[Scan], channels: Sequence[Channel]) -> None:
    """Refuse files whose names say that they are of other channels.

    Raises:
        InputError: The names contradict the order of the channels.
    """
    items = as_channels(scan)
    if not any(isinstance(item, sitk.Image) for item in items):
        check_order([Path(item) for item in items if not isinstance(item, sitk.Image)], channels)


def as_images(scan: Scan | Sequence[Scan], notes: list[str]) -> list[sitk.Image]:
    """One image for each channel, read where files are given, checked in any case."""
    channels = as_channels(scan)
    if len({isinstance(item, sitk.Image) for item in channels}) > 1:
        raise InputError("A scan mixes files and images in memory.", "Give files or images for all channels.")
    return read_channels(channels, notes)


def as_progress(call: OnProgress | None) -> Progress:
    def send(event: Event) -> None:
        if call is not None and event["event"] == "progress":
            call(str(event["stage"]), float(event["fraction"]), str(event.get("message") or ""))

    return Progress(send)


def before_torch() -> None:
    """PyTorch reads once, when it is loaded, how its threads wait."""
    wait_briefly(os.environ)
