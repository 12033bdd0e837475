# SPDX-License-Identifier: Apache-2.0
"""A few drawn planes become a whole outline; what was drawn stays."""

from __future__ import annotations

import numpy as np
import pytest
from barl.errors import Cancelled, InputError
from barl.fill import filling, levels
from barl.fill.corrected import corrected_pieces
from barl.fill.drawn import boxes, drawn_planes, drawn_voxels
from barl.fill.expectation import INTERCEPT, SLOPE, Expectation, expect
from barl.fill.filling import Filled, Prediction, fill_scan, pull_of
from barl.fill.next_plane import APART, Plane, next_plane
from barl.progress import Progress
from threadpoolctl import threadpool_info, threadpool_limits


def ball(shape: tuple[int, ...], center: tuple[float, ...], radius_mm: float, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    index = np.indices(shape)
    parts = zip(index, center, spacing, strict=True)
    return sum(((axis - c) * s) ** 2 for axis, c, s in parts) < radius_mm**2


def noisy(mask: np.ndarray, noise: float = 15.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (100 * mask + rng.normal(0, noise, mask.shape)).astype(np.float32)


def planes(shape: tuple[int, ...], k=(), j=(), i=()) -> np.ndarray:
    drawn = np.zeros(shape, dtype=bool)
    drawn[list(k)] = True
    drawn[:, list(j)] = True
    drawn[:, :, list(i)] = True
    return drawn


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


SHAPE = (30, 32, 34)
BALL = ball(SHAPE, (15, 16, 17), 9)
DRAWN = planes(SHAPE, [15], [16], [17])


def test_a_straight_edge_is_found_exactly():
    """Half of a block is bright; one plane across the edge is drawn, the edge is straight in every other one."""
    truth = np.zeros((24, 24, 24), dtype=np.uint8)
    truth[4:20, 4:20, 4:13] = 1
    scan = np.where(truth, 100.0, 0.0).astype(np.float32)
    drawn = planes(truth.shape, [12], [12])
    filled = fill_scan([scan], np.where(drawn, truth, 0), (1, 1, 1), drawn)
    assert np.array_equal(filled.labels, truth)


def test_two_labels_compete_in_one_solution():
    truth = np.zeros((24, 26, 28), dtype=np.uint8)
    truth[5:19, 5:21, 5:14] = 1
    truth[5:19, 5:21, 14:23] = 4
    scan = np.choose(np.where(truth == 4, 2, truth), [0.0, 60.0, 120.0]).astype(np.float32)
    drawn = planes(truth.shape, [12], [13])
    filled = fill_scan([scan], np.where(drawn, truth, 0), (1, 1, 1), drawn)
    assert filled.values == [1, 4]
    for value in (1, 4):
        assert dice(filled.labels == value, truth == value) > 0.97
    total = filled.probability(1) + filled.probability(4)
    assert total.max() < 1 + 1e-3


def test_a_drawn_plane_without_anything_says_that_nothing_is_there():
    """A rod without contrast: without the empty plane it is filled further than with it."""
    scan = np.zeros((40, 24, 24), dtype=np.float32)
    labels = np.zeros(scan.shape, dtype=np.uint8)
    labels[[14, 20], 8:16, 8:16] = 1
    few = planes(scan.shape, [14, 20])
    more = planes(scan.shape, [14, 20, 22])
    without = fill_scan([scan], labels, (1, 1, 1), few)
    filled = fill_scan([scan], labels, (1, 1, 1), more)
    assert without.labels[21].any()
    assert without.labels[22].any()
    assert not filled.labels[22].any()
    assert not filled.labels[23:].any()


def test_spacing_counts_in_millimeters():
    """A ball in thick slices: the drawn planes are as far apart in mm as those of the isotropic one."""
    spacing = (4.0, 1.0, 1.0)
    truth = ball((16, 40, 40), (8, 20, 20), 14, spacing)
    drawn = planes(truth.shape, [8], [20], [20])
    filled = fill_scan([noisy(truth)], np.where(drawn, truth, 0).astype(np.uint8), spacing, drawn)
    assert dice(filled.labels > 0, truth) > 0.97
    # Without any contrast only distances count: the fill of the same planes is symmetric in j and i, not in k.
    flat = fill_scan([np.zeros(truth.shape, np.float32)], np.where(drawn, truth, 0).astype(np.uint8), spacing, drawn)
    probability = flat.probability(1)
    assert probability[8, 20, 20] == 1
    assert np.allclose(probability, probability.swapaxes(1, 2), atol=1e-3)
    # A slice is four times as far as a voxel in the plane, and pulls a sixteenth.
    thin = fill_scan([np.zeros(truth.shape, np.float32)], np.where(drawn, truth, 0).astype(np.uint8), (1, 1, 1), drawn)
    assert np.abs(probability - thin.probability(1)).max() > 0.1


def test_drawn_voxels_never_change():
    """Not even those that contradict the scan, single strokes and voxels that were looked at and left empty."""
    rng = np.random.default_rng(3)
    drawn = DRAWN | (rng.random(SHAPE) < 0.01)
    labels = np.where(drawn, BALL, 0).astype(np.uint8)
    contradicting = drawn & (rng.random(SHAPE) < 0.05)
    labels[contradicting] = 1 - labels[contradicting]
    for prediction in (None, Prediction(np.ones(SHAPE, np.uint8)), Prediction(np.zeros(SHAPE, np.uint8))):
        filled = fill_scan([noisy(BALL)], labels, (1, 1, 1), drawn, prediction)
        assert np.array_equal(filled.labels[drawn], labels[drawn])
        assert not filled.uncertainty()[drawn].any()


@pytest.mark.parametrize("whole_voxels", [150_000, 5_000])
def test_three_planes_of_a_ball_make_the_ball(whole_voxels, monkeypatch):
    """Solved whole, and from coarse to fine."""
    monkeypatch.setattr(levels, "_WHOLE_VOXELS", whole_voxels)
    labels = np.where(DRAWN, BALL, 0).astype(np.uint8)
    filled = fill_scan([noisy(BALL)], labels, (1, 1, 1), DRAWN)
    assert dice(filled.labels > 0, BALL) > 0.97
    again = fill_scan([noisy(BALL)], labels, (1, 1, 1), DRAWN)
    assert np.array_equal(filled.probability(1), again.probability(1))
    uncertainty = filled.uncertainty()
    assert uncertainty.min() >= 0
    assert 0.5 < uncertainty.max() <= 1


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_the_scale_of_gray_values_does_not_matter(scale):
    labels = np.where(DRAWN, BALL, 0).astype(np.uint8)
    reference = fill_scan([noisy(BALL)], labels, (1, 1, 1), DRAWN).labels
    filled = fill_scan([noisy(BALL) * np.float32(scale) + np.float32(scale)], labels, (1, 1, 1), DRAWN).labels
    assert np.mean(filled != reference) < 1e-3


def test_a_second_channel_helps_where_the_first_shows_nothing():
    labels = np.where(DRAWN, BALL, 0).astype(np.uint8)
    nothing = noisy(np.zeros_like(BALL))
    assert dice(fill_scan([nothing, noisy(BALL, seed=1)], labels, (1, 1, 1), DRAWN).labels > 0, BALL) > 0.97


def test_uncertainty_is_that_of_a_model():
    torch = pytest.importorskip("torch")
    from barl.inference.uncertainty import join_branches

    filled = fill_scan([noisy(BALL)], np.where(DRAWN, BALL, 0).astype(np.uint8), (1, 1, 1), DRAWN)
    p = np.clip(filled.probability(1), 1e-6, 1 - 1e-6)
    joined = join_branches(torch.from_numpy(np.log(np.stack([1 - p, p])))[None])
    box, _ = filled.parts[0]
    assert np.allclose(filled.uncertainty()[box], joined.uncertainty.numpy()[box], atol=1e-3)


def test_lesions_far_apart_have_boxes_of_their_own():
    shape = (30, 40, 90)
    truth = ball(shape, (15, 20, 15), 6) | ball(shape, (15, 20, 70), 6)
    drawn = planes(shape, [15], [20])
    labels = np.where(drawn, truth, 0).astype(np.uint8)
    found = boxes(labels > 0, drawn)
    assert len(found) == 2
    filled = fill_scan([noisy(truth)], labels, (1, 1, 1), drawn)
    assert dice(filled.labels > 0, truth) > 0.95
    assert not filled.labels[:, :, 40:50].any()


# Which planes were drawn


@pytest.mark.parametrize(
    "chosen",
    [
        {"k": [15]},
        {"k": [10, 15, 20]},
        {"k": [15], "j": [16], "i": [17]},
        {"k": [12, 18], "j": [13, 19], "i": [14, 20]},
        {"k": range(7, 24, 3)},
        {"j": [15, 16, 17]},
    ],
)
def test_the_drawn_planes_are_found(chosen):
    drawn = planes(SHAPE, **chosen)
    found = drawn_planes(drawn_voxels(np.where(drawn, BALL, 0)))
    expected = [list(chosen.get(axis, [])) for axis in "kji"]
    assert [list(places) for places in found] == expected


def test_an_outline_of_all_planes_is_done_and_a_stroke_is_itself():
    whole = drawn_voxels(BALL.astype(np.uint8))
    assert whole[BALL].all()
    assert any(len(places) == 17 for places in drawn_planes(whole))
    stroke = np.zeros(SHAPE, dtype=np.uint8)
    stroke[15, 16, 10:20] = 1
    assert np.array_equal(drawn_voxels(stroke), stroke > 0)
    assert not drawn_voxels(np.zeros(SHAPE, dtype=np.uint8)).any()


# Damaged and empty input


def test_what_cannot_be_filled_is_told():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    with pytest.raises(InputError, match="Nothing is drawn"):
        fill_scan([noisy(BALL)], labels, (1, 1, 1))
    labels[15, 10:20, 10:20] = 1
    broken = noisy(BALL)
    broken[3, 3, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        fill_scan([broken], labels, (1, 1, 1))
    with pytest.raises(InputError, match="shape"):
        fill_scan([noisy(BALL)[1:]], labels, (1, 1, 1))
    with pytest.raises(InputError, match="no scan"):
        fill_scan([], labels, (1, 1, 1))


@pytest.mark.parametrize("scan", [np.zeros(SHAPE, np.float32), np.full(SHAPE, -1000, np.int16)])
def test_a_scan_of_one_gray_value_is_filled_by_shape(scan):
    drawn = planes(SHAPE, [10, 15, 20], [16], [17])
    filled = fill_scan([scan], np.where(drawn, BALL, 0).astype(np.uint8), (1, 1, 1), drawn)
    assert dice(filled.labels > 0, BALL) > 0.85


def test_strokes_inside_and_outside_are_filled():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[15, 16, 9:25] = 1
    labels[15, 9:23, 17] = 1
    labels[8:22, 16, 17] = 1
    drawn = labels > 0
    with pytest.raises(InputError, match="where the structure ends"):
        fill_scan([noisy(BALL)], labels, (1, 1, 1), drawn)
    drawn |= planes(SHAPE, [4, 26], [4, 28]) & ~BALL
    filled = fill_scan([noisy(BALL)], labels, (1, 1, 1), drawn)
    assert dice(filled.labels > 0, BALL) > 0.9


def test_a_fill_can_be_cancelled():
    with pytest.raises(Cancelled):
        fill_scan(
            [noisy(BALL)],
            np.where(DRAWN, BALL, 0).astype(np.uint8),
            (1, 1, 1),
            DRAWN,
            progress=Progress(is_cancelled=lambda: True),
        )


# With a prediction


def test_a_corrected_plane_corrects_its_neighbors_and_not_the_far_ones():
    """The prediction lacks a cap of the ball; one drawn plane shows it."""
    prediction = BALL.astype(np.uint8)
    prediction[19:] = 0
    drawn = planes(SHAPE, [21])
    labels = np.where(drawn, BALL, 0).astype(np.uint8)
    scan = noisy(BALL)
    filled = fill_scan([scan], labels, (1, 1, 1), drawn, Prediction(prediction))
    plain = np.where(drawn, BALL, prediction) > 0
    assert dice(filled.labels > 0, BALL) > dice(plain, BALL) + 0.02
    assert np.array_equal(filled.labels[:12], prediction[:12])


def test_a_right_plane_leaves_a_right_prediction_alone():
    drawn = planes(SHAPE, [15])
    labels = np.where(drawn, BALL, 0).astype(np.uint8)
    filled = fill_scan([noisy(BALL, noise=200)], labels, (1, 1, 1), drawn, Prediction(BALL.astype(np.uint8)))
    assert filled.trust == 1
    assert dice(filled.labels > 0, BALL) > 0.97


def several_lesions(contrast: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A scan, a prediction of two right lesions of label 1 and one of label 7, and a false one of label 1; and it."""
    shape = (24, 50, 50)
    prediction = np.where(ball(shape, (12, 12, 12), 6) | ball(shape, (12, 38, 12), 5), 1, 0).astype(np.uint8)
    prediction[ball(shape, (12, 38, 38), 5)] = 7
    false = ball(shape, (12, 25, 25), 5)
    scan = noisy(prediction > 0, noise=10) * np.float32(contrast / 100)
    return scan, np.where(false, 1, prediction).astype(np.uint8), prediction, false


@pytest.mark.parametrize("contrast", [0, 10, 100])
def test_erasing_a_false_lesion_leaves_the_others_alone(contrast):
    scan, prediction, truth, false = several_lesions(contrast)
    plane = planes(scan.shape, i=[25])
    for drawn in (false, plane, false & planes(scan.shape, [12])):
        labels = np.where(drawn, truth, prediction)
        filled = fill_scan([scan], labels, (2, 1, 1), drawn, Prediction(prediction))
        assert np.array_equal(filled.labels[truth != 0], truth[truth != 0])
        assert np.count_nonzero(filled.labels != truth) < 0.5 * np.count_nonzero(false)


def test_correcting_one_lesion_leaves_the_others_alone_and_their_doubt_stays():
    scan, _, truth, _ = several_lesions(100)
    prediction = truth.copy()
    prediction[:, :22, :22] = 0
    prediction[:, :19, :22] = truth[:, 3:22, :22]  # moved by three voxels
    unsure = np.full(truth.shape, 0.4, np.float32)
    drawn = planes(truth.shape, [12])
    filled = fill_scan([scan], np.where(drawn, truth, 0), (2, 1, 1), drawn, Prediction(prediction, unsure))
    far = np.zeros(truth.shape, bool)
    far[:, 27:] = True
    assert np.array_equal(filled.labels[far], truth[far])
    assert np.allclose(filled.uncertainty()[far & (truth != 0) & ~drawn], 0.4)
    near = ~far & ~drawn
    assert dice(filled.labels[near] > 0, truth[near] > 0) > dice(prediction[near] > 0, truth[near] > 0)


def test_a_missed_lesion_that_was_drawn_is_filled_beside_the_others():
    scan, _, truth, _ = several_lesions(100)
    prediction = np.where(truth == 7, 0, truth)
    drawn = planes(truth.shape, [12]) | planes(truth.shape, j=[38], i=[38])
    filled = fill_scan([scan], np.where(drawn, truth, 0), (2, 1, 1), drawn, Prediction(prediction))
    assert dice(filled.labels == 7, truth == 7) > 0.9
    assert np.array_equal(filled.labels[:, :22], truth[:, :22])


def test_erasing_the_end_of_a_structure_leaves_the_rest_of_it():
    """One erased slice says where the structure ends, not that it is none."""
    shape = (24, 40, 40)
    truth, predicted = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    truth[6:14, 10:24, 10:24], predicted[6:17, 10:24, 10:24] = 1, 1
    for contrast in (0, 1):
        scan = noisy(truth > 0, noise=10) * np.float32(contrast)
        for drawn in (planes(shape, [14]), planes(shape, [14]) & (predicted > 0)):
            filled = fill_scan([scan], np.where(drawn, truth, 0), (2, 1, 1), drawn, Prediction(predicted))
            assert np.count_nonzero(filled.labels != truth) < 10
            assert np.array_equal(filled.labels[:14], truth[:14])


def test_fragments_near_a_corrected_outline_are_filled_with_it():
    shape = (30, 60, 60)
    truth = ball(shape, (15, 20, 20), 9)
    fragment, far = ball(shape, (6, 20, 20), 2), ball(shape, (15, 48, 48), 4)
    scan = noisy(truth | far)
    predicted = (truth & ~planes(shape, range(5, 12)) & ~planes(shape, i=range(11, 15))) | fragment | far
    drawn = planes(shape, [15])  # what was added there lies at the other end of the outline
    labels = np.where(drawn, truth | far, 0).astype(np.uint8)
    about = corrected_pieces(predicted.astype(np.uint8), labels, drawn, (1, 1, 1))
    assert about[fragment].all() and not about[far & ~drawn].any()
    filled = fill_scan([scan], labels, (1, 1, 1), drawn, Prediction(predicted.astype(np.uint8)))
    assert dice(filled.labels > 0, truth | far) > dice(predicted, truth | far)
    assert np.array_equal(filled.labels[far], np.ones(np.count_nonzero(far)))


def test_a_missed_structure_without_contrast_does_not_reach_the_ends_of_its_box():
    """As without a prediction: one plane is drawn, and nothing says where the structure ends."""
    scan = noisy(np.zeros((14, 40, 40), bool), seed=2)
    labels = np.zeros(scan.shape, np.uint8)
    labels[5, :10, :10] = 1
    drawn = planes(scan.shape, [5])
    alone = fill_scan([scan], labels, (1, 1, 1), drawn)
    beside = fill_scan([scan], labels, (1, 1, 1), drawn, Prediction(np.zeros_like(labels)))
    assert np.count_nonzero(beside.labels) < 1.5 * np.count_nonzero(alone.labels)


def test_a_label_of_the_prediction_that_bytes_cannot_hold_is_kept():
    drawn = planes(SHAPE, [15])
    prediction = np.where(BALL, 300, 0).astype(np.uint16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[15, :4, :4] = 1
    filled = fill_scan([noisy(BALL)], labels, (1, 1, 1), drawn, Prediction(prediction))
    assert set(np.unique(filled.labels)) <= {0, 1, 300}


def test_trust_is_the_dice_on_what_was_drawn():
    prediction = BALL.astype(np.uint8)
    prediction[:, :, 17:] = 0
    drawn = planes(SHAPE, [15])
    labels = np.where(drawn, BALL, 0).astype(np.uint8)
    filled = fill_scan([noisy(BALL)], labels, (1, 1, 1), drawn, Prediction(prediction, dice=0.99))
    assert filled.trust == pytest.approx(dice(prediction[15] > 0, BALL[15]))
    assert pull_of(0.9) == pytest.approx(10 * pull_of(0.7))
    nothing = fill_scan([noisy(BALL)], 0 * labels, (1, 1, 1), np.zeros(SHAPE, bool), Prediction(prediction, dice=0.9))
    assert nothing.trust == 0.9


def test_a_fill_uses_one_thread_for_matrix_products(monkeypatch):
    def blas_threads() -> set[int]:
        return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}

    within = []
    solve = filling.solve_box
    monkeypatch.setattr(filling, "solve_box", lambda *given: (within.append(blas_threads()), solve(*given))[1])
    drawn = planes(SHAPE, [15])
    with threadpool_limits(2, user_api="blas"):
        fill_scan([noisy(BALL)], np.where(drawn, BALL, 0).astype(np.uint8), (1, 1, 1), drawn)
        assert within == [{1}] and blas_threads() == {2}


# The next plane


def test_the_next_plane_is_where_most_is_unsure():
    """Of a rod along k its lower half is drawn densely: the next plane lies in the upper half."""
    truth = np.zeros((48, 24, 24), dtype=np.uint8)
    truth[4:44, 8:16, 8:16] = 1
    drawn = planes(truth.shape, [6, 10, 14, 18, 22, 43])
    labels = np.where(drawn, truth, 0).astype(np.uint8)
    filled = fill_scan([noisy(truth > 0, noise=150)], labels, (1, 1, 1), drawn)
    plane = next_plane(filled, drawn)
    assert plane is not None
    assert 0 < plane.settles <= 1
    if plane.axis == 0:
        assert 22 + APART <= plane.index <= 43 - APART
    settled = drawn.copy()
    settled[(slice(None),) * plane.axis + (plane.index,)] = True
    after = fill_scan([noisy(truth > 0, noise=150)], np.where(settled, truth, 0).astype(np.uint8), (1, 1, 1), settled)
    assert after.uncertainty().sum() < filled.uncertainty().sum()
    other = next_plane(after, settled)
    assert other is None or (other.axis, other.index) != (plane.axis, plane.index)


def test_no_plane_is_proposed_where_all_is_drawn():
    everything = np.ones(SHAPE, dtype=bool)
    filled = fill_scan([noisy(BALL)], BALL.astype(np.uint8), (1, 1, 1), everything)
    assert next_plane(filled, everything) is None
    assert filled.expected_dice() == 1


# The Dice to expect


def half_sure(drawn: np.ndarray, **values) -> Filled:
    """Ten voxels that are labeled for sure and ten with a probability of one half: Dice 2 * 10 / (10 + 15) = 0.8."""
    labels, shares = np.zeros(drawn.shape, np.uint8), np.zeros(drawn.shape, np.float32)
    labels[5, 5, :10], shares[5, 5, :10], shares[5, 6, :10] = 1, 1, 0.5
    return Filled(labels, [1], [(tuple(slice(0, n) for n in drawn.shape), shares[None])], **values)


def test_the_expected_dice_by_hand():
    drawn = planes((12, 12, 12), [2], [2], [2])
    filled = half_sure(drawn)
    assert filled.expected_dice() == pytest.approx(0.8)
    now = INTERCEPT + SLOPE * 0.8
    assert expect(filled, drawn, None) == Expectation(pytest.approx(now), 0, pytest.approx(now))
    # Each plane settles a quarter of what is missing: it gains 0.024, 0.018, 0.014, 0.0103, and 0.008: not worth it.
    after = INTERCEPT + SLOPE * (1 - 0.2 * 0.75**4)
    assert expect(filled, drawn, Plane(0, 8, 0.25)) == Expectation(pytest.approx(now), 4, pytest.approx(after))
    assert expect(filled, drawn, Plane(0, 8, 0.05)).planes == 0


def test_nothing_is_expected_where_the_calibration_does_not_hold():
    drawn = planes((12, 12, 12), [2], [2], [2])
    assert expect(half_sure(drawn, trust=0.9), drawn, None) is None  # with a prediction
    assert expect(half_sure(drawn), planes((12, 12, 12), [2], [2]), None) is None  # two planes
    pieces = half_sure(drawn)
    assert expect(Filled(pieces.labels, [1], pieces.parts * 2), drawn, None) is None
    pieces.labels[8, 8, 8] = 1
    assert expect(pieces, drawn, None)  # ten of eleven voxels are one piece
    pieces.labels[8, 8, 6] = 1
    assert expect(pieces, drawn, None) is None  # ten of twelve


def test_the_expected_dice_is_near_the_true_one():
    filled = fill_scan([noisy(BALL, 40)], np.where(DRAWN, BALL, 0).astype(np.uint8), (1, 1, 1), DRAWN)
    expected = expect(filled, DRAWN, next_plane(filled, DRAWN))
    assert abs(expected.dice - dice(filled.labels > 0, BALL)) < 0.05
    assert expected.dice <= expected.dice_after <= 1


@pytest.mark.slow
def test_a_large_ct_within_time_and_memory():
    """512 x 512 x 400 voxels, a box of 13 million: within 1 GiB beyond the scan, and no slower than it was."""
    import time
    import tracemalloc

    shape = (400, 512, 512)
    truth = np.zeros(shape, dtype=np.uint8)
    truth[100:291, 150:341, 150:341] = ball((191, 191, 191), (95, 95, 95), 90)
    rng = np.random.default_rng(0)
    scan = np.empty(shape, dtype=np.int16)
    for k in range(shape[0]):
        scan[k] = 60 * truth[k] + rng.normal(40, 25, shape[1:])
    drawn = planes(shape, [160, 220], [210, 280], [210, 280])
    labels = np.where(drawn, truth, 0).astype(np.uint8)
    started = time.process_time()
    filled = fill_scan([scan], labels, (1, 0.8, 0.8), drawn)
    seconds = time.process_time() - started
    box, _ = filled.parts[0]
    assert 9e6 < np.prod([side.stop - side.start for side in box]) < 2e7
    assert dice(filled.labels[box] > 0, truth[box] > 0) > 0.98
    tracemalloc.start()
    fill_scan([scan], labels, (1, 0.8, 0.8), drawn)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**30
    assert seconds < 8  # 4.6 s of computing beside twenty busy processes; the aim of 3 s is not reached there
