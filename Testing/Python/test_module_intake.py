# SPDX-License-Identifier: Apache-2.0
"""Adding scans: what is proposed, what is asked, and the table of a folder with many cases; by the real worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel
from barl.project.store import Project
from barldriver.studies import LABELS, a_map, an_image, cells
from dicom_maker import CT, MR, slices
from slicerhost.clicks import press, waitUntil

# ruff: noqa: N802, N815 (names of ctkDICOMDatabase)
pytestmark = pytest.mark.host
SCENE, FILES, FOLDER, DICOM, DICOM_FOLDER = range(5)
CASE, OUTLINE, STATE = range(3)
NAME = 0


@pytest.fixture
def panel(a_cases_panel, tmp_path):
    """The panel with an empty project of one channel open, its form unfolded."""
    with Project.create(tmp_path / "p", "p", LABELS, [Channel("CT")]):
        pass
    a_cases_panel.session.openProject(tmp_path / "p")
    waitUntil(lambda: a_cases_panel.isIdle)
    a_cases_panel.ui.addGroupBox.collapsed = False
    return a_cases_panel


def choose(panel, source: int):
    panel.ui.sourceComboBox.setCurrentIndex(source)
    return panel.adding.source


def press_add(panel) -> None:
    press(panel.ui.addButton)
    waitUntil(lambda: panel.isIdle)


def answer(panel, yes: bool) -> None:
    panel.session.answer(yes)
    waitUntil(lambda: panel.isIdle)


def a_scan(number: int) -> sitk.Image:
    """Unlike those of other numbers."""
    rng = np.random.default_rng(number)
    image = sitk.GetImageFromArray(rng.normal(0, 100, (4, 5, 6)).astype(np.float32))
    image.CopyInformation(an_image())
    return image


def write(image: sitk.Image, path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))
    return str(path)


# Files


def test_a_file_that_is_wrong_is_told_as_such_without_a_name_typed(panel, tmp_path):
    damaged = tmp_path / "scan 1.nii.gz"
    damaged.write_bytes(b"not an image")
    choose(panel, FILES).selectors[0].currentPath = str(damaged)
    assert panel.ui.nameLineEdit.text == "scan 1"
    press_add(panel)
    error, text = panel.said[-1]
    assert error and "'scan 1.nii.gz'" in text and "no name" not in text
    path = write(a_scan(1), tmp_path / "Doe^Jane 19700101.nii.gz")
    panel.adding.selectors[0].currentPath = path
    assert panel.ui.nameLineEdit.text == "case_001", "not a name that may be a patient's"
    panel.ui.nameLineEdit.text = "typed"
    panel.adding.selectors[0].currentPath = str(damaged)
    assert panel.ui.nameLineEdit.text == "typed"


def finer(label: sitk.Image) -> sitk.Image:
    """The label map on a grid of half the spacing."""
    size = [2 * n for n in label.GetSize()]
    spacing = [s / 2 for s in label.GetSpacing()]
    return sitk.Resample(label, size, sitk.Transform(), sitk.sitkNearestNeighbor, label.GetOrigin(), spacing)


@pytest.mark.parametrize("yes", [True, False])
def test_an_outline_of_another_grid_is_resampled_when_confirmed(panel, tmp_path, yes):
    source = choose(panel, FILES)
    source.selectors[0].currentPath = write(a_scan(1), tmp_path / "scan.nii.gz")
    source.labelSelector.currentPath = write(finer(a_map(4)), tmp_path / "map.nii.gz")
    press_add(panel)
    question = panel.session.question
    assert "12 x 10 x 8 voxels against 6 x 5 x 4" in question.text and "would be lost" in question.text
    assert (question.yes, question.no) == ("Resample and add", "Leave out") and panel.session.cases() == []
    answer(panel, yes)
    if not yes:
        assert panel.said[-1] == (False, "Left out: scan.") and panel.session.cases() == []
        return
    assert "resampled onto the scan's grid" in panel.said[-1][1] and cells(panel, NAME) == ["scan"]
    stored = panel.session.project.revisions.accepted_label(panel.session.cases()[0].id)
    assert np.count_nonzero(sitk.GetArrayFromImage(sitk.ReadImage(str(stored)))) == 4


def test_a_doubtful_case_is_not_added_to_a_project_opened_meanwhile(panel, tmp_path):
    source = choose(panel, FILES)
    source.selectors[0].currentPath = write(a_scan(1), tmp_path / "scan.nii.gz")
    source.labelSelector.currentPath = write(finer(a_map(4)), tmp_path / "map.nii.gz")
    with Project.create(tmp_path / "other", "other", LABELS, [Channel("CT")]):
        pass
    press(panel.ui.addButton)
    panel.session.openProject(tmp_path / "other")
    waitUntil(lambda: panel.isIdle)
    assert panel.session.question is None and panel.session.cases() == []
    assert any(error and text.startswith("scan: ") and "would be lost" in text for error, text in panel.said)
    with Project.open(tmp_path / "p") as project:
        assert project.cases.all() == []


def test_the_same_scan_and_an_empty_outline_are_asked_about_one_after_the_other(panel, tmp_path):
    source = choose(panel, FILES)
    path = write(a_scan(1), tmp_path / "scan.nii.gz")
    source.selectors[0].currentPath = path
    press_add(panel)
    panel.ui.addGroupBox.collapsed = False
    source.selectors[0].currentPath = path
    source.labelSelector.currentPath = write(a_map(0), tmp_path / "empty.nii.gz")
    panel.ui.nameLineEdit.text = "again"
    press_add(panel)
    assert "same voxels as that of the case 'scan'" in panel.session.question.text
    answer(panel, True)
    assert "outline of 'again' is empty" in panel.session.question.text
    answer(panel, True)
    assert cells(panel, NAME) == ["scan", "again"] and panel.session.question is None


# DICOM


def two_series(folder: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for number, kind in enumerate((CT, MR), 1):
        array = rng.integers(0, 500, (4 + number, 6, 7)).astype(np.int16)
        places = [(0.0, 0.0, 2.0 * k) for k in range(len(array))]
        slices(folder / f"series {number}", array, places, sop_class=kind, series=f"1.2.{number}")
    return folder


def test_a_folder_with_several_series_is_listed_and_one_is_chosen(panel, tmp_path):
    source = choose(panel, DICOM_FOLDER)
    press(panel.ui.addButton)
    assert panel.said[-1] == (True, "No folder is chosen. Choose the folder with the DICOM files.")
    source.folder.currentPath = str(two_series(tmp_path / "Doe Jane"))
    combo = source.selectors[0]
    waitUntil(lambda: combo.count == 2)
    assert panel.said[-1] == (False, "The folder holds 2 volumes: choose.")
    assert combo.itemText(0).startswith("1: CT, 7 x 6 x 5") and "MR, 7 x 6 x 6" in combo.itemText(1)
    assert panel.ui.nameLineEdit.text == "case_001"
    combo.setCurrentIndex(1)
    press_add(panel)
    assert panel.said[-1] == (False, "Added case_001, 0 with an outline.")
    project = panel.session.project
    assert project.cases.grid(project.cases.get("case_001").id).size == (7, 6, 6)
    everything = b"".join(path.read_bytes() for path in project.folder.rglob("*") if path.is_file())
    assert b"Doe" not in everything and b"4711" not in everything


def test_the_series_of_each_case_of_a_folder_is_chosen_once_for_all(panel, tmp_path):
    for seed, name in enumerate(("first", "second")):
        two_series(tmp_path / "study" / name, seed)
    one = np.zeros((5, 6, 7), np.int16)
    slices(tmp_path / "study" / "third", one, [(0.0, 0.0, 2.0 * k) for k in range(5)], series="1.2.9")
    source = choose(panel, FOLDER)
    source.selectors[0].currentPath = str(tmp_path / "study")
    waitUntil(lambda: source.isIdle and source.table.rowCount == 3)
    press_add(panel)
    assert [case.name for case in panel.session.cases()] == ["third"]
    source.table.selectRow(0)
    assert "select the case and choose it below the table" in source.reasonLabel.text
    combo, row = source.series.combos[0], source.series.widget
    waitUntil(lambda: row.visible and combo.count == 3)
    assert combo.currentText == "choose" and combo.itemText(2).startswith("2: MR, 7 x 6 x 6")
    combo.setCurrentIndex(2)
    combo.activated(2)
    source.series.allCheckBox.checked = True
    assert source.reasonLabel.text == "Will be added from the series 2, with no outline."
    source.table.selectRow(1)
    waitUntil(lambda: combo.currentText.startswith("2: MR"))
    source.table.selectRow(2)
    assert not row.visible, "nothing to choose"
    press_add(panel)
    project = panel.session.project
    sizes = {case.name: project.cases.grid(case.id).size for case in project.cases.all()}
    assert sizes == {"first": (7, 6, 6), "second": (7, 6, 6), "third": (7, 6, 5)}


def test_a_folder_without_dicom_files_is_one_sentence(panel, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("nothing")
    source = choose(panel, DICOM_FOLDER)
    source.folder.currentPath = str(tmp_path / "notes")
    waitUntil(lambda: panel.said[-1][0])
    assert "holds no DICOM volume" in panel.said[-1][1]
    press(panel.ui.addButton)
    assert "no series for each channel" in panel.said[-1][1]


class TwoEchoes:
    """Of ctkDICOMDatabase what the module asks for: one series, with two volumes in it."""

    isOpen = True

    def __init__(self, files: list[Path]) -> None:
        self._files = files

    def patients(self):
        return ("1",)

    def displayedNameForPatient(self, patient):
        return "Doe, Jane"

    def studiesForPatient(self, patient):
        return ("1.2",)

    def seriesForStudy(self, study):
        return ("1.2.7",)

    def descriptionForStudy(self, study):
        return "Head"

    def descriptionForSeries(self, series):
        return "echoes"

    def instancesForSeries(self, series):
        return tuple(map(str, range(len(self._files))))

    def filesForSeries(self, series):
        return tuple(map(str, self._files))


def test_one_volume_of_a_series_of_the_database_is_chosen(panel, tmp_path, monkeypatch):
    import slicer

    array = np.arange(4 * 6 * 7, dtype=np.int16).reshape(4, 6, 7)
    places = [(0.0, 0.0, 2.0 * k) for k in range(4)]
    for number, echo in enumerate((5.0, 10.0)):
        slices(
            tmp_path / "dicom",
            array + 1000 * number,
            places,
            sop_class=MR,
            series="1.2.7",
            first=1 + 10 * number,
            change=lambda data, k, echo=echo: setattr(data, "EchoTime", echo),
        )
    monkeypatch.setattr(slicer, "dicomDatabase", TwoEchoes(sorted((tmp_path / "dicom").iterdir())), raising=False)
    source = choose(panel, DICOM)
    (volumes,) = source.volumes
    waitUntil(lambda: volumes.combo.count == 2, 60)
    assert volumes.combo.isVisible() and panel.ui.nameLineEdit.text == "case_001"
    volumes.combo.setCurrentIndex(1)
    press_add(panel)
    assert panel.said[-1] == (False, "Added case_001, 0 with an outline.")
    stored = sitk.ReadImage(str(panel.session.project.cases.image_paths(panel.session.cases()[0].id)[0]))
    assert np.array_equal(sitk.GetArrayFromImage(stored), array + 1000)


# A folder with many cases


@pytest.fixture
def folders(tmp_path):
    """Scans la_1 to la_4 and notes; outlines of 1 to 3 and of a 9 whose scan is missing."""
    for number in range(1, 5):
        write(a_scan(number), tmp_path / "scans" / f"la_{number}_0000.nii.gz")
    for number in (1, 2, 3, 9):
        write(a_map(number % 5), tmp_path / "maps" / f"la_{number}.nii.gz")
    (tmp_path / "scans" / "notes.txt").write_text("nothing")
    return tmp_path / "scans", tmp_path / "maps"


def rows(source) -> list[tuple[str, str, str]]:
    """Case, outline and the whole of what happens, of each row of the table."""
    waitUntil(lambda: source.isIdle)
    table = source.table
    items = [[table.item(row, column) for column in range(3)] for row in range(table.rowCount)]
    return [(case.text(), outline.text(), state.toolTip()) for case, outline, state in items]


def test_the_table_shows_what_is_taken_and_what_not_before_and_after(panel, folders):
    source = choose(panel, FOLDER)
    source.selectors[0].currentPath, source.labelSelector.currentPath = map(str, folders)
    before = rows(source)
    assert before[0] == (
        "la_1_0000",
        "la_1.nii.gz",
        "Will be added with the outline la_1.nii.gz: is it of this scan?",
    )
    assert source.table.item(0, STATE).text() == "add: check outline"
    assert before[3] == ("la_4_0000", "", "Will be added without an outline.")
    assert {row[CASE]: row[STATE] for row in before[4:]} == {
        "la_9.nii.gz": "There is no scan for this outline. Outlines and scans belong together by their file names.",
        "notes.txt": "It is no volume file. Convert it to NIfTI or NRRD if it is a scan.",
    }
    assert (
        source.reasonLabel.text == "4 cases will be added, 3 with an outline. 2 are left out: select a row to see why."
    )
    press_add(panel)
    after = rows(source)
    assert [row[STATE] for row in after[:4]] == ["Added with its outline."] * 3 + ["Added."]
    assert not panel.ui.addGroupBox.collapsed, "the table tells what was left out"
    assert cells(panel, NAME) == ["la_1_0000", "la_2_0000", "la_3_0000", "la_4_0000"]
    press(panel.ui.addButton)
    assert panel.said[-1] == (True, "No case is ticked. Tick the cases to add.")


def test_names_ticks_and_outlines_can_be_changed_in_the_table(panel, folders):
    import qt

    source = choose(panel, FOLDER)
    source.selectors[0].currentPath, source.labelSelector.currentPath = map(str, folders)
    waitUntil(lambda: source.isIdle)
    source.numberCheckBox.click()
    assert [row[CASE] for row in rows(source)[:4]] == ["case_001", "case_002", "case_003", "case_004"]
    table = source.table
    table.item(1, CASE).setText("mine")
    table.item(2, CASE).setCheckState(qt.Qt.Unchecked)
    assert rows(source)[2][STATE] == "Left out."
    table.selectRow(3)
    combo = source.outlineComboBox
    assert [combo.itemText(n) for n in range(combo.count)] == [
        "none",
        *(f"la_{number}.nii.gz" for number in (1, 2, 3, 9)),
    ]
    combo.setCurrentIndex(4)
    combo.activated(4)
    assert rows(source)[3][OUTLINE] == "la_9.nii.gz" and len(rows(source)) == 5
    table.selectRow(0)
    combo.setCurrentIndex(0)
    combo.activated(0)
    assert rows(source)[0][OUTLINE] == "" and rows(source)[-1][CASE] == "la_1.nii.gz"
    press_add(panel)
    project = panel.session.project
    assert {case.name: str(case.state) for case in project.cases.all()} == {
        "case_001": "new",
        "mine": "accepted",
        "case_004": "accepted",
    }
    label = sitk.ReadImage(str(project.revisions.accepted_label(project.cases.get("case_004").id)))
    assert np.count_nonzero(sitk.GetArrayFromImage(label)) == 4, "that of 9"


def test_outlines_of_one_name_stay_with_their_folders(host):
    """In a folder for each case the outlines have one name: a choice must not take that of another patient."""
    from barl.worker.messages import CaseFiles
    from BARLSegmentationLib.logic.FolderPlan import FolderPlan, PlannedCase

    names = ("p1", "p2", "p3")
    cases = [PlannedCase(CaseFiles(n, [f"{n}/ct.nii.gz"]), n, Path(n, "outline.nii.gz")) for n in names]
    plan = FolderPlan(cases, [], [Path("p4", "drawn.nii.gz")])
    assert plan.outlineNames() == ["drawn.nii.gz", *(f"{name}/outline.nii.gz" for name in names)]
    plan.setOutline(cases[1], "")
    assert cases[1].outline is None and [item.name for item in plan.leftOut] == ["drawn.nii.gz", "p2/outline.nii.gz"]
    plan.setOutline(cases[1], "p1/outline.nii.gz")
    assert [case.outline and case.outline.parts[0] for case in cases] == [None, "p1", "p3"]
    plan.setOutline(cases[1], "p2/outline.nii.gz")
    assert [case.outline and case.outline.parts[0] for case in cases] == list(names)
    assert plan.outlineNameOf(cases[1]) == "p2/outline.nii.gz"


def test_a_path_is_looked_into_when_it_is_typed_to_its_end(panel, folders):
    source = choose(panel, FOLDER)
    source.selectors[0].currentPath = str(folders[0])
    for letters in ("/ma", "/map"):
        source.labelSelector.currentPath = str(folders[1].parent) + letters
        assert len(rows(source)) == 5 and not any(error for error, _ in panel.said)
    press(panel.ui.addButton)
    assert panel.said[-1] == (True, "There is no folder map. Choose it with the ... button.")
    source.labelSelector.currentPath = str(folders[1])
    assert rows(source)[0][OUTLINE] == "la_1.nii.gz"


def test_a_folder_that_grew_is_added_again(panel, folders):
    source = choose(panel, FOLDER)
    source.selectors[0].currentPath = str(folders[0])
    press_add(panel)
    write(a_scan(5), folders[0] / "la_5_0000.nii.gz")
    (folders[0] / "la_6_0000.nii.gz").write_bytes(b"cut off")
    source.onPath()
    assert [row[STATE].partition(".")[0] for row in rows(source)[3:6]] == [
        "Left out: the project has a case of this name",
        "Will be added without an outline",
        "Will be added without an outline",
    ]
    press_add(panel)
    assert len(panel.session.cases()) == 5
    assert rows(source)[5][STATE].startswith("Not added: ") and "la_6_0000.nii.gz" in rows(source)[5][STATE]
    assert panel.said[-1][1].startswith("Added la_5_0000, 0 with an outline. 1 case could not be added. Select the row")


def test_several_doubtful_cases_are_asked_about_once(panel, folders):
    source = choose(panel, FOLDER)
    source.selectors[0].currentPath = str(folders[0])
    for name in ("a", "b"):
        write(a_scan(1), folders[0] / f"{name}.nii.gz")
    source.onPath()
    press_add(panel)
    question = panel.session.question
    assert len(panel.session.cases()) == 4 and question.yes == "Add them"
    assert "la_1_0000: The scan of" in question.text and "b: The scan of 'b'" in question.text
    answer(panel, True)
    assert len(panel.session.cases()) == 6
    assert [row[STATE] for row in rows(source)[:6]] == ["Added."] * 6
