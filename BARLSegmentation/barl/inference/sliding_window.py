# SPDX-License-Identifier: Apache-2.0
"""Gaussian-weighted sliding window whose memory does not grow with the length of the scan.

Each window weighs as in MONAI: a Gaussian, sigma = patch / 8, not below 0.001. The floor matters: without
it 5 % of the voxels of a small volume get another label (measured with an untrained network).

Logits are averaged, not probabilities: one softmax per voxel instead of one per window and voxel. Softmax depends on
    differences alone, so the logits are accumulated relative to background, which saves one channel (half of the memory
    of a binary
model).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from torch import Tensor, nn

from barl.errors import NotFiniteError
from barl.images.geometry import Triple, triple
from barl.inference.device import autocast
from barl.inference.threads import ThreadChoice
from barl.progress import SILENT, Progress

# Voxels handed out at once on a CPU: the temporary arrays of whoever finishes them (softmax, entropy) stay in its cache
# (35 ns a voxel instead of 67 with a million). Elsewhere, where each step has its price, sixteen times as many.
CHUNK_VOXELS = 65_536


@dataclass
class Slab:
    """Finished planes ``start .. start + depth`` along k.

    Attributes:
        start: First plane (index k of the volume).
        logits: ``[n_branches, L, depth, j, i]`` float32 on the accumulators' device: class 1..L relative to background
            (class 0 is 0 everywhere).
    """

    start: int
    logits: Tensor

    @property
    def planes(self) -> slice:
        return slice(self.start, self.start + self.logits.shape[2])

    def log_probabilities(self) -> Tensor:
        """Log-softmax of each branch, ``[n_branches, L+1, depth, j, i]``."""
        background = torch.zeros_like(self.logits[:, :1])
        return torch.cat([background, self.logits], dim=1).log_softmax(dim=1)


def window_starts(
    shape: Sequence[int], patch: Sequence[int], overlap: float, stride: Sequence[int] | None = None
) -> tuple[list[int], ...]:
    """Where windows start on each axis: steps of ``patch * (1 - overlap)``, the last one flush with the end.

    The same windows as MONAI's ``sliding_window_inference``.

    Args:
        shape: Volume ``(k, j, i)``; an axis shorter than the patch gets one window at 0.
        patch: Window ``(k, j, i)``.
        overlap: Fraction of the patch that neighbors share, 0 <= overlap < 1.
        stride: Steps ``(k, j, i)`` in voxels instead.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and less than 1, not {overlap}")
    starts = []
    for axis, (size, edge) in enumerate(zip(shape, patch, strict=True)):
        step = stride[axis] if stride else max(1, int(edge * (1 - overlap)))
        last = max(0, size - edge)
        starts.append([*range(0, last, step), last])
    return tuple(starts)


def count_windows(shape: Sequence[int], patch: Sequence[int], overlap: float) -> int:
    """How many windows cover the volume."""
    return int(np.prod([len(starts) for starts in window_starts(shape, patch, overlap)]))


def stream(
    network: nn.Module,
    volume: np.ndarray | Tensor,
    patch: Sequence[int],
    *,
    overlap: float = 0.5,
    stride: Sequence[int] | None = None,
    batch_size: int = 1,
    device: torch.device | str = "cpu",
    amp_dtype: torch.dtype | None = None,
    branches: Sequence[int] = (0, 1),
    accumulate_on: torch.device | str | None = None,
    progress: Progress = SILENT,
    threads: ThreadChoice | None = None,
) -> Iterator[Slab]:
    """Slide over the volume and hand out planes along k as soon as no later window touches them.

    Beside the volume it holds ``(n_branches * L + 1) * patch_k * j * i`` floats, whatever the length along k. An axis
    shorter than the patch is padded on both sides with its edge values: the padding looks like its neighborhood under
        any normalization; a constant would not. No window is left out: a network may find something anywhere.

    Args:
        network: ``network(x [B, C, k, j, i], branch) -> logits [B, L+1, k, j, i]``; put into eval mode meanwhile. One
            that has ``logits(x, branches)`` is asked for all branches at once.
        volume: ``[C, k, j, i]`` float32, normalized as for training.
        patch: Window ``(k, j, i)``.
        overlap: Fraction of the patch that neighbors share.
        stride: Steps ``(k, j, i)`` of the windows in voxels, instead of ``overlap``.
        batch_size: Windows per network call.
        device: Where the network is and computes.
        amp_dtype: Half precision for autocast, or None for float32. Accumulators are float32 always.
        branches: Branches to run; those the network does not have are left out.
        accumulate_on: Device of the accumulators; the network's if not given.
        progress: Gets the fraction of windows done after each batch.
        threads: Times the batches and chooses the number of threads; left to PyTorch if not given.

    Yields:
        Slabs in ascending k, without gap or overlap, cropped to the volume.
    """
    device = torch.device(device)
    home = torch.device(accumulate_on or device)
    branches = [b for b in branches if b < getattr(network, "n_branches", b + 1)]
    patch = triple(int(edge) for edge in patch)
    shape = triple(volume.shape[1:])
    source, before = _pad(volume, patch)
    starts = window_starts(source.shape[1:], patch, overlap, stride)
    weight = compute_importance_map(patch, mode="gaussian", sigma_scale=0.125, device=home)
    columns = list(product(starts[1], starts[2]))
    rows, total = starts[0], len(starts[0]) * len(columns)
    held = torch.zeros(0)  # until the first window has told how many classes there are
    weights = torch.zeros(patch[0], *source.shape[2:], device=home)
    training = network.training
    if training:
        network.eval()
    try:
        for row, k in enumerate(rows):
            for first in range(0, len(columns), batch_size):
                batch = columns[first : first + batch_size]
                windows = [source[:, k : k + patch[0], j : j + patch[1], i : i + patch[2]] for j, i in batch]
                with threads.piece() if threads else nullcontext():
                    outputs = _run(network, torch.stack(windows), branches, device, amp_dtype, home)
                if not len(held):
                    held = torch.zeros(len(branches), outputs[0].shape[1], patch[0], *source.shape[2:], device=home)
                for w, (j, i) in enumerate(batch):
                    part = ..., slice(j, j + patch[1]), slice(i, i + patch[2])
                    weights[part] += weight
                    for branch, output in enumerate(outputs):
                        held[branch][part].addcmul_(output[w], weight)
                progress.at((row * len(columns) + first + len(batch)) / total)
            done = (rows[row + 1] if row + 1 < len(rows) else k + patch[0]) - k
            yield from _finish(held, weights, k, done, shape, before)
            _shift(held, done)
            _shift(weights, done)
    finally:
        if training:
            network.train()


def predict_array(
    network: nn.Module,
    volume: np.ndarray | Tensor,
    patch: Sequence[int],
    *,
    overlap: float = 0.5,
    stride: Sequence[int] | None = None,
    batch_size: int = 1,
    device: torch.device | str = "cpu",
    amp_dtype: torch.dtype | None = None,
    branches: Sequence[int] = (0, 1),
    progress: Progress = SILENT,
    threads: ThreadChoice | None = None,
) -> np.ndarray:
    """Probabilities of a whole volume, for volumes small enough to hold them all (validation); see ``stream``.

    Returns:
        Float32 ``[n_branches, L+1, k, j, i]``, class 0 is background; sums to 1 over the classes.
    """
    result = np.empty(0, np.float32)
    slabs = stream(
        network,
        volume,
        patch,
        overlap=overlap,
        stride=stride,
        batch_size=batch_size,
        device=device,
        amp_dtype=amp_dtype,
        branches=branches,
        progress=progress,
        threads=threads,
    )
    for slab in slabs:
        probabilities = slab.log_probabilities().exp_()
        if not result.size:
            result = np.empty((*probabilities.shape[:2], *volume.shape[1:]), np.float32)
        result[:, :, slab.planes] = probabilities.cpu().numpy()
    return result


@torch.inference_mode()
def _run(
    network: nn.Module,
    windows: Tensor,
    branches: Sequence[int],
    device: torch.device,
    amp_dtype: torch.dtype | None,
    home: torch.device,
) -> list[Tensor]:
    """Logits relative to background, ``[B, L, k, j, i]`` float32 on ``home``, of each branch.

    Raises:
        NotFiniteError: They are not finite, in single precision either.
    """
    x = windows.to(device, non_blocking=True)
    with autocast(device, amp_dtype):
        together = getattr(network, "logits", None)
        outputs = together(x, branches) if together else [network(x, branch) for branch in branches]
    relative = [(out[:, 1:].float() - out[:, :1]).to(home) for out in outputs]
    if all(bool(out.sum().isfinite()) for out in relative):
        return relative
    if amp_dtype is None:
        raise NotFiniteError()
    return _run(network, windows, branches, device, None, home)  # half precision overflows where single does not


def _pad(volume: np.ndarray | Tensor, patch: Triple[int]) -> tuple[Tensor, Triple[int]]:
    """The volume, at least as large as the patch on each axis, and how many voxels were put before it."""
    missing = [max(0, edge - size) for size, edge in zip(volume.shape[1:], patch, strict=True)]
    before = triple(n // 2 for n in missing)
    if any(missing):
        widths = [(0, 0), *((b, n - b) for b, n in zip(before, missing, strict=True))]
        volume = np.pad(np.asarray(volume), widths, mode="edge")
    return torch.as_tensor(volume), before


def _finish(
    held: Tensor, weights: Tensor, start: int, depth: int, shape: Triple[int], before: Triple[int]
) -> Iterator[Slab]:
    """The first ``depth`` planes without the padding, divided by their weights, few planes at a time."""
    inside = ..., slice(before[1], before[1] + shape[1]), slice(before[2], before[2] + shape[2])
    held, weights = held[inside], weights[inside]
    first, last = max(start - before[0], 0), min(start + depth - before[0], shape[0])
    chunk = CHUNK_VOXELS if held.device.type == "cpu" else 16 * CHUNK_VOXELS
    step = max(1, chunk // (shape[1] * shape[2]))
    for k in range(first, last, step):
        planes = slice(k + before[0] - start, min(k + step, last) + before[0] - start)
        yield Slab(k, held[:, :, planes] / weights[planes])


def _shift(held: Tensor, planes: int) -> None:
    """Move the unfinished planes to the front, in blocks that do not overlap, and clear the rest."""
    depth = held.shape[-3]
    for a in range(planes, depth, planes):
        b = min(a + planes, depth)
        held[..., a - planes : b - planes, :, :] = held[..., a:b, :, :]
    held[..., max(0, depth - planes) :, :, :] = 0
