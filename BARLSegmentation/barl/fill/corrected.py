# SPDX-License-Identifier: Apache-2.0
"""Which pieces of a prediction a correction is about: the others stay as they were predicted.

A piece is a 26-connected component of one label. A correction is about a piece if voxels of it were drawn otherwise
than predicted, or if an area of its label was drawn near it that the prediction lacks a part of: no further away than
half of the longest edge of that area, and than ``_NEAR`` voxels at least. Of a piece that was only erased, as at one of
its ends, what is left in one part stays if that is most of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from barl.fill.drawn import Box
from barl.images.components import components

_NEAR = 3
_MOST = 2 / 3  # share of what is left of an erased piece; by a plane through its middle it falls into halves


def corrected_pieces(
    predicted: np.ndarray, seen: np.ndarray, drawn: np.ndarray, spacing: Sequence[float]
) -> np.ndarray:
    """Mask ``[k, j, i]`` of the pieces that a correction is about and of all that was drawn otherwise than predicted.

    Args:
        predicted: Label values of the prediction ``[k, j, i]``.
        seen: Label values that were drawn, right where ``drawn``.
        drawn: Voxels that somebody drew or looked at.
        spacing: (k, j, i) in mm.
    """
    different = drawn & (seen != predicted)
    about, erased = different.copy(), different & (predicted != 0)
    areas = np.where(drawn, seen, 0)
    places = ndimage.find_objects(areas)
    for value, box in enumerate(ndimage.find_objects(predicted), start=1):
        if box is None:
            continue
        numbers, count = components(predicted[box] == value)
        touched, hit = np.zeros((2, count + 1), dtype=bool)
        hit[numbers[erased[box]]] = True
        touched[numbers[drawn[box] & (seen[box] != 0)]] = True  # somebody has drawn there, too
        touched &= hit
        if value <= len(places) and places[value - 1] is not None:
            for near in _surroundings(areas, different, value, places[value - 1], spacing):
                touched[numbers[_within(near, box)]] = True
        touched[0] = hit[0] = False
        about[box] |= touched[numbers]
        pieces = ndimage.find_objects(numbers)
        for number in np.flatnonzero(hit & ~touched):
            place = pieces[number - 1]
            about[box][place] |= _rejected((numbers[place] == number) & ~drawn[box][place])
    return about


def _rejected(left: np.ndarray) -> np.ndarray:
    """Of what is left of a piece that was only erased: all but the part that holds most of it."""
    parts, count = components(left)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return left & (parts != sizes.argmax()) if sizes.max() > _MOST * sizes.sum() else left


def staying(about: np.ndarray, predicted: np.ndarray, spacing: np.ndarray) -> np.ndarray | None:
    """Mask ``[k, j, i]`` of the voxels nearer to a predicted piece that stays than to what a correction is about.

    Args:
        about: From ``corrected_pieces``, in a box.
        predicted: Label values of the prediction, in the same box.
        spacing: (k, j, i) in mm, three floats.

    Returns:
        None if no piece in the box stays.
    """
    others = (predicted != 0) & ~about
    if not others.any():
        return None
    nearest = ndimage.distance_transform_edt(~(about | others), spacing, return_distances=False, return_indices=True)
    return others[tuple(nearest)]


def _surroundings(
    areas: np.ndarray, different: np.ndarray, value: int, box: Box, spacing: Sequence[float]
) -> Iterator[Box]:
    """The boxes around the drawn areas of a label that hold voxels which were predicted otherwise."""
    numbers, _ = components(areas[box] == value)
    corrected = np.unique(numbers[different[box]])
    for number, place in enumerate(ndimage.find_objects(numbers), start=1):
        if number not in corrected:
            continue
        reach = 0.5 * max((side.stop - side.start) * edge for side, edge in zip(place, spacing, strict=True))
        margins = [max(int(reach / edge), _NEAR) for edge in spacing]
        yield tuple(
            slice(max(side.start + whole.start - margin, 0), side.stop + whole.start + margin)
            for side, whole, margin in zip(place, box, margins, strict=True)
        )


def _within(box: Box, whole: Box) -> Box:
    """The part of a box that lies in another one, relative to that; empty if none does."""
    return tuple(
        slice(max(side.start - around.start, 0), max(min(side.stop, around.stop) - around.start, 0))
        for side, around in zip(box, whole, strict=True)
    )
