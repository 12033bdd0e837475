# SPDX-License-Identifier: Apache-2.0
"""Data, predictions and models of other programs come in, and results go out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from barl.api.inputs import OnProgress, as_progress, before_torch, case_id, model_place
from barl.errors import InputError
from barl.project.datasets.intake import prepare_intake, read_dataset
from barl.project.doubts import as_doubts
from barl.project.export import Exported, export_dataset
from barl.project.names import key
from barl.project.records import Case, ModelRow
from barl.project.scans import Intake, add_cases
from barl.project.store import Project


def add_dataset(
    project: Project,
    folder: Path | str,
    *,
    add_labels: bool = False,
    resample: bool = False,
    allow: Collection[str] = (),
    on_progress: OnProgress | None = None,
) -> Intake:
    """Add the cases of a data set of nnU-Net, the Decathlon or BIDS, or of an export; those that are there stay.

    Args:
        project: Open for writing.
        folder: The data set.
        add_labels: Add labels that the label table lacks.
        resample: Bring outlines of another grid onto the scan's, nearest voxel.
        allow: Doubts (``Doubt``) that are confirmed.
        on_progress: Told about every case.

    Returns:
        The cases ``added``, each with notes, and what was ``left_out`` with the reason of each.

    Raises:
        InputError: The folder is no data set, its channels are others, or it has labels that the table lacks.
        ProjectError: Another program is changing the project.
    """
    dataset = read_dataset(Path(folder), project.channels)
    intake = prepare_intake(dataset, project.channels, project.labels, resample=resample)
    if intake.labels and not add_labels:
        names = ", ".join(label.name for label in intake.labels)
        raise InputError(f"The data set has labels that the label table lacks: {names}.", "Use add_labels=True.")
    for label in intake.labels:
        project.definition.add_label(label)
    known = {key(case.name) for case in project.cases.all()}
    new = [case for case in intake.cases if key(case.name) not in known]
    done = add_cases(project, new, as_progress(on_progress), as_doubts(allow))
    return replace(done, left_out=(*done.left_out, *intake.left_out))


def import_predictions(
    project: Project,
    path: Path | str,
    *,
    author: str,
    case: Case | str = "",
    made: str = "",
    labels: Mapping[str, str] | None = None,
    resample: bool = False,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Take label maps or probabilities of another program as predictions of cases.

    Args:
        project: Open for writing.
        path: A file, or the folder that nnU-Net, TotalSegmentator, MONAI or another program wrote.
        author: The program, with its version.
        case: The case that all of it is of; by default by names.
        made: When, such as 2026-11-28; by default the files' dates.
        labels: Name or value there -> label of the project, where they differ.
        resample: Bring label maps of another grid onto the scan's, nearest voxel.
        on_progress: Told about every case.

    Returns:
        ``cases`` with notes, and ``failed`` with the reason of each.

    Raises:
        InputError: Nothing is there, or nothing belongs to a case.
        ProjectError: Another program is changing the project.
    """
    from barl.jobs.given_matching import described_names, plan_given_predictions

    before_torch()
    from barl.jobs.given_predictions import Origin, add_given_predictions

    plan = plan_given_predictions(project, [Path(path)], case_id(project, case) if case else "")
    origin = Origin(author, made, described_names([Path(path)]), dict(labels or {}))
    return add_given_predictions(project, plan, origin, resample=resample, progress=as_progress(on_progress))


def export_cases(
    project: Project,
    folder: Path | str,
    layout: str = "nnunet",
    *,
    predictions: bool = False,
    source: Path | str | None = None,
    on_progress: OnProgress | None = None,
) -> Exported:
    """Write the accepted outlines for other programs, into a new or empty folder.

    Args:
        project: The project.
        folder: Gets the files, whose names are the cases' ids, and ``manifest.json``.
        layout: ``nnunet``, ``monai``, ``plain``, ``seg-nrrd``, ``dicom-seg``, ``stl``, ``obj`` or ``table``.
        predictions: Also the newest prediction of each case without an accepted outline; not to train on.
        source: For ``dicom-seg`` the folder with the DICOM series of the scans.
        on_progress: Told about every case.

    Returns:
        The ``files`` and ``notes``.

    Raises:
        InputError: The layout is unknown, the folder is not empty, no case is accepted, or a package is missing.
        StorageError: The disk is full or read-only.
    """
    place = Path(source) if source else None
    return export_dataset(project, folder, layout, as_progress(on_progress), predictions=predictions, source=place)


def export_model(project: Project, file: Path | str, model: ModelRow | Path | str | None = None) -> Path:
    """Write a model (id, folder or what ``train`` returned; by default the current one) into one file (``.zip``).

    Returns:
        The file, which can be sent.

    Raises:
        ModelError: There is no such model, or it is damaged.
        StorageError: The file is there already, or the disk is full or read-only.
    """
    before_torch()
    from barl.jobs import model_files

    place = None if model is None else model_place(model, project)
    model_files.export_model(project, place, Path(file))
    return Path(file)


def import_model(project: Project, source: Path | str, *, promote: bool = False) -> ModelRow:
    """Check a model and copy it into a project.

    Args:
        project: Open for writing.
        source: A file of ``export_model``, a model's folder, a trained nnU-Net configuration or a MONAI bundle.
        promote: Make it the current model.

    Raises:
        ModelError: It is damaged, in the project already, or made for other labels or channels.
    """
    before_torch()
    from barl.jobs import model_files

    row = model_files.import_model(project, Path(source))[0]
    return project.models.promote(row.id) if promote else row
