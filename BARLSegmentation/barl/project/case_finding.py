# SPDX-License-Identifier: Apache-2.0
"""Finds the cases of a folder: a file or a set of files each, or a folder each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from barl.errors import InputError
from barl.images.formats.kinds import ending
from barl.images.reading import is_dicom
from barl.project.channel_patterns import SEEN, is_word, seen_patterns
from barl.project.labels import Channel
from barl.project.masks import Outlined, match_masks
from barl.project.matching import match_names, matched_note
from barl.project.scans import FolderContent, LeftOut, NewCase, list_volumes, stem, twice

_MOST_LOOKED_AT = 300
_BY_NAMES = "The case is a folder of several files: their names tell which are its scan and its outline."
_BY_OBJECT = "The outline is the DICOM segmentation or structure set in the case's folder."


def find_cases(
    images: Path,
    channels: Sequence[Channel],
    labels: Path | None = None,
    *,
    held_out: bool = False,
    group: str = "",
    resample: bool = False,
    looked: Path | int | None = None,
) -> FolderContent:
    """The cases of a folder, one for each scan or, with several channels, one for each set of files.

    A folder without files of scans may hold a folder for each case: that has the case's name, and in it lie its scan (a
    file for each channel, or DICOM files) and, if ``labels`` is the same folder, its outline. Beside DICOM files
    that is the only segmentation, structure set or volume file, however deep it lies.

    What makes no case keeps no other waiting: an incomplete set of channels, two files for one channel, an outline
    without a scan, files of other kinds and folders are left out, each with its reason.

    Args:
        images: Folder with files of scans.
        channels: The project's; their patterns distinguish the files and are cut out of the file's name; the case's
            name remains. A single channel needs none: every file is then a case.
        labels: Folder with outlines, each named as its case, or with a suffix such as ``_seg``; a folder in it is an
            outline with a file for each label.
        held_out: For all of them.
        group: For all of them.
        resample: For all of them.
        looked: Folder with masks of the voxels looked at, each named as its outline or its case, or with a suffix; or
            the value in the outlines that means that nobody has looked. An outline without a mask is of the whole scan,
            which a note says; a case of which several masks could be is left out.

    Raises:
        InputError: A folder is missing or holds no scan, or channels lack patterns.
        StorageError: A folder cannot be read.
    """
    scans, left_out = list_volumes(images)
    common = NewCase("", (), None, held_out, group, (), resample)
    outlines: dict[str, list[Path]] = {}
    others: list[LeftOut] = []
    if labels:
        files, others = list_volumes(labels, outlines=True)
        others = [item for item in others if labels != images]
        for path in files:
            if scans or not (path.is_dir() and (images / path.name).is_dir()):
                outlines.setdefault(stem(path) if scans else stem(path).removesuffix(".seg"), []).append(path)
    if scans:
        seen = len(channels) > 1 and not all(channel.pattern for channel in channels)
        if seen:
            channels = seen_patterns([stem(path) for path in scans], channels)
        sets = _by_case(scans, channels, left_out)
        common = replace(common, notes=(SEEN,) if seen else ())
        cases = [replace(common, name=name, channels=tuple(paths)) for name, paths in sets.items()]
    else:
        cases, left_out = _by_folder(images, channels, labels, common)
    left_out += others
    cases = _with_outlines(cases, outlines, left_out)
    if looked is not None:
        cases = _with_looked(cases, looked, left_out, (images, labels))
    unmatched = "Outlines and scans belong together by their file names."
    for paths in outlines.values():
        left_out += [LeftOut(path.name, InputError("There is no scan for this outline.", unmatched)) for path in paths]
    return FolderContent(tuple(cases), tuple(left_out), tuple(path for paths in outlines.values() for path in paths))


def _by_folder(
    images: Path, channels: Sequence[Channel], labels: Path | None, common: NewCase
) -> tuple[list[NewCase], list[LeftOut]]:
    """The cases of a folder that holds a folder for each; ``common`` holds what is the same for all.

    Raises:
        InputError: There is no scan at all.
    """
    cases, left_out = [], []
    for folder in sorted(path for path in images.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not _holds_scan(folder):
            left_out.append(LeftOut(folder.name, InputError("The folder holds no scan.", ""), is_scan=False))
            continue
        try:
            scan = _scan_of(folder, channels)
            label, notes = None, _told(folder, scan)
            if labels and folder in scan and labels / folder.name == folder:
                label = _outline_beside_dicom(folder)
                notes = (_BY_OBJECT,) if label and not ending(label.name) else ()
            elif labels:
                label = _outline_of(labels / folder.name, scan)
            cases.append(replace(common, name=folder.name, channels=scan, label=label, notes=notes))
        except InputError as error:
            left_out.append(LeftOut(folder.name, error))
    if not cases and not any(item.is_scan for item in left_out):
        raise InputError(
            f"The folder {images} holds no NIfTI, NRRD, MHA or DICOM file.", "Name the folder that holds the scans."
        )
    return cases, left_out


def _scan_of(folder: Path, channels: Sequence[Channel]) -> tuple[Path, ...]:
    """The files of a case's folder, one for each channel, or the folder itself for each if it holds DICOM files.

    Raises:
        InputError: A channel has no file, or several could be it.
    """
    files = list_volumes(folder)[0]
    if not files:
        return (folder,) * len(channels)
    if len(channels) == len(files) == 1:
        return (files[0],)
    named = [Channel(channel.name, (channel.pattern or channel.name).casefold()) for channel in channels]
    places = {path: _channel(stem(path).casefold(), named) for path in files}
    scan = []
    for number, channel in enumerate(channels):
        own = [path for path, place in places.items() if place is not None and place[0] == number]
        if len(own) != 1:
            names = ", ".join(f"'{path.name}'" for path in own or files) or "none"
            raise InputError(
                f"Of the files of '{folder.name}' ({names}) {len(own) or 'none'} could be the channel {channel.name}.",
                'Give the text in their names: "barl project channels PROJECT --pattern NAME=TEXT".',
            )
        scan.append(own[0])
    return tuple(scan)


def _told(folder: Path, scan: tuple[Path, ...]) -> tuple[str, ...]:
    """What a user should know of a case's folder: nothing where there was nothing to choose."""
    return (_BY_NAMES,) if folder not in scan and len(list_volumes(folder, outlines=True)[0]) > 1 else ()


def _outline_beside_dicom(folder: Path) -> Path | None:
    """The outline in a folder whose scan is DICOM: an object or a volume file, or a folder of volume files.

    Raises:
        InputError: There are several.
    """
    # pydicom takes half a second to import, which nobody without DICOM should wait.
    from barl.images.dicom.folders import outline_objects, regular_files

    volumes = [path for path in regular_files(folder) if ending(path.name)]
    found = [*outline_objects(folder), *volumes]
    if len(found) > 1 and found == volumes and len({path.parent for path in found}) == 1:
        return found[0].parent
    return _only(found, folder)


def _only(found: Sequence[Path], folder: Path) -> Path | None:
    """
    Raises:
        InputError: There are several.
    """
    if len(found) > 1:
        names = ", ".join(f"'{path.relative_to(folder)}'" for path in found)
        raise InputError(f"Any of {names} could be the outline of '{folder.name}'.", "Move what it is not away.")
    return found[0] if found else None


def _outline_of(folder: Path, scan: tuple[Path, ...]) -> Path | None:
    """The outline in the folder of a case, if there is one.

    Raises:
        InputError: There are several.
    """
    files = list_volumes(folder, outlines=True)[0] if folder.is_dir() else []
    found = [path for path in files if path not in scan and (path.is_file() or list_volumes(path, outlines=True)[0])]
    only = _only(found, folder)
    if only and only.is_dir():
        inside = list_volumes(only, outlines=True)[0]
        return inside[0] if len(inside) == 1 else only
    return only


def _holds_scan(folder: Path) -> bool:
    """Whether a volume or a DICOM file lies in a folder or the folders in it; some hundred files are looked at."""
    files = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return any(
        ending(path.name) or (path.is_file() and path.stat().st_size > 132 and is_dicom(path))
        for path in islice(files, _MOST_LOOKED_AT)
    )


def _with_outlines(cases: list[NewCase], outlines: dict[str, list[Path]], left_out: list[LeftOut]) -> list[NewCase]:
    """The cases with the outlines of their names, and of names that differ by a suffix; these leave ``outlines``."""
    result = []
    for case in cases:
        own = outlines.pop(case.name, []) if case.label is None else []
        if len(own) > 1:
            left_out.append(twice(own, "outlines", case.name))
            continue
        result.append(replace(case, label=own[0]) if own else case)
    return _with_similar_names(result, outlines, left_out)


def _with_similar_names(
    cases: list[NewCase], outlines: dict[str, list[Path]], left_out: list[LeftOut]
) -> list[NewCase]:
    """The cases, those without an outline with one whose name differs by a suffix; these leave ``outlines``."""
    matches = match_names([case.name for case in cases if case.label is None], list(outlines))
    for file, case_name in matches.unclear.items():
        text = f"Several outlines could belong to the case '{case_name}'."
        left_out += [LeftOut(path.name, InputError(text, "Move the wrong ones away.")) for path in outlines.pop(file)]
    own = {match.case: match for match in matches.pairs if len(outlines[match.file]) == 1}
    result = []
    for case in cases:
        if match := own.get(case.name) if case.label is None else None:
            (path,) = outlines.pop(match.file)
            case = replace(case, label=path, notes=(*case.notes, matched_note(match)) if match.added else case.notes)
        result.append(case)
    return result


def _with_looked(
    cases: Sequence[NewCase], looked: Path | int, left_out: list[LeftOut], told: Sequence[Path | None]
) -> list[NewCase]:
    """The cases with what was looked at of their outlines; ``told``: folders of which ``left_out`` tells already."""
    if isinstance(looked, int):
        return [replace(case, looked=looked if case.label else None) for case in cases]
    masks = match_masks(looked, [Outlined(case.name, (case.name,), case.label) for case in cases])
    left_out += [LeftOut(name, reason) for name, reason in masks.unclear.items()]
    left_out += [] if looked in told else masks.left_out
    return [
        replace(case, looked=masks.of.get(case.name), notes=(*case.notes, *masks.notes.get(case.name, ())))
        for case in cases
        if case.name not in masks.unclear
    ]


def _by_case(paths: list[Path], channels: Sequence[Channel], left_out: list[LeftOut]) -> dict[str, list[Path]]:
    """Case name -> its files in the order of the channels; the channel's pattern is cut out of the file's name."""
    groups: dict[str, dict[int, list[Path]]] = {}
    for path in paths:
        name = stem(path)
        position, start, stop = 0, 0, 0
        if any(channel.pattern for channel in channels):
            place = _channel(name, channels)
            if place is None:
                reason = "Its name holds the pattern of no channel.", "Look at the patterns of the project."
                left_out.append(LeftOut(path.name, InputError(*reason)))
                continue
            position, start, stop = place
        case = (name[:start] + name[stop:]).strip("_-. ") if stop > start else name
        groups.setdefault(case or name, {}).setdefault(position, []).append(path)
    complete = {}
    for case, files in groups.items():
        doubled = next((n for n, found in files.items() if len(found) > 1), None)
        missing = [channel.name for n, channel in enumerate(channels) if n not in files]
        if doubled is not None:
            left_out.append(twice(files[doubled], channels[doubled].name, case))
        elif missing:
            text = f"The case '{case}' has no file of channel {missing[0]}."
            left_out.append(LeftOut(case, InputError(text, "Add it, or move the case away.")))
        else:
            complete[case] = [files[n][0] for n in range(len(channels))]
    return complete


def _channel(name: str, channels: Sequence[Channel]) -> tuple[int, int, int] | None:
    """Which channel's pattern a name holds, and from where to where: a whole word rather than a part of one, the last
    rather than an earlier one, the longest rather than a part of it (T1c is not T1)."""
    best: tuple[bool, int, int] | None = None
    result = None
    for position, channel in enumerate(channels):
        start = name.find(channel.pattern) if channel.pattern else -1
        while start >= 0:
            stop = start + len(channel.pattern)
            rank = (is_word(name, start, stop), stop, stop - start)
            if best is None or rank > best:
                best, result = rank, (position, start, stop)
            start = name.find(channel.pattern, start + 1)
    return result
