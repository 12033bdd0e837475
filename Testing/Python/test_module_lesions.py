# SPDX-License-Identifier: Apache-2.0
"""The lesions of the outline on screen in the step Review, and what a predicted volume's range says."""

from __future__ import annotations

import numpy as np
import pytest
from barldriver.loop import settle

pytestmark = pytest.mark.host


def texts(table) -> list[list[str]]:
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def test_lesions_are_listed_shown_and_made_segments(a_review_panel):
    import slicer

    panel, ui, session = a_review_panel, a_review_panel.ui, a_review_panel.session
    project = session.project
    with project.database.write() as transaction:
        transaction.execute("UPDATE cases SET subject = 'one subject'")
    other = project.cases.find("untouched")
    project.revisions.store(other.id, project.revisions.newest("case_0001").path, "prediction", author="BARL")
    assert ui.lesionsTable.rowCount == 0, "nothing is measured while nobody looks"
    assert not ui.lesionSegmentsButton.enabled
    ui.lesionsGroupBox.collapsed = False
    settle(panel)
    voxel = 0.8 * 1.1 * 3.0 / 1000
    first, second = texts(ui.lesionsTable)
    assert first[:2] == ["lesion 1", f"{45 * voxel:.2f}"] and second[:2] == ["necrosis 1", f"{4 * voxel:.2f}"]
    # 5 x 3 voxels of 0.8 x 1.1 mm in each slice
    assert first[2] == f"{np.hypot(4 * 0.8, 2 * 1.1) + 0.95:.1f}"
    assert first[3] == f"{1 - 0.6 * 36 / 45:.2f}", "four of five columns of the lesion are unsure"
    total = f"2 lesions, {49 * voxel:.2f} ml"
    assert ui.lesionsLabel.text.split("\n") == [f"On screen: {total}", "The same subject:", f"untouched: {total}"]

    before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    ui.lesionSegmentsButton.click()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == before + 1
    node = (
        slicer.mrmlScene.GetFirstNodeByName("case_0001 lesions")
        or slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[-1]
    )
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]
    assert names == ["lesion 1", "necrosis 1"]
    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentation.GetNthSegmentID(0), session.loaded.volumes[0])
    assert np.count_nonzero(array) == 45
    slicer.mrmlScene.RemoveNode(node)
    ui.lesionsGroupBox.collapsed = True


def test_what_a_new_model_changed_becomes_segments(a_review_panel):
    import SimpleITK as sitk
    import slicer
    from BARLSegmentationLib.logic.Difference import lastTwo

    ui, session = a_review_panel.ui, a_review_panel.session
    project = session.project
    assert not ui.differenceButton.enabled and "two models" in ui.differenceButton.toolTip
    before = sitk.ReadImage(str(project.revisions.newest("case_0001").path))
    array = sitk.GetArrayFromImage(before)
    array[4] = 0  # 15 voxels of lesion go
    array[6, 2, 2] = 4  # one of necrosis becomes edema
    after = sitk.GetImageFromArray(array)
    after.CopyInformation(before)
    model = project.folder / "models" / "made"
    model.mkdir(parents=True)
    for name in ("model.json", "weights.safetensors"):
        (model / name).write_text("{}")
    made = project.models.add(model, {})
    project.revisions.store("case_0001", after, "prediction", author="BARL", model_id=made.id)
    session.notifyCases()
    new, old = lastTwo(project, "case_0001")
    assert (new.model_id, old.model_id) == (made.id, None) and ui.differenceButton.enabled
    ui.differenceButton.click()
    node = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[-1]
    segmentation = node.GetSegmentation()
    counts = {}
    for n in range(segmentation.GetNumberOfSegments()):
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(
            node, segmentation.GetNthSegmentID(n), session.loaded.volumes[0]
        )
        counts[segmentation.GetNthSegment(n).GetName()] = int(np.count_nonzero(mask))
    assert counts == {"lesion: gone": 15, "edema: new": 1}
    slicer.mrmlScene.RemoveNode(node)


def test_the_range_of_a_volume_says_where_it_comes_from(host):
    from BARLSegmentationLib.widgets.VolumesTable import _texts, rangeText

    branches = {"ml": 10.0, "low_ml": 9.0, "high_ml": 11.0}
    assert _texts("a", branches, 12.0) == ["a", "10.00 (9.00–11.00)", "12.00", "+2.00"]
    assert "branches" in rangeText(branches)
    known = {**branches, "interval_ml": [8.0, 12.5], "level": 0.8, "cases": 4}
    assert _texts("a", known, None)[1] == "10.00 (8.00–12.50)"
    assert rangeText(known).startswith("In 80 % of cases") and "fewer than 9" in rangeText(known)
    assert "fewer" not in rangeText({**known, "level": 0.9, "cases": 12})
