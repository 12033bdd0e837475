# SPDX-License-Identifier: Apache-2.0
"""Networks of MONAI that a bundle describes, run with BARL's windows, uncertainty and resampling."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from barl.errors import ModelError
from barl.inference.predictor import Predictor
from barl.models.disk import load_weights
from barl.project.model_card import FRESH_COPY, ModelCard

_NETWORK = re.compile(r"[A-Z]\w*")


class BundleNetwork(nn.Module):
    """A network of MONAI as the predictor calls one of BARL's: arrays are ``[B, C, k, j, i]``, one branch.

    Args:
        network: Takes ``[B, C, x, y, z]`` and gives ``[B, class, x, y, z]``.
        classes: For each label in ascending order of value the network's class; the others count as background.
        activation: ``softmax`` of all classes with the background as class 0, or ``sigmoid`` of each class.
    """

    n_branches = 1

    def __init__(self, network: nn.Module, classes: list[int], activation: str) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.activation = activation
        self.spec = SimpleNamespace(n_branches=1)

    def forward(self, x: Tensor, branch: int = 0) -> Tensor:
        """Logits ``[B, L + 1, k, j, i]``, background first."""
        logits = self.network(x.permute(0, 1, 4, 3, 2))
        if isinstance(logits, list | tuple):  # deep supervision: the finest scale comes first
            logits = logits[0]
        logits = logits.permute(0, 1, 4, 3, 2)
        if self.activation == "sigmoid":
            share = logits[:, self.classes].float().sigmoid()
            background = (1 - share.amax(dim=1, keepdim=True)).clamp_min(1e-6)
            return torch.cat([background, share.clamp_min(1e-6)], dim=1).log()
        others = [n for n in range(logits.shape[1]) if n not in self.classes]
        background = logits[:, others].logsumexp(dim=1, keepdim=True)
        return torch.cat([background, logits[:, self.classes]], dim=1)


class BundlePredictor(Predictor):
    """A predictor of a network that has no features to compare scans by."""

    def _embedding(self, *arguments: Any) -> list[float]:
        return []


def load_bundle(folder: Path, card: ModelCard, device: torch.device, *, fast: bool = False) -> BundlePredictor:
    """Load a model that ``jobs.bundles`` made.

    Raises:
        ModelError: The network cannot be built, or the weights do not fit.
    """
    spec = card.network
    network = build_network(spec["class"], spec["arguments"])
    try:
        network.load_state_dict(load_weights(folder, card))
    except RuntimeError as error:
        raise ModelError(
            f"The weights of the model {card.name} do not fit its network {spec['class']} "
            f"({str(error).splitlines()[-1].strip()[:100]}).",
            FRESH_COPY,
        ) from None
    wrapped = BundleNetwork(network.requires_grad_(False), spec["classes"], spec["activation"])
    return BundlePredictor(card, wrapped, device, fast=fast)  # type: ignore[arg-type]


def build_network(name: str, arguments: dict[str, Any]) -> nn.Module:
    """A network of ``monai.networks.nets`` by its name; arguments are plain values.

    Raises:
        ModelError: There is none of this name, or the arguments are not its own.
    """
    from monai.networks import nets

    kind = getattr(nets, name, None) if _NETWORK.fullmatch(name) else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ModelError(f"MONAI has no network {name[:60]!r}.", "Install the version of MONAI that the bundle needs.")
    try:
        return kind(**arguments)
    except Exception as error:
        raise ModelError(
            f"The network {name} cannot be built from the bundle ({type(error).__name__}: {str(error)[:100]}).",
            "Install the version of MONAI that the bundle needs.",
        ) from None
