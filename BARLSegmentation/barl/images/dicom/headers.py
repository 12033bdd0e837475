# SPDX-License-Identifier: Apache-2.0
"""Headers of DICOM files, read with pydicom: the kind of object, and for each frame the tags that ``frames`` needs."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from barl.images.dicom.objects import describe, is_scan

# What pydicom raises on damaged files: it parses values when they are asked for.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    pydicom.errors.InvalidDicomError,
    pydicom.errors.BytesLengthException,
)

_TAGS = """
SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID SeriesNumber SeriesDescription Modality PatientName
PatientID FrameOfReferenceUID InstanceNumber AcquisitionNumber ImageType NumberOfFrames NumberOfSlices
ImagesInAcquisition
Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation
PixelSpacing ImagePositionPatient ImageOrientationPatient SpacingBetweenSlices SliceThickness
RescaleSlope RescaleIntercept RescaleType Units ModalityLUTSequence
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionIndexSequence DetectorInformationSequence
EchoTime EchoNumbers InversionTime FlipAngle KVP ConvolutionKernel
DiffusionBValue DiffusionGradientOrientation ComplexImageComponent
TemporalPositionIdentifier TriggerTime FrameReferenceTime AcquisitionTime ContentTime SliceVector
"""
# Slices in a mosaic of Siemens; b-value and gradient direction of Siemens, GE and Philips before the standard had tags.
_PRIVATE = (0x0019100A, 0x0019100C, 0x0019100E, 0x00431039, 0x001910BB, 0x001910BC, 0x001910BD, 0x20011003)

_NATIVE = ("", ImplicitVRLittleEndian, ExplicitVRLittleEndian)


@dataclass(frozen=True)
class Header:
    """One DICOM file.

    Attributes:
        path: The file.
        data: Its tags, without the pixels.
        syntax: UID of the transfer syntax.
        pixels: Offset and length of the pixels in the file, where they lie there as they are; otherwise None.
    """

    path: Path
    data: Dataset = field(repr=False)
    syntax: UID
    pixels: tuple[int, int] | None

    def text(self, keyword: str) -> str:
        """A tag as one line of text; empty where it is missing or damaged."""
        try:
            value = value_of(self.data, keyword)
            parts = value if isinstance(value, pydicom.multival.MultiValue) else [value]
            return " ".join("" if part is None else " ".join(str(part).split()) for part in parts).strip()
        except DAMAGE:
            return ""

    def number(self, keyword: str | int) -> int | None:
        """A tag as a whole number, or None."""
        try:
            return int(value_of(self.data, keyword))
        except (*DAMAGE, OverflowError):
            return None

    @cached_property
    def sop_class(self) -> str:
        meta = getattr(self.data, "file_meta", None)
        return self.text("SOPClassUID") or str((meta or {}).get("MediaStorageSOPClassUID", ""))

    @cached_property
    def is_scan(self) -> bool:
        return is_scan(self.sop_class, self.text("Modality"))

    @property
    def is_native(self) -> bool:
        """Whether the pixels lie in the file as they are."""
        return self.syntax in _NATIVE

    @cached_property
    def is_damaged(self) -> bool:
        """Whether a scan ends before its pixels."""
        return self.is_scan and (not self.number("Rows") or (self.is_native and self.pixels is None))

    @property
    def kind(self) -> str:
        """What an object that is no scan is."""
        return describe(self.sop_class)


@cache
def _tag(keyword: str | int) -> BaseTag:
    tag = tag_for_keyword(keyword) if isinstance(keyword, str) else keyword
    if tag is None:
        raise ValueError(keyword)
    return Tag(tag)


@cache
def _tags() -> list[BaseTag]:
    """What is read of a scan."""
    return [_tag(tag) for tag in (*_TAGS.split(), *_PRIVATE)]


def value_of(item: Dataset, keyword: str | int) -> Any:
    """A tag's value, or None where it is missing: without the detours of ``Dataset.get``, for there are many tags."""
    tag = _tag(keyword)
    return item[tag].value if tag in item.keys() else None  # noqa: SIM118 (the keys are numbers, a Dataset compares)


@contextmanager
def silent() -> Iterator[None]:
    """Silence pydicom's warnings: this package's errors report what matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def looks_like_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, with the usual preamble or, as old ones, without."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    if start[128:] == b"DICM":
        return True
    # Group 2 or 8, a small element, a value representation or a short length.
    group, element = struct.unpack("<HH", start[:4]) if len(start) >= 8 else (0, 0)
    return group in (0x0002, 0x0008) and element <= 0x0020 and (start[4:6].isalpha() or start[6:8] == b"\0\0")


def read_header(path: Path, *, everything: bool = False) -> Header | None:
    """The tags of a DICOM file; None if it is damaged.

    Args:
        path: A file that looks like DICOM.
        everything: All tags but the pixels, not only those of a scan.
    """
    with silent():
        try:
            with path.open("rb") as file:
                tags: Any = None if everything else _tags()
                data: Any = pydicom.dcmread(
                    file,
                    stop_before_pixels=True,
                    force=True,
                    specific_tags=tags,
                )
                meta = getattr(data, "file_meta", None) or {}  # missing in files of old programs
                syntax = UID(str(meta.get("TransferSyntaxUID", "")))
                pixels = _pixels(file, data) if syntax in _NATIVE else None
        except (*DAMAGE, OSError):
            return None
    header = Header(path, data, syntax, pixels)
    return header if header.sop_class or header.text("Modality") else None


def sop_class_of(path: Path) -> str:
    """The SOP class of a DICOM file, read from its first bytes where it stands there; empty if it is damaged."""
    with silent():
        try:
            meta: Any = pydicom.filereader.read_file_meta_info(path)
        except (*DAMAGE, OSError):
            meta = {}
    found = str(meta.get("MediaStorageSOPClassUID", ""))
    header = None if found else read_header(path)
    return header.sop_class if header else found


def _pixels(file: Any, data: Dataset) -> tuple[int, int] | None:
    """Where the pixels begin, from the element at which pydicom has stopped."""
    implicit = data.original_encoding[0]
    element = file.read(8 if implicit else 12)
    if element[:4] != b"\xe0\x7f\x10\x00" or len(element) < 8:
        return None
    (length,) = struct.unpack("<I", element[-4:])
    return (file.tell(), length) if length != 0xFFFFFFFF else None
