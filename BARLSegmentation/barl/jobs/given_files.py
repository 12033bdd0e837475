# SPDX-License-Identifier: Apache-2.0
"""Finds label maps and probabilities in what nnU-Net, TotalSegmentator, MONAI and others write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from barl.errors import InputError, storage_error
from barl.images.formats.kinds import ending
from barl.project.scans import LeftOut, stem, twice

# What these programs write beside their results; the pickles are never read.
_BESIDE = ("dataset.json", "plans.json", "predict_from_raw_data_args.json", "postprocessing.json", "summary.json")
_NEVER_READ = (".pkl", ".pickle", ".pth", ".pt")


@dataclass(frozen=True)
class GivenFiles:
    """The files of one case's prediction; at least one of the three is there.

    Attributes:
        name: As the program calls the case.
        label_map: A label map, or a volume of probabilities.
        probabilities: A NumPy file of probabilities.
        parts: One file for each structure, named as the structure.
    """

    name: str
    label_map: Path | None = None
    probabilities: Path | None = None
    parts: tuple[Path, ...] = ()

    @property
    def place(self) -> str:
        """The file that names the case, or the folder of its structures, with the folder around it."""
        path = self.label_map or self.probabilities or self.parts[0].parent
        return f"{path.parent.name}/{path.name}"

    @property
    def newest(self) -> Path:
        """The file that was written last."""
        files = [path for path in (self.label_map, self.probabilities, *self.parts) if path]
        return max(files, key=lambda path: path.stat().st_mtime)

    def in_words(self) -> str:
        """What there is, for a person."""
        if self.parts:
            return f"{len(self.parts)} structures"
        words = ("label map" if self.label_map else "", "probabilities" if self.probabilities else "")
        return ", ".join(filter(None, words))

    @staticmethod
    def part_name(path: Path) -> str:
        """The structure that a file of ``parts`` is named as."""
        return stem(path)


def find_given_files(path: Path, left_out: list[LeftOut], *, one_case: bool = False) -> list[GivenFiles]:
    """The predictions in a file or folder.

    Args:
        path: A file, or a folder with a file (nnU-Net) or a folder (MONAI, TotalSegmentator) for each case.
        left_out: Gets what is no prediction, and names that several predictions have.
        one_case: The folder holds the prediction of one case; never an empty answer.

    Raises:
        InputError: There is nothing at ``path``, or no prediction in it, or only some of which it is unclear which is
            meant.
        StorageError: A folder cannot be read.
    """
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.", "Check the path.")
    unclear: list[LeftOut] = []
    try:
        if path.is_file():
            found = _of_files([path], unclear)
        elif one_case:
            whole = _of_folder(path)
            found = [whole] if whole else []
        else:
            entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
            found = _of_files([entry for entry in entries if entry.is_file()], unclear)
            for folder in (entry for entry in entries if entry.is_dir()):
                try:
                    whole = _of_folder(folder)
                except InputError as error:
                    unclear.append(LeftOut(folder.name, error))
                    continue
                if whole:
                    found.append(whole)
                else:
                    reason = InputError("The folder holds no label map.", "Name the folder that holds the files.")
                    left_out.append(LeftOut(folder.name, reason, is_scan=False))
            found = _named_once(found, unclear)
            left_out += _others([entry for entry in entries if entry.is_file()])
    except OSError as error:
        raise storage_error(error, path) from error
    if not found and unclear:
        raise unclear[0].reason
    left_out += unclear
    if not found:
        raise InputError(
            f"'{path.name}' holds no label map and no probabilities.", "Give NIfTI, NRRD, MHA or .npz files."
        )
    return found


def _of_files(files: list[Path], unclear: list[LeftOut]) -> list[GivenFiles]:
    """A prediction for each name; a NumPy file belongs to the label map of the same name. Names of several label maps
    go to ``unclear``."""
    maps: dict[str, list[Path]] = {}
    for path in files:
        if ending(path.name):
            maps.setdefault(stem(path), []).append(path)
    arrays = {path.stem: path for path in files if path.suffix.lower() == ".npz"}
    unclear += [twice(paths, "label maps", name) for name, paths in maps.items() if len(paths) > 1]
    single = {name: paths[0] for name, paths in maps.items() if len(paths) == 1}
    names = {*single, *(name for name in arrays if name not in maps)}
    return [GivenFiles(name, single.get(name), arrays.get(name)) for name in sorted(names)]


def _named_once(found: list[GivenFiles], unclear: list[LeftOut]) -> list[GivenFiles]:
    """Those whose name no other has: a folder may have the name of a file beside it."""
    groups: dict[str, list[GivenFiles]] = {}
    for item in found:
        groups.setdefault(item.name, []).append(item)
    unclear += [both_given(items, name) for name, items in groups.items() if len(items) > 1]
    return [items[0] for items in groups.values() if len(items) == 1]


def both_given(items: Sequence[GivenFiles], case: str) -> LeftOut:
    """A case that is left out because any of two predictions could be meant."""
    text = f"'{items[0].place}' and '{items[1].place}' are both predictions of the case '{case}'."
    return LeftOut(case, InputError(text, "Move one of them away."))


def _of_folder(folder: Path) -> GivenFiles | None:
    """The prediction of one case: a file, or a file for each structure.

    Raises:
        InputError: Two files have one name.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    unclear: list[LeftOut] = []
    found = _of_files(files, unclear)
    if unclear:
        raise unclear[0].reason
    if len(found) == 1:
        return GivenFiles(folder.name, found[0].label_map, found[0].probabilities)
    parts = tuple(item.label_map for item in found if item.label_map)
    return GivenFiles(folder.name, parts=parts) if parts else None


def _others(files: list[Path]) -> list[LeftOut]:
    left_out = []
    for path in files:
        if ending(path.name) or path.suffix.lower() == ".npz" or path.name in _BESIDE:
            continue
        pickle = path.suffix.lower() in _NEVER_READ
        what = "It is a pickle, which could run a program; it is never read." if pickle else "It is no label map."
        left_out.append(LeftOut(path.name, InputError(what), is_scan=False))
    return left_out
