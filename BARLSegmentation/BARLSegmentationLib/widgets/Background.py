# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import qt

POLL_MS = 20
# Slicer's event loop keeps Python's lock, so that a thread hardly runs (1 step in 0.5 s where there should be 100);
# waiting a little in every poll gives it time. Too short to be noticed.
GIVEN_SECONDS = 0.008


class Background:
    """Runs work on arrays and files in one thread, one piece after the other, and calls back in the main thread.

    The work must touch neither Qt nor the scene.

    Args:
        parent: QObject that the timer belongs to.
    """

    def __init__(self, parent: qt.QObject) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="BARL")
        self._waiting: list[tuple[Future, Callable[[Future], None], str]] = []
        self._timer = qt.QTimer(parent)
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._poll)

    def submit(self, work: Callable[[], object], onDone: Callable[[Future], None], replaces: str = "") -> None:
        """Run ``work``; afterwards ``onDone`` gets the future, whose ``result()`` gives the result or raises.

        Args:
            work: What to do.
            onDone: Called in the main thread.
            replaces: Name of a kind of work of which only the newest result is wanted: older ones are dropped.
        """
        if replaces:
            for entry in [entry for entry in self._waiting if entry[2] == replaces]:
                entry[0].cancel()
                self._waiting.remove(entry)
        self._waiting.append((self._executor.submit(work), onDone, replaces))
        self._timer.start()

    def isBusy(self) -> bool:
        return bool(self._waiting)

    def finish(self) -> None:
        """Wait for all work and call back for it."""
        while self._waiting:
            wait([future for future, _done, _kind in self._waiting])
            self._deliver()

    def close(self) -> None:
        self.finish()
        self._timer.stop()
        self._executor.shutdown()

    def _poll(self) -> None:
        wait([future for future, _done, _kind in self._waiting[:1]], timeout=GIVEN_SECONDS)
        self._deliver()
        if not self._waiting:
            self._timer.stop()

    def _deliver(self) -> None:
        for entry in [entry for entry in self._waiting if entry[0].done()]:
            if entry not in self._waiting:  # replaced by what another one started
                continue
            self._waiting.remove(entry)
            try:
                entry[1](entry[0])
            except Exception:
                logging.exception("A result could not be shown")
