# SPDX-License-Identifier: Apache-2.0
"""Projects: cases, training, predictions that are kept, evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.api.inputs import (
    OnProgress,
    Scan,
    as_channels,
    as_images,
    as_label,
    as_progress,
    before_torch,
    case_id,
    check_files,
    model_place,
    on_grid,
)
from barl.errors import Cancelled, InputError
from barl.images.geometry import Grid
from barl.project import acceptance
from barl.project.case_finding import find_cases
from barl.project.doubts import as_doubts
from barl.project.labels import Channel, Label, check_labels
from barl.project.next_case import Ranked, rank_cases
from barl.project.palette import label_color
from barl.project.records import Case, ModelRow
from barl.project.scans import Added, Intake
from barl.project.scans import add_cases as add_all
from barl.project.sides import with_sides
from barl.project.store import Project


@dataclass(frozen=True)
class Evaluation:
    """A model measured on cases that it has not learned from.

    Attributes:
        model: Its id, or its folder.
        scores: A row for each case and label: ``case``, ``label`` and the metrics (``dice``, ``hd95_mm``, ``assd_mm``,
            ``surface_dice``, ...), NaN where a metric is not defined; ready for ``pandas.DataFrame``.
        dice: Label name -> mean over the cases.
        mean_dice: Mean over cases and labels.
        calibration_error: Expected calibration error of the voxels around the structures.
        notes: What a person should know of these figures.
    """

    model: str
    scores: list[dict[str, Any]]
    dice: dict[str, float]
    mean_dice: float
    calibration_error: float
    notes: list[str] = field(default_factory=list)


def create_project(
    folder: Path | str,
    labels: Mapping[int, str] | Sequence[Label],
    channels: str | Sequence[str | Channel] = ("image",),
    name: str = "",
) -> Project:
    """Make a project in a new or empty folder and open it; close it, or use it in a ``with`` statement.

    Args:
        folder: Its folder.
        labels: Value -> name, such as ``{1: "tumor", 2: "edema"}``, or rows with colors and terminology. Labels whose
            names say left or right are never mirrored.
        channels: The images that every case has; the name of a single one may stand by itself.
        name: What the project is called; the folder's name by default.

    Raises:
        InputError: A label or channel is wrong.
        ProjectError: The folder holds something else.
        StorageError: The folder cannot be written.
    """
    if isinstance(labels, Mapping):
        named = [Label(_number(value), text, label_color(n)) for n, (value, text) in enumerate(labels.items())]
        labels = with_sides(check_labels(named))
    if isinstance(labels, str) or not all(isinstance(label, Label) for label in labels):
        raise InputError("The label table is a dictionary or rows (Label).", 'Give values and names: {1: "tumor"}.')
    channels = [channels] if isinstance(channels, str) else channels
    rows = [channel if isinstance(channel, Channel) else Channel(channel) for channel in channels]
    return Project.create(folder, name or Path(folder).resolve().name, labels, rows)


def _number(value: Any) -> Any:
    """NumPy's whole numbers as Python's."""
    return int(value) if isinstance(value, np.integer) else value


def open_project(folder: Path | str, read_only: bool = False) -> Project:
    """Open a project; close it, or use it in a ``with`` statement.

    Raises:
        ProjectError: The folder holds no project, or one that is damaged or newer than this BARL.
        StorageError: It cannot be written and ``read_only`` is false.
    """
    return Project.open(folder, read_only)


def add_case(
    project: Project,
    name: str,
    scan: Scan | Sequence[Scan],
    outline: Path | str | sitk.Image | np.ndarray | None = None,
    *,
    held_out: bool = False,
    subject: str = "",
    allow: Collection[str] = (),
) -> Added:
    """Add a scan, and its outline if there is one.

    Args:
        project: Open for writing.
        name: What the case is called; not a patient's name.
        scan: A file, DICOM folder or SimpleITK image for each channel.
        outline: Label map on the scan's grid, as an array ``[k, j, i]``, an image or a file; the case is learned from.
        held_out: Never learn from it, evaluate on it.
        subject: Common to the cases of one subject, who is held out as a whole.
        allow: Doubts (``Doubt``) that are confirmed.

    Returns:
        The ``case`` and ``notes`` about what was changed, left out or is doubtful.

    Raises:
        InputError: The scan or outline cannot be used; a ``DoubtError`` if it is probably a mistake.
        ProjectError: Another program is changing the project.
    """
    notes: list[str] = []
    channels = as_channels(scan)
    check_files(scan, project.channels)
    doubts = as_doubts(allow)
    label: sitk.Image | Path | None
    if isinstance(outline, np.ndarray):
        label = as_label(outline, Grid.of(as_images(scan, [])[0]))
    else:
        label = Path(outline) if isinstance(outline, str) else outline
    case = project.cases.add(
        name, channels, label=label, held_out=held_out, group=subject, notes=notes, allow=doubts, author="Python"
    )
    return Added(case, tuple(notes))


def add_folder(
    project: Project,
    images: Path | str,
    labels: Path | str | None = None,
    *,
    held_out: bool = False,
    allow: Collection[str] = (),
    on_progress: OnProgress | None = None,
) -> Intake:
    """Add every scan of a folder; outlines belong to scans of equal names.

    Returns:
        The cases ``added``, each with notes, and what was ``left_out`` with the reason of each.

    Raises:
        InputError: A folder is missing or holds no scan, or channels lack patterns.
        StorageError: A folder cannot be read, or the disk is full.
    """
    content = find_cases(
        Path(images), project.channels, Path(labels) if labels is not None else None, held_out=held_out
    )
    intake = add_all(project, content.cases, as_progress(on_progress), as_doubts(allow))
    return Intake(intake.added, (*intake.left_out, *content.left_out))


def accept(
    project: Project,
    case: Case | str,
    outline: Path | str | sitk.Image | np.ndarray,
    *,
    author: str = "Python",
    allow: Collection[str] = (),
    looked: Path | str | sitk.Image | np.ndarray | int | None = None,
) -> acceptance.Stored:
    """Store a corrected outline as the accepted one of a case: the next training learns from it.

    Args:
        project: Open for writing.
        case: The case, its name or its id.
        outline: Label map on the scan's grid, as an array ``[k, j, i]``, an image or a file.
        author: Who accepts it: a person's or a role's name, not a patient's.
        allow: Doubts (``Doubt``) that are confirmed.
        looked: Which voxels were looked at: a mask on the scan's grid, not 0 where looked at, or the value in a file
            that means that nobody has. The others are learned from as in an untouched scan. None: the whole scan.

    Raises:
        InputError: The outline does not fit; a ``DoubtError`` if it is probably a mistake.
        ProjectError: The case is unknown, or another program is changing the project.
    """
    known = case_id(project, case)
    grid = project.cases.grid(known)
    outline = as_label(outline, grid)
    if isinstance(looked, np.ndarray):
        looked = on_grid((looked != 0).astype(np.uint8), grid)
    elif isinstance(looked, str):
        looked = Path(looked)
    return acceptance.accept(project, known, outline, author=author, allow=as_doubts(allow), looked=looked)


def train(
    project: Project,
    *,
    minutes: float | None = None,
    iterations: int | None = None,
    effort: str | None = None,
    method: str | None = None,
    from_scratch: bool = False,
    promote: bool = False,
    folds: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    plan: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> ModelRow:
    """Train on the outlined and the untouched cases, in this process, until it is done.

    Args:
        project: Open for writing.
        minutes, iterations: Budget; the plan chooses if neither is given.
        effort: ``quick``, ``standard`` or ``thorough``: network and length together.
        method: ``barl`` (default), ``dbisl``, ``supervised`` or one to compare with.
        from_scratch: Do not start from the project's current model.
        promote: Make the new model the current one even if there is one already.
        folds: Train so many members, each without one part of the outlined cases, which judges it; together they are
            the model.
        seed: Of the random numbers.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        plan: Values of the plan to replace, by name.
        on_progress: Called while it works.

    Returns:
        The new model: ``id``, ``folder`` and ``summary`` with its Dice on the held-out cases,
        with ``folds`` out of fold.

    Raises:
        InputError: There is nothing to learn from, or an option is wrong.
        Cancelled: Another program has stopped the training.
        BarlError: Why it failed.
    """
    before_torch()
    from barl.jobs.train_job import TrainingOptions, prepare_run, run_training

    options = TrainingOptions(
        minutes, iterations, method, seed, device, not from_scratch, promote, folds, effort, overrides=dict(plan or {})
    )
    progress = as_progress(on_progress)
    run = prepare_run(project, options, progress)
    done = run_training(project.folder, run.id, on_event=progress.send)
    if done.model_id is None:
        raise Cancelled(f"{done.id} was stopped.", f'Go on with "barl train {project.folder} --resume {done.id}".')
    return project.models.get(done.model_id)


def predict_cases(
    project: Project,
    cases: Case | str | Sequence[Case | str] | None = None,
    *,
    device: str = "auto",
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Predict cases of a project with its current model and store the predictions in the project.

    Args:
        project: Open for writing.
        cases: Cases, names or ids; by default all that have no accepted outline.
        device: As for ``train``.
        on_progress: Called while it works.

    Returns:
        ``model``; ``cases``: ``name``, ``label`` (file), ``case_uncertainty``, ``volumes``, ``hotspots`` ... of each;
        ``failed``: ``name``, ``message`` and ``remedy`` of those that could not be predicted.

    Raises:
        InputError: ``cases`` is empty, or there is no case without an accepted outline.
        BarlError: Of model, device or disk.
    """
    before_torch()
    from barl.jobs.compute import Compute
    from barl.jobs.predict import predict_cases as predict_all

    wanted = None
    if cases is not None:
        wanted = [case_id(project, case) for case in ([cases] if isinstance(cases, Case | str) else cases)]
        if not wanted:
            raise InputError("No case is named.", "Leave the cases away to predict all without an accepted outline.")
    return predict_all(project, wanted, compute=Compute(device), progress=as_progress(on_progress))


def evaluate(
    project: Project,
    model: ModelRow | Path | str | None = None,
    *,
    device: str = "auto",
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure a model on the held-out cases, on the scans' own grids; nothing is stored.

    Args:
        project: May be open for reading only.
        model: What ``train`` returned, an id or a folder; by default the current model.
        device: As for ``train``.
        on_progress: Called while it works.

    Raises:
        InputError: No held-out case has an accepted outline.
        BarlError: Of model or device.
    """
    before_torch()
    from barl.jobs.compute import Compute
    from barl.jobs.evaluate import evaluate_model

    place = None if model is None else model_place(model, project)
    table = evaluate_model(project, place, compute=Compute(device), progress=as_progress(on_progress))
    names = {str(label.value): label.name for label in project.labels}
    return Evaluation(
        table["model"],
        [
            {"case": row["name"], "label": names[value], **scores}
            for row in table["cases"]
            for value, scores in row["labels"].items()
        ],
        {label["name"]: label["dice"]["mean"] for label in table["labels"].values()},
        table["mean"]["dice"]["mean"],
        table["calibration_error"],
        table["notes"],
    )


def next_cases(project: Project, count: int = 5) -> list[Ranked]:
    """The cases to correct next, as ``barl next`` proposes them, each with ``case`` and the ``reason`` in words."""
    return rank_cases(project.cases.all())[: max(count, 0)]


def write_report(project: Project, path: Path | str, *, device: str = "auto") -> None:
    """Write how far a project has come as one HTML page: cases, quality, pictures, models, corrections.

    The current model and the one before it predict the held-out cases for it.

    Args:
        project: Open for writing; for reading only, corrections that were never compared are left out.
        path: The HTML file.
        device: As for ``train``.

    Raises:
        InputError: Jinja2 or matplotlib is missing, or this is the BARL within Slicer, which has no report.
        BarlError: Of a model, the device, a damaged project or the file.
    """
    if find_spec("barl.report") is None:
        raise InputError("BARL within Slicer writes no report.", "Install BARL in a Python environment of its own.")
    before_torch()
    from barl.jobs.compute import Compute
    from barl.report.page import write_report as write

    write(project, Path(path), compute=Compute(device))
