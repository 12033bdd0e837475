# SPDX-License-Identifier: Apache-2.0
"""Sliding window: the windows, their weights, the seams, and MONAI as the yardstick."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from barl.inference.sliding_window import count_windows, predict_array, stream, window_starts
from barl.networks.branches import NetworkSpec, build_network
from monai.data.utils import dense_patch_slices
from monai.inferers import sliding_window_inference
from scipy import ndimage


def texture(shape: tuple[int, int, int], channels: int = 1, seed: int = 0) -> np.ndarray:
    """Smooth random float32 volume ``[C, k, j, i]`` with structures of several voxels."""
    noise = np.random.default_rng(seed).standard_normal((channels, *shape))
    smooth = np.stack([ndimage.gaussian_filter(channel, 2.0) for channel in noise])
    return (smooth / smooth.std()).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return build_network(NetworkSpec(in_channels=1, n_classes=3, widths=(8, 16, 32)), seed=3)


class Pointwise(torch.nn.Module):
    """Logits that depend on the voxel alone, so that windows and weights must not show in the result."""

    n_branches = 2

    def forward(self, x: torch.Tensor, branch: int = 0) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), (branch + 1) * x, 2 - x], dim=1)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
@pytest.mark.parametrize("shape", [(40, 41, 79), (32, 32, 32), (33, 64, 100)])
def test_windows_are_those_of_monai(shape, overlap):
    patch = (32, 32, 32)
    steps = [int(p * (1 - overlap)) if p != n else p for p, n in zip(patch, shape, strict=True)]
    expected = {tuple(s.start for s in window) for window in dense_patch_slices(shape, patch, steps)}
    ks, js, i_s = window_starts(shape, patch, overlap)
    assert {(k, j, i) for k in ks for j in js for i in i_s} == expected
    assert count_windows(shape, patch, overlap) == len(expected)


@pytest.mark.parametrize("overlap", [-0.1, 1.0])
def test_impossible_overlap_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap"):
        window_starts((8, 8, 8), (4, 4, 4), overlap)


@pytest.mark.parametrize(
    ("shape", "patch", "overlap", "batch_size"),
    [
        ((21, 33, 17), (8, 16, 8), 0.5, 1),
        ((21, 33, 17), (8, 16, 8), 0.75, 3),
        ((5, 40, 9), (16, 16, 16), 0.25, 2),  # padded on two axes
        ((3, 2, 1), (16, 16, 16), 0.5, 4),  # padded on all by more than its own size
        ((60, 8, 8), (8, 8, 8), 0.0, 5),
    ],
)
def test_windows_leave_no_trace(shape, patch, overlap, batch_size):
    volume = texture(shape)
    got = predict_array(Pointwise(), volume, patch, overlap=overlap, batch_size=batch_size)
    for branch in (0, 1):
        logits = torch.from_numpy(np.stack([0 * volume[0], (branch + 1) * volume[0], 2 - volume[0]]))
        np.testing.assert_allclose(got[branch], logits.softmax(dim=0).numpy(), atol=2e-6)


def test_slabs_follow_each_other_without_gap(network, monkeypatch):
    monkeypatch.setattr("barl.inference.sliding_window.CHUNK_VOXELS", 3 * 20 * 30)
    slabs = [slab.planes for slab in stream(network, texture((50, 20, 30)), (16, 16, 16), overlap=0.6)]
    assert slabs[0].start == 0
    assert slabs[-1].stop == 50
    assert all(a.stop == b.start for a, b in pairwise(slabs))
    assert max(s.stop - s.start for s in slabs) == 3


@pytest.mark.parametrize(("shape", "overlap"), [((72, 61, 50), 0.5), ((72, 61, 50), 0.25), ((20, 70, 40), 0.5)])
def test_agrees_with_monai(network, shape, overlap):
    """At least 99.9 % of voxels get MONAI's label, and the probabilities are close."""
    volume, patch = texture(shape), (32, 32, 32)
    padded = np.pad(
        volume,
        [(0, 0), *((max(0, p - n) // 2, -(-max(0, p - n) // 2)) for p, n in zip(patch, shape, strict=True))],
        mode="edge",
    )
    before = [max(0, p - n) // 2 for p, n in zip(patch, shape, strict=True)]
    crop = (slice(None), *(slice(b, b + n) for b, n in zip(before, shape, strict=True)))
    ours = predict_array(network, volume, patch, overlap=overlap, batch_size=2)
    assert ours.shape == (2, 3, *shape)
    with torch.inference_mode():
        for branch in (0, 1):
            theirs = (
                sliding_window_inference(
                    torch.from_numpy(padded)[None], patch, 2, network, overlap=overlap, mode="gaussian", branch=branch
                )[0]
                .softmax(dim=0)[crop]
                .numpy()
            )
            assert len(np.unique(theirs.argmax(axis=0))) > 1
            same = ours[branch].argmax(axis=0) == theirs.argmax(axis=0)
            assert same.mean() >= 0.999
            assert np.abs(ours[branch] - theirs).max() < 0.05


def test_network_mode_is_given_back_and_a_missing_branch_left_out():
    single = build_network(NetworkSpec(in_channels=2, n_classes=2, widths=(4, 8), n_branches=1), seed=0).train()
    got = predict_array(single, texture((8, 8, 8), channels=2), (8, 8, 8))
    assert got.shape == (1, 2, 8, 8, 8)
    assert single.training


def test_half_precision_stays_close(network):
    volume = texture((40, 40, 40))
    full = predict_array(network, volume, (32, 32, 32)).mean(axis=0)
    half = predict_array(network, volume, (32, 32, 32), amp_dtype=torch.bfloat16).mean(axis=0)
    assert half.dtype == np.float32
    assert (full.argmax(axis=0) == half.argmax(axis=0)).mean() > 0.98
    np.testing.assert_allclose(half.sum(axis=0), 1, atol=1e-5)
