# SPDX-License-Identifier: Apache-2.0
"""What comes into the module from other programs and goes out to them, by mouse and keyboard and the real worker."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barldriver.studies import a_map, an_image, cells
from slicerhost.clicks import choose, key, press, type_, typeCell, typePath, waitUntil

pytestmark = pytest.mark.host
NAME, STATUS = range(2)
CASE, OUTLINE, STATE = range(3)
SHIPPED = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources" / "Models" / "hippocampus"


@pytest.fixture
def a_dataset(tmp_path) -> Path:
    """Of nnU-Net: liver is 2 and cyst 1 there; three cases, the third's outline has a name of its own."""
    folder = tmp_path / "Dataset004_Liver"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number, outline in ((1, "p1"), (2, "p2"), (3, "drawn")):
        sitk.WriteImage(an_image(number), str(folder / f"imagesTr/p{number}_0000.nii.gz"))
        sitk.WriteImage(a_map(number) * 2, str(folder / f"labelsTr/{outline}.nii.gz"))
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "cyst": 1, "liver": 2}}
    (folder / "dataset.json").write_text(json.dumps({**described, "numTraining": 3, "file_ending": ".nii.gz"}))
    return folder


@pytest.fixture
def panel(a_cases_panel, a_study):
    a_cases_panel.session.openProject(a_study)
    waitUntil(lambda: a_cases_panel.isIdle)
    return a_cases_panel


def texts(table, column: int) -> list[str]:
    return [table.item(row, column).text() for row in range(table.rowCount)]


def settle(panel) -> None:
    waitUntil(lambda: panel.isIdle)


def opened(action, form):
    """The form that a menu's entry opens, once it is laid out."""
    action.trigger()
    waitUntil(lambda: form.doButton.height > 10)
    return form


def test_a_data_set_comes_in_with_a_table_of_pairs_that_can_be_changed(panel, a_dataset):
    panel.ui.addGroupBox.collapsed = False
    choose(panel.ui.sourceComboBox, "Data set")
    source = panel.adding.source
    typePath(source.selectors[0], a_dataset)
    waitUntil(lambda: source.table.rowCount == 4 and source.isIdle)
    assert texts(source.table, CASE) == ["p1", "p2", "p3", "drawn.nii.gz"]
    assert texts(source.table, STATE) == ["add", "add", "add", "left out"]
    assert "lacks 2 cyst" not in source.reasonLabel.text and "4 cyst" in source.reasonLabel.text
    typeCell(source.table, 0, CASE, "first")
    source.table.selectRow(2)
    choose(source.outlineComboBox, "p2")
    assert texts(source.table, OUTLINE)[:3] == ["p1.nii.gz", "", "p2.nii.gz"]
    choose(source.outlineComboBox, "drawn")  # what was passed over on the way goes back to where it was
    assert texts(source.table, OUTLINE) == ["p1.nii.gz", "p2.nii.gz", "drawn.nii.gz"]
    press(panel.ui.addButton)
    assert panel.said[-1][0] and "The label table lacks 4 cyst. Tick" in panel.said[-1][1]
    press(source.labelsCheckBox)
    press(panel.ui.addButton)
    settle(panel)
    assert panel.said[-1] == (False, "Added 3 cases, 3 with an outline."), panel.said
    assert cells(panel, NAME)[-3:] == ["first", "p2", "p3"] and cells(panel, STATUS)[-3:] == ["Accepted"] * 3
    project = panel.session.project
    assert [(label.value, label.name) for label in project.labels] == [(1, "liver"), (3, "tumor"), (4, "cyst")]
    for name, count in (("first", 1), ("p3", 3)):
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.accepted_label(name))))
        assert np.array_equal(label, sitk.GetArrayFromImage(a_map(count))), "liver is 2 there and 1 here"


def test_a_folder_that_is_no_data_set_is_one_sentence(panel, tmp_path):
    panel.ui.addGroupBox.collapsed = False
    choose(panel.ui.sourceComboBox, "Data set")
    press(panel.ui.addButton)
    assert panel.said[-1] == (True, "No folder is chosen. Choose the folder with the scans.")
    typePath(panel.adding.source.selectors[0], tmp_path)
    waitUntil(lambda: "no data set" in panel.said[-1][1])
    assert panel.said[-1][0]
    panel.adding.source.onPath()
    choose(panel.ui.sourceComboBox, "Files")  # while the worker reads: its answer finds no row any more
    settle(panel)


def test_predictions_of_another_program_become_drafts(panel, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for name, count in (("case 1", 3), ("other", 2)):
        sitk.WriteImage(a_map(count) * 5, str(results / f"{name}.nii.gz"))
    form = opened(panel.exchange.predictionsAction, panel.exchange.predictions)
    assert form.box.visible and not panel.ui.listWidget.isVisible()
    press(form.doButton)
    assert panel.said[-1] == (True, "No folder is chosen. Choose the folder with the results.")
    typePath(form.folder, results)
    waitUntil(lambda: form.table.rowCount == 2 and form.isIdle)
    assert texts(form.table, 2) == ["case 1", "none"]
    form.table.selectRow(1)
    choose(form.caseComboBox, "case 10")
    key(form.caseComboBox, "Key_Down")
    assert texts(form.table, 2) == ["none", "case 1"]
    key(form.caseComboBox, "Key_Up")  # what was passed over on the way goes back to where it was
    assert texts(form.table, 2) == ["case 1", "case 10"]
    type_(form.authorLineEdit, "TotalSegmentator 2")
    type_(form.labelsLineEdit, "5=spleen")
    press(form.doButton)
    assert panel.said[-1][0] and "project's labels: liver, tumor" in panel.said[-1][1]
    type_(form.labelsLineEdit, "5=liver")
    press(form.doButton)
    settle(panel)
    assert not panel.said[-1][0] and panel.said[-1][1].startswith("Imported the predictions of 2 cases.")
    assert form.box.collapsed and panel.ui.listWidget.isVisible() and not form.box.visible
    project = panel.session.project
    newest = project.revisions.newest(project.cases.get("case 1").id)
    assert (newest.kind, newest.author) == ("prediction", "TotalSegmentator 2")
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(newest.path)))
    assert np.array_equal(stored, sitk.GetArrayFromImage(a_map(3)))


def test_one_folder_with_a_file_for_each_structure_is_of_one_case(panel, tmp_path):
    results = tmp_path / "segmentations"
    results.mkdir()
    for name in ("liver", "spleen"):
        sitk.WriteImage(a_map(2), str(results / f"{name}.nii.gz"))
    form = opened(panel.exchange.predictionsAction, panel.exchange.predictions)
    choose(form.ofComboBox, "case 1")
    typePath(form.folder, results)
    waitUntil(lambda: form.table.rowCount == 1 and form.isIdle)
    assert texts(form.table, 1) == ["2 structures"] and "no label spleen" in form.noteLabel.text
    press(form.doButton)
    settle(panel)
    assert "Imported the predictions of 1 case." in panel.said[-1][1]


def test_outlines_go_out_in_every_layout(panel, tmp_path):
    form = opened(panel.exchange.exportAction, panel.exchange.export)
    press(form.doButton)
    assert panel.said[-1][0] and "No folder is chosen." in panel.said[-1][1]
    assert not form.predictionsCheckBox.enabled and form.source.isHidden()
    found = {}
    for title, layout in (("Data set of nnU-Net", "nnunet"), ("Segmentations", "seg-nrrd"), ("Tables", "table")):
        choose(form.layoutComboBox, title)
        typePath(form.folder, tmp_path / layout)
        if layout == "table":
            press(form.predictionsCheckBox)
        press(form.doButton)
        settle(panel)
        assert not panel.said[-1][0] and panel.said[-1][1].startswith("Exported"), panel.said[-1]
        found[layout] = {path.name for path in (tmp_path / layout).rglob("*") if path.is_file()}
    assert {"dataset.json", "case_0001.nii.gz", "manifest.json"} <= found["nnunet"]
    assert "case_0001.seg.nrrd" in found["seg-nrrd"]
    with (tmp_path / "table" / "volumes.csv").open(newline="", encoding="utf-8-sig") as file:
        assert {row["case"] for row in csv.DictReader(file)} == {"case_0001", "case_0002"}
    assert "case 2" in (tmp_path / "table-names.csv").read_text("utf-8-sig")
    typePath(form.folder, tmp_path / "table")
    press(form.doButton)
    settle(panel)
    assert panel.said[-1][0] and "is not an empty folder" in panel.said[-1][1]
    choose(form.layoutComboBox, "DICOM")
    assert form.source.isVisible()
    press(form.doButton)
    assert panel.said[-1][0] and "belongs to a DICOM series" in panel.said[-1][1]
    form.box.collapsed = True
    assert panel.ui.listWidget.isVisible() and not form.box.visible


def test_models_go_out_as_one_file_and_come_back(a_panel_of, a_worker_link, tmp_path, monkeypatch):
    import qt

    panel = a_panel_of("Predict", a_worker_link)
    labels = [Label(1, "anterior hippocampus"), Label(2, "posterior hippocampus")]
    Project.create(tmp_path / "p", "P", labels, [Channel("T1")]).close()
    panel.session.openProject(tmp_path / "p")
    menu, file = panel.modelMenu, tmp_path / "sent"
    menu.update()
    assert not menu.removeAction.enabled and menu.fileAction.enabled
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(SHIPPED))
    menu.folderAction.trigger()
    settle(panel)
    assert not panel.said[-1][0] and "as model_0001; it predicts now." in panel.said[-1][1], panel.said
    panel.models.chooseCurrent()
    menu.update()
    assert not menu.removeAction.enabled and "current model" in menu.removeAction.toolTip
    menu.checkAction.trigger()
    settle(panel)
    assert panel.said[-1][1].startswith("The model is sound.") and "1 Anterior" in panel.said[-1][1]
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(file))
    menu.exportAction.trigger()
    settle(panel)
    assert not panel.said[-1][0] and file.with_suffix(".zip").is_file()
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(file.with_suffix(".zip")))
    menu.fileAction.trigger()
    settle(panel)
    assert panel.said[-1][0] and "holds this model already" in panel.said[-1][1]
    Project.create(tmp_path / "q", "Q", labels, [Channel("T1")]).close()
    panel.session.openProject(tmp_path / "q")
    menu.fileAction.trigger()
    settle(panel)
    assert not panel.said[-1][0] and panel.session.project.models.current().id == "model_0001"
    project = panel.session.project
    project.models.add(SHIPPED, {}, name="another")
    panel.session.notifyModels()
    choose(panel.ui.modelComboBox, "another")
    menu.update()
    menu.removeAction.trigger()
    assert "Delete the weights of another (model_0002)?" in panel.session.question.text
    panel.session.answer(True)
    assert [model.id for model in project.models.all()] == ["model_0001"]
    project.models.add(SHIPPED, {}, name="third")
    panel.session.notifyModels()
    choose(panel.ui.modelComboBox, "third")
    menu.update()
    menu.currentAction.trigger()
    assert project.models.current().name == "third"


def test_a_new_project_takes_labels_and_channels_of_a_data_set(a_panel_of, a_worker_link, a_dataset, monkeypatch):
    import qt

    panel = a_panel_of("Project", a_worker_link)
    panel.ui.newGroupBox.collapsed = False
    panel.ui.sceneCheckBox.checked = False
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(a_dataset))
    press(panel.ui.likeButton)
    settle(panel)
    assert [(label.value, label.name) for label in panel.labels()] == [(1, "cyst"), (2, "liver")]
    assert [channel.name for channel in panel.channels()] == ["CT"]
    assert panel.said[-1][1].startswith("nnU-Net: 2 labels, channel CT.")
