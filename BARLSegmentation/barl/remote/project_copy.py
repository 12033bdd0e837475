# SPDX-License-Identifier: Apache-2.0
"""What a job on another computer needs of a project, and what comes back from it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from barl.errors import storage_error
from barl.progress import SILENT, Progress
from barl.project.files import sha256
from barl.project.records import Case, Revision
from barl.project.states import RevisionKind
from barl.project.store import FILE_NAME, Project
from barl.remote import transfer
from barl.remote.messages import Discard, LayOut
from barl.worker.client import WorkerProcess


@dataclass(frozen=True)
class Copy:
    """A copy of a project on another computer, without the files that its job does not need.

    Attributes:
        name: Of its folder among BARL's ``work`` there.
        path: The folder there, absolute.
        sent_bytes: What had to be sent for it.
    """

    name: str
    path: str
    sent_bytes: int


def files_of_case(project: Project, case: Case, outline: bool) -> dict[Path, str]:
    """Images of a case, and the newest accepted outline if wanted: file -> SHA-256 as it was stored."""
    rows = project.database.rows("SELECT file, sha256 FROM images WHERE case_id = ?", (case.id,))
    found = {project.cases.folder / case.id / row["file"]: row["sha256"] for row in rows}
    revision = project.revisions.newest(case.id, (RevisionKind.ACCEPTED,)) if outline else None
    if revision is not None:
        found[revision.path] = revision.sha256
        if revision.uncertainty_path and revision.uncertainty_sha256:
            found[revision.uncertainty_path] = revision.uncertainty_sha256
        if revision.looked and revision.looked_sha256:
            found[project.folder / revision.looked] = revision.looked_sha256
    return found


def files_of_model(folder: Path) -> dict[Path, str]:
    """The files of a model's folder: file -> SHA-256."""
    return {path: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def send_project(
    worker: WorkerProcess,
    project: Project,
    name: str,
    files: Mapping[Path, str],
    others: Mapping[str, Path] | None = None,
    progress: Progress = SILENT,
) -> Copy:
    """Make a copy of the project's database and of these files on the other computer.

    Args:
        worker: On that computer.
        project: The project here.
        name: Of the folder there; what has this name already is replaced.
        files: Files inside the project -> SHA-256.
        others: Path in the copy -> file that lies outside of the project.
        progress: Gets the share of the bytes.

    Raises:
        StorageError: A file is missing here, or the disk there is full.
        WorkerError: The connection ended.
    """
    content = {digest: path for path, digest in files.items()}
    layout = {path.relative_to(project.folder).as_posix(): digest for path, digest in files.items()}
    for place, path in (others or {}).items():
        layout[place] = sha256(path)
        content[layout[place]] = path
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / FILE_NAME
        with closing(sqlite3.connect(snapshot)) as copy:
            project.database.copy_to(copy)
        layout[FILE_NAME] = sha256(snapshot)
        content[layout[FILE_NAME]] = snapshot
        sent = transfer.send(worker, content, progress)
    homes = sorted({path.split("/")[1] for path in layout if path.startswith("cases/")})
    made = worker.call(LayOut(name, layout, [f"cases/{case_id}/revisions" for case_id in homes]))
    return Copy(name, made.path, sent)


@contextmanager
def database_of(worker: WorkerProcess, name: str) -> Iterator[Project]:
    """The database of a copy there as a project that can be read here; its files are missing."""
    folder = Path(tempfile.mkdtemp())
    try:
        transfer.fetch(worker, f"{name}/{FILE_NAME}", folder / FILE_NAME)
        with Project.open(folder, read_only=True) as project:
            yield project
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def take_predictions(
    worker: WorkerProcess, name: str, project: Project, revisions: Iterable[str], scored: Iterable[str]
) -> list[Revision]:
    """Store predictions that were made in a copy, with the cases' places in the feature space.

    Args:
        worker: On the other computer.
        name: The copy.
        project: The project here, open for writing.
        revisions: Their ids in the copy.
        scored: Ids of cases of which only that place was measured.

    Returns:
        The revisions here, in the same order.
    """
    stored = []
    with database_of(worker, name) as there, tempfile.TemporaryDirectory() as folder:
        for revision_id in revisions:
            row = there.database.one("SELECT case_id FROM revisions WHERE id = ?", (revision_id,))
            case = there.cases.get(row["case_id"])
            revision = next(item for item in there.revisions.of(case.id) if item.id == revision_id)
            stored.append(
                project.revisions.store(
                    case.id,
                    _image(worker, name, there, revision.path, Path(folder) / "label.nii.gz"),
                    revision.kind,
                    author=revision.author,
                    model_id=revision.model_id,
                    uncertainty=_image(worker, name, there, revision.uncertainty_path, Path(folder) / "u.nii.gz")
                    if revision.uncertainty_path
                    else None,
                    case_uncertainty=case.uncertainty,
                    embedding=case.embedding,
                    details=revision.details,
                )
            )
        for case_id in scored:
            case = there.cases.get(case_id)
            project.cases.score(case.id, case.uncertainty, case.embedding, case.model_id)
    return stored


def discard(worker: WorkerProcess, name: str) -> None:
    """Remove a copy there; the files in it stay for the next one."""
    worker.call(Discard(name))


def _image(worker: WorkerProcess, name: str, there: Project, path: Path, place: Path) -> sitk.Image:
    transfer.fetch(worker, f"{name}/{path.relative_to(there.folder).as_posix()}", place)
    try:
        return sitk.ReadImage(str(place))
    except RuntimeError as error:
        raise storage_error(OSError(5, str(error)), place) from error
