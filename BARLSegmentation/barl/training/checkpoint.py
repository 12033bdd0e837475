# SPDX-License-Identifier: Apache-2.0
"""Everything needed to go on exactly: weights, optimizer state and iteration, in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from barl.errors import ModelError, storage_error
from barl.project.files import write_atomically

NAME = "checkpoint.safetensors"


def save_checkpoint(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
    """Write the state; the checkpoint before stays until this one is complete.

    Args:
        folder: The run's folder.
        network: Its weights.
        optimizer: Its moments.
        facts: JSON-able values such as the iteration.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    tensors = {f"network/{name}": tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    state = optimizer.state_dict()
    for index, moments in state["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    metadata = {"facts": json.dumps(facts), "groups": json.dumps(state["param_groups"])}
    try:
        write_atomically(folder / NAME, lambda path: save_file(tensors, path, metadata))
    except OSError as error:
        raise storage_error(error, folder) from error
    except SafetensorError as error:
        raise storage_error(OSError(str(error)), folder) from error


def load_checkpoint(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put the saved state back and return its ``facts``.

    Raises:
        ModelError: There is no checkpoint, it is damaged, or it belongs to another network.
    """
    try:
        with safe_open(folder / NAME, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        weights = {name.removeprefix("network/"): t for name, t in tensors.items() if name.startswith("network/")}
        network.load_state_dict(weights)
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer/"):
                _, index, moment = name.split("/")
                state.setdefault(int(index), {})[moment] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": json.loads(metadata["groups"])})
        return json.loads(metadata["facts"])
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "The checkpoint of this run is missing or damaged.", "Start the training again from the current model."
        ) from error
