# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.FillExchange import FillExchange
from BARLSegmentationLib.logic.Outline import replaceOutline
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.worker.messages import Event, FilledScan

    from BARLSegmentationLib.logic.Correction import Correction
    from BARLSegmentationLib.logic.FillExchange import Filled
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.Background import Background
    from BARLSegmentationLib.widgets.DrawOnce import DrawOnce
    from BARLSegmentationLib.widgets.OutlineEditor import OutlineEditor

PATIENCE_MS = 1000  # a fill that takes longer shows its progress
# Its matrices are small: two threads of BLAS on two busy cores take 17 s for what one does in 1.2 s.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1"}
QUICK_SECONDS = 0.5  # fills that take no longer may follow each stroke


class Filling:
    """Fills the outline on screen from what was drawn, in a process of its own: the window never waits.

    Args:
        session: What is open.
        correction: The outline, and what of it was drawn.
        editor: Keeps what was before for its Undo.
        background: Reads and writes the arrays.
        drawOnce: Has the views drawn once for all segments.
        parent: QObject that the timer belongs to.

    Attributes:
        began, ended: A fill has begun, or has ended with a sentence (text, isError); both may be empty.
        progressed: A fill takes long and is so far (0 to 1).
        filled: The outline was filled (``FillExchange.Filled``).
        seconds: How long the last fill took; None before.
    """

    def __init__(
        self,
        session: Session,
        correction: Correction,
        editor: OutlineEditor,
        background: Background,
        drawOnce: DrawOnce,
        parent: qt.QObject,
    ) -> None:
        self.began, self.ended, self.progressed, self.filled = Signal(), Signal(), Signal(), Signal()
        self.session, self.correction, self.editor, self.background = session, correction, editor, background
        self.worker = WorkerLink(variables=ONE_THREAD)
        self.seconds: float | None = None
        self._drawOnce = drawOnce
        self._exchange = FillExchange(slicer.app.temporaryPath)
        self._pending = None
        self._job: _Job | None = None
        self._prepared: str | None = None  # id of a case
        self._patience = qt.QTimer(parent)
        self._patience.setSingleShot(True)
        self._patience.setInterval(PATIENCE_MS)
        self._patience.connect("timeout()", self._onPatienceEnds)

    @property
    def isBusy(self) -> bool:
        return self._job is not None

    def prepare(self) -> None:
        """Have the process start and read the scan, so that the first fill does not wait for it."""
        if self.isBusy or self.session.loaded is None or self._prepared == self.session.caseId:
            return
        self._prepared = self.session.caseId
        scans = self.session.project.cases.image_paths(self._prepared)
        prior = self.session.ask(self.correction.prior, otherwise=None)
        self.worker.request(self._exchange.preparation(scans, prior))  # what cannot be read, the fill says

    def start(self, follows: bool = False) -> None:
        """Fill.

        Args:
            follows: It belongs to the stroke before: one Undo takes both back.
        """
        if self.isBusy:
            self._job.again = True
            return
        snapshot = self.session.ask(self.correction.snapshot, otherwise=None)
        if snapshot is None:
            return
        project, caseId = self.session.project, self.session.caseId
        prior = self.session.ask(self.correction.prior, otherwise=None)
        scans = project.cases.image_paths(caseId)
        self._job = job = _Job(caseId, self.correction.outlineState(), follows)
        self.began.emit()
        self._patience.start()
        looking, drawing = self.correction.drawing.looking(), self.correction.drawing

        def write() -> tuple:
            labels, _overlaps = snapshot.labelMap()
            look = looking(labels)
            self._exchange.write(labels, drawing.after(look))
            return look, self._exchange.request(scans, prior)

        self.background.submit(write, lambda future: self._onWritten(job, future))

    def cancel(self) -> None:
        """End a fill that is under way; the outline stays as it is."""
        if self._job is None:
            return
        self.worker.cancel(self._pending)
        self._end(_("The fill was ended; the outline is as before."))

    def close(self) -> None:
        """End the process and remove its files."""
        self._job = None
        self._patience.stop()
        self.worker.close()
        self._exchange.close()

    def _onWritten(self, job: _Job, future: Future) -> None:
        if job is not self._job:
            return
        answer = self.session.ask(future.result, otherwise=None)
        if answer is None:
            self._end()
            return
        look, request = answer
        self.correction.drawing.take(look)
        self._pending = self.worker.request(
            request,
            onEvent=lambda event: self._onEvent(job, event),
            onResult=lambda result: self._onResult(job, look.labels, result),
            onError=lambda error: self._onError(job, error),
        )

    def _onPatienceEnds(self) -> None:
        if self._job is not None:
            self._job.long = True
            self.progressed.emit(self._job.fraction)

    def _onEvent(self, job: _Job, event: Event) -> None:
        if job is self._job and event.fraction is not None:
            job.fraction = event.fraction
            if job.long:
                self.progressed.emit(job.fraction)

    def _onError(self, job: _Job, error: BarlError) -> None:
        if job is self._job:
            self._end(str(error), isError=True)

    def _onResult(self, job: _Job, labels: np.ndarray, answer: FilledScan) -> None:
        if job is self._job:
            self.background.submit(
                lambda: self._exchange.read(answer, labels.shape, labels.dtype),
                lambda future: self._onRead(job, future),
            )

    def _onRead(self, job: _Job, future: Future) -> None:
        if job is not self._job:
            return
        filled = self.session.ask(future.result, otherwise=None)
        if filled is None or job.caseId != self.session.caseId:
            self._end()
            return
        if job.again or job.state != self.correction.outlineState():  # somebody has drawn on meanwhile: fill that
            self._job = None
            self.start(job.follows)
            return
        self.seconds = job.seconds()
        self._apply(job, filled)
        self._end()

    def _apply(self, job: _Job, filled: Filled) -> None:
        loaded, project = self.session.loaded, self.session.project
        grid = project.cases.grid(loaded.caseId)
        with self._drawOnce:
            if not job.follows:
                self.editor.widget.saveStateForUndo()
            with self.editor.byProgram():
                replaceOutline(loaded.segmentation, loaded.volumes[0], grid, filled.labels, project.labels)
            self.correction.drawing.filled(filled.labels, filled.digest, filled.fill, filled.filledBy)
            self.filled.emit(filled)

    def _end(self, text: str = "", isError: bool = False) -> None:
        self._job = None
        self._patience.stop()
        self.ended.emit(text, isError)


class _Job:
    """One fill under way."""

    def __init__(self, caseId: str, state: tuple, follows: bool) -> None:
        import time

        self.caseId, self.state, self.follows = caseId, state, follows
        self.again = self.long = False
        self.fraction = 0.0
        self._now: Callable[[], float] = time.monotonic
        self._began = self._now()

    def seconds(self) -> float:
        return self._now() - self._began
