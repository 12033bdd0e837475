# SPDX-License-Identifier: Apache-2.0
"""The four figures of this field's tables (Dice, Jaccard, 95HD, ASD), as its code computes them, in voxels.

The distances differ a little from ``barl.evaluation.metrics``: the 95th percentile is that of both directions pooled,
and ASD is the mean from the prediction's surface to the truth's alone. Of an empty prediction the field's code counts
both distances as 0; here they are left out.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def field_metrics(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """``dice``, ``jaccard`` and, where both masks ``[k, j, i]`` have voxels, ``hd95`` and ``asd``."""
    sizes, both = int(prediction.sum() + truth.sum()), int((prediction & truth).sum())
    if not sizes:
        return {}
    scores = {"dice": 2 * both / sizes, "jaccard": both / (sizes - both)}
    if prediction.any() and truth.any():
        one, two = _surface(prediction), _surface(truth)
        there, back = ndimage.distance_transform_edt(~two)[one], ndimage.distance_transform_edt(~one)[two]
        scores["hd95"] = float(np.percentile(np.concatenate([there, back]), 95))
        scores["asd"] = float(there.mean())
    return scores


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)
