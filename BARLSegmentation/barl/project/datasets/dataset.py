# SPDX-License-Identifier: Apache-2.0
"""What a data set folder holds, whichever layout it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from barl.project.scans import LeftOut


@dataclass(frozen=True)
class Entry:
    """A case of a data set.

    Attributes:
        name: As the data set calls it.
        images: One file for each channel of the data set; the same file for each if it holds all of them.
        label: Its outline, if there is one.
        held_out: The data set keeps it for evaluation.
        subject: The subject, if the data set names it.
        notes: Sentences for the user.
        structure: The one structure that its outline is a mask of; empty: the values of the outline say what is what.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    held_out: bool = False
    subject: str = ""
    notes: tuple[str, ...] = ()
    structure: str = ""


@dataclass(frozen=True)
class Dataset:
    """A data set folder.

    Attributes:
        layout: ``nnU-Net``, ``Decathlon`` or ``BIDS``.
        folder: Where it lies.
        channels: Names of its channels in the order of each case's images; empty: not known.
        labels: What the values in its outlines mean, without background; empty: not known.
        ignore: The value that means "not looked at", if there is one.
        entries: Its cases.
        left_out: Files that make no case, with the reason.
        notes: Sentences for the user about the data set as a whole.
        in_one_file: The channels of a case are volumes of one four-dimensional file.
    """

    layout: str
    folder: Path
    channels: tuple[str, ...] = ()
    labels: Mapping[int, str] = field(default_factory=dict)
    ignore: int | None = None
    entries: tuple[Entry, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    in_one_file: bool = False
