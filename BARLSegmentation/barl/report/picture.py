# SPDX-License-Identifier: Apache-2.0
"""A case as a picture, from what is stored: no model is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import SimpleITK as sitk

from barl.errors import InputError
from barl.images.label_maps import read_label
from barl.images.reading import read_channels, read_image
from barl.project.files import write_atomically
from barl.project.names import may_be_a_patients
from barl.project.records import Case, Revision
from barl.project.states import RevisionKind
from barl.project.store import Project
from barl.report.views import View, three_views


def stored_views(project: Project, case: Case) -> list[View]:
    """The planes of a case with its newest prediction and its accepted outline, as they are stored."""
    scan = read_channels(project.cases.sound_images(case.id))[0]
    grid = project.cases.grid(case.id)
    prediction = project.revisions.newest(case.id, (RevisionKind.PREDICTION,))
    accepted = project.revisions.newest(case.id, (RevisionKind.ACCEPTED,)) if case.is_accepted else None

    def label(revision: Revision | None) -> sitk.Image | None:
        return read_label(revision.path, grid, project.values) if revision else None

    doubt = None
    if prediction and prediction.uncertainty_path:  # kept in steps of 1/255
        doubt = grid.place(sitk.Cast(read_image(prediction.uncertainty_path), sitk.sitkFloat32))
        doubt = doubt / 255 if sitk.GetArrayViewFromImage(doubt).max() > 1 else doubt
    return three_views(scan, label(accepted), label(prediction), doubt)


def write_picture(project: Project, case_name: str, path: Path) -> None:
    """Write one case as PNG: three planes with its newest prediction, its accepted outline and the uncertainty.

    Its title is the case's name, or its number if the name may be a patient's.

    Raises:
        InputError: matplotlib is missing.
        ProjectError: The case is unknown or damaged.
        StorageError: The file cannot be written.
    """
    check_libraries()
    from barl.report import figures

    case = project.cases.find(case_name)
    title = figures.short(case.id if may_be_a_patients(case.name) else case.name)
    content = figures.case_picture(stored_views(project, case), project.labels, title, dpi=150)
    write_atomically(path, lambda file: file.write_bytes(content))


def check_libraries() -> None:
    """Jinja2 and matplotlib are not part of Slicer.

    Raises:
        InputError: One is missing.
    """
    for name in ("jinja2", "matplotlib"):
        if find_spec(name) is None:
            raise InputError(
                f"The report needs the package {name}, which is not installed.",
                "Install what it needs: pip install jinja2 matplotlib.",
            )
