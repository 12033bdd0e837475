# SPDX-License-Identifier: Apache-2.0
"""Is a NIfTI file whole? ITK reads a truncated one without complaint and fills the rest with zeros (measured, 5.4)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from barl.errors import InputError

_CHUNK = 4 * 2**20


def check_nifti(path: Path) -> None:
    """Refuse a NIfTI file (plain or gzip, version 1 or 2, one file) that is cut off, damaged or without spacing.

    ITK also takes a spacing of zero for 1 mm; that is refused here as well.

    Raises:
        InputError: With the file's name.
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            with gzip.open(file) if packed else file as stream:
                header = stream.read(540)
                expected, spacing = _described(header)
                found = len(header)
                while chunk := stream.read(_CHUNK):
                    found += len(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile, struct.error, ValueError):
            raise _damaged(path) from None
    if found < expected:
        raise _damaged(path)
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise InputError(
            f"'{path.name}' has an unusable spacing of {' x '.join(f'{s:g}' for s in spacing)} mm.",
            "Correct its header or export the scan again.",
        )


def _described(header: bytes) -> tuple[int, tuple[float, ...]]:
    """Bytes a file with this header has, and its spacing along the axes that it uses (three at most)."""
    for order in "<>":
        (kind,) = struct.unpack_from(f"{order}i", header)
        if kind == 348:
            dims = struct.unpack_from(f"{order}8h", header, 40)
            (bits,) = struct.unpack_from(f"{order}h", header, 72)
            spacing = struct.unpack_from(f"{order}8f", header, 76)
            (offset,) = struct.unpack_from(f"{order}f", header, 108)
            single = header[344:347] == b"n+1"
        elif kind == 540:
            dims = struct.unpack_from(f"{order}8q", header, 16)
            (bits,) = struct.unpack_from(f"{order}h", header, 14)
            spacing = struct.unpack_from(f"{order}8d", header, 104)
            (offset,) = struct.unpack_from(f"{order}q", header, 168)
            single = header[4:7] == b"n+2"
        else:
            continue
        if not 1 <= dims[0] <= 7 or not single:
            raise ValueError
        voxels = math.prod(max(1, n) for n in dims[1 : dims[0] + 1])
        return int(offset) + voxels * bits // 8, spacing[1 : min(dims[0], 3) + 1]
    raise ValueError


def _damaged(path: Path) -> InputError:
    return InputError(f"'{path.name}' is damaged or cut off.", "Copy or export the scan again.")
