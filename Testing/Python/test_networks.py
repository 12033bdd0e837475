# SPDX-License-Identifier: Apache-2.0
"""The branches: shapes at every scale, independence, and the same weights from the same seed."""

from __future__ import annotations

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


def test_levels_must_fit_each_other():
    with pytest.raises(ValueError, match="one entry per level"):
        NetworkSpec(1, 2, widths=(4, 8), strides=((1, 1, 1),))
