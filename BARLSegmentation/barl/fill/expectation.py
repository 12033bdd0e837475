# SPDX-License-Identifier: Apache-2.0
"""The Dice to expect of a fill, and how many more planes are worth outlining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from barl.fill.drawn import drawn_planes
from barl.fill.filling import Filled
from barl.fill.next_plane import Plane

# Dice = intercept + slope * (Dice if the probabilities hold): least squares on the tuning subjects of hippocampus (MR)
# and tumor (PET), both sets counting alike. docs/few-slices.md has the errors on others.
INTERCEPT, SLOPE = 0.527, 0.486
# It was calibrated from one plane in each direction on.
LEAST_PLANES = 3
# Share of the filled voxels that must be in one piece: of scattered lesions, those that no plane met are not known.
ONE_PIECE = 0.9
# A plane that is expected to bring less is not worth outlining.
WORTH = 0.01
_MOST = 20


@dataclass(frozen=True)
class Expectation:
    """What to expect of a fill, of all labels together.

    Attributes:
        dice: Expected Dice of the fill.
        planes: How many more planes are worth outlining.
        dice_after: Expected Dice once they are outlined.
    """

    dice: float
    planes: int
    dice_after: float


def expect(filled: Filled, drawn: np.ndarray, following: Plane | None) -> Expectation | None:
    """The calibrated expectation.

    It holds for one structure, nearly all of it in one piece, that was outlined without a prediction, whose
    probabilities would depend on the model.

    Args:
        filled: The fill of the scan.
        drawn: Voxels that count as drawn ``[k, j, i]``.
        following: What ``next_plane`` says; None: no plane is left.

    Returns:
        None where the calibration does not hold.
    """
    if filled.trust is not None or len(filled.parts) != 1:
        return None
    box, _ = filled.parts[0]
    if sum(map(len, drawn_planes(drawn[box]))) < LEAST_PLANES:
        return None
    pieces, count = ndimage.label(filled.labels[box] > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    if sizes.max(initial=0) < max(1, ONE_PIECE * sizes.sum()):
        return None
    missing = 1 - filled.expected_dice()
    settled = following.settles if following is not None else 0.0
    planes = 0
    while planes < _MOST and SLOPE * missing * (1 - settled) ** planes * settled >= WORTH:
        planes += 1
    now, after = (min(INTERCEPT + SLOPE * (1 - missing * (1 - settled) ** n), 1.0) for n in (0, planes))
    return Expectation(now, planes, after)
