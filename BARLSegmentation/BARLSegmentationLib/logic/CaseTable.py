# SPDX-License-Identifier: Apache-2.0
"""The table of cases without a window: what it shows, in which order. Thousands of cases are a few milliseconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from barl.project.agreement import Agreement
    from barl.project.records import Case

NAME, STATUS, HELD_OUT, UNCERTAINTY, DICE, CHANGED = range(6)
GOOD, FAIR = 0.8, 0.6  # expected Dice from which on the light is green, or yellow (PROPOSED)
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Row:
    """A case of the table, with the texts of its cells made only when they are shown.

    ``dice``: of prediction and correction; of a case that waits for an outline what its model lets expect.
    """

    case: Case
    state: str
    dice: float | None
    isExpected: bool = False

    def texts(self) -> tuple[str, ...]:
        case = self.case
        return (
            case.name,
            f"{self.state} {shareText(case.looked_share)}" if case.is_partial else self.state,
            "✓" if case.held_out else "",
            "" if case.uncertainty is None else f"{case.uncertainty:.2f}",
            "" if self.dice is None else f"{'≈ ' if self.isExpected else ''}{self.dice:.2f}",
            shortTime(case.updated),
        )


def light(expectedDice: float) -> tuple[int, int, int]:
    """The color of an expected Dice: green, yellow or red."""
    return (60, 170, 80) if expectedDice >= GOOD else (240, 190, 40) if expectedDice >= FAIR else (210, 60, 50)


class CaseTable:
    """Cases to be filtered and sorted.

    Args:
        cases: All cases of the project.
        agreements: Case id -> prediction and correction compared, of the cases that have both.
        stateText: A state in words.
        heldOutText: What to type into the filter for the held-out cases.
        expectedDice: Case id -> the Dice to expect of its newest prediction.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        agreements: Mapping[str, Agreement],
        stateText: Callable[[str], str],
        heldOutText: str = "held out",
        expectedDice: Mapping[str, float] | None = None,
    ) -> None:
        from barl.project.states import CaseState

        self._place = {state: number for number, state in enumerate(CaseState)}
        states = {state: stateText(state) for state in CaseState}
        self.rows = []
        self._searched = []
        for case in cases:
            found = agreements.get(case.id)
            expected = (expectedDice or {}).get(case.id) if found is None and case.awaits_outline else None
            dice = found.dice if found else expected
            self.rows.append(Row(case, states[case.state], dice, expected is not None))
            words = f"{case.name}\n{states[case.state]}\n{case.group}\n{heldOutText if case.held_out else ''}"
            self._searched.append(words.casefold())

    def shown(self, filterText: str = "", column: int | None = None, descending: bool = False) -> list[Row]:
        """The rows that have all words of ``filterText``, sorted by a column (None: as they were added).

        Rows without a value in that column come last, whichever way it is sorted.
        """
        words = filterText.casefold().split()
        if words:
            pairs = zip(self.rows, self._searched, strict=True)
            rows = [row for row, text in pairs if all(word in text for word in words)]
        else:
            rows = list(self.rows)
        if column is None:
            return rows
        key = self._key(column)
        known = [row for row in rows if key(row) is not None]
        known.sort(key=key, reverse=descending)
        return known + [row for row in rows if key(row) is None] if len(known) < len(rows) else known

    def _key(self, column: int) -> Callable[[Row], object]:
        return {
            NAME: lambda row: _natural(row.case.name),
            STATUS: lambda row: self._place[row.case.state],
            HELD_OUT: lambda row: row.case.held_out,
            UNCERTAINTY: lambda row: row.case.uncertainty,
            DICE: lambda row: row.dice,
            CHANGED: lambda row: row.case.updated,
        }[column]


def shareText(share: float) -> str:
    """A share of a scan in percent, with a digit after the point where it is small."""
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"


def localTime(text: str) -> str:
    """A time of the project (UTC, ISO 8601) as the clock on the wall showed it, to the minute."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text


def shortTime(text: str, now: datetime | None = None) -> str:
    """The most informative part of ``localTime``: the time of today, the day of this year, or else the month."""
    day, _, clock = localTime(text).partition(" ")
    today = f"{now or datetime.now():%Y-%m-%d}"
    return clock if day == today else day[5:] if day[:4] == today[:4] else day[:7]


def _natural(name: str) -> list:
    """A sort key that puts "case 10" after "case 9"."""
    parts = _NUMBER.split(name.casefold())
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]
