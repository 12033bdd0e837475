# SPDX-License-Identifier: Apache-2.0
"""The tutorial, done as docs/tutorial.md tells it, on simulated scans; it takes the tutorial's pictures.

They go to a temporary folder, and the scans are small and the trainings short. To renew those of the tutorial
(minutes): BARL_TUTORIAL=docs/images pytest Testing/Python/test_module_tutorial.py
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barldriver.drawing import VIEWS, outlineSlice, planeOf, pressKey

pytestmark = pytest.mark.host
TEXT = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
LONG = os.environ.get("BARL_TUTORIAL", "")
OUTLINED, UNTOUCHED, HELD_OUT, ITERATIONS = (4, 4, 6, (450, 150)) if LONG else (2, 2, 2, (8, 8))
MINUTES = 16 if LONG else 1  # that a training may take; it is finished before if its iterations are done
SHOWN = ("drawn", "filled", "slice", "next", "spread", "scene", "project", "add", "train", "proposed")
SHOWN += ("review", "correct", "compare", "again")
LARGEST_PICTURE, ALL_PICTURES = 200_000, 1_500_000  # bytes: the extension's checkout stays small


def place(tmp_path_factory, name: str) -> Path:
    """An empty folder; for the tutorial's own pictures, in which it is seen, of a name that says nothing."""
    if not LONG:
        return tmp_path_factory.mktemp(name)
    folder = Path(tempfile.gettempdir()) / "barl-tutorial" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Folders of simulated scans and outlines; in the short run the middle of each scan."""
    pytest.importorskip("torch", reason="the engine's packages are not installed")
    pytest.importorskip("nilearn", reason="nilearn, which carries the MNI152 scan, is not installed")
    from barl.demo.simulate import simulate_cases
    from barl.images.writing import write_image

    folder = place(tmp_path_factory, "scans")
    pairs = simulate_cases(folder / "all", OUTLINED + UNTOUCHED + HELD_OUT, seed=3)
    for number, pair in enumerate(pairs):
        held = number >= OUTLINED + UNTOUCHED
        for kind, path in zip(("images", "outlines"), pair, strict=True):
            target = folder / ("held-out" if held else "scans") / kind / f"head {number + 1:02d}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            if held or number < OUTLINED or kind == "images":
                image = sitk.ReadImage(str(path))
                write_image(image if LONG else image[18:58, 30:70, 20:52], target)
    return folder


@pytest.fixture(scope="module")
def pictures(host, scans, tmp_path_factory) -> dict[str, Path]:
    """The tutorial's way; the pictures by name."""
    from barldriver.loop import Loop
    from slicerhost import display
    from slicerhost.clicks import click

    image = pytest.importorskip("PIL.Image", reason="Pillow, which comes with matplotlib, is not installed")
    folder = Path(LONG) if LONG else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, Path] = {}

    def take(name: str) -> None:
        if name in SHOWN and (name not in taken or name == "review"):  # the first time, but the last of the hot-spots
            taken[name] = folder / f"tutorial-{name}.png"
            few_colors(image.open(io.BytesIO(display.picture(host)))).save(taken[name], optimize=True)

    host.window.resize(1366, 768)
    first_outline(Loop(host), scans, place(tmp_path_factory, "outline") / "lesions", take)
    loop = Loop(host, patience=3000.0 if LONG else 600.0, moment=take)
    try:
        with_scene(loop, scans / "scans", place(tmp_path_factory, "first") / "lesions")
        take("scene")
        without_scene(loop)
        loop.newProject(place(tmp_path_factory, "project") / "lesions", "Lesions", ["lesion"], "T1")
        loop.addFolder(scans / "scans" / "images", scans / "scans" / "outlines")
        loop.addFolder(scans / "held-out" / "images", scans / "held-out" / "outlines", heldOut=True)
        assert len(loop.session.cases()) == OUTLINED + UNTOUCHED + HELD_OUT, loop.status
        loop.open("head 01")
        assert loop.train(ITERATIONS[0], minutes=MINUTES).state == "finished"
        loop.predictAll()
        choose_case(loop, scans / "all" / "labels")
        loop.openNext()
        spot = hotspot_in_lesion(loop, scans / "all" / "labels")
        click(loop.section("Review").onlyWhereUnsureCheckBox)
        loop.settle()
        show_3d(loop)
        x, y, z = spot.position
        loop.paint("lesion", (x, y, z), (x + 2.0, y, z))
        loop.accept("reader 1")
        assert loop.session.case().state == "accepted", loop.status
        assert loop.train(ITERATIONS[1], minutes=MINUTES).state == "finished"
        loop.promote()
        loop.section("Cases")
        take("again")
    finally:
        loop.panels["Review"].ui.onlyWhereUnsureCheckBox.checked = False
        loop.session.closeProject()
        loop.module.worker.close()
    return taken


def with_scene(loop, scans: Path, folder: Path) -> None:
    """Two scans in the scene, one named as Slicer names those from DICOM, and the form that begins with them."""
    import slicer

    first, second = [slicer.util.loadVolume(str(path)) for path in sorted((scans / "images").iterdir())[:2]]
    second.SetAttribute("DICOM.instanceUIDs", "1.2")
    second.SetName("6: AX T1")
    outline = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    outline.CreateDefaultDisplayNodes()
    outline.SetReferenceImageGeometryParameterFromVolumeNode(first)
    segment = outline.GetSegmentation().AddEmptySegment("", "lesion", (0.9, 0.6, 0))
    drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(sorted((scans / "outlines").iterdir())[0])))
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, outline, segment, first)
    slicer.util.setSliceViewerLayers(background=first, fit=True)
    panel = loop.panels["Project"]
    loop.section("Project").newGroupBox.collapsed = False
    panel.ui.newFolderPathLineEdit.currentPath = str(folder)
    panel.scene.segmentationSelector.setCurrentNode(outline)
    for _level in range(20):
        slicer.app.processEvents()


def without_scene(loop) -> None:
    """The empty scene and form again."""
    import slicer

    slicer.mrmlScene.Clear(0)
    for _level in range(20):
        slicer.app.processEvents()
    ui = loop.panels["Project"].ui
    ui.labelsTable.setRowCount(1)
    ui.newGroupBox.collapsed = True


def first_outline(loop, scans: Path, folder: Path, take) -> None:
    """Two cases without a model: three slices become an outline; one slice corrects a prediction, a simulated one."""
    from barl.images.geometry import Grid
    from barl.inference.hotspots import find_hotspots
    from barl.project.labels import Channel, Label
    from barl.project.store import Project
    from slicerhost.clicks import choose

    number = OUTLINED + 1
    scan = sitk.ReadImage(str(scans / "scans" / "images" / f"head {number:02d}.nii.gz"))
    truth = lesion(scans, number, scan)
    with Project.create(folder, "Lesions", [Label(1, "lesion")], [Channel("T1")]) as project:
        project.cases.add("head 01", [scan])
        project.cases.add("head 02", [scan])
        missed, unsure = predicted(truth)
        maps = [sitk.GetImageFromArray(array) for array in (missed, unsure)]
        for image in maps:
            image.CopyInformation(scan)
        spots = [spot.to_json() for spot in find_hotspots(unsure, Grid.of(scan), np.ones_like(missed))]
        project.revisions.store(
            "head 02", maps[0], "prediction", author="BARL model_0001", uncertainty=maps[1], details={"hotspots": spots}
        )
    loop.session.openProject(folder)
    try:
        panel = start_review(loop, "head 01", truth)
        for view in VIEWS:
            outlineSlice(panel, view, truth, "lesion")
        take("drawn")
        pressKey(panel, "L")
        look_beside(panel, truth)
        take("filled")
        pressKey(panel, "S")
        take("slice")
        shown = {planeOf(panel, view): view for view in VIEWS}
        proposed = panel.planes._proposed
        if truth.take(proposed[1], axis=proposed[0]).any():
            outlineSlice(panel, shown[proposed], truth, "lesion")
        pressKey(panel, "L")
        assert 2 * (loop.outline() & truth).sum() / (loop.outline().sum() + truth.sum()) > 0.8
        choose(panel.ui.acceptScopeComboBox, "Only what I drew")
        accept_part(loop, take)
        panel = start_review(loop, "head 02", truth)
        outlineSlice(panel, "Red", truth, "lesion")
        pressKey(panel, "L")
        take("spread")
        assert (loop.outline() & truth).sum() > (missed & truth).sum()
    finally:
        loop.session.closeProject()


def accept_part(loop, take) -> None:
    """Accept, what was drawn alone; the next case opens by itself, at its first place."""
    from slicerhost.clicks import click, waitUntil

    panel = loop.panels["Review"]
    panel.ui.goOnCheckBox.checked = True
    click(panel.ui.acceptButton)
    waitUntil(lambda: loop.session.case().name == "head 02" and panel.isIdle, loop.patience)
    assert loop.session.project.cases.get("head 01").is_partial and panel.hotspots.current().rank == 1, loop.status
    loop.settle()
    take("next")


def lesion(scans: Path, number: int, scan: sitk.Image) -> np.ndarray:
    """The largest simulated lesion of a scan [k, j, i]; in the short run, where the cut may hold none, an ellipsoid."""
    from scipy import ndimage

    if LONG:
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(scans / "all" / "labels" / f"simulated_{number:03d}.nii.gz")))
        pieces, count = ndimage.label(label)
        sizes = ndimage.sum_labels(label > 0, pieces, range(1, count + 1))
        return (pieces == 1 + int(np.argmax(sizes))).astype(np.uint8)
    grid = np.indices(sitk.GetArrayViewFromImage(scan).shape)
    middle = np.array(grid.shape[1:]) / 2
    return (sum(((n - m) / r) ** 2 for n, m, r in zip(grid, middle, (7, 8, 9), strict=True)) < 1).astype(np.uint8)


def predicted(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A label map that misses the rim and a part of a structure, and an uncertainty that is high about there."""
    from scipy import ndimage

    k = np.argwhere(truth)[:, 0]
    missed = ndimage.binary_erosion(truth)
    missed[int(np.quantile(k, 0.7)) :] = False
    distance = ndimage.distance_transform_edt(~missed) + ndimage.distance_transform_edt(missed)
    return missed.astype(np.uint8), np.clip(1 - distance / 6, 0, 1).astype(np.float32)


def start_review(loop, name: str, truth: np.ndarray):
    """Open a case and scroll to the structure; returns the panel."""
    from BARLSegmentationLib.logic.Hotspots import jumpTo

    loop.open(name)
    panel = loop.panels["Review"]
    panel.ui.goOnCheckBox.checked = False
    panel.ui.readerLineEdit.text = "reader 1"
    loop.section("Review")
    places = np.argwhere(truth)
    center = np.rint(places.mean(axis=0))
    extent = float((places.max(axis=0) - places.min(axis=0)).max())
    jumpTo(panel.planes.views.position(center), panel.planes.views.volume, extentMm=extent)
    loop.settle()
    return panel


def look_beside(panel, truth: np.ndarray) -> None:
    """Scroll each view two slices on, away from what was drawn."""
    from BARLSegmentationLib.logic.Hotspots import jumpTo

    beside = np.rint(np.argwhere(truth).mean(axis=0)) + 2
    jumpTo(panel.planes.views.position(beside), panel.planes.views.volume)


def choose_case(loop, labels: Path) -> None:
    """For the tutorial's pictures, the first case of the list that has a hot-spot in a simulated lesion."""
    from slicerhost.clicks import choose

    combo, project = loop.section("Cases").nextComboBox, loop.session.project
    for name in [combo.itemText(n) for n in range(combo.count)] if LONG else ():
        truth = sitk.ReadImage(str(labels / f"simulated_{int(name.split()[-1]):03d}.nii.gz"))
        spots = project.revisions.newest(name, ("prediction",)).details["hotspots"]
        if any(truth[truth.TransformPhysicalPointToIndex(spot["position_mm"])] for spot in spots):
            choose(combo, name)
            return


def hotspot_in_lesion(loop, labels: Path):
    """Press Next spot until the place is in a simulated lesion; returns that hot-spot."""
    truth = sitk.ReadImage(str(labels / f"simulated_{int(loop.session.case().name.split()[-1]):03d}.nii.gz"))
    for _ in range(len(loop.panels["Review"].hotspots.hotspots.spots)):
        spot = loop.nextHotspot()
        x, y, z = spot.position
        if truth[truth.TransformPhysicalPointToIndex((-x, -y, z))]:
            return spot
    assert not LONG, "no hot-spot is in a lesion"
    return spot


def show_3d(loop) -> None:
    """Press the editor's button."""
    import qt
    from slicerhost.clicks import press

    loop.panels["Review"].ui.moreOfEditorCheckBox.checked = True
    editor = loop.panels["Review"].editor.widget
    (button,) = [one for one in editor.findChildren(qt.QAbstractButton) if one.text == "Show 3D"]
    press(button)
    loop.panels["Review"].ui.moreOfEditorCheckBox.checked = False


def few_colors(picture):
    """A picture in 96 grays and 160 colors of its own: a third of the size, and no rare color is lost."""
    from PIL import Image

    picture = picture.convert("RGB")
    pixels = np.asarray(picture).reshape(-1, 3)
    colored = Image.fromarray(pixels[np.ptp(pixels.astype(int), axis=1) > 12][None])
    colors = colored.quantize(160, method=Image.Quantize.MAXCOVERAGE).getpalette()[:480]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*colors, *[0] * (480 - len(colors)), *np.linspace(0, 255, 96).astype(int).repeat(3).tolist()])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def test_pictures_show_the_window_and_are_small(pictures):
    from PySide6 import QtGui

    for path in pictures.values():
        image = QtGui.QImage(str(path))
        assert (image.width(), image.height()) == (1366, 768), path.name
        assert len({image.pixel(x, y) for x in range(0, 1366, 7) for y in range(0, 768, 7)}) > 20, f"{path.name}: empty"
        assert path.stat().st_size < LARGEST_PICTURE, path.name
    assert sum(path.stat().st_size for path in pictures.values()) < ALL_PICTURES


def test_tutorial_shows_each_picture_and_no_other(pictures):
    text = TEXT.read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(images/(tutorial-\w+\.png)\)", text)
    assert sorted(shown) == sorted(path.name for path in pictures.values())
    for name in shown:
        assert (TEXT.parent / "images" / name).is_file()


def test_tutorial_names_what_is_in_the_window(pictures, host):
    """Each word in bold is the text of a section, a button or a box."""
    import qt
    import slicer

    module = slicer.modules.BARLSegmentationWidget
    kinds = ((qt.QAbstractButton, "text"), (qt.QLabel, "text"), (qt.QGroupBox, "title"))
    there = {getattr(one, name).rstrip(":") for kind, name in kinds for one in module.parent.findChildren(kind)}
    there |= {module.steps.bar.tabText(n) for n in range(module.steps.bar.count)}
    for combo in module.parent.findChildren(qt.QComboBox):
        there |= {combo.itemText(n) for n in range(combo.count)}
    bold = set(re.findall(r"\*\*([^*]+[^*.])\*\*", TEXT.read_text(encoding="utf-8")))  # but for whole sentences
    assert len(bold) > 10
    missing = {words for words in bold if not any(words == text or text.startswith(words + " (") for text in there)}
    assert not missing
