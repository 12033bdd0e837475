# SPDX-License-Identifier: Apache-2.0
"""The fill of one box: levels, classifier, distance map and walker put together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from barl.fill import appearance, walker
from barl.fill.drawn import bounding_box, drawn_planes
from barl.fill.levels import Features, Level, block_mean, interpolate, make_levels
from barl.fill.shape import InterpolatedDistance
from barl.progress import SILENT, Progress


@dataclass(frozen=True)
class Settings:
    """The method's numbers; the defaults were chosen on scans that ``docs/few-slices.md`` does not report on.

    Attributes:
        contrast: Beta of the walker: what a unit of (limited) log odds between neighbors counts.
        gray_contrast: The same of a standard deviation of gray values, where no classifier can be fitted.
        appearance: Pull toward the classifier.
        temperature: Of the classifier's log odds in that pull.
        shape: Pull toward the interpolated distance map, one plane from a drawn one.
        decay: Power of the number of planes to the nearest drawn one with which that pull falls.
        band: Drawn voxels up to so many voxels from the other side of an outline teach the classifier.
    """

    contrast: float = 0.92
    gray_contrast: float = 30.0
    appearance: float = 0.03
    temperature: float = 0.5
    shape: float = 0.1
    decay: float = 4.0
    band: float = 5.0


DEFAULTS = Settings()

_TEACHING_VOXELS = 8_000
_FEW = 20
_SURE = 0.02  # coarser voxels below and above one minus this, and their neighbors' neighbors, are settled


@dataclass(frozen=True)
class Prior:
    """What a model says about a box.

    Attributes:
        probabilities: ``[labels, k, j, i]``, float32.
        pull: ``[k, j, i]``, how strongly it holds near the drawn planes.
        reach: Distance in mm to the nearest drawn plane at which it holds twice as strongly (four times as far: 17
            times).
    """

    probabilities: np.ndarray
    pull: np.ndarray
    reach: float


def solve_box(
    images: np.ndarray,
    labels: np.ndarray,
    known: np.ndarray,
    values: list[int],
    spacing: np.ndarray,
    prior: Prior | None = None,
    settings: Settings = DEFAULTS,
    progress: Progress = SILENT,
) -> np.ndarray:
    """Probabilities ``[labels, k, j, i]`` (float32) in a box.

    Args:
        images: ``[channels, k, j, i]``, the scan in the box.
        labels: Label values ``[k, j, i]``, right where ``known``.
        known: Drawn voxels.
        values: Label values that compete with each other and with the background.
        spacing: (k, j, i) in mm.
        prior: What a model says.
    """
    shares = np.stack([(labels == value) & known for value in values]).astype(np.float32)
    structure = np.any(shares, axis=0)
    inside = bounding_box(structure) or tuple(slice(0, n) for n in known.shape)
    center = np.array([(side.start + side.stop - 1) / 2 for side in inside])
    half = np.array([(side.stop - side.start) / 2 for side in inside])
    # A prediction says better than an ellipsoid where the structure lies; single strokes do not say it at all.
    most = max(len(places) for places in drawn_planes(known))
    has_place = prior is None and most > 0
    predicted = None if prior is None else prior.probabilities.any(axis=0)
    known = known | _background_faces(structure if predicted is None else structure | predicted)
    levels = make_levels(_scaled(images, known), known, shares, spacing, sparse=has_place and most == 1)
    features = Features(levels, (center, half) if has_place else None)
    teaching = _teaching(levels[-1], settings.band)
    priors = _prior_levels(prior, levels)
    result: np.ndarray | None = None
    for number in reversed(range(len(levels))):
        part = progress.part(1 - (number + 1) / len(levels), 1 / len(levels))
        part.at(0.0)
        level = levels[number]
        if number < len(levels) - 1:
            teaching = _repeat(teaching, levels[number + 1].factors, level.known.shape)
        result = _solve_level(levels, number, features, teaching & level.known, result, priors[number], settings, part)
    progress.at(1.0)
    assert result is not None  # there is at least one level
    return result


def _solve_level(
    levels: list[Level],
    number: int,
    features: Features,
    teaching: np.ndarray,
    coarse: np.ndarray | None,
    prior: Prior | None,
    settings: Settings,
    progress: Progress,
) -> np.ndarray:
    level = levels[number]
    if coarse is None:
        values = level.shares.copy()
        free = np.flatnonzero(~level.known)
    else:
        factors = levels[number + 1].factors
        unsettled = _repeat(_unsettled(coarse), factors, level.known.shape)
        values = np.stack([_repeat(share, factors, level.known.shape) for share in coarse])
        np.copyto(values, level.shares, where=level.known)
        free = np.flatnonzero(unsettled & ~level.known)
        if len(free):
            places = np.unravel_index(free, level.known.shape)
            for value, share in zip(values, coarse, strict=True):
                value.ravel()[free] = interpolate(share, places, np.array(factors))
    if not len(free):
        return values
    near = np.flatnonzero(_with_neighbors(free, level.known.shape))
    taught = np.flatnonzero(teaching)
    taught = taught[:: max(1, len(taught) // _TEACHING_VOXELS)]
    truth = level.shares.reshape(len(level.shares), -1)[:, taught]
    if _teaches(truth):
        classifier = appearance.fit(features.at(number, taught), truth)
        odds = classifier.log_odds(features.at(number, near))
        edges, appearing = odds * np.float32(np.sqrt(settings.contrast)), odds[:, np.searchsorted(near, free)]
    else:  # one class only: the gray values themselves make the edges
        edges = level.images.reshape(len(level.images), -1)[:, near] * np.float32(np.sqrt(settings.gray_contrast))
        appearing = None
    progress.at(0.4)
    pull, target = _pulls(level, free, appearing, prior, settings)
    if coarse is None:
        values.reshape(len(values), -1)[:, free] = target
    walker.solve(values, free, edges, near, pull, target, level.spacing / level.spacing.min(), progress)
    return values


def _pulls(
    level: Level, free: np.ndarray, odds: np.ndarray | None, prior: Prior | None, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """How strongly the free voxels are pulled, and toward which probabilities."""
    pull = np.zeros(len(free), dtype=np.float32)
    weighted = np.zeros((len(level.shares), len(free)), dtype=np.float32)
    if odds is not None:
        pull += settings.appearance
        weighted += settings.appearance * _shares(settings.temperature * odds)
    nearest: np.ndarray | float = 0.0
    planes = drawn_planes(level.known)
    distances = InterpolatedDistance(level.shares, _inner(planes, level.known.shape), level.spacing)
    unit = level.spacing.min()
    if distances:
        signed, nearest, steps = distances.at(np.unravel_index(free, level.known.shape))
        strength = settings.shape / np.maximum(steps, 0.5) ** settings.decay
        weighted = weighted + strength * _shares(signed / (0.5 * unit + 0.3 * nearest))
        pull = pull + strength
    if prior is not None:
        strength = prior.pull.ravel()[free] * (1 + (nearest / prior.reach) ** 2)
        weighted = weighted + strength * prior.probabilities.reshape(len(weighted), -1)[:, free]
        pull = pull + strength
    return pull.astype(np.float32), (weighted / np.maximum(pull, 1e-9)).astype(np.float32)


def _shares(log_odds: np.ndarray) -> np.ndarray:
    """Probabilities ``[labels, ...]`` from each label's log odds against the background."""
    odds = np.exp(np.clip(log_odds, -20, 20))
    return odds / (1 + odds.sum(axis=0))


def _teaches(truth: np.ndarray) -> bool:
    return truth.shape[1] > 1 and all(0 < np.count_nonzero(t > 0.5) < t.size for t in truth)


def _teaching(level: Level, band: float) -> np.ndarray:
    """Drawn voxels within ``band`` voxels of a drawn voxel on the other side of an outline."""
    inside = level.known & (level.shares.sum(axis=0) > 0.5)
    outside = level.known & ~inside
    sampling = level.spacing / level.spacing.min()
    if not inside.any() or not outside.any():
        return level.known
    to_inside = ndimage.distance_transform_edt(~inside, sampling=sampling)
    to_outside = ndimage.distance_transform_edt(~outside, sampling=sampling)
    beside = (inside & (to_outside < band)) | (outside & (to_inside < band))
    # Strokes inside and outside may lie far apart.
    return beside if min(np.count_nonzero(beside & inside), np.count_nonzero(beside & outside)) > _FEW else level.known


def _scaled(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Each channel cut at its 0.5th and 99.5th percentile, with mean 0 and standard deviation 1, float32."""
    result = np.empty(images.shape, dtype=np.float32)
    for image, scaled in zip(images, result, strict=True):
        sample = image.ravel()[:: max(1, image.size // 200_000)]
        low, high = np.quantile(sample, (0.005, 0.995))
        cut = np.clip(sample.astype(np.float32), low, high)
        deviation = float(cut.std())
        np.clip(image, low, high, out=scaled, casting="unsafe")
        scaled -= np.float32(cut.mean())
        scaled /= np.float32(deviation if deviation > 0 else 1.0)
    return result


def _background_faces(structure: np.ndarray) -> np.ndarray:
    """The faces of a box, but those on which the structure was drawn or predicted: background."""
    faces = np.zeros(structure.shape, dtype=bool)
    for axis in range(3):
        for index in (0, -1):
            face = (slice(None),) * axis + (index,)
            if not structure[face].any():
                faces[face] = True
    return faces & ~structure


def _inner(planes: list[np.ndarray], shape: tuple[int, ...]) -> list[np.ndarray]:
    """Without the faces of the box."""
    return [p[(p > 0) & (p < n - 1)] for p, n in zip(planes, shape, strict=True)]


def _prior_levels(prior: Prior | None, levels: list[Level]) -> list[Prior | None]:
    found: list[Prior | None] = [prior]
    for level in levels[1:]:
        fine = found[-1]
        if fine is None:
            found.append(None)
            continue
        means = np.stack([block_mean(p, level.factors) for p in fine.probabilities])
        found.append(Prior(means, block_mean(fine.pull, level.factors), fine.reach))
    return found


def _unsettled(coarse: np.ndarray) -> np.ndarray:
    """Coarse voxels that are not certain, or near another label, and their neighbors."""
    rest = 1 - coarse.sum(axis=0)
    best = np.maximum(coarse.max(axis=0), rest)
    winner = np.where(rest >= coarse.max(axis=0), -1, coarse.argmax(axis=0))
    border = ndimage.maximum_filter(winner, 3) != ndimage.minimum_filter(winner, 3)
    return ndimage.binary_dilation(border) | (best < 1 - 10 * _SURE)


def _repeat(array: np.ndarray, factors: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    for axis, factor in enumerate(factors):
        if factor > 1:
            array = np.repeat(array, factor, axis=axis)
    return array[tuple(slice(0, n) for n in shape)]


def _with_neighbors(free: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Flat mask of the voxels and their face neighbors."""
    mask = np.zeros(shape, dtype=bool)
    mask.ravel()[free] = True
    wide = mask.copy()
    for axis in range(3):
        low, high = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        wide[low] |= mask[high]
        wide[high] |= mask[low]
    return wide.ravel()
