# SPDX-License-Identifier: Apache-2.0
"""Frames sorted into stacks: of one direction and size each, with one frame at each place, and checked to be even."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from barl.errors import InputError
from barl.images.dicom.frames import Frame
from barl.images.dicom.pixels import same_pixels
from barl.images.geometry import Grid

# Direction cosines of one stack may differ by this: they are rounded.
_PARALLEL = 1e-3
# Frames nearer to each other along the normal lie at one place (mm).
_SAME_PLACE_MM = 1e-3
# Slices may miss their place by this share of the slice distance: positions in DICOM are rounded.
_UNEVEN = 0.05
# And sideways, over the whole stack, by this share of a pixel; more is a gantry tilt.
_SIDEWAYS = 0.1

_CONVERT = (
    "Load it in Slicer with the DICOM plugin's 'acquisition geometry regularization' and export the result as a volume."
)
# What makes another image of the same place even if the slices of two images alternate.
_CONTRASTS = ("image type", "component", "echo time", "echo", "inversion time", "b-value", "kVp", "kernel")
_TIMES = ("time point", "heart phase", "frame time", "time of acquisition", "time of content")


@dataclass(frozen=True)
class Stack:
    """Frames of one direction and size.

    Attributes:
        frames: In ascending order along their normal.
        words: What distinguishes them from the other stacks of the series; empty if there is no other.
        copies: Frames left out because they are others once more: (the one kept, its copy).
        problem: Why they make no volume; empty if that is not known yet.
        n_in_series: Frames of the whole series, without copies.
    """

    frames: tuple[Frame, ...]
    words: str = ""
    copies: tuple[tuple[Frame, Frame], ...] = ()
    problem: str = ""
    n_in_series: int = 0


def stacks(frames: Sequence[Frame]) -> list[Stack]:
    """The stacks of a series, the largest first."""
    found = []
    groups = [_without_copies(parallel) for parallel in _parallel(frames)]
    count = sum(len(kept) for kept, _ in groups)
    for kept, copies in groups:
        parts = _apart(kept, _modality(kept))
        for words, part, problem in parts:
            ours = {id(frame) for frame in part}
            found.append(Stack(tuple(part), words, tuple(c for c in copies if id(c[0]) in ours), problem, count))
    return sorted(found, key=lambda stack: -len(stack.frames)) if len({s.words for s in found}) == 1 else found


def check(stack: Stack, name: str) -> list[str]:
    """Refuse a stack that is no even, upright volume.

    Args:
        name: What messages call the series.

    Returns:
        Sentences about what a user should know.

    Raises:
        InputError: With the file or frame.
    """
    if stack.problem:
        raise InputError(f"The DICOM series in '{name}' has {stack.problem}.", "Export the wanted images separately.")
    if len(stack.frames) < 2:
        raise InputError(
            f"'{name}' is a single slice, not a volume: {stack.frames[0].name}.",
            "Choose the folder with all slices of the series.",
        )
    for kept, copy in stack.copies:
        if not same_pixels(kept, copy):
            raise InputError(
                f"{kept.name.capitalize()} and {copy.name} claim to be the same image, but their pixels differ.",
                "Remove the wrong one from the folder.",
            )
    unscaled = [frame for frame in stack.frames if not frame.is_scaled]
    if 0 < len(unscaled) < len(stack.frames):
        more = f" and {len(unscaled) - 1} more" if len(unscaled) > 1 else ""
        raise InputError(
            f"The DICOM series in '{name}' has slices without a rescale slope and intercept beside slices with them: "
            f"{unscaled[0].name}{more}.",
            "Export the series again from the archive or the scanner, with these tags.",
        )
    if mixed := _mixed_units(stack):
        raise InputError(f"The DICOM series in '{name}' has {mixed}.", "Export the wanted images separately.")
    problems = [*_uneven(stack), *_sideways(stack)]
    if problems:
        raise InputError(f"The DICOM series in '{name}' has {' and '.join(problems)}.", _CONVERT)
    return _notes(stack)


def grid_of(stack: Stack) -> Grid:
    """The grid of a checked stack: from the positions of its first and last frame, whatever other tags say."""
    first, last = (np.array(stack.frames[n].position) for n in (0, -1))
    axes = axes_of(stack.frames[0])
    step = float((last - first) @ axes[:, 2]) / (len(stack.frames) - 1)
    columns, rows = stack.frames[0].size
    return Grid(
        (columns, rows, len(stack.frames)),
        (*stack.frames[0].spacing, step),
        tuple(first.tolist()),
        tuple(axes.ravel().tolist()),
    )


def axes_of(frame: Frame) -> np.ndarray:
    """3 x 3: the directions of rows, columns and slices of a frame as columns, orthonormal."""
    along, across = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    along = along / np.linalg.norm(along)
    across = across - (across @ along) * along
    across = across / np.linalg.norm(across)
    return np.stack([along, across, np.cross(along, across)], axis=1)


def _heights(frames: Sequence[Frame]) -> np.ndarray:
    """Where frames lie along the normal of the first, in mm."""
    return np.array([frame.position for frame in frames]) @ axes_of(frames[0])[:, 2]


def _parallel(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Groups of one direction, size and pixel spacing, each sorted along its normal."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            first = group[0]
            if (
                frame.size == first.size
                and np.allclose(frame.spacing, first.spacing, rtol=1e-4)
                and np.abs(np.subtract(frame.orientation, first.orientation)).max() <= _PARALLEL
            ):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return [_sorted(group) for group in groups]


def _sorted(frames: Sequence[Frame]) -> list[Frame]:
    order = np.argsort(_heights(frames), kind="stable")
    return [frames[n] for n in order]


def _modality(frames: Sequence[Frame]) -> str:
    return frames[0].header.text("Modality")


def _without_copies(frames: list[Frame]) -> tuple[list[Frame], list[tuple[Frame, Frame]]]:
    """Files that bear the same identity are one; whether their pixels agree is seen when they are read."""
    seen: dict[tuple, Frame] = {}
    copies = []
    for frame in frames:
        identity = frame.header.text("SOPInstanceUID")
        kept = seen.setdefault((identity or id(frame), frame.index, frame.position), frame)
        if kept is not frame:
            copies.append((kept, frame))
    return list(seen.values()), copies


def _places(frames: Sequence[Frame]) -> list[int]:
    """For each frame, in order along the normal, the number of its place."""
    heights = _heights(frames)
    return np.concatenate([[0], np.cumsum(np.diff(heights) > _SAME_PLACE_MM)]).astype(int).tolist()


def _most_at_one_place(frames: Sequence[Frame]) -> int:
    return max(Counter(_places(frames)).values())


def _apart(frames: list[Frame], modality: str, words: str = "") -> list[tuple[str, list[Frame], str]]:
    """Split frames until there is one at each place: (what the part is, its frames, why it is no volume)."""
    most = _most_at_one_place(frames)
    names = list(dict.fromkeys(name for frame in frames for name in frame.marks))
    for name in names:
        parts = _by_mark(frames, name)
        if len(parts) < 2:
            continue
        doubled = most > 1 and len(parts) <= most and all(_most_at_one_place(p) < most for p in parts.values())
        if doubled or (most == 1 and _alternate(frames, parts, name, modality)):
            return [
                result
                for number, (value, part) in enumerate(parts.items())
                for result in _apart(part, modality, _join(words, _in_words(name, value, number, len(parts))))
            ]
    if most == 1:
        return [(words, frames, "")]
    return _by_number(frames, words) or _by_pixels(frames, words)


def _by_mark(frames: Sequence[Frame], name: str) -> dict[Any, list[Frame]]:
    parts = defaultdict(list)
    for frame in frames:
        parts[frame.marks.get(name)].append(frame)
    return dict(sorted(parts.items(), key=lambda item: _rank(item[0])))


def _rank(value: Any) -> tuple:
    if isinstance(value, float):
        return (0, value, "")
    return (1, 0.0, str(value))


def _alternate(frames: Sequence[Frame], parts: dict[Any, list[Frame]], name: str, modality: str) -> bool:
    """Whether two images share one series with their slices in turn: each of them is even by itself."""
    # MR acquires one volume in several interleaved acquisitions; CT and PET do not.
    if name not in _CONTRASTS and not (name == "acquisition" and modality in ("CT", "PT")):
        return False
    if any(len(part) < 2 for part in parts.values()):
        return False
    values = [frame.marks.get(name) for frame in frames]
    runs = 1 + sum(a != b for a, b in pairwise(values))
    return runs > len(parts) and all(_is_even(part) for part in parts.values())


def _is_even(frames: Sequence[Frame]) -> bool:
    steps = np.diff(_heights(frames))
    return bool(np.ptp(steps) <= 2 * _UNEVEN * np.median(steps))


def _by_number(frames: list[Frame], words: str) -> list[tuple[str, list[Frame], str]]:
    """Volumes whose instance numbers follow each other; empty unless each has one frame at every place."""
    places = dict(zip(map(id, frames), _places(frames), strict=True))
    n_places = max(places.values()) + 1
    in_one_file = frames[0].n_in_file > 1
    numbers = [frame.index if in_one_file else frame.header.number("InstanceNumber") or 0 for frame in frames]
    if len(set(numbers)) < len(frames) or len(frames) % n_places:
        return []
    ordered = [frames[n] for n in np.argsort(numbers, kind="stable")]
    volumes = [ordered[n : n + n_places] for n in range(0, len(ordered), n_places)]
    if any(len({places[id(frame)] for frame in volume}) < n_places for volume in volumes):
        # Or the numbers run through the images at one place first.
        length = len(volumes)
        rows = [ordered[n : n + length] for n in range(0, len(ordered), length)]
        if any(len({places[id(frame)] for frame in row}) > 1 for row in rows):
            return []
        volumes = [list(column) for column in zip(*rows, strict=True)]
    count = len(volumes)
    return [(_join(words, f"volume {n + 1} of {count}"), _sorted(v), "") for n, v in enumerate(volumes)]


def _by_pixels(frames: list[Frame], words: str) -> list[tuple[str, list[Frame], str]]:
    """Copies under another identity are left out; otherwise nobody can say which frame belongs to which image."""
    kept: dict[int, Frame] = {}
    for frame, place in zip(frames, _places(frames), strict=True):
        other = kept.setdefault(place, frame)
        if other is not frame and not same_pixels(other, frame):
            problem = f"several slices at one place (time points or echoes), such as {other.name} and {frame.name}"
            return [(words, frames, problem)]
    return [(words, list(kept.values()), "")]


def _join(words: str, more: str) -> str:
    return f"{words}, {more}" if words else more


def _in_words(name: str, value: Any, number: int, count: int) -> str:
    if name in _TIMES:  # never the time itself
        return f"time point {number + 1} of {count}"
    if name == "gradient direction" or name.startswith("dimension"):
        return f"{name.partition(' ')[0] if name[0] == 'd' else 'direction'} {number + 1} of {count}"
    if value is None:
        return f"no {name}"
    if isinstance(value, tuple) and name == "b-value":  # GE: more numbers follow
        value = value[0]
    if isinstance(value, tuple):
        value = " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value[:6])
    elif isinstance(value, float):
        value = f"{value:g}"
    return f"{name} {value}"


def _mixed_units(stack: Stack) -> str:
    """Intensities of two units; a slice that names none may have either."""
    for units in zip(*(frame.units for frame in stack.frames), strict=True):
        found: dict[str, Frame] = {}
        for unit, frame in zip(units, stack.frames, strict=True):
            found.setdefault(unit, frame)
        found.pop("", None)
        if len(found) > 1:
            first, second = [f"{unit} in {frame.name}" for unit, frame in found.items()][:2]
            return f"intensities of different units: {first}, {second}"
    return ""


def _uneven(stack: Stack) -> list[str]:
    heights = _heights(stack.frames)
    steps = np.diff(heights)
    usual = float(np.median(steps))
    if np.abs(steps - usual).max() <= _UNEVEN * usual:
        # Small misses must not add up.
        line = np.linspace(heights[0], heights[-1], len(heights))
        if np.abs(heights - line).max() <= 2 * _UNEVEN * usual:
            return []
    worst = int(np.argmax(np.abs(steps - usual)))
    pair = f"{stack.frames[worst].name} and {stack.frames[worst + 1].name}"
    return [f"unevenly spaced slices ({steps.min():.2f} to {steps.max():.2f} mm apart; look between {pair})"]


def _sideways(stack: Stack) -> list[str]:
    """A tilt of the stack, or single slices moved in their plane."""
    axes = axes_of(stack.frames[0])
    places = (np.array([frame.position for frame in stack.frames]) - stack.frames[0].position) @ axes
    allowed = _SIDEWAYS * min(stack.frames[0].spacing)
    line = places[:, 2:] / places[-1, 2] * places[-1, :2]
    off = np.linalg.norm(places[:, :2] - line, axis=1)
    drift = float(np.linalg.norm(places[-1, :2]))
    if off.max() > allowed:
        return [f"a slice that is shifted sideways by {off.max():.2g} mm ({stack.frames[int(off.argmax())].name})"]
    if drift > allowed:
        return [f"a gantry tilt of {np.degrees(np.arctan2(drift, places[-1, 2])):.1f} degrees"]
    return []


def _notes(stack: Stack) -> list[str]:
    notes = []
    if stack.copies:
        notes.append(f"{len(stack.copies)} of the DICOM files are copies of others and were taken once.")
    places = {frame.header.text("FrameOfReferenceUID") for frame in stack.frames}
    if len(places) > 1:
        notes.append(
            f"The tags of the slices name {len(places)} coordinate systems (frames of reference): check that all "
            "slices are of one examination."
        )
    n_slices = _said(stack, "NumberOfSlices")
    # An acquisition may have other images than these slices, such as a scout or another echo of the series.
    acquisitions = {frame.header.number("AcquisitionNumber") for frame in stack.frames}
    n_images = _said(stack, "ImagesInAcquisition") if len(acquisitions) == 1 else 0
    if n_slices > len(stack.frames):
        notes.append(f"The tags of the scan speak of {n_slices} slices, but only {len(stack.frames)} are there.")
    elif n_images > stack.n_in_series:
        notes.append(
            f"The tags of the scan speak of {n_images} images in its acquisition, but only {stack.n_in_series} are "
            "there: check that no slice is missing."
        )
    return notes


def _said(stack: Stack, keyword: str) -> int:
    """The number that a tag gives in all files of one frame; 0 if they differ or none has it."""
    said = {frame.header.number(keyword) for frame in stack.frames} - {None}
    return said.pop() or 0 if len(said) == 1 and stack.frames[0].n_in_file == 1 else 0
