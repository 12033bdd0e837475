# SPDX-License-Identifier: Apache-2.0
"""The demo on the terminal: numbered steps, a bar while one is under way, its seconds once it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from barl.progress import Event, Progress

# Where there is no terminal, a line so often (s) shows in a log that the step is under way.
_LINE_INTERVAL_S = 30.0


class Steps:
    """Shows steps and keeps their times.

    Args:
        total: How many there will be.

    Attributes:
        seconds: Title -> time, of the steps done.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.seconds: dict[str, float] = {}
        self._bar: tqdm | None = None
        self._last_line = 0.0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step, from its first line to its time."""
        heading = f"[{len(self.seconds) + 1}/{self.total}] {title}"
        started = self._last_line = time.monotonic()
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
        # disable=None: only on a terminal
        self._bar = tqdm(total=100, desc=heading, bar_format=form, leave=False, dynamic_ncols=True, disable=None)
        if self._bar.disable:
            print(heading, flush=True)
        try:
            yield
        finally:
            self._bar.close()
            self._bar = None
        self.seconds[title] = time.monotonic() - started
        line = f"done in {self.seconds[title]:.1f} s"
        print(f"{heading}: {line}" if sys.stderr.isatty() else f"      {line}", flush=True)

    @property
    def progress(self) -> Progress:
        """What the step under way reports to."""
        return Progress(self.show)

    def show(self, event: Event) -> None:
        """Show an event of a job."""
        if event["event"] == "log":
            self.note(event["message"])
        elif event["event"] == "progress":
            values = event.get("values", {})
            loss = f"step {values['iteration']}, loss {values['total']:.3f}" if "total" in values else ""
            self._show_bar(event["stage"], event["fraction"], loss or event.get("message", ""))

    def _show_bar(self, stage: str, fraction: float, message: str) -> None:
        if self._bar is None:
            return
        if not self._bar.disable:
            self._bar.set_postfix_str(message or stage, refresh=False)
            if stage in ("training", "simulating", "downloading", "predicting", "evaluating", "importing"):
                self._bar.update(max(0.0, 100 * fraction - self._bar.n))
        elif time.monotonic() - self._last_line >= _LINE_INTERVAL_S:
            self._last_line = time.monotonic()
            print(f"      {stage} {fraction:.0%} {message}".rstrip(), flush=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        tqdm.write(f"      {text}", file=sys.stdout)
