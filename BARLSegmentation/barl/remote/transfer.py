# SPDX-License-Identifier: Apache-2.0
"""Files to the other computer and back, in pieces, each content once."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path

from barl.errors import storage_error
from barl.progress import SILENT, Progress
from barl.project.files import write_atomically
from barl.remote.far import PIECE_BYTES
from barl.remote.messages import GivePiece, ListFiles, ListMissing, TakePiece
from barl.worker.client import WorkerProcess


def send(worker: WorkerProcess, files: Mapping[str, Path], progress: Progress = SILENT) -> int:
    """Send the files that the other computer lacks.

    Args:
        worker: On that computer.
        files: SHA-256 -> file here.
        progress: Gets the share of the bytes.

    Returns:
        How many bytes were sent.

    Raises:
        StorageError: A file cannot be read here, or the disk there is full.
        WorkerError: The connection ended.
    """
    missing = {digest: files[digest] for digest in worker.call(ListMissing(sorted(files))).hashes}
    try:
        total = sum(path.stat().st_size for path in missing.values())
        sent = 0
        for digest, path in missing.items():
            with path.open("rb") as file:
                while True:
                    offset, data = file.tell(), file.read(PIECE_BYTES)
                    last = file.tell() == path.stat().st_size
                    progress.at(sent / max(total, 1), path.name)
                    worker.call(TakePiece(digest, offset, base64.b64encode(data).decode(), last))
                    sent += len(data)
                    if last:
                        break
    except OSError as error:
        raise storage_error(error, Path(error.filename or ".")) from error
    progress.at(1.0)
    return sent


def fetch(worker: WorkerProcess, path: str, place: Path) -> None:
    """Bring a file of the other computer (relative to its ``work``) to ``place``, whole or not at all.

    Raises:
        InputError: It is not there.
        StorageError: The disk here is full.
        WorkerError: The connection ended.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            while True:
                piece = worker.call(GivePiece(path, file.tell()))
                file.write(base64.b64decode(piece.data))
                if piece.last:
                    return

    write_atomically(place, write)


def fetch_folder(worker: WorkerProcess, folder: str, place: Path) -> None:
    """Bring the files right inside a folder there into the folder ``place`` here."""
    for name in worker.call(ListFiles(folder)).names:
        fetch(worker, f"{folder}/{name}", place / name)


def append(worker: WorkerProcess, path: str, place: Path) -> None:
    """Bring what was appended to a file there since the last time; a file that is not there yet is empty.

    Two programs may do so at once: each writes the same bytes to the same place.
    """
    name = path.rpartition("/")
    if name[2] not in worker.call(ListFiles(name[0])).names:
        return
    try:
        place.touch()
        with place.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            while True:
                piece = worker.call(GivePiece(path, file.tell()))
                file.write(base64.b64decode(piece.data))
                if piece.last:
                    return
    except OSError as error:
        raise storage_error(error, place) from error
