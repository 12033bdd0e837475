# SPDX-License-Identifier: Apache-2.0
"""Folders named as the Brain Imaging Data Structure does (bids-specification.readthedocs.io).

``sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz``; outlines are discrete segmentations (``_dseg``) or masks (``_mask``)
beside the scans or below ``derivatives``.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from barl.errors import InputError, storage_error
from barl.images.formats.kinds import ending
from barl.project.datasets.dataset import Dataset, Entry
from barl.project.labels import Channel
from barl.project.names import key
from barl.project.scans import LeftOut, stem

_OUTLINES = ("dseg", "mask", "seg", "lesion")
# Parts of a name that an outline has and its scan does not.
_OF_OUTLINES = ("label", "desc", "space", "res", "atlas", "hemi", "rater")
_MOST_FILES = 200_000


def is_bids(folder: Path) -> bool:
    """Whether a folder holds folders of subjects with scans in them."""
    return any(path.is_dir() and _scans(path) for path in sorted(folder.glob("sub-*"))[:20])


def read_bids(folder: Path, channels: Sequence[Channel]) -> Dataset:
    """Find the cases of a folder with BIDS names; no image is read.

    With one channel each of its scans is a case; with several, each session is.

    Args:
        folder: Holds the folders ``sub-...``.
        channels: The project's: a channel is the suffix that is called like it (``T1w``, also if it is called ``T1``),
            or whose file holds its pattern. None: each kind of scan is one.

    Raises:
        InputError: No scan belongs to a channel, and there are several kinds of scans.
        StorageError: A folder cannot be read.
    """
    try:
        files = _scans(folder)[:_MOST_FILES]
    except OSError as error:
        raise storage_error(error, folder) from error
    outlines = [path for path in files if _suffix(path) in _OUTLINES]
    scans = [
        path for path in files if path not in set(outlines) and "derivatives" not in path.relative_to(folder).parts
    ]
    kinds = sorted({_suffix(path) for path in scans})
    channels = channels or [Channel(kind) for kind in kinds]
    chosen = {path: place for path in scans if (place := _channel(path, channels)) is not None}
    if not chosen and len(channels) == 1 and len(kinds) == 1:
        chosen = dict.fromkeys(scans, 0)
    if not chosen:
        raise InputError(
            f"None of the scans ({', '.join(kinds) or 'there is none'}) belongs to a channel of the project "
            f"({', '.join(channel.name for channel in channels)}).",
            'Name their suffix: "barl project channels PROJECT --pattern NAME=SUFFIX".',
        )
    left_out: list[LeftOut] = []
    for kind in sorted({_suffix(path) for path in scans if path not in chosen}):
        n = sum(_suffix(path) == kind for path in scans if path not in chosen)
        reason = InputError(f"{n} scans of the kind {kind} belong to no channel of the project.", "")
        left_out.append(LeftOut(f"*_{kind}", reason, is_scan=False))
    images = _cases(chosen, channels, left_out)
    labels = _outlines(images, outlines, left_out)
    entries = [
        Entry(name, paths, labels.get(name), subject=_part(paths[0], "sub"), structure=_structure(labels.get(name)))
        for name, paths in images.items()
    ]
    names = _label_names(folder, outlines)
    return Dataset("BIDS", folder, tuple(c.name for c in channels), names, None, tuple(entries), tuple(left_out))


def _scans(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("sub-*")
        if ending(path.name) and path.is_file() and not any(part.startswith(".") for part in path.parts[-4:])
    )


def _suffix(path: Path) -> str:
    return stem(path).rpartition("_")[2]


def _entities(path: Path) -> dict[str, str]:
    """The parts ``name-value`` of a file's name."""
    return dict(part.split("-", 1) for part in stem(path).split("_") if "-" in part)


def _part(path: Path, name: str) -> str:
    value = _entities(path).get(name)
    return f"{name}-{value}" if value else ""


def _channel(path: Path, channels: Sequence[Channel]) -> int | None:
    suffix = key(_suffix(path))
    for place, channel in enumerate(channels):
        if channel.pattern and channel.pattern in stem(path):
            return place
        if not channel.pattern and key(channel.name) in (suffix, suffix.removesuffix("w")):
            return place
    return None


def _cases(
    chosen: dict[Path, int], channels: Sequence[Channel], left_out: list[LeftOut]
) -> dict[str, tuple[Path, ...]]:
    """Case -> a file for each channel."""
    groups: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, place in chosen.items():
        name = stem(path).rpartition("_")[0]
        if len(channels) > 1:
            name = "_".join(part for part in (_part(path, "sub"), _part(path, "ses")) if part)
        groups[name][place].append(path)
    complete = {}
    for name, files in groups.items():
        missing = [channel.name for place, channel in enumerate(channels) if place not in files]
        twice = next((found for found in files.values() if len(found) > 1), None)
        if missing:
            reason = f"The case '{name}' has no scan of channel {missing[0]}.", "Add it, or move the case away."
            left_out.append(LeftOut(name, InputError(*reason)))
        elif twice:
            reason = f"'{twice[0].name}' and '{twice[1].name}' are both of one channel.", "Move one of them away."
            left_out.append(LeftOut(name, InputError(*reason)))
        else:
            complete[name] = tuple(files[place][0] for place in range(len(channels)))
    return complete


def _outlines(images: dict[str, tuple[Path, ...]], outlines: list[Path], left_out: list[LeftOut]) -> dict[str, Path]:
    """Case -> its outline: the file with the same parts of the name but for those that only outlines have."""
    own: dict[str, list[Path]] = defaultdict(list)
    for path in outlines:
        parts = {name: value for name, value in _entities(path).items() if name not in _OF_OUTLINES}
        fits = [
            name for name in images if all(parts.get(entity) == value for entity, value in _name_parts(name).items())
        ]
        if len(fits) == 1:
            own[fits[0]].append(path)
        else:
            reason = InputError(
                "There is no scan for this outline.", "Outlines and scans belong together by their names."
            )
            left_out.append(LeftOut(path.name, reason, path=path))
    for name, several in own.items():
        if len(several) > 1:
            reason = InputError(
                f"The case '{name}' has {len(several)} outlines ({several[0].name}, {several[1].name}, ...).",
                "Join them into one label map, or add one of them with --label.",
            )
            left_out.append(LeftOut(name, reason))
    return {name: several[0] for name, several in own.items() if len(several) == 1}


def _name_parts(name: str) -> dict[str, str]:
    return dict(part.split("-", 1) for part in name.split("_") if "-" in part)


def _structure(outline: Path | None) -> str:
    """What a mask is of, as its name says: ``..._label-tumor_mask``."""
    return _entities(outline).get("label", "") if outline and _suffix(outline) == "mask" else ""


def _label_names(folder: Path, outlines: list[Path]) -> dict[int, str]:
    """Value -> name from the tables (``..._dseg.tsv``, columns ``index`` and ``name``) beside outlines or on top."""
    places = [*folder.glob("*dseg.tsv"), *folder.glob("derivatives/*/*dseg.tsv")]
    places += [path.with_name(stem(path) + ".tsv") for path in outlines[:1]]
    for place in places:
        if place.is_file() and place.stat().st_size < 2**20:
            with place.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file, delimiter="\t"))
            table = {
                int(r["index"]): r["name"] for r in rows if re.fullmatch(r"\d+", r.get("index") or "") and r.get("name")
            }
            return {value: name for value, name in sorted(table.items()) if value > 0}
    return {}
