# SPDX-License-Identifier: Apache-2.0
"""Outlines as DICOM SEG and RTSTRUCT objects and as one file for each structure: every voxel under its own label."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.images.reading import read_image
from barl.images.segments import Structure
from dicom_maker import STORAGE, dataset, item, save, slices
from pydicom.sr.codedict import codes

SCAN = np.random.default_rng(3).integers(-1000, 1500, size=(6, 12, 11)).astype(np.int16)
LABELS = np.zeros(SCAN.shape, np.uint8)
LABELS[1:4, 2:7, 1:5] = 1
LABELS[2:5, 8:11, 6:10] = 2
TABLE = (Structure(1, "liver", "SCT 10200004"), Structure(2, "tumor", "SCT 108369006"))
TURN = np.array([[0.8, -0.6, 0.0], [0.36, 0.48, -0.8], [0.48, 0.64, 0.6]])
PLACES = [np.array([4.0, -7.0, 11.0]) + 2.5 * k * TURN[:, 2] for k in range(6)]


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> tuple[Path, Grid]:
    """A series of six oblique slices, and its grid."""

    def change(data, k):
        data.SliceThickness = 2.5

    folder = tmp_path_factory.mktemp("scan") / "ct"
    slices(folder, SCAN, PLACES, orientation=[*TURN[:, 0], *TURN[:, 1]], change=change)
    return folder, Grid.of(read_image(folder))


def described(number: int, name: str, code=codes.SCT.Organ) -> hd.seg.SegmentDescription:
    manual = hd.seg.SegmentAlgorithmTypeValues.MANUAL
    return hd.seg.SegmentDescription(number, name, codes.SCT.AnatomicalStructure, code, manual)


def write_seg(path: Path, folder: Path, array: np.ndarray, kind: str, segments: list, **options) -> Path:
    sources = [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"))]
    seg = hd.seg.Segmentation(
        sources, array, kind, segments, hd.UID(), 100, hd.UID(), 1, "Maker", "Model", "1", "0", **options
    )
    seg.save_as(path)
    return path


def read(path: Path, grid: Grid) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    return sitk.GetArrayFromImage(read_label(path, grid, (1, 2), structures=TABLE, notes=notes)), notes


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_segmentation_lands_under_its_names(kind, swapped, sparse, scan, tmp_path):
    folder, grid = scan
    names = ["tumor", "liver"] if swapped else ["liver", "tumor"]
    array = np.choose(LABELS, [0, 2, 1]).astype(np.uint8) if swapped else LABELS
    segments = [described(n, name) for n, name in enumerate(names, 1)]
    path = write_seg(tmp_path / "seg.dcm", folder, array, kind, segments, omit_empty_frames=sparse)
    for place in (path, path.parent):
        found, _ = read(place, grid)
        assert np.array_equal(found, LABELS)
    with pytest.raises(InputError, match="no scan but a segmentation"):
        read_image(path)


def test_as_many_frames_as_slices_are_not_taken_for_slices(scan, tmp_path):
    folder, grid = scan
    label = np.zeros_like(LABELS)
    label[0:3, 2:4, 1:4], label[0:3, 6:8, 5:8] = 1, 2
    path = write_seg(tmp_path / "s.dcm", folder, label, "BINARY", [described(1, "liver"), described(2, "tumor")])
    assert pydicom.dcmread(path).NumberOfFrames == 6
    assert np.array_equal(read(path, grid)[0], label)


def test_fractions_of_one_half_are_taken_and_told(scan, tmp_path):
    folder, grid = scan
    share = np.where(LABELS == 1, 0.8, np.where(LABELS == 2, 0.3, 0.0))
    path = write_seg(tmp_path / "s.dcm", folder, share, "FRACTIONAL", [described(1, "liver")])
    found, notes = read(path, grid)
    assert np.array_equal(found, (LABELS == 1).astype(np.uint8))
    assert any("fractional" in note for note in notes)


def test_coded_meaning_and_names_that_the_table_does_not_have(scan, tmp_path):
    folder, grid = scan
    one = (LABELS == 1).astype(np.uint8)
    path = write_seg(tmp_path / "a.dcm", folder, one, "BINARY", [described(1, "Leber", codes.SCT.Liver)])
    assert np.array_equal(read(path, grid)[0], one)
    path = write_seg(tmp_path / "b.dcm", folder, one, "BINARY", [described(1, "spleen")])
    with pytest.raises(InputError, match=r"The segment 'spleen' of 'b.dcm' is not in the label table"):
        read(path, grid)


def test_a_segmentation_of_another_scan_and_overlaps(scan, tmp_path):
    folder, grid = scan
    path = write_seg(tmp_path / "a.dcm", folder, LABELS, "BINARY", [described(1, "liver"), described(2, "tumor")])
    moved = Grid(grid.size, grid.spacing, tuple(grid.index_to_mm((0.5, 0, 0)).tolist()), grid.direction)
    with pytest.raises(InputError, match=r"does not lie on .* frame 1 of 'a.dcm' misses it by up to 0\.5"):
        read(path, moved)
    lower = grid.crop((0, 0, 0), (11, 12, 3))
    with pytest.raises(InputError, match=r"outlined voxels of frame .* lie outside"):
        read(path, lower)
    both = np.stack([LABELS == 1, LABELS > 0], axis=-1).astype(np.uint8)
    path = write_seg(tmp_path / "b.dcm", folder, both, "BINARY", [described(1, "liver"), described(2, "tumor")])
    found, notes = read(path, grid)
    assert np.array_equal(found, LABELS), "the liver lies inside of what is called tumor here: it keeps its voxels"
    assert any(f"{np.count_nonzero(LABELS == 1)} voxels that belong to two" in note for note in notes)


def test_a_segmentation_cut_off(scan, tmp_path):
    folder, grid = scan
    path = write_seg(tmp_path / "a.dcm", folder, LABELS, "BINARY", [described(1, "liver"), described(2, "tumor")])
    content = path.read_bytes()
    for share in (0.3, 0.9, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError):
            read(path, grid)


# ---- contours


def write_contours(path: Path, grid: Grid, rois: dict[str, list], kind: str = "CLOSED_PLANAR") -> Path:
    """Contours of (i, j, k) voxel positions."""
    data = dataset(STORAGE + "481.3", SCAN[0], series="1.2.826.0.1.79", instance="1.2.826.0.1.79.1")
    for keyword in ("Rows", "Columns", "PixelData", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(data, keyword)
    data.StructureSetROISequence = [item(ROINumber=n, ROIName=name) for n, name in enumerate(rois, 1)]
    data.ROIContourSequence = [
        item(
            ReferencedROINumber=n,
            ContourSequence=[
                item(
                    ContourGeometricType=kind,
                    NumberOfContourPoints=len(points),
                    ContourData=[f"{v:.8g}" for v in grid.index_to_mm(points).ravel()],
                )
                for points in contours
            ],
        )
        for n, contours in enumerate(rois.values(), 1)
    ]
    return save(data, path)


def box(i0: float, i1: float, j0: float, j1: float, k: float) -> list:
    return [(i0, j0, k), (i1, j0, k), (i1, j1, k), (i0, j1, k)]


def test_contours_are_filled_on_their_slices(scan, tmp_path):
    _, grid = scan
    rois = {
        "tumor": [box(6, 9, 8, 10, k) for k in (2, 3, 4)],
        "Liver": [box(0.5, 4.5, 1.5, 6.5, k) for k in (1, 2, 3)],
    }
    path = write_contours(tmp_path / "rs.dcm", grid, rois)
    for place in (path, path.parent):
        found, notes = read(place, grid)
        assert np.array_equal(found, LABELS)
        assert any("a voxel belongs to a structure if its center does" in note for note in notes)
    with pytest.raises(InputError, match="RTSTRUCT"):
        read_image(path)


def test_holes_slants_and_missing_slices(scan, tmp_path):
    _, grid = scan
    triangle = [(1, 1, 2), (9, 1, 2), (1, 9, 2)]
    rois = {"liver": [box(0.5, 8.5, 0.5, 8.5, 0), box(2.5, 5.5, 2.5, 5.5, 0), triangle]}
    found, notes = read(write_contours(tmp_path / "a.dcm", grid, rois), grid)
    expected = np.zeros_like(LABELS)
    expected[0, 1:9, 1:9] = 1
    expected[0, 3:6, 3:6] = 0
    j, i = np.mgrid[:12, :11]
    expected[2][(i >= 1) & (j >= 1) & (i + j <= 10)] = 1
    assert np.array_equal(found, expected)
    assert any("1 slices between the contours" in note for note in notes)


def test_a_keyhole_and_a_tumor_in_its_organ(scan, tmp_path):
    """A hole that a cut joins with the outer line, and a structure of another one's voxels."""
    _, grid = scan
    outer, inner = box(0.5, 8.5, 0.5, 8.5, 1), box(2.5, 5.5, 2.5, 5.5, 1)
    keyhole = [*outer, outer[0], inner[0], *reversed(inner)]
    found, _ = read(write_contours(tmp_path / "a.dcm", grid, {"liver": [keyhole]}), grid)
    expected = np.zeros_like(LABELS)
    expected[1, 1:9, 1:9] = 1
    expected[1, 3:6, 3:6] = 0
    assert np.array_equal(found, expected)
    rois = {"tumor": [box(2.5, 5.5, 2.5, 5.5, 1)], "liver": [outer], "BODY": [box(0, 10, 0, 11, 1)]}
    path = write_contours(tmp_path / "b.dcm", grid, rois)
    notes: list[str] = []
    image = read_label(path, grid, (1, 2), structures=TABLE, notes=notes, meaning={"BODY": 0})
    expected[1, 3:6, 3:6] = 2
    assert np.array_equal(sitk.GetArrayFromImage(image), expected)
    assert "Outline: Left out as wished: BODY." in notes and any(
        "9 voxels that belong to two" in note for note in notes
    )


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_a_contour_that_is_stored_twice_counts_once(kind, scan, tmp_path):
    """Also from another corner on, in the other direction, and with other roundings."""
    _, grid = scan
    first = box(1, 6, 2, 7, 2)
    again = [(i + 0.004, j - 0.004, k) for i, j, k in reversed([*first[2:], *first[:2]])]
    expected = np.zeros_like(LABELS)
    expected[1:4, 2:8, 1:7] = 1
    for twice in ([first], [again], [first, again]):
        rois = {"liver": [box(1, 6, 2, 7, 1), first, *twice, box(1, 6, 2, 7, 3)]}
        found, notes = read(write_contours(tmp_path / "a.dcm", grid, rois, kind), grid)
        assert np.array_equal(found, expected)
        assert f"Outline: {len(twice)} contours that repeat another contour of their slice were left out." in notes


def test_contours_that_overlap_in_part_are_united_but_those_of_an_exclusive_or(scan, tmp_path):
    _, grid = scan
    rois = {"liver": [box(0, 5, 0, 5, 1), box(4, 8, 4, 8, 1)]}
    union, either = np.zeros_like(LABELS), np.zeros_like(LABELS)
    union[1, 0:6, 0:6] = union[1, 4:9, 4:9] = 1
    either[:] = union
    either[1, 4:6, 4:6] = 0
    for kind, expected in (("CLOSED_PLANAR", union), ("CLOSEDPLANAR_XOR", either)):
        found, notes = read(write_contours(tmp_path / "a.dcm", grid, rois, kind), grid)
        assert np.array_equal(found, expected)
        assert not any("repeat" in note for note in notes)
    # Its pixels lie inside of the other contour, its corners do not: no hole.
    part = {"liver": [box(0.5, 5.5, 0.5, 5.5, 1), box(3.5, 5.8, 2.5, 4.5, 1)]}
    found, _ = read(write_contours(tmp_path / "b.dcm", grid, part), grid)
    assert np.count_nonzero(found) == 25


def test_only_what_lies_wholly_inside_is_a_hole_and_an_island_lies_in_a_hole(scan, tmp_path):
    _, grid = scan
    outer, hole, island = box(0.5, 9.5, 0.5, 9.5, 1), box(1.5, 7.5, 1.5, 7.5, 1), box(2.5, 6.5, 2.5, 6.5, 1)
    inmost, crossing = box(3.5, 5.5, 3.5, 5.5, 1), box(6.6, 10, 3.5, 5.5, 1)
    expected = np.zeros_like(LABELS)
    expected[1, 1:10, 1:10] = 1
    expected[1, 2:8, 2:8] = 0
    expected[1, 3:7, 3:7] = 1
    expected[1, 4:6, 4:6] = 0
    for contours in ([outer, hole, island, inmost], [inmost, outer, island, hole]):
        found, _ = read(write_contours(tmp_path / "a.dcm", grid, {"liver": contours}), grid)
        assert np.array_equal(found, expected)
    expected[1, 4:6, 7:11] = 1  # covers a part of the hole and reaches beyond the outer line
    found, _ = read(write_contours(tmp_path / "b.dcm", grid, {"liver": [crossing, outer, hole, island, inmost]}), grid)
    assert np.array_equal(found, expected)
    # A hole in both of two that overlap, with a side on the line of one.
    rois = {"liver": [box(0.5, 6.5, 0.5, 9.5, 1), box(2.5, 9.5, 0.5, 9.5, 1), box(2.5, 5.5, 3.5, 5.501, 1)]}
    found, _ = read(write_contours(tmp_path / "c.dcm", grid, rois), grid)
    expected[:] = 0
    expected[1, 1:10, 1:10] = 1
    expected[1, 4:6, 3:6] = 0
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("rois", "match"),
    [
        ({"spleen": [box(1, 4, 1, 4, 1)]}, "The segment 'spleen' of 'a.dcm' is not in the label table"),
        ({"liver": [box(1, 4, 1, 4, 1.5)]}, "does not lie in a slice of the scan"),
        ({"liver": [box(1, 4, 1, 4, 9)]}, "outside of the scan"),
        ({"liver": [box(1, 40, 1, 4, 1)]}, "outside of the scan"),
        ({"liver": [box(1, 4, 1, 4, 1)], "tumor": [box(1, 4, 1, 4, 1)]}, "overlap in 16 voxels"),
    ],
)
def test_contours_that_cannot_be_taken(rois, match, scan, tmp_path):
    _, grid = scan
    with pytest.raises(InputError, match=match):
        read(write_contours(tmp_path / "a.dcm", grid, rois), grid)


# ---- one file for each structure


def test_one_file_for_each_structure(scan, tmp_path):
    _, grid = scan
    for value, name in ((1, "liver.nii.gz"), (2, "Tumor.nii.gz")):
        sitk.WriteImage(grid.image((value == LABELS).astype(np.uint8) * 255), str(tmp_path / name))
    found, _ = read(tmp_path, grid)
    assert np.array_equal(found, LABELS)
    sitk.WriteImage(grid.image((LABELS == 1).astype(np.uint8)), str(tmp_path / "spleen.nii.gz"))
    with pytest.raises(InputError, match=r"segment 'spleen' of 'spleen.nii.gz' is not in the label table"):
        read(tmp_path, grid)
    sitk.WriteImage(grid.image(LABELS), str(tmp_path / "spleen.nii.gz"))
    (tmp_path / "spleen.nii.gz").replace(tmp_path / "liver.nii.gz")
    with pytest.raises(InputError, match=r"'liver.nii.gz' holds more than one structure"):
        read(tmp_path, grid)
