# SPDX-License-Identifier: Apache-2.0
"""Methods as a whole: every kind of batch works, every part reaches the weights it should."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from barl import methods
from barl.errors import InputError
from barl.methods.mixing import paste_outlines
from barl.networks.branches import NetworkSpec, build_network

SPEC = NetworkSpec(1, 3, widths=(4, 8, 16))
SHAPE = (8, 8, 8)


def batch_of(n_labelled: int, n_unlabelled: int, *, empty: bool = False, seed: int = 0) -> methods.Batch:
    generator = torch.Generator().manual_seed(seed)
    n = n_labelled + n_unlabelled
    weak = torch.randn(n, 1, *SHAPE, generator=generator)
    label = torch.zeros(n_labelled, *SHAPE, dtype=torch.long)
    if not empty:
        label[:, 1:4, 1:4, 1:4] = 1
        label[:, 4:8, 4:8, 4:8] = 2
    return methods.Batch(weak, weak + 0.1 * torch.randn(weak.shape, generator=generator), label)


def network_for(method: methods.Method, **fields):
    network = build_network(dataclasses.replace(SPEC, **method.network_options(), **fields), seed=0)
    method.prepare(network)
    return network


def gradients(network) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", list(methods.available()))
@pytest.mark.parametrize(
    ("n_labelled", "n_unlabelled", "empty"),
    [(2, 2, False), (2, 0, False), (1, 1, True), (1, 3, False)],
    ids=["both", "labelled only", "empty foreground", "uneven"],
)
def test_finite_loss_and_gradient(name, n_labelled, n_unlabelled, empty):
    method = methods.get(name)()
    network = network_for(method)
    losses = method.loss(network, batch_of(n_labelled, n_unlabelled, empty=empty), 80, 100)
    losses["total"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert torch.isfinite(gradients(network)).all()
    assert gradients(network).abs().sum() > 0


@pytest.mark.parametrize("name", [n for n, m in methods.available().items() if m.uses_unlabelled])
def test_unlabelled_only_batch(name):
    method = methods.get(name)()
    network = network_for(method)
    losses = method.loss(network, batch_of(0, 2), 80, 100)
    losses["total"].backward()
    assert losses["supervised"].item() == 0.0
    assert gradients(network).abs().sum() > 0


@pytest.mark.parametrize("part", ["cps", "dpr", "pcbc", "region", "instance"])
@pytest.mark.parametrize("correct", ["all", "labelled"])
def test_each_part_of_barl_has_a_gradient_in_both_branches(part, correct):
    network = build_network(SPEC, seed=0)
    method = methods.get("barl")({"parts": [part], "correct": correct, "lesion_min_voxels": 1, "lesion_min_iou": 0.0})
    method.loss(network, batch_of(1, 2), 80, 100)[part].backward()
    for branch in network.branches:
        assert sum(float(p.grad.abs().sum()) for p in branch.parameters() if p.grad is not None) > 0


def test_total_is_the_ramped_sum_of_the_parts():
    network = build_network(SPEC, seed=0)
    losses = methods.get("barl")().loss(network, batch_of(1, 1), 100, 100)
    label_space = losses["dpr"] + losses["pcbc"]
    expected = losses["supervised"] + 1.0 * label_space + 0.1 * (losses["region"] + losses["instance"])
    assert losses["total"].item() == pytest.approx(expected.item(), rel=1e-5)
    early = methods.get("barl")().loss(network, batch_of(1, 1), 0, 100)
    assert early["total"].item() == pytest.approx(early["supervised"].item(), abs=0.05)


def test_swapped_branches_and_views_give_the_same_loss():
    # Branches of the same kind, so that exchanging them leaves the same pair.
    spec = NetworkSpec(1, 3, widths=(4, 8, 16), upsampling=("linear",), residual=(False,))
    network, exchanged = build_network(spec, seed=0), build_network(spec, seed=0)
    exchanged.branches = torch.nn.ModuleList(reversed(list(exchanged.branches)))
    batch = batch_of(1, 2)
    other = methods.Batch(batch.strong, batch.weak, batch.label)
    method = methods.get("barl")({"swap": False})
    one, two = method.loss(network, batch, 80, 100), method.loss(exchanged, other, 80, 100)
    for name in one:
        assert one[name].item() == pytest.approx(two[name].item(), rel=1e-4, abs=1e-6), name


def test_unknown_names_are_one_sentence():
    with pytest.raises(InputError, match="no method 'magic'"):
        methods.get("magic")
    with pytest.raises(InputError, match="no setting 'power'"):
        methods.get("barl")({"power": 1})
    with pytest.raises(InputError, match="no part 'luck'"):
        methods.get("barl")({"parts": ["luck"]})


def test_cutmix_pastes_image_and_outline_at_the_same_place_in_both_views():
    batch = batch_of(1, 2)
    mixed, known = paste_outlines(batch, 5)
    assert torch.equal(mixed.weak[:1], batch.weak[:1])
    for item in (0, 1):
        inside = known[item] >= 0
        assert int(inside.sum()) == 4 * 4 * 4
        assert torch.equal(known[item][inside], batch.label[0][inside])
        for view, before in ((mixed.weak, batch.weak), (mixed.strong, batch.strong)):
            assert torch.equal(view[1 + item, 0][inside], before[0, 0][inside])
            assert torch.equal(view[1 + item, 0][~inside], before[1 + item, 0][~inside])
    again, other = paste_outlines(batch, 5)[1], paste_outlines(batch, 6)[1]
    assert torch.equal(known, again)
    assert not torch.equal(known, other)
