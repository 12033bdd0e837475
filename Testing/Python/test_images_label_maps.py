# SPDX-License-Identifier: Apache-2.0
"""Outlines are taken where they lie in space and as what their names say, or refused; what is changed is told."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from barl.cli import main
from barl.errors import InputError
from barl.images.geometry import Grid
from barl.images.label_maps import OtherGridError, read_label
from barl.images.segments import Structure, in_single_planes
from barl.project.store import Project

TURN = (0.8, -0.6, 0.0, 0.36, 0.48, -0.8, 0.48, 0.64, 0.6)
GRID = Grid((22, 24, 20), (0.68359375, 0.68359375, 1.25), (-174.658, -320.1234567, -987.654321), TURN)
LABELS = np.zeros(GRID.shape, np.uint8)
LABELS[2:9, 3:12, 4:9] = 1
LABELS[10:14, 12:20, 10:17] = 2
OUTLINE = GRID.image(LABELS)
TABLE = (Structure(1, "liver", "SCT 10200004"), Structure(2, "tumor", "SCT 108369006"))


def write(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path), True)
    return path


def read(path: Path, **options) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    label = read_label(path, GRID, (1, 2), notes=notes, **options)
    assert Grid.of(label) == GRID
    return sitk.GetArrayFromImage(label), notes


# ---- place

MOVED = {
    "cropped": lambda: sitk.RegionOfInterest(OUTLINE, [18, 20, 16], [2, 1, 1]),
    "permuted": lambda: sitk.PermuteAxes(OUTLINE, [2, 0, 1]),
    "flipped": lambda: sitk.Flip(OUTLINE, [True, False, True]),
    "re-oriented": lambda: sitk.DICOMOrient(OUTLINE, "RAS"),
    "padded": lambda: sitk.ConstantPad(OUTLINE, [3, 0, 2], [1, 4, 0]),
    "cropped and permuted": lambda: sitk.PermuteAxes(
        sitk.RegionOfInterest(OUTLINE, [18, 20, 16], [2, 1, 1]), [1, 2, 0]
    ),
}


@pytest.mark.parametrize("kind", MOVED)
@pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "mha"])
def test_the_same_voxels_in_another_order_or_extent_are_taken_exactly(kind, ending, tmp_path):
    array, notes = read(write(MOVED[kind](), tmp_path / f"a.{ending}"))
    assert np.array_equal(array, LABELS)
    assert notes == []


def test_outlined_voxels_outside_of_the_scan_are_counted(tmp_path):
    longer = sitk.ConstantPad(OUTLINE, [0, 0, 4], [0, 0, 0])
    array = sitk.GetArrayFromImage(longer)
    array[1, 2:5, 3] = 1
    path = write(Grid.of(longer).image(array), tmp_path / "a.nrrd")
    with pytest.raises(InputError, match=r"3 outlined voxels of the label map 'a.nrrd' lie outside"):
        read(path)
    array, notes = read(path, resample=True)
    assert np.array_equal(array, LABELS)
    assert notes == ["Outline: 3 outlined voxels outside of the scan were cut off."]


def test_another_grid_is_resampled_only_when_asked_and_the_loss_is_told(tmp_path):
    fine = Grid((44, 48, 20), (GRID.spacing[0] / 2, GRID.spacing[1] / 2, 1.25), (0, 0, 0), TURN)
    first = GRID.index_to_mm((-0.25, -0.25, 0))
    fine = Grid(fine.size, fine.spacing, tuple(first.tolist()), TURN)
    doubled = LABELS.repeat(2, axis=1).repeat(2, axis=2)
    path = write(fine.image(doubled), tmp_path / "fine.nrrd")
    with pytest.raises(OtherGridError, match=r"44 x 48 x 20 voxels against 22 x 24 x 20.*--resample") as refusal:
        read(path)
    array, notes = read(path, resample=True)
    assert np.array_equal(array, LABELS)
    count = int(np.count_nonzero(LABELS))
    loss = f"its {4 * count} outlined voxels would become {count}; 0 would be lost."
    assert refusal.value.message.endswith(loss)
    assert notes == [
        f"Outline: It was resampled onto the scan's grid (nearest voxel): {4 * count} outlined voxels became {count}; "
        "0 of them are lost."
    ]
    # A single fine voxel that no voxel of the scan has as its nearest is lost.
    doubled[:] = 0
    doubled[3, 8, 8] = 1
    shifted = Grid(fine.size, fine.spacing, tuple(GRID.index_to_mm((-0.15, -0.15, 0)).tolist()), TURN)
    array, notes = read(write(shifted.image(doubled), tmp_path / "one.nrrd"), resample=True)
    assert ("1 outlined voxels became 1; 0" in notes[0]) or ("1 outlined voxels became 0; 1" in notes[0])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"origin": tuple(o + 1e-4 for o in GRID.origin)}, False),
        ({"origin": tuple(round(o, 2) for o in GRID.origin)}, True),
        ({"spacing": (0.6838, 0.68359375, 1.25)}, True),
        ({"direction": tuple(round(d + 1e-6 * (-1) ** n, 6) for n, d in enumerate(TURN))}, False),
    ],
)
def test_a_geometry_that_is_rounded_is_taken_and_told(changes, told, tmp_path):
    fields = {name: getattr(GRID, name) for name in ("size", "spacing", "origin", "direction")} | changes
    array, notes = read(write(Grid(**fields).image(LABELS), tmp_path / "a.nrrd"))
    assert np.array_equal(array, LABELS)
    assert [note.startswith("Outline: The geometry is rounded") for note in notes] == [True] * told


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"spacing": tuple(round(s, 3) for s in GRID.spacing)}, r"lie up to 0\.0\d+ mm apart"),
        ({"origin": tuple(round(o, 1) for o in GRID.origin)}, r"lie up to 0\.0\d+ mm apart"),
        ({"spacing": (0.68359375, 0.68359375, 1.251)}, r"lie up to 0\.019 mm apart"),
        ({"origin": tuple(GRID.index_to_mm((2, 0, 0)).tolist())}, r"lie up to 1\.37 mm apart"),
        ({"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0)}, "spacing 1 x 1 x 1 mm against"),
        ({"direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}, "axes point in other directions"),
    ],
)
def test_beyond_that_the_distance_is_told(changes, match, tmp_path):
    fields = {name: getattr(GRID, name) for name in ("size", "spacing", "origin", "direction")} | changes
    with pytest.raises(InputError, match=match) as caught:
        read(write(Grid(**fields).image(LABELS), tmp_path / "a.nrrd"))
    assert " 0 mm apart" not in caught.value.message


# ---- numbers


@pytest.mark.parametrize(
    ("stored", "slope", "kind"),
    [
        (np.choose(LABELS, [0, 128, 255]), 2 / 255, np.uint8),
        (np.rint(LABELS / 2 * 32767), 2 / 32767, np.int16),
        (LABELS, 1.0000001, np.int16),
        (LABELS, 0.9999999, np.uint8),
    ],
)
def test_scaled_labels_are_rounded_and_told(stored, slope, kind, tmp_path):
    header = nib.Nifti1Header()
    header.set_data_shape(LABELS.T.shape)
    header.set_data_dtype(kind)
    header["scl_slope"], header["scl_inter"] = slope, 0
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, -1, 1]) @ GRID.axes * GRID.spacing
    affine[:3, 3] = np.array(GRID.origin) * [-1, -1, 1]
    header.set_sform(affine, 1)
    header.set_xyzt_units("mm")
    header["pixdim"][1:4], header["vox_offset"], header["magic"] = GRID.spacing, 352, b"n+1"
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + bytes(4) + np.asarray(stored).astype(kind).tobytes())
    array, notes = read(path)
    assert np.array_equal(array, LABELS)
    assert any("not quite whole numbers" in note for note in notes)


def test_probabilities_are_no_labels(tmp_path):
    for array in (LABELS * 0.98, LABELS + np.float32(0.01)):
        with pytest.raises(InputError, match="not integers"):
            read(write(GRID.image(array.astype(np.float32)), tmp_path / "a.nrrd"))


def test_an_empty_outline_is_told(tmp_path):
    array, notes = read(write(GRID.image(LABELS * 0), tmp_path / "a.nrrd"))
    assert not array.any()
    assert notes == ["Outline: The outline is empty."]


# ---- names


def seg(path: Path, array: np.ndarray, segments: list[tuple], grid: Grid = GRID) -> Path:
    """A segmentation as Slicer writes it: (name, value[, layer[, tags]]) for each segment."""
    layers = [grid.image(layer) for layer in array] if array.ndim == 4 else None
    image = sitk.Compose(*layers) if layers else grid.image(array)
    for n, (name, value, *more) in enumerate(segments):
        image.SetMetaData(f"Segment{n}_ID", f"Segment_{n + 1}")
        image.SetMetaData(f"Segment{n}_Name", name)
        image.SetMetaData(f"Segment{n}_LabelValue", str(value))
        image.SetMetaData(f"Segment{n}_Layer", str(more[0] if more else 0))
        image.SetMetaData(f"Segment{n}_Tags", more[1] if len(more) > 1 else "Segmentation.Status:inprogress|")
    image.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    return write(image, path)


def term(code: str) -> str:
    return f"TerminologyEntry:Slicer~SCT^123037004^Anatomical Structure~{code}~^^~Anatomic codes~^^~^^|"


SWAPPED = np.choose(LABELS, [0, 2, 1]).astype(np.uint8)
LIVER, TUMOR = term("SCT^10200004^Liver"), term("SCT^108369006^Neoplasm")


@pytest.mark.parametrize(
    ("array", "segments"),
    [
        (LABELS, [("liver", 1), ("tumor", 2)]),
        (SWAPPED, [("tumor", 1), ("liver", 2)]),
        (SWAPPED, [("Tumor ", 1), ("LIVER", 2)]),
        (SWAPPED, [("Geschwulst", 1, 0, TUMOR), ("Leber", 2, 0, LIVER)]),
        (np.stack([LABELS == 2, LABELS == 1]).astype(np.uint8), [("tumor", 1, 0), ("liver", 1, 1)]),
        (LABELS, [("liver", 1), ("tumor", 2), ("an empty one", 3)]),
    ],
)
def test_segments_are_matched_by_name_or_meaning(array, segments, tmp_path):
    path = seg(tmp_path / "a.seg.nrrd", array, segments)
    found, _ = read(path, structures=TABLE)
    assert np.array_equal(found, LABELS)


def test_a_lone_tumor_is_never_stored_as_liver(tmp_path):
    path = seg(tmp_path / "a.seg.nrrd", (LABELS == 2).astype(np.uint8), [("tumor", 1)])
    found, notes = read(path, structures=TABLE)
    assert np.array_equal(found, np.where(LABELS == 2, 2, 0))
    assert any("matched to the label table by their names" in note for note in notes)


@pytest.mark.parametrize(
    ("segments", "match"),
    [
        ([("spleen", 1), ("tumor", 2)], r"segment 'spleen' .* not in the label table \(1 liver, 2 tumor\)"),
        ([("liver", 1, 0, TUMOR), ("tumor", 2)], "called as the label 1, but its terminology is that of the label 2"),
        ([("liver", 1)], "holds the value 2, which belongs to none of its segments"),
        ([("spleen", 1, 0, term("SCT^85756007^Tissue")), ("tumor", 2)], "segment 'spleen'"),
    ],
)
def test_names_that_contradict_the_table_are_refused(segments, match, tmp_path):
    path = seg(tmp_path / "a.seg.nrrd", LABELS, segments)
    with pytest.raises(InputError, match=match):
        read(path, structures=TABLE)


def test_a_segment_of_another_name_is_taken_as_said(tmp_path, capsys):
    """The remedy of the refusal, on the command line: for a scan, a folder, and an outline that comes later."""
    names = [("GTV=1", 1), ("Leber", 2)]
    outlines, scans = tmp_path / "outlines", tmp_path / "scans"
    outlines.mkdir()
    scans.mkdir()
    for name in ("a", "b"):
        seg(outlines / f"{name}.seg.nrrd", LABELS, names)
        scan = np.random.default_rng(ord(name)).normal(100, 10, LABELS.shape).astype(np.float32)
        write(GRID.image(scan), scans / f"{name}.nii.gz")
    project, a = str(tmp_path / "p"), str(outlines / "a.seg.nrrd")
    assert main(["project", "new", project, "--label", "1=liver", "--label", "2=tumor"]) == 0
    assert main(["add", project, str(scans / "a.nii.gz"), "--label", a]) == 2
    refusal = capsys.readouterr().err
    assert "The segment 'GTV=1'" in refusal and '--segment "NAME=LABEL"' in refusal
    said = ["--segment", "GTV=1=tumor", "--segment", "leber=1"]
    assert main(["add", project, str(scans / "a.nii.gz"), "--label", a, *said]) == 0
    assert main(["add", project, "--images", str(scans), "--labels", str(outlines), *said]) == 0
    with Project.open(project) as opened:
        for name in ("a", "b"):
            stored = sitk.GetArrayFromImage(sitk.ReadImage(str(opened.revisions.accepted_label(name))))
            assert np.array_equal(stored, np.array([0, 2, 1])[LABELS]), name
    assert main(["project", "accept", project, "a", a, *said]) == 0
    for wrong in ("GTV", "GTV=spleen", "=1"):
        assert main(["project", "accept", project, "a", a, "--segment", wrong]) == 2


def test_segments_without_a_name_are_taken_by_value_and_told(tmp_path):
    path = seg(tmp_path / "a.seg.nrrd", LABELS, [("Segment_1", 1), ("Segment_2", 2)])
    found, notes = read(path, structures=TABLE)
    assert np.array_equal(found, LABELS)
    assert any("without a name was taken by its value 2" in note for note in notes)


@pytest.mark.parametrize("names", [("liver", "tumor"), ("tumor", "liver")])
def test_of_layers_that_overlap_the_smaller_one_gets_the_voxels(names, tmp_path):
    """A tumor is drawn inside of its organ, whichever label stands first in the table."""
    whole, inner = LABELS > 0, LABELS == 2
    path = seg(tmp_path / "a.seg.nrrd", np.stack([whole, inner]).astype(np.uint8), [(names[0], 1, 0), (names[1], 1, 1)])
    found, notes = read(path, structures=TABLE)
    values = {structure.name: structure.value for structure in TABLE}
    expected = np.where(inner, values[names[1]], np.where(whole, values[names[0]], 0))
    assert np.array_equal(found, expected)
    assert any(f"{np.count_nonzero(inner)} voxels that belong to two segments" in note for note in notes)
    path = seg(tmp_path / "b.seg.nrrd", np.stack([whole, whole]).astype(np.uint8), [("liver", 1, 0), ("tumor", 1, 1)])
    with pytest.raises(InputError, match="nothing would be left of the label 1"):
        read(path, structures=TABLE)


def test_a_cropped_segmentation_with_exchanged_values(tmp_path):
    image = sitk.RegionOfInterest(GRID.image(SWAPPED), [18, 20, 16], [2, 1, 1])
    path = seg(tmp_path / "a.seg.nrrd", sitk.GetArrayFromImage(image), [("tumor", 1), ("liver", 2)], Grid.of(image))
    found, _ = read(path, structures=TABLE)
    assert np.array_equal(found, LABELS)


@pytest.mark.parametrize("segments", [[], [("liver", 1), ("tumor", 2)]])
def test_an_empty_segmentation(segments, tmp_path):
    found, notes = read(seg(tmp_path / "a.seg.nrrd", LABELS * 0, segments), structures=TABLE)
    assert not found.any()
    assert "Outline: The outline is empty." in notes


def nifti_with_names(path: Path, names: dict[int, str]) -> Path:
    """As TotalSegmentator and Connectome Workbench write them: values 1 and 2 of ``OUTLINE`` with a table of names."""
    made = nib.load(write(OUTLINE, path))
    rows = "".join(f'<Label Key="{value}"><![CDATA[{name}]]></Label>' for value, name in names.items())
    text = f'<?xml version="1.0" encoding="UTF-8"?> <CaretExtension><LabelTable>{rows}</LabelTable></CaretExtension>'
    made.header.extensions.append(nib.nifti1.Nifti1Extension(0, text.encode()))
    nib.save(made, path.with_name("named.nii.gz"))
    return path.with_name("named.nii.gz")


@pytest.mark.parametrize(
    ("names", "expected", "told"),
    [
        ({1: "liver", 2: "tumor", 3: "spleen"}, [1, 2], None),
        ({1: "tumor", 2: "liver"}, [2, 1], "matched to the label table by their names"),
        ({1: "left", 2: "right"}, [1, 2], "none of the names in the file; its values were taken: left as liver, right"),
    ],
)
def test_names_in_a_nifti_header_count_as_those_of_segments(names, expected, told, tmp_path):
    array, notes = read(nifti_with_names(tmp_path / "a.nii.gz", names), structures=TABLE)
    np.testing.assert_array_equal(array, np.array([0, *expected])[LABELS])
    assert (told is None and notes == []) or any(told in note for note in notes)


def test_a_name_in_a_nifti_header_that_the_table_lacks_is_refused_beside_one_that_it_has(tmp_path):
    path = nifti_with_names(tmp_path / "a.nii.gz", {1: "spleen", 2: "liver"})
    with pytest.raises(InputError, match=r"'spleen' of 'named\.nii\.gz' is not in the label table"):
        read(path, structures=TABLE)
    array, _ = read(path, structures=TABLE, meaning={"spleen": 0})
    np.testing.assert_array_equal(array, np.array([0, 0, 1])[LABELS])
    array, _ = read(path, structures=TABLE, meaning={1: 1, 2: 2})
    np.testing.assert_array_equal(array, LABELS, "what the user says about values counts first")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("planes", "found"),
    [
        ([2, 5, 8], (3, 4)),
        ([1, 3, 6, 9], (4, 5)),
        ([2, 7], None),
        ([2, 3, 7], None),  # a plane beside another one
        ([2, 3, 5, 6, 8, 9], None),
        (range(2, 9), None),
    ],
)
def test_single_planes_with_empty_planes_between_them(planes, found, axis):
    label = np.zeros((12, 10, 10), np.uint16)
    label[list(planes), 3:7, 3:6] = 300
    label[4:8, 8:10, 8:10] = 2
    turned = np.moveaxis(label, 0, axis)
    turned.setflags(write=False)
    assert in_single_planes(turned) == ({300: found} if found else {})


def test_separate_lesions_of_one_plane_are_no_outline_of_single_planes():
    label = np.zeros((12, 10, 10), np.uint8)
    label[2, 1:3, 1:3] = label[5, 6:9, 1:3] = label[9, 1:3, 6:9] = 1
    assert in_single_planes(label) == {}
    rng = np.random.default_rng(1)
    assert in_single_planes((rng.random((20, 20, 20)) < 0.1).astype(np.uint8)) == {}
    assert in_single_planes(np.zeros((3, 3, 3), np.uint8)) == {}
