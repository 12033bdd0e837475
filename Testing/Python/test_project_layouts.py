# SPDX-License-Identifier: Apache-2.0
"""What goes out is what was outlined, judged by the programs that it is for: MONAI, Slicer, highdicom, pynrrd."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.project.export import LAYOUTS, export_dataset
from barl.project.files import sha256
from barl.project.labels import Channel, Code, Label, Terminology, structures
from barl.project.layouts.measurements import measure, plain_cell
from barl.project.layouts.surfaces import enclosed_ml, surface
from barl.project.store import Project
from dicom_maker import ARRAY, PLACES, slices

LEFT_KIDNEY = Terminology(
    Code("SCT", "123037004", "Anatomical Structure"), Code("SCT", "64033007", "Kidney"), Code("SCT", "7771000", "Left")
)
LABELS = [Label(3, "left kidney", (220, 10, 5), LEFT_KIDNEY), Label(7, "=cmd|' /C calc'!A0", (0, 200, 255))]
SHAPE = (9, 11, 13)
GRID = Grid((13, 11, 9), (0.8, 1.1, 3.0), (12.0, -34.0, 56.0), (0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1.0))


def a_map() -> np.ndarray:
    """Two boxes of kidney, 60 and 8 voxels, and a ball of the other label."""
    array = np.zeros(SHAPE, np.uint8)
    array[1:4, 2:6, 3:8], array[6:8, 1:3, 1:3] = 3, 3
    k, j, i = np.indices(SHAPE)
    array[(k - 6) ** 2 + (j - 7) ** 2 + (i - 9) ** 2 <= 5] = 7
    return array


@pytest.fixture
def a_project(tmp_path) -> Path:
    """An outlined, a held-out outlined and a predicted case, two channels, on a turned grid."""
    rng = np.random.default_rng(0)
    with Project.create(tmp_path / "p", "P", LABELS, [Channel("T1"), Channel("FLAIR")]) as project:
        for name in ("Ann", "Bob", "Cy"):
            scans = [GRID.image(rng.normal(100, 20, SHAPE).astype(np.float32)) for _ in range(2)]
            project.cases.add(name, scans, label=GRID.image(a_map()) if name != "Cy" else None, held_out=name == "Bob")
        project.revisions.store("Cy", GRID.image(a_map()), "prediction", author="BARL model_0001")
    return tmp_path / "p"


def exported(folder: Path, layout: str, to: Path, **more):
    with Project.open(folder, read_only=True) as project:
        return export_dataset(project, to, layout, **more)


def test_monai_reads_the_datalist(a_project, tmp_path):
    from monai.data import load_decathlon_datalist
    from monai.transforms import LoadImage

    exported(a_project, "monai", tmp_path / "out")
    (training,) = load_decathlon_datalist(tmp_path / "out/dataset.json", True, "training")
    (validation,) = load_decathlon_datalist(tmp_path / "out/dataset.json", True, "validation")
    assert Path(validation["label"]) == tmp_path / "out/labelsTs/case_0002.nii.gz"
    label = LoadImage(image_only=True)(training["label"])
    assert np.array_equal(label.numpy().transpose(2, 1, 0), np.array([0, 0, 0, 1, 0, 0, 0, 2])[a_map()])
    lps_to_ras = np.diag([-1.0, -1, 1, 1])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = GRID.axes * GRID.spacing, GRID.origin
    assert np.abs(label.affine.numpy() - lps_to_ras @ affine).max() < 1e-6
    scans = LoadImage(image_only=True)(training["image"])
    with Project.open(a_project) as project:
        for channel, place in enumerate(project.cases.image_paths("Ann")):
            expected = sitk.GetArrayFromImage(sitk.ReadImage(str(place)))
            assert np.array_equal(scans[channel].numpy().transpose(2, 1, 0), expected)


@pytest.mark.parametrize("layout", ["nnunet", "monai"])
def test_a_data_set_to_train_on_comes_back(a_project, tmp_path, capsys, layout):
    exported(a_project, layout, tmp_path / "out")
    assert main(["project", "new", str(tmp_path / "q"), "--like", str(tmp_path / "out")]) == 0
    assert main(["add", str(tmp_path / "q"), str(tmp_path / "out"), "--json"]) == 0
    with Project.open(tmp_path / "q") as project:
        assert [(case.name, case.held_out) for case in project.cases.all()] == [
            ("case_0001", False),
            ("case_0002", True),
        ]
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.accepted_label("case_0001"))))
        assert np.array_equal(label, np.array([0, 0, 0, 1, 0, 0, 0, 2])[a_map()])


def test_the_plain_layout_comes_back_but_for_what_nobody_accepted(a_project, tmp_path, capsys):
    assert main(["export", str(a_project), str(tmp_path / "out"), "--layout", "plain", "--predictions"]) == 0
    said = capsys.readouterr().out
    assert "out-names.csv says which case is which" in said and "case_0003: a prediction that nobody has" in said
    assert "Exported 3 cases to" in said, "predictions are nothing to train on"
    assert (tmp_path / "out-names.csv").read_text(encoding="utf-8-sig").splitlines() == [
        "case,name", "case_0001,Ann", "case_0003,Cy", "case_0002,Bob"
    ]  # fmt: skip
    with Project.create(tmp_path / "q", "Q", LABELS, [Channel("FLAIR"), Channel("T1")]):
        pass
    assert main(["add", str(tmp_path / "q"), str(tmp_path / "out")]) == 0
    assert "a prediction that nobody has accepted, and no outline" in capsys.readouterr().out
    with Project.open(tmp_path / "q") as project, Project.open(a_project) as before:
        assert [(case.name, str(case.state), case.held_out) for case in project.cases.all()] == [
            ("case_0001", "accepted", False), ("case_0002", "accepted", True), ("case_0003", "new", False)
        ]  # fmt: skip
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.accepted_label("case_0002"))))
        assert np.array_equal(label, a_map())
        for here, there in zip(
            project.cases.image_paths("case_0001"), before.cases.image_paths("Ann")[::-1], strict=True
        ):
            one, other = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (here, there))
            assert np.array_equal(one, other), "channels by their names"


def test_the_names_beside_an_export_replace_no_other_file(a_project, tmp_path, capsys):
    """The list that ``--anonymous`` keeps bears such a name."""
    kept = tmp_path / "out-names.csv"
    kept.write_text("case,name,subject,their subject\ncase_0001,doe_jane,,\n")
    before = kept.read_bytes()
    for folder in ("out", "out"):  # as before, the second time
        assert main(["export", str(a_project), str(tmp_path / folder), "--layout", "plain"]) == 0
        assert "out-names-2.csv says which case is which" in capsys.readouterr().out
        shutil.rmtree(tmp_path / folder)
    assert kept.read_bytes() == before and not (tmp_path / "out-names-3.csv").exists()
    assert main(["export", str(a_project), str(a_project / "models")]) == 2
    assert "lies in the folder of the project" in capsys.readouterr().err


def test_segments_come_back_to_their_cases(a_project, tmp_path, capsys):
    exported(a_project, "seg-nrrd", tmp_path / "out", predictions=True)
    assert main(["add", str(a_project), "--labels", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "Stored 1 outline of cases in the project." in said and "2 cases have the same" in said
    with Project.open(a_project) as project:
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.accepted_label("Cy"))))
    assert np.array_equal(label, a_map())


def test_a_dicom_segmentation_comes_back_to_its_case(a_dicom_project, tmp_path, capsys):
    exported(a_dicom_project, "dicom-seg", tmp_path / "out", source=tmp_path / "disc")
    assert main(["add", str(a_dicom_project), "--labels", str(tmp_path / "out")]) == 0
    assert "1 case has the same accepted outline already" in capsys.readouterr().out


def test_seg_nrrd_names_its_segments(a_project, tmp_path):
    import nrrd

    done = exported(a_project, "seg-nrrd", tmp_path / "out", predictions=True)
    assert {"case_0001.seg.nrrd", "case_0003.seg.nrrd"} < set(done.files)
    assert done.notes == ["case_0003: a prediction that nobody has accepted."]
    file = tmp_path / "out/case_0001.seg.nrrd"
    array, header = nrrd.read(str(file), index_order="C")
    assert np.array_equal(array, a_map()) and header["space"] == "left-posterior-superior"
    assert np.array_equal(header["space origin"], GRID.origin)
    assert (header["Segment0_Name"], header["Segment0_LabelValue"]) == ("left kidney", "3")
    assert header["Segment0_Extent"] == "1 7 1 5 1 7"
    assert "SCT^64033007^Kidney~SCT^7771000^Left" in header["Segment0_Tags"]
    again = read_label(file, GRID, (1, 2), structures=structures([Label(1, LABELS[1].name), Label(2, "left kidney")]))
    assert np.array_equal(sitk.GetArrayFromImage(again), np.array([0, 0, 0, 2, 0, 0, 0, 1])[a_map()])


@pytest.mark.host
def test_slicers_own_reader_shows_the_segments_where_they_were_outlined(a_project, tmp_path, host):
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    exported(a_project, "seg-nrrd", tmp_path / "out")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    slicer.mrmlScene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "out/case_0001.seg.nrrd"))
    assert storage.ReadData(node) == 1
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 2
    with Project.open(a_project) as project:
        grid = project.cases.grid("Ann")
    for row, value in zip(LABELS, (3, 7), strict=True):
        segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(row.name))
        assert segment.GetColor() == pytest.approx([part / 255 for part in row.color], abs=1e-5)
        kept = segment.GetRepresentation("Binary labelmap")
        matrix = vtk.vtkMatrix4x4()
        kept.GetImageToWorldMatrix(matrix)
        extent = kept.GetExtent()
        size = [extent[2 * a + 1] - extent[2 * a] + 1 for a in range(3)]
        values = vtk_to_numpy(kept.GetPointData().GetScalars()).reshape(size[::-1])
        found = np.argwhere(values == segment.GetLabelValue())[:, ::-1] + np.array(extent[::2])
        ras = np.array([matrix.MultiplyPoint([*index, 1])[:3] for index in found.tolist()])
        expected = grid.index_to_mm(np.argwhere(a_map() == value)[:, ::-1]) * (-1, -1, 1)
        assert len(ras) == len(expected)
        assert np.abs(ras[np.lexsort(ras.round(3).T)] - expected[np.lexsort(expected.round(3).T)]).max() < 1e-9
    tag = vtk.reference("")
    kidney = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("left kidney"))
    assert kidney.GetTag("TerminologyEntry", tag) and "64033007^Kidney" in str(tag)


@pytest.fixture
def a_dicom_project(tmp_path) -> Path:
    """A case that was added from a DICOM series of 8 x 9 x 6 voxels; another series lies beside."""
    slices(tmp_path / "disc/a", ARRAY, PLACES)
    slices(tmp_path / "disc/b", ARRAY + 1, PLACES, series="1.2.826.0.1.99")
    label = np.zeros(ARRAY.shape, np.uint8)
    label[1:4, 2:7, 1:5], label[4, 3:5, 3:6] = 3, 7
    with Project.create(tmp_path / "p", "P", LABELS, [Channel("CT")]) as project:
        project.cases.add("x", [tmp_path / "disc/a"])
        grid = project.cases.grid("x")
        project.revisions.store("x", grid.image(label), "accepted", author="reader")
    return tmp_path / "p"


def test_a_dicom_segmentation_is_read_by_highdicom(a_dicom_project, tmp_path, capsys):
    import highdicom
    import pydicom

    before = {path: sha256(path) for path in a_dicom_project.rglob("*") if path.is_file()}
    words = ["export", str(a_dicom_project), str(tmp_path / "out"), "--layout", "dicom-seg"]
    assert main([*words, "--source", str(tmp_path / "disc")]) == 0
    assert {path: sha256(path) for path in before} == before
    file = tmp_path / "out/case_0001.dcm"
    with Project.open(a_dicom_project) as project:
        grid = project.cases.grid("x")
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(project.revisions.accepted_label("x"))))
    segmentation = highdicom.seg.segread(file)
    source = pydicom.dcmread(tmp_path / "disc/a/001.dcm")
    assert segmentation.PatientID == source.PatientID and segmentation.StudyInstanceUID == source.StudyInstanceUID
    assert segmentation.FrameOfReferenceUID == source.FrameOfReferenceUID
    referenced = segmentation.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    volume = segmentation.get_volume(combine_segments=True)
    values = np.array([0, 3, 7])[volume.array]
    place = volume.affine
    for k, j, i in np.argwhere(values):
        lps = place[:3, :3] @ (k, j, i) + place[:3, 3]
        index = grid.mm_to_index(lps)
        assert np.abs(index - index.round()).max() < 1e-6
        x, y, z = index.round().astype(int)
        assert label[z, y, x] == values[k, j, i]
    assert np.count_nonzero(values) == np.count_nonzero(label)
    described = segmentation.get_segment_description(1)
    assert described.segment_label == "left kidney" and described.segmented_property_type.value == "64033007"
    again = read_label(file, grid, (3, 7), structures=structures(LABELS))
    assert np.array_equal(sitk.GetArrayFromImage(again), label)


def test_a_dicom_segmentation_asks_for_its_series(a_dicom_project, tmp_path):
    with pytest.raises(InputError, match="belongs to a DICOM series") as caught:
        exported(a_dicom_project, "dicom-seg", tmp_path / "out")
    assert "--source" in caught.value.remedy
    with pytest.raises(InputError, match="None of the 1 DICOM series there is the scan of the case 'x'"):
        exported(a_dicom_project, "dicom-seg", tmp_path / "out", source=tmp_path / "disc/b")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["stl", "obj"])
def test_surfaces_enclose_what_was_outlined(a_project, tmp_path, form):
    done = exported(a_project, form, tmp_path / "out")
    assert f"case_0001/3_left_kidney.{form}" in done.files
    file = tmp_path / f"out/case_0001/3_left_kidney.{form}"
    points, triangles = read_surface(file)
    edges = Counter(tuple(edge) for a, b, c in triangles.tolist() for edge in ((a, b), (b, c), (c, a)))
    assert set(edges.values()) == {1} and all((b, a) in edges for a, b in edges)  # closed, and turned one way
    whole = 68 * GRID.voxel_ml
    assert 0.7 * whole < enclosed_ml(points, triangles) < whole
    index = GRID.mm_to_index(points)
    assert (
        np.abs(index.min(axis=0) - (0.5, 0.5, 0.5)).max() < 1e-4
        and np.abs(index.max(axis=0) - (7.5, 5.5, 7.5)).max() < 1e-4
    )
    assert b"SPACE=LPS" in file.read_bytes()[:80]


def read_surface(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """With VTK's readers, whose points are of single precision."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    reader = vtk.vtkSTLReader() if file.suffix == ".stl" else vtk.vtkOBJReader()
    reader.SetFileName(str(file))
    reader.Update()
    read = reader.GetOutput()
    cells = vtk_to_numpy(read.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return vtk_to_numpy(read.GetPoints().GetData()).astype(np.float64), cells


def test_a_large_ball_has_the_volume_of_a_ball():
    axes = np.indices((48, 48, 48)) - 23.5
    grid = Grid((48, 48, 48), (1.0, 1.0, 1.0), (0, 0, 0), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    mask = (axes**2).sum(axis=0) <= 20.0**2
    points, triangles = surface(mask, grid)
    assert enclosed_ml(points, triangles) == pytest.approx(mask.sum() / 1000, rel=0.02)


def test_volumes_and_lesions_are_those_counted_by_hand(a_project, tmp_path):
    done = exported(a_project, "table", tmp_path / "out", predictions=True)
    assert done.notes == ["case_0003: a prediction that nobody has accepted."]
    rows = list(csv.DictReader((tmp_path / "out/volumes.csv").open(encoding="utf-8-sig")))
    assert len(rows) == 6 and {row["kind"] for row in rows} == {"accepted", "prediction"}
    first = rows[0]
    assert (first["case"], first["label"], first["name"], first["lesions"]) == ("case_0001", "3", "left kidney", "2")
    assert float(first["volume_ml"]) == pytest.approx(68 * 0.8 * 1.1 * 3.0 / 1000) and first["voxels"] == "68"
    assert rows[1]["name"] == "'=cmd|' /C calc'!A0"
    assert {(row["kind"], row["looked_share"]) for row in rows} == {("accepted", "1.0"), ("prediction", "")}
    lesions = list(csv.DictReader((tmp_path / "out/lesions.csv").open(encoding="utf-8-sig")))
    largest = lesions[0]
    center = GRID.index_to_mm((5.0, 3.5, 2.0))
    assert [float(largest[f"{axis}_mm"]) for axis in "xyz"] == pytest.approx(center.tolist(), abs=1e-3)
    assert (largest["lesion"], largest["voxels"], largest["extent_mm"]) == ("1", "60", "9.0")
    assert float(largest["diameter_mm"]) < 9.0 and largest["subject"] == first["subject"] == ""
    assert "Ann" not in (tmp_path / "out/volumes.csv").read_text(encoding="utf-8")


def test_all_tables_call_a_subject_alike_and_excel_reads_accents(a_project, tmp_path):
    with Project.open(a_project) as project:
        for seed, (name, subject) in enumerate((("Zoë", "zz"), ("Abe", "aa"))):
            scans = [GRID.image(np.full(SHAPE, 10 * seed + n, np.float32)) for n in range(2)]
            project.cases.add(name, scans, label=GRID.image(a_map()), group=subject)
    assert main(["export", str(a_project), str(tmp_path / "out"), "--layout", "table", "--predictions"]) == 0
    tables = {
        name: {
            (row["case"], row["subject"])
            for row in csv.DictReader((tmp_path / f"out/{name}.csv").open(encoding="utf-8-sig"))
        }
        for name in ("cases", "volumes", "lesions")
    }
    assert tables["cases"] == tables["volumes"] == tables["lesions"]
    assert {subject for _, subject in tables["cases"]} == {"", "subject_0001", "subject_0002"}
    assert (tmp_path / "out-names.csv").read_bytes().startswith("\ufeffcase,name".encode())
    assert "Zoë" in (tmp_path / "out-names.csv").read_text(encoding="utf-8-sig")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@SUM(A1)", "\t=1", "  =1", "\r=1"])
def test_no_text_is_a_formula(text):
    assert str(plain_cell(text)).startswith("'")
    assert plain_cell("a=b") == "a=b" and plain_cell(-1.5) == -1.5


def test_the_name_of_a_case_is_no_formula_in_the_table_of_names(a_project, tmp_path, capsys):
    assert main(["project", "rename", str(a_project), "Ann", "=HYPERLINK(1)"]) == 0
    assert main(["export", str(a_project), str(tmp_path / "out"), "--layout", "table"]) == 0
    assert "case_0001,'=HYPERLINK(1)" in (tmp_path / "out-names.csv").read_text(encoding="utf-8")


def test_an_empty_outline_has_rows_of_zeros():
    volumes, lesions = measure(np.zeros(SHAPE, np.uint8), GRID, LABELS)
    assert [row[2:] for row in volumes] == [(0.0, 0, 0), (0.0, 0, 0)] and lesions == []


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "dicom-seg"])
def test_the_manifest_says_what_was_written_from_what(a_project, tmp_path, layout):
    done = exported(a_project, layout, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["files"]) == set(done.files) - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert sha256(tmp_path / "out" / name) == digest
    with Project.open(a_project) as project:
        accepted = project.revisions.accepted("Ann")
    assert manifest["cases"][0]["revision"] == accepted.id and manifest["cases"][0]["label_sha256"] == accepted.sha256
    assert manifest["layout"] == layout and manifest["program"].startswith("BARL ") and "numpy" in manifest["versions"]
    assert "Ann" not in json.dumps(manifest)


def test_one_note_names_the_predictions_that_nobody_has_accepted(a_project, tmp_path):
    with Project.open(a_project) as project:
        for seed, name in enumerate("defghi"):
            scans = [GRID.image(np.random.default_rng([seed, n]).normal(size=SHAPE).astype(np.float32)) for n in (1, 2)]
            project.cases.add(name, scans)
            project.revisions.store(name, GRID.image(a_map()), "prediction", author="BARL model_0001")
    (note,) = exported(a_project, "table", tmp_path / "out", predictions=True).notes
    named = ", ".join(f"case_{number:04d}" for number in range(3, 8))
    assert note == f"{named} and 2 more: predictions that nobody has accepted."


@pytest.mark.parametrize(
    ("package", "layout", "name"), [("skimage.measure", "stl", "scikit-image"), ("highdicom", "dicom-seg", "highdicom")]
)
def test_a_missing_package_is_one_sentence(a_project, tmp_path, monkeypatch, package, layout, name):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match="which is not installed") as caught:
        exported(a_project, layout, tmp_path / "out", source=tmp_path)
    assert "barl-segmentation[exchange]" in caught.value.remedy and not (tmp_path / "out").exists()
    assert f"slicer.util.pip_install('{name}')" in caught.value.remedy


def test_predictions_are_not_trained_on(a_project, tmp_path):
    with pytest.raises(InputError, match="is to train on"):
        exported(a_project, "nnunet", tmp_path / "out", predictions=True)


@pytest.mark.host
def test_what_slicer_writes_with_layers_and_odd_terminology_comes_in(tmp_path, host):
    """Three segments of which two overlap, cropped to their extent, with names and meanings as people leave them."""
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros(SHAPE, np.float32))
    matrix = np.eye(4)
    matrix[:3, :3] = GRID.axes * GRID.spacing
    matrix[:3, 3] = GRID.origin
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    parts = {"Linke Niere_(größer)": a_map() == 3, "tumor": np.zeros(SHAPE, bool), "Segment_1": a_map() == 7}
    parts["tumor"][2, 3:5, 4:7] = True
    odd = (
        "a~b^c^d~^^~~Anatomic codes - DICOM master list~^^~^^|",
        "~^^~^^~^^~~^^~^^",
        "Segmentation category~SCT^^x~^^~^^",
    )
    for (name, mask), terminology in zip(parts.items(), odd, strict=True):
        segment = node.GetSegmentation().AddEmptySegment("", name)
        node.GetSegmentation().GetSegment(segment).SetTag("TerminologyEntry", terminology)
        node.GetSegmentation().GetSegment(segment).SetTag("A|B", "x:y|z")
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment, volume)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "drawn.seg.nrrd"))
    assert storage.WriteData(node)
    table = structures([Label(3, "linke niere (größer)"), Label(5, "Tumor"), Label(7, "cyst")])
    notes: list[str] = []
    found = read_label(
        tmp_path / "drawn.seg.nrrd", GRID, (3, 5, 7), structures=table, notes=notes, meaning={"Segment_1": 7}
    )
    expected = a_map()
    expected[parts["tumor"]] = 5
    assert np.array_equal(sitk.GetArrayFromImage(found), expected)
    assert any("6 voxels that belong to two segments" in note for note in notes), notes
