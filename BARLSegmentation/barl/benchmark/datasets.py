# SPDX-License-Identifier: Apache-2.0
"""Outlined data sets for benchmarks, split by subject.

A name is looked up in the folder that the variable ``BARL_DATA`` names, unless the plan (its block ``"datasets"``) or
the command line (``--data NAME=FOLDER``) says where it lies. Readers: the sets that come with this repository's
benchmark, the public sets in the layouts of this field's code (``field_sets``), and any project folder.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from barl.benchmark.field_sets import FIELD_SETS, read_field_set
from barl.errors import InputError
from barl.hippocampus import LABELS
from barl.project.labels import Label
from barl.project.store import Project
from barl.training.cases import CaseFiles

SPLIT_SEED = 2026
# Per data set where it lies: ``folder``, and ``reader`` if the name is not that of a reader.
Sources = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class OutlinedCase:
    """A case with expert label. ``group`` is its subject: no subject is ever on two sides of a split.

    ``label`` may be missing in a project's folder; such a case only ever serves as an untouched one.
    """

    id: str
    images: list[Path]
    label: Path | None
    group: str


@dataclass(frozen=True)
class Dataset:
    """Outlined cases and their fixed split.

    Attributes:
        name: Of the set.
        labels: Label table.
        channels: Channel names.
        cases: All cases.
        n_test: Subjects that are only ever tested on.
        n_tuning: Subjects on which settings may be chosen; never tested or trained on.
        lesions: Whether lesion-wise scores mean something.
        split: Subjects of ``"training"``, ``"tuning"`` and ``"test"`` where others have fixed them.
        in_order: The outlined subjects are the first ones of ``split["training"]``, whatever the seed.
        unit: Of distances: ``"mm"`` or ``"voxels"``.
    """

    name: str
    labels: list[Label]
    channels: list[str]
    cases: list[OutlinedCase]
    n_test: int
    n_tuning: int
    lesions: bool = False
    split: Mapping[str, Sequence[str]] | None = None
    in_order: bool = False
    unit: str = "mm"

    def part(self, name: str) -> list[OutlinedCase]:
        """The cases of ``"test"``, ``"tuning"`` or ``"training"``; the same on every machine."""
        if self.split is not None:
            place = {group: n for n, group in enumerate(self.split[name])}
            return sorted((case for case in self.cases if case.group in place), key=lambda case: place[case.group])
        groups = sorted({case.group for case in self.cases})
        order = [groups[n] for n in np.random.default_rng(SPLIT_SEED).permutation(len(groups))]
        limits = {
            "test": order[: self.n_test],
            "tuning": order[self.n_test : self.n_test + self.n_tuning],
            "training": order[self.n_test + self.n_tuning :],
        }
        chosen = set(limits[name])
        return [case for case in self.cases if case.group in chosen]

    def training_files(self, n_labelled: int | None, seed: int) -> list[CaseFiles]:
        """The training cases with the outlines of ``n_labelled`` subjects (``None``: all), drawn by ``seed``.

        The subjects of a smaller number are among those of a larger one.
        """
        cases = self.part("training")
        outlined = {case.group for case in cases if case.label}
        if n_labelled is not None and n_labelled > len(outlined):
            raise InputError(f"{self.name} has {len(outlined)} training subjects, not {n_labelled}.", "Use fewer.")
        groups = sorted(outlined) if self.split is None else [g for g in self.split["training"] if g in outlined]
        if not self.in_order:
            order = np.random.default_rng([SPLIT_SEED, seed]).permutation(len(groups))
            groups = [groups[n] for n in order]
        chosen = set(groups[:n_labelled])
        return [CaseFiles(c.id, c.images, c.label if c.group in chosen else None) for c in cases]


def load(name: str, sources: Sources | None = None, cache: Path | None = None) -> Dataset:
    """The data set called ``name``.

    Args:
        name: Of the set.
        sources: Where sets lie, if not in the folder that ``BARL_DATA`` names.
        cache: Where scans are kept that had to be converted.

    Raises:
        InputError: There is none of that name, ``BARL_DATA`` is not set or lacks the folder, or its files are not as
            they should be.
    """
    source = (sources or {}).get(name, {})
    reader = source.get("reader", name)
    if reader not in (*_READERS, *FIELD_SETS, "project"):
        raise InputError(
            f"There is no data set {reader!r}.", f"Choose one of: {', '.join((*_READERS, *FIELD_SETS, 'project'))}."
        )
    folder = _folder(name, source)
    if reader == "project":
        return _project(name, folder, source)
    if reader in FIELD_SETS:
        return _field_set(name, reader, folder, cache)
    if not (folder / "stats.csv").is_file():
        raise InputError(f"The data set {name} is not in the folder {folder}.", "Put it there, or use --data.")
    return _READERS[reader](folder)


def _folder(name: str, source: Mapping[str, Any]) -> Path:
    if "folder" in source:
        return Path(source["folder"]).expanduser()
    root = os.environ.get("BARL_DATA")
    if not root:
        raise InputError(
            "The variable BARL_DATA is not set.",
            f"Let it name the folder that holds the data sets, or use --data {name}=FOLDER.",
        )
    return Path(root) / name


def _cases(folder: Path, image_folders: Sequence[str], group_column: str) -> list[OutlinedCase]:
    with (folder / "stats.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        OutlinedCase(
            row["case"],
            [folder / images / f"{row['case']}.nii.gz" for images in image_folders],
            folder / "labels" / f"{row['case']}.nii.gz",
            row[group_column],
        )
        for row in rows
    ]


def _hippocampus(folder: Path) -> Dataset:
    return Dataset("hippocampus", list(LABELS), ["T1"], _cases(folder, ["images"], "subject_group"), 40, 20)


def _bonbid(folder: Path) -> Dataset:
    cases = _cases(folder, ["images", "images_zadc"], "case")
    return Dataset("bonbid_hie", [Label(1, "HIE lesion")], ["ADC", "ZADC"], cases, 16, 8, lesions=True)


def _sts_pet(folder: Path) -> Dataset:
    return Dataset("sts_pet", [Label(1, "Tumor")], ["PET"], _cases(folder, ["images"], "case"), 20, 7)


_READERS = {"hippocampus": _hippocampus, "bonbid_hie": _bonbid, "sts_pet": _sts_pet}


def _field_set(name: str, reader: str, folder: Path, cache: Path | None) -> Dataset:
    facts = FIELD_SETS[reader]
    labels = [Label(value, text) for value, text in facts.labels.items()]
    found, split = read_field_set(reader, folder, (cache or folder) / "converted" / name)
    cases = [OutlinedCase(case.id, [case.image], case.label, case.group) for case in found]
    return Dataset(name, labels, [facts.channel], cases, 0, 0, split=split, in_order=True, unit="voxels")


def _project(name: str, folder: Path, source: Mapping[str, Any]) -> Dataset:
    """A project's cases. The held-out ones are the test, or as many subjects as the plan says (``"test"``)."""
    with Project.open(folder, read_only=True) as project:
        cases, held_out = [], set()
        for case in project.cases.all():
            outline = None if case.is_partial else project.revisions.accepted_label(case.id)
            group = case.group or case.id
            if not case.is_excluded and (outline or not case.held_out):
                images = project.cases.image_paths(case.id)
                cases.append(OutlinedCase(case.id, images, outline, group))
                held_out |= {group} if case.held_out else set()
        labels, channels = list(project.labels), [channel.name for channel in project.channels]
    outlined = sorted({case.group for case in cases if case.label})
    n_test = int(source.get("test", 0))
    drawn = np.random.default_rng(SPLIT_SEED).permutation(len(outlined))[:n_test]
    test = {outlined[n] for n in drawn} if n_test else held_out
    training = sorted({case.group for case in cases} - test)
    if not test or not set(outlined) - test:
        raise InputError(
            f"The project {folder.name} has no outlined cases to test on, or none to train on.",
            'Hold some out ("barl project mark PROJECT CASE --held-out yes"), or write "test": 20 into the plan.',
        )
    cases = [case for case in cases if case.label or case.group not in test]
    return Dataset(
        name, labels, channels, cases, 0, 0, split={"training": training, "tuning": [], "test": sorted(test)}
    )
