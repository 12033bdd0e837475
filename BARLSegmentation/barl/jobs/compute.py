# SPDX-License-Identifier: Apache-2.0
"""The means of computing: device, fast or full prediction, and loaded models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barl.inference.loading import load_predictor
from barl.inference.predictor import Predictor
from barl.project.model_card import read_card


class WarmPredictors:
    """Predictors kept loaded, so that the second request pays for the network's time alone.

    Args:
        keep: How many; one model is the rule, a second one for comparisons.
    """

    def __init__(self, keep: int = 2) -> None:
        self._keep = keep
        self._loaded: dict[tuple[Any, ...], Predictor] = {}

    def get(self, folder: Path, device: str = "auto", fast: bool = False, member: int | None = None) -> Predictor:
        """The predictor of a model folder or of one of its members, loaded anew if the model there has changed.

        Raises:
            ModelError: The folder holds no model that can be used.
            DeviceError: There is no such device.
        """
        card = read_card(folder)
        key = (repr(card), device, fast, member)  # cleanup and names of labels may change, the weights stay
        predictor = self._loaded.pop(key, None)
        if predictor is None:
            while len(self._loaded) >= self._keep:  # before loading: two models at once may be one too many
                self._loaded.pop(next(iter(self._loaded)))
            predictor = load_predictor(folder, device=device, fast=fast, member=member)
        self._loaded[key] = predictor  # the newest last
        return predictor


@dataclass(frozen=True)
class Compute:
    """How predictions are computed.

    Attributes:
        device: As for ``choose_device``.
        fast: One branch instead of both.
        warm: Loaded predictors to use and to add to; none are kept without it.
        cleanup: Apply the cleanup of the model's card.
    """

    device: str = "auto"
    fast: bool = False
    warm: WarmPredictors | None = None
    cleanup: bool = True

    def predictor(self, folder: Path, member: int | None = None) -> Predictor:
        """The predictor of a model folder or of one of its members; raises as ``WarmPredictors.get``."""
        return (self.warm or WarmPredictors()).get(folder, self.device, self.fast, member)


# The best device, both branches, nothing kept loaded.
AUTOMATIC = Compute()
