# SPDX-License-Identifier: Apache-2.0
"""Chooses one thread or all, whichever is faster under the present load of the machine.

All threads wait for the slowest one at the end of every layer. On an idle machine that costs nothing; beside a job that
keeps each core busy some thread is always late, and one thread alone may be the faster choice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# Share of the time of its cores that a process gets on a machine that does nothing else.
_IDLE = 0.75
_GAIN = 0.9
_CHANGE = 1.5
# Pieces of work with one thread after which all are tried once more; twice as many after each try in vain.
_AGAIN = 50
_SELDOM = 800


class ThreadChoice:
    """Times pieces of work of equal size with all threads and with one, and goes on with the faster number.

    All threads are tried first. One is tried as soon as the process does not get its cores, or at ``every_start``; both
    are tried again whenever the time of a piece has changed by half, and all threads from time to time while one is
    used. A number of threads set by the user stays.

    Args:
        device: Where the work is done; other devices than the CPU have nothing to choose.
        every_start: Try one thread in any case, in the fifth and sixth piece, and then never choose again: so that the
            numbers of threads, on which the last bits of a result depend, follow from the piece alone.
        chosen: The number to use, chosen before.
    """

    def __init__(self, device: torch.device, *, every_start: bool = False, chosen: int | None = None) -> None:
        self._all = torch.get_num_threads()
        self._every_start = every_start
        own = any(name in os.environ for name in _SETTINGS)
        self.active = device.type == "cpu" and self._all > 1 and not own
        self.chosen = chosen if self.active else None
        self._again = _AGAIN
        self._restart()

    def _restart(self) -> None:
        self._times: dict[int, list[float]] = {self._all: [], 1: []}
        self._crowded = False
        self._pieces = 0
        self._settled = self._mean = 0.0

    @contextmanager
    def piece(self) -> Iterator[None]:
        """A piece of work."""
        if not self.active:
            yield
            return
        threads = self._next()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        began, cpu = time.perf_counter(), time.process_time()
        yield
        seconds = time.perf_counter() - began
        self._took(threads, seconds, (time.process_time() - cpu) / max(seconds, 1e-9) / threads)

    def release(self) -> None:
        """Give PyTorch all threads back."""
        if self.active:
            torch.set_num_threads(self._all)

    def _next(self) -> int:
        if self.chosen is not None:
            return self.chosen
        return 1 if self._crowded or len(self._times[self._all]) == 4 else self._all

    def _took(self, threads: int, seconds: float, share: float) -> None:
        if self.chosen is not None:
            self._watch(seconds)
            return
        self._times[threads].append(seconds)
        if threads == 1 and len(self._times[1]) == 2:
            # The first pieces warm up.
            fastest = {number: min(times[-2:]) for number, times in self._times.items()}
            self._settle(1 if fastest[1] < _GAIN * fastest[self._all] else self._all)
        elif threads == self._all and not self._every_start and len(self._times[threads]) >= 2:
            self._crowded = share < _IDLE
            if len(self._times[threads]) == 4 and not self._crowded:
                self._settle(self._all)

    def _settle(self, threads: int) -> None:
        self.chosen = threads
        self._settled = self._mean = min(self._times[threads][-2:])
        self._pieces = 0

    def _watch(self, seconds: float) -> None:
        if self._every_start:
            return
        self._pieces += 1
        self._mean = 0.7 * self._mean + 0.3 * seconds if self._mean else seconds
        self._settled = self._settled or seconds
        changed = not 1 / _CHANGE < self._mean / self._settled < _CHANGE
        if changed or (self.chosen == 1 and self._pieces >= self._again):
            self._again = _AGAIN if changed else min(2 * self._again, _SELDOM)
            self.chosen = None
            self._restart()
