# SPDX-License-Identifier: Apache-2.0
"""Which reader a file needs, told from its content; and names for files of other kinds."""

from __future__ import annotations

from pathlib import Path

from barl.errors import InputError
from barl.images.formats.content import beginning
from barl.images.formats.metaimage import is_metaimage, read_metaimage
from barl.images.formats.mgh import is_mgh, read_mgh
from barl.images.formats.nifti import is_nifti, read_nifti
from barl.images.formats.nrrd import read_nrrd
from barl.images.formats.volume import Volume, unknown_kind

# Endings of volume files, longest first; a folder's files with them are taken for scans.
ENDINGS = (
    ".nii.gz",
    ".img.gz",
    ".hdr.gz",
    ".seg.nrrd",
    ".nii",
    ".hdr",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".mgz",
    ".mgh",
)
# Endings of files that only go with one of those.
COMPANIONS = (".img", ".img.gz", ".raw", ".raw.gz", ".zraw")

_OTHERS = {
    ".gipl": "a GIPL file",
    ".gipl.gz": "a GIPL file",
    ".vtk": "a VTK file",
    ".vti": "a VTK file",
    ".mnc": "a MINC file",
    ".mrc": "an MRC file",
    ".mrb": "a Slicer scene",
    ".par": "a Philips PAR/REC file",
    ".rec": "a Philips PAR/REC file",
    ".brik": "an AFNI file",
    ".head": "an AFNI file",
    ".npy": "a NumPy file",
    ".npz": "a NumPy file",
    ".h5": "an HDF5 file",
    ".zip": "an archive",
    ".stl": "a surface model",
}
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")


def read_volume(path: Path, *, several: bool = False) -> Volume:
    """Read a file of any kind but DICOM; with ``several`` also one that holds several volumes.

    Raises:
        InputError: It is damaged, of another kind, or holds no volume.
    """
    if path.name.lower().endswith((".img", ".img.gz")):
        return read_nifti(path, several=several)  # the header lies in another file
    start = beginning(path, 544)
    if is_nifti(start):
        return read_nifti(path, several=several)
    if start.startswith(b"NRRD"):
        return read_nrrd(path)
    if is_metaimage(start):
        return read_metaimage(path)
    if is_mgh(start, path.name):
        return read_mgh(path)
    raise _other(path)


def ending(name: str) -> str:
    """The ending of a volume's file name as it is written there; empty if it has none."""
    found = next((end for end in ENDINGS if name.lower().endswith(end)), "")
    return name[len(name) - len(found) :] if found else ""


def describe_other(name: str) -> str:
    """What a file of another kind is, from its name; empty if that is not known."""
    lower = name.lower()
    if lower.endswith(_PICTURES):
        return "a picture, not a volume"
    return next((f"{what}, which is not supported" for end, what in _OTHERS.items() if lower.endswith(end)), "")


def _other(path: Path) -> InputError:
    what = describe_other(path.name)
    if not what:
        return unknown_kind(path.name)
    return InputError(
        f"'{path.name}' is {what}.",
        "Use a NIfTI, NRRD or MHA file, or a DICOM folder; Slicer can load many other files and save them as NRRD.",
    )
