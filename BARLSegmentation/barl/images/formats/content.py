# SPDX-License-Identifier: Apache-2.0
"""The bytes of a file: only regular files, never more than they can hold, with every checksum compared."""

from __future__ import annotations

import re
import stat
import zlib
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from barl.errors import InputError
from barl.images.formats.volume import damaged

_CHUNK = 2**20
GZIP, ZLIB = 31, 15
# Deflate cannot shrink anything further (zlib's documentation: 1032 : 1).
_DENSEST = 1040


def open_regular(path: Path) -> IO[bytes]:
    """Open a file that is one: reading a pipe or a device would wait or go on for ever.

    Raises:
        InputError: It is missing, empty, no regular file, or cannot be opened.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"'{path.name}' is not a regular file.", "Choose a file with a scan.")
        if status.st_size == 0:
            raise InputError(f"'{path.name}' is empty.", "Copy or export the scan again.")
        return path.open("rb")
    except FileNotFoundError:
        raise InputError(
            f"'{path.name}' does not exist.", "Check the path; the file may have been moved or renamed."
        ) from None
    except OSError as error:
        raise InputError(f"'{path.name}' cannot be opened ({error.strerror}).", "Check its permissions.") from error


def open_beside(header: Path, name: str) -> IO[bytes]:
    """Open the file of voxels that a header names; it must lie beside the header.

    Raises:
        InputError: It lies elsewhere, is missing, or is no regular file.
    """
    if not name or name in (".", "..") or re.search(r"[/\\:\0]", name):
        raise InputError(
            f"The header '{header.name}' names a file of voxels that does not lie beside it.",
            "Put both files into one folder, or save the scan as one file.",
        )
    return open_regular(header.with_name(name))


def text_numbers(file: IO[bytes], kind: np.dtype, count: int, name: str) -> np.ndarray:
    """``count`` numbers written as text, to the end of the file."""
    words = file.read().split()
    if len(words) < count:
        raise damaged(name)
    if len(words) > count:
        raise too_long(name)
    try:
        with np.errstate(over="raise"):
            return np.array(words, dtype="S").astype(np.float64).astype(kind)
    except (ValueError, FloatingPointError):
        raise damaged(name) from None


def is_gzip(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(2) == b"\x1f\x8b"


def beginning(path: Path, length: int) -> bytes:
    """The first bytes, unpacked if the file is packed; fewer if there are no more.

    Raises:
        InputError: The file cannot be opened, or is damaged already here.
    """
    with open_regular(path) as file:
        start = file.read(length)
        if start[:2] != b"\x1f\x8b":
            return start
        file.seek(0)
        return unpack_start(file, length)


def inflate(file: IO[bytes], bits: int) -> Iterator[bytes]:
    """Unpack from here to the end, several members included.

    Raises:
        EOFError: The end is missing.
        zlib.error: Damaged, or a checksum does not agree.
    """
    engine = zlib.decompressobj(bits)
    begun = False
    while chunk := file.read(_CHUNK):
        while chunk:
            if engine.eof:
                if not chunk.strip(b"\0"):  # padding
                    break
                engine = zlib.decompressobj(bits)
            begun = True
            if out := engine.decompress(chunk, 4 * _CHUNK):
                yield out
            chunk = engine.unused_data if engine.eof else engine.unconsumed_tail
    while begun and not engine.eof and (out := engine.decompress(b"", 4 * _CHUNK)):
        yield out
    if not engine.eof:
        raise EOFError


def unpack_start(file: IO[bytes], length: int) -> bytes:
    """The first bytes of a gzip stream; fewer if it is damaged or holds no more."""
    result = b""
    with suppress(EOFError, zlib.error):
        for chunk in inflate(file, GZIP):
            result += chunk
            if len(result) >= length:
                break
    return result[:length]


def unpack(file: IO[bytes], length: int, bits: int, name: str, *, skip: int = 0, exact: bool = False) -> np.ndarray:
    """As ``unpacking``, in one go."""
    pieces = unpacking(file, length, bits, name, skip=skip, exact=exact)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


def unpacking(
    file: IO[bytes], length: int, bits: int, name: str, *, skip: int = 0, exact: bool = False
) -> Generator[None, None, np.ndarray]:
    """Unpack ``length`` bytes that begin ``skip`` bytes into the content, at most 4 MiB between two ``yield``.

    Args:
        file: Where the packed content begins; read to its end, so that its checksum is compared.
        length: Bytes that are wanted.
        bits: ``GZIP`` or ``ZLIB``.
        name: The file's, for messages.
        skip: Bytes before them that are not wanted.
        exact: Nothing may follow.

    Returns:
        The bytes, uint8.

    Raises:
        InputError: Damaged, cut off, longer than its header says, or too small to hold what the header claims.
    """
    check_claim(file, length, name)
    result = np.empty(length, np.uint8)
    done = -skip  # bytes seen, counted from the first that is wanted
    try:
        for chunk in inflate(file, bits):
            part = chunk[max(0, -done) : max(0, length - done)]
            if part:
                start = max(done, 0)
                result[start : start + len(part)] = np.frombuffer(part, np.uint8)
            done += len(chunk)
            yield
    except (EOFError, zlib.error):
        raise damaged(name) from None
    if done < length:
        raise damaged(name)
    if exact and done > length:
        raise too_long(name)
    return result


def unpacked_length(file: IO[bytes], name: str) -> int:
    """The length of a gzip stream, of which nothing is kept.

    Raises:
        InputError: Damaged or cut off.
    """
    try:
        return sum(len(chunk) for chunk in inflate(file, GZIP))
    except (EOFError, zlib.error):
        raise damaged(name) from None


def read_raw(file: IO[bytes], offset: int, kind: np.dtype, count: int, name: str, *, exact: bool = False) -> np.ndarray:
    """``count`` numbers from ``offset`` bytes into a file that is not packed.

    Raises:
        InputError: There are fewer, or, with ``exact``, more.
    """
    there = file.seek(0, 2) - offset
    if there < count * kind.itemsize:
        raise damaged(name)
    if exact and there > count * kind.itemsize:
        raise too_long(name)
    file.seek(offset)
    return np.fromfile(file, dtype=kind, count=count)


def too_long(name: str) -> InputError:
    return InputError(f"'{name}' holds more voxels than its header says.", "Copy or export the scan again.")


def check_claim(file: IO[bytes], length: int, name: str) -> None:
    """Refuse a packed file that claims more than it can hold, before memory is taken for it."""
    place = file.tell()
    packed = file.seek(0, 2) - place
    file.seek(place)
    if length > packed * _DENSEST + _CHUNK:
        raise InputError(
            f"'{name}' says that it holds {length / 2**30:.3g} GiB, which {packed} packed bytes cannot be.",
            "Copy or export the scan again.",
        )
