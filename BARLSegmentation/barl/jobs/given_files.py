# SPDX-License-Identifier: Apache-2.0
"""Finds label maps and probabilities in what nnU-Net, TotalSegmentator, MONAI and others write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from barl.errors import InputError, storage_error
from barl.images.formats.kinds import ending
from barl.project.scans import LeftOut, stem

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
        left_out: Gets what is no prediction.
        one_case: The folder holds the prediction of one case; never an empty answer.

    Raises:
        InputError: There is nothing at ``path``, or no prediction in it.
        StorageError: A folder cannot be read.
    """
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.", "Check the path.")
    try:
        if path.is_file():
            found = _of_files([path])
        elif one_case:
            whole = _of_folder(path)
            found = [whole] if whole else []
        else:
            entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
            found = _of_files([entry for entry in entries if entry.is_file()])
            for folder in (entry for entry in entries if entry.is_dir()):
                if whole := _of_folder(folder):
                    found.append(whole)
                else:
                    reason = InputError("The folder holds no label map.", "Name the folder that holds the files.")
                    left_out.append(LeftOut(folder.name, reason, is_scan=False))
            left_out += _others([entry for entry in entries if entry.is_file()])
    except OSError as error:
        raise storage_error(error, path) from error
    if not found:
        raise InputError(
            f"'{path.name}' holds no label map and no probabilities.", "Give NIfTI, NRRD, MHA or .npz files."
        )
    return found


def _of_files(files: list[Path]) -> list[GivenFiles]:
    """A prediction for each name; a NumPy file belongs to the label map of the same name."""
    maps = {stem(path): path for path in files if ending(path.name)}
    arrays = {path.stem: path for path in files if path.suffix.lower() == ".npz"}
    return [GivenFiles(name, maps.get(name), arrays.get(name)) for name in sorted({*maps, *arrays})]


def _of_folder(folder: Path) -> GivenFiles | None:
    """The prediction of one case: a file, or a file for each structure."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found = _of_files(files)
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
