# SPDX-License-Identifier: Apache-2.0
"""Which process is this, and is that one still alive: safe against process numbers that are used again.

Standard library only, and the same answer in every Python of a machine: Slicer's and the worker's may differ in what is
installed, yet must agree on who is alive.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    """A process on a machine. ``started`` distinguishes two processes that had the same number."""

    pid: int
    host: str
    started: str
    program: str = ""

    @classmethod
    def of(cls, pid: int, program: str = "") -> ProcessId:
        """The process that has number ``pid`` on this machine now (``started`` is empty when there is none)."""
        return cls(pid, host_name(), start_mark(pid), program)

    @classmethod
    def current(cls) -> ProcessId:
        return _current(os.getpid())

    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine: only then can ``is_alive`` answer."""
        return self.host == host_name()

    def is_alive(self) -> bool:
        """Whether this very process runs on this machine."""
        return self.is_here() and bool(self.started) and start_mark(self.pid) == self.started

    def in_words(self) -> str:
        return f"{self.program or 'a program'}, process {self.pid} on {self.host}"


@cache
def _current(pid: int) -> ProcessId:
    name = Path(sys.argv[0] if sys.argv else "").name
    if name in ("", "-c", "-m", "__main__.py"):
        name = Path(sys.executable or "python").stem
    return ProcessId.of(pid, name)


@cache
def host_name() -> str:
    return platform.node() or "unknown"


def start_mark(pid: int) -> str:
    """A text that is the same as long as process ``pid`` lives and differs for the next process with that number.

    Empty when there is no such process, or when it is a zombie (ended, but not yet collected by its parent).
    """
    if pid <= 0:
        return ""
    if sys.platform.startswith("linux"):
        return _linux_start(pid)
    return _windows_start(pid) if os.name == "nt" else _posix_start(pid)


def _linux_start(pid: int) -> str:
    try:
        # The program's name stands in parentheses and may hold anything; the fields after the last one are plain.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    state, ticks_since_boot = fields[0], fields[19]
    return "" if state in "ZXx" else f"{_boot()}:{ticks_since_boot}"


@cache
def _boot() -> str:
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "boot"
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _posix_start(pid: int) -> str:
    """macOS and other Unix systems: what ``ps`` says (to the second)."""
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return "" if not state or state.startswith("Z") else " ".join(started.split())


def _windows_start(pid: int) -> str:
    import ctypes
    from ctypes import wintypes

    if sys.platform != "win32":  # for the type checker
        return ""
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = wintypes.HANDLE
    query_limited_information, still_active = 0x1000, 259
    handle = wintypes.HANDLE(kernel.OpenProcess(query_limited_information, False, pid))
    if not handle:
        return ""
    try:
        times = [wintypes.FILETIME() for _ in range(4)]
        code = wintypes.DWORD()
        known = kernel.GetProcessTimes(handle, *map(ctypes.byref, times))
        running = kernel.GetExitCodeProcess(handle, ctypes.byref(code)) and code.value == still_active
        return f"{times[0].dwHighDateTime}:{times[0].dwLowDateTime}" if known and running else ""
    finally:
        kernel.CloseHandle(handle)
