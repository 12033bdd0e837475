# SPDX-License-Identifier: Apache-2.0
"""Stand-ins of Slicer's Python files: parameter nodes with their widgets, packaging, samples, SimpleITK images."""

import enum
import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

pytestmark = pytest.mark.host


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.fixture
def a_wrapper(host):
    """A class with one parameter of each kind."""
    import slicer
    from slicer.parameterNodeWrapper import Choice, Default, Minimum, WithinRange, parameterNodeWrapper

    class Parameters:
        text: str = "abc"
        count: int = 3
        share: Annotated[float, WithinRange(0, 1)] = 0.25
        size: Annotated[int, Minimum(4)]
        on: bool = True
        color: Color = Color.BLUE
        method: Annotated[str, Choice(["fast", "good"])]
        folder: Path
        names: Annotated[list[str], Default(["x"])]
        limit: int | None
        volume: slicer.vtkMRMLScalarVolumeNode

        def total(self):
            return self.count + self.size

    return parameterNodeWrapper(Parameters)


@pytest.fixture
def a_node(host):
    import slicer

    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
    node.UnRegister(None)
    node.SetSingletonTag("StandinTest")
    return slicer.mrmlScene.AddNode(node)


def test_defaults_are_stored_in_slicers_text_forms(a_wrapper, a_node):
    parameters = a_wrapper(a_node)
    assert (parameters.text, parameters.count, parameters.share, parameters.on) == ("abc", 3, 0.25, True)
    assert (parameters.size, parameters.color, parameters.method) == (4, Color.BLUE, "fast")
    assert (parameters.folder, list(parameters.names), parameters.limit, parameters.volume) == (
        Path(),
        ["x"],
        None,
        None,
    )
    stored = {name: a_node.GetParameter(name) for name in a_node.GetParameterNames()}
    expected = {"count": "3", "share": "0.25", "on": "True", "color": "BLUE", "names.len": "1", "names.0": "x"}
    assert expected.items() <= stored.items() and stored["limit.1"] == "True"
    assert parameters.total() == 7 and a_wrapper(a_node) == parameters


def test_values_are_checked(a_wrapper, a_node):
    parameters = a_wrapper(a_node)
    for name, value, error in (
        ("count", "3", TypeError),
        ("count", 3.5, TypeError),
        ("share", 1.5, ValueError),
        ("size", 3, ValueError),
        ("method", "slow", ValueError),
        ("text", None, TypeError),
        ("color", "red", TypeError),
    ):
        with pytest.raises(error):
            setattr(parameters, name, value)
    with pytest.raises(ValueError, match="Cannot find a param"):
        parameters.getValue("nothing")


def test_values_survive_a_saved_scene(a_wrapper, a_node, host, tmp_path):
    import slicer

    parameters = a_wrapper(a_node)
    parameters.text, parameters.share, parameters.color, parameters.limit = "ü (1)", 0.125, Color.RED, 7
    parameters.names = ["a", "b"]
    parameters.names.append("c")
    parameters.volume = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16), name="scan")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"), {})
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    again = a_wrapper(slicer.mrmlScene.GetSingletonNode("StandinTest", "vtkMRMLScriptedModuleNode"))
    assert (again.text, again.share, again.color, again.limit) == ("ü (1)", 0.125, Color.RED, 7)
    assert list(again.names) == ["a", "b", "c"] and again.volume.GetName() == "scan"


def test_widgets_and_parameters_follow_each_other(a_wrapper, a_node):
    import ctk
    import qt
    import slicer

    parameters = a_wrapper(a_node)
    widgets = {
        "text": qt.QLineEdit(),
        "count": qt.QSpinBox(),
        "share": ctk.ctkSliderWidget(),
        "on": qt.QCheckBox(),
        "color": qt.QComboBox(),
        "method": qt.QComboBox(),
        "volume": slicer.qMRMLNodeComboBox(),
    }
    widgets["volume"].noneEnabled = True
    widgets["volume"].nodeTypes = ["vtkMRMLScalarVolumeNode"]
    widgets["volume"].setMRMLScene(slicer.mrmlScene)
    tag = parameters.connectParametersToGui(widgets)
    assert widgets["text"].text == "abc" and widgets["share"].maximum == 1 and widgets["on"].checked
    assert widgets["color"].currentText == "BLUE" and widgets["method"].count == 2

    widgets["text"].text, widgets["count"].value, widgets["share"].value = "typed", 5, 0.75
    widgets["on"].checked = False
    widgets["color"].currentIndex, widgets["method"].currentIndex = 0, 1
    volume = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16))
    widgets["volume"].setCurrentNode(volume)
    assert (parameters.text, parameters.count, parameters.share, parameters.on) == ("typed", 5, 0.75, False)
    assert (parameters.color, parameters.method, parameters.volume) == (Color.RED, "good", volume)

    parameters.text, parameters.count, parameters.volume = "set", 9, None
    assert (widgets["text"].text, widgets["count"].value, widgets["volume"].currentNode()) == ("set", 9, None)
    parameters.disconnectGui(tag)
    parameters.text = "not shown"
    widgets["count"].value = 11
    assert widgets["text"].text == "set" and parameters.count == 9


def test_widgets_that_slicer_refuses_are_refused(a_wrapper, a_node):
    import ctk
    import qt

    parameters = a_wrapper(a_node)
    for name, widget in (("text", qt.QTextBrowser()), ("count", qt.QLineEdit()), ("text", qt.QComboBox())):
        with pytest.raises(RuntimeError):
            parameters.connectParametersToGui({name: widget})
    with pytest.raises(RuntimeError, match="unbounded"):
        parameters.connectParametersToGui({"count": ctk.ctkSliderWidget()})


def test_packaging_asks_records_and_installs_nothing(host, monkeypatch, tmp_path):
    import slicer
    from slicer import packaging

    assert packaging.pip_check("numpy>=1") and not packaging.pip_check("numpy>=99")
    assert not packaging.pip_check(["numpy", "surely-not-installed-here"])
    (tmp_path / "requirements.txt").write_text("# why\nnumpy>=1\n\n-r other\nscipy\n", encoding="utf-8")
    wanted = packaging.load_requirements(tmp_path / "requirements.txt")
    assert [str(one) for one in wanted] == ["numpy>=1", "scipy"]

    monkeypatch.setattr(packaging, "hidden", {"scipy"})
    monkeypatch.setattr(packaging, "calls", [])
    packaging.pip_ensure(wanted)
    assert packaging.calls == [], "nothing is installed while Slicer tests"
    answers = iter([False, True])
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *a, **k: next(answers))
    with pytest.raises(RuntimeError, match="declined"):
        packaging.pip_ensure(wanted, skip_in_testing=False)
    packaging.pip_ensure(wanted, skip_in_testing=False)
    assert packaging.calls == [("install", ["scipy"])]


def test_samples_come_from_files_only_and_are_checked(host, tmp_path):
    import SampleData
    import slicer

    path = tmp_path / "scan.nrrd"
    volume = slicer.util.addVolumeFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    assert slicer.util.saveNode(volume, str(path), {})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def register(uri, checksum):
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="Test", sampleName="Scan", uris=uri, fileNames="scan.nrrd", nodeNames="Scan", checksums=checksum
        )

    register(path.as_uri(), f"SHA256:{digest}")
    node = SampleData.downloadSample("Scan")
    assert node.GetName() == "Scan" and slicer.util.arrayFromVolume(node).sum() == 276
    register(path.as_uri(), "SHA256:" + "0" * 64)
    with pytest.raises(RuntimeError, match="Checksum"):
        SampleData.downloadSample("Scan")
    register("https://example.org/scan.nrrd", None)
    with pytest.raises(RuntimeError, match="does not download"):
        SampleData.downloadSample("Scan")


def test_simpleitk_images_keep_their_geometry(host):
    import SimpleITK as sitk
    import sitkUtils

    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32))
    c, s = np.cos(0.4), np.sin(0.4)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    image.SetSpacing((0.5, 1.5, 3))
    image.SetOrigin((10, -20, 30))
    node = sitkUtils.PushVolumeToSlicer(image, name="pushed")
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    again = sitkUtils.PullVolumeFromSlicer("pushed")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(image))
    for index in ((0, 0, 0), (5, 4, 3)):
        expected = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(again.TransformIndexToPhysicalPoint(index), expected, atol=1e-9)
        x, y, z = expected * (-1, -1, 1)
        assert bounds[0] <= x <= bounds[1] and bounds[2] <= y <= bounds[3] and bounds[4] <= z <= bounds[5]
