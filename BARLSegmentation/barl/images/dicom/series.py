# SPDX-License-Identifier: Apache-2.0
"""The volumes among DICOM files: listed with what distinguishes them, chosen, and read with exact voxels and geometry.

A volume is one stack of slices: a series with several echoes, time points or b-values holds several volumes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from barl.errors import InputError
from barl.images.dicom.folders import Found, is_regular, regular_files, sort_files
from barl.images.dicom.frames import Frame, frames_of
from barl.images.dicom.headers import Header, read_header
from barl.images.dicom.objects import DIRECTORY
from barl.images.dicom.pixels import intensities
from barl.images.dicom.stacks import Stack, check, grid_of, stacks
from barl.images.formats.volume import Volume

# A message lists no more than this.
_SHOWN = 8


@dataclass(frozen=True)
class Series:
    """A volume among DICOM files.

    Attributes:
        number: Chooses it: the number that the scanner gave the series where these differ, else its place in the list.
        description: What the scanner or the archive calls it and what distinguishes it from others of its series,
            without the patient's name and number; to be shown, never stored.
        modality: ``CT``, ``MR``, ``PT`` and so on.
        size: Voxels along x, y, z.
        n_files: Files it comes from.
        uid: The series' UID; never shown or stored.
        files: Their paths.
        stack: Its frames.
        odd: Single frames of the same series that lie another way, such as a scout.
        broken: Frames of the same series that cannot be used.
    """

    number: int
    description: str
    modality: str
    size: tuple[int, int, int]
    n_files: int
    uid: str
    files: tuple[Path, ...]
    stack: Stack
    odd: tuple[Frame, ...] = ()
    broken: tuple[Frame, ...] = ()

    @property
    def label(self) -> str:
        """Modality, size and description on one line."""
        size = " x ".join(map(str, self.size))
        return f"{self.modality}, {size}" + (f", {self.description}" if self.description else "")


def list_series(place: Path | str | Sequence[Path | str]) -> list[Series]:
    """The volumes among some files, or in a folder and the folders in it; single pictures and other DICOM objects are
    left out.

    Raises:
        InputError: ``place`` is a path, but not that of a folder.
    """
    files = _files(Path(place)) if isinstance(place, Path | str) else list(map(Path, place))
    return _series(sort_files(files).scans)[0]


def read_series(folder: Path | str, series: str | None = None, notes: list[str] | None = None) -> Volume:
    """Read one volume of a folder.

    Args:
        folder: With DICOM files.
        series: Number, UID or a part of the description of the wanted one; may be left out if there is only one.
        notes: Gets a sentence for each thing that a user should know.

    Raises:
        InputError: No series, several and none chosen, or slices that make no even, upright volume; the file or the
            frame is named.
    """
    folder = Path(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        raise InputError(f"The folder '{folder.name}' is empty.", "Choose the folder with the files of one scan.")
    return _read(sort_files(_files(folder)), f"The folder '{folder.name}'", folder.name, series, notes)


def read_files(
    files: Sequence[Path | str], name: str, series: str | None = None, notes: list[str] | None = None
) -> Volume:
    """Read the files of one series, wherever they lie, as a volume; in any order.

    Args:
        files: All files of the series; one file may hold many frames.
        name: What messages call it.
        series: As in ``read_series``.
        notes: As in ``read_series``.

    Raises:
        InputError: As ``read_series``.
    """
    paths = [Path(file) for file in files]
    if not paths or not all(map(is_regular, paths)):
        raise InputError(
            f"Files of the DICOM series of '{name}' are missing.", "Check that the drive with the DICOM files is there."
        )
    if len(paths) == 1 and (header := read_header(paths[0])) and header.sop_class == DIRECTORY:
        raise InputError(
            f"'{name}' is the table of contents of a disc (DICOMDIR), not a scan.",
            f"Choose the folder in which it lies: '{paths[0].absolute().parent.name}'.",
        )
    return _read(sort_files(paths), f"'{name}'", name, series, notes)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"'{folder.name}' is not a folder.", "Choose the folder with the DICOM files.")
    return regular_files(folder)


def _series(scans: Iterable[list[Header]]) -> tuple[list[Series], list[Series]]:
    """The volumes, and single pictures beside them, such as a scout with a series of its own."""
    found: list[Series] = []
    for headers in scans:
        frames = [frame for header in headers for frame in frames_of(header)]
        broken = tuple(frame for frame in frames if frame.problem)
        parts = stacks([frame for frame in frames if not frame.problem]) if len(broken) < len(frames) else []
        volumes = [part for part in parts if len(part.frames) > 1] or parts[:1] or [Stack(broken)]
        odd = tuple(frame for part in parts if part not in volumes for frame in part.frames)
        found += [_entry(headers[0], part, odd, broken) for part in volumes]
    entries = [item for item in found if item.size[2] > 1 or item.broken]
    if not entries:
        return _numbered(found), []
    return _numbered(entries), [item for item in found if item not in entries]


def _entry(header: Header, stack: Stack, odd: tuple[Frame, ...], broken: tuple[Frame, ...]) -> Series:
    words = [text for text in (_described(header), stack.words) if text]
    files = tuple(dict.fromkeys(frame.header.path for frame in stack.frames))
    number = header.number("SeriesNumber")
    return Series(
        -1 if number is None else number,
        ", ".join(words),
        header.text("Modality") or "unknown",
        (*stack.frames[0].size, len(stack.frames)),
        len(files),
        header.text("SeriesInstanceUID"),
        files,
        stack,
        odd,
        broken,
    )


def _described(header: Header) -> str:
    """The series' description without words of the patient's name or number."""
    text = header.text("SeriesDescription")[:60]
    for word in [*re.split(r"[\^= ,]+", header.text("PatientName")), header.text("PatientID")]:
        if len(word) > 2:
            text = re.sub(re.escape(word), "...", text, flags=re.IGNORECASE)
    return "".join(letter for letter in text if letter.isprintable())


def _numbered(found: list[Series]) -> list[Series]:
    found = sorted(found, key=lambda item: (item.number, item.modality, item.size))
    numbers = [item.number for item in found]
    if len(set(numbers)) == len(numbers) and min(numbers, default=0) >= 0:
        return found
    return [Series(n, *list(vars(item).values())[1:]) for n, item in enumerate(found, 1)]


def _read(found: Found, where: str, name: str, wanted: str | None, notes: list[str] | None) -> Volume:
    listed, single = _series(found.scans)
    if not listed:
        _refuse_damaged(found.damaged, name)
        raise _nothing(found, where)
    item = _chosen(listed, where, wanted)
    folders = {file.parent for file in item.files}
    _refuse_damaged([path for path in found.damaged if path.parent in folders], name)
    if item.broken:
        frame = item.broken[0]
        raise InputError(
            f"The DICOM series in '{name}' cannot be placed: {frame.name} {frame.problem}.",
            "Export the series again from the archive or the scanner, with these tags.",
        )
    if item.odd and wanted is None:
        more = f" and {len(item.odd) - 1} more" if len(item.odd) > 1 else ""
        raise InputError(
            f"The DICOM series in '{name}' holds {len(item.odd)} image(s) of another direction or size (a scout?): "
            f"{item.odd[0].name}{more}.",
            f"Leave what does not belong to the volume out with --series {item.number}, or remove the file.",
        )
    told = check(item.stack, name)
    if len({frame.header.text("SeriesInstanceUID") for frame in item.stack.frames}) > 1:
        told.append("Every slice has a series UID of its own; the slices were taken as one series.")
    if item.odd:
        told.append(f"{len(item.odd)} image(s) of another direction or size were left out of the series.")
    if single:
        told.append(f"{len(single)} single picture(s) beside the scan (a scout?) were left out.")
    if found.others:
        told.append(f"Beside the scan lie other DICOM objects, which are no part of it: {_counted(found)}.")
    if notes is not None:
        notes += told
    grid = grid_of(item.stack)
    return Volume(intensities(item.stack.frames), grid.spacing, grid.origin, grid.axes)


def _refuse_damaged(damaged: list[Path], name: str) -> None:
    if damaged:
        others = f" and {len(damaged) - 1} more files" if len(damaged) > 1 else ""
        raise InputError(
            f"'{damaged[0].name}'{others} of '{name}' cannot be read as DICOM: damaged or cut off.",
            "Copy or export the series again, or move what does not belong to it away.",
        )


def _nothing(found: Found, where: str) -> InputError:
    if found.others:
        verb = "holds no scan but" if "folder" in where else "is no scan but"
        return InputError(f"{where} {verb} {_counted(found)}.", "Choose the DICOM series of the scan itself.")
    return InputError(
        f"{where} holds no DICOM images.",
        "Choose the folder with the files of one scan, or a NIfTI, NRRD or MHA file.",
    )


def _counted(found: Found) -> str:
    return ", ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in found.others.most_common(3))


def _chosen(listed: list[Series], where: str, wanted: str | None) -> Series:
    shown = "; ".join(f"{item.number} ({item.label})" for item in listed[:_SHOWN])
    shown += f"; and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    if wanted is None:
        if len(listed) > 1:
            raise InputError(
                f"{where} holds {len(listed)} series: {shown}.",
                "Choose one with --series and its number; in Slicer, select the case and choose it below the table.",
            )
        return listed[0]
    text = wanted.strip()
    fits = [item for item in listed if text in (str(item.number), item.uid)]
    fits = fits or [item for item in listed if text and text.casefold() in item.description.casefold()]
    if len(fits) != 1:
        what = "no series" if not fits else f"{len(fits)} series"
        raise InputError(f"{where} holds {what} '{text}'; it holds {shown}.", "Choose one of these numbers.")
    return fits[0]
