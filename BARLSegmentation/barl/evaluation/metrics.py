# SPDX-License-Identifier: Apache-2.0
"""Overlap, surface and lesion metrics of one case.

Empty masks. Where prediction and truth are both empty (a true negative) every ratio and distance is nan, so that
it is left out of means and cannot lift them. Where exactly one is empty, Dice, Jaccard, surface Dice and lesion F1
are 0 and the distances are nan, since there is no surface to measure to: read HD95 and ASSD together with the number
of cases in which they are defined. Counts and volumes are always defined.

Surfaces are the voxels of a mask with at least one of six face neighbors outside it; distances run between voxel
centers in mm, so anisotropic spacing is respected. MONAI has the same three surface metrics and the tests hold these
against it; here they share one pair of distance searches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from barl.errors import InputError
from barl.evaluation.lesions import MINIMUM_IOU, LesionCounts, count_lesions

_NAN = float("nan")


@dataclass(frozen=True)
class LabelMetrics:
    """The scores of one label of one case; nan where undefined (see the module's docstring).

    Attributes:
        dice: 2 |A and B| / (|A| + |B|).
        jaccard: |A and B| / |A or B|.
        hd95_mm: Larger of the two directed 95th percentiles of surface distance.
        assd_mm: Mean of all surface distances, both directions pooled.
        surface_dice: Share of both surfaces within the tolerance of the other.
        lesion_precision, lesion_recall, lesion_f1: One-to-one matched 26-connected components, IoU >= 0.1.
        lesions: The counts behind them.
        truth_ml, predicted_ml: Volumes.
    """

    dice: float
    jaccard: float
    hd95_mm: float
    assd_mm: float
    surface_dice: float
    lesion_precision: float
    lesion_recall: float
    lesion_f1: float
    lesions: LesionCounts
    truth_ml: float
    predicted_ml: float


RATIOS = ("dice", "jaccard", "surface_dice", "lesion_precision", "lesion_recall", "lesion_f1")
DISTANCES = ("hd95_mm", "assd_mm")


def dice(prediction: np.ndarray, truth: np.ndarray, value: int) -> float:
    """Dice of one label value of two label arrays of one shape; nan when neither has it."""
    predicted, true = prediction == value, truth == value
    total = int(np.count_nonzero(predicted) + np.count_nonzero(true))
    return 2 * int(np.count_nonzero(predicted & true)) / total if total else _NAN


def segmentation_metrics(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_kji: Sequence[float],
    values: Iterable[int],
    *,
    tolerance_mm: float = 1.0,
    minimum_iou: float = MINIMUM_IOU,
    looked: np.ndarray | None = None,
) -> dict[int, LabelMetrics]:
    """Measure each label of one case.

    Args:
        prediction: Label values [k, j, i], any integer type.
        truth: Label values [k, j, i] on the same grid.
        spacing_kji: Voxel spacing in mm, in the order of the array's axes.
        values: Label values to measure.
        tolerance_mm: Distance within which a piece of surface counts as right for ``surface_dice``.
        minimum_iou: Smallest IoU at which a predicted and a true lesion may be paired.
        looked: Which voxels [k, j, i] the truth is known of; None: all. Of a part, overlap and volumes are those of the
            part; surfaces and lesions, which go on beyond it, are not measured (nan, no counts).

    Returns:
        Label value -> metrics, in the order of ``values``.

    Raises:
        InputError: The arrays differ in shape or are not 3D integer arrays, or the spacing is not positive.
    """
    if prediction.shape != truth.shape:
        raise InputError(
            f"The prediction has {prediction.shape} voxels and the truth {truth.shape} (k, j, i).",
            "Bring the prediction onto the grid of the truth first.",
        )
    if prediction.ndim != 3 or not all(np.issubdtype(array.dtype, np.integer) for array in (prediction, truth)):
        raise InputError(
            "Only 3D label maps with integer values can be compared.", "Pass label maps, not probabilities or images."
        )
    spacing = np.asarray(spacing_kji, dtype=float)
    if spacing.shape != (3,) or not np.all(np.isfinite(spacing) & (spacing > 0)):
        raise InputError(f"The voxel spacing {tuple(spacing_kji)} is not three positive numbers.", "Check the scan.")
    values = [int(value) for value in values]
    if any(value <= 0 for value in values):
        raise InputError("Label values to compare must be positive; 0 is the background.", "Leave the 0 out.")
    if looked is not None:
        prediction, truth = np.where(looked, prediction, 0), np.where(looked, truth, 0)
    boxes = ndimage.find_objects(prediction), ndimage.find_objects(truth)
    measured = {}
    for value in values:
        box = _joint_box(*(found[value - 1] if value <= len(found) else None for found in boxes))
        measured[value] = _measure(prediction[box] == value, truth[box] == value, spacing, tolerance_mm, minimum_iou)
    return measured if looked is None else {value: _of_a_part(metrics) for value, metrics in measured.items()}


def _of_a_part(metrics: LabelMetrics) -> LabelMetrics:
    return replace(
        metrics,
        hd95_mm=_NAN,
        assd_mm=_NAN,
        surface_dice=_NAN,
        lesion_precision=_NAN,
        lesion_recall=_NAN,
        lesion_f1=_NAN,
        lesions=LesionCounts(0, 0, 0),
    )


def _joint_box(first: tuple[slice, ...] | None, second: tuple[slice, ...] | None) -> tuple[slice, ...]:
    if first is None or second is None:
        return first or second or (slice(0, 0),) * 3
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))


def _measure(
    prediction: np.ndarray, truth: np.ndarray, spacing: np.ndarray, tolerance_mm: float, minimum_iou: float
) -> LabelMetrics:
    n_predicted, n_true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    overlap = int(np.count_nonzero(prediction & truth))
    lesions = count_lesions(prediction, truth, minimum_iou)
    voxel_ml = float(np.prod(spacing)) / 1000
    if n_predicted and n_true:
        hd95, assd, surface = _surface_metrics(prediction, truth, spacing, tolerance_mm)
    else:
        hd95, assd, surface = _NAN, _NAN, 0.0 if n_predicted or n_true else _NAN
    return LabelMetrics(
        dice=2 * overlap / (n_predicted + n_true) if n_predicted + n_true else _NAN,
        jaccard=overlap / (n_predicted + n_true - overlap) if n_predicted + n_true else _NAN,
        hd95_mm=hd95,
        assd_mm=assd,
        surface_dice=surface,
        lesion_precision=lesions.precision,
        lesion_recall=lesions.recall,
        lesion_f1=lesions.f1,
        lesions=lesions,
        truth_ml=n_true * voxel_ml,
        predicted_ml=n_predicted * voxel_ml,
    )


def _surface_metrics(
    prediction: np.ndarray, truth: np.ndarray, spacing: np.ndarray, tolerance_mm: float
) -> tuple[float, float, float]:
    predicted, true = _surface_points(prediction, spacing), _surface_points(truth, spacing)
    from_prediction = KDTree(true).query(predicted)[0]
    from_truth = KDTree(predicted).query(true)[0]
    pooled = np.concatenate([from_prediction, from_truth])
    hd95 = max(np.percentile(from_prediction, 95), np.percentile(from_truth, 95))
    return float(hd95), float(pooled.mean()), float(np.mean(pooled <= tolerance_mm))


def _surface_points(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Centers in mm [N, 3] of the voxels with a face on the outside; beyond the array is outside."""
    padded = np.pad(mask, 1)
    inside = mask.copy()
    for axis in range(3):
        for start in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(start, start + mask.shape[axis])
            inside &= padded[tuple(window)]
    return np.argwhere(mask & ~inside) * spacing
