# SPDX-License-Identifier: Apache-2.0
"""Scans from files and DICOM folders, refused with one sentence where they cannot be used.

What comes out is a three-dimensional SimpleITK image with one finite number per voxel, sane spacing and no metadata: no
DICOM tag travels further than this room. Messages name a file by its name alone; notes name no file, for they are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from barl.errors import DeviceError, InputError
from barl.images.formats.content import open_regular
from barl.images.formats.kinds import read_volume
from barl.images.formats.volume import Volume, no_number, of_memory
from barl.images.geometry import Grid
from barl.images.intensity import padding_of

# Outside of this a spacing is a mistake of units (meters for millimeters) or a damaged header, not a scan.
_SPACING_MM = (0.0005, 50.0)

# A scan of 64-bit numbers may lose this share of its range of values when it becomes one of 32-bit numbers.
_NARROWED_SHARE = 1e-3

# Up to this share of voxels without a finite value inside of a scan is repaired; more is a broken scan.
_REPAIRED_SHARE = 1e-3
# A border without values that takes more than this leaves no scan.
_BORDER_SHARE = 0.9


def read_image(
    path: Path | str | sitk.Image, notes: list[str] | None = None, series: str | None = None, name: str = ""
) -> sitk.Image:
    """Read a scan.

    Few voxels without a finite value (up to 0.1 %, as divisions leave in computed maps) and a border without values (as
    a reslicing leaves) become the scan's minimum.

    Args:
        path: NIfTI, NRRD, MetaImage or FreeSurfer file, one multi-frame DICOM file, or a folder with a DICOM series; or
            an image in memory, which is checked as a file is.
        notes: Gets a sentence for everything that was changed, left out or is doubtful; none names a file.
        series: Number, UID or a part of the description of the wanted series, where a DICOM folder holds several; the
            number of the wanted volume, from 1, where another file holds several.
        name: What messages call it; by default the file's name.

    Returns:
        A 3D scalar image of at least two slices; its pixel type is the file's (64-bit numbers become 32-bit floats), so
        that a CT takes two bytes a voxel.

    Raises:
        InputError: The scan cannot be used.
        DeviceError: It does not fit into this computer's memory.
    """
    name = name or ("the image" if isinstance(path, sitk.Image) else Path(path).name)
    try:
        volume = _checked(of_memory(path, name), name) if isinstance(path, sitk.Image) else load(Path(path), series)
        if volume.array.ndim > 3:
            raise no_number(name, str(len(volume.array)))
        told = volume.notes
        array = _finite(volume.array, name, told)
        if array.dtype.itemsize == 8:
            array = _narrowed(array, name)
        if all((part == array.flat[0]).all() for part in array):  # ends at the first plane of two values
            told.append(f"All voxels hold the same value, {array.flat[0]:g}.")
        if padding := padding_of(array):
            told.append(f"{padding.share:.0%} of the voxels hold {padding.value:g}; they are taken for padding.")
        if notes is not None:
            notes += told
        return volume.grid.image(array)
    except (MemoryError, RuntimeError) as error:
        raise no_memory(name, error) from None


def read_channels(
    paths: Sequence[Path | str | sitk.Image], notes: list[str] | None = None, series: Sequence[str | None] = ()
) -> list[sitk.Image]:
    """Read the channels of one case, as ``read_image`` does; ``series`` has one entry for each or none at all.

    Raises:
        InputError: One cannot be used, or they lie on different grids (the message names both).
        DeviceError: One does not fit into this computer's memory.
    """
    if not paths:
        raise InputError("The case has no image.", "Choose at least one scan.")
    images = []
    names = [f"image {n}" if isinstance(path, sitk.Image) else Path(path).name for n, path in enumerate(paths, 1)]
    for number, (path, wanted) in enumerate(zip(paths, series or [None] * len(paths), strict=True), 1):
        told: list[str] = []
        images.append(read_image(path, told, wanted, names[number - 1]))
        if notes is not None:
            notes += [f"Channel {number}: {note}" for note in told] if len(paths) > 1 else told
    first = Grid.of(images[0])
    for name, image in zip(names[1:], images[1:], strict=True):
        grid = Grid.of(image)
        if not first.matches(grid):
            raise InputError(
                f"'{name}' and '{names[0]}' are channels of one case but {difference(grid, first)}.",
                "Resample or register them onto one grid first.",
            )
        first.place(image)
    return images


def load(path: Path, series: str | None = None, *, several: bool = False) -> Volume:
    """A file or DICOM folder with sane geometry; values are not looked at.

    Args:
        path: The file or folder.
        series: As for ``read_image``.
        several: Also take a file of several volumes, as components.

    Raises:
        InputError: The volume cannot be used.
    """
    if not path.exists():
        raise InputError(f"'{path.name}' does not exist.", "Check the path; the file may have been moved or renamed.")
    notes: list[str] = []
    if path.is_dir():
        volume = _dicom().read_series(path, series, notes)
    elif is_dicom(path):
        volume = _dicom().read_files([path], path.name, series, notes)
    else:
        volume = read_volume(path, several=several or series is not None)
        if series is not None:
            _choose_volume(volume, series, path.name)
    volume.notes = notes + volume.notes
    return _checked(volume, path.name)


def _checked(volume: Volume, name: str) -> Volume:
    low, high = _SPACING_MM
    if not all(low <= s <= high for s in volume.spacing):
        raise InputError(
            f"'{name}' has an unusable spacing of {' x '.join(f'{s:g}' for s in volume.spacing)} mm.",
            "Correct its header (the unit must be millimeters) or export the scan again.",
        )
    if min(volume.grid.size) < 2:
        raise InputError(
            f"'{name}' has {' x '.join(map(str, volume.grid.size))} voxels: it is a single slice, not a volume.",
            "Use a scan with at least two slices; for DICOM, choose the folder of the series.",
        )
    return volume


def _choose_volume(volume: Volume, wanted: str, name: str) -> None:
    """Keep one volume of several; ``wanted`` is its number, from 1."""
    count = len(volume.array) if volume.array.ndim > 3 else 1
    if not wanted.isdigit() or not 1 <= int(wanted) <= count:
        raise InputError(f"'{name}' has no volume {wanted!r}: it holds {count}.", f"Give a number from 1 to {count}.")
    if count > 1:
        volume.array = volume.array[int(wanted) - 1]


def no_memory(name: str, error: MemoryError | RuntimeError) -> Exception:
    """What running out of memory while reading a file is told as; any other error as it is."""
    if isinstance(error, RuntimeError) and "alloc" not in str(error):
        return error
    return DeviceError(
        f"'{name}' does not fit into the memory of this computer.", "Close other programs, or crop the scan."
    )


def difference(grid: Grid, other: Grid) -> str:
    """The first difference between two grids, in words."""
    if grid.size != other.size:
        return f"{' x '.join(map(str, grid.size))} voxels against {' x '.join(map(str, other.size))}"
    if not np.allclose(grid.spacing, other.spacing, rtol=0.01):
        return (
            f"spacing {' x '.join(f'{s:.4g}' for s in grid.spacing)} mm against "
            f"{' x '.join(f'{s:.4g}' for s in other.spacing)} mm"
        )
    if not np.allclose(grid.direction, other.direction, atol=0.01):
        return "their axes point in other directions"
    return f"their voxels lie up to {grid.distance_mm(other):.3g} mm apart"


def _dicom() -> ModuleType:
    # pydicom takes half a second to import, which nobody without DICOM should wait.
    from barl.images.dicom import series

    return series


def is_dicom(path: Path) -> bool:
    """Whether a file begins, or is named, as DICOM files are."""
    with open_regular(path) as file:
        start = file.read(132)
    if start[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima"):
        return True
    if path.suffix or start[:2] == b"\x1f\x8b":
        return False
    from barl.images.dicom.headers import looks_like_dicom

    return looks_like_dicom(path)


def _finite(array: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    bad = sum(part.size - np.count_nonzero(np.isfinite(part)) for part in array)
    if not bad:
        return array
    finite = np.isfinite(array)
    inside = bad
    if _REPAIRED_SHARE * array.size < bad < _BORDER_SHARE * array.size:
        inside = bad - int(np.count_nonzero(_border(np.isnan(array))))
    if inside > _REPAIRED_SHARE * array.size or not finite.any():
        raise InputError(
            f"'{name}' has {bad} voxels (of {array.size}) without a finite value (NaN or infinite).",
            "Export or compute the scan again, or replace those values.",
        )
    array = array.copy()
    array[~finite] = array[finite].min()
    if inside < bad:
        notes.append(
            f"{bad - inside} voxels ({(bad - inside) / array.size:.0%}) at the border without a finite value are taken "
            "for padding and were set to the scan's minimum."
        )
    if inside:
        notes.append(f"{inside} voxels without a finite value were set to the scan's minimum.")
    return array


def _narrowed(array: np.ndarray, name: str) -> np.ndarray:
    """64-bit numbers ``[k, j, i]`` as 32-bit floats.

    Raises:
        InputError: They are too large, too small or too near to each other for it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = array.astype(np.float32)
        lost = max(float(np.abs(part - n.astype(np.float64)).max()) for part, n in zip(array, narrow, strict=True))
    low, high = array.min(), array.max()
    if low < high and (narrow.min() == narrow.max() or not lost <= _NARROWED_SHARE * (float(high) - float(low))):
        raise InputError(
            f"'{name}' holds values ({low:g} to {high:g}) that numbers of 32 bits cannot hold or tell apart.",
            "Divide them by a constant or subtract one, and save the scan as 32-bit floats.",
        )
    return narrow


def _border(mask: np.ndarray) -> np.ndarray:
    """The part of a mask ``[k, j, i]`` that is connected to the edge of the volume."""
    edge = np.zeros_like(mask)
    for axis in range(3):
        for end in (0, -1):
            place = [slice(None)] * 3
            place[axis] = slice(end, None) if end else slice(0, 1)
            edge[tuple(place)] = mask[tuple(place)]
    return ndimage.binary_propagation(edge, mask=mask)
