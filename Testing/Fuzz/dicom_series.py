# SPDX-License-Identifier: Apache-2.0
"""Damaged DICOM series: tags missing or changed, files cut off, doubled or lost; compared with pydicom's tags."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from barl.images.reading import read_image
from dicom_maker import frames, slices
from mutations import damaged_bytes
from volumes import Wrong

ARRAY = np.random.default_rng(2).integers(-900, 900, (5, 6, 7)).astype(np.int16)
PLACES = [(-20.0, 30.0, 2.5 * k) for k in range(5)]
_TAGS = """
ImagePositionPatient ImageOrientationPatient PixelSpacing RescaleSlope RescaleIntercept Rows Columns BitsAllocated
BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation SOPClassUID SOPInstanceUID
SeriesInstanceUID InstanceNumber SeriesNumber EchoTime AcquisitionNumber ImageType NumberOfFrames Modality
"""
_VALUES = {
    "DS": [
        "",
        "0",
        "-1",
        "1e30",
        "2.5",
        ["0", "0"],
        ["0", "0", "2.5"],
        ["1", "0", "0", "0", "1", "0"],
        ["0"] * 6,
        ["0.7", "0.7"],
    ],
    "US": [0, 1, 3, 6, 7, 8, 12, 15, 16, 32, 65535],
    "IS": ["", "0", "1", "3", "-1", "99999"],
    "UI": ["", "1.2.3", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.66.4"],
    "CS": ["", "RGB", "MR", "MONOCHROME1", ["DERIVED", "SECONDARY"], ["ORIGINAL", "PRIMARY", "LOCALIZER"]],
}


def series(folder: Path, rng: random.Random) -> Path:
    """A folder with classic slices or one enhanced file, damaged."""
    place = folder / "s"
    shutil.rmtree(place, ignore_errors=True)
    if rng.random() < 0.75:
        slices(place, ARRAY, PLACES, change=lambda data, k: setattr(data, "RescaleSlope", 1))
    else:
        frames(place / "a.dcm", ARRAY, PLACES)
    paths = sorted(place.glob("*.dcm"))
    for path in rng.sample(paths, rng.choice((1, 1, 2, len(paths))) if len(paths) > 2 else 1):
        kind = rng.randrange(8)
        if kind < 5:
            _change_tags(path, rng)
        elif kind == 5:
            path.write_bytes(damaged_bytes(path.read_bytes(), rng))
        elif kind == 6 and len(paths) > 1:
            path.unlink()
        else:
            shutil.copy(path, place / f"copy of {path.name}")
    return place


def _change_tags(path: Path, rng: random.Random) -> None:
    data = pydicom.dcmread(path)
    for _ in range(rng.choice((1, 1, 2))):
        keyword = rng.choice(_TAGS.split())
        if rng.random() < 0.3:
            data.pop(keyword, None) if keyword in data else None
            continue
        vr = pydicom.datadict.dictionary_VR(keyword)
        try:
            setattr(data, keyword, rng.choice(_VALUES[vr]))
        except (ValueError, TypeError, OverflowError):
            continue
    try:
        data.save_as(path)
    except Exception:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))


def check(folder: Path) -> None:
    """Read a folder.

    Raises:
        BarlError: It is refused.
        Wrong: It is taken, but not as the tags of its files say.
    """
    image = read_image(folder)
    array = sitk.GetArrayFromImage(image).astype(np.float64)
    if (
        np.array_equal(array, ARRAY)
        and np.allclose(image.GetOrigin(), PLACES[0])
        and image.GetSpacing() == (0.7, 0.9, 2.5)
    ):
        return  # the original, whatever the damage was
    planes = {}
    for path in sorted(folder.glob("*.dcm")):
        try:
            data = pydicom.dcmread(path, force=True)
            for position, plane, spacing, orientation in _frames(data):
                planes[position] = (plane, spacing, orientation)
        except Exception:
            if path.name.startswith("copy"):
                continue
            raise Wrong(f"taken although pydicom cannot read {path.name}") from None
    for k, plane in enumerate(array):
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        near = [p for p in planes if np.linalg.norm(np.subtract(p, place)) < 0.15]
        if not any(planes[p][0].shape == plane.shape and np.allclose(planes[p][0], plane, rtol=1e-6) for p in near):
            raise Wrong(f"slice {k} at {place} is not in the files")
        spacing, orientation = next(planes[p][1:] for p in near)
        if not np.allclose(spacing, image.GetSpacing()[1::-1], rtol=1e-4):
            raise Wrong(f"spacing {image.GetSpacing()} instead of {spacing}")
        axes = np.array(image.GetDirection()).reshape(3, 3)
        if not np.allclose([*axes[:, 0], *axes[:, 1]], orientation, atol=1e-2):
            raise Wrong(f"direction {axes.tolist()} instead of {orientation}")


def _frames(data: pydicom.Dataset):
    pixels = data.pixel_array.astype(np.float64)
    groups = data.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        plane = pixels * float(data.get("RescaleSlope", 1) or 1) + float(data.get("RescaleIntercept", 0) or 0)
        spacing = [float(v) for v in data.PixelSpacing]
        yield (
            tuple(map(float, data.ImagePositionPatient)),
            plane,
            spacing,
            [float(v) for v in data.ImageOrientationPatient],
        )
        return
    shared = data.SharedFunctionalGroupsSequence[0]
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    slope, shift = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
    for group, plane in zip(groups, pixels, strict=True):
        orientation = [float(v) for v in group.PlaneOrientationSequence[0].ImageOrientationPatient]
        position = tuple(map(float, group.PlanePositionSequence[0].ImagePositionPatient))
        yield position, plane * slope + shift, spacing, orientation
