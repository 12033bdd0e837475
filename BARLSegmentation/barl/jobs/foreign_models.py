# SPDX-License-Identifier: Apache-2.0
"""Turns models of other programs into model folders: a card and weights as safetensors.

Nothing of a model is executed: checkpoints are read with PyTorch's ``weights_only`` reader, which takes tensors and
plain values and refuses all else; what a network consists of is read from JSON and may name known layers only.
TorchScript files are programs and are not read.
"""

from __future__ import annotations

import datetime
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from barl.errors import ModelError, NotFiniteError
from barl.images.intensity import Normalization
from barl.inference.nnunet import check_plans
from barl.models.disk import save_model
from barl.project.datasets.description import read_description
from barl.project.files import sha256
from barl.project.labels import Label
from barl.project.model_card import FOREIGN_FORMAT, ModelCard
from barl.project.names import clean, key
from barl.project.palette import label_color

_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_LARGEST_JSON = 64 * 2**20


def is_nnunet_model(folder: Path) -> bool:
    """Whether a folder is that of a trained nnU-Net v2 configuration."""
    return (folder / "plans.json").is_file() and any(folder.glob("fold_*/checkpoint_*.pth"))


def convert_nnunet(source: Path, place: Path, labels: Sequence[Label] | None = None) -> tuple[ModelCard, list[str]]:
    """Make a model folder of a trained nnU-Net v2 configuration.

    Args:
        source: Such as ``nnUNetTrainer__nnUNetPlans__3d_fullres``, with ``plans.json`` and ``fold_...``.
        place: Where the model folder shall be.
        labels: The label table of a project: labels are matched by name, others become background. None: the model's
            own table.

    Returns:
        The card, and sentences for the user.

    Raises:
        ModelError: A file is missing or damaged, holds more than weights and plain values, or names a network that is
            not known; the model predicts regions or needs another model's result.
        StorageError: The disk is full or read-only.
    """
    plans, dataset = read_json(source / "plans.json"), read_json(source / "dataset.json")
    check_plans(plans)
    described = read_description(source / "dataset.json")
    if any(isinstance(value, list) for value in dataset.get("labels", {}).values()):
        raise ModelError(
            "The nnU-Net model predicts regions, which overlap; a voxel of a label map has one label.",
            "Predict with nnU-Net and import its label maps with import-predictions.",
        )
    tensors: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    folds = _checkpoints(source)
    for fold, file in folds.items():
        checkpoint = read_checkpoint(file)
        facts = facts or checkpoint
        if not isinstance(checkpoint.get("network_weights"), Mapping):
            raise ModelError(f"'{file.name}' of {fold} is no checkpoint of nnU-Net.", "Copy the model's folder again.")
        tensors |= {f"{fold}.{plain_name(name)}": tensor for name, tensor in checkpoint["network_weights"].items()}
    configuration = str(facts["init_args"]["configuration"])
    settings = _configuration(plans, configuration)
    if settings.get("previous_stage"):
        raise ModelError(
            "The nnU-Net model is the second stage of a cascade and needs the result of the first.",
            "Use the configuration 3d_fullres, or predict with nnU-Net and import its label maps.",
        )
    own, classes, notes = match_labels(described.labels, labels)
    notes += [f"Its folds ({', '.join(folds)}) predict together."] if len(folds) > 1 else []
    steps, patch = _three(settings["spacing"], 1.0), _three(settings["patch_size"], 1)
    card = ModelCard(
        format=FOREIGN_FORMAT,
        id=f"nnunet-{sha256(next(iter(folds.values())))[:12]}",
        name=f"nnU-Net {plans.get('dataset_name', 'model')} {configuration}",
        created=time_of(next(iter(folds.values()))),
        labels=own,
        channels=list(described.channels),
        spacing=(float(steps[2]), float(steps[1]), float(steps[0])),
        normalisations=[Normalization("none")] * len(described.channels),
        patch=(int(patch[0]), int(patch[1]), int(patch[2])),
        method="nnU-Net",
        settings={"configuration": configuration, "trainer": str(facts["trainer_name"]), "folds": len(folds)},
        data={"labelled": int(dataset.get("numTraining", 0)), "unlabelled": 0, "held_out": 0},
        network={
            "program": "nnU-Net",
            "in_channels": len(described.channels),
            "n_classes": len(described.labels) + 1,
            "classes": classes,
            "members": list(folds),
            "configuration": configuration,
            "trainer": str(facts["trainer_name"]),
            "mirroring": [int(axis) for axis in facts.get("inference_allowed_mirroring_axes") or ()],
            "plans": plans,
            "dataset": {name: dataset[name] for name in ("channel_names", "labels", "file_ending") if name in dataset},
        },
    )
    return save_foreign(place, card, tensors), notes


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A PyTorch checkpoint of tensors and plain values; nothing in it is executed.

    Raises:
        ModelError: It holds anything else, or is damaged.
    """
    import numpy as np
    import torch

    scalar: Any = np.float64(0).__reduce__()[0]
    kinds: list[Any] = [np.dtype, *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "?")}]
    old_name = (scalar, "numpy.core.multiarray.scalar")
    if _is_torchscript(file):
        raise ModelError(
            f"'{file.name}' is a TorchScript file, which is a program and is not run.", "Give the file of the weights."
        )
    try:
        with torch.serialization.safe_globals([scalar, old_name, *kinds]):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise ModelError(
            f"The checkpoint '{file.name}' is damaged or holds more than weights and plain values ({first}).",
            "It could run a program and is not read; use a model from people that you trust, or predict with the "
            "program that it is for and import the predictions.",
        ) from None
    if not isinstance(checkpoint, dict):
        raise ModelError(f"The checkpoint '{file.name}' holds no table of weights.", "Copy the model again.")
    return checkpoint


def _is_torchscript(file: Path) -> bool:
    """Whether ``torch.jit.save`` wrote a file: PyTorch's reader of weights may hand it to the reader of programs."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _checkpoints(source: Path) -> dict[str, Path]:
    """Fold -> its checkpoint."""
    found = {}
    for folder in sorted(source.glob("fold_*")):
        if re.fullmatch(r"fold_(\d+|all)", folder.name):
            place = next((folder / name for name in _CHECKPOINTS if (folder / name).is_file()), None)
            if place:
                found[folder.name] = place
    if not found:
        raise ModelError(f"The folder {source} holds no checkpoint.", f"It needs fold_0/{_CHECKPOINTS[0]}.")
    return found


def _configuration(plans: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits from others."""
    found: dict[str, Any] = {}
    wanted: str | None = name
    for _ in plans["configurations"]:
        if wanted is None:
            break
        own = plans["configurations"].get(wanted)
        if not isinstance(own, dict):
            raise ModelError(f"The plans have no configuration {wanted!r}.", "Copy the model's folder again.")
        found, wanted = {**own, **found}, own.get("inherits_from")
    if "spacing" not in found or "patch_size" not in found:
        raise ModelError(
            f"The plans say too little about the configuration {name!r}.", "Copy the model's folder again."
        )
    return found


def match_labels(names: Mapping[int, str], labels: Sequence[Label] | None) -> tuple[list[Label], list[int], list[str]]:
    """The labels of the card, for each in ascending order of value the model's class, and sentences for the user."""
    if labels is None:
        own = [Label(value, clean(name), label_color(n)) for n, (value, name) in enumerate(sorted(names.items()))]
        return own, [label.value for label in own], []
    classes = {key(name): value for value, name in names.items()}
    matched = [label for label in sorted(labels, key=lambda label: label.value) if key(label.name) in classes]
    if not matched:
        raise ModelError(
            f"The model finds {', '.join(names.values())}; the project has {', '.join(row.name for row in labels)}.",
            'Name the labels alike: "barl project labels PROJECT --rename VALUE=NAME".',
        )
    used = {classes[key(label.name)] for label in matched}
    others = [name for value, name in names.items() if value not in used]
    notes = [f"It also finds {', '.join(others)}, which become background."] if others else []
    return matched, [classes[key(label.name)] for label in matched], notes


def save_foreign(place: Path, card: ModelCard, tensors: dict[str, Any]) -> ModelCard:
    try:
        return save_model(place, card, tensors)
    except NotFiniteError:
        raise ModelError("The model's weights hold values that are not finite numbers.", "Use another model.") from None


def plain_name(name: str) -> str:
    """The name of a tensor as the network itself has it: compiling and several GPUs add prefixes."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")


def _three(values: Sequence[float], first: float) -> list[float]:
    """Three numbers (k, j, i); a two-dimensional configuration has one plane."""
    return [first] * (3 - len(values)) + list(values)


def time_of(file: Path) -> str:
    return datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")


def read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError("too large")
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        raise ModelError(
            f"The file '{path.name}' of the model is missing or no JSON.", "Copy the model again."
        ) from None
    if not isinstance(data, dict):
        raise ModelError(f"The file '{path.name}' of the model is no table.", "Copy the model again.")
    return data
