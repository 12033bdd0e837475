# SPDX-License-Identifier: Apache-2.0
"""The checkpoint, one safetensors file: weights, optimizer state, the method's modules and the iteration."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from barl.errors import ModelError, storage_error
from barl.methods import Method
from barl.project.files import write_atomically

NAME = "checkpoint.safetensors"
_FULL_ON_WINDOWS = (39, 112)


def save_checkpoint(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, method: Method, facts: dict[str, Any]
) -> None:
    """Write the state; the checkpoint before stays until this one is complete.

    Args:
        folder: The run's folder.
        network: Its weights.
        optimizer: Its moments.
        method: Its ``kept`` modules and the moments of its ``optimizers``.
        facts: JSON-able values such as the iteration.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    tensors = {}
    for module, part in (("network", network), ("kept", method.kept)):
        for name, tensor in part.state_dict().items():
            tensors[f"{module}/{name}"] = tensor.detach().cpu().contiguous()
    for owner, own in {"optimizer": optimizer, **_owned(method)}.items():
        for index, moments in own.state_dict()["state"].items():
            for name, value in moments.items():
                tensors[f"{owner}/{index}/{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    metadata = {"facts": json.dumps(facts), "groups": json.dumps(optimizer.state_dict()["param_groups"])}
    try:
        write_atomically(folder / NAME, lambda path: save_file(tensors, path, metadata))
    except OSError as error:
        raise storage_error(error, folder) from error
    except SafetensorError as error:
        raise storage_error(_cause(error), folder) from error


def load_checkpoint(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, method: Method
) -> dict[str, Any]:
    """Put the saved state back and return its ``facts``.

    Raises:
        ModelError: There is no checkpoint, it is damaged, or it belongs to another network or method.
    """
    try:
        with safe_open(folder / NAME, framework="pt") as file:
            metadata = file.metadata()
            # Copies: the tensors read are views of the mapped file, which Windows then lets no next checkpoint replace.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
        network.load_state_dict(_of("network", tensors))
        method.kept.load_state_dict(_of("kept", tensors))
        for owner, own in {"optimizer": optimizer, **_owned(method)}.items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in _of(owner, tensors).items():
                index, moment = name.split("/")
                state.setdefault(int(index), {})[moment] = tensor
            # The method's own optimizers are made with the same groups each time.
            groups = json.loads(metadata["groups"]) if own is optimizer else own.state_dict()["param_groups"]
            own.load_state_dict({"state": state, "param_groups": groups})
        return json.loads(metadata["facts"])
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "The checkpoint of this run is missing or damaged.", "Start the training again from the current model."
        ) from error


def _cause(error: SafetensorError) -> OSError:
    """The operating system's error that safetensors names in its text."""
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else 0
    if os.name == "nt":  # numbers of its own
        code = errno.ENOSPC if code in _FULL_ON_WINDOWS else 0
    return OSError(code, str(error))


def _owned(method: Method) -> dict[str, torch.optim.Optimizer]:
    return {f"optimizers.{name}": optimizer for name, optimizer in method.optimizers.items()}


def _of(owner: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{owner}/"): t for name, t in tensors.items() if name.startswith(f"{owner}/")}
