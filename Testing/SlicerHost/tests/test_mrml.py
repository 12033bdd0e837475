# SPDX-License-Identifier: Apache-2.0
"""The stand-in for Slicer's window: scene, files, views, node selectors, parameter nodes."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.host


@pytest.fixture
def a_volume(host):
    """A cube in a box, oblique and anisotropic."""
    import slicer

    voxels = np.zeros((20, 30, 40), np.float32)
    voxels[5:15, 10:20, 10:30] = 100
    matrix = np.array([[0.8, -0.2, 0, 5], [0.2, 0.8, 0, -7], [0, 0, 2, 9], [0, 0, 0, 1]])
    return slicer.util.addVolumeFromArray(voxels, ijkToRAS=matrix, name="box")


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".mha"])
def test_volume_comes_back_from_its_file(a_volume, tmp_path, ending):
    import slicer
    import vtk

    path = tmp_path / f"box{ending}"
    assert slicer.util.saveNode(a_volume, str(path), {})
    again = slicer.util.loadVolume(str(path), {"name": "again"})
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again), slicer.util.arrayFromVolume(a_volume))
    matrices = []
    for node in (a_volume, again):
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        matrices.append(slicer.util.arrayFromVTKMatrix(matrix))
    np.testing.assert_allclose(*matrices, atol=1e-4)
    assert again.GetName() == "again"


def test_missing_file_is_an_error(host, tmp_path):
    import slicer

    with pytest.raises(RuntimeError, match="does not exist"):
        slicer.util.loadVolume(str(tmp_path / "none.nrrd"))


def test_slice_views_show_the_volume(host, a_volume):
    import slicer

    slicer.util.setSliceViewerLayers(background=a_volume, fit=True)
    host.processEvents(0.2)
    for name in slicer.app.layoutManager().sliceViewNames():
        picture = slicer.app.layoutManager().sliceWidget(name).sliceView().grab().toImage()
        assert picture.pixelColor(picture.width() // 2, picture.height() // 2).lightness() > 200, name
        assert picture.pixelColor(3, picture.height() - 3).lightness() < 20, name


def test_wheel_scrolls_through_slices(host, a_volume):
    import qt
    import slicer

    slicer.util.setSliceViewerLayers(background=a_volume, fit=True)
    host.processEvents(0.1)
    widget = slicer.app.layoutManager().sliceWidget("Red")
    before = widget.mrmlSliceNode().GetSliceOffset()
    canvas = widget.sliceView().findChild(qt.QWidget)
    place = qt.QPointF(canvas.width / 2, canvas.height / 2)
    event = qt.QWheelEvent(
        place, place, qt.QPoint(), qt.QPoint(0, 120), qt.Qt.NoButton, qt.Qt.NoModifier, qt.Qt.NoScrollPhase, False
    )
    qt.QApplication.sendEvent(canvas, event)
    assert abs(widget.mrmlSliceNode().GetSliceOffset() - before) == pytest.approx(2.0, abs=1e-3), "one slice of 2 mm"
    assert widget.sliceController().sliceOffsetSlider().value == pytest.approx(widget.sliceLogic().GetSliceOffset())


@pytest.fixture
def a_segmentation(a_volume):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "outline")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(a_volume)
    voxels = (slicer.util.arrayFromVolume(a_volume) > 50).astype(np.uint8)
    for name, color in (("first", (0, 0, 1)), ("second", (0, 1, 0))):
        node.GetSegmentation().AddEmptySegment(name, name, color)
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, "first", a_volume)
    return node


def test_image_is_seen_through_a_segment_that_came_first(host, a_volume, a_segmentation):
    """Image and fill are blended whatever came first; a slice actor added late would leave the segment black inside."""
    import slicer

    slicer.util.setSliceViewerLayers(background=a_volume, fit=True)
    host.processEvents(0.2)
    picture = slicer.app.layoutManager().sliceWidget("Red").sliceView().grab().toImage()
    color = picture.pixelColor(picture.width() // 2, picture.height() // 2)
    assert color.blue() > 200 and 60 < color.red() < 200, color.name()


def test_surface_is_seen_in_3d_and_is_gone_with_the_scene(host, a_segmentation):
    import slicer

    def blue():
        view = slicer.app.layoutManager().threeDWidget(0).threeDView()
        slicer.util.resetThreeDViews()
        host.processEvents(0.2)
        picture = view.grab().toImage()
        points = [(x, y) for x in range(0, picture.width(), 4) for y in range(0, picture.height(), 4)]
        colors = [picture.pixelColor(x, y) for x, y in points]
        return sum(color.blue() > 120 and color.red() < 40 and color.green() < 40 for color in colors)

    a_segmentation.CreateClosedSurfaceRepresentation()
    assert blue() > 50
    slicer.mrmlScene.Clear(0)
    assert blue() == 0


def test_layouts_show_their_views(host):
    import slicer

    manager, kinds = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode
    heard = []
    manager.connect("layoutChanged(int)", heard.append)
    assert manager.sliceViewNames() == ("Yellow", "Green", "Red") and manager.threeDViewCount == 1
    manager.setLayout(kinds.SlicerLayoutFourUpPlotView)
    host.processEvents()
    assert manager.plotViewCount == 1 and manager.plotWidget(0).visible and not manager.threeDWidget(0).visible
    manager.layout = kinds.SlicerLayoutOneUpRedSliceView
    host.processEvents()
    shown = [name for name in manager.sliceViewNames() if manager.sliceWidget(name).visible]
    assert shown == ["Red"]
    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode").SetViewArrangement(kinds.SlicerLayoutFourUpView)
    host.processEvents()
    assert all(manager.sliceWidget(name).visible for name in ("Red", "Green", "Yellow"))
    assert heard == [
        kinds.SlicerLayoutFourUpPlotView,
        kinds.SlicerLayoutOneUpRedSliceView,
        kinds.SlicerLayoutFourUpView,
    ]
    assert manager.sliceWidget("Purple") is None and manager.threeDWidget(7) is None
    manager.disconnect("layoutChanged(int)", heard.append)


def test_plot_follows_its_nodes(host):
    import slicer

    def colored(widget):
        host.processEvents(0.1)
        picture = widget.grab().toImage()
        points = [(x, y) for x in range(0, picture.width(), 2) for y in range(0, picture.height(), 2)]
        return sum(picture.pixelColor(x, y).red() > picture.pixelColor(x, y).blue() + 100 for x, y in points)

    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.util.updateTableFromArray(table, np.array([[0, 1.0], [1, 3], [2, 2]]), ["x", "y"])
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "loss")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    series.SetPlotType(series.PlotTypeScatter)
    series.SetColor(1, 0, 0)
    series.SetLineWidth(4)
    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode")
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotViewNode")
    widget = slicer.qMRMLPlotWidget()
    widget.setMRMLScene(slicer.mrmlScene)
    widget.setMRMLPlotViewNode(view)
    widget.resize(400, 300)
    widget.show()
    assert colored(widget) == 0
    view.SetPlotChartNodeID(chart.GetID())
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    drawn = colored(widget)
    assert drawn > 50
    series.SetLineWidth(12)
    assert colored(widget) > 1.5 * drawn
    chart.RemoveAllPlotSeriesNodeIDs()
    assert colored(widget) == 0
    widget.setMRMLPlotViewNode(None)
    widget.deleteLater()


# ---------------------------------------------------------------------------------------------------------------------
# Selectors


@pytest.fixture
def a_selector(host):
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    heard = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: heard.append(node and node.GetName()))
    yield selector, heard
    selector.setMRMLScene(None)
    selector.deleteLater()


def add(name, kind="vtkMRMLScalarVolumeNode"):
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass(kind, name)


def test_selector_without_none_takes_what_there_is(host, a_selector):
    import slicer

    selector, heard = a_selector
    assert not selector.enabled and not selector.noneEnabled and selector.nodeTypes == ("vtkMRMLScalarVolumeNode",)
    selector.setMRMLScene(slicer.mrmlScene)
    assert selector.enabled and selector.currentNode() is None and selector.currentNodeID == ""
    first = add("first")
    assert selector.currentNode() is first and heard == ["first"]
    second = add("second")
    add("table", "vtkMRMLTableNode")
    assert selector.currentNode() is first and selector.nodeCount() == 2
    slicer.mrmlScene.RemoveNode(first)
    assert selector.currentNode() is second and heard == ["first", "second"]
    slicer.mrmlScene.Clear(0)
    assert selector.currentNode() is None and heard[-1] is None


def test_selector_with_none_waits_for_a_choice(host, a_selector):
    import slicer
    import vtk

    selector, heard = a_selector
    selector.noneEnabled = True
    selector.setMRMLScene(slicer.mrmlScene)
    node = add("first")
    assert selector.currentNode() is None and heard == []
    selector.setCurrentNode(node)
    selector.setCurrentNodeID("vtkMRMLNoSuchNode1")
    assert selector.currentNode() is None and heard == ["first", None]
    with pytest.raises(TypeError, match="VTK object"):
        selector.setCurrentNode("first")
    with pytest.raises(TypeError, match="requires a vtkMRMLNode, a vtkObject was provided"):
        selector.setCurrentNode(vtk.vtkObject())
    told = []
    selector.connect("currentNodeChanged(bool)", told.append)
    selector.setCurrentNode(node)
    selector.setCurrentNode(None)
    assert told == [True, False]
    selector.setCurrentNode(add("table", "vtkMRMLTableNode"))
    assert selector.currentNode() is None


def test_selector_filters_by_attribute_and_kind(host, a_selector):
    import qt
    import slicer

    selector, _ = a_selector
    selector.setMRMLScene(slicer.mrmlScene)
    add("labels", "vtkMRMLLabelMapVolumeNode")
    assert selector.nodeCount() == 1
    selector.showChildNodeTypes = False
    assert selector.nodeCount() == 0
    selector.addAttribute("vtkMRMLScalarVolumeNode", "Study.Role", "image")
    node = add("plain")
    assert selector.nodeCount() == 0
    node.SetAttribute("Study.Role", "image")
    add("another")  # nodes that are not listed are not watched: the attribute counts from the next change of the scene
    assert selector.nodeCount() == 1
    node.SetName("renamed")
    assert selector.findChild(qt.QComboBox).itemText(0) == "renamed"


def test_selector_makes_and_deletes_nodes(host, a_selector):
    import qt
    import slicer

    selector, _ = a_selector
    selector.renameEnabled = True
    selector.setMRMLScene(slicer.mrmlScene)
    combo = selector.findChild(qt.QComboBox)
    texts = [combo.itemText(index) for index in range(combo.count)]
    assert "Create new Volume" in texts and "Delete current Volume" in texts, texts
    combo.activated.emit(texts.index("Create new Volume"))
    assert selector.currentNode().GetName() == "Volume"
    texts = [combo.itemText(index) for index in range(combo.count)]
    combo.activated.emit(texts.index("Delete current Volume"))
    assert selector.currentNode() is None and slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode") is None


def test_table_of_segments_shows_and_changes_them(host, a_segmentation):
    import qt
    import slicer

    table = slicer.qMRMLSegmentsTableView()
    table.setMRMLScene(slicer.mrmlScene)
    table.setSegmentationNode(a_segmentation)
    assert table.segmentCount == 2 and table.segmentIDForRow(1) == "second" and table.rowForSegmentID("third") == -1
    segmentation, display = a_segmentation.GetSegmentation(), a_segmentation.GetDisplayNode()
    table.tableWidget().item(0, 0).setCheckState(qt.Qt.Unchecked)
    table.tableWidget().item(1, 3).setText("renamed")
    assert not display.GetSegmentVisibility("first")
    assert segmentation.GetSegment("second").GetName() == "renamed"
    table.setSelectedSegmentIDs(["second"])
    segmentation.AddEmptySegment("third", "third")
    assert table.segmentCount == 3 and table.selectedSegmentIDs() == ("second",)
    segmentation.RemoveSegment("second")
    assert table.selectedSegmentIDs() == ()
    table.setHideSegments(["third"])
    assert table.displayedSegmentIDs() == ("first",)
    table.setSegmentationNode(None)
    assert table.segmentCount == 0
    table.deleteLater()


FLAGS = """<ui version="4.0"><class>A</class>
<widget class="QWidget" name="A">
<widget class="ctkPathLineEdit" name="path"><property name="filters"><set>{}</set></property></widget>
</widget>
<customwidgets><customwidget><class>ctkPathLineEdit</class><extends>QWidget</extends></customwidget></customwidgets>
</ui>"""


def test_flags_in_a_ui_file_reach_the_widget(host):
    import ctk
    from slicerhost import uiloader

    kind = ctk.ctkPathLineEdit
    top = uiloader.build(FLAGS.format("ctkPathLineEdit::Dirs|ctkPathLineEdit::Readable"))
    assert top.path.filters == kind.Dirs | kind.Readable
    with pytest.raises(uiloader.UiError, match="Dir"):
        uiloader.build(FLAGS.format("ctkPathLineEdit::Dir"))


# ---------------------------------------------------------------------------------------------------------------------
# The application


def test_application_is_as_strict_as_slicer(host, tmp_path):
    import slicer

    with pytest.raises(AttributeError):
        slicer.app.foo = 3
    with pytest.raises(AttributeError):
        slicer.app.layoutManger()
    with pytest.raises(AttributeError):
        _ = slicer.modules.nosuch
    with pytest.raises(RuntimeError):
        slicer.util.getModule("NoSuch")
    assert slicer.util.selectModule("NoSuch") is None
    with pytest.raises(RuntimeError, match="not found"):
        slicer.util.loadUI(str(tmp_path / "none.ui"))


def test_window_says_that_it_is_not_slicer(host):
    import slicer

    window = slicer.util.mainWindow()
    assert window is host.window and "not 3D Slicer" in window.windowTitle
    assert slicer.util.showStatusMessage("hello") and window.statusBar().currentMessage() == "hello"


def test_saved_scene_brings_segments_and_their_display_back(host, a_volume, a_segmentation, tmp_path):
    import slicer

    a_segmentation.GetDisplayNode().SetSegmentOpacity("first", 0.5)
    expected = slicer.util.arrayFromSegmentBinaryLabelmap(a_segmentation, "first", a_volume)
    for name in ("scene.mrb", "folder"):
        assert slicer.util.saveScene(str(tmp_path / name), {})
    for path in (tmp_path / "scene.mrb", next((tmp_path / "folder").rglob("*.mrml"))):
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(str(path))
        node, volume = slicer.util.getNode("outline"), slicer.util.getNode("box")
        assert node.GetDisplayNode().GetSegmentOpacity2DFill("first") == 0.5
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "first", volume)
        np.testing.assert_array_equal(found, expected)
        assert slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetScene() is slicer.mrmlScene


def test_module_lives_through_choice_reload_and_end(host, tmp_path):
    """Setup once, enter and exit as its panel is shown or not, cleanup at the end."""
    import slicer

    (tmp_path / "Small.py").write_text(SMALL, encoding="utf-8")
    widget = host.loadModule(tmp_path / "Small.py")
    module = slicer.modules.small
    assert (module.title, module.path) == ("Small one", str(tmp_path / "Small.py"))
    assert slicer.util.getModuleLogic("Small").moduleName == "Small"
    assert widget.said == ["setup", "enter"] and slicer.modules.SmallWidget is widget
    slicer.util.selectModule("Volumes")
    assert widget.said == ["setup", "enter", "exit"]
    slicer.util.selectModule("Small")
    host.unloadModule("Small")
    assert widget.said == ["setup", "enter", "exit", "enter", "exit", "cleanup"]
    assert not hasattr(slicer.modules, "small")


SMALL = """
import slicer
from slicer.ScriptedLoadableModule import *

class Small(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "Small one"

class SmallWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.said = ["setup"]
        self.logic = SmallLogic()

    def enter(self):
        self.said.append("enter")

    def exit(self):
        self.said.append("exit")

    def cleanup(self):
        self.said.append("cleanup")

class SmallLogic(ScriptedLoadableModuleLogic):
    pass
"""
