# SPDX-License-Identifier: Apache-2.0
"""Reporting how far a piece of work is, and ending it early."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from barl.errors import Cancelled

T = TypeVar("T")
# ``progress`` (stage, fraction, message ...) or ``log`` (message), as in ``docs/worker-protocol.md``.
Event = Mapping[str, Any]


class Stage(StrEnum):
    """The stages of the engine's jobs, with the values that stand in the events."""

    STARTING = "starting"
    LOADING = "loading"
    SENDING = "sending"
    PLANNING = "planning"
    PREPARING = "preparing"
    TRAINING = "training"
    VALIDATING = "validating"
    PREDICTING = "predicting"
    RESTORING = "restoring"
    EVALUATING = "evaluating"
    COMPARING = "comparing"
    FILLING = "filling"
    ADDING = "adding"
    EXPORTING = "exporting"
    MEASURING = "measuring agreement"


def _to_nobody(event: Event) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Progress:
    """Where a piece of work reports to.

    A function that gets one calls ``stage`` for each of its stages and reports on what that returns. Reporting raises
    ``Cancelled`` once the work is to end.

    Args:
        send: Gets every event.
        is_cancelled: Whether the work is to end.
        name: Of the stage, a ``Stage`` for the engine's jobs; empty before the first one.
        start, share: The part of the stage's bar that belongs to this piece of work.
        title: Replaces the message of every report, such as the name of a case.
    """

    send: Callable[[Event], None] = _to_nobody
    is_cancelled: Callable[[], bool] = _never
    name: str = ""
    start: float = 0.0
    share: float = 1.0
    title: str = ""

    def stage(self, name: str, start: float = 0.0, share: float = 1.0) -> Progress:
        """A stage with a bar of its own; within another stage, the part ``start .. start + share`` of that one."""
        return self.part(start, share) if self.name else replace(self, name=name)

    def part(self, start: float, share: float, title: str = "") -> Progress:
        """The part ``start .. start + share`` of this piece of work."""
        return replace(self, start=self.start + self.share * start, share=self.share * share, title=self.title or title)

    def each(self, items: Sequence[T], title: Callable[[T], str] = lambda item: "") -> Iterator[tuple[T, Progress]]:
        """The items with the progress of each, all of equal share; the last report says that all are done."""
        for number, item in enumerate(items):
            part = self.part(number / len(items), 1 / len(items), title(item))
            part.at(0.0)
            yield item, part
        self.at(1.0)

    def at(self, fraction: float, message: str = "", **details: Any) -> None:
        """Report a fraction from 0 to 1 of this piece of work.

        Args:
            fraction: How much is done.
            message: In words.
            details: Further values of the event.

        Raises:
            Cancelled: The work is to end.
        """
        self.raise_if_cancelled()
        done = min(self.start + self.share * fraction, 1.0)
        self.send(
            {"event": "progress", "stage": self.name, "fraction": done, "message": self.title or message, **details}
        )

    def log(self, message: str) -> None:
        """Report something that the user should read."""
        self.send({"event": "log", "message": message})

    def raise_if_cancelled(self) -> None:
        """End the work if that was asked for.

        Raises:
            Cancelled: It was.
        """
        if self.is_cancelled():
            raise Cancelled()


# Reports to nobody.
SILENT = Progress()
