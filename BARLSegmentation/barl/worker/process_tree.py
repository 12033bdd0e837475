# SPDX-License-Identifier: Apache-2.0
"""Ends a process and its descendants; standard library only, psutil if it is installed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def end_process_tree(pid: int, grace_s: float = 1.0) -> None:
    """End the process ``pid``, its descendants and its process group: asked first, killed after ``grace_s`` seconds.

    Processes that are gone already are no error. The caller must make sure that ``pid`` has not been reused.
    """
    family = _family(pid)
    _signal_group(pid, kill=False)
    for process in family:
        _quietly(process.terminate)
    if not _wait(pid, family, grace_s):
        # Again from the start: a child may have been born between the first look and the signal.
        family += [process for process in _family(pid) if process not in family]
        _signal_group(pid, kill=True)
        for process in family:
            _quietly(process.kill)
        _wait(pid, family, 0.5)


def _family(pid: int) -> list:
    """The psutil processes of the tree, children first; empty without psutil, when the group has to do."""
    try:
        import psutil
    except ImportError:
        return []
    try:
        parent = psutil.Process(pid)
        return [*reversed(parent.children(recursive=True)), parent]
    except psutil.Error:
        return []


def _quietly(action: Callable[[], object]) -> None:
    # psutil.Error is no OSError and psutil may be missing, hence the broad net around one signal.
    with contextlib.suppress(Exception):
        action()


def _signal_group(pid: int, *, kill: bool) -> None:
    """Signal the process group led by ``pid``; on Windows, where there are none, let taskkill walk the tree."""
    if sys.platform == "win32":
        if kill:
            command = ["taskkill", "/PID", str(pid), "/T", "/F"]
            no_window = subprocess.CREATE_NO_WINDOW
            subprocess.run(command, capture_output=True, timeout=5, check=False, creationflags=no_window)
        return
    # Only a leader's group: any other process shares the group of whoever started it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL if kill else signal.SIGTERM)


def _wait(pid: int, family: list, seconds: float) -> bool:
    """Wait until all are gone (a zombie counts as gone); False when the time is up."""
    end = time.monotonic() + seconds
    while True:
        alive = [process for process in family if _runs(process)] if family else _pid_runs(pid)
        if not alive:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)


def _runs(process: Any) -> bool:  # psutil's, which may be missing
    try:
        return process.is_running() and process.status() != "zombie"
    except Exception:  # psutil.NoSuchProcess and its relatives: gone
        return False


def _pid_runs(pid: int) -> bool:
    if os.name == "nt":
        return True  # no cheap way to ask without psutil; the kill that follows is harmless
    if hasattr(os, "waitid"):  # not on macOS before Python 3.13
        with contextlib.suppress(ChildProcessError):
            # A zombie of ours is gone, but collected only by who started it: a QProcess would wait for it for ever.
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
