# SPDX-License-Identifier: Apache-2.0
"""From a scan to arrays: predictions and filled planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from barl.api.inputs import (
    OnProgress,
    Scan,
    as_channels,
    as_images,
    as_label,
    as_progress,
    as_values,
    before_torch,
    check_files,
    model_place,
    on_grid,
)
from barl.errors import InputError
from barl.fill.drawn import drawn_voxels
from barl.fill.filling import Filled, fill_scan
from barl.fill.filling import Prediction as Prior
from barl.images.geometry import Grid, Roi
from barl.images.label_maps import read_label
from barl.images.reading import read_image
from barl.images.writing import check_outputs, write_image
from barl.project.labels import LARGEST_VALUE, Channel
from barl.project.records import ModelRow
from barl.project.store import Project

if TYPE_CHECKING:
    from barl.inference.predictor import Predictor

_VALUES = range(1, LARGEST_VALUE + 1)


@dataclass(frozen=True)
class Prediction:
    """A prediction as arrays ``[k, j, i]`` on the scan's grid.

    Attributes:
        labels: Label values, 0 is background.
        probabilities: Label value -> float32, calibrated.
        uncertainty: float32, 0 (sure) to 1.
        volumes_ml: Label name -> volume, smallest and largest volume over the model's branches, in milliliters.
        case_uncertainty: One number, 0 to 1, by which cases can be ranked.
        hotspots: The uncertain regions, the most important one first: ``position_mm`` (LPS), ``volume_ml``,
            ``mean_uncertainty``, ``label`` ...
        notes: What a person should read, such as that the scan is unlike those that the model has learned from.
    """

    labels: np.ndarray
    probabilities: dict[int, np.ndarray]
    uncertainty: np.ndarray
    volumes_ml: dict[str, tuple[float, float, float]]
    case_uncertainty: float
    hotspots: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Model:
    """A trained model that is loaded once and predicts scan after scan; ``load_model`` makes it."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def labels(self) -> dict[int, str]:
        """Value -> name of the labels that it predicts."""
        return {label.value: label.name for label in self._predictor.card.labels}

    @property
    def channels(self) -> list[str]:
        """The images that it needs, in this order."""
        return list(self._predictor.card.channels)

    def predict(
        self,
        scan: Scan | Sequence[Scan],
        *,
        roi_mm: Sequence[float] | None = None,
        cleanup: bool = True,
        on_progress: OnProgress | None = None,
    ) -> Prediction:
        """Predict a scan.

        Args:
            scan: One file, DICOM folder or SimpleITK image for each channel.
            roi_mm: Predict only this box: smallest and largest x, y and z in LPS.
            cleanup: Remove pieces and fill holes as the model's card says.
            on_progress: Called while it works.

        Raises:
            InputError: The scan cannot be used, or the box lies outside.
            ModelError: The scan has not the model's channels.
            DeviceError: The memory is too small.
        """
        if roi_mm is not None and np.shape(roi_mm) != (6,):
            raise InputError("The box is not six numbers.", "Give the smallest and largest x, y and z in LPS.")
        roi = Roi.from_bounds_mm(roi_mm) if roi_mm is not None else None
        notes: list[str] = []
        check_files(scan, [Channel(name) for name in self.channels])
        images = as_images(scan, notes)
        found = self._predictor.predict(
            images, roi=roi, want_probabilities=True, progress=as_progress(on_progress), cleanup=cleanup
        )
        return Prediction(
            sitk.GetArrayFromImage(found.label),
            {value: sitk.GetArrayFromImage(image) for value, image in (found.probabilities or {}).items()},
            sitk.GetArrayFromImage(found.uncertainty),
            {volume.name: (volume.ml, volume.low_ml, volume.high_ml) for volume in found.volumes},
            found.case_uncertainty,
            [spot.to_json() for spot in found.hotspots],
            [*notes, *found.notes],
        )


def load_model(model: Project | ModelRow | Path | str, *, device: str = "auto", fast: bool = False) -> Model:
    """Load a model.

    Args:
        model: A project, for its current model; what ``train`` returned; or a model's folder.
        device: As for ``train``.
        fast: One branch and fewer windows: a fifth of the work, rougher uncertainty.

    Raises:
        ModelError: There is no model, or it is damaged.
        DeviceError: There is no such device.
    """
    before_torch()
    from barl.inference.loading import load_predictor
    from barl.jobs.choice import choose_model

    folder = choose_model(model)[0] if isinstance(model, Project) else Path(model_place(model))
    return Model(load_predictor(folder, device, fast))


def predict(
    model: Model | Project | ModelRow | Path | str,
    scan: Scan | Sequence[Scan],
    *,
    device: str = "auto",
    on_progress: OnProgress | None = None,
) -> Prediction:
    """Predict one scan as arrays; nothing is stored. ``load_model`` is for many scans.

    Args:
        model: A loaded model, or what ``load_model`` takes.
        scan: One file, DICOM folder or SimpleITK image for each channel.
        device: As for ``train``.
        on_progress: Called while it works.

    Raises:
        BarlError: As ``load_model`` and ``Model.predict``.
    """
    loaded = model if isinstance(model, Model) else load_model(model, device=device)
    return loaded.predict(scan, on_progress=on_progress)


def fill_planes(
    scan: Scan | Sequence[Scan],
    drawn: Path | str | sitk.Image | np.ndarray,
    *,
    mask: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
    on_progress: OnProgress | None = None,
) -> Filled:
    """Make a whole outline of a few outlined planes, without a model.

    Args:
        scan: One file, DICOM folder or SimpleITK image for each channel.
        drawn: Label map of what was drawn, on the scan's grid; a plane with a labeled area counts as outlined whole.
        mask: True ``[k, j, i]`` where somebody has drawn or looked; by default found in ``drawn``.
        predicted: Label values ``[k, j, i]`` of a model, such as ``Prediction.labels``, which pull.
        on_progress: Called while it works.

    Returns:
        ``labels`` ``[k, j, i]``; its methods ``probability(value)``, ``uncertainty()`` and ``expected_dice()``.

    Raises:
        InputError: The scan or what was drawn cannot be used.
    """
    images = as_images(scan, [])
    grid = Grid.of(images[0])
    given = as_label(drawn, grid)
    label = given if isinstance(given, sitk.Image) else read_label(given, grid, _VALUES)
    labels = as_values(sitk.GetArrayViewFromImage(label))
    arrays = [sitk.GetArrayViewFromImage(image) for image in images]
    prior = None if predicted is None else Prior(as_values(np.asarray(predicted)))
    seen = drawn_voxels(labels) if mask is None else np.asarray(mask) != 0
    return fill_scan(arrays, labels, grid.spacing[::-1], seen, prior, progress=as_progress(on_progress))


def write_volume(array: np.ndarray, like: Scan, path: Path | str) -> None:
    """Write an array ``[k, j, i]``, such as ``labels`` or ``uncertainty``, to a file on the grid of a scan.

    Args:
        array: Of the scan's shape, real numbers.
        like: The scan.
        path: Ends with .nii.gz, .nii, .nrrd or .mha; a file of that name is replaced, but never the scan.

    Raises:
        InputError: The shapes differ, the array holds no real numbers, or the file name has another ending or is the
            scan's.
        StorageError: The file cannot be written.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise InputError(f"An array of the type {array.dtype} is no volume.", "Give whole numbers or floats.")
    kept: dict[np.dtype, np.dtype] = {np.dtype(bool): np.dtype(np.uint8), np.dtype(np.float16): np.dtype(np.float32)}
    array = array.astype(kept.get(array.dtype, array.dtype).newbyteorder("="), copy=False)
    scan = as_channels(like)[0]
    check_outputs([Path(path)], [] if isinstance(scan, sitk.Image) else [Path(scan)], overwrite=True)
    grid = Grid.of(scan if isinstance(scan, sitk.Image) else read_image(scan))
    write_image(on_grid(array, grid), path)
