# SPDX-License-Identifier: Apache-2.0
"""DICOM segmentation objects beside the series that a case came from, written by highdicom.

A project keeps no DICOM tag; the series is read again for each export, and nothing of it is stored in the project. The
object written is of the patient, as DICOM wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl import __version__
from barl.errors import InputError
from barl.images.geometry import Grid, axes_between
from barl.project.doubts import voxel_digest
from barl.project.files import write_atomically
from barl.project.labels import Code, Label

_TISSUE = Code("SCT", "85756007", "Tissue")


@dataclass(frozen=True)
class Source:
    """A DICOM series.

    Attributes:
        files: Its files.
        grid: Where its voxels lie.
        digest: Of its voxels, as ``voxel_digest`` gives it.
    """

    files: tuple[Path, ...]
    grid: Grid
    digest: str


def load_highdicom() -> ModuleType:
    """The package highdicom.

    Raises:
        InputError: It is not installed.
    """
    try:
        import highdicom
    except ImportError:
        raise InputError(
            "DICOM segmentations need the package highdicom, which is not installed.",
            "Install it: pip install barl-segmentation[exchange]; in Slicer's Python console: "
            "slicer.util.pip_install('highdicom').",
        ) from None
    return highdicom


def find_sources(folder: Path) -> list[Source]:
    """The series in a folder and the folders in it, with their voxels' digests.

    Raises:
        InputError: There is no folder, or no series in it.
    """
    from barl.images.dicom.series import list_series, read_files

    found = []
    for series in list_series(folder):
        volume = read_files(series.files, folder.name, series.uid)
        array = volume.array.astype(np.float32) if volume.array.dtype.itemsize == 8 else volume.array
        found.append(Source(tuple(series.files), volume.grid, voxel_digest(volume.grid.image(array))))
    if not found:
        raise InputError(f"The folder '{folder.name}' holds no DICOM series.", "Name the folder with the series.")
    return found


def source_of(case_name: str, grid: Grid, digests: Sequence[str], sources: Sequence[Source]) -> Source:
    """The series that a case was added from: the one with the same voxels at the same place.

    Raises:
        InputError: None of the series is that of the case.
    """
    match = next((s for s in sources if s.digest in digests and s.grid.matches(grid)), None)
    if match is None:
        raise InputError(
            f"None of the {len(sources)} DICOM series there is the scan of the case {case_name!r}.",
            "Name the folder with the series from which its scan was added.",
        )
    return match


def write_dicom_seg(
    label: sitk.Image, labels: Sequence[Label], source: Source, path: Path, *, by_expert: bool, series_number: int = 300
) -> None:
    """Write a binary segmentation object.

    Args:
        label: Label map on the scan's grid.
        labels: The label table; segment n is its n-th row.
        source: The series that the scan came from.
        path: Its name ends with ``.dcm``.
        by_expert: Somebody has outlined or accepted it; else a model predicted it.
        series_number: Of the new series.

    Raises:
        InputError: highdicom is not installed, or refuses the series.
        StorageError: The disk is full or read-only.
    """
    highdicom = load_highdicom()
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    own = Grid.of(label)
    axes = axes_between(own, source.grid)
    array = np.ascontiguousarray(axes.view(sitk.GetArrayViewFromImage(label)))
    datasets = [dcmread(file) for file in source.files]
    for dataset in datasets:
        if not dataset.get("SliceThickness"):  # which highdicom expects, and not every series has
            dataset.SliceThickness = f"{source.grid.spacing[2]:.6g}"
    volume = highdicom.Volume(
        np.stack([array == row.value for row in labels], axis=-1).astype(np.uint8),
        _affine(source.grid),
        "PATIENT",
        frame_of_reference_uid=datasets[0].FrameOfReferenceUID,
        channels={"SegmentNumber": list(range(1, len(labels) + 1))},
    )
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=datasets,
            pixel_array=volume,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(row, n, by_expert) for n, row in enumerate(labels, 1)],
            series_instance_uid=generate_uid(),
            series_number=series_number,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="BARL",
            manufacturer_model_name="BARL for 3D Slicer",
            software_versions=__version__,
            device_serial_number="0",
            content_label="SEGMENTATION",
            series_description="BARL segmentation",
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"highdicom refuses the series ({type(error).__name__}: {str(error)[:120]}).",
            "Export the outline in another layout, or with Slicer's own DICOM export.",
        ) from error
    if "ContentCreatorName" not in segmentation:
        segmentation.ContentCreatorName = ""  # must be there, may be empty
    write_atomically(path, segmentation.save_as)


def _affine(grid: Grid) -> np.ndarray:
    """4 x 4: array index (k, j, i) -> LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = (grid.axes * grid.spacing)[:, ::-1]
    affine[:3, 3] = grid.origin
    return affine


def _description(row: Label, number: int, by_expert: bool) -> Any:
    highdicom = load_highdicom()
    from pydicom.sr.codedict import codes

    coded = row.terminology
    category, type_ = (coded.category, coded.type) if coded else (_TISSUE, _TISSUE)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="BARL", family=codes.cid7162.ArtificialIntelligence, version=__version__
    )
    kinds = highdicom.seg.SegmentAlgorithmTypeValues
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=row.name[:64],
        segmented_property_category=_concept(category),
        segmented_property_type=_concept(type_),
        algorithm_type=kinds.SEMIAUTOMATIC if by_expert else kinds.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor.from_rgb(*row.color),
    )
    if coded and coded.modifier:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            _concept(coded.modifier)
        ]
    return description


def _concept(code: Code) -> Any:
    return load_highdicom().sr.CodedConcept(code.value, code.scheme, code.meaning[:64])
