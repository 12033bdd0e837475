# SPDX-License-Identifier: Apache-2.0
"""Names: cases renamed, deleted and brought back; labels and channels changed here or by another program."""

from __future__ import annotations

import numpy as np
import pytest
from barl.project.labels import Label
from barl.project.store import Project
from barldriver.loop import settle
from barldriver.studies import cells
from slicerhost.clicks import press, type_, waitUntil

pytestmark = pytest.mark.host
NAME, STATUS = range(2)
VALUE, LABEL, MEANING, SIDES = range(4)
PREDICTED = "case_0001"


@pytest.fixture
def cases(a_cases_panel, a_study):
    a_cases_panel.session.openProject(a_study)
    waitUntil(lambda: a_cases_panel.isIdle)
    return a_cases_panel


def select(panel, *rows):
    import qt

    table = panel.ui.casesTable
    table.clearSelection()
    for row in rows:
        table.setRangeSelected(qt.QTableWidgetSelectionRange(row, 0, row, table.columnCount - 1), True)


def type_in_cell(table, text: str) -> None:
    """Type into the cell that is being edited, by keys, and press Return."""
    import qt

    qt.QApplication.processEvents()
    type_(next(field for field in table.findChildren(qt.QLineEdit) if field.isVisible()), text)
    qt.QApplication.processEvents()


# Cases


def test_a_case_is_renamed_in_its_cell(cases):
    select(cases, 1)
    cases.names.update()
    assert cases.names.renameAction.enabled
    cases.names.renameAction.trigger()
    type_in_cell(cases.ui.casesTable, "liver 7")
    assert cases.said[-1] == (False, "case 10 is named liver 7 now.")
    assert cells(cases, NAME) == ["case 2", "liver 7", "case 1"]
    assert cases.session.project.cases.get("liver 7").state == "predicted"
    cases.names.renameAction.trigger()
    type_in_cell(cases.ui.casesTable, "CASE 1")
    assert cases.said[-1][0] and "has a case named 'CASE 1' already" in cases.said[-1][1]
    assert cells(cases, NAME) == ["case 2", "liver 7", "case 1"], "the cell shows the name that it has"


def test_cases_are_deleted_and_brought_back_by_the_question_or_the_menu(cases):
    select(cases, 0, 2)
    cases.names.update()
    assert not cases.names.renameAction.enabled and "one case" in cases.names.renameAction.toolTip
    cases.names.deleteAction.trigger()
    assert cells(cases, NAME) == ["case 10"]
    assert cases.session.question.text.startswith("Deleted: case 2, case 1.")
    cases.session.answer(True)
    assert cells(cases, NAME) == ["case 2", "case 10", "case 1"]
    assert cells(cases, STATUS) == ["Accepted", "Predicted", "New"]
    assert cases.said[-1] == (False, "Brought back: case 2, case 1.")
    select(cases, 2)
    cases.names.deleteAction.trigger()
    cases.session.answer(False)
    cases.session.project.cases.rename(cases.session.project.cases.get("case 10").id, "case 1")
    cases.names.update()
    (action,) = cases.names.deletedMenu.actions()
    assert action.text == "case 1"
    action.trigger()
    assert cells(cases, NAME) == ["case 2", "case 1", "case 1 (2)"], "another case has its name now"
    cases.names.update()
    assert not cases.names.deletedMenu.enabled


def test_the_case_on_screen_is_renamed_and_deleted_with_its_edit_kept(a_review_panel):
    import slicer
    from BARLSegmentationLib.logic.CaseFolder import renameNodes

    panel, module = a_review_panel, a_review_panel.moduleWidget
    cases, session = module.panels["Cases"], a_review_panel.session
    module.steps.show("Cases")
    select(cases, 0)
    cases.names.renameAction.trigger()
    type_in_cell(cases.ui.casesTable, "head 1")
    assert session.loaded.volumes[0].GetName() == "head 1" and session.loaded.segmentation.GetName().startswith(
        "head 1"
    )
    assert panel.ui.caseLabel.text.startswith("head 1: predicted by")
    renameNodes(session.loaded.nodes, "unknown", "other")
    assert session.loaded.volumes[0].GetName() == "head 1"
    segment = session.loaded.segmentation.GetSegmentation().GetSegmentIdBySegmentName("lesion")
    empty = np.zeros(slicer.util.arrayFromVolume(session.loaded.volumes[0]).shape, np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        empty, session.loaded.segmentation, segment, session.loaded.volumes[0]
    )
    select(cases, 0)
    cases.names.deleteAction.trigger()
    assert session.loaded is None and module.ui.questionLabel.text.startswith("Deleted: head 1.")
    press(module.ui.yesButton)
    settle(panel)
    assert [str(item.kind) for item in session.project.revisions.of(PREDICTED)] == ["prediction", "draft"]


# Labels and channels


@pytest.fixture
def project(a_review_panel):
    """The Project panel of the module, with the predicted case on screen."""
    module = a_review_panel.moduleWidget
    module.steps.show("Project")
    panel = module.panels["Project"]
    panel.ui.definitionGroupBox.collapsed = False
    panel.definition.nameLineEdit.text = ""
    waitUntil(lambda: panel.definition.addButton.height > 10, 10)
    yield panel
    panel.ui.definitionGroupBox.collapsed = True


def segments(session) -> list[str]:
    node = session.loaded.segmentation.GetSegmentation()
    return [node.GetSegment(segmentId).GetName() for segmentId in node.GetSegmentIDs()]


def test_a_label_is_renamed_and_the_case_on_screen_follows(project, a_review_panel):
    session, table = project.session, project.definition.labels
    assert [table.item(row, LABEL).text() for row in range(3)] == ["lesion", "edema", "necrosis"]
    table.setCurrentCell(0, LABEL)
    table.editItem(table.item(0, LABEL))
    type_in_cell(table, "tumor")
    assert [label.name for label in session.project.labels] == ["tumor", "edema", "necrosis"]
    assert segments(session) == ["tumor", "edema", "necrosis"]
    assert not a_review_panel.correction.isChanged()
    assert "Outlines and models hold the value 1" in a_review_panel.moduleWidget.ui.statusLabel.text
    table.editItem(table.item(0, LABEL))
    type_in_cell(table, "edema")
    assert "used twice" in a_review_panel.moduleWidget.ui.statusLabel.text
    assert table.item(0, LABEL).text() == "tumor"


def test_a_label_is_said_to_be_of_no_side(project, a_review_panel):
    import qt

    session, table = project.session, project.definition.labels
    for state, lateral in ((qt.Qt.Checked, True), (qt.Qt.Unchecked, False)):
        table.item(1, SIDES).setCheckState(state)
        label = session.project.labels[1]
        assert (label.lateral, label.not_lateral) == (lateral, not lateral)
        assert "not mirrored in the next training" in a_review_panel.moduleWidget.ui.statusLabel.text
    assert table.item(1, SIDES).checkState() == qt.Qt.Unchecked
    assert not a_review_panel.correction.isChanged()


@pytest.mark.parametrize("again", [True, False])
def test_a_new_label_asks_about_accepted_outlines(project, a_review_panel, again):
    module, session = a_review_panel.moduleWidget, project.session
    session.project.revisions.store(
        "case_0002", session.project.revisions.newest(PREDICTED).path, "accepted", author="reader"
    )
    assert not project.definition.addButton.enabled
    project.definition.nameLineEdit.text = "cyst"
    press(project.definition.addButton)
    assert module.ui.questionLabel.text.startswith("One accepted outline lacks cyst.")
    assert len(session.project.labels) == 3
    press(module.ui.yesButton if again else module.ui.noButton)
    settle(a_review_panel)
    assert [(label.value, label.name) for label in session.project.labels][-1] == (8, "cyst")
    assert str(session.project.cases.get("case_0002").state) == ("in_review" if again else "accepted")
    assert segments(session)[-1] == "cyst" and not a_review_panel.correction.isChanged()
    assert project.definition.labels.rowCount == 4 and project.definition.nameLineEdit.text == ""


def test_a_channel_is_renamed(project, a_review_panel):
    a_review_panel.moduleWidget.panels["Cases"].ui.sourceComboBox.currentIndex = 0
    table = project.definition.channels
    table.editItem(table.item(0, 0))
    type_in_cell(table, "T1w")
    assert [channel.name for channel in project.session.project.channels] == ["T1w"]
    form = a_review_panel.moduleWidget.panels["Cases"].ui.addGroupBox.layout()
    assert form.labelForField(a_review_panel.moduleWidget.panels["Cases"].adding.selectors[0]).text == "T1w:"


def test_the_window_notices_a_label_that_another_program_has_added(project, a_review_panel, a_predicted_project):
    module, session = a_review_panel.moduleWidget, project.session
    session.refresh()
    with Project.open(a_predicted_project) as other:
        other.definition.add_label(Label(9, "cyst"))
        other.definition.rename_label(4, "swelling")
    waitUntil(lambda: len(session.project.labels) == 4, 10)  # the module's own timer
    assert segments(session) == ["lesion", "swelling", "necrosis", "cyst"]
    assert "Labels now: lesion, swelling, necrosis, cyst." in module.ui.statusLabel.text
    assert project.definition.labels.item(3, LABEL).text() == "cyst"
    settle(a_review_panel)
    assert not a_review_panel.correction.isChanged()
    module.steps.show("Review")
    press(a_review_panel.ui.acceptButton)
    settle(a_review_panel)
    assert session.project.cases.get(PREDICTED).is_accepted


def test_the_window_notices_a_case_that_another_program_has_added_renamed_or_deleted(project, a_predicted_project):
    import SimpleITK as sitk

    session = project.session
    table = project.moduleWidget.panels["Cases"].ui.casesTable
    session.refresh()
    scan = sitk.GetImageFromArray(np.random.default_rng(5).random((4, 4, 4), np.float32))
    with Project.open(a_predicted_project) as other:
        other.cases.add("from elsewhere", [scan])
        session.refresh()
        assert [case.name for case in session.cases()][-1] == "from elsewhere" and table.rowCount == 3
        other.cases.rename("from elsewhere", "renamed")
        session.refresh()
        assert project.moduleWidget.panels["Cases"]._cases[-1].name == "renamed"
        other.cases.delete("renamed")
        session.refresh()
        assert table.rowCount == 2


def test_looking_for_changes_costs_next_to_nothing(project):
    import time

    project.session.refresh()
    begin = time.process_time()
    for _ in range(100):
        project.session.refresh()
    assert time.process_time() - begin < 0.2
