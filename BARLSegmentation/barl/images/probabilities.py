# SPDX-License-Identifier: Apache-2.0
"""Probability maps that other programs wrote, brought onto a scan's grid without interpolation."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from barl.errors import InputError
from barl.images.formats.content import open_regular
from barl.images.geometry import Grid, axes_between
from barl.images.reading import difference, load, no_memory

# Names of the array in the files of nnU-Net, version 2 and 1.
_KEYS = ("probabilities", "softmax")
# How far a probability may miss 0, 1 or the sum 1: half precision and 8-bit steps.
_ROUNDING = 0.02


def holds_probabilities(array: np.ndarray) -> bool:
    """Whether the values are shares of 1 that are not all whole."""
    if array.dtype.kind != "f":
        return False
    low, high = float(array.min()), float(array.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN fails as well
        return False
    return any((np.rint(part) != part).any() for part in array)


def read_probabilities(path: Path, grid: Grid, own: Grid | None = None) -> np.ndarray:
    """Read the probabilities of classes.

    Args:
        path: A NumPy file (.npz) with one array ``[class, k, j, i]``, or a volume of several components. A volume of
            one component holds the probability of one class.
        grid: The scan's.
        own: Where the voxels of a NumPy file lie; None: on the scan's grid.

    Returns:
        ``[class, k, j, i]``, float32 in [0, 1], on ``grid``.

    Raises:
        InputError: The file cannot be used, holds no probabilities or lies on another grid.
        DeviceError: It does not fit into this computer's memory.
    """
    try:
        if path.suffix.lower() == ".npz":
            own = own or grid
            array = _numpy_array(path, own)
        else:
            volume = load(path, several=True)
            own, array = volume.grid, volume.array if volume.array.ndim == 4 else volume.array[None]
        array = np.ascontiguousarray(_on_grid(array, own, grid, path.name), dtype=np.float32)
    except (MemoryError, RuntimeError) as error:
        raise no_memory(path.name, error) from None
    for part in array:
        if not (part.min() >= -_ROUNDING and part.max() <= 1 + _ROUNDING):  # NaN fails as well
            raise InputError(
                f"'{path.name}' holds values outside of 0 to 1, which are no probabilities.",
                "Apply softmax or sigmoid before saving them.",
            )
    return array.clip(0, 1, out=array)


def with_background(array: np.ndarray, n_labels: int, name: str) -> np.ndarray:
    """Probabilities of the background and of each label, which sum to 1.

    Args:
        array: ``[class, k, j, i]`` with or without the background as the first class.
        n_labels: How many labels the file is about.
        name: The file's.

    Returns:
        ``[n_labels + 1, k, j, i]``, float32.

    Raises:
        InputError: There are more or fewer classes, or they sum to something else.
    """
    if len(array) not in (n_labels, n_labels + 1):
        raise InputError(
            f"'{name}' holds the probabilities of {len(array)} classes, but {n_labels} labels and the background are "
            "expected.",
            "Name the labels of its classes with --label VALUE=NAME.",
        )
    total = array.sum(axis=0)
    if len(array) == n_labels:
        if total.max() > 1 + _ROUNDING:
            raise InputError(
                f"The probabilities in '{name}' sum to {total.max():.3g} in some voxels: its labels overlap.",
                "Give the label map instead; a voxel has one label.",
            )
        if n_labels > 1 and total.min() > 1 - _ROUNDING:
            raise InputError(
                f"The {n_labels} maps in '{name}' sum to 1 in every voxel: one of them seems to be the background's, "
                "but as many labels are expected.",
                "Name the labels of its classes with --label VALUE=NAME.",
            )
        return np.concatenate([(1 - total).clip(0, 1)[None], array])
    if np.abs(total - 1).max() > _ROUNDING:
        raise InputError(
            f"The probabilities in '{name}' do not sum to 1.",
            "Apply softmax before saving them, or give the label map.",
        )
    return array / total


def _numpy_array(path: Path, grid: Grid) -> np.ndarray:
    """The array of a NumPy file; its shape is compared before it is read, and nothing is unpickled."""
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                names = {Path(name).stem: name for name in archive.namelist() if name.endswith(".npy")}
                key = next((key for key in _KEYS if key in names), next(iter(names), "") if len(names) == 1 else "")
                if not key:
                    raise InputError(
                        f"'{path.name}' holds no array of probabilities ({', '.join(names) or 'none'}).",
                        f"Save one array, or name it {_KEYS[0]}.",
                    )
                with archive.open(names[key]) as member:
                    shape, dtype = _header(member)
                if dtype.hasobject or dtype.kind not in "fu":
                    raise InputError(f"The array in '{path.name}' holds no numbers.", "Save it as 32-bit floats.")
                if len(shape) != 4 or shape[1:] != grid.shape:
                    raise InputError(
                        f"The array in '{path.name}' has the shape {shape}; (classes, "
                        f"{', '.join(map(str, grid.shape))}) is expected.",
                        "Save the label map of the same name beside it, or give the label map alone.",
                    )
                with archive.open(names[key]) as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
        except (zipfile.BadZipFile, EOFError, ValueError, OSError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"'{path.name}' is damaged or no NumPy file.", "Copy or save it again.") from error
    return array / np.float32(255) if array.dtype == np.uint8 else array


def _header(member: object) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)  # type: ignore[arg-type]
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)  # type: ignore[arg-type]
    return shape, dtype


def _on_grid(array: np.ndarray, own: Grid, grid: Grid, name: str) -> np.ndarray:
    """The array with its axes in the order of the scan's."""
    axes = axes_between(own, grid)
    turned = own.oriented(axes)
    if not turned.matches(grid):
        raise InputError(
            f"The probabilities in '{name}' do not lie on the scan's grid: {difference(turned, grid)}.",
            "Save them on the scan's own grid, or give the label map with --resample.",
        )
    return axes.view(array)
