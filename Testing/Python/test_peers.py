# SPDX-License-Identifier: Apache-2.0
"""The peers: what each learns from untouched patches, where it must learn nothing, exact resume of what it keeps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl import methods
from barl.losses.consistency import entropy, sharpen, squared_difference
from barl.methods.mixing import exchange, largest_pieces, paste_in_turn, random_box
from barl.methods.peers.distance_map import scaled_distances
from barl.methods.peers.ss_net import ClassMemory
from barl.methods.teacher import Teacher
from barl.networks.branches import NetworkSpec, build_network
from barl.project.labels import Label
from barl.training.cases import CaseFiles
from barl.training.loop import train
from barl.training.plan import Plan, make_plan
from safetensors.torch import load_file

SHAPE = (8, 8, 8)
SPEC = NetworkSpec(1, 3, widths=(4, 8, 16))
# Each with the part of its loss that needs no outline.
PEERS = {
    "mean_teacher": "consistency",
    "ua_mt": "consistency",
    "entmin": "entropy",
    "ict": "consistency",
    "cps": "cross",
    "urpc": "pyramid",
    "sassnet": "adversarial",
    "dtc": "consistency",
    "ss_net": "smoothness",
    "mc_net_plus": "mutual",
    "bcp": "pseudo",
    "sdcl": "pseudo",
    "crossmatch": "teacher",
    "unimatch": "strong",
}
# A network of a few steps is not sure yet.
UNSURE = {"crossmatch": {"confidence": 0.0}, "unimatch": {"confidence": 0.35}}
WITHOUT_RAMP = ("bcp", "sdcl", "crossmatch", "unimatch")
STATEFUL = ["mean_teacher", "ua_mt", "ict", "sassnet", "ss_net", "bcp", "sdcl"]


def setting(name: str, **settings):
    """The method, a network that it has been prepared with, and a batch of 2 + 2 patches."""
    torch.manual_seed(0)
    method = methods.get(name)({**UNSURE.get(name, {}), **settings})
    network = build_network(dataclasses.replace(SPEC, **method.network_options()), seed=0)
    method.prepare(network)
    weak = torch.randn(4, 1, *SHAPE)
    label = torch.zeros(2, *SHAPE, dtype=torch.long)
    label[:, 1:4, 1:4, 1:4] = 1
    label[:, 4:8, 4:8, 4:8] = 2
    weak[:2] += label[:, None] * 2.0
    return method, network, methods.Batch(weak, weak + 0.1 * torch.randn_like(weak), label)


def steps(method, network, batch, count: int = 4, start: int = 60) -> list[dict[str, torch.Tensor]]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    seen = []
    for iteration in range(start, start + count):
        torch.manual_seed(iteration)
        losses = method.loss(network, batch, iteration, 100)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        method.after_step(network, iteration)
        seen.append({name: value.detach() for name, value in losses.items()})
    return seen


def gradient(value: torch.Tensor, of) -> float:
    found = torch.autograd.grad(value, list(of), retain_graph=True, allow_unused=True)
    return sum(float(g.abs().sum()) for g in found if g is not None)


def test_all_peers_are_there():
    assert {*PEERS, "supervised"} <= set(methods.available())


@pytest.mark.parametrize("name", PEERS)
def test_it_trains_and_its_unlabelled_term_reaches_the_network_through_the_untouched_patches(name):
    method, network, batch = setting(name)
    first, *_, last = steps(method, network, batch)
    assert all(torch.isfinite(value) for value in last.values())
    assert last["supervised"] < first["supervised"]
    batch.weak.requires_grad_()
    batch.strong.requires_grad_()
    torch.manual_seed(0)
    losses = method.loss(network, batch, 80, 100)
    term = losses[PEERS[name]]
    for branch in network.branches:
        assert gradient(term, branch.parameters()) > 0
    seen = torch.autograd.grad(term, [batch.weak, batch.strong], retain_graph=True, allow_unused=True)
    assert sum(float(g[2:].abs().sum()) for g in seen if g is not None) > 0
    if name not in ("bcp", "sdcl"):  # they mix patches, so an outlined voxel has untouched neighbors
        seen = torch.autograd.grad(losses["supervised"], [batch.weak, batch.strong], allow_unused=True)
        assert sum(float(g[2:].abs().sum()) for g in seen if g is not None) == 0


@pytest.mark.parametrize("name", [n for n in PEERS if n not in ("entmin", "dtc", "ss_net", "mc_net_plus")])
def test_without_untouched_patches_there_is_nothing_but_supervision(name):
    method, network, batch = setting(name)
    losses = method.loss(network, methods.Batch(batch.weak[:2], batch.strong[:2], batch.label), 80, 100)
    assert PEERS[name] not in losses or losses[PEERS[name]].item() == 0.0


@pytest.mark.parametrize("name", [n for n in PEERS if n not in WITHOUT_RAMP])
def test_the_ramp_opens_the_unlabelled_term(name):
    method = methods.get(name)()
    early, late = method.consistency_weight(0, 100), method.consistency_weight(100, 100)
    assert 0 < early < 0.01 * method.settings.weight
    assert early < late <= method.settings.weight
    assert late == pytest.approx(method.settings.weight * (0.2865 if name == "urpc" else 1.0), rel=1e-3)


@pytest.mark.parametrize("name", ["mean_teacher", "ua_mt", "ict", "bcp", "sdcl"])
def test_the_teacher_has_no_gradient_and_follows_the_student_after_the_step(name):
    method, network, batch = setting(name)
    before = [p.clone() for p in method.teacher.parameters()]
    method.loss(network, batch, 80, 100)["total"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, method.teacher.parameters(), strict=True))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1.0)
    method.after_step(network, 80)
    moved = [b - a for a, b in zip(before, method.teacher.parameters(), strict=True)]
    assert all(torch.allclose(m, torch.full_like(m, 1 / 81), atol=1e-5) for m in moved)


def test_an_average_of_one_step_is_the_student_and_a_late_one_keeps_99_percent():
    network = build_network(SPEC, seed=0)
    teacher = Teacher(build_network(SPEC, seed=1))
    teacher.follow(network, 0)
    assert all(torch.equal(a, b) for a, b in zip(teacher.network.parameters(), network.parameters(), strict=True))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1.0)
    teacher.follow(network, 10_000)
    pairs = zip(teacher.network.parameters(), network.parameters(), strict=True)
    assert all(torch.allclose(a, b - 0.99, atol=1e-5) for a, b in pairs)


def test_a_teacher_that_says_the_same_teaches_nothing():
    method, network, batch = setting("mean_teacher", noise=0.0)
    assert method.loss(network, batch, 80, 100)["consistency"].item() == pytest.approx(0.0, abs=1e-10)
    method, network, batch = setting("ict")
    batch.weak[3], batch.strong[3] = batch.weak[2], batch.strong[2]  # any mixture of equals is the same again
    assert method.loss(network, batch, 80, 100)["consistency"].item() == pytest.approx(0.0, abs=1e-10)


def test_ua_mt_learns_nothing_where_the_teacher_is_unsure():
    method, network, batch = setting("ua_mt")
    with torch.no_grad():
        for branch in method.teacher.network.branches:
            for parameter in branch.heads.parameters():
                parameter.zero_()
    term = method.loss(network, batch, 80, 100)["consistency"]
    assert term.item() == 0.0
    assert gradient(term, network.parameters()) == 0.0


def test_entropy_falls_along_its_gradient_and_is_one_for_the_uniform_distribution():
    p = torch.full((1, 3, 2, 2, 2), 1 / 3)
    assert torch.allclose(entropy(p), torch.ones(1, 1, 2, 2, 2))
    method, network, batch = setting("entmin")
    before = method.loss(network, batch, 80, 100)["entropy"]
    gradients = torch.autograd.grad(before, list(network.parameters()), allow_unused=True)
    with torch.no_grad():
        for p, g in zip(network.parameters(), gradients, strict=True):
            p.sub_(0.1 * g if g is not None else 0.0)
    assert method.loss(network, batch, 80, 100)["entropy"] < before


def test_urpc_is_zero_where_all_scales_say_the_same():
    method, network, batch = setting("urpc")
    with torch.no_grad():
        for parameter in (p for branch in network.branches for p in branch.heads.parameters()):
            parameter.zero_()
    term = method.loss(network, batch, 80, 100)["pyramid"]
    assert term.item() == pytest.approx(0.0, abs=1e-7)
    assert gradient(term, network.parameters()) == pytest.approx(0.0, abs=1e-5)


def test_cps_teaches_a_branch_by_the_others_labels_alone():
    method, network, batch = setting("cps")
    own = list(network.branches[0].parameters())
    before = torch.autograd.grad(method.loss(network, batch, 80, 100)["cross"], own, allow_unused=True)
    with torch.no_grad():  # twice as sure, the same labels
        for parameter in network.branches[1].heads.parameters():
            parameter.mul_(2.0)
    after = torch.autograd.grad(method.loss(network, batch, 80, 100)["cross"], own, allow_unused=True)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(before, after, strict=True) if a is not None)


def test_scaled_distances_have_the_sign_of_the_side_and_end_at_one():
    classes = torch.zeros(1, 12, 12, 12, dtype=torch.long)
    classes[0, 3:8, 3:8, 3:8] = 1
    ball, absent = scaled_distances(classes, 3)[0]
    inside = classes[0] == 1
    assert (ball[inside] >= 0).all()
    assert (ball[~inside] < 0).all()
    assert ball.max() == ball[5, 5, 5] == 1.0
    assert ball.min() == ball[11, 11, 11] == -1.0
    assert ball[3, 5, 5] == 0.0
    assert (absent == -1.0).all()
    assert (scaled_distances(torch.ones(1, 4, 4, 4, dtype=torch.long), 2) == 1.0).all()


def test_the_critic_of_sassnet_learns_by_itself_and_only_after_the_step():
    method, network, batch = setting("sassnet")
    critics = list(method.kept.parameters())
    before = [p.clone() for p in critics]
    losses = method.loss(network, batch, 80, 100)
    losses["total"].backward()
    assert all(p.grad is None for p in critics)
    weights = [p.clone() for p in network.parameters()]
    method.after_step(network, 80)
    assert any(not torch.equal(a, b) for a, b in zip(before, critics, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))
    heads = [p for branch in network.branches for p in branch.heads.parameters()]
    assert gradient(method.loss(network, batch, 80, 100)["adversarial"], heads) == 0.0  # it judges the distances alone


def test_the_memory_of_ss_net_holds_directions_of_right_foreground_voxels():
    memory = ClassMemory(1, 3, 4, 2)
    features = torch.randn(1, 2, 2, 2, 2)
    classes = torch.ones(1, 2, 2, 2, dtype=torch.long)
    assert memory.distance(0, features, classes).item() == 0.0  # nothing remembered, nothing to learn
    memory.add(0, 1, torch.tensor([[3.0, 0.0]]))
    same = torch.zeros(1, 2, 2, 2, 2)
    same[:, 0] = 5.0
    assert memory.distance(0, same, classes).item() == pytest.approx(0.0, abs=1e-6)
    assert memory.distance(0, -same, classes).item() == pytest.approx(2.0 / 3, abs=1e-6)
    memory.add(0, 1, torch.tensor([[0.0, 1.0]] * 6))
    assert torch.equal(memory.features[0, 1], torch.tensor([[0.0, 1.0]] * 4))
    method, network, batch = setting("ss_net")
    steps(method, network, batch, count=12)
    kept = method.kept["memory"].features
    assert kept[:, 0].abs().sum() == 0.0
    assert kept[:, 1:].norm(dim=-1).max() == pytest.approx(1.0, abs=1e-5)


def test_sharpened_certainty_is_itself_and_mc_net_then_has_nothing_to_learn():
    p = torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1, 1)
    expected = p**10 / (p**10).sum()
    assert torch.allclose(sharpen(p, 0.1), expected, atol=1e-6)
    sure = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1, 1)
    assert squared_difference(sure, sharpen(sure, 0.1)).item() == pytest.approx(0.0, abs=1e-10)


def test_boxes_go_both_ways_and_nothing_else_changes():
    values = torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 1, *SHAPE).clone()
    torch.manual_seed(3)
    box = random_box(SHAPE, 2 / 3)
    assert [part.stop - part.start for part in box] == [5, 5, 5]
    mixed = exchange(values, 1, box)
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    inside[box] = True
    assert (mixed[0, 0][inside] == 1).all() and (mixed[0, 0][~inside] == 0).all()
    assert (mixed[1, 0][inside] == 0).all() and (mixed[1, 0][~inside] == 1).all()
    assert (mixed[2, 0][inside] == 0).all() and (mixed[2, 0][~inside] == 2).all()
    assert torch.equal(exchange(values, 3, box), values)
    assert (paste_in_turn(values, box)[0, 0][inside] == 2).all()


def test_only_the_largest_piece_of_each_class_is_kept():
    classes = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    classes[0, 0:2, 0:2, 0:2] = 1
    classes[0, 4:7, 4:7, 4:7] = 1
    classes[0, 0, 7, 7] = 2
    kept = largest_pieces(classes)
    assert int((kept == 1).sum()) == 27
    assert int((kept == 2).sum()) == 1


def test_bcp_begins_with_outlined_patches_alone():
    method, network, batch = setting("bcp")
    assert "pseudo" not in method.loss(network, batch, 5, 100)
    assert "pseudo" in method.loss(network, batch, 20, 100)


def test_students_that_agree_are_not_corrected():
    method, network, batch = setting("sdcl")
    network.branches[1] = network.branches[0]
    losses = method.loss(network, methods.Batch(batch.weak, batch.weak.clone(), batch.label), 80, 100)
    assert losses["pull"].item() == losses["unlearn"].item() == 0.0
    method, network, batch = setting("sdcl")
    losses = method.loss(network, batch, 80, 100)
    assert losses["pull"].item() > 0
    for branch in network.branches:
        assert gradient(losses["pull"] + losses["unlearn"], branch.parameters()) > 0


@pytest.fixture(scope="module")
def a_study(tmp_path_factory) -> tuple[Plan, list[CaseFiles], Path]:
    """Two outlined and two untouched scans of noise with a box."""
    from barl.images.fingerprint import fingerprint_case
    from barl.images.reading import read_channels

    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    label = np.zeros((10, 10, 10), np.uint8)
    label[3:7, 3:7, 3:7] = 1
    cases = []
    for n in range(4):
        paths = [folder / f"{kind}_{n}.mha" for kind in ("image", "label")]
        image = (label * 3 + rng.normal(0, 1, label.shape) + 10).astype(np.float32)
        for path, array in zip(paths, (image, label), strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        cases.append(CaseFiles(f"case_{n}", [paths[0]], paths[1] if n < 2 else None))
    fingerprints = [fingerprint_case(read_channels(case.images), None, [1]) for case in cases]
    overrides = {"patch": [8, 8, 8], "widths": [4, 8], "iterations": 8, "loader_workers": 0, "validations": 0}
    return make_plan(fingerprints, [Label(1, "Box")], ["T1"], overrides=overrides), cases, folder / "cache"


@pytest.mark.parametrize("name", STATEFUL)
def test_what_a_method_keeps_is_resumed_exactly(a_study, tmp_path, name):
    plan, cases, cache = a_study
    options = methods.get(name)().network_options()
    plan = dataclasses.replace(plan, method=name, network=dataclasses.replace(plan.network, **options))
    whole = train(plan, cases, tmp_path / "whole", cache=cache, device="cpu")
    asked = iter(range(100))
    train(plan, cases, tmp_path / "part", cache=cache, device="cpu", should_stop=lambda: next(asked) >= 5)
    kept = load_file(tmp_path / "part" / "checkpoint.safetensors")
    assert any(key.startswith("kept/") for key in kept)
    rest = train(plan, cases, tmp_path / "part", cache=cache, device="cpu", resume=True)
    assert whole.iterations == rest.iterations == 8
    one, two = (load_file(tmp_path / folder / "checkpoint.safetensors") for folder in ("whole", "part"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
