# SPDX-License-Identifier: Apache-2.0
"""Damaged NIfTI, NRRD and MetaImage files: whatever BARL takes must be what another reader finds in the file."""

from __future__ import annotations

import gzip
import multiprocessing
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import SimpleITK as sitk
from barl.images.reading import read_image
from mutations import NUMBERS, damaged_bytes, damaged_text

ARRAY = np.random.default_rng(1).integers(-500, 900, (5, 6, 7)).astype(np.int16)  # [k, j, i]
TURN = np.array([[0.8, -0.6, 0.0], [0.36, 0.48, -0.8], [0.48, 0.64, 0.6]])
AFFINE = np.eye(4)  # RAS
AFFINE[:3, :3] = TURN * [0.7, 0.9, 2.5]
AFFINE[:3, 3] = [-3.0, 40.0, 11.5]
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
Found = tuple[np.ndarray, list[np.ndarray]]  # voxels [k, j, i], and the affines (RAS) that would be right


class Wrong(AssertionError):
    """BARL took a file and made something else of it than another reader does."""


# ---- NIfTI

# Offset and struct format of the fields of a NIfTI-1 header that matter.
_FIELDS = [
    *((0, "<i"), (40, "<h"), (42, "<h"), (44, "<h"), (46, "<h"), (48, "<h"), (70, "<h"), (72, "<h"), (252, "<h")),
    *((254, "<h"), (344, "<4s"), (123, "<B")),
    *((n, "<f") for n in (*range(76, 124, 4), *range(256, 328, 4))),
]


def nifti(folder: Path, rng: random.Random) -> Path:
    image = nib.Nifti1Image(ARRAY.T.astype(rng.choice((np.int16, np.float32))), AFFINE)
    image.header.set_xyzt_units("mm")
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, rng.choice((1, 2)))
    content = bytearray(image.to_bytes())
    if rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 2))):
            offset, form = rng.choice(_FIELDS)
            content[offset : offset + struct.calcsize(form)] = _number(form, rng)
    else:
        content = bytearray(damaged_bytes(bytes(content), rng))
    if rng.random() < 0.5:
        return _written(folder / "a.nii", bytes(content))
    packed = gzip.compress(bytes(content), 1)
    return _written(folder / "a.nii.gz", damaged_bytes(packed, rng) if rng.random() < 0.4 else packed)


def _number(form: str, rng: random.Random) -> bytes:
    if form == "<4s":
        return rng.choice((b"n+1\0", b"ni1\0", b"n+2\0", b"\0\0\0\0"))
    if form == "<f":
        return struct.pack(
            form, rng.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), 0.5, 2.0, 352.0, 348.0))
        )
    size = struct.calcsize(form)
    return (rng.choice(NUMBERS) & (2 ** (8 * size) - 1)).to_bytes(size, "little")


def read_nifti(path: Path) -> Found:
    image = nib.load(path)
    array = np.asarray(image.dataobj, dtype=np.float64)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    unit = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)
    scale = np.diag([unit, unit, unit, 1.0])
    forms = []
    for form in (image.get_sform, image.get_qform):
        try:
            matrix, code = form(coded=True)
        except (ValueError, nib.spatialimages.HeaderDataError):
            continue
        if code and matrix is not None and np.isfinite(matrix).all():
            forms.append(scale @ matrix)
    if not forms:  # ITK's place for files without one
        forms.append(TO_LPS @ np.diag([*(np.array(image.header["pixdim"][1:4]) * unit), 1.0]))
    return array.T, forms


# ---- NRRD


def nrrd_file(folder: Path, rng: random.Random) -> Path:
    path = folder / "a.nrrd"
    lps = TO_LPS @ AFFINE
    header = {
        "space": "left-posterior-superior",
        "space directions": lps[:3, :3].T,
        "space origin": lps[:3, 3],
        "encoding": rng.choice(("raw", "gzip", "ascii")),
    }
    nrrd.write(str(path), ARRAY.T.astype(rng.choice((np.int16, np.float32))), header)
    head, _, body = path.read_bytes().partition(b"\n\n")
    if rng.random() < 0.6:
        head = damaged_text(head.decode(), rng).encode()
    else:
        body = damaged_bytes(body, rng)
    return _written(path, head + b"\n\n" + body)


def read_nrrd(path: Path) -> Found:
    array, header = nrrd.read(str(path))
    array = np.squeeze(array.astype(np.float64)) if array.ndim > 3 else array.astype(np.float64)
    directions = header.get("space directions")
    matrix = np.eye(4)
    if directions is not None:
        directions = np.asarray(directions, dtype=np.float64)
        matrix[:3, :3] = directions[np.isfinite(directions).all(axis=1)][:3].T
    elif "spacings" in header:
        matrix[:3, :3] = np.diag(np.asarray(header["spacings"], dtype=np.float64)[:3])
    if header.get("space origin") is not None:
        matrix[:3, 3] = header["space origin"]
    space = str(header.get("space", "lps")).lower()
    signs = {"ras": (-1, -1), "right-anterior-superior": (-1, -1), "las": (1, -1), "left-anterior-superior": (1, -1)}
    flip = np.diag([*signs.get(space, (1, 1)), 1.0, 1.0])
    return array.T, [TO_LPS @ flip @ matrix]


# ---- MetaImage


def metaimage(folder: Path, rng: random.Random) -> Path:
    packed = rng.random() < 0.5
    lps = TO_LPS @ AFFINE
    head = "\n".join(
        (
            "ObjectType = Image",
            "NDims = 3",
            "BinaryData = True",
            "BinaryDataByteOrderMSB = False",
            f"CompressedData = {packed}",
            *([f"CompressedDataSize = {len(zlib.compress(ARRAY.tobytes()))}"] if packed else []),
            "TransformMatrix = " + " ".join(map(str, (lps[:3, :3] / [0.7, 0.9, 2.5]).T.ravel())),
            "Offset = " + " ".join(map(str, lps[:3, 3])),
            "ElementSpacing = 0.7 0.9 2.5",
            "DimSize = 7 6 5",
            "ElementType = MET_SHORT",
            "ElementDataFile = LOCAL",
        )
    )
    body = zlib.compress(ARRAY.tobytes()) if packed else ARRAY.tobytes()
    if rng.random() < 0.6:
        head = damaged_text(head, rng)
    else:
        body = damaged_bytes(body, rng)
    return _written(folder / "a.mha", head.encode() + b"\n" + body)


def read_metaimage(path: Path) -> Found:
    """By SimpleITK, in a process of its own: some headers end it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_read_by_itk, args=(path, theirs))
    process.start()
    theirs.close()
    try:
        answer: Any = ours.recv() if ours.poll(20) else None
    except EOFError:
        answer = None
    process.join(5)
    if process.is_alive():
        process.kill()
    if answer is None:
        raise RuntimeError("SimpleITK does not read it")
    array, affine = answer
    return array, [affine]


def _read_by_itk(path: Path, connection: Any) -> None:
    try:
        image = sitk.ReadImage(str(path))
        while image.GetDimension() > 3:
            image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
        connection.send((sitk.GetArrayFromImage(image).astype(np.float64), affine_of(image)))
    except RuntimeError:
        connection.send(None)


# ---- comparison


def affine_of(image: sitk.Image) -> np.ndarray:
    """4 x 4, RAS."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return TO_LPS @ matrix


def check(path: Path, independent: Any) -> None:
    """Read a file.

    Raises:
        BarlError: It is refused.
        Wrong: It is taken, but not as the other reader does; or the other does not take it and it is not the original.
    """
    notes: list[str] = []
    image = read_image(path, notes)
    array, affine = sitk.GetArrayFromImage(image).astype(np.float64), affine_of(image)
    if array.shape == ARRAY.shape and np.array_equal(array, ARRAY) and np.allclose(affine, AFFINE, atol=1e-3):
        return  # the original, whatever the damage was
    try:
        expected, affines = independent(path)
    except Exception as error:
        raise Wrong(f"taken, but the other reader refuses it ({type(error).__name__}: {error})"[:200]) from error
    if array.shape != expected.shape:
        raise Wrong(f"shape {array.shape} instead of {expected.shape}")
    finite = np.isfinite(expected)
    near = 1e-6 * max(1.0, np.abs(expected[finite]).max(initial=0))
    if not np.allclose(array[finite], expected[finite], rtol=1e-6, atol=near):
        raise Wrong(f"voxels differ; notes: {notes}")
    corners = np.array([[i, j, k, 1] for i in (0, array.shape[2] - 1) for j in (0, array.shape[1] - 1) for k in (0, 4)])
    straightened = any("straightened" in note for note in notes)
    for other in affines:
        apart = np.abs(((affine - other) @ corners.T)[:3]).max()
        size = np.abs((other @ corners.T)[:3]).max()
        if apart <= max(1e-3 * np.linalg.norm(other[:3, :3], axis=0).max(), 1e-5 * size, 0.2 if straightened else 0):
            return
    raise Wrong(
        f"lies elsewhere: {affine.round(3).tolist()} instead of {[a.round(3).tolist() for a in affines]}; {notes}"
    )


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


KINDS = {
    "NIfTI": (nifti, lambda path: check(path, read_nifti)),
    "NRRD": (nrrd_file, lambda path: check(path, read_nrrd)),
    "MetaImage": (metaimage, lambda path: check(path, read_metaimage)),
}
