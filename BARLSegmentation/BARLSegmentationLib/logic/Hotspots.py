# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import slicer

if TYPE_CHECKING:
    from barl.images.geometry import Grid
    from barl.project.labels import Label
    from barl.project.records import Revision
    from barl.project.store import Project


Box = tuple[slice, slice, slice]

MARGIN = 2  # voxels around a hot-spot that count as looked at with it
SURROUNDINGS = 4.0  # a view shows so many times the extent of a region
SMALLEST_VIEW_MM = 40.0  # and at least so much


@dataclass(frozen=True)
class HotSpot:
    """A place to look at.

    Attributes:
        rank: 1 is the most worth a look.
        position: RAS in mm, in the scan's own coordinates.
        volumeMl: Its volume.
        uncertainty: Mean over the region, 0 to 1.
        label: Name of the label it is mostly about; empty if not known.
        extentMm: Largest side of the box around it; 0 if not known.
        kind: "uncertain", or what cleanup did there: "removed" or "filled".
        bounds: The box around it, (x0, x1, y0, y1, z0, z1), LPS in mm; None if not known.
    """

    rank: int
    position: tuple[float, float, float]
    volumeMl: float
    uncertainty: float
    label: str
    extentMm: float = 0.0
    kind: str = "uncertain"
    bounds: tuple[float, ...] | None = None


class HotSpotList:
    """The hot-spots of a case's newest prediction, or of that with the id ``shown``, and which have been looked at.

    Attributes:
        prediction: The revision they come from; None if the case has no prediction.
        spots: In order of rank.
        seen: Ranks of those looked at.
        changed: ``seen`` is not yet stored.
    """

    def __init__(self, project: Project | None = None, caseId: str | None = None, shown: str = "") -> None:
        self._project = project
        self.prediction: Revision | None = None
        self.spots: list[HotSpot] = []
        self.seen: set[int] = set()
        self.changed = self._ofFill = False
        if project is None or caseId is None:
            return
        from barl.project.review import seen_hotspots
        from barl.project.states import RevisionKind

        known = [item for item in project.revisions.of(caseId) if item.id == shown] if shown else []
        self.prediction = known[0] if known else project.revisions.newest(caseId, (RevisionKind.PREDICTION,))
        if self.prediction is not None:
            names = {label.value: label.name for label in project.labels}
            self.spots = [_fromJson(spot, names) for spot in self.prediction.details.get("hotspots", [])]
            self.seen = seen_hotspots(project, self.prediction) & {spot.rank for spot in self.spots}

    def ofFill(self, spots: Sequence[dict], labels: Sequence[Label]) -> HotSpotList:
        """The same prediction with the hot-spots of a fill instead; which of them have been looked at is not stored."""
        found = HotSpotList()
        found._project, found.prediction, found._ofFill = self._project, self.prediction, True
        names = {label.value: label.name for label in labels}
        found.spots = [_fromJson(spot, names) for spot in spots]
        return found

    def setSeen(self, rank: int, seen: bool) -> None:
        before = set(self.seen)
        (self.seen.add if seen else self.seen.discard)(rank)
        self.changed = self.changed or self.seen != before

    def seenBoxes(self, grid: Grid) -> list[Box]:
        """What was looked at with the ticked hot-spots: boxes of voxels, with a margin."""
        return [box for s in self.spots if s.rank in self.seen and s.bounds and (box := _box(s.bounds, grid))]

    def store(self) -> None:
        """Enter what has been looked at in the project's journal, if it changed.

        Raises:
            barl.errors.BarlError: The project cannot be changed; the ticks are kept, so that it can be tried again.
        """
        if not self.changed or self._ofFill:
            return
        from barl.project.review import mark_hotspots

        self.changed = False  # before writing: a tick made meanwhile is one more change
        try:
            mark_hotspots(self._project, self.prediction, set(self.seen))
        except BaseException:
            self.changed = True
            raise

    def following(self, rank: int | None, step: int = 1) -> HotSpot | None:
        """The next hot-spot not yet seen, counted from ``rank`` round; if all are seen, simply the next one.

        Args:
            rank: Where to start; None: before the first.
            step: 1 forwards, -1 backwards.
        """
        if not self.spots:
            return None
        ranks = [spot.rank for spot in self.spots]
        start = ranks.index(rank) if rank in ranks else (-1 if step > 0 else 0)
        turn = [self.spots[(start + step * n) % len(ranks)] for n in range(1, len(ranks) + 1)]
        return next((spot for spot in turn if spot.rank not in self.seen and spot.rank != rank), turn[0])


def jumpTo(
    position: Iterable[float],
    volume: slicer.vtkMRMLScalarVolumeNode | None = None,
    scene: slicer.vtkMRMLScene | None = None,
    extentMm: float = 0.0,
) -> list[float]:
    """Center all slice views on a region, at a zoom at which it and its surroundings are seen.

    A view that shows between half and twice as much keeps its zoom.

    Args:
        position: Center of the region, RAS in mm.
        volume: Whose coordinates these are, if it lies under a transform; no view shows much more than it.
        scene: Where the slice views are.
        extentMm: Largest side of the region; 0 leaves the zoom alone.

    Returns:
        The point in the world, RAS in mm.
    """
    world, scene = list(position), scene or slicer.mrmlScene
    if volume is not None:
        volume.TransformPointToWorld(list(position), world)
    wanted = 0.0
    if extentMm > 0:
        wanted = max(SURROUNDINGS * extentMm, SMALLEST_VIEW_MM)
        if volume is not None:
            bounds = [0.0] * 6
            volume.GetRASBounds(bounds)
            wanted = min(wanted, max(bounds[n + 1] - bounds[n] for n in (0, 2, 4)))
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene):
        width, height, _depth = node.GetDimensions()
        fieldX, fieldY, fieldZ = node.GetFieldOfView()
        if wanted and width and height and not wanted / 2 <= min(fieldX, fieldY) <= wanted * 2:
            pixel = wanted / min(width, height)
            node.SetFieldOfView(pixel * width, pixel * height, fieldZ)
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *world, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    return world


def _fromJson(spot: dict, names: dict[int, str]) -> HotSpot:
    x, y, z = spot["position_mm"]
    value, bounds = spot.get("label", 0), tuple(spot.get("bounds_mm") or [0.0] * 6)
    return HotSpot(
        spot["rank"],
        (-x, -y, z),  # LPS of the engine to RAS
        spot["volume_ml"],
        spot["mean_uncertainty"],
        names.get(value, ""),
        max(bounds[n + 1] - bounds[n] for n in (0, 2, 4)),
        spot.get("kind", "uncertain"),
        bounds if any(bounds) else None,
    )


def _box(bounds: tuple[float, ...], grid: Grid) -> Box | None:
    """The voxels of ``[k, j, i]`` of a box in mm and ``MARGIN`` around; None outside of the scan."""
    corners = np.array(np.meshgrid(*np.reshape(bounds, (3, 2)))).reshape(3, -1).T
    index = np.round(grid.mm_to_index(corners))[:, ::-1].astype(int)
    low = np.maximum(index.min(axis=0) - MARGIN, 0)
    high = np.minimum(index.max(axis=0) + 1 + MARGIN, grid.size[::-1])
    if (low >= high).any():
        return None
    k, j, i = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return k, j, i
