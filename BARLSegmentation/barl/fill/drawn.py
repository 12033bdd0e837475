# SPDX-License-Identifier: Apache-2.0
"""Which voxels a person has drawn or looked at, and in which boxes the rest is filled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

Box = tuple[slice, ...]
"""Of an array ``[k, j, i]``."""

_MARGIN_VOXELS = 8
_MARGIN_SHARE = 0.15
_SQUARE = [np.ones([1 if a == axis else 2 for a in range(3)]) for axis in range(3)]


def drawn_voxels(labels: np.ndarray) -> np.ndarray:
    """The voxels that count as drawn in a label map of which a few planes are outlined.

    A plane counts as a whole, with its background, if an area is labeled in it. The planes are found one by one, the
    one with the largest labeled area that no plane before explains first; a line, which is all that a plane of another
    direction leaves, is no area. Labeled voxels that lie in no such plane (strokes) count by themselves. What was
    painted with a ball for a brush cannot be told from outlined planes: give a mask where that was done.

    Args:
        labels: ``[k, j, i]``, 0 = nothing drawn.

    Returns:
        Boolean mask of the same shape.
    """
    result = labels != 0
    box = bounding_box(result)
    if box is None:
        return result
    areas = [ndimage.binary_opening(result[box], _SQUARE[axis]) for axis in range(3)]
    counts = [area.sum(axis=_others(axis)) for axis, area in enumerate(areas)]
    found: list[list[int]] = [[], [], []]
    while max(count.max() for count in counts) > 0:
        axis = max(range(3), key=lambda a: counts[a].max())
        index = int(counts[axis].argmax())
        found[axis].append(index)
        plane = (slice(None),) * axis + (slice(index, index + 1),)
        for other in range(3):
            counts[other][plane[other] if other == axis else slice(None)] -= areas[other][plane].sum(
                axis=_others(other)
            )
            areas[other][plane] = False
    for axis, indices in enumerate(found):
        for index in indices:
            result[(slice(None),) * axis + (index + box[axis].start,)] = True
    return result


def _others(axis: int) -> tuple[int, ...]:
    return tuple(a for a in range(3) if a != axis)


def drawn_planes(drawn: np.ndarray) -> list[np.ndarray]:
    """Per axis (k, j, i) the indices of the planes that are drawn as a whole."""
    return [np.flatnonzero(drawn.all(axis=_others(axis))) for axis in range(3)]


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box that holds a mask ``[k, j, i]``; None if it is empty."""
    box = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=_others(axis)))
        if not used.size:
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def boxes(structure: np.ndarray, drawn: np.ndarray) -> list[Box]:
    """A box for each piece of what was drawn, with room for what may lie between and beyond the planes.

    Args:
        structure: Drawn foreground ``[k, j, i]``.
        drawn: All that was drawn, background included.

    Returns:
        Boxes that do not overlap: pieces whose boxes do are filled together.
    """
    whole = bounding_box(structure)
    if whole is None:
        return []
    gaps = [_largest_gap(planes, size) for planes, size in zip(drawn_planes(drawn), drawn.shape, strict=True)]
    pieces, _ = ndimage.label(structure[whole], structure=np.ones((3, 3, 3)))
    found = [_widened(_moved(piece, whole), gaps, drawn.shape) for piece in ndimage.find_objects(pieces)]
    return _merged(found)


def _largest_gap(planes: np.ndarray, size: int) -> int:
    """Planes between two neighboring drawn ones at most (0 with fewer than two)."""
    return int(np.diff(planes).max()) if len(planes) > 1 else 0


def _moved(box: Box, by: Box) -> Box:
    return tuple(slice(a.start + b.start, a.stop + b.start) for a, b in zip(box, by, strict=True))


def _widened(box: Box, gaps: Sequence[int], shape: Sequence[int]) -> Box:
    wide = []
    for side, gap, size in zip(box, gaps, shape, strict=True):
        margin = max(_MARGIN_VOXELS, gap // 2 + 1, int(_MARGIN_SHARE * (side.stop - side.start)))
        wide.append(slice(max(side.start - margin, 0), min(side.stop + margin, size)))
    return tuple(wide)


def _merged(found: list[Box]) -> list[Box]:
    merged: list[Box] = []
    for box in found:
        while True:
            other = next((b for b in merged if _overlap(b, box)), None)
            if other is None:
                break
            merged.remove(other)
            box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(box, other, strict=True))
        merged.append(box)
    return sorted(merged, key=lambda b: tuple(side.start for side in b))


def _overlap(first: Box, second: Box) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(first, second, strict=True))
