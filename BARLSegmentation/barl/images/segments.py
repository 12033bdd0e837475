# SPDX-License-Identifier: Apache-2.0
"""Segments that bear names, matched to the label table: by name or coded meaning, never by the order of drawing."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from barl.errors import InputError
from barl.images.formats.volume import Volume

# Names that programs give by themselves.
_NAMELESS = re.compile(r"(segment|label|class|roi|structure)?\s*\d*", re.IGNORECASE)
# "Tissue", the meaning that Slicer gives every new segment.
_NO_MEANING = "SCT 85756007"


@dataclass(frozen=True)
class Structure:
    """A row of the label table as far as names go.

    Attributes:
        value: The value in label maps.
        name: What the user calls it.
        code: Its coded meaning, such as ``SCT 10200004``, with a modifier ``SCT 64033007 + SCT 7771000``; may be empty.
    """

    value: int
    name: str
    code: str = ""


@dataclass(frozen=True)
class Segment:
    """A segment of a file.

    Attributes:
        name: As the file has it.
        value: Its value in the file's label map.
        layer: Which label map of the file, from 0.
        code: Its coded meaning as in ``Structure``; may be empty.
    """

    name: str
    value: int
    layer: int = 0
    code: str = ""


def nrrd_segments(texts: Mapping[str, str]) -> list[Segment]:
    """The segments that Slicer describes in a ``.seg.nrrd``; empty for any other file."""
    numbers = sorted({int(m[1]) for key in texts if (m := re.fullmatch(r"Segment(\d+)_(?:ID|Name|LabelValue)", key))})
    found = []
    for n in numbers:
        try:
            value = int(texts.get(f"Segment{n}_LabelValue", n + 1))
            layer = int(texts.get(f"Segment{n}_Layer", 0))
        except ValueError:
            value, layer = -1, 0
        name = texts.get(f"Segment{n}_Name", texts.get(f"Segment{n}_ID", ""))
        found.append(Segment(name, value, layer, _code(texts.get(f"Segment{n}_Tags", ""))))
    return found


def values_of(
    segments: Sequence[Segment], structures: Sequence[Structure], file: str, notes: list[str]
) -> dict[tuple[int, int], int]:
    """Layer and value in the file -> value in the label table; 0 for what is to be left out.

    Raises:
        InputError: A segment's name or meaning is not in the table, or the two contradict each other.
    """
    result = {}
    for segment in segments:
        value = _value_of(segment, structures, file)
        if value is None:
            value = segment.value
            notes.append(f"A segment without a name was taken by its value {value}.")
        result[segment.layer, segment.value] = value
    if left := [segment.name for segment in segments if result[segment.layer, segment.value] == 0]:
        notes.append(f"Left out as wished: {', '.join(left)}.")
    if any(key[1] != value for key, value in result.items()):
        notes.append("The segments were matched to the label table by their names.")
    return result


def is_in_table(segment: Segment, structures: Sequence[Structure]) -> bool:
    """Whether the table has the segment's name."""
    return _plain(segment.name) in {_plain(structure.name) for structure in structures}


def label_array(
    volume: Volume, segments: Sequence[Segment], structures: Sequence[Structure], file: str, notes: list[str]
) -> np.ndarray:
    """One label map ``[k, j, i]``, uint16, with the table's values from the layers of a segmentation.

    Raises:
        InputError: Voxels belong to no segment, nothing would be left of one, or one with voxels is not in the table.
    """
    layers = volume.array if volume.array.ndim == 4 else volume.array[None]
    found = {(n, value) for n, layer in enumerate(layers) for value in np.unique(layer).tolist() if value != 0}
    targets = values_of([s for s in segments if (s.layer, s.value) in found], structures, file, notes)
    if unnamed := sorted(found - set(targets)):
        raise InputError(
            f"'{file}' holds the value {unnamed[0][1]:g}, which belongs to none of its segments.",
            "Save the segmentation again.",
        )
    if len(layers) > 1:
        masks = [(target, layers[number] == value) for (number, value), target in targets.items()]
        return join(layers.shape[1:], masks, file, notes)
    result = np.zeros(layers.shape[1:], dtype=np.uint16)
    for (_, value), target in targets.items():
        result[layers[0] == value] = target
    return result


def join(shape: tuple[int, ...], masks: Sequence[tuple[int, np.ndarray]], file: str, notes: list[str]) -> np.ndarray:
    """A label map of masks that may overlap: a voxel of two goes to the smaller one, such as a tumor in its organ.

    Args:
        shape: Of the masks.
        masks: Values of the label table with what bears them; several may have one value; 0 is left out.
        file: Named in messages.
        notes: Gets a sentence if masks overlap.

    Raises:
        InputError: Nothing would be left of a label.
    """
    whole: dict[int, np.ndarray] = {}
    for value, mask in masks:
        if value:
            whole[value] = whole[value] | mask if value in whole else mask
    result, overlap = np.zeros(shape, dtype=np.uint16), 0
    for value in sorted(whole, key=lambda value: -np.count_nonzero(whole[value])):
        overlap += int(np.count_nonzero(result[whole[value]]))
        result[whole[value]] = value
    if overlap:
        tell_overlap(
            overlap, [value for value in whole if whole[value].any() and not (result == value).any()], file, notes
        )
    return result


def tell_overlap(voxels: int, lost: Sequence[int], file: str, notes: list[str]) -> None:
    """Say that ``voxels`` voxels of two segments went to the smaller one; refuse it if labels are ``lost`` by that."""
    if lost:
        raise InputError(
            f"Segments of '{file}' overlap in {voxels} voxels, and nothing would be left of the label {lost[0]}.",
            "A voxel has one label: let the segments not overlap (in Slicer: Masking, Overwrite all).",
        )
    notes.append(f"{voxels} voxels that belong to two segments went to the smaller one: a voxel has one label.")


def empty_between(planes: Collection[int]) -> int:
    """How many planes between the first and the last of ``planes``, indices that differ, are not among them."""
    return max(planes) - min(planes) + 1 - len(planes) if planes else 0


def in_single_planes(labels: np.ndarray) -> dict[int, tuple[int, int]]:
    """The labels that look as if only every n-th plane was outlined: along an axis, at least three planes that hold the
    label, none beside another one, each with voxels where the next one has some too. Lesions of one plane in other
    places are none of these.

    Args:
        labels: Whole numbers ``[k, j, i]``.

    Returns:
        Label -> how many planes hold it, and how many empty ones lie between them.
    """
    found = {}
    for value, box in enumerate(ndimage.find_objects(labels), 1):
        for axis in range(3) if box else ():
            part = np.moveaxis(labels[box], axis, 0) == value
            planes = np.flatnonzero(part.any(axis=(1, 2))).tolist()
            if len(planes) >= 3 and all(b - a > 1 and (part[a] & part[b]).any() for a, b in pairwise(planes)):
                found[value] = (len(planes), empty_between(planes))
                break
    return found


def _value_of(segment: Segment, structures: Sequence[Structure], file: str) -> int | None:
    """The value in the table; None if the segment has no name and no meaning."""
    names = {_plain(structure.name): structure for structure in structures}
    often = Counter(structure.code for structure in structures)
    codes = {s.code: s for s in structures if s.code and often[s.code] == 1 and s.code != _NO_MEANING}
    by_name, by_code = names.get(_plain(segment.name)), codes.get(segment.code)
    if by_name and by_code and by_name != by_code:
        raise InputError(
            f"The segment '{segment.name}' of '{file}' is called as the label {by_name.value}, "
            f"but its terminology is that of the label {by_code.value} ({by_code.name}).",
            "Correct its name or its terminology.",
        )
    if match := by_name or by_code:
        return match.value
    table = ", ".join(f"{structure.value} {structure.name}" for structure in structures)
    if _NAMELESS.fullmatch(_plain(segment.name)) and segment.value in [s.value for s in structures]:
        return None
    raise InputError(
        f"The segment '{segment.name}' of '{file}' is not in the label table ({table}).",
        "Give the segment the name of its label, remove it, add it to the label table, or say which label it is "
        '(on the command line: --segment "NAME=LABEL", or "NAME=" to leave it out; in Slicer: load scan and outline, '
        "rename or remove the segment in the module Segmentations, and add both as volumes of the scene).",
    )


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-]+", " ", unicodedata.normalize("NFC", name)).casefold().split())


def _code(tags: str) -> str:
    """The coded meaning in the tags that Slicer writes: ``TerminologyEntry:context~category~type~modifier~...|``."""
    match = re.search(r"TerminologyEntry:([^|]*)", tags)
    parts = match[1].split("~") if match else []
    codes = []
    for part in parts[2:4]:
        scheme, value = (part.split("^") + ["", ""])[:2]  # noqa: RUF005
        if scheme and value:
            codes.append(f"{scheme} {value}")
    return " + ".join(codes)
