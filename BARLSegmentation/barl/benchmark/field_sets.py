# SPDX-License-Identifier: Apache-2.0
"""The public sets of this field, in the layouts that its code distributes or expects (HDF5, needs h5py).

A file holds ``image`` and ``label``, both of one shape; the lists beside the data say which cases are for training (in
the order in which they are outlined) and for the test. They are part of the repositories named below. Scans are
converted once to a format that the rest of this engine reads; spacing counts in voxels, as everywhere in this field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, storage_error
from barl.project.files import write_atomically


@dataclass(frozen=True)
class FieldSet:
    """Where the files of a set lie.

    Attributes:
        file: A case's file inside the set's folder.
        lists: List files of training, tuning (or ``None``) and test inside the folder.
        source: Where the layout and the lists come from.
        channel: Name of the only channel.
        labels: Label table. Of a set with one label, every value above 0 is that label.
        order: Axes of the arrays: ``"xyz"`` or ``"zyx"``.
        spacing: Of the converted scans (x, y, z): 1 per voxel, but for slices far apart.
        subject: A case's subject, from its name.
    """

    file: str
    lists: tuple[str, str | None, str]
    source: str
    channel: str
    labels: dict[int, str]
    order: str = "xyz"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    subject: Callable[[str], str] = str


FIELD_SETS = {
    "la2018": FieldSet(
        "2018LA_Seg_Training Set/{}/mri_norm2.h5",
        ("train.list", None, "test.list"),
        "UA-MT (github.com/yulequan/UA-MT)",
        "MRI",
        {1: "Left atrium"},
    ),
    "pancreas_ct": FieldSet(
        "Pancreas_h5/{}_norm.h5",
        ("train.list", None, "test.list"),
        "MC-Net (github.com/ycwu1997/MC-Net)",
        "CT",
        {1: "Pancreas"},
    ),
    "brats2019": FieldSet(
        "data/{}.h5",
        ("train.txt", "val.txt", "test.txt"),
        "SSL4MIS (github.com/HiLab-git/SSL4MIS)",
        "FLAIR",
        {1: "Whole tumor"},
        order="zyx",
    ),
    "acdc": FieldSet(
        "data/{}.h5",
        ("train.list", "val.list", "test.list"),
        "SSL4MIS (github.com/HiLab-git/SSL4MIS)",
        "Cine MRI",
        {1: "Right ventricle", 2: "Myocardium", 3: "Left ventricle"},
        order="zyx",
        # Slices lie 5 to 10 mm apart at about 1.5 mm in the plane; the files do not say it.
        spacing=(1.0, 1.0, 5.0),
        subject=lambda case: case.split("_")[0],
    ),
}


@dataclass(frozen=True)
class ConvertedCase:
    """A case with the files it was converted to."""

    id: str
    image: Path
    label: Path
    group: str


def read_field_set(name: str, folder: Path, converted: Path) -> tuple[list[ConvertedCase], dict[str, list[str]]]:
    """The cases of a set, and its subjects per part in the order of the lists.

    Args:
        name: One of ``FIELD_SETS``.
        folder: Of the set; for LA also the folder with the cases itself, the lists in it or beside it.
        converted: Gets the converted scans.

    Raises:
        InputError: h5py, a list or a file is missing, or a file is not as it should be.
        StorageError: ``converted`` cannot be written.
    """
    facts = FIELD_SETS[name]
    pattern = facts.file
    inner, _, rest = pattern.partition("/")
    if not (folder / inner).is_dir() and folder.name == inner:
        pattern = rest
    parts = zip(("training", "tuning", "test"), facts.lists, strict=True)
    listed = {part: _names(name, folder, file) if file else [] for part, file in parts}
    split = {part: list(dict.fromkeys(map(facts.subject, names))) for part, names in listed.items()}
    cases = [
        _converted(case, folder / pattern.format(case), facts, converted) for names in listed.values() for case in names
    ]
    return cases, split


def _names(name: str, folder: Path, file: str) -> list[str]:
    path = next((path for path in (folder / file, folder.parent / file) if path.is_file()), None)
    if path is None:
        raise InputError(
            f"The list {file} of the data set {name} is not in {folder}.", f"It is part of {FIELD_SETS[name].source}."
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [case for line in lines if (case := line.split(",")[0].strip())]


def _converted(case: str, source: Path, facts: FieldSet, folder: Path) -> ConvertedCase:
    image, label = folder / f"{case}_image.mha", folder / f"{case}_label.mha"
    if not (image.is_file() and label.is_file()):
        arrays = _read(source, facts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error
        for path, array in zip((image, label), arrays, strict=True):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing(facts.spacing)
            write_atomically(path, partial(sitk.WriteImage, volume))
    return ConvertedCase(case, image, label, facts.subject(case))


def _read(source: Path, facts: FieldSet) -> tuple[np.ndarray, np.ndarray]:
    """Image (float32) and label map (uint8) of a file ``[k, j, i]``."""
    try:
        import h5py
    except ImportError:
        raise InputError(
            "Reading .h5 files needs the package h5py, which is not installed.", "Install it: pip install h5py."
        ) from None
    if not source.is_file():
        raise InputError(f"The file {source} is missing.", f"The layout is that of {facts.source}.")
    try:
        with h5py.File(source, "r") as file:
            image, label = np.asarray(file["image"], np.float32), np.asarray(file["label"])
    except (OSError, KeyError) as error:
        raise InputError(f"The file {source} cannot be read ({error}).", "It needs 'image' and 'label'.") from error
    if image.ndim != 3 or image.shape != label.shape:
        raise InputError(f"The file {source} holds no volume with a label map of its shape.", "Fetch it again.")
    label = (label > 0).astype(np.uint8) if len(facts.labels) == 1 else label.astype(np.uint8)
    axes = (2, 1, 0) if facts.order == "xyz" else (0, 1, 2)
    return np.ascontiguousarray(image.transpose(axes)), np.ascontiguousarray(label.transpose(axes))
