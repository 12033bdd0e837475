# SPDX-License-Identifier: Apache-2.0
"""Small DICOM files for tests, written with pydicom: classic slices and enhanced multi-frame files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.images.formats.volume import Volume
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, MR, PET, NM = (STORAGE + end for end in ("2", "4", "128", "20"))
ENHANCED_CT, ENHANCED_MR = STORAGE + "2.1", STORAGE + "4.1"
MODALITY = {CT: "CT", MR: "MR", PET: "PT", NM: "NM", ENHANCED_CT: "CT", ENHANCED_MR: "MR"}
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# A volume and its place: spacing, origin, direction.
ARRAY = np.random.default_rng(3).integers(-1000, 1500, size=(6, 9, 8)).astype(np.int16)
PLACES = [(-20.0, 30.0, 2.5 * k) for k in range(6)]
GRID = ((0.7, 0.9, 2.5), (-20.0, 30.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
Change = Callable[[Dataset, int], None]


def dataset(sop_class: str, pixels: np.ndarray, *, series: str, instance: str) -> Dataset:
    """Everything but the place: ``pixels`` is ``[row, column]`` or ``[frame, row, column]`` of 16-bit values."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID(sop_class)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(instance)
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = (
        UID("1.2.826.0.1.5"),
        UID(series),
        UID("1.2.3"),
    )
    data.PatientName, data.PatientID, data.StudyID, data.StudyDate, data.StudyTime = (
        "Doe^Jane",
        "PATIENT-4711",
        "",
        "",
        "",
    )
    data.PatientBirthDate, data.PatientSex, data.AccessionNumber, data.ReferringPhysicianName = "", "", "", ""
    data.Modality, data.SeriesNumber, data.InstanceNumber = MODALITY.get(sop_class, "OT"), 1, 1
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    return data


def save(data: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def slices(
    folder: Path,
    array: np.ndarray,
    positions: Sequence[Sequence[float]],
    *,
    sop_class: str = CT,
    series: str = "1.2.826.0.1.77",
    change: Change = lambda data, k: None,
    first: int = 1,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (0.7, 0.9),
    name: str = "{:03d}.dcm",
) -> Path:
    """Classic files, one for each slice ``[k, j, i]``; ``spacing`` is along x and y; ``change`` edits slice k."""
    for k, (plane, position) in enumerate(zip(array, positions, strict=True)):
        data = dataset(sop_class, plane, series=series, instance=f"{series}.{first + k}")
        data.InstanceNumber = first + k
        data.ImagePositionPatient, data.ImageOrientationPatient = list(position), list(orientation)
        data.PixelSpacing = [spacing[1], spacing[0]]
        change(data, k)
        save(data, folder / name.format(first + k))
    return folder


def item(**values) -> Dataset:
    data = Dataset()
    for keyword, value in values.items():
        setattr(data, keyword, value)
    return data


def frames(
    path: Path,
    array: np.ndarray,
    positions: Sequence[Sequence[float]],
    *,
    sop_class: str = ENHANCED_CT,
    change: Change = lambda frame, k: None,
    orientations: Sequence[Sequence[float]] | None = None,
    edit: Callable[[Dataset], None] = lambda data: None,
) -> Path:
    """One enhanced file; ``change`` edits the functional groups of frame k, ``edit`` the whole file."""
    data = dataset(sop_class, array, series="1.2.826.0.1.78", instance="1.2.826.0.1.78.1")
    data.NumberOfFrames = len(array)
    data.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[item(PixelSpacing=[0.9, 0.7], SliceThickness=2)])
    ]
    groups = []
    for k, position in enumerate(positions):
        orientation = orientations[k] if orientations else AXIAL
        frame = item(
            FrameContentSequence=[item(InStackPositionNumber=k + 1, StackID="1")],
            PlanePositionSequence=[item(ImagePositionPatient=list(position))],
            PlaneOrientationSequence=[item(ImageOrientationPatient=list(orientation))],
        )
        change(frame, k)
        groups.append(frame)
    data.PerFrameFunctionalGroupsSequence = groups
    edit(data)
    return save(data, path)


def assert_exact(image: sitk.Image | Volume, array=ARRAY, grid=GRID, *, rtol: float = 0.0) -> None:
    image = image.grid.image(image.array) if isinstance(image, Volume) else image
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), array, rtol=rtol)
    assert image.GetSpacing() == pytest.approx(grid[0], abs=1e-6)
    assert image.GetOrigin() == pytest.approx(grid[1], abs=1e-6)
    assert image.GetDirection() == pytest.approx(grid[2], abs=1e-6)
    assert not image.GetMetaDataKeys()
