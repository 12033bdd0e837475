# SPDX-License-Identifier: Apache-2.0
"""Training with partial outlines: cache, patches, weights, validation and what is said about them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl import methods
from barl.errors import InputError
from barl.images.fingerprint import fingerprint_case
from barl.images.intensity import Normalization
from barl.images.preparation import PreparedScan
from barl.images.reading import read_channels
from barl.models.disk import load_model
from barl.networks.branches import build_network
from barl.project.labels import Label
from barl.training.cases import NOT_LOOKED_AT, CaseFiles, cache_cases
from barl.training.loop import train
from barl.training.patches import Patches, cut_patch
from barl.training.plan import Plan, make_plan
from barl.training.validation import validate
from safetensors.torch import load_file

SHAPE = (20, 24, 22)


def write(folder: Path, name: str, array: np.ndarray) -> Path:
    path = folder / f"{name}.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def a_study(tmp_path_factory) -> list[CaseFiles]:
    """Bright balls in noise: 2 outlined, 2 untouched, 1 held-out case; the mask of every fifth plane beside them."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    cases = []
    for n in range(5):
        distance = np.sqrt(((np.indices(SHAPE) - rng.uniform(8, 12, 3)[:, None, None, None]) ** 2).sum(0))
        label = (distance < 5).astype(np.uint8)
        image = write(folder, f"image_{n}", (label * 3 + rng.normal(0, 1, SHAPE) + 10).astype(np.float32))
        outline = write(folder, f"label_{n}", label * 3) if n in (0, 1, 4) else None
        cases.append(CaseFiles(f"case_{n}", [image], outline, held_out=n == 4))
    return cases


@pytest.fixture
def a_mask(tmp_path):
    """Writes a mask that is 1 in planes k."""

    def make(*planes: int) -> Path:
        mask = np.zeros(SHAPE, np.uint8)
        mask[list(planes)] = 1
        return write(tmp_path, "mask_" + "_".join(map(str, planes))[:40], mask)

    return make


@pytest.fixture(scope="module")
def a_plan(a_study) -> Plan:
    prints = [fingerprint_case(read_channels(case.images), None, [3]) for case in a_study]
    overrides = {"patch": [16, 16, 16], "widths": [4, 8], "iterations": 4, "precision": "float32", "validations": 0}
    overrides |= {"loader_workers": 0, "batch_labelled": 2, "batch_unlabelled": 2}
    return make_plan(prints, [Label(3, "Ball")], ["T1"], overrides=overrides)


def with_looked(case: CaseFiles, mask: Path) -> CaseFiles:
    return dataclasses.replace(case, looked=mask)


def weights_of(plan: Plan, method: str, cases: list[CaseFiles], folder: Path) -> dict[str, torch.Tensor]:
    network = dataclasses.replace(plan.network, **methods.get(method)().network_options())
    result = train(dataclasses.replace(plan, method=method, network=network), cases, folder)
    return load_file(result.model_folder / "weights.safetensors")


@pytest.mark.parametrize("method", ["barl", "dbisl", "supervised"])
def test_nothing_looked_at_is_untouched_and_everything_is_outlined_to_the_last_digit(
    a_study, a_plan, a_mask, tmp_path, method
):
    none, every = a_mask(), a_mask(*range(SHAPE[0]))
    expected = weights_of(a_plan, method, a_study, tmp_path / "expected")
    one, two, three, *rest = a_study
    masked = [with_looked(one, every), two, with_looked(dataclasses.replace(three, label=one.label), none), *rest]
    assert same(expected, weights_of(a_plan, method, masked, tmp_path / "masked"))
    partial = [with_looked(one, a_mask(8, 10)), two, three, *rest]
    assert not same(expected, weights_of(a_plan, method, partial, tmp_path / "partial"))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_plane_of_a_few_scans_teaches_and_the_model_says_so(a_study, a_plan, a_mask, tmp_path):
    one, two, *rest = a_study
    cases = [with_looked(one, a_mask(7, 10, 13)), with_looked(two, a_mask(8, 10)), *rest]
    plan = dataclasses.replace(a_plan, iterations=60, learning_rate=5e-3)
    result = train(plan, cases, tmp_path / "run")
    assert result.metrics["mean_dice"] > 0.7
    card, _ = load_model(result.model_folder)
    assert {**card.data, "familiar": None} == {
        "labelled": 2, "unlabelled": 2, "held_out": 1, "partial": 2, "familiar": None,
    }  # fmt: skip


def test_a_method_that_does_not_heed_partial_outlines_is_refused(a_study, a_plan, a_mask, tmp_path):
    cases = [with_looked(a_study[0], a_mask(10)), *a_study[1:]]
    with pytest.raises(InputError, match="DTC cannot learn from partial outlines"):
        weights_of(a_plan, "dtc", cases, tmp_path)


def test_the_cache_keeps_what_was_looked_at(a_study, a_plan, a_mask, tmp_path):
    cases = [with_looked(a_study[0], a_mask(10, 11)), a_study[0], with_looked(a_study[1], a_mask())]
    partial, whole, nothing = cache_cases(cases, a_plan, tmp_path)
    assert partial.is_partial and partial.looked_share == pytest.approx(0.1)
    assert len({case.folder for case in (partial, whole, nothing)}) == 3
    assert (whole.looked_share, whole.is_partial, whole.labelled) == (1.0, False, True)
    assert (nothing.looked_share, nothing.is_partial, nothing.labelled) == (0.0, False, False)
    looked = np.zeros(SHAPE, bool)
    looked[10:12] = True
    classes = partial.classes
    assert (classes[~looked] == NOT_LOOKED_AT).all() and (classes[looked] == whole.classes[looked]).all()
    assert set(partial.foreground[:, 1]) == {10, 11} and set(partial.foreground[:, 0]) == {1}
    assert set(partial.looked[:, 0]) == {10, 11}
    again = cache_cases(cases, a_plan, tmp_path)
    assert again == [partial, whole, nothing]


def test_patches_lie_on_what_was_looked_at_and_say_where_nobody_has(a_study, a_plan, a_mask, tmp_path):
    plan = dataclasses.replace(a_plan, rotate_degrees=(0.0, 0.0, 0.0), scale=1.0, mirror_axes=(), foreground=0.0)
    (case,) = cache_cases([with_looked(a_study[0], a_mask(2))], plan, tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(10):
        _, classes, _ = cut_patch(case, plan, rng, True)
        assert set(classes.unique().tolist()) <= {-1, 0, 1}
        (plane,) = np.unique(np.nonzero(classes.numpy() >= 0)[0])  # one plane of the patch, whole
        assert (classes[plane] >= 0).all() and plane == 2
    image, *nothing = cut_patch(case, plan, rng, False)
    assert nothing == [None, None] and image.shape == (1, 16, 16, 16)
    batch = Patches(plan, [case])[0]
    assert batch.n_labelled == 2 and batch.outlined().voxels is not None


@pytest.fixture
def a_filled_case(a_study, a_mask, tmp_path) -> CaseFiles:
    """Three planes looked at; the uncertainty of the rest rises from 0 to 1 along i."""
    rising = np.broadcast_to(np.linspace(0, 1, SHAPE[2], dtype=np.float32), SHAPE).copy()
    return dataclasses.replace(a_study[0], looked=a_mask(8, 10, 12), uncertainty=write(tmp_path, "unsure", rising))


def test_filled_voxels_are_cached_with_their_weight(a_filled_case, a_study, a_plan, tmp_path):
    whole, ignored = cache_cases([a_study[0], a_filled_case], a_plan, tmp_path)
    cached = {}
    for mode in ("hard", "weighted", "both"):
        (cached[mode],) = cache_cases([a_filled_case], dataclasses.replace(a_plan, filled=mode), tmp_path)
    assert not cached["hard"].is_partial and np.array_equal(cached["hard"].classes, whole.classes)
    assert cached["weighted"] == cached["both"] and cached["weighted"].fill_teaches and not ignored.fill_teaches
    assert np.array_equal(cached["weighted"].classes, whole.classes)
    trust, looked = cached["weighted"].trust, ignored.classes != NOT_LOOKED_AT
    assert (trust[looked] == 255).all() and trust[0, 0].tolist() == [round(255 * (1 - n / 21)) for n in range(22)]
    held_out = dataclasses.replace(a_filled_case, held_out=True)
    for mode in ("hard", "weighted"):  # judged by what was looked at
        (judging,) = cache_cases([held_out], dataclasses.replace(a_plan, filled=mode), tmp_path)
        assert np.array_equal(judging.classes, ignored.classes)


def test_batches_carry_the_weights_of_their_mode(a_filled_case, a_study, a_plan, tmp_path):
    for mode in ("weighted", "both"):
        plan = dataclasses.replace(a_plan, filled=mode)
        batch = Patches(plan, cache_cases([a_filled_case, *a_study[2:4]], plan, tmp_path))[0]
        outside = batch.label < 0  # of the scan
        assert outside.float().mean() < 0.2 and 0.2 < batch.trust[~outside].mean() < 0.9
        assert (batch.trust[outside] == 0).all() and (batch.unseen[outside] == 1).all()
        assert torch.equal(batch.unseen[~outside], (1 - batch.trust if mode == "both" else 0 * batch.trust)[~outside])
    assert Patches(a_plan, cache_cases([a_filled_case], a_plan, tmp_path))[0].trust is None


@pytest.mark.parametrize("mode", ["hard", "weighted", "both"])
def test_a_fill_without_uncertainty_teaches_only_if_it_is_taken_as_true(a_filled_case, a_study, a_plan, tmp_path, mode):
    bare = dataclasses.replace(a_filled_case, uncertainty=None)
    plan = dataclasses.replace(a_plan, filled=mode, iterations=3)
    result = train(plan, [bare, *a_study[1:]], tmp_path / "run")
    expected = train(
        dataclasses.replace(plan, filled="ignore"),
        [a_study[0] if mode == "hard" else bare, *a_study[1:]],
        tmp_path / "other",
    )
    assert same(*(load_file(done.model_folder / "weights.safetensors") for done in (result, expected)))


def test_a_word_that_is_no_mode_is_refused(a_study):
    prints = [fingerprint_case(read_channels(case.images), None, [3]) for case in a_study[:1]]
    with pytest.raises(InputError, match="filled cannot be 'soft'"):
        make_plan(prints, [Label(3, "Ball")], ["T1"], overrides={"filled": "soft"})


def test_outside_of_the_scan_nobody_has_looked(a_study, a_plan, a_mask, tmp_path):
    plan = dataclasses.replace(a_plan, rotate_degrees=(0.0,) * 3, scale=1.0, mirror_axes=(), patch=(32, 32, 32))
    partial, whole = cache_cases([with_looked(a_study[0], a_mask(*range(1, 20))), a_study[0]], plan, tmp_path)
    _, classes, _ = cut_patch(partial, plan, np.random.default_rng(0), True)
    assert int((classes >= 0).sum()) == 19 * 24 * 22
    _, classes, _ = cut_patch(whole, plan, np.random.default_rng(0), True)
    assert int((classes >= 0).sum()) == 32**3


def test_outside_of_the_scan_the_outline_goes_on_as_the_intensities_do(a_study, a_plan, tmp_path):
    """A scan thinner than the patch, with a structure in all of its slices: each repeated slice has its outline."""
    through = np.zeros(SHAPE, np.uint8)
    through[:, 8:16, 5:15] = 3
    case = dataclasses.replace(a_study[0], label=write(tmp_path, "through", through))
    (cached,) = cache_cases([case], a_plan, tmp_path / "cache")
    plan = dataclasses.replace(a_plan, rotate_degrees=(0.0,) * 3, scale=1.0, mirror_axes=(), patch=(36, 24, 22))
    image, classes, _ = cut_patch(cached, plan, np.random.default_rng(0), True)
    assert torch.equal(image[0, 0], image[0, 8])  # repeated
    assert np.array_equal(classes.numpy(), np.broadcast_to(through[0] > 0, (36, 24, 22)))


def test_a_held_out_case_is_judged_where_somebody_has_looked(a_study, a_plan, a_mask, tmp_path):
    held_out = dataclasses.replace(a_study[0], held_out=True)
    wrong = sitk.GetArrayFromImage(sitk.ReadImage(str(held_out.label)))
    wrong[:10] = 0  # nobody has looked there
    other = dataclasses.replace(held_out, label=write(tmp_path, "wrong", wrong))
    mask = a_mask(*range(10, 20))
    network = build_network(a_plan.network, 0)
    cached = cache_cases([with_looked(held_out, mask), with_looked(other, mask), held_out], a_plan, tmp_path / "cache")
    one, two, whole = (validate(network, [case], a_plan, torch.device("cpu"), None) for case in cached)
    assert one == two and one.dice != whole.dice
    assert one.temperature != whole.temperature


# The way to the model's grid


def scan_of(array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    return image


def to_network(label: np.ndarray, looked: np.ndarray, spacing, own=(1.0, 1.0, 1.0)) -> np.ndarray:
    scan = PreparedScan([scan_of(label.astype(np.float32), own)], [Normalization("none")], spacing)
    return scan.labels_to_network(scan_of(label, own), scan_of(looked.astype(np.uint8), own))


def test_labels_of_a_finer_grid_come_from_the_nearest_plane_that_was_looked_at():
    label = np.zeros((5, 6, 6), np.uint8)
    label[2, 2:4, 2:4] = 4
    looked = np.zeros(label.shape, bool)
    looked[2] = True
    label[~looked] = 7  # what was filled must have no part
    fine = to_network(label, looked, (1.0, 1.0, 1.0), own=(1.0, 1.0, 4.0))
    assert fine.shape == (20, 6, 6)
    assert [int(plane.max()) for plane in fine] == [-1] * 8 + [4] * 4 + [-1] * 8
    assert (fine[8:12] == np.where(label[2] == 4, 4, 0)).all()


@pytest.mark.parametrize("plane", range(12))
def test_no_plane_is_lost_on_a_coarser_grid(plane):
    label = np.zeros((12, 12, 12), np.uint8)
    label[plane, 2:8, 4:10] = 3
    looked = np.zeros(label.shape, bool)
    looked[plane] = True
    label[~looked] = 5
    coarse = to_network(label, looked, (2.5, 2.5, 2.5))
    found = np.unique(np.nonzero(coarse >= 0)[0])
    assert len(found) == 1 and abs((found[0] + 0.5) * 2.5 - (plane + 0.5)) <= 1.5 and (coarse[found[0]] >= 0).all()
    assert set(np.unique(coarse)) == {-1, 0, 3}


def test_a_small_part_that_was_looked_at_keeps_a_voxel():
    label = np.zeros((12, 12, 12), np.uint8)
    label[5, 5, 5] = 3
    label[1, 1, 1] = 3  # nobody has looked there
    looked = np.zeros(label.shape, bool)
    looked[4:8] = True
    coarse = to_network(label, looked, (3.0, 3.0, 3.0))
    assert (coarse == 3).sum() == 1 and (coarse >= 0).any() and (coarse == -1).any()


def test_where_everything_was_looked_at_it_is_the_whole_label_map():
    rng = np.random.default_rng(0)
    label = (rng.random((9, 10, 11)) > 0.7).astype(np.uint8) * 2
    whole = PreparedScan([scan_of(label.astype(np.float32))], [Normalization("none")], (1.3, 0.8, 2.0))
    expected = whole.labels_to_network(scan_of(label))
    assert (to_network(label, np.ones(label.shape, bool), (1.3, 0.8, 2.0)) == expected).mean() > 0.999
