# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from BARLSegmentationLib.logic.OtherOutline import OtherOutline
from BARLSegmentationLib.logic.Question import Question
from BARLSegmentationLib.logic.Signal import Signal

if TYPE_CHECKING:
    from barl.project.doubts import Doubt, DoubtError

    from BARLSegmentationLib.logic.Correction import Correction, Stored
    from BARLSegmentationLib.logic.Hotspots import Box
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.Background import Background


class Storing:
    """Stores the outline on screen beside the window; an outline that is probably a mistake is stored only if the
    user confirms it.

    Args:
        session: What all panels share.
        correction: The outline on screen.
        background: Where it is stored.
        reader: Gives the name of who corrects.
        whenAccepted: Goes on after an outline was accepted; gives what happened as a sentence.
        looked: The boxes that Accept takes beside what was drawn; None: it takes the whole scan.
        notInIt: What the views show that is not in the outline, in words; empty if they show nothing else.

    Attributes:
        changed: Storing has begun or ended.
        isBusy: An outline is being stored.
    """

    def __init__(
        self,
        session: Session,
        correction: Correction,
        background: Background,
        reader: Callable[[], str],
        whenAccepted: Callable[[], str],
        looked: Callable[[], Sequence[Box] | None],
        notInIt: Callable[[], str],
    ) -> None:
        self.changed = Signal()
        self.isBusy = False
        self.session, self.correction, self.background = session, correction, background
        self._reader, self._whenAccepted, self._looked, self._notInIt = reader, whenAccepted, looked, notInIt
        self._isLeaving, self._refused = False, ""

    def start(self, kind: str, allow: Collection[Doubt] = ()) -> bool:
        """Store the outline as ``draft`` or ``accepted``; ``allow``: the doubts that the user has confirmed.

        Returns:
            Whether the outline is being stored now.
        """
        session = self.session
        if self.isBusy:  # a second click while the first is at work
            return False
        if session.loaded is None:
            session.status(_("Open a case first."))
            return False
        if kind == "accepted" and session.ask(self.correction.isAccepted, otherwise=False):
            session.status(_("This outline is accepted already."))
            return False
        if kind == "accepted" and (text := self._notInIt()):
            session.status(text, error=True)
            return False
        session.withdrawQuestion()
        looked = self._looked() if kind == "accepted" else None
        if looked is not None and not looked and self.correction.drawing.drawn.isEmpty:
            session.status(_("Nothing was looked at or drawn: do so, or let Accept take the whole scan."))
            return False
        work = session.ask(self.correction.preparedToStore, kind, self._reader(), allow, looked, otherwise=None)
        if work is None:
            return False
        self.isBusy = True
        self.changed.emit()
        session.status(_("Storing the outline…"))
        self.background.submit(work, lambda future: self._onStored(future, allow))
        return True

    def finish(self) -> str:
        """Wait for what is being stored because its case is about to be left: no case is opened after it, and there is
        nobody to ask.

        Returns:
            That an outline was not accepted, and why; empty if there is nothing to say.
        """
        self._isLeaving, self._refused = True, ""
        try:
            self.background.finish()
        finally:
            self._isLeaving = False
        return self._refused

    def _onStored(self, future: Future, allow: Collection[Doubt]) -> None:
        from barl.project.doubts import DoubtError

        self.isBusy = False
        try:
            if isinstance(error := future.exception(), DoubtError) and self._isLeaving:
                text = _("{name} was not accepted: {reason}")
                self._refused = text.format(name=self.session.case().name, reason=error.message)
            elif isinstance(error, DoubtError):
                self._askAbout(error, allow)
            elif (stored := self.session.ask(future.result, otherwise=None)) is not None:
                self._settle(stored)
        except Exception:  # the log gets it from the caller
            failed = _("The outline could not be stored. Try again, or restart Slicer after saving the scene.")
            shown = _("The outline is stored, but the window could not show it. Open the case again.")
            self.session.status(failed if future.exception() else shown, error=True)
            raise
        finally:
            self.changed.emit()

    def _settle(self, stored: Stored) -> None:
        self.correction.settle(stored)
        self.session.notifyCases()
        text = stored.inWords(self.session.project.cases.get(stored.revision.case_id).name)
        if stored.revision.is_accepted and not self._isLeaving and (more := self._whenAccepted()):
            text = f"{text} {more}"
        elif not stored.revision.is_accepted:
            text = f"{text} {self._notInIt()}".strip()
        self.session.status(text)

    def _askAbout(self, error: DoubtError, allow: Collection[Doubt]) -> None:
        """The refused outline stays on screen until the question is answered, and as a draft if it is denied."""
        from barl.project.doubts import Doubt
        from barl.project.states import RevisionKind

        question, yes = {
            Doubt.EMPTY: (_("Does the case have none of the labels?"), _("Accept it empty")),
            Doubt.DIFFERENT: (_("Does the outline belong to this case?"), _("Accept this one")),
            Doubt.REPLACES: (_("Shall it be replaced?"), _("Replace it")),
            Doubt.NEWER: (_("Shall yours be the accepted one? Both stay in the project."), _("Accept mine")),
        }[error.doubt]
        # Who decides that one outline takes the place of another is not asked about their difference.
        confirmed = {error.doubt, Doubt.DIFFERENT} if error.doubt is Doubt.REPLACES else {error.doubt}
        if error.doubt is Doubt.NEWER:
            confirmed |= {Doubt.REPLACES, Doubt.DIFFERENT}
        self.session.status("")
        asked = Question(
            f"{error.message} {question}",
            yes,
            _("Keep mine as a draft"),
            onYes=lambda: self.start("accepted", {*allow, *confirmed}),
            onNo=lambda: self.start("draft"),
        )
        kinds = (RevisionKind.ACCEPTED,)
        accepted = self.session.ask(self.session.project.revisions.newest, self.session.caseId, kinds, otherwise=None)
        if error.doubt is not Doubt.EMPTY and accepted is not None:
            other = OtherOutline(self.session, accepted)
            asked = replace(asked, look=_("Show the other"), onLook=other.show, onEnd=other.remove)
        self.session.inquire(asked)
