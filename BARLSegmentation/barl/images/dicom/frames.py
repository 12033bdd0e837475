# SPDX-License-Identifier: Apache-2.0
"""The frames of DICOM files: their places, how stored values become intensities, and what distinguishes them.

In classic files the tags stand at the top, in enhanced ones in functional groups, for each frame or shared by all
(PS3.3, C.7.6.16); nuclear medicine gives the first frame's place and the step (PS3.3, C.8.4.15).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barl.images.dicom.headers import DAMAGE, Header, value_of
from barl.images.dicom.objects import NUCLEAR_MEDICINE

_MOST_FRAMES = 100_000
_IMAGES_IN_MOSAIC = 0x0019100A
_PRIVATE_B_VALUES = (0x0019100C, 0x00431039, 0x20011003)


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes:
        header: The file it is in.
        index: Its place in the file, from 0.
        n_in_file: Frames of the file.
        position: LPS position of its first pixel in mm.
        orientation: Direction cosines of its rows and of its columns, six numbers.
        spacing: Millimeters between columns and between rows: along x, along y.
        slope, intercept: Intensity = slope * stored value + intercept.
        is_scaled: Its tags give the slope or the intercept.
        units: What its intensities are by its Units and by its RescaleType; empty where a tag is missing.
        marks: What may distinguish it from other frames at the same place, by name.
        problem: Why it cannot be part of a volume: the rest of a sentence of which it is the subject; empty if it can.
    """

    header: Header
    index: int = 0
    n_in_file: int = 1
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    spacing: tuple[float, float] = (0.0, 0.0)
    slope: float = 1.0
    intercept: float = 0.0
    is_scaled: bool = False
    units: tuple[str, str] = ("", "")
    marks: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def name(self) -> str:
        """The frame as a message calls it."""
        file = f"'{self.header.path.name}'"
        return file if self.n_in_file == 1 else f"frame {self.index + 1} of {file}"

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return (self.header.number("Columns") or 0, self.header.number("Rows") or 0)


def frames_of(header: Header) -> list[Frame]:
    """All frames of a file; one that cannot be used has a ``problem``."""
    n_frames = header.number("NumberOfFrames") or 1
    groups = _sequence(header.data, "PerFrameFunctionalGroupsSequence")
    if not 1 <= n_frames <= _MOST_FRAMES:
        return [Frame(header, problem=f"says that it has {n_frames} frames")]
    if n_frames > 1 and not groups and header.sop_class != NUCLEAR_MEDICINE:
        return [Frame(header, problem=f"holds {n_frames} frames and does not say where each of them lies")]
    if groups and len(groups) != n_frames:
        return [Frame(header, problem=f"says that it has {n_frames} frames but describes {len(groups)}")]
    shared = _sequence(header.data, "SharedFunctionalGroupsSequence")
    common = _problem_of_file(header)
    frames = []
    for index in range(n_frames):
        tags = _Tags(header.data, groups[index] if groups else None, shared[0] if shared else None)
        try:
            if common:
                raise _Unusable(common)
            frames.append(_frame(header, index, n_frames, tags))
        except _Unusable as reason:
            frames.append(Frame(header, index, n_frames, marks=_marks(header, tags), problem=str(reason)))
    return frames


class _Unusable(Exception):
    """Why a frame cannot be part of a volume."""


class _Tags:
    """Looks a tag up where it counts: in the frame's groups, in the shared groups, at the top."""

    def __init__(self, top: Any, own: Any, shared: Any) -> None:
        self._top = top
        self._homes = [home for home in (own, shared) if home is not None]

    def value(self, group: str, keyword: str | int) -> Any:
        """The value, or None; ``group`` is the functional group's sequence."""
        for home in self._homes:
            for item in _sequence(home, group)[:1]:
                if (value := _get(item, keyword)) is not None:
                    return value
        return _get(self._top, keyword)

    def numbers(self, group: str, keyword: str, count: int, what: str) -> tuple[float, ...]:
        """``count`` finite numbers.

        Raises:
            _Unusable: They are missing or damaged; ``what`` names what is then unknown.
        """
        value = self.value(group, keyword)
        if value is None:
            raise _Unusable(f"does not say {what}")
        try:
            values = tuple(float(v) for v in value)
        except (*DAMAGE, OverflowError):
            values = ()
        if len(values) != count or not all(map(math.isfinite, values)):
            raise _Unusable(f"does not say {what}: its {keyword} is damaged")
        return values

    def number(self, group: str, keyword: str, default: float) -> float:
        value = self.value(group, keyword)
        if value is None:
            return default
        try:
            result = float(value)
        except (*DAMAGE, OverflowError):
            result = math.nan
        if not math.isfinite(result):
            raise _Unusable(f"has a damaged {keyword}")
        return result


def _frame(header: Header, index: int, n_frames: int, tags: _Tags) -> Frame:
    rows, columns = tags.numbers("PixelMeasuresSequence", "PixelSpacing", 2, "how large its pixels are")
    if rows <= 0 or columns <= 0:
        raise _Unusable(f"has an impossible pixel spacing of {columns:g} x {rows:g} mm")
    detectors = _sequence(header.data, "DetectorInformationSequence")
    if header.sop_class == NUCLEAR_MEDICINE and detectors:
        tags = _Tags(detectors[0], None, None)
    orientation = tags.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6, "which way it lies")
    position = tags.numbers("PlanePositionSequence", "ImagePositionPatient", 3, "where it lies")
    along, across = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(along), np.linalg.norm(across)
    if max(abs(length - 1) for length in lengths) > 0.01 or abs(along @ across) > 0.01:
        raise _Unusable("has rows and columns that are not at right angles")
    if header.sop_class == NUCLEAR_MEDICINE and n_frames > 1:
        position = _nuclear_position(header, index, n_frames, np.array(position), np.cross(along, across))
    tags = _Tags(header.data, *_groups(header, index))
    scaling = "PixelValueTransformationSequence"
    slope = tags.number(scaling, "RescaleSlope", 1.0)
    if slope == 0:
        raise _Unusable("has a rescale slope of 0, which erases its pixels")
    intercept = tags.number(scaling, "RescaleIntercept", 0.0)
    is_scaled = any(tags.value(scaling, keyword) is not None for keyword in ("RescaleSlope", "RescaleIntercept"))
    return Frame(
        header,
        index,
        n_frames,
        position,
        orientation,
        (columns, rows),
        slope,
        intercept,
        is_scaled,
        (_unit(tags.value("", "Units")), _unit(tags.value(scaling, "RescaleType"))),
        _marks(header, tags),
    )


def _unit(value: Any) -> str:
    return " ".join(str(value or "").upper().split())[:16]


def _groups(header: Header, index: int) -> tuple[Any, Any]:
    own = _sequence(header.data, "PerFrameFunctionalGroupsSequence")
    shared = _sequence(header.data, "SharedFunctionalGroupsSequence")
    return (own[index] if own else None), (shared[0] if shared else None)


def _nuclear_position(
    header: Header, index: int, n_frames: int, first: np.ndarray, normal: np.ndarray
) -> tuple[float, ...]:
    """Frames follow each other along the normal, or against it where the step is negative."""
    step = _get(header.data, "SpacingBetweenSlices")
    if header.number("NumberOfSlices") not in (None, n_frames):
        raise _Unusable("holds several time points, energies or detectors in one file")
    try:
        place = first + index * float(step) * normal
    except DAMAGE:
        raise _Unusable("does not say how far its slices lie apart") from None
    return tuple(place.tolist())


def _problem_of_file(header: Header) -> str:
    """What makes all frames of a file unusable."""
    colors = header.text("PhotometricInterpretation")
    if (header.number("SamplesPerPixel") or 1) > 1 or colors not in ("MONOCHROME1", "MONOCHROME2"):
        return "is a color image" if colors else "does not say whether it is a gray-scale image"
    if _sequence(header.data, "ModalityLUTSequence"):
        return "has intensities that are given by a table (Modality LUT)"
    if "MOSAIC" in header.text("ImageType").split() or (header.number(_IMAGES_IN_MOSAIC) or 0) > 1:
        return "holds all slices side by side in one picture (a Siemens mosaic)"
    return ""


def _marks(header: Header, tags: _Tags) -> dict[str, Any]:
    """In the order in which they are tried; a value that is missing is left out."""

    def first(*places: tuple[str, str | int]) -> Any:
        return next((v for place in places if (v := _plain(tags.value(*place))) is not None), None)

    content = "FrameContentSequence"
    marks = {
        "image type": first(
            ("MRImageFrameTypeSequence", "FrameType"),
            ("CTImageFrameTypeSequence", "FrameType"),
            ("PETFrameTypeSequence", "FrameType"),
            ("", "ImageType"),
        ),
        "component": first(("MRImageFrameTypeSequence", "ComplexImageComponent")),
        "echo time": first(("MREchoSequence", "EffectiveEchoTime"), ("", "EchoTime")),
        "echo": first(("", "EchoNumbers")),
        "inversion time": first(("MRModifierSequence", "InversionTimes"), ("", "InversionTime")),
        "flip angle": first(("MRTimingAndRelatedParametersSequence", "FlipAngle")),
        "kVp": first(("CTXRayDetailsSequence", "KVP")),
        "kernel": first(("CTReconstructionSequence", "ConvolutionKernel")),
        "b-value": first(("MRDiffusionSequence", "DiffusionBValue"), *(("", tag) for tag in _PRIVATE_B_VALUES)),
        "gradient direction": _direction(header, tags) or first(("", "DiffusionGradientOrientation"), ("", 0x0019100E)),
        "stack": first((content, "StackID")),
        "time point": first((content, "TemporalPositionIndex"), ("", "TemporalPositionIdentifier")),
        "heart phase": first(("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"), ("", "TriggerTime")),
        "acquisition": first((content, "FrameAcquisitionNumber"), ("", "AcquisitionNumber")),
        "frame time": first(("", "FrameReferenceTime")),
        **_dimensions(header, tags),
        "time of acquisition": first((content, "FrameAcquisitionDateTime"), ("", "AcquisitionTime")),
        "time of content": first(("", "ContentTime")),
    }
    return {name: value for name, value in marks.items() if value is not None}


def _direction(header: Header, tags: _Tags) -> Any:
    """The gradient direction of an enhanced frame, or of GE's private tags."""
    items = tags.value("MRDiffusionSequence", "DiffusionGradientDirectionSequence")
    if items:
        return _plain(_get(items[0], "DiffusionGradientOrientation"))
    parts = tuple(_plain(_get(header.data, tag)) for tag in (0x001910BB, 0x001910BC, 0x001910BD))
    return parts if all(part is not None for part in parts) else None


def _dimensions(header: Header, tags: _Tags) -> dict[str, Any]:
    """The frame's index along each dimension of the file but those of its place."""
    values = tags.value("FrameContentSequence", "DimensionIndexValues")
    pointers = [_get(item, "DimensionIndexPointer") for item in _sequence(header.data, "DimensionIndexSequence")]
    if values is None or not pointers:
        return {}
    values = list(values) if isinstance(values, Sequence) else [values]
    place = (0x00200032, 0x00209057, 0x00209056)  # position, position in the stack, stack
    pairs = zip(pointers, values, strict=False)
    return {f"dimension {n + 1}": _plain(v) for n, (p, v) in enumerate(pairs) if p not in place}


def _plain(value: Any) -> Any:
    """A value that can be compared, hashed and shown."""
    if value is None or value == "":
        return None
    if isinstance(value, bytes):  # a private tag in a file without value representations
        text = value.decode("ascii", errors="replace").strip(" \0")
        value = text.split("\\") if "\\" in text else text
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        try:
            return float(value)
        except (*DAMAGE, OverflowError):
            return str(value)
    parts = tuple(_plain(part) for part in value)
    return parts or None


def _get(item: Any, keyword: str | int) -> Any:
    """A tag's value; None where it is missing, empty or damaged beyond reading."""
    try:
        value = value_of(item, keyword)
        return None if value is None or (hasattr(value, "__len__") and not len(value)) else value
    except DAMAGE:
        return _DAMAGED


class _Damaged:
    """A value that pydicom cannot read: no number, no text."""

    def __iter__(self) -> Iterator[float]:
        return iter(())

    def __str__(self) -> str:
        return ""


_DAMAGED = _Damaged()


def _sequence(item: Any, keyword: str) -> Sequence[Any]:
    try:
        return value_of(item, keyword) or () if keyword else ()
    except DAMAGE:
        return ()
