# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.logic.Voxels import readAhead
from BARLSegmentationLib.widgets.Pieces import Pieces

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from barl.errors import BarlError
    from barl.project.store import Project
    from barl.worker.client import Pending
    from barl.worker.messages import Event, PredictedCases
    from slicer import vtkMRMLSegmentationNode

    from BARLSegmentationLib.logic.Prediction import Model
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink


class PredictCases:
    """Has the worker predict cases of the open project, and shows a case that was predicted alone.

    Args:
        session: What all panels share.
        worker: The process that predicts.

    Attributes:
        progressed: The worker has come further (``Event``).
        ended: The prediction has ended; gives the segmentation that is shown now, or None.
    """

    def __init__(self, session: Session, worker: WorkerLink) -> None:
        self.session, self.worker = session, worker
        self.progressed, self.ended = Signal(), Signal()
        self._pending: Pending | None = None
        self._reading: Pieces | None = None  # what is read of the case on screen
        self._project: Project | None = None  # whose cases are predicted

    @property
    def isIdle(self) -> bool:
        return self._pending is None

    def start(
        self,
        model: Model | None,
        caseIds: list[str] | None,
        device: str,
        fast: bool,
        roi: list[float] | None,
        cleanUp: bool = True,
    ) -> None:
        """Predict; without ``caseIds`` all without an accepted outline, without ``model`` with the current one."""
        from barl.worker.messages import Predict

        self._reading, self._project = None, self.session.project
        folder = str(self._project.folder)
        chosen = None if model is None else model.id or str(model.folder)
        self._pending = self.worker.request(
            Predict(folder, caseIds, chosen, device, fast, roi, cleanUp),
            onEvent=self._onEvent,
            onResult=self._onPredicted,
            onError=self._onFailed,
        )

    def cancel(self) -> None:
        self.worker.cancel(self._pending)

    def forget(self) -> None:
        """Cancel, and ignore the answer."""
        if self._pending is not None:
            self.cancel()
            self._pending = None
            if self._reading is not None:
                self._reading.stop()

    def _onEvent(self, event: Event) -> None:
        if self._pending is not None and event.event == "progress":
            self.progressed.emit(event)

    def _onPredicted(self, predicted: PredictedCases) -> None:
        from barl.project.states import RevisionKind

        if self._pending is None:
            return
        session, onScreen, paths = self.session, self.session.caseId, []
        session.notifyCases()
        if session.project is self._project and onScreen in [case.case for case in predicted.cases]:
            newest = self._project.revisions.newest
            revision = session.ask(newest, onScreen, (RevisionKind.PREDICTION,), otherwise=None)
            paths = [path for path in (revision.path, revision.uncertainty_path) if path] if revision else []
        self._reading = Pieces(readAhead(paths), lambda ahead: self._onRead(predicted, onScreen, ahead))

    def _onRead(self, predicted: PredictedCases, onScreen: str | None, ahead: dict[Path, np.ndarray]) -> None:
        self._pending = None
        self.ended.emit(self._show(predicted, ahead if self.session.caseId == onScreen else {}))
        self.session.status(_summary(predicted), error=bool(predicted.failed or _unlike(predicted)))

    def _show(self, predicted: PredictedCases, ahead: dict[Path, np.ndarray]) -> vtkMRMLSegmentationNode | None:
        """Open a case that was predicted alone; of several only the one that is on screen anyway."""
        session, ids = self.session, [case.case for case in predicted.cases]
        alone = ids[0] if len(ids) == 1 and not session.caseId else None
        shown = session.caseId if session.caseId in ids else alone
        if shown is None or session.project is not self._project:  # another project may have a case of that id
            return None
        loaded = session.ask(session.openCase, shown, ahead, otherwise=None)
        return loaded.segmentation if loaded is not None else None

    def _onFailed(self, error: BarlError) -> None:
        from barl.errors import Cancelled

        if self._pending is None:
            return
        self._pending = None
        self.ended.emit(None)
        self.session.notifyCases()  # those done before stay stored
        self.session.status(str(error), error=not isinstance(error, Cancelled))


def _unlike(predicted: PredictedCases) -> list[str]:
    """The names of the cases whose scans are unlike those that the model has learned from."""
    from barl.images.familiarity import is_unlike

    return [case.name for case in predicted.cases if any(map(is_unlike, case.notes))]


def _summary(predicted: PredictedCases) -> str:
    from barl.images.familiarity import is_unlike

    # Outlined cases are predicted too, so that the others can be compared with them.
    outlined = sum(case.state == "accepted" for case in predicted.cases)
    count = len(predicted.cases) - outlined or len(predicted.cases)
    sentences = [_("1 case predicted.") if count == 1 else _("{n} cases predicted.").format(n=count)]
    if count < len(predicted.cases):
        sentences.append(_("{n} outlined cases were predicted too, for comparison.").format(n=outlined))
    unlike = _unlike(predicted)
    if len(unlike) > 1:
        text = _(
            "{n} scans are unlike those that the model has learned from: {names}. Look at their results with care."
        )
        sentences.append(text.format(n=len(unlike), names=", ".join([*unlike[:3], *(["..."] if unlike[3:] else [])])))
    sentences += dict.fromkeys(
        note for case in predicted.cases for note in case.notes if not (len(unlike) > 1 and is_unlike(note))
    )
    sentences += [f"{case.name}: {case.message} {case.remedy}" for case in predicted.failed]
    return " ".join(sentences)
