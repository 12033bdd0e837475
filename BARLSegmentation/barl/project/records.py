# SPDX-License-Identifier: Apache-2.0
"""Cases, revisions, models and runs of a project as values that do not follow later changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from barl.project.states import CaseState, RevisionKind, RunState

BY_SCAN = "scan"  # in place of a model: the embedding is ``barl.images.fingerprint.scan_features``


@dataclass(frozen=True, slots=True)
class Case:
    """A case as it was when asked for.

    Attributes:
        id: Neutral name, also of its folder: ``case_0001``.
        name: That of its file, or the one that the user gave.
        state: What has been done with it.
        held_out: Belongs to the fixed group that is only ever used for evaluation.
        group: The subject, if several cases are of one (empty: not given).
        looked_share: Share of the scan's voxels that were looked at for its newest accepted outline; 1: the whole scan.
        uncertainty: Of the newest prediction, 0 to 1.
        newest_revision: Its id.
        embedding: float32 [n]; where the case lies in the model's feature space.
        model_id: The model that gave uncertainty and embedding, or ``BY_SCAN``; only embeddings of one model can be
            compared.
        updated: UTC time of the last change.
    """

    id: str
    name: str
    state: CaseState
    held_out: bool
    group: str = ""
    uncertainty: float | None = None
    newest_revision: str | None = None
    embedding: np.ndarray | None = field(default=None, compare=False, repr=False)
    model_id: str | None = None
    updated: str = ""
    looked_share: float = 1.0

    @property
    def teaches(self) -> bool:
        """A training learns from its accepted outline."""
        return self.state is CaseState.ACCEPTED and not self.held_out

    @property
    def evaluates(self) -> bool:
        """Models are measured against its accepted outline."""
        return self.state is CaseState.ACCEPTED and self.held_out

    @property
    def awaits_outline(self) -> bool:
        """Neither outlined nor excluded."""
        return self.state.awaits_outline

    @property
    def wants_prediction(self) -> bool:
        """Predicted without being asked for by name: without an outline, or with a partial one."""
        return self.awaits_outline or self.is_partial

    @property
    def is_accepted(self) -> bool:
        return self.state is CaseState.ACCEPTED

    @property
    def is_partial(self) -> bool:
        """Accepted, but only a part of the scan was looked at: the rest is as an untouched scan."""
        return self.is_accepted and self.looked_share < 1

    @property
    def is_excluded(self) -> bool:
        return self.state is CaseState.EXCLUDED


# In the order of the parameters of ``_as_case``; projects of format 1 lack the last one.
_COLUMNS = (
    "id", "name", "state", "held_out", "subject", "uncertainty", "newest_revision", "embedding", "scored_by", "updated",
    "looked_share",
)  # fmt: skip


def as_cases(rows: Sequence[sqlite3.Row]) -> list[Case]:
    """Rows of the table of cases as ``Case``; the places of the columns are looked up once, not for each row."""
    if not rows:
        return []
    names = rows[0].keys()
    pick = itemgetter(*(names.index(name) for name in _COLUMNS if name in names))
    return [_as_case(*pick(row)) for row in rows]


def _as_case(
    id: str,
    name: str,
    state: str,
    held_out: int,
    subject: str,
    uncertainty: float | None,
    newest_revision: str | None,
    embedding: bytes | None,
    scored_by: str | None,
    updated: str,
    looked_share: float = 1.0,
) -> Case:
    place = None if embedding is None else np.frombuffer(embedding, dtype="<f4")
    known = (subject, uncertainty, newest_revision, place, scored_by, updated, looked_share)
    return Case(id, name, CaseState(state), bool(held_out), *known)


@dataclass(frozen=True, slots=True)
class Revision:
    """A label map of a case, never changed after it was stored.

    Attributes:
        path: The label map, on the scan's own grid, with the table's values.
        uncertainty_path: Uncertainty, float32 in [0, 1], on the same grid.
        details: What the author added, such as volumes and hot-spots.
        looked: Which voxels a person has looked at: a mask on the same grid, uint8, 1 = looked at, relative to the
            project's folder (``Revisions.read_looked`` reads it); None: the whole scan. Elsewhere the label map is what
            stood on screen, filled or predicted.
        looked_share: Share of the scan's voxels that were looked at, 0 to 1.
    """

    id: str
    case_id: str
    kind: RevisionKind
    created: str
    author: str
    path: Path
    sha256: str
    model_id: str | None = None
    uncertainty_path: Path | None = None
    uncertainty_sha256: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    looked: Path | None = None
    looked_sha256: str | None = None
    looked_share: float = 1.0

    @property
    def filled_by(self) -> str | None:
        """What made the voxels that nobody looked at: ``barl fill 0.2.0``, the id of a model, or None."""
        return self.details.get("filled_by")

    @property
    def is_accepted(self) -> bool:
        return self.kind is RevisionKind.ACCEPTED

    @property
    def is_draft(self) -> bool:
        return self.kind is RevisionKind.DRAFT

    @property
    def is_prediction(self) -> bool:
        return self.kind is RevisionKind.PREDICTION


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

    @property
    def is_removed(self) -> bool:
        """Its weights were deleted; its card is there."""
        return "removed" in self.summary


@dataclass(frozen=True, slots=True)
class RunRow:
    """A training run; its plan, events and checkpoints lie in ``folder``."""

    id: str
    state: RunState
    created: str
    folder: Path
    plan: dict[str, Any] = field(default_factory=dict)
    pid: int | None = None
    host: str | None = None
    started: str | None = None
    ended: str | None = None
    model_id: str | None = None
    message: str = ""

    @property
    def is_running(self) -> bool:
        return self.state is RunState.RUNNING

    @property
    def is_finished(self) -> bool:
        return self.state is RunState.FINISHED


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
    """A file of the project that is not as it was stored.

    Attributes:
        case_name: Of a file of a model, the id of the model; empty: the project itself.
    """

    case_name: str
    path: Path
    problem: str

    def in_words(self) -> str:
        return f"{self.case_name or 'project'}: {self.path.name} {self.problem}."
