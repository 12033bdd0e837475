# SPDX-License-Identifier: Apache-2.0
"""The plane to outline next. Arrays alone, no MRML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from BARLSegmentationLib.logic.Drawing import Drawn, Plane

_SETTLED_SHARE = 0.25  # of the box of a fill: so far a plane that was drawn since settles its surroundings


@dataclass(frozen=True)
class Proposal:
    """A plane worth outlining.

    Attributes:
        plane: Axis of ``[k, j, i]`` and index.
        center: Index (k, j, i) of the middle of what is uncertain in it.
        extent: Voxels (k, j, i) that this extends over; 1 along the plane's axis.
    """

    plane: Plane
    center: tuple[float, ...]
    extent: tuple[int, ...]


def propose(drawn: Drawn, labels: np.ndarray | None, uncertainty: np.ndarray | None) -> Proposal | None:
    """The plane, of any direction, whose outlining would settle most.

    With an uncertainty: the plane with the largest sum of it that is not beside a drawn one. Without: the first plane
    of each direction, through the middle of what was drawn.

    Args:
        drawn: What was drawn; its fill's uncertainty is taken before any other.
        labels: The outline ``[k, j, i]``.
        uncertainty: Of the model, ``[k, j, i]``; None: there is no prediction.

    Returns:
        None if no plane is left, or nothing is known yet.
    """
    from barl.fill.drawn import bounding_box

    if drawn.fill is not None:
        box, array = drawn.fill.box, _settled(drawn)
    elif uncertainty is not None:
        box = bounding_box(uncertainty > 0)
        array = None if box is None else uncertainty[box]
    else:
        return _through_the_middle(drawn, labels)
    return None if array is None else _most_uncertain(drawn, array, [side.start for side in box])


def _most_uncertain(drawn: Drawn, array: np.ndarray, start: list[int]) -> Proposal | None:
    from barl.fill.drawn import bounding_box
    from barl.fill.next_plane import most_uncertain_plane

    planes = [np.asarray(drawn.indices(axis), dtype=np.int64) - start[axis] for axis in range(3)]
    found = most_uncertain_plane(array, planes)
    if found is None:
        return None
    axis, index = found
    cut = np.take(array, [index], axis=axis)
    inside = bounding_box(cut >= 0.5 * cut.max())
    center, extent = [], []
    for a, side in enumerate(inside):
        others = tuple(b for b in range(3) if b != a)
        weights = cut.sum(axis=others, dtype=np.float64)
        center.append(start[a] + (index if a == axis else float(weights @ np.arange(len(weights)) / weights.sum())))
        extent.append(side.stop - side.start)
    return Proposal((axis, index + start[axis]), tuple(center), tuple(extent))


def _settled(drawn: Drawn) -> np.ndarray:
    """The fill's uncertainty, less near the planes that were drawn since."""
    array = drawn.fill.uncertainty
    for axis, index in drawn.planes - drawn.fill.planes:
        side = drawn.fill.box[axis]
        count = side.stop - side.start
        weight = np.clip(np.abs(np.arange(side.start, side.stop) - index) / max(_SETTLED_SHARE * count, 1), 0, 1)
        array = array * weight.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return array


def _through_the_middle(drawn: Drawn, labels: np.ndarray | None) -> Proposal | None:
    from barl.fill.drawn import bounding_box

    box = None if labels is None else bounding_box(labels != 0)
    missing = [axis for axis in range(3) if not drawn.indices(axis)]
    if box is None or not missing:
        return None
    axis = max(missing, key=lambda a: box[a].stop - box[a].start)
    center = [(side.start + side.stop - 1) / 2 for side in box]
    center[axis] = round(center[axis])
    extent = tuple(1 if a == axis else side.stop - side.start for a, side in enumerate(box))
    return Proposal((axis, int(center[axis])), tuple(center), extent)
