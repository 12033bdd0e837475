# SPDX-License-Identifier: Apache-2.0
"""What a file holds before it is checked: voxels, place and remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError
from barl.images.geometry import Grid

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])

# Axes may miss a right angle by this cosine; they are then straightened, and the way that voxels move is told.
SKEW = 5e-3
# A change of place below this share of a voxel, over the whole scan, is the rounding of a header.
ROUNDING_VOXELS = 0.01

_MILLIMETERS = {
    **dict.fromkeys(("nm", "nanometer", "nanometers"), 1e-6),
    # Case folding makes the Greek letter of the micro sign.
    **dict.fromkeys(("um", "\N{GREEK SMALL LETTER MU}m", "micron", "microns", "micrometer", "micrometers"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimeters"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("m", "meter", "meters"), 1000.0),
}


@dataclass
class Volume:
    """A volume as its file has it.

    Attributes:
        array: ``[k, j, i]``, or ``[component, k, j, i]`` where a voxel has several values.
        spacing: Millimeters between voxels along x, y, z of the index.
        origin: LPS position of voxel (0, 0, 0) in mm.
        axes: 3 x 3, orthonormal: column a is the LPS direction of index axis a.
        notes: What a user should know; no sentence names the file.
        texts: Keys and values of the header that are not geometry, such as the names of segments.
        components_mean: Why there are several values per voxel, such as ``list`` or ``time``.
    """

    array: np.ndarray
    spacing: Sequence[float]
    origin: Sequence[float]
    axes: np.ndarray
    notes: list[str] = field(default_factory=list)
    texts: Mapping[str, str] = field(default_factory=dict)
    components_mean: str = ""

    @property
    def grid(self) -> Grid:
        nz, ny, nx = self.array.shape[-3:]
        x, y, z = (float(s) for s in self.spacing)
        a, b, c = (float(o) for o in self.origin)
        return Grid((nx, ny, nz), (x, y, z), (a, b, c), tuple(self.axes.ravel().tolist()))


def of_memory(image: sitk.Image, name: str) -> Volume:
    """The volume of an image in memory, checked as files are.

    Args:
        image: Must live as long as the volume, which holds a view of its voxels.
        name: What messages call it.

    Raises:
        InputError: It has not three dimensions, holds no real numbers, or its axes are not at right angles.
    """
    kind = image.GetPixelIDTypeAsString()
    if "complex" in kind:
        raise no_number(name, "complex")
    if "label" in kind:
        image = sitk.LabelMapToLabel(image)
    sizes = spatial_sizes(image.GetSize(), name)
    n = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(n, n)[:3, :3]
    spacing, axes, notes = nearest_axes(direction * image.GetSpacing()[:3], sizes, name)
    array = sitk.GetArrayViewFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    array = array.reshape((*array.shape[: array.ndim - n], *sizes[::-1]))
    return Volume(array, spacing.tolist(), image.GetOrigin()[:3], axes, notes)


def spatial_sizes(sizes: Sequence[int], name: str) -> tuple[int, int, int]:
    """The three sizes of a volume; further axes of length one do no harm.

    Raises:
        InputError: There are fewer or more dimensions, or a size is not positive.
    """
    if any(n < 1 for n in sizes):
        raise damaged(name)
    if len(sizes) < 3:
        raise InputError(f"'{name}' is a two-dimensional image.", "Use a volume with at least two slices.")
    if any(n > 1 for n in sizes[3:]):
        raise InputError(
            f"'{name}' has four dimensions ({' x '.join(map(str, sizes))}): a time series or several channels in one.",
            "Export one time point, or each channel, as a volume of its own.",
        )
    return (sizes[0], sizes[1], sizes[2])


def nearest_axes(matrix: np.ndarray, sizes: Sequence[int], name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Spacing and orthonormal axes of a matrix whose columns are the steps from voxel to voxel, in LPS mm.

    Returns:
        Spacing ``[3]``, axes ``[3, 3]``, and a note if the axes had to be turned by more than a header's rounding.

    Raises:
        InputError: The axes are further from right angles than ``SKEW``, or there are none.
    """
    spacing = np.linalg.norm(matrix, axis=0)
    if not (np.isfinite(matrix).all() and (spacing > 0).all()):
        shown = " x ".join(f"{s:g}" for s in spacing)
        raise InputError(
            f"'{name}' has an unusable spacing of {shown} mm.", "Correct its header or export the scan again."
        )
    given = matrix / spacing
    off = float(np.abs(given.T @ given - np.eye(3)).max())
    if off > SKEW:
        raise InputError(
            f"The axes of '{name}' are not at right angles to each other: they are {np.degrees(np.arcsin(off)):.2g} "
            f"degrees off; up to {np.degrees(np.arcsin(SKEW)):.2g} are straightened.",
            "Resample it onto a rectangular grid, for example with nibabel.processing.resample_to_output in Python.",
        )
    left, _, right = np.linalg.svd(given)
    axes = left @ right
    moved = np.abs((axes - given) * spacing * (np.asarray(sizes) - 1)).sum(axis=1).max()
    notes = []
    if moved > ROUNDING_VOXELS * spacing.min():
        notes.append(
            f"The axes were not quite at right angles and were straightened; voxels moved by up to {moved:.3g} mm."
        )
    return spacing, axes, notes


def in_millimeters(units: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Millimeters in the units of length of a header, and notes.

    Args:
        units: One for each axis; empty where there is none. Nothing is said if all are empty, as in most files.
    """
    if not any(units):
        return np.ones(len(units)), []
    factors = {unit: _MILLIMETERS.get(unit.casefold()) for unit in units}
    unknown = [unit[:20] or "none" for unit, factor in factors.items() if factor is None]
    others = [unit for unit, factor in factors.items() if factor not in (None, 1.0)]
    notes = []
    if unknown:
        notes.append(f"The header's unit of length ({', '.join(unknown)}) is not known; millimeters are assumed.")
    if others:
        notes.append(
            f"The header gives lengths in {', '.join(others)}; they were converted to millimeters. Programs that pass "
            "over the unit see the scan in another size."
        )
    return np.array([factors[unit] or 1.0 for unit in units]), notes


def damaged(name: str) -> InputError:
    return InputError(f"'{name}' is damaged or cut off.", "Copy or export the scan again.")


def unknown_kind(name: str) -> InputError:
    return InputError(
        f"'{name}' is not an image file of a known kind, or its beginning is damaged.",
        "Use a NIfTI, NRRD or MHA file, or a folder with one DICOM series.",
    )


def no_number(name: str, what: str) -> InputError:
    """A refusal of pixels that are not one real number each."""
    if what == "complex":
        return InputError(f"'{name}' holds complex numbers.", "Export the magnitude image.")
    return InputError(
        f"'{name}' holds {what} values per voxel (a color image or vector field).",
        "Export it as a gray-scale volume, or each component as a volume of its own.",
    )
