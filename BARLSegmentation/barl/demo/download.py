# SPDX-License-Identifier: Apache-2.0
"""The Decathlon's hippocampus set from its public address; a slow or missing network costs seconds, not minutes."""

from __future__ import annotations

import hashlib
import http.client
import re
import tarfile
import time
import urllib.request
from pathlib import Path

from barl.errors import InputError, storage_error
from barl.progress import Progress, silent
from barl.project.files import write_atomically

# As in the tables of monai.apps.DecathlonDataset (MONAI 1.6); importing those takes seconds.
ADDRESS = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar"
MD5 = "9d24dba78a72977dbd1d2e110310f31b"
SILENCE_S = 10.0
"""A server that says nothing for so long is given up."""
LONGEST_S = 180.0
"""So is one that needs longer for the whole file: the demo has simulated cases instead."""
_CHUNK = 1 << 16
_MEMBER = re.compile(r"^(?:\./)?Task04_Hippocampus/(images|labels)Tr/(hippocampus_\d+\.nii\.gz)$")


def download(
    folder: Path,
    progress: Progress = silent,
    *,
    address: str = ADDRESS,
    md5: str = MD5,
    silence_s: float = SILENCE_S,
    longest_s: float = LONGEST_S,
) -> Path:
    """The outlined cases as ``images/hippocampus_<n>.nii.gz`` and ``labels/``, downloaded unless they are there.

    Args:
        folder: Where they and the archive are kept.
        progress: Told while data arrive.
        address, md5: Of the archive.
        silence_s, longest_s: When to give up, in seconds.

    Returns:
        ``folder``.

    Raises:
        InputError: The server cannot be reached, is too slow, or sends something else.
        StorageError: The folder cannot be written.
    """
    archive = folder / "Task04_Hippocampus.tar"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (archive.is_file() and _md5(archive) == md5):
            write_atomically(archive, lambda path: _fetch(address, md5, path, silence_s, longest_s, progress))
        _unpack(archive, folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    return folder


def _fetch(address: str, md5: str, path: Path, silence_s: float, longest_s: float, progress: Progress) -> None:
    digest, received, started = hashlib.md5(usedforsecurity=False), 0, time.monotonic()
    response = _asking(urllib.request.urlopen, address, timeout=silence_s)
    with response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        while chunk := _asking(response.read1, _CHUNK):
            if time.monotonic() - started > longest_s:
                raise _no_data(f"it takes longer than {longest_s:.0f} s")
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            of = f" of {total / 1e6:.1f}" if total else ""
            progress("downloading", min(received / total, 1.0) if total else 0.0, f"{received / 1e6:.1f}{of} MB")
    if digest.hexdigest() != md5:
        raise _no_data("what came is incomplete or another file: its checksum is wrong")


def _asking(call, *arguments, **options):
    """A call that talks to the server: what goes wrong in it is the network's fault, not the disk's."""
    try:
        return call(*arguments, **options)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        words = getattr(reason, "strerror", None) or str(reason)
        raise _no_data("the server does not answer" if isinstance(reason, TimeoutError) else words) from error


def _no_data(reason: str) -> InputError:
    return InputError(
        f"The Decathlon's hippocampus set could not be downloaded ({reason}).",
        "Check the network, or let the variable BARL_DATA name a folder with hippocampus/ in it.",
    )


def _unpack(archive: Path, folder: Path) -> None:
    """Only files of the names expected leave the archive, under names of our own."""
    for part in ("images", "labels"):
        (folder / part).mkdir(exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            found = _MEMBER.match(member.name)
            if found and member.isfile():
                (folder / found[1] / found[2]).write_bytes(tar.extractfile(member).read())


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
