# SPDX-License-Identifier: Apache-2.0
"""What ITK's NIfTI reader (5.4) passes over in silence, found in the file itself.

It fills a truncated file with zeros, takes a spacing of zero for 1 mm, and turns NaN and infinity into zero.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from barl.errors import InputError

_CHUNK = 4 * 2**20
_FLOATS = (16, 64)  # NIFTI_TYPE_FLOAT32, NIFTI_TYPE_FLOAT64


@dataclass(frozen=True)
class _Header:
    """Offset of the first voxel, count, bytes and NumPy type of the voxels (None unless floats), spacing in mm."""

    offset: int
    voxels: int
    bytes_per_voxel: int
    float_type: np.dtype | None
    spacing: tuple[float, ...]


def check_nifti(path: Path) -> np.ndarray:
    """Refuse a NIfTI file (plain or gzip, version 1, one file) that is cut off, damaged or without spacing.

    Returns:
        Flat indices, in the order of the file (x fastest), of the voxels that are NaN or infinite.

    Raises:
        InputError: With the file's name.
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            with cast(IO[bytes], gzip.open(file) if packed else file) as stream:
                header = _header(stream.read(348))
                stream.seek(header.offset)
                not_finite = _scan(stream, header)
        except (EOFError, zlib.error, gzip.BadGzipFile, struct.error, ValueError, OverflowError):
            raise InputError(f"'{path.name}' is damaged or cut off.", "Copy or export the scan again.") from None
    if not all(math.isfinite(s) and s > 0 for s in header.spacing):
        raise InputError(
            f"'{path.name}' has an unusable spacing of {' x '.join(f'{s:g}' for s in header.spacing)} mm.",
            "Correct its header or export the scan again.",
        )
    return not_finite


def _scan(stream: IO[bytes], header: _Header) -> np.ndarray:
    """Read all voxels and the checksum behind them; EOFError if some are missing."""
    missing = header.voxels * header.bytes_per_voxel
    found = [np.empty(0, dtype=np.int64)]
    done = 0
    while missing > 0:
        chunk = stream.read(min(_CHUNK, missing))
        missing -= len(chunk)
        if not chunk or (missing and len(chunk) < _CHUNK):
            raise EOFError
        if header.float_type is not None:
            values = np.frombuffer(chunk, dtype=header.float_type)
            found.append(np.flatnonzero(~np.isfinite(values)) + done)
            done += len(values)
    while stream.read(_CHUNK):  # To the end: only there gzip compares its checksum.
        pass
    return np.concatenate(found)


def _header(header: bytes) -> _Header:
    for order in "<>":
        if struct.unpack_from(f"{order}i", header) != (348,):
            continue
        dims = struct.unpack_from(f"{order}8h", header, 40)
        kind, bits = struct.unpack_from(f"{order}2h", header, 70)
        (offset,) = struct.unpack_from(f"{order}f", header, 108)
        if not 1 <= dims[0] <= 7 or header[344:347] != b"n+1":
            break
        return _Header(
            max(int(offset), 348),
            math.prod(max(1, n) for n in dims[1 : dims[0] + 1]),
            bits // 8,
            np.dtype(f"{order}f{bits // 8}") if kind in _FLOATS else None,
            struct.unpack_from(f"{order}{min(dims[0], 3)}f", header, 80),
        )
    raise ValueError
