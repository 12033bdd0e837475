# SPDX-License-Identifier: Apache-2.0
"""The project: a folder with cases, label maps, models and runs, and the database that says what they are.

    with Project.create(folder, "Liver", [Label(1, "liver")], [Channel("CT")]) as project:
        case = project.cases.add("case 7", [Path("ct.nii.gz")])
        project.revisions.store(case.id, label, RevisionKind.ACCEPTED, author="reader 1")

Several programs may have a project open at once. Reading always works; changes are made one after the other.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from barl.errors import ProjectError, StorageError, storage_error
from barl.project import files
from barl.project.agreement import Agreements
from barl.project.cases import Cases
from barl.project.database import BACKUP_NAME, FILE_NAME, WAIT_SECONDS, Database, is_writable
from barl.project.definition import Definition
from barl.project.erasing import finish_erasing
from barl.project.journal import Journal
from barl.project.labels import Channel, Label, check_channels, check_labels
from barl.project.models import Models
from barl.project.names import check_name
from barl.project.records import Damage
from barl.project.revisions import Revisions
from barl.project.runs import Runs
from barl.project.soundness import verify

FOLDERS = ("cases", "models", "runs")


class Project:
    """An open project. Make one with ``create`` or ``open``; ``close`` it, or use it as a context manager.

    Attributes:
        folder: Where it lies.
        database: Its open database.
        definition: Its name, label table and channels.
        cases: Scans, their names and states.
        revisions: The label maps of the cases.
        models: What was trained, and which model is the current one.
        runs: Trainings and their states.
        journal: What was done.
        agreements: Predictions compared with their corrections.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.definition = Definition(database)
        self.cases = Cases(database, self.definition)
        self.revisions = Revisions(database, self.definition, self.cases)
        self.models = Models(database)
        self.runs = Runs(database)
        self.journal = Journal(database)
        self.agreements = Agreements(database, self.definition, self.journal)

    @classmethod
    def create(
        cls,
        folder: Path | str,
        name: str,
        labels: Sequence[Label],
        channels: Sequence[Channel],
        *,
        wait_seconds: float = WAIT_SECONDS,
    ) -> Project:
        """Make a project in a new or empty folder and open it.

        Raises:
            InputError: The label table or the channels are wrong, or the name is empty.
            ProjectError: The folder holds a project or other files.
            StorageError: The folder cannot be written.
        """
        labels, channels = check_labels(labels), check_channels(channels)
        name = check_name(name, "project")
        folder = Path(folder).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Empty folders of ours and an empty database are what a creation killed half-way leaves.
            foreign = [path for path in folder.iterdir() if path.name not in FOLDERS and path.name[0] != "."]
            foreign = [path for path in foreign if not path.name.startswith(FILE_NAME.partition(".")[0] + ".")]
        except FileExistsError as error:
            raise ProjectError(f"{folder} is a file.", "Choose a new or empty folder.") from error
        except OSError as error:
            raise storage_error(error, folder) from error
        if foreign:
            raise ProjectError(f"The folder {folder} is not empty.", "Choose a new or empty folder.")
        _refuse_remains(folder)
        database = Database(folder, wait_seconds=wait_seconds)
        try:
            database.create(
                name,
                [(label.value, label.name.strip(), json.dumps(label.to_json())) for label in labels],
                [(position, channel.name.strip(), channel.pattern) for position, channel in enumerate(channels)],
            )
            _make_folders(folder)
            return cls(folder, database)
        except BaseException:
            database.close()
            raise

    @classmethod
    def open(cls, folder: Path | str, read_only: bool = False, *, wait_seconds: float = WAIT_SECONDS) -> Project:
        """Open a project.

        Opening for writing also tidies up: what killed processes left half-written is removed and a copy of the
        database is kept from time to time.

        Args:
            folder: The project's folder.
            read_only: Refuse every change; also opens projects on read-only disks.
            wait_seconds: How long a change waits for another program that is changing the project.

        Raises:
            ProjectError: The folder is missing, is no project, is of a newer version, or its database is damaged.
            StorageError: It is to be opened for writing but cannot be written.
        """
        folder = Path(folder).absolute()
        try:
            _must_be_a_project(folder)
        except OSError as error:  # a name that is too long, a network drive that is gone, a folder without permission
            raise ProjectError(
                f"The project folder {folder} cannot be read ({error.strerror or error}).",
                "Check the path, its permissions and that the drive is connected.",
            ) from error
        if not read_only and not is_writable(folder):
            raise StorageError(
                f"The project folder cannot be written: {folder}.",
                "Open the project for reading only, or copy it to a folder that you may write to.",
            )
        database = Database(folder, read_only=read_only, wait_seconds=wait_seconds)
        try:
            database.check_format()
            database.check_soundness()
            project = cls(folder, database)
            if not read_only:
                project._tidy()
            return project
        except BaseException:
            database.close()
            raise

    def _tidy(self) -> None:
        _make_folders(self.folder)
        self.database.remove_unfinished()
        finish_erasing(self.database)
        files.remove_announced(self.folder)
        runs = [path for path in (self.folder / "runs").glob("*") if path.is_dir()]
        caches = [path for run in runs for path in (run / "cache", *(run / "cache").glob("*")) if path.is_dir()]
        for home in (self.folder, *(self.folder / name for name in FOLDERS), *runs, *caches):
            files.remove_leftovers(home)
        with suppress(StorageError):  # A full disk takes the copy, not the project.
            self.database.back_up()

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """What the user calls the project."""
        return self.definition.name

    @property
    def labels(self) -> list[Label]:
        """The label table in ascending order of value."""
        return self.definition.labels

    @property
    def channels(self) -> list[Channel]:
        """The images every case has, in this order."""
        return self.definition.channels

    @property
    def values(self) -> list[int]:
        """The values of the label table, ascending."""
        return self.definition.values

    @property
    def read_only(self) -> bool:
        return self.database.read_only

    def verify(self, everything: bool = False) -> list[Damage]:
        """Compare what is on disk with what was stored, bit for bit.

        Args:
            everything: Check images, predictions, drafts and models as well, not only the accepted label maps.

        Returns:
            What is damaged, by case name or id of the model (empty: nothing).
        """
        return verify(self.database, everything)


def _must_be_a_project(folder: Path) -> None:
    """
    Raises:
        ProjectError: It is no folder of a project, or a link in it leads elsewhere.
        OSError: It cannot be read.
    """
    if not folder.is_dir():
        raise ProjectError(f"There is no project folder {folder}.", "Check the path and that the drive is connected.")
    for name in (FILE_NAME, *FOLDERS):
        if (folder / name).is_symlink():
            files.inside(folder, name)
    if not (folder / FILE_NAME).is_file():
        backup = (folder / BACKUP_NAME).is_file()
        raise ProjectError(
            f"{folder} is not a BARL project: it has no {FILE_NAME}.",
            f"Restore its copy: barl project restore {shlex.quote(str(folder))}"
            if backup
            else "Choose a project's folder, or create a new project in an empty folder.",
        )


def _refuse_remains(folder: Path) -> None:
    """Make no project where one has lost its database: the next copy of the database would replace the sound one.

    Raises:
        ProjectError: There is a copy, or a case, a model or a run.
        StorageError: The folder cannot be read.
    """
    database = folder / FILE_NAME
    try:
        if database.exists() and database.stat().st_size > 0:
            return  # what it holds is looked at when it is opened
        copy = (folder / BACKUP_NAME).exists()
        held = [name for name in FOLDERS if (folder / name).is_dir() and any((folder / name).iterdir())]
    except OSError as error:
        raise storage_error(error, folder) from error
    if copy or held:
        raise ProjectError(
            f"{folder} holds a project that has lost its {FILE_NAME}.",
            f"Restore its copy: barl project restore {folder}" if copy else "Choose a new or empty folder.",
        )


def _make_folders(folder: Path) -> None:
    try:
        for name in FOLDERS:
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
