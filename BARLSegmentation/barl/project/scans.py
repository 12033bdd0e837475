# SPDX-License-Identifier: Apache-2.0
"""Scans on their way into a project: which files of a folder make up which case, and adding many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from barl.errors import BarlError, DeviceError, InputError, storage_error
from barl.progress import SILENT, Progress
from barl.project.labels import Channel
from barl.project.records import Case
from barl.project.store import Project

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True)
class Added:
    """A case that was added, and what a user should know of it."""

    case: Case
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A case, or a file or folder, that was not added, and why."""

    name: str
    reason: BarlError


@dataclass(frozen=True)
class Intake:
    """What became of the cases that were to be added."""

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
        group: Whom it belongs to, if several cases are of one subject.
        series: For each channel which series of its DICOM folder is meant; empty where there is only one.
        resample: Bring an outline of another grid onto the scan's, nearest voxel.
    """

    name: str
    channels: tuple[Path | tuple[Path, ...], ...]
    label: Path | None = None
    held_out: bool = False
    group: str = ""
    series: tuple[str | None, ...] = ()
    resample: bool = False

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
                bool(data.get("held_out", False)),
                str(data.get("group", "")),
                tuple(None if item is None else str(item) for item in data.get("series") or ()),
                bool(data.get("resample", False)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "A case that was to be added cannot be read.", "Give each case a name and its channels."
            ) from error


def find_cases(
    images: Path,
    channels: Sequence[Channel],
    labels: Path | None = None,
    *,
    held_out: bool = False,
    group: str = "",
    resample: bool = False,
) -> list[NewCase]:
    """The cases of a folder, one for each scan or, with several channels, one for each set of files.

    Args:
        images: Folder with NIfTI, NRRD or MetaImage files.
        channels: The project's; their patterns tell the files apart and are cut out of the file's name, what remains is
            the case's name. A single channel needs none: every file is then a case.
        labels: Folder with outlines, each named as its case.
        held_out: For all of them.
        group: For all of them.

    Raises:
        InputError: A folder is missing or holds no scan, a case lacks a channel or has two files for one, or an outline
            lacks its scan.
        StorageError: A folder cannot be read.
    """
    outlines = {stem(path): path for path in _volumes(labels)} if labels else {}
    groups = _by_case(_volumes(images), channels)
    if unused := sorted(set(outlines) - set(groups)):
        more = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
        raise InputError(
            f"There is no scan for the outline '{unused[0]}'{more}.",
            "Outlines and scans belong together by equal file names.",
        )
    return [
        NewCase(name, tuple(files), outlines.get(name), held_out, group, (), resample) for name, files in groups.items()
    ]


def add_cases(project: Project, cases: Sequence[NewCase], progress: Progress = SILENT) -> Intake:
    """Add cases; those that cannot be used keep no other waiting.

    Raises:
        ProjectError: Another program is changing the project.
        StorageError: The disk is full or read-only.
    """
    added: list[Added] = []
    left_out: list[LeftOut] = []
    for case, _ in progress.stage("adding").each(cases, lambda case: case.name):
        notes: list[str] = []
        try:
            images: list[sitk.Image | Path] = [
                _read_files(item, case.name, notes) if isinstance(item, tuple) else item for item in case.channels
            ]
            stored = project.cases.add(
                case.name,
                images,
                label=case.label,
                held_out=case.held_out,
                group=case.group,
                series=case.series,
                resample=case.resample,
                notes=notes,
            )
            added.append(Added(stored, tuple(notes)))
        except (InputError, DeviceError) as error:  # a device that has too little memory for this one
            left_out.append(LeftOut(case.name, error))
    return Intake(tuple(added), tuple(left_out))


def _read_files(files: tuple[Path, ...], name: str, notes: list[str]) -> sitk.Image:
    """The files of one DICOM series."""
    # pydicom takes half a second to import, which nobody without DICOM should wait.
    from barl.images.dicom.series import read_files

    volume = read_files(files, name, notes=notes)
    return volume.grid.image(volume.array)


def stem(path: Path) -> str:
    """The file's name without the ending of a volume."""
    ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), "")
    return path.resolve().name.removesuffix(path.name[len(path.name) - len(ending) :] if ending else "")


def _volumes(folder: Path) -> list[Path]:
    try:
        found = sorted(
            path for path in folder.iterdir() if path.name.lower().endswith(_ENDINGS) and path.name[0] != "."
        )
    except NotADirectoryError:
        raise InputError(f"{folder} is not a folder.", "Name the folder that holds the files.") from None
    except FileNotFoundError:
        raise InputError(f"There is no folder {folder}.", "Check the path.") from None
    except OSError as error:
        raise storage_error(error, folder) from error
    if not found:
        raise InputError(f"The folder {folder} holds no NIfTI, NRRD or MHA file.", "Add DICOM series one by one.")
    return found


def _by_case(paths: list[Path], channels: Sequence[Channel]) -> dict[str, list[Path]]:
    """Case name -> its files in the order of the channels; the channel's pattern is cut out of the file's name."""
    if len(channels) > 1 and not all(channel.pattern for channel in channels):
        raise InputError(
            "The project has several channels without a pattern for their files' names.",
            "Add the cases one by one, or make the project with a pattern for each channel.",
        )
    groups: dict[str, dict[int, Path]] = {}
    for path in paths:
        fits = [n for n, channel in enumerate(channels) if channel.pattern in path.name]
        if not fits:
            continue
        position = max(fits, key=lambda n: len(channels[n].pattern))  # T1c is not T1
        pattern = channels[position].pattern
        name = stem(path).replace(pattern, "").strip("_-. ") if pattern else stem(path)
        other = groups.setdefault(name, {}).setdefault(position, path)
        if other != path:
            raise InputError(
                f"'{other.name}' and '{path.name}' are both {channels[position].name} of the case '{name}'.",
                "Move one of them away.",
            )
    for name, files in groups.items():
        if missing := [channel.name for n, channel in enumerate(channels) if n not in files]:
            raise InputError(
                f"The case '{name}' has no file of channel {missing[0]}.", "Add it, or move the case away."
            )
    if not groups:
        raise InputError("No file's name holds the pattern of a channel.", "Look at the patterns of the project.")
    return {name: [files[n] for n in range(len(channels))] for name, files in groups.items()}
