# SPDX-License-Identifier: Apache-2.0
"""The outlined cases as files for other programs.

Data sets to train on: ``nnunet`` (raw data set of nnU-Net v2, documentation/dataset_format.md of
github.com/MIC-DKFZ/nnUNet) and ``monai`` (the same folders with a datalist in the Decathlon's form). Results: ``plain``
(a folder per case), ``seg-nrrd``, ``dicom-seg``, ``stl``, ``obj`` and ``table``. Cases carry their neutral ids,
subjects are numbered: what the user typed as names stays in the project.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, storage_error
from barl.images.geometry import Grid
from barl.images.writing import write_image
from barl.progress import SILENT, Progress, Stage
from barl.project import files
from barl.project.labels import check_not_reserved
from barl.project.layouts.manifest import write_manifest
from barl.project.layouts.measurements import plain_cell
from barl.project.layouts.results import RESULTS, results_writer
from barl.project.records import Case, Revision
from barl.project.states import RevisionKind
from barl.project.store import Project

# So many cases are named in one note.
_NAMED = 5


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: The data set.
        layout: One of ``LAYOUTS``.
        training: Ids of the cases that are not held out: in the layouts ``TO_TRAIN_ON`` those for training.
        held_out: Ids of the cases held out for evaluation.
        files: All files, relative to ``folder``.
        notes: Sentences for the user.
    """

    folder: Path
    layout: str
    training: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def export_dataset(
    project: Project,
    folder: Path | str,
    layout: str = "nnunet",
    progress: Progress = SILENT,
    *,
    predictions: bool = False,
    source: Path | None = None,
) -> Exported:
    """Write all accepted cases with their newest accepted label maps. All of it is written, or nothing.

    In the layout ``nnunet`` label values become 1, 2, 3, ... in ascending order, as nnU-Net wants them; held-out cases
    go to ``imagesTs`` and ``labelsTs``. In ``plain`` the values of the label table are kept.

    Partial outlines: in ``nnunet`` the voxels that nobody has looked at have the highest value, named ``ignore`` in
    ``dataset.json`` (documentation/ignore_label.md there); in ``plain`` a mask ``looked.nii.gz`` lies beside.

    Args:
        project: The project.
        folder: A new or empty folder.
        layout: One of ``LAYOUTS``.
        progress: Told about every case.
        predictions: Write the newest prediction of each case that has no accepted outline as well; not in the layouts
            to train on.
        source: For ``dicom-seg`` the folder with the DICOM series that the scans came from.

    Raises:
        InputError: The layout is unknown, the folder is not empty or lies in the project's, no case is accepted, or a
            package or the DICOM series is missing.
        ProjectError: An accepted label map is not as it was stored.
        StorageError: The disk is full or read-only.
    """
    if layout not in LAYOUTS:
        raise InputError(f"'{layout}' is no layout.", f"Use one of: {', '.join(LAYOUTS)}.")
    if predictions and layout in TO_TRAIN_ON:
        raise InputError(f"The layout {layout} is to train on.", "Leave --predictions away, or choose another layout.")
    if layout in TO_TRAIN_ON:
        for label in project.labels:
            check_not_reserved(label)
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder.", "Choose a new or empty folder.")
    if folder.resolve().is_relative_to(project.folder.resolve()):
        raise InputError(f"{folder} lies in the folder of the project.", "Choose a folder outside of it.")
    outlines = _outlines(project, predictions)
    cases = [case for case, _ in outlines]
    if not cases:
        raise InputError("No case of the project is accepted.", "Accept the outline of at least one case first.")
    subjects = _neutral_subjects(cases)
    writer = results_writer(layout, project, source, subjects) if layout in RESULTS else None
    notes = _unaccepted([case.id for case, revision in outlines if not revision.is_accepted])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(folder.parent)
        with files.announced_staging_folder(folder.parent, project.folder) as staging:
            for (case, revision), _ in progress.stage(Stage.EXPORTING).each(outlines, lambda pair: pair[0].name):
                project.revisions.check(revision)
                if writer:
                    writer.write(case, revision, staging)
                else:
                    _LAYOUTS[layout](project, case, revision, staging)
            if writer:
                writer.finish(staging)
                notes += writer.notes
            _write_tables(project, cases, subjects, layout, staging)
            write_manifest(project, outlines, layout, staging, notes)
            files.flush_tree(staging)
            if folder.exists():
                folder.rmdir()
            files.settle(staging, folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    return Exported(
        folder,
        layout,
        [case.id for case in cases if not case.held_out],
        [case.id for case in cases if case.held_out],
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
        notes,
    )


def write_names(project: Project, ids: list[str], folder: Path) -> Path:
    """A table of ids and names beside an export, which may be sent: names of cases may be those of patients.

    It replaces no other file: ``FOLDER-names.csv`` may be the list that ``--anonymous`` keeps.

    Raises:
        StorageError: The disk is full or read-only.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "name"))
    writer.writerows((case_id, plain_cell(project.cases.get(case_id).name)) for case_id in ids)
    content = text.getvalue().encode("utf-8-sig")  # without the mark Excel breaks accents
    path = folder.parent / f"{folder.name}-names.csv"
    try:
        for number in itertools.count(2):
            if not path.exists() or path.read_bytes() == content:
                break
            path = path.with_name(f"{folder.name}-names-{number}.csv")
    except OSError as error:
        raise storage_error(error, path) from error
    files.write_atomically(path, lambda file: file.write_bytes(content))
    return path


def _unaccepted(cases: list[str]) -> list[str]:
    """The note on the cases whose prediction nobody has accepted, if there are any."""
    if len(cases) < 2:
        return [f"{case}: a prediction that nobody has accepted." for case in cases]
    more = f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else ""
    return [f"{', '.join(cases[:_NAMED])}{more}: predictions that nobody has accepted."]


def _outlines(project: Project, predictions: bool) -> list[tuple[Case, Revision]]:
    """The accepted cases with their outlines, and with ``predictions`` the predicted ones."""
    pairs = []
    for case in project.cases.all():
        kinds = [RevisionKind.ACCEPTED] if case.is_accepted else [RevisionKind.PREDICTION] * predictions
        if not case.is_excluded and kinds and (revision := project.revisions.newest(case.id, kinds)):
            pairs.append((case, revision))
    return pairs


def _write_nnunet_case(project: Project, case: Case, revision: Revision, folder: Path) -> None:
    part = "Ts" if case.held_out else "Tr"
    images, labels = folder / f"images{part}", folder / f"labels{part}"
    images.mkdir(exist_ok=True)
    labels.mkdir(exist_ok=True)
    for channel, image in enumerate(project.cases.sound_images(case.id)):
        shutil.copyfile(image, images / f"{case.id}_{channel:04d}.nii.gz")
    place = labels / f"{case.id}.nii.gz"
    looked = project.revisions.read_looked(revision)
    if looked is None and project.values == list(range(1, len(project.values) + 1)):
        shutil.copyfile(revision.path, place)
        return
    volume = sitk.ReadImage(str(revision.path))
    consecutive = np.searchsorted([0, *project.values], sitk.GetArrayViewFromImage(volume))
    if looked is not None:
        consecutive[sitk.GetArrayViewFromImage(looked) == 0] = len(project.values) + 1
    smallest = np.uint8 if len(project.values) + 1 < 256 else np.uint16
    write_image(Grid.of(volume).image(consecutive.astype(smallest)), place)


def _write_plain_case(project: Project, case: Case, revision: Revision, folder: Path) -> None:
    home = folder / case.id
    home.mkdir()
    for image in project.cases.sound_images(case.id):
        shutil.copyfile(image, home / image.name)
    shutil.copyfile(revision.path, home / "label.nii.gz")
    if revision.looked:
        shutil.copyfile(project.folder / revision.looked, home / "looked.nii.gz")


_LAYOUTS: dict[str, Callable[[Project, Case, Revision, Path], None]] = {
    "nnunet": _write_nnunet_case,
    "monai": _write_nnunet_case,
    "plain": _write_plain_case,
}
TO_TRAIN_ON = ("nnunet", "monai")
LAYOUTS = (*_LAYOUTS, *RESULTS)


def _neutral_subjects(cases: list[Case]) -> dict[str, str]:
    """Subject as the user calls it -> what all tables of an export call it; cases without one are of ""."""
    groups = sorted({case.group for case in cases if case.group})
    return {"": "", **{group: f"subject_{n:04d}" for n, group in enumerate(groups, 1)}}


def _write_tables(project: Project, cases: list[Case], subjects: dict[str, str], layout: str, folder: Path) -> None:
    rows = [(case.id, "yes" if case.held_out else "no", subjects[case.group]) for case in cases]
    _write_csv(folder / "cases.csv", ("case", "held_out", "subject"), rows)
    if layout not in TO_TRAIN_ON:
        table = [label.to_json() for label in project.labels]
        (folder / "labels.json").write_text(json.dumps(table, indent=2), encoding="utf-8")
        return
    labels = {"background": 0} | {label.name: k for k, label in enumerate(project.labels, 1)}
    if any(case.is_partial for case in cases):
        labels["ignore"] = len(project.labels) + 1
    if layout == "monai":
        datalist = _datalist(project, cases, labels)
        (folder / "dataset.json").write_text(json.dumps(datalist, indent=2), encoding="utf-8")
        return
    dataset = {
        "channel_names": {str(k): channel.name for k, channel in enumerate(project.channels)},
        "labels": labels,
        "numTraining": sum(not case.held_out for case in cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=2), encoding="utf-8")


def _datalist(project: Project, cases: list[Case], labels: dict[str, int]) -> dict[str, Any]:
    """As ``monai.data.load_decathlon_datalist`` reads it; held-out cases are its key ``validation``."""

    def entry(case: Case) -> dict[str, Any]:
        part = "Ts" if case.held_out else "Tr"
        images = [f"images{part}/{case.id}_{n:04d}.nii.gz" for n in range(len(project.channels))]
        return {"image": images if len(images) > 1 else images[0], "label": f"labels{part}/{case.id}.nii.gz"}

    return {
        "name": "BARL",
        "tensorImageSize": "3D",
        "modality": {str(k): channel.name for k, channel in enumerate(project.channels)},
        "labels": {str(value): name for name, value in labels.items()},
        "numTraining": sum(not case.held_out for case in cases),
        "training": [entry(case) for case in cases if not case.held_out],
        "validation": [entry(case) for case in cases if case.held_out],
    }


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
