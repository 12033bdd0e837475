# SPDX-License-Identifier: Apache-2.0
"""Questions about an outline that is probably a mistake: asked in the window, answered by mouse; nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.store import Project
from barldriver.loop import settle
from slicerhost.clicks import press

pytestmark = pytest.mark.host
PREDICTED, UNTOUCHED = "case_0001", "case_0002"


@pytest.fixture
def panel(a_review_panel):
    a_review_panel.ui.readerLineEdit.text = "reader 1"
    settle(a_review_panel)
    return a_review_panel


def asked(panel) -> str:
    """The question on screen; empty if there is none."""
    ui = panel.moduleWidget.ui
    return ui.questionLabel.text if ui.questionWidget.isVisible() else ""


def answer(panel, yes: bool) -> None:
    press(panel.moduleWidget.ui.yesButton if yes else panel.moduleWidget.ui.noButton)
    settle(panel)


def accept(panel) -> None:
    press(panel.ui.acceptButton)
    settle(panel)


def status(panel) -> str:
    return panel.moduleWidget.ui.statusLabel.text


def clear(panel, *names: str) -> None:
    """Erase everything of some labels, as the editor's Erase does."""
    import slicer

    node, volume = panel.correction.segmentation, panel.session.loaded.volumes[0]
    for name in names:
        segment = node.GetSegmentation().GetSegmentIdBySegmentName(name)
        empty = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(empty, node, segment, volume)
    settle(panel)


def kinds(panel, case: str = PREDICTED) -> list[str]:
    return [str(revision.kind) for revision in panel.session.project.revisions.of(case)]


def accepted_elsewhere(folder, author: str) -> str:
    """Another program accepts the prediction of the first case; gives the id of the revision."""
    with Project.open(folder) as project:
        label = project.revisions.newest(PREDICTED).path
        return project.revisions.store(PREDICTED, label, "accepted", author=author).id


def test_an_ordinary_outline_is_accepted_without_a_question(panel):
    accept(panel)
    assert asked(panel) == "" and kinds(panel) == ["prediction", "accepted"]
    assert status(panel) == "predicted is accepted."


@pytest.mark.parametrize("yes", [True, False])
def test_an_empty_outline_is_accepted_only_when_confirmed(panel, yes):
    clear(panel, "lesion", "necrosis")
    accept(panel)
    assert asked(panel) == "The outline of 'predicted' is empty. Does the case have none of the labels?"
    assert kinds(panel) == ["prediction"] and status(panel) == ""
    assert panel.moduleWidget.ui.yesButton.text == "Accept it empty"
    answer(panel, yes)
    assert asked(panel) == "" and kinds(panel) == ["prediction", "accepted" if yes else "draft"]
    stored = panel.session.project.revisions.newest(PREDICTED)
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(stored.path))).any()
    assert status(panel) == ("predicted is accepted." if yes else "A draft of predicted is stored.")


@pytest.mark.parametrize("yes", [True, False])
def test_a_prediction_replaces_an_accepted_outline_only_when_confirmed(panel, yes):
    clear(panel, "necrosis")  # 4 of 49 voxels
    accept(panel)
    press(panel.ui.revertButton)
    settle(panel)
    accept(panel)
    assert "would take the place of the accepted outline of 'predicted'" in asked(panel)
    assert "by reader 1" in asked(panel) and asked(panel).endswith("Shall it be replaced?")
    assert kinds(panel) == ["prediction", "accepted"]
    first = panel.session.project.revisions.of(PREDICTED)[1].id
    answer(panel, yes)
    assert kinds(panel) == ["prediction", "accepted", "accepted" if yes else "draft"]
    if yes:
        assert status(panel) == (
            f"predicted is accepted. It takes the place of {first} by reader 1, which stays in the project."
        )


def test_an_outline_unlike_the_accepted_one_asks_and_asks_again_for_the_next_doubt(panel):
    accept(panel)
    clear(panel, "lesion")  # 45 of 49 voxels
    accept(panel)
    assert "differs from the accepted one of 'predicted' in 92%" in asked(panel)
    clear(panel, "necrosis")  # while the question stands
    answer(panel, True)
    assert "is empty" in asked(panel), "the other doubt"
    answer(panel, True)
    assert kinds(panel) == ["prediction", "accepted", "accepted"]


@pytest.mark.parametrize("yes", [True, False])
def test_both_outlines_stay_when_somebody_else_has_accepted_one(panel, a_predicted_project, yes):
    clear(panel, "lesion")  # also unlike theirs: that is no question of its own
    theirs = accepted_elsewhere(a_predicted_project, "reader 2")
    accept(panel)
    assert asked(panel).startswith("reader 2 has accepted another outline of 'predicted' meanwhile")
    assert theirs in asked(panel) and kinds(panel) == ["prediction", "accepted"]
    answer(panel, yes)
    assert asked(panel) == "" and kinds(panel) == ["prediction", "accepted", "accepted" if yes else "draft"]
    revisions = panel.session.project.revisions.of(PREDICTED)
    assert [revision.author for revision in revisions[1:]] == ["reader 2", "reader 1"]
    counts = [np.count_nonzero(sitk.GetArrayFromImage(sitk.ReadImage(str(item.path)))) for item in revisions]
    assert counts == [49, 49, 4], "what each of them drew"


def test_the_other_outline_is_shown_before_the_answer(panel, a_predicted_project):
    import slicer

    def others() -> list:
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return [node for node in nodes if node.GetAttribute("BARL.Role") == "other" and node.GetDisplayVisibility()]

    look = panel.moduleWidget.ui.lookButton
    clear(panel, "lesion")
    accepted_elsewhere(a_predicted_project, "reader 2")
    accept(panel)
    assert look.visible and look.text == "Show the other" and others() == []
    look.click()
    (theirs,) = others()
    assert theirs.GetName() == "predicted by reader 2" and not theirs.GetSaveWithScene()
    assert not theirs.GetDisplayNode().GetVisibility2DFill()
    assert panel.editor.widget.segmentationNode() is panel.correction.segmentation, "mine is edited"
    settle(panel)
    assert panel.editor.widget.segmentationNode() is panel.correction.segmentation
    look.click()
    assert others() == []
    look.click()
    answer(panel, False)
    assert others() == [] and theirs.GetScene() is None and kinds(panel)[-1] == "draft"
    clear(panel, "necrosis")
    accept(panel)
    assert "is empty" in asked(panel) and not look.visible, "there is nothing to compare"


def test_a_question_left_open_loses_nothing(panel):
    clear(panel, "lesion", "necrosis")
    accept(panel)
    assert asked(panel)
    panel.moduleWidget.steps.show("Cases")
    assert asked(panel) == "" and kinds(panel) == ["prediction"]
    panel.session.openCase(UNTOUCHED)
    settle(panel)
    assert kinds(panel) == ["prediction", "draft"]


def test_a_question_fits_beside_the_step_on_a_small_screen(panel):
    import slicer

    ui = panel.moduleWidget.ui
    panel.ui.detailsButton.checked = False
    clear(panel, "lesion", "necrosis")
    accept(panel)
    for _level in range(6):
        slicer.app.processEvents()
    for button in (ui.yesButton, ui.noButton):
        assert button.width >= button.minimumSizeHint.width() and button.toolTip
    assert ui.questionWidget.minimumSizeHint.width() <= 424
    answer(panel, False)


def test_what_is_accepted_while_another_case_is_opened(a_review_panel):
    """The next case is not opened after it, for the user has chosen another one."""
    panel = a_review_panel
    project, opened = panel.session.project, []
    image = sitk.ReadImage(str(project.cases.image_paths(UNTOUCHED)[0]))
    project.cases.add("third", [image * 2 + 5])
    panel.session.notifyCases()
    proposed = panel.moduleWidget.panels["Cases"]._ranked[0].case.id
    chosen = next(case for case in (UNTOUCHED, "case_0003") if case != proposed)
    panel.session.caseOpened.connect(lambda: opened.append(panel.session.caseId))
    panel.ui.goOnCheckBox.checked = True
    panel.onAccept()
    panel.session.openCase(chosen)
    settle(panel)
    assert opened == [chosen] and panel.session.caseId == chosen
    assert panel.moduleWidget.ui.statusLabel.text == "predicted is accepted."
    assert project.cases.get(PREDICTED).is_accepted


def test_an_outline_that_is_refused_while_another_case_is_opened_is_told(a_review_panel):
    """Nobody is left to ask; the question went without a word, and the case counted as accepted for its user."""
    from barl.project.review import store_correction

    panel = a_review_panel
    project = panel.session.project
    prediction = project.revisions.newest(PREDICTED)
    outline = sitk.ReadImage(str(prediction.path))
    with Project.open(project.folder) as other:
        store_correction(
            other, PREDICTED, outline, "accepted", author="somebody", prediction=prediction, editing_seconds=1.0
        )
    panel.onAccept()
    panel.session.openCase(UNTOUCHED)
    settle(panel)
    assert panel.session.question is None and panel.session.caseId == UNTOUCHED
    assert panel.moduleWidget.ui.statusLabel.text.startswith("predicted was not accepted: ")
    assert project.revisions.newest(PREDICTED).author == "somebody"
