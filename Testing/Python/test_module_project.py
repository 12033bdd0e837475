# SPDX-License-Identifier: Apache-2.0
"""The section in which projects are opened and made: every button, and a sentence for everything that goes wrong."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.project.database import FILE_NAME
from barl.project.labels import Channel, Code, Label, Terminology
from barl.project.store import Project
from slicerhost import clicks
from slicerhost.clicks import press

pytestmark = pytest.mark.host
RESOURCES = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources"
LABELS = [
    Label(1, "kidney", (1, 2, 3), lateral=True),
    Label(
        4,
        "tumor",
        terminology=Terminology(
            Code("SCT", "49755003", "Morphologically Altered Structure"), Code("SCT", "86049000", "Neoplasm, Primary")
        ),
    ),
]


@pytest.fixture
def a_panel(a_panel_of):
    import qt
    from BARLSegmentationLib.widgets.ProjectPanel import RECENT_KEY

    settings = qt.QSettings()
    before = settings.value(RECENT_KEY)
    settings.remove(RECENT_KEY)
    yield a_panel_of("Project")
    settings.remove(RECENT_KEY) if before is None else settings.setValue(RECENT_KEY, before)


@pytest.fixture
def a_project(tmp_path) -> Path:
    folder = tmp_path / "study"
    with Project.create(folder, "Study", LABELS, [Channel("T1", "_t1"), Channel("FLAIR", "_fl")]) as project:
        image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.float32))
        for name in ("a", "b"):
            project.cases.add(name, [image, image], held_out=name == "b")
        project.cases.set_state(project.cases.get("a").id, "excluded")
    return folder


def choose(monkeypatch, folder):
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *arguments: str(folder))


# Opening


def test_open_shows_the_state_in_one_line_and_remembers_the_folder(a_panel, a_project, monkeypatch):
    assert "No project is open" in a_panel.ui.stateLabel.text
    choose(monkeypatch, a_project)
    press(a_panel.ui.openButton)
    assert a_panel.ui.stateLabel.text == "2 cases: 1 new, 1 excluded; 1 held out. No model yet."
    assert a_panel.said[-1] == (False, "Opened the project Study.")
    combo = a_panel.ui.recentComboBox
    assert (combo.count, combo.itemData(combo.currentIndex)) == (1, str(a_project))
    press(a_panel.ui.closeButton)
    assert a_panel.session.project is None
    assert not a_panel.ui.closeButton.enabled and "No project" in a_panel.ui.closeButton.toolTip
    assert combo.count == 2 and combo.itemData(0) == ""
    combo.setCurrentIndex(1)
    combo.activated(1)
    assert a_panel.session.project.name == "Study"


@pytest.mark.skipif(sys.platform != "linux", reason="Qt keeps settings at a fixed place there")
def test_settings_are_those_of_this_process(host, tmp_path_factory):
    import qt

    assert qt.QSettings().fileName().startswith(str(tmp_path_factory.getbasetemp()))


def test_cancelled_chooser_changes_nothing(a_panel, monkeypatch):
    choose(monkeypatch, "")
    press(a_panel.ui.openButton)
    assert a_panel.session.project is None and a_panel.said == []


def test_read_only_on_request_refuses_changes(a_panel, a_project):
    a_panel.ui.readOnlyCheckBox.checked = True
    a_panel.open(str(a_project))
    assert a_panel.session.project.read_only
    assert a_panel.ui.stateLabel.text.endswith("Opened for reading only.")
    with a_panel.session.reporting() as outcome:
        a_panel.session.project.cases.set_held_out("a", True)
    assert outcome.failed
    assert a_panel.said[-1][0] and "reading only" in a_panel.said[-1][1]


def _newer(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as database:
        database.execute("PRAGMA user_version = 99")
        database.commit()


def _damage(folder: Path) -> None:
    with (folder / FILE_NAME).open("rb+") as file:
        file.seek(0)
        file.write(b"\0" * 4096)


def _foreign(folder: Path) -> None:
    (folder / FILE_NAME).unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [(_newer, "newer version"), (_damage, "damaged|not a BARL project"), (_foreign, "not a BARL project")],
)
def test_project_that_cannot_be_opened_is_one_sentence_and_the_other_stays(
    a_panel, a_project, tmp_path, spoil, sentence
):
    import re

    with Project.create(tmp_path / "other", "Other", [Label(1, "x")], [Channel("CT")]):
        pass
    a_panel.open(str(tmp_path / "other"))
    spoil(a_project)
    before = {path: path.stat().st_mtime_ns for path in a_project.rglob("*")}
    a_panel.open(str(a_project))
    error, text = a_panel.said[-1]
    assert error and re.search(sentence, text) and "Traceback" not in text
    assert a_panel.session.project.name == "Other"
    assert a_panel.ui.stateLabel.text.startswith("No cases yet.")
    combo = a_panel.ui.recentComboBox
    assert combo.itemData(combo.currentIndex) == str(tmp_path / "other")
    assert {path: path.stat().st_mtime_ns for path in a_project.rglob("*")} == before


def test_removed_drive_is_one_sentence(a_panel, a_project, tmp_path):
    a_panel.open(str(a_project))
    press(a_panel.ui.closeButton)
    a_project.rename(tmp_path / "elsewhere")
    a_panel.ui.recentComboBox.setCurrentIndex(1)
    a_panel.ui.recentComboBox.activated(1)
    assert a_panel.said[-1][0] and "drive is connected" in a_panel.said[-1][1]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_folder_that_cannot_be_written_is_opened_for_reading(a_panel, a_project):
    a_project.chmod(0o555)
    try:
        a_panel.open(str(a_project))
        assert a_panel.session.project.read_only and "reading only" in a_panel.said[-1][1]
    finally:
        a_project.chmod(0o755)


def test_project_held_by_another_program_is_one_sentence(a_panel, a_project):
    a_panel.open(str(a_project))
    session = a_panel.session
    session.project.close()
    session.project = Project.open(a_project, wait_seconds=0.1)
    with Project.open(a_project) as other, other.database.write():
        assert session.ask(session.project.cases.set_held_out, "a", True, otherwise=None) is None
    assert a_panel.said[-1][0] and "being changed by another program" in a_panel.said[-1][1]
    assert session.ask(session.project.cases.set_held_out, "a", True, otherwise=None)


@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])  # changes something; is just storing what it changed
def test_window_waits_half_a_second_at_most_for_another_program(a_panel, a_project, lock, caplog):
    from BARLSegmentationLib.widgets.CasesPanel import CasesPanel
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

    cases = CasesPanel(a_panel.session, WorkerLink(), a_panel.moduleWidget)
    cases.setup()
    a_panel.open(str(a_project))
    case = a_panel.session.cases()[0].id
    with closing(sqlite3.connect(a_project / FILE_NAME, isolation_level=None)) as other:
        other.execute(f"BEGIN {lock}")
        for action in (
            lambda: a_panel.session.ask(a_panel.session.project.cases.set_held_out, case, True, otherwise=None),
            lambda: (a_panel.session.selectCases([case]), cases.onHoldOut()),
            lambda: a_panel.open(str(a_project)),
            a_panel.session.projectChanged.emit,
        ):
            start = time.monotonic()
            action()
            assert time.monotonic() - start < 0.8  # of them 0.4 waiting
        said = [text for error, text in a_panel.said if error]
        assert said and all("is being changed by another program" in text for text in said)
        assert not caplog.records
        other.execute("ROLLBACK")
    assert a_panel.session.ask(a_panel.session.project.cases.set_held_out, case, True, otherwise=None)
    assert a_panel.session.project.database.row("PRAGMA busy_timeout")[0] == 400
    cases.cleanup()
    cases.widget.deleteLater()


def test_state_names_the_current_model_and_its_held_out_dice(a_panel, a_project, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    shipped = Path(__file__).parents[2] / "BARLSegmentation" / "Resources" / "Models" / "hippocampus" / "model.json"
    card = json.loads(shipped.read_text(encoding="utf-8")) | {"metrics": {"mean_dice": 0.714}}
    (model / "model.json").write_text(json.dumps(card))
    (model / "weights.safetensors").write_bytes(b"")
    a_panel.open(str(a_project))
    project = a_panel.session.project
    measured = project.models.add(model, {"metrics": {"mean_dice": 0.876}}, name="second")
    project.models.promote(measured.id)
    a_panel.session.notifyModels()
    assert a_panel.ui.stateLabel.text.endswith("Model: second (held-out Dice 0.88).")
    project.models.promote(project.models.add(model, {}, name="from its card").id)
    a_panel.session.notifyModels()
    assert a_panel.ui.stateLabel.text.endswith("Model: from its card (held-out Dice 0.71).")
    (model / "model.json").write_text("{}")
    project.models.promote(project.models.add(model, {}, name="third").id)
    a_panel.session.notifyModels()
    assert a_panel.ui.stateLabel.text.endswith("Model: third (not measured on held-out cases).")


# Making


def test_new_project_from_the_tables(a_panel, tmp_path):
    ui = a_panel.ui
    ui.newGroupBox.collapsed = False
    ui.newFolderPathLineEdit.currentPath = str(tmp_path / "new study")
    ui.labelsTable.item(0, 1).setText("kidney left")
    press(ui.addLabelButton)
    ui.labelsTable.item(1, 1).setText("tumor")
    ui.labelsTable.item(1, 0).setText("7")
    ui.labelsTable.cellWidget(0, 3).setEditText("Kidney (SCT 64033007); Left (SCT 7771000)")
    import qt

    ui.labelsTable.item(0, 4).setCheckState(qt.Qt.Checked)
    ui.labelsTable.cellWidget(1, 2).color = qt.QColor(10, 20, 30)
    ui.channelsTable.item(0, 0).setText("CT")
    press(ui.addChannelButton)
    press(ui.removeChannelButton)
    press(ui.createButton)
    assert not a_panel.said[-1][0], a_panel.said
    project = a_panel.session.project
    assert (project.name, project.folder) == ("new study", tmp_path / "new study")
    left, tumor = project.labels
    assert (left.value, left.name, left.lateral) == (1, "kidney left", True)
    assert left.terminology.modifier == Code("SCT", "7771000", "Left")
    assert left.terminology.category == Code("SCT", "123037004", "Anatomical Structure")
    assert (tumor.value, tumor.color, tumor.terminology, tumor.lateral) == (7, (10, 20, 30), None, False)
    assert project.channels == [Channel("CT")]
    assert ui.newGroupBox.collapsed


def test_tables_of_the_open_project_can_be_copied(a_panel, a_project):
    assert not a_panel.ui.copyButton.enabled and "Open the project" in a_panel.ui.copyButton.toolTip
    a_panel.open(str(a_project))
    a_panel.ui.newGroupBox.collapsed = False
    press(a_panel.ui.copyButton)
    assert a_panel.labels() == a_panel.session.project.labels
    assert a_panel.channels() == a_panel.session.project.channels


def test_new_label_gets_the_next_value_and_a_color_of_its_own(a_panel):
    a_panel.ui.newGroupBox.collapsed = False
    for _ in range(9):
        press(a_panel.ui.addLabelButton)
    table = a_panel.ui.labelsTable
    assert [table.item(row, 0).text() for row in range(10)] == [str(value) for value in range(1, 11)]
    assert len({table.cellWidget(row, 2).color.name() for row in range(10)}) == 10
    table.setCurrentCell(4, 1)
    press(a_panel.ui.removeLabelButton)
    assert table.rowCount == 9 and "5" not in [table.item(row, 0).text() for row in range(9)]


@pytest.mark.parametrize(
    ("column", "text", "sentence"),
    [
        (0, "one", "'one' is not a whole number"),
        (0, "²", "'²' is not a whole number"),
        (0, "0", "means background"),
        (0, "70000", "out of range"),
        (1, "", "has no name"),
        (1, "Background", "'Background'"),
        (3, "liver", "terminology 'liver' cannot be read"),
    ],
)
def test_wrong_cell_is_one_sentence_and_makes_nothing(a_panel, tmp_path, column, text, sentence):
    ui = a_panel.ui
    ui.newGroupBox.collapsed = False
    ui.newFolderPathLineEdit.currentPath = str(tmp_path / "new")
    ui.labelsTable.item(0, 1).setText("liver")
    if column == 3:
        ui.labelsTable.cellWidget(0, 3).setEditText(text)
    else:
        ui.labelsTable.item(0, column).setText(text)
    press(ui.createButton)
    assert a_panel.said[-1][0] and sentence in a_panel.said[-1][1], a_panel.said
    assert a_panel.session.project is None and not (tmp_path / "new").exists()


def test_cell_that_is_being_typed_counts_although_the_button_took_no_focus(a_panel, tmp_path):
    ui = a_panel.ui
    ui.newGroupBox.collapsed = False
    ui.newFolderPathLineEdit.currentPath = str(tmp_path / "new")
    for table, column, text in ((ui.labelsTable, 1, "liver"), (ui.channelsTable, 0, "CT")):
        table.setCurrentCell(0, column)
        table.editItem(table.item(0, column))
        (editor,) = clicks.editors(table)
        editor.setText(text)
    a_panel.onCreate()
    assert [label.name for label in a_panel.session.project.labels] == ["liver"], a_panel.said
    assert a_panel.session.project.channels == [Channel("CT")]


def test_folder_that_is_no_whole_path_is_refused(a_panel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_panel.ui.newFolderPathLineEdit.currentPath = "study"
    a_panel.ui.labelsTable.item(0, 1).setText("liver")
    a_panel.onCreate()
    assert a_panel.said[-1][0] and "'study' is not a full path" in a_panel.said[-1][1]
    assert not (tmp_path / "study").exists()


def test_missing_folder_full_folder_and_empty_tables_are_one_sentence(a_panel, tmp_path):
    ui = a_panel.ui
    ui.newGroupBox.collapsed = False
    ui.labelsTable.item(0, 1).setText("liver")
    press(ui.createButton)
    assert "no folder" in a_panel.said[-1][1]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    ui.newFolderPathLineEdit.currentPath = str(tmp_path / "full")
    press(ui.createButton)
    assert "is not empty" in a_panel.said[-1][1]
    ui.newFolderPathLineEdit.currentPath = str(tmp_path / "new")
    press(ui.removeChannelButton)
    press(ui.createButton)
    assert "no image channel" in a_panel.said[-1][1]
    press(ui.addChannelButton)
    ui.channelsTable.item(0, 0).setText("CT")
    press(ui.removeLabelButton)
    press(ui.createButton)
    assert "label table is empty" in a_panel.said[-1][1]
    assert all(error for error, _ in a_panel.said) and a_panel.session.project is None


# Terminology as text


def test_common_terminologies_survive_the_way_to_text_and_back(host):
    from BARLSegmentationLib.logic.LabelTable import COMMON, parseTerminology, terminologyText

    assert len(set(COMMON)) == len(COMMON)
    for text in COMMON:
        assert terminologyText(parseTerminology(text)) == text
    assert parseTerminology("  ") is None
    for wrong in ("Liver", "Liver (SCT)", "; Left (SCT 7771000)", "A (S 1); B (S 2); C (S 3); D (S 4)"):
        with pytest.raises(InputError):
            parseTerminology(wrong)
