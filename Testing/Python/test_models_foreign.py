# SPDX-License-Identifier: Apache-2.0
"""Models of other programs: they predict as their own programs do, and nothing of theirs is ever executed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from barl.cli import main
from barl.errors import ModelError
from barl.inference.loading import load_predictor
from barl.inference.nnunet import check_plans
from barl.jobs.foreign_models import read_checkpoint
from barl.jobs.model_files import check_model, import_model
from barl.models.disk import load_model
from barl.project.labels import Channel, Label
from barl.project.model_card import read_card
from barl.project.store import Project

UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
    "num_res_units": 1,
    "norm": "batch",
}
PREPARATION = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
    {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": -57,
        "a_max": 164,
        "b_min": 0.0,
        "b_max": 1.0,
        "clip": True,
    },
    {"_target_": "EnsureTyped", "keys": "image"},
]


class _Runs:
    """What a pickle can do: run a program when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.place}",))


def barl(capsys, *words, code: int = 0) -> dict:
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def a_bundle(folder: Path, **changes: Any) -> Path:
    """A bundle of a small network with random weights: background, spleen and liver."""
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    network = UNet(**{key: value for key, value in UNET.items() if key != "_target_"})
    names = {"0": "background", "1": "spleen", "2": "liver"}
    image = {"num_channels": 1, "channel_def": {"0": "CT"}}
    metadata = {
        "name": "Two organs",
        "version": "0.1.0",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": {"channel_def": names}}},
    }
    config = {
        "network_def": UNET,
        "preprocessing": {"_target_": "Compose", "transforms": PREPARATION},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32]},
        **changes,
    }
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    (folder / "configs/inference.json").write_text(json.dumps(config))
    torch.save({"model": network.state_dict()}, folder / "models/model.pt")
    return folder


@pytest.fixture
def a_scan() -> sitk.Image:
    """A scan of 20 x 22 x 24 voxels with the spacing of the bundle, stored in LPS."""
    array = np.random.default_rng(0).normal(50, 60, (24, 22, 20)).astype(np.float32)
    scan = sitk.GetImageFromArray(array)
    scan.SetSpacing((1.5, 1.5, 2.0))
    scan.SetOrigin((-10.0, 5.0, 7.0))
    return scan


@pytest.fixture
def a_project(tmp_path, a_scan) -> Path:
    with Project.create(tmp_path / "p", "P", [Label(4, "Liver"), Label(9, "cyst")], [Channel("CT")]) as project:
        project.cases.add("x", [a_scan])
    return tmp_path / "p"


def test_a_bundle_predicts_what_monai_itself_predicts(tmp_path, a_scan):
    """In one window of the size of the scan, MONAI's own transforms and network give the same probabilities."""
    from monai.networks.nets import UNet
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, ScaleIntensityRange

    folder = a_bundle(tmp_path / "b", inferer={"roi_size": [20, 22, 24]})
    from barl.jobs.bundles import convert_bundle

    card, notes = convert_bundle(folder, tmp_path / "model")
    assert notes == [] and [label.name for label in card.labels] == ["spleen", "liver"]
    predictor = load_predictor(tmp_path / "model", "cpu")
    predictor.half = False
    found = predictor.predict([a_scan], want_probabilities=True)
    assert found.embedding == [] and found.uncertainty.GetSize() == a_scan.GetSize()
    sitk.WriteImage(a_scan, str(tmp_path / "scan.nii.gz"))
    prepare = Compose(
        [LoadImage(), EnsureChannelFirst(), Orientation("RAS"), ScaleIntensityRange(-57, 164, 0.0, 1.0, clip=True)]
    )
    image = prepare(tmp_path / "scan.nii.gz")
    network = UNet(**{key: value for key, value in UNET.items() if key != "_target_"})
    network.load_state_dict(torch.load(folder / "models/model.pt", weights_only=True)["model"])
    with torch.no_grad():
        expected = network.eval()(image.as_tensor()[None]).softmax(dim=1)[0].numpy()
    expected = expected[:, ::-1, ::-1].transpose(0, 3, 2, 1)  # RAS, (x, y, z) -> LPS, (k, j, i)
    first, second = np.sort(expected, axis=0)[:-3:-1]
    clear = first - second > 2e-3  # BARL keeps probabilities in half precision
    assert clear.mean() > 0.95
    assert np.array_equal(sitk.GetArrayFromImage(found.label)[clear], expected.argmax(axis=0)[clear])
    for value, n in ((1, 1), (2, 2)):
        assert np.abs(sitk.GetArrayFromImage(found.probabilities[value]) - expected[n]).max() < 1e-3


def test_a_bundle_joins_a_project_by_the_names_of_its_labels(tmp_path, a_project, capsys):
    done = barl(capsys, "models", "import", a_project, a_bundle(tmp_path / "b"), "--promote")
    assert any("spleen" in note for note in done["notes"]) and any("cyst" in note for note in done["notes"])
    assert barl(capsys, "models", "list", a_project)["models"][0]["summary"]["method"] == "MONAI"
    (case,) = barl(capsys, "predict", a_project, "--device", "cpu")["cases"]
    assert [volume["name"] for volume in case["volumes"]] == ["Liver"]
    with Project.open(a_project) as project:
        revision = project.revisions.newest("x")
        assert revision.model_id == "model_0001" and revision.uncertainty_path and project.cases.get("x").uncertainty
        assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(revision.path))))) <= {0, 4}
        folder = project.models.current().folder
    card = read_card(folder)
    assert (card.format, card.program) == (2, "MONAI")
    with pytest.raises(ModelError, match="cannot be trained on from"):
        load_model(folder)
    barl(capsys, "models", "export", a_project, tmp_path / "sent.zip")
    assert check_model(tmp_path / "sent.zip").id == card.id


def test_training_beside_a_model_of_another_program_starts_from_scratch(tmp_path, a_project, a_scan, capsys):
    barl(capsys, "models", "import", a_project, a_bundle(tmp_path / "b"), "--promote")
    outline = sitk.Cast(a_scan > 120, sitk.sitkUInt8) * 4
    with Project.open(a_project) as project:
        project.revisions.store("x", outline, "accepted", author="reader")
    plan = barl(capsys, "train", a_project, "--plan", "--iterations", "3", "--device", "cpu")
    assert any("from scratch: model_0001 is a network of MONAI" in note for note in plan["notes"])


def changed(place: str, value: Any) -> dict[str, Any]:
    """A configuration with something else in the network or in place of the last transform."""
    if place == "network":
        return {"network_def": value}
    return {"preprocessing": {"transforms": [*PREPARATION[:-1], value]}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (changed("network", {"_target_": "os.system", "command": "touch never"}), "none of monai.networks.nets"),
        (changed("network", {"_target_": "my.package.Net"}), "none of monai.networks.nets"),
        (changed("network", {**UNET, "channels": "$__import__('os').system('touch never')"}), "by a program"),
        (changed("network", {**UNET, "act": {"_target_": "os.system"}}), "by a program"),
        (changed("network", {**UNET, "_target_": "NoSuchNet"}), "no network 'NoSuchNet'"),
        (changed("network", {**UNET, "channels": []}), "cannot be built"),
        (changed("network", "$import os"), "none of monai.networks.nets"),
        (changed("transform", {"_target_": "Lambdad", "func": "$lambda x: x"}), "by a program"),
        (changed("transform", {"_target_": "HistogramNormalized", "keys": "image"}), "HistogramNormalized"),
        ({"preprocessing": {"transforms": PREPARATION[:3]}}, "brings scans to no spacing"),
        ({"preprocessing": "$build()"}, "no list of transforms"),
        ({"inferer": {"_target_": "SimpleInferer"}}, "no roi_size"),
    ],
)
def test_what_a_bundle_would_run_is_not_run(tmp_path, a_project, monkeypatch, changes, words):
    monkeypatch.chdir(tmp_path)
    folder = a_bundle(tmp_path / "b", **changes)
    with Project.open(a_project) as project, pytest.raises(ModelError, match=words) as caught:
        import_model(project, folder)
    assert caught.value.remedy and len(str(caught.value)) < 500 and not (tmp_path / "never").exists()
    assert not list((a_project / "models").iterdir())


def test_torchscript_is_a_program_and_is_not_read(tmp_path):
    folder = a_bundle(tmp_path / "b")
    (folder / "models/model.pt").rename(folder / "models/model.ts")
    with pytest.raises(ModelError, match=r"TorchScript files .* are programs"):
        check_model(folder)
    scripted = torch.jit.script(torch.nn.Identity())
    scripted.save(str(folder / "models/model.pt"))
    with pytest.raises(ModelError, match="a TorchScript file, which is a program"):
        check_model(folder)


def test_a_checkpoint_that_runs_a_program_is_refused_unread(tmp_path):
    torch.save({"network_weights": {}, "x": _Runs(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match="more than weights and plain values"):
        read_checkpoint(tmp_path / "bad.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "bad.pth").read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged"):
        read_checkpoint(tmp_path / "cut.pth")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_may_hold_numbers_of_numpy(tmp_path):
    """As those of nnU-Net do."""
    log = {"dice": [np.float32(0.5), np.float64(0.25)], "epoch": 3}
    torch.save({"network_weights": {"a": torch.ones(2)}, "logging": log}, tmp_path / "good.pth")
    assert read_checkpoint(tmp_path / "good.pth")["logging"] == log


ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {"conv_op": "torch.nn.modules.conv.Conv3d", "norm_op": None},
    "_kw_requires_import": ["conv_op", "norm_op"],
}


@pytest.mark.parametrize(
    "architecture",
    [
        {**ARCHITECTURE, "network_class_name": "os.system"},
        {**ARCHITECTURE, "network_class_name": "dynamic_network_architectures.architectures.unet.os.system"},
        {**ARCHITECTURE, "network_class_name": "subprocess.Popen"},
        {**ARCHITECTURE, "arch_kwargs": {"conv_op": "os.system"}},
        {**ARCHITECTURE, "arch_kwargs": {"conv_op": "torch.load"}},
        {**ARCHITECTURE, "arch_kwargs": {"conv_op": "torch.nn.modules.module.torch.hub.load"}},
    ],
)
def test_plans_that_name_a_program_are_refused(architecture):
    check_plans({"configurations": {"3d_fullres": {"architecture": ARCHITECTURE}}})
    with pytest.raises(ModelError, match="no network of nnU-Net and no layer"):
        check_plans({"configurations": {"3d_fullres": {"architecture": architecture}}})


@pytest.fixture
def an_nnunet_model(tmp_path) -> Path:
    """The files of a trained configuration; their weights are of no network."""
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    labels = {"background": 0, "spleen": 1, "liver": 2}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
    configuration = {"spacing": [2.0, 1.5, 1.5], "patch_size": [16, 32, 32], "architecture": ARCHITECTURE}
    plans = {"dataset_name": "Dataset009", "configurations": {"3d_fullres": configuration}}
    for fold in (0, 1):
        (folder / f"fold_{fold}").mkdir(parents=True)
        checkpoint = {
            "network_weights": {"a.weight": torch.full((2,), float(fold))},
            "init_args": {"configuration": "3d_fullres", "plans": plans},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1, 2),
            "_best_ema": np.float32(0.5),
        }
        torch.save(checkpoint, folder / f"fold_{fold}/checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def test_an_nnunet_model_becomes_a_card_and_weights_without_a_pickle(an_nnunet_model, a_project, capsys):
    done = barl(capsys, "models", "import", a_project, an_nnunet_model)
    assert any("fold_0, fold_1" in note for note in done["notes"]) and any("spleen" in note for note in done["notes"])
    with Project.open(a_project) as project:
        folder = project.models.get("model_0001").folder
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    card = read_card(folder)
    assert (card.spacing, card.patch, card.channels) == ((1.5, 1.5, 2.0), (16, 32, 32), ["CT"])
    assert ([label.value for label in card.labels], card.network["classes"], card.counts["labelled"]) == ([4], [2], 5)
    if "nnunetv2" not in sys.modules and not _has_nnunet():
        error = barl(capsys, "predict", a_project, "--model", "model_0001", "--device", "cpu", code=4)["error"]
        assert "needs the package nnunetv2" in error["message"] and "pip install nnunetv2" in error["remedy"]


def test_a_model_that_was_not_taken_in_says_how(an_nnunet_model, tmp_path, capsys):
    words = ("predict", "--model", an_nnunet_model, "--output", tmp_path / "x.nii.gz", tmp_path / "scan.nii.gz")
    assert "barl models import PROJECT MODEL" in barl(capsys, *words, code=4)["error"]["remedy"]


def test_nnunet_models_that_need_more_than_a_label_map_are_refused(an_nnunet_model):
    place = an_nnunet_model / "dataset.json"
    dataset = json.loads(place.read_text())
    place.write_text(json.dumps({**dataset, "labels": {"background": 0, "all": [1, 2], "core": 2}}))
    with pytest.raises(ModelError, match="predicts regions"):
        check_model(an_nnunet_model)
    place.write_text(json.dumps(dataset))
    place = an_nnunet_model / "plans.json"
    plans = json.loads(place.read_text())
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    place.write_text(json.dumps(plans))
    with pytest.raises(ModelError, match="second stage of a cascade"):
        check_model(an_nnunet_model)


def _has_nnunet() -> bool:
    from importlib.util import find_spec

    return find_spec("nnunetv2") is not None


_TRAIN = """
import torch
from nnunetv2.run.run_training import get_trainer_from_args
if __name__ == "__main__":
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    for fold in (0, 1):
        trainer = get_trainer_from_args("777", "3d_fullres", fold, "nnUNetTrainer", "nnUNetPlans", device=cpu)
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
        trainer.run_training()
"""


def balls_and_cores(folder: Path) -> None:
    """A project of six outlined scans with turned axes; the last is held out."""
    rng = np.random.default_rng(0)
    with Project.create(folder, "P", [Label(3, "ball"), Label(7, "core")], [Channel("CT")]) as project:
        for number in range(6):
            k, j, i = np.indices((30, 32, 34)) - np.array(rng.uniform(12, 18, 3)).reshape(3, 1, 1, 1)
            distance = np.sqrt(k**2 + j**2 + i**2)
            label = np.select([distance < 4, distance < 8], [7, 3]).astype(np.uint8)
            scan = sitk.GetImageFromArray((rng.normal(0, 10, label.shape) + 20 * label).astype(np.float32))
            scan.SetDirection((0.0, -1, 0, 1, 0, 0, 0, 0, 1))
            outline = sitk.GetImageFromArray(label)
            outline.CopyInformation(scan)
            project.cases.add(f"c{number}", [scan], label=outline, held_out=number == 5)


@pytest.mark.slow
def test_a_real_nnunet_model_predicts_what_nnunet_predicts(tmp_path, capsys, monkeypatch):
    """BARL's export passes nnU-Net's integrity check and trains; the trained model predicts the same in BARL."""
    pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    for name, value in {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "1", "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)
    balls_and_cores(tmp_path / "p")
    barl(capsys, "export", tmp_path / "p", tmp_path / "raw/Dataset777_Ball")

    def run(*words: str) -> None:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    home = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
    words = ("-d", "777", "--verify_dataset_integrity", "-c", "3d_fullres", "-np", "1", "-npfp", "1")
    run("-c", f"from {home} import plan_and_preprocess_entry as go; go()", *words)
    (tmp_path / "train.py").write_text(_TRAIN)
    run("train.py")
    model = tmp_path / "results/Dataset777_Ball/nnUNetTrainer__nnUNetPlans__3d_fullres"
    predict = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as go; go()"
    places = ("-i", str(tmp_path / "raw/Dataset777_Ball/imagesTs"), "-o", str(tmp_path / "out"), "-m", str(model))
    run("-c", predict, *places, *("-f", "0", "1", "-device", "cpu", "-npp", "1", "-nps", "1", "--save_probabilities"))
    barl(capsys, "models", "import", tmp_path / "p", model, "--promote")
    barl(capsys, "predict", tmp_path / "p", "c5", "--device", "cpu")
    with Project.open(tmp_path / "p") as project:
        revision = project.revisions.newest("c5")
    own = sitk.GetArrayFromImage(sitk.ReadImage(str(revision.path)))
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out/case_0006.nii.gz")))
    assert np.array_equal(own, np.array([0, 3, 7])[theirs])
    spread = {volume["name"]: volume["high_ml"] - volume["low_ml"] for volume in revision.details["volumes"]}
    assert max(spread.values()) > 0  # two folds differ
    barl(capsys, "import-predictions", tmp_path / "p", tmp_path / "out", "--case", "c5", "--author", "nnU-Net")
    with Project.open(tmp_path / "p") as project:
        given = project.revisions.newest("c5")
    assert given.author == "nnU-Net" and np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(given.path))), own)
    unsure = sitk.GetArrayFromImage(sitk.ReadImage(str(given.uncertainty_path))).astype(float)
    shares = np.load(tmp_path / "out/case_0006.npz")["probabilities"].astype(float)
    entropy = -(shares * np.log(shares.clip(1e-12))).sum(axis=0) / np.log(3)
    assert np.abs(unsure / (255 if unsure.max() > 1 else 1) - entropy).max() < 1 / 256
