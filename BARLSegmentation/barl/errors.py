# SPDX-License-Identifier: Apache-2.0
"""Errors a user can meet: one sentence that says what is wrong and one that says what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any


class BarlError(Exception):
    """An error with a remedy.

    Args:
        message: One sentence: what is wrong.
        remedy: One sentence: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @property
    def kind(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        # Python's own way calls the class with the message alone: multiprocessing's pools wait for ever if that fails.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[BarlError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> BarlError:
    """The error that another process has raised."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class InputError(BarlError):
    """A scan, label map or argument that cannot be used."""

    exit_code = 2


class ProjectError(BarlError):
    """A project folder that cannot be opened, read or changed."""

    exit_code = 3


class ModelError(BarlError):
    """A model that is missing, damaged, from the future or made for other data."""

    exit_code = 4


class DeviceError(BarlError):
    """A computing device that does not exist or has too little memory."""

    exit_code = 5


class StorageError(BarlError):
    """A disk that is full or a folder that cannot be written."""

    exit_code = 6


class NotFiniteError(ModelError):
    """A network answers with, or has learned, values that are not finite numbers."""

    def __init__(
        self,
        message: str = "The model answers with values that are not finite numbers.",
        remedy: str = "Use another model, or train this one again; check the scan's intensities.",
    ) -> None:
        super().__init__(message, remedy)


class Cancelled(BarlError):
    """The user stopped the job."""

    exit_code = 130

    def __init__(self, message: str = "Cancelled.", remedy: str = "") -> None:
        super().__init__(message, remedy)


# CUDA and MPS; PyTorch's CPU allocator on Linux and macOS; the same on Windows.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation ran out of memory; some of PyTorch's back ends raise a plain RuntimeError with a text."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in words for sign in _OUT_OF_MEMORY)
    )


_PERMISSION = "Choose a folder that you may write to."
if os.name == "nt":  # Windows says the same of a file that is in use
    _PERMISSION = "Close the programs that have it open, or choose a folder that you may write to."
_STORAGE = {
    errno.ENOSPC: ("The disk is full", "Free some space and try again; what was saved before is unchanged."),
    errno.EDQUOT: ("The disk quota is used up", "Free some space and try again; what was saved before is unchanged."),
    errno.EROFS: ("The disk is read-only", "Choose a folder that can be written."),
    errno.EACCES: ("There is no permission to write", _PERMISSION),
    errno.EPERM: ("There is no permission to write", _PERMISSION),
}


def storage_error(error: OSError, path: Path | str) -> BarlError:
    """Turn an operating-system error met while writing ``path`` into a sentence with a remedy."""
    what, remedy = _STORAGE.get(error.errno or 0, (f"Writing failed ({error.strerror or error})", "Check the disk."))
    return StorageError(f"{what}: {path}.", remedy)
