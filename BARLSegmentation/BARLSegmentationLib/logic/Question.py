# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question with two answers, asked below the status line and not in a window of its own.

    Attributes:
        text: The question, with the facts that decide it.
        yes, no: The texts of the two buttons; each says what will be done.
        onYes, onNo: What the answers do; a question that is withdrawn does neither.
    """

    text: str
    yes: str
    no: str
    onYes: Callable[[], None]
    onNo: Callable[[], None] = lambda: None
