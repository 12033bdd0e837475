# SPDX-License-Identifier: Apache-2.0
"""Outlined data sets for benchmarks, found under the folder that the variable ``BARL_DATA`` names, split by subject."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from barl.errors import InputError
from barl.project.labels import Label
from barl.training.cases import CaseFiles

SPLIT_SEED = 2026


@dataclass(frozen=True)
class OutlinedCase:
    """A case with expert label. ``group`` is its subject: no subject is ever on two sides of a split."""

    id: str
    images: list[Path]
    label: Path
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
    """

    name: str
    labels: list[Label]
    channels: list[str]
    cases: list[OutlinedCase]
    n_test: int
    n_tuning: int
    lesions: bool = False

    def part(self, name: str) -> list[OutlinedCase]:
        """The cases of ``"test"``, ``"tuning"`` or ``"training"``; the same on every machine."""
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
        groups = sorted({case.group for case in cases})
        if n_labelled is not None and n_labelled > len(groups):
            raise InputError(f"{self.name} has {len(groups)} training subjects, not {n_labelled}.", "Use fewer.")
        order = np.random.default_rng([SPLIT_SEED, seed]).permutation(len(groups))[:n_labelled]
        chosen = {groups[n] for n in order}
        return [CaseFiles(c.id, c.images, c.label if c.group in chosen else None) for c in cases]


def load(name: str) -> Dataset:
    """The data set called ``name``.

    Raises:
        InputError: There is none of that name, ``BARL_DATA`` is not set or lacks the folder.
    """
    if name not in _READERS:
        raise InputError(f"There is no data set {name!r}.", f"Choose one of: {', '.join(_READERS)}.")
    root = os.environ.get("BARL_DATA")
    if not root:
        raise InputError("The variable BARL_DATA is not set.", "Let it name the folder that holds the data sets.")
    folder = Path(root) / name
    if not (folder / "stats.csv").is_file():
        raise InputError(f"The data set {name} is not in the folder that BARL_DATA names.", "Put it there.")
    return _READERS[name](folder)


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
    labels = [Label(1, "Anterior hippocampus"), Label(2, "Posterior hippocampus", (80, 140, 230))]
    return Dataset("hippocampus", labels, ["T1"], _cases(folder, ["images"], "subject_group"), 40, 20)


def _bonbid(folder: Path) -> Dataset:
    cases = _cases(folder, ["images", "images_zadc"], "case")
    return Dataset("bonbid_hie", [Label(1, "HIE lesion")], ["ADC", "ZADC"], cases, 16, 8, lesions=True)


_READERS = {"hippocampus": _hippocampus, "bonbid_hie": _bonbid}
