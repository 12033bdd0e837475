# SPDX-License-Identifier: Apache-2.0
"""Turns any exception into one sentence for the user and a log without patient data."""

from __future__ import annotations

import datetime
import errno
import re
import tempfile
import traceback
from pathlib import Path

from barl import __version__
from barl.errors import BarlError, Cancelled, DeviceError, InputError, is_out_of_memory, storage_error
from barl.torch_support import WITHOUT_TORCH, reason_against

LOG_NAME = "barl.log"
# Anything with a slash or backslash in it, quoted parts whole: folders and files are often named after patients.
_PATH = re.compile(r"""(["'])(?:(?!\1).)*[/\\](?:(?!\1).)*\1|\S*[/\\]\S*""")

# What Slicer's own Python lacks.
_PACKAGES = ("torch", "monai", "safetensors", "jsonschema", "filelock")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
# A name that no drive takes, and a drive that is gone; Windows lacks some of the numbers.
_UNREACHABLE = tuple(
    getattr(errno, name)
    for name in ("ENAMETOOLONG", "EIO", "ENODEV", "ENOTCONN", "ESTALE", "EHOSTDOWN", "EHOSTUNREACH", "ETIMEDOUT")
    if hasattr(errno, name)
)


class InternalError(BarlError):
    """An error of BARL itself, not of the user's input."""


def explain(error: BaseException, log_folder: Path | None = None) -> BarlError:
    """The error as a user can understand it.

    Args:
        error: Whatever was raised.
        log_folder: The project's folder; without it, or if it cannot be written, the log goes to the temporary folder.

    Returns:
        ``error`` itself if it explains itself, the fitting class of ``barl.errors`` where the cause is known (memory,
        disk, a missing or broken package, Ctrl-C), otherwise an ``InternalError`` that names the log file written.
    """
    if isinstance(error, BarlError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled()
    if is_out_of_memory(error):
        what = "graphics card" if type(error).__name__ == "OutOfMemoryError" else "computer"
        return DeviceError(
            f"The {what} does not have enough memory.",
            "Close other programs, choose the CPU as device, or predict a region of interest only.",
        )
    if (reason := reason_against()) and (isinstance(error, ImportError) or _while_importing("torch", error)):
        return DeviceError(reason, WITHOUT_TORCH)
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing in _PACKAGES:
        return DeviceError(
            f"The package {missing}, which prediction and training need, is not installed.",
            "In Slicer, install it in the step Setup; elsewhere with pip install barl-segmentation[engine].",
        )
    if isinstance(error, OSError) and error.filename and error.errno in _DISK:
        return storage_error(error, error.filename)
    if isinstance(error, OSError) and error.filename and error.errno in _UNREACHABLE:
        return InputError(
            f"The path {error.filename} cannot be reached ({error.strerror}).",
            "Check the path and that the drive is connected.",
        )
    if isinstance(error, UnicodeError) and _while_importing("matplotlib", error):
        return InputError(
            "matplotlib cannot read its settings, the file matplotlibrc.",
            "Rename that file in the current folder (or in your folder of settings), or work in another folder.",
        )
    log = write_log(error, log_folder)
    if isinstance(error, ImportError) or _while_importing("torch", error):
        return DeviceError(
            f"PyTorch or a package beside it is installed, but cannot be loaded ({type(error).__name__}).",
            f"In Slicer, install it again in the step Setup; the details are in {log}.",
        )
    return InternalError(
        f"BARL met an error that it did not foresee ({type(error).__name__}).",
        f"What was saved before is unchanged; the details are in {log}: please report them.",
    )


def _while_importing(package: str, error: BaseException) -> bool:
    """On Windows, a library of torch that does not fit the computer raises an OSError."""
    return any(
        frame.name == "<module>" and Path(frame.filename).parts[-2:] == (package, "__init__.py")
        for frame in traceback.extract_tb(error.__traceback__)
    )


def write_log(error: BaseException, folder: Path | None) -> Path:
    """Append the stack of ``error`` to the log; paths are left out, for they may name a patient."""
    lines = [f"{datetime.datetime.now().astimezone().isoformat(timespec='seconds')} barl {__version__}"]
    for part in _chain(error):
        for frame in traceback.extract_tb(part.__traceback__):
            lines.append(f"  {_module(frame.filename)}:{frame.lineno} in {frame.name}")
        lines.append(f"{type(part).__name__}: {_PATH.sub('<path>', str(part))}")
    text = "\n".join(lines) + "\n\n"
    for target in [folder, Path(tempfile.gettempdir())]:
        try:
            if target is None or not target.is_dir():
                continue
            with (target / LOG_NAME).open("a", encoding="utf-8") as log:
                log.write(text)
        except OSError:
            continue
        return target / LOG_NAME
    return Path("(no log could be written)")


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, the first cause first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain[::-1]


def _module(filename: str) -> str:
    """The last three parts of a source file's path: enough to find it, nothing about the user's folders."""
    return "/".join(Path(filename).parts[-3:])
