# SPDX-License-Identifier: Apache-2.0
"""The Decathlon's hippocampus set from its public address; a slow or missing network costs seconds, not minutes."""

from __future__ import annotations

import time
from pathlib import Path

import pooch
import requests

from barl import hippocampus
from barl.errors import InputError, storage_error
from barl.progress import SILENT, Progress

# Longest pause of the server, and longest time for the whole file (s); after either the demo simulates its cases.
SILENCE_S = 10.0
LONGEST_S = 180.0


def download(
    folder: Path,
    progress: Progress = SILENT,
    *,
    address: str = hippocampus.ADDRESS,
    md5: str = hippocampus.MD5,
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
    pooch.get_logger().setLevel("WARNING")
    fetch = pooch.HTTPDownloader(progressbar=_Received(progress, longest_s), chunk_size=1 << 12, timeout=silence_s)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        archive = pooch.retrieve(address, f"md5:{md5}", hippocampus.ARCHIVE_NAME, folder, downloader=fetch)
        hippocampus.unpack(Path(archive), folder)
    except requests.RequestException as error:
        raise _no_data(_reason(error)) from error
    except ValueError as error:  # of pooch
        raise _no_data("what came is incomplete or another file: its checksum is wrong") from error
    except OSError as error:
        raise storage_error(error, folder) from error
    return folder


class _Received:
    """Pooch's progress bar: reports the bytes that have arrived, and gives up after ``longest_s`` seconds."""

    total = 0

    def __init__(self, progress: Progress, longest_s: float) -> None:
        self._progress, self._longest_s = progress, longest_s
        self._received, self._started = 0, time.monotonic()

    def update(self, size: int) -> None:
        if time.monotonic() - self._started > self._longest_s:
            raise _no_data(f"it takes longer than {self._longest_s:.0f} s")
        self._received += size
        received = min(self._received, self.total) if self.total else self._received
        of = f" of {self.total / 1e6:.1f}" if self.total else ""
        self._progress.stage("downloading").at(
            received / self.total if self.total else 0.0, f"{received / 1e6:.1f}{of} MB"
        )

    def reset(self) -> None:
        self._received = 0

    def close(self) -> None:
        """The end is told by the last update."""


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "the server does not answer"
    if error.response is not None:
        return f"the server answers: {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection ended early"
    return "the server cannot be reached"


def _no_data(reason: str) -> InputError:
    return InputError(
        f"The Decathlon's hippocampus set could not be downloaded ({reason}).",
        "Check the network, or let the variable BARL_DATA name a folder with hippocampus/ in it.",
    )
