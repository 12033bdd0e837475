# SPDX-License-Identifier: Apache-2.0
"""Filling a scan of which a few planes or strokes were drawn, with or without the prediction of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from barl import blas
from barl.errors import InputError
from barl.fill.corrected import corrected_pieces, staying
from barl.fill.drawn import Box, bounding_box, boxes, drawn_voxels
from barl.fill.solution import DEFAULTS, Prior, Settings, solve_box
from barl.progress import SILENT, Progress, Stage

_TYPICAL_DICE = 0.8
"""What a model is trusted with that nobody has measured, until the drawn planes measure it."""


@dataclass(frozen=True)
class Prediction:
    """What a model has said about a scan.

    Attributes:
        labels: Label values ``[k, j, i]``.
        uncertainty: ``[k, j, i]``, 0 to 1; None: 0 but at the borders of labels.
        dice: Its Dice on held-out cases, if that is known: its trust before the drawn planes measure it.
    """

    labels: np.ndarray
    uncertainty: np.ndarray | None = None
    dice: float | None = None


@dataclass(frozen=True)
class Filled:
    """A filled scan.

    Attributes:
        labels: Label values ``[k, j, i]``; those drawn as they were drawn.
        values: The label values that were filled, ascending.
        parts: Boxes that were filled, with the probabilities ``[values, k, j, i]`` (float32) of their labels.
        trust: The Dice with which the prediction was trusted; None without a prediction.
        doubt: Uncertainty of the prediction ``[k, j, i]`` in the pieces that stay as predicted, 0 elsewhere; None
            without an uncertainty of a prediction.
    """

    labels: np.ndarray
    values: list[int]
    parts: list[tuple[Box, np.ndarray]] = field(default_factory=list)
    trust: float | None = None
    doubt: np.ndarray | None = None

    def probability(self, value: int) -> np.ndarray:
        """Of one label, ``[k, j, i]``, float32; outside of the boxes 0 or 1."""
        result = (self.labels == value).astype(np.float32)
        for box, probabilities in self.parts:
            result[box] = probabilities[self.values.index(value)]
        return result

    def uncertainty(self) -> np.ndarray:
        """Entropy of the probabilities divided by the logarithm of their number, ``[k, j, i]``, float32, 0 to 1.

        The same measure as that of a model (``barl.inference.uncertainty``), whose own it is in the pieces of a
        prediction that stay; 0 where drawn and elsewhere outside of the boxes.
        """
        result = np.zeros(self.labels.shape, np.float32) if self.doubt is None else self.doubt.astype(np.float32)
        for box, probabilities in self.parts:
            rest = np.clip(1 - probabilities.sum(axis=0), 0, 1)
            total = np.zeros(rest.shape, dtype=np.float32)
            for share in (*probabilities, rest):
                total -= share * np.log(np.maximum(share, 1e-12))
            np.maximum(result[box], np.clip(total / np.log(len(probabilities) + 1), 0, 1), out=result[box])
        return result

    def expected_dice(self) -> float:
        """Dice that the outline of all labels together has if the probabilities hold; 1 if nothing is outlined.

        They do not hold as they are: ``barl.fill.expectation.expect`` is calibrated.
        """
        both, size, mass = 0.0, int(np.count_nonzero(self.labels)), 0.0
        settled = size
        for box, probabilities in self.parts:
            inside = self.labels[box] != 0
            total = np.clip(probabilities.sum(axis=0), 0, 1)
            both += float(total[inside].sum(dtype=np.float64))
            mass += float(total.sum(dtype=np.float64))
            settled -= int(np.count_nonzero(inside))
        both, mass = both + settled, mass + settled
        return 2 * both / (size + mass) if size + mass else 1.0


def fill_scan(
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    spacing: Sequence[float],
    drawn: np.ndarray | None = None,
    prediction: Prediction | None = None,
    *,
    settings: Settings = DEFAULTS,
    progress: Progress = SILENT,
) -> Filled:
    """Fill what was not drawn.

    Without a prediction each drawn piece is filled in a box of its own, and what lies outside of the boxes is
    background. With one, the pieces of the prediction that the drawn voxels contradict are filled
    (``barl.fill.corrected``), and the others stay. The prediction pulls as strongly as it was right where somebody has
    drawn since, more strongly the further away that is.

    Args:
        images: The scan's channels, each ``[k, j, i]``.
        labels: Label values ``[k, j, i]``, right where drawn.
        spacing: (k, j, i) in mm.
        drawn: Voxels that somebody drew or looked at; they keep their labels. None: found by ``drawn_voxels``.
        prediction: Of a model.
        settings: Numbers of the method.
        progress: Of the work; ends it when asked to.

    Raises:
        InputError: Shapes differ, nothing or no background was drawn, or a value is not finite.
        Cancelled: The work was ended.
    """
    drawn = drawn_voxels(labels) if drawn is None else drawn.astype(bool)
    _check(images, labels, drawn, prediction)
    if prediction is not None:  # a value of the prediction alone may need more bits
        labels = labels.astype(np.promote_types(labels.dtype, prediction.labels.dtype), copy=False)
    seen = np.where(drawn, labels, 0).astype(labels.dtype)
    values = sorted(_present(seen))
    if prediction is None:
        if not values:
            raise InputError(
                "Nothing is drawn, so there is nothing to fill.", "Outline the structure in one plane first."
            )
        if not np.any(drawn & (seen == 0)):
            raise InputError(
                "Only labeled voxels are drawn, and nothing says where the structure ends.",
                "Outline it whole in one plane, or mark background voxels as drawn.",
            )
        places, trust = boxes(seen != 0, drawn), None
    else:
        values = sorted({*values, *_present(prediction.labels)})
        about = corrected_pieces(prediction.labels, seen, drawn, spacing)
        box = bounding_box(about)
        places = [_roomy(box, seen.shape)] if box else []
        trust = _trust(prediction, seen, drawn & about if box else drawn)
    filled = Filled(seen.copy(), values)
    if prediction is not None:
        kind = np.promote_types(labels.dtype, prediction.labels.dtype)
        whole = np.where(drawn, labels, prediction.labels).astype(kind)
        unsure, stays = prediction.uncertainty, (prediction.labels != 0) & ~about & ~drawn
        filled = Filled(
            whole, values, trust=trust, doubt=None if unsure is None else np.where(stays, unsure, np.float32(0))
        )
    edges = np.asarray(spacing, dtype=np.float64)
    for box, part in progress.stage(Stage.FILLING).each(places):
        stack = np.stack([image[box] for image in images])
        prior = _prior(prediction, box, values, trust, edges) if prediction else None
        with blas.one_thread():
            found = solve_box(stack, seen[box], drawn[box], values, edges, prior, settings, part)
        if prediction is not None:
            others = staying(about[box], prediction.labels[box], edges)
            if others is not None:
                _keep(found, prediction.labels[box], others, values)
        _keep(found, seen[box], drawn[box], values)
        filled.parts.append((box, found))
        filled.labels[box] = np.where(drawn[box], seen[box], _winner(found, values))
    return filled


def _check(images: Sequence[np.ndarray], labels: np.ndarray, drawn: np.ndarray, prediction: Prediction | None) -> None:
    maps = {"the drawn label map": labels, "the mask of drawn voxels": drawn}
    if prediction is not None:
        maps["the prediction"] = prediction.labels
        if prediction.uncertainty is not None:
            maps["the uncertainty"] = prediction.uncertainty
    if not images:
        raise InputError("There is no scan to fill.", "Give at least one image.")
    for number, image in enumerate(images):
        if np.issubdtype(image.dtype, np.floating) and not np.isfinite(image).all():
            raise InputError(
                f"Channel {number + 1} of the scan holds values that are not finite.", "Export the scan again."
            )
        maps[f"channel {number + 1}"] = image
    shape = images[0].shape
    for name, array in maps.items():
        if array.shape != shape:
            raise InputError(
                f"The shape of {name} is {array.shape}, that of the scan {shape}.", "Bring both onto one grid first."
            )


def _present(labels: np.ndarray) -> set[int]:
    """The label values of a label map but 0; only the box that holds them is sorted."""
    box = bounding_box(labels != 0)
    return set() if box is None else {int(value) for value in np.unique(labels[box])} - {0}


def _winner(probabilities: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """The most probable label; background where it is at least as probable."""
    rest = 1 - probabilities.sum(axis=0)
    best = probabilities.argmax(axis=0)
    return np.where(probabilities.max(axis=0) > rest, np.asarray(values)[best], 0)


def _keep(probabilities: np.ndarray, labels: np.ndarray, where: np.ndarray, values: Sequence[int]) -> None:
    for value, probability in zip(values, probabilities, strict=True):
        np.copyto(probability, (labels == value).astype(np.float32), where=where)


def _roomy(box: Box, shape: Sequence[int]) -> Box:
    sides = []
    for side, size in zip(box, shape, strict=True):
        margin = max(8, (side.stop - side.start) // 4)
        sides.append(slice(max(side.start - margin, 0), min(side.stop + margin, size)))
    return tuple(sides)


def _trust(prediction: Prediction, labels: np.ndarray, drawn: np.ndarray) -> float:
    """Dice of the prediction where somebody has drawn since: of the pieces that this corrects, if it corrects any;
    before that, of the held-out cases."""
    predicted, true = prediction.labels[drawn], labels[drawn]
    total = int(np.count_nonzero(predicted) + np.count_nonzero(true))
    if total:
        return 2 * int(np.count_nonzero((predicted == true) & (true != 0))) / total
    return _TYPICAL_DICE if prediction.dice is None else prediction.dice


def pull_of(trust: float) -> float:
    """The pull of a prediction of that Dice, chosen on predictions of Dice 0.59 and 0.90; tenfold for 0.2 more."""
    return float(3 * 10 ** ((trust - 0.9) / 0.2))


def _prior(prediction: Prediction, box: Box, values: Sequence[int], trust: float | None, spacing: np.ndarray) -> Prior:
    labels = prediction.labels[box]
    shares = np.stack([labels == value for value in values]).astype(np.float32)
    if prediction.uncertainty is not None:
        sure = 1 - prediction.uncertainty[box].astype(np.float32)
    else:
        smooth = np.stack([ndimage.gaussian_filter(share, 1.0) for share in shares])
        largest = np.maximum(smooth.max(axis=0), 1 - smooth.sum(axis=0))
        sure = np.clip(2 * largest - 1, 0, 1)
    structure = bounding_box(labels != 0) or box
    extents = [(side.stop - side.start) * s for side, s in zip(structure, spacing, strict=True)]
    pull = np.float32(pull_of(_TYPICAL_DICE if trust is None else trust)) * sure**2
    return Prior(shares, pull, 0.5 * float(np.mean(extents)))
