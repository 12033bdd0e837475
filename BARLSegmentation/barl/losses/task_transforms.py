# SPDX-License-Identifier: Apache-2.0
"""DBiSL's two differentiable transforms between a segmentation and signed distance maps, and the exact maps.

Stated (summaries of arXiv 2602.09378): ``T_r2s(R) = 1 / (1 + exp(-k R))``, and ``T_s2r`` as a convolution with the
fixed kernel ``K(v) = exp(-|v| / h)``, applied to the segmentation and to its complement. Of this kernel
``-h log(K * Y)`` is a smooth distance to the nearest voxel of ``Y`` (Pham et al., MICCAI workshops 2020). The rest is
ours:

    q = (K / sum K) * Y'            Y' = Y^(1/T) / (Y^(1/T) + (1 - Y)^(1/T))
    T_s2r(Y) = (h / D) log(q / (1 - q)), within [-1, 1]        (minus the distance outside plus that inside)

As ``K/sum K * (1 - Y') = 1 - q``, one convolution serves both distances and the bias of the sum of K cancels;
``T_r2s`` with ``k = D / h`` is the exact inverse up to the smoothing ``q``. Sharpening (T < 1) is needed because a soft
background of probability e looks like a border at ``h logit(e)`` voxels.

Conventions: one map ``[B, C, k, j, i]`` per class, background first, positive inside, in units of the reach ``D``;
distances count voxels (or the edges given as ``spacing``) from the border between voxels, so that the first voxel
inside has 0.5. Of several classes ``T_r2s`` is ``softmax(k R / 2)``: for two, where one map is minus the other, this is
the formula above; where two structures touch, the voxels between them belong to these two alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.fft import next_fast_len
from torch import Tensor

from barl.images.components import bounding_box
from barl.images.geometry import Triple, triple

_AXES = (-3, -2, -1)
# Limit of ``q``: the logarithm stays finite, in float32 on both sides.
_EPS = 1e-6


def distance_to_segmentation(distances: Tensor, k: float = 50.0) -> Tensor:
    """``T_r2s``: log-probabilities ``[B, C, k, j, i]`` (at least float32) from maps in [-1, 1].

    Args:
        distances: One map per class.
        k: Steepness per reach ``D``. Large: sharp borders, but a gradient only close to them.
    """
    return (0.5 * k * _precise(distances)).log_softmax(dim=1)


def segmentation_to_distance(
    p: Tensor,
    h: float = 0.5,
    reach: float = 6.0,
    radius: int = 7,
    sharpening: float = 0.5,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """``T_s2r``: maps in [-1, 1] (at least float32) from probabilities; autocast does not reach inside.

    Args:
        p: Probabilities ``[B, C, k, j, i]``, soft or one-hot; they sum to one.
        h: Decay of the kernel. Large: rounds off small parts (a ball of radius 6 comes back with a Dice of 1.0 at 0.5,
            of 0.86 at 1); small: blind far away, as ``q`` is limited (7 voxels at 0.5).
        reach: ``D``, the distance that is 1 in the map; no more than the transform sees.
        radius: Of the kernel in voxels on each axis.
        sharpening: ``T`` above, in (0, 1]; 1 leaves the probabilities as they are.
        spacing: Edges of a voxel ``(k, j, i)`` in the unit of ``h`` and ``reach``.
    """
    with torch.autocast(p.device.type, enabled=False):
        p = _precise(p).clamp(0.0, 1.0)
        if p.shape[1] == 2:
            p = p[:, 1:]
        if sharpening != 1.0:
            inside, outside = p ** (1.0 / sharpening), (1.0 - p) ** (1.0 / sharpening)
            p = inside / (inside + outside)
        q = _smooth(p, h, radius, triple(spacing)).clamp(_EPS, 1.0 - _EPS)
        distances = (h / reach * torch.logit(q)).clamp(-1.0, 1.0)
        return torch.cat([-distances, distances], dim=1) if distances.shape[1] == 1 else distances


def exact_distances(
    classes: Tensor, n_classes: int, reach: float = 6.0, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> Tensor:
    """The maps of outlines, from exact Euclidean distance transforms on the CPU; no gradient.

    Args:
        classes: Class indices ``[B, k, j, i]``.
        n_classes: Classes including background.
        reach: Distances beyond it are 1 or -1.
        spacing: Edges of a voxel ``(k, j, i)`` in the unit of ``reach``.

    Returns:
        Float32 ``[B, C, k, j, i]``: -1 everywhere for a class without voxels, 1 for one without an outside.
    """
    maps = np.empty((len(classes), n_classes, *classes.shape[1:]), np.float32)
    for item, scan in zip(maps, classes.cpu().numpy(), strict=True):
        item[0] = -_exact(scan > 0, reach, spacing)
        for value in range(1, n_classes):
            item[value] = -item[0] if n_classes == 2 else _exact(scan == value, reach, spacing)
    return torch.from_numpy(maps).to(classes.device)


def known_distances(
    classes: Tensor, n_classes: int, reach: float = 6.0, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> Tensor:
    """Which values of ``exact_distances`` are sure although a part of the voxels was not looked at (class -1).

    A distance is sure where no such voxel lies as near as the border, or none within the reach.

    Args:
        classes, n_classes, reach, spacing: As for ``exact_distances``, which takes -1 for another class.

    Returns:
        Float32 ``[B, C, k, j, i]``, 1 where sure.
    """
    sure = np.zeros((len(classes), n_classes, *classes.shape[1:]), np.float32)
    for item, scan in zip(sure, classes.cpu().numpy(), strict=True):
        looked = scan >= 0
        if looked.all():
            item[:] = 1.0
            continue
        free = ndimage.distance_transform_edt(looked, spacing)
        for value in range(n_classes):
            inside = looked & (scan == value)
            outside = looked & (scan != value)
            for side, other in ((inside, outside), (outside, inside)):
                border = ndimage.distance_transform_edt(~other, spacing) if other.any() else np.inf
                item[value][side] = ((free > border) | (free - 0.5 * min(spacing) >= reach))[side]
    return torch.from_numpy(sure).to(classes.device)


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _exact(mask: np.ndarray, reach: float, spacing: Sequence[float]) -> np.ndarray:
    result = np.full(mask.shape, -1.0, np.float32)
    if mask.all():
        return -result
    # Beyond the reach all is -1, so only the structure's surroundings are measured.
    margins = [math.ceil(reach / edge) + 1 for edge in spacing]
    box = bounding_box(mask, margins)
    if box is None:
        return result
    inside = ndimage.distance_transform_edt(mask[box], spacing)
    outside = ndimage.distance_transform_edt(~mask[box], spacing)
    # Between voxel centers lies the border, half a voxel from either.
    signed = inside - outside - np.where(mask[box], 0.5, -0.5) * min(spacing)
    result[box] = np.clip(signed / reach, -1.0, 1.0)
    return result


def _smooth(x: Tensor, h: float, radius: int, spacing: Triple[float]) -> Tensor:
    """Convolve with the normalized kernel, the edge values repeated outside.

    By Fourier transforms, as the kernel is not separable: 15^3 taps over six maps of 32 x 48 x 32 voxels, backward pass
    included, take 17 ms of one core; 7^3 taps in ``conv3d`` take 370 ms.
    """
    shape = x.shape[-3:]
    size = tuple(next_fast_len(edge + 2 * radius, real=True) for edge in shape)
    ends = [(radius, total - edge - radius) for edge, total in zip(shape, size, strict=True)]
    padded = F.pad(x, [n for before_and_after in reversed(ends) for n in before_and_after], mode="replicate")
    transfer = _transfer(size, h, radius, spacing, x.device, x.dtype)
    smooth = torch.fft.irfftn(torch.fft.rfftn(padded, dim=_AXES) * transfer, s=size, dim=_AXES)
    return smooth[(..., *(slice(radius, radius + edge) for edge in shape))]


@lru_cache(maxsize=16)
def _transfer(
    size: tuple[int, ...], h: float, radius: int, spacing: Triple[float], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Fourier transform of the kernel around voxel 0: real, as the kernel is even."""
    ticks = torch.arange(-radius, radius + 1, dtype=torch.float64)
    grids = torch.meshgrid(*(ticks * edge for edge in spacing), indexing="ij")
    kernel = torch.exp(-torch.stack(grids).square().sum(0).sqrt() / h)
    kernel /= kernel.sum()
    periodic = torch.zeros(size, dtype=torch.float64)
    width = 2 * radius + 1
    periodic[:width, :width, :width] = kernel
    periodic = periodic.roll((-radius,) * 3, dims=(0, 1, 2))
    return torch.fft.rfftn(periodic).real.to(device, dtype)
