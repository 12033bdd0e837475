# SPDX-License-Identifier: Apache-2.0
"""Which regions of all scans a simulated clinician looks at next: cubes of one edge, by a rule.

* ``random``: anywhere.
* ``foreground``: two thirds at random voxels of the expert's structures, the rest anywhere. The field calls it
  foreground-aware random.
* ``uncertain``: the hot-spots of all scans in the order of their scores.
* ``clasp``: class-stratified power sampling by entropy (ClaSP PE, Lueth et al., arXiv:2601.13677), on hot-spots: two
  thirds of the budget are shared equally by the labels, in each label a hot-spot is drawn with a probability
  proportional to its mean uncertainty to the power of ``exponent``; the rest is ``random``.

A region is not taken where its center was looked at before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from barl.images.geometry import Triple

RULES = ("random", "foreground", "uncertain", "clasp")
WITHOUT_MODEL = ("random", "foreground")
STRATIFIED_SHARE = 2 / 3
_TRIES = 1000


@dataclass(frozen=True)
class Spot:
    """A hot-spot: center ``(k, j, i)``, score (sum of the uncertainty), its mean, and the label it is mostly about."""

    center: Triple[int]
    score: float
    mean: float
    label: int


@dataclass(frozen=True)
class Pool:
    """A scan to choose from.

    Attributes:
        case: Its index.
        structure: Where the expert has outlined something, ``[k, j, i]``.
        looked: What was looked at already, ``[k, j, i]``; the rules add what they choose.
        spots: The hot-spots of its prediction.
    """

    case: int
    structure: np.ndarray
    looked: np.ndarray
    spots: list[Spot] = field(default_factory=list)


@dataclass(frozen=True)
class Region:
    """A cube of a scan, cut at its border."""

    case: int
    box: Triple[slice]


def exponent(number: int, rounds: int) -> float:
    """The exponent of ``clasp`` in the round ``number`` (1: the first with a model): 1 at first, 100 at last, in equal
    factors."""
    return 100.0 ** ((number - 1) / max(rounds - 2, 1))


def choose_regions(
    rule: str, count: int, pools: Sequence[Pool], edge: int, rng: np.random.Generator, power: float = 1.0
) -> list[Region]:
    """Choose at most ``count`` cubes of ``edge`` voxels; fewer if nothing is left to look at.

    Args:
        rule: One of ``RULES``.
        count: The budget.
        pools: The scans; their ``looked`` is changed.
        edge: In voxels.
        rng: Of the random parts.
        power: The exponent of ``clasp``.
    """
    stratified = round(count * STRATIFIED_SHARE)
    chosen: list[Region] = []
    if rule == "foreground":
        chosen = _take(_in_structures(pools, rng), stratified, edge)
    elif rule == "uncertain":
        ranked = sorted(((pool, spot) for pool in pools for spot in pool.spots), key=lambda item: -item[1].score)
        chosen = _take(((pool, spot.center) for pool, spot in ranked), count, edge)
    elif rule == "clasp":
        chosen = _take(_stratified(pools, rng, power), stratified, edge)
    return chosen + _take(_anywhere(pools, rng), count - len(chosen), edge)


def _take(places: Iterator[tuple[Pool, Triple[int]]], count: int, edge: int) -> list[Region]:
    """The first ``count`` places whose centers were not looked at."""
    chosen: list[Region] = []
    while len(chosen) < count:
        place = next(places, None)
        if place is None:
            break
        pool, center = place
        if not pool.looked[center]:
            box = _cube(center, edge, pool.looked.shape)
            pool.looked[box] = True
            chosen.append(Region(pool.case, box))
    return chosen


def _cube(center: Triple[int], edge: int, shape: Sequence[int]) -> Triple[slice]:
    """The cube around a center, moved inside where it crosses the border."""
    starts = [min(max(c - edge // 2, 0), max(n - edge, 0)) for c, n in zip(center, shape, strict=True)]
    k, j, i = (slice(start, min(start + edge, n)) for start, n in zip(starts, shape, strict=True))
    return k, j, i


def _anywhere(pools: Sequence[Pool], rng: np.random.Generator) -> Iterator[tuple[Pool, Triple[int]]]:
    for _ in range(_TRIES):
        pool = pools[int(rng.integers(len(pools)))]
        k, j, i = (int(rng.integers(n)) for n in pool.looked.shape)
        yield pool, (k, j, i)


def _in_structures(pools: Sequence[Pool], rng: np.random.Generator) -> Iterator[tuple[Pool, Triple[int]]]:
    for _ in range(_TRIES):
        pool = pools[int(rng.integers(len(pools)))]
        voxels = np.flatnonzero(pool.structure)
        if len(voxels):
            k, j, i = np.unravel_index(rng.choice(voxels), pool.structure.shape)
            yield pool, (int(k), int(j), int(i))


def _stratified(pools: Sequence[Pool], rng: np.random.Generator, power: float) -> Iterator[tuple[Pool, Triple[int]]]:
    """Hot-spots of the labels in turn; those of one label in the order of a draw without replacement."""
    spots = [(pool, spot) for pool in pools for spot in pool.spots]
    order: dict[int, list[tuple[float, int]]] = {}
    for number, (_, spot) in enumerate(spots):
        # The largest of log(weight) + Gumbel noise is a draw proportional to the weight.
        drawn = power * float(np.log(max(spot.mean, 1e-12))) + float(rng.gumbel())
        order.setdefault(spot.label, []).append((drawn, number))
    queues = [iter(sorted(order[label], reverse=True)) for label in sorted(order)]
    while queues:
        for queue in list(queues):
            drawn_number = next(queue, None)
            if drawn_number is None:
                queues.remove(queue)
            else:
                pool, spot = spots[drawn_number[1]]
                yield pool, spot.center
