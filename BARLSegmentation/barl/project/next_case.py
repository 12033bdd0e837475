# SPDX-License-Identifier: Apache-2.0
"""Which case to outline next: at random, or where the model is unsure and unlike what it has been taught already.

By default the predicted cases come in a random order, the same on every computer, then the others as given: of the
rules compared on the hippocampus (``docs/guidance.md``) none taught more than a random order.

With a weight the order is that of the score: the weighted geometric mean of two numbers in [0, 1], the case's
uncertainty, relative to the most uncertain candidate, and its distance in the model's feature space to the nearest
outlined case, relative to the farthest candidate (the greedy k-center choice of Sener and Savarese, "Active learning
for convolutional neural networks: a core-set approach", ICLR 2018). For the first few ranks each chosen case counts as
outlined for the next, so that several readers, or one with an afternoon, do not get near copies of the same case. What
is not known is neutral.

Before there is a model, a case has no uncertainty, and its place may be that of its scan (``scan_features``): the same
rule is then the greedy k-center choice by size and intensities. It is not the default: of 4 first hippocampi a random
choice taught as well or better (3 seeds: Dice 0.799 ± 0.001 against 0.788 ± 0.009, supervised, 120 steps).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from barl.project.records import BY_SCAN, Case
from barl.project.states import CaseState

# An uncertainty from which on no case is called certain, whatever its place (0: sure, 1: the model cannot decide).
_UNSURE = 0.5
# Uncertainty and difference count alike.
BALANCED = 0.5
# The weight of the difference by rule; None: the order is random.
RULES = {"random": None, "uncertain": 0.0, "different": 1.0, "both": BALANCED}


@dataclass(frozen=True, slots=True)
class Context:
    """What all candidates of one ranking share.

    Attributes:
        predicted: How many of them are predicted.
        compared: Outlined cases that they were compared with.
        outlined: Outlined cases.
        by_scan: They were compared by size and intensities, there is no model.
        at_random: The order of the predicted ones is random.
    """

    predicted: int
    compared: int
    outlined: int
    by_scan: bool = False
    at_random: bool = False


@dataclass(frozen=True, slots=True)
class Ranked:
    """A case to outline.

    Attributes:
        case: The case.
        score: In [0, 1], by uncertainty and difference from the outlined cases; a random order does not follow it.
        uncertainty_rank: 1 for the most uncertain of those predicted.
        difference: Share of the candidates that are no more unlike the outlined cases; None: not known.
        context: Of the whole ranking.
    """

    case: Case
    score: float
    uncertainty_rank: int
    difference: float | None
    context: Context

    @property
    def reason(self) -> str:
        """Why, in plain words. Made only when asked for: of thousands of candidates a few are shown."""
        if self.case.uncertainty is None:
            return f"not predicted yet; {self._likeness()}"
        return (
            f"chosen at random (no rule was shown to teach more); {self._facts()}"
            if self.context.at_random
            else self._facts()
        )

    def _facts(self) -> str:
        value, of = self.case.uncertainty, self.context.predicted
        assert value is not None  # it is predicted
        if of == 1:
            return f"uncertain ({value:.2f}); {self._likeness()}"
        place = f"({value:.2f}, {_place(self.uncertainty_rank)} highest of {of})"
        if self.uncertainty_rank <= (of + 1) // 2:
            return f"uncertain {place}; {self._likeness()}"
        if value >= _UNSURE:
            return f"less uncertain than others {place}; {self._likeness()}"
        if self.is_unlike:
            return f"rather certain {place}, but {self._likeness()}: on such scans a model can be sure and wrong"
        return f"rather certain {place}; {self._likeness()}"

    @property
    def is_unlike(self) -> bool:
        """Whether it is among the two thirds of the candidates that are more unlike the outlined cases."""
        return self.difference is not None and self.difference > 1 / 3

    def _likeness(self) -> str:
        if not self.context.outlined:
            return "no case is outlined so far"
        if self.difference is None:
            return "not yet compared with the outlined cases"
        likeness = "similar to" if not self.is_unlike else "unlike" if self.difference > 2 / 3 else "a little unlike"
        these = "the case" if self.context.compared == 1 else f"the {self.context.compared} cases"
        how = ", by size and intensities" if self.context.by_scan else ""
        return f"{likeness} {these} outlined so far{how}"


def rank_cases(
    cases: Sequence[Case], diversity: float | None = None, spread: int = 10, by_scan: bool = False
) -> list[Ranked]:
    """Order the cases that wait for an outline: at random, or by a rule the most useful first.

    Args:
        cases: All cases of the project. Accepted, excluded and held-out ones are not ranked; the accepted ones that are
            not held out are what the others are compared with.
        diversity: Weight of the difference from the outlined cases, 0 to 1; the rest is the uncertainty's. None: the
            predicted cases in a random order, then the others in the order given.
        spread: How many first ranks to choose one by one, each unlike those before.
        by_scan: Compare cases without a model's embedding by their scans.

    Returns:
        The candidates in order; equal ones in the order given.
    """
    candidates = [case for case in cases if case.awaits_outline and not case.held_out]
    outlined = [case for case in cases if case.teaches]
    if not candidates:
        return []
    uncertainty = np.array([np.nan if c.uncertainty is None else c.uncertainty for c in candidates], dtype=np.float64)
    known = ~np.isnan(uncertainty)
    rank = _descending_ranks(uncertainty).tolist()
    relative = _relative(uncertainty)
    if not by_scan:
        candidates, outlined = ([_without_scan(case) for case in group] for group in (candidates, outlined))
    kind, places, centers = _places(candidates, outlined)
    distance = _nearest(places, centers)
    difference = _shares(distance)
    order, score = _order(relative, places, distance, BALANCED if diversity is None else diversity, spread)
    if diversity is None:
        order = sorted(order, key=lambda k: sha256(candidates[k].id.encode()).digest())
        order = [k for k in order if known[k]] + np.flatnonzero(~known).tolist()
    context = Context(int(known.sum()), len(centers), len(outlined), kind == BY_SCAN, diversity is None)
    return [Ranked(candidates[k], score[k], rank[k], difference[k], context) for k in order]


def untouched_cases(cases: Sequence[Case], model_id: str) -> list[Case]:
    """The cases that nobody has drawn in and that ``model_id`` has not predicted, as they would be proposed."""
    untouched = (CaseState.NEW, CaseState.PREDICTED)
    return [r.case for r in rank_cases(cases) if r.case.state in untouched and r.case.model_id != model_id]


def _order(
    relative: np.ndarray, places: np.ndarray, distance: np.ndarray, diversity: float, spread: int
) -> tuple[list[int], list[float]]:
    """Indices in descending order of score, and the scores: each chosen case draws its neighbors' scores down."""
    sureness = relative ** (1 - diversity)
    score = sureness * _relative(distance) ** diversity
    placed = ~np.isnan(places[:, 0])
    if not placed.any():
        return np.argsort(-score, kind="stable").tolist(), score.tolist()
    squares = np.einsum("nd,nd->n", places, places)
    # Without an outlined case to compare with, the extent of the candidates is the yardstick.
    farthest = np.nanmax(distance) if len(distance[~np.isnan(distance)]) else np.sqrt(np.nanmax(squares))
    nearest, waiting = distance, np.ones(len(score), dtype=bool)
    chosen: list[int] = []
    for _ in range(min(spread, len(score))):
        k = int(np.argmax(np.where(waiting, score, -1.0)))
        chosen.append(k)
        waiting[k] = False
        if placed[k] and farthest > 0:
            nearest = np.fmin(nearest, np.sqrt(np.maximum(squares - 2 * (places @ places[k]) + squares[k], 0)))
            drawn = sureness * np.minimum(nearest / farthest, 1) ** diversity
            score = np.where(waiting & placed, np.minimum(score, drawn), score)
    rest = np.flatnonzero(waiting)
    rest = rest[np.argsort(-score[rest], kind="stable")]
    return [*chosen, *rest.tolist()], score.tolist()


def _places(candidates: Sequence[Case], outlined: Sequence[Case]) -> tuple[str | None, np.ndarray, np.ndarray]:
    """What gave the embeddings, those of the candidates [n, d], NaN where there is none to compare, and of the
    outlined [m, d]; a model's are standardized.

    Only embeddings of one model and one length can be compared: those that most candidates have.
    """
    kinds = Counter(_kind(case) for case in candidates if case.embedding is not None)
    if not kinds:
        return None, np.full((len(candidates), 1), np.nan), np.empty((0, 1))
    kind = kinds.most_common(1)[0][0]
    places = np.full((len(candidates), kind[1]), np.nan, dtype=np.float32)
    rows = [k for k, case in enumerate(candidates) if case.embedding is not None and _kind(case) == kind]
    places[rows] = np.stack([case.embedding for k in rows if (case := candidates[k]).embedding is not None])
    known = [case.embedding for case in outlined if case.embedding is not None and _kind(case) == kind]
    centers = np.stack(known) if known else np.empty((0, kind[1]), dtype=np.float32)
    everything = np.concatenate([places[rows], centers])
    mean = everything.mean(axis=0)
    if kind[0] == BY_SCAN:  # logarithms and shares: standardized, noise would count as much as a scanner
        return BY_SCAN, places - mean, centers - mean
    # A model's features come in scales of their own; one large one must not decide alone.
    sd = everything.std(axis=0)
    sd[sd == 0] = 1.0
    return kind[0], (places - mean) / sd, (centers - mean) / sd


def _without_scan(case: Case) -> Case:
    return replace(case, embedding=None) if case.model_id == BY_SCAN else case


def _kind(case: Case) -> tuple[str | None, int]:
    return case.model_id, 0 if case.embedding is None else len(case.embedding)


def _nearest(places: np.ndarray, centers: np.ndarray, block: int = 512) -> np.ndarray:
    """Euclidean distance [n] to the nearest center; NaN where the place is missing or there is no center."""
    if not len(centers):
        return np.full(len(places), np.nan)
    nearest = np.full(len(places), np.inf, dtype=places.dtype)
    sizes = np.einsum("md,md->m", centers, centers)
    for start in range(0, len(centers), block):
        # |a - b|^2 = |a|^2 - 2 a b + |b|^2: one matrix product instead of n x m x d differences.
        part = sizes[start : start + block, None] - 2 * (centers[start : start + block] @ places.T)
        nearest = np.minimum(nearest, part.min(axis=0))
    return np.sqrt(np.maximum(nearest + np.einsum("nd,nd->n", places, places), 0)).astype(np.float64)


def _relative(values: np.ndarray) -> np.ndarray:
    """Values relative to the largest; unknown ones are taken as the median of the known, or as 1 if none is known."""
    known = values[~np.isnan(values)]
    if not len(known) or known.max() <= 0:
        return np.ones(len(values))
    return np.where(np.isnan(values), np.median(known), values) / known.max()


def _descending_ranks(values: np.ndarray) -> np.ndarray:
    """1 for the highest; equal values share the better rank."""
    known = np.sort(values[~np.isnan(values)])
    return len(known) - np.searchsorted(known, values, side="right") + 1


def _shares(values: np.ndarray) -> list[float | None]:
    """For each value the share of the known ones that are not larger; None where it is not known."""
    known = np.sort(values[~np.isnan(values)])
    shares = (np.searchsorted(known, values, side="right") / max(len(known), 1)).tolist()
    return [None if unknown else share for share, unknown in zip(shares, np.isnan(values).tolist(), strict=True)]


def _place(rank: int) -> str:
    if rank == 1:
        return "the"
    ending = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"the {rank}{ending}"
