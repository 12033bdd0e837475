# SPDX-License-Identifier: Apache-2.0
"""The module's logic on Slicer's own MRML and VTK classes (slicer-core); the names of its panels' widgets."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import ProjectError
from barl.project.labels import Channel, Label
from barl.project.store import Project

MODULE = Path(__file__).resolve().parents[2] / "BARLSegmentation"
LIBRARY = MODULE / "BARLSegmentationLib" / "widgets"
LABELS = [Label(1, "lesion", (255, 0, 0)), Label(4, "edema", (0, 128, 255)), Label(7, "necrosis", (20, 40, 60))]


@pytest.fixture
def a_loader(a_scene):
    from BARLSegmentationLib.logic.CaseLoader import CaseLoader

    return CaseLoader()


def an_image(array: np.ndarray) -> sitk.Image:
    """Oblique, anisotropic, off the origin."""
    image = sitk.GetImageFromArray(array)
    c, s = np.cos(0.3), np.sin(0.3)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    image.SetSpacing((0.8, 1.1, 3.0))
    image.SetOrigin((12.0, -34.0, 56.0))
    return image


@pytest.fixture
def a_label_array() -> np.ndarray:
    array = np.zeros((9, 11, 13), np.uint8)
    array[2:5, 3:6, 4:9] = 1
    array[6, 2:4, 2:4] = 7  # nothing of label 4
    return array


@pytest.fixture
def a_project(tmp_path, a_label_array):
    rng = np.random.default_rng(0)
    channels = [Channel("T1"), Channel("FLAIR")]
    with Project.create(tmp_path / "project", "study", LABELS, channels) as project:
        images = [an_image(rng.normal(100, 20, a_label_array.shape).astype(np.float32)) for _ in channels]
        project.cases.add("outlined", images, label=an_image(a_label_array))
        project.cases.add("untouched", images)
    return tmp_path / "project"


@pytest.mark.host
def test_session_lists_cases_and_keeps_the_project_when_another_fails(a_scene, a_project):
    from BARLSegmentationLib.logic.Session import Session

    session = Session()
    assert session.cases() == []
    session.openProject(str(a_project))
    assert [case.name for case in session.cases()] == ["outlined", "untouched"]
    with pytest.raises(ProjectError):
        session.openProject(a_project / "cases")
    assert session.project.folder == a_project
    session.closeProject()
    assert session.cases() == []


@pytest.mark.host
def test_looking_locks_nobody_out(a_scene, a_project):
    from BARLSegmentationLib.logic.Session import Session

    session = Session()
    session.openProject(a_project)
    with Project.open(a_project) as other:
        other.cases.set_state(other.cases.get("untouched").id, "excluded")
    assert [case.state for case in session.cases()] == ["accepted", "excluded"]
    session.closeProject()


@pytest.mark.host
def test_case_comes_with_its_geometry_names_colors_and_voxels(a_loader, a_project, a_label_array):
    import slicer

    with Project.open(a_project, read_only=True) as project:
        loaded = a_loader.load(project, project.cases.get("outlined").id)
        path = project.cases.image_paths(project.cases.get("outlined").id)[0]
    assert [node.GetName() for node in loaded.volumes] == ["outlined T1", "outlined FLAIR"]

    stored = sitk.ReadImage(str(path))
    matrix = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(loaded.volumes[0]))
    for index in ((0, 0, 0), (12, 0, 0), (3, 10, 8)):
        expected = np.array(stored.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose((matrix @ (*index, 1))[:3], expected, atol=1e-3)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(loaded.volumes[0]), sitk.GetArrayFromImage(stored))

    segmentation = loaded.segmentation.GetSegmentation()
    segments = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
    assert [segment.GetName() for segment in segments] == ["lesion", "edema", "necrosis"]
    assert [segment.GetLabelValue() for segment in segments] == [1, 4, 7]
    for segment, label in zip(segments, LABELS, strict=True):
        np.testing.assert_allclose(np.array(segment.GetColor()) * 255, label.color, atol=0.5)
    for n, label in enumerate(LABELS):
        found = slicer.util.arrayFromSegmentBinaryLabelmap(
            loaded.segmentation, segmentation.GetNthSegmentID(n), loaded.volumes[0]
        )
        found = np.zeros_like(a_label_array) if found is None else found
        np.testing.assert_array_equal(found != 0, a_label_array == label.value)


@pytest.mark.host
def test_loading_again_keeps_the_edit_and_adds_nothing(a_loader, a_project):
    with Project.open(a_project, read_only=True) as project:
        case = project.cases.get("outlined").id
        first = a_loader.load(project, case)
        first.segmentation.GetSegmentation().AddEmptySegment("", "drawn by the user")
        nodes = a_loader.scene.GetNumberOfNodes()
        again = a_loader.load(project, case)
    assert a_loader.scene.GetNumberOfNodes() == nodes
    assert again.segmentation is first.segmentation and again.volumes == first.volumes
    assert again.segmentation.GetSegmentation().GetNumberOfSegments() == 4


@pytest.mark.host
def test_newer_revision_is_loaded_beside_the_older(a_loader, a_project, a_label_array):
    with Project.open(a_project) as project:
        case = project.cases.get("outlined").id
        first = a_loader.load(project, case)
        smaller = np.where(a_label_array == 7, 0, a_label_array).astype(np.uint8)
        project.revisions.store(case, an_image(smaller), "accepted", author="reader")
        second = a_loader.load(project, case)
    assert second.segmentation is not first.segmentation
    assert second.volumes == first.volumes


@pytest.mark.host
def test_prediction_does_not_hide_the_accepted_outline(a_loader, a_project, a_label_array):
    with Project.open(a_project) as project:
        accepted, untouched = project.cases.get("outlined").id, project.cases.get("untouched").id
        first = a_loader.load(project, accepted)
        for case in (accepted, untouched):
            project.revisions.store(case, an_image(np.zeros_like(a_label_array)), "prediction", author="model")
        assert a_loader.load(project, accepted).segmentation is first.segmentation
        assert a_loader.load(project, untouched).segmentation is not None


@pytest.mark.host
def test_case_without_outline_has_no_segmentation(a_loader, a_project):
    with Project.open(a_project, read_only=True) as project:
        assert a_loader.load(project, project.cases.get("untouched").id).segmentation is None


@pytest.mark.host
def test_damaged_image_is_one_sentence(a_loader, a_project):
    with Project.open(a_project, read_only=True) as project:
        case = project.cases.get("untouched").id
        project.cases.image_paths(case)[0].write_bytes(b"not an image")
        with pytest.raises(ProjectError, match="cannot be read"):
            a_loader.load(project, case)


def _ijk_to_ras(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


# ---------------------------------------------------------------------------------------------------------------------
# The panel


PANELS = ["BARLSegmentation.py", *sorted(f"BARLSegmentationLib/widgets/{p.name}" for p in LIBRARY.glob("*Panel.py"))]


@pytest.mark.parametrize("script", [name for name in PANELS if not name.endswith("/Panel.py")])
def test_panel_uses_only_widgets_of_its_ui_file(script):
    ui = ElementTree.parse(MODULE / "Resources" / "UI" / f"{Path(script).stem}.ui")
    names = {element.get("name") for element in ui.iter("widget")}  # Slicer gives no layout inside of another one
    used = set(re.findall(r"self\.ui\.(\w+)", (MODULE / script).read_text(encoding="utf-8")))
    assert used <= names, sorted(used - names)


def test_panel_names_a_text_for_every_case_state():
    from barl.project.states import CaseState

    text = (LIBRARY.parent / "logic" / "Words.py").read_text(encoding="utf-8")
    assert all(f'"{state}": _(' in text for state in CaseState)
