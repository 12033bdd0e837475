# SPDX-License-Identifier: Apache-2.0
"""Simulated cases: fragmented, plausible, the same for the same seed, and made without a network."""

from __future__ import annotations

import socket
import sys
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.images.components import components
from barl.images.geometry import Grid
from barl.images.intensity import ImageStatistics
from barl.images.label_maps import read_label
from barl.images.reading import read_image
from barl.progress import Progress
from scipy import ndimage

N_CASES, SEED = 4, 3


@pytest.fixture(scope="module")
def simulate():
    pytest.importorskip("nilearn", reason="nilearn, which carries the MNI152 scan, is not installed")
    from barl.demo import simulate

    return simulate


@pytest.fixture(scope="module")
def cases(simulate, tmp_path_factory):
    """(image, label) arrays [k, j, i], written and read again with the network switched off."""

    def no_network(*_, **__):
        raise AssertionError("simulating cases asked for the network")

    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", no_network)
        patch.setattr(socket, "getaddrinfo", no_network)
        paths = simulate.simulate_cases(tmp_path_factory.mktemp("simulated"), N_CASES, SEED, Progress(told.append))
    fractions = [event["fraction"] for event in told]
    assert fractions == sorted(fractions) and set(fractions) == {0, 0.25, 0.5, 0.75, 1}
    arrays = []
    for image_path, label_path in paths:
        image = read_image(image_path)
        label = read_label(label_path, Grid.of(image), [simulate.LESION])
        assert Grid.of(image).matches(simulate.GRID)
        arrays.append((sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(label)))
    return arrays


def test_files_are_called_simulated(simulate, tmp_path):
    (paths,) = simulate.simulate_cases(tmp_path, 1, 0)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "images/simulated_001.nii.gz",
        "labels/simulated_001.nii.gz",
    ]


def test_lesions_are_many_small_and_apart(simulate, cases):
    counts = []
    for _, label in cases:
        numbered, n = components(label > 0)
        ml = np.bincount(numbered.ravel())[1:] * simulate.GRID.voxel_ml
        assert simulate.FEWEST <= n <= simulate.MOST
        assert ml.min() >= simulate.SMALLEST_ML
        assert ml.max() <= simulate.LARGEST_ML
        counts.append(n)
    assert len(set(counts)) > 1


def test_lesions_are_darker_than_the_white_matter_around_but_no_threshold_finds_them(cases):
    for image, label in cases:
        lesion = label > 0
        around = ndimage.binary_dilation(lesion, iterations=3) & ~ndimage.binary_dilation(lesion) & (image > 0)
        assert image[lesion].mean() < 0.9 * np.median(image[around])
        as_dark = (image > 0) & (image < np.percentile(image[lesion], 90))
        assert as_dark.sum() > 20 * lesion.sum()


def test_images_look_like_skull_stripped_mr(cases):
    for image, _ in cases:
        statistics = ImageStatistics.of(image)
        assert not statistics.looks_like_ct
        assert statistics.minimum >= 0
        assert 0.3 < statistics.zero_share < 0.6


def test_cases_differ_in_shape_and_brightness(cases):
    brains = [image > 0 for image, _ in cases]
    for first, second in pairwise(brains):
        overlap = 2 * (first & second).sum() / (first.sum() + second.sum())
        assert 0.7 < overlap < 0.99
    medians = [np.median(image[image > 0]) for image, _ in cases]
    assert max(medians) > 1.2 * min(medians)


def test_same_seed_same_cases(simulate, cases):
    for number in (0, N_CASES - 1):
        again = [sitk.GetArrayFromImage(part) for part in simulate.simulate_case(np.random.default_rng([SEED, number]))]
        for first, second in zip(again, cases[number], strict=True):
            np.testing.assert_array_equal(first, second)
    other = sitk.GetArrayFromImage(simulate.simulate_case(np.random.default_rng([SEED + 1, 0]))[1])
    assert (other != cases[0][1]).any()


def test_without_nilearn_one_sentence_and_a_remedy(simulate, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    simulate._template.cache_clear()
    with pytest.raises(InputError, match="nilearn") as caught:
        simulate.simulate_case(np.random.default_rng(0))
    assert "pip install nilearn" in caught.value.remedy
