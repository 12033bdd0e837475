# SPDX-License-Identifier: Apache-2.0
"""The branches: shapes at every scale, independence, and the same weights from the same seed."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from barl.networks.branches import NetworkSpec, build_network

SMALL = NetworkSpec(2, 4, widths=(4, 8, 16))


def test_shapes_per_scale_coarse_to_fine():
    output = build_network(SMALL).scales(torch.randn(2, 2, 8, 12, 16), branch=1)
    assert [tuple(z.shape) for z in output.logits] == [(2, 4, 4, 6, 8), (2, 4, 8, 12, 16)]
    assert tuple(output.features.shape) == (2, SMALL.projector, 8, 12, 16)


def test_finest_scale_is_what_prediction_uses():
    network = build_network(SMALL, seed=0).eval()
    x = torch.randn(1, 2, 8, 8, 8)
    for branch in (0, 1):
        assert torch.equal(network(x, branch), network.scales(x, branch).logits[-1])


def test_anisotropic_levels():
    spec = NetworkSpec(1, 2, (4, 8, 16), ((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (1, 3, 3), (3, 3, 3)))
    assert spec.divisor == (2, 4, 4)
    assert build_network(spec)(torch.randn(1, 1, 2, 8, 8), 1).shape == (1, 2, 2, 8, 8)


def test_branches_differ_and_a_seed_fixes_them():
    one, two = build_network(SMALL, seed=3), build_network(SMALL, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    x = torch.randn(1, 2, 8, 8, 8)
    assert not torch.allclose(one(x, 0), one(x, 1))
    before = torch.random.get_rng_state()
    build_network(SMALL, seed=4)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_branch_gets_no_gradient_from_the_other():
    network = build_network(SMALL)
    network(torch.randn(1, 2, 8, 8, 8), 0).sum().backward()
    assert all(p.grad is None for p in network.branches[1].parameters())


def test_description_is_one_vector_a_scan():
    assert build_network(SMALL).describe(torch.randn(3, 2, 8, 8, 8)).shape == (3, 16)


def test_specification_survives_json():
    assert NetworkSpec.from_json(json.loads(json.dumps(SMALL.to_json()))) == SMALL


def test_several_blocks_per_level():
    spec = dataclasses.replace(SMALL, blocks=(1, 2, 3), residual=(True,))
    assert NetworkSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    network = build_network(spec, seed=0)
    levels = [
        {name.split(".")[4] for name in network.state_dict() if name.startswith(f"branches.0.down.{n}.")}
        for n in (1, 2)
    ]
    assert levels == [{"0", "1"}, {"0", "1", "2"}]
    x = torch.randn(1, 2, 8, 8, 8)
    network(x).sum().backward()
    assert all(p.grad is not None for p in network.branch(0).down.parameters())
    with pytest.raises(ValueError, match="blocks needs"):
        dataclasses.replace(SMALL, blocks=(1, 2))


def test_levels_must_fit_each_other():
    with pytest.raises(ValueError, match="one entry per level"):
        NetworkSpec(1, 2, widths=(4, 8), strides=((1, 1, 1),))


SHARED = dataclasses.replace(
    SMALL, n_branches=3, shared_encoder=True, residual=(False,), upsampling=("deconv", "linear", "nearest")
)


def test_the_two_independent_branches_have_the_weights_they_always_had():
    """Names and order of a model card from before the optional fields: its weights must still fit."""
    network = build_network(SMALL)
    assert sum(p.numel() for p in network.parameters()) == 43_184
    kinds = {name.split(".")[2] for name in network.state_dict()}
    assert kinds == {"down", "up", "merge", "heads", "projector"}
    assert set(SMALL.to_json()) == {
        "in_channels",
        "n_classes",
        "widths",
        "strides",
        "kernels",
        "n_scales",
        "n_branches",
        "upsampling",
        "residual",
        "feature_level",
        "projector",
    }


def test_several_decoders_on_one_encoder():
    network = build_network(SHARED, seed=0).eval()
    calls = []
    network.branches[0].down[0].register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(1, 2, 8, 8, 8)
    views = network.views(x)
    assert (len(views), len(calls)) == (3, 1)
    finest = [view.logits[-1] for view in views]
    assert not torch.allclose(finest[0], finest[1])
    assert not torch.allclose(finest[1], finest[2])
    together = network.logits(x, range(3))
    assert len(calls) == 2
    for branch in range(3):
        assert torch.equal(network(x, branch), finest[branch])
        assert torch.equal(together[branch], finest[branch])
    assert not any("down" in name for name, _ in network.branches[1].named_parameters())


def test_the_shared_encoder_learns_from_every_decoder():
    network = build_network(SHARED)
    network(torch.randn(1, 2, 8, 8, 8), 2).sum().backward()
    assert all(p.grad is not None for p in network.branches[0].down.parameters())
    assert all(p.grad is None for p in network.branches[0].merge.parameters())


@pytest.mark.parametrize("n_classes", [2, 4])
def test_distances_are_one_map_per_class_within_one(n_classes):
    spec = dataclasses.replace(SMALL, n_classes=n_classes, n_branches=1, tasks=("both",))
    network = build_network(spec, seed=0)
    output = network.scales(5 * torch.randn(2, 2, 8, 8, 8))
    assert output.distances.shape == (2, n_classes, 8, 8, 8)
    assert output.distances.abs().max() <= 1
    assert len(output.logits) == 2
    if n_classes == 2:
        assert torch.equal(output.distances[:, 0], -output.distances[:, 1])
        assert network.branches[0].regression.out_channels == 1


def test_a_branch_with_distances_alone_predicts_from_them():
    spec = dataclasses.replace(SMALL, n_classes=2, tasks=("segmentation", "distance"), steepness=20.0)
    network = build_network(spec, seed=0).eval()
    x = torch.randn(1, 2, 8, 8, 8)
    assert network.scales(x, 0).distances is None
    output = network.scales(x, 1)
    expected = torch.sigmoid(20.0 * output.distances[:, 1])
    assert torch.allclose(network(x, 1).softmax(1)[:, 1], expected, atol=1e-6)
    assert len(output.logits) == 1


def test_dropout_is_for_training_only():
    network = build_network(dataclasses.replace(SMALL, dropout=0.5), seed=0)
    x = torch.randn(1, 2, 8, 8, 8)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
    assert torch.equal(network(x), build_network(SMALL, seed=0).eval()(x))


def test_extended_specifications_survive_json():
    spec = dataclasses.replace(SHARED, tasks=("both", "distance"), dropout=0.25, steepness=10.0)
    assert NetworkSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    with pytest.raises(ValueError, match="no task 'art'"):
        dataclasses.replace(SMALL, tasks=("art",))
