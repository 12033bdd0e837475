# SPDX-License-Identifier: Apache-2.0
"""Output of the command line: a progress bar on a terminal, progress lines in a log, one JSON document with --json."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from barl.errors import BarlError, StorageError
from barl.json_text import dumps
from barl.progress import Event, Progress
from barl.worker.protocol import error_event

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")
# Seconds between two lines of progress where there is no terminal.
LINE_INTERVAL_S = 30.0


class Terminal:
    """Standard output for the answer, standard error for everything else.

    Nobody need read either: a terminal that was closed, ``| head`` or a full disk for a log end no job.

    Args:
        as_json: The answer is one JSON document.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # closed by the caller, or a program without a console
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
            elif isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not end a job
                stream.reconfigure(errors="backslashreplace")
        self._bar: tqdm | None = None
        self._stage = ""
        self._last_line = time.monotonic()

    @property
    def progress(self) -> Progress:
        """What a job reports to."""
        return Progress(self.show)

    def show(self, event: Event) -> None:
        """Show an event of a job."""
        if event["event"] == "log":
            self.note(str(event["message"]))
        elif event["event"] == "progress":
            values = event.get("values") or {}
            words = f"step {values.get('iteration')}, loss {values['total']:.3f}" if "total" in values else ""
            self._show_bar(str(event["stage"]), float(event["fraction"]), words or str(event.get("message", "")))

    def _show_bar(self, stage: str, fraction: float, message: str) -> None:
        if not _draws_bars():
            if time.monotonic() - self._last_line >= LINE_INTERVAL_S:
                self._last_line = time.monotonic()
                self.note(f"{stage} {fraction:.0%} {message}".rstrip())
            return
        if self._bar is None or stage != self._stage:
            self.end_bar()
            self._bar, self._stage = _if_read(lambda: self._new_bar(stage)), stage
        if (bar := self._bar) is not None:
            bar.set_postfix_str(message, refresh=False)
            _if_read(lambda: bar.update(round(100 * fraction, 1) - bar.n))

    def note(self, text: str) -> None:
        """One line beside the answer."""
        if (bar := self._bar) is not None:
            _if_read(bar.clear)
        _if_read(lambda: print(_shown(text), file=sys.stderr, flush=True))

    def answer(self, document: dict, text: str) -> None:
        """The answer, as the user wants it.

        Raises:
            StorageError: It was to go into a file that cannot be written.
        """
        self.end_bar()
        try:
            print(dumps(document, indent=2) if self.as_json else _shown(text).rstrip(), flush=True)
        except BrokenPipeError:  # `barl ... | head`: the reader has closed the pipe
            _silence(sys.stdout)
        except OSError as error:
            _silence(sys.stdout)
            raise StorageError(
                f"The answer could not be written ({error.strerror}).",
                "The command itself was carried out; see the result with another command.",
            ) from error

    def failed(self, error: BarlError) -> None:
        """One line on standard error; with ``as_json`` the document says it as well."""
        self.end_bar()
        self.note(f"barl: {error}")
        if self.as_json:
            facts = {key: value for key, value in error_event(error).items() if key != "event"}
            try:
                print(json.dumps({"error": facts}, indent=2), flush=True)
            except OSError:
                _silence(sys.stdout)

    def end_bar(self) -> None:
        if (bar := self._bar) is not None:
            _if_read(bar.close)
            self._bar = None

    @staticmethod
    def _new_bar(stage: str) -> tqdm:
        from tqdm import tqdm

        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
        return tqdm(total=100, desc=stage, bar_format=form, leave=False, dynamic_ncols=True)


def _if_read(write: Callable[[], T]) -> T | None:
    """Write to standard error, or to nobody from the moment on when that fails."""
    try:
        return write()
    except RuntimeError:  # Ctrl-C in the middle of a line: its handler cannot write another one
        return None
    except (OSError, ValueError):
        _silence(sys.stderr)
        return None


def _silence(stream: TextIO) -> None:
    """What is written from now on, and what still waits to be written at the end of the process, goes nowhere."""
    with suppress(OSError, ValueError):  # ValueError: closed
        number, nowhere = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def _draws_bars() -> bool:
    """Whether standard error is a terminal and tqdm is here: Slicer's Python need not have it."""
    return sys.stderr.isatty() and find_spec("tqdm") is not None


def _shown(text: str) -> str:
    """``text`` without what would steer a terminal: names come from files and from projects of other people."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def table(rows: list[list], heads: list[str]) -> str:
    """Columns set by the widest entry; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(head), *(len(row[i]) for row in cells)]) for i, head in enumerate(heads)]
    right = [bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(heads))]

    def line(texts: list[str]) -> str:
        parts = zip(texts, widths, right, strict=True)
        return "  ".join(text.rjust(width) if r else text.ljust(width) for text, width, r in parts).rstrip()

    return "\n".join([line(heads), *(line(row) for row in cells)])


def minute(time: str | None) -> str | None:
    """A time of the project for people, such as ``2026-11-28 14:05`` (UTC)."""
    return time and time[:16].replace("T", " ")


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
