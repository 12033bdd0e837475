# SPDX-License-Identifier: Apache-2.0
"""NIfTI-1 and NIfTI-2: one file or a pair (.hdr and .img), plain or gzip.

Headers as in nifti1.h and nifti2.h (https://nifti.nimh.nih.gov). Where the two places that a header can give differ,
the choice is that of ITK since 5.3, and so Slicer's: the sform if the qform is missing or the sform is the scanner's
own (code 1), otherwise the qform.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from barl.errors import InputError
from barl.images.formats.content import (
    GZIP,
    beginning,
    is_gzip,
    open_regular,
    read_raw,
    unpack,
    unpacked_length,
    unpacking,
)
from barl.images.formats.volume import (
    RAS_TO_LPS,
    ROUNDING_VOXELS,
    SKEW,
    Volume,
    damaged,
    in_millimeters,
    nearest_axes,
    no_number,
    spatial_sizes,
    unknown_kind,
)

_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_SEVERAL = {32: "complex", 1792: "complex", 2048: "complex", 128: "3", 2304: "4"}
# The header's units of length; 0 says nothing.
_UNITS = {1: "m", 2: "mm", 3: "um"}
_LONGEST = 544  # of a header


@dataclass(frozen=True)
class Header:
    """The fields of a header that count, of either version."""

    order: str
    version: int
    is_pair: bool
    dims: tuple[int, ...]
    datatype: int
    pixdim: tuple[float, ...]
    offset: float
    slope: float
    inter: float
    units: int
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]
    qoffset: tuple[float, ...]
    srow: tuple[float, ...]


def is_nifti(start: bytes) -> bool:
    """Whether a file begins with the header of NIfTI or of Analyze."""
    return any(start[:4] == struct.pack(f"{order}i", size) for order in "<>" for size in (348, 540))


def read_nifti(path: Path, *, several: bool = False) -> Volume:
    """Read a volume; floats with a slope, whole numbers as they are stored.

    Args:
        path: The file, or one of a pair.
        several: Read the volumes of a four-dimensional file (or one with a vector in each voxel) as components.

    Raises:
        InputError: The file cannot be used.
    """
    header_path, image_path = _pair(path)
    header = _header(beginning(header_path, _LONGEST), path.name)
    if header.is_pair != (header_path != image_path):
        if not header.is_pair:
            raise damaged(path.name)
        header_path, image_path = _pair(path.with_suffix(".hdr"))
    # The numbers of dimensions behind the last one that is longer than 1 do not count; 0 is written for 1.
    n_dims = header.dims[0]
    if not 1 <= n_dims <= 7:
        raise damaged(path.name)
    sizes = [n if n > 0 or axis < 3 else 1 for axis, n in enumerate(header.dims[1 : n_dims + 1])]
    count = _components(sizes) if several else 1
    if count > 1:
        sizes = sizes[:3]
    if len(sizes) == 5 and sizes[3] == 1 and sizes[4] > 1:
        raise no_number(path.name, str(sizes[4]))
    if what := _SEVERAL.get(header.datatype):
        raise no_number(path.name, what)
    nx, ny, nz = spatial_sizes(sizes, path.name)
    if header.datatype not in _TYPES:
        raise InputError(
            f"'{path.name}' stores its voxels in a way that is not supported (datatype {header.datatype}).",
            "Export the scan again, as 16-bit whole numbers or 32-bit floats.",
        )
    kind = np.dtype(header.order + _TYPES[header.datatype])
    array = _voxels(image_path, path.name, header, kind, count * nx * ny * nz).reshape(count, nz, ny, nx)
    volume = _placed(header, (nx, ny, nz), path.name)
    volume.array = _scaled(array if count > 1 else array[0], header, path.name)
    volume.components_mean = "list" if count > 1 else ""
    return volume


def voxels_in_pieces(path: Path) -> Generator[None, None, np.ndarray]:
    """Read a volume as ``barl.images.writing.write_image`` writes it, at most 4 MiB between two ``yield``.

    Args:
        path: A packed file with one value in each voxel and no scale.

    Returns:
        ``[k, j, i]``, as stored; where the volume lies is not read.

    Raises:
        InputError: The file is damaged or of another kind.
        OSError: It cannot be read.
    """
    header = _header(beginning(path, _LONGEST), path.name)
    plain = (header.slope, header.inter) in ((1.0, 0.0), (0.0, 0.0))
    if header.is_pair or header.datatype not in _TYPES or header.dims[0] != 3 or not plain or not is_gzip(path):
        raise unknown_kind(path.name)
    kind, shape = np.dtype(header.order + _TYPES[header.datatype]), header.dims[3:0:-1]
    with open_regular(path) as file:
        length = math.prod(shape) * kind.itemsize
        content = yield from unpacking(file, length, GZIP, path.name, skip=int(header.offset))
    return content.view(kind).reshape(shape)


def _components(sizes: Sequence[int]) -> int:
    """How many volumes a file holds, if only one of the dimensions behind the third counts."""
    longer = [n for n in sizes[3:] if n > 1]
    return longer[0] if len(longer) == 1 else 1


def verify(path: Path) -> None:
    """Refuse a file that is cut off or damaged, without keeping it in memory.

    Raises:
        InputError: It is.
        OSError: It cannot be read.
    """
    header = _header(beginning(path, _LONGEST), path.name)
    size = np.dtype(_TYPES[header.datatype]).itemsize * math.prod(header.dims[1 : header.dims[0] + 1])
    with open_regular(path) as file:
        if not is_gzip(path):
            if file.seek(0, 2) < header.offset + size:
                raise damaged(path.name)
        elif unpacked_length(file, path.name) < header.offset + size:
            raise damaged(path.name)


def _pair(path: Path) -> tuple[Path, Path]:
    """Where header and voxels lie: in one file, or in two of one name."""
    lower = path.name.lower()
    packed = path.name[-3:] if lower.endswith(".gz") else ""
    stem = path.with_name(path.name.removesuffix(packed))
    if stem.suffix.lower() not in (".hdr", ".img"):
        return path, path
    upper = stem.suffix.isupper()
    endings = [".HDR", ".IMG"] if upper else [".hdr", ".img"]
    found = []
    for ending in endings:
        if stem.suffix == ending:
            found.append(path)
            continue
        places = [stem.with_suffix(ending), stem.with_suffix(ending + (".GZ" if upper else ".gz"))]
        there = [place for place in places if place.exists()]
        if len(there) > 1:
            raise InputError(
                f"Beside '{path.name}' lie '{there[0].name}' and '{there[1].name}'.", "Move the wrong one away."
            )
        if not there:
            raise InputError(
                f"'{path.name}' is one half of a pair; '{places[0].name}' is missing beside it.",
                "Copy both files into one folder.",
            )
        found.append(there[0])
    return found[0], found[1]


def _header(start: bytes, name: str) -> Header:
    for order in "<>":
        if len(start) >= 348 and struct.unpack_from(f"{order}i", start) == (348,):
            return _header_1(start, order, name)
        if len(start) >= 540 and struct.unpack_from(f"{order}i", start) == (540,):
            return _header_2(start, order, name)
    raise damaged(name) if is_nifti(start) else unknown_kind(name)


def _header_1(start: bytes, order: str, name: str) -> Header:
    def at(form: str, offset: int) -> tuple:
        return struct.unpack_from(order + form, start, offset)

    magic = start[344:348]
    if magic not in (b"n+1\0", b"ni1\0"):
        raise InputError(
            f"'{name}' is an Analyze 7.5 file, which does not say left from right, or its header is damaged.",
            "Convert it to NIfTI with the program it comes from.",
        )
    return Header(
        order,
        1,
        magic == b"ni1\0",
        at("8h", 40),
        at("h", 70)[0],
        at("8f", 76),
        at("f", 108)[0],
        at("f", 112)[0],
        at("f", 116)[0],
        start[123] & 7,
        at("h", 252)[0],
        at("h", 254)[0],
        at("3f", 256),
        at("3f", 268),
        at("12f", 280),
    )


def _header_2(start: bytes, order: str, name: str) -> Header:
    def at(form: str, offset: int) -> tuple:
        return struct.unpack_from(order + form, start, offset)

    magic = start[4:8]
    if magic not in (b"n+2\0", b"ni2\0"):
        raise damaged(name)
    return Header(
        order,
        2,
        magic == b"ni2\0",
        at("8q", 16),
        at("h", 12)[0],
        at("8d", 104),
        float(at("q", 168)[0]),
        at("d", 176)[0],
        at("d", 184)[0],
        at("i", 500)[0] & 7,
        at("i", 344)[0],
        at("i", 348)[0],
        at("3d", 352),
        at("3d", 376),
        at("12d", 400),
    )


def _voxels(path: Path, name: str, header: Header, kind: np.dtype, count: int) -> np.ndarray:
    usual = 0 if header.is_pair else {1: 352, 2: 544}[header.version]
    offset = usual if header.offset == 0 else header.offset
    if not (math.isfinite(offset) and offset == int(offset) and offset >= usual):
        raise damaged(name)
    packed = is_gzip(path)
    with open_regular(path) as file:
        if packed:
            content = unpack(file, count * kind.itemsize, GZIP, name, skip=int(offset))
            return content.view(kind)
        return read_raw(file, int(offset), kind, count, name)


def _scaled(array: np.ndarray, header: Header, name: str) -> np.ndarray:
    """Slope and intercept applied; a slope of 0 or none means that there is no scale."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not (math.isfinite(header.slope) and header.slope != 0 and math.isfinite(header.inter)):
        return array
    if (header.slope, header.inter) == (1.0, 0.0):
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float64) * header.slope + header.inter


def _placed(header: Header, sizes: tuple[int, int, int], name: str) -> Volume:
    """A volume with place and notes, still without voxels."""
    factors, notes = in_millimeters([_UNITS.get(header.units, "")])
    unit = float(factors[0])
    if header.units not in _UNITS:
        notes.append("The header names no unit of length; millimeters are assumed.")
    qform = _qform(header, unit) if header.qform_code > 0 else None
    sform = _sform(header, unit) if header.sform_code > 0 else None
    if sform is not None and qform is not None and _skew(sform) > SKEW >= _skew(qform):
        notes.append("The header's sform is sheared; its qform is used.")
        sform = None
    if sform is None and qform is None:
        if header.sform_code > 0 or header.qform_code > 0:
            raise InputError(
                f"'{name}' has an unusable spacing of {' x '.join(f'{s * unit:g}' for s in header.pixdim[1:4])} mm, "
                "and no other place in its header is sound.",
                "Correct its header or export the scan again.",
            )
        return _unplaced(header, unit, sizes, notes, name)
    chosen = qform if sform is None else sform
    assert chosen is not None
    if sform is not None and qform is not None:
        apart = _distance(sform, qform, sizes)
        if apart > ROUNDING_VOXELS * np.linalg.norm(qform[:3, :3], axis=0).min():
            use_sform = header.sform_code == 1
            chosen, used = (sform, "sform") if use_sform else (qform, "qform")
            notes.append(
                f"The header gives two places, up to {apart:.3g} mm apart; the {used} is used, as in Slicer. "
                f"Programs that use the {'qform' if use_sform else 'sform'} see the scan elsewhere."
            )
    elif qform is None and not all(math.isfinite(p) and p > 0 for p in header.pixdim[1:4]):
        notes.append("The header's spacing is not positive; the spacing of its sform is used.")
    spacing, axes, turned = nearest_axes(RAS_TO_LPS @ chosen[:3, :3], sizes, name)
    origin = RAS_TO_LPS @ chosen[:3, 3]
    return Volume(np.empty((0, 0, 0)), spacing.tolist(), origin.tolist(), axes, notes + turned)


def _unplaced(header: Header, unit: float, sizes: tuple[int, int, int], notes: list[str], name: str) -> Volume:
    spacing = np.array(header.pixdim[1:4]) * unit
    if header.dims[0] < 3 or not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(
            f"'{name}' has an unusable spacing of {' x '.join(f'{s:g}' for s in spacing)} mm.",
            "Correct its header or export the scan again.",
        )
    notes.append("The header does not say where the scan lies; which side is left is not known.")
    return Volume(np.empty((0, 0, 0)), spacing.tolist(), (0.0, 0.0, 0.0), np.eye(3), notes)


def _sform(header: Header, unit: float) -> np.ndarray | None:
    """4 x 4, RAS, mm; None if it is not one."""
    matrix = np.vstack([np.array(header.srow).reshape(3, 4) * unit, [0, 0, 0, 1]])
    if not np.isfinite(matrix).all() or (np.linalg.norm(matrix[:3, :3], axis=0) == 0).any():
        return None
    return matrix


def _qform(header: Header, unit: float) -> np.ndarray | None:
    """4 x 4, RAS, mm, from the quaternion (nifti1.h, method 2); None if it is not one."""
    spacing = np.array(header.pixdim[1:4])
    b, c, d = header.quaternion
    if not np.isfinite([*spacing, b, c, d, *header.qoffset]).all() or (spacing <= 0).any():
        return None
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < -1e-5:
        return None
    if rest < 1e-7:
        length = math.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = math.sqrt(rest)
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    turn[:, 2] *= -1.0 if header.pixdim[0] < 0 else 1.0
    matrix = np.eye(4)
    matrix[:3, :3] = turn * spacing * unit
    matrix[:3, 3] = np.array(header.qoffset) * unit
    return matrix


def _skew(matrix: np.ndarray) -> float:
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def _distance(one: np.ndarray, other: np.ndarray, sizes: tuple[int, int, int]) -> float:
    """How far corner voxels lie apart at most, mm."""
    corners = np.array([[i, j, k, 1] for i in (0, sizes[0] - 1) for j in (0, sizes[1] - 1) for k in (0, sizes[2] - 1)])
    return float(np.linalg.norm(((one - other) @ corners.T)[:3], axis=0).max())
