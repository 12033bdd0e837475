# SPDX-License-Identifier: Apache-2.0
"""From a scan to labels on its own grid: geometry, regions, memory, and the device."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from barl.errors import Cancelled, DeviceError, InputError, ModelError, is_out_of_memory
from barl.images.familiarity import Familiar
from barl.images.fingerprint import fingerprint_case
from barl.images.geometry import Grid, Roi
from barl.images.intensity import Normalization
from barl.inference.device import autocast_dtype, choose_device
from barl.inference.predictor import Predictor
from barl.inference.sliding_window import predict_array
from barl.jobs.failures import explain
from barl.models.disk import save_model
from barl.networks.branches import NetworkSpec, build_network
from barl.progress import Progress
from barl.project.labels import Label
from barl.project.model_card import ModelCard
from barl.torch_support import slow_in_half_precision
from scipy import ndimage
from torch import nn

VALUES = (3, 8)


def make_card(spec: NetworkSpec, patch=(32, 32, 32), spacing=(1.0, 1.0, 1.0)) -> ModelCard:
    return ModelCard(
        id="test",
        name="Test",
        created="2026-01-01T00:00:00+00:00",
        labels=[Label(value, f"label {value}") for value in VALUES],
        channels=["T1"],
        spacing=spacing,
        normalisations=[Normalization("zscore")],
        patch=patch,
        network=spec.to_json(),
        method="supervised",
    )


def simulate(shape=(44, 40, 36), seed=0) -> tuple[sitk.Image, np.ndarray]:
    """A bright blob; its upper part (towards higher k) is class 1, its lower part class 2, as head and tail."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices(shape)
    center = np.array(shape) / 2 + rng.uniform(-3, 3, 3)
    blob = ((k - center[0]) / 13) ** 2 + ((j - center[1]) / 9) ** 2 + ((i - center[2]) / 7) ** 2 < 1
    image = ndimage.gaussian_filter(blob.astype(float), 0.8) + 0.05 * rng.standard_normal(shape)
    return sitk.GetImageFromArray(image.astype(np.float32)), blob * np.where(k > center[0], 1, 2)


class BlobFinder(nn.Module):
    """Convolutions with weights set by hand: finds what is bright, and tells its upper from its lower part.

    Sure of itself, local, and different along each axis: a shift, flip or exchange of axes shows. The second branch
    finds a little less.
    """

    n_branches = 2
    spec = SimpleNamespace(divisor=(4, 4, 4))

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.register_buffer("fine", self.gaussian(1.0, 7))
        self.register_buffer("coarse", self.gaussian(4.0, 25))

    @staticmethod
    def gaussian(sigma: float, taps: int) -> torch.Tensor:
        x = torch.arange(taps) - taps // 2
        kernel = torch.exp(-0.5 * (x / sigma) ** 2)
        return kernel / kernel.sum()

    @staticmethod
    def smooth(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        for axis in (2, 3, 4):
            shape = [1] * 5
            shape[axis] = len(kernel)
            pad = [0] * 6
            pad[2 * (4 - axis)] = pad[2 * (4 - axis) + 1] = len(kernel) // 2
            x = F.conv3d(F.pad(x, pad, mode="replicate"), kernel.view(shape))
        return x

    def forward(self, x: torch.Tensor, branch: int = 0) -> torch.Tensor:
        bright = 5 * (self.smooth(x, self.fine) - self.threshold - 0.1 * branch)
        coarse = self.smooth(x, self.coarse)
        upwards = 80 * (coarse - coarse.roll(1, dims=2) + 0.3 * (coarse - coarse.roll(1, dims=4)))
        upper, lower = bright + F.logsigmoid(-upwards), bright + F.logsigmoid(upwards)
        return torch.cat([torch.zeros_like(x), upper, lower], dim=1)

    def describe(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.mean(dim=(1, 2, 3, 4)), x.std(dim=(1, 2, 3, 4))], dim=1)


SPEC = NetworkSpec(in_channels=1, n_classes=3, widths=(8, 16, 32))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    # Float32: the finder tells above from below by small differences, which half precision would drown.
    return Predictor(make_card(SPEC), BlobFinder(2.0), half=False)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero((a == b) & (a > 0)) / (np.count_nonzero(a) + np.count_nonzero(b))


def transformed(image: sitk.Image, spacing=None) -> sitk.Image:
    """A copy of the scan with other spacing, axes permuted and flipped, lying oblique in space and elsewhere.

    The patient is turned along with the axes: voxel for voxel the copy shows the same.
    """
    if spacing is not None:
        size = [round(n * old / new) for n, old, new in zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)]
        # Lattices with a common center; the copy covers the scan.
        shift = [
            (n - 1) / 2 * old - (m - 1) / 2 * new
            for n, old, m, new in zip(image.GetSize(), image.GetSpacing(), size, spacing, strict=True)
        ]
        plain = sitk.Image(image)
        plain.SetDirection(np.eye(3).ravel())
        plain.SetOrigin((0, 0, 0))
        finer = sitk.Resample(
            plain,
            size,
            sitk.Transform(),
            sitk.sitkBSpline,
            shift,
            spacing,
            np.eye(3).ravel(),
            0.0,
            image.GetPixelID(),
            True,
        )
        origin = Grid.of(image).index_to_mm(np.array(shift) / image.GetSpacing())
        finer.SetDirection(image.GetDirection())
        finer.SetOrigin(origin.tolist())
        image = finer
    image = sitk.Flip(sitk.PermuteAxes(image, [2, 0, 1]), [True, False, True])
    turn = sitk.VersorRigid3DTransform()
    turn.SetRotation((0.3, -0.5, 0.8), 0.35)
    rotation = np.array(turn.GetMatrix()).reshape(3, 3)
    copy = sitk.Image(image)
    copy.SetDirection((rotation @ np.array(image.GetDirection()).reshape(3, 3)).ravel())
    copy.SetOrigin(rotation @ np.array(image.GetOrigin()) + (31.0, -7.5, 12.25))
    return copy


def mapped_back(label: sitk.Image, original: sitk.Image) -> np.ndarray:
    """The copy's label map at the voxels of the original, through patient space."""
    turn = sitk.VersorRigid3DTransform()
    turn.SetRotation((0.3, -0.5, 0.8), 0.35)
    turn.SetTranslation((31.0, -7.5, 12.25))
    return sitk.GetArrayFromImage(sitk.Resample(label, original, turn, sitk.sitkNearestNeighbor, 0))


def check_same_place(back: np.ndarray, reference: np.ndarray) -> None:
    """At least 99 % of the labeled voxels agree, and any shift by a voxel is worse."""
    assert dice(back, reference) >= 0.99
    for axis in range(3):
        for step in (-1, 1):
            assert dice(np.roll(back, step, axis), reference) < dice(back, reference) - 0.01


@pytest.mark.parametrize("spacing", [None, (1.0, 1 / 3, 1.0), (0.2, 1.0, 1 / 3)])
def test_oblique_flipped_anisotropic_copy_gives_the_same_prediction(predictor, spacing):
    image, _ = simulate(seed=9)
    image.SetOrigin((5.0, -20.0, 40.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    original = predictor.predict([image])
    reference = sitk.GetArrayFromImage(original.label)
    assert {0, *VALUES} == set(np.unique(reference).tolist())
    copy = transformed(image, spacing)
    prediction = predictor.predict([copy])
    assert Grid.of(prediction.label) == Grid.of(copy)
    assert Grid.of(prediction.uncertainty) == Grid.of(copy)
    check_same_place(mapped_back(prediction.label, image), reference)
    assert prediction.case_uncertainty == pytest.approx(original.case_uncertainty, abs=0.01)


def test_the_prediction_is_where_the_structure_is(predictor):
    image, classes = simulate(seed=9)
    prediction = predictor.predict([image])
    label = sitk.GetArrayFromImage(prediction.label)
    assert dice((label > 0).astype(int), (classes > 0).astype(int)) > 0.95
    assert dice(label, np.array([0, *VALUES])[classes]) > 0.8
    uncertainty = sitk.GetArrayFromImage(prediction.uncertainty)
    assert 0 <= uncertainty.min() < 0.05
    assert uncertainty.max() <= 1
    rim = ndimage.binary_dilation(label > 0) & ~ndimage.binary_erosion(label > 0)
    assert uncertainty[rim].mean() > 3 * uncertainty[~rim].mean()


@pytest.mark.parametrize("spacing", [None, (1.0, 1 / 3, 1.0), (0.2, 1.0, 1 / 3)])
def test_real_scan_copy_gives_the_same_prediction(data_dir, spacing):
    path = min((data_dir / "hippocampus" / "images").iterdir())
    image = sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkFloat32)
    predictor = Predictor(make_card(SPEC), BlobFinder(0.5), half=False)
    reference = sitk.GetArrayFromImage(predictor.predict([image]).label)
    assert min(np.bincount(reference.ravel())[list(VALUES)]) > 1000
    check_same_place(mapped_back(predictor.predict([transformed(image, spacing)]).label, image), reference)


def test_everything_on_request_fits_together(predictor):
    image, _ = simulate(seed=5)
    prediction = predictor.predict([image], want_probabilities=True, want_components=True)
    label = sitk.GetArrayFromImage(prediction.label)
    probabilities = np.stack([sitk.GetArrayFromImage(prediction.probabilities[value]) for value in VALUES])
    best = np.concatenate([1 - probabilities.sum(0, keepdims=True), probabilities])
    clear = np.sort(best, axis=0)[-1] - np.sort(best, axis=0)[-2] > 0.01
    np.testing.assert_array_equal(np.array([0, *VALUES])[best.argmax(0)][clear], label[clear])
    entropy, disagreement, uncertainty = (
        sitk.GetArrayFromImage(im) for im in (prediction.entropy, prediction.disagreement, prediction.uncertainty)
    )
    np.testing.assert_allclose(np.maximum(entropy, disagreement), uncertainty, atol=1e-6)
    for volume in prediction.volumes:
        assert volume.ml == pytest.approx((label == volume.value).sum() / 1000)
        assert volume.low_ml <= volume.ml <= volume.high_ml
    assert any(volume.low_ml < volume.high_ml for volume in prediction.volumes)
    for spot in prediction.hotspots:
        index = image.TransformPhysicalPointToIndex(spot.position_mm)
        assert prediction.uncertainty[index] >= 0.31
        assert spot.label in VALUES
    assert set(prediction.seconds) == {"preparing", "predicting", "restoring"}
    assert prediction.notes == []


def test_labels_equal_those_of_the_whole_array():
    """The slab-wise way gives what the plain way gives, also with a calibrated model."""
    image, _ = simulate(shape=(70, 40, 36), seed=6)
    network = build_network(NetworkSpec(in_channels=1, n_classes=3, widths=(4, 8)), seed=2)
    card = replace(make_card(SPEC), temperature=1.7)
    prediction = Predictor(card, network, half=False).predict([image])
    array = Normalization("zscore").apply(sitk.GetArrayViewFromImage(image))[None]
    mean = predict_array(network, array, (32, 32, 32)).mean(axis=0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(prediction.label), np.array([0, *VALUES])[mean.argmax(axis=0)])


def test_fast_uses_one_branch():
    image, classes = simulate(seed=7)
    fast = Predictor(make_card(SPEC), BlobFinder(2.0), fast=True, half=False).predict([image], want_components=True)
    assert fast.disagreement is None
    assert all(volume.low_ml == volume.ml == volume.high_ml for volume in fast.volumes)
    assert dice(sitk.GetArrayFromImage(fast.label), np.array([0, *VALUES])[classes]) > 0.8


def test_region_of_interest(predictor):
    image, _ = simulate(shape=(60, 70, 50), seed=8)
    whole = sitk.GetArrayFromImage(predictor.predict([image]).label)
    roi = Roi((25.0, 35.0, 30.0), (9.0, 8.0, 7.0))
    prediction = predictor.predict([image], roi=roi)
    label = sitk.GetArrayFromImage(prediction.label)
    inside = (slice(23, 38), slice(27, 44), slice(16, 35))
    outside = np.ones(label.shape, bool)
    outside[inside] = False
    assert not label[outside].any()
    assert not sitk.GetArrayFromImage(prediction.uncertainty)[outside].any()
    assert (label[inside] == whole[inside]).mean() > 0.97
    with pytest.raises(InputError, match="outside"):
        predictor.predict([image], roi=Roi((500.0, 0.0, 0.0), (5.0, 5.0, 5.0)))


def test_region_of_interest_lies_along_the_axes_of_a_turned_scan():
    predictor = Predictor(make_card(SPEC), build_network(SPEC, seed=2))  # untrained: unsure of every voxel
    copy = transformed(simulate(shape=(60, 70, 50), seed=8)[0])
    grid = Grid.of(copy)
    center = grid.index_to_mm(np.array(grid.size) // 2)
    roi = Roi(tuple(center.tolist()), (12.5, 6.5, 9.5))
    found = sitk.GetArrayFromImage(predictor.predict([copy], roi=roi).uncertainty) > 0
    extent = [np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis}))) for axis in (2, 1, 0)]
    assert [(e[0], e[-1] + 1) for e in extent] == list(zip(*roi.box(grid), strict=True))


def test_empty_prediction_is_finite(predictor):
    flat = sitk.GetImageFromArray(np.zeros((40, 40, 40), np.float32))
    prediction = predictor.predict([flat])
    assert not sitk.GetArrayFromImage(prediction.label).any()
    assert np.isfinite(prediction.case_uncertainty)
    assert np.isfinite(sitk.GetArrayFromImage(prediction.uncertainty)).all()
    assert np.isfinite(prediction.embedding).all()


class Forgetful(nn.Module):
    """A network on a device whose memory holds one window at a time, or none."""

    def __init__(self, network: nn.Module, windows: int) -> None:
        super().__init__()
        self.network, self.windows = network, windows
        self.spec, self.n_branches = network.spec, network.n_branches

    def forward(self, x, branch=0):
        if len(x) > self.windows:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 884736 bytes.")
        return self.network(x, branch)

    def describe(self, x):
        return self.network.describe(x)


def test_out_of_memory_climbs_down_and_says_so(predictor):
    image, _ = simulate(seed=4)
    card, network = predictor.card, predictor.network
    prediction = Predictor(card, Forgetful(network, 1), batch_size=4, half=False).predict([image])
    assert "smaller steps" in prediction.notes[0]
    expected = sitk.GetArrayFromImage(predictor.predict([image]).label)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(prediction.label), expected)
    with pytest.raises(DeviceError) as error:
        Predictor(card, Forgetful(network, 0), batch_size=4).predict([image])
    assert "region of interest" in error.value.remedy
    on_gpu = Predictor(card, network, "cuda:0").ladder()
    assert [(str(e.device), e.batch_size, str(e.accumulate_on)) for e in on_gpu] == [
        ("cuda:0", 4, "cuda:0"),
        ("cuda:0", 1, "cuda:0"),
        ("cuda:0", 1, "cpu"),
        ("cpu", 1, "cpu"),
    ]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("shapes do not fit"), False),
        (OSError("not enough memory"), False),
    ],
)
def test_all_back_ends_are_understood_when_memory_is_short(error, is_memory):
    """In the words of PyTorch 2.4 to 2.13; the CPU allocator's last one is that of Windows."""
    assert is_out_of_memory(error) is is_memory
    explained = explain(error)
    assert ("memory" in explained.message) is is_memory and isinstance(explained, DeviceError) is is_memory


@pytest.mark.parametrize("factor", [1e20, 1e38])
def test_answers_that_are_no_numbers_are_an_error_not_an_empty_outline(predictor, factor):
    """Weights that are finite themselves."""
    network = build_network(SPEC, seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(factor)
    with pytest.raises(ModelError, match="not finite"):
        Predictor(predictor.card, network).predict([simulate()[0]])


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2), (3, 9, 5), (11, 11, 11), (1, 40, 40), (12, 2, 30)])
def test_tiny_scans_are_predicted(shape):
    """Smaller than half a patch, and than what the network halves it to."""
    network = build_network(SPEC, seed=0)
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    prediction = Predictor(make_card(SPEC), network).predict([image])
    assert prediction.label.GetSize() == image.GetSize() and np.isfinite(prediction.embedding).all()


def test_a_scan_unlike_those_learned_from_gets_one_warning():
    image, _ = simulate()
    familiar = Familiar.of([fingerprint_case([image], None, [])]).to_json()
    card = replace(make_card(SPEC), data={"labelled": 1, "unlabelled": 0, "held_out": 0, "familiar": familiar})
    network = build_network(SPEC, seed=0)
    assert Predictor(card, network).predict([image]).notes == []
    image.SetSpacing((0.3, 0.3, 0.3))
    (note,) = Predictor(card, network).predict([image]).notes
    assert note.startswith(
        "The scan is unlike those that the model has learned from: its voxels measure 0.3 x 0.3 x 0.3 mm"
    )
    assert Predictor(make_card(SPEC), network).predict([image]).notes == []


def test_other_errors_are_not_taken_for_a_lack_of_memory(predictor):
    class Broken(Forgetful):
        def forward(self, x, branch=0):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        Predictor(predictor.card, Broken(predictor.network, 1)).predict([simulate()[0]])


def test_cancel_passes_through_and_the_predictor_stays_usable(predictor):
    image, _ = simulate()
    seen = []

    def report(event):
        seen.append(event)

    def is_cancelled():
        return bool(seen) and seen[-1]["stage"] == "predicting"

    with pytest.raises(Cancelled):
        predictor.predict([image], progress=Progress(report, is_cancelled))
    assert [event["stage"] for event in seen] == ["preparing", "predicting"]
    assert predictor.predict([image]).notes == []


def test_load_from_disk_and_refuse_wrong_channels(tmp_path):
    network = build_network(SPEC, seed=2)
    save_model(tmp_path / "model", make_card(SPEC), network.state_dict())
    loaded = Predictor.load(tmp_path / "model", device="cpu")
    image, _ = simulate()
    first, second = (predictor.predict([image]) for predictor in (loaded, Predictor(make_card(SPEC), network)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(first.label), sitk.GetArrayFromImage(second.label))
    assert len(first.embedding) == SPEC.widths[-1]
    assert first.embedding == second.embedding
    with pytest.raises(ModelError, match="channel"):
        loaded.predict([image, image])
    with pytest.raises(DeviceError):
        Predictor.load(tmp_path / "model", device="gpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:97", "meta", ""])
def test_unknown_device_is_refused_with_those_there_are(name):
    with pytest.raises(DeviceError) as error:
        choose_device(name)
    assert "auto, cpu" in error.value.remedy


def test_devices_there_are():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in {"cpu", "cuda", "mps"}
    assert autocast_dtype(torch.device("cpu")) in {None, torch.bfloat16}
    assert autocast_dtype(torch.device("mps")) is None


@pytest.mark.parametrize(
    ("version", "cuda", "cudnn", "is_slow"),
    [
        ("2.9.0+cu128", "12.8", "9.10.2.21", True),
        ("2.9.1", "13.0", "", True),
        ("2.9.1", "12.8", "9.15.1", False),
        ("2.9.1+cpu", None, "", False),
        ("2.8.0", "12.8", "9.10.2", False),
        ("2.10.0", "12.8", "9.15.1", False),
    ],
)
def test_a_pytorch_that_is_slow_in_half_precision_computes_in_full(monkeypatch, version, cuda, cudnn, is_slow):
    assert bool(slow_in_half_precision(version, cuda, cudnn)) == is_slow
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    numbers = [int(part) for part in cudnn.split(".")[:3]] if cudnn else []
    number = numbers[0] * 10000 + numbers[1] * 100 + numbers[2] if numbers else None
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: number)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert autocast_dtype(torch.device("cuda")) == (None if is_slow else torch.bfloat16)


def test_apples_graphics_need_a_pytorch_with_transposed_convolutions(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "__version__", "2.7.1")
    assert choose_device("auto").type == "cpu"
    with pytest.raises(DeviceError, match="transposed 3D convolutions"):
        choose_device("mps")
    monkeypatch.setattr(torch, "__version__", "2.8.0")
    assert choose_device("auto").type == "mps"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_scan(repository):
    """Twice as many slices cost no more than the scan, its normalized copy and a few bytes a voxel."""
    peaks = []
    for slices in (160, 320):
        command = ["--memory-shape", str(slices), "256", "256", "--memory-patch", "64", "64", "64"]
        script = repository / "Testing" / "Benchmarks" / "prediction_memory.py"
        child = subprocess.run(
            [sys.executable, str(script), "--memory-case", "same_spacing", *command],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        peaks.append(json.loads(child.stdout.splitlines()[-1])["worst_peak_gib"])
    # int16 scan 2, float32 copy 4, maps 3, hot-spots and results 5 bytes.
    assert peaks[1] - peaks[0] <= 14 * 160 * 256 * 256 / 2**30
