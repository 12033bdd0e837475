# SPDX-License-Identifier: Apache-2.0
"""Outlines of the scene that other programs and Slicer's other modules have made, as outlines of new cases."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from slicerhost.clicks import waitUntil
from test_module_add_cases import (
    SCENE,
    a_segmentation,
    a_volume,
    add,
    an_oblique_image,
    open_project,
    press_add,
    staged,
)

pytestmark = pytest.mark.host


def test_an_outline_that_was_drawn_on_another_volume_is_told(a_cases_panel, a_study):
    import slicer

    open_project(a_cases_panel, a_study)
    drawn = a_volume(an_oblique_image(), "drawn")
    liver = np.zeros((7, 8, 9), np.uint8)
    liver[2:5, 2:6, 1:7] = 1
    finer = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, drawn, "finer")
    finer.SetSpacing(0.4, 0.55, 1.5)
    for number, (name, volume) in enumerate((("drawn", drawn), ("finer", finer)), start=1):
        other = a_volume(an_oblique_image() + number, f"not {name}")
        add(a_cases_panel, SCENE, name)
        a_cases_panel.adding.selectors[0].setCurrentNode(other)
        a_cases_panel.adding.labelSelector.setCurrentNode(a_segmentation(volume, {"Liver": liver}))
        press_add(a_cases_panel)
        assert f"outline was drawn on {name}, not on not {name}" in a_cases_panel.said[-1][1]
    assert "Liver (0.0238 ml became 0.0317 ml)" in a_cases_panel.said[-1][1]


def test_a_label_map_with_names_is_matched_by_them(a_cases_panel, a_study):
    """Slicer's export of segments numbers them in the order of their drawing, and names them in a color table."""
    import slicer
    import vtk

    open_project(a_cases_panel, a_study)
    volume, drawn = a_volume(an_oblique_image()), np.zeros((7, 8, 9), np.uint8)
    drawn[3, 2:4, 5] = 1
    for others, told in (({}, "matched by the names"), ({"bone": drawn[::-1]}, "is called 'bone' in its color table")):
        outline = a_segmentation(volume, {"tumor": drawn, "Liver": drawn[:, ::-1], **others})
        exported, ids = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode"), vtk.vtkStringArray()
        for segmentId in outline.GetSegmentation().GetSegmentIDs():
            ids.InsertNextValue(segmentId)
        slicer.modules.segmentations.logic().ExportSegmentsToLabelmapNode(outline, ids, exported, volume)
        add(a_cases_panel, SCENE, f"map {len(others)}")
        a_cases_panel.adding.selectors[0].setCurrentNode(volume)
        a_cases_panel.adding.labelSelector.setCurrentNode(exported)
        press_add(a_cases_panel)
        assert told in a_cases_panel.said[-1][1]
    project = a_cases_panel.session.project
    stored = sitk.ReadImage(str(project.revisions.accepted_label(project.cases.get("map 0").id)))
    assert np.array_equal(sitk.GetArrayFromImage(stored), np.where(drawn, 3, drawn[:, ::-1]))
    assert staged() == []


def test_segments_without_a_label_are_left_out_if_that_is_confirmed(a_cases_panel, a_study):
    """A program that segments everything gives a hundred segments of which the project has one."""
    panel = a_cases_panel
    open_project(panel, a_study)
    volume, drawn = a_volume(an_oblique_image()), np.zeros((7, 8, 9), np.uint8)
    drawn[3, 2:4, 5] = 1
    organs = {"spleen": drawn[::-1], "Liver": drawn, **{f"rib {n}": drawn[:, :, ::-1] for n in range(3)}}
    add(panel, SCENE)
    panel.adding.selectors[0].setCurrentNode(volume)
    panel.adding.labelSelector.setCurrentNode(a_segmentation(volume, organs))
    press_add(panel)
    assert panel.session.question.text.startswith(
        "4 segments are no labels of the project (spleen, rib 0, rib 1, ...)."
    )
    panel.session.answer(False)
    assert len(panel.session.cases()) == 3 and staged() == []
    press_add(panel)
    panel.session.answer(True)
    waitUntil(lambda: panel.isIdle)
    assert "Added new case, 1 with an outline." in [text for _error, text in panel.said]
    project = panel.session.project
    stored = sitk.ReadImage(str(project.revisions.accepted_label(project.cases.get("new case").id)))
    assert np.array_equal(sitk.GetArrayFromImage(stored), drawn)
