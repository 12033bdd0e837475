# SPDX-License-Identifier: Apache-2.0
"""Chooses the cleanup of each label, by cases that the model has not learned from.

1. **What the outlines allow.** The outlines of all cases are counted. *Largest piece* is a candidate only where no
   outline has a second piece; *pieces above a volume* with 1, 1/2, 1/4 and 1/10 of the smallest outlined piece, which
   leave one piece at least where every outline has one; *holes filled* only where no outline has a hole.
2. **What the unseen cases show.** Of each candidate the Dice of each unseen case is compared with that of the label
   map as it is. A candidate is kept if the mean gain is at least ``LEAST_GAIN`` and above noise: the one-sided paired
   t-test has p < ``LEVEL``. The best mean gain wins; of equal ones *largest piece*, as the outlines speak for it, then
   the smallest volume. With fewer than two cases noise cannot be measured, and nothing is done.

Choice of pieces and choice of holes are independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from barl.images.cleanup import LARGEST, VOLUME, CleanupRule, kept_pieces, number_holes, number_pieces

LEAST_GAIN = 0.001
LEVEL = 0.1
_FRACTIONS = (0.1, 0.25, 0.5, 1.0)
_AS_IS, _HOLES = "as is", "holes"
# Candidate -> Dice of one label in one case.
Row = Mapping[str, float]


@dataclass(frozen=True)
class OutlinedPieces:
    """What the outlines of one label show.

    Attributes:
        outlines: Outlines that hold the label.
        most: Largest number of pieces in one outline.
        smallest_ml: Volume of the smallest piece of all.
        has_holes: Whether an outline has a hole.
        lacking: Outlines that do not hold the label.
    """

    outlines: int = 0
    most: int = 0
    smallest_ml: float = float("inf")
    has_holes: bool = False
    lacking: int = 0

    def with_outline(self, labels: np.ndarray, value: int, voxel_ml: float) -> OutlinedPieces:
        """This and one more outline ``[k, j, i]``."""
        found = number_pieces(labels, value)
        if found is None:
            return replace(self, lacking=self.lacking + 1)
        sizes = found[2][1:]
        return OutlinedPieces(
            self.outlines + 1,
            max(self.most, len(sizes)),
            min(self.smallest_ml, float(sizes.min()) * voxel_ml),
            self.has_holes or number_holes(labels, value) is not None,
            self.lacking,
        )

    def candidates(self, value: int) -> dict[str, CleanupRule]:
        """Rules about pieces that the outlines allow, by name; of equally good ones the first is taken."""
        if not self.outlines:
            return {}
        rules = {LARGEST: CleanupRule(value, LARGEST)} if self.most == 1 else {}
        return rules | {
            f"volume {part}": CleanupRule(value, VOLUME, self.smallest_ml * part, keep_one=not self.lacking)
            for part in _FRACTIONS
        }


def score_candidates(
    predicted: np.ndarray, truth: np.ndarray, pieces: OutlinedPieces, value: int, voxel_ml: float
) -> Row:
    """Dice of one label in one case, as it is and with each candidate.

    Args:
        predicted, truth: Label maps ``[k, j, i]``.
        pieces: What the outlines show.
        value: The label, in both.
        voxel_ml: Volume of a voxel in ml.

    Returns:
        Candidate -> Dice; nan where both label maps lack the label, 1 where a candidate removes all of a label that the
        truth lacks.
    """
    wanted = truth == value
    true_voxels = int(np.count_nonzero(wanted))
    found = number_pieces(predicted, value)
    if found is None:
        score = 0.0 if true_voxels else float("nan")
        return dict.fromkeys((_AS_IS, _HOLES, *pieces.candidates(value)), score)
    box, numbers, sizes = found
    hits = np.bincount(numbers[wanted[box]], minlength=len(sizes))
    hits[0] = 0

    def dice(kept: np.ndarray, more: int = 0, more_hits: int = 0) -> float:
        total = int(sizes[kept].sum()) + more + true_voxels
        return 2 * (int(hits[kept].sum()) + more_hits) / total if total else 1.0  # nothing is right where nothing is

    everything = np.ones(len(sizes), bool)
    row = {name: dice(kept_pieces(sizes, rule, voxel_ml)) for name, rule in pieces.candidates(value).items()}
    holes = None if pieces.has_holes else number_holes(predicted, value)
    filled = holes[1] > 0 if holes else np.zeros(0, bool)
    inside = int(np.count_nonzero(filled & wanted[holes[0]])) if holes else 0
    return {_AS_IS: dice(everything), **row, _HOLES: dice(everything, int(np.count_nonzero(filled)), inside)}


def choose_rule(rows: Sequence[Row], pieces: OutlinedPieces, value: int) -> CleanupRule | None:
    """The rule of one label, or None if nothing is better than nothing by more than noise.

    Args:
        rows: One for each unseen case, see ``score_candidates``.
        pieces: What the outlines show; the same as for the rows.
        value: The label.
    """
    rows = [row for row in rows if not np.isnan(row[_AS_IS])]
    candidates = pieces.candidates(value)
    gains = {name: round(_gain(rows, name), 9) for name in candidates}
    best = max(gains, key=lambda name: gains[name], default=_AS_IS)
    rule = CleanupRule(value, cases=len(rows))
    gain = 0.0
    if gains.get(best, 0.0) > 0:
        rule, gain = replace(candidates[best], cases=len(rows)), gains[best]
    filling = 0.0 if pieces.has_holes else _gain(rows, _HOLES)
    if filling > 0:
        rule, gain = replace(rule, fill_holes=True), gain + filling
    return replace(rule, gain=round(gain, 4)) if gain > 0 else None


def _gain(rows: Iterable[Row], name: str) -> float:
    """Mean gain in Dice of a candidate; 0 unless it is above noise."""
    gains = np.array([row[name] - row[_AS_IS] for row in rows])
    if len(gains) < 2 or gains.mean() < LEAST_GAIN:
        return 0.0
    error = float(gains.std(ddof=1)) / np.sqrt(len(gains))
    if error > 0 and stats.t.sf(gains.mean() / error, len(gains) - 1) >= LEVEL:
        return 0.0
    return float(gains.mean())
