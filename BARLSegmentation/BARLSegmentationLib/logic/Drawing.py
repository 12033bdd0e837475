# SPDX-License-Identifier: Apache-2.0
"""What a person has drawn on a case: whole planes and strokes, found by comparing label maps. Arrays alone, no MRML."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

Plane = tuple[int, int]
"""Axis of an array ``[k, j, i]`` that the plane is perpendicular to, and its index along it."""

Box = tuple[slice, slice, slice]
REMEMBERED = 32  # outlines whose drawn planes come back with undo and redo; the editor keeps 10


@dataclass(frozen=True)
class Patch:
    """Voxels of a box: ``voxels`` is as large as ``box``."""

    box: Box
    voxels: np.ndarray


@dataclass(frozen=True)
class Fill:
    """What a fill has left behind.

    Attributes:
        box: Where it worked.
        uncertainty: In that box, float32, 0 to 1.
        hotspots: As a prediction keeps them (``barl.inference.hotspots``).
        volumeMl, unsureMl: Volume of the outline, and of the voxels that are uncertain.
        expected: ``dice`` to expect, ``planes`` that are worth outlining and ``dice_after`` them; None: not known.
        planes, strokes: Planes and number of strokes that it was made from.
    """

    box: Box
    uncertainty: np.ndarray
    hotspots: list[dict]
    volumeMl: float
    unsureMl: float
    expected: dict | None = None
    planes: frozenset[Plane] = frozenset()
    strokes: int = 0

    def wholeUncertainty(self, shape: tuple[int, ...]) -> np.ndarray:
        """Of a scan of a shape (k, j, i)."""
        whole = np.zeros(shape, np.float32)
        whole[self.box] = self.uncertainty
        return whole


@dataclass(frozen=True)
class Drawn:
    """Everything on a case that counts as drawn by a person.

    Attributes:
        shape: Of the scan (k, j, i).
        planes: Those that count as a whole, background included.
        strokes: Voxels that were changed by hand, in drawn planes or not.
        filledBy: What has filled the rest; empty if nothing has.
        fill: The last fill, if it was made since the case was opened.
    """

    shape: tuple[int, ...]
    planes: frozenset[Plane] = frozenset()
    strokes: tuple[Patch, ...] = ()
    filledBy: str = ""
    fill: Fill | None = None

    @property
    def isEmpty(self) -> bool:
        return not self.planes and not self.strokes

    @property
    def key(self) -> tuple:
        """Equal for equal states, as far as they are stored."""
        return self.planes, len(self.strokes), self.filledBy

    def indices(self, axis: int) -> list[int]:
        """Indices of the planes perpendicular to an axis."""
        return sorted(index for other, index in self.planes if other == axis)

    def share(self) -> float:
        """Part of the scan that lies in drawn planes, 0 to 1."""
        rest = 1.0
        for axis, size in enumerate(self.shape):
            rest *= 1 - len(self.indices(axis)) / size
        return 1 - rest

    def mask(self) -> np.ndarray:
        """All drawn voxels, bool ``[k, j, i]``."""
        mask = np.zeros(self.shape, bool)
        for patch in self.strokes:
            mask[patch.box] |= patch.voxels
        for axis, index in self.planes:
            mask[(slice(None),) * axis + (index,)] = True
        return mask

    def ticked(self, plane: Plane, on: bool) -> Drawn:
        """With a plane counted as drawn, or not, in which case what was changed by hand in it does not count either."""
        if on:
            return replace(self, planes=self.planes | {plane})
        axis, index = plane
        strokes = []
        for patch in self.strokes:
            side = patch.box[axis]
            if side.start <= index < side.stop:
                voxels = patch.voxels.copy()
                voxels[(slice(None),) * axis + (index - side.start,)] = False
                patch = Patch(patch.box, voxels)
            if patch.voxels.any():
                strokes.append(patch)
        return replace(self, planes=self.planes - {plane}, strokes=tuple(strokes))


@dataclass(frozen=True)
class Look:
    """A label map compared with the one before.

    Attributes:
        labels: The label map ``[k, j, i]``.
        digest: Of its voxels.
        changed: The voxels that differ from those before; None if none does, or if there was none before.
        planes: Planes a person has worked in that hold some of them.
        noted: How many of the noted planes were looked at.
    """

    labels: np.ndarray
    digest: bytes
    changed: Patch | None = None
    planes: frozenset[Plane] = frozenset()
    noted: int = 0


@dataclass
class Drawing:
    """Keeps what was drawn in step with the outline, also over undo and redo: an outline that was there before brings
    back the planes that counted then.

    Attributes:
        drawn: What counts as drawn now.
    """

    drawn: Drawn = field(default_factory=lambda: Drawn((0, 0, 0)))
    _labels: np.ndarray | None = None
    _digest: bytes = b""
    _noted: list[Plane] = field(default_factory=list)
    _before: OrderedDict[bytes, Drawn] = field(default_factory=OrderedDict)

    def begin(self, shape: Iterable[int], mask: np.ndarray | None = None, filledBy: str = "") -> None:
        """Another case.

        Args:
            shape: Of the scan (k, j, i).
            mask: What was drawn on it, from a stored revision.
            filledBy: What has filled the rest.
        """
        self.drawn = replace(drawnOf(mask), filledBy=filledBy) if mask is not None else Drawn(tuple(shape))
        self._labels, self._digest, self._noted = None, b"", []
        self._before.clear()

    def replaced(self) -> None:
        """The outline is another one as a whole, by no hand; an undo brings back what counted before."""
        self.drawn = Drawn(self.drawn.shape)
        self._labels, self._digest, self._noted = None, b"", []

    def note(self, plane: Plane) -> None:
        """A person is working in a plane; whether something changed there, the next look finds out."""
        if not self._noted or self._noted[-1] != plane:
            self._noted.append(plane)

    def looking(self) -> Callable[[np.ndarray], Look]:
        """What compares a label map with the one before; any thread may call it. Give its answer to ``take``."""
        before, noted = self._labels, list(self._noted)
        return lambda labels: _look(before, labels, noted)

    def after(self, look: Look) -> Drawn:
        """What counts as drawn with an outline that was looked at."""
        if look.digest == self._digest:
            return self.drawn
        if look.digest in self._before:
            return self._before[look.digest]
        if look.changed is None:
            return self.drawn
        return replace(self.drawn, planes=self.drawn.planes | look.planes, strokes=(*self.drawn.strokes, look.changed))

    def take(self, look: Look) -> bool:
        """Go on from a look; returns whether something else counts as drawn now."""
        before, now = self.drawn, self.after(look)
        del self._noted[: look.noted]
        self._remember(look.labels, look.digest, now)
        return now is not before

    def tick(self, plane: Plane, on: bool) -> None:
        """Count a plane as drawn, or not."""
        self._remember(self._labels, self._digest, self.drawn.ticked(plane, on))

    def filled(self, labels: np.ndarray, digest: bytes, fill: Fill, filledBy: str) -> None:
        """The outline is what a fill has made of what was drawn."""
        fill = replace(fill, planes=self.drawn.planes, strokes=len(self.drawn.strokes))
        self._remember(labels, digest, replace(self.drawn, fill=fill, filledBy=filledBy))

    def labels(self) -> np.ndarray | None:
        """The label map that was looked at last."""
        return self._labels

    def _remember(self, labels: np.ndarray | None, digest: bytes, drawn: Drawn) -> None:
        self._labels, self._digest, self.drawn = labels, digest, drawn
        self._before[digest] = drawn
        self._before.move_to_end(digest)
        while len(self._before) > REMEMBERED:
            self._before.popitem(last=False)


def digestOf(labels: np.ndarray) -> bytes:
    """Differs for different label maps of one shape."""
    return hashlib.blake2b(np.ascontiguousarray(labels).view(np.uint8), digest_size=16).digest()


def drawnOf(mask: np.ndarray) -> Drawn:
    """Planes and strokes of a mask ``[k, j, i]``."""
    from barl.fill.drawn import drawn_planes

    planes = frozenset((axis, int(n)) for axis, found in enumerate(drawn_planes(mask)) for n in found)
    rest = mask.copy()
    for axis, index in planes:
        rest[(slice(None),) * axis + (index,)] = False
    patch = _patch(rest)
    return Drawn(mask.shape, planes, (patch,) if patch is not None else ())


def _look(before: np.ndarray | None, labels: np.ndarray, noted: list[Plane]) -> Look:
    digest = digestOf(labels)
    changed = None if before is None else _patch(before != labels)
    if changed is None:
        return Look(labels, digest, noted=len(noted))
    planes = set()
    for axis, index in noted:
        side = changed.box[axis]
        inside = side.start <= index < side.stop
        if inside and changed.voxels[(slice(None),) * axis + (index - side.start,)].any():
            planes.add((axis, index))
    return Look(labels, digest, changed, frozenset(planes), len(noted))


def _patch(mask: np.ndarray) -> Patch | None:
    from barl.fill.drawn import bounding_box

    box = bounding_box(mask)
    return None if box is None else Patch(box, mask[box].copy())
