# SPDX-License-Identifier: Apache-2.0
"""Intervals of volumes that hold the true volume in a stated share of cases, from cases that a model has not seen.

Split-conformal (Vovk et al., "Algorithmic learning in a random world", 2005; Lei et al., JASA 113, 2018): the score of
a case is ``|log((true + offset) / (predicted + offset))|``, the offset a twentieth of the label's mean true volume, so
that a missed lesion has a score. Of n scores the k-th smallest, ``k = ceil((n + 1) * level)``, bounds that of the next
case with a probability of at least ``level``, if the case is like those n. With n < 9 cases no bound reaches 90 %: the
largest score is taken, whose level is ``n / (n + 1)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np

from barl.project.model_card import VolumeInterval

LEVEL = 0.9
LEAST = 4  # cases; fewer say nothing
OFFSET = 0.05  # of the label's mean true volume


def choose_intervals(rows: Sequence[Mapping[str, Any]]) -> list[VolumeInterval]:
    """The intervals that unseen cases allow.

    Args:
        rows: Of one or more validations; ``volumes``, label value -> predicted and true volume in ml.
    """
    known: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for value, (predicted, true) in row.get("volumes", {}).items():
            known.setdefault(value, []).append((predicted, true))
    found = (choose_interval(int(value), pairs) for value, pairs in sorted(known.items()))
    return [interval for interval in found if interval is not None]


def choose_interval(value: int, pairs: Sequence[tuple[float, float]]) -> VolumeInterval | None:
    """The interval of one label.

    Args:
        value: The label.
        pairs: Predicted and true volume in ml of unseen cases.

    Returns:
        None with fewer than ``LEAST`` cases, or if no case shows the label.
    """
    predicted, true = np.array(pairs, dtype=float).reshape(-1, 2).T
    count, offset = len(pairs), OFFSET * float(true.mean()) if len(pairs) else 0.0
    if count < LEAST or offset <= 0:
        return None
    scores = np.sort(np.abs(np.log((true + offset) / (predicted + offset))))
    k = ceil(round((count + 1) * LEVEL, 9))
    level = LEVEL if k <= count else count / (count + 1)
    return VolumeInterval(value, float(np.exp(scores[min(k, count) - 1])), offset, level, count)
