# SPDX-License-Identifier: Apache-2.0
"""Lesion-instance matching: each lesion of one branch finds its partner in the other and their features agree.

BARL states that instances are matched between the branches for fragmented pathologies (abstract); the rule is not
public. Our reconstruction: 26-connected components per class and item, one-to-one assignment that maximizes the
intersection over union (Hungarian), and the cross-masked prototypes of the region level for each matched pair,

    L_inst = mean over pairs (i, j) of  1 - cos( mean_{component i of M_S} f_T , mean_{component j of M_T} f_S ).

Option ``contrast``: InfoNCE with the other pairs of the batch as negatives, temperature 0.1.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from barl.images.components import components, match_components


def lesions(mask: np.ndarray, min_voxels: int, limit: int) -> tuple[np.ndarray, int]:
    """The largest 26-connected components of ``mask [k, j, i]``, numbered 1..n by falling size, and ``n``."""
    labeled, count = components(mask)
    sizes = np.bincount(labeled.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")[:limit]
    order = order[sizes[order] >= min_voxels]
    numbers = np.zeros(count + 1, dtype=np.int64)
    numbers[order + 1] = np.arange(1, len(order) + 1)
    return numbers[labeled], len(order)


def _component_means(features: Tensor, numbers: np.ndarray, count: int) -> Tensor:
    """Mean features ``[count, F]`` over components 1..count of one item, ``features [F, k, j, i]``."""
    inside = np.flatnonzero(numbers)
    index = torch.from_numpy(inside).to(features.device)
    owner = torch.from_numpy(numbers.ravel()[inside] - 1).to(features.device)
    values = features.flatten(1)[:, index].float()
    sums = values.new_zeros(features.shape[0], count).index_add(1, owner, values)
    sizes = torch.bincount(owner, minlength=count).clamp_min(1)
    return (sums / sizes).T


def matched_prototypes(
    features_s: Tensor,
    features_t: Tensor,
    classes_s: Tensor,
    classes_t: Tensor,
    *,
    min_voxels: int = 27,
    limit: int = 32,
    min_iou: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Cross-masked prototypes ``[pairs, F]`` of all matched lesions of a batch (see ``instance_alignment``)."""
    shape = tuple(classes_s.shape[1:])
    if features_s.shape[2:] != shape:
        features_s = F.interpolate(features_s, shape, mode="trilinear", align_corners=False)
        features_t = F.interpolate(features_t, shape, mode="trilinear", align_corners=False)
    maps_s, maps_t = classes_s.cpu().numpy(), classes_t.cpu().numpy()
    of_s, of_t = [], []
    for item in range(len(maps_s)):
        for value in np.intersect1d(maps_s[item], maps_t[item]):
            if value == 0:
                continue
            first, n_first = lesions(maps_s[item] == value, min_voxels, limit)
            second, n_second = lesions(maps_t[item] == value, min_voxels, limit)
            pairs = match_components(first, second, min_iou)
            if pairs:
                rows, columns = (torch.tensor(side, device=features_s.device) - 1 for side in zip(*pairs, strict=True))
                of_s.append(_component_means(features_t[item], first, n_first)[rows])
                of_t.append(_component_means(features_s[item], second, n_second)[columns])
    if not of_s:
        empty = features_s.new_zeros(0, features_s.shape[1])
        return empty, empty
    return torch.cat(of_s), torch.cat(of_t)


def instance_alignment(
    features_s: Tensor,
    features_t: Tensor,
    classes_s: Tensor,
    classes_t: Tensor,
    *,
    min_voxels: int = 27,
    limit: int = 32,
    min_iou: float = 0.1,
    contrast: bool = False,
    temperature: float = 0.1,
) -> Tensor:
    """Instance-level loss of two branches; zero when no pair is found.

    Args:
        features_s: Features of branch S ``[B, F, k, j, i]``.
        features_t: Features of branch T, same shape.
        classes_s: Hard labels of branch S ``[B, K, J, I]`` (class indices; ground truth on labeled items).
        classes_t: The same of branch T.
        min_voxels: Smaller components are no lesions.
        limit: At most so many largest components per item and class.
        min_iou: Pairs that overlap less are not matched; low, because early masks are rough.
        contrast: Add InfoNCE against the other pairs.
        temperature: Of InfoNCE.
    """
    of_s, of_t = matched_prototypes(
        features_s, features_t, classes_s, classes_t, min_voxels=min_voxels, limit=limit, min_iou=min_iou
    )
    if len(of_s) == 0:
        return (features_s.sum() + features_t.sum()) * 0.0
    loss = (1.0 - F.cosine_similarity(of_s, of_t, dim=1, eps=1e-6)).mean()
    if contrast and len(of_s) > 1:
        similarity = F.normalize(of_s, dim=1) @ F.normalize(of_t, dim=1).T / temperature
        own = torch.arange(len(of_s), device=similarity.device)
        loss = loss + 0.5 * (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own))
    return loss
