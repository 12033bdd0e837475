# SPDX-License-Identifier: Apache-2.0
"""Three planes of a case with the outlines on them: all that a picture needs, small enough to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from barl.images.components import bounding_box

# What is shown around the structures: this share of their size, and at least so many millimeters, on each side.
_MARGIN, _LEAST_MARGIN_MM = 0.4, 8.0


@dataclass(frozen=True)
class View:
    """A plane as it is drawn: rows from top to bottom, columns from left to right.

    Attributes:
        name: ``axial``, ``coronal`` or ``sagittal``.
        scan: Intensities ``[row, column]``.
        expert, predicted: Label values ``[row, column]``; None: there is none.
        uncertainty: 0 to 1 ``[row, column]``; None: there is none.
        pixel: Height and width of a pixel in millimeters.
        sides: Letters of the patient's side at the left and the right edge.
        place: Where the plane lies, such as ``S 12 mm``.
    """

    name: str
    scan: np.ndarray
    expert: np.ndarray | None
    predicted: np.ndarray | None
    uncertainty: np.ndarray | None
    pixel: tuple[float, float]
    sides: tuple[str, str]
    place: str

    @property
    def width_to_height(self) -> float:
        rows, columns = self.scan.shape
        return columns * self.pixel[1] / (rows * self.pixel[0])


def three_views(
    scan: sitk.Image,
    expert: sitk.Image | None = None,
    predicted: sitk.Image | None = None,
    uncertainty: sitk.Image | None = None,
) -> list[View]:
    """An axial, a coronal and a sagittal plane, each where the structures are largest, cut to their surroundings.

    The expert's outline says where that is; where it is missing or empty, the prediction.
    The planes follow the scan's own grid; of an oblique scan they are the ones nearest to the patient's axes.

    Args:
        scan: One channel.
        expert, predicted: Label maps on its grid.
        uncertainty: 0 to 1, on its grid.
    """
    oriented = sitk.DICOMOrient(scan, "LPS")
    arrays = [_array(image) for image in (scan, expert, predicted, uncertainty)]
    marked = [array for array in arrays[1:3] if array is not None]
    weight = sum(((array > 0).astype(np.float32) for array in marked), np.zeros(_shape(scan), np.float32))
    if not weight.any() and arrays[3] is not None:
        weight = arrays[3]
    shown = next((array > 0 for array in marked if array.any()), weight)
    place = [int(shown.sum(axis=tuple(a for a in range(3) if a != axis)).argmax()) for axis in range(3)]
    if not weight.any():
        place = [n // 2 for n in weight.shape]
    spacing = oriented.GetSpacing()[::-1]
    box = _surroundings(weight > 0, spacing)
    views = []
    for axis, name, letters, upside_down in _PLANES:
        cut = [None if array is None else _plane(array, axis, place, box, upside_down) for array in arrays]
        assert cut[0] is not None
        rows, columns = (spacing[n] for n in range(3) if n != axis)
        index = [place[2], place[1], place[0]]
        mm = oriented.TransformIndexToPhysicalPoint(index)[2 - axis]
        positive, negative = _SIDES[axis]
        where = f"{positive if mm >= 0 else negative} {abs(mm):.0f} mm"
        views.append(View(name, cut[0], cut[1], cut[2], cut[3], (rows, columns), letters, where))
    return views


# Array axis that is cut, name, sides at the left and right edge, and whether rows run upwards (towards the head).
_PLANES = (
    (0, "axial", ("R", "L"), False),
    (1, "coronal", ("R", "L"), True),
    (2, "sagittal", ("A", "P"), True),
)
# Of LPS: what a larger and a smaller position along the array's axis is called.
_SIDES = (("S", "I"), ("P", "A"), ("L", "R"))


def _array(image: sitk.Image | None) -> np.ndarray | None:
    return None if image is None else sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))


def _shape(image: sitk.Image) -> tuple[int, ...]:
    return sitk.DICOMOrient(image, "LPS").GetSize()[::-1]


def _surroundings(mask: np.ndarray, spacing: tuple[float, ...]) -> tuple[slice, ...]:
    """The structures' box with a margin; the whole scan if there are none or they fill it."""
    box = bounding_box(mask)
    whole = tuple(slice(0, n) for n in mask.shape)
    if box is None:
        return whole
    wide = []
    for part, n, mm in zip(box, mask.shape, spacing, strict=True):
        margin = round(max(_MARGIN * (part.stop - part.start), _LEAST_MARGIN_MM / mm))
        wide.append(slice(max(part.start - margin, 0), min(part.stop + margin, n)))
    return tuple(wide)


def _plane(array: np.ndarray, axis: int, place: list[int], box: tuple[slice, ...], upside_down: bool) -> np.ndarray:
    index: list[int | slice] = list(box)
    index[axis] = place[axis]
    plane = array[tuple(index)]
    return np.ascontiguousarray(plane[::-1] if upside_down else plane)
