# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Question import Question
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.logic.Words import caseCountText

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.project.store import Project
    from barl.worker.client import Pending
    from barl.worker.messages import AddedCases, CaseFiles, Event, LeftOutCase

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

MOST_NAMED = 3  # cases whose reasons stand in the status line or in a question
RESAMPLE = "resample"


class CaseAdder:
    """Has the worker copy scans into the open project, and asks about those that are probably a mistake.

    Args:
        session: What all panels share.
        worker: The process that copies.

    Attributes:
        changed: Adding has begun, come further or ended.
        ended: The worker has answered (``AddedCases``).
        fraction: How much is done, 0 to 1.
    """

    def __init__(self, session: Session, worker: WorkerLink) -> None:
        self.session, self.worker = session, worker
        self.changed, self.ended = Signal(), Signal()
        self.fraction = 0.0
        self._pending: Pending | None = None
        self._project: Project | None = None  # to which the cases are added
        self._cases: list[CaseFiles] = []
        self._allow: set[str] = set()
        self._staging: Path | None = None
        self._note = self._reasonsTo = ""

    @property
    def isIdle(self) -> bool:
        """No cases are being added."""
        return self._pending is None

    def start(
        self, cases: Sequence[CaseFiles], staging: Path | None = None, note: str = "", reasonsTo: str = ""
    ) -> None:
        """Add cases to the open project.

        Args:
            cases: At least one, each with a name of its own.
            staging: A folder with files of theirs; it is removed when they are no longer needed.
            note: A sentence that is told with the result.
            reasonsTo: A sentence for the status line instead of the reasons, which are shown elsewhere.
        """
        if staging != self._staging:
            self.removeStaging()
        self._staging, self._note, self._reasonsTo, self._allow = staging, note, reasonsTo, set()
        self._project = self.session.project
        self._send(list(cases))

    def cancel(self) -> None:
        self.worker.cancel(self._pending)

    def removeStaging(self) -> None:
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None

    def _send(self, cases: list[CaseFiles]) -> None:
        from barl.worker.messages import AddCases

        self.session.withdrawQuestion()
        self._cases, self.fraction = cases, 0.0
        self._pending = self.worker.request(
            AddCases(str(self._project.folder), cases, sorted(self._allow)),
            onEvent=self._onEvent,
            onResult=self._onResult,
            onError=self._onError,
        )
        self.session.status(_("Adding {cases}...").format(cases=caseCountText(len(cases))))
        self.changed.emit()

    def _onEvent(self, event: Event) -> None:
        if event.event == "progress":
            self.fraction = event.fraction or 0.0
            self.session.status(_("Adding {name}...").format(name=event.message))
            self.changed.emit()

    def _onResult(self, answer: AddedCases) -> None:
        asks = self.session.project is self._project  # another one may have been opened meanwhile
        doubtful = [item for item in answer.failed if item.confirmation and asks]
        refused = [item for item in answer.failed if item not in doubtful]
        if not doubtful:
            self.removeStaging()
        self.session.notifyCases()
        self._pending = None
        told = _told(answer, refused, self._reasonsTo)
        text = " ".join(filter(None, [*told, self._note if answer.cases else ""]))
        self.session.status(text, error=bool(refused))
        self.changed.emit()
        self.ended.emit(answer)
        if doubtful:
            self._askAbout(doubtful)

    def _onError(self, error: BarlError) -> None:
        self._pending = None
        self.removeStaging()
        self.session.notifyCases()  # those before may be in
        self.session.status(str(error), True)
        self.changed.emit()

    # Cases that are added only if the user confirms it

    def _askAbout(self, doubtful: list[LeftOutCase]) -> None:
        reasons = [f"{item.name}: {item.message}" for item in doubtful[:MOST_NAMED]]
        if len(doubtful) > MOST_NAMED:
            reasons.append(_("And {count} more.").format(count=len(doubtful) - MOST_NAMED))
        if all(item.confirmation == RESAMPLE for item in doubtful):
            ask, yes = _("Shall the outline be resampled onto the scan's grid?"), _("Resample and add")
        else:
            ask, yes = _("Shall it be added all the same?"), _("Add it")
        if len(doubtful) > 1:
            ask, yes = _("Shall they be added all the same?"), _("Add them")
        names = [item.name for item in doubtful]
        self.session.inquire(
            Question(
                " ".join([*reasons, ask]),
                yes,
                _("Leave out"),
                onYes=lambda: self._confirm(doubtful),
                onNo=lambda: self._leaveOut(names),
            )
        )

    def _confirm(self, doubtful: list[LeftOutCase]) -> None:
        confirmed = {item.name: item.confirmation for item in doubtful}
        self._allow |= set(confirmed.values()) - {RESAMPLE}
        chosen = [case for case in self._cases if case.name in confirmed]
        self._send([replace(case, resample=True) if confirmed[case.name] == RESAMPLE else case for case in chosen])

    def _leaveOut(self, names: list[str]) -> None:
        self.removeStaging()
        shown = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
        self.session.status(_("Left out: {names}.").format(names=shown))


def _told(answer: AddedCases, refused: list[LeftOutCase], reasonsTo: str) -> list[str]:
    """Sentences: what was added, what was not and why (or ``reasonsTo``), what was changed."""
    added = answer.cases
    names = added[0].name if len(added) == 1 else caseCountText(len(added))
    outlined = sum(case.state == "accepted" for case in added)
    text = [_("Added {names}, {outlined} with an outline.").format(names=names, outlined=outlined)] if added else []
    if reasonsTo:
        if refused:
            left = _("{cases} could not be added.").format(cases=caseCountText(len(refused)))
            text.append(f"{left} {reasonsTo}")
        return text
    text += [f"{failure.name}: {failure.message} {failure.remedy}" for failure in refused[:MOST_NAMED]]
    if len(refused) > MOST_NAMED:
        text.append(_("{count} more could not be added.").format(count=len(refused) - MOST_NAMED))
    return text + list(dict.fromkeys(note for case in added for note in case.notes))
