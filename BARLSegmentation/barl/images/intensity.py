# SPDX-License-Identifier: Apache-2.0
"""Intensities: what a channel's values look like, and the normalization that follows from it.

CT has a physical scale: a fixed window taken from the outlined structures (as nnU-Net does, Isensee et al., Nature
Methods 18, 2021). Everything else gets a z-score of each image by itself, between its 0.5th and 99.5th percentile,
because the scales of MR differ by factors up to 10^6 between scanners and exports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from barl.errors import InputError

SCHEMES = ("zscore", "zscore_nonzero", "ct_window", "none")

# Percentiles 0.5, 1.5, ... 99.5: the outer two are the clipping limits, all together a sample of the distribution.
_QUANTILES = (np.arange(100) + 0.5) / 100

# Statistics of a scan need no more voxels than this: the standard error of its mean is below 0.1 % of its sd.
_SAMPLE = 2_000_000

# A background of exactly zero in at least this share of a scan means that it was cut out (skull stripping, defacing).
_STRIPPED_SHARE = 0.25


# What scanners and exports write where there is no measurement. -1024 is air in Hounsfield units and no such value.
_PADDINGS = (-32768, -8192, -4096, -4000, -3072, -3024, -2048, -2000)
# Fewer voxels of such a value are dark voxels, not padding.
_PADDED_SHARE = 1e-3


@dataclass(frozen=True)
class Padding:
    """A value that stands for no measurement, and the share of a scan's voxels that have it."""

    value: float
    share: float


def padding_of(array: np.ndarray) -> Padding | None:
    """The padding of a scan ``[k, j, i]``, if there is any: its minimum is one of the usual values and stands apart."""
    minimum = float(array.min())
    if minimum not in _PADDINGS:
        return None
    measured, lowest = 0, []
    for part in array:  # plane by plane: copies of whole scans take longer than looking at them
        values = part[part != minimum]
        measured += values.size
        lowest += [values.min()] if values.size else []
    share = 1 - measured / array.size
    if not _PADDED_SHARE <= share < 1:
        return None
    least, highest = float(min(lowest)), float(array.max())
    apart = least - minimum >= 0.02 * (highest - minimum)
    return Padding(minimum, share) if apart else None


def _sample(array: np.ndarray) -> np.ndarray:
    """At most ``_SAMPLE`` voxels of ``[k, j, i]`` in even steps, flat and contiguous, without padding."""
    step = max(1, int(np.ceil((array.size / _SAMPLE) ** (1 / 3))))
    # Contiguous first: numpy sums in the order of memory, and a flipped copy of a scan must give the same bits.
    sample = np.ascontiguousarray(array[::step, ::step, ::step]).ravel()
    if padding := padding_of(array):
        measured = sample[sample != padding.value]
        return measured if measured.size else sample
    return sample


@dataclass(frozen=True)
class ImageStatistics:
    """The distribution of one channel of one scan.

    Attributes:
        minimum, maximum: Over all voxels.
        quantiles: Percentiles 0.5, 1.5, ..., 99.5 of the whole scan, without padding.
        foreground_quantiles: The same inside the outlined structures; empty without a label map.
        zero_share: Share of voxels that are exactly zero.
        integral: Whether all values are whole numbers.
    """

    minimum: float
    maximum: float
    quantiles: tuple[float, ...]
    foreground_quantiles: tuple[float, ...]
    zero_share: float
    integral: bool

    @classmethod
    def of(cls, array: np.ndarray, foreground: np.ndarray | None = None) -> ImageStatistics:
        """Statistics of an array ``[k, j, i]``; ``foreground`` is a mask of the same shape."""
        sample = _sample(array)
        inside = array[foreground] if foreground is not None else sample[:0]
        inside = inside[:: max(1, inside.size // _SAMPLE)]
        return cls(
            float(array.min()),
            float(array.max()),
            tuple(np.quantile(sample, _QUANTILES).tolist()),
            tuple(np.quantile(inside, _QUANTILES).tolist()) if inside.size else (),
            float(np.mean(sample == 0)),
            bool(np.issubdtype(array.dtype, np.integer) or np.all(sample == np.round(sample))),
        )

    @classmethod
    def from_json(cls, data: dict) -> ImageStatistics:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)

    def to_json(self) -> dict:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def looks_like_ct(self) -> bool:
        """Whether the values are Hounsfield units.

        Either much air around the patient (0.5th percentile near -1000), or whole numbers with fat and water in a crop
        of the body. Percentiles, not extremes: an ADC map has a few voxels at -1000 as well.
        """
        low, middle, high = self.quantiles[0], self.quantiles[50], self.quantiles[-1]
        plausible = low >= -3100 and 20 < high < 4100 and middle < 500
        return plausible and (low <= -800 or (self.integral and low <= -50 and self.zero_share < _STRIPPED_SHARE))


@dataclass(frozen=True)
class Normalization:
    """How one channel's values are brought to the network.

    Attributes:
        scheme: ``zscore`` (of each image), ``zscore_nonzero`` (of each image, statistics over its non-zero voxels),
            ``ct_window`` (fixed numbers below) or ``none``.
        low, high: Clipping limits of ``ct_window``.
        mean, sd: Subtracted and divided by, of ``ct_window``.
    """

    scheme: str = "zscore"
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise InputError(f"'{self.scheme}' is not a normalization.", f"Use one of {', '.join(SCHEMES)}.")

    @classmethod
    def from_json(cls, data: dict) -> Normalization:
        return cls(**data)

    def to_json(self) -> dict:
        return asdict(self)

    def fitted(self, array: np.ndarray) -> Normalization:
        """The same with the numbers of one image ``[k, j, i]``: a fixed window for any part of it."""
        if not self.scheme.startswith("zscore"):
            return self
        sample = _sample(array)
        if self.scheme == "zscore_nonzero" and (inside := sample[sample != 0]).size:
            sample = inside
        low, high = np.quantile(sample, (0.005, 0.995))
        clipped = np.clip(sample.astype(np.float64), low, high)
        sd = float(clipped.std())
        # A flat image has nothing to scale; it becomes zeros.
        return Normalization("ct_window", float(low), float(high), float(clipped.mean()), sd if sd > 0 else 1.0)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Normalized values, float32, of an array ``[k, j, i]`` holding a whole image (any part, once ``fitted``)."""
        result = array.astype(np.float32)
        if self.scheme == "none":
            return result
        window = self.fitted(array)
        np.clip(result, window.low, window.high, out=result)
        result -= np.float32(window.mean)
        result /= np.float32(window.sd)
        return result


def choose_normalization(samples: Sequence[ImageStatistics]) -> Normalization:
    """The normalization of one channel, from the statistics of that channel in the project's scans.

    CT (every scan looks like Hounsfield units) gets the 0.5th to 99.5th percentile, mean and standard deviation of the
    outlined structures over all cases, each case counted alike; without any outline, of all voxels above -500 HU.

    Raises:
        InputError: No scan.
    """
    if not samples:
        raise InputError("There is no scan from which to choose a normalization.", "Add scans to the project.")
    if all(sample.looks_like_ct for sample in samples):
        values = np.array([value for sample in samples for value in sample.foreground_quantiles])
        if not values.size:
            values = np.array([value for sample in samples for value in sample.quantiles if value > -500])
        if values.size:
            low, high = np.quantile(values, (0.005, 0.995))
            if high > low:
                return Normalization("ct_window", float(low), float(high), float(values.mean()), float(values.std()))
    if np.median([sample.zero_share for sample in samples]) >= _STRIPPED_SHARE:
        return Normalization("zscore_nonzero")
    return Normalization("zscore")
