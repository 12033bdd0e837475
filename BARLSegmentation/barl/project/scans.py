# SPDX-License-Identifier: Apache-2.0
"""The volumes of a folder, and adding many cases at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from barl.errors import BarlError, DeviceError, InputError, storage_error
from barl.images.formats.kinds import COMPANIONS, describe_other, ending
from barl.images.label_maps import OtherGridError
from barl.progress import SILENT, Progress, Stage
from barl.project.doubts import Doubt, DoubtError
from barl.project.records import Case
from barl.project.store import Project


@dataclass(frozen=True)
class Added:
    """A case that was added, and what a user should know of it."""

    case: Case
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A case, or a file or folder, that was not added.

    Attributes:
        name: The case's, the file's or the folder's.
        reason: Why.
        is_scan: Whether it is a scan or an outline, and no file of another kind that merely lies beside.
        path: An outline of whose name there is no scan; a person may say of which scan it is.
    """

    name: str
    reason: BarlError
    is_scan: bool = True
    path: Path | None = None

    @property
    def confirmation(self) -> str:
        """What takes it if the user confirms it: a ``Doubt``, or ``resample`` for an outline on another grid; empty:
        nothing does."""
        if isinstance(self.reason, OtherGridError):
            return "resample"
        return self.reason.doubt if isinstance(self.reason, DoubtError) else ""


@dataclass(frozen=True)
class FolderContent:
    """The cases of a folder, and the files that make none.

    Attributes:
        cases: Each with its outline, if there is one of its name.
        left_out: Everything else.
        outlines: The outlines among ``left_out`` of whose names there is no scan; ``pairing.propose_pairs`` looks for
            their scans.
    """

    cases: tuple[NewCase, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    outlines: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Intake:
    """The cases that were added and those that were not."""

    added: tuple[Added, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class NewCase:
    """A case that is to be added.

    Attributes:
        name: What the user calls it.
        channels: For each channel a file, a folder with one DICOM series, or the files of one DICOM series.
        label: Its outline, if there is one.
        held_out: Only ever used for evaluation.
        group: The subject, if several cases are of one.
        series: For each channel which series of its DICOM folder is meant; empty where there is only one.
        resample: Bring an outline of another grid onto the scan's, nearest voxel.
        meaning: Pairs of a value or a segment's name in the outline's file and the value of the label table.
        notes: Sentences for the user and for the journal.
        neutral: Keep no sentence that names a file.
        looked: Which voxels the outline's author has looked at: a mask, or the value in the outline's file that means
            that nobody has; None: the whole scan.
    """

    name: str
    channels: tuple[Path | tuple[Path, ...], ...]
    label: Path | None = None
    held_out: bool = False
    group: str = ""
    series: tuple[str | None, ...] = ()
    resample: bool = False
    meaning: tuple[tuple[int | str, int], ...] = ()
    notes: tuple[str, ...] = ()
    looked: Path | int | None = None
    neutral: bool = False

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NewCase:
        """Read one case of a request.

        Raises:
            InputError: Something is missing or of the wrong kind.
        """
        try:
            channels = tuple(
                Path(item) if isinstance(item, str) else tuple(map(Path, item)) for item in data["channels"]
            )
            label = data.get("label")
            return cls(
                str(data["name"]),
                channels,
                Path(label) if label else None,
                _true_or_false(data.get("held_out", False), "held_out"),
                str(data.get("group", "")),
                tuple(None if item is None else str(item) for item in data.get("series") or ()),
                bool(data.get("resample", False)),
                tuple((key, int(value)) for key, value in data.get("meaning") or ()) if label else (),
                tuple(str(note) for note in data.get("notes") or ()),
                _looked(data.get("looked")) if label else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "A case that was to be added cannot be read.", "Give each case a name and its channels."
            ) from error


def _looked(value: Any) -> Path | int | None:
    return Path(value) if isinstance(value, str) else None if value is None else int(value)


def _true_or_false(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}, which is neither true nor false.", "Write true or false.")
    return value


def add_cases(
    project: Project, cases: Sequence[NewCase], progress: Progress = SILENT, allow: Collection[Doubt] = ()
) -> Intake:
    """Add cases; those that cannot be used, or raise a doubt that is not in ``allow``, keep no other waiting.

    Raises:
        ProjectError: Another program is changing the project.
        StorageError: The disk is full or read-only.
    """
    added: list[Added] = []
    left_out: list[LeftOut] = []
    for case, _ in progress.stage(Stage.ADDING).each(cases, lambda case: case.name):
        notes = list(case.notes)
        try:
            images, series = _scan_of(case, notes)
            stored = project.cases.add(
                case.name,
                images,
                label=case.label,
                held_out=case.held_out,
                group=case.group,
                series=series,
                resample=case.resample,
                notes=notes,
                allow=allow,
                meaning=dict(case.meaning),
                looked=case.looked,
                neutral=case.neutral,
            )
            added.append(Added(stored, tuple(notes)))
        except (InputError, DeviceError) as error:  # a device that has too little memory for this one
            left_out.append(LeftOut(case.name, error))
    return Intake(tuple(added), tuple(left_out))


def with_other_scan(
    project: Project, cases: Sequence[tuple[NewCase, str]], progress: Progress = SILENT
) -> dict[str, LeftOut]:
    """Cases that bear the name of one of the project but are another scan: name -> what to tell.

    Args:
        project: Open.
        cases: What a folder holds, each with the id of the case of the project that has its name.
        progress: Of reading their scans.
    """
    found = {}
    for (case, case_id), _ in progress.stage(Stage.COMPARING).each(cases, lambda item: item[0].name):
        try:
            if project.cases.has_scan(case_id, *_scan_of(case, [])):
                continue
            reason = InputError(
                f"The project has a case named {case.name!r} already, with another scan.",
                "If it is another one, give its files another name; if it is a new version, delete the case first.",
            )
            found[case.name] = LeftOut(case.name, reason)
        except (InputError, DeviceError) as error:
            found[case.name] = LeftOut(case.name, error)
    return found


def _scan_of(case: NewCase, notes: list[str]) -> tuple[list[sitk.Image | Path], list[str | None]]:
    """Image or place of each channel, and which series of its folder is meant."""
    wanted = case.series or (None,) * len(case.channels)
    pairs = list(zip(case.channels, wanted, strict=True))
    images: list[sitk.Image | Path] = [
        _read_files(item, case.name, series, notes) if isinstance(item, tuple) else item for item, series in pairs
    ]
    return images, [None if isinstance(item, tuple) else series for item, series in pairs]


def _read_files(files: tuple[Path, ...], name: str, series: str | None, notes: list[str]) -> sitk.Image:
    """One volume among the files of a DICOM series."""
    # pydicom takes half a second to import, which nobody without DICOM should wait.
    from barl.images.dicom.series import read_files

    volume = read_files(files, name, series, notes)
    return volume.grid.image(volume.array)


def stem(path: Path) -> str:
    """The file's or folder's own name, of a link too, without the ending of a volume."""
    name = path.name or path.resolve().name  # "." has no name
    return name.removesuffix(ending(name) or (path.suffix if path.suffix.lower() == ".dcm" else ""))


def twice(paths: Sequence[Path], what: str, case: str) -> LeftOut:
    """A case that is left out because any of two files could be the same part of it.

    Args:
        paths: Two or more.
        what: What they are, such as "outlines".
        case: Its name.
    """
    names = f"'{paths[0].name}' and '{paths[1].name}'"
    return LeftOut(case, InputError(f"{names} are both {what} of the case '{case}'.", "Move one of them away."))


def list_volumes(folder: Path, *, outlines: bool = False) -> tuple[list[Path], list[LeftOut]]:
    """The volume files of a folder, and everything else in it."""
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except NotADirectoryError:
        raise InputError(f"{folder} is not a folder.", "Name the folder that holds the files.") from None
    except FileNotFoundError:
        raise InputError(f"There is no folder {folder}.", "Check the path.") from None
    except OSError as error:
        raise storage_error(error, folder) from error
    found, left_out = [], []
    stems = {stem(path) for path in entries if ending(path.name)}
    for path in entries:
        lower = path.name.lower()
        if path.is_dir() and outlines and _holds_scans(path):
            found.append(path)
        elif path.is_dir():
            words = (
                "It is a folder.",
                "Add a folder with a DICOM series by itself, or name the folder that holds the files.",
            )
            left_out.append(LeftOut(path.name, InputError(*words), is_scan=_holds_scans(path)))
        elif lower.endswith(".seg.nrrd") and not outlines:
            words = "It is a segmentation, not a scan.", "Put it into a folder of its own and name that with --labels."
            left_out.append(LeftOut(path.name, InputError(*words), is_scan=False))
        elif ending(path.name) or (outlines and lower.endswith(".dcm")):
            found.append(path)
        elif not (lower.endswith(COMPANIONS) and path.name.partition(".")[0] in {s.partition(".")[0] for s in stems}):
            what = describe_other(path.name)
            words = f"It is {what or 'no volume file'}.", "Convert it to NIfTI or NRRD if it is a scan."
            left_out.append(LeftOut(path.name, InputError(*words), is_scan=bool(what)))
    return found, left_out


def _holds_scans(folder: Path) -> bool:
    """Whether one of the first files in a folder is a volume or DICOM."""
    try:
        for path in islice(folder.iterdir(), 50):
            if ending(path.name) or path.suffix.lower() == ".dcm":
                return True
            if path.is_file() and path.stat().st_size > 132:  # reading /proc/kmsg, of size 0, would wait for ever
                with path.open("rb") as file:
                    if file.read(132)[128:] == b"DICM":
                        return True
    except OSError:
        pass  # a folder that cannot be read is told as a folder
    return False
