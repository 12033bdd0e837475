# SPDX-License-Identifier: Apache-2.0
"""Review and correction on real MRML: overlay, hot-spots, editing only where unsure, the outline's way back."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.images.geometry import Grid
from barl.project.labels import Label

pytestmark = pytest.mark.host
PREDICTED, UNTOUCHED = "case_0001", "case_0002"


@pytest.fixture
def review(a_scene, a_predicted_project):
    """Session with the predicted case open, its correction, and the arrays that the project holds."""
    from BARLSegmentationLib.logic.Correction import Correction
    from BARLSegmentationLib.logic.Session import Session

    session, clock = Session(), SimpleNamespace(now=0.0)
    session.openProject(a_predicted_project)
    session.openCase(PREDICTED)
    correction = Correction(session, now=lambda: clock.now)
    correction.begin()
    prediction = session.project.revisions.newest(PREDICTED)
    yield SimpleNamespace(
        session=session,
        correction=correction,
        clock=clock,
        label=sitk.GetArrayFromImage(sitk.ReadImage(str(prediction.path))),
        uncertainty=sitk.GetArrayFromImage(sitk.ReadImage(str(prediction.uncertainty_path))),
    )
    session.closeProject()


@pytest.fixture
def an_editor(review):
    """Slicer's own Segment Editor logic at work on the open case."""
    import slicer

    return Editor(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"), review.session.loaded)


class Editor:
    def __init__(self, node, loaded):
        import slicer

        self.node, self.loaded = node, loaded
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.logic.SetSegmentEditorNode(node)
        node.SetAndObserveSegmentationNode(loaded.segmentation)
        node.SetAndObserveSourceVolumeNode(loaded.volumes[0])

    def brush(self, name: str, voxels: np.ndarray, erase: bool = False) -> None:
        """What a stroke of the Paint or Erase effect does: fill the modifier label map, let the logic mask it."""
        from vtk.util.numpy_support import vtk_to_numpy

        logic = self.logic
        segmentId = self.loaded.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
        self.node.SetSelectedSegmentID(segmentId)
        logic.SaveStateForUndo()
        assert logic.UpdateReferenceGeometryImage() and logic.ResetModifierLabelmapToDefault()
        logic.UpdateAlignedSourceVolume()
        assert logic.UpdateMaskLabelmap()
        modifier = logic.GetModifierLabelmap()
        vtk_to_numpy(modifier.GetPointData().GetScalars()).reshape(voxels.shape)[voxels] = 1
        mode = logic.ModificationModeRemove if erase else logic.ModificationModeAdd
        logic.ModifySegmentByLabelmap(self.loaded.segmentation, segmentId, modifier, mode, False, False)


def segment_array(loaded, name: str) -> np.ndarray:
    import slicer

    segmentId = loaded.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(loaded.segmentation, segmentId, loaded.volumes[0])
    return np.zeros_like(slicer.util.arrayFromVolume(loaded.volumes[0]), np.uint8) if array is None else array


def a_box(shape) -> np.ndarray:
    box = np.zeros(shape, bool)
    box[3:6, 2:10, 3:11] = True
    return box


# Overlay


def test_overlay_colors_what_is_above_the_threshold_and_leaves_other_foregrounds_alone(review, a_scene):
    import slicer
    from BARLSegmentationLib.logic.Overlay import Overlay

    overlay, uncertainty = Overlay(), review.session.loaded.uncertainty
    overlay.show(uncertainty, opacity=0.4, threshold=0.25)
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert composites and all(node.GetForegroundVolumeID() == uncertainty.GetID() for node in composites)
    assert {round(node.GetForegroundOpacity(), 6) for node in composites} == {0.4}
    display = uncertainty.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 1)
    assert (display.GetLowerThreshold(), display.GetApplyThreshold()) == (0.25, 1)
    assert display.GetColorNode().GetName() == "BARL uncertainty"

    composites[0].SetForegroundVolumeID(review.session.loaded.volumes[0].GetID())
    overlay.hide(uncertainty)
    assert composites[0].GetForegroundVolumeID() == review.session.loaded.volumes[0].GetID()
    assert all(node.GetForegroundVolumeID() is None for node in composites[1:])


def test_our_colors_can_be_told_apart_without_seeing_hues(a_scene):
    from BARLSegmentationLib.logic.Overlay import Overlay

    node = Overlay().colorNode()
    colors = np.array([list(node.GetLookupTable().GetTableValue(n))[:3] for n in range(256)])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance[::8]) > 0).all() and luminance[-1] > 10 * luminance[0]
    assert (np.ptp(colors, axis=1) > 0.2).all(), "none is gray"
    names = [choice.GetName() for choice in Overlay().choices()]
    assert names[0] == "BARL uncertainty" and Overlay().colorNodeNamed("Iron").GetName() == "Iron"
    assert Overlay().colorNodeNamed("no such") is node, "made once"


# Hot-spots


def test_hotspots_are_the_predictions_in_ras(review):
    from BARLSegmentationLib.logic.Hotspots import HotSpotList

    found = HotSpotList(review.session.project, PREDICTED)
    assert [(spot.rank, spot.label) for spot in found.spots] == [(1, "lesion"), (2, "edema"), (3, "")]
    scan = sitk.ReadImage(str(review.session.project.cases.image_paths(PREDICTED)[0]))
    left, posterior, superior = scan.TransformContinuousIndexToPhysicalPoint((6, 4, 3))
    assert found.spots[0].position == pytest.approx((-left, -posterior, superior), abs=1e-4)
    assert HotSpotList(review.session.project, UNTOUCHED).spots == []


@pytest.mark.parametrize("transformed", [False, True])
def test_jump_centers_all_slice_views_on_the_hotspot(review, transformed):
    import slicer
    import vtk
    from BARLSegmentationLib.logic.Hotspots import HotSpotList, jumpTo

    volume, spot = review.session.loaded.volumes[0], HotSpotList(review.session.project, PREDICTED).spots[1]
    expected = np.array(spot.position)
    if transformed:
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 20)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(matrix)
        volume.SetAndObserveTransformNodeID(transform.GetID())
        expected += (20, 0, 0)
    jumpTo(spot.position, volume)
    slices = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    assert len(slices) >= 3
    for node in slices:
        center = [node.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
        assert center == pytest.approx(expected.tolist(), abs=1e-4), node.GetName()


def test_next_hotspot_passes_over_those_seen_and_ticks_come_back(review):
    from BARLSegmentationLib.logic.Hotspots import HotSpotList

    found = HotSpotList(review.session.project, PREDICTED)
    assert found.following(None).rank == 1 and found.following(None, -1).rank == 3
    found.setSeen(2, True)
    assert found.following(1).rank == 3 and found.following(3).rank == 1 and found.following(3, -1).rank == 1
    found.setSeen(1, True)
    found.setSeen(3, True)
    assert found.following(1).rank == 2, "all seen: simply the next one"
    found.setSeen(2, False)
    found.store()
    assert HotSpotList(review.session.project, PREDICTED).seen == {1, 3}
    found.store()  # once more changes nothing
    assert [entry.action for entry in review.session.project.journal.entries(PREDICTED)].count("hot-spots seen") == 1
    assert HotSpotList().following(None) is None


# Only where unsure


@pytest.mark.parametrize(
    ("kind", "values", "kept", "below"),
    [
        (np.int16, (-1024, 3000), np.int16, -1025),
        (np.int16, (-32768, 5), np.int32, -32769),
        (np.uint8, (0, 255), np.int16, -1),
        (np.float32, (0.0, 0.5), np.float32, -1.0),
        (np.float32, (0.0, 1000.0), np.float32, -10.0),
    ],
)
def test_blanked_scan_keeps_its_intensities_where_unsure_and_lies_below_them_elsewhere(kind, values, kept, below):
    from BARLSegmentationLib.logic.Attention import unsureScan

    scan = np.array(values * 12, kind).reshape(2, 3, 4)
    uncertainty = np.zeros(scan.shape, np.float32)
    uncertainty[1, 2, 1:] = 0.25, 0.5, 0.75
    found = unsureScan(scan, uncertainty, 0.5)
    assert found.voxels.dtype == kept and found.unsure == 2 and found.range == tuple(values)
    unsure = uncertainty >= 0.5
    assert np.array_equal(found.voxels[unsure], scan[unsure]) and (found.voxels[~unsure] == below).all()
    assert unsureScan(scan, uncertainty, 0.9).unsure == 0


def limited(review, editor, threshold: float):
    import slicer
    from BARLSegmentationLib.logic.Attention import Attention, unsureScan

    attention, volume = Attention(editor.node), review.session.loaded.volumes[0]
    attention.apply(volume, unsureScan(slicer.util.arrayFromVolume(volume), review.uncertainty, threshold))
    return attention


def test_painting_and_erasing_are_limited_to_the_unsure_region(review, an_editor):
    loaded, unsure = review.session.loaded, review.uncertainty >= 0.3
    attention = limited(review, an_editor, 0.3)
    assert attention.isOn() and not review.correction.isChanged()
    box = a_box(unsure.shape)
    an_editor.brush("edema", box)
    assert np.array_equal(segment_array(loaded, "edema") > 0, box & unsure), "oblique, to the voxel"
    assert np.array_equal(segment_array(loaded, "lesion") > 0, (review.label == 1) & ~(box & unsure))
    an_editor.brush("edema", box, erase=True)
    assert segment_array(loaded, "edema").sum() == 0, "what was painted can be erased"
    an_editor.brush("lesion", np.ones_like(box), erase=True)
    assert np.array_equal(segment_array(loaded, "lesion") > 0, (review.label == 1) & ~unsure)
    an_editor.logic.Undo()
    assert np.array_equal(segment_array(loaded, "lesion") > 0, (review.label == 1) & ~(box & unsure))

    attention.remove(loaded.volumes[0])
    assert not attention.isOn() and an_editor.node.GetSourceVolumeNode() is loaded.volumes[0]
    an_editor.brush("edema", box)
    assert np.array_equal(segment_array(loaded, "edema") > 0, box)


def test_limit_follows_the_threshold_and_leaves_nothing_behind(review, an_editor):
    import slicer

    nodes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    segments = review.session.loaded.segmentation.GetSegmentation().GetNumberOfSegments()
    limited(review, an_editor, 0.3)
    attention = limited(review, an_editor, 0.95)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == nodes + 1
    an_editor.brush("edema", a_box(review.label.shape))
    assert segment_array(review.session.loaded, "edema").sum() == 0, "nothing is as unsure as that"
    an_editor.node.SetSourceVolumeIntensityMask(False)
    assert not attention.isOn(), "switched off in the editor"
    attention.remove(review.session.loaded.volumes[0])
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == nodes
    assert review.session.loaded.segmentation.GetSegmentation().GetNumberOfSegments() == segments


def test_effects_still_see_the_scans_intensities(review, an_editor):
    from vtk.util.numpy_support import vtk_to_numpy

    limited(review, an_editor, 0.3)
    assert an_editor.logic.UpdateReferenceGeometryImage() and an_editor.logic.UpdateAlignedSourceVolume()
    aligned = an_editor.logic.GetAlignedSourceVolume()
    seen = vtk_to_numpy(aligned.GetPointData().GetScalars()).reshape(aligned.GetDimensions()[::-1])
    scan = sitk.GetArrayFromImage(sitk.ReadImage(str(review.session.project.cases.image_paths(PREDICTED)[0])))
    unsure = review.uncertainty >= 0.3
    assert np.array_equal(seen[unsure], scan[unsure]) and (seen[~unsure] < scan.min()).all()


# The outline as a label map


def test_label_map_has_the_projects_values_on_the_scans_grid(review, an_editor):
    snapshot = review.correction.snapshot()
    labelMap, overlaps = snapshot.labelMap()
    assert np.array_equal(labelMap, review.label) and (overlaps, snapshot.leftOut) == (0, [])
    assert snapshot.volumes(snapshot.labelMap()[0]) == pytest.approx({1: 45 * 0.00264, 4: 0, 7: 4 * 0.00264})
    box = a_box(review.label.shape)
    an_editor.brush("edema", box)
    assert np.array_equal(review.correction.snapshot().labelMap()[0], np.where(box, 4, review.label))
    assert np.array_equal(labelMap, review.label), "a snapshot does not change with the scene"


def test_segments_keep_their_value_when_renamed_renumbered_or_drawn_beyond_the_scan(review):
    import slicer

    segments = review.session.loaded.segmentation.GetSegmentation()
    lesion = segments.GetSegment(segments.GetSegmentIdBySegmentName("lesion"))
    lesion.SetName("what I saw")
    image = slicer.vtkOrientedImageData()
    image.DeepCopy(lesion.GetRepresentation("Binary labelmap"))
    image.SetExtent(-1, 1, -2, 1, 0, 1)
    image.AllocateScalars(3, 1)  # VTK_UNSIGNED_CHAR
    image.GetPointData().GetScalars().Fill(9)
    lesion.SetLabelValue(9)
    lesion.AddRepresentation("Binary labelmap", image)
    labelMap, _ = review.correction.snapshot().labelMap()
    expected = np.where(review.label == 7, 7, 0)
    expected[0:2, 0:2, 0:2] = 1
    assert np.array_equal(labelMap, expected)


def test_overlap_goes_to_the_later_label_and_strangers_are_left_out(review):
    import slicer

    loaded, box = review.session.loaded, a_box(review.label.shape)
    segments = loaded.segmentation.GetSegmentation()
    edema = segments.GetSegmentIdBySegmentName("edema")
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        box.astype(np.uint8), loaded.segmentation, edema, loaded.volumes[0]
    )
    stranger = segments.AddEmptySegment("", "stranger")
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        np.ones(box.shape, np.uint8), loaded.segmentation, stranger, loaded.volumes[0]
    )
    snapshot = review.correction.snapshot()
    labelMap, overlaps = snapshot.labelMap()
    assert np.array_equal(labelMap, np.where(box & (review.label < 4), 4, review.label))
    assert overlaps == np.count_nonzero(box & (review.label > 0)) > 0
    assert snapshot.leftOut == ["stranger"]


def test_segment_drawn_on_another_grid_is_resampled_onto_the_scan(review):
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    loaded = review.session.loaded
    segments = loaded.segmentation.GetSegmentation()
    segment = segments.GetSegment(segments.GetSegmentIdBySegmentName("lesion"))
    fine = slicer.vtkOrientedImageData()
    fine.DeepCopy(segment.GetRepresentation("Binary labelmap"))
    matrix, extent = vtk.vtkMatrix4x4(), np.array(fine.GetExtent())
    fine.GetImageToWorldMatrix(matrix)
    coarse = vtk_to_numpy(fine.GetPointData().GetScalars()).reshape(fine.GetDimensions()[::-1]) == 1
    doubled = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2).astype(np.uint8)
    toRAS = slicer.util.arrayFromVTKMatrix(matrix)
    first = toRAS @ (*(extent[::2] - 0.25), 1)
    toRAS[:3, :3] /= 2
    toRAS[:, 3] = first
    fine.SetExtent(0, doubled.shape[2] - 1, 0, doubled.shape[1] - 1, 0, doubled.shape[0] - 1)
    fine.GetPointData().SetScalars(numpy_to_vtk(doubled.ravel(), deep=True))
    fine.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(toRAS))
    segment.SetLabelValue(1)
    segment.AddRepresentation("Binary labelmap", fine)
    assert np.array_equal(review.correction.snapshot().labelMap()[0], review.label)


def test_outline_under_another_transform_is_refused_in_one_sentence(review):
    import slicer

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    review.session.loaded.segmentation.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match="another transform"):
        review.correction.snapshot()
    review.session.loaded.volumes[0].SetAndObserveTransformNodeID(transform.GetID())
    assert np.array_equal(review.correction.snapshot().labelMap()[0], review.label)


def test_large_label_values_are_kept(a_scene, tmp_path):
    from BARLSegmentationLib.logic.Outline import Layer, Snapshot

    grid = Grid((4, 3, 2), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    layer = Layer(np.full((1, 1, 2), 2, np.uint8), (1, 2, 2), ((2, 60000),))
    snapshot = Snapshot(grid, [Label(5, "a"), Label(60000, "b")], [layer], [], [])
    labelMap = snapshot.labelMap()[0]
    assert labelMap[1, 2].tolist() == [0, 0, 60000, 60000]
    assert snapshot.volumes(snapshot.labelMap()[0]) == pytest.approx({5: 0, 60000: 0.002})


# Back into the project


def test_accepted_outline_is_stored_to_the_bit_with_its_journal(review, an_editor):
    import slicer

    review.clock.now = 10
    review.correction.clock.tick()
    review.clock.now = 400  # a phone call
    box = a_box(review.label.shape)
    an_editor.brush("edema", box)
    assert review.correction.isChanged() and not review.correction.isAccepted()
    stored = review.correction.store("accepted", "reader 1")
    project, session = review.session.project, review.session
    (scan_path,) = project.cases.image_paths(PREDICTED)
    image, scan = sitk.ReadImage(str(stored.revision.path)), sitk.ReadImage(str(scan_path))
    assert np.array_equal(sitk.GetArrayFromImage(image), np.where(box, 4, review.label))
    assert Grid.of(image).matches(Grid.of(scan), tolerance_mm=1e-4)
    assert project.revisions.accepted_label(PREDICTED) == stored.revision.path and project.verify(everything=True) == []
    segment = session.loaded.segmentation.GetSegmentation().GetNthSegment(0)
    assert slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(segment) == 2  # completed
    assert session.case().state == "accepted" and not review.correction.isChanged() and review.correction.isAccepted()
    facts = project.journal.entries(PREDICTED)[-1].facts
    assert (facts["author"], facts["kind"], facts["editing_seconds"]) == ("reader 1", "accepted", 70.0)
    assert facts["prediction"] == project.revisions.of(PREDICTED)[0].id
    byName = {change["name"]: change for change in facts["labels"]}
    assert byName["edema"]["added_voxels"] == box.sum()
    assert byName["lesion"]["removed_voxels"] == np.count_nonzero(box & (review.label == 1))
    assert byName["lesion"]["removed_ml"] == pytest.approx(byName["lesion"]["removed_voxels"] * 0.00264, abs=1e-6)
    review.clock.now = 405
    an_editor.brush("edema", box, erase=True)
    assert review.correction.store("draft", "reader 1").revision.details["correction"]["editing_seconds"] == 5


def test_edit_made_while_storing_still_counts_as_one(review, an_editor):
    work = review.correction.preparedToStore("accepted", "reader")
    an_editor.brush("edema", a_box(review.label.shape))
    stored = work()
    review.correction.settle(stored)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(stored.revision.path))), review.label)
    assert review.correction.isChanged()


def test_edit_is_kept_as_a_draft_and_an_untouched_outline_is_not(review, an_editor):
    assert review.correction.keep("reader") is None
    an_editor.brush("edema", a_box(review.label.shape))
    assert review.correction.keep("reader").revision.kind == "draft"
    assert review.correction.segmentation.GetAttribute("BARL.Unsaved") is None
    assert review.correction.keep("reader") is None
    assert review.session.case().state == "in_review"


def test_draft_that_cannot_be_stored_stays_in_the_scene(review, an_editor, a_predicted_project):
    from barl.errors import ProjectError

    session = review.session
    session.openProject(a_predicted_project, readOnly=True)
    loaded = session.openCase(PREDICTED)
    review.correction.begin()
    Editor(an_editor.node, loaded).brush("edema", a_box(review.label.shape))
    with pytest.raises(ProjectError):
        review.correction.keep("reader")
    assert loaded.segmentation.GetAttribute("BARL.Unsaved") == "1"
    session.closeCase()
    assert loaded.segmentation.GetScene() is not None
    session.openProject(a_predicted_project)
    assert session.openCase(PREDICTED).segmentation is loaded.segmentation
    review.correction.begin()
    assert review.correction.isChanged(), "it is still the edit that is stored nowhere"
    assert review.correction.keep("reader").revision.kind == "draft"


def test_revert_shows_the_prediction_and_the_draft_stays_in_the_project(review, an_editor):
    correction, session = review.correction, review.session
    an_editor.brush("edema", a_box(review.label.shape))
    correction.store("draft", "reader")
    correction.revert()
    labelMap, _ = correction.snapshot().labelMap()
    assert np.array_equal(labelMap, review.label)
    segments = session.loaded.segmentation.GetSegmentation()
    assert (segments.GetNthSegment(0).GetName(), segments.GetNumberOfSegments()) == ("lesion", 3)
    assert correction.isChanged(), "the newest revision is the draft"
    assert correction.keep("reader").revision.kind == "draft"
    assert [revision.kind for revision in session.project.revisions.of(PREDICTED)] == ["prediction", "draft", "draft"]


def test_case_without_an_outline_can_be_drawn_from_nothing(review):
    import slicer

    session, correction = review.session, review.correction
    session.openCase(UNTOUCHED)
    correction.begin()
    assert correction.segmentation is not None and not correction.isChanged()
    assert correction.prediction() is None
    with pytest.raises(InputError, match="no prediction"):
        correction.revert()
    editor = Editor(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"), session.loaded)
    editor.logic.UpdateReferenceGeometryImage()
    assert not correction.isChanged(), "looking at it is no edit"
    box = a_box(review.label.shape)
    editor.brush("necrosis", box)
    stored = correction.store("accepted", "reader")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(stored.revision.path))), box * 7)
    assert stored.revision.details["correction"]["prediction"] is None


def test_saved_scene_comes_back_with_overlay_values_and_terminology(review, an_editor, tmp_path):
    import slicer
    from BARLSegmentationLib.logic.Outline import segmentTag
    from BARLSegmentationLib.logic.Overlay import Overlay

    loaded, box = review.session.loaded, a_box(review.label.shape)
    Overlay().show(loaded.uncertainty, 0.4, 0.25)
    an_editor.brush("edema", box)
    term = slicer.vtkSegment.GetTerminologyEntryTagName()
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    review.session.loaded = None
    reopened = review.session.openCase(PREDICTED)
    assert reopened.segmentation is segmentation, "found again, not loaded a second time"
    assert reopened.uncertainty.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.25)
    assert reopened.uncertainty.GetDisplayNode().GetColorNode().GetName() == "BARL uncertainty"
    review.correction.begin()
    labelMap, _ = review.correction.snapshot().labelMap()
    assert np.array_equal(labelMap, np.where(box, 4, review.label)), "values as in the table, though re-numbered"
    segment = segmentation.GetSegmentation().GetSegment(
        segmentation.GetSegmentation().GetSegmentIdBySegmentName("lesion")
    )
    assert "52988006" in segmentTag(segment, term)
