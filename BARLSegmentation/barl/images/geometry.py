# SPDX-License-Identifier: Apache-2.0
"""Where voxels lie: the grid of a scan, its axes, and boxes in it.

Coordinates are LPS millimeters, as in SimpleITK and DICOM. Tuples of a grid are in (x, y, z) order of the index;
arrays are ``[k, j, i]``, that is (z, y, x).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations, product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError

T = TypeVar("T")
# One value per axis.
Triple = tuple[T, T, T]

_DIRECTION_OF_LETTER = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}


def triple(values: Iterable[T]) -> Triple[T]:
    """Exactly three values as a tuple."""
    first, second, third = values
    return first, second, third


@dataclass(frozen=True)
class Grid:
    """The voxel lattice of a scan.

    Attributes:
        size: Voxels along x, y, z of the index.
        spacing: Millimeters between voxel centers along the same axes.
        origin: LPS position of voxel (0, 0, 0) in mm.
        direction: 3 x 3 cosines, row by row; column a is the LPS direction of index axis a.
    """

    size: Triple[int]
    spacing: Triple[float]
    origin: Triple[float]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def of_file(cls, path: Path | str) -> Grid:
        """The grid of an image file, read from its header: files round the geometry a little."""
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        return cls(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Grid:
        return cls(
            triple(int(n) for n in data["size"]),
            triple(float(v) for v in data["spacing"]),
            triple(float(v) for v in data["origin"]),
            tuple(float(v) for v in data["direction"]),
        )

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) for key, value in asdict(self).items()}

    @property
    def axes(self) -> np.ndarray:
        """3 x 3: column a is the unit vector (LPS) of index axis a."""
        return np.asarray(self.direction, dtype=np.float64).reshape(3, 3)

    @property
    def shape(self) -> Triple[int]:
        """Shape ``(k, j, i)`` of an array on this grid."""
        return self.size[::-1]

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing)) / 1000.0

    def index_to_mm(self, ijk: Sequence[float] | np.ndarray) -> np.ndarray:
        """LPS positions in mm, ``[..., 3]``, of (continuous) indices ``[..., 3]`` in (x, y, z) order."""
        return np.asarray(ijk, dtype=np.float64) * self.spacing @ self.axes.T + self.origin

    def mm_to_index(self, mm: Sequence[float] | np.ndarray) -> np.ndarray:
        """Continuous indices ``[..., 3]`` in (x, y, z) order of LPS positions ``[..., 3]`` in mm."""
        return (np.asarray(mm, dtype=np.float64) - self.origin) @ np.linalg.inv(self.axes).T / self.spacing

    def matches(self, other: Grid, tolerance_mm: float | None = None) -> bool:
        """Whether both grids have the same voxels.

        Args:
            tolerance_mm: Largest distance between corresponding corner voxels; by default 2 % of the smallest spacing,
                which forgives the rounding of a file header and nothing that matters.
        """
        if self.size != other.size:
            return False
        if tolerance_mm is None:
            tolerance_mm = 0.02 * min(self.spacing)
        return self.distance_mm(other) <= tolerance_mm

    @property
    def corners(self) -> np.ndarray:
        """Indices ``[8, 3]`` of the corner voxels, (x, y, z)."""
        return np.array(list(product(*((0, n - 1) for n in self.size))), dtype=np.float64)

    def distance_mm(self, other: Grid) -> float:
        """How far corresponding voxels of two grids of one size lie apart at most."""
        corners = self.corners
        return float(np.linalg.norm(self.index_to_mm(corners) - other.index_to_mm(corners), axis=1).max())

    def empty(self, pixel_type: int = sitk.sitkUInt8) -> sitk.Image:
        """An image of zeros on this grid."""
        return self.place(sitk.Image(self.size, pixel_type))

    def place(self, image: sitk.Image) -> sitk.Image:
        """Give ``image`` (of this grid's size) this grid's geometry, in place."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def image(self, array: np.ndarray) -> sitk.Image:
        """The image of an array ``[k, j, i]`` on this grid."""
        if array.shape != self.shape:
            raise ValueError(f"array of shape {array.shape} on a grid of shape {self.shape}")
        return self.place(sitk.GetImageFromArray(array))

    def crop(self, start: Sequence[float] | np.ndarray, stop: Sequence[float] | np.ndarray) -> Grid:
        """The part from voxel ``start`` up to but without ``stop``, both (x, y, z)."""
        size = triple(int(b) - int(a) for a, b in zip(start, stop, strict=True))
        return Grid(size, self.spacing, triple(self.index_to_mm(start).tolist()), self.direction)

    def oriented(self, axes: AxisMap) -> Grid:
        """The same voxels in another order of the axes."""
        first = [0, 0, 0]
        for source, flip in zip(axes.source, axes.flip, strict=True):
            first[source] = self.size[source] - 1 if flip else 0
        signs = np.where(axes.flip, -1.0, 1.0)
        return Grid(
            triple(self.size[a] for a in axes.source),
            triple(self.spacing[a] for a in axes.source),
            triple(self.index_to_mm(first).tolist()),
            tuple((self.axes[:, list(axes.source)] * signs).ravel().tolist()),
        )


@dataclass(frozen=True)
class AxisMap:
    """A re-ordering of axes without interpolation: new axis a is old axis ``source[a]``, reversed if ``flip[a]``.

    Both are in (x, y, z) order.
    """

    source: Triple[int]
    flip: Triple[bool]

    def view(self, array: np.ndarray) -> np.ndarray:
        """The re-ordered array, a view: the last three axes of ``array`` are (k, j, i), those before stay."""
        leading = array.ndim - 3
        order = [leading + 2 - a for a in reversed(self.source)]
        steps = [slice(None, None, -1) if flip else slice(None) for flip in reversed(self.flip)]
        return array.transpose(*range(leading), *order)[(..., *steps)]


def axes_towards(grid: Grid, orientation: str = "LPS") -> AxisMap:
    """The axis order and flips that bring a grid nearest to an orientation, without interpolation.

    The choice depends only on the grid's lines in space, not on the order in which its axes are stored: every permuted
    or flipped copy of a scan comes out the same, also when it lies oblique by 45 degrees.

    Args:
        orientation: Three letters: where x, y and z of the index point to, such as ``LPS``.

    Raises:
        InputError: ``orientation`` is not such a code.
    """
    try:
        target = np.array([_DIRECTION_OF_LETTER[letter] for letter in orientation.upper()], dtype=np.float64)
        if abs(np.linalg.det(target)) < 0.5:
            raise ValueError
    except (KeyError, ValueError, np.linalg.LinAlgError):
        raise InputError(
            f"'{orientation}' is not an orientation.", "Use three letters of L/R, P/A and S/I, such as LPS."
        ) from None
    cosines = target @ grid.axes  # [target axis, grid axis]

    def preference(source: Sequence[int]) -> tuple[float, ...]:
        chosen = cosines[range(3), source]
        lines = grid.axes[:, list(source)] * np.where(chosen < 0, -1.0, 1.0)
        return (round(float(np.abs(chosen).sum()), 5), *(np.round(lines, 5).ravel() + 0.0).tolist())

    source = max((triple(order) for order in permutations(range(3))), key=preference)
    return AxisMap(source, triple(bool(cosines[a, source[a]] < 0) for a in range(3)))


def axes_between(grid: Grid, other: Grid) -> AxisMap:
    """The axis order and flips that turn ``grid``'s axes into ``other``'s, which run along the same lines.

    Raises:
        InputError: The axes are not parallel: the grids do not belong to the same scan.
    """
    cosines = other.axes.T @ grid.axes
    source = triple(int(a) for a in np.abs(cosines).argmax(axis=1))
    chosen = cosines[range(3), source]
    if len(set(source)) < 3 or np.abs(chosen).min() < 1 - 1e-4:
        raise InputError(
            "The result and the scan have different axes, so the one cannot be brought onto the other.",
            "Use the scan from which the result was made.",
        )
    return AxisMap(source, triple(bool(c < 0) for c in chosen))


def orientation_code(grid: Grid) -> str:
    """Three letters: where x, y and z of the index point to, nearest axis (``LPS`` is the identity)."""
    axes = axes_towards(grid, "LPS")
    code = [""] * 3
    for letters, source, flip in zip(("LR", "PA", "SI"), axes.source, axes.flip, strict=True):
        code[source] = letters[int(flip)]
    return "".join(code)


@dataclass(frozen=True)
class Roi:
    """A box in the patient.

    Attributes:
        center_mm: Its center, LPS.
        half_size_mm: Half its edges along its axes.
        direction: Its axes, 3 x 3 row by row, column a the direction of edge a (LPS); None: along the scan's own axes.
    """

    center_mm: Triple[float]
    half_size_mm: Triple[float]
    direction: tuple[float, ...] | None = None

    @classmethod
    def from_bounds_mm(cls, bounds: Sequence[float]) -> Roi:
        """The box along the patient's axes from bounds ``(x0, x1, y0, y1, z0, z1)`` in LPS mm."""
        low, high = np.asarray(bounds[0::2], dtype=np.float64), np.asarray(bounds[1::2], dtype=np.float64)
        return cls(
            triple(((low + high) / 2).tolist()), triple(((high - low) / 2).tolist()), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
        )

    def along(self, grid: Grid) -> Roi:
        """The same box with its axes written out: those of ``grid`` if it had none of its own."""
        return replace(self, direction=self.direction or grid.direction)

    def box(self, grid: Grid) -> tuple[Triple[int], Triple[int]]:
        """The smallest index box (start, stop; x, y, z) whose voxels cover the ROI, cut to the grid.

        Raises:
            InputError: The ROI has no extent or lies outside the scan.
        """
        half = np.asarray(self.half_size_mm, dtype=np.float64)
        if not (np.isfinite(half).all() and np.isfinite(self.center_mm).all() and (half > 0).all()):
            raise InputError("The region of interest has no extent.", "Draw a box around the structure.")
        axes = np.asarray(self.along(grid).direction, dtype=np.float64).reshape(3, 3)
        corners = np.array(list(product((-1, 1), repeat=3))) * half @ axes.T + self.center_mm
        index = grid.mm_to_index(corners)
        # The voxel of index n reaches from n - 0.5 to n + 0.5; 1e-6 keeps rounding from adding a voxel.
        start = np.maximum(np.floor(index.min(axis=0) + 0.5 + 1e-6), 0).astype(int)
        stop = np.minimum(np.ceil(index.max(axis=0) + 0.5 - 1e-6), grid.size).astype(int)
        if (stop <= start).any():
            raise InputError("The region of interest lies outside the scan.", "Move the box onto the scan.")
        return triple(start.tolist()), triple(stop.tolist())
