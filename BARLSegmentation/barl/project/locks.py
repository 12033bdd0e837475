# SPDX-License-Identifier: Apache-2.0
"""Whether a drive locks files, as SQLite needs it: some network drives do not."""

from __future__ import annotations

import os
from pathlib import Path

from barl.project.files import temporary_path

# The bytes of a database that SQLite locks: pending, reserved and shared (sqlite.org/fileformat2.html#lockbyte).
_LOCK_BYTES = (512, 0x40000000)


def locks_work(folder: Path, file: Path | None = None) -> bool:
    """Whether a file in ``folder`` can be locked; true where that cannot be tried.

    Args:
        folder: Where a new file is tried.
        file: Try this database instead: false then means that another process uses it.
    """
    if os.name == "nt":  # a drive without locks is no drive for Windows, which also refuses to move files in use
        return True
    import fcntl

    path = file or temporary_path(folder, "lock")
    try:
        opened = path.open("r+b" if file else "wb")
    except OSError:
        return True
    try:
        with opened:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB, *(_LOCK_BYTES if file else ()))
        return True
    except OSError:
        return False
    finally:
        if file is None:
            path.unlink(missing_ok=True)
