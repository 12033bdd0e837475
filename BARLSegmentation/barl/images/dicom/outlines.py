# SPDX-License-Identifier: Apache-2.0
"""Outlines as DICOM objects: segmentations (SEG, PS3.3 A.51) and structure sets (RTSTRUCT, PS3.3 A.19)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
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
from barl.images.segments import Segment, Structure, join, tell_overlap, values_of

# Contours may miss the plane of their slice by this share of a voxel.
_OUT_OF_PLANE = 0.1


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


def _filled(contours: list[Any], grid: Grid, roi: str, name: str, notes: list[str]) -> np.ndarray:
    """The voxels ``[k, j, i]`` whose centers lie inside of closed contours; one within another is a hole."""
    mask = np.zeros(grid.shape, dtype=bool)
    slices: dict[int, int] = defaultdict(int)
    skipped = 0
    for contour in contours:
        if str(value_of(contour, "ContourGeometricType") or "").strip() not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
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
        plane = np.moveaxis(mask, 2 - axis, 0)[index]  # [v, u]
        plane ^= _polygon(points[:, [u, v]], (grid.size[v], grid.size[u]))
        slices[index] += 1
    if skipped:
        notes.append(f"{skipped} contours that are not closed were left out.")
    if slices and (missing := max(slices) - min(slices) + 1 - len(slices)):
        notes.append(f"{missing} slices between the contours of a structure have none and stay empty.")
    return mask


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
