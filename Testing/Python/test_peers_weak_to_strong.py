# SPDX-License-Identifier: Apache-2.0
"""UniMatch and CrossMatch: boxes, pseudo-labels, dropped channels, and each term against a value computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from barl import methods
from barl.losses.overlap import overlap_loss
from barl.methods.peers import weak_to_strong
from barl.methods.peers.weak_to_strong import PseudoLabel, random_boxes, streams_of
from barl.networks.branches import BranchOutput, Network, NetworkSpec, build_network


class Logistic(Network):
    """Foreground has the logit x, or x times the share of channels that is left; counts the forward passes."""

    n_branches = 1

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def views(self, x, branches=None):
        self.passes += 1
        return [BranchOutput([torch.cat([torch.zeros_like(x), x], 1)], x)]

    def perturbed(self, x, shares, branch=0):
        self.passes += 1
        return [self.scales(x * (1 - share)) for share in (0.0, *shares)]


def p_of(*logits: float) -> list[float]:
    return [1 / (1 + math.exp(-x)) for x in logits]


def dice(p: list[float], y: list[int], sure: list[int]) -> float:
    both = sum(w * a * b for a, b, w in zip(p, y, sure, strict=True))
    squares = sum(w * (a * a + b * b) for a, b, w in zip(p, y, sure, strict=True))
    return 1 - (2 * both + 1e-5) / (squares + 1e-5)


@pytest.fixture
def batch(monkeypatch) -> methods.Batch:
    """One outlined and one untouched patch of four voxels; a box on the last one, the second strong view 1 darker."""
    weak = torch.tensor([[5.0, -5.0, 4.0, -4.0], [4.0, 1.0, -2.0, 3.0]]).view(2, 1, 1, 1, 4)
    box = torch.tensor([False, False, False, True]).view(1, 1, 1, 1, 4)
    monkeypatch.setattr(weak_to_strong, "random_boxes", lambda size, count: box)
    monkeypatch.setattr(weak_to_strong, "disturb", lambda image, rng: image - 1.0)
    return methods.Batch(weak, weak + 0.5, torch.tensor([[[[1, 0, 1, 0]]]]))


def test_unimatch_by_hand(batch):
    losses = methods.get("unimatch")({"confidence": 0.8}).loss(Logistic(), batch, 80, 100)
    log_p = torch.cat([torch.zeros_like(batch.weak[:1]), batch.weak[:1]], 1).log_softmax(1)
    truth = torch.stack([1 - batch.label, batch.label], 1).float()
    assert losses["supervised"].item() == pytest.approx(overlap_loss(log_p, truth).item())
    # p of the weak view: 0.982, 0.731, 0.119, 0.953, so 0.8 leaves out the second voxel.
    features = dice(p_of(2.0, 0.5, -1.0, 1.5), [1, 1, 0, 1], [1, 0, 1, 1])
    assert losses["features"].item() == pytest.approx(features, rel=1e-4)
    # In the box lies the outlined patch: its weak view is background there, its strong views have -3.5 and -5.
    first = dice(p_of(4.5, 1.5, -1.5, -3.5), [1, 1, 0, 0], [1, 0, 1, 1])
    second = dice(p_of(3.0, 0.0, -3.0, -5.0), [1, 1, 0, 0], [1, 0, 1, 1])
    assert losses["strong"].item() == pytest.approx((first + second) / 2, rel=1e-4)
    total = losses["supervised"].item() + 0.5 * features + 0.25 * (first + second)
    assert losses["total"].item() == pytest.approx(total, rel=1e-4)


def test_crossmatch_by_hand(batch):
    losses = methods.get("crossmatch")({"confidence": 1.0}).loss(Logistic(), batch, 0, 100)
    # The threshold is ln 2 = 0.693; p of the weak view, whole and with 3/4 and 1/4 of its channels:
    #   4, 1, -2, 3: 0.982, 0.731, 0.119, 0.953    3, 0.75, -1.5, 2.25: .., 0.679, ..    1, 0.25, -0.5, 0.75: unsure
    #   -4 of the partner in the box: background, sure    -3: sure    -1: 0.731, sure
    #   the outlined patch is the partner; its third logit of 1/4 is 1: not in the box
    image_1 = dice(p_of(4.5, 1.5, -1.5, -3.5), [1, 1, 0, 0], [1, 1, 1, 1])
    image_2 = dice(p_of(3.0, 0.0, -3.0, -5.0), [1, 1, 0, 0], [1, 1, 1, 1])
    assert losses["image"].item() == pytest.approx((image_1 + image_2) / 2, rel=1e-4)
    teacher = [
        dice(p_of(3.0, 0.75, -1.5, 2.25), [1, 1, 0, 1], [1, 1, 1, 1]),
        dice(p_of(1.0, 0.25, -0.5, 0.75), [1, 1, 0, 1], [1, 1, 1, 1]),
        dice(p_of(2.25, 0.0, -2.25, -3.75), [1, 1, 0, 0], [1, 1, 1, 1]),
        dice(p_of(0.75, 0.0, -0.75, -1.25), [1, 1, 0, 0], [1, 1, 1, 1]),
    ]
    assert losses["teacher"].item() == pytest.approx(sum(teacher) / 4, rel=1e-4)
    decoders = [
        dice(p_of(2.25, 0.0, -2.25, -3.75), [1, 1, 0, 0], [1, 0, 1, 1]),
        dice(p_of(0.75, 0.0, -0.75, -1.25), [1, 1, 0, 0], [1, 0, 0, 1]),
    ]
    assert losses["decoders"].item() == pytest.approx(sum(decoders) / 2, rel=1e-4)
    parts = 0.25 * (image_1 + image_2) + 0.7 * sum(teacher) / 4 + 0.3 * sum(decoders) / 2
    assert losses["total"].item() == pytest.approx(losses["supervised"].item() + parts, rel=1e-4)


def test_crossmatch_asks_for_more_as_the_run_goes_on():
    threshold = methods.get("crossmatch")().settings.threshold
    assert threshold(0.0) == pytest.approx((0.75 + 0.25 * math.exp(-5)) * math.log(2))
    assert threshold(1.0) == pytest.approx((0.75 + 0.25 * math.exp(-5 * (3 / 17) ** 2)) * math.log(2))


def test_nothing_is_learned_from_labels_that_are_not_sure():
    log_p = torch.tensor([0.6, 0.4]).log().view(1, 2, 1, 1, 1).requires_grad_()
    loss = PseudoLabel.of(log_p).dice_loss(log_p, 0.61)
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, log_p)[0].abs().sum() == 0


def test_half_of_the_boxes_are_there_and_have_2_to_40_percent_of_the_patch():
    torch.manual_seed(0)
    shares = random_boxes((20, 30, 25), 400).float().mean((1, 2, 3, 4))
    there = shares[shares > 0]
    assert 160 < len(there) < 240
    assert 0.01 < there.min() < 0.05
    assert 0.3 < there.max() <= 0.4


def test_the_partner_is_the_patch_before_or_the_outlined_one():
    weak = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 1, 8, 8, 8)
    label = torch.zeros(2, 8, 8, 8, dtype=torch.long)
    streams = streams_of(methods.Batch(weak, weak, label))
    assert streams.partner[:, 0, 0, 0, 0].tolist() == [3.0, 2.0]
    streams = streams_of(methods.Batch(weak[1:], weak[1:], label))
    assert streams.partner[:, 0, 0, 0, 0].tolist() == [1.0]
    inside = streams.boxes[0]
    assert (streams.strong[0][inside] == 1.0).all() and (streams.strong[0][~inside] == 3.0).all()


def test_dropped_channels_are_whole_ones_of_every_level_and_the_rest_is_scaled(monkeypatch):
    network = build_network(NetworkSpec(1, 3, widths=(16, 32, 64)), seed=0)
    seen = []
    decoder = network.branch(1)
    real = decoder.scales
    monkeypatch.setattr(decoder, "scales", lambda skips: seen.append(skips) or real(skips))
    x = torch.randn(1, 1, 8, 8, 8)
    network.eval()
    torch.manual_seed(0)
    plain, dropped = network.perturbed(x, [0.75], 1)
    assert torch.equal(plain.logits[-1], network.scales(x, 1).logits[-1])
    assert not torch.equal(dropped.logits[-1], plain.logits[-1])
    for whole, part in zip(seen[0], seen[1], strict=True):
        kept = part.flatten(2).abs().sum(2) > 0
        assert torch.allclose(part[kept], 4.0 * whole[kept])
        assert 0 < int(kept.sum()) < 0.5 * kept.numel()
