# SPDX-License-Identifier: Apache-2.0
"""Masks of what was looked at in a folder: which of them belongs to the outline of which case."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from barl.errors import InputError
from barl.project.matching import match_names, matched_note
from barl.project.names import key
from barl.project.scans import LeftOut, list_volumes, stem

# Of an outline for which the folder of masks holds none.
_WHOLE = "The folder of masks holds none for this outline: it counts as an outline of the whole scan."


@dataclass(frozen=True)
class Outlined:
    """A case, and its outline if there is one.

    Attributes:
        case: By this the case is found in ``Masks``.
        names: The names that its files may have, the first for messages.
        outline: A file or folder.
    """

    case: str
    names: tuple[str, ...]
    outline: Path | None


@dataclass
class Masks:
    """Which masks belong to which cases.

    Attributes:
        of: Case -> its mask.
        notes: Case -> sentences for the user.
        unclear: Case -> why it is not clear which mask its outline has.
        left_out: Masks without an outline, and everything else in the folder.
    """

    of: dict[str, Path] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unclear: dict[str, InputError] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def match_masks(folder: Path, cases: Sequence[Outlined]) -> Masks:
    """Find the mask of each outline: by the outline's name, else as ``match_names`` finds the files of cases.

    Args:
        folder: Holds a file for each mask, or a folder for each with the mask alone in it.
        cases: All, also those without an outline: their masks are not those of other cases.

    Raises:
        InputError: The folder is missing.
        StorageError: The folder cannot be read.
    """
    files, others = list_volumes(folder, outlines=True)
    masks = Masks(left_out=others)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_stem[_stem(path)].append(path)
    outlines = Counter(key(_stem(item.outline)) for item in cases if item.outline)
    # In the folder of each case the outline may be called "seg": that is no name of one outline.
    alone = {
        key(_stem(item.outline)): item for item in cases if item.outline and outlines[key(_stem(item.outline))] == 1
    }
    for name in [name for name in by_stem if key(name) in alone]:
        _enter(masks, alone[key(name)], by_stem.pop(name))
    named = {name: item for item in cases for name in item.names}
    matches = match_names(list(named), list(by_stem))
    several: dict[str, list[Path]] = defaultdict(list)
    for name, case in matches.unclear.items():
        several[case] += by_stem[name]
    found = {match.case: by_stem[match.file] for match in matches.pairs} | several
    added = {match.case: (matched_note(match, "mask"),) for match in matches.pairs if match.added}
    for name, paths in found.items():
        item = named[name]
        if item.outline and item.case not in masks.of and item.case not in masks.unclear:
            _enter(masks, item, paths)
            masks.notes[item.case] = added.get(name, ())
        else:
            _leave_out(masks, paths)
    for name in matches.unmatched:
        _leave_out(masks, by_stem[name])
    for item in cases:
        if item.outline and item.case not in masks.of:
            masks.notes[item.case] = (_WHOLE,)
    return masks


def _enter(masks: Masks, item: Outlined, files: Sequence[Path]) -> None:
    """Enter the only file that could be the mask of a case's outline, or that it is not clear which one is."""
    found = [file for path in files for file in (path.is_dir() and list_volumes(path)[0]) or [path]]
    if len(found) == 1:
        masks.of[item.case] = found[0]
        return
    names = ", ".join(f"'{path.name}'" for path in found)
    masks.unclear[item.case] = InputError(
        f"Any of {names} could be the mask of the outline of '{item.names[0]}'.", "Move what it is not away."
    )


def _leave_out(masks: Masks, files: Sequence[Path]) -> None:
    """Tell of masks that no outline has taken."""
    reason = InputError(
        "There is no outline for this mask, or its outline has another one.",
        "Masks and outlines belong together by their file names.",
    )
    masks.left_out += [LeftOut(path.name, reason) for path in files]


def _stem(path: Path) -> str:
    return stem(path).removesuffix(".seg")
