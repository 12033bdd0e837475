# SPDX-License-Identifier: Apache-2.0
"""DBiSL's transforms between segmentation and distance, and the losses built on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from barl.losses.dual_task import bidirectional_consistency, cross_task_supervision
from barl.losses.overlap import one_hot
from barl.losses.task_transforms import distance_to_segmentation, exact_distances, segmentation_to_distance
from barl.losses.task_uncertainty import certainty, pseudo_supervision, task_uncertainty

SHAPE = (24, 22, 20)
REACH = 6.0


def ball(radius: float = 6.0, shape=SHAPE, spacing=(1.0, 1.0, 1.0)) -> torch.Tensor:
    """Classes ``[1, k, j, i]`` of a ball in the middle, its radius in the unit of ``spacing``."""
    edges = np.array(spacing)[:, None, None, None]
    grid = (np.indices(shape) - (np.array(shape) // 2)[:, None, None, None]) * edges
    return torch.from_numpy((np.sqrt((grid**2).sum(0)) < radius).astype(np.int64))[None]


def touching() -> torch.Tensor:
    """Two blocks of classes 1 and 2 side by side."""
    classes = torch.zeros(1, *SHAPE, dtype=torch.long)
    classes[:, 6:18, 6:16, 4:10] = 1
    classes[:, 6:18, 6:16, 10:16] = 2
    return classes


def smoothed(p: torch.Tensor, h: float, radius: int) -> torch.Tensor:
    """The kernel convolution written out."""
    ticks = torch.arange(-radius, radius + 1, dtype=p.dtype)
    grids = torch.meshgrid(ticks, ticks, ticks, indexing="ij")
    kernel = torch.exp(-torch.stack(grids).square().sum(0).sqrt() / h)
    kernel = (kernel / kernel.sum())[None, None].repeat(p.shape[1], 1, 1, 1, 1)
    return F.conv3d(F.pad(p, [radius] * 6, mode="replicate"), kernel, groups=p.shape[1])


def some_probabilities(shape=(2, 3, 8, 7, 6), scale: float = 2.0, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(1).to(dtype)


def test_distance_of_a_ball_from_its_segmentation():
    classes = ball()
    exact = exact_distances(classes, 2)[:, 1] * REACH
    found = segmentation_to_distance(one_hot(classes, 2))[:, 1] * REACH
    assert torch.equal(found > 0, classes > 0)
    near = exact.abs() < 5
    assert np.corrcoef(exact[near], found[near])[0, 1] > 0.99
    assert (exact - found)[near].abs().mean() < 0.25


@pytest.mark.parametrize("radius", [2, 7])
def test_the_convolution_is_the_kernels(radius):
    p = some_probabilities(dtype=torch.float64)
    q = smoothed(p, 1.0, radius)
    found = segmentation_to_distance(p, h=1.0, reach=REACH, radius=radius, sharpening=1.0)
    assert torch.allclose(found, (torch.logit(q) / REACH).clamp(-1, 1), atol=1e-12)


def test_both_transforms_undo_each_other_up_to_the_smoothing():
    y = one_hot(ball(), 2)
    h = 0.5
    back = distance_to_segmentation(segmentation_to_distance(y, h=h, reach=REACH), k=REACH / h).exp()
    assert torch.allclose(back, smoothed(y, h, 7), atol=1e-4)
    hard = (back[:, 1] > 0.5).float()
    dice = 2 * (hard * y[:, 1]).sum() / (hard.sum() + y[:, 1].sum())
    assert dice > 0.98


def test_distance_to_segmentation_is_the_logistic_function():
    r = torch.linspace(-1, 1, 41).reshape(1, 1, 1, 1, 41)
    p = distance_to_segmentation(torch.cat([-r, r], dim=1), k=20.0).exp()
    assert torch.allclose(p[:, 1:], torch.sigmoid(20.0 * r), atol=1e-6)
    assert p[0, 1, 0, 0, 20] == pytest.approx(0.5)


def test_gradients_of_both_transforms_are_right():
    p = some_probabilities((1, 3, 4, 5, 3), scale=0.5, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: segmentation_to_distance(x, radius=2), (p,), atol=1e-6)
    r = (0.2 * torch.randn(1, 3, 4, 5, 3, dtype=torch.float64)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: distance_to_segmentation(x, k=10.0), (r,), atol=1e-6)


def test_gradients_reach_both_tasks_through_both_transforms():
    logits = torch.randn(1, 3, 8, 8, 8, requires_grad=True)
    raw = torch.randn(1, 3, 8, 8, 8, requires_grad=True)
    p, r = logits.softmax(1), raw.tanh()
    r_of_p, p_of_r = segmentation_to_distance(p), distance_to_segmentation(r, 20.0).exp()
    (r_of_p - r.detach()).square().mean().backward(retain_graph=True)
    assert logits.grad.abs().sum() > 0
    (p_of_r - p.detach()).square().mean().backward(retain_graph=True)
    assert raw.grad.abs().sum() > 0
    logits.grad = raw.grad = None
    bidirectional_consistency(p, r, p_of_r, r_of_p).backward(retain_graph=True)
    both = logits.grad.clone(), raw.grad.clone()
    logits.grad = raw.grad = None
    bidirectional_consistency(p, r, p_of_r, r_of_p, detach=True).backward()
    for whole, own in zip(both, (logits.grad, raw.grad), strict=True):
        assert own.abs().sum() > 0
        assert not torch.allclose(whole, own)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """A network's output in half precision: saturated to 0 and 1 exactly, and yet finite and close."""
    for size in (3.0, 15.0):
        logits = size * (2.0 * one_hot(ball(), 2) - 1.0)
        reference = segmentation_to_distance(logits.softmax(1))
        half = logits.to(dtype).requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            found = segmentation_to_distance(half.softmax(1).to(dtype))
            p = distance_to_segmentation(found.to(dtype)).exp()
        assert found.dtype == p.dtype == torch.float32
        assert (found - reference).abs().max() < 0.05
        (found.square().sum() + p.square().sum()).backward()
        assert torch.isfinite(half.grad).all()
        if size < 10:
            assert half.grad.abs().sum() > 0


def test_sharpening_lets_soft_probabilities_see_further():
    """A background of 1 % looks like a border 2.3 voxels away; with T = 0.5 distances up to 4.6 voxels are found."""
    truth = one_hot(ball(5.0, (32, 32, 32)), 2)
    soft = 0.98 * truth + 0.01
    exact = exact_distances(truth.argmax(1), 2)[:, 1] * REACH
    far = (exact < -3) & (exact > -4.5)
    plain = segmentation_to_distance(soft, sharpening=1.0)[:, 1][far] * REACH
    sharp = segmentation_to_distance(soft, sharpening=0.5)[:, 1][far] * REACH
    assert (plain > -2.31).all()
    assert (sharp - exact[far]).abs().mean() < 0.4


@pytest.mark.parametrize("n_classes", [2, 3])
def test_nothing_there_everything_there_and_a_single_voxel(n_classes):
    for value, expected in ((0, -1.0), (1, 1.0)):
        classes = torch.full((1, 6, 7, 8), value)
        for maps in (segmentation_to_distance(one_hot(classes, n_classes)), exact_distances(classes, n_classes)):
            assert torch.equal(maps[:, 1], torch.full_like(maps[:, 1], expected))
            assert torch.equal(maps[:, 0], torch.full_like(maps[:, 0], -expected))
    classes = torch.zeros(1, 9, 9, 9, dtype=torch.long)
    classes[0, 4, 4, 4] = 1
    p = one_hot(classes, n_classes).requires_grad_(True)
    maps = segmentation_to_distance(p)
    maps.square().mean().backward()
    assert torch.isfinite(maps).all()
    assert torch.isfinite(p.grad).all()
    assert maps[0, 1, 4, 4, 4] == maps[0, 1].max()
    exact = exact_distances(classes, n_classes)
    assert exact[0, 1, 4, 4, 4] == pytest.approx(0.5 / REACH)
    assert exact[0, 1, 4, 4, 7] == pytest.approx(-2.5 / REACH)


def test_touching_structures_share_the_border_between_them():
    classes = touching()
    exact = exact_distances(classes, 3)
    p = distance_to_segmentation(exact, k=50.0).exp()
    assert torch.equal(p.argmax(1), classes)
    inner = p[0, :, 12, 11, 9]
    assert inner[1] > 0.9
    assert inner[0] < 1e-3
    from_p = segmentation_to_distance(one_hot(classes, 3))
    assert torch.equal(from_p.argmax(1), classes)


def test_exact_distances_are_those_of_the_whole_patch():
    """Only the surroundings are measured: nothing else may come out."""
    classes = torch.zeros(1, 40, 12, 14, dtype=torch.long)
    classes[0, 3:9, 4:8, 5:9] = 1
    near, whole = exact_distances(classes, 2, reach=5.0), exact_distances(classes, 2, reach=40.0)
    assert torch.allclose(near, (whole * 8).clamp(-1, 1), atol=1e-6)


def test_distances_follow_the_spacing():
    spacing = (3.0, 1.0, 1.0)
    classes = ball(6.0, (9, 24, 24), spacing)
    exact = exact_distances(classes, 2, spacing=spacing)[:, 1] * REACH
    found = segmentation_to_distance(one_hot(classes, 2), spacing=spacing)[:, 1] * REACH
    in_voxels = segmentation_to_distance(one_hot(classes, 2))[:, 1] * REACH
    near = exact.abs() < 5
    assert (exact - found)[near].abs().mean() < 0.7
    assert (exact - found)[near].abs().mean() < 0.6 * (exact - in_voxels)[near].abs().mean()


def test_cross_task_supervision_is_least_at_the_truth():
    truth = one_hot(touching(), 3)
    exact = exact_distances(touching(), 3)
    log_p = distance_to_segmentation(exact, 200.0)
    right = cross_task_supervision(log_p, segmentation_to_distance(truth), truth, exact)
    wrong = cross_task_supervision(log_p.flip(1), segmentation_to_distance(truth.flip(1)), truth, exact)
    assert right < 0.05 < 0.5 < wrong


@pytest.mark.parametrize("n_classes", [2, 4])
def test_uncertainty_is_none_where_all_agree_and_one_where_they_contradict(n_classes):
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(n_classes, (1, 4, 4, 4), generator=generator)
    one = one_hot(classes, n_classes)
    mean, none = task_uncertainty([one, one, one, one])
    assert torch.equal(mean, one)
    assert none.abs().max() == 0
    assert torch.equal(certainty(none), torch.ones_like(none))
    _, full = task_uncertainty([one, one_hot((classes + 1) % n_classes, n_classes)])
    assert torch.allclose(full, torch.ones_like(full))
    some = [some_probabilities((1, n_classes, 4, 4, 4), scale) for scale in (1.0, 3.0, 9.0)]
    _, between = task_uncertainty(some)
    assert between.shape == (1, 1, 4, 4, 4)
    assert 0 <= between.min() <= between.max() <= 1
    if n_classes == 2:
        foreground = torch.stack(some)[:, :, 1:]
        assert torch.allclose(between, 4 * foreground.var(dim=0, unbiased=False), atol=1e-6)


def test_pseudo_supervision_counts_uncertain_voxels_less():
    truth = one_hot(ball(), 2)
    exact = exact_distances(ball(), 2)
    p = truth.clone()
    p[..., :4, :] = truth.flip(1)[..., :4, :]
    log_p = (0.98 * p + 0.01).log()
    weight = torch.ones_like(truth[:, :1])
    weight[..., :4, :] = 0.1
    plain = pseudo_supervision(log_p, exact, truth, exact, None, 0.3)
    weighted = pseudo_supervision(log_p, exact, truth, exact, weight, 0.3)
    assert weighted < 0.5 * plain
    off = pseudo_supervision(log_p, exact.flip(1), truth, exact, None, 0.3)
    assert off > plain + 0.1
