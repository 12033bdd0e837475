# SPDX-License-Identifier: Apache-2.0
"""Normalization follows from the data, and a case's fingerprint says what the data are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.images.fingerprint import CaseFingerprint, fingerprint_case
from barl.images.geometry import Grid
from barl.images.intensity import ImageStatistics, Normalization, choose_normalization
from barl.images.label_maps import read_label
from barl.images.reading import read_image

RANDOM = np.random.default_rng(7)


def ct_like(organ: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Air around a body of soft tissue with an organ in it."""
    scan = np.full((20, 30, 30), -1000.0)
    scan[2:-2, 5:-5, 5:-5] = 0.0
    mask = np.zeros(scan.shape, dtype=bool)
    mask[5:15, 10:20, 10:20] = True
    scan[mask] = organ
    return np.round(scan + RANDOM.normal(0, 10, scan.shape)).astype(np.int16), mask


def test_ct_gets_a_fixed_window_from_its_structures():
    samples = [ImageStatistics.of(*ct_like(organ)) for organ in (60.0, 100.0)]
    chosen = choose_normalization(samples)
    assert chosen.scheme == "ct_window"
    assert chosen.low == pytest.approx(60 - 2.3 * 10, abs=6)
    assert chosen.high == pytest.approx(100 + 2.3 * 10, abs=6)
    assert chosen.mean == pytest.approx(80, abs=1)
    assert chosen.sd == pytest.approx(np.hypot(20, 10), abs=1)
    # The same number for the same Hounsfield unit in every scan, cut at the window.
    values = np.array([[[-1000, 80, 3000]]], dtype=np.int16)
    result = chosen.apply(values)
    assert result.dtype == np.float32
    expected = [(chosen.low - chosen.mean) / chosen.sd, (80 - chosen.mean) / chosen.sd]
    assert result[0, 0, :2] == pytest.approx(expected, rel=1e-5)
    assert result[0, 0, 2] == pytest.approx((chosen.high - chosen.mean) / chosen.sd, rel=1e-5)


def test_ct_without_outlines_takes_the_body():
    chosen = choose_normalization([ImageStatistics.of(ct_like()[0])])
    assert chosen.scheme == "ct_window"
    assert chosen.low > -100


def test_one_scan_that_is_no_ct_makes_it_no_ct():
    mr = ImageStatistics.of(RANDOM.gamma(2.0, 200.0, (20, 20, 20)).astype(np.float32))
    assert choose_normalization([ImageStatistics.of(ct_like()[0]), mr]).scheme == "zscore"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_mr_is_the_same_at_every_scale(scale):
    scan = RANDOM.gamma(2.0, 200.0, (20, 20, 20))
    reference = Normalization("zscore").apply(scan)
    result = Normalization("zscore").apply((scan * scale).astype(np.float32))
    assert result == pytest.approx(reference, abs=1e-4)
    assert result.mean() == pytest.approx(0, abs=1e-5)
    assert result.std() == pytest.approx(1, abs=1e-5)


def test_a_few_bright_voxels_do_not_matter():
    scan = RANDOM.normal(100, 10, (30, 30, 30)).astype(np.float32)
    bright = scan.copy()
    bright[0, 0, :20] = 1e7
    difference = Normalization("zscore").apply(bright) - Normalization("zscore").apply(scan)
    assert np.abs(difference[1:]).max() < 0.05


def test_a_stripped_background_does_not_enter_the_statistics():
    scan = np.zeros((20, 20, 20), dtype=np.float32)
    scan[5:15, 5:15, 5:15] = RANDOM.normal(500, 20, (10, 10, 10))
    chosen = choose_normalization([ImageStatistics.of(scan)])
    assert chosen == Normalization("zscore_nonzero")
    brain = chosen.apply(scan)[5:15, 5:15, 5:15]
    assert brain.mean() == pytest.approx(0, abs=1e-4)
    assert brain.std() == pytest.approx(1, abs=1e-3)
    # The background is as dark as the darkest tissue, no darker.
    assert chosen.apply(scan).min() == pytest.approx(brain.min())


def test_flat_and_empty_images_become_zeros():
    for scheme in ("zscore", "zscore_nonzero"):
        for value in (0, 7):
            assert not Normalization(scheme).apply(np.full((4, 4, 4), value, dtype=np.int16)).any()


def test_a_fitted_normalization_holds_for_any_part():
    scan = RANDOM.gamma(2.0, 200.0, (20, 20, 20)).astype(np.float32)
    fitted = Normalization("zscore").fitted(scan)
    assert np.array_equal(fitted.apply(scan[3:5]), Normalization("zscore").apply(scan)[3:5])


def test_json_and_bad_input():
    chosen = Normalization("ct_window", -50.0, 150.0, 40.0, 30.0)
    assert Normalization.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen
    assert np.array_equal(Normalization("none").apply(np.arange(8, dtype=np.int16).reshape(2, 2, 2)).ravel(), range(8))
    with pytest.raises(InputError, match="'minmax' is not a normalization"):
        Normalization("minmax")
    with pytest.raises(InputError, match="no scan"):
        choose_normalization([])


def test_fingerprint_of_a_made_case():
    grid = Grid((30, 30, 20), (0.5, 0.5, 2.0), (0.0, 0.0, 0.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    scan, mask = ct_like()
    label = np.where(mask, 3, 0).astype(np.uint8)
    label[1, 1, 1] = label[2, 2, 2] = 8  # touching at a corner: one component
    label[18, 25, 25] = 8
    case = fingerprint_case([grid.image(scan)], grid.image(label), (3, 8, 11))
    assert (case.size, case.spacing, case.orientation) == (grid.size, grid.spacing, "RAS")
    assert (case.labels[3].voxels, case.labels[3].components) == (1000, 1)
    assert case.labels[3].ml == pytest.approx(1000 * 0.5e-3)
    assert (case.labels[8].voxels, case.labels[8].components) == (3, 2)
    assert (case.labels[11].voxels, case.labels[11].ml, case.labels[11].components) == (0, 0.0, 0)
    assert case.channels[0].integral
    assert CaseFingerprint.from_json(json.loads(json.dumps(case.to_json()))) == case

    unlabelled = fingerprint_case([grid.image(scan)], None, (3, 8))
    assert unlabelled.labels == {} and unlabelled.channels[0].foreground_quantiles == ()
    with pytest.raises(InputError, match="not on the grid"):
        fingerprint_case([grid.image(scan)], sitk.GetImageFromArray(label), (3,))


@pytest.mark.parametrize(
    ("pattern", "scheme"),
    [
        ("hippocampus/images/*1.nii.gz", "zscore"),
        ("bonbid_hie/images/*.nii.gz", "zscore_nonzero"),  # whole numbers with some voxels near -1000
        ("sts_pet/images/*.nii.gz", "zscore"),
        ("fullsize/ct_cranium/images/*.nii.gz", "ct_window"),
    ],
)
def test_the_scheme_of_real_scans(data_dir, pattern, scheme):
    paths = sorted(data_dir.glob(pattern))[:12]
    assert paths
    samples = [ImageStatistics.of(sitk.GetArrayFromImage(read_image(path))) for path in paths]
    assert choose_normalization(samples).scheme == scheme


def test_fingerprint_of_a_real_case(data_dir):
    image = read_image(data_dir / "hippocampus" / "images" / "hippocampus_004.nii.gz")
    label = read_label(data_dir / "hippocampus" / "labels" / "hippocampus_004.nii.gz", Grid.of(image), (1, 2))
    case = fingerprint_case([image], label, (1, 2))
    assert case.orientation == "RAS"
    assert all(1000 < case.labels[value].voxels < 2600 for value in (1, 2))
