# SPDX-License-Identifier: Apache-2.0
"""A simulated clinician: what a correction changes, and what it costs by a stated model of time.

The clinician draws the expert's outline without an error and overlooks nothing in what is looked at: every figure
flatters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from barl.benchmark.regions import RULES
from barl.errors import InputError
from barl.fill.drawn import bounding_box
from barl.fill.filling import Prediction, fill_scan
from barl.fill.next_plane import next_plane
from barl.images.geometry import Grid, Triple
from barl.inference.hotspots import find_hotspots, half_a_bit

KINDS = ("whole", "slices", "places", "cubes", "regions", "fill", "spread")


@dataclass(frozen=True)
class Prices:
    """What acts cost, in seconds. PROPOSED: no measurement of clinicians stands behind them; a plan may set others.

    Attributes:
        case: Opening a case and accepting it.
        look: Looking at a slice or a place.
        plane: Beginning to draw in a plane.
        mm: Drawing one millimeter of contour.
        fill: Looking over what *Fill* made before it is accepted.
        click: Pressing a key: *Fill*, *Next slice*.
    """

    case: float = 10.0
    look: float = 2.0
    plane: float = 3.0
    mm: float = 0.15
    fill: float = 5.0
    click: float = 1.0


@dataclass(frozen=True)
class Work:
    """What was done: cases accepted, planes drawn in, voxels changed, places looked at, minutes."""

    cases: int = 0
    planes: int = 0
    voxels: int = 0
    places: int = 0
    minutes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclass(frozen=True)
class Strategy:
    """How a case is corrected.

    Attributes:
        kind: ``whole``: every axial slice; ``slices``: every ``n``-th; ``places``: the first ``n`` hot-spots;
            ``cubes``: ``n`` cubes of ``edge`` voxels at random voxels of the structure; ``regions``: ``n`` cubes of
            ``edge`` for each case of the round, in whichever scans the ``rule`` finds them; ``fill``: ``n`` planes of
            each direction, the rest is filled; ``spread``: ``n`` planes chosen one by one, spread over the prediction.
        n, edge: See ``kind``.
        rule: Of ``regions``, see ``barl.benchmark.regions``.
    """

    kind: str
    n: int = 1
    edge: int = 20
    rule: str = "foreground"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"A simulated clinician does not correct by {self.kind!r}.", f"Use: {', '.join(KINDS)}.")
        if self.n < 1 or self.edge < 1:
            raise InputError(f"The numbers of the strategy {self.kind!r} must be 1 or more.", "Correct the plan.")
        if self.rule not in RULES:
            raise InputError(f"A simulated clinician does not choose by {self.rule!r}.", f"Use: {', '.join(RULES)}.")


@dataclass(frozen=True)
class Scan:
    """A case as the clinician sees it: channels and the expert's label values ``[k, j, i]``, and the grid of both."""

    images: list[np.ndarray]
    truth: np.ndarray
    grid: Grid


@dataclass(frozen=True)
class Corrected:
    """A corrected case.

    Attributes:
        labels: Label values ``[k, j, i]``.
        looked: Voxels that were looked at; None: all.
        uncertainty: Of filled voxels, 0 to 1; None if none was filled.
        work: What it cost.
    """

    labels: np.ndarray
    looked: np.ndarray | None
    uncertainty: np.ndarray | None
    work: Work


def correct(
    scan: Scan,
    strategy: Strategy,
    prices: Prices,
    rng: np.random.Generator,
    predicted: np.ndarray | None = None,
    uncertainty: np.ndarray | None = None,
) -> Corrected:
    """Correct a prediction, or outline a scan without one (``places`` and ``spread`` then do the whole of it).

    Args:
        scan: The scan with the expert's outline.
        strategy: How.
        prices: What it costs.
        rng: Chooses cubes.
        predicted: Label values ``[k, j, i]``.
        uncertainty: Of the prediction.
    """
    before = np.zeros_like(scan.truth) if predicted is None else predicted.astype(scan.truth.dtype)
    if strategy.kind in ("fill", "spread"):
        return _fill(scan, strategy, prices, before, None if predicted is None else uncertainty)
    looked = _looked(scan, strategy, rng, before, None if predicted is None else uncertainty)
    labels = np.where(looked, scan.truth, before)
    work = drawing(scan, before, looked, prices)
    whole = strategy.kind == "whole" or bool(looked.all())
    return Corrected(labels, None if whole else looked, None, work)


def correct_regions(
    scan: Scan, boxes: Sequence[Triple[slice]], prices: Prices, before: np.ndarray, looked: np.ndarray
) -> Corrected:
    """Correct cubes of a scan, parts of which may have been looked at before.

    Args:
        scan: The scan with the expert's outline.
        boxes: The cubes ``[k, j, i]``.
        prices: What it costs.
        before: Label values ``[k, j, i]``: the prediction, and what was corrected before.
        looked: What was looked at before.
    """
    new = np.zeros_like(looked)
    for box in boxes:
        new[box] = True
    new &= ~looked
    work = drawing(scan, before, new, prices)
    return Corrected(np.where(new, scan.truth, before), looked | new, None, work)


def _looked(
    scan: Scan, strategy: Strategy, rng: np.random.Generator, before: np.ndarray, uncertainty: np.ndarray | None
) -> np.ndarray:
    looked = np.zeros(before.shape, dtype=bool)
    both = bounding_box((scan.truth != 0) | (before != 0))
    if strategy.kind == "whole" or both is None or (strategy.kind == "places" and uncertainty is None):
        return ~looked
    if strategy.kind == "slices":
        looked[[*range(both[0].start, both[0].stop, strategy.n), both[0].stop - 1]] = True
    elif strategy.kind == "cubes":
        structure = np.argwhere(scan.truth != 0 if np.any(scan.truth) else before != 0)
        for center in structure[rng.choice(len(structure), min(strategy.n, len(structure)), replace=False)]:
            start = np.clip(center - strategy.edge // 2, 0, None)
            looked[tuple(slice(a, a + strategy.edge) for a in start)] = True
    else:
        assert uncertainty is not None
        threshold = half_a_bit(len(np.unique(scan.truth)) or 2)
        for spot in find_hotspots(uncertainty, scan.grid, threshold=threshold, limit=strategy.n):
            bounds = np.array(spot.bounds_mm).reshape(3, 2)
            corners = np.array(np.meshgrid(*bounds)).reshape(3, -1).T
            index = np.round(scan.grid.mm_to_index(corners)).astype(int)[:, ::-1]
            # A place is shown with its surroundings.
            low, high = np.clip(index.min(axis=0) - 2, 0, None), index.max(axis=0) + 3
            looked[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return looked


def drawing(scan: Scan, before: np.ndarray, looked: np.ndarray, prices: Prices) -> Work:
    """The cost of correcting ``before`` in the axial slices of what is looked at."""
    mm = planes = looks = 0.0
    for k in np.flatnonzero(looked.any(axis=(1, 2))):
        true, old = np.where(looked[k], scan.truth[k], 0), np.where(looked[k], before[k], 0)
        if not true.any() and not old.any():
            continue
        looks += 1
        edited = contour_mm(true, old, scan.grid.spacing[:2])
        mm += edited
        planes += edited > 0
    changed = int(np.count_nonzero(looked & (scan.truth != before)))
    seconds = prices.case + prices.look * looks + prices.plane * planes + prices.mm * mm
    return Work(1, int(planes), changed, int(looks), seconds / 60)


def contour_mm(true: np.ndarray, old: np.ndarray, spacing: Sequence[float]) -> float:
    """Length of the contour that is drawn to make ``old`` the ``true`` plane: its pixels beside a difference, in mm."""
    wrong = ndimage.binary_dilation(true != old, np.ones((3, 3), bool))
    shape = true if true.any() else old  # what is erased is gone around once
    edge = (shape != 0) & (ndimage.minimum_filter(shape, footprint=ndimage.generate_binary_structure(2, 1)) != shape)
    return float(np.count_nonzero(edge & wrong) * np.sqrt(spacing[0] * spacing[1]))


def _fill(
    scan: Scan, strategy: Strategy, prices: Prices, before: np.ndarray, uncertainty: np.ndarray | None
) -> Corrected:
    drawn = np.zeros(before.shape, dtype=bool)
    prediction = None if uncertainty is None else Prediction(before, uncertainty)
    box = bounding_box(scan.truth != 0)
    if box is None:  # nothing there: seen in one look through the slices
        return Corrected(
            np.zeros_like(before), None, None, Work(1, 0, int(np.count_nonzero(before)), 1, prices.case / 60)
        )
    mm, planes = 0.0, 0
    spacing = scan.grid.spacing[::-1]
    one_by_one = strategy.kind == "spread" and prediction is not None
    chosen = [] if one_by_one else [(axis, i) for axis, side in enumerate(box) for i in _even(side, strategy.n)]
    filled = None
    for step in range(strategy.n if one_by_one else len(chosen)):
        if one_by_one:
            filled = fill_scan(scan.images, np.where(drawn, scan.truth, 0), spacing, drawn, prediction)
            plane = next_plane(filled, drawn)
            if plane is None:
                break
            axis, index = plane.axis, plane.index
        else:
            axis, index = chosen[step]
        place = (slice(None),) * axis + (index,)
        pixel = [s for a, s in enumerate(spacing) if a != axis]
        shown = before if filled is None else filled.labels
        mm += contour_mm(scan.truth[place], np.where(drawn[place], scan.truth[place], shown[place]), pixel)
        drawn[place], planes = True, planes + 1
    filled = fill_scan(scan.images, np.where(drawn, scan.truth, 0), spacing, drawn, prediction)
    changed = int(np.count_nonzero(filled.labels != before))
    presses = 2 * planes if one_by_one else 1  # Fill, and Next slice before each plane
    seconds = prices.case + (prices.look + prices.plane) * planes + prices.mm * mm + prices.fill
    seconds += prices.click * presses
    work = Work(1, planes, changed, planes, seconds / 60)
    return Corrected(filled.labels.astype(before.dtype), drawn, filled.uncertainty(), work)


def _even(side: slice, n: int) -> list[int]:
    return [round(side.start + (side.stop - 1 - side.start) * m / (n + 1)) for m in range(1, n + 1)]


def prices_of(plan: dict[str, Any]) -> Prices:
    """The prices of a plan; those that it does not name are the proposed ones.

    Raises:
        InputError: A price is unknown or not a number from 0 on.
    """
    given = plan.get("prices", {})
    known = [field.name for field in dataclasses.fields(Prices)]
    for name, value in given.items():
        if name not in known or not isinstance(value, int | float) or value < 0:
            raise InputError(f"The plan's price {name!r} cannot be used.", f"Give seconds for: {', '.join(known)}.")
    return Prices(**given)
