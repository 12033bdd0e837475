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
        look: The text of a button that shows what the question is about; empty: there is none.
        onLook: Shows it or not (bool).
        onEnd: The question was answered or withdrawn.
    """

    text: str
    yes: str
    no: str
    onYes: Callable[[], None]
    onNo: Callable[[], None] = lambda: None
    look: str = ""
    onLook: Callable[[bool], None] = lambda _shown: None
    onEnd: Callable[[], None] = lambda: None
