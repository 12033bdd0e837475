# SPDX-License-Identifier: Apache-2.0
"""Rows of exchange.py: the CT of STS_002 with its structure set, and DICOM segmentations of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from _exchange import Place, array, barl, program
from barl.images.geometry import Grid
from barl.project.labels import Channel, Code, Label, Terminology
from barl.project.store import Project

TUMOR = Terminology(Code("SCT", "49755003", "Morphologically Altered Structure"), Code("SCT", "108369006", "Neoplasm"))
LABEL = Label(1, "GTV_Mass_CT", (220, 10, 5), TUMOR)
# Prints the voxels (k, j, i in LPS millimeters) that pydicom-seg reads; run by the interpreter that has it.
READ = """
import json, sys, numpy, pydicom, pydicom_seg
result = pydicom_seg.SegmentReader().read(pydicom.dcmread(sys.argv[1]))
(number,) = result.available_segments
image = result.segment_image(number)
array = result.segment_data(number)
places = [image.TransformIndexToPhysicalPoint([int(i), int(j), int(k)]) for k, j, i in numpy.argwhere(array)]
print(json.dumps(places))
"""


def ct_study(place: Place) -> tuple[Path, Path]:
    """A project with the CT and its structure set, and the outline that it holds."""
    folder = place.home / "study"
    Project.create(folder, "P", [LABEL], [Channel("CT")]).close()
    barl("add", folder, place.ct / "image", "--name", "ct", "--label", place.ct / "mask/RS.dcm")
    with Project.open(folder, read_only=True) as project:
        return folder, project.revisions.accepted_label("ct")


def rtstruct_in(place: Place) -> tuple[str, str]:
    """plastimatch makes its own label map of the same contours."""
    _, label = ct_study(place)
    words = ("--input", place.ct / "mask/RS.dcm", "--referenced-ct", place.ct / "image")
    program("plastimatch", "convert", *words, "--output-prefix", place.home / "masks", "--prefix-format", "nrrd")
    (mask,) = (place.home / "masks").glob("*.nrrd")
    ours, theirs = sitk.ReadImage(str(label)) > 0, sitk.ReadImage(str(mask)) > 0
    theirs = sitk.Resample(theirs, ours, sitk.Transform(), sitk.sitkNearestNeighbor)
    one, other = (sitk.GetArrayFromImage(image).astype(bool) for image in (ours, theirs))
    dice = 2 * np.count_nonzero(one & other) / (one.sum() + other.sum())
    distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(theirs, False, False, False))
    far = np.abs(distance)[one != other].max(initial=0)
    counts = f"{one.sum():,} voxels and {other.sum():,}"
    return "plastimatch", f"Dice {dice:.4f} ({counts}), nothing farther than {far:.1f} voxels from its border"


def right_places(points: np.ndarray, grid: Grid, expected: np.ndarray) -> str:
    """How many of the points (LPS, mm) are voxels of the outline, and how far they lie from the voxels' centers."""
    index = grid.mm_to_index(points)
    rounded = index.round().astype(int)
    hit = expected[tuple(rounded.T[::-1])]
    off = np.abs(index - rounded).max()
    return (
        f"{np.count_nonzero(hit):,} of {np.count_nonzero(expected):,} ({len(points):,} read, {off:.0e} of a voxel off)"
    )


def dicom_seg_out(place: Place) -> tuple[str, str]:
    import highdicom

    folder, label = ct_study(place)
    barl("export", folder, place.home / "out", "--layout", "dicom-seg", "--source", place.ct / "image")
    file = place.home / "out/case_0001.dcm"
    expected, grid = array(label) > 0, Grid.of(sitk.ReadImage(str(label)))
    volume = highdicom.seg.segread(file).get_volume(combine_segments=True)
    places = np.argwhere(volume.array) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    said = {"highdicom": right_places(places, grid, expected)}
    (place.home / "dcmqi").mkdir()
    words = ("--inputDICOM", file, "--outputDirectory", place.home / "dcmqi", "-t", "nrrd")
    program("segimage2itkimage", *words)
    image = sitk.ReadImage(str(next((place.home / "dcmqi").glob("*.nrrd"))))
    index = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
    said["dcmqi"] = right_places(Grid.of(image).index_to_mm(index), grid, expected)
    if place.pydicom_seg:
        done = subprocess.run([place.pydicom_seg, "-c", READ, str(file)], capture_output=True, text=True, check=True)
        said["pydicom-seg"] = right_places(np.array(json.loads(done.stdout)), grid, expected)
    return ", ".join(said), "; ".join(f"{name} {words}" for name, words in said.items())


def dicom_seg_in(place: Place) -> tuple[str, str]:
    """dcmqi writes the file from a label map of SimpleITK."""
    _, label = ct_study(place)
    sitk.WriteImage(sitk.ReadImage(str(label)), str(place.home / "gtv.nrrd"))
    code = {"CodeValue": "108369006", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Neoplasm"}
    category = {
        "CodeValue": "49755003",
        "CodingSchemeDesignator": "SCT",
        "CodeMeaning": "Morphologically Altered Structure",
    }
    segment = {
        "labelID": 1,
        "SegmentLabel": LABEL.name,
        "SegmentDescription": LABEL.name,
        "SegmentAlgorithmType": "MANUAL",
        "SegmentedPropertyCategoryCodeSequence": category,
        "SegmentedPropertyTypeCodeSequence": code,
    }
    facts = {"ContentCreatorName": "R", "SeriesDescription": "S", "SeriesNumber": "300", "InstanceNumber": "1"}
    (place.home / "seg.json").write_text(json.dumps({**facts, "segmentAttributes": [[segment]]}))
    words = ("--inputImageList", place.home / "gtv.nrrd", "--inputDICOMDirectory", place.ct / "image")
    program(
        "itkimage2segimage", *words, "--outputDICOM", place.home / "seg.dcm", "--inputMetadata", place.home / "seg.json"
    )
    again = place.home / "again"
    Project.create(again, "P", [LABEL], [Channel("CT")]).close()
    barl("add", again, place.ct / "image", "--name", "ct", "--label", place.home / "seg.dcm")
    with Project.open(again, read_only=True) as project:
        differing = np.count_nonzero(array(project.revisions.accepted_label("ct")) != array(label))
    return "dcmqi (itkimage2segimage wrote it)", f"{differing} voxels differ of {np.count_nonzero(array(label)):,}"
