# SPDX-License-Identifier: Apache-2.0
"""FreeSurfer's .mgh and .mgz (https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from barl.images.formats.content import GZIP, beginning, is_gzip, open_regular, read_raw, unpack
from barl.images.formats.volume import RAS_TO_LPS, Volume, damaged, nearest_axes, spatial_sizes

_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2"}
_OFFSET = 284


def is_mgh(start: bytes, name: str) -> bool:
    """Whether a file is one: its beginning alone, a 1, would not say so."""
    return start[:4] == b"\0\0\0\1" and name.lower().endswith((".mgh", ".mgz", ".mgh.gz"))


def read_mgh(path: Path) -> Volume:
    """Read a volume.

    Raises:
        InputError: The file cannot be used.
    """
    start = beginning(path, _OFFSET)
    if len(start) < _OFFSET:
        raise damaged(path.name)
    _, *sizes, code, _ = struct.unpack_from(">7i", start)
    (has_place,) = struct.unpack_from(">h", start, 28)
    spacing = np.array(struct.unpack_from(">3f", start, 30), dtype=np.float64)
    cosines = np.array(struct.unpack_from(">9f", start, 42), dtype=np.float64).reshape(3, 3).T
    center = np.array(struct.unpack_from(">3f", start, 78), dtype=np.float64)
    x, y, z = spatial_sizes(sizes, path.name)
    if code not in _TYPES:
        raise damaged(path.name)
    notes = []
    if has_place != 1:  # FreeSurfer's default then: coronal slices, 1 mm
        spacing, center = np.ones(3), np.zeros(3)
        cosines = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        notes.append("The header does not say where the scan lies; FreeSurfer's usual place is assumed.")
    spacing, axes, turned = nearest_axes(RAS_TO_LPS @ (cosines * spacing), (x, y, z), path.name)
    if not np.isfinite(center).all():
        raise damaged(path.name)
    origin = RAS_TO_LPS @ center - axes @ (spacing * np.array([x, y, z]) / 2)
    kind = np.dtype(_TYPES[code])
    with open_regular(path) as file:
        if is_gzip(path):
            content = unpack(file, x * y * z * kind.itemsize, GZIP, path.name, skip=_OFFSET)
            array = np.frombuffer(content, dtype=kind)
        else:
            array = read_raw(file, _OFFSET, kind, x * y * z, path.name)
    array = array.astype(kind.newbyteorder("="), copy=False).reshape(z, y, x)
    return Volume(array, spacing.tolist(), origin.tolist(), axes, notes + turned)
