# SPDX-License-Identifier: Apache-2.0
"""The way to the model's grid and back onto the scan's own: to the voxel, whatever the scan's axes."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations, product
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from barl.errors import InputError
from barl.images.geometry import Grid, Roi
from barl.images.intensity import Normalization
from barl.images.label_maps import read_label
from barl.images.preparation import PreparedScan, restore_label, restore_probabilities
from barl.images.reading import read_image
from scipy import ndimage
from scipy.spatial.transform import Rotation

ZSCORE, RAW = Normalization("zscore"), Normalization("none")
FORTY_EIGHT = list(product(permutations(range(3)), product((False, True), repeat=3)))
SPACING = (0.9, 1.1, 2.0)
COARSER = (1.2, 0.8, 1.5)


def rotated(image: sitk.Image, degrees: float) -> sitk.Image:
    """The same voxels, lying obliquely in the patient."""
    turn = Rotation.from_euler("xyz", (degrees, -degrees / 2, degrees), degrees=True).as_matrix()
    result = sitk.Image(image)
    result.SetDirection((turn @ np.reshape(image.GetDirection(), (3, 3))).ravel().tolist())
    return result


def permuted(image: sitk.Image, order: tuple[int, ...], flips: tuple[bool, ...]) -> sitk.Image:
    """The same voxels at the same places, stored in another order (SimpleITK's filters, not ours)."""
    return sitk.Flip(sitk.PermuteAxes(image, order), flips, flipAboutOrigin=False)


def prepare(channels, normalisations, spacing, orientation="LPS", roi=None, label=None) -> SimpleNamespace:
    """What a network gets of a case, all at once."""
    scan = PreparedScan(channels, normalisations, spacing, orientation, roi=roi)
    labels = None if label is None else scan.labels_to_network(label)
    return SimpleNamespace(array=scan.to_network(), label=labels, grid=scan.grid, scan_grid=scan.scan_grid)


@pytest.fixture(scope="module")
def case() -> tuple[sitk.Image, sitk.Image]:
    """A scan of smooth noise and a label map of two touching, asymmetric structures."""
    noise = np.random.default_rng(5).normal(size=(18, 26, 22))
    values = (1000 * ndimage.gaussian_filter(noise, 1.5)).astype(np.int16)
    k, j, i = np.indices(values.shape)
    inside = ((k - 8) / 5) ** 2 + ((j - 12) / 8) ** 2 + ((i - 9) / 6) ** 2 < 1
    labels = (inside * np.where(i + j > 24, 5, 2)).astype(np.uint8)
    grid = Grid(values.shape[::-1], SPACING, (-20.0, 14.0, 3.5), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    return grid.image(values), grid.image(labels)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def center(mask: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(mask))


@pytest.mark.parametrize("degrees", [0, 25, 45])
@pytest.mark.parametrize("spacing", [None, COARSER], ids=["own", "resampled"])
def test_every_orientation_gives_the_same_array_and_comes_back_to_its_own_voxels(case, degrees, spacing):
    image, label = (rotated(volume, degrees) for volume in case)
    truth = prepare([image], [ZSCORE], spacing, label=label)
    back = sitk.GetArrayFromImage(restore_label(truth.label, truth.grid, truth.scan_grid))
    original = sitk.GetArrayFromImage(label)
    if spacing is None:
        assert np.array_equal(back, original)
    for order, flips in FORTY_EIGHT:
        copy, copy_label = permuted(image, order, flips), permuted(label, order, flips)
        prepared = prepare([copy], [ZSCORE], spacing, label=copy_label)
        assert np.array_equal(prepared.array, truth.array)
        assert np.array_equal(prepared.label, truth.label)
        assert prepared.grid.matches(truth.grid, tolerance_mm=1e-6)
        restored = restore_label(prepared.label, prepared.grid, prepared.scan_grid)
        assert Grid.of(restored) == Grid.of(copy)
        expected = permuted(Grid.of(image).image(back), order, flips)
        assert np.array_equal(sitk.GetArrayFromImage(restored), sitk.GetArrayFromImage(expected))


def test_the_way_through_another_spacing_does_not_shift(case):
    image, label = (rotated(volume, 25) for volume in case)
    prepared = prepare([image], [ZSCORE], (0.6, 0.6, 0.6), "RAI", label=label)
    back = sitk.GetArrayFromImage(restore_label(prepared.label, prepared.grid, prepared.scan_grid))
    original = sitk.GetArrayFromImage(label)
    assert np.mean(back[original > 0] == original[original > 0]) >= 0.99
    for value in (2, 5):
        assert np.abs(center(back == value) - center(original == value)).max() < 0.05


def test_voxels_lie_where_the_grid_says():
    """A ramp in millimeters must be that ramp at the new voxels' positions.

    A widened kernel, sampled at the source's voxels, may miss by 5 % of a voxel along each axis: 0.2 on this ramp, on
    which a shift by half a voxel along one axis would make 0.75 or more.
    """
    grid = Grid((20, 16, 9), (1.0, 1.5, 3.0), (10.0, -40.0, 5.0), (0, 1.0, 0, -1.0, 0, 0, 0, 0, 1.0))
    position = grid.index_to_mm(np.stack(np.indices(grid.shape)[::-1], axis=-1))
    ramp = (position @ [1.0, -2.0, 0.5]).astype(np.float32)
    for spacing in ((0.7, 0.7, 2.0), (2.1, 1.9, 4.0)):
        prepared = prepare([grid.image(ramp)], [RAW], spacing)
        found = prepared.grid.index_to_mm(np.stack(np.indices(prepared.grid.shape)[::-1], axis=-1)) @ [1.0, -2.0, 0.5]
        inner = tuple(slice(3, -3) if n > 8 else slice(2, -2) for n in prepared.grid.shape)
        assert prepared.array[0][inner] == pytest.approx(found[inner], abs=0.2)
        # And back again.
        back = np.concatenate([s for _, s in restore_probabilities(prepared.array, prepared.grid, grid)], axis=1)[0]
        assert back[3:-3, 4:-4, 6:-6] == pytest.approx(ramp[3:-3, 4:-4, 6:-6], abs=0.2)


def test_down_sampling_does_not_alias():
    """Stripes of one voxel become their mean, not a pattern."""
    stripes = np.zeros((8, 64, 64), dtype=np.float32)
    stripes[:, :, ::2] = 1
    grid = Grid((64, 64, 8), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    array = prepare([grid.image(stripes)], [RAW], (3.1, 1.0, 1.0)).array[0]
    assert np.abs(array[:, :, 1:-1] - 0.5).max() < 0.03


def test_spacings_within_a_percent_are_not_resampled(case):
    image, _ = case
    prepared = prepare([image], [RAW], tuple(0.995 * s for s in SPACING))
    assert np.array_equal(prepared.array[0], sitk.GetArrayFromImage(image))
    assert prepared.grid.spacing == SPACING
    assert prepare([image], [RAW], tuple(0.98 * s for s in SPACING)).grid.spacing != SPACING


def test_a_coarse_array_covers_the_whole_scan(case):
    """Rounding the size must not leave the scan's border without a result."""
    image, _ = case
    for spacing in ((5.3, 5.3, 5.3), (40.0, 40.0, 40.0), (0.31, 7.0, 1.9)):
        prepared = prepare([image], [RAW], spacing)
        full = np.full(prepared.grid.shape, 3, dtype=np.uint8)
        assert (sitk.GetArrayFromImage(restore_label(full, prepared.grid, prepared.scan_grid)) == 3).all()


@pytest.mark.parametrize("spacing", [None, COARSER], ids=["own", "resampled"])
def test_a_region_of_interest_is_the_same_part_of_the_whole(case, spacing):
    image, label = (permuted(rotated(volume, 25), (2, 0, 1), (True, False, True)) for volume in case)
    grid = Grid.of(image)
    roi = Roi(tuple(grid.index_to_mm(np.array(grid.size) / 2).tolist()), (6.0, 5.0, 7.0))
    whole = prepare([image], [ZSCORE], spacing, label=label)
    part = prepare([image], [ZSCORE], spacing, roi=roi, label=label)
    start, stop = roi.along(grid).box(whole.grid)
    box = tuple(slice(a, b) for a, b in zip(start[::-1], stop[::-1], strict=True))
    assert part.array[0] == pytest.approx(whole.array[0][box], abs=1e-5)
    assert np.array_equal(part.label, whole.label[box])
    assert part.array.size < whole.array.size / 3

    restored = sitk.GetArrayFromImage(restore_label(np.full(part.grid.shape, 9), part.grid, part.scan_grid)) == 9
    first, last = roi.box(grid)
    wanted = np.zeros(grid.shape, dtype=bool)
    wanted[tuple(slice(a, b) for a, b in zip(first[::-1], last[::-1], strict=True))] = True
    assert not (wanted & ~restored).any()
    # Beyond the box at most one model voxel on either side; nothing elsewhere.
    grown = ndimage.binary_dilation(wanted, iterations=1 if spacing is None else 2, structure=np.ones((3, 3, 3)))
    assert not (restored & ~grown).any()


def test_probabilities_come_back_like_labels_and_as_whole_slabs(case):
    image, label = (permuted(rotated(volume, 25), (1, 2, 0), (False, True, True)) for volume in case)
    prepared = prepare([image], [ZSCORE], COARSER, label=label)
    shares = np.stack([prepared.label == value for value in (0, 2, 5)]).astype(np.float16)
    slabs = list(restore_probabilities(shares, prepared.grid, prepared.scan_grid))
    rows = [row for part, _ in slabs for row in range(part.start, part.stop)]
    assert rows == list(range(Grid.of(image).shape[0]))
    back = np.concatenate([slab for _, slab in slabs], axis=1)
    assert back.dtype == np.float32
    assert back.sum(axis=0) == pytest.approx(np.ones(Grid.of(image).shape), abs=1e-4)
    from_labels = sitk.GetArrayFromImage(restore_label(prepared.label, prepared.grid, prepared.scan_grid))
    assert np.mean(np.array([0, 2, 5])[back.argmax(axis=0)] == from_labels) > 0.999


def test_probabilities_of_a_region_are_zero_outside_and_cover_the_scan(case):
    image, _ = case
    grid = Grid.of(image)
    roi = Roi(tuple(grid.index_to_mm((10, 12, 9)).tolist()), (4.0, 4.0, 4.0))
    prepared = prepare([image], [ZSCORE], None, roi=roi)
    ones = np.ones((1, *prepared.grid.shape), dtype=np.float32)
    back = np.concatenate([s for _, s in restore_probabilities(ones, prepared.grid, prepared.scan_grid)], axis=1)[0]
    assert back.shape == grid.shape
    assert back.sum() == prepared.array[0].size


def test_labels_keep_their_values(case):
    image, label = case
    values = sitk.GetArrayFromImage(label).astype(np.uint16) * 13000
    large = Grid.of(label).image(values)
    prepared = prepare([image], [RAW], COARSER, label=large)
    assert set(np.unique(prepared.label)) == {0, 26000, 65000}
    restored = restore_label(prepared.label, prepared.grid, prepared.scan_grid)
    assert restored.GetPixelID() == sitk.sitkUInt16
    assert set(np.unique(sitk.GetArrayFromImage(restored))) == {0, 26000, 65000}
    assert prepare([image], [RAW], None, label=label).label.dtype == np.int16


def test_an_empty_label_map_stays_empty(case):
    image, label = case
    prepared = prepare([image], [RAW], COARSER, label=label * 0)
    assert not prepared.label.any()
    assert not sitk.GetArrayFromImage(restore_label(prepared.label, prepared.grid, prepared.scan_grid)).any()


def test_what_does_not_fit_is_refused(case):
    image, label = case
    shifted = sitk.Image(label)
    shifted.SetOrigin((0.0, 0.0, 0.0))
    for call, match in (
        (lambda: prepare([image], [RAW, RAW], None), "1 channel"),
        (lambda: prepare([image], [RAW], None, label=shifted), "different grids"),
        (lambda: prepare([image, shifted], [RAW, RAW], None), "different grids"),
        (lambda: prepare([image], [RAW], (1.0, 0.0, 1.0)), "three positive"),
        (lambda: prepare([image], [RAW], (1.0, 1.0)), "three positive"),
        (lambda: prepare([image], [RAW], None, roi=Roi((900.0, 0.0, 0.0), (1.0, 1.0, 1.0))), "outside"),
    ):
        with pytest.raises(InputError, match=match) as caught:
            call()
        assert caught.value.remedy


def test_an_oblique_flipped_copy_of_a_real_case(data_dir):
    folder = data_dir / "hippocampus"
    image = read_image(folder / "images" / "hippocampus_001.nii.gz")
    label = read_label(folder / "labels" / "hippocampus_001.nii.gz", Grid.of(image), (1, 2))
    prepared = prepare([image], [ZSCORE], (0.8, 0.8, 1.6), label=label)
    back = sitk.GetArrayFromImage(restore_label(prepared.label, prepared.grid, prepared.scan_grid))
    copy, copy_label = (permuted(rotated(v, 20), (2, 1, 0), (True, False, True)) for v in (image, label))
    other = prepare([copy], [ZSCORE], (0.8, 0.8, 1.6), label=copy_label)
    restored = restore_label(other.label, other.grid, other.scan_grid)
    # Turned back into the original's axis order, the copy's result is the original's.
    again = sitk.PermuteAxes(sitk.Flip(restored, (True, False, True), flipAboutOrigin=False), (2, 1, 0))
    found = sitk.GetArrayFromImage(again)
    foreground = (found > 0) | (back > 0)
    assert np.mean(found[foreground] == back[foreground]) >= 0.99
    truth = sitk.GetArrayFromImage(label)
    for value in (1, 2):
        assert dice(found == value, truth == value) > 0.95
        assert np.abs(center(found == value) - center(truth == value)).max() < 0.2


def test_an_anisotropic_oblique_real_case(data_dir):
    """BONBID-HIE: real rotation matrices, thick slices, lesions of a few voxels."""
    for path in sorted((data_dir / "bonbid_hie" / "images").glob("*.nii.gz"))[:12:4]:
        image = read_image(path)
        label = read_label(data_dir / "bonbid_hie" / "labels" / path.name, Grid.of(image), (1,))
        prepared = prepare([image], [Normalization("zscore_nonzero")], None, label=label)
        restored = restore_label(prepared.label, prepared.grid, prepared.scan_grid)
        assert np.array_equal(sitk.GetArrayFromImage(restored), sitk.GetArrayFromImage(label))
        assert Grid.of(restored) == Grid.of(image)


@pytest.mark.parametrize("flips", list(product((False, True), repeat=3)))
def test_lesions_smaller_than_a_voxel_of_the_model_keep_one(flips):
    """Two of three lesions would vanish; each keeps the voxel nearest to it, in any order of the axes."""
    label = np.zeros((24, 24, 24), np.uint8)
    label[3, 4, 5], label[10:12, 17, 8], label[14:20, 3:9, 14:20] = 1, 2, 2
    grid = Grid((24, 24, 24), (0.7, 0.7, 0.7), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    image = sitk.Flip(grid.image(label), flips, flipAboutOrigin=False)
    scan = PreparedScan([image], [RAW], (2.0, 2.0, 2.0))
    labels = scan.labels_to_network(image)
    assert scan.kept_small == {1: 1, 2: 1}
    for value, kji in ((1, (3, 4, 5)), (2, (10.5, 17, 8))):
        voxels = np.argwhere(labels == value)
        places = scan.grid.index_to_mm(voxels[:, ::-1])
        wanted = grid.index_to_mm(np.array(kji)[::-1])
        assert np.abs(places - wanted).max(axis=1).min() <= 1.0 + 1e-6
    assert (labels == 1).sum() == 1
    scan.labels_to_network(image * 0)
    assert scan.kept_small == {}
    fine = PreparedScan([image], [RAW], (0.7, 0.7, 0.7))
    assert (fine.labels_to_network(image) > 0).sum() == (label > 0).sum() and fine.kept_small == {}


WHOLE_SCAN = """
import resource, sys
import numpy as np, SimpleITK as sitk
from barl.images.intensity import Normalization
from barl.images.preparation import PreparedScan
image = sitk.GaussianSource(sitk.sitkInt16, (512, 512, 600), (100.0,) * 3, (250.0,) * 3, 900.0)
image.SetSpacing((0.7, 0.7, 0.8))
image.SetDirection((0.8, -0.6, 0, -0.6, -0.8, 0, 0, 0, 1))
for spacing in (None, (0.75, 0.75, 0.75)):
    scan = PreparedScan([image], [Normalization("zscore")], spacing)
    array = scan.to_network()
    label = (array[0] > 0).astype(np.uint8)
    restored = scan.restore_label(label)
    scan.restore(array, lambda slab: slab[0] > 0, np.uint8)
    del array, label, restored
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_on_a_whole_scan():
    """512 x 512 x 600 there and back: the scan, its float32 array, label maps, and a few slabs."""
    done = subprocess.run([sys.executable, "-c", WHOLE_SCAN], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2048
