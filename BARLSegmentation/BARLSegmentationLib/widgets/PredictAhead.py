# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.logic.Words import caseCountText

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.project.next_case import Ranked
    from barl.project.records import Case
    from barl.worker.client import Pending
    from barl.worker.messages import Event, PredictedCases

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

_NO_ACTS = ("hello", "warm")  # requests that the window makes by itself and that take no time


class PredictAhead:
    """Predicts the untouched cases by itself once a model has become the current one while the project is open.

    One case a request, the best proposal first. What the user asks the worker for goes before: the case under way is
    cancelled and comes later. While a training runs, nothing is predicted.

    Args:
        session: What all panels share.
        worker: The process that predicts.
        means: Gives device, fast and cleanUp; None while the user does not want it.

    Attributes:
        changed: It has begun or ended, or another case is at work.
        progressed: The share of the case at work that is done, 0 to 1.
        case: The case at work.
        left: How many cases are left, with that at work.
    """

    def __init__(
        self, session: Session, worker: WorkerLink, means: Callable[[], tuple[str, bool, bool] | None]
    ) -> None:
        self.changed, self.progressed = Signal(), Signal()
        self.case: Case | None = None
        self.left = 0
        self._session, self._worker, self._means = session, worker, means
        self._model: str | None = None  # the current one when last looked at
        self._wanted = False
        self._pending: Pending | None = None
        self._inVain: set[str] = set()  # cases that cannot be predicted
        self._done = 0
        session.projectChanged.connect(self.onProjectChanged)
        session.modelsChanged.connect(self.onModelsChanged)
        worker.busyChanged.connect(self._onBusy)
        worker.asked.connect(self._onAsked)

    @property
    def isIdle(self) -> bool:
        """Nothing is predicted now, though something may be waiting for its turn."""
        return self._pending is None

    @property
    def isWanted(self) -> bool:
        """Untouched cases of the current model are being predicted, or wait for their turn."""
        return self._wanted

    def onProjectChanged(self) -> None:
        self._abandon()
        self._model = self._current()

    def onModelsChanged(self) -> None:
        """A model may have become the current one, or a training may have ended."""
        model = self._current()
        if model != self._model:
            self._model = model
            self._inVain, self._done = set(), 0
            self._wanted = model is not None and self._means() is not None and bool(self._waiting())
            if self._wanted:
                text = _("{model} predicts {count} in the background; go on meanwhile.")
                self._session.status(text.format(model=model, count=caseCountText(len(self._waiting()))))
            self.changed.emit()
        self.goOn()

    def goOn(self) -> None:
        """Predict the next case, if it is its turn."""
        if not self._wanted or self._pending is not None or self._worker.busy or self._trains():
            return
        means, cases = self._means(), self._waiting()
        if means is None or not cases or self._session.project is None:
            self._finish()
            return
        from barl.worker.messages import Predict

        self.case, self.left = cases[0], len(cases)
        device, fast, cleanUp = means
        request = Predict(
            str(self._session.project.folder), [self.case.id], self._model, device=device, fast=fast, cleanup=cleanUp
        )
        self._pending = self._worker.request(request, self._onEvent, self._onPredicted, self._onFailed)
        self.changed.emit()

    def cancel(self) -> None:
        """Predict no more until another model becomes the current one."""
        left, self._wanted = self.left, False
        self._worker.cancel(self._pending)
        self._session.status(_("{count} were not predicted.").format(count=caseCountText(left)))
        self.changed.emit()

    def firstPredicted(self, ranked: list[Ranked]) -> list[Ranked]:
        """Proposals in their order; while untouched cases are being predicted, those that are predicted come first."""
        return sorted(ranked, key=lambda item: item.case.model_id != self._model) if self._wanted else ranked

    def forget(self) -> None:
        """The module is closed."""
        self._abandon()
        self._worker.busyChanged.disconnect(self._onBusy)
        self._worker.asked.disconnect(self._onAsked)

    def _abandon(self) -> None:
        self._worker.cancel(self._pending)
        self._pending, self.case, self.left, self._wanted = None, None, 0, False

    def _current(self) -> str | None:
        project = self._session.project
        model = self._session.ask(project.models.current, otherwise=None) if project is not None else None
        return model.id if model is not None else None

    def _waiting(self) -> list[Case]:
        """The untouched cases that the current model has not predicted; the one on screen comes last."""
        from barl.project.next_case import untouched_cases

        session = self._session
        if session.project is None or session.project.read_only or self._model is None:
            return []
        cases = session.ask(session.cases, otherwise=[])
        waiting = [case for case in untouched_cases(cases, self._model) if case.id not in self._inVain]
        return sorted(waiting, key=lambda case: case.id == session.caseId)

    def _onScreen(self) -> bool:
        """The case on screen has been predicted since it was opened: what is on screen stays as it is."""
        case = self._session.ask(self._session.case, otherwise=None)
        loaded = self._session.loaded
        if case is None or loaded is None or case.model_id != self._model:
            return False
        return loaded.revision is None or (loaded.revision.is_prediction and loaded.revision.model_id != self._model)

    def _trains(self) -> bool:
        project = self._session.project
        runs = self._session.ask(project.runs.all, otherwise=[]) if project is not None else []
        return any(run.is_running for run in runs)

    def _finish(self) -> None:
        self._wanted, self.case, self.left = False, None, 0
        if self._done:
            text = _("{model} has predicted {count}.")
            text += _(" Open the case on screen again to see its prediction.") if self._onScreen() else ""
            self._session.status(text.format(model=self._model, count=caseCountText(self._done)))
        self.changed.emit()

    # Of the worker

    def _onBusy(self, busy: str) -> None:
        if not busy:
            self.goOn()

    def _onAsked(self, request: Any) -> None:
        """The user asks for something: it shall not wait for what nobody has asked for."""
        if self._pending is not None and request is not self._pending.request and request.name not in _NO_ACTS:
            self._worker.cancel(self._pending, patient=True)

    def _onEvent(self, event: Event) -> None:
        if self._pending is not None and event.event == "progress":
            self.progressed.emit(event.fraction or 0.0)

    def _onPredicted(self, predicted: PredictedCases) -> None:
        self._ended()
        self._done += len(predicted.cases)
        self._session.notifyCases()
        self.goOn()
        self.changed.emit()

    def _onFailed(self, error: BarlError) -> None:
        from barl.errors import Cancelled

        case = self.case
        self._ended()
        if isinstance(error, Cancelled):
            self.changed.emit()
            return  # the end of what came before it goes on
        self._session.status(str(error), error=True)
        if error.kind == "InputError" and case is not None:
            self._inVain.add(case.id)
        else:
            self._wanted = False  # the next one would fail alike
        self.goOn()
        self.changed.emit()

    def _ended(self) -> None:
        self._pending = self.case = None
        self.left = 0
