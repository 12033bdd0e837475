# SPDX-License-Identifier: Apache-2.0
"""Partial outlines in losses and methods: what nobody has looked at is no outline, in every term."""

from __future__ import annotations

import dataclasses
from math import log

import numpy as np
import pytest
import torch
from barl import methods
from barl.errors import InputError
from barl.losses.dpr import dual_path_regularization
from barl.losses.overlap import one_hot, target_at_scale
from barl.losses.pcbc import bias_correction
from barl.losses.task_transforms import exact_distances, known_distances
from barl.methods.mixing import paste_outlines
from barl.methods.supervised import multi_scale_supervision
from barl.networks.branches import NetworkSpec, build_network
from scipy import ndimage

SPEC = NetworkSpec(1, 3, widths=(4, 8, 16))
SHAPE = (8, 8, 8)
PARTIAL = [name for name, method in methods.available().items() if method.takes_partial]
# Settings by which every term works on a small patch, and the rarer branches of the code.
SETTINGS = [
    ("barl", {"lesion_min_voxels": 1, "lesion_min_iou": 0.0}),
    ("barl", {"parts": ["dpr", "pcbc", "region", "instance"], "correct": "all", "soft": True, "confidence": 0.4,
              "lesion_min_voxels": 1, "lesion_min_iou": 0.0, "contrast": True, "cutmix": False}),
    ("barl", {"parts": ["cps"]}),
    ("dbisl", {}),
    ("dbisl", {"architecture": "1+1", "exchange": True, "parts": ["cross", "consistency", "pseudo"]}),
    *((name, {}) for name in PARTIAL if name not in ("barl", "dbisl")),
]  # fmt: skip


def log_p_of(*foreground: float) -> torch.Tensor:
    """Log-probabilities ``[1, 2, 1, 1, n]`` of two classes."""
    p = torch.tensor(foreground)
    return torch.stack([1 - p, p]).log().reshape(1, 2, 1, 1, -1)


def batch_of(n_labelled: int, n_unlabelled: int, seed: int = 0) -> methods.Batch:
    generator = torch.Generator().manual_seed(seed)
    weak = torch.randn(n_labelled + n_unlabelled, 1, *SHAPE, generator=generator)
    label = torch.randint(0, 3, (n_labelled, 2, 2, 2), generator=generator)
    label = label.repeat_interleave(4, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return methods.Batch(weak, weak + 0.1 * torch.randn(weak.shape, generator=generator), label)


def made(name: str, settings: dict):
    method = methods.get(name)(settings)
    network = build_network(dataclasses.replace(SPEC, **method.network_options()), seed=0)
    torch.manual_seed(0)
    method.prepare(network)
    return method, network


def losses_and_gradient(name: str, settings: dict, batch: methods.Batch, iteration: int = 81):
    method, network = made(name, settings)
    torch.manual_seed(1)
    losses = method.loss(network, batch, iteration, 100)
    losses["total"].backward()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    return {part: value.item() for part, value in losses.items()}, gradient


# By hand


def test_supervision_counts_looked_voxels_alone():
    label = torch.tensor([[[[1, 0, -1, 1]]]])
    log_p = log_p_of(0.8, 0.4, 0.9, 0.6)
    voxels = (label >= 0).unsqueeze(1).float()
    value = multi_scale_supervision([[log_p]], one_hot(label, 2), [1.0], voxels).item()
    cross_entropy = -(log(0.8) + log(0.6) + log(0.6)) / 3
    dice = 1 - 2 * (0.8 + 0.6) / (0.8**2 + 0.4**2 + 0.6**2 + 2)
    assert value == pytest.approx(0.5 * (cross_entropy + dice), abs=1e-5)


def test_a_coarse_cell_is_what_was_looked_at_in_it():
    label = torch.tensor([[[[1, -1], [0, 0], [-1, -1]]]])
    voxels = (label >= 0).unsqueeze(1).float()
    cells = target_at_scale(one_hot(label, 2), torch.zeros(1, 2, 1, 3, 1), voxels)
    assert cells[0, 1, 0, :, 0].tolist() == [1, 0, 0] and cells[0, 0, 0, :, 0].tolist() == [0, 1, 0]
    # Weighted by the share of the cell that was looked at: 1/2, 1 and 0.
    coarse = log_p_of(0.8, 0.3, 0.99).reshape(1, 2, 1, 3, 1)
    value = multi_scale_supervision([[coarse]], one_hot(label, 2), [1.0], voxels).item()
    cross_entropy = -(0.5 * log(0.8) + log(0.7)) / 1.5
    dice = 1 - 2 * 0.5 * 0.8 / (0.5 * 0.8**2 + 0.3**2 + 0.5)
    assert value == pytest.approx(0.5 * (cross_entropy + dice), abs=1e-5)


def test_dpr_works_where_nobody_has_looked():
    one, two = [log_p_of(0.9, 0.2, 0.6)], [log_p_of(0.7, 0.6, 0.4)]
    voxels = torch.tensor([0.0, 1.0, 1.0]).reshape(1, 1, 1, 1, 3)
    known = torch.tensor([[[[1, -1, -1]]]])
    value = dual_path_regularization(one, two, [1.0], known=known, voxels=voxels).item()

    def overlap(p: tuple[float, float], target: tuple[int, int]) -> float:
        entropy = -sum(log(a if t else 1 - a) for a, t in zip(p, target, strict=True)) / 2
        both, squares = sum(a * t for a, t in zip(p, target, strict=True)), sum(a * a for a in p) + sum(target)
        return 0.5 * (entropy + 1 - 2 * both / squares)

    assert value == pytest.approx(0.5 * (overlap((0.2, 0.6), (1, 0)) + overlap((0.6, 0.4), (0, 1))), abs=1e-4)


def test_the_soft_path_of_dpr_works_where_nobody_has_looked():
    one, two = [log_p_of(0.9, 0.2)], [log_p_of(0.4, 0.5)]
    voxels = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 1, 2)
    hard = dual_path_regularization(one, two, [1.0], voxels=voxels)
    both = dual_path_regularization(one, two, [1.0], voxels=voxels, soft=True)
    assert (both - hard).item() == pytest.approx(0.5 * 0.3**2, abs=1e-6)


def test_pcbc_corrects_towards_outlines_where_somebody_has_looked():
    one, two = [log_p_of(0.9, 0.2, 0.9)], [log_p_of(0.4, 0.6, 0.3)]  # the branches differ everywhere
    label = torch.tensor([[[[0, -1, -1]]]])
    truth, voxels = one_hot(label, 2), (label >= 0).unsqueeze(1).float()
    weights = {"pull": 1.0, "unlearn": 0.0, "voxels": voxels}
    value = bias_correction(one, two, [1.0], truth, **weights).item()
    assert value == pytest.approx(0.5 * (2 * 0.9**2 + 2 * 0.4**2), abs=1e-5)
    # With the pseudo-target of the branches' mean elsewhere: (0.2 + 0.6) / 2 is background, (0.9 + 0.3) / 2 foreground.
    value = bias_correction(one, two, [1.0], truth, **weights, complete=True).item()
    errors = [(0.9, 0.4, 0), (0.2, 0.6, 0), (0.9, 0.3, 1)]
    by_hand = sum(0.5 * 2 * ((a - t) ** 2 + (b - t) ** 2) for a, b, t in errors) / 3
    assert value == pytest.approx(by_hand, abs=1e-5)


def test_distances_are_sure_where_the_border_is_nearer_than_what_nobody_has_looked_at():
    label = torch.tensor([[[[0, 0, 0, 1, 1, 1, 1, -1]]]])
    sure = known_distances(label, 2, reach=2.0)[0, 1, 0, 0].tolist()
    #       0 .. 2: 3 or more to voxel 3; 3: 1 to 2, 4 to 7;  4: 2, 3;  5: 3, 2, within the reach;  6: 4, 1
    assert sure == [1, 1, 1, 1, 1, 0, 0, 0]
    assert known_distances(label, 2, reach=2.0)[0, 0, 0, 0].tolist() == sure
    assert known_distances(label.clamp_min(0), 2).min() == 1
    assert known_distances(torch.full_like(label, -1), 2).max() == 0


def test_a_sure_distance_is_that_of_every_outline_that_agrees_where_somebody_has_looked():
    rng = np.random.default_rng(0)
    for _ in range(20):
        smooth = ndimage.gaussian_filter(rng.normal(size=(9, 10, 11)), 1.5)
        whole = torch.from_numpy(np.digitize(smooth, np.quantile(smooth, [0.6, 0.85])).astype(np.int64))[None]
        part = whole.clone()
        part[torch.from_numpy(ndimage.gaussian_filter(rng.normal(size=(9, 10, 11)), 1.0) > 0.02)[None]] = -1
        sure = known_distances(part, 3, 3.0, (1.0, 1.0, 2.0)) > 0
        assert sure.any() and not sure[:, :, part[0] < 0].any()
        ours, true = (exact_distances(classes, 3, 3.0, (1.0, 1.0, 2.0)) for classes in (part, whole))
        assert torch.equal(ours[sure], true[sure])


# Whole methods


def test_the_methods_that_a_user_can_choose_take_partial_outlines_and_the_others_say_that_they_do_not():
    assert set(methods.available(peers=False)) <= set(PARTIAL)
    with pytest.raises(InputError, match=r"SASSNet cannot learn from partial outlines.*barl"):
        methods.get("sassnet").must_take_partial()


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
@pytest.mark.parametrize("iteration", [80, 81])
def test_a_patch_that_nobody_has_looked_at_is_an_untouched_one_to_the_last_digit(name, settings, iteration):
    whole = batch_of(2, 1)
    unseen = methods.Batch(whole.weak, whole.strong, torch.cat([whole.label[:1], torch.full_like(whole.label[1:], -1)]))
    untouched = methods.Batch(whole.weak, whole.strong, whole.label[:1])
    losses, gradient = losses_and_gradient(name, settings, unseen, iteration)
    expected, other = losses_and_gradient(name, settings, untouched, iteration)
    if name == "supervised":  # shows the untouched patch to the network in one case only, which sums in another order
        assert losses == pytest.approx(expected, rel=1e-5) and torch.allclose(gradient, other, atol=1e-6)
        return
    assert losses == expected and torch.equal(gradient, other)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_patch_without_any_look_among_others_is_an_untouched_one(name, settings):
    """As above with the patch before an outlined one: sums run in another order."""
    whole = batch_of(2, 1)
    label = torch.cat([torch.full_like(whole.label[:1], -1), whole.label[1:]])
    losses, gradient = losses_and_gradient(name, settings, methods.Batch(whole.weak, whole.strong, label))
    turned = [1, 0, 2]
    untouched = methods.Batch(whole.weak[turned], whole.strong[turned], whole.label[1:])
    if name == "mean_teacher" or name == "ua_mt":  # their noise follows the order of the patches
        return
    expected, other = losses_and_gradient(name, settings, untouched)
    assert losses == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert torch.allclose(gradient, other, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_outlines_where_nobody_has_looked_have_no_part_in_the_loss(name, settings):
    """And outlines where somebody has looked do: a partial patch is neither whole nor untouched."""
    whole = batch_of(2, 1)
    part = whole.label.clone()
    part[0, :, 3:] = -1
    losses, gradient = losses_and_gradient(name, settings, methods.Batch(whole.weak, whole.strong, part))
    assert all(np.isfinite(value) for value in losses.values()) and gradient.abs().sum() > 0
    everything, _ = losses_and_gradient(name, settings, whole)
    assert losses["supervised"] != everything["supervised"]
    part[0, :, :3] = (part[0, :, :3] + 1) % 3
    changed, _ = losses_and_gradient(name, settings, methods.Batch(whole.weak, whole.strong, part))
    assert losses["supervised"] != changed["supervised"]


@pytest.mark.parametrize("name", [name for name in PARTIAL if methods.get(name).uses_unlabelled])
def test_partial_patches_alone_are_taught_by_the_terms_without_outlines(name):
    """The gradient at the finest logits of a voxel that nobody has looked at comes from these terms alone."""
    batch = batch_of(2, 0)
    batch.label[:, :, 3:] = -1
    settings = {"lambda_max": 0.0, "mu_max": 0.0} if name == "barl" else None
    if name == "dbisl":
        settings = {"lambda_max": 0.0, "parts": ["consistency", "pseudo"], "beta": 0.0}
    settings = settings or {"weight": 0.0}
    _, without = losses_and_gradient(name, settings, batch)
    _, with_them = losses_and_gradient(name, {}, batch)
    assert not torch.allclose(without, with_them)


def test_supervision_has_no_gradient_where_nobody_has_looked():
    batch = batch_of(2, 0)
    batch.label[0, :, 3:] = -1
    scales = [torch.randn(2, 3, *size, requires_grad=True) for size in ((4, 4, 4), SHAPE)]
    outlined = batch.outlined()
    log_p = [[scale.log_softmax(1) for scale in scales]]
    multi_scale_supervision(log_p, one_hot(outlined.label, 3), [0.5, 0.5], outlined.voxels).backward()
    assert scales[1].grad[0, :, :, 3:].abs().max() == 0 and scales[1].grad[0, :, :, :3].abs().min() > 0
    assert scales[0].grad[0, :, :, 2:].abs().max() == 0 and scales[0].grad[0, :, :, 1].abs().min() > 0
    assert scales[1].grad[1].abs().min() > 0


def test_cutmix_pastes_what_was_looked_at():
    batch = batch_of(2, 2)
    batch.label[0] = -1
    batch.label[1, :, :, 4:] = -1
    mixed, known = paste_outlines(batch, 3)
    assert len(known) == 3  # an item that nobody has looked at is one of those that get a box
    for item, guess in zip((0, 2, 3), known, strict=True):
        changed = (mixed.weak[item, 0] != batch.weak[item, 0]).nonzero()
        low, high = changed.min(0)[0], changed.max(0)[0] + 1
        box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        assert torch.equal(guess[box], batch.label[1][box])
        assert torch.equal(mixed.weak[(item, 0, *box)], batch.weak[(1, 0, *box)])
    assert torch.equal(mixed.weak[1], batch.weak[1])


def test_alignment_takes_the_outline_where_it_was_looked_at_and_the_own_label_elsewhere():
    batch = batch_of(2, 1)
    batch.label[0, :4] = -1
    guess = torch.full((3, *SHAPE), 2)
    completed = batch.outlined().completed(guess)
    assert (completed[0, :4] == 2).all() and torch.equal(completed[0, 4:], batch.label[0, 4:])
    assert torch.equal(completed[1], batch.label[1]) and (completed[2] == 2).all()


# Filled voxels that teach by their weight


def filled_batch(mode: str, seed: int = 0) -> methods.Batch:
    """Two outlined patches, of the first of which three planes were looked at, and the rest filled; one untouched."""
    batch = batch_of(2, 1, seed)
    batch.trust = torch.ones(2, *SHAPE)
    batch.trust[0, :, 3:] = torch.rand(SHAPE[0], SHAPE[1] - 3, SHAPE[2], generator=torch.Generator().manual_seed(seed))
    batch.unseen = 1 - batch.trust if mode == "both" else torch.zeros_like(batch.trust)
    return batch


def test_a_weighted_voxel_teaches_by_its_weight():
    label, trust = torch.tensor([[[[1, 0, 1]]]]), torch.tensor([[[[1.0, 0.5, 0.25]]]])
    batch = methods.Batch(torch.zeros(1, 1, 1, 1, 3), torch.zeros(1, 1, 1, 1, 3), label, trust, 1 - trust)
    outlined = batch.outlined()
    value = multi_scale_supervision([[log_p_of(0.8, 0.4, 0.9)]], one_hot(label, 2), [1.0], outlined.voxels).item()
    cross_entropy = -(log(0.8) + 0.5 * log(0.6) + 0.25 * log(0.9)) / 1.75
    dice = 1 - 2 * (0.8 + 0.25 * 0.9) / (0.8**2 + 0.5 * 0.4**2 + 0.25 * 0.9**2 + 1.25)
    assert value == pytest.approx(0.5 * (cross_entropy + dice), abs=1e-5)
    assert outlined.unseen(1).flatten().tolist() == [0, 0.5, 0.75]
    assert outlined.known(None, 1).flatten().tolist() == [1, -1, -1]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_weights_of_one_are_outlines_and_weights_of_none_with_open_voxels_are_partial_outlines(name, settings):
    whole, part = batch_of(2, 1), batch_of(2, 1)
    ones = torch.ones(2, *SHAPE)
    full = methods.Batch(whole.weak, whole.strong, whole.label, ones, ones - 1)
    assert losses_and_gradient(name, settings, full)[0] == losses_and_gradient(name, settings, whole)[0]
    part.label[0, :, 3:] = -1
    looked = (part.label >= 0).float()
    none = methods.Batch(part.weak, part.strong, part.label, looked, 1 - looked)
    assert losses_and_gradient(name, settings, none)[0] == losses_and_gradient(name, settings, part)[0]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_filled_voxels_teach_in_every_mode(name, settings):
    whole, results = batch_of(2, 1), {}
    for mode in ("weighted", "both"):
        losses, gradient = losses_and_gradient(name, settings, filled_batch(mode))
        assert all(np.isfinite(value) for value in losses.values()) and torch.isfinite(gradient).all()
        results[mode] = losses
    assert results["weighted"]["supervised"] != losses_and_gradient(name, settings, whole)[0]["supervised"]
    unlabelled = {"dpr", "cps", "pseudo", "cross"} & set(results["both"]) if name in ("barl", "cps") else set()
    assert all(results["both"][term] != results["weighted"][term] for term in unlabelled)


def test_cutmix_pastes_nothing_that_was_only_filled():
    batch = filled_batch("both")
    mixed, known = paste_outlines(batch, 3)
    assert len(known) == 1 and mixed.trust is batch.trust
    box = (mixed.weak[2, 0] != batch.weak[2, 0]).nonzero()
    inside = tuple(slice(a, b + 1) for a, b in zip(box.min(0)[0].tolist(), box.max(0)[0].tolist(), strict=True))
    sure = batch.label[0].masked_fill(batch.trust[0] < 1, -1)
    assert torch.equal(known[0][inside], sure[inside])
