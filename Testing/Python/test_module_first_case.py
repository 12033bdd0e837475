# SPDX-License-Identifier: Apache-2.0
"""A first case without a project: volumes that are in the scene become a project, in the step Project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.store import Project
from slicerhost.clicks import press, waitUntil

pytestmark = pytest.mark.host
VALUE, LABEL_NAME = 0, 1
VOLUME, CASE, CHANNEL = range(3)
SHAPE = (6, 7, 8)
LIVER = "Segmentation category and type~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"


@pytest.fixture
def panel(a_panel_of, a_worker_link, a_scene):
    panel = a_panel_of("Project", a_worker_link)
    yield panel
    waitUntil(lambda: panel.isIdle)


def a_volume(name: str, seed: int = 0):
    import slicer

    rng = np.random.default_rng(seed)
    node = slicer.util.addVolumeFromArray(rng.normal(0, 50, SHAPE).astype(np.float32), name=name)
    node.SetSpacing(1.0, 1.5, 2.0)
    return node


def a_segmentation(volume, names=("Kidney left", "Kidney right", "Liver")):
    """A plane of each segment; the last one has a coded meaning."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Doe Jane segmentation")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for plane, name in enumerate(names):
        segment = node.GetSegmentation().AddEmptySegment("", name, (plane / 4, 0.5, 1.0))
        array = np.zeros(SHAPE, np.uint8)
        array[plane, 1:4, 1:5] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, segment, volume)
    last = node.GetSegmentation().GetNthSegment(len(names) - 1)
    last.SetTag(last.GetTerminologyEntryTagName(), LIVER)
    return node


def unfold(panel, folder: Path) -> None:
    panel.ui.newGroupBox.collapsed = False
    panel.ui.newFolderPathLineEdit.currentPath = str(folder)


def create(panel) -> None:
    press(panel.ui.createButton)
    waitUntil(lambda: panel.isIdle)


def volumes(panel) -> list[tuple[str, str, str]]:
    table = panel.scene.table
    return [tuple(table.item(row, column).text() for column in range(3)) for row in range(table.rowCount)]


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_volume_and_its_segmentation_become_a_project(panel, tmp_path):
    import slicer

    volume = a_volume("scan")
    segmentation = a_segmentation(volume)
    a_volume("other", 1)
    panel.update()
    assert panel.ui.stateLabel.text.endswith("It can begin with the 2 volumes of the scene.")
    unfold(panel, tmp_path / "liver")
    assert panel.ui.sceneCheckBox.checked and volumes(panel) == [("scan", "scan", "image"), ("other", "other", "image")]
    panel.scene.segmentationSelector.setCurrentNode(segmentation)
    assert panel.scene.outlineComboBox.currentText == "scan", "the volume that it was drawn on"
    labels = panel.labels()
    assert [(label.value, label.name, label.lateral) for label in labels] == [
        (1, "Kidney left", True),
        (2, "Kidney right", True),
        (3, "Liver", False),
    ]
    assert labels[1].color == (64, 128, 255) and labels[0].terminology is None
    assert labels[2].terminology.type.meaning == "Liver"
    panel.ui.labelsTable.item(0, LABEL_NAME).setText("Nephros left")  # a renamed label keeps its segment
    panel.ui.labelsTable.item(2, VALUE).setText("7")
    create(panel)
    assert panel.said[-1] == (False, "Added 2 cases, 1 with an outline.")
    project = panel.session.project
    assert (project.name, [channel.name for channel in project.channels]) == ("liver", ["image"])
    assert [(str(case.state), case.name) for case in project.cases.all()] == [("accepted", "scan"), ("new", "other")]
    outline = sitk.ReadImage(str(project.revisions.accepted_label(project.cases.get("scan").id)))
    array = sitk.GetArrayFromImage(outline)
    assert [np.unique(array[plane]).tolist() for plane in range(3)] == [[0, 1], [0, 2], [0, 7]]
    stored = sitk.ReadImage(str(project.cases.image_paths(project.cases.get("scan").id)[0]))
    assert stored.GetSpacing() == pytest.approx((1.0, 1.5, 2.0))
    assert list(Path(slicer.app.temporaryPath).glob("barl-scene-*")) == []


def test_nothing_of_the_patient_goes_into_the_folder(panel, tmp_path):
    """Not the name of a node that Slicer's DICOM module has made, nor that of the segmentation."""
    volume = a_volume("Doe Jane 6: AX T2")
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.840.4711")
    a_volume("19700131_4711", 1)
    unfold(panel, tmp_path / "study")
    assert [case for _, case, _ in volumes(panel)] == ["case_001", "case_002"]
    panel.scene.segmentationSelector.setCurrentNode(a_segmentation(volume))
    panel.scene.table.item(1, CASE).setText("mine")
    create(panel)
    assert [case.name for case in panel.session.cases()] == ["case_001", "mine"]
    found = everything(tmp_path / "study")
    assert not any(word in found for word in (b"Doe", b"Jane", b"4711", b"AX T2"))


def test_volumes_with_one_case_name_are_its_channels(panel, tmp_path):
    import qt

    for seed, name in enumerate(("a T1", "a T2", "b T1", "c")):
        a_volume(name, seed)
    unfold(panel, tmp_path / "study")
    table = panel.scene.table
    for row, (case, channel) in enumerate((("a", "T1"), ("a", "T1"), ("b", "T1"))):
        table.item(row, CASE).setText(case)
        table.item(row, CHANNEL).setText(channel)
    table.item(3, VOLUME).setCheckState(qt.Qt.Unchecked)
    panel.ui.labelsTable.item(0, LABEL_NAME).setText("lesion")
    press(panel.ui.createButton)
    assert panel.said[-1][1].startswith("Two volumes are the channel T1 of the case a.")
    table.item(1, CHANNEL).setText("T2")
    press(panel.ui.createButton)
    assert panel.said[-1][1].startswith("The case b has no volume of the channel T2.")
    assert not (tmp_path / "study").exists(), "nothing is made of what cannot be"
    table.item(2, VOLUME).setCheckState(qt.Qt.Unchecked)
    create(panel)
    with Project.open(tmp_path / "study", read_only=True) as project:
        assert [channel.name for channel in project.channels] == ["T1", "T2"]
        assert [case.name for case in project.cases.all()] == ["a"]
        first, second = project.cases.image_paths(project.cases.all()[0].id)
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(first))).mean() != pytest.approx(
            sitk.GetArrayFromImage(sitk.ReadImage(str(second))).mean()
        )


def test_the_table_follows_the_scene_and_keeps_what_was_typed(panel, tmp_path):
    import slicer

    first = a_volume("first")
    unfold(panel, tmp_path / "study")
    panel.scene.table.item(0, CASE).setText("typed")
    a_volume("second", 1)
    waitUntil(lambda: len(volumes(panel)) == 2)
    assert [case for _, case, _ in volumes(panel)] == ["typed", "second"]
    slicer.mrmlScene.RemoveNode(first)
    waitUntil(lambda: len(volumes(panel)) == 1)
    slicer.mrmlScene.Clear(0)
    waitUntil(lambda: not panel.ui.sceneCheckBox.isVisible())
    assert panel.ui.channelsTable.isVisible() and panel.ui.createButton.text == "Create project"


def test_what_cannot_be_is_one_sentence_and_leaves_nothing(panel, tmp_path):
    import slicer

    volume = a_volume("scan")
    segmentation = a_segmentation(volume, ("a",))
    unfold(panel, tmp_path / "study")
    panel.scene.segmentationSelector.setCurrentNode(segmentation)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "other.txt").write_text("x")
    press(panel.ui.createButton)
    error, text = panel.said[-1]
    assert error and "empty" in text
    panel.ui.newFolderPathLineEdit.currentPath = str(tmp_path / "new")
    panel.ui.labelsTable.setRowCount(0)
    press(panel.ui.createButton)
    assert panel.said[-1][0] and "label table is empty" in panel.said[-1][1]
    assert panel.session.project is None and not (tmp_path / "new").exists()
    assert list(Path(slicer.app.temporaryPath).glob("barl-scene-*")) == []


def test_the_outline_stays_with_its_case_while_the_table_changes(panel, tmp_path):
    import qt
    import slicer

    scans = [a_volume(name, seed) for seed, name in enumerate("abcd")]
    unfold(panel, tmp_path / "study")
    panel.scene.segmentationSelector.setCurrentNode(a_segmentation(scans[1]))
    combo, table = panel.scene.outlineComboBox, panel.scene.table
    assert combo.currentText == "b"
    table.item(0, VOLUME).setCheckState(qt.Qt.Unchecked)
    assert combo.currentText == "b"
    slicer.mrmlScene.RemoveNode(scans[0])
    panel.scene.refresh()
    assert combo.currentText == "b" and combo.count == 4
    table.item(0, CASE).setText("the one")
    assert combo.currentText == "the one"
    table.item(1, CASE).setText("the one")  # its second channel
    table.item(1, CASE).setText("c")
    assert combo.currentText == "the one", "the other one has left"
    create(panel)
    accepted = [case.name for case in panel.session.cases() if str(case.state) == "accepted"]
    assert accepted == ["the one"]


def test_an_outline_whose_case_is_unticked_goes_to_no_other(panel, tmp_path):
    import qt

    scans = [a_volume(name, seed) for seed, name in enumerate("abc")]
    unfold(panel, tmp_path / "study")
    panel.scene.segmentationSelector.setCurrentNode(a_segmentation(scans[1]))
    panel.scene.table.item(1, VOLUME).setCheckState(qt.Qt.Unchecked)
    assert panel.scene.outlineComboBox.currentIndex == 0
    create(panel)
    assert [str(case.state) for case in panel.session.cases()] == ["new", "new"]


def test_an_outline_of_nobody_knows_which_case_is_proposed_for_none(panel, tmp_path):
    """A segmentation from a file does not say what it was drawn on: it became the outline of the first volume."""
    scans = [a_volume(name, seed) for seed, name in enumerate("ab")]
    unfold(panel, tmp_path / "study")
    loaded = a_segmentation(scans[1])
    loaded.SetNodeReferenceID(loaded.GetReferenceImageGeometryReferenceRole(), None)
    panel.scene.segmentationSelector.setCurrentNode(loaded)
    assert panel.scene.outlineComboBox.currentIndex == 0 and panel.scene.outlineComboBox.count == 3
    create(panel)
    assert panel.said[-1] == (False, "Added 2 cases, 0 with an outline.")


def test_another_scene_brings_its_own_volumes(panel, tmp_path):
    """A closed scene gives the ids of its nodes away again."""
    import slicer

    before = a_volume("scan")
    unfold(panel, tmp_path / "study")
    panel.scene.table.item(0, CASE).setText("patient 1")
    panel.ui.newGroupBox.collapsed = True
    slicer.mrmlScene.Clear(0)
    after = a_volume("scan", 1)
    assert after.GetID() == before.GetID()
    unfold(panel, tmp_path / "study")
    assert volumes(panel) == [("scan", "scan", "image")]
    panel.ui.labelsTable.item(0, LABEL_NAME).setText("lesion")
    create(panel)
    project = panel.session.project
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(project.cases.image_paths(project.cases.get("scan").id)[0])))
    np.testing.assert_allclose(stored, slicer.util.arrayFromVolume(after))
