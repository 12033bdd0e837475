# SPDX-License-Identifier: Apache-2.0
"""The model card: everything about a model but its weights, as one JSON object (``docs/model-format.md``).

Free of torch, so that a list of models can be shown without loading it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from barl.errors import InputError, ModelError
from barl.images.cleanup import CleanupRule
from barl.images.intensity import Normalization
from barl.json_text import plain
from barl.project.labels import Label

FORMAT = 1  # what a new model of BARL has
FOREIGN_FORMAT = 2  # a network of another program: the newest that this version reads
CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
_OPTIONAL: dict[str, Any] = {"cleanup": [], "expected_dice": None, "volume_intervals": [], "members": 1}
FRESH_COPY = "Get a fresh copy of the model or train it again."


@dataclass(frozen=True)
class DiceCalibration:
    """The Dice to expect of a case: ``intercept + slope * agreement`` (``barl.evaluation.expected_dice``).

    Attributes:
        intercept, slope: Of the line.
        error: Root mean square error of cases left out of the fit one after the other.
        cases: Number of unseen cases.
    """

    intercept: float
    slope: float
    error: float
    cases: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def expected(self, agreement: float) -> float:
        """The Dice to expect, within [0, 1]."""
        return min(max(self.intercept + self.slope * agreement, 0.0), 1.0)


@dataclass(frozen=True)
class VolumeInterval:
    """Where the true volume of a label lies (``barl.evaluation.intervals``).

    Attributes:
        value: The label.
        factor: From 1 on.
        offset_ml: Added before the factor is applied.
        level: Share of cases whose true volume lies inside.
        cases: Number of unseen cases behind it.
    """

    value: int
    factor: float
    offset_ml: float
    level: float
    cases: int

    def around(self, ml: float) -> tuple[float, float]:
        """The interval, in ml, of a predicted volume in ml."""
        low, high = (ml + self.offset_ml) / self.factor, (ml + self.offset_ml) * self.factor
        return max(low - self.offset_ml, 0.0), high - self.offset_ml


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model is, what it was made from and what it needs.

    Attributes:
        id: Identifier, usable as a folder name.
        name: What people call it.
        created: Time of saving, ISO 8601 with time zone.
        labels: What it segments; network class c is the c-th label in ascending value order.
        channels: Names of the scan's channels, in the network's order.
        spacing: Voxel spacing (x, y, z) in mm that scans are resampled to.
        orientation: Axis order and directions scans are brought to, as an LPS-style code.
        normalisations: Intensity normalization per channel.
        patch: Window of the network (k, j, i) in voxels.
        network: ``NetworkSpec`` as JSON; of a network of another program what that program needs.
        mirror_axes: Spatial axes (0 = k, 1 = j, 2 = i) along which mirroring is harmless; empty with lateral labels.
        method: Name of the training method.
        settings: The settings it was trained with.
        data: Counts of cases: ``labelled``, ``unlabelled``, ``held_out``, and, if there are any, ``partial``: those of
            the labelled of which only a part was looked at; and ``familiar``, what their scans were like
            (``barl.images.familiarity``), which models before version 0.2 lack.
        metrics: What it scored on the held-out cases.
        temperature: Divides the logits so that probabilities are calibrated.
        cleanup: What is done with the pieces and holes of labels in a prediction.
        expected_dice: What the agreement of the branches lets expect; None: unknown.
        volume_intervals: Where the true volumes of labels lie; labels without one: unknown.
        members: Number of networks whose mean predicts; their weights lie in the one weight file.
        parent: ``id`` of the model it started from.
        licence: Terms under which it may be used, with those of its data.
        notes: Free text.
        versions: Library -> version it was made with.
        weights_sha256: Checksum of the weight file; filled in by ``save_model``.
        format: Version of this layout.
    """

    id: str
    name: str
    created: str
    labels: list[Label]
    channels: list[str]
    spacing: tuple[float, float, float]
    normalisations: list[Normalization]
    patch: tuple[int, int, int]
    network: dict[str, Any]
    method: str
    orientation: str = "LPS"
    mirror_axes: list[int] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=lambda: {"labelled": 0, "unlabelled": 0, "held_out": 0})
    metrics: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    cleanup: list[CleanupRule] = field(default_factory=list)
    expected_dice: DiceCalibration | None = None
    volume_intervals: list[VolumeInterval] = field(default_factory=list)
    members: int = 1
    parent: str | None = None
    licence: str = ""
    notes: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    weights_sha256: str = "0" * 64
    format: int = FORMAT

    @property
    def counts(self) -> dict[str, int]:
        """``labelled``, ``unlabelled`` and ``held_out`` cases."""
        return {kind: count for kind, count in self.data.items() if isinstance(count, int)}

    @property
    def program(self) -> str:
        """The program whose network it is, such as ``nnU-Net``; empty: BARL's own."""
        return str(self.network.get("program", ""))

    @property
    def values(self) -> list[int]:
        """Label values in class order: class c of the network is ``values[c - 1]``."""
        return sorted(label.value for label in self.labels)

    @property
    def cleanup_in_words(self) -> str:
        """The rules of ``cleanup`` with the names of their labels; empty without any."""
        names = {label.value: label.name for label in self.labels}
        return "; ".join(f"{names[rule.value]}: {rule.in_words()}" for rule in self.cleanup)

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON types; NaN and infinities become null."""
        card = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        card["labels"] = [label.to_json() for label in self.labels]
        card["normalisations"] = [normalization.to_json() for normalization in self.normalisations]
        card["cleanup"] = [rule.to_json() for rule in self.cleanup]
        card["expected_dice"] = self.expected_dice.to_json() if self.expected_dice else None
        card["volume_intervals"] = [asdict(interval) for interval in self.volume_intervals]
        for name, default in _OPTIONAL.items():  # models without them are read by older versions, too
            if card[name] == default:
                del card[name]
        return plain(card)

    @classmethod
    def from_json(cls, card: Any) -> ModelCard:
        """Check a card against the schema and itself.

        Raises:
            ModelError: It is of a future format, or a field is missing, wrong or contradicts another one.
        """
        check(card)
        try:
            values = dict(card)
            values["labels"] = [Label.from_json(label) for label in card["labels"]]
            values["normalisations"] = [Normalization.from_json(item) for item in card["normalisations"]]
            values["cleanup"] = [CleanupRule.from_json(rule) for rule in card.get("cleanup", [])]
            if known := card.get("expected_dice"):
                values["expected_dice"] = DiceCalibration(**known)
            values["volume_intervals"] = [VolumeInterval(**known) for known in card.get("volume_intervals", [])]
            values["spacing"], values["patch"] = tuple(card["spacing"]), tuple(card["patch"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            raise ModelError(f"The model card is not valid ({error}).", FRESH_COPY) from error


def read_card(folder: Path) -> ModelCard:
    """Read and check the card of a model without touching its weights.

    Raises:
        ModelError: The folder or the card is missing, is not JSON, breaks the schema or is of a future format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        if folder.is_file() and folder.suffix.lower() == ".zip":
            words = f'"barl models import PROJECT {folder.name}"'
            raise ModelError(f"{folder} is a model as one file.", f"Take it into a project first: {words}.")
        raise ModelError(f"There is no model folder {folder}.", "Choose a folder that holds a model.json.")
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        foreign = (folder / "plans.json").is_file() or (folder / "configs" / "metadata.json").is_file()
        remedy = (
            'Take the model of another program into a project first: "barl models import PROJECT MODEL".'
            if foreign
            else "Choose a folder that holds a model saved by BARL."
        )
        raise ModelError(f"The folder {folder} holds no {CARD_FILE}.", remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The model card {folder / CARD_FILE} cannot be read ({error}).", FRESH_COPY) from error
    try:
        card = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        raise ModelError(f"The model card {folder / CARD_FILE} is not JSON.", FRESH_COPY) from None
    return ModelCard.from_json(card)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def weights_checksum(folder: Path) -> str:
    """SHA-256 of a model's weights as its card names it, even if the rest of the card is damaged; else empty."""
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r'"weights_sha256":\s*"([0-9a-f]{64})"', text)
    return match[1] if match else ""


def check(card: Any) -> None:
    """Raise ``ModelError`` naming the first field of a card (plain JSON types) that is wrong."""
    version = card.get("format") if isinstance(card, dict) else None
    if isinstance(version, int) and version > FOREIGN_FORMAT:
        raise ModelError(
            f"The model was saved in format {version}, this version of BARL reads up to {FOREIGN_FORMAT}.",
            "Update BARL, or export the model from the newer version.",
        )
    try:
        problem = _schema_problem(card) or _contradiction(card)
    except (KeyError, TypeError) as error:  # only where there is no library for the schema
        problem = f"field {error}"
    if problem:
        raise ModelError(f"The model card is not valid: {problem}.", FRESH_COPY)


def _schema_problem(card: Any) -> str:
    try:
        from jsonschema.exceptions import best_match
    except ImportError:  # in Slicer's own process: the worker checks the card before it uses the model
        return ""
    error = best_match(_validator().iter_errors(card))
    if error is None:
        return ""
    where = ".".join(str(step) for step in error.absolute_path)
    # The message repeats the offending value, which may be the whole card.
    what = error.message if len(error.message) <= 160 else f"does not satisfy {error.validator!r}"
    return f"field {where}: {what}" if where else what


@cache
def _validator() -> Any:
    try:
        from jsonschema import Draft202012Validator
    except ImportError as error:
        raise ModelError("The library jsonschema is missing.", "Install it in the step Setup.") from error
    return Draft202012Validator(json.loads(files(__package__).joinpath("model.schema.json").read_text("utf-8")))


def _contradiction(card: dict[str, Any]) -> str:
    """What a schema cannot say: fields that do not fit each other."""
    network, n_channels, n_labels = card["network"], len(card["channels"]), len(card["labels"])
    if ("program" in network) != (card["format"] == FOREIGN_FORMAT):
        return f"field format: {card['format']} is not that of its network"
    if len({label["value"] for label in card["labels"]}) != n_labels:
        return "field labels: two labels have the same value"
    cleaned = [rule["value"] for rule in card.get("cleanup", [])]
    if len(set(cleaned)) != len(cleaned) or not set(cleaned) <= {label["value"] for label in card["labels"]}:
        return "field cleanup: its values are not those of the labels, each at most once"
    if len(card["normalisations"]) != n_channels:
        return f"field normalisations: {len(card['normalisations'])} entries for {n_channels} channels"
    if network["in_channels"] != n_channels:
        return f"field network.in_channels: {network['in_channels']} for {n_channels} channels"
    if "program" in network:
        return (
            "" if len(network["classes"]) == n_labels else "field network.classes: one class for each label is needed"
        )
    if network["n_classes"] != n_labels + 1:
        return f"field network.n_classes: {network['n_classes']} for {n_labels} labels and the background"
    return ""
