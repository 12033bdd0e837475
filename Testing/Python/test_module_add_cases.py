# SPDX-License-Identifier: Apache-2.0
"""How scans come into the project: from the scene, files, a folder and Slicer's DICOM database, by the real worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import DeviceError
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barldriver.studies import LABELS, a_map, an_image, cells
from slicerhost.clicks import press, waitUntil

pytestmark = pytest.mark.host
NAME, STATUS = range(2)
SCENE, FILES, FOLDER, DICOM = range(4)


def open_project(panel, folder, **options):
    panel.session.openProject(folder, **options)
    waitUntil(lambda: panel.isIdle)


def add(panel, source, name="new case"):
    panel.ui.addGroupBox.collapsed = False
    panel.ui.sourceComboBox.setCurrentIndex(source)
    panel.ui.nameLineEdit.text = name


def staged() -> list[Path]:
    """Folders of volumes on their way to the worker."""
    import slicer

    return list(Path(slicer.app.temporaryPath).glob("barl-scene-*"))


def press_add(panel):
    press(panel.ui.addButton)
    waitUntil(lambda: panel.isIdle)


def a_volume(image, name="volume"):
    import slicer

    array = sitk.GetArrayFromImage(image)
    node = slicer.util.addVolumeFromArray(array, name=name)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix))
    return node


def a_segmentation(volume, arrays):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "outline")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, array in arrays.items():
        segment = node.GetSegmentation().AddEmptySegment("", name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, segment, volume)
    return node


def an_oblique_image() -> sitk.Image:
    rng = np.random.default_rng(3)
    image = sitk.GetImageFromArray(rng.integers(-1000, 1000, (7, 8, 9)).astype(np.int16))
    c, s = np.cos(0.4), np.sin(0.4)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    image.SetSpacing((0.8, 1.1, 3.0))
    image.SetOrigin((12.0, -34.0, 56.0))
    return image


def test_volumes_of_the_scene_with_their_segmentation(a_cases_panel, a_study):
    from barl.images.geometry import Grid

    open_project(a_cases_panel, a_study)
    image = an_oblique_image()
    volume = a_volume(image)
    liver = np.zeros((7, 8, 9), np.uint8)
    liver[2:5, 2:6, 1:7] = 1
    tumor = np.zeros_like(liver)
    tumor[3, 3:5, 5:8] = 1
    outline = a_segmentation(volume, {"tumor": tumor, "Liver": liver})
    add(a_cases_panel, SCENE)
    a_cases_panel.adding.selectors[0].setCurrentNode(volume)
    a_cases_panel.adding.labelSelector.setCurrentNode(outline)
    a_cases_panel.ui.subjectLineEdit.text = "s1"
    a_cases_panel.ui.addHeldOutCheckBox.checked = True
    press_add(a_cases_panel)
    assert not a_cases_panel.said[-1][0], a_cases_panel.said
    assert a_cases_panel.said[-1][1].startswith("Added new case, 1 with an outline. 4 voxels outlined twice")
    project = a_cases_panel.session.project
    case = project.cases.get("new case")
    assert (case.state, case.held_out, case.group) == ("accepted", True, "s1")
    assert project.cases.grid(case.id).matches(Grid.of(image))
    stored = sitk.ReadImage(str(project.cases.image_paths(case.id)[0]))
    assert np.array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(image))
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.accepted_label(case.id))))
    assert np.array_equal(label, np.where(tumor, 3, liver))
    assert cells(a_cases_panel, NAME)[-1] == "new case" and a_cases_panel.ui.nameLineEdit.text == ""
    assert a_cases_panel.adding.labelSelector.currentNode() is None, "the next case has another outline"
    assert staged() == []


def test_scene_that_cannot_be_a_case_is_one_sentence(a_cases_panel, a_study):
    import slicer

    open_project(a_cases_panel, a_study)
    add(a_cases_panel, SCENE, "")
    press(a_cases_panel.ui.addButton)
    assert a_cases_panel.said[-1] == (True, "Choose a volume for each channel.")
    volume = a_volume(an_oblique_image())
    a_cases_panel.adding.selectors[0].setCurrentNode(volume)
    assert a_cases_panel.ui.nameLineEdit.text == "volume", "proposed"
    a_cases_panel.ui.nameLineEdit.text = ""
    press(a_cases_panel.ui.addButton)
    assert "has no name" in a_cases_panel.said[-1][1]
    add(a_cases_panel, SCENE, "Case 2")
    a_cases_panel.adding.selectors[0].setCurrentNode(volume)
    press(a_cases_panel.ui.addButton)
    assert "has a case named 'Case 2' already" in a_cases_panel.said[-1][1]
    add(a_cases_panel, SCENE)
    a_cases_panel.adding.selectors[0].setCurrentNode(volume)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    press(a_cases_panel.ui.addButton)
    assert "harden" in a_cases_panel.said[-1][1].lower()
    volume.SetAndObserveTransformNodeID(None)

    drawn = np.ones((7, 8, 9), np.uint8)
    a_cases_panel.adding.labelSelector.setCurrentNode(a_segmentation(volume, {"spleen": drawn}))
    press(a_cases_panel.ui.addButton)
    assert (
        "no label for the segment spleen" in a_cases_panel.said[-1][1] and "liver, tumor" in a_cases_panel.said[-1][1]
    )
    a_cases_panel.adding.labelSelector.setCurrentNode(a_segmentation(volume, {"liver": drawn * 0}))
    press(a_cases_panel.ui.addButton)
    assert "is empty" in a_cases_panel.said[-1][1]
    assert all(error for error, _ in a_cases_panel.said)
    assert len(a_cases_panel.session.cases()) == 3 and staged() == []


def test_label_map_of_the_scene_is_an_outline(a_cases_panel, a_study):
    import slicer

    open_project(a_cases_panel, a_study)
    volume = a_volume(an_oblique_image())
    add(a_cases_panel, SCENE)
    a_cases_panel.adding.selectors[0].setCurrentNode(volume)
    drawn = np.zeros((7, 8, 9), np.int16)
    drawn[3, 2:4, 5] = 3
    node = slicer.util.addVolumeFromArray(drawn, name="map", nodeClassName="vtkMRMLLabelMapVolumeNode")
    a_cases_panel.adding.labelSelector.setCurrentNode(node)
    press_add(a_cases_panel)
    question = a_cases_panel.session.question.text
    assert "does not lie on its scan's grid" in question and "2 would be lost. Shall the outline be" in question
    assert len(a_cases_panel.session.cases()) == 3
    a_cases_panel.session.answer(False)
    assert a_cases_panel.said[-1] == (False, "Left out: new case.")
    node.CopyOrientation(volume)
    press_add(a_cases_panel)
    assert a_cases_panel.said[-1] == (False, "Added new case, 1 with an outline.")
    stored = a_cases_panel.session.project.revisions.accepted_label(
        a_cases_panel.session.project.cases.get("new case").id
    )
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(stored))), drawn)


def test_segments_are_matched_by_the_name_that_is_seen(a_cases_panel, a_study, tmp_path):
    """Not by the value that they had in another project, nor by the name they had before."""
    with Project.create(tmp_path / "other", "other", [Label(1, "spleen"), Label(2, "liver")], [Channel("CT")]):
        pass
    volumes = [a_volume(an_oblique_image() + shift) for shift in range(3)]
    drawn = np.zeros((7, 8, 9), np.uint8)
    drawn[3, 2:4, 5] = 1
    outline = a_segmentation(volumes[0], {"liver": drawn})
    segment = outline.GetSegmentation().GetNthSegment(0)
    for folder, name, value in ((a_study, "liver", 1), (tmp_path / "other", "liver", 2), (a_study, "tumor", 3)):
        open_project(a_cases_panel, folder)
        segment.SetName(name)
        add(a_cases_panel, SCENE, f"drawn {value}")
        a_cases_panel.adding.selectors[0].setCurrentNode(volumes[value - 1])
        a_cases_panel.adding.labelSelector.setCurrentNode(outline)
        press_add(a_cases_panel)
        assert not a_cases_panel.said[-1][0], a_cases_panel.said
        project = a_cases_panel.session.project
        stored = project.revisions.accepted_label(project.cases.get(f"drawn {value}").id)
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(stored))).max() == value
        assert not segment.HasTag("BARL.Label")


def test_files_with_a_label_map_and_what_the_worker_refuses(a_cases_panel, tmp_path):
    channels = [Channel("T1", "_t1"), Channel("T2", "_t2")]
    with Project.create(tmp_path / "p", "p", LABELS, channels):
        pass
    open_project(a_cases_panel, tmp_path / "p")
    shifted = an_image()
    shifted.SetOrigin((0.0, 0.0, 0.0))
    for image, name in (
        (an_image(1), "a.nii.gz"),
        (an_image(2), "b.nii.gz"),
        (shifted, "c.nii.gz"),
        (a_map(3), "l.nii.gz"),
    ):
        sitk.WriteImage(image, str(tmp_path / name))
    add(a_cases_panel, FILES)
    first, second = a_cases_panel.adding.selectors
    first.currentPath = str(tmp_path / "a.nii.gz")
    press(a_cases_panel.ui.addButton)
    assert a_cases_panel.said[-1] == (True, "There is no file for the channel T2. Choose one.")
    a_cases_panel.ui.nameLineEdit.text = ""
    second.currentPath = str(tmp_path / "gone.nii.gz")
    press(a_cases_panel.ui.addButton)
    assert a_cases_panel.said[-1] == (True, "There is no file gone.nii.gz. Choose it with the ... button.")
    second.currentPath = str(tmp_path / "c.nii.gz")
    press(a_cases_panel.ui.addButton)
    assert "has no name" in a_cases_panel.said[-1][1]
    a_cases_panel.ui.nameLineEdit.text = "new case"
    second.currentPath = str(tmp_path / "c.nii.gz")
    press_add(a_cases_panel)
    assert a_cases_panel.said[-1][0] and "are channels of one case but" in a_cases_panel.said[-1][1]
    assert a_cases_panel.ui.nameLineEdit.text == "new case", "to try again"
    second.currentPath = str(tmp_path / "b.nii.gz")
    a_cases_panel.adding.labelSelector.currentPath = str(tmp_path / "l.nii.gz")
    press_add(a_cases_panel)
    assert not a_cases_panel.said[-1][0] and cells(a_cases_panel, STATUS) == ["Accepted"]


def test_an_outline_of_a_part_comes_with_a_value_or_a_mask(a_cases_panel, tmp_path):
    with Project.create(tmp_path / "p", "p", LABELS, [Channel("CT")]):
        pass
    open_project(a_cases_panel, tmp_path / "p")
    array = sitk.GetArrayFromImage(a_map(3))
    mask = np.zeros_like(array)
    mask[1] = 1
    for name, values in (("partial", np.where(mask, array, 9)), ("mask", mask), ("whole", array)):
        image = sitk.GetImageFromArray(values.astype(np.uint8))
        image.CopyInformation(an_image())
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    for number in (1, 2):
        sitk.WriteImage(an_image(number), str(tmp_path / f"{number}.nii.gz"))
    ui, adding = a_cases_panel.ui, a_cases_panel.adding

    def form(number, label, ignore="", looked=""):
        add(a_cases_panel, FILES, f"case {number}")
        adding.selectors[0].currentPath = str(tmp_path / f"{number}.nii.gz")
        adding.labelSelector.currentPath = str(tmp_path / f"{label}.nii.gz")
        adding.source.lookedSelector.currentPath = str(tmp_path / f"{looked}.nii.gz") if looked else ""
        ui.nameLineEdit.text, ui.ignoreLineEdit.text = f"case {number}", ignore
        press_add(a_cases_panel)

    form(1, "partial", ignore="nine")
    assert a_cases_panel.said[-1] == (
        True,
        "'nine' is no value of a label map. Type the number that means that nobody has looked, or nothing.",
    )
    form(1, "partial", ignore="9", looked="mask")
    assert "A mask and a value say what was looked at." in a_cases_panel.said[-1][1]
    form(1, "partial", ignore="9")
    form(2, "whole", looked="mask")
    ui.ignoreLineEdit.text = ""
    assert cells(a_cases_panel, STATUS) == ["Accepted 25 %", "Accepted 25 %"]
    project = a_cases_panel.session.project
    for case in project.cases.all():
        looked = project.revisions.read_looked(project.revisions.accepted(case.id))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(looked), mask)


def test_folder_adds_what_it_can_and_tells_the_rest(a_cases_panel, a_study, tmp_path):
    open_project(a_cases_panel, a_study)
    add(a_cases_panel, FOLDER)
    assert not a_cases_panel.ui.nameLineEdit.isVisible()
    press(a_cases_panel.ui.addButton)
    assert a_cases_panel.said[-1] == (True, "No folder is chosen. Choose the folder with the scans.")
    scans = tmp_path / "scans"
    scans.mkdir()
    a_cases_panel.adding.selectors[0].currentPath = str(scans)
    press(a_cases_panel.ui.addButton)
    assert a_cases_panel.said[-1][0] and "holds no NIfTI" in a_cases_panel.said[-1][1]
    for number, name in enumerate(("p1", "p2"), 1):
        sitk.WriteImage(an_image(number), str(scans / f"{name}.nii.gz"))
    (scans / "p3.nii.gz").write_bytes(b"cut off")
    press_add(a_cases_panel)
    error, text = a_cases_panel.said[-1]
    assert error and text == ("Added 2 cases, 0 with an outline. 1 case could not be added. Select the row to see why.")
    assert cells(a_cases_panel, NAME)[3:] == ["p1", "p2"]


# ruff: noqa: N802, N815


class Database:
    """Of ctkDICOMDatabase what the module asks for, with its names and answers (tuples of texts)."""

    isOpen = True

    def __init__(self, series):
        self._series = series

    def patients(self):
        return ("1",)

    def displayedNameForPatient(self, patient):
        return ""

    def nameForPatient(self, patient):
        return "Doe, Jane"

    def studiesForPatient(self, patient):
        return ("1.2",)

    def seriesForStudy(self, study):
        return tuple(self._series)

    def descriptionForStudy(self, study):
        return "Abdomen"

    def descriptionForSeries(self, series):
        return f"axial {series}"

    def instancesForSeries(self, series):
        return tuple(f"{series}.{number}" for number in range(len(self._series[series])))

    def filesForSeries(self, series):
        return tuple(map(str, self._series[series]))


def dicom_files(folder: Path) -> list[Path]:
    folder.mkdir()
    writer, paths = sitk.ImageFileWriter(), []
    writer.KeepOriginalImageUIDOn()
    for k in range(5):
        piece = sitk.GetImageFromArray(np.full((6, 7), 10 * k, np.int16))
        for key, value in {
            "0008|0060": "CT",
            "0010|0010": "Doe^Jane",
            "0020|000d": "1.2",
            "0020|000e": "1.2.3",
            "0008|0018": f"1.2.3.{k}",
            "0020|0032": f"0\\0\\{2.5 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():
            piece.SetMetaData(key, value)
        paths.append(folder / f"{9 - k}.dcm")
        writer.SetFileName(str(paths[-1]))
        writer.Execute(piece)
    return paths


def test_dicom_series_takes_pixels_and_the_typed_name_only(a_cases_panel, a_study, tmp_path, monkeypatch):
    import slicer

    open_project(a_cases_panel, a_study)
    monkeypatch.setattr(slicer, "dicomDatabase", None, raising=False)
    add(a_cases_panel, DICOM)
    assert "DICOM database is not open" in a_cases_panel.adding.source.reasonLabel.text
    assert not a_cases_panel.said, "the keys of the list pass over this source"
    press(a_cases_panel.ui.addButton)
    assert a_cases_panel.said[-1][0] and "DICOM database is not open" in a_cases_panel.said[-1][1]
    files = dicom_files(tmp_path / "dicom")
    monkeypatch.setattr(slicer, "dicomDatabase", Database({"1.2.3": files, "1.2.4": [tmp_path / "gone.dcm"]}))
    add(a_cases_panel, SCENE)
    add(a_cases_panel, DICOM, "scan 7")
    selector = a_cases_panel.adding.selectors[0]
    assert selector.itemText(0) == "Doe, Jane / Abdomen / axial 1.2.3 (5 files)"
    selector.setCurrentIndex(1)
    press_add(a_cases_panel)
    assert a_cases_panel.said[-1][0] and "are missing" in a_cases_panel.said[-1][1]
    selector.setCurrentIndex(0)
    press_add(a_cases_panel)
    assert a_cases_panel.said[-1] == (False, "Added scan 7, 0 with an outline.")
    project = a_cases_panel.session.project
    stored = sitk.ReadImage(str(project.cases.image_paths("scan 7")[0]))
    assert stored.GetSpacing()[2] == pytest.approx(2.5)
    assert sitk.GetArrayFromImage(stored)[:, 0, 0].tolist() == [0, 10, 20, 30, 40]
    everything = b"".join(path.read_bytes() for path in (a_study / "cases").rglob("*") if path.is_file())
    assert b"Doe" not in everything + (a_study / "project.db").read_bytes()
    assert not any("Doe" in text for _, text in a_cases_panel.said)


def test_worker_that_dies_while_adding_is_one_sentence(a_cases_panel, a_study, tmp_path):
    open_project(a_cases_panel, a_study)
    sitk.WriteImage(an_image(), str(tmp_path / "a.nii.gz"))
    add(a_cases_panel, FILES)
    a_cases_panel.adding.selectors[0].currentPath = str(tmp_path / "a.nii.gz")
    press(a_cases_panel.ui.addButton)
    assert not a_cases_panel.ui.addButton.enabled and a_cases_panel.ui.cancelAddButton.enabled
    os.kill(a_cases_panel.worker.pid, signal.SIGKILL)
    waitUntil(lambda: a_cases_panel.adding.isIdle)
    assert a_cases_panel.said[-1][0] and "ended before it had finished" in a_cases_panel.said[-1][1]
    assert a_cases_panel.ui.addButton.enabled


def test_adding_can_be_cancelled(a_cases_panel, a_study, tmp_path):
    open_project(a_cases_panel, a_study)
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(40):
        sitk.WriteImage(an_image(number + 1), str(scans / f"p{number}.nii.gz"))
    add(a_cases_panel, FOLDER)
    a_cases_panel.adding.selectors[0].currentPath = str(scans)
    press(a_cases_panel.ui.addButton)
    press(a_cases_panel.ui.cancelAddButton)
    waitUntil(lambda: a_cases_panel.adding.isIdle)
    assert a_cases_panel.said[-1] == (True, "Cancelled.")
    assert len(a_cases_panel.session.cases()) < 43
    assert len(cells(a_cases_panel, NAME)) == len(a_cases_panel.session.cases())


def test_worker_adds_cases_with_what_slicers_python_has(a_study, tmp_path, monkeypatch):
    """Neither PyTorch nor a package of the engine: only prediction and training may need them."""
    from barl.worker.client import WorkerProcess
    from barl.worker.messages import AddCases, CaseFiles, ListRuns, MeasureAgreement, SayHello

    hidden = ("torch", "monai", "safetensors", "jsonschema", "filelock", "tqdm", "psutil", "matplotlib")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {hidden}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ["PYTHONPATH"]]))
    sitk.WriteImage(an_image(1), str(tmp_path / "a.nii.gz"))
    project, case = str(a_study), CaseFiles("new case", [str(tmp_path / "a.nii.gz")])
    with WorkerProcess() as worker:
        with pytest.raises(DeviceError, match=r"torch, which .* is not installed.*Setup"):
            worker.call(SayHello(), timeout=120)
        answer = worker.call(AddCases(project, [case]), timeout=120)
        assert [added.name for added in answer.cases] == ["new case"]
        assert worker.call(MeasureAgreement(project), timeout=120).measured == 1
        assert worker.call(ListRuns(project), timeout=120).runs == []
