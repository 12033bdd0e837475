# SPDX-License-Identifier: Apache-2.0
"""The demo's cases: real ones if they are available, else simulated ones, which the report calls simulated."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from barl import hippocampus
from barl.demo.download import download
from barl.errors import InputError
from barl.progress import SILENT, Progress
from barl.project.labels import Label

SOURCES = ("auto", "hippocampus", "download", "simulated")
_SPLIT_SEED = 7


@dataclass(frozen=True)
class Counts:
    """Numbers of outlined, untouched and held-out cases; one case per subject, so that no subject is in two groups."""

    outlined: int
    untouched: int
    held_out: int

    @property
    def total(self) -> int:
        return self.outlined + self.untouched + self.held_out


@dataclass(frozen=True)
class DemoCase:
    """A scan and its expert label, which the demo shows the model only where it says so."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class DemoData:
    """Cases by the part they take, and what a reader of the report must know about them.

    Attributes:
        title: What they are, in a few words.
        origin: Where they come from, in a sentence.
        license: Their license and whom to cite.
        simulated: They are no patients.
        labels, channel: As in a project.
        outlined: Outlined from the start.
        untouched: The expert's label is kept back until the case is chosen for correction.
        held_out: Never learned from; judged on.
        lesions: Whether lesion-wise scores mean something.
        iterations: Length of each of the two trainings.
    """

    title: str
    origin: str
    license: str
    simulated: bool
    labels: list[Label]
    channel: str
    outlined: list[DemoCase]
    untouched: list[DemoCase]
    held_out: list[DemoCase]
    lesions: bool = False
    iterations: int = 400

    @property
    def counts(self) -> Counts:
        return Counts(len(self.outlined), len(self.untouched), len(self.held_out))


def choose(
    source: str,
    folder: Path,
    counts: Counts | None = None,
    progress: Progress = SILENT,
    tell: Callable[[str], None] = print,
    fetch: Callable[[Path, Progress], Path] = download,
) -> DemoData:
    """The first of: the set in the folder that ``BARL_DATA`` names, the download, simulated cases.

    Args:
        source: One of ``SOURCES``: ``"auto"`` tries them in turn, any other name takes just that one.
        folder: Where downloaded or simulated cases are kept.
        counts: How many cases; by default what the source is good for.
        progress: Told while cases are downloaded or simulated.
        tell: Told which source is not to be had, and why.
        fetch: How to download.

    Raises:
        InputError: The source asked for cannot be had.
        StorageError: The folder cannot be written.
    """
    readers = {
        "hippocampus": lambda: _hippocampus(_data_folder(), "from the folder that BARL_DATA names", counts),
        "download": lambda: _hippocampus(fetch(folder / "download", progress), "downloaded, checksum verified", counts),
        "simulated": lambda: _simulated(folder / "simulated", counts, progress),
    }
    if source != "auto":
        return readers[source]()
    for name in ("hippocampus", "download"):
        try:
            return readers[name]()
        except InputError as error:
            tell(error.message)
    tell("So the cases are simulated.")
    return readers["simulated"]()


def _data_folder() -> Path:
    root = os.environ.get("BARL_DATA")
    if not root:
        raise InputError("The variable BARL_DATA is not set.", "Let it name a folder with hippocampus/ in it.")
    folder = Path(root) / "hippocampus"
    if not folder.is_dir():
        raise InputError("The folder that BARL_DATA names has no hippocampus/.", "Put the set there.")
    return folder


def _hippocampus(folder: Path, how: str, counts: Counts | None) -> DemoData:
    cases = [
        DemoCase(image.name.removesuffix(".nii.gz"), image, label)
        for image, label in hippocampus.one_scan_per_subject(folder)
    ]
    counts = counts or Counts(outlined=4, untouched=20, held_out=12)
    if len(cases) < counts.total:
        raise InputError(
            f"The hippocampus set has only {len(cases)} usable subjects, the demo needs {counts.total}.",
            "Put the whole set (images/ and labels/) there.",
        )
    data = DemoData(
        title="Hippocampus in T1 MRI (Medical Segmentation Decathlon, Task04)",
        origin=f"Real scans of Vanderbilt University Medical Center, cropped by the set's authors; {how}. "
        "One scan of each subject.",
        license=hippocampus.LICENSE,
        simulated=False,
        labels=list(hippocampus.LABELS),
        channel="T1",
        outlined=[],
        untouched=[],
        held_out=[],
    )
    return _dealt(data, cases, counts)


def _simulated(folder: Path, counts: Counts | None, progress: Progress) -> DemoData:
    from barl.demo.simulate import LESION, simulate_cases

    counts = counts or Counts(outlined=4, untouched=16, held_out=8)
    pairs = simulate_cases(folder, counts.total, _SPLIT_SEED, progress)
    data = DemoData(
        title="Simulated lesions in the white matter of the MNI152 T1 average",
        origin="SIMULATED, no patients: the MNI152 brain (through nilearn), bent at random, with 2 to 15 dark lesions "
        "painted in. It shows that the tool works, not how well the method does on scans.",
        license="MNI152 (ICBM 2009a): Fonov et al., NeuroImage 54:313 (2011), McConnell Brain Imaging Centre, "
        "Montreal Neurological Institute.",
        simulated=True,
        labels=[Label(LESION, "Lesion", (86, 180, 233))],
        channel="T1",
        outlined=[],
        untouched=[],
        held_out=[],
        lesions=True,
    )
    cases = [DemoCase(image.name.removesuffix(".nii.gz"), image, label) for image, label in pairs]
    return _dealt(data, cases, counts)


def _dealt(data: DemoData, cases: list[DemoCase], counts: Counts) -> DemoData:
    """Split the cases into the three groups, the same way every time."""
    shuffled = [cases[n] for n in np.random.default_rng(_SPLIT_SEED).permutation(len(cases))]
    start = counts.outlined + counts.untouched
    return replace(
        data,
        outlined=shuffled[: counts.outlined],
        untouched=shuffled[counts.outlined : start],
        held_out=shuffled[start : counts.total],
    )
