# SPDX-License-Identifier: Apache-2.0
"""What the functions of ``barl.api`` take: scans, label arrays and a function to report to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.images.geometry import Grid
from barl.images.reading import read_channels
from barl.openmp import wait_briefly
from barl.progress import Event, Progress
from barl.project.channel_patterns import check_order
from barl.project.labels import LARGEST_VALUE, Channel

Scan: TypeAlias = Path | str | sitk.Image
# Stage, share of it that is done (0 to 1), and what is being done, in words.
OnProgress: TypeAlias = Callable[[str, float, str], None]


def as_values(array: np.ndarray) -> np.ndarray:
    """Label values in the smallest type that holds them."""
    if array.dtype.kind not in ("b", "u", "i") or (array.size and not 0 <= array.min() <= array.max() <= LARGEST_VALUE):
        raise InputError("The array is no label map.", f"Give whole numbers from 0 to {LARGEST_VALUE}.")
    return array.astype(np.uint8 if array.size == 0 or array.max() < 256 else np.uint16)


def on_grid(array: np.ndarray, grid: Grid) -> sitk.Image:
    if array.shape != grid.shape:
        raise InputError(
            f"The array has the shape {array.shape}, the scan {grid.shape}.", "Give an array [k, j, i] of the scan."
        )
    return grid.image(array)


def as_channels(scan: Scan | Sequence[Scan]) -> list[Scan]:
    return [scan] if isinstance(scan, Path | str | sitk.Image) else list(scan)


def check_files(scan: Scan | Sequence[Scan], channels: Sequence[Channel]) -> None:
    """Refuse files whose names say that they are of other channels.

    Raises:
        InputError: The names contradict the order of the channels.
    """
    items = as_channels(scan)
    if not any(isinstance(item, sitk.Image) for item in items):
        check_order([Path(item) for item in items if not isinstance(item, sitk.Image)], channels)


def as_images(scan: Scan | Sequence[Scan], notes: list[str]) -> list[sitk.Image]:
    """One image for each channel, read where files are given."""
    channels = as_channels(scan)
    images = [item for item in channels if isinstance(item, sitk.Image)]
    if len(images) == len(channels):
        return images
    if images:
        raise InputError("A scan mixes files and images in memory.", "Give files or images for all channels.")
    return read_channels([Path(item) for item in channels if not isinstance(item, sitk.Image)], notes)


def as_progress(call: OnProgress | None) -> Progress:
    def send(event: Event) -> None:
        if call is not None and event["event"] == "progress":
            call(str(event["stage"]), float(event["fraction"]), str(event.get("message") or ""))

    return Progress(send)


def before_torch() -> None:
    """PyTorch reads once, when it is loaded, how its threads wait."""
    wait_briefly(os.environ)
