# SPDX-License-Identifier: Apache-2.0
"""``barl fill``: a few outlined planes become a whole outline."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from barl.cli.command import command
from barl.cli.terminal import Terminal
from barl.errors import InputError
from barl.fill.files import Task, fill_files
from barl.project.scans import stem

if TYPE_CHECKING:
    from barl.cli.command import Commands

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


def add_parser(commands: Commands) -> None:
    """Add the command to ``barl``."""
    parser = command(
        commands,
        "fill",
        fill,
        "make a whole outline of a few outlined planes of a scan, without a model",
        "  barl fill scan.nii.gz drawn.nii.gz --output whole.nii.gz\n"
        "  barl fill scan.nii.gz drawn.nii.gz --output whole.nii.gz --drawn mask.nii.gz --uncertainty unsure.nii.gz\n"
        "  barl fill scan.nii.gz corrected.nii.gz --drawn mask.nii.gz --prior predicted.nii.gz --output whole.nii.gz\n"
        "  barl fill scans/ drawn/ --output whole/       folders: files of equal names belong together",
    )
    parser.add_argument("scan", type=Path, metavar="SCAN", help="a scan, or a folder of scans")
    parser.add_argument(
        "labels",
        type=Path,
        metavar="DRAWN",
        help="label map of what was drawn, in any planes; a plane with a labeled area counts as outlined whole",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="whole outline, or a folder")
    parser.add_argument("--channel", type=Path, action="append", default=[], metavar="FILE", help="a further channel")
    parser.add_argument(
        "--drawn", type=Path, metavar="FILE", help="mask of the voxels that were drawn or looked at (not 0)"
    )
    parser.add_argument("--prior", type=Path, metavar="FILE", help="label map that a model has predicted")
    parser.add_argument("--prior-uncertainty", type=Path, metavar="FILE", help="the prediction's uncertainty")
    parser.add_argument("--uncertainty", type=Path, metavar="FILE", help="write the uncertainty of the fill here")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that are there already")


def fill(options: Namespace, terminal: Terminal) -> int:
    if not options.scan.is_dir() or options.labels.is_file():
        task = Task(
            [options.scan, *options.channel],
            options.labels,
            options.output,
            options.drawn,
            options.prior,
            options.prior_uncertainty,
            options.uncertainty,
        )
        result = fill_files(task, overwrite=options.overwrite, progress=terminal.progress)
        terminal.answer(result, "\n".join([f"Wrote {options.output}.", *_findings(result)]))
        return 0
    if options.channel:
        raise InputError("--channel is for a single scan.", "Fill scans of several channels one by one.")
    done, failed = [], []
    for name, task in _tasks(options):
        try:
            task.output.parent.mkdir(parents=True, exist_ok=True)
            if task.uncertainty is not None:
                task.uncertainty.parent.mkdir(parents=True, exist_ok=True)
            done.append({"name": name, **fill_files(task, overwrite=options.overwrite, progress=terminal.progress)})
        except InputError as error:
            failed.append({"name": name, "message": error.message, "remedy": error.remedy})
    lines = [f"Filled {len(done)} scans."]
    lines += [f"{item['name']}: {note}" for item in done for note in item["notes"]]
    lines += [f"Left out {f['name']}: {f['message']} {f['remedy']}" for f in failed]
    terminal.answer({"filled": done, "failed": failed}, "\n".join(lines))
    return InputError.exit_code if failed else 0


def _tasks(options: Namespace) -> Iterator[tuple[str, Task]]:
    """A task for each file of the folder of drawn label maps; other folders hold files of the same names."""
    drawn = _files(options.labels)
    if not drawn:
        raise InputError(f"The folder {options.labels.name} holds no label map.", "Name the folder of what was drawn.")
    scans = _files(options.scan, set(drawn))
    if lost := sorted(set(drawn) - set(scans)):
        raise InputError(f"There is no scan named {lost[0]} in {options.scan.name}.", "Give both files one name.")
    others = {name: _files(folder, set(drawn)) if (folder := getattr(options, name)) else {} for name in _BESIDE}
    for name, labels in drawn.items():
        for option, files in others.items():
            if getattr(options, option) and name not in files:
                raise InputError(
                    f"--{option.replace('_', '-')} has no file named {name}.", "Give all files of a scan one name."
                )
        yield (
            name,
            Task(
                [scans[name]],
                labels,
                options.output / f"{name}.nii.gz",
                others["drawn"].get(name),
                others["prior"].get(name),
                others["prior_uncertainty"].get(name),
                options.uncertainty / f"{name}.nii.gz" if options.uncertainty else None,
            ),
        )


_BESIDE = ("drawn", "prior", "prior_uncertainty")


def _files(folder: Path, wanted: set[str] | None = None) -> dict[str, Path]:
    """Name -> file of a folder; ``wanted``: the names that are used, None: all of them.

    Raises:
        InputError: It is no folder, or two files have one of the names.
    """
    if not folder.is_dir():
        raise InputError(f"{folder.name} is not a folder.", "Give folders, or files, for all.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.lower().endswith(_ENDINGS) or (wanted is not None and stem(path) not in wanted):
            continue
        if other := found.get(stem(path)):
            raise InputError(
                f"'{other.name}' and '{path.name}' in {folder.name} have one name.", "Move one of them away."
            )
        found[stem(path)] = path
    return found


def _findings(result: dict) -> list[str]:
    lines = [f"  label {value}: {ml:.2f} ml" for value, ml in result["ml"].items()]
    if result["expected_dice"] is not None:
        lines.append(f"  expected Dice {result['expected_dice']:.2f}{_more(result)}")
    if result["trust"] is not None:
        lines.append(f"  the prediction was trusted as one of Dice {result['trust']:.2f}")
    if plane := result["next_plane"]:
        lines.append(f"  next plane to outline: {plane['axis']} = {plane['index']}")
    return lines + [f"  {note}" for note in result["notes"]]


def _more(result: dict) -> str:
    count = result["planes_worth"]
    if not count:
        return ", no further plane is worth outlining"
    return f", with {count} more plane{'' if count == 1 else 's'} {result['expected_dice_after']:.2f}"
