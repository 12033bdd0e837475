# SPDX-License-Identifier: Apache-2.0
"""Loads the predictor of a model, whichever program its network is of."""

from __future__ import annotations

from pathlib import Path

from barl.errors import ModelError
from barl.inference.device import choose_device
from barl.inference.predictor import Predictor
from barl.project.model_card import read_card


def load_predictor(folder: Path, device: str = "auto", fast: bool = False, member: int | None = None) -> Predictor:
    """Read a model from disk.

    Args:
        folder: The model's.
        device: As for ``choose_device``.
        fast: About a fifth of the work, rougher uncertainty.
        member: One member (from 0) of a model that has several; None: all together.

    Raises:
        ModelError: The model is missing, damaged or of a future format, or the package that its network needs is not
            installed.
        DeviceError: No such device.
    """
    card = read_card(folder)
    match card.program:
        case "":
            return Predictor.load(folder, device, fast, member)
        case "nnU-Net":
            from barl.inference.nnunet import NnunetPredictor

            return NnunetPredictor(folder, card, choose_device(device), fast=fast)
        case "MONAI":
            from barl.inference.monai_bundle import load_bundle

            return load_bundle(folder, card, choose_device(device), fast=fast)
    raise ModelError(f"The model {card.name} is a network of {card.program}, which is not known.", "Update BARL.")
