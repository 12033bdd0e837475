# SPDX-License-Identifier: Apache-2.0
"""What the project tells about its cases, revisions, models and runs: values, not live objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CASE_STATES = ("new", "predicted", "in_review", "accepted", "excluded")
REVISION_KINDS = ("prediction", "draft", "accepted")
RUN_STATES = ("queued", "running", "stopped", "finished", "failed", "interrupted")


@dataclass(frozen=True, slots=True)
class Case:
    """A case as it was when asked for.

    Attributes:
        id: Neutral name, also of its folder: ``case_0001``.
        name: What the user typed.
        state: One of ``CASE_STATES``. ``accepted`` means that an accepted revision exists.
        held_out: Belongs to the fixed group that is only ever used for evaluation.
        group: Whom the case belongs to, if several cases are of one subject (empty: not told).
        uncertainty: Of the newest prediction, 0 to 1.
        newest_revision: Its id.
        embedding: float32 [n]; where the case lies in the model's feature space.
        model_id: The model that gave uncertainty and embedding; only embeddings of one model can be compared.
        updated: UTC time of the last change.
    """

    id: str
    name: str
    state: str
    held_out: bool
    group: str = ""
    uncertainty: float | None = None
    newest_revision: str | None = None
    embedding: np.ndarray | None = field(default=None, compare=False, repr=False)
    model_id: str | None = None
    updated: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """A label map of a case, never changed after it was stored.

    Attributes:
        path: The label map, on the scan's own grid, with the table's values.
        uncertainty_path: Uncertainty, float32 in [0, 1], on the same grid.
        details: What the author added, such as volumes and hot-spots.
    """

    id: str
    case_id: str
    kind: str
    created: str
    author: str
    path: Path
    sha256: str
    model_id: str | None = None
    uncertainty_path: Path | None = None
    uncertainty_sha256: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model of the project; its card and weights lie in ``folder``."""

    id: str
    name: str
    created: str
    folder: Path
    parent: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class RunRow:
    """A training run; its plan, events and checkpoints lie in ``folder``."""

    id: str
    state: str
    created: str
    folder: Path
    plan: dict[str, Any] = field(default_factory=dict)
    pid: int | None = None
    host: str | None = None
    started: str | None = None
    ended: str | None = None
    model_id: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What was done, when and by which program (never overwritten)."""

    number: int
    at: str
    action: str
    case_id: str | None
    facts: dict[str, Any]
    program: str
    pid: int
    host: str


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the project that is not as it was stored."""

    case_name: str
    path: Path
    problem: str

    def in_words(self) -> str:
        return f"{self.case_name or 'project'}: {self.path.name} {self.problem}."
