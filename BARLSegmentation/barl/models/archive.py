# SPDX-License-Identifier: Apache-2.0
"""A model as one file that can be sent: a zip archive of ``model.json`` and ``weights.safetensors``, nothing else.

Nothing of an archive is executed, and nothing of it is written but these two files under their own names.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from barl.errors import InputError, ModelError, storage_error
from barl.models.disk import check_model
from barl.project.files import flush_file, write_atomically
from barl.project.model_card import CARD_FILE, FRESH_COPY, WEIGHTS_FILE, ModelCard

ENDING = ".zip"
_LARGEST = {CARD_FILE: 4 * 2**20, WEIGHTS_FILE: 16 * 2**30}
# Trained weights shrink by a tenth; a file that shrinks by far more is none, and may fill the disk.
_LARGEST_RATIO = 50
_RATIO_COUNTS_FROM = 2**20
_CHUNK = 2**20
# The same model makes the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def pack_model(folder: Path, file: Path) -> ModelCard:
    """Check a model and write it into one file, whole or not at all.

    Args:
        folder: The model's folder.
        file: Its name ends with ``.zip``; it must not be there.

    Raises:
        InputError: The name has another ending, its folder is missing, or the file is there already.
        ModelError: The model is missing or damaged.
        StorageError: The disk is full or read-only.
    """
    if file.suffix.lower() != ENDING:
        raise InputError(f"'{file.name}' is not a file name for a model.", f"Use a name that ends with {ENDING}.")
    if file.exists():
        raise InputError(f"The file {file} is there already.", "Choose another name, or remove the file.")
    if not file.absolute().parent.is_dir():
        raise InputError(f"There is no folder {file.parent} to write to.", "Make it, or choose another one.")
    card = check_model(folder)

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in (CARD_FILE, WEIGHTS_FILE):
                member = zipfile.ZipInfo(name, _DATE)
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = (stat.S_IFREG | 0o644) << 16
                with (folder / name).open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)

    write_atomically(file.absolute(), write)
    return card


def unpack_model(file: Path, folder: Path) -> ModelCard:
    """Read a model from one file and check it as a model's folder is checked.

    Args:
        file: As ``pack_model`` writes it, or a model's folder that somebody zipped.
        folder: An empty folder; gets the model's two files.

    Raises:
        ModelError: The file is missing or no such archive, holds a file that leads out of it or is larger than a model
            can be, or its card or weights are damaged.
        StorageError: The disk is full or read-only.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for name, member in _members(archive, file).items():
                _extract(archive, member, folder / name)
    except FileNotFoundError:
        raise ModelError(f"There is no file {file}.", "Check the path.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        what = "is encrypted" if "password" in str(error) else "is no zip archive, or is damaged"
        raise ModelError(f"The model file '{file.name}' {what}.", FRESH_COPY) from None
    except OSError as error:
        raise storage_error(error, folder) from error
    return check_model(folder)


def _members(archive: zipfile.ZipFile, file: Path) -> dict[str, zipfile.ZipInfo]:
    """The two files of a model, from the archive's root or from its only folder that holds a card."""
    for member in archive.infolist():
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if ".." in parts or member.filename.startswith(("/", "\\")) or ":" in member.filename:
            raise ModelError(
                f"The model file '{file.name}' holds a name that leads out of it ({member.filename[:80]!r}).",
                "Do not use it; ask for it again where it came from.",
            )
    files = [member for member in archive.infolist() if not member.filename.startswith("__MACOSX/")]
    cards = [member for member in files if PurePosixPath(member.filename).name == CARD_FILE]
    if len(cards) != 1:
        found = "no" if not cards else "more than one"
        raise ModelError(
            f"The model file '{file.name}' holds {found} {CARD_FILE}.",
            'Make it with "barl models export PROJECT FILE".',
        )
    home = PurePosixPath(cards[0].filename).parent
    weights = [member for member in files if PurePosixPath(member.filename) == home / WEIGHTS_FILE]
    if len(weights) != 1:
        raise ModelError(f"The model file '{file.name}' holds no {WEIGHTS_FILE} beside its card.", FRESH_COPY)
    members = {CARD_FILE: cards[0], WEIGHTS_FILE: weights[0]}
    for name, member in members.items():
        ratio = member.file_size / max(member.compress_size, 1)
        if member.file_size > _LARGEST[name] or (member.file_size > _RATIO_COUNTS_FROM and ratio > _LARGEST_RATIO):
            raise ModelError(
                f"The {name} in '{file.name}' would take {member.file_size / 2**20:.0f} MiB, "
                f"{ratio:.0f} times what it takes in the file: no model is like that.",
                "Do not use it; ask for it again where it came from.",
            )
    return members


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> None:
    with archive.open(member) as source, place.open("wb") as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)
    flush_file(place)
