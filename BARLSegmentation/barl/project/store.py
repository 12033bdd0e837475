# SPDX-License-Identifier: Apache-2.0
"""The project: a folder with cases, label maps, models and runs, and the database that says what they are.

    with Project.create(folder, "Liver", [Label(1, "liver")], [Channel("CT")]) as project:
        case = project.add_case("case 7", [Path("ct.nii.gz")])
        project.store_revision(case.id, label, "accepted", author="reader 1")

Several programs may have a project open at once. Reading always works; changes are made one after the other.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import SimpleITK as sitk

from barl.errors import InputError, ProjectError, StorageError, storage_error
from barl.images.geometry import Grid
from barl.images.reading import read_channels, write_image
from barl.project import files
from barl.project.agreement import Agreements
from barl.project.database import BACKUP_NAME, FILE_NAME, WAIT_SECONDS, Database, is_writable, now
from barl.project.labels import Channel, Label, check_channels, check_labels
from barl.project.records import CASE_STATES, Case, Damage
from barl.project.revisions import Revisions
from barl.project.work import Work

FOLDERS = ("cases", "models", "runs")
_CASE_COLUMNS = "id, name, state, held_out, subject, uncertainty, newest_revision, embedding, scored_by, updated"


class Project(Revisions, Work, Agreements):
    """An open project. Make one with ``create`` or ``open``; ``close`` it, or use it as a context manager.

    Attributes:
        folder: Where it lies.
        name: What the user calls it.
        labels: The label table in ascending order of value; fixed.
        channels: The images every case has, in this order; fixed.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database
        (self.name,) = database.row("SELECT name FROM project") or ("",)
        self.labels = [
            Label.from_json(json.loads(text))
            for (text,) in database.rows("SELECT definition FROM labels ORDER BY value")
        ]
        self.channels = [Channel(*row) for row in database.rows("SELECT name, pattern FROM channels ORDER BY position")]

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
        if not name.strip():
            raise InputError("The project has no name.", "Give it a name.")
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
        database = Database(folder, wait_seconds=wait_seconds)
        try:
            database.create(
                name.strip(),
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
        if not folder.is_dir():
            raise ProjectError(
                f"There is no project folder {folder}.", "Check the path and that the drive is connected."
            )
        if not (folder / FILE_NAME).is_file():
            backup = (folder / BACKUP_NAME).is_file()
            raise ProjectError(
                f"{folder} is not a BARL project: it has no {FILE_NAME}.",
                f"Copy {BACKUP_NAME} to {FILE_NAME}."
                if backup
                else "Choose a project's folder, or create a new project in an empty folder.",
            )
        if not read_only and not is_writable(folder):
            raise StorageError(
                f"The project folder cannot be written: {folder}.",
                "Open the project for reading only, or copy it to a folder that you may write to.",
            )
        database = Database(folder, read_only=read_only, wait_seconds=wait_seconds)
        try:
            database.check_format()
            project = cls(folder, database)
            if not read_only:
                project._tidy()
            return project
        except BaseException:
            database.close()
            raise

    def _tidy(self) -> None:
        _make_folders(self.folder)
        for home in (self.folder, *(self.folder / name for name in FOLDERS)):
            files.remove_leftovers(home)
        with suppress(StorageError):  # A full disk takes the copy, not the project.
            self._database.back_up()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def values(self) -> list[int]:
        """The values of the label table, ascending."""
        return [label.value for label in self.labels]

    @property
    def read_only(self) -> bool:
        return self._database.read_only

    # Cases

    def add_case(
        self,
        name: str,
        channels: Sequence[Path | str] | Sequence[sitk.Image],
        *,
        label: Path | sitk.Image | None = None,
        held_out: bool = False,
        group: str = "",
        author: str = "import",
    ) -> Case:
        """Copy a case into the project, without any metadata of its files.

        Args:
            name: What the user calls it; unique in the project.
            channels: One file (or DICOM folder) or one image for each of the project's channels, in their order.
            label: Its outline, if there is one; kept as an accepted revision.
            held_out: Put it into the fixed group that is only ever used for evaluation.
            group: Whom it belongs to, if several cases are of one subject; a subject is held out as a whole.
            author: Who made the outline.

        Raises:
            InputError: The name is empty or taken, an image or the outline cannot be used, or the group is split.
            ProjectError: Another program is changing the project.
            StorageError: The disk is full or read-only.
        """
        self._database.must_be_writable()
        name, group = _text(name), _text(group)
        if not name:
            raise InputError("The case has no name.", "Give it a name.")
        self._check_new_case(name, held_out, group)
        if len(channels) != len(self.channels):
            raise InputError(
                f"The case {name!r} has {len(channels)} image(s), but the project has {len(self.channels)} channel(s): "
                f"{', '.join(channel.name for channel in self.channels)}.",
                "Give one image for each channel, in this order.",
            )
        with files.staging_folder(self.folder / "cases") as case_folder, files.staging_folder(self.folder) as other:
            (case_folder / "revisions").mkdir()
            images = read_channels([_as_file(item, other / f"{k}.nrrd") for k, item in enumerate(channels)])
            names = _image_names(self.channels)
            for image, file in zip(images, names, strict=True):
                write_image(image, case_folder / file)
            grid = _grid_of_file(case_folder / names[0])
            files.flush_tree(case_folder)
            digests = [files.sha256(case_folder / file) for file in names]
            staged = None if label is None else self._stage_revision(other, label, grid)
            with self._database.write() as transaction:
                self._check_new_case(name, held_out, group)
                case_id = self._free_id(transaction, "cases", "case")
                transaction.settle(case_folder, self.folder / "cases" / case_id, "cases", case_id)
                transaction.execute(
                    "INSERT INTO cases (id, name, name_key, state, held_out, subject, grid, updated) "
                    "VALUES (?, ?, ?, 'new', ?, ?, ?, ?)",
                    (case_id, name, name.casefold(), held_out, group, json.dumps(grid.to_json()), now()),
                )
                rows = [(case_id, k, *item) for k, item in enumerate(zip(names, digests, strict=True))]
                transaction.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", rows)
                transaction.log("case added", case_id, {"held_out": held_out})
                if staged:
                    self._enter_revision(transaction, case_id, staged, "accepted", author)
        return self.case(case_id)

    def _check_new_case(self, name: str, held_out: bool, group: str) -> None:
        if self._database.row("SELECT 1 FROM cases WHERE name_key = ?", (name.casefold(),)):
            raise InputError(f"The project has a case named {name!r} already.", "Give the case another name.")
        split = self._database.row(
            "SELECT name FROM cases WHERE subject = ? AND subject != '' AND held_out != ?", (group, held_out)
        )
        if split:
            raise InputError(
                f"The case {name!r} is of the same subject as {split[0]!r}, but only one of them is held out.",
                "Hold out all cases of a subject or none: the evaluation would otherwise be too good.",
            )

    def cases(self, state: str | None = None) -> list[Case]:
        """The cases in the order in which they were added, all or those in one state."""
        if state is None:
            return [_as_case(row) for row in self._database.rows(f"SELECT {_CASE_COLUMNS} FROM cases ORDER BY number")]
        _check_state(state)
        query = f"SELECT {_CASE_COLUMNS} FROM cases WHERE state = ? ORDER BY number"
        return [_as_case(row) for row in self._database.rows(query, (state,))]

    def case(self, id_or_name: str) -> Case:
        """One case by its id or the name the user gave it.

        Raises:
            ProjectError: There is none.
        """
        query = f"SELECT {_CASE_COLUMNS} FROM cases WHERE id = ? OR name_key = ? ORDER BY id != ? LIMIT 1"
        row = self._database.row(query, (id_or_name, _text(id_or_name).casefold(), id_or_name))
        if not row:
            raise ProjectError(f"The project has no case {id_or_name!r}.", "Choose one of its cases.")
        return _as_case(row)

    def set_state(self, case_id: str, state: str) -> Case:
        """Put a case into another state.

        Raises:
            InputError: The state is unknown.
            ProjectError: The case is unknown, or is to be accepted without an accepted outline.
        """
        _check_state(state)
        case = self.case(case_id)
        with self._database.write() as transaction:
            if state == "accepted" and not self.newest(case.id, ("accepted",)):
                raise ProjectError(f"The case {case.name!r} has no accepted outline.", "Store its outline first.")
            (before,) = transaction.row("SELECT state FROM cases WHERE id = ?", (case.id,))
            transaction.execute("UPDATE cases SET state = ?, updated = ? WHERE id = ?", (state, now(), case.id))
            transaction.log("state set", case.id, {"state": state, "before": before})
        return self.case(case.id)

    def include(self, case_id: str) -> Case:
        """Take a case that was excluded back, in the state that its label maps tell; any other stays as it is.

        Raises:
            ProjectError: The case is unknown, or another program is changing the project.
        """
        case = self.case(case_id)
        if case.state != "excluded":
            return case
        kinds = {revision.kind for revision in self.revisions(case.id)}
        order = (("accepted", "accepted"), ("draft", "in_review"), ("prediction", "predicted"))
        return self.set_state(case.id, next((state for kind, state in order if kind in kinds), "new"))

    def set_held_out(self, case_id: str, held_out: bool) -> list[Case]:
        """Move a case, and all cases of its subject, into the held-out group or out of it; returns those moved."""
        case = self.case(case_id)
        with self._database.write() as transaction:
            together = transaction.execute(
                "SELECT id FROM cases WHERE (id = ? OR (subject = ? AND subject != '')) AND held_out != ?",
                (case.id, case.group, held_out),
            ).fetchall()
            for (moved,) in together:
                transaction.execute("UPDATE cases SET held_out = ?, updated = ? WHERE id = ?", (held_out, now(), moved))
                transaction.log("held out" if held_out else "no longer held out", moved)
        return [self.case(moved) for (moved,) in together]

    def image_paths(self, case_id: str) -> list[Path]:
        """The case's images, in the order of the channels."""
        identity = self.case(case_id).id
        rows = self._database.rows("SELECT file FROM images WHERE case_id = ? ORDER BY position", (identity,))
        return [self.folder / "cases" / identity / file for (file,) in rows]

    def case_grid(self, case_id: str) -> Grid:
        """The grid of the case's images, without reading them."""
        (text,) = self._database.row("SELECT grid FROM cases WHERE id = ?", (self.case(case_id).id,))
        return Grid.from_json(json.loads(text))

    # Soundness

    def verify(self, everything: bool = False) -> list[Damage]:
        """Compare what is on disk with what was stored, bit for bit.

        Args:
            everything: Check images, predictions and drafts as well, not only the accepted label maps.

        Returns:
            What is damaged, by case name (empty: nothing).
        """
        found = [Damage("", self._database.path, f"is damaged ({text})") for text in self._database.problems()]
        home = self.folder / "cases"
        stored = self._database.rows(
            "SELECT c.name, c.id, r.file, r.sha256, r.uncertainty_file, r.uncertainty_sha256 "
            "FROM revisions r JOIN cases c ON c.id = r.case_id WHERE ? OR r.kind = 'accepted' ORDER BY r.number",
            (everything,),
        )
        expected = [(name, home / case / "revisions" / file, digest) for name, case, file, digest, _, _ in stored]
        if everything:
            expected += [
                (name, home / case / "revisions" / file, digest) for name, case, *_, file, digest in stored if file
            ]
            images = self._database.rows(
                "SELECT c.name, c.id, i.file, i.sha256 FROM images i JOIN cases c ON c.id = i.case_id"
            )
            expected += [(name, home / case / file, digest) for name, case, file, digest in images]
        for name, path, digest in expected:
            if problem := _problem(path, digest):
                found.append(Damage(name, path, problem))
        return found

    def strays(self) -> list[Path]:
        """Label maps in the cases' folders that the database does not know, oldest first.

        They come from a copy of the database put back that was older than they, or from a process killed in the last
        step of storing. Whoever misses an outline finds it here and stores it again with ``store_revision``.
        """
        query = "SELECT case_id, file FROM revisions UNION ALL SELECT case_id, uncertainty_file FROM revisions"
        known = {self._revision_folder(case_id) / file for case_id, file in self._database.rows(query) if file}
        found = set(self.folder.glob("cases/case_*/revisions/*.nii.gz")) - known
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def _as_file(image: sitk.Image | Path | str, place: Path) -> Path:
    """Images in memory take the way through a file too: one place says what a usable scan is."""
    if isinstance(image, sitk.Image):
        write_image(image, place)
        return place
    return Path(image)


def _grid_of_file(path: Path) -> Grid:
    """The grid as everybody will read it: the file rounds the geometry a little."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def _problem(path: Path, digest: str) -> str:
    try:
        return "" if files.sha256(path) == digest else "is not as it was stored"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _make_folders(folder: Path) -> None:
    try:
        for name in FOLDERS:
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error


def _image_names(channels: Iterable[Channel]) -> list[str]:
    """File names from the channels' names where these are fit for it, else from their numbers."""
    names = [re.sub(r"[^A-Za-z0-9-]+", "_", channel.name).strip("_") for channel in channels]
    fit = all(names) and len({name.casefold() for name in names}) == len(names) and max(map(len, names)) <= 40
    return [f"image_{name if fit else position}.nii.gz" for position, name in enumerate(names)]


def _text(text: str) -> str:
    # Names from a Mac's files come with accents apart from their letters; they are the same names.
    return " ".join(unicodedata.normalize("NFC", str(text)).split())


def _check_state(state: str) -> None:
    if state not in CASE_STATES:
        raise InputError(f"'{state}' is no state of a case.", f"Use one of: {', '.join(CASE_STATES)}.")


def _as_case(row: tuple) -> Case:
    identity, name, state, held_out, group, uncertainty, newest, embedding, model_id, updated = row
    vector = None if embedding is None else np.frombuffer(embedding, dtype="<f4")
    return Case(identity, name, state, bool(held_out), group, uncertainty, newest, vector, model_id, updated)
