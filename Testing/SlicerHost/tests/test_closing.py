# SPDX-License-Identifier: Apache-2.0
"""What goes in which order when a scene closes, a module is left or Slicer quits, and what crashes Slicer there."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.host

MODULE = """
import qt, slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget

class Painter(ScriptedLoadableModule):
    pass

class PainterWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        super().setup()
        self.heard = []
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        self.layout.addWidget(self.editor)

    def cleanup(self):
        self.heard.append(hasattr(slicer.modules, "painter"))
        try:
            self.resourcePath("UI/Painter.ui")
        except AttributeError as error:
            self.heard.append(str(error))
"""


@pytest.fixture
def a_painter(host, tmp_path):
    """A module with an editor in which Paint is active."""
    import slicer

    (tmp_path / "Painter.py").write_text(MODULE, encoding="utf-8")
    widget = host.loadModule(tmp_path / "Painter.py")
    volume = slicer.util.addVolumeFromArray(np.zeros((20, 30, 30), np.float32), name="scan")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "outline")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.GetSegmentation().AddEmptySegment("lesion", "lesion")
    widget.editor.setSegmentationNode(segmentation)
    widget.editor.setSourceVolumeNode(volume)
    widget.editor.setActiveEffectByName("Paint")
    host.processEvents(0.1)
    yield widget
    if host.app.moduleManager().module("Painter") is not None:
        widget.editor.setActiveEffect(None)
        host.unloadModule("Painter")


@pytest.fixture
def complaints(host):
    """What was complained about; the test does not fail for it."""
    from slicerhost import pythonqt

    yield pythonqt.complaints
    pythonqt.complaints.clear()


def test_a_brush_in_a_closing_scene_is_the_crash_of_slicer(host, a_painter, complaints):
    host.core.scene.Clear(0)
    assert len(complaints) == 1 and "Slicer crashes here: Paint is active" in complaints[0]


def test_an_effect_that_ends_when_the_scene_begins_to_close_is_quiet(host, a_painter, complaints):
    scene, editor = host.core.scene, a_painter.editor

    def close(caller, event):
        editor.setSegmentationNode(None)
        editor.removeViewObservations()

    tag = scene.AddObserver(scene.StartCloseEvent, close)
    scene.Clear(0)
    scene.RemoveObserver(tag)
    assert complaints == [] and editor.activeEffect() is None


def test_an_effect_outlives_its_segmentation(host, a_painter):
    """As in Slicer, where the name of the effect stays in the editor's node."""
    host.core.scene.RemoveNode(a_painter.editor.segmentationNode())
    assert a_painter.editor.activeEffect().name == "Paint"


@pytest.mark.parametrize("ended", [False, True])
def test_a_brush_that_stays_when_its_editor_is_left(host, a_painter, complaints, ended):
    if ended:
        a_painter.editor.setActiveEffect(None)
    a_painter.editor.visible = False
    host.processEvents(0.05)
    assert len(complaints) == (not ended)
    assert ended or "Paint stays active" in complaints[0]


def test_the_module_has_no_path_when_cleanup_runs_at_quit(host, a_painter):
    a_painter.editor.setActiveEffect(None)
    host.unloadModule("Painter")
    there, error = a_painter.heard
    assert not there and "painter" in error


def test_changed_nodes_are_what_slicer_asks_about_at_quit(host, tmp_path):
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.float32), name="scan")
    assert "scan" in host.unsavedNodes()
    assert slicer.util.saveNode(volume, str(tmp_path / "scan.nrrd"), {})
    before = host.unsavedNodes()
    slicer.util.arrayFromVolume(volume)[:] = 1
    slicer.util.arrayFromVolumeModified(volume)
    assert set(host.unsavedNodes()) >= {*before, "scan"}


def test_what_slicer_asks_when_a_person_quits_or_closes_the_scene(host):
    import slicer

    assert host.askedAtQuit() == host.askedAtCloseScene() == ()
    slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.float32), name="scan")
    assert "scan" in host.askedAtQuit() and host.window.visible
    assert "scan" in host.askedAtCloseScene()
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []
