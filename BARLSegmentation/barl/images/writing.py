# SPDX-License-Identifier: Apache-2.0
"""Volumes to files: pixels and geometry, nothing else; whole, or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import SimpleITK as sitk

from barl.errors import InputError, storage_error
from barl.images.formats.nifti import verify
from barl.images.quiet import quiet

# So long (s) a virus scanner, an index or a backup may look at a file that was just written.
_PATIENCE_S = 2.0
_IS_WINDOWS = os.name == "nt"


def patiently(action: Callable[[], object]) -> None:
    """Rename or remove a file or folder; where Windows refuses because a program looks at it, try again for 2 s."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            action()
            return
        except PermissionError:
            if not _IS_WINDOWS or time.monotonic() >= end:
                raise
        time.sleep(0.05)


def write_image(image: sitk.Image, path: Path | str) -> None:
    """Write pixels and geometry, nothing else, to a compressed file: whole, or not at all.

    Raises:
        InputError: The file name has none of the endings .nii.gz, .nii, .nrrd, .mha.
        StorageError: The disk is full or cannot be written.
    """
    path = Path(path)
    ending = check_file_name(path)
    bare = sitk.Image(image)
    bare.MakeUnique()  # Copies of an image share their metadata until then.
    for key in bare.GetMetaDataKeys():
        bare.EraseMetaData(key)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{ending}")
    try:
        _write_whole(bare, temporary, ending)
        patiently(lambda: temporary.replace(path))
    except OSError as error:
        raise storage_error(error, path.name) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_file_name(path: Path) -> str:
    """The ending of a file to write.

    Raises:
        InputError: The file name has none of the endings .nii.gz, .nii, .nrrd, .mha.
    """
    ending = next((e for e in (".nii.gz", ".nii", ".nrrd", ".mha") if path.name.lower().endswith(e)), None)
    if ending is None:
        raise InputError(f"'{path.name}' is not a file name for a volume.", "Use .nii.gz, .nrrd or .mha.")
    return ending


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], overwrite: bool) -> None:
    """What a command may write to; to be asked before the work.

    Args:
        outputs: Files to write.
        inputs: Files that are read; none of them may be written to.
        overwrite: Other files that are there already may be replaced.

    Raises:
        InputError: A file may not be replaced or cannot be written there, or two outputs are one file.
    """
    read = {path.resolve() for path in inputs}
    for number, path in enumerate(outputs):
        if path.resolve() in read:
            raise InputError(f"'{path.name}' is read here and would be replaced.", "Name another file for the output.")
        if path.resolve() in {other.resolve() for other in outputs[:number]}:
            raise InputError(f"Two outputs would be called '{path.name}'.", "Give one of them another name.")
        check_file_name(path)
        if not path.resolve().parent.is_dir():
            raise InputError(f"There is no folder {path.parent} to write to.", "Make it, or choose another one.")
        if path.exists() and not overwrite:
            raise InputError(f"'{path.name}' is there already.", "Choose another name, or add --overwrite.")


def _write_whole(image: sitk.Image, path: Path, ending: str) -> None:
    # Opened by Python first: ITK says only that it failed, the operating system says why.
    with path.open("wb"):
        pass
    try:
        with quiet():
            sitk.WriteImage(image, str(path), useCompression=ending != ".nii")
        if ending.startswith(".nii"):
            verify(path)  # ITK does not notice a disk that fills up.
    except (RuntimeError, InputError):
        _ask_for_room(path)
        raise OSError(None, "the file was not written whole") from None
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _ask_for_room(path: Path) -> None:
    """Raise the operating system's own error if the disk has no room for another megabyte."""
    with path.open("ab") as file:
        file.write(bytes(2**20))
