# SPDX-License-Identifier: Apache-2.0
"""Brings the channels and labels of a data set to those of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from barl.errors import InputError
from barl.project.datasets.bids import is_bids, read_bids
from barl.project.datasets.dataset import Dataset, Entry
from barl.project.datasets.description import FILE_NAME
from barl.project.datasets.exported import is_exported, read_exported
from barl.project.datasets.folders import is_folder_dataset, read_folder_dataset
from barl.project.labels import Channel, Label
from barl.project.names import clean, key
from barl.project.palette import label_color
from barl.project.scans import LeftOut, NewCase


@dataclass(frozen=True)
class DatasetIntake:
    """What of a data set goes into a project.

    Attributes:
        dataset: The data set.
        cases: The cases to add.
        labels: Labels that the label table lacks.
        notes: Sentences for the user.
    """

    dataset: Dataset
    cases: tuple[NewCase, ...]
    labels: tuple[Label, ...]
    notes: tuple[str, ...]

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return self.dataset.left_out


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a data set in a layout that is read as a whole."""
    return folder.is_dir() and (is_folder_dataset(folder) or is_bids(folder) or is_exported(folder))


def read_dataset(folder: Path, channels: Sequence[Channel] = ()) -> Dataset:
    """Find the cases of a data set folder.

    Args:
        folder: In the layout of nnU-Net, the Decathlon or BIDS, or ``plain`` of ``barl export``.
        channels: The project's; BIDS names do not say which scans belong together.

    Raises:
        InputError: The folder has none of these layouts, or its files do not fit together.
        StorageError: A folder cannot be read.
    """
    if is_folder_dataset(folder):
        return read_folder_dataset(folder)
    if is_bids(folder):
        return read_bids(folder, channels)
    if is_exported(folder):
        return read_exported(folder)
    raise InputError(
        f"The folder {folder} is no data set of a known layout.",
        f"Name a folder with {FILE_NAME} and imagesTr (nnU-Net, Decathlon) or with sub-... folders (BIDS).",
    )


def labels_of(dataset: Dataset) -> list[Label]:
    """The label table that a data set describes; empty if it describes none."""
    return [
        Label(value, clean(name), label_color(place))
        for place, (value, name) in enumerate(sorted(dataset.labels.items()))
    ]


def prepare_intake(
    dataset: Dataset, channels: Sequence[Channel], labels: Sequence[Label], *, resample: bool = False
) -> DatasetIntake:
    """Say which case of a data set becomes which case of a project.

    Channels are matched by their names, else by their order; values of outlines by the names of their labels.

    Args:
        dataset: As ``read_dataset`` gives it.
        channels, labels: The project's.
        resample: Bring outlines of another grid onto the scan's, nearest voxel.

    Raises:
        InputError: The data set has fewer channels than the project.
    """
    notes = [f"The folder is a data set in the layout {dataset.layout}.", *dataset.notes]
    order = _order(dataset, channels, notes)
    mapping, missing = _values(dataset, labels, notes)
    if dataset.ignore is not None:
        notes.append(f"The value {dataset.ignore} of the outlines means that nobody has looked: they are partial.")
    entries = [_with_meaning(entry, labels) for entry in dataset.entries]
    series = tuple(str(place + 1) for place in order) if dataset.in_one_file else ()
    cases = tuple(
        NewCase(
            entry.name,
            tuple(entry.images[place] for place in order),
            entry.label,
            entry.held_out,
            entry.subject,
            series,
            resample,
            meaning or (tuple(sorted(mapping.items())) if entry.label else ()),
            entry.notes,
            dataset.ignore if entry.label else None,
        )
        for entry, meaning in entries
    )
    return DatasetIntake(dataset, cases, tuple(missing), tuple(notes))


def _with_meaning(entry: Entry, labels: Sequence[Label]) -> tuple[Entry, tuple[tuple[int | str, int], ...]]:
    """A case, and what the value of a mask of one structure means; without its outline if no label has that name."""
    if not entry.structure or entry.label is None:
        return entry, ()
    own = next((label.value for label in labels if key(label.name) == key(entry.structure)), None)
    if own is None:
        note = f"Its outline {entry.label.name} is left out: the label table has no '{entry.structure}'."
        return replace(entry, label=None, notes=(*entry.notes, note)), ()
    return entry, ((1, own), (255, own))


def _order(dataset: Dataset, channels: Sequence[Channel], notes: list[str]) -> list[int]:
    """For each channel of the project, which of the data set's it is."""
    names = [key(name) for name in dataset.channels]
    wanted = [key(channel.name) for channel in channels]
    n_there = len(names) or (len(dataset.entries[0].images) if dataset.entries else len(wanted))
    if set(wanted) <= set(names):
        places = [names.index(name) for name in wanted]
        if unused := [name for name, its_key in zip(dataset.channels, names, strict=True) if its_key not in wanted]:
            notes.append(f"The project has no channel {', '.join(unused)}: these images are not taken.")
        return places
    if n_there != len(wanted):
        listed = ", ".join(dataset.channels) or str(n_there)
        raise InputError(
            f"The data set has the channels {listed}, the project has {', '.join(c.name for c in channels)}.",
            'Make a project for it ("barl project new PROJECT --like FOLDER"), or rename the project\'s channels.',
        )
    if names:
        pairs = ", ".join(f"{own.name} is {name}" for own, name in zip(channels, dataset.channels, strict=True))
        notes.append(f"The channels were matched by their order: {pairs}.")
    return list(range(n_there))


def _values(dataset: Dataset, labels: Sequence[Label], notes: list[str]) -> tuple[dict[int, int], list[Label]]:
    """Value in the data set -> value in the label table, where names are known; and the labels that the table lacks."""
    table = {key(label.name): label.value for label in labels}
    taken = set(table.values())
    mapping, missing = {}, []
    for place, (value, name) in enumerate(sorted(dataset.labels.items())):
        own = table.get(key(name))
        if own is None:
            own = value if value not in taken else max(taken) + 1
            taken.add(own)
            missing.append(Label(own, clean(name), label_color(len(labels) + place)))
        mapping[value] = own
    if changed := [f"{value} becomes {own}" for value, own in mapping.items() if value != own]:
        notes.append(f"The values of the outlines were matched to the label table by names: {', '.join(changed)}.")
    return mapping, missing
