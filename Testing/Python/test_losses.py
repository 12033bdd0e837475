# SPDX-License-Identifier: Apache-2.0
"""Losses against cases worked out by hand, their invariances and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from barl.images.components import match_components
from barl.losses.dpr import dual_path_regularization, pseudo_label
from barl.losses.instance import instance_alignment, lesions, matched_prototypes
from barl.losses.overlap import at_scale, cross_entropy, dice_loss, hard_label, one_hot, overlap_loss
from barl.losses.pcbc import bias_correction, scale_gates
from barl.losses.region import prototypes, region_alignment


def log_p_of(*foreground: float) -> torch.Tensor:
    """Log-probabilities [1, 2, 1, 1, n] of two classes from the foreground probabilities of n voxels."""
    p = torch.tensor(foreground)
    return torch.stack([1 - p, p]).log()[None, :, None, None, :]


def random_log_p(shape=(2, 3, 4, 4, 4), seed=0, requires_grad=True) -> torch.Tensor:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return z.requires_grad_(requires_grad).log_softmax(1)


class TestOverlap:
    def test_one_hot_and_hard_label_invert_each_other(self):
        classes = torch.randint(0, 4, (2, 3, 4, 5))
        assert torch.equal(hard_label(one_hot(classes, 4)), classes)

    def test_cross_entropy_by_hand(self):
        target = one_hot(torch.tensor([[[[1, 0]]]]), 2)
        expected = -(math.log(0.8) + math.log(0.7)) / 2
        assert cross_entropy(log_p_of(0.8, 0.3), target).item() == pytest.approx(expected, rel=1e-5)

    def test_weighted_cross_entropy_ignores_voxels_of_weight_zero(self):
        target = one_hot(torch.tensor([[[[1, 0]]]]), 2)
        weight = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 1, 2)
        assert cross_entropy(log_p_of(0.8, 0.3), target, weight).item() == pytest.approx(-math.log(0.8), rel=1e-5)

    def test_dice_by_hand(self):
        target = one_hot(torch.tensor([[[[1, 0]]]]), 2)
        # foreground: 2 * 0.8 / (0.64 + 0.09 + 1)
        assert dice_loss(log_p_of(0.8, 0.3).exp(), target).item() == pytest.approx(1 - 1.6 / 1.73, abs=1e-5)

    def test_perfect_prediction_costs_nothing_and_empty_foreground_is_finite(self):
        classes = torch.randint(0, 3, (2, 4, 4, 4))
        target = one_hot(classes, 3)
        assert overlap_loss((target * 0.999999 + 1e-9).log(), target).item() == pytest.approx(0, abs=1e-4)
        empty = one_hot(torch.zeros(1, 4, 4, 4, dtype=torch.long), 3)
        z = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
        overlap_loss(z.log_softmax(1), empty).backward()
        assert torch.isfinite(z.grad).all()

    def test_a_small_lesion_does_not_vanish_at_a_coarse_scale(self):
        classes = torch.zeros(1, 8, 8, 8, dtype=torch.long)
        classes[0, 3, 3, 3] = 1
        coarse = at_scale(one_hot(classes, 2), torch.zeros(1, 1, 2, 2, 2))
        assert coarse[0, 1].sum().item() == pytest.approx(1 / 64)
        assert torch.allclose(coarse.sum(1), torch.ones(1, 2, 2, 2))


class TestDpr:
    def test_by_hand_at_one_scale(self):
        s, t = log_p_of(0.8, 0.3), log_p_of(0.6, 0.9)
        teach_s, teach_t = one_hot(torch.tensor([[[[1, 1]]]]), 2), one_hot(torch.tensor([[[[1, 0]]]]), 2)
        expected = 0.5 * (overlap_loss(s, teach_s) + overlap_loss(t, teach_t))
        assert dual_path_regularization([s], [t], [1.0]).item() == pytest.approx(expected.item(), rel=1e-6)

    def test_labels_come_from_the_finest_scale(self):
        coarse = torch.full((1, 2, 1, 1, 2), 0.5).log()
        s, t = [coarse, log_p_of(0.9, 0.1)], [coarse, log_p_of(0.9, 0.1)]
        loss = dual_path_regularization(s, t, [1.0, 0.0])
        assert loss.item() == pytest.approx(overlap_loss(coarse, one_hot(torch.tensor([[[[1, 0]]]]), 2)).item())

    def test_swapping_the_branches_changes_nothing(self):
        s, t = [random_log_p(seed=n) for n in (1, 2)], [random_log_p(seed=n) for n in (3, 4)]
        weights = [0.3, 0.7]
        for options in ({}, {"soft": True}, {"confidence": 0.5}):
            one, two = (dual_path_regularization(a, b, weights, **options) for a, b in ((s, t), (t, s)))
            assert one.item() == pytest.approx(two.item(), rel=1e-6)

    def test_teachers_get_no_gradient(self):
        s, t = random_log_p(seed=1), random_log_p(seed=2, requires_grad=False)
        target, _ = pseudo_label(s)
        assert not target.requires_grad
        assert not dual_path_regularization([t], [t], [1.0]).requires_grad

    def test_unsure_voxels_are_left_out(self):
        _, sure = pseudo_label(log_p_of(0.9, 0.6, 0.2), confidence=0.75)
        assert sure.flatten().tolist() == [1.0, 0.0, 1.0]

    def test_what_is_known_needs_no_guess(self):
        known = torch.tensor([[[[0, -1, 1]]]])
        target, sure = pseudo_label(log_p_of(0.9, 0.6, 0.2), known, confidence=0.95)
        assert hard_label(target).flatten().tolist() == [0, 1, 1]
        assert sure.flatten().tolist() == [1.0, 0.0, 1.0]


class TestPcbc:
    def test_gates_open_from_coarse_to_fine(self):
        assert scale_gates(3, 0.0) == [0.0, 0.0, 0.0]
        assert scale_gates(3, 0.5) == [1.0, 0.5, 0.0]
        assert scale_gates(3, 1.0) == [1.0, 1.0, 1.0]

    def test_by_hand(self):
        # Branches differ at voxel 0 only; the truth is foreground there, so branch T is wrong.
        s, t = log_p_of(0.8, 0.3), log_p_of(0.4, 0.1)
        truth = one_hot(torch.tensor([[[[1, 0]]]]), 2)
        mse_s, mse_t = 2 * 0.2**2, 2 * 0.6**2
        unlearn_t = -(math.log(0.4) + math.log(0.6)) / 2
        expected = 0.5 * (0.5 * mse_s) + 0.5 * (0.5 * mse_t + 0.05 * unlearn_t)
        assert bias_correction([s], [t], [1.0], truth).item() == pytest.approx(expected, rel=1e-5)

    def test_without_truth_the_target_is_the_mean_of_the_next_finer_scale(self):
        coarse_s, coarse_t = log_p_of(0.8), log_p_of(0.4)
        fine = log_p_of(0.1, 0.2)
        expected = 0.5 * (0.5 * 2 * 0.8**2 + 0.05 * -(math.log(0.8) + math.log(0.2)) / 2) + 0.5 * 0.5 * 2 * 0.4**2
        loss = bias_correction([coarse_s, fine], [coarse_t, fine], [1.0, 0.0])
        assert loss.item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(("limit", "weight"), [(0.0, 1.0), (4.0, 1.0), (1.0, 1 / 3), (2.0, 2 / 3)])
    def test_background_weighs_at_most_a_multiple_of_the_rest(self, limit, weight):
        # One voxel of a lesion and three of background on which the branches differ, all of one error.
        s, t = log_p_of(0.8, 0.8, 0.8, 0.8), log_p_of(0.4, 0.4, 0.4, 0.4)
        truth = one_hot(torch.tensor([[[[1, 0, 0, 0]]]]), 2)
        lesion, outside = 0.2**2 + 0.6**2, 0.8**2 + 0.4**2
        expected = (lesion + 3 * weight * outside) / (1 + 3 * weight)
        loss = bias_correction([s], [t], [1.0], truth, pull=1.0, unlearn=0.0, background=limit)
        assert loss.item() == pytest.approx(expected, rel=1e-5)

    def test_with_a_limit_what_differs_on_background_alone_is_not_corrected(self):
        s, t = log_p_of(0.8, 0.2), log_p_of(0.4, 0.2)
        truth = one_hot(torch.tensor([[[[0, 0]]]]), 2)
        assert bias_correction([s], [t], [1.0], truth).item() > 0
        assert bias_correction([s], [t], [1.0], truth, background=1.0).item() == 0.0

    def test_agreement_costs_nothing(self):
        s = random_log_p()
        assert bias_correction([s], [s], [1.0]).item() == 0.0

    def test_swapping_the_branches_changes_nothing(self):
        s, t = [random_log_p(seed=n) for n in (1, 2)], [random_log_p(seed=n) for n in (3, 4)]
        truth = one_hot(torch.randint(0, 3, (1, 4, 4, 4)), 3)
        one, two = (bias_correction(a, b, [1.0, 0.5], truth) for a, b in ((s, t), (t, s)))
        assert one.item() == pytest.approx(two.item(), rel=1e-6)


class TestRegion:
    def test_stated_formula_by_hand(self):
        f_s = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).reshape(1, 2, 1, 1, 2)  # feature, voxel
        f_t = torch.tensor([[3.0, 1.0], [0.0, 1.0]]).reshape(1, 2, 1, 1, 2)
        m_s = one_hot(torch.tensor([[[[0, 1]]]]), 2)
        m_t = one_hot(torch.tensor([[[[1, 0]]]]), 2)
        # R, f_T under M_S: (3, 0) for background, (1, 1) for foreground; R~, f_S under M_T: (0, 2) and (1, 0)
        expected = ((1 - 0.0) + (1 - 1 / math.sqrt(2))) / 2
        loss = region_alignment(f_s, f_t, m_s, m_t, min_voxels=1)
        assert loss.item() == pytest.approx(expected, rel=1e-5)

    def test_prototypes_are_masked_means(self):
        features = torch.arange(6.0).reshape(1, 1, 1, 1, 6)
        masks = one_hot(torch.tensor([[[[0, 0, 1, 1, 1, 0]]]]), 2)
        assert prototypes(features, masks).flatten().tolist() == pytest.approx([2.0, 3.0])

    def test_small_and_absent_classes_are_left_out(self):
        features = torch.randn(1, 4, 2, 2, 2, requires_grad=True)
        masks = one_hot(torch.zeros(1, 2, 2, 2, dtype=torch.long), 3)
        loss = region_alignment(features, -features, masks, masks, min_voxels=8)
        assert loss.item() == pytest.approx(2.0, rel=1e-5)  # the background alone, opposite directions
        nothing = region_alignment(features, features, masks, masks, min_voxels=9)
        nothing.backward()
        assert nothing.item() == 0.0
        assert torch.isfinite(features.grad).all()


class TestInstance:
    def blobs(self, *boxes: tuple[slice, slice, slice]) -> np.ndarray:
        mask = np.zeros((8, 8, 8), dtype=bool)
        for box in boxes:
            mask[box] = True
        return mask

    def test_components_touch_at_corners_and_small_ones_are_dropped(self):
        mask = self.blobs(np.s_[0:2, 0:2, 0:2], np.s_[2:4, 2:4, 2:4], np.s_[7:8, 7:8, 7:8])
        numbers, count = lesions(mask, min_voxels=2, limit=10)
        assert count == 1
        assert (numbers > 0).sum() == 16

    def test_only_the_largest_are_kept(self):
        mask = self.blobs(np.s_[0:3, 0:3, 0:3], np.s_[5:7, 5:7, 5:7], np.s_[0:1, 7:8, 7:8])
        numbers, count = lesions(mask, min_voxels=1, limit=2)
        assert [int((numbers == n).sum()) for n in range(1, count + 1)] == [27, 8]

    def test_assignment_is_one_to_one_and_maximizes_the_overlap(self):
        first = np.array([[[1, 1, 1, 1, 2, 2, 2, 2]]])
        second = np.array([[[1, 1, 1, 0, 1, 2, 2, 2]]])
        assert match_components(first, second, 0.1) == [(1, 1), (2, 2)]
        assert match_components(first, second, 0.7) == [(2, 2)]
        assert match_components(first, np.zeros_like(first), 0.1) == []

    def test_cross_masked_prototypes_by_hand(self):
        f_s = torch.zeros(1, 2, 1, 1, 4)
        f_t = torch.zeros(1, 2, 1, 1, 4)
        f_t[0, :, 0, 0, :2] = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
        f_s[0, :, 0, 0, :3] = torch.tensor([[0.0, 0.0, 0.0], [3.0, 6.0, 0.0]])
        classes_s, classes_t = torch.tensor([[[[1, 1, 0, 0]]]]), torch.tensor([[[[1, 1, 1, 0]]]])
        of_s, of_t = matched_prototypes(f_s, f_t, classes_s, classes_t, min_voxels=1)
        assert of_s.tolist() == [[2.0, 0.0]]
        assert of_t.tolist() == [[0.0, 3.0]]
        loss = instance_alignment(f_s, f_t, classes_s, classes_t, min_voxels=1)
        assert loss.item() == pytest.approx(1.0, abs=1e-5)

    def test_mirrored_volumes_change_the_numbering_but_not_the_loss(self):
        torch.manual_seed(0)
        f_s, f_t = torch.randn(2, 4, 8, 8, 8), torch.randn(2, 4, 8, 8, 8)
        boxes = (np.s_[0:2, 0:2, 0:2], np.s_[4:7, 4:7, 4:7], np.s_[0:2, 5:8, 0:3])
        mask = torch.from_numpy(self.blobs(*boxes)).long().expand(2, -1, -1, -1)
        shifted = mask.roll(1, dims=1)
        loss = instance_alignment(f_s, f_t, mask, shifted, min_voxels=1, contrast=True)
        mirrored = instance_alignment(
            f_s.flip(2, 3), f_t.flip(2, 3), mask.flip(1, 2), shifted.flip(1, 2), min_voxels=1, contrast=True
        )
        assert loss.item() == pytest.approx(mirrored.item(), rel=1e-5)
        swapped = instance_alignment(f_t, f_s, shifted, mask, min_voxels=1, contrast=True)
        assert loss.item() == pytest.approx(swapped.item(), rel=1e-5)

    def test_no_pair_costs_nothing_but_keeps_the_gradient_path(self):
        features = torch.randn(1, 2, 4, 4, 4, requires_grad=True)
        empty = torch.zeros(1, 4, 4, 4, dtype=torch.long)
        loss = instance_alignment(features, features, empty, empty)
        loss.backward()
        assert loss.item() == 0.0
        assert features.grad.abs().sum() == 0
