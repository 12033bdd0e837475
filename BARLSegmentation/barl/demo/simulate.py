# SPDX-License-Identifier: Apache-2.0
"""Simulated cases for a machine that has no scans and no network: lesions with known truth in a real average brain.

The anatomy is the MNI152 T1 average (ICBM 2009a, brain-extracted) that the package nilearn carries. Each case bends it
smoothly at random and places 2 to 15 dark lesions in its white matter, 0.02 to 1 ml large and between gray matter and
fluid in brightness, so that neither a threshold nor the position alone finds them. They are plain enough for the few
minutes of a demo: a supervised network of widths 8 to 64 reaches a Dice of 0.53 after 300 steps with 4 cases (0.22
with lesions that lose 10 points less of their signal, 0.2 ml as their median and more shading and noise).

This exercises the tool; it is no data to judge a method by, and reports must call it simulated.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.polynomial.legendre import leggrid3d
from scipy import ndimage
from scipy.spatial.transform import Rotation

from barl.errors import InputError, storage_error
from barl.images.geometry import Grid
from barl.images.writing import write_image
from barl.progress import SILENT, Progress

LESION = 1
# The whole width and length of the brain and its upper 128 mm, in LPS.
GRID = Grid((76, 96, 64), (2.0, 2.0, 2.0), (-75.0, -78.0, -47.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
FEWEST, MOST = 2, 15
SMALLEST_ML, LARGEST_ML = 0.024, 1.0
_MEDIAN_ML, _LOG_SD = 0.25, 0.8
_CONTRAST = 0.5, 0.65  # share of the signal that a case's lesions lose
_REACH = 9  # voxels; the longest half-axis of a lesion of 1 ml is about 6
_NEIGHBOURS_26 = np.ones((3, 3, 3), bool)
_LOWEST_MM = -5.0  # brain stem and cerebellum, below, stay free of lesions


def simulate_cases(folder: Path, n: int, seed: int, progress: Progress = SILENT) -> list[tuple[Path, Path]]:
    """Write ``n`` simulated cases: ``images/simulated_<number>.nii.gz`` and ``labels/`` of the same name.

    Args:
        folder: Where to; made if missing.
        n: Number of cases.
        seed: The same seed gives the same cases; the first cases of a longer series are those of a shorter one.
        progress: Told after each case.

    Returns:
        Image and label path per case. Label value 1 is lesion.

    Raises:
        InputError: The package nilearn is not installed.
        StorageError: The disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    written = []
    try:
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    for number, part in progress.stage("simulating").each(range(n)):
        image, label = simulate_case(np.random.default_rng([seed, number]))
        name = f"simulated_{number + 1:03d}.nii.gz"
        paths = folder / "images" / name, folder / "labels" / name
        for path, volume in zip(paths, (image, label), strict=True):
            write_image(volume, path)
        written.append(paths)
        part.at(1.0, f"{number + 1} of {n} cases")
    return written


def simulate_case(rng: np.random.Generator) -> tuple[sitk.Image, sitk.Image]:
    """One case on ``GRID``: a T1-weighted image (int16, 0 outside the brain) and its lesions (uint8, 0 or 1)."""
    head = sitk.Resample(_template(), GRID.empty(), _deformation(rng), sitk.sitkLinear, 0.0)
    t1, white = np.moveaxis(sitk.GetArrayFromImage(head), -1, 0)
    lesions, darkness = _lesions(white, rng)
    return GRID.image(_acquire(t1 * (1 - darkness), rng)), GRID.image(lesions.astype(np.uint8))


@cache
def _template() -> sitk.Image:
    """T1 average in [0, 1] and white-matter probability as the two components of an image at 1 mm, LPS."""
    try:
        from nilearn import datasets
    except ImportError:
        raise InputError(
            "Simulated cases need the package nilearn, which carries the MNI152 scan.",
            "Install it: pip install nilearn.",
        ) from None
    images = []
    for template in (datasets.load_mni152_template(resolution=1), datasets.load_mni152_wm_template(resolution=1)):
        affine = template.affine  # x to the right, y to the front, z up, without rotation
        image = sitk.GetImageFromArray(np.asarray(template.dataobj, dtype=np.float32).T)
        image.SetSpacing(np.abs(np.diag(affine)[:3]).tolist())
        image.SetOrigin([-affine[0, 3], -affine[1, 3], affine[2, 3]])
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        images.append(image)
    return sitk.Compose(images)


def _deformation(rng: np.random.Generator) -> sitk.Transform:
    """Another head: a few degrees and per cent of rotation and size, and a smooth bend (2 mm on average)."""
    center = GRID.index_to_mm((np.array(GRID.size) - 1) / 2)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(center.tolist())
    turn = Rotation.from_euler("xyz", rng.normal(0, 3, 3), degrees=True).as_matrix()
    affine.SetMatrix((turn @ np.diag(rng.normal(1, 0.04, 3))).ravel().tolist())
    affine.SetTranslation(rng.normal(0, 2, 3).tolist())
    bend = sitk.BSplineTransformInitializer(GRID.empty(), [4, 5, 4], order=3)
    bend.SetParameters(rng.normal(0, 4, len(bend.GetParameters())).tolist())
    # Read off every 8 mm: so smooth a field needs no more, and the cubic B-spline is not asked at each voxel.
    step = 8.0
    nodes = [int(n * edge // step) + 2 for n, edge in zip(GRID.size, GRID.spacing, strict=True)]
    field = sitk.TransformToDisplacementField(
        sitk.CompositeTransform([affine, bend]), sitk.sitkVectorFloat64, nodes, GRID.origin, (step,) * 3, GRID.direction
    )
    return sitk.DisplacementFieldTransform(field)


def _lesions(white: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Place separate lesions in white matter.

    Args:
        white: Probability of white matter [k, j, i] on ``GRID``.
        rng: Source of randomness.

    Returns:
        Lesion mask, and the share of the signal that is lost [k, j, i], soft at the lesions' borders.
    """
    heights = GRID.index_to_mm(np.array([(0, 0, k) for k in range(GRID.size[2])]))[:, 2]
    free = (white > 0.9) & (heights > _LOWEST_MM)[:, None, None]
    mask, darkness = np.zeros(white.shape, bool), np.zeros(white.shape, np.float32)
    contrast = rng.uniform(*_CONTRAST)
    missing = int(rng.integers(FEWEST, MOST + 1))
    while missing and free.any():
        center = rng.choice(np.argwhere(free))
        free[tuple(center)] = False
        window = tuple(slice(max(0, at - _REACH), at + _REACH + 1) for at in center)
        lesion = _lesion(center - [part.start for part in window], white[window], rng)
        lesion &= ~ndimage.binary_dilation(mask[window], _NEIGHBOURS_26)
        # What white matter or another lesion has cut off or apart is no lesion of the wanted size.
        if ndimage.label(lesion, _NEIGHBOURS_26)[1] != 1 or not _is_sized(lesion):
            continue
        missing -= 1
        mask[window] |= lesion
        soft = ndimage.gaussian_filter(lesion.astype(np.float32), 0.6)
        darkness[window] = np.maximum(darkness[window], soft * contrast * rng.uniform(0.85, 1.15))
        free[window] &= ~ndimage.binary_dilation(lesion, iterations=2)
    return mask, darkness


def _lesion(center: np.ndarray, white: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rough ellipsoid around ``center`` (k, j, i) within the white matter of a window [k, j, i]."""
    ml = np.clip(_MEDIAN_ML * np.exp(rng.normal(0, _LOG_SD)), SMALLEST_ML, LARGEST_ML)
    radius = (3 * ml / GRID.voxel_ml / (4 * np.pi)) ** (1 / 3)
    stretch = np.exp(rng.normal(0, 0.25, 3))
    offset = np.moveaxis(np.indices(white.shape), 0, -1) - center - rng.uniform(-0.5, 0.5, 3)
    turned = offset @ Rotation.random(random_state=rng).as_matrix() / (radius * stretch / np.prod(stretch) ** (1 / 3))
    roughness = ndimage.gaussian_filter(rng.normal(size=white.shape), 1.0)
    return (np.linalg.norm(turned, axis=-1) + 0.25 * roughness / roughness.std() < 1) & (white > 0.5)


def _is_sized(lesion: np.ndarray) -> bool:
    return SMALLEST_ML <= float(np.count_nonzero(lesion)) * GRID.voxel_ml <= LARGEST_ML


def _acquire(t1: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulates the scanner: contrast, shading, noise and an arbitrary scale, applied to tissue in [0, 1]."""
    brain = t1 > 0.05
    z, y, x = (np.linspace(-1, 1, n) for n in t1.shape)
    shading = leggrid3d(z, y, x, rng.normal(0, 0.025, (3, 3, 3)))
    signal = np.clip(t1, 0, None) ** rng.uniform(0.85, 1.2) * np.exp(shading)
    sd = rng.uniform(0.015, 0.03)
    # The magnitude of a complex signal: noise as in MR, never negative.
    noisy = np.hypot(signal + rng.normal(0, sd, t1.shape), rng.normal(0, sd, t1.shape))
    return np.where(brain, np.round(noisy * rng.uniform(300, 3000)), 0).astype(np.int16)
