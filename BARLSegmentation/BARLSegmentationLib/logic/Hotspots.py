# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from barl.project.records import Revision
    from barl.project.store import Project


@dataclass(frozen=True)
class HotSpot:
    """An uncertain region.

    Attributes:
        rank: 1 is the most worth a look.
        position: RAS in mm, in the scan's own coordinates.
        volumeMl: Its volume.
        uncertainty: Mean over the region, 0 to 1.
        label: Name of the label it is mostly about; empty if not known.
    """

    rank: int
    position: tuple[float, float, float]
    volumeMl: float
    uncertainty: float
    label: str


class HotSpotList:
    """The hot-spots of a case's newest prediction and which of them have been looked at.

    Attributes:
        prediction: The revision they come from; None if the case has no prediction.
        spots: In order of rank.
        seen: Ranks of those looked at.
        changed: ``seen`` is not yet stored.
    """

    def __init__(self, project: Project | None = None, caseId: str | None = None) -> None:
        self._project = project
        self.prediction: Revision | None = None
        self.spots: list[HotSpot] = []
        self.seen: set[int] = set()
        self.changed = False
        if project is None or caseId is None:
            return
        from barl.project.review import seen_hotspots
        from barl.project.states import RevisionKind

        self.prediction = project.revisions.newest(caseId, (RevisionKind.PREDICTION,))
        if self.prediction is not None:
            names = {label.value: label.name for label in project.labels}
            self.spots = [_fromJson(spot, names) for spot in self.prediction.details.get("hotspots", [])]
            self.seen = seen_hotspots(project, self.prediction) & {spot.rank for spot in self.spots}

    def setSeen(self, rank: int, seen: bool) -> None:
        before = set(self.seen)
        (self.seen.add if seen else self.seen.discard)(rank)
        self.changed = self.changed or self.seen != before

    def store(self) -> None:
        """Enter what has been looked at in the project's journal, if it changed.

        Raises:
            barl.errors.BarlError: The project cannot be changed; the ticks are kept, so that it can be tried again.
        """
        if not self.changed:
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
) -> None:
    """Center all slice views on a point.

    Args:
        position: RAS in mm.
        volume: Whose coordinates these are, if it lies under a transform.
        scene: Where the slice views are.
    """
    world = list(position)
    if volume is not None:
        volume.TransformPointToWorld(list(position), world)
    mode = slicer.vtkMRMLSliceNode.CenteredJumpSlice
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene or slicer.mrmlScene, *world, mode)


def _fromJson(spot: dict, names: dict[int, str]) -> HotSpot:
    x, y, z = spot["position_mm"]
    value = spot.get("label", 0)
    return HotSpot(
        spot["rank"], (-x, -y, z), spot["volume_ml"], spot["mean_uncertainty"], names.get(value, "")
    )  # LPS of the engine to RAS
