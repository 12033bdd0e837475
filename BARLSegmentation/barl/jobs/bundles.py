# SPDX-License-Identifier: Apache-2.0
"""Turns MONAI bundles of plain segmentation networks into model folders.

A bundle's configuration is a program (``$`` expressions are evaluated, ``_target_`` names any class). Nothing of it is
run here: the network must be one of ``monai.networks.nets`` with plain arguments, the preparation one of the transforms
below, the weights a table of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from barl.errors import ModelError
from barl.images.intensity import Normalization
from barl.inference.monai_bundle import build_network
from barl.jobs.foreign_models import match_labels, plain_name, read_checkpoint, read_json, save_foreign, time_of
from barl.project.files import sha256
from barl.project.labels import Label
from barl.project.model_card import FOREIGN_FORMAT, ModelCard

_METADATA = Path("configs/metadata.json")
_CONFIGURATIONS = (Path("configs/inference.json"), Path("configs/train.json"))
_WEIGHTS = Path("models/model.pt")
# Transforms that change neither voxels nor their place, or that the reading of a scan does anyway.
_HARMLESS = {"LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "CastToTyped", "ToTensord", "AddChanneld"}
_NETS = "monai.networks.nets."


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a MONAI bundle."""
    return (folder / _METADATA).is_file()


def convert_bundle(source: Path, place: Path, labels: Sequence[Label] | None = None) -> tuple[ModelCard, list[str]]:
    """Make a model folder of a MONAI bundle.

    Args:
        source: Holds ``configs/metadata.json``, ``configs/inference.json`` and ``models/model.pt``.
        place: Where the model folder shall be.
        labels: As for ``convert_nnunet``.

    Returns:
        The card, and sentences for the user.

    Raises:
        ModelError: A file is missing or damaged, or the bundle does more than prepare a scan in known ways and run a
            known network once.
        StorageError: The disk is full or read-only.
    """
    metadata = read_json(source / _METADATA)
    config = read_json(
        next((source / c for c in _CONFIGURATIONS if (source / c).is_file()), source / _CONFIGURATIONS[0])
    )
    channels, names = _format(metadata)
    network = _network(config)
    preparation = _Preparation(config)
    weights = read_checkpoint(_weights(source))
    weights = next((weights[k] for k in ("model", "state_dict") if isinstance(weights.get(k), Mapping)), weights)
    tensors = {plain_name(str(name)): tensor for name, tensor in weights.items()}
    sigmoid, n_out = _activation(config), _outputs(metadata)
    own, places, notes = match_labels(names, labels)
    patch = _patch(config)
    card = ModelCard(
        format=FOREIGN_FORMAT,
        id=f"monai-{sha256(_weights(source))[:12]}",
        name=str(metadata.get("name") or source.name)[:200],
        created=time_of(_weights(source)),
        labels=own,
        channels=channels,
        spacing=preparation.spacing,
        orientation=preparation.orientation,
        normalisations=[preparation.normalization] * len(channels),
        patch=(patch[2], patch[1], patch[0]),
        method="MONAI",
        settings={"bundle": str(metadata.get("version", ""))},
        licence=str(metadata.get("copyright", ""))[:1000],
        network={
            "program": "MONAI",
            "in_channels": len(channels),
            "n_classes": n_out,
            "classes": places,
            "class": network[0],
            "arguments": network[1],
            "activation": "sigmoid" if sigmoid else "softmax",
        },
    )
    build_network(*network)
    return save_foreign(place, card, tensors), notes


def _format(metadata: Mapping[str, Any]) -> tuple[list[str], dict[int, str]]:
    """Names of the channels, and class -> name without the background."""
    try:
        described = metadata["network_data_format"]
        image, pred = described["inputs"]["image"], described["outputs"]["pred"]
        channels = [str(image["channel_def"][k]) for k in sorted(image["channel_def"], key=int)]
        names = {int(k): str(name) for k, name in pred["channel_def"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"The bundle does not describe its input image and its output pred ({error}).",
            "It is no bundle of a plain segmentation network; predict with MONAI and import the predictions.",
        ) from None
    return channels, {k: name for k, name in names.items() if name.strip().casefold() != "background"}


def _outputs(metadata: Mapping[str, Any]) -> int:
    return len(metadata["network_data_format"]["outputs"]["pred"]["channel_def"])


def _network(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the network."""
    described = config.get("network_def") or config.get("network")
    target = str(described.get("_target_", "")) if isinstance(described, dict) else ""
    name = target.removeprefix(_NETS) if target.startswith(_NETS) else target
    if not name or "." in name:
        raise ModelError(
            f"The bundle's network is {target[:80]!r}, which is none of {_NETS}*.",
            "Only networks of MONAI itself are taken; predict with MONAI and import the predictions.",
        )
    assert isinstance(described, dict)  # it has a target
    arguments = {key: value for key, value in described.items() if not key.startswith("_")}
    for key, value in arguments.items():
        _must_be_plain(key, value)
    return name, arguments


def _must_be_plain(key: str, value: Any) -> None:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if (isinstance(value, str) and value[:1] in ("$", "@", "%")) or (isinstance(value, dict) and "_target_" in value):
        raise ModelError(
            f"The bundle computes its {key!r} by a program ({str(value)[:60]!r}), which is not run.",
            "Write the value itself into the configuration, if you trust the bundle.",
        )
    for part in parts:
        _must_be_plain(key, part)


class _Preparation:
    """What the bundle does with a scan before its network sees it.

    Attributes:
        spacing: (x, y, z) in mm.
        orientation: As in ``axes_towards``.
        normalization: Of each channel.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        spacing: tuple[float, float, float] | None = None
        self.orientation = "RAS"
        self.normalization = Normalization("none")
        for transform in _transforms(config):
            spacing = self._take(transform) or spacing
        if spacing is None:
            raise ModelError(
                "The bundle brings scans to no spacing, so the size of a voxel that its network expects is not known.",
                "Predict with MONAI and import the predictions.",
            )
        self.spacing = spacing

    def _take(self, transform: Mapping[str, Any]) -> tuple[float, float, float] | None:
        """Remember what a transform does; returns the spacing that it brings scans to, if it does."""
        name = str(transform.get("_target_", "")).rpartition(".")[2]
        for key, value in transform.items():
            if not key.startswith("_") and key not in ("keys", "reader", "device", "track_meta", "dtype", "data_type"):
                _must_be_plain(key, value)
        if name in _HARMLESS or transform.get("_disabled_") is True:
            return None
        if name == "Orientationd":
            self.orientation = str(transform.get("axcodes", "RAS"))
        elif name == "Spacingd":
            x, y, z = (float(edge) for edge in transform["pixdim"])
            return (x, y, z)
        elif name == "ScaleIntensityRanged" and transform.get("clip", False) is True:
            low, high = float(transform["a_min"]), float(transform["a_max"])
            first, last = float(transform["b_min"]), float(transform["b_max"])
            sd = (high - low) / (last - first)
            self.normalization = Normalization("ct_window", low, high, low - first * sd, sd)
        elif name == "NormalizeIntensityd" and not transform.keys() & {"subtrahend", "divisor"}:
            self.normalization = Normalization("zscore_nonzero" if transform.get("nonzero") else "zscore")
        else:
            raise ModelError(
                f"The bundle prepares scans with {name or 'a program'}, which is not known.",
                f"Known are Orientationd, Spacingd, ScaleIntensityRanged with clip, NormalizeIntensityd and "
                f"{', '.join(sorted(_HARMLESS))}; predict with MONAI and import the predictions.",
            )
        return None


def _transforms(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    pipeline = config.get("preprocessing")
    found = pipeline.get("transforms") if isinstance(pipeline, dict) else None
    if not isinstance(found, list) or not all(isinstance(transform, dict) for transform in found):
        raise ModelError(
            "The bundle's configuration has no list of transforms under 'preprocessing'.",
            "Predict with MONAI and import the predictions.",
        )
    return found


def _activation(config: Mapping[str, Any]) -> bool:
    """Whether each class has a probability of its own."""
    pipeline = config.get("postprocessing")
    transforms = pipeline.get("transforms", []) if isinstance(pipeline, dict) else []
    return any(
        isinstance(t, dict) and str(t.get("_target_", "")).endswith("Activationsd") and t.get("sigmoid") is True
        for t in transforms
    )


def _patch(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """The window (x, y, z) in voxels."""
    size = config.get("inferer", {}).get("roi_size") if isinstance(config.get("inferer"), dict) else None
    if not (isinstance(size, list) and len(size) == 3 and all(isinstance(edge, int) and edge > 0 for edge in size)):
        raise ModelError(
            "The bundle's inferer has no roi_size of three numbers.", "Predict with MONAI and import the predictions."
        )
    return size[0], size[1], size[2]


def _weights(source: Path) -> Path:
    place = source / _WEIGHTS
    if not place.is_file():
        script = (
            " TorchScript files (model.ts) are programs and are not read." if any(source.glob("models/*.ts")) else ""
        )
        raise ModelError(f"The bundle holds no weights ({_WEIGHTS} is missing).{script}", "Download the whole bundle.")
    return place
