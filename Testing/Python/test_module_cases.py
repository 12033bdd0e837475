# SPDX-License-Identifier: Apache-2.0
"""The section of the cases: table, opening and next case, with the real worker."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from barl.project.labels import Channel
from barl.project.store import Project
from barldriver.studies import LABELS, an_image, cells
from slicerhost.clicks import DOUBLE_CLICK, mouse, press, waitUntil

pytestmark = pytest.mark.host
NAME, STATUS, HELD_OUT, UNCERTAINTY, DICE, CHANGED = range(6)


def select(panel, *rows):
    import qt

    table = panel.ui.casesTable
    table.clearSelection()
    for row in rows:
        table.setRangeSelected(qt.QTableWidgetSelectionRange(row, 0, row, table.columnCount - 1), True)


def click_header(panel, column):
    """A click into the header's section."""
    import qt

    header = panel.ui.casesTable.horizontalHeader()
    place = header.sectionViewportPosition(column) + header.sectionSize(column) // 2
    mouse(header.viewport(), qt.QPoint(place, 5))


def open_project(panel, folder, **options):
    panel.session.openProject(folder, **options)
    waitUntil(lambda: panel.isIdle)


# The table


def test_table_tells_each_case_and_the_agreement_is_measured_by_the_worker(a_cases_panel, a_study):
    open_project(a_cases_panel, a_study)
    assert cells(a_cases_panel, NAME) == ["case 2", "case 10", "case 1"]
    assert cells(a_cases_panel, STATUS) == ["Accepted", "Predicted", "New"]
    assert cells(a_cases_panel, UNCERTAINTY) == ["0.20", "0.60", ""]
    assert cells(a_cases_panel, DICE) == ["0.67", "", ""]  # 2 * 2 / (4 + 2)
    assert a_cases_panel.ui.countLabel.text == "3 cases"
    assert [entry.action for entry in a_cases_panel.session.project.journal.entries()].count("agreement measured") == 1


def test_a_predicted_case_shows_the_dice_to_expect(a_cases_panel, a_study):
    with Project.open(a_study) as project:
        case = project.cases.find("case 10")
        before = project.revisions.newest(case.id)
        expected = {**before.details, "expected_dice": 0.614}
        project.revisions.store(case.id, before.path, "prediction", author="BARL", details=expected)
    open_project(a_cases_panel, a_study)
    assert cells(a_cases_panel, DICE) == ["0.67", "≈ 0.61", ""]
    measured, foretold, _none = (a_cases_panel.ui.casesTable.item(row, DICE).icon() for row in range(3))
    assert measured.isNull() and not foretold.isNull(), "a light, of what is expected alone"
    click_header(a_cases_panel, DICE)
    assert cells(a_cases_panel, DICE) == ["0.67", "≈ 0.61", ""]
    click_header(a_cases_panel, DICE)
    assert cells(a_cases_panel, DICE) == ["≈ 0.61", "0.67", ""]


def test_the_light_is_green_yellow_or_red(host):
    from BARLSegmentationLib.logic.CaseTable import light

    assert light(0.8) == light(1.0) != light(0.79) == light(0.6) != light(0.59) == light(0.0)


def test_time_of_change_is_as_short_as_it_can_be(host):
    from BARLSegmentationLib.logic.CaseTable import localTime, shortTime

    now = datetime(2026, 5, 4, 12, 0)
    stored = [now.replace(hour=11), now.replace(month=4), now.replace(year=2025)]
    texts = [time.astimezone(UTC).isoformat(timespec="milliseconds") for time in stored]
    assert [shortTime(text, now) for text in texts] == ["11:00", "04-04", "2025-05"]
    assert localTime(texts[1]) == "2026-04-04 12:00" and localTime("") == ""


def test_headers_sort_and_cases_without_a_value_come_last(a_cases_panel, a_study):
    open_project(a_cases_panel, a_study)
    click_header(a_cases_panel, NAME)
    assert cells(a_cases_panel, NAME) == ["case 1", "case 2", "case 10"]
    click_header(a_cases_panel, NAME)
    assert cells(a_cases_panel, NAME) == ["case 10", "case 2", "case 1"]
    click_header(a_cases_panel, UNCERTAINTY)
    assert cells(a_cases_panel, UNCERTAINTY) == ["0.60", "0.20", ""]
    click_header(a_cases_panel, UNCERTAINTY)
    assert cells(a_cases_panel, UNCERTAINTY) == ["0.20", "0.60", ""]
    click_header(a_cases_panel, STATUS)
    assert cells(a_cases_panel, STATUS) == ["New", "Predicted", "Accepted"]


def test_filter_takes_words_of_name_status_and_held_out(a_cases_panel, a_study):
    open_project(a_cases_panel, a_study)
    for text, expected in (("pred", ["case 10"]), ("CASE 1", ["case 10", "case 1"]), ("case accepted", ["case 2"])):
        a_cases_panel.ui.filterLineEdit.text = text
        assert cells(a_cases_panel, NAME) == expected
    assert a_cases_panel.ui.countLabel.text == "1 of 3 cases"
    a_cases_panel.ui.filterLineEdit.text = "held out"
    assert cells(a_cases_panel, NAME) == []
    a_cases_panel.ui.filterLineEdit.text = ""
    assert len(cells(a_cases_panel, NAME)) == 3


def test_selection_stays_when_the_order_changes(a_cases_panel, a_study):
    open_project(a_cases_panel, a_study)
    select(a_cases_panel, 0, 2)
    chosen = a_cases_panel.session.selectedCaseIds()
    assert len(chosen) == 2
    click_header(a_cases_panel, NAME)
    assert set(a_cases_panel.session.selectedCaseIds()) == set(chosen)
    a_cases_panel.ui.filterLineEdit.text = "accepted"
    assert len(a_cases_panel.session.selectedCaseIds()) == 1


def test_exclude_include_and_hold_out(a_cases_panel, a_study):
    open_project(a_cases_panel, a_study)
    ui = a_cases_panel.ui
    assert not ui.excludeButton.enabled and "Select cases first" in ui.excludeButton.toolTip
    select(a_cases_panel, 0, 1)
    press(ui.excludeButton)
    assert cells(a_cases_panel, STATUS) == ["Excluded", "Excluded", "New"]
    assert a_cases_panel.said[-1] == (False, "Excluded: case 2, case 10.")
    assert ui.excludeButton.text == "Include"
    press(ui.excludeButton)
    assert cells(a_cases_panel, STATUS) == ["Accepted", "Predicted", "New"]
    press(ui.holdOutButton)
    assert cells(a_cases_panel, HELD_OUT) == ["✓", "✓", ""]
    ui.filterLineEdit.text = "held out"
    assert len(cells(a_cases_panel, NAME)) == 2
    ui.filterLineEdit.text = ""
    assert ui.holdOutButton.text == "Train on"
    press(ui.holdOutButton)
    assert cells(a_cases_panel, HELD_OUT) == ["", "", ""]


def test_subjects_are_held_out_whole(a_cases_panel, tmp_path):
    with Project.create(tmp_path / "p", "p", LABELS, [Channel("CT")]) as project:
        for name in ("before", "after"):
            project.cases.add(name, [an_image()], group="s1")
    open_project(a_cases_panel, tmp_path / "p")
    select(a_cases_panel, 0)
    press(a_cases_panel.ui.holdOutButton)
    assert cells(a_cases_panel, HELD_OUT) == ["✓", "✓"]
    assert "1 cases of the same subjects" in a_cases_panel.said[-1][1]


def test_read_only_project_allows_to_look_and_says_why_not_more(a_cases_panel, a_study):
    open_project(a_cases_panel, a_study, readOnly=True)
    select(a_cases_panel, 0)
    ui = a_cases_panel.ui
    assert ui.openCaseButton.enabled
    for button in (ui.excludeButton, ui.holdOutButton, ui.addButton):
        assert not button.enabled and "reading only" in button.toolTip
    assert cells(a_cases_panel, DICE) == ["", "", ""], "nothing is written into it"


def test_project_held_by_another_program_is_one_sentence(a_cases_panel, a_study):
    open_project(a_cases_panel, a_study)
    session = a_cases_panel.session
    session.project.close()
    session.project = Project.open(a_study, wait_seconds=0.1)
    select(a_cases_panel, 1)
    with Project.open(a_study) as other, other.database.write():
        press(a_cases_panel.ui.excludeButton)
        assert a_cases_panel.said[-1][0] and "being changed by another program" in a_cases_panel.said[-1][1]
    assert cells(a_cases_panel, STATUS)[1] == "Predicted"


# Opening


def test_double_click_and_button_open_a_case(a_cases_panel, a_study, host):
    open_project(a_cases_panel, a_study)
    table = a_cases_panel.ui.casesTable
    middle = table.visualItemRect(table.item(1, NAME)).center()
    mouse(table.viewport(), middle, DOUBLE_CLICK)
    assert a_cases_panel.session.case().name == "case 10"
    assert not any(text for _error, text in a_cases_panel.said), "Review says which case it is"
    assert table.item(1, NAME).font().bold() and not table.item(0, NAME).font().bold()
    select(a_cases_panel, 0)
    press(a_cases_panel.ui.openCaseButton)
    assert a_cases_panel.session.case().name == "case 2"


def test_case_that_cannot_be_read_is_one_sentence_and_the_other_stays(a_cases_panel, a_study, capfd):
    open_project(a_cases_panel, a_study)
    select(a_cases_panel, 0)
    press(a_cases_panel.ui.openCaseButton)
    project = a_cases_panel.session.project
    project.cases.image_paths("case 1")[0].write_bytes(b"no image")
    select(a_cases_panel, 2)
    press(a_cases_panel.ui.openCaseButton)
    assert a_cases_panel.said[-1][0] and "cannot be read" in a_cases_panel.said[-1][1]
    assert a_cases_panel.session.case().name == "case 2"


# The next case


def test_next_case_is_proposed_with_its_reason_and_can_be_overruled(a_cases_panel, a_study):
    assert not a_cases_panel.ui.nextButton.enabled and "Open a project first" in a_cases_panel.ui.nextButton.toolTip
    open_project(a_cases_panel, a_study)
    ui = a_cases_panel.ui
    assert [ui.nextComboBox.itemText(n) for n in range(ui.nextComboBox.count)] == ["case 10", "case 1"]
    assert ui.reasonLabel.text.startswith(
        "case 10: chosen at random (no rule was shown to teach more); uncertain (0.60"
    )
    ui.nextComboBox.setCurrentIndex(1)
    assert ui.reasonLabel.text.startswith("case 1: not predicted yet")
    press(ui.nextButton)
    assert a_cases_panel.session.case().name == "case 1"
    assert [ui.nextComboBox.itemText(n) for n in range(ui.nextComboBox.count)] == ["case 10"], "not the one on screen"
    press(ui.nextButton)
    assert a_cases_panel.session.case().name == "case 10"
    for case in a_cases_panel.session.cases():
        a_cases_panel.session.project.cases.set_state(case.id, "excluded")
    a_cases_panel.session.notifyCases()
    assert not ui.nextButton.enabled and ui.reasonLabel.text == "No other case waits for an outline."


# Many


def test_of_ten_thousand_cases_only_those_in_sight_have_cells(a_cases_panel, tmp_path, host):
    """Cells for all rows would hold up the window for seconds; how long it takes is measured by `make bench`."""
    from barldriver.large_project import largeProject

    table = a_cases_panel.ui.casesTable
    a_cases_panel.session.openProject(largeProject(tmp_path / "large", 10_000))
    assert table.rowCount == 10_000
    assert sum(table.item(row, NAME) is not None for row in range(table.rowCount)) < 200
    assert table.item(0, DICE).text() == "0.90"

    a_cases_panel.ui.filterLineEdit.text = "case 77"
    assert table.rowCount == sum("77" in str(number) for number in range(10_000))
    a_cases_panel.ui.filterLineEdit.text = ""
    host.processEvents()
    table.scrollToBottom()
    host.processEvents()
    assert table.item(9_999, NAME) is not None
