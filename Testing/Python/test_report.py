# SPDX-License-Identifier: Apache-2.0
"""The report of a project: one file, whole in every state of a project, and without a patient's name."""

from __future__ import annotations

import base64
import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import barl
import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.evaluation.statistics import mean_interval
from barl.project.labels import Label
from barl.project.names import may_be_a_patients
from barl.report import figures
from barl.report.views import three_views

TINY = {"widths": [4, 8], "patch": [16, 16, 16], "loader_workers": 0}
PERSON = "MUELLER^ANNA"


class Page(HTMLParser):
    """Words, pictures and links of a page; every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words, self.images, self.links, self.open, self.rows = "", [], [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[name] for name in ("href", "src") if name in values]
        if tag == "img":
            self.images.append(values)
        elif tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += " " + " ".join(data.split())
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def a_scan(seed: int) -> tuple[sitk.Image, sitk.Image]:
    """Two bright boxes of unlike brightness, and their label map."""
    rng = np.random.default_rng(seed)
    label = np.zeros((18, 20, 22), np.uint8)
    k, j, i = rng.integers(4, 7, 3)
    label[k : k + 8, j : j + 8, i : i + 5], label[k : k + 8, j : j + 8, i + 5 : i + 10] = 1, 2
    scan = sitk.GetImageFromArray((100 * label + rng.normal(0, 10, label.shape)).astype(np.float32))
    scan.SetSpacing((1.0, 1.0, 2.0))
    outline = sitk.GetImageFromArray(label)
    outline.CopyInformation(scan)
    return scan, outline


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A project with two models, three held-out cases, one correction, and a patient's name as the name of a case."""
    folder = tmp_path_factory.mktemp("report") / "study"
    with barl.create_project(folder, {1: "left part", 2: "right part"}, ["CT"]) as project:
        names = ["c1", "c2", "h1", "h2", PERSON, "open1", "open2"]
        for number, name in enumerate(names):
            scan, outline = a_scan(number)
            held_out = number in (2, 3, 4)
            barl.add_case(project, name, scan, None if name.startswith("open") else outline, held_out=held_out)
        barl.train(project, iterations=3, device="cpu", plan=TINY)
        barl.predict_cases(project, device="cpu")
        barl.accept(project, "open1", a_scan(5)[1])
        barl.train(project, iterations=2, device="cpu", promote=True, plan={"loader_workers": 0})
    return folder


@pytest.fixture(scope="module")
def page(folder) -> Page:
    assert main(["report", str(folder), "--device", "cpu"]) == 0
    return Page(folder / "report.html")


def test_the_report_is_one_file_that_holds_everything(page):
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    for image in page.images:
        png = base64.b64decode(image["src"].partition(",")[2])
        width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
        assert png.startswith(b"\x89PNG") and 500 < width < 1400 and height > 200 and image["alt"]
    assert len(page.images) == 7  # quality, three cases, learning curve, change, agreement
    for text in (
        "study", "Worst: ", "Median: ", "Best: ", "What changed since model_0001", "Newly learned from: open1",
        "Wilcoxon", "95 % interval", "Predictions and their corrections", "HD95", "not a medical device",
    ):  # fmt: skip
        assert text in page.words, text
    assert ["accepted", "6"] in page.rows and ["predicted", "1"] in page.rows and ["together", "7"] in page.rows
    assert ["outlined cases", "2", "3"] in page.rows
    assert ["open1", "model_0001"] in [row[:2] for row in page.rows]


def test_the_figures_are_those_of_the_evaluation(folder, page):
    with barl.open_project(folder, read_only=True) as project:
        result = barl.evaluate(project, device="cpu")
    row = next(row for row in page.rows if row[:2] == ["left part", "Dice"])
    assert row[2] == f"{result.dice['left part']:.3f}" and row[5] == "3"
    assert result.dice["left part"] < 0.5 and f"on these cases: left part {result.dice['left part']:.2f}" in page.words
    dice = [score["dice"] for score in result.scores if score["label"] == "left part"]
    low, high = mean_interval(dice)
    assert row[3] == f"{max(low, 0):.3f} to {min(high, 1):.3f}"
    for score in result.scores:
        if score["case"] == "h1" and score["label"] == "right part":
            assert f"{score['dice']:.3f}" in next(row for row in page.rows if row[0] == "h1" and len(row) == 6)


def test_no_patients_name_and_no_path_stands_in_it(folder, page):
    assert PERSON not in page.text and "MUELLER" not in page.text
    assert "case_0005" in page.words and "1 name that may be a patient's" in page.words
    assert str(folder) not in page.text and str(Path.home()) not in page.text and "/tmp" not in page.text


def test_a_print_breaks_no_picture(page):
    style = page.text[page.text.index("<style>") : page.text.index("</style>")]
    assert "@media print" in style and "break-inside: avoid" in style


def test_one_case_as_a_picture(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(folder), "--case", "open2", "--output", "open2.png"]) == 0
    picture = sitk.ReadImage("open2.png")
    assert picture.GetSize()[0] > 1200
    assert main(["report", str(folder), "--case", PERSON]) == 0
    assert Path("case_0005.png").is_file(), "named by number, not by the patient"
    with monkeypatch.context() as patch:
        titles: list[str] = []
        patch.setattr(figures, "case_picture", lambda views, labels, title, dpi: titles.append(title) or b"")
        for name in (PERSON, "open2"):
            assert main(["report", str(folder), "--case", name]) == 0
        assert titles == ["case_0005", "open2"]
    assert main(["report", str(folder), "--case", "opne2"]) == 3
    assert main(["report", str(folder), "--case", "open2", "--output", "open2.html"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean 'open2'?" in said and "ends with .png" in said


def test_a_picture_does_not_wait_for_torch():
    code = "import sys, barl.report.picture, barl.report.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_project_without_model_or_held_out_cases_has_a_report_too(tmp_path, a_predicted_project):
    assert main(["report", str(a_predicted_project), "--output", str(tmp_path / "r.html")]) == 0
    page = Page(tmp_path / "r.html")
    assert "no model yet" in page.words and "Only case: predicted" in page.words and len(page.images) == 1
    with barl.create_project(tmp_path / "empty", {1: "a"}):
        pass
    assert main(["report", str(tmp_path / "empty")]) == 0
    assert Page(tmp_path / "empty" / "report.html").images == []


def test_missing_libraries_are_named(folder, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("barl.report.picture.find_spec", lambda name: None if name == "matplotlib" else found(name))
    assert main(["report", str(folder)]) == 2
    assert "needs the package matplotlib" in capsys.readouterr().err


def test_views_show_the_patients_sides_where_they_are():
    """A structure at the patient's left, back and head is at the right, bottom and top of the pictures."""
    label = np.zeros((30, 30, 30), np.uint8)
    label[20:24, 18:21, 22:24] = 1  # head, back, left
    scan = sitk.GetImageFromArray(label.astype(np.float32))
    scan.SetSpacing((1, 1, 3))
    for turned in (scan, sitk.DICOMOrient(scan, "RAS"), sitk.DICOMOrient(scan, "SPR")):
        outline = sitk.Cast(turned, sitk.sitkUInt8)
        axial, coronal, sagittal = three_views(turned, outline, outline)
        assert [view.name for view in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
        for view, size in ((axial, (3, 2)), (coronal, (4, 2)), (sagittal, (4, 3))):
            rows, columns = np.nonzero(view.expert)
            assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == size
            assert np.array_equal(view.expert, view.predicted) and view.expert.shape == view.scan.shape
        assert axial.pixel == (1, 1) and coronal.pixel == (3, 1) and sagittal.pixel == (3, 1)
        assert (axial.sides, sagittal.sides) == (("R", "L"), ("A", "P"))
        # Cut to the surroundings of 8 mm, the edge of the scan nearer on one side.
        assert np.nonzero(coronal.expert)[0].min() == 3 and np.nonzero(axial.expert)[1].max() == axial.scan.shape[1] - 7


def test_planes_go_through_what_the_expert_outlined_however_much_the_model_finds_elsewhere():
    expert, predicted = np.zeros((2, 30, 30, 30), np.uint8)
    expert[5:8, 6:9, 7:10] = 1
    predicted[15:, 15:, 15:] = 1
    scan, expert, predicted = map(sitk.GetImageFromArray, (predicted.astype(np.float32), expert, predicted))
    assert all(view.expert.any() and not view.predicted.any() for view in three_views(scan, expert, predicted))
    assert all(
        view.predicted.any() for view in three_views(scan, sitk.Image(scan.GetSize(), sitk.sitkUInt8), predicted)
    )


def test_names_that_may_be_a_patients():
    for name in (
        "Mueller, Anna",
        "DOE^JOHN",
        "MEI0423",
        "abc123",
        "scan_1975-03-21",
        "19750321",
        "21.3.1975",
        "x_20240102",
        "21-03-1975",
        "x 3_21_1975",
        "Smith Jr., B",
        "DOE2, JOHN",
        "INT01",
        "INT1604 head",
        "abc12 T1",
    ):
        assert may_be_a_patients(name), name
    for name in (
        "case7",
        "la_005",
        "hippocampus_001",
        "BraTS2021_00002",
        "sub-01_ses-02",
        "img001",
        "BRATS_001",
        "CT-1234567",
        "int16 with slope 1.0000001",
        "spacing 0.3,0.3",
        "cta01",
    ):
        assert not may_be_a_patients(name), name


def test_no_axis_of_dice_leaves_0_to_1(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "png", lambda figure: shown.append(figure) or b"")
    labels = [Label(1, "lesion")]
    for dice in (0.0, 1.0, 0.5):
        figures.quality([{"labels": {"1": {"dice": dice}}}] * 2, labels)
        figures.learning_curve([("model_0001", 4, {1: dice})], labels)
        figures.agreement([("model_0001", dice)])
    limits = [figure.axes[0].get_xlim() if n % 3 == 0 else figure.axes[0].get_ylim() for n, figure in enumerate(shown)]
    assert all(0 <= low < high <= 1 for low, high in limits), limits
    assert all(high - low > 0.099 for low, high in limits), "a difference of 0.001 does not fill the figure"


def test_names_are_shown_as_they_are(monkeypatch):
    drawn, png = [], figures.png  # a formula that is none would raise an error there
    monkeypatch.setattr(figures, "png", lambda figure: drawn.append(figure) or png(figure))
    labels = [Label(1, r"T$\frac$", (1, 2, 3)), Label(2, "_hidden", (4, 5, 6)), Label(3, "肝臓", (7, 8, 9))]
    rows = [{"name": r"p$_1 $^", "labels": {str(n): {"dice": 0.5} for n in (1, 2, 3)}}] * 2
    figures.quality(rows, labels)
    figures.learning_curve([("model_0001", 4, {1: 0.5, 2: 0.6, 3: 0.7})], labels)
    figures.dots({"cases": rows}, {"cases": rows}, labels, ("a", "b"))
    assert [text.get_text() for text in drawn[1].legends[0].get_texts()] == [r"T$\frac$", " _hidden", "肝臓"]


def test_the_interval_is_that_of_a_table():
    low, high = mean_interval([0.7, 0.8, 0.9, float("nan")])
    assert (round(low, 4), round(high, 4)) == (0.5516, 1.0484)  # 0.8 ± 4.3027 * 0.1 / sqrt(3)
    assert all(np.isnan(mean_interval([0.7])))
    assert re.fullmatch(r"nan", str(mean_interval([])[0]))
