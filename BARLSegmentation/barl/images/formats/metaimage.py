# SPDX-License-Identifier: Apache-2.0
"""MetaImage: .mha and .mhd (https://itk.org/Wiki/ITK/MetaIO/Documentation)."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from barl.errors import InputError
from barl.images.formats.content import ZLIB, open_beside, open_regular, read_raw, text_numbers, unpack
from barl.images.formats.volume import SKEW, Volume, damaged, in_millimeters, nearest_axes, no_number, spatial_sizes

_LONGEST_HEADER = 2**16
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_LAST = "ElementDataFile"


def is_metaimage(start: bytes) -> bool:
    """Whether a file begins with lines ``Key = value`` of a MetaImage."""
    return re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", start) is not None


def read_metaimage(path: Path) -> Volume:
    """Read a volume.

    Raises:
        InputError: The file cannot be used.
    """
    name = path.name
    fields, end = _header(path)
    sizes = [int(v) for v in _numbers(fields, "DimSize", name)]
    if fields.get("ObjectType", "Image").lower() != "image" or not 1 <= len(sizes) <= 16:
        raise damaged(name)
    n_dims = len(sizes)
    if [n_dims] != [int(v) for v in _numbers(fields, "NDims", name)]:
        raise damaged(name)
    components = int((_numbers(fields, "ElementNumberOfChannels", name, optional=True) or [1])[0])
    if components != 1:
        raise no_number(name, str(components))
    x, y, z = spatial_sizes(sizes, name)
    volume = _placed(fields, (x, y, z), n_dims, name)
    volume.array = _voxels(path, fields, end, x * y * z).reshape(z, y, x)
    return volume


def _header(path: Path) -> tuple[dict[str, str], int]:
    with open_regular(path) as file:
        start = file.read(_LONGEST_HEADER)
    fields: dict[str, str] = {}
    place = 0
    while _LAST not in fields:
        stop = start.find(b"\n", place)
        if stop < 0 and not start[place:].startswith(_LAST.encode()):
            raise damaged(path.name)
        stop = len(start) if stop < 0 else stop
        key, equals, value = start[place:stop].decode("utf-8", errors="replace").partition("=")
        place = stop + 1
        if equals:
            fields[key.strip()] = value.strip()
        elif key.strip():
            raise damaged(path.name)
    return fields, place


def _numbers(fields: dict[str, str], key: str, name: str, *, optional: bool = False) -> list[float]:
    if key not in fields:
        if optional:
            return []
        raise damaged(name)
    try:
        values = [float(word) for word in fields[key].split()]
        if not values or not all(map(math.isfinite, values)):
            raise ValueError
    except ValueError:
        raise damaged(name) from None
    return values


def _flag(fields: dict[str, str], name: str, default: bool, *keys: str) -> bool:
    """True or False, by its first letter as in MetaIO."""
    key = _first(fields, *keys)
    if key is None:
        return default
    if fields[key].lower() not in ("true", "false", "t", "f", "1", "0"):
        raise damaged(name)
    return fields[key][0] in "Tt1"


def _first(fields: dict[str, str], *keys: str) -> str | None:
    return next((key for key in keys if key in fields), None)


def _placed(fields: dict[str, str], sizes: tuple[int, int, int], n_dims: int, name: str) -> Volume:
    notes = []
    key = _first(fields, "ElementSpacing", "ElementSize")
    has_spacing = key is not None
    spacing = _numbers(fields, key, name)[:3] if key else [1.0, 1.0, 1.0]
    if len(spacing) < 3:
        raise damaged(name)
    if not all(s > 0 for s in spacing):
        raise InputError(
            f"'{name}' has an unusable spacing of {' x '.join(f'{s:g}' for s in spacing)} mm.",
            "Correct its header (the unit must be millimeters) or export the scan again.",
        )
    # Each group of the file's numbers is the direction of one index axis.
    key = _first(fields, "TransformMatrix", "Orientation", "Rotation")
    given = np.array(_numbers(fields, key, name)) if key else np.eye(n_dims).ravel()
    key = _first(fields, "Offset", "Position", "Origin")
    origin = _numbers(fields, key, name)[:3] if key else [0.0, 0.0, 0.0]
    if given.size != n_dims * n_dims or len(origin) < 3:
        raise damaged(name)
    directions = given.reshape(n_dims, n_dims)[:3, :3].T
    lengths = np.linalg.norm(directions, axis=0)
    if not (lengths > 0).all():
        raise InputError(
            f"The axes of '{name}' are not at right angles to each other: one has no direction.",
            "Correct its header or export the scan again.",
        )
    factors, told = in_millimeters([fields.get("DistanceUnits", "")] * 3)
    is_scaled = np.abs(lengths - 1).max() > SKEW
    used = factors * spacing * (lengths if is_scaled else 1)
    _, axes, turned = nearest_axes(directions / lengths * used, sizes, name)
    if is_scaled:
        notes.append(_lengths_as_spacing(lengths, spacing, name))
    elif not has_spacing:
        notes.append("The header gives no spacing; 1 mm is assumed.")
    return Volume(np.empty((0, 0, 0)), used.tolist(), (factors * origin).tolist(), axes, notes + told + turned)


def _lengths_as_spacing(lengths: np.ndarray, spacing: list[float], name: str) -> str:
    """A note that directions give the spacing, for ITK and Slicer multiply both.

    Raises:
        InputError: The spacing is given as well; programs that write both mean either one or the product.
    """
    shown = " x ".join(f"{length:g}" for length in lengths)
    if not np.allclose(spacing, 1):
        raise InputError(
            f"'{name}' gives a spacing of {' x '.join(f'{s:g}' for s in spacing)}, but its directions have lengths of "
            f"{shown} instead of 1.",
            "Correct its header (ElementSpacing or TransformMatrix) or export the scan again.",
        )
    return f"The directions in the header have lengths of {shown}, which are taken as the spacing."


def _voxels(path: Path, fields: dict[str, str], end: int, count: int) -> np.ndarray:
    name = path.name
    word = _TYPES.get(fields.get("ElementType", "").upper())
    if word is None:
        raise InputError(
            f"'{name}' stores its voxels in a way that is not supported ({fields.get('ElementType', 'no type')[:40]}).",
            "Export the scan again, as 16-bit whole numbers or 32-bit floats.",
        )
    big = _flag(fields, name, False, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    kind = np.dtype((">" if big else "<") + word)
    packed = _flag(fields, name, False, "CompressedData")
    is_text = not _flag(fields, name, True, "BinaryData")
    data_file = fields[_LAST]
    if data_file.split()[:1] == ["LIST"] or "%" in data_file:
        raise InputError(f"'{name}' spreads its voxels over several files.", "Save it as one file.")
    local = data_file.upper() == "LOCAL"
    offset = end if local else 0
    with open_regular(path) if local else open_beside(path, data_file) as file:
        if packed:
            file.seek(offset)
            array = np.frombuffer(unpack(file, count * kind.itemsize, ZLIB, name, exact=True), dtype=kind)
        elif is_text:
            file.seek(offset)
            array = text_numbers(file, kind.newbyteorder("="), count, name)
        else:
            skip = int((_numbers(fields, "HeaderSize", name, optional=True) or [0])[0])
            if skip == -1:
                offset = file.seek(0, 2) - count * kind.itemsize
            array = read_raw(file, max(offset + max(skip, 0), 0), kind, count, name, exact=True)
    return array.astype(kind.newbyteorder("="), copy=False)
