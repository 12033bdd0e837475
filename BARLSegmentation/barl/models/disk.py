# SPDX-License-Identifier: Apache-2.0
"""Saving and loading of models: a folder with ``model.json`` and ``weights.safetensors``, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barl.errors import ModelError, NotFiniteError, storage_error
from barl.images.writing import patiently
from barl.project.files import flush_tree, settle, sha256, staging_folder
from barl.project.model_card import CARD_FILE, FRESH_COPY, WEIGHTS_FILE, ModelCard, read_card

if TYPE_CHECKING:
    import torch

    from barl.networks.branches import BranchPair


def save_model(
    folder: Path, card: ModelCard, state_dict: Mapping[str, torch.Tensor], *, dtype: torch.dtype | None = None
) -> ModelCard:
    """Write a model folder that is either complete or not there.

    The files are written and flushed in a temporary sibling folder, which is then renamed. A model already at
    ``folder`` is replaced: who reads at that instant finds no model, never half of one.

    Args:
        folder: Where the model shall be; its parent is made if missing.
        card: What to write; its ``weights_sha256`` is filled in.
        state_dict: Weights of ``build_network(...)``.
        dtype: Type that floating-point weights are stored in, e.g. ``torch.float16`` for half the size.

    Returns:
        The card as written.

    Raises:
        ModelError: The card breaks its own schema, or a weight is not finite.
        StorageError: The disk is full or read-only.
    """
    from safetensors.torch import save

    folder = Path(folder)
    ModelCard.from_json(card.to_json())
    if not all(tensor.isfinite().all() for tensor in state_dict.values()):
        raise NotFiniteError("The network has learned values that are not finite numbers.")
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous().clone()
        for name, tensor in state_dict.items()
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(folder.parent) as staged, staging_folder(folder.parent) as aside:
            (staged / WEIGHTS_FILE).write_bytes(save(tensors))  # `save_file` hides a full disk behind its own error
            card = replace(card, weights_sha256=sha256(staged / WEIGHTS_FILE))
            text = json.dumps(card.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
            (staged / CARD_FILE).write_text(text + "\n", encoding="utf-8")
            flush_tree(staged)
            if folder.exists():
                patiently(lambda: folder.rename(aside / "replaced"))
            settle(staged, folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    return card


def join_members(members: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The weights of several networks of one specification as one dictionary, as ``save_model`` takes it."""
    return {f"{_prefix(n)}{name}": tensor for n, weights in enumerate(members) for name, tensor in weights.items()}


def load_model(folder: Path, device: str | torch.device = "cpu") -> tuple[ModelCard, BranchPair]:
    """Read a model and build its network, of several members the first one; see ``load_members``."""
    card, members = load_members(folder, device)
    return card, members[0]


def load_members(folder: Path, device: str | torch.device = "cpu") -> tuple[ModelCard, list[BranchPair]]:
    """Read a model and build the networks of its members.

    Args:
        folder: Model folder.
        device: Where the weights shall lie.

    Returns:
        The card and the networks in evaluation mode, float32.

    Raises:
        ModelError: As ``read_card``; or the weights are missing, truncated, altered, not finite or do not fit the
            network.
    """
    import torch

    from barl.networks.branches import NetworkSpec, build_network

    folder = Path(folder)
    card = read_card(folder)
    if card.program:
        raise ModelError(
            f"The model {card.name} is a network of {card.program}: it predicts, but cannot be trained on from.",
            "Choose a model that BARL has trained.",
        )
    weights = load_weights(folder, card)
    try:
        spec = NetworkSpec.from_json(card.network)
        # Without memory or random numbers: only names and shapes are needed until the stored weights take the place.
        with torch.device("meta"):
            networks = [build_network(spec) for _ in range(card.members)]
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ModelError(f"The model card describes a network that cannot be built ({error}).", FRESH_COPY) from error
    if any(edge % divisor for edge, divisor in zip(card.patch, spec.divisor, strict=True)):
        raise ModelError(
            f"The model card's patch {card.patch} is no multiple of {spec.divisor}, as its network needs.", FRESH_COPY
        )
    if tuple(card.patch) == spec.divisor:  # one voxel has no mean and deviation to normalize with
        raise ModelError(
            f"The model card's patch {card.patch} is too small: the deepest level of its network would have one voxel.",
            FRESH_COPY,
        )
    _check_fit(weights, join_members([network.state_dict() for network in networks]))
    for n, network in enumerate(networks):
        own = {name: weights[_prefix(n) + name] for name in network.state_dict()}
        network.load_state_dict(own, assign=True)
    return card, [network.requires_grad_(False).eval().to(device) for network in networks]


def check_model(folder: Path) -> ModelCard:
    """Check a model of BARL or of another program as far as that is possible without predicting.

    Raises:
        ModelError: As ``load_members``; of a network of another program, card and weights are checked.
    """
    card = read_card(folder)
    if card.program:
        load_weights(folder, card)
    else:
        load_members(folder)
    return card


def _prefix(member: int) -> str:
    """What the names of a member's tensors begin with in the file; the first member's have no prefix."""
    return f"members.{member}." if member else ""


def check_channels(card: ModelCard, channels: int | Sequence[str]) -> None:
    """Refuse a scan whose channels are not those of the model.

    Args:
        card: The model.
        channels: Number of channels of the scan, or their names in order (upper and lower case are the same).

    Raises:
        ModelError: The number, the names or their order differ.
    """
    names = None if isinstance(channels, int) else list(channels)
    count = channels if names is None else len(names)
    wanted = ", ".join(card.channels)
    if count != len(card.channels):
        raise ModelError(
            f"The model {card.name} needs {len(card.channels)} channel(s) ({wanted}), the scan has {count}.",
            "Choose the missing channels or another model.",
        )
    if names is not None and [_key(name) for name in names] != [_key(name) for name in card.channels]:
        raise ModelError(
            f"The model {card.name} needs the channels {wanted}, the scan has {', '.join(names)}.",
            "Give the channels in the model's order, or choose another model.",
        )


def _key(name: str) -> str:
    return name.strip().casefold()


def load_weights(folder: Path, card: ModelCard) -> dict[str, Any]:
    """The tensors of a model by name; floating-point ones as float32.

    Raises:
        ModelError: They are missing, truncated, altered or not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"The model {card.name} has no weights ({path} is missing).", FRESH_COPY)
    try:
        checksum = sha256(path)
        if checksum == card.weights_sha256:
            weights = load_file(path)
            if broken := next((name for name, tensor in weights.items() if not tensor.isfinite().all()), ""):
                raise ModelError(
                    f"The weights of the model {card.name} hold values that are not finite numbers ({broken}).",
                    FRESH_COPY,
                )
            # Copies: a mapped file cannot be removed on Windows, and ends the process if its drive goes.
            return {
                name: tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()
                for name, tensor in weights.items()
            }
        load_file(path)
    except SafetensorError:
        raise ModelError(f"The weights of the model {card.name} are truncated or damaged.", FRESH_COPY) from None
    except OSError as error:
        raise ModelError(f"The weights of the model {card.name} cannot be read ({error}).", FRESH_COPY) from error
    raise ModelError(
        f"The weights of the model {card.name} were altered: their checksum is not the one in {CARD_FILE}.", FRESH_COPY
    )


def _check_fit(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    problem = ""
    for name, tensor in expected.items():
        if name not in weights:
            problem = f"{name} is missing"
        elif weights[name].shape != tensor.shape:
            problem = f"{name} is {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        if problem:
            break
    else:
        surplus = sorted(set(weights) - set(expected))
        problem = f"{surplus[0]} is not part of it" if surplus else ""
    if problem:
        raise ModelError(f"The weights do not fit the network of the model card: {problem}.", FRESH_COPY)
