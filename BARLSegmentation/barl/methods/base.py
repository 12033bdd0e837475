# SPDX-License-Identifier: Apache-2.0
"""What every method has in common: a batch of two views, settings, and the ramp of its unlabeled terms."""

from __future__ import annotations

import dataclasses
import importlib
import math
import operator
import pkgutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, get_type_hints

import torch
from torch import Tensor

from barl.errors import InputError
from barl.json_text import misfit
from barl.networks.branches import BranchPair, Network

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")

# The package of the methods to compare with; Slicer's package leaves it out.
PEERS = f"{__package__}.peers"


@dataclass
class Batch:
    """One step's patches: labeled items first, then unlabeled ones; either part may be empty.

    Attributes:
        weak: Weak view ``[B, C, k, j, i]``: spatial augmentation only.
        strong: Strong view of the same patches, voxel for voxel aligned: intensities disturbed as well.
        label: Class indices ``[B_l, k, j, i]`` of the first ``B_l`` items, -1 where nobody has looked.
        trust: How much each voxel of ``label`` counts as supervision, 0 to 1, float32 of the same shape; None: 1, but 0
            where the class is -1.
        unseen: How much the terms without outlines count there, 0 to 1; None: 1 where the class is -1, 0 elsewhere.
    """

    weak: Tensor
    strong: Tensor
    label: Tensor
    trust: Tensor | None = None
    unseen: Tensor | None = None

    @property
    def n_labelled(self) -> int:
        return self.label.shape[0]

    def to(self, device: torch.device) -> Batch:
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        there = {name: part.to(device, non_blocking=True) for name, part in parts.items() if part is not None}
        return Batch(**there)

    def supervision(self) -> Tensor:
        """How much each voxel of the outlined items counts as supervision, ``[B_l, k, j, i]``."""
        looked = (self.label >= 0).float()
        return looked if self.trust is None else self.trust * looked

    def outlined(self) -> Outlined:
        """What the outlines say."""
        trust = self.supervision()
        if bool((trust == 1).all()):
            return Outlined(self.label)
        unseen = (self.label < 0).float() if self.unseen is None else self.unseen
        taught = (trust > 0).flatten(1).any(dim=1)
        order = None
        if not bool(taught.all()):
            rest = torch.arange(self.n_labelled, len(self.weak), device=trust.device)
            order = torch.cat([torch.nonzero(taught)[:, 0], torch.nonzero(~taught)[:, 0], rest])
        label, trust, unseen = self.label[taught], trust[taught], unseen[taught]
        if bool((trust == 1).all()):
            return Outlined(label, order=order)
        open_voxels = unseen.unsqueeze(1) if bool((unseen > 0).any()) else None
        return Outlined(label, trust.unsqueeze(1), open_voxels, order)


@dataclass
class Outlined:
    """What the outlines of a batch say: an item of which no voxel was looked at is an untouched one.

    Attributes:
        label: Class indices ``[n, k, j, i]`` of the items with a voxel that was looked at; -1 elsewhere.
        voxels: How much each voxel counts as supervision, 0 to 1, ``[n, 1, k, j, i]``; None: 1 everywhere.
        open_voxels: How much the terms without outlines count at each voxel; None: 0 everywhere.
        order: The batch's items with these first; None: they are the first.
    """

    label: Tensor
    voxels: Tensor | None = None
    open_voxels: Tensor | None = None
    order: Tensor | None = None

    def __len__(self) -> int:
        return len(self.label)

    def first(self, values: Tensor) -> Tensor:
        """``values [B, ...]`` of the batch's items, those of the outlined items first."""
        return values if self.order is None else values[self.order]

    def completed(self, guess: Tensor) -> Tensor:
        """Class indices ``[B, k, j, i]`` of all items in the order of ``first``: ``guess`` where nobody has looked."""
        n = len(self)
        known = self.label if self.voxels is None else torch.where(self.label >= 0, self.label, guess[:n])
        return torch.cat([known, guess[n:]])

    def untouched(self, values: Tensor) -> Tensor:
        """``values [B, ...]``, in the order of ``first``, of the items with open voxels and of the untouched ones."""
        n = len(self)
        if self.open_voxels is None:
            return values[n:]
        return torch.cat([values[:n][self._partial], values[n:]])

    def unseen(self, count: int) -> Tensor | None:
        """How much the terms without outlines count at each voxel of these items; None: 1 everywhere.

        Args:
            count: Items of the batch.
        """
        if self.open_voxels is None:
            return None
        unseen = self.open_voxels[self._partial]
        return torch.cat([unseen, unseen.new_ones(count - len(self), *unseen.shape[1:])])

    def known(self, pasted: Tensor | None, count: int) -> Tensor | None:
        """Classes ``[items, k, j, i]`` of these items where none is open, -1 elsewhere; None: there are none.

        Args:
            pasted: The same of the untouched items alone.
            count: Items of the batch.
        """
        if self.open_voxels is None:
            return pasted
        if pasted is None:
            pasted = self.label.new_full((count - len(self), *self.label.shape[1:]), -1)
        own, still_open = self.label[self._partial], self.open_voxels[self._partial, 0] > 0
        return torch.cat([own.masked_fill(still_open, -1), pasted])

    @property
    def _partial(self) -> Tensor:
        assert self.open_voxels is not None
        return (self.open_voxels > 0).flatten(1).any(dim=1)


class Method(Generic[S]):
    """Turns a batch into a loss.

    Class attributes: ``name`` on the command line, ``title`` on screen, ``uses_unlabelled`` whether it learns from
    untouched scans, ``takes_partial`` whether it heeds labels of -1 (``Batch``): others refuse partial outlines.

    Args:
        settings: Values that replace the defaults of ``settings_class``, a frozen dataclass.

    Raises:
        InputError: An unknown setting, or a value that is not of its type or below 0.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    uses_unlabelled: ClassVar[bool] = True
    takes_partial: ClassVar[bool] = False
    settings_class: type[S]

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        names = [f.name for f in dataclasses.fields(self.settings_class)]
        unknown = sorted(set(settings or {}) - set(names))
        if unknown:
            raise InputError(f"Method {self.name} has no setting {unknown[0]!r}.", f"It has: {', '.join(names)}.")
        kinds = get_type_hints(self.settings_class)
        for name, value in (settings or {}).items():
            if wanted := misfit(value, kinds[name], 0.0):
                raise InputError(f"The setting {name} of {self.title} cannot be {value!r}.", f"Give {wanted}.")
        self.settings: S = self.settings_class(**(settings or {}))
        self.kept = torch.nn.ModuleDict()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    @classmethod
    def must_take_partial(cls) -> None:
        """Refuse partial outlines unless the method takes them.

        Raises:
            InputError: It does not.
        """
        if not cls.takes_partial:
            takes = ", ".join(name for name, method in available().items() if method.takes_partial)
            raise InputError(
                f"The method {cls.title} cannot learn from partial outlines.",
                f"Choose one of: {takes}. Or accept the outlines of whole scans.",
            )

    def network_options(self) -> dict[str, Any]:
        """Fields of ``NetworkSpec`` that the method needs otherwise than by default (two independent branches).

        Sizes (widths, strides, kernels) are the plan's. Prediction averages the finest logits' probabilities of all
        branches and takes their disagreement for uncertainty; a method with one branch has none.
        """
        return {}

    def prepare(self, network: BranchPair) -> None:
        """Called once before the first step, the network having its first weights.

        A method that keeps something beside the network (a teacher, a critic, a memory) puts it into ``kept`` here, as
        modules whose ``state_dict`` is complete, and the optimizers of modules that are trained separately into
        ``optimizers``. Both are written to the checkpoint and put back when a run is resumed.
        """

    def loss(self, network: Network, batch: Batch, iteration: int, total: int) -> dict[str, Tensor]:
        """The parts of the loss and their weighted sum ``"total"`` at ``iteration`` of ``total``.

        torch's random numbers may be used: the training loop seeds them anew at every step, so a run resumes exactly.
        """
        raise NotImplementedError

    def after_step(self, network: BranchPair, iteration: int) -> None:
        """Called after the optimizer's step at ``iteration``: what is kept follows."""

    def consistency_weight(self, iteration: int, total: int) -> float | None:
        """The weight of the terms that need no outline at ``iteration`` of ``total``; None if there are none."""
        return None


class RampedSettings(Protocol):
    """Settings of a method with terms that need no outline.

    Attributes:
        weight: Of those terms after the ramp.
        ramp: Its length as a share of all iterations: the published lengths stand in iterations of much longer runs.
    """

    @property
    def weight(self) -> float: ...

    @property
    def ramp(self) -> float: ...

    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=RampedSettings)


class Ramped(Method[R]):
    """A method whose terms that need no outline gain weight along the field's sigmoid ramp."""

    def consistency_weight(self, iteration: int, total: int) -> float:
        return self.settings.weight * ramp_up(iteration, self.settings.ramp * total)


def ramp_up(iteration: float, length: float) -> float:
    """The field's sigmoid ramp ``exp(-5 (1 - t/T)^2)`` from about 0 to 1 over ``length`` iterations."""
    if length <= 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(iteration / length, 1.0)) ** 2)


def add_up(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one or more terms of a loss."""
    return reduce(operator.add, terms)


def available(peers: bool = True) -> dict[str, type[Method[Any]]]:
    """Methods by name: the ``Method`` subclasses in the files of this folder and, where it is installed, of ``peers``.

    Args:
        peers: Include the methods to compare with.
    """
    _import_all()
    found = [cls for cls in _subclasses(Method) if peers or not cls.__module__.startswith(f"{PEERS}.")]
    return {cls.name: cls for cls in sorted(found, key=lambda cls: cls.name)}


@cache
def _import_all() -> None:
    for module in pkgutil.walk_packages([str(Path(__file__).parent)], f"{__package__}."):
        importlib.import_module(module.name)


def _subclasses(cls: type[Method[Any]]) -> set[type[Method[Any]]]:
    return {s for direct in cls.__subclasses__() for s in ({direct} | _subclasses(direct)) if "name" in vars(s)}


def get(name: str) -> type[Method[Any]]:
    """The method called ``name``.

    Raises:
        InputError: There is none.
    """
    methods = available()
    if name not in methods:
        remedy = f"Choose one of: {', '.join(methods)}."
        if PEERS not in sys.modules:
            remedy += " Methods to compare with are in BARL's repository only, not in Slicer's package."
        raise InputError(f"There is no method {name!r}.", remedy)
    return methods[name]
