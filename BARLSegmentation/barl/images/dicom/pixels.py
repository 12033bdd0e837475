# SPDX-License-Identifier: Apache-2.0
"""The stored values of DICOM frames, and the intensities that follow from each frame's own slope and intercept."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from barl.errors import InputError
from barl.images.dicom.frames import Frame
from barl.images.dicom.headers import DAMAGE, Header, silent

_KEPT = """
Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation
NumberOfFrames PixelData
"""
_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.3"
# Decoders are C++ libraries that files from elsewhere can crash: they run in a process of their own.
_DECODE = """
import sys
import numpy, SimpleITK
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
for name in sys.argv[1:]:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(name)
    numpy.save(name + ".npy", SimpleITK.GetArrayFromImage(reader.Execute()))
"""
_DECODE_SECONDS = 600


def intensities(frames: Sequence[Frame]) -> np.ndarray:
    """The frames' intensities ``[k, j, i]``: whole numbers where slopes and intercepts are whole, otherwise float32.

    Raises:
        InputError: A file is damaged or cut off, or compressed in a way that cannot be read; it is named.
    """
    scales = {(frame.slope, frame.intercept) for frame in frames}
    whole = all(slope.is_integer() and intercept.is_integer() for slope, intercept in scales)
    columns, rows = frames[0].size
    result = np.empty((len(frames), rows, columns), dtype=np.float32)
    ends: list[int] = []
    own = None  # the type of the stored values, while these are the intensities
    for n, (frame, plane) in enumerate(zip(frames, _stored(frames), strict=True)):
        kind = result.dtype
        if whole:
            slope, intercept = int(frame.slope), int(frame.intercept)
            ends = [*ends, *(slope * int(end) + intercept for end in (plane.min(), plane.max()))]
            ends = [min(ends), max(ends)]
            own = plane.dtype if scales == {(1.0, 0.0)} and (n == 0 or plane.dtype == own) else None
            kind = own if own is not None and own.itemsize < 4 else _kind(*ends)
        if result.dtype != kind:
            result = np.empty(result.shape, kind) if n == 0 else result.astype(kind)
        if kind.kind == "f":
            result[n] = plane.astype(np.float64) * frame.slope + frame.intercept
        else:
            _scale(plane, slope, intercept, result[n])
    if not whole and not np.isfinite(result).all():
        raise InputError("A rescale slope of the DICOM series is too large.", "Export the series again.")
    return result


def _kind(low: int, high: int) -> np.dtype:
    """The smallest type that holds these numbers."""
    for kind in (np.int16, np.uint16, np.int32):
        if low >= np.iinfo(kind).min and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float32)


def _scale(plane: np.ndarray, slope: int, intercept: int, target: np.ndarray) -> None:
    """Whole numbers; the results fit into ``target``, so that what overflows on the way there cancels out."""
    modulus = 2 ** (8 * target.itemsize)
    target[...] = plane
    if slope != 1:
        target *= np.array(slope % modulus).astype(target.dtype)
    if intercept:
        target += np.array(intercept % modulus).astype(target.dtype)


def stored_values(header: Header) -> np.ndarray:
    """All frames of a file ``[frame, row, column]`` as they are stored; single bits become bytes.

    Raises:
        InputError: The file is damaged or cut off, or compressed in a way that cannot be read.
    """
    if header.number("BitsAllocated") == 1:
        return _bits(header)
    return _decoded([header])[id(header)] if _encapsulated(header) else _native(header)


def same_pixels(one: Frame, other: Frame) -> bool:
    """Whether two frames have the same intensities."""
    if (one.slope, one.intercept, one.size) != (other.slope, other.intercept, other.size):
        return False
    first, second = _stored([one, other])
    return bool(np.array_equal(first, second))


def _stored(frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    """The stored values of each frame; every file is opened once."""
    headers = list({id(frame.header): frame.header for frame in frames}.values())
    decoded = _decoded([header for header in headers if _encapsulated(header)])
    files: dict[int, np.ndarray] = {}
    for frame in frames:
        header = frame.header
        if frame.n_in_file == 1 and id(header) not in decoded:
            yield _native(header)[0]
            continue
        if id(header) not in files:
            files[id(header)] = decoded[id(header)] if id(header) in decoded else _native(header)
        yield files[id(header)][frame.index]


def _encapsulated(header: Header) -> bool:
    return not header.is_native and header.syntax.is_transfer_syntax and header.syntax.is_encapsulated


def _native(header: Header) -> np.ndarray:
    """The frames of a file whose pixels are not compressed, ``[frame, row, column]``."""
    shape, kind = _layout(header)
    if header.pixels and header.pixels[1] >= (shape[0] * shape[1] + 1) * shape[2] * kind.itemsize:
        raise InputError(
            f"'{header.path.name}' holds more pixels than its tags say.", "Copy or export the series again."
        )
    content = _content(header, int(np.prod(shape)) * kind.itemsize)
    if header.syntax == ExplicitVRBigEndian:
        kind = kind.newbyteorder(">")
    array = np.frombuffer(content, dtype=kind).reshape(shape)
    return _without_unused_bits(array.astype(kind.newbyteorder("="), copy=False), header)


def _bits(header: Header) -> np.ndarray:
    """Frames of single bits, packed without a gap from frame to frame (PS3.5, 8.1.1)."""
    shape = (header.number("NumberOfFrames") or 1, header.number("Rows") or 0, header.number("Columns") or 0)
    count = shape[0] * shape[1] * shape[2]
    if count < 1 or _encapsulated(header):
        raise _damaged(header)
    content = _content(header, (count + 7) // 8)
    return np.unpackbits(np.frombuffer(content, dtype=np.uint8), bitorder="little")[:count].reshape(shape)


def _content(header: Header, expected: int) -> bytes:
    """So many bytes of pixels that are not compressed."""
    try:
        if header.pixels:
            offset, length = header.pixels
            with header.path.open("rb") as file:
                file.seek(offset)
                content = file.read(min(length, expected))
        else:  # big endian or deflated
            with silent():
                content = pydicom.dcmread(header.path, force=True).PixelData[:expected]
    except OSError as error:
        raise InputError(f"'{header.path.name}' cannot be read ({error.strerror}).", "Check the drive.") from error
    except DAMAGE:
        raise _damaged(header) from None
    if len(content) < expected:
        raise _damaged(header)
    return content


def _layout(header: Header) -> tuple[tuple[int, int, int], np.dtype]:
    numbers = [header.number(key) for key in ("Rows", "Columns", "BitsAllocated", "PixelRepresentation")]
    rows, columns, bits, signed = (-1 if n is None else n for n in numbers)
    if rows < 1 or columns < 1 or bits not in (8, 16, 32) or signed not in (0, 1):
        raise _damaged(header)
    return (header.number("NumberOfFrames") or 1, rows, columns), np.dtype(f"<{'ui'[signed]}{bits // 8}")


def _without_unused_bits(array: np.ndarray, header: Header) -> np.ndarray:
    """Old scanners keep overlays in the bits that the pixels leave free (PS3.5, 8.1.1)."""
    allocated = array.dtype.itemsize * 8
    stored = header.number("BitsStored")
    high = header.number("HighBit")
    if stored is None or not 1 <= stored <= allocated or high not in (None, stored - 1):
        raise InputError(
            f"The tags of '{header.path.name}' about the bits of its pixels contradict each other.",
            "Export the series again.",
        )
    if stored == allocated:
        return array
    if array.dtype.kind == "u":
        return array & array.dtype.type(2**stored - 1)
    # Up to the left edge and down again: the sign is spread, what lay beside is gone.
    shifted = array << (allocated - stored)
    return np.right_shift(shifted, allocated - stored, out=shifted)


def _decoded(headers: Iterable[Header]) -> dict[int, np.ndarray]:
    """Id of header -> frames of a file with compressed pixels, from a copy that holds the pixels and nothing else."""
    headers = list(headers)
    if not headers:
        return {}
    found: dict[int, np.ndarray] = {}
    with tempfile.TemporaryDirectory(prefix="barl-") as folder:
        files = [_bare_copy(header, Path(folder) / f"{n}.dcm") for n, header in enumerate(headers)]
        command = [sys.executable, "-P", "-c", _DECODE, *map(str, files)]
        with suppress(OSError, subprocess.TimeoutExpired):  # What is missing then is told below.
            subprocess.run(command, capture_output=True, timeout=_DECODE_SECONDS, check=False)
        for header, file in zip(headers, files, strict=True):
            result = file.with_name(file.name + ".npy")
            array = np.load(result, allow_pickle=False) if result.exists() else _decoded_by_pydicom(header)
            array = array.reshape(-1, *array.shape[-2:])
            if array.shape != _layout(header)[0]:
                raise _damaged(header)
            found[id(header)] = array
    return found


def _decoded_by_pydicom(header: Header) -> np.ndarray:
    """RLE, of which GDCM refuses some; pydicom decodes it in Python alone."""
    try:
        if header.syntax == RLELossless:
            with silent():
                return pydicom.dcmread(header.path, force=True).pixel_array
    except (*DAMAGE, OSError):
        pass  # told below, with the file's name
    raise InputError(
        f"The pixels of '{header.path.name}' cannot be decoded ({header.syntax.name}): the file is damaged or cut off, "
        "or its compression is not supported.",
        "Copy or export the series again, without compression.",
    )


def _bare_copy(header: Header, path: Path) -> Path:
    try:
        with silent():
            whole = pydicom.dcmread(header.path, force=True, specific_tags=_KEPT.split())
            bare = Dataset()
            for keyword in _KEPT.split():
                if keyword in whole:
                    bare[keyword] = whole[keyword]
            bare.SOPClassUID = UID(_MULTI_FRAME)
            bare.SOPInstanceUID = UID("2.25.1")
            bare.file_meta = FileMetaDataset()
            bare.file_meta.TransferSyntaxUID = header.syntax
            bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID
            bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID
            bare.save_as(path, enforce_file_format=True)
    except (*DAMAGE, OSError):
        raise _damaged(header) from None
    return path


def _damaged(header: Header) -> InputError:
    return InputError(f"'{header.path.name}' is damaged or cut off.", "Copy or export the series again.")
