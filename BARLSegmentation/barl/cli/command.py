# SPDX-License-Identifier: Apache-2.0
"""Parts that the commands of ``barl`` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barl.errors import InputError
from barl.project.labels import Label
from barl.project.names import key

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]


def command(commands: Commands, name: str, run: Callable | None, help: str, example: str) -> argparse.ArgumentParser:
    """Add a command with its help and an example to ``commands``; ``run`` does it, None: it has actions of its own."""
    parser = commands.add_parser(
        name,
        help=help,
        description=help[:1].upper() + help[1:] + ".",
        epilog=f"Example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run or show_help(parser))
    if run is not None:
        parser.add_argument("--json", action="store_true", help="write the answer as one JSON document")
    return parser


def show_help(parser: argparse.ArgumentParser) -> Callable[..., None]:
    """A command that prints the help of ``parser``: for ``barl`` and ``barl project`` without anything more."""
    return lambda options, terminal: parser.print_help()


def project_folder(parser: argparse.ArgumentParser) -> None:
    """Add the argument PROJECT."""
    parser.add_argument("project", type=Path, metavar="PROJECT", help="the project's folder")


def looked_options(parser: argparse.ArgumentParser) -> None:
    """Let an outline be partial; ``looked`` reads the options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--looked",
        type=Path,
        metavar="MASK",
        help="mask of the voxels that were looked at (not 0), or a folder of masks for a folder of outlines; the other "
        "voxels are as of an untouched scan",
    )
    what.add_argument(
        "--ignore", type=int, metavar="VALUE", help="the value in the outline that means that nobody has looked"
    )


def looked(options: argparse.Namespace) -> Path | int | None:
    """What ``looked_options`` say."""
    return options.looked if options.ignore is None else options.ignore


def segment_option(parser: argparse.ArgumentParser) -> None:
    """Let the segments of an outline bear other names than the labels; ``segment_meaning`` reads the option."""
    parser.add_argument(
        "--segment",
        action="append",
        default=[],
        metavar="NAME=LABEL",
        help="the segment NAME of an outline is this label (its value or name); NAME= leaves it out",
    )


def segment_meaning(options: argparse.Namespace, labels: Sequence[Label]) -> dict[int | str, int]:
    """Name of a segment -> value of the label table, 0 to leave it out, as ``segment_option`` says.

    Raises:
        InputError: An entry is not NAME=LABEL, or the table has no such label.
    """
    rows = {str(label.value): label.value for label in labels} | {key(label.name): label.value for label in labels}
    rows |= {"": 0}
    found: dict[int | str, int] = {}
    for text in options.segment:
        name, equals, label = text.rpartition("=")
        if not equals or not name.strip():
            raise InputError(f"'{text}' does not say which label a segment is.", 'Write "--segment NAME=LABEL".')
        if key(label) not in rows:
            table = ", ".join(f"{label.value} {label.name}" for label in labels)
            raise InputError(f"The label table has no '{label}'.", f"It has: {table}.")
        found[name] = rows[key(label)]
    return found


def resample_option(parser: argparse.ArgumentParser) -> None:
    """Let an outline lie on another grid than its scan."""
    parser.add_argument(
        "--resample",
        action="store_true",
        help="bring an outline of another grid onto the scan's (nearest voxel), and say what is lost",
    )


def device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")
