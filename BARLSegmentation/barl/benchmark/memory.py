# SPDX-License-Identifier: Apache-2.0
"""The largest memory that a training takes."""

from __future__ import annotations

import threading

import psutil
import torch

INTERVAL_S = 0.05


class PeakMemory:
    """Measures while it is open: of a CUDA device what torch holds, otherwise all memory of this process.

    Attributes:
        peak_mib: The largest value seen. Of a process it includes the libraries (some 500 MiB) and what earlier runs in
            the same process have left.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_mib = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            self.peak_mib = round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        else:
            self._ended.set()
            self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._ended.is_set():
            self.peak_mib = max(self.peak_mib, round(process.memory_info().rss / 2**20, 1))
            self._ended.wait(INTERVAL_S)
