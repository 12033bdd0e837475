# SPDX-License-Identifier: Apache-2.0
"""DICOM series from a folder. Only pixels and geometry are taken; no tag about the patient is read or kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.images.quiet import quiet

_MODALITY, _POSITION, _ORIENTATION = "0008|0060", "0020|0032", "0020|0037"

# Slices may miss their place by this share of the slice distance: positions in DICOM are rounded.
_UNEVEN = 0.05

_CONVERT = (
    "Load it in Slicer with the DICOM plugin's 'acquisition geometry regularization' and export the result as a volume."
)


@dataclass(frozen=True)
class Series:
    """One series of images in a folder.

    Attributes:
        uid: What ``read_series`` takes to tell it from others; never shown or stored.
        label: Modality and size, nothing about the patient.
        n_slices: Files (one may hold many frames).
        files: Their paths.
    """

    uid: str
    label: str
    n_slices: int
    files: tuple[str, ...]


def list_series(folder: Path | str) -> list[Series]:
    """The image series in a folder and the folders in it; other DICOM objects (structure sets, reports) are left out.

    Raises:
        InputError: ``folder`` is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"'{folder.name}' is not a folder.", "Choose the folder with the DICOM files.")
    found = []
    with quiet():
        for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
            for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(place), True):
                files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(place), uid, True)
                if not files or not (header := _header(files[0])):
                    continue
                size = header.GetSize()
                slices = size[2] if len(files) == 1 and len(size) > 2 else len(files)
                modality = header.GetMetaData(_MODALITY).strip() if header.HasMetaDataKey(_MODALITY) else "unknown"
                found.append(Series(uid, f"{modality}, {size[0]} x {size[1]} x {slices}", len(files), tuple(files)))
    return sorted(found, key=lambda series: (series.label, series.uid))


def read_series(folder: Path | str, uid: str | None = None) -> sitk.Image:
    """Read one series of a folder as a volume.

    Args:
        folder: With DICOM files.
        uid: ``Series.uid`` of the wanted one; may be left out if there is only one.

    Raises:
        InputError: No series, several and none chosen, or slices that do not make an even, upright stack (missing
            slices, uneven distances, gantry tilt).
    """
    folder = Path(folder)
    all_series = list_series(folder)
    chosen = [series for series in all_series if uid in (None, series.uid)]
    if not chosen:
        empty = not any(folder.iterdir())
        raise InputError(
            f"The folder '{folder.name}' is empty." if empty else f"The folder '{folder.name}' holds no DICOM images.",
            "Choose the folder with the files of one scan, or a NIfTI, NRRD or MHA file.",
        )
    if len(chosen) > 1:
        raise InputError(
            f"The folder '{folder.name}' holds {len(chosen)} series: {'; '.join(series.label for series in chosen)}.",
            "Put the files of the wanted one into a folder of their own.",
        )
    return _read(chosen[0], folder.name)


def read_files(files: Sequence[Path | str], name: str) -> sitk.Image:
    """Read the files of one series, wherever they lie, as a volume; in any order.

    Args:
        files: All files of the series.
        name: What messages call it.

    Raises:
        InputError: As ``read_series``.
    """
    files = tuple(map(str, files))
    if not files or not all(Path(file).is_file() for file in files):
        raise InputError(
            f"Files of the DICOM series of '{name}' are missing.", "Check that the drive with the DICOM files is there."
        )
    return _read(Series("", "", len(files), files), name)


def _header(file: str) -> sitk.ImageFileReader | None:
    """The header of an image, or None if the object is none."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader if min(reader.GetSize()[:2]) > 1 else None


def _read(series: Series, name: str) -> sitk.Image:
    with quiet():
        files = _stack(series, name) if len(series.files) > 1 else series.files
        try:
            if len(files) == 1:
                reader = _header(files[0])
                if reader is None:
                    raise RuntimeError("no image")
            else:
                reader = sitk.ImageSeriesReader()
                reader.SetFileNames(files)
            image = reader.Execute()
        except RuntimeError:
            raise InputError(
                f"The DICOM series in '{name}' cannot be read; a file of it may be damaged or cut off.",
                "Copy or export the series again.",
            ) from None
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"The DICOM series in '{name}' holds color images.", "Choose a gray-scale series.")
    if image.GetDimension() != 3:
        raise InputError(f"The DICOM series in '{name}' is not a volume.", "Choose a series with several slices.")
    return image


def _stack(series: Series, name: str) -> list[str]:
    """The files in the order of their slices; refused unless parallel, evenly spaced, and straight above each other."""
    headers = [_header(file) for file in series.files]
    if not all(headers):
        raise InputError(f"A slice of the DICOM series in '{name}' is damaged.", "Copy or export the series again.")
    if any(not header.HasMetaDataKey(key) for header in headers for key in (_POSITION, _ORIENTATION)):
        raise InputError(f"The DICOM series in '{name}' does not say where its slices lie.", "Choose another series.")
    positions = np.array([[float(v) for v in header.GetMetaData(_POSITION).split("\\")] for header in headers])
    cosines = np.array([[float(v) for v in header.GetMetaData(_ORIENTATION).split("\\")] for header in headers])
    if len({header.GetSize()[:2] for header in headers}) > 1 or np.abs(cosines - cosines[0]).max() > 1e-3:
        raise InputError(
            f"The slices of the DICOM series in '{name}' differ in size or direction.",
            "Choose a series that is one stack of slices.",
        )
    normal = np.cross(cosines[0, :3], cosines[0, 3:])
    order = np.argsort(positions @ normal, kind="stable")
    steps = np.diff(positions[order], axis=0)
    distances = steps @ normal
    usual = float(np.median(distances))
    if (distances < 1e-3).any():
        raise InputError(
            f"The DICOM series in '{name}' has several slices at one place (time points or echoes).",
            "Export one time point or echo as a series of its own.",
        )
    tilt = float(np.degrees(np.arccos(np.clip(usual / np.linalg.norm(np.median(steps, axis=0)), 0, 1))))
    problems = []
    if np.abs(distances - usual).max() > _UNEVEN * usual:
        problems.append(f"unevenly spaced slices ({distances.min():.2f} to {distances.max():.2f} mm apart)")
    if tilt > 0.5:
        problems.append(f"a gantry tilt of {tilt:.1f} degrees")
    if problems:
        raise InputError(f"The DICOM series in '{name}' has {' and '.join(problems)}.", _CONVERT)
    return [series.files[n] for n in order]
