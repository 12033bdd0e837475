# SPDX-License-Identifier: Apache-2.0
"""Keep the C++ libraries beneath SimpleITK from printing: their failures are reported by this package's exceptions."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import SimpleITK as sitk

# File descriptors and ITK's switch belong to the whole process: the first thread to come turns them off, the last to
# leave turns them on again, and threads that read at the same time do not wait for each other.
_LOCK = threading.Lock()
_inside = 0
_restore = contextlib.ExitStack()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, ITK's warnings are off and file descriptor 2 leads nowhere (MetaIO, GDCM and niftilib write to it)."""
    global _inside
    with _LOCK:
        if _inside == 0:
            _silence()
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if _inside == 0:
                _restore.close()


def _silence() -> None:
    _restore.callback(sitk.ProcessObject.SetGlobalWarningDisplay, sitk.ProcessObject.GetGlobalWarningDisplay())
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        kept = os.dup(2)
    except OSError:  # A windowed program need not have a standard error.
        return
    _restore.callback(os.close, kept)
    _restore.callback(os.dup2, kept, 2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
