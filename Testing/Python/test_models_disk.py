# SPDX-License-Identifier: Apache-2.0
"""Models on disk: what is saved comes back, what is damaged or made for other data is refused in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from barl.errors import ModelError, StorageError
from barl.images.intensity import Normalization
from barl.models import disk
from barl.networks.branches import NetworkSpec, build_network
from barl.project.files import sha256
from barl.project.labels import Code, Label, Terminology
from barl.project.model_card import CARD_FILE, WEIGHTS_FILE, ModelCard, read_card
from safetensors.torch import load_file, save, save_file

SPEC = NetworkSpec(in_channels=2, n_classes=3, widths=(4, 8, 12), n_scales=2, projector=8)
LIVER = Terminology(Code("SCT", "123037004", "Anatomical Structure"), Code("SCT", "10200004", "Liver"))


@pytest.fixture(scope="module")
def network():
    return build_network(SPEC, seed=3).eval()


@pytest.fixture
def card():
    return ModelCard(
        id="m-1",
        name="Knorpel Ω",
        created="2026-01-31T12:00:00+00:00",
        labels=[Label(7, "tumor", (255, 0, 0), lateral=True), Label(2, "liver", (0, 255, 0), LIVER)],
        channels=["T1", "FLAIR"],
        spacing=(0.7, 0.9, 1.25),
        normalisations=[Normalization("zscore"), Normalization("ct_window", -100.0, 300.0, 40.5, 12.25)],
        patch=(8, 16, 16),
        network=SPEC.to_json(),
        method="barl",
        settings={"lambda_max": 1.0, "views": ["weak", "strong"]},
        data={"labelled": 4, "unlabelled": 100, "held_out": 10},
        metrics={"dice": {"2": 0.75, "7": float("nan")}},
        temperature=1.7,
        parent="m-0",
        licence="CC BY-SA 4.0",
        versions={"torch": torch.__version__},
    )


@pytest.fixture
def folder(tmp_path, card, network):
    disk.save_model(tmp_path / "model", card, network.state_dict())
    return tmp_path / "model"


def edit(folder, **changes):
    path = folder / CARD_FILE
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def store_weights(folder, weights):
    """Other weights with the right checksum: what a wrong card, not damage, looks like."""
    save_file(weights, folder / WEIGHTS_FILE)
    edit(folder, weights_sha256=sha256(folder / WEIGHTS_FILE))


def refusal(call, *arguments) -> str:
    with pytest.raises(ModelError) as caught:
        call(*arguments)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return caught.value.message


def test_saved_model_comes_back_equal(folder, card, network):
    loaded, again = disk.load_model(folder)
    assert loaded == replace(
        card,
        weights_sha256=sha256(folder / WEIGHTS_FILE),
        metrics={"dice": {"2": 0.75, "7": None}},
        network=loaded.network,
    )
    assert NetworkSpec.from_json(loaded.network) == SPEC
    assert loaded.values == [2, 7]
    assert not again.training
    x = torch.randn(1, 2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    for branch in range(2):
        assert torch.equal(again(x, branch), network(x, branch))


def test_networks_of_every_shape_come_back_equal(tmp_path, card):
    shared = replace(SPEC, n_branches=3, shared_encoder=True, upsampling=("deconv", "linear", "nearest"))
    two_tasks = replace(SPEC, tasks=("segmentation", "distance"), dropout=0.5, steepness=12.5)
    for name, spec in {"shared": shared, "tasks": two_tasks, "one": replace(SPEC, n_branches=1)}.items():
        network = build_network(spec, seed=0).eval()
        disk.save_model(tmp_path / name, replace(card, network=spec.to_json()), network.state_dict())
        _, again = disk.load_model(tmp_path / name)
        assert again.spec == spec
        x = torch.randn(1, 2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
        for branch in range(spec.n_branches):
            assert torch.equal(again(x, branch), network(x, branch))


def test_a_card_of_the_first_release_is_read(folder, network):
    """Its network has none of the later fields, and neither has one that needs none of them."""
    fields = ("in_channels", "n_classes", "widths", "strides", "kernels", "n_scales", "n_branches")
    fields += ("upsampling", "residual", "feature_level", "projector")
    first = {name: json.loads(json.dumps(getattr(SPEC, name))) for name in fields}
    assert json.loads((folder / CARD_FILE).read_text("utf-8"))["network"] == first
    edit(folder, network=first)
    _, again = disk.load_model(folder)
    assert again.spec == SPEC
    x = torch.randn(1, 2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), network(x))
    edit(folder, network={**first, "tasks": ["art"]})
    assert "network.tasks" in refusal(disk.load_model, folder)


def test_half_precision_weights_take_half_the_room_and_load_as_float32(tmp_path, folder, card, network):
    disk.save_model(tmp_path / "half", card, network.state_dict(), dtype=torch.float16)
    full, half = ((place / WEIGHTS_FILE).stat().st_size for place in (folder, tmp_path / "half"))
    assert half < 0.6 * full
    _, loaded = disk.load_model(tmp_path / "half")
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    x = torch.randn(1, 2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(x), network(x), atol=2e-2, rtol=0)


def test_card_is_read_without_torch():
    program = "import sys, barl.project.model_card; sys.exit('torch' in sys.modules or 'jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_saving_replaces_and_leaves_nothing_else(folder, card, network):
    disk.save_model(folder, replace(card, name="second"), network.state_dict())
    assert read_card(folder).name == "second"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert sorted(path.name for path in folder.iterdir()) == [CARD_FILE, WEIGHTS_FILE]


def test_failed_saving_keeps_the_old_model(folder, card, network, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "flush_tree", full_disk)
    with pytest.raises(StorageError, match="disk is full"):
        disk.save_model(folder, replace(card, name="second"), network.state_dict())
    assert read_card(folder).name == card.name
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_file_in_the_way_is_a_storage_error(tmp_path, card, network):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        disk.save_model(tmp_path / "file" / "model", card, network.state_dict())


def test_missing_files_are_refused(tmp_path, folder):
    assert "no model folder" in refusal(read_card, tmp_path / "nowhere")
    (folder / WEIGHTS_FILE).unlink()
    assert "no weights" in refusal(disk.load_model, folder)
    (folder / CARD_FILE).unlink()
    assert f"holds no {CARD_FILE}" in refusal(read_card, folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_card_that_is_not_json_is_refused(folder, content):
    (folder / CARD_FILE).write_bytes(content)
    assert refusal(read_card, folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": 3}, "format 3"),
        ({"format": 0}, "format"),
        ({"format": 2}, "format: 2 is not that of its network"),
        ({"format": None}, "format"),
        ({"labels": []}, "labels"),
        ({"labels": [{"value": 0, "name": "air", "color": [0, 0, 0]}]}, "labels.0.value"),
        ({"labels": [{"value": 2, "name": "a", "color": [0, 0, 0]}] * 2}, "same value"),
        ({"channels": ["T1"]}, "normalisations"),
        ({"spacing": [1, 1]}, "spacing"),
        ({"spacing": [1, 0, 1]}, "spacing.1"),
        ({"orientation": "XYZ"}, "orientation"),
        ({"normalisations": [{"scheme": "magic", "low": 0, "high": 0, "mean": 0, "sd": 1}] * 2}, "scheme"),
        ({"network": {**SPEC.to_json(), "in_channels": 1}}, "in_channels"),
        ({"network": {**SPEC.to_json(), "n_classes": 9}}, "n_classes"),
        ({"network": {**SPEC.to_json(), "activation": "os.system"}}, "activation"),
        ({"mirror_axes": [3]}, "mirror_axes.0"),
        ({"temperature": 0}, "temperature"),
        ({"weights_sha256": "abc"}, "weights_sha256"),
        ({"id": "../../elsewhere"}, "id"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_card_that_breaks_the_schema_is_refused_by_field(folder, changes, named):
    edit(folder, **changes)
    assert named in refusal(read_card, folder)


def test_a_missing_field_is_named(folder):
    card = json.loads((folder / CARD_FILE).read_text("utf-8"))
    for name in card:
        kept = {key: value for key, value in card.items() if key != name}
        (folder / CARD_FILE).write_text(json.dumps(kept), "utf-8")
        assert name in refusal(read_card, folder)


@pytest.mark.parametrize("card_text", ["[]", "1", '"card"', "null"])
def test_json_that_is_no_object_is_refused(folder, card_text):
    (folder / CARD_FILE).write_text(card_text)
    assert refusal(read_card, folder)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_truncated_weights_are_refused(folder, kept):
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:kept])
    assert "truncated" in refusal(disk.load_model, folder)


def test_one_flipped_bit_in_the_weights_is_refused(folder):
    path = folder / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    assert "altered" in refusal(disk.load_model, folder)


def test_a_pickle_is_refused_unread(folder, tmp_path):
    mark = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (open, (str(mark), "w"))

    path = folder / WEIGHTS_FILE
    torch.save({"bomb": Bomb()}, path)
    edit(folder, weights_sha256=sha256(path))
    assert "damaged" in refusal(disk.load_model, folder)
    assert not mark.exists()


def test_weights_of_another_network_are_refused(folder, network):
    weights = load_file(folder / WEIGHTS_FILE)
    first = next(iter(network.state_dict()))
    store_weights(folder, {name: tensor for name, tensor in weights.items() if name != first})
    assert f"{first} is missing" in refusal(disk.load_model, folder)
    store_weights(folder, {**weights, "extra": torch.zeros(1)})
    assert "extra" in refusal(disk.load_model, folder)
    store_weights(folder, {**weights, first: torch.zeros(2, 2)})
    assert "(2, 2)" in refusal(disk.load_model, folder)


@pytest.mark.parametrize(
    "change", [{"strides": [[1, 1, 1]]}, {"feature_level": 5}, {"patch": [8, 16, 15]}, {"patch": [4, 4, 4]}]
)
def test_a_card_whose_network_cannot_be_built_is_refused(folder, change):
    edit(folder, **(change if "patch" in change else {"network": {**SPEC.to_json(), **change}}))
    assert refusal(disk.load_model, folder)


def test_a_network_of_absurd_size_costs_no_memory(folder):
    edit(folder, network={**SPEC.to_json(), "widths": [1024, 1024, 1024], "kernels": [[15, 15, 15]] * 3})
    assert "do not fit" in refusal(disk.load_model, folder)


def test_channels_must_be_those_of_the_model(card):
    disk.check_channels(card, 2)
    disk.check_channels(card, [" t1", "Flair"])
    assert "has 1" in refusal(disk.check_channels, card, 1)
    assert "has 3" in refusal(disk.check_channels, card, ["T1", "FLAIR", "T2"])
    assert "FLAIR, T1" in refusal(disk.check_channels, card, ["FLAIR", "T1"])


def test_an_invalid_card_is_not_saved(tmp_path, card, network):
    assert "temperature" in refusal(
        disk.save_model, tmp_path / "model", replace(card, temperature=-1.0), network.state_dict()
    )
    assert not list(tmp_path.iterdir())


def test_weights_are_plain_safetensors(folder, network):
    assert (folder / WEIGHTS_FILE).read_bytes() == save(dict(network.state_dict()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(folder, card, network, value):
    """One of all weights, the checksum right."""
    weights = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
    for name in sorted(weights)[:: max(1, len(weights) // 5)]:
        tampered = {key: tensor.clone() for key, tensor in weights.items()}
        tampered[name].view(-1)[-1] = value
        (folder / WEIGHTS_FILE).write_bytes(save(tampered))
        edit(folder, weights_sha256=sha256(folder / WEIGHTS_FILE))
        with pytest.raises(ModelError, match=f"not finite numbers .{name}"):
            disk.load_model(folder)
    with pytest.raises(ModelError, match="not finite"):
        disk.save_model(folder.parent / "other", card, tampered)
    assert not (folder.parent / "other").exists()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_card_with_numbers_that_are_none_is_refused(folder, number):
    text = (folder / CARD_FILE).read_text("utf-8").replace('"mean": 40.5', f'"mean": {number}')
    (folder / CARD_FILE).write_text(text, "utf-8")
    with pytest.raises(ModelError, match="not JSON"):
        read_card(folder)
