# SPDX-License-Identifier: Apache-2.0
"""NRRD: attached or detached, raw, gzip, bzip2 or text (http://teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import bz2
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from barl.errors import InputError
from barl.images.formats.content import (
    GZIP,
    check_claim,
    open_beside,
    open_regular,
    read_raw,
    text_numbers,
    too_long,
    unpack,
)
from barl.images.formats.volume import Volume, damaged, in_millimeters, nearest_axes, no_number, spatial_sizes

_LONGEST_HEADER = 2**20
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF = {word: kind for kind, words in _TYPES.items() for word in words}
# Signs that bring a space to LPS.
_SPACES = {
    "lps": (1, 1, 1),
    "left-posterior-superior": (1, 1, 1),
    "ras": (-1, -1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "las": (1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
}
_SPATIAL_KINDS = ("domain", "space", "???", "none", "")


@dataclass
class _Header:
    fields: dict[str, str]
    texts: dict[str, str]
    files: list[str]  # of a data file LIST
    end: int  # offset of the voxels in the file


def read_nrrd(path: Path) -> Volume:
    """Read a volume; the texts are the header's ``key:=value`` pairs.

    Raises:
        InputError: The file cannot be used.
    """
    name = path.name
    header = _header(path)
    try:
        sizes = [int(word) for word in header.fields["sizes"].split()]
        n_dims = int(header.fields["dimension"])
    except (KeyError, ValueError):
        raise damaged(name) from None
    if not 1 <= n_dims <= 16 or len(sizes) != n_dims or any(n < 1 for n in sizes):
        raise damaged(name)
    kind = _type(header, name)
    kinds = _kinds(header, n_dims)
    if "complex" in kinds:
        raise no_number(name, "complex")
    directions = _directions(header, n_dims, name)
    spatial = _spatial_axes(sizes, kinds, directions)
    rest = [axis for axis in range(n_dims) if axis not in spatial and sizes[axis] > 1]
    short = [axis for axis in range(n_dims) if axis not in spatial and sizes[axis] == 1]
    x, y, z = spatial_sizes([sizes[axis] for axis in spatial], name)
    if len(rest) > 1 or (rest and kinds[rest[0]] in (*_SPATIAL_KINDS, "time")):
        spatial_sizes([x, y, z, *(sizes[axis] for axis in rest)], name)
    if any(step is not None and not 3 <= len(step) <= 4 for step in directions):
        raise damaged(name)
    volume = _placed(header, (x, y, z), directions, spatial, name)
    array = _voxels(path, header, kind, math.prod(sizes)).reshape(sizes[::-1])
    order = [*short, *rest, *reversed(spatial[:3]), *spatial[3:]]
    volume.array = array.transpose([n_dims - 1 - axis for axis in order]).reshape(*(sizes[a] for a in rest), z, y, x)
    volume.components_mean = kinds[rest[0]] if rest else ""
    volume.texts = header.texts
    return volume


def _header(path: Path) -> _Header:
    with open_regular(path) as file:
        start = file.read(_LONGEST_HEADER)
    match = re.match(rb"NRRD000\d\r?\n", start)
    if not match:
        raise damaged(path.name)
    header = _Header({}, {}, [], len(start))
    place = match.end()
    in_list = False
    while place < len(start):
        stop = start.find(b"\n", place)
        line = start[place : stop if stop >= 0 else len(start)]
        place += len(line) + 1
        text = line.rstrip(b"\r").decode("utf-8", errors="replace")
        if not text:
            header.end = place
            break
        if text.startswith("#"):
            continue
        if in_list:
            header.files.append(text.strip())
        elif ":=" in text:
            key, _, value = text.partition(":=")
            header.texts[key.strip()] = value.strip()
        elif ": " in text or text.endswith(":"):
            key, _, value = text.partition(":")
            key = key.strip().lower()
            key = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}.get(key, key)
            header.fields[key] = value.strip()
            in_list = key == "data file" and value.strip().upper().startswith("LIST")
        else:
            raise damaged(path.name)
    return header


def _type(header: _Header, name: str) -> np.dtype:
    kind = np.dtype(_TYPE_OF.get(header.fields.get("type", "").lower(), "V"))
    if kind.kind == "V":
        raise InputError(
            f"'{name}' stores its voxels in a way that is not supported ({header.fields.get('type', 'no type')[:40]}).",
            "Export the scan again, as 16-bit whole numbers or 32-bit floats.",
        )
    endian = header.fields.get("endian", "little").lower()
    if endian not in ("little", "big") or (
        kind.itemsize > 1 and "endian" not in header.fields and not _is_text(header)
    ):
        raise damaged(name)
    return kind.newbyteorder("<" if endian == "little" else ">")


def _is_text(header: _Header) -> bool:
    return header.fields.get("encoding", "").lower() in ("ascii", "text", "txt")


def _kinds(header: _Header, n_dims: int) -> list[str]:
    kinds = header.fields.get("kinds", "").lower().split()
    return kinds if len(kinds) == n_dims else ["domain"] * n_dims


def _directions(header: _Header, n_dims: int, name: str) -> list[np.ndarray | None]:
    """For each axis its step in the file's space, or None for an axis that is not spatial."""
    text = header.fields.get("space directions")
    if text is None:
        return []
    found: list[np.ndarray | None] = []
    for word in re.findall(r"none|\([^()]*\)", text):
        try:
            found.append(None if word == "none" else np.array([float(v) for v in word[1:-1].split(",")]))
        except ValueError:
            raise damaged(name) from None
    if len(found) != n_dims or len({len(step) for step in found if step is not None}) > 1:
        raise damaged(name)
    return found


def _spatial_axes(sizes: list[int], kinds: list[str], directions: list[np.ndarray | None]) -> list[int]:
    if directions:
        return [axis for axis, step in enumerate(directions) if step is not None]
    return [axis for axis, kind in enumerate(kinds) if kind in _SPATIAL_KINDS]


def _placed(
    header: _Header,
    sizes: tuple[int, int, int],
    directions: list[np.ndarray | None],
    spatial: list[int],
    name: str,
) -> Volume:
    notes: list[str] = []
    signs = np.diag(np.array(_signs(header, name, notes if directions else []), dtype=np.float64))
    if directions:
        given = [directions[axis] for axis in spatial[:3]]
        steps = np.array([step[:3] for step in given if step is not None], dtype=np.float64).T  # a fourth is time
    else:
        steps = np.diag(np.array(_spacings(header, spatial, name, notes)))
        notes.append("The header does not say where the scan lies; which side is left is not known.")
    # Directions have the units of the space, spacings those of the axes; some programs write the other field.
    fields = ("space units", "units") if directions else ("units", "space units")
    factors, told = in_millimeters(_units(header, spatial, fields))
    spacing, axes, turned = nearest_axes(signs @ (factors[:, None] * steps), sizes, name)
    origin = np.zeros(3)
    text = header.fields.get("space origin")
    if text is not None:
        try:
            origin = np.array([float(v) for v in text.strip("() ").split(",")][:3])
        except ValueError:
            raise damaged(name) from None
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise damaged(name)
    place = (signs @ (factors * origin)).tolist()
    return Volume(np.empty((0, 0, 0)), spacing.tolist(), place, axes, notes + told + turned)


def _signs(header: _Header, name: str, notes: list[str]) -> tuple[int, int, int]:
    """What brings the file's space to LPS; a space with a time axis has the same directions."""
    space = header.fields.get("space")
    if space == "":
        raise damaged(name)
    known = (space or "").lower().removesuffix("-time")
    signs = _SPACES.get(known) or _SPACES.get(known.removesuffix("t"))
    if signs is None:
        notes.append("The header does not say which way the patient lies in its space; LPS is assumed.")
    return signs or (1, 1, 1)


def _units(header: _Header, spatial: list[int], fields: Sequence[str]) -> list[str]:
    """The units of length along the three axes, from the first of two fields that names one."""
    for field in fields:
        found = [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|([^\s"]+)', header.fields.get(field, ""))]
        places = spatial[:3] if field == "units" else range(3)
        units = [found[place].strip() if place < len(found) else "" for place in places]
        if any(units):
            return units
    return [""] * 3


def _spacings(header: _Header, spatial: list[int], name: str, notes: list[str]) -> list[float]:
    text = header.fields.get("spacings")
    try:
        values = [] if text is None else [float(text.split()[axis]) for axis in spatial[:3]]
    except (ValueError, IndexError):
        raise damaged(name) from None
    if not values:
        notes.append("The header gives no spacing; 1 mm is assumed.")
        return [1.0, 1.0, 1.0]
    if not all(np.isfinite(v) and v > 0 for v in values):
        shown = " x ".join(f"{v:g}" for v in values)
        raise InputError(
            f"'{name}' has an unusable spacing of {shown} mm.", "Correct its header or export the scan again."
        )
    return values


def _voxels(path: Path, header: _Header, kind: np.dtype, count: int) -> np.ndarray:
    name = path.name
    data_file = header.fields.get("data file")
    try:
        line_skip = int(header.fields.get("line skip", 0))
        byte_skip = int(header.fields.get("byte skip", 0))
    except ValueError:
        raise damaged(name) from None
    if header.files or (data_file and "%" in data_file):
        raise InputError(f"'{name}' spreads its voxels over several files.", "Save it as one file.")
    with open_beside(path, data_file) if data_file else open_regular(path) as file:
        file.seek(0 if data_file else header.end)
        for _ in range(line_skip):
            file.readline(_LONGEST_HEADER)
        return _decoded(file, header, kind, count, byte_skip, name)


def _decoded(file: IO[bytes], header: _Header, kind: np.dtype, count: int, skip: int, name: str) -> np.ndarray:
    length = count * kind.itemsize
    encoding = header.fields.get("encoding", "").lower()
    if encoding == "raw":
        place = file.seek(0, 2) - length if skip == -1 else file.tell() + skip
        if place < 0 or skip < -1:
            raise damaged(name)
        return _native(read_raw(file, place, kind, count, name, exact=True))
    if encoding in ("gzip", "gz"):
        return _native(np.frombuffer(unpack(file, length, GZIP, name, skip=max(0, skip), exact=True), dtype=kind))
    if encoding in ("bzip2", "bz2"):
        check_claim(file, length // 50, name)
        try:
            content = bz2.decompress(file.read())[max(0, skip) :]
        except (OSError, ValueError, EOFError):
            raise damaged(name) from None
        if len(content) < length:
            raise damaged(name)
        if len(content) > length:
            raise too_long(name)
        return _native(np.frombuffer(content, dtype=kind))
    if _is_text(header):
        return text_numbers(file, kind.newbyteorder("="), count, name)
    raise InputError(
        f"'{name}' is encoded in a way that is not supported ({encoding[:20] or 'no encoding'}).",
        "Save it anew, raw or with gzip.",
    )


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
