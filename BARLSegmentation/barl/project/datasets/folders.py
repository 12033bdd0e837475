# SPDX-License-Identifier: Apache-2.0
"""Data sets in ``imagesTr``, ``labelsTr`` and ``imagesTs``: nnU-Net, its first version, and the Decathlon."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from barl.errors import InputError
from barl.project.datasets.dataset import Dataset, Entry
from barl.project.datasets.description import FILE_NAME, Description, read_description
from barl.project.matching import match_names, matched_note
from barl.project.scans import LeftOut, list_volumes, stem, twice

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def is_folder_dataset(folder: Path) -> bool:
    """Whether a folder has one of these layouts."""
    return (folder / "imagesTr").is_dir() or (folder / "imagesTs").is_dir()


def read_folder_dataset(folder: Path) -> Dataset:
    """Find the cases of a data set; no image is read.

    Cases of ``imagesTs`` are held out if ``labelsTs`` holds their outline, else they are untouched cases.

    Raises:
        InputError: The description cannot be used, or there is no case.
        StorageError: A folder cannot be read.
    """
    place = folder / FILE_NAME
    described = read_description(place) if place.is_file() else Description("nnU-Net", (), {}, None, {}, ())
    left_out: list[LeftOut] = []
    entries: list[Entry] = []
    in_one_file = False
    if described.files:
        entries = _listed(folder, described, left_out)
    else:
        for part in ("Tr", "Ts"):
            if (folder / f"images{part}").is_dir():
                found, whole = _cases_of(folder, part, described, left_out)
                entries += found
                in_one_file |= whole and len(described.channels) > 1
    there = {stem(path) for entry in entries for path in entry.images} | {entry.name for entry in entries}
    there |= {item.name for item in left_out}
    for name in described.named:
        if stem(Path(name)) not in there and name not in there:
            reason = InputError(f"'{FILE_NAME}' lists this scan, but it is not there.", "Copy the data set again.")
            left_out.append(LeftOut(name, reason))
    if not entries and not left_out:
        raise InputError(f"The data set {folder} holds no scan.", "Check the folder.")
    return Dataset(
        described.layout,
        folder,
        described.channels,
        described.labels,
        described.ignore,
        tuple(entries),
        tuple(left_out),
        described.notes,
        in_one_file,
    )


def _cases_of(folder: Path, part: str, described: Description, left_out: list[LeftOut]) -> tuple[list[Entry], bool]:
    """The cases of ``imagesTr`` or ``imagesTs``, and whether each is one file."""
    scans, others = list_volumes(folder / f"images{part}")
    left_out += others
    matches = [_CHANNEL.fullmatch(stem(path)) for path in scans]
    whole = not all(matches)
    n_channels = max(1, len(described.channels))
    if whole:
        files = _by_stem(scans)
        left_out += [twice(paths, "scans", name) for name, paths in files.items() if len(paths) > 1]
        images = {name: (paths[0],) * n_channels for name, paths in files.items() if len(paths) == 1}
    else:
        images = _sets(scans, n_channels if described.channels else 0, left_out)
    outlines: list[Path] = []
    if (folder / f"labels{part}").is_dir():
        outlines, others = list_volumes(folder / f"labels{part}", outlines=True)
        left_out += others
    found, notes = _matched(list(images), outlines, left_out)
    left_out += [twice(paths, "outlines", name) for name, paths in found.items() if len(paths) > 1]
    labels = {name: paths[0] for name, paths in found.items() if len(paths) == 1}
    return [
        Entry(
            name,
            paths,
            labels.get(name),
            part == "Ts" and name in labels,
            "",
            notes.get(name, ()),
        )
        for name, paths in images.items()
        if name in labels or name not in found
    ], whole


def _by_stem(paths: list[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(stem(path), []).append(path)
    return groups


def _sets(scans: list[Path], n_channels: int, left_out: list[LeftOut]) -> dict[str, tuple[Path, ...]]:
    """Case -> its files in the order of their numbers; 0 channels: as many as the first case has."""
    groups: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in scans:
        match = _CHANNEL.fullmatch(stem(path))
        assert match is not None  # the caller looked
        groups[match["case"]][int(match["channel"])].append(path)
    n_channels = n_channels or max(len(files) for files in groups.values())
    complete = {}
    for case, files in groups.items():
        doubled = next((number for number, paths in files.items() if len(paths) > 1), None)
        if doubled is not None:
            left_out.append(twice(files[doubled], f"channel _{doubled:04d}", case))
        elif sorted(files) == list(range(n_channels)):
            complete[case] = tuple(files[number][0] for number in range(n_channels))
        else:
            missing = sorted(set(range(n_channels)) - set(files))
            what = f"has no file _{missing[0]:04d}" if missing else f"has {len(files)} files for {n_channels} channels"
            left_out.append(LeftOut(case, InputError(f"The case '{case}' {what}.", "Copy the data set again.")))
    return complete


def _matched(
    names: list[str], outlines: list[Path], left_out: list[LeftOut]
) -> tuple[dict[str, list[Path]], dict[str, tuple[str, ...]]]:
    """Case -> the outlines of its name, and notes on names that are not equal."""
    by_stem = _by_stem(outlines)
    matches = match_names(names, list(by_stem))
    for file in matches.unmatched:
        reason = InputError("There is no scan for this outline.", "Outlines and scans belong together by their names.")
        left_out += [LeftOut(path.name, reason, path=path) for path in by_stem[file]]
    for file, case in matches.unclear.items():
        reason = InputError(f"Several outlines could belong to the case '{case}'.", "Move the wrong ones away.")
        left_out += [LeftOut(path.name, reason, path=path) for path in by_stem[file]]
    notes: dict[str, tuple[str, ...]] = {m.case: (matched_note(m),) for m in matches.pairs if m.added}
    return {match.case: by_stem[match.file] for match in matches.pairs}, notes


def _listed(folder: Path, described: Description, left_out: list[LeftOut]) -> list[Entry]:
    """The cases of a description that names all of its files."""
    entries = []
    for name, (images, label) in described.files.items():
        paths = tuple(folder / image for image in images)
        outline = folder / label if label else None
        missing = next((path for path in (*paths, *([outline] if outline else [])) if not path.exists()), None)
        if missing is not None:
            reason = InputError(f"The file '{missing.name}' of the data set is missing.", "Copy the data set again.")
            left_out.append(LeftOut(name, reason))
        else:
            entries.append(Entry(name, paths, outline))
    return entries
