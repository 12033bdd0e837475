# SPDX-License-Identifier: Apache-2.0
"""The training plan: chooses every value of a run from the cases and the device, with reasons; values can be
overridden."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import numpy as np

from barl import methods
from barl.errors import DeviceError, InputError
from barl.images.familiarity import Familiar
from barl.images.fingerprint import CaseFingerprint
from barl.images.geometry import Triple, triple
from barl.images.intensity import Normalization, choose_normalization
from barl.json_text import misfit
from barl.networks.branches import NetworkSpec
from barl.project.labels import Label, check_number_of_labels
from barl.project.sides import with_sides
from barl.training.budgets import budgets_of, choose_effort

# What filled voxels of partial outlines may teach, see ``Plan.filled``.
FILLED = ("ignore", "hard", "weighted", "both")
OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("auto", "float32")
# More holds no device.
MOST_PATCH_VOXELS, MOST_CHANNELS = 2**25, 4096


# Values of a plan that follow from the cases alone.
_NOT_CHOSEN = {"labels", "channels", "normalisations", "orientation", "network", "reasons", "familiar"}
# Values that replace those of the plan's network.
_OF_NETWORK = {
    "widths": tuple[int, ...],
    "strides": tuple[Triple[int], ...],
    "kernels": tuple[Triple[int], ...],
    "blocks": tuple[int, ...],
}
_CHOICES = {"filled": FILLED, "optimizer": OPTIMIZERS, "precision": PRECISIONS}
# The least and the largest of what a plan's numbers can be, each of a list.
_RANGES: dict[str, tuple[float, float]] = {
    "spacing": (0.001, 1000.0),
    "mirror_axes": (0, 2),
    "batch_labelled": (1, 1024),
    "batch_unlabelled": (0, 1024),
    "iterations": (1, 1e9),
    "minutes": (1e-3, 1e6),
    "learning_rate": (1e-9, 1.0),
    "weight_decay": (0.0, 1.0),
    "average": (0.0, 1.0),
    "foreground": (0.0, 1.0),
    "new_share": (0.0, 0.999),
    "rotate_degrees": (0.0, 180.0),
    "scale": (1.0, 4.0),
    "validations": (0, 1000),
    "loader_workers": (0, 256),
    "seed": (0, 2**32 - 1),
    "strides": (1, 8),
    "kernels": (1, 15),
    "blocks": (1, 64),
}


@dataclass(frozen=True)
class Plan:
    """One run's settings; written as ``plan.json``.

    Attributes:
        labels: The label table, ascending; class c is the c-th label.
        channels: Channel names.
        normalisations: One per channel.
        spacing: Training spacing (x, y, z) in mm, axes towards ``orientation``.
        orientation: Axis directions of the training grid.
        patch: Patch ``(k, j, i)`` in voxels.
        network: The branches.
        mirror_axes: Array axes (0 = k, 1 = j, 2 = i) that augmentation may flip.
        batch_labelled: Labeled patches per step.
        batch_unlabelled: Unlabeled patches per step, if the method uses them.
        iterations: Length of the run.
        minutes: Time budget that replaces ``iterations`` once the step time is known; ``None`` for no limit.
        method: Name of the method.
        settings: The method's settings that differ from its defaults.
        learning_rate: At the start; falls to zero as ``(1 - t/T)^0.9``.
        optimizer: ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        weight_decay: Of the optimizer.
        average: Validated and saved is the exponential mean of the weights over about this share of the run; 0: those
            of the last step.
        channels_last: Keep weights and activations with the channels last in memory: on a CPU a step of widths 8 to 64
            takes 0.77 of the time, one of 16 to 128 1.09.
        precision: ``"auto"`` (half precision where the device has it) or ``"float32"``.
        foreground: Share of labeled patches centered on a label.
        new_share: Share of the labeled patches that the cases get, together and at least, whose outlines the model
            started from has not learned; the others keep the rest. 0: all cases are drawn alike.
        filled: What the filled voxels of partial outlines teach (PROPOSED, not of any paper): ``ignore`` nothing, they
            are as in an untouched scan; ``hard`` as an expert's; ``weighted`` by 1 minus the uncertainty that was
            stored with the fill, nothing without one; ``both`` weighted, and the rest of each voxel's weight goes to
            the method's terms without outlines.
        rotate_degrees: Largest random rotation about each axis (k, j, i).
        scale: Largest random scaling, as a factor.
        seed: Of everything random.
        validations: How often during the run the held-out cases are predicted.
        loader_workers: Processes that prepare patches.
        reasons: Why a value was chosen, in words.
        familiar: What the scans planned for are like (``Familiar`` as JSON), for the model's card.
    """

    labels: tuple[Label, ...]
    channels: tuple[str, ...]
    normalisations: tuple[Normalization, ...]
    spacing: Triple[float]
    patch: Triple[int]
    network: NetworkSpec
    orientation: str = "LPS"
    mirror_axes: tuple[int, ...] = ()
    batch_labelled: int = 1
    batch_unlabelled: int = 1
    iterations: int = 600
    minutes: float | None = None
    method: str = "barl"
    settings: dict[str, Any] = field(default_factory=dict)
    learning_rate: float = 3e-3
    optimizer: str = "adamw"
    weight_decay: float = 1e-4
    average: float = 0.0
    channels_last: bool = False
    precision: str = "auto"
    foreground: float = 0.5
    new_share: float = 0.0
    filled: str = "ignore"
    rotate_degrees: Triple[float] = (15.0, 15.0, 15.0)
    scale: float = 1.2
    seed: int = 0
    validations: int = 4
    loader_workers: int = 1
    reasons: dict[str, str] = field(default_factory=dict)
    familiar: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> list[int]:
        return [label.value for label in self.labels]

    def for_cards(self, number: int, chosen: Collection[str]) -> Plan:
        """The plan for so many graphics cards: each gets this batch, unless the user has ``chosen`` the whole batch."""
        names = {"batch_labelled", "batch_unlabelled"} - set(chosen)
        return dataclasses.replace(self, **{name: getattr(self, name) * number for name in names})

    def to_json(self) -> dict[str, Any]:
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["labels"] = [label.to_json() for label in self.labels]
        data["normalisations"] = [normalization.to_json() for normalization in self.normalisations]
        data["network"] = self.network.to_json()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read what ``to_json`` wrote.

        Raises:
            InputError: A field is missing or unknown.
        """
        try:
            tuples = {
                name: tuple(data[name])
                for name in ("channels", "spacing", "patch", "mirror_axes", "rotate_degrees")
                if name in data
            }
            return cls(
                **{
                    **data,
                    **tuples,
                    "labels": tuple(Label.from_json(row) for row in data["labels"]),
                    "normalisations": tuple(Normalization.from_json(n) for n in data["normalisations"]),
                    "network": NetworkSpec.from_json(data["network"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = "".join(letter for letter in str(error) if letter.isprintable())[:200]
            raise InputError(f"The training plan cannot be read ({reason}).", "Make a new plan.") from error

    @property
    def budget(self) -> str:
        """The time budget as text, such as ``30 minutes``; empty without one."""
        return "" if self.minutes is None else f"{self.minutes:g} minute{'' if self.minutes == 1 else 's'}"

    def in_words(self) -> str:
        """The plan as text, one line for each choice."""
        method = methods.get(self.method)
        batch = f"{self.batch_labelled} outlined"
        if method.uses_unlabelled:
            batch += f" + {self.batch_unlabelled} untouched"
        length = self.budget if self.minutes else f"{self.iterations} iterations"
        lines = {
            "method": f"{method.title}, {length}",
            "labels": ", ".join(f"{label.value} {label.name}" for label in self.labels),
            "spacing": " x ".join(f"{s:.3g}" for s in self.spacing) + " mm (x, y, z)",
            "patch": " x ".join(map(str, self.patch)) + " voxels (k, j, i)",
            "network": f"{_branches(self.network)} of widths {', '.join(map(str, self.network.widths))}"
            + (f", {', '.join(map(str, self.network.blocks))} blocks" if self.network.blocks else ""),
            "batch": f"{batch} patches a step",
            "normalizations": ", ".join(
                f"{name}: {n.scheme}" for name, n in zip(self.channels, self.normalisations, strict=True)
            ),
            "mirror_axes": "left-right mirroring" if self.mirror_axes else "no mirroring",
        }
        return "\n".join(
            f"{name.replace('_', ' '):15s}{text}" + (f" ({self.reasons[name]})" if name in self.reasons else "")
            for name, text in lines.items()
        )


def make_plan(
    fingerprints: Sequence[CaseFingerprint],
    labels: Sequence[Label],
    channels: Sequence[str],
    device: str = "cpu",
    memory_bytes: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    effort: str | None = None,
) -> Plan:
    """Choose a plan for these cases on this device.

    Args:
        fingerprints: Of all cases, outlined or not.
        labels: The project's label table.
        channels: The project's channel names.
        device: ``"cpu"``, ``"cuda"``...; a CPU gets a smaller network.
        memory_bytes: Memory of the device; limits the patch on a GPU.
        overrides: ``Plan`` fields with values to use instead; ``widths``, ``strides`` and ``kernels`` replace those of
            the network.

    Raises:
        InputError: No case, too many labels, or an override that no plan has.
    """
    check_number_of_labels(labels)
    if not fingerprints:
        raise InputError("There is no case to plan a training for.", "Add scans to the project first.")
    overrides = dict(overrides or {})
    check_overrides({name: value for name, value in overrides.items() if name != "normalisations"})
    chosen = choose_effort(device, effort, overrides.get("minutes"))
    budget = budgets_of(device)[chosen]
    reasons = {}
    if "widths" not in overrides:
        reasons["network"] = f"that of the {chosen} plan"
        if budget.measured and "iterations" not in overrides and overrides.get("minutes") is None:
            reasons["method"] = f"{budget.measured} on MR of the hippocampus, 4 outlined subjects, supervised"
    widths = tuple(overrides.pop("widths", budget.widths))
    blocks = tuple(overrides.pop("blocks", budget.blocks if widths == budget.widths else ()))
    spacings, extents = zip(*(_in_lps(f) for f in fingerprints), strict=True)
    spacing = np.median(spacings, axis=0)
    reasons["spacing"] = f"the median of {len(fingerprints)} scans"
    extent = np.median(extents, axis=0)
    voxels = np.prod(extent / spacing)
    if "spacing" in overrides:
        spacing = np.array(overrides["spacing"], dtype=float)
        reasons["spacing"] = "as given"
    elif voxels > budget.volume_voxels:
        spacing = _coarser(spacing, extent, budget.volume_voxels)
        reasons["spacing"] = f"coarser than the scans of {voxels / 1e6:.0f} million voxels: too many for the device"
    limit, batch = budget.patch_voxels, budget.batch
    if memory_bytes and device != "cpu":
        batch = budget.batch_in(memory_bytes)
        limit = min(limit, budget.voxels_in(memory_bytes, batch))
        reasons["patch"] = f"what {memory_bytes / 2**30:.0f} GiB of memory can hold"
    shape = np.maximum(np.round(extent / spacing), 1)[::-1]
    patch = np.array(overrides.get("patch", _patch(shape, limit)))
    _check_size(patch, widths)
    strides, kernels = _levels(patch, spacing[::-1], len(widths))
    strides, kernels = overrides.pop("strides", strides), overrides.pop("kernels", kernels)
    if blocks and len(blocks) != len(widths):
        raise InputError(f"The network has {len(widths)} widths and {len(blocks)} blocks.", "Give as many of both.")
    if not len(strides) == len(kernels) == len(widths):
        raise InputError(
            f"The network has {len(widths)} widths, {len(strides)} strides and {len(kernels)} kernels.",
            "Give as many of each.",
        )
    divisor = np.prod(strides, axis=0)
    if "patch" not in overrides:
        patch = np.maximum(np.round(patch / divisor), 1) * divisor
    elif np.any(patch % divisor):
        raise InputError(
            f"A patch of {' x '.join(map(str, patch))} cannot be halved often enough.",
            f"Use multiples of {' x '.join(map(str, divisor))}.",
        )
    method = methods.get(overrides.get("method", "barl"))(overrides.get("settings"))
    # By name as well: a mirrored left kidney is a right one, whether the table says so or not.
    lateral = any(label.lateral for label in with_sides(labels))
    reasons["mirror_axes"] = "labels of the left and right side" if lateral else "no label is of one side"
    plan = Plan(
        labels=tuple(sorted(labels, key=lambda label: label.value)),
        channels=tuple(channels),
        normalisations=tuple(choose_normalization([f.channels[c] for f in fingerprints]) for c in range(len(channels))),
        spacing=triple(round(float(s), 4) for s in spacing),
        patch=triple(int(edge) for edge in patch),
        network=NetworkSpec(
            len(channels), len(labels) + 1, widths, strides, kernels, **_encoders(blocks), **method.network_options()
        ),
        mirror_axes=() if lateral else (2,),
        iterations=budget.iterations,
        batch_labelled=batch,
        batch_unlabelled=batch,
        learning_rate=budget.learning_rate,
        loader_workers=budget.loader_workers,
        average=budget.average,
        channels_last=device == "cpu" and widths[0] < 16,
        rotate_degrees=_rotations(spacing[::-1]),
        reasons=reasons,
        familiar=Familiar.of(fingerprints).to_json(),
    )
    for name in ("spacing", "patch"):
        overrides.pop(name, None)
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
    return dataclasses.replace(plan, **values)


def check_overrides(values: Mapping[str, Any]) -> None:
    """Check values that shall replace those of a plan.

    Args:
        values: As for ``make_plan``.

    Raises:
        InputError: A plan has no such value, or it is not of its type or out of range.
    """
    kinds = {name: kind for name, kind in get_type_hints(Plan).items() if name not in _NOT_CHOSEN} | _OF_NETWORK
    for name, value in values.items():
        if name not in kinds:
            raise InputError(f"A training plan has no value {name!r}.", f"It has: {', '.join(sorted(kinds))}.")
        if name in _CHOICES:
            wanted = "" if value in _CHOICES[name] else f"one of: {', '.join(_CHOICES[name])}"
        else:
            wanted = misfit(value, kinds[name], *_RANGES.get(name, ()))
        if name == "kernels" and not wanted and not all(edge % 2 for kernel in value for edge in kernel):
            wanted = "odd numbers"
        if wanted:
            raise InputError(f"The plan's value {name} cannot be {value!r}.", f"Give {wanted}.")


def smaller_plan(plan: Plan) -> Plan:
    """A plan that needs less memory: half the batch, then a smaller patch.

    Raises:
        DeviceError: There is no smaller one.
    """
    if max(plan.batch_labelled, plan.batch_unlabelled) > 1:
        return dataclasses.replace(
            plan,
            batch_labelled=max(1, plan.batch_labelled // 2),
            batch_unlabelled=max(1, plan.batch_unlabelled // 2),
        )
    patch, divisor = np.array(plan.patch), np.array(plan.network.divisor)
    room = patch - 2 * divisor
    if room.max() < 0:
        raise DeviceError(
            "The device's memory is too small even for the smallest patch.", "Train on the CPU or with fewer channels."
        )
    axis = int(np.argmax(np.where(room >= 0, patch, 0)))
    patch[axis] -= divisor[axis]
    return dataclasses.replace(plan, patch=triple(int(edge) for edge in patch))


def plan_difference(plan: Plan, smaller: Plan) -> str:
    """What ``smaller_plan`` has changed, in words."""
    if plan.patch != smaller.patch:
        return f"the patch shrinks from {'x'.join(map(str, plan.patch))} to {'x'.join(map(str, smaller.patch))} voxels"
    before, after = (f"{p.batch_labelled} + {p.batch_unlabelled}" for p in (plan, smaller))
    return f"the batch shrinks from {before} to {after} patches"


def _encoders(blocks: tuple[int, ...]) -> dict[str, Any]:
    """Fields of ``NetworkSpec``: several blocks per level are residual in all branches, or they would not train."""
    return {"blocks": blocks, "residual": (True,)} if blocks else {}


def _check_size(patch: np.ndarray, widths: Sequence[int]) -> None:
    """Refuse a patch ``(k, j, i)`` and widths that no network can have or no device can hold."""
    if patch.min() < 1 or np.prod(patch, dtype=float) > MOST_PATCH_VOXELS:
        raise InputError(
            f"A patch of {' x '.join(map(str, patch))} voxels is not possible.",
            f"Give its edges along k, j and i, each above 0, with at most {MOST_PATCH_VOXELS} voxels together.",
        )
    if len(widths) < 2 or not all(1 <= width <= MOST_CHANNELS for width in widths):
        raise InputError(
            f"A network of the widths {', '.join(map(str, widths))} is not possible.",
            f"Give the widths of two levels or more, each from 1 to {MOST_CHANNELS}.",
        )


def _branches(network: NetworkSpec) -> str:
    if network.n_branches == 1:
        return "one branch"
    kind = "decoders on one encoder" if network.shared_encoder else "branches"
    return f"{network.n_branches} {kind}"


def _in_lps(fingerprint: CaseFingerprint) -> tuple[np.ndarray, np.ndarray]:
    """Spacing and extent in mm along left-right, anterior-posterior, inferior-superior."""
    order = [next(n for n, code in enumerate(fingerprint.orientation) if code in pair) for pair in ("LR", "AP", "SI")]
    spacing = np.array(fingerprint.spacing)[order]
    return spacing, spacing * np.array(fingerprint.size)[order]


def _coarser(spacing: np.ndarray, extent: np.ndarray, voxels: float) -> np.ndarray:
    """Spacing of a median scan with at most ``voxels``: the finest axes are coarsened first, so none is wasted."""
    spacing = spacing.copy()
    while np.prod(extent / spacing) > voxels:
        finest = spacing <= spacing.min() * 1.05
        spacing[finest] *= 1.05
    return spacing


def _patch(shape: np.ndarray, limit: int) -> np.ndarray:
    """Patch ``(k, j, i)``: the median scan's shape, its largest edge cut until it has at most ``limit`` voxels."""
    patch = shape.copy()
    while np.prod(patch) > limit:
        axis = int(np.argmax(patch))
        patch[axis] -= max(1, patch[axis] // 32)
    return patch


def _rotations(spacing: np.ndarray) -> Triple[float]:
    """Largest rotation about each axis ``(k, j, i)``: none that turns one axis into another twice as coarse or more."""
    turned = (np.delete(spacing, axis) for axis in range(3))
    return triple(15.0 if max(edges) < 2 * min(edges) else 0.0 for edges in turned)


def _levels(
    patch: np.ndarray, spacing: np.ndarray, depth: int
) -> tuple[tuple[Triple[int], ...], tuple[Triple[int], ...]]:
    """Strides and kernels ``(k, j, i)`` per level: an axis is halved, and convolved along, once it is not much coarser
    than the finest one; no edge becomes shorter than 4."""
    edges, spacing = np.array(patch, dtype=float), np.array(spacing, dtype=float)
    strides: list[Triple[int]] = [(1, 1, 1)]
    kernels: list[Triple[int]] = []
    for level in range(depth):
        near = spacing < 2 * spacing.min()
        kernels.append(triple(3 if n else 1 for n in near))
        if level == depth - 1:
            break
        halve = near & (edges / 2 >= 4)
        strides.append(triple(2 if h else 1 for h in halve))
        edges, spacing = np.where(halve, edges / 2, edges), np.where(halve, spacing * 2, spacing)
    return tuple(strides), tuple(kernels)
