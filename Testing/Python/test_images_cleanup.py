# SPDX-License-Identifier: Apache-2.0
"""Cleanup of label maps: pieces and holes on constructed maps, and the choice of rules from constructed scores."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl.errors import ModelError
from barl.evaluation.cleanup_choice import OutlinedPieces, choose_rule, score_candidates
from barl.evaluation.metrics import dice
from barl.images.cleanup import FILLED, LARGEST, REMOVED, VOLUME, CleanupRule, clean
from barl.images.geometry import Grid
from barl.inference.cleanup import add_changes, clean_images, in_words
from barl.inference.hotspots import HotSpot
from barl.inference.predictor import Predictor
from barl.models.disk import save_model
from barl.networks.branches import NetworkSpec, build_network
from barl.project.model_card import CARD_FILE, read_card
from test_inference_predictor import make_card, simulate

ML = 0.001  # a voxel of 1 mm


def three_pieces() -> np.ndarray:
    """Label 1: pieces of 27, 8 and 2 voxels (these two touch at a corner: one piece); label 2: one voxel."""
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:4, 1:4, 1:4] = 1
    labels[6:8, 6:8, 6:8] = 1
    labels[10, 10, 10] = labels[11, 11, 11] = 1
    labels[0, 11, 0] = 2
    return labels


def hollow() -> np.ndarray:
    """A cube of label 1 with a hole of 3 voxels, one of which label 2 fills; beside it a bay that is open."""
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:8, 1:8, 1:8] = 1
    labels[3, 3, 3:6] = 0
    labels[3, 3, 5] = 2
    labels[1:3, 6, 6] = 0
    return labels


def test_only_the_largest_piece_stays():
    labels = three_pieces()
    changes = clean(labels, [CleanupRule(1, LARGEST)], ML)
    assert [change.voxels for change in changes] == [8, 2]
    assert (labels == 1).sum() == 27
    assert labels[0, 11, 0] == 2  # without a rule
    assert labels[tuple(changes[0].center)] == 0
    assert set(changes[0].center.tolist()) <= {6, 7}
    assert changes[1].center.tolist() == [10, 10, 10]


@pytest.mark.parametrize(("least", "voxels"), [(0.0, 37), (0.002, 37), (0.0021, 35), (0.008, 35), (0.009, 27), (1, 0)])
def test_pieces_of_at_least_a_volume_stay(least, voxels):
    labels = three_pieces()
    clean(labels, [CleanupRule(1, VOLUME, least)], ML)
    assert (labels == 1).sum() == voxels


def test_a_volume_that_no_piece_has_leaves_the_largest_where_one_is_to_stay():
    labels = three_pieces()
    clean(labels, [CleanupRule(1, VOLUME, 1.0, keep_one=True)], ML)
    assert (labels == 1).sum() == 27


def test_of_two_equal_pieces_one_stays():
    labels = np.zeros((3, 3, 7), np.uint8)
    labels[1, 1, [1, 3, 5]] = 5
    clean(labels, [CleanupRule(5, LARGEST)], ML)
    assert np.argwhere(labels == 5).tolist() == [[1, 1, 1]]


def test_a_hole_is_filled_but_for_other_labels_and_open_bays():
    labels = hollow()
    changes = clean(labels, [CleanupRule(1, fill_holes=True)], ML)
    assert [(change.kind, change.voxels) for change in changes] == [(FILLED, 2)]
    assert labels[3, 3, 3:6].tolist() == [1, 1, 2]
    assert labels[1:3, 6, 6].tolist() == [0, 0]


def test_a_hole_that_reaches_the_border_of_the_map_stays():
    labels = np.ones((5, 5, 5), np.uint8)
    labels[2, 2, 2:] = 0
    assert clean(labels, [CleanupRule(1, fill_holes=True)], ML) == []


def test_removal_comes_before_filling():
    labels = hollow()
    changes = clean(labels, [CleanupRule(1, fill_holes=True), CleanupRule(2, VOLUME, 0.01)], ML)
    assert {(change.kind, change.value, change.voxels) for change in changes} == {(REMOVED, 2, 1), (FILLED, 1, 3)}
    assert labels[3, 3, 3:6].tolist() == [1, 1, 1]


@pytest.mark.parametrize("labels", [np.zeros((4, 4, 4), np.uint8), np.ones((4, 4, 4), np.uint16)])
def test_nothing_to_clean(labels):
    before = labels.copy()
    assert clean(labels, [CleanupRule(1, LARGEST, fill_holes=True)], ML) == []
    assert np.array_equal(labels, before)


def test_scores_of_candidates_are_those_of_the_cleaned_maps():
    rng = np.random.default_rng(1)
    truth = np.zeros((16, 16, 16), np.uint8)
    truth[4:12, 4:12, 4:12] = 1
    predicted = np.where(rng.random(truth.shape) < 0.03, 1, truth).astype(np.uint8)
    predicted[rng.random(truth.shape) < 0.02] = 0
    pieces = OutlinedPieces().with_outline(truth, 1, ML)
    assert (pieces.most, pieces.smallest_ml, pieces.has_holes) == (1, pytest.approx(0.512), False)
    row = score_candidates(predicted, truth, pieces, 1, ML)
    assert row["as is"] == dice(predicted, truth, 1)
    rules = {**pieces.candidates(1), "holes": CleanupRule(1, fill_holes=True)}
    assert set(row) == {"as is", *rules}
    for name, rule in rules.items():
        cleaned = predicted.copy()
        clean(cleaned, [rule], ML)
        assert row[name] == dice(cleaned, truth, 1), name
    assert row["largest"] > row["as is"] and row["holes"] > row["as is"]


def test_scores_where_the_label_is_missing():
    nothing, pieces = np.zeros((6, 6, 6), np.uint8), OutlinedPieces(3, 1, 0.05, lacking=1)
    speck = nothing.copy()
    speck[2, 2, 2] = 1
    assert np.isnan(score_candidates(nothing, nothing, pieces, 1, ML)["as is"])
    assert set(score_candidates(nothing, speck, pieces, 1, ML).values()) == {0.0}
    assert score_candidates(speck, nothing, pieces, 1, ML) == {
        "as is": 0.0, "volume 0.1": 1.0, "volume 0.25": 1.0, "volume 0.5": 1.0, "volume 1.0": 1.0,
        "largest": 0.0, "holes": 0.0,
    }  # fmt: skip


def test_outlines_of_several_pieces_allow_no_largest_piece():
    several = OutlinedPieces().with_outline(three_pieces(), 1, ML)
    assert (several.outlines, several.most, several.smallest_ml) == (1, 3, pytest.approx(0.002))
    rules = several.candidates(1).values()
    assert all(rule.pieces == VOLUME and rule.min_ml <= 0.002 for rule in rules)
    assert all(rule.keep_one for rule in rules)
    lacking = several.with_outline(np.zeros((3, 3, 3)), 1, ML)
    assert lacking.outlines == 1 and not any(rule.keep_one for rule in lacking.candidates(1).values())
    once = several.with_outline(np.ones((3, 3, 3)), 1, ML)
    assert LARGEST not in once.candidates(1)  # one outline with several pieces is enough
    assert OutlinedPieces().candidates(1) == {}


def rows(*gains: float, name: str = "largest") -> list[dict[str, float]]:
    candidates = [*OutlinedPieces(2, 1, 1.0).candidates(1), "holes", "as is"]
    return [{**dict.fromkeys(candidates, 0.7), name: 0.7 + gain} for gain in gains]


ONE_PIECE = OutlinedPieces(4, 1, 1.0)


@pytest.mark.parametrize(
    "gains",
    [
        (),  # nothing unseen
        (0.2,),  # one case: its noise is not known
        (0.0, 0.0, 0.0),
        (0.0005, 0.0005, 0.0005),  # below what counts
        (0.1, -0.09, 0.05, -0.04),  # noise: t = 0.11
        (0.3, 0.0, 0.0, 0.0),  # t = 1, p = 0.20
        (-0.1, -0.2, -0.1),
    ],
)
def test_no_rule_without_a_gain_above_noise(gains):
    assert choose_rule(rows(*gains), ONE_PIECE, 1) is None


def test_a_gain_above_noise_is_kept():
    rule = choose_rule(rows(0.05, 0.02, 0.1, 0.0), ONE_PIECE, 1)  # t = 1.97, p = 0.07
    assert rule == CleanupRule(1, LARGEST, gain=0.0425, cases=4)
    assert rule.in_words() == "largest piece"


def test_of_equal_gains_the_largest_piece_wins_then_the_smallest_volume():
    same = [{**row, "volume 0.25": row["largest"], "volume 0.5": row["largest"]} for row in rows(0.1, 0.1)]
    assert choose_rule(same, ONE_PIECE, 1).pieces == LARGEST
    rule = choose_rule(same, replace(ONE_PIECE, most=2), 1)
    assert (rule.pieces, rule.min_ml) == (VOLUME, 0.25)


def test_holes_are_chosen_by_themselves_and_not_where_outlines_have_some():
    assert choose_rule(rows(0.1, 0.1, name="holes"), ONE_PIECE, 1) == CleanupRule(1, fill_holes=True, gain=0.1, cases=2)
    assert choose_rule(rows(0.1, 0.1, name="holes"), replace(ONE_PIECE, has_holes=True), 1) is None
    assert OutlinedPieces().with_outline(hollow(), 1, ML).has_holes


def test_cases_without_the_label_do_not_count():
    missing = {**rows(0.0)[0], "as is": float("nan")}
    assert choose_rule([*rows(0.1, 0.1), missing], ONE_PIECE, 1).cases == 2


def test_changes_become_hot_spots_and_full_uncertainty():
    image = sitk.GetImageFromArray(three_pieces())
    image.SetSpacing((1, 1, 2))
    image.SetOrigin((10, 20, 30))
    doubt = sitk.Image(image.GetSize(), sitk.sitkFloat32)
    doubt.CopyInformation(image)
    cleaned, uncertainty, changes = clean_images(image, doubt, [CleanupRule(1, LARGEST)])
    assert np.count_nonzero(sitk.GetArrayViewFromImage(cleaned) == 1) == 27
    assert np.count_nonzero(sitk.GetArrayViewFromImage(uncertainty) == 1) == 10
    assert cleaned.GetOrigin() == uncertainty.GetOrigin() == (10, 20, 30)
    grid = Grid.of(image)
    same_place = HotSpot(1, (16.0, 26.0, 42.0), 0.5, 0.6, 0.3, 1, (0, 1, 0, 1, 0, 1))
    elsewhere = HotSpot(2, (11.0, 21.0, 32.0), 0.02, 0.5, 0.01, 1, (0, 1, 0, 1, 0, 1))
    spots = add_changes([same_place, elsewhere], changes, grid)
    assert [(spot.rank, spot.kind) for spot in spots] == [(1, "removed"), (2, "uncertain"), (3, "removed")]
    assert spots[0].bounds_mm == pytest.approx((15.5, 17.5, 25.5, 27.5, 41.0, 45.0))
    assert spots[0].volume_ml == pytest.approx(0.016) and spots[0].mean_uncertainty == 1.0
    assert spots[2].position_mm == pytest.approx((20.0, 30.0, 50.0))
    assert in_words(changes, {1: "Atrium"}, grid.voxel_ml) == ["Cleanup removed 2 pieces of Atrium (0.02 ml)."]
    assert len(add_changes([elsewhere], changes, grid, limit=1)) == 1


def test_a_model_cleans_its_predictions_unless_told_not_to(tmp_path):
    """A real network: its prediction is many pieces, of which the largest stays."""
    spec = NetworkSpec(1, 3, (4, 8))
    card = replace(make_card(spec, patch=(16, 16, 16)), cleanup=[CleanupRule(3, LARGEST)])
    save_model(tmp_path / "model", card, build_network(spec, seed=3).state_dict())
    predictor = Predictor.load(tmp_path / "model", device="cpu")
    assert predictor.card.cleanup == card.cleanup
    image = simulate((24, 24, 24))[0]
    torch.manual_seed(0)
    raw = predictor.predict([image], cleanup=False)
    cleaned = predictor.predict([image])
    expected = sitk.GetArrayFromImage(raw.label)
    changes = clean(expected, card.cleanup, ML)
    assert changes
    assert np.array_equal(sitk.GetArrayFromImage(cleaned.label), expected)
    assert all(sitk.GetArrayViewFromImage(cleaned.uncertainty)[c.box][c.mask].min() == 1 for c in changes)
    assert {spot.kind for spot in raw.hotspots} <= {"uncertain"}
    assert "removed" in {spot["kind"] for spot in cleaned.details()["hotspots"]}
    assert cleaned.notes[0].startswith("Cleanup removed ") and raw.notes == []
    assert cleaned.volumes[0].ml == pytest.approx(np.count_nonzero(expected == 3) * ML)


def test_cards_without_cleanup_go_on_working_and_wrong_ones_are_refused(tmp_path):
    spec = NetworkSpec(1, 3, (4, 8))
    network = build_network(spec, seed=0)
    save_model(tmp_path / "plain", make_card(spec), network.state_dict())
    assert "cleanup" not in json.loads((tmp_path / "plain" / CARD_FILE).read_text("utf-8"))
    assert read_card(tmp_path / "plain").cleanup == []
    for wrong in ([CleanupRule(5)], [CleanupRule(3), CleanupRule(3)], [CleanupRule(3, "smallest")]):
        with pytest.raises(ModelError, match="cleanup"):
            save_model(tmp_path / "wrong", replace(make_card(spec), cleanup=wrong), network.state_dict())
