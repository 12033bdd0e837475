# SPDX-License-Identifier: Apache-2.0
"""Adds the time left to the reports of a training, and repeats the last one while it is silent."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from barl.errors import BarlError
from barl.progress import Event, Stage

INTERVAL_S = 1.0
# Taken for the time that a stage lasts before anything is known of it.
_UNKNOWN_S = 120.0
# The stages after which a training has ended soon, and the share of one from which on the time left is told.
_LAST_STAGES, _FROM = (Stage.TRAINING, Stage.VALIDATING), 0.02


class Heartbeat:
    """Passes events on, with the time left, and repeats the last one while the job is silent.

    Within a stage the fraction never falls. Events come one after the other, though from two threads.

    Args:
        send: Gets all events.
    """

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._last: dict[str, Any] = {}
        self._shown = 0.0
        self._expected: float | None = None
        self._stage_began = self._reported = self._sent = time.monotonic()
        self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def send(self, event: Event) -> None:
        """Pass an event of the job on."""
        with self._lock:
            now = time.monotonic()
            if event.get("event") == "progress":
                stage = event["stage"]
                if stage != self._last.get("stage"):
                    self._stage_began, self._shown, self._expected = now, 0.0, self._last.get("eta_s")
                self._shown = max(event["fraction"], self._shown)
                event = {**event, "fraction": self._shown}
                if "eta_s" not in event and stage in _LAST_STAGES and (left := self._left(now)) is not None:
                    event["eta_s"] = round(left, 1)
                self._last, self._reported = dict(event), now
            self._sent = now
            self._send(event)

    def _beat(self) -> None:
        while not self._ended.wait(INTERVAL_S / 2):
            with self._lock:
                now = time.monotonic()
                if self._last and now - self._sent >= INTERVAL_S:
                    self._sent = now
                    with suppress(BarlError, OSError):  # a full disk: the job's own next report ends it with the reason
                        self._send(self._moved_on(now))

    def _left(self, now: float) -> float | None:
        """Seconds left of a stage, of which nothing is known but its pace and what the stage before expected of it."""
        done, elapsed = self._shown, now - self._stage_began
        if self._expected is None:
            return elapsed * (1 - done) / done if done >= _FROM else None
        return (1 - done) * ((1 - done) * self._expected + elapsed)

    def _moved_on(self, now: float) -> Event:
        fraction, eta_s = self._last["fraction"], self._last.get("eta_s", _UNKNOWN_S)
        silent = now - self._reported
        # Approaches the end without reaching it, and starts at the pace that the estimate implies.
        moved = fraction + (1 - fraction) * (1 - math.exp(-silent / max(eta_s, 1.0)))
        self._shown = max(self._shown, min(moved, 0.999))
        beat: dict[str, Any] = {key: self._last[key] for key in ("event", "stage", "message") if key in self._last}
        if "eta_s" in self._last:
            beat["eta_s"] = round(max(eta_s - silent, 0.0), 1)
        return {**beat, "fraction": self._shown}
