# SPDX-License-Identifier: Apache-2.0
"""Label maps from files, brought onto a scan's grid by their place in space and to the label table by their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.images.formats.kinds import ending
from barl.images.formats.nifti_names import nifti_label_names
from barl.images.formats.volume import ROUNDING_VOXELS, Volume, no_number
from barl.images.geometry import Grid, axes_between
from barl.images.reading import difference, is_dicom, load, no_memory
from barl.images.segments import Segment, Structure, is_in_table, join, label_array, nrrd_segments, values_of

# Scaled whole numbers may miss theirs by this: half a step of the coarsest scale in use, 2/255.
_ROUNDED = 0.005
# From here on a rounding of the geometry is told, in voxels.
_TOLD_VOXELS = 1e-3


class OtherGridError(InputError):
    """A label map that does not lie on its scan's grid; it is taken if it may be resampled."""


def read_label(
    path: Path | str,
    grid: Grid,
    values: Collection[int],
    *,
    structures: Sequence[Structure] = (),
    resample: bool = False,
    notes: list[str] | None = None,
    meaning: Mapping[int | str, int] | None = None,
) -> sitk.Image:
    """Read a label map of a scan.

    Args:
        path: A file as for ``read_image``; whole numbers stored as floats are fine. It may be cropped, and its axes may
            be stored in another order: voxels count where they lie. Or a DICOM segmentation or structure set, or a
            folder with one file for each structure, named as its label.
        grid: The scan's.
        values: Label values of the project's table; background is 0 and always allowed.
        structures: The table with names: segments that bear names are matched by them.
        resample: Bring a map of another grid onto the scan's, nearest voxel.
        notes: Gets a sentence for everything that was changed, left out or is doubtful; none names a file.
        meaning: Value in the file -> value of the table, for files without names whose values are others; 0 stays 0.
            Name of a segment -> value of the table, for files with names that the table does not have.

    Returns:
        uint8, or uint16 if the table has values above 255, exactly on ``grid``.

    Raises:
        OtherGridError: It lies on another grid, or in part outside of the scan, and ``resample`` is not set.
        InputError: The file cannot be used, or has other values or names.
        DeviceError: It does not fit into this computer's memory.
    """
    path = Path(path)
    told: list[str] = []
    try:
        array = _outline(path, grid, values, structures, resample, told, meaning or {})
        if not array.any():
            told.append("The outline is empty.")
        if notes is not None:
            notes += [f"Outline: {note}" for note in told]
        return grid.image(array.astype(np.uint8 if max(values, default=0) < 256 else np.uint16))
    except (MemoryError, RuntimeError) as error:
        raise no_memory(path.name, error) from None


def read_partial_label(
    path: Path | str,
    grid: Grid,
    values: Collection[int],
    ignored: int,
    *,
    structures: Sequence[Structure] = (),
    resample: bool = False,
    notes: list[str] | None = None,
    meaning: Mapping[int | str, int] | None = None,
) -> tuple[sitk.Image, sitk.Image]:
    """Read a label map in which one value means that nobody has looked.

    Args:
        path, grid, values, structures, resample, notes, meaning: As for ``read_label``.
        ignored: This value in the file.

    Returns:
        The label map, 0 where nobody has looked, and a mask uint8, 1 where somebody has; both on ``grid``.

    Raises:
        InputError: As for ``read_label``, or the value is that of a label.
        DeviceError: It does not fit into this computer's memory.
    """
    meaning = meaning or {value: value for value in values}
    if ignored == 0 or ignored in meaning:
        raise InputError(
            f"The value {ignored} is that of {'background' if ignored == 0 else 'a label'}: it cannot mean that nobody "
            "has looked.",
            "Give the value that the label map has where nobody has looked.",
        )
    marker = next(value for value in range(1, 2**16) if value not in values)
    image = read_label(
        path,
        grid,
        [*values, marker],
        structures=structures,
        resample=resample,
        notes=notes,
        meaning={**meaning, ignored: marker},
    )
    array = sitk.GetArrayFromImage(image)
    looked = array != marker
    if notes is not None and looked.all():
        notes.append(
            f"Outline: It has no voxel of the value {ignored}, which means that nobody has looked: it counts as an "
            "outline of the whole scan."
        )
    array[~looked] = 0
    return grid.image(array), grid.image(looked.astype(np.uint8))


def read_mask(path: Path | str, grid: Grid, *, resample: bool = False, notes: list[str] | None = None) -> sitk.Image:
    """Read a mask of a scan: whole numbers, not 0 inside.

    Args:
        path, grid, resample, notes: As for ``read_label``.

    Returns:
        uint8, 0 or 1, exactly on ``grid``.

    Raises:
        InputError: The file cannot be used or lies on another grid.
        DeviceError: It does not fit into this computer's memory.
    """
    path = Path(path)
    told: list[str] = []
    try:
        volume = load(path)
        told += volume.notes
        if volume.array.ndim > 3:
            raise no_number(path.name, str(len(volume.array)))
        volume.array = (_whole(volume.array, path.name, told) != 0).astype(np.uint8)
        mask = _on_grid(volume, grid, path.name, resample, told)
    except (MemoryError, RuntimeError) as error:
        raise no_memory(path.name, error) from None
    if notes is not None:
        notes += [f"Mask: {note}" for note in told]
    return grid.image(mask)


def _outline(
    path: Path,
    grid: Grid,
    values: Collection[int],
    structures: Sequence[Structure],
    resample: bool,
    notes: list[str],
    meaning: Mapping[int | str, int],
) -> np.ndarray:
    """Labels ``[k, j, i]`` on the scan's grid, from a file or folder of any kind."""
    structures = [*structures, *(Structure(value, name) for name, value in meaning.items() if isinstance(name, str))]
    numbers = {value: target for value, target in meaning.items() if not isinstance(value, str)}
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".") and file.is_file()]
        if structures and any(ending(file.name) for file in files):
            return _one_file_each([file for file in files if ending(file.name)], grid, structures, resample, notes)
        path = files[0] if len(files) == 1 else path
    if path.is_file() and is_dicom(path):
        # pydicom takes half a second to import, which nobody without DICOM should wait.
        from barl.images.dicom.outlines import read_outline

        array = read_outline(path, grid, structures, notes)
        if array is not None:
            return array
    volume = load(path)
    notes += volume.notes
    names = {value: text for value, text in nifti_label_names(path).items() if text} if path.is_file() else {}
    volume.array = _labels(volume, path.name, values, structures, notes, numbers, names)
    return _on_grid(volume, grid, path.name, resample, notes)


def _one_file_each(
    files: Sequence[Path], grid: Grid, structures: Sequence[Structure], resample: bool, notes: list[str]
) -> np.ndarray:
    """Labels from one file for each structure, each with a single value beside 0."""
    masks = []
    for file in files:
        name = file.name.removesuffix(ending(file.name))
        (target,) = values_of([Segment(name, -1)], structures, file.name, []).values()
        volume = load(file)
        volume.array = _whole(volume.array, file.name, notes)
        if volume.array.ndim > 3 or len(np.unique(volume.array[volume.array != 0])) > 1:
            raise InputError(
                f"'{file.name}' holds more than one structure.", "Give one file for each, or one label map."
            )
        volume.array = (volume.array != 0).astype(np.uint16)
        mask = _on_grid(volume, grid, file.name, resample, notes) != 0
        masks.append((target, mask))
    return join(grid.shape, masks, files[0].parent.name, notes)


def _labels(
    volume: Volume,
    name: str,
    values: Collection[int],
    structures: Sequence[Structure],
    notes: list[str],
    meaning: Mapping[int, int],
    names: Mapping[int, str],
) -> np.ndarray:
    """Values of the table ``[k, j, i]``, uint16, still on the file's own grid; ``names``: of values in its header."""
    segments = nrrd_segments(volume.texts)
    if segments and structures:
        array = label_array(volume, segments, structures, name, notes)
    elif volume.array.ndim > 3:
        raise no_number(name, str(len(volume.array)))
    else:
        array = _whole(volume.array, name, notes)
        if meaning:
            array = with_meaning(array, meaning, name)
        elif names and structures:
            array = _by_names(volume, array, names, structures, name, notes)
    found = np.flatnonzero(np.bincount(array.ravel())) if array.dtype == np.uint16 else np.unique(array)
    if unknown := sorted({int(value) for value in found} - {0, *values}):
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise InputError(
            f"The label map '{name}' holds the value(s) {shown}, which the label table does not have.",
            'Add them to the label table ("barl project labels PROJECT --add VALUE=NAME"), or give the file no values '
            f"but {', '.join(map(str, [0, *sorted(values)]))}.",
        )
    return array.astype(np.uint16)


def _by_names(
    volume: Volume,
    array: np.ndarray,
    names: Mapping[int, str],
    structures: Sequence[Structure],
    file: str,
    notes: list[str],
) -> np.ndarray:
    """The values of the table, found by the names that the header gives; as they are if the table has none of these."""
    present = [int(value) for value in np.unique(array) if value in names]
    segments = [Segment(names[value], value) for value in present]
    if any(is_in_table(segment, structures) for segment in segments):
        volume.array = array
        return label_array(volume, segments, structures, file, notes)
    table = {structure.value: structure.name for structure in structures}
    if taken := [f"{names[value]} as {table[value]}" for value in present if value in table]:
        notes.append(f"The label table has none of the names in the file; its values were taken: {', '.join(taken)}.")
    return array


def with_meaning(array: np.ndarray, meaning: Mapping[int, int], name: str) -> np.ndarray:
    """The values of the table, uint16, in the place of the values that a file has.

    Raises:
        InputError: The file has a value beside 0 that ``meaning`` lacks.
    """
    found = np.unique(array).astype(np.int64)
    if unknown := sorted(set(found.tolist()) - {0, *meaning}):
        raise InputError(
            f"The label map '{name}' holds the value(s) {', '.join(map(str, unknown[:5]))}, which have no name there.",
            f"Name them as well, or change them to one of: {', '.join(map(str, sorted(meaning)))}.",
        )
    table = np.array([meaning.get(int(value), 0) for value in found], dtype=np.uint16)
    return table[np.searchsorted(found, array)]


def _whole(array: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    """Whole numbers, from floats that are whole but for rounding."""
    if array.dtype.kind in "ui":
        return array
    if np.isinf(array).any():
        raise InputError(f"The label map '{name}' holds infinite values.", "Export the label map again.")
    off = 0.0
    whole = np.empty(array.shape, dtype=np.int64)
    for given, kept in zip(array, whole, strict=True):  # slice by slice: copies of whole scans take gigabytes
        rounded = np.rint(given)
        off = max(off, float(np.abs(given - rounded).max())) if not np.isnan(given).any() else np.inf
        if off > _ROUNDED or np.abs(rounded).max() > 2**53:
            raise InputError(
                f"The label map '{name}' holds values that are not integers.",
                "Export the label map itself, not a probability map, and without interpolation.",
            )
        kept[...] = rounded
    if off > 0:
        notes.append(f"Values that were not quite whole numbers (by up to {off:.2g}) were rounded.")
    return whole


def _on_grid(volume: Volume, grid: Grid, name: str, resample: bool, notes: list[str]) -> np.ndarray:
    """The labels ``[k, j, i]`` on the scan's grid."""
    own, array = volume.grid, volume.array
    try:
        axes = axes_between(own, grid)
        turned, view = own.oriented(axes), axes.view(array)
    except InputError:
        turned, view = own, array
    corners = turned.corners
    places = grid.mm_to_index(turned.index_to_mm(corners))
    start = np.rint(places[0]).astype(int)
    off = float(np.abs(places - corners - start).max())
    # A whole grid like the scan's that lies elsewhere is another form of its header or another scan, not a crop.
    elsewhere = turned.size == grid.size and bool(start.any())
    if off <= ROUNDING_VOXELS and (resample or not elsewhere):
        if off > _TOLD_VOXELS:
            notes.append(f"The geometry is rounded: voxels miss the scan's by up to {off:.2g} of a voxel.")
        return _pasted(view, start, grid, name, resample, notes)
    moved, before, lost = _resampled(volume, grid)
    after = int(np.count_nonzero(moved))
    if resample:
        notes.append(
            f"It was resampled onto the scan's grid (nearest voxel): {before} outlined voxels became {after}; "
            f"{lost} of them are lost."
        )
        return moved
    raise OtherGridError(
        f"The label map '{name}' does not lie on its scan's grid: {difference(turned, grid)}. "
        f"Resampled onto it (nearest voxel), its {before} outlined voxels would become {after}; {lost} would be lost.",
        "Export it with the scan as the reference geometry, or add it with --resample.",
    )


def _pasted(array: np.ndarray, start: np.ndarray, grid: Grid, name: str, force: bool, notes: list[str]) -> np.ndarray:
    """Labels whose first voxel is voxel ``start`` (x, y, z) of the scan."""
    size = np.array(array.shape[::-1])
    first, last = np.maximum(start, 0), np.minimum(start + size, grid.size)
    if (start == 0).all() and tuple(size) == grid.size:
        return np.ascontiguousarray(array)
    result = np.zeros(grid.shape, dtype=array.dtype)
    if (last > first).all():
        source = tuple(slice(a - s, b - s) for a, b, s in zip(first, last, start, strict=True))
        target = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        result[target[::-1]] = array[source[::-1]]
    lost = int(np.count_nonzero(array)) - int(np.count_nonzero(result))
    if lost and not force:
        raise OtherGridError(
            f"{lost} outlined voxels of the label map '{name}' lie outside of its scan.",
            "Choose the scan that was outlined, or cut them off with --resample.",
        )
    if lost:
        notes.append(f"{lost} outlined voxels outside of the scan were cut off.")
    return result


def _resampled(volume: Volume, grid: Grid) -> tuple[np.ndarray, int, int]:
    """The labels ``[k, j, i]`` on the scan's grid, nearest voxel; how many voxels were outlined, and how many of these
    are lost."""
    own = volume.grid
    moved = sitk.Resample(
        own.image(volume.array), grid.empty(sitk.sitkUInt16), sitk.Transform(), sitk.sitkNearestNeighbor, 0
    )
    result = sitk.GetArrayFromImage(moved)
    outlined = np.argwhere(volume.array)
    places = np.rint(grid.mm_to_index(own.index_to_mm(outlined[:, ::-1]))).astype(int)
    inside = ((places >= 0) & (places < grid.size)).all(axis=1)
    kept = result[tuple(places[inside].T[::-1])] == volume.array[tuple(outlined[inside].T)]
    lost = len(outlined) - int(np.count_nonzero(kept))
    return result, len(outlined), lost
