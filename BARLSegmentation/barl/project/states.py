# SPDX-License-Identifier: Apache-2.0
"""The states of cases and runs and the kinds of revisions, with the values that stand in ``project.db`` and in JSON."""

from __future__ import annotations

from enum import StrEnum


class CaseState(StrEnum):
    """What has been done with a case. ``ACCEPTED`` means that an accepted revision exists."""

    NEW = "new"
    PREDICTED = "predicted"
    IN_REVIEW = "in_review"
    ACCEPTED = "accepted"
    EXCLUDED = "excluded"

    @property
    def awaits_outline(self) -> bool:
        """Neither outlined by the expert nor excluded."""
        return self in (CaseState.NEW, CaseState.PREDICTED, CaseState.IN_REVIEW)

    def after(self, kind: RevisionKind) -> CaseState:
        """The state of a case in which a revision of this kind was stored: never less than before."""
        if kind is RevisionKind.ACCEPTED:
            return CaseState.ACCEPTED
        if kind is RevisionKind.DRAFT and self in (CaseState.NEW, CaseState.PREDICTED):
            return CaseState.IN_REVIEW
        if kind is RevisionKind.PREDICTION and self is CaseState.NEW:
            return CaseState.PREDICTED
        return self


class RevisionKind(StrEnum):
    """Where a label map comes from: a model, an unfinished correction, or the expert's decision."""

    PREDICTION = "prediction"
    DRAFT = "draft"
    ACCEPTED = "accepted"


class RunState(StrEnum):
    """The state of a training run."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def has_ended(self) -> bool:
        """No process trains, and none is about to begin."""
        return self not in (RunState.QUEUED, RunState.RUNNING)

    @property
    def can_go_on(self) -> bool:
        """The run can be started or resumed."""
        return self not in (RunState.RUNNING, RunState.FINISHED)
