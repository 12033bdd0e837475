# SPDX-License-Identifier: Apache-2.0
"""Three slices make an outline, one corrects a prediction: by mouse and keyboard, with the real process that fills."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barldriver.drawing import VIEWS, outlineSlice, planeOf, pressKey
from barldriver.loop import settle

pytestmark = pytest.mark.host
NAMES = ("organ", "lesion")
# Letters that Slicer's views, the Segment Editor (i, q, w, x, y, z) and its Draw (a, x) take.
TAKEN = set("ABFGIQRTVWXYZ")


def simulated(seed: int, tilt: float = 0.0, handed: int = 1) -> tuple[sitk.Image, np.ndarray]:
    """An ellipsoid with a smaller one in it, noise; nothing anatomical. Its outline ``[k, j, i]``."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices((30, 44, 40))
    organ = ((k - 15) / 8) ** 2 + ((j - 22) / 12) ** 2 + ((i - 20) / 10) ** 2 < 1
    lesion = ((k - 15) / 4) ** 2 + ((j - 23) / 4) ** 2 + ((i - 21) / 4) ** 2 < 1
    truth = np.where(lesion, 2, np.where(organ, 1, 0)).astype(np.uint8)
    scan = sitk.GetImageFromArray((100 + 60 * organ + 60 * lesion + rng.normal(0, 10, organ.shape)).astype(np.float32))
    scan.SetSpacing((1.0, 1.0, 1.5))
    scan.SetOrigin((-20.0, -22.0, -22.5))
    c, s = np.cos(tilt), np.sin(tilt)
    scan.SetDirection((c, -s, 0, s, c, 0, 0, 0, handed))
    return scan, truth


@pytest.fixture
def review(a_module, tmp_path):
    """Opens the review panel on a case of a new project; ``review(prediction=, tilt=, handed=)``."""
    module = a_module
    panel = module.panels["Review"]
    module.steps.show("Review")
    panel.setPauses(10)
    panel.ui.goOnCheckBox.checked = panel.ui.fillFollowsCheckBox.checked = False
    panel.ui.onlyWhereUnsureCheckBox.checked = False
    panel.ui.readerLineEdit.text = "reader 1"

    def start(prediction: np.ndarray | None = None, tilt: float = 0.0, handed: int = 1):
        scan, truth = simulated(1, tilt, handed)
        labels = [Label(1, NAMES[0], (230, 180, 60)), Label(2, NAMES[1], (220, 60, 60))]
        with Project.create(tmp_path / "project", "simulated", labels, [Channel("MR")]) as project:
            project.cases.add("case 1", [scan])
            if prediction is not None:
                label = sitk.GetImageFromArray(prediction)
                label.CopyInformation(scan)
                project.revisions.store("case 1", label, "prediction", author="BARL model_0001", model_id=None)
        module.session.openProject(tmp_path / "project")
        module.session.openCase("case_0001")
        settle(panel)
        return panel, truth

    yield start
    module.session.closeProject()
    settle(panel)


def outline(panel) -> np.ndarray:
    return panel.correction.snapshot().labelMap()[0]


def dice(panel, truth, value: int = 1) -> float:
    a, b = outline(panel) == value, truth == value
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def node(view: str):
    import slicer

    return slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()


def draw(panel, view: str, truth, name: str) -> None:
    """Outline a label in the slice that a view shows."""
    outlineSlice(panel, view, truth >= 1 if name == NAMES[0] else truth == 2, name)


def undo_and_redo_the_fill(panel, drawn, planes):
    """One step takes all labels back, and what counted as drawn then counts again."""
    whole = outline(panel)
    panel.editor.widget.undo()
    settle(panel)
    np.testing.assert_array_equal(outline(panel), drawn)
    assert panel.correction.drawing.drawn.fill is None and panel.correction.drawing.drawn.planes == planes
    assert panel.uncertainty.node() is None
    panel.editor.widget.redo()
    settle(panel)
    np.testing.assert_array_equal(outline(panel), whole)
    assert panel.correction.drawing.drawn.fill is not None and panel.uncertainty.node() is not None


def test_three_slices_make_an_outline(review):
    panel, truth = review()
    ui = panel.ui
    assert ui.planesButton.text == "0 drawn" and ui.acceptScopeComboBox.currentIndex == 0
    for view in VIEWS:
        draw(panel, view, truth, NAMES[0])
        draw(panel, view, truth, NAMES[1])
    planes = {planeOf(panel, view) for view in VIEWS}
    assert panel.correction.drawing.drawn.planes == planes and len(planes) == 3
    assert set(panel.planes.frames.colors()) == set(VIEWS), "each view shows a drawn slice"
    assert ui.planesButton.text == "3 drawn" and ui.acceptScopeComboBox.currentText == "Only what I drew"
    drawn, mask = outline(panel), panel.correction.drawing.drawn.mask()

    pressKey(panel, "L")
    assert dice(panel, truth) > 0.9 and dice(panel, truth, 2) > 0.85
    np.testing.assert_array_equal(outline(panel)[mask], drawn[mask])
    assert "xpected Dice 0.9" in ui.fillLabel.text and "unsure" in ui.fillLabel.toolTip
    assert ui.acceptScopeComboBox.currentText == "Whole scan"
    assert panel.uncertainty.node().GetName() == "case 1 uncertainty of the fill"
    assert panel.hotspots.hotspots.spots and ui.nextHotspotButton.enabled
    undo_and_redo_the_fill(panel, drawn, planes)

    pressKey(panel, "S")
    proposed = panel.planes._proposed
    assert proposed is not None and proposed not in planes
    (view,) = [view for view in VIEWS if planeOf(panel, view) == proposed]
    assert panel.planes.frames.colors()[view] != panel.planes.frames.colors().get("none")
    draw(panel, view, truth, NAMES[0])
    assert panel.correction.drawing.drawn.planes == planes | {proposed}
    assert ui.fillLabel.text == "Drawn on since Fill"
    pressKey(panel, "L")
    assert dice(panel, truth) > 0.9

    pressKey(panel, "Return", "ControlModifier")
    accepted = panel.session.project.revisions.newest("case_0001")
    assert accepted.is_accepted and accepted.looked is None and accepted.filled_by.startswith("barl fill ")
    assert not ui.acceptButton.enabled, "nothing is left to accept"


def test_only_what_was_drawn_is_accepted_and_comes_back(review):
    panel, truth = review()
    draw(panel, "Red", truth, NAMES[0])
    draw(panel, "Green", truth, NAMES[0])
    mask, drawn = panel.correction.drawing.drawn.mask(), outline(panel)
    panel.onSaveDraft()
    settle(panel)
    project = panel.session.project
    draft = project.revisions.newest("case_0001")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(project.revisions.read_looked(draft)) != 0, mask)
    panel.session.closeCase()
    panel.session.openCase("case_0001")
    settle(panel)
    assert panel.correction.drawing.drawn.planes == {planeOf(panel, "Red"), planeOf(panel, "Green")}
    assert not panel.correction.isChanged()
    panel.onAccept()
    settle(panel)
    accepted = project.revisions.newest("case_0001")
    assert accepted.is_accepted and accepted.looked_share == pytest.approx(mask.mean())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(accepted.path))), drawn)
    row = panel.moduleWidget.panels["Cases"].ui.casesTable
    assert [row.item(0, column).text() for column in (0, 1)] == ["case 1", f"Accepted {100 * mask.mean():.0f} %"]


def test_a_tick_is_kept_as_a_draft_when_the_case_closes(review):
    panel, truth = review()
    draw(panel, "Red", truth, NAMES[0])
    axis, index = planeOf(panel, "Red")
    panel.onSaveDraft()
    settle(panel)
    panel.planes.tick((axis, index + 9), True)  # nothing here
    panel.session.closeCase()
    panel.session.openCase("case_0001")
    settle(panel)
    assert panel.correction.drawing.drawn.planes == {(axis, index), (axis, index + 9)}


def test_a_prediction_that_came_back_counts_as_nobody_s_drawing(review):
    predicted = np.where(simulated(1)[1], 1, 0).astype(np.uint8)
    predicted[:, 25:] = 0
    panel, truth = review(predicted)
    draw(panel, "Red", truth, NAMES[0])
    panel.onSaveDraft()
    settle(panel)
    panel.session.closeCase()
    panel.session.openCase("case_0001")
    settle(panel)
    assert panel.correction.drawing.drawn.planes == {planeOf(panel, "Red")}
    panel.onRevert()
    settle(panel)
    np.testing.assert_array_equal(outline(panel), predicted)
    assert panel.correction.drawing.drawn.isEmpty
    draw(panel, "Yellow", truth, NAMES[0])
    axis, index = planeOf(panel, "Yellow")
    mask = panel.correction.drawing.drawn.mask()
    assert mask.take(index, axis=axis).all() and np.delete(mask, index, axis=axis).sum() == 0


def test_no_key_takes_one_of_slicer_s(review):
    panel, _truth = review()
    letters = {keys for keys, _text, _slot in panel._keys() if len(keys) == 1}
    assert "L" in letters and not letters & TAKEN


def test_an_unticked_slice_no_longer_holds_the_fill(review):
    panel, truth = review()
    for view in VIEWS:
        draw(panel, view, truth, NAMES[0])
    wrong = planeOf(panel, "Red")
    panel.planes._fillMenu()
    actions = [action for action in panel.planes._menu.actions() if action.checkable]
    assert len(actions) == 3 and all(action.checked for action in actions)
    text = panel.planes.views.name(wrong)
    (action,) = [action for action in actions if action.text.casefold() == text.casefold()]
    action.trigger()
    assert wrong not in panel.correction.drawing.drawn.planes
    assert not panel.correction.drawing.drawn.mask().all(axis=(1, 2)).any()


def test_one_corrected_slice_corrects_a_prediction(review):
    from scipy import ndimage

    _scan, truth = simulated(1)
    true = np.where(truth, 1, 0).astype(np.uint8)
    missed = ndimage.binary_erosion(true, iterations=2)
    missed[:, 25:] = False
    panel, truth = review(missed.astype(np.uint8))
    assert panel.ui.fillLabel.text == "Correct a slice, then Fill"
    pressKey(panel, "S")
    assert panel.planes._proposed == planeOf(panel, "Yellow") == (2, 20), "through its middle: it has no uncertainty"
    draw(panel, "Yellow", truth, NAMES[0])
    assert panel.correction.drawing.drawn.planes == {planeOf(panel, "Yellow")}
    assert panel.ui.acceptScopeComboBox.currentText == "Whole scan"
    alone, corrected = dice(panel, true), outline(panel)
    axis, index = planeOf(panel, "Yellow")
    pressKey(panel, "L")
    assert dice(panel, true) > alone + 0.1
    np.testing.assert_array_equal(outline(panel).take(index, axis=axis), corrected.take(index, axis=axis))
    whole = outline(panel)
    pressKey(panel, "Return", "ControlModifier")
    accepted = panel.session.project.revisions.newest("case_0001")
    assert accepted.is_accepted and accepted.filled_by.startswith("barl fill ")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(accepted.path))), whole)


def test_views_follow_the_voxels_of_an_oblique_scan_and_turn_back(review):
    panel, truth = review(tilt=0.3)
    assert all(planeOf(panel, view) is not None for view in VIEWS)
    draw(panel, "Yellow", truth, NAMES[0])
    assert panel.correction.drawing.drawn.planes == {planeOf(panel, "Yellow")}
    panel.session.closeCase()
    assert node("Yellow").GetOrientation() == "Sagittal"


def test_a_left_handed_scan_is_filled_where_it_was_drawn(review):
    panel, truth = review(handed=-1)
    for view in VIEWS:
        draw(panel, view, truth, NAMES[0])
    planes = set(panel.correction.drawing.drawn.planes)
    assert planes == {planeOf(panel, view) for view in VIEWS}
    pressKey(panel, "L")
    true = np.where(truth, 1, 0)
    assert dice(panel, true) > 0.9
    import slicer

    uncertainty = slicer.util.arrayFromVolume(panel.uncertainty.node())[::-1]
    axis, index = min(planes)
    assert axis == 0 and not uncertainty[index].any() and uncertainty[index + 5].any()


def test_nothing_drawn_is_a_sentence_and_not_a_fill(review):
    panel, _truth = review()
    pressKey(panel, "L")
    assert "Nothing is drawn" in panel.moduleWidget.ui.statusLabel.text
    pressKey(panel, "S")
    assert "Outline the structure in one slice first" in panel.moduleWidget.ui.statusLabel.text
    assert not outline(panel).any()


def test_a_canceled_fill_changes_nothing(review):
    panel, truth = review()
    draw(panel, "Red", truth, NAMES[0])
    before = outline(panel)
    panel.ui.fillButton.click()
    panel.ui.fillButton.click()  # while it is under way, the same button ends it
    settle(panel)
    np.testing.assert_array_equal(outline(panel), before)
    assert "ended" in panel.moduleWidget.ui.statusLabel.text and panel.ui.fillButton.text == "Fill"


def test_the_fill_follows_a_stroke_and_goes_with_it(review):
    panel, truth = review()
    for view in VIEWS:
        draw(panel, view, truth, NAMES[0])
    pressKey(panel, "L")
    filled = outline(panel)
    panel.ui.fillFollowsCheckBox.checked = True
    panel.filling.seconds = 0.1  # this machine may be busy
    pressKey(panel, "S")
    (view,) = [view for view in VIEWS if planeOf(panel, view) == panel.planes._proposed]
    draw(panel, view, truth, NAMES[0])
    settle(panel, lambda: panel.correction.drawing.drawn.fill.planes == panel.correction.drawing.drawn.planes)
    assert len(panel.correction.drawing.drawn.fill.planes) == 4
    panel.editor.widget.undo()
    settle(panel)
    np.testing.assert_array_equal(outline(panel), filled)
    assert len(panel.correction.drawing.drawn.planes) == 3
