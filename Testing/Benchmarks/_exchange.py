# SPDX-License-Identifier: Apache-2.0
"""Rows of exchange.py: what comes in; and what all rows use."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "BARLSegmentation"))

import nibabel
import numpy as np
import SimpleITK as sitk
from barl.cli import main as run_command
from barl.project.labels import Channel, Label
from barl.project.store import Project

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Place:
    """Where a row works.

    Attributes:
        home: A folder of its own.
        data: The folder of real scans.
        pydicom_seg: The interpreter that has pydicom-seg, if any.
    """

    home: Path
    data: Path
    pydicom_seg: str = ""

    def hippocampus(self, count: int) -> list[tuple[Path, Path]]:
        images = sorted((self.data / "hippocampus/images").glob("*.nii.gz"))[:count]
        return [(image, self.data / "hippocampus/labels" / image.name) for image in images]

    @property
    def ct(self) -> Path:
        """The CT series of STS_002 with its structure set in ``mask``."""
        return self.data / "sts_pet/dicom/STS_002/CT"


class AbsentError(Exception):
    """A judge is not installed."""


def barl(*words: object) -> dict[str, Any]:
    """The answer of a command, which must succeed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = run_command([*map(str, words), "--json"])
    answer = json.loads(said.getvalue())
    if code:
        raise RuntimeError(f"barl {' '.join(map(str, words))}: {answer}")
    return answer


def program(*words: object) -> str:
    """What a public program says; its absence is an ``AbsentError``."""
    beside = Path(sys.executable).parent / str(words[0])
    found = str(beside) if beside.exists() else shutil.which(str(words[0]))
    if found is None:
        raise AbsentError(f"{words[0]} is not installed")
    done = subprocess.run([found, *map(str, words[1:])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {(done.stdout + done.stderr)[-500:]}")
    return done.stdout


def array(path: Path | str) -> np.ndarray:
    """Voxels ``[k, j, i]``."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def difference(ours: Path, theirs: Path) -> tuple[int, float]:
    """Voxels that differ, and the largest difference of the affines in millimeters, as nibabel reads both files."""
    one, other = nibabel.load(ours), nibabel.load(theirs)
    differing = int(np.count_nonzero(np.asarray(one.dataobj) != np.asarray(other.dataobj)))
    return differing, float(np.abs(one.affine - other.affine).max())


def stored_as_given(folder: Path, given: dict[str, tuple[Path, Path | None]]) -> str:
    """Compare the scans and outlines of a project with files ``{case: (scan, outline)}``."""
    voxels, apart, count = 0, 0.0, 0
    with Project.open(folder, read_only=True) as project:
        for case, (scan, outline) in given.items():
            pairs = [(project.cases.image_paths(case)[0], scan)]
            if outline:
                pairs.append((project.revisions.accepted_label(case), outline))
            for ours, theirs in pairs:
                differing, moved = difference(ours, theirs)
                voxels, apart, count = voxels + differing, max(apart, moved), count + 1
    return f"{count} files: {voxels} voxels differ, affines within {apart:.1g} mm"


def write_decathlon(place: Place) -> tuple[Path, dict[str, tuple[Path, Path | None]]]:
    """Task04_Hippocampus with four cases for training."""
    folder, given = place.home / "Task04_Hippocampus", {}
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    training = []
    for image, label in place.hippocampus(4):
        shutil.copy(image, folder / "imagesTr" / image.name)
        shutil.copy(label, folder / "labelsTr" / image.name)
        training.append({"image": f"./imagesTr/{image.name}", "label": f"./labelsTr/{image.name}"})
        given[image.name.removesuffix(".nii.gz")] = (image, label)
    facts = {"name": "Hippocampus", "modality": {"0": "MRI"}, "numTraining": 4, "numTest": 0, "test": []}
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    (folder / "dataset.json").write_text(json.dumps({**facts, "labels": labels, "training": training}))
    return folder, given


def decathlon_in(place: Place) -> tuple[str, str]:
    folder, given = write_decathlon(place)
    barl("project", "new", place.home / "p", "--like", folder)
    barl("add", place.home / "p", folder)
    return "nibabel", stored_as_given(place.home / "p", given)


def nnunet_in(place: Place) -> tuple[str, str]:
    """nnU-Net itself makes its data set of the Decathlon's."""
    folder, given = write_decathlon(place)
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(place.home / name)
        (place.home / name).mkdir()
    program("nnUNetv2_convert_MSD_dataset", "-i", folder, "-np", "1")
    (data_set,) = (place.home / "raw").iterdir()
    barl("project", "new", place.home / "p", "--like", data_set)
    barl("add", place.home / "p", data_set)
    return "nnunetv2 (convert_MSD_dataset wrote it), nibabel", stored_as_given(place.home / "p", given)


def bids_in(place: Place) -> tuple[str, str]:
    try:
        from bids_validator import BIDSValidator
    except ImportError as error:
        raise AbsentError("bids-validator is not installed") from error
    folder, given, valid = place.home / "bids", {}, 0
    (folder / "derivatives/manual").mkdir(parents=True)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "H", "BIDSVersion": "1.9.0"}))
    for number, (image, label) in enumerate(place.hippocampus(3), 1):
        scan = f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz"
        outline = f"derivatives/manual/sub-{number:02d}/anat/sub-{number:02d}_space-orig_dseg.nii.gz"
        for name, file in ((scan, image), (outline, label)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / name)
        (folder / outline.replace(".nii.gz", ".tsv")).write_text("index\tname\n1\tAnterior\n2\tPosterior\n")
        valid += BIDSValidator().is_bids(f"/{scan}")
        given[f"sub-{number:02d}"] = (image, label)
    labels = [Label(1, "Anterior"), Label(2, "Posterior")]
    Project.create(place.home / "p", "P", labels, [Channel("T1w")]).close()
    barl("add", place.home / "p", folder)
    return "bids-validator, nibabel", f"{valid} of 3 names valid; {stored_as_given(place.home / 'p', given)}"


def cropped_in(place: Place) -> tuple[str, str]:
    """A label map of the outline's own box, and one on a finer grid that SimpleITK brings to the scan's."""
    (image, label), (second, fine) = place.hippocampus(2)
    whole = sitk.ReadImage(str(label))
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(whole > 0)
    box = shape.GetBoundingBox(1)
    sitk.WriteImage(sitk.RegionOfInterest(whole, box[3:], box[:3]), str(place.home / "box.nii.gz"))
    other, scan = sitk.ReadImage(str(fine)), sitk.ReadImage(str(second))
    spacing = [step * 0.7 for step in other.GetSpacing()]
    size = [int(count / 0.7) for count in other.GetSize()]
    nearest = sitk.sitkNearestNeighbor
    finer = sitk.Resample(other, size, sitk.Transform(), nearest, other.GetOrigin(), spacing, other.GetDirection(), 0)
    sitk.WriteImage(finer, str(place.home / "fine.nii.gz"))
    labels = [Label(1, "Anterior"), Label(2, "Posterior")]
    Project.create(place.home / "p", "P", labels, [Channel("T1")]).close()
    barl("add", place.home / "p", image, "--name", "box", "--label", place.home / "box.nii.gz", "--resample")
    barl("add", place.home / "p", second, "--name", "fine", "--label", place.home / "fine.nii.gz", "--resample")
    with Project.open(place.home / "p", read_only=True) as project:
        ours = [array(project.revisions.accepted_label(name)) for name in ("box", "fine")]
    theirs = [
        sitk.GetArrayFromImage(whole),
        sitk.GetArrayFromImage(sitk.Resample(finer, scan, sitk.Transform(), nearest)),
    ]
    differing = [np.count_nonzero(a != b) for a, b in zip(ours, theirs, strict=True)]
    return "SimpleITK", f"box: {differing[0]} voxels differ; finer grid: {differing[1]} of {np.count_nonzero(ours[1])}"
