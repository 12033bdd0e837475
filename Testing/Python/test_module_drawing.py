# SPDX-License-Identifier: Apache-2.0
"""Which planes count as drawn, and which comes next: arrays alone."""

from __future__ import annotations

import numpy as np
import pytest
from barl.errors import InputError

SHAPE = (12, 14, 16)


@pytest.fixture
def drawing():
    from BARLSegmentationLib.logic.Drawing import Drawing

    drawing = Drawing()
    drawing.begin(SHAPE)
    drawing.take(drawing.looking()(np.zeros(SHAPE, np.uint8)))
    return drawing


def stroke(drawing, plane, box, value: int = 1):
    """Change a box while working in a plane; returns the label map after it."""
    labels = drawing.labels().copy()
    labels[box] = value
    if plane is not None:
        drawing.note(plane)
    drawing.take(drawing.looking()(labels))
    return labels


def test_a_stroke_ticks_the_plane_it_was_made_in_and_no_other(drawing):
    stroke(drawing, (1, 6), np.s_[3:7, 6, 4:9])
    assert drawing.drawn.planes == {(1, 6)}
    stroke(drawing, (2, 2), np.s_[0, 0, 2])
    assert drawing.drawn.planes == {(1, 6), (2, 2)}
    mask = np.zeros(SHAPE, bool)
    mask[:, 6], mask[:, :, 2] = True, True
    np.testing.assert_array_equal(drawing.drawn.mask(), mask)
    assert drawing.drawn.share() == pytest.approx(mask.mean())


def test_a_ball_ticks_its_middle_and_holds_the_rest_by_itself(drawing):
    stroke(drawing, (0, 5), np.s_[3:8, 5:9, 5:9])
    assert drawing.drawn.planes == {(0, 5)}
    assert drawing.drawn.mask()[3:8, 5:9, 5:9].all() and not drawing.drawn.mask()[4, 0, 0]


def test_a_look_elsewhere_and_a_change_by_a_button_tick_nothing(drawing):
    drawing.note((0, 1))  # the mouse was there, but the change is not
    labels = stroke(drawing, None, np.s_[6:8, 5:9, 5:9])
    assert not drawing.drawn.planes and drawing.drawn.mask().sum() == labels.sum()
    drawing.take(drawing.looking()(labels))
    stroke(drawing, None, np.s_[1, 1, 1])
    assert not drawing.drawn.planes, "the plane that was noted before is forgotten"


def test_quick_strokes_in_two_views_tick_both(drawing):
    labels = np.zeros(SHAPE, np.uint8)
    labels[4, 2:5, 2:5], labels[8:10, 9, 8:10] = 1, 2
    drawing.note((0, 4))
    drawing.note((1, 9))
    drawing.take(drawing.looking()(labels))
    assert drawing.drawn.planes == {(0, 4), (1, 9)}


def test_an_outline_replaced_as_a_whole_counts_as_nobody_s(drawing):
    mine = stroke(drawing, (0, 4), np.s_[4, 2:5, 2:5])
    drawing.replaced()
    other = np.zeros(SHAPE, np.uint8)
    other[5:9, 5:9, 5:9] = 1
    for labels in (other, other.copy()):
        drawing.take(drawing.looking()(labels))
        assert drawing.drawn.isEmpty and drawing.drawn.shape == SHAPE
    stroke(drawing, (1, 6), np.s_[3:7, 6, 4:9])
    assert drawing.drawn.planes == {(1, 6)}
    drawing.take(drawing.looking()(mine.copy()))
    assert drawing.drawn.planes == {(0, 4)}, "an undo goes back behind it"


def test_undo_and_redo_bring_back_what_counted_then(drawing):
    empty = drawing.labels()
    one = stroke(drawing, (0, 4), np.s_[4, 2:5, 2:5])
    stroke(drawing, (1, 3), np.s_[2:6, 3, 2:5])
    drawing.tick((2, 9), True)
    two = drawing.labels()
    drawing.note((0, 11))  # where the mouse happens to be
    drawing.take(drawing.looking()(one.copy()))
    assert drawing.drawn.planes == {(0, 4)}
    drawing.take(drawing.looking()(empty.copy()))
    assert drawing.drawn.isEmpty
    drawing.take(drawing.looking()(two.copy()))
    assert drawing.drawn.planes == {(0, 4), (1, 3), (2, 9)}


def test_what_is_unticked_is_free_again(drawing):
    stroke(drawing, (0, 4), np.s_[4, 2:5, 2:5])
    stroke(drawing, (1, 3), np.s_[2:6, 3, 2:5])
    drawing.tick((0, 4), False)
    assert drawing.drawn.planes == {(1, 3)}
    only = np.zeros(SHAPE, bool)
    only[:, 3] = True
    np.testing.assert_array_equal(drawing.drawn.mask(), only)
    drawing.tick((1, 3), False)
    assert drawing.drawn.isEmpty


def test_a_stored_mask_comes_back_as_planes_and_strokes(drawing):
    from BARLSegmentationLib.logic.Drawing import Drawing

    stroke(drawing, (0, 5), np.s_[3:8, 5:9, 5:9])
    drawing.tick((2, 0), True)
    again = Drawing()
    again.begin(SHAPE, drawing.drawn.mask(), "barl fill 1")
    assert again.drawn.planes == {(0, 5), (2, 0)} and again.drawn.filledBy == "barl fill 1"
    np.testing.assert_array_equal(again.drawn.mask(), drawing.drawn.mask())


def test_without_uncertainty_the_next_plane_is_of_another_direction_through_the_middle(drawing):
    from BARLSegmentationLib.logic.Proposal import propose

    assert propose(drawing.drawn, drawing.labels(), None) is None
    stroke(drawing, (0, 4), np.s_[4, 2:5, 6:13])
    first = propose(drawing.drawn, drawing.labels(), None)
    assert first.plane == (2, 9) and first.center == (4.0, 3.0, 9.0) and first.extent[2] == 1
    drawing.tick(first.plane, True)
    second = propose(drawing.drawn, drawing.labels(), None)
    assert second.plane == (1, 3)
    drawing.tick(second.plane, True)
    assert propose(drawing.drawn, drawing.labels(), None) is None


def test_with_uncertainty_the_next_plane_holds_the_most_of_it(drawing):
    from BARLSegmentationLib.logic.Drawing import Fill
    from BARLSegmentationLib.logic.Proposal import propose

    model = np.zeros(SHAPE, np.float32)
    model[7, 3:9, 4:12] = 0.9
    found = propose(drawing.drawn, drawing.labels(), model)
    assert found.plane == (0, 7) and found.center == (7.0, 5.5, 7.5) and found.extent == (1, 6, 8)
    stroke(drawing, (0, 3), np.s_[3, 2:9, 2:9])
    labels = drawing.labels()
    uncertainty = np.zeros((8, 10, 10), np.float32)
    uncertainty[5, 2:8, 2:8], uncertainty[0] = 0.5, 0.1
    fill = Fill((slice(2, 10), slice(2, 12), slice(2, 12)), uncertainty, [], 1.0, 0.1)
    drawing.filled(labels, b"digest", fill, "barl fill 1")
    assert propose(drawing.drawn, labels, model).plane == (0, 7), "the fill's uncertainty, not the model's"
    drawing.tick((0, 7), True)
    after = propose(drawing.drawn, labels, None)
    assert after is None or after.plane[0] != 0 or abs(after.plane[1] - 7) >= 3


def test_a_scan_is_filled_from_files_in_a_folder(tmp_path):
    import SimpleITK as sitk
    from barl.jobs.fill_job import DRAWN, FILLED, LABELS, UNCERTAINTY, WarmScan, fill_drawn

    k, j, i = np.indices((24, 28, 26))
    truth = (((k - 12) / 7) ** 2 + ((j - 14) / 8) ** 2 + ((i - 13) / 6) ** 2 < 1).astype(np.uint8)
    scan = sitk.GetImageFromArray((100 * truth + np.random.default_rng(0).normal(0, 8, truth.shape)).astype(np.float32))
    sitk.WriteImage(scan, str(tmp_path / "scan.nii.gz"))
    drawn = np.zeros(truth.shape, bool)
    drawn[12], drawn[:, 14], drawn[:, :, 13] = True, True, True
    np.save(tmp_path / LABELS, np.where(drawn, truth, 0).astype(np.uint8))
    np.save(tmp_path / DRAWN, np.packbits(drawn))
    warm = WarmScan()
    read = warm.read([tmp_path / "scan.nii.gz"], None, None)
    assert warm.read([tmp_path / "scan.nii.gz"], None, None) is read, "read once"
    answer = fill_drawn(read, tmp_path)
    whole = np.zeros_like(truth)
    filled = np.load(tmp_path / FILLED)
    whole[tuple(slice(a, a + n) for a, n in zip(answer["start"], filled.shape, strict=True))] = filled
    assert 2 * (whole & truth).sum() / (whole.sum() + truth.sum()) > 0.95
    np.testing.assert_array_equal(whole[drawn], truth[drawn])
    assert answer["volume_ml"] == pytest.approx(whole.sum() / 1000) and answer["filled_by"].startswith("barl fill ")
    assert np.load(tmp_path / UNCERTAINTY).shape == filled.shape
    np.save(tmp_path / LABELS, np.zeros((3, 3, 3), np.uint8))
    np.save(tmp_path / DRAWN, np.packbits(np.zeros(27, bool)))
    with pytest.raises(InputError, match="grid"):
        fill_drawn(read, tmp_path)
