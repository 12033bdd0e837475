# SPDX-License-Identifier: Apache-2.0
"""What the maps of a prediction keep, and what they take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl.inference.maps import ModelMaps
from barl.inference.predictor import Predictor
from barl.inference.sliding_window import Slab
from test_inference_predictor import SPEC, BlobFinder, make_card, simulate

SHAPE = (4, 6, 5)


def maps_of(**keep: bool) -> ModelMaps:
    """Maps of two branches that agree, three classes."""
    logits = torch.randn((1, 2, *SHAPE), generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1, 1)
    maps = ModelMaps(SHAPE, 3, 2, per_network=2, **keep)
    maps.add(Slab(0, logits), (slice(0, 4), slice(0, 6), slice(0, 5)))
    return maps


@pytest.mark.parametrize(
    ("keep", "bytes_of_a_voxel"),
    [({}, 3), ({"keep_classes": False}, 3), ({"keep_probabilities": True}, 7), ({"keep_components": True}, 5)],
)
def test_what_a_voxel_takes(keep, bytes_of_a_voxel):
    held = [array for array in vars(maps_of(**keep)).values() if isinstance(array, np.ndarray) and array.ndim >= 3]
    assert sum(array.nbytes for array in held) == bytes_of_a_voxel * np.prod(SHAPE)


def test_coarse_probabilities_are_the_fine_ones_rounded():
    coarse, fine = maps_of(keep_classes=False), maps_of(keep_probabilities=True)
    assert coarse.probabilities is not None and coarse.probabilities.dtype == np.uint8
    assert np.abs(coarse.probabilities / 255 - fine.kept_probabilities).max() < 0.5 / 255 + 0.001
    assert coarse.case_uncertainty() == fine.case_uncertainty()
    assert (coarse.branch_voxels == fine.branch_voxels).all()


def test_a_label_map_from_coarse_probabilities_is_that_from_fine_ones():
    image, _ = simulate(seed=9)
    card = replace(make_card(SPEC), spacing=tuple(0.7 * mm for mm in image.GetSpacing()))
    predictor = Predictor(card, BlobFinder(2.0), half=False)
    plain, asked = (
        sitk.GetArrayFromImage(predictor.predict([image], want_probabilities=want).label) for want in (False, True)
    )
    assert np.count_nonzero(plain) > 1000
    assert np.count_nonzero(plain != asked) <= np.count_nonzero(plain) / 1000


def test_the_likeliest_label_is_that_of_maps_with_classes():
    coarse, classes = maps_of(keep_classes=False), maps_of()
    assert coarse.candidates is None
    assert (1 + coarse.kept_labels.argmax(axis=0) == classes.kept_labels).mean() > 0.98  # but for ties within 1/255
