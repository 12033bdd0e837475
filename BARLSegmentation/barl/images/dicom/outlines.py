# SPDX-License-Identifier: Apache-2.0
"""Outlines as DICOM objects: segmentations (SEG, PS3.3 A.51) and structure sets (RTSTRUCT, PS3.3 A.19)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from barl.errors import InputError
from barl.images.dicom.frames import Frame, frames_of
from barl.images.dicom.headers import DAMAGE, Header, read_header, value_of
from barl.images.dicom.objects import SEGMENTATIONS, STRUCTURE_SET
from barl.images.dicom.pixels import stored_values
from barl.images.dicom.stacks import axes_of
from barl.images.formats.volume import ROUNDING_VOXELS, damaged
from barl.images.geometry import Grid, axes_between
from barl.images.segments import Segment, Structure, empty_between, join, tell_overlap, values_of

# Contours may miss the plane of their slice by this share of a voxel.
_OUT_OF_PLANE = 0.1
# What is nearer to a contour than this share of a voxel lies on it: coordinates are rounded, often to 0.01 mm.
_ON_THE_LINE = 0.05
# So many pairs of a point and a corner are compared at once: 8 MB for each number of a pair.
_MOST_PAIRS = 10**6


def read_outline(path: Path, grid: Grid, structures: Sequence[Structure], notes: list[str]) -> np.ndarray | None:
    """The label map ``[k, j, i]`` on a scan's grid of a SEG or RTSTRUCT file; None if the file is neither.

    Args:
        path: A DICOM file.
        grid: The scan's.
        structures: The label table.
        notes: Gets what a user should know.

    Raises:
        InputError: The object is damaged, does not lie on the grid, or has names that the table does not have.
    """
    header = read_header(path, everything=True)
    if header is None:
        raise damaged(path.name)
    read: Callable[[Header, Grid, Sequence[Structure], list[str]], np.ndarray]
    if header.sop_class in SEGMENTATIONS:
        read = _segmentation
    elif header.sop_class == STRUCTURE_SET:
        read = _structure_set
    else:
        return None
    try:
        return read(header, grid, structures, notes)
    except DAMAGE:
        raise damaged(path.name) from None


# ---- SEG


def _segmentation(header: Header, grid: Grid, structures: Sequence[Structure], notes: list[str]) -> np.ndarray:
    name = header.path.name
    segments = [_segment(item) for item in value_of(header.data, "SegmentSequence") or ()]
    frames = frames_of(header)
    if broken := next((frame for frame in frames if frame.problem), None):
        raise InputError(f"The segmentation cannot be placed: {broken.name} {broken.problem}.", "Export it again.")
    kind = header.text("SegmentationType")
    masks = stored_values(header)
    if kind == "FRACTIONAL":
        masks = masks >= (header.number("MaximumFractionalValue") or 1) / 2
        notes.append("The segmentation is fractional: voxels of at least one half were taken.")
    result = np.zeros(grid.shape, dtype=np.uint16)
    if not masks.any():
        return result
    planes = []  # (segment number, frame, mask)
    for frame, mask in zip(frames, masks, strict=True):
        if kind == "LABELMAP":
            planes += [(number, frame, mask == number) for number in np.unique(mask).tolist() if number != 0]
        elif mask.any():
            planes.append((_segment_number(header, frame), frame, mask != 0))
    used = {number for number, _, _ in planes}
    matched = values_of([s for s in segments if s.value in used], structures, name, notes)
    targets = {value: target for (_, value), target in matched.items()}
    sizes: Counter[int] = Counter()
    for number, frame, plane in planes:
        if number not in targets:
            raise InputError(f"{frame.name.capitalize()} belongs to no segment.", "Export the segmentation again.")
        sizes[targets[number]] += int(np.count_nonzero(plane))
    overlap = 0
    for number, frame, plane in sorted(planes, key=lambda entry: -sizes[targets[entry[0]]]):  # the smallest last
        if targets[number]:
            overlap += _place(plane, frame, grid, targets[number], result)
    if overlap:
        tell_overlap(overlap, sorted(set(sizes) - {0} - set(np.unique(result).tolist())), name, notes)
    return result


def _segment(item: Any) -> Segment:
    codes = []
    kinds = value_of(item, "SegmentedPropertyTypeCodeSequence") or ()
    for code in kinds[:1]:
        modifiers = value_of(code, "SegmentedPropertyTypeModifierCodeSequence") or ()
        codes += [_code(code), *map(_code, modifiers[:1])]
    return Segment(str(value_of(item, "SegmentLabel") or ""), int(item.SegmentNumber), 0, " + ".join(codes))


def _code(item: Any) -> str:
    return f"{value_of(item, 'CodingSchemeDesignator')} {value_of(item, 'CodeValue')}"


def _segment_number(header: Header, frame: Frame) -> int:
    own = value_of(header.data, "PerFrameFunctionalGroupsSequence")[frame.index]
    shared = value_of(header.data, "SharedFunctionalGroupsSequence") or [own]
    for home in (own, shared[0]):
        for item in (value_of(home, "SegmentIdentificationSequence") or ())[:1]:
            return int(item.ReferencedSegmentNumber)
    raise ValueError


def _place(plane: np.ndarray, frame: Frame, grid: Grid, value: int, result: np.ndarray) -> int:
    """Write the voxels of a frame's mask into ``result``; returns how many belong to another label already."""
    axes = axes_of(frame)
    normal = int(np.abs(grid.axes.T @ axes[:, 2]).argmax())
    x, y, z = frame.position
    own = Grid(
        (plane.shape[1], plane.shape[0], 1),
        (*frame.spacing, grid.spacing[normal]),
        (x, y, z),
        tuple(axes.ravel().tolist()),
    )
    order = axes_between(own, grid)
    turned, mask = own.oriented(order), order.view(plane[None])
    places = grid.mm_to_index(turned.index_to_mm(turned.corners))
    start = np.rint(places[0]).astype(int)
    off = float(np.abs(places - turned.corners - start).max())
    indices = np.argwhere(mask)[:, ::-1] + start
    if off > ROUNDING_VOXELS:
        raise InputError(
            f"The segmentation does not lie on its scan's grid: {frame.name} misses it by up to {off:.3g} of a voxel.",
            "Choose the scan that was outlined, or resample the segmentation onto it in Slicer.",
        )
    inside = ((indices >= 0) & (indices < grid.size)).all(axis=1)
    if not inside.all():
        raise InputError(
            f"{np.count_nonzero(~inside)} outlined voxels of {frame.name} lie outside of its scan.",
            "Choose the scan that was outlined.",
        )
    i, j, k = indices.T
    before = result[k, j, i]
    result[k, j, i] = value
    return int(np.count_nonzero((before != 0) & (before != value)))


# ---- RTSTRUCT


def _structure_set(header: Header, grid: Grid, structures: Sequence[Structure], notes: list[str]) -> np.ndarray:
    name = header.path.name
    rois = value_of(header.data, "StructureSetROISequence") or ()
    named = {int(item.ROINumber): str(value_of(item, "ROIName") or "") for item in rois}
    contours = {
        int(item.ReferencedROINumber): list(value_of(item, "ContourSequence") or ())
        for item in value_of(header.data, "ROIContourSequence") or ()
    }
    segments = [Segment(text, number) for number, text in named.items() if contours.get(number)]
    targets = {number: target for (_, number), target in values_of(segments, structures, name, notes).items()}
    masks = [
        (target, _filled(contours[number], grid, named[number], name, notes))
        for number, target in targets.items()
        if target
    ]
    result = join(grid.shape, masks, name, notes)
    if targets:
        notes.append("Contours were filled: a voxel belongs to a structure if its center does.")
    return result


@dataclass
class _Contour:
    """A closed contour in a slice.

    Attributes:
        points: (column, row) of each corner, in voxels.
        first: Column and row of the first pixel of ``mask``.
        mask: Which pixels ``[row, column]`` of a part of the slice have their centers inside.
        is_xor: Of the type ``CLOSEDPLANAR_XOR``.
    """

    points: np.ndarray
    first: tuple[int, int]
    mask: np.ndarray
    is_xor: bool

    @classmethod
    def of(cls, points: np.ndarray, shape: tuple[int, int], is_xor: bool) -> _Contour:
        """The contour through ``points`` in a slice of ``shape``: rows, columns."""
        column, row = np.maximum(np.floor(points.min(axis=0)).astype(int), 0).tolist()
        columns, rows = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, shape[::-1]).tolist()
        mask = _polygon(points - (column, row), (max(rows - row, 0), max(columns - column, 0)))
        return cls(points, (column, row), mask, is_xor)

    @property
    def size(self) -> tuple[int, float]:
        """Number of pixels and area: a contour inside of another one is not larger."""
        x, y = self.points.T
        return int(np.count_nonzero(self.mask)), abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2

    def box(self, plane: np.ndarray) -> np.ndarray:
        """The part of the slice ``plane`` in which ``mask`` lies."""
        column, row = self.first
        return plane[row : row + self.mask.shape[0], column : column + self.mask.shape[1]]

    def pixels(self) -> np.ndarray:
        """(column, row) in the slice of each pixel of ``mask`` that is set."""
        return np.argwhere(self.mask)[:, ::-1] + self.first

    def has(self, pixels: np.ndarray) -> np.ndarray:
        """Which of some pixels, (column, row) in the slice, are set in ``mask``."""
        places = pixels - self.first
        result = np.asarray(((places >= 0) & (places < self.mask.shape[::-1])).all(axis=1))
        result[result] = self.mask[tuple(places[result].T[::-1])]
        return result

    def cut(self, other: _Contour) -> None:
        """Take the pixels of another contour out of ``mask``."""
        pixels = other.pixels()
        self.mask[tuple((pixels[self.has(pixels)] - self.first).T[::-1])] = False

    def ends(self) -> np.ndarray:
        """The lowest and the highest column and row of the line ``[lowest or highest, column or row]``."""
        return np.array([self.points.min(axis=0), self.points.max(axis=0)])

    def repeats(self, other: _Contour) -> bool:
        """Whether both are the same line, wherever it begins and in whichever direction it goes."""
        return _all_inside(self.points, other.points, on_the_line=True) and _all_inside(
            other.points, self.points, on_the_line=True
        )

    def contains(self, other: _Contour) -> bool:
        """Whether ``other`` lies wholly inside: its corners do, and its pixels."""
        pixels, corners = other.pixels(), np.floor(other.points).astype(int)
        # A corner between four pixels that are inside need not be compared with the line.
        deep = np.logical_and.reduce([self.has(corners + shift) for shift in ((0, 0), (1, 0), (0, 1), (1, 1))])
        return _all_inside(other.points[~deep], self.points) and _all_inside(pixels[~self.has(pixels)], self.points)


def _filled(contours: list[Any], grid: Grid, roi: str, name: str, notes: list[str]) -> np.ndarray:
    """The voxels ``[k, j, i]`` whose centers lie inside of closed contours; one wholly within another is a hole."""
    mask = np.zeros(grid.shape, dtype=bool)
    slices: dict[tuple[int, int], list[_Contour]] = defaultdict(list)
    skipped = repeated = 0
    for contour in contours:
        kind = str(value_of(contour, "ContourGeometricType") or "").strip()
        if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
            skipped += 1
            continue
        points = grid.mm_to_index(np.array([float(v) for v in contour.ContourData]).reshape(-1, 3))
        axis = int(np.ptp(points, axis=0).argmin())
        place = float(np.median(points[:, axis]))
        if np.ptp(points[:, axis]) > _OUT_OF_PLANE or abs(place - round(place)) > _OUT_OF_PLANE:
            raise InputError(
                f"A contour of '{roi}' in '{name}' does not lie in a slice of the scan.",
                "Choose the scan on which the contours were drawn.",
            )
        index = round(place)
        u, v = (a for a in range(3) if a != axis)
        if not 0 <= index < grid.size[axis] or points.min() < -1 or (points.max(axis=0) > grid.size).any():
            raise InputError(f"A contour of '{roi}' in '{name}' lies outside of the scan.", "Choose the right scan.")
        drawn = _Contour.of(points[:, [u, v]], (grid.size[v], grid.size[u]), kind == "CLOSEDPLANAR_XOR")
        slices[axis, index].append(drawn)
    for (axis, index), drawn_there in slices.items():
        plane = np.moveaxis(mask, 2 - axis, 0)[index]  # [v, u]
        different = _different(drawn_there)
        plane |= _joined(different, plane.shape)
        repeated += len(drawn_there) - len(different)
    if skipped:
        notes.append(f"{skipped} contours that are not closed were left out.")
    if repeated:
        notes.append(f"{repeated} contours that repeat another contour of their slice were left out.")
    if missing := sum(empty_between([index for own, index in slices if own == axis]) for axis in range(3)):
        notes.append(f"{missing} slices between the contours of a structure have none and stay empty.")
    return mask


def _different(contours: list[_Contour]) -> list[_Contour]:
    """The contours of a slice without those that repeat an earlier one."""
    ends = np.array([contour.ends() for contour in contours])
    result = []
    for n, own in enumerate(contours):
        near = np.flatnonzero(np.abs(ends[:n] - ends[n]).max(axis=(1, 2)) <= _ON_THE_LINE)
        if not any(own.repeats(contours[m]) for m in near):
            result.append(own)
    return result


def _joined(contours: list[_Contour], shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of a slice's contours ``[row, column]``: contours that overlap are united; one wholly within another
    is a hole, one within a hole an island; those of the type ``CLOSEDPLANAR_XOR`` are combined by exclusive or."""
    result = np.zeros(shape, dtype=bool)
    order = sorted((contour for contour in contours if not contour.is_xor), key=lambda contour: contour.size)
    ends = np.array([contour.ends() for contour in order]).reshape(-1, 2, 2)
    around = []
    for n, own in enumerate(order):
        low, high = ends[n, 0] + _ON_THE_LINE, ends[n, 1] - _ON_THE_LINE
        near = np.flatnonzero((ends[:, 0] <= low).all(axis=1) & (ends[:, 1] >= high).all(axis=1))
        around.append({m for m in near.tolist() if m > n and order[m].contains(own)})
    for own, larger in zip(order, around, strict=True):  # the smallest first: its own holes are cut out by then
        nearest = larger.difference(*(around[n] for n in larger))
        for n in nearest:
            order[n].cut(own)
        if not nearest:
            own.box(result)[own.mask] = True
    for own in contours:
        if own.is_xor:
            part = own.box(result)
            part ^= own.mask
    return result


def _all_inside(points: np.ndarray, corners: np.ndarray, *, on_the_line: bool = False) -> bool:
    """Whether all of some points (column, row) lie inside of or on a polygon, or only on its line."""
    step = max(1, _MOST_PAIRS // len(corners))
    return all(_are_inside(points[n : n + step, None], corners, on_the_line).all() for n in range(0, len(points), step))


def _are_inside(points: np.ndarray, corners: np.ndarray, on_the_line: bool) -> np.ndarray:
    """For points ``[n, 1, 2]``."""
    ends = np.roll(corners, -1, axis=0)
    along = ends - corners
    length = np.maximum((along**2).sum(axis=-1), np.finfo(float).tiny)
    share = np.clip(((points - corners) * along).sum(axis=-1) / length, 0, 1)
    off = points - corners - share[..., None] * along
    near = np.hypot(off[..., 0], off[..., 1]).min(axis=1) <= _ON_THE_LINE
    if on_the_line:
        return near
    x, y = points[..., 0], points[..., 1]
    crossing = (corners[:, 1] <= y) != (ends[:, 1] <= y)
    rise = np.where(along[:, 1] == 0, 1.0, along[:, 1])
    left = crossing & (corners[:, 0] + (y - corners[:, 1]) / rise * along[:, 0] < x)
    return near | (left.sum(axis=1) % 2 == 1)


def _polygon(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pixels ``[row, column]`` whose centers lie inside of or on a polygon of (column, row) points."""
    # Well below a voxel, well above the rounding of coordinates: what lies on the line counts as inside.
    near = 1e-3
    result = np.zeros(shape, dtype=bool)
    ends = np.roll(points, -1, axis=0)
    for row in range(max(0, int(np.ceil(points[:, 1].min() - near))), shape[0]):
        if row > points[:, 1].max() + near:
            break
        level = float(np.clip(row, points[:, 1].min() + near, points[:, 1].max() - near))
        crossing = (points[:, 1] <= level) != (ends[:, 1] <= level)
        a, b = points[crossing], ends[crossing]
        columns = np.sort(a[:, 0] + (level - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0]))
        for left, right in zip(columns[::2], columns[1::2], strict=True):
            result[row, max(0, int(np.ceil(left - near))) : max(0, int(np.floor(right + near)) + 1)] = True
    return result
