# SPDX-License-Identifier: Apache-2.0
"""The plan: what it chooses from cases and device, what may be overridden, what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from barl.errors import InputError
from barl.images.fingerprint import CaseFingerprint
from barl.images.intensity import ImageStatistics
from barl.project.labels import Label
from barl.training.budgets import BUDGETS, EFFORTS
from barl.training.plan import Plan, make_plan

LABELS = [Label(1, "Lesion")]
MR = ImageStatistics.of(np.random.default_rng(0).normal(300, 60, (16, 16, 16)).astype(np.float32))


def case(size=(36, 50, 35), spacing=(1.0, 1.0, 1.0), orientation="LPS") -> CaseFingerprint:
    return CaseFingerprint(size, spacing, orientation, (MR,))


def test_small_isotropic_scans_on_a_cpu():
    plan = make_plan([case()] * 3, LABELS, ["T1"])
    assert plan.spacing == (1.0, 1.0, 1.0)
    assert np.prod(plan.patch) <= 60_000
    assert all(edge % d == 0 for edge, d in zip(plan.patch, plan.network.divisor, strict=True))
    assert plan.normalisations[0].scheme == "zscore"


def test_spacing_follows_the_axes_not_their_order():
    # The same scan stored with another axis first: 4 mm slices run from foot to head in both.
    one = make_plan([case((128, 128, 24), (1.5, 1.6, 4.0), "LPS")], LABELS, ["ADC"])
    two = make_plan([case((24, 128, 128), (4.0, 1.5, 1.6), "SLP")], LABELS, ["ADC"])
    assert one.spacing == two.spacing == (1.5, 1.6, 4.0)
    assert one.patch == two.patch


def test_thick_slices_are_halved_later_and_rotated_in_plane_only():
    plan = make_plan([case((160, 160, 20), (1.25, 1.25, 6.0))], LABELS, ["ADC"])
    assert plan.network.strides[1] == (1, 2, 2)
    assert plan.network.kernels[0] == (1, 3, 3)
    assert plan.rotate_degrees == (15.0, 0.0, 0.0)
    # Sagittal and coronal slices, as of the spine: in their planes, too.
    sagittal = make_plan([case((20, 160, 160), (6.0, 1.25, 1.25), "LPS")], LABELS, ["T2"])
    coronal = make_plan([case((160, 20, 160), (1.25, 6.0, 1.25), "LPS")], LABELS, ["T2"])
    assert sagittal.rotate_degrees == (0.0, 0.0, 15.0)
    assert coronal.rotate_degrees == (0.0, 15.0, 0.0)


def test_large_scans_are_coarsened_on_a_cpu_only():
    big = [case((512, 512, 600), (0.7, 0.7, 1.0))]
    cpu, gpu = make_plan(big, LABELS, ["CT"]), make_plan(big, LABELS, ["CT"], "cuda", 24 * 2**30)
    assert min(cpu.spacing) > 1.5
    assert "million voxels" in cpu.reasons["spacing"]
    assert np.prod(gpu.patch) > 10 * np.prod(cpu.patch)
    tight = make_plan(big, LABELS, ["CT"], "cuda", 6 * 2**30)
    assert np.prod(tight.patch) < np.prod(gpu.patch)


def test_the_effort_is_that_asked_for_or_what_suits_the_minutes():
    def widths(device="cpu", effort=None, **overrides) -> tuple[int, ...]:
        return make_plan([case()], LABELS, ["T1"], device, None, overrides, effort).network.widths

    small, medium = (BUDGETS["cpu"][name].widths for name in ("quick", "standard"))
    assert widths() == medium and widths(minutes=30) == medium and widths(minutes=1) == small
    assert widths(effort="quick", minutes=300) == small
    lengths = [make_plan([case()], LABELS, ["T1"], effort=effort).iterations for effort in EFFORTS]
    assert lengths == sorted(set(lengths))
    words = make_plan([case()], LABELS, ["T1"], effort="quick").in_words()
    assert "that of the quick plan" in words and "600 iterations (Dice 0.85 to 0.87 on MR of the hippocampus" in words
    for overrides in (
        {"iterations": 9},
        {"minutes": 2},
        {"widths": [8, 16]},
    ):  # another length or network: not measured
        assert "Dice" not in make_plan([case()], LABELS, ["T1"], overrides=overrides).in_words()
    assert "Dice" not in make_plan([case()], LABELS, ["T1"], effort="thorough").in_words()
    assert widths("mps") == BUDGETS["mps"]["standard"].widths  # not a network for a card of 24 GiB
    with pytest.raises(InputError, match="no effort 'fast'"):
        widths(effort="fast")


def test_a_gpus_standard_plan_has_residual_encoders_whose_patch_follows_its_memory():
    plans = [make_plan([case((256, 256, 200))], LABELS, ["CT"], "cuda", n * 2**30) for n in (8, 16, 24)]
    for plan in plans:
        assert plan.network.blocks == (1, 3, 4, 6, 6, 6) and plan.network.residual == (True,)
        assert all(edge % d == 0 for edge, d in zip(plan.patch, plan.network.divisor, strict=True))
        assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    voxels = [np.prod(plan.patch) for plan in plans]
    assert voxels == sorted(voxels) and voxels[0] < voxels[2]
    assert make_plan([case()], LABELS, ["CT"], "cuda", overrides={"widths": [8, 16]}).network.blocks == ()


def test_left_and_right_labels_switch_mirroring_off():
    assert make_plan([case()], LABELS, ["T1"]).mirror_axes == (2,)
    lateral = [Label(1, "Left hippocampus", lateral=True), Label(2, "Right hippocampus", lateral=True)]
    assert make_plan([case()], lateral, ["T1"]).mirror_axes == ()


def test_every_value_can_be_overridden_and_survives_json():
    wanted = {"patch": [16, 16, 16], "widths": [4, 8], "iterations": 7, "method": "supervised", "spacing": [2, 2, 2]}
    plan = make_plan([case()], LABELS, ["T1"], overrides=wanted)
    assert (plan.patch, plan.network.widths, plan.iterations) == ((16, 16, 16), (4, 8), 7)
    assert (plan.method, plan.spacing) == ("supervised", (2.0, 2.0, 2.0))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_of_version_0_1_trains_as_it_did():
    plan = make_plan([case()], LABELS, ["T1"], overrides={"widths": [8, 16]})
    assert plan.average == 0.05 and plan.channels_last
    data = plan.to_json()
    del data["average"], data["channels_last"]
    old = Plan.from_json(data)
    assert old.average == 0 and not old.channels_last
    assert not make_plan([case()], LABELS, ["T1"]).channels_last


def test_it_says_what_it_will_do():
    words = make_plan([case()], LABELS, ["T1"]).in_words()
    for text in ("BARL", "1 Lesion", "1 x 1 x 1 mm", "T1: zscore", "1 outlined + 1 untouched"):
        assert text in words


@pytest.mark.parametrize(("minutes", "text"), [(1.0, "BARL, 1 minute\n"), (1.5, "BARL, 1.5 minutes\n")])
def test_it_counts_one_minute(minutes, text):
    assert text in make_plan([case()], LABELS, ["T1"], overrides={"minutes": minutes}).in_words()


@pytest.mark.parametrize(
    ("cases", "overrides", "sentence"),
    [
        ([], {}, "no case to plan"),
        ([case()], {"color": 1}, "no value 'color'"),
        ([case()], {"optimizer": "newton"}, "optimizer cannot be 'newton'"),
        ([case()], {"precision": "half"}, "precision cannot be 'half'"),
        ([case()], {"labels": [1]}, "no value 'labels'"),
        ([case()], {"average": 5}, "average cannot be 5"),
        ([case()], {"channels_last": "yes"}, "Give true or false"),
        ([case()], {"mirror_axes": [9]}, "Give a list of whole numbers from 0 to 2"),
        ([case()], {"spacing": [float("nan"), 1, 1]}, "Give a list of 3 numbers from 0.001 to 1000"),
        ([case()], {"spacing": [0, 1, 1]}, "spacing cannot be"),  # it once planned for ever
        ([case()], {"spacing": [-1, 1, 1]}, "spacing cannot be"),
        ([case()], {"spacing": [1, 1]}, "spacing cannot be"),
        ([case()], {"spacing": 2}, "spacing cannot be 2"),
        ([case()], {"blocks": [0, 1, 1, 1]}, "Give a list of whole numbers from 1 to 64"),
        ([case()], {"blocks": [1, 1]}, "widths and 2 blocks"),
        ([case()], {"kernels": [[2, 2, 2]] * 4}, "Give odd numbers"),
        ([case()], {"kernels": "large"}, "Give a list of lists of 3 whole numbers from 1 to 15"),
        (
            [case()],
            {"settings": {"lambda_max": "much"}},
            "cannot be 'much'. Give a number from 0 on",
        ),
        ([case()], {"settings": {"lambda_max": -1}}, "lambda_max of BARL cannot be -1"),
        ([case()], {"settings": {"parts": "dpr"}}, "Give a list of texts"),
        ([case()], {"settings": {"correct": "some"}}, "PCBC cannot correct 'some'"),
        ([case()], {"method": "magic"}, "no method 'magic'"),
        ([case()], {"settings": {"power": 1}}, "no setting 'power'"),
        ([case()], {"patch": [17, 16, 16]}, "cannot be halved often enough"),
        ([case()], {"patch": [0, 0, 0]}, "patch of 0 x 0 x 0 voxels"),
        ([case()], {"patch": [16, 16, 10**6]}, "patch of 16 x 16 x 1000000 voxels"),
        ([case()], {"widths": [8]}, "the widths 8 is not possible"),
        ([case()], {"widths": [8, 10**8]}, "is not possible"),
        ([case()], {"widths": [4, 8], "strides": [[1, 1, 1]]}, "2 widths, 1 strides and 2 kernels"),
    ],
)
def test_bad_requests_are_one_sentence(cases, overrides, sentence):
    with pytest.raises(InputError) as refused:
        make_plan(cases, LABELS, ["T1"], overrides=overrides)
    assert sentence in str(refused.value)


def test_a_damaged_plan_is_one_sentence():
    data = make_plan([case()], LABELS, ["T1"]).to_json()
    del data["patch"]
    with pytest.raises(InputError, match="cannot be read"):
        Plan.from_json(data)
