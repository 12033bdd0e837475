# SPDX-License-Identifier: Apache-2.0
"""The layouts of results: each case's outline in a form that other programs show or measure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from barl.errors import InputError
from barl.images.geometry import Grid
from barl.images.label_maps import read_label
from barl.project.layouts import dicom_seg, measurements, surfaces
from barl.project.layouts.seg_nrrd import write_seg_nrrd
from barl.project.records import Case, Revision
from barl.project.store import Project

RESULTS = ("seg-nrrd", "dicom-seg", "stl", "obj", "table")


class ResultsWriter:
    """Writes the outlines of cases, one after the other.

    Args:
        project: The project.

    Attributes:
        notes: Sentences for the user.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.notes: list[str] = []

    def write(self, case: Case, revision: Revision, folder: Path) -> None:
        """Write the outline of one case into the folder of the export."""
        grid = self.project.cases.grid(case.id)
        label = read_label(revision.path, grid, self.project.values)
        if revision.looked:
            self.notes.append(f"{case.id}: only {revision.looked_share:.1%} of the scan was looked at.")
        self.write_label(case, revision, label, folder)

    def write_label(self, case: Case, revision: Revision, label: sitk.Image, folder: Path) -> None:
        """Write a label map with values of the table."""
        raise NotImplementedError

    def finish(self, folder: Path) -> None:
        """Write what is about all cases; most layouts have nothing of the kind."""
        return


class SegNrrdWriter(ResultsWriter):
    """``.seg.nrrd`` for Slicer."""

    def write_label(self, case: Case, revision: Revision, label: sitk.Image, folder: Path) -> None:
        write_seg_nrrd(label, self.project.labels, folder / f"{case.id}.seg.nrrd")


class SurfaceWriter(ResultsWriter):
    """A surface for each label, in a folder for each case."""

    def __init__(self, project: Project, form: str) -> None:
        super().__init__(project)
        surfaces.load_marching_cubes()
        self.form = form

    def write_label(self, case: Case, revision: Revision, label: sitk.Image, folder: Path) -> None:
        grid, array = Grid.of(label), sitk.GetArrayViewFromImage(label)
        home = folder / case.id
        home.mkdir()
        for row in self.project.labels:
            mask = array == row.value
            if not mask.any():
                self.notes.append(f"{case.id}: there is no {row.name}, hence no surface of it.")
                continue
            points, triangles = surfaces.surface(mask, grid)
            name = re.sub(r"[^\w-]+", "_", row.name).strip("_")
            surfaces.WRITERS[self.form](points, triangles, home / f"{row.value}_{name}.{self.form}")


class DicomSegWriter(ResultsWriter):
    """DICOM segmentation objects."""

    def __init__(self, project: Project, source: Path | None) -> None:
        super().__init__(project)
        dicom_seg.load_highdicom()
        if source is None:
            raise InputError(
                "A DICOM segmentation belongs to a DICOM series, of which a project keeps nothing.",
                "Name the folder with the series that the scans came from: --source FOLDER.",
            )
        self.sources = dicom_seg.find_sources(source)

    def write_label(self, case: Case, revision: Revision, label: sitk.Image, folder: Path) -> None:
        digests = self.project.cases.voxel_digests(case.id)
        found = dicom_seg.source_of(case.name, Grid.of(label), digests, self.sources)
        place = folder / f"{case.id}.dcm"
        dicom_seg.write_dicom_seg(label, self.project.labels, found, place, by_expert=revision.is_accepted)


class TableWriter(ResultsWriter):
    """Tables of volumes and lesions."""

    def __init__(self, project: Project, subjects: Mapping[str, str]) -> None:
        super().__init__(project)
        self._subjects = subjects
        self.volumes: list[tuple] = []
        self.lesions: list[tuple] = []

    def write_label(self, case: Case, revision: Revision, label: sitk.Image, folder: Path) -> None:
        array = sitk.GetArrayViewFromImage(label)
        sure = revision.uncertainty_path
        uncertainty = None if sure is None else sitk.GetArrayFromImage(sitk.ReadImage(str(sure)))
        volumes, lesions = measurements.measure(array, Grid.of(label), self.project.labels, uncertainty)
        subject = self._subjects[case.group]
        looked = round(revision.looked_share, 6) if revision.is_accepted else ""
        made = (case.id, subject, revision.id, str(revision.kind), revision.author)
        self.volumes += [(*made, *row, looked) for row in volumes]
        self.lesions += [(case.id, subject, *row) for row in lesions]

    def finish(self, folder: Path) -> None:
        measurements.write_table(folder / "volumes.csv", measurements.VOLUME_COLUMNS, self.volumes)
        measurements.write_table(folder / "lesions.csv", measurements.LESION_COLUMNS, self.lesions)


def results_writer(layout: str, project: Project, source: Path | None, subjects: Mapping[str, str]) -> ResultsWriter:
    """The writer of a layout.

    Args:
        subjects: Subject of a case -> what the export calls it.

    Raises:
        InputError: A package or the DICOM series is missing.
    """
    kinds: dict[str, Callable[[], ResultsWriter]] = {
        "seg-nrrd": partial(SegNrrdWriter, project),
        "dicom-seg": partial(DicomSegWriter, project, source),
        "stl": partial(SurfaceWriter, project, "stl"),
        "obj": partial(SurfaceWriter, project, "obj"),
        "table": partial(TableWriter, project, subjects),
    }
    return kinds[layout]()
