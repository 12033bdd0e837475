# SPDX-License-Identifier: Apache-2.0
"""Keep the C++ libraries beneath SimpleITK from printing: what they have to say is said by this package's errors."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import SimpleITK as sitk

# File descriptors belong to the whole process: two threads must not exchange them at once.
_LOCK = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, ITK's warnings are off and file descriptor 2 leads nowhere (MetaIO, GDCM and niftilib write to it)."""
    with _LOCK:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            kept = os.dup(2)
        except OSError:  # A windowed program need not have a standard error.
            kept = None
        try:
            if kept is not None:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
            yield
        finally:
            if kept is not None:
                os.dup2(kept, 2)
                os.close(kept)
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)
