# SPDX-License-Identifier: Apache-2.0
"""Predictions as files that are named after their cases, for cases of a project and for a folder of scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barl.errors import Cancelled, InputError, StorageError, storage_error
from barl.images.geometry import Roi
from barl.images.reading import read_channels
from barl.images.writing import write_image
from barl.inference.predictor import Prediction
from barl.jobs.compute import AUTOMATIC, Compute
from barl.jobs.failures import explain
from barl.progress import SILENT, Progress, Stage
from barl.project.case_finding import find_cases
from barl.project.labels import Channel, Label
from barl.project.model_card import read_card
from barl.project.names import file_names

ENDING = ".nii.gz"


@dataclass(frozen=True)
class Output:
    """The folder that predictions are written to.

    Attributes:
        folder: Made if it is missing.
        uncertainty: Write the uncertainty as well, as ``NAME_uncertainty.nii.gz``.
        probabilities: Write the probability of each label as well, as ``NAME_probability_VALUE.nii.gz``.
        overwrite: Replace files that are there already.
    """

    folder: Path
    uncertainty: bool = False
    probabilities: bool = False
    overwrite: bool = False

    def prepare(self, names: Sequence[str], labels: Sequence[Label]) -> dict[str, str]:
        """Make the folder; returns case name -> file name without ending.

        Raises:
            InputError: A file is there already and may not be replaced, or two would have one name.
            StorageError: The folder cannot be made.
        """
        chosen = file_names(names)
        paths = [path for name in chosen.values() for path in self._paths(name, labels)]
        if twice := [path for path, count in Counter(paths).items() if count > 1]:
            raise InputError(f"Two of the files would be called {twice[0].name}.", "Rename one of the cases.")
        there = [path for path in paths if path.exists()]
        if there and not self.overwrite:
            more = f" and {len(there) - 1} more files are" if len(there) > 1 else " is"
            raise InputError(
                f"{there[0].name}{more} in {self.folder} already.", "Choose another folder, or add --overwrite."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise InputError(f"{self.folder} is a file.", "Name a folder.") from None
        except OSError as error:
            raise storage_error(error, self.folder) from error
        return chosen

    def _paths(self, name: str, labels: Sequence[Label]) -> list[Path]:
        paths = [self.folder / f"{name}{ENDING}"]
        if self.uncertainty:
            paths.append(self.folder / f"{name}_uncertainty{ENDING}")
        if self.probabilities:
            paths += [self.folder / f"{name}_probability_{label.value}{ENDING}" for label in labels]
        return paths

    def write(self, name: str, prediction: Prediction, labels: Sequence[Label]) -> list[Path]:
        """Write the files of a case; returns them, the label map first.

        Raises:
            StorageError: One cannot be written.
        """
        images = [prediction.label]
        if self.uncertainty:
            images.append(prediction.uncertainty)
        if self.probabilities and prediction.probabilities is not None:
            images += [prediction.probabilities[label.value] for label in labels]
        paths = self._paths(name, labels)
        for image, path in zip(images, paths, strict=True):
            write_image(image, path)
        return paths


def predict_folder(
    model: Path,
    scans: Path,
    output: Output,
    *,
    compute: Compute = AUTOMATIC,
    roi: Roi | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Predict every scan of a folder without a project; a scan that cannot be used keeps no other waiting.

    Args:
        model: A model's folder.
        scans: The folder. For a model of several channels the names of a case's files end with ``_`` and the name of
            the channel, or as those of nnU-Net with ``_0000``, ``_0001`` ...
        output: Where the label maps go, on the scans' own grids.

    Returns:
        ``model``; ``cases``: ``name``, ``written`` (files, the label map first) and ``Prediction.details`` of each;
        ``failed``: name, message and remedy of each.

    Raises:
        InputError: The folder holds no scan, or is the one to write to, or a file is there already.
        BarlError: Of model, device or disk.
    """
    if output.folder.resolve() == scans.resolve():
        raise InputError("The label maps would lie among the scans.", "Name another folder with --output.")
    card = read_card(model)
    labels = sorted(card.labels, key=lambda label: label.value)
    content = find_cases(scans, _channels(scans, card.channels))
    failed = [
        {"name": item.name, "message": item.reason.message, "remedy": item.reason.remedy}
        for item in content.left_out
        if item.is_scan
    ]
    if not content.cases:
        raise InputError(
            f"No scan in {scans} has a file for each channel of the model ({', '.join(card.channels)}).",
            f"End the names of the files with the channel, such as p1_{card.channels[0]}.nii.gz.",
        )
    names = output.prepare([case.name for case in content.cases], labels)
    progress.stage(Stage.LOADING).at(0.0)
    predictor = compute.predictor(model)
    done = []
    for case, part in progress.stage(Stage.PREDICTING).each(content.cases, lambda case: case.name):
        notes: list[str] = []
        try:
            channels = read_channels([Path(item) for item in case.channels if isinstance(item, Path)], notes)
            prediction = predictor.predict(
                channels, roi=roi, want_probabilities=output.probabilities, progress=part, cleanup=compute.cleanup
            )
            written = output.write(names[case.name], prediction, labels)
        except Exception as error:
            cause = explain(error)
            if len(content.cases) == 1 or isinstance(cause, Cancelled | StorageError):
                raise cause from error
            failed.append({"name": case.name, "message": cause.message, "remedy": cause.remedy})
            continue
        details = prediction.details()
        done.append({"name": case.name, "written": written, **details, "notes": [*notes, *details["notes"]]})
    return {"model": str(model), "cases": done, "failed": failed}


def _channels(scans: Path, names: Sequence[str]) -> list[Channel]:
    """The model's channels with the patterns by which the files of a case are told apart."""
    if len(names) == 1:
        return [Channel(names[0])]
    numbered = any(path.name.split(".")[0].endswith("_0000") for path in scans.iterdir())
    return [Channel(name, f"_{n:04d}" if numbered else f"_{name}") for n, name in enumerate(names)]
