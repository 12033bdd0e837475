# SPDX-License-Identifier: Apache-2.0
"""The module as a whole: session and scene in step, closing, reloading, a lost drive, sample data, self-test."""

from __future__ import annotations

import importlib
import io
import logging
import shutil
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel, Code, Label, Terminology
from barl.project.store import Project

MODULE = Path(__file__).resolve().parents[2] / "BARLSegmentation"
SCT = Terminology(Code("SCT", "49755003", "Morphologically Altered Structure"), Code("SCT", "4147007", "Mass"))
LABELS = [Label(1, "mass", (255, 0, 0), SCT), Label(3, "edema", (0, 128, 255))]

host_only = pytest.mark.host


@pytest.fixture
def module(a_module):
    return a_module


@pytest.fixture
def a_project(tmp_path):
    """Two outlined cases and an untouched one; the first was predicted as well, with uncertainty."""
    rng = np.random.default_rng(3)
    label = np.zeros((8, 10, 12), np.uint8)
    label[2:5, 3:6, 4:8], label[6, 2:4, 2:4] = 1, 3
    with Project.create(tmp_path / "project", "study", LABELS, [Channel("T1")]) as project:
        for name in ("one", "two", "three"):
            image = sitk.GetImageFromArray(rng.normal(100, 10, label.shape).astype(np.float32))
            outline = sitk.GetImageFromArray(label) if name != "three" else None
            project.cases.add(name, [image], label=outline)
        unsure = sitk.GetImageFromArray(rng.random(label.shape).astype(np.float32))
        project.revisions.store(
            project.cases.get("one").id, sitk.GetImageFromArray(label), "prediction", author="model", uncertainty=unsure
        )
    return tmp_path / "project"


@pytest.fixture
def modules_as_before(module):
    """Reloading brings new classes of errors; files read later must meet the ones that they imported."""
    import slicer

    def ours():
        return [name for name in sys.modules if name.partition(".")[0] in ("BARLSegmentationLib", "barl")]

    before = {name: sys.modules[name] for name in ours()}
    yield
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)
    slicer.util.reloadScriptedModule("BARLSegmentation")


def case_ids(session):
    return {case.name: case.id for case in session.cases()}


# ---------------------------------------------------------------------------------------------------------------------
# Signal and session


def test_a_listener_that_fails_keeps_nobody_from_hearing(caplog):
    from BARLSegmentationLib.logic.Signal import Signal

    signal, heard = Signal(), []

    def fail(*_arguments):
        raise RuntimeError

    signal.connect(fail)
    signal.connect(heard.append)
    signal.connect(heard.append)
    with caplog.at_level(logging.ERROR):
        signal.emit(1)
    assert heard == [1] and "a listener failed" in caplog.text
    signal.disconnect(heard.append)
    signal.disconnect(heard.append)
    signal.emit(2)
    assert heard == [1]


@host_only
def test_open_case_shows_and_close_removes_only_its_nodes(module, a_project):
    import slicer

    session = module.session
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "the user's own")
    session.openProject(a_project)
    before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLDisplayableNode")
    ids = case_ids(session)
    loaded = session.openCase(ids["one"])
    assert session.case().name == "one" and session.caseId == ids["one"]
    assert loaded.uncertainty.GetAttribute("BARL.Role") == "uncertainty"
    assert loaded.segmentation.GetAttribute("BARL.Revision") == loaded.revision.id
    assert loaded.revision.kind == "accepted", "a later prediction does not hide the accepted outline"
    uncertainty = slicer.util.arrayFromVolume(loaded.uncertainty)
    assert 0 <= uncertainty.min() < uncertainty.max() <= 1
    second = session.openCase(ids["two"])
    assert loaded.volumes[0].GetScene() is None and second.volumes[0].GetScene() is not None
    session.closeCase()
    assert session.loaded is None and session.case() is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLDisplayableNode") == before
    assert own.GetScene() is not None
    session.closeProject()


@host_only
def test_segments_carry_the_terminology(module, a_project):
    import slicer
    import vtk

    session = module.session
    session.openProject(a_project)
    segmentation = session.openCase(case_ids(session)["one"]).segmentation.GetSegmentation()
    segment, text = segmentation.GetNthSegment(0), vtk.reference("")
    assert segment.GetTag(segment.GetTerminologyEntryTagName(), text)
    entry = slicer.vtkSlicerTerminologyEntry()
    assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(str(text), entry)
    assert entry.GetCategoryObject().GetCodeValue() == "49755003"
    assert entry.GetTypeObject().GetCodingSchemeDesignator() == "SCT"
    assert entry.GetTypeObject().GetCodeMeaning() == "Mass"


@host_only
def test_what_goes_wrong_is_a_sentence_with_a_sign(module, a_project, tmp_path):
    session, ui = module.session, module.ui
    with session.reporting() as outcome:
        session.openProject(tmp_path / "nowhere")
    assert outcome.failed
    assert "no project folder" in ui.statusLabel.text and not ui.statusIconLabel.isHidden()
    assert session.ask(session.openCase, "one", otherwise="nothing") == "nothing"
    assert "No project is open" in ui.statusLabel.text
    with session.reporting() as outcome:
        session.openProject(a_project)
    assert not outcome.failed and session.project is not None
    session.status("Fine.")
    assert ui.statusLabel.text == "Fine." and ui.statusIconLabel.isHidden()

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    assert session.ask(full, otherwise=[]) == []
    assert ui.statusLabel.text.startswith("No space left on device.")


@host_only
def test_an_edit_that_could_not_be_stored_stays_in_the_scene(module, a_project):
    session = module.session
    session.openProject(a_project)
    ids = case_ids(session)
    node = session.openCase(ids["two"]).segmentation

    def disk_is_full():
        if session.loaded is not None and session.loaded.segmentation is node:
            node.SetAttribute("BARL.Unsaved", "1")

    session.beforeClose.connect(disk_is_full)
    try:
        session.openCase(ids["one"])
        assert node.GetScene() is not None
        assert "stays in the scene" in module.ui.statusLabel.text
    finally:
        session.beforeClose.disconnect(disk_is_full)
        node.RemoveAttribute("BARL.Unsaved")


@host_only
def test_folder_that_cannot_be_written_is_opened_for_reading(module, a_project, monkeypatch):
    from barl.project import store

    # The tests may run as a user whom no permission stops.
    monkeypatch.setattr(store, "is_writable", lambda folder: False)
    session = module.session
    session.openProject(a_project)
    assert session.project.read_only and "for reading only" in module.ui.statusLabel.text
    predict = module.panels["Predict"]
    predict.ui.inputComboBox.currentIndex = 2
    assert not predict.ui.applyButton.enabled and "reading only" in predict.ui.applyButton.toolTip


# ---------------------------------------------------------------------------------------------------------------------
# Scene and module


@host_only
def test_saved_scene_reopens_project_and_case(module, a_project, tmp_path):
    import slicer

    session = module.session
    session.openProject(a_project)
    ids = case_ids(session)
    session.openCase(ids["one"])
    module.panels["Train"].parameterNode.minutes = 77.0
    module.panels["Train"].parameterNode.device = "cpu"
    saved = tmp_path / "saved.mrb"
    assert slicer.util.saveScene(str(saved))
    slicer.mrmlScene.Clear(0)
    assert session.project is None and session.loaded is None
    slicer.util.loadScene(str(saved))  # raises if it fails
    node = module.panels["Train"].parameterNode
    assert (node.minutes, node.device, node.projectFolder, node.caseId) == (77.0, "cpu", str(a_project), ids["one"])
    assert session.caseId == ids["one"]
    assert node.segmentation is session.loaded.segmentation
    volumes = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetAttribute("BARL.Case")]
    assert len(volumes) == 2, "scan and uncertainty were found again, not read again"


@host_only
def test_project_on_a_removed_drive_is_told_and_remembered(module, a_project):
    import slicer

    session = module.session
    session.openProject(a_project)
    session.openCase(case_ids(session)["one"])
    away = a_project.with_name("away")
    shutil.move(a_project, away)
    try:
        module.enter()
        for panel in module.panels.values():
            panel.update()
        assert session.ask(session.openCase, "case_0002", otherwise=None) is None
        assert not module.ui.statusIconLabel.isHidden()
        slicer.mrmlScene.Clear(0)
        node = module.panels["Train"].parameterNode
        node.projectFolder, node.caseId = str(a_project), "case_0001"
        module.enter()
        assert "Check the path and that the drive is connected" in module.ui.statusLabel.text
        assert node.projectFolder == str(a_project), "the drive may come back"
    finally:
        shutil.move(away, a_project)
    module.enter()
    assert session.caseId == "case_0001"


@host_only
def test_reload_keeps_project_and_case_and_brings_fresh_code(modules_as_before, module, a_project):
    import slicer

    session = module.session
    session.openProject(a_project)
    session.openCase(case_ids(session)["two"])
    volume = session.loaded.volumes[0]
    old = sys.modules["BARLSegmentationLib.logic.Session"]
    module.onReload()
    fresh = slicer.modules.BARLSegmentationWidget
    assert fresh is not module
    assert sys.modules["BARLSegmentationLib.logic.Session"] is not old
    assert fresh.session.case().name == "two"
    assert fresh.session.loaded.volumes[0] is volume
    assert session.project is None and not module.worker.running
    fresh.session.closeProject()


@host_only
def test_quitting_during_a_request_ends_the_worker_quietly(module, a_project, caplog):
    import slicer
    from barl.worker.messages import SayHello

    session, errors = module.session, []
    session.openProject(a_project)
    module.worker.request(SayHello(), onError=errors.append)
    end = time.monotonic() + 60
    while not module.worker.running and time.monotonic() < end:
        slicer.app.processEvents()
    started = time.monotonic()
    module.cleanup()
    assert time.monotonic() - started < 10, "2 s where nothing else is running"
    assert not module.worker.running and len(errors) == 1
    assert session.project is None
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    slicer.util.reloadScriptedModule("BARLSegmentation")


@host_only
def test_module_starts_without_torch(module):
    import qt
    import slicer

    already = "torch" in sys.modules  # by tests of the engine in this process
    slicer.util.reloadScriptedModule("BARLSegmentation")
    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    parent.setMRMLScene(slicer.mrmlScene)
    again = type(slicer.modules.BARLSegmentationWidget)(parent)
    again.setup()
    again.cleanup()
    assert already or "torch" not in sys.modules


# ---------------------------------------------------------------------------------------------------------------------
# Sample data and self-test


@host_only
def test_samples_are_registered_with_checksum_and_thumbnail(module):
    import SampleData

    sys.modules["BARLSegmentation"].registerSampleData()
    sources = SampleData.SampleDataLogic.sampleDataSourcesByCategory("BARL")
    assert {source.sampleName for source in sources} >= {"BARLHippocampus", "BARLHead"}
    for source in sources:
        algorithm, digest = source.checksums[0].split(":")
        assert len(bytes.fromhex(digest)) == {"SHA256": 32, "MD5": 16}[algorithm]
        assert source.uris[0].startswith("https://")
        head = Path(source.thumbnailFileName).read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == (260, 280)


@host_only
def test_sample_project_takes_one_scan_of_each_subject(module, tmp_path):
    from barl.errors import InputError
    from BARLSegmentationLib.logic.SampleProject import makeProject

    archive = tmp_path / "Task04_Hippocampus.tar"
    with tarfile.open(archive, "w") as tar:
        for number in (1, 2, 3, 6, 8):
            array = np.zeros((6, 7, 8), np.uint8)
            array[2:4, 2:4, 2:4] = 1
            for part in ("images", "labels"):
                path = tmp_path / "part.nii.gz"
                sitk.WriteImage(sitk.GetImageFromArray(array * (1 if part == "labels" else number)), path)
                data = path.read_bytes()
                info = tarfile.TarInfo(f"Task04_Hippocampus/{part}Tr/hippocampus_{number:03d}.nii.gz")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        evil = tarfile.TarInfo("../evil.nii.gz")
        tar.addfile(evil, io.BytesIO())
    makeProject(archive, tmp_path / "project", outlined=1, heldOut=1, untouched=2)
    with Project.open(tmp_path / "project", read_only=True) as project:
        cases = project.cases.all()
        assert [case.name[-3:] for case in cases] == ["001", "003", "006", "008"]
        assert [case.state for case in cases] == ["accepted", "accepted", "new", "new"]
        assert [case.held_out for case in cases] == [False, True, False, False]
    assert not (tmp_path.parent / "evil.nii.gz").exists()
    with pytest.raises(InputError):
        makeProject(archive, tmp_path / "another", outlined=9)


@host_only
def test_sample_project_that_cannot_be_made_leaves_nothing_and_is_told(module, tmp_path, monkeypatch):
    import slicer
    from barl import hippocampus
    from BARLSegmentationLib.logic import SampleProject

    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", told.append)
    monkeypatch.setattr(type(slicer.app), "defaultScenePath", str(tmp_path))
    source = SimpleNamespace(fileNames=["a.tar"], uris=["file:///nowhere/a.tar"], checksums=[f"MD5:{'0' * 32}"])
    assert SampleProject.openSampleProject(source) == [] and "could not be downloaded" in told[-1]

    monkeypatch.setattr(slicer.util, "downloadFile", lambda *_arguments: True)
    scans = [tmp_path / "scans" / f"hippocampus_{number:03d}.nii.gz" for number in range(24)]
    scans[0].parent.mkdir()
    for scan in scans:
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((6, 7, 8), np.float32)), scan)
    pairs = [(scan, tmp_path / "none.nii.gz") for scan in scans]
    monkeypatch.setattr(hippocampus, "unpack", lambda *_arguments: None)
    monkeypatch.setattr(hippocampus, "one_scan_per_subject", lambda _folder: pairs)
    assert SampleProject.openSampleProject(source) == [] and "could not be made" in told[-1]
    folder = tmp_path / "BARL hippocampus sample"
    assert not folder.exists()

    pairs[:] = [(scan, scan) for scan in scans]
    assert SampleProject.openSampleProject(source) == [str(folder)]
    assert module.session.project.folder == folder and len(module.session.cases()) == 24


@host_only
@pytest.mark.parametrize(
    "name", ["test_loop", "test_panels", "test_scene", pytest.param("test_predict", marks=pytest.mark.slow)]
)
def test_self_test_passes(module, name):
    import slicer

    test = importlib.import_module("BARLSegmentation").BARLSegmentationTest(name)
    result = test.defaultTestResult()
    test.run(result)
    assert result.wasSuccessful(), result.errors + result.failures
    for kind in ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode"):
        assert slicer.util.getNodesByClass(kind) == [], "the test removes what it has made"


@host_only
def test_slicer_side_never_imports_torch(module, a_project):
    already = "torch" in sys.modules
    module.session.openProject(a_project)
    module.session.openCase(case_ids(module.session)["one"])
    for panel in module.panels.values():
        panel.update()
    assert already or "torch" not in sys.modules


def test_icons_are_drawn_by_our_script(repository, tmp_path):
    """Drawn, not borrowed: the script gives the very pictures that lie in the repository."""
    plt = pytest.importorskip("matplotlib.pyplot")
    spec = importlib.util.spec_from_file_location("draw", repository / "Resources" / "Icons" / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    draw.draw(tmp_path / "icon.png")
    ours = plt.imread(tmp_path / "icon.png")
    for path in (MODULE / "Resources/Icons/BARLSegmentation.png", repository / "Resources/Icons/BARLExtension.png"):
        assert np.abs(plt.imread(path) - ours).mean() < 0.02, path


@host_only
def test_no_hint_depends_on_the_present_width(a_review_panel):
    """ctkCollapsibleButton makes a hint the least width: one that follows the width grows without end.

    A table that was never shown has the hint -1.
    """
    import qt
    import slicer

    module = a_review_panel.moduleWidget
    root = module.panels["Review"].widget.window()
    grown = []
    for name, panel in module.panels.items():
        widgets = [panel.widget, *slicer.util.findChildren(panel.widget)]
        widgets = [widget for widget in widgets if widget.isWidgetType() and not widget.isWindow()]
        before = [widget.sizeHint.width() for widget in widgets]
        size = panel.widget.size
        panel.widget.resize(qt.QSize(1600, size.height()))
        slicer.app.processEvents()
        after = [widget.sizeHint.width() for widget in widgets]
        grown += [
            f"{name}: {widget.name or widget.className()}"
            for widget, old, new in zip(widgets, before, after, strict=True)
            if new > max(old, 0) and widget.sizePolicy.horizontalPolicy() != qt.QSizePolicy.Ignored
        ]
        panel.widget.resize(size)
    assert root is not None and grown == []
