# SPDX-License-Identifier: Apache-2.0
"""A scan unlike those that a model has learned from is noticed; one like them is not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from barl.images.familiarity import Familiar
from barl.images.fingerprint import fingerprint_case
from barl.images.geometry import Grid, Roi
from barl.images.intensity import Normalization

CT, MR = [Normalization("ct_window", -100.0, 300.0, 40.0, 60.0)], [Normalization("zscore")]
SCALES = {
    "0 to 1": lambda hu: (hu + 1000.0) / 3000.0,
    "0 to 255": lambda hu: (hu + 1000.0) / 3000.0 * 255,
    "without the offset": lambda hu: hu + 1024,
    "windowed to 0 to 100": lambda hu: np.clip(hu, 0, 100),
}


def ct(seed: int, spacing=(0.8, 0.8, 2.0), shape=(40, 64, 64), scale=lambda hu: hu) -> sitk.Image:
    """Air around a body of fat, soft tissue and some bone, in Hounsfield units."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices(shape)
    radius = np.hypot((j - shape[1] / 2) / shape[1], (i - shape[2] / 2) / shape[2])
    values = np.where(radius < 0.4, np.where(radius < 0.3, 45.0, -90.0), -1000.0) + rng.normal(0, 12, shape)
    values[(radius < 0.08) & (k > 5)] += 700
    image = sitk.GetImageFromArray(scale(values).astype(np.float32))
    image.SetSpacing(spacing)
    return image


@pytest.fixture(scope="module")
def familiar() -> Familiar:
    scans = [ct(0), ct(1, (0.7, 0.7, 1.5)), ct(2, (0.9, 0.9, 2.5))]
    found = Familiar.of([fingerprint_case([scan], None, []) for scan in scans])
    assert Familiar.from_json(json.loads(json.dumps(found.to_json()))) == found
    return found


def test_another_scan_of_the_kind_is_familiar_whatever_its_axes(familiar):
    scan = ct(3, (0.75, 0.75, 2.2))
    assert familiar.differences([scan], CT) == []
    assert familiar.differences([sitk.PermuteAxes(scan, (2, 0, 1))], CT) == []
    assert familiar.differences([sitk.Flip(scan, (True, False, True))], CT) == []
    less_air = scan[8:56, 8:56, :]
    assert familiar.differences([less_air], CT) == []


def test_a_field_of_view_that_is_turned_is_familiar():
    axial, coronal = (sitk.GetImageFromArray(np.ones(shape, np.float32)) for shape in ((12, 26, 26), (26, 12, 26)))
    familiar = Familiar.of([fingerprint_case([axial], None, [])])
    assert familiar.differences([coronal], MR) == []
    for far in ((26, 26, 60), (26, 5, 26)):
        assert len(familiar.differences([sitk.GetImageFromArray(np.ones(far, np.float32))], MR)) == 1


@pytest.mark.parametrize("name", SCALES)
def test_a_rescaled_ct_is_noticed_and_a_rescaled_mr_is_none(familiar, name):
    scan = ct(3, scale=SCALES[name])
    (sentence,) = familiar.differences([scan], CT)
    assert sentence.startswith("its intensities reach from ") and "learned from: -1" in sentence
    assert familiar.differences([scan], MR) == []


def test_a_ct_is_unlike_the_mr_that_a_model_has_learned_from_and_a_centered_mr_is_not():
    mr = [ct(seed, scale=SCALES["0 to 255"]) for seed in range(3)]
    familiar = Familiar.of([fingerprint_case([scan], None, []) for scan in mr])
    (sentence,) = familiar.differences([ct(3)], MR)
    assert sentence.startswith("it looks like CT (learned from: intensities from ")
    assert familiar.differences([ct(3, scale=SCALES["0 to 1"])], MR) == []
    assert familiar.differences([ct(3, scale=lambda hu: (hu + 300) / 400)], MR) == []


def test_another_part_of_the_body_is_noticed_by_its_size_and_voxels(familiar):
    (sentence,) = familiar.differences([ct(3, (0.8, 0.8, 8.0))[:, :, :10]], CT)
    assert sentence.startswith(
        "its voxels measure 0.8 x 0.8 x 8 mm from left to right, front to back and head to foot (learned from: 0.7 x "
    )
    (sentence,) = familiar.differences([ct(3, (2.4, 2.4, 2.4))[:50, :50, :]], MR)[1:]
    assert sentence.startswith("it measures 120 x 120 x 96 mm")
    (sentence,) = familiar.differences([ct(3)[20:40, 20:40, :]], MR)
    assert sentence.startswith("it measures 16 x 16 x 80 mm")
    whole = ct(3, (0.9, 0.9, 2.4), (160, 160, 160))
    assert len(familiar.differences([whole], CT)) == 1
    center = Grid.of(whole).index_to_mm((80, 80, 80))
    assert familiar.differences([whole], CT, Roi(tuple(center.tolist()), (25.0, 25.0, 40.0))) == []


def test_slices_of_another_direction_are_named():
    axial, coronal = (sitk.GetImageFromArray(np.ones(shape, np.float32)) for shape in ((12, 60, 60), (60, 12, 60)))
    axial.SetSpacing((1.0, 1.0, 5.0))
    coronal.SetSpacing((1.0, 5.0, 1.0))
    (sentence,) = Familiar.of([fingerprint_case([axial], None, [])]).differences([coronal], MR)
    assert sentence == (
        "its slices lie in another direction: its voxels measure 1 x 5 x 1 mm from left to right, front to back and "
        "head to foot (learned from: 1 x 1 x 5 to 1 x 1 x 5)"
    )


@pytest.mark.parametrize("values", [None, {}, {"spacing": []}, {"spacing": [[1, 2]], "extent": 3, "intensities": []}])
def test_a_card_without_ranges_warns_of_nothing(values):
    assert Familiar.from_json(values) is None
