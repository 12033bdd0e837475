# SPDX-License-Identifier: Apache-2.0
"""DBiSL as a method: both readings of its architecture, its parts one by one, the whole way to an uncertainty map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl import methods
from barl.cli import main
from barl.errors import InputError
from barl.inference.predictor import Predictor
from barl.losses.overlap import one_hot, overlap_loss
from barl.losses.task_transforms import segmentation_to_distance
from barl.methods.mixing import paste_outlines
from barl.models.disk import load_model
from barl.networks.branches import NetworkSpec, build_network
from barl.project.store import Project

ARCHITECTURES = ("2x2", "1+1")
SPEC = NetworkSpec(1, 3, widths=(4, 8, 16))
SHAPE = (12, 12, 12)
# Small maps and flat transforms, so that every voxel of the small patch has a gradient.
SMALL = {"radius": 3, "reach": 5.0, "k": 10.0}


def batch_of(n_labelled: int, n_unlabelled: int, n_classes: int = 3) -> methods.Batch:
    generator = torch.Generator().manual_seed(0)
    weak = torch.randn(n_labelled + n_unlabelled, 1, *SHAPE, generator=generator)
    label = torch.zeros(n_labelled, *SHAPE, dtype=torch.long)
    label[:, 2:6, 2:9, 2:8] = 1
    label[:, 6:10, 2:9, 2:8] = n_classes - 1
    return methods.Batch(weak, weak + 0.1 * torch.randn(weak.shape, generator=generator), label)


def made(settings: dict | None = None, n_classes: int = 3):
    method = methods.get("dbisl")({**SMALL, **(settings or {})})
    spec = dataclasses.replace(SPEC, n_classes=n_classes, **method.network_options())
    return method, build_network(spec, seed=0)


def gradient(module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_head_and_the_encoder_learn(architecture, n_classes):
    method, network = made({"architecture": architecture}, n_classes)
    losses = method.loss(network, batch_of(1, 2, n_classes), 80, 100)
    assert set(losses) == {"total", "supervised", "regression", "cross", "consistency", "pseudo"}
    losses["total"].backward()
    heads = [branch.heads for branch in network.branches if len(branch.heads)]
    regressions = [branch.regression for branch in network.branches if branch.regression is not None]
    assert (len(heads), len(regressions)) == {"2x2": (2, 2), "1+1": (1, 1)}[architecture]
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    for module in (*heads, *regressions, network.branches[0].down):
        assert gradient(module) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("part", ["cross", "consistency", "pseudo"])
def test_each_part_teaches_both_tasks_of_every_decoder(architecture, part):
    method, network = made({"architecture": architecture, "parts": [part]})
    losses = method.loss(network, batch_of(1, 2), 80, 100)
    assert set(losses) == {"total", "supervised", "regression", part}
    losses[part].backward()
    for branch in network.branches:
        if len(branch.heads):
            assert gradient(branch.heads[0]) > 0
        if branch.regression is not None:
            assert gradient(branch.regression) > 0


def test_unlabelled_patches_alone_teach_both_tasks():
    method, network = made({"parts": ["consistency"]})
    losses = method.loss(network, batch_of(0, 2), 80, 100)
    assert losses["supervised"].item() == 0.0
    losses["total"].backward()
    for branch in network.branches:
        assert min(gradient(branch.heads[0]), gradient(branch.regression)) > 0


def test_the_total_is_the_ramped_sum():
    method, network = made()
    losses = method.loss(network, batch_of(1, 2), 100, 100)
    outlined = losses["supervised"] + 0.1 * (losses["regression"] + losses["cross"])
    untouched = losses["consistency"] + losses["pseudo"]
    assert losses["total"].item() == pytest.approx((outlined + 0.3 * untouched).item())
    early = method.loss(network, batch_of(1, 2), 0, 100)
    ramp = float(np.exp(-5))
    between = ramp * (0.1 * early["cross"] + 0.3 * (early["consistency"] + early["pseudo"]))
    expected = early["supervised"] + 0.1 * early["regression"] + between
    assert early["total"].item() == pytest.approx(expected.item())
    method, network = made({"parts": []})
    losses = method.loss(network, batch_of(1, 2), 100, 100)
    assert losses["total"].item() == pytest.approx((losses["supervised"] + 0.1 * losses["regression"]).item())


def test_uncertainty_weights_change_the_pseudo_supervision_and_nothing_else():
    with_it, network = made({"parts": ["consistency", "pseudo", "uncertainty"]})
    without, _ = made({"parts": ["consistency", "pseudo"]})
    one, two = (method.loss(network, batch_of(1, 2), 80, 100) for method in (with_it, without))
    assert one["pseudo"].item() != pytest.approx(two["pseudo"].item(), rel=1e-3)
    for name in ("supervised", "regression", "consistency"):
        assert one[name].item() == pytest.approx(two[name].item())


def test_exchanged_decoders_are_compared_with_each_other():
    straight, network = made({"parts": ["consistency"]})
    exchanged, _ = made({"parts": ["consistency"], "exchange": True})
    one, two = (method.loss(network, batch_of(1, 1), 80, 100)["consistency"] for method in (straight, exchanged))
    assert one.item() != pytest.approx(two.item(), rel=1e-3)
    network.branches[1] = network.branches[0]
    one, two = (method.loss(network, batch_of(1, 1), 80, 100)["consistency"] for method in (straight, exchanged))
    assert one.item() == pytest.approx(two.item(), rel=1e-5)


def test_the_strong_view_is_shown_in_turn_or_not_at_all():
    plain, network = made({"alternate": False})
    alternating, _ = made()
    batch = batch_of(1, 1)
    other = dataclasses.replace(batch, strong=batch.strong + 1.0)
    for method, iteration, sees_it in ((plain, 1, False), (alternating, 0, False), (alternating, 1, True)):
        one, two = (method.loss(network, b, iteration, 100)["supervised"].item() for b in (batch, other))
        assert (one != two) == sees_it


def test_a_teacher_with_the_same_weights_says_what_the_decoders_say_and_then_follows_them():
    plain, network = made()
    taught, _ = made({"teacher": 0.99})
    taught.prepare(network)
    one, two = (method.loss(network, batch_of(1, 2), 80, 100) for method in (plain, taught))
    assert {name: value.item() for name, value in one.items()} == {name: value.item() for name, value in two.items()}
    two["total"].backward()
    teacher = taught.kept["teacher"]
    assert all(p.grad is None for p in teacher.parameters())
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1.0)
    moved = taught.loss(network, batch_of(1, 2), 80, 100)["pseudo"]
    assert moved.item() != pytest.approx(plain.loss(network, batch_of(1, 2), 80, 100)["pseudo"].item(), rel=1e-3)
    taught.after_step(network, 1000)
    pairs = zip(teacher.parameters(), network.parameters(), strict=True)
    assert all(torch.allclose(a, b - 0.99, atol=1e-4) for a, b in pairs)


def test_pseudo_labels_are_the_teachers_and_in_the_box_of_cutmix_the_outline():
    method, network = made({"teacher": 0.99, "cutmix": True, "beta": 0.3})
    method.prepare(network)
    with torch.no_grad():  # a teacher that is sure of background everywhere
        for branch in method.kept["teacher"].network.branches:
            for head in (branch.heads[0], branch.regression):
                head.weight.zero_()
                head.bias.copy_(torch.tensor([20.0, -20.0, -20.0]))
    batch = batch_of(1, 2)
    mixed, known = paste_outlines(batch, 80)
    assert (known > 0).any()
    pseudo = one_hot(known.clamp_min(0), 3)
    goal = segmentation_to_distance(pseudo, reach=5.0, radius=3)
    expected = []
    for output in network.views(mixed.weak):
        overlap = overlap_loss(output.log_probabilities()[-1][1:], pseudo)
        expected.append(overlap + 0.3 * (output.signed_distances()[1:] - goal).square().mean())
    value = method.loss(network, batch, 80, 100)["pseudo"].item()
    assert value == pytest.approx((sum(expected) / 2).item(), rel=1e-5)


def test_it_works_in_half_precision():
    method, network = made()
    with torch.autocast("cpu", torch.bfloat16):
        half = method.loss(network, batch_of(1, 1), 80, 100)
    half["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    whole = method.loss(network, batch_of(1, 1), 80, 100)
    for name, value in whole.items():
        assert half[name].item() == pytest.approx(value.item(), rel=0.1), name


def test_settings_that_cannot_be_are_one_sentence():
    for settings, words in (
        ({"parts": ["luck"]}, "no part 'luck'"),
        ({"architecture": "3x3"}, "no architecture '3x3'"),
        ({"h": 0}, "cannot be 0 or less"),
        ({"sharpening": 2.0}, "sharpening lies above 0"),
    ):
        with pytest.raises(InputError, match=words):
            methods.get("dbisl")(settings)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_from_scans_to_an_uncertainty_map(architecture, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("scans", "outlines"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        mask = sum((axis - c) ** 2 for axis, c in zip(np.indices((16, 18, 20)), rng.uniform(7, 9, 3), strict=True)) < 25
        scan = sitk.GetImageFromArray((100 * mask + rng.normal(0, 10, mask.shape)).astype(np.float32))
        sitk.WriteImage(scan, f"scans/s{number}.nii.gz")
        if number < 2:
            sitk.WriteImage(sitk.GetImageFromArray(mask.astype(np.uint8)), f"outlines/s{number}.nii.gz")
    assert main(["project", "new", "study", "--label", "1=ball", "--channel", "CT"]) == 0
    assert main(["add", "study", "--images", "scans", "--labels", "outlines"]) == 0
    settings = f'settings={{"architecture":"{architecture}"}}'
    small = ["--set", "widths=[4,8]", "--set", "patch=[16,16,16]", "--set", "loader_workers=0", "--set", settings]
    assert main(["train", "study", "--method", "dbisl", "--iterations", "25", "--device", "cpu", *small]) == 0
    assert main(["predict", "study", "--device", "cpu"]) == 0
    capsys.readouterr()
    with Project.open(tmp_path / "study", read_only=True) as project:
        folder = project.models.current().folder
    card, network = load_model(folder)
    assert (card.method, network.n_branches, card.network["shared_encoder"]) == ("dbisl", 2, True)
    prediction = Predictor(card, network).predict([sitk.ReadImage("scans/s3.nii.gz")], want_components=True)
    uncertainty = sitk.GetArrayViewFromImage(prediction.uncertainty)
    assert 0 <= uncertainty.min() < uncertainty.max() <= 1
    assert sitk.GetArrayViewFromImage(prediction.disagreement).max() > 0
    found = sitk.GetArrayViewFromImage(prediction.label) == 1
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.5
    assert prediction.hotspots
