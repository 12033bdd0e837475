# SPDX-License-Identifier: Apache-2.0
"""Scans and label maps from files and DICOM folders, refused with one sentence where they cannot be used; and to files.

What comes out is a three-dimensional SimpleITK image with one finite number per voxel, sane spacing and no metadata: no
DICOM tag travels further than this room. Messages name a file by its name alone.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, storage_error
from barl.images.geometry import Grid
from barl.images.nifti_check import check_nifti
from barl.images.quiet import quiet

_FORMATS = ("NiftiImageIO", "NrrdImageIO", "MetaImageIO")
_USE = "Use a NIfTI-1, NRRD or MHA file, or a folder with one DICOM series."

# Outside of this a spacing is a mistake of units (meters, micrometers) or a damaged header, not a scan of a patient.
_SPACING_MM = (0.005, 50.0)

# Up to this share of voxels without a finite value is repaired; more is a broken scan.
_REPAIRED_SHARE = 1e-3


def read_image(path: Path | str, notes: list[str] | None = None, series: str | None = None) -> sitk.Image:
    """Read a scan.

    Few voxels without a finite value (up to 0.1 %, as divisions leave in computed maps) become the scan's minimum.

    Args:
        path: NIfTI, NRRD or MetaImage file, one multi-frame DICOM file, or a folder with a DICOM series.
        notes: Gets a sentence for everything that was changed, left out or is doubtful; none names a file.
        series: Number, UID or a part of the description of the wanted series, where a DICOM folder holds several.

    Returns:
        A 3D scalar image of at least two slices; its pixel type is the file's (64-bit floats become 32-bit), so that a
        CT takes two bytes a voxel.

    Raises:
        InputError: The scan cannot be used.
    """
    path = Path(path)
    image = _read(path, notes, series)
    if image.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64):
        image = _finite(image, path.name, notes)
    if image.GetPixelID() in (sitk.sitkFloat64, sitk.sitkInt64, sitk.sitkUInt64):
        image = sitk.Cast(image, sitk.sitkFloat32)
    return image


def read_channels(
    paths: Sequence[Path | str], notes: list[str] | None = None, series: Sequence[str | None] = ()
) -> list[sitk.Image]:
    """Read the channels of one case, as ``read_image`` does; ``series`` has one entry for each or none at all.

    Raises:
        InputError: One cannot be used, or they lie on different grids (the message names both).
    """
    if not paths:
        raise InputError("The case has no image.", "Choose at least one scan.")
    images = []
    for number, (path, wanted) in enumerate(zip(paths, series or [None] * len(paths), strict=True), 1):
        told: list[str] = []
        images.append(read_image(path, told, wanted))
        if notes is not None:
            notes += [f"Channel {number}: {note}" for note in told] if len(paths) > 1 else told
    first = Grid.of(images[0])
    for path, image in zip(paths[1:], images[1:], strict=True):
        grid = Grid.of(image)
        if not first.matches(grid):
            raise InputError(
                f"'{Path(path).name}' and '{Path(paths[0]).name}' are channels of one case but "
                f"{_difference(grid, first)}.",
                "Resample or register them onto one grid first.",
            )
        first.place(image)
    return images


def read_label(path: Path | str, grid: Grid, values: Collection[int]) -> sitk.Image:
    """Read a label map of a scan.

    Args:
        path: A file as for ``read_image``; whole numbers stored as floats are fine.
        grid: The scan's.
        values: Label values of the project's table; background is 0 and always allowed.

    Returns:
        uint8, or uint16 if the table has values above 255, exactly on ``grid``.

    Raises:
        InputError: The file cannot be used, lies on another grid, or has other values.
    """
    path = Path(path)
    image = _read(path, None, None)
    own = Grid.of(image)
    if not grid.matches(own):
        raise InputError(
            f"The label map '{path.name}' does not lie on its scan's grid: {_difference(own, grid)}.",
            "Export it with the scan as the reference geometry.",
        )
    array = sitk.GetArrayViewFromImage(image)
    found = np.unique(np.concatenate([np.unique(part) for part in array]))
    if not np.array_equal(found, np.round(found)):  # NaN differs from itself and lands here too.
        raise InputError(
            f"The label map '{path.name}' holds numbers that are not whole.",
            "Export the label map itself, not a probability map, and without interpolation.",
        )
    if unknown := sorted({int(value) for value in found if np.isfinite(value)} - {0, *values}):
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise InputError(
            f"The label map '{path.name}' holds the value(s) {shown}, which the label table does not have.",
            f"Change them to {', '.join(map(str, sorted(values)))}, or add them to the label table.",
        )
    if not np.isfinite(found).all():
        raise InputError(f"The label map '{path.name}' holds infinite values.", "Export the label map again.")
    return grid.image(array.astype(np.uint8 if max(values, default=0) < 256 else np.uint16))


def write_image(image: sitk.Image, path: Path | str) -> None:
    """Write pixels and geometry, nothing else, to a compressed file: whole, or not at all.

    Raises:
        InputError: The file name has none of the endings .nii.gz, .nii, .nrrd, .mha.
        StorageError: The disk is full or cannot be written.
    """
    path = Path(path)
    ending = next((e for e in (".nii.gz", ".nii", ".nrrd", ".mha") if path.name.lower().endswith(e)), None)
    if ending is None:
        raise InputError(f"'{path.name}' is not a file name for a volume.", "Use .nii.gz, .nrrd or .mha.")
    bare = sitk.Image(image)
    bare.MakeUnique()  # Copies of an image share their metadata until then.
    for key in bare.GetMetaDataKeys():
        bare.EraseMetaData(key)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{ending}")
    try:
        _write_whole(bare, temporary, ending)
        temporary.replace(path)
    except OSError as error:
        raise storage_error(error, path.name) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_whole(image: sitk.Image, path: Path, ending: str) -> None:
    # Opened by Python first: ITK says only that it failed, the operating system says why.
    with path.open("wb"):
        pass
    try:
        with quiet():
            sitk.WriteImage(image, str(path), useCompression=ending != ".nii")
        if ending.startswith(".nii"):
            check_nifti(path)  # ITK does not notice a disk that fills up.
    except (RuntimeError, InputError):
        _ask_for_room(path)
        raise OSError(None, "the file was not written whole") from None
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _ask_for_room(path: Path) -> None:
    """Raise the operating system's own error if the disk has no room for another megabyte."""
    with path.open("ab") as file:
        file.write(bytes(2**20))


def _read(path: Path, notes: list[str] | None, series: str | None) -> sitk.Image:
    """A 3D scalar image with sane geometry and without metadata; values are not looked at."""
    if not path.exists():
        raise InputError(f"'{path.name}' does not exist.", "Check the path; the file may have been moved or renamed.")
    if path.is_dir():
        image = _dicom().read_series(path, series, notes)
    elif path.stat().st_size == 0:
        raise InputError(f"'{path.name}' is empty.", "Copy or export the scan again.")
    elif _is_dicom(path):
        image = _dicom().read_files([path], path.name, series, notes)
    else:
        image = _read_file(path)
    _check_spacing(image.GetSpacing(), path.name)
    if min(image.GetSize()) < 2:
        raise InputError(
            f"'{path.name}' has {' x '.join(map(str, image.GetSize()))} voxels: it is a single slice, not a volume.",
            "Use a scan with at least two slices; for DICOM, choose the folder of the series.",
        )
    axes = Grid.of(image).axes
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise _skewed(path.name)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    return image


def _dicom() -> ModuleType:
    # pydicom takes half a second to import, which nobody without DICOM should wait.
    from barl.images.dicom import series

    return series


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(132)
    known = start[:2] == b"\x1f\x8b" or start[:4] in (b"NRRD", b"\x5c\x01\0\0", b"\0\0\x01\x5c")
    if start[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima"):
        return True
    if known or path.suffix:
        return False
    from barl.images.dicom.headers import looks_like_dicom

    return looks_like_dicom(path)


def _read_file(path: Path) -> sitk.Image:
    try:
        with quiet():
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            kind = reader.GetImageIOFromFileName(str(path))
            if kind not in _FORMATS:
                known = (
                    "is a picture, not a volume"
                    if kind
                    else "is not an image file of a known kind, or its beginning is damaged"
                )
                raise InputError(f"'{path.name}' {known}.", _USE)
            not_finite = check_nifti(path) if kind == "NiftiImageIO" else np.empty(0, dtype=int)
            reader.ReadImageInformation()
            _check_kind(reader, path.name)
            # Before reading: ITK turns a negative spacing into a positive one.
            _check_spacing(reader.GetSpacing()[:3], path.name)
            image = _volume(reader.Execute())
    except OSError as error:
        raise InputError(f"'{path.name}' cannot be opened ({error.strerror}).", "Check its permissions.") from error
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if "pacing" in text:
            raise InputError(
                f"'{path.name}' has a spacing of zero or none.", "Correct its header or export the scan again."
            ) from None
        if "direction" in text:
            raise _skewed(path.name) from None
        raise InputError(f"'{path.name}' is damaged or cut off.", "Copy or export the scan again.") from None
    if not_finite.size:  # Where ITK has put zeros.
        array = sitk.GetArrayFromImage(image)
        array.ravel()[not_finite] = np.nan
        image = Grid.of(image).image(array)
    return image


def _check_kind(reader: sitk.ImageFileReader, name: str) -> None:
    """Refuse what is not one number per voxel in three dimensions; a fourth of length one does no harm."""
    size = reader.GetSize()
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise InputError(f"'{name}' holds complex numbers.", "Export the magnitude image.")
    if reader.GetNumberOfComponents() > 1:
        raise InputError(
            f"'{name}' holds {reader.GetNumberOfComponents()} values per voxel (a color image or vector field).",
            "Export it as a gray-scale volume, or each component as a volume of its own.",
        )
    if len(size) < 3:
        raise InputError(f"'{name}' is a two-dimensional image.", "Use a volume with at least two slices.")
    if any(n > 1 for n in size[3:]):
        raise InputError(
            f"'{name}' has four dimensions ({' x '.join(map(str, size))}): a time series or several channels in one.",
            "Export one time point, or each channel, as a volume of its own.",
        )


def _volume(image: sitk.Image) -> sitk.Image:
    while image.GetDimension() > 3:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    return image


def _check_spacing(spacing: Sequence[float], name: str) -> None:
    low, high = _SPACING_MM
    if not all(low <= s <= high for s in spacing):
        raise InputError(
            f"'{name}' has an unusable spacing of {' x '.join(f'{s:g}' for s in spacing)} mm.",
            "Correct its header (the unit must be millimeters) or export the scan again.",
        )


def _skewed(name: str) -> InputError:
    return InputError(
        f"The axes of '{name}' are not at right angles to each other.",
        "Resample it onto a rectangular grid, for example with Slicer's 'Resample Scalar Volume'.",
    )


def _finite(image: sitk.Image, name: str, notes: list[str] | None) -> sitk.Image:
    array = sitk.GetArrayViewFromImage(image)
    bad = sum(part.size - np.count_nonzero(np.isfinite(part)) for part in array)
    if not bad:
        return image
    if bad > _REPAIRED_SHARE * array.size:
        raise InputError(
            f"'{name}' has {bad} voxels (of {array.size}) without a finite value (NaN or infinite).",
            "Export or compute the scan again, or replace those values.",
        )
    array = array.copy()
    finite = np.isfinite(array)
    array[~finite] = array[finite].min()
    if notes is not None:
        notes.append(f"'{name}': {bad} voxels without a finite value were set to the scan's minimum.")
    return Grid.of(image).image(array)


def _difference(grid: Grid, other: Grid) -> str:
    """What tells two grids apart, the first thing that does, in words."""
    if grid.size != other.size:
        return f"{' x '.join(map(str, grid.size))} voxels against {' x '.join(map(str, other.size))}"
    if not np.allclose(grid.spacing, other.spacing, rtol=0.01):
        return (
            f"spacing {' x '.join(f'{s:.4g}' for s in grid.spacing)} mm against "
            f"{' x '.join(f'{s:.4g}' for s in other.spacing)} mm"
        )
    if not np.allclose(grid.direction, other.direction, atol=0.01):
        return "their axes point in other directions"
    shift = float(np.linalg.norm(np.subtract(grid.origin, other.origin)))
    return f"they lie {shift:.3g} mm apart"
