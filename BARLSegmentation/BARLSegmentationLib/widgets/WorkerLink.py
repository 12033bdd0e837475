# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import qt
import slicer

from BARLSegmentationLib.logic.Prediction import slicerPython
from BARLSegmentationLib.logic.Signal import Signal

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.worker.client import Conversation, Pending
    from barl.worker.messages import Event, Request

Answer = TypeVar("Answer")

# What may come before a worker's first message, in time and bytes: a banner of the interpreter is skipped.
PATIENCE_MS = 15000
BYTES_OF_NONSENSE = 1 << 20
# A worker that has not stopped so long after it was asked to is ended: it hangs, or one step takes minutes.
CANCEL_MS = 10000
# But not while it waits for a training to come up, which would go on without the project's knowing its process.
STARTS = ("resume_training", "start_training")


class WorkerLink:
    """The process that predicts and trains, served by Qt's event loop: Slicer never waits for it.

    It is started by the first request, kept warm between requests and started again after it has ended, for whatever
    reason. Callbacks run in Slicer's main thread, never before ``request`` has returned. Every request ends in exactly
    one of ``onResult`` and ``onError``.

    Args:
        python: The interpreter; by default Slicer's own, PythonSlicer, which prepares its environment itself.
        variables: Further variables of its environment.

    Attributes:
        busyChanged: Another long request is under way (its name, or "" for none).
        asked: A long request was sent; gives it.
        busy: The name of the long request under way.
        computer: Address of the other computer that computes; empty: this one.
    """

    def __init__(self, python: str | None = None, variables: Mapping[str, str] | None = None) -> None:
        self.busyChanged, self.asked = Signal(), Signal()
        self.busy = ""
        self.python = python or slicerPython()
        self.computer = self._computerPython = ""
        self._variables = dict(variables or {})
        self._process: qt.QProcess | None = None
        self._conversation: Conversation | None = None
        self._open: dict[str, str] = {}  # id -> name of the long requests without an answer
        self._heard = False  # a message has come
        self._bytesUnheard = 0
        self._reason: BarlError | None = None  # why it ended, where we know better than its exit code
        self._current = ""  # id of the long request that it is at
        self._cancelled: dict[str, BarlError] = {}  # id -> answer of what had to be ended to be cancelled
        self._complaints = b""

    @property
    def pid(self) -> int:
        """Of the process; 0 if none runs."""
        return int(self._process.processId()) if self.running else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.state() != qt.QProcess.NotRunning

    def request(
        self,
        request: Request[Answer],
        onEvent: Callable[[Event], None] | None = None,
        onResult: Callable[[Answer], None] | None = None,
        onError: Callable[[BarlError], None] | None = None,
    ) -> Pending[Answer]:
        """Ask the worker for something; returns at once.

        Args:
            request: One of ``barl.worker.messages``.
            onEvent: Gets the events ``started``, ``progress`` and ``log``.
            onResult: Gets the answer.
            onError: Gets what went wrong.
        """
        if not self.running or self._conversation is None:
            self._start()

        def takeEvent(event: Event) -> None:
            self._heard = True
            if event.event == "started" and pending.id in self._open:
                self._current = pending.id
            _call(onEvent, event)

        def takeEnd(pending: Pending[Answer]) -> None:
            self._heard = True
            self._open.pop(pending.id, None)
            self._tellBusy()
            if pending.error is None:
                _call(onResult, pending.result)
            else:
                _call(onError, self._cancelled.pop(pending.id, None) or self._reason or pending.error)

        pending, line = self._conversation.request(request, takeEvent, takeEnd)
        if not request.quick:
            self._open[pending.id] = request.name
        self._process.write(line)
        self._tellBusy()
        if not request.quick:
            self.asked.emit(request)
        return pending

    def cancel(self, pending: Pending | None, patient: bool = False) -> None:
        """Ask the worker to stop a request; its error then is ``barl.errors.Cancelled``.

        Args:
            pending: The request.
            patient: Wait however long it takes; else a worker that has not stopped after ``CANCEL_MS`` is ended, and
                with it the requests that wait.
        """
        if pending is not None and not pending.ended and self._conversation is not None and self.running:
            self._process.write(self._conversation.cancel(pending))
            process = self._process
            if not patient:
                qt.QTimer.singleShot(CANCEL_MS, lambda: self._onCancelUnheard(process, pending))

    def _onCancelUnheard(self, process: qt.QProcess, pending: Pending) -> None:
        from barl.errors import Cancelled

        if process is not self._process or not self.running or pending.id != self._current:
            return  # what waits for another request is stopped as soon as that has ended
        if pending.id in self._open and self._open[pending.id] not in STARTS:
            self._cancelled[pending.id] = Cancelled()
            self._kill()

    def use(self, computer: str, python: str) -> None:
        """Compute elsewhere from the next request on; a worker that runs is ended.

        Args:
            computer: Address of another computer, as for ssh; empty: this one.
            python: The interpreter there or here; empty: the one made for BARL there, Slicer's own here.
        """
        chosen = (computer, python if computer else "", slicerPython() if computer or not python else python)
        if chosen != (self.computer, self._computerPython, self.python):
            self.close()
        self.computer, self._computerPython, self.python = chosen

    def environment(self) -> qt.QProcessEnvironment:
        """Slicer's own environment for its own Python; for any other Python that in which Slicer was started."""
        from barl.worker.client import worker_environment

        own = self.python == slicerPython()
        environment = qt.QProcessEnvironment.systemEnvironment() if own else slicer.app.startupEnvironment()
        if not own:
            for name in ("PYTHONHOME", "PYTHONPATH"):
                environment.remove(name)
        now = {name: environment.value(name, "") for name in environment.keys()}  # noqa: SIM118 (no dict)
        for name, value in (worker_environment(now) | self._variables).items():
            environment.insert(name, value)
        return environment

    def close(self) -> None:
        """End the worker and whatever it started, within 2 s; trainings, which are nobody's children, go on."""
        process = self._process
        if self.running:
            process.closeWriteChannel()  # the worker ends itself when nobody can ask any more
            if not process.waitForFinished(700):
                self._kill()
        self._ended(process)

    def _kill(self) -> None:
        from barl.worker.process_tree import end_process_tree

        pid = int(self._process.processId())
        if pid:
            end_process_tree(pid, grace_s=0.3)
        self._process.kill()
        self._process.waitForFinished(500)

    def _start(self) -> None:
        from barl.worker.client import Conversation, worker_command

        self._ended(self._process)
        program, *arguments = worker_command(self.python, self.computer, self._computerPython)
        process = qt.QProcess()
        process.setProcessEnvironment(self.environment())
        process.connect("readyReadStandardOutput()", self._onOutput)
        process.connect("readyReadStandardError()", self._onComplaint)
        process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        self._process, self._conversation = process, Conversation(self._onStray)
        self._heard, self._bytesUnheard, self._reason, self._complaints = False, 0, None, b""
        self._current, self._cancelled = "", {}
        process.start(program, arguments)

    def _onOutput(self) -> None:
        data = self._process.readAllStandardOutput().data()
        if self._conversation is None:
            return
        if not self._heard and self._bytesUnheard == 0:
            process = self._process
            qt.QTimer.singleShot(PATIENCE_MS, lambda: self._onPatienceEnds(process))
        self._conversation.feed(data)
        self._bytesUnheard = 0 if self._heard else self._bytesUnheard + len(data)
        if self._bytesUnheard > BYTES_OF_NONSENSE:
            self._onPatienceEnds(self._process)

    def _onStray(self, event: dict) -> None:
        logging.warning("BARL worker: %s", str(event.get("message", event))[:200])

    def _onPatienceEnds(self, process: qt.QProcess) -> None:
        """End a program that has written something, but no message."""
        from barl.worker.client import WorkerError

        if process is not self._process or self._heard or not self.running:
            return
        self._reason = WorkerError(
            "The program that was started as BARL worker does not answer as one.",
            f"Check that {self.python} is Slicer's Python, or reinstall the extension.",
        )
        self._kill()

    def _onComplaint(self) -> None:
        self._complaints = (self._complaints + self._process.readAllStandardError().data())[-4000:]

    def _onFinished(self, exitCode: int, exitStatus: int) -> None:
        if self._complaints and (exitCode or exitStatus):
            logging.warning("BARL worker: %s", self._complaints.decode(errors="replace"))
        self._endSoon()

    def _onProcessError(self, error: int) -> None:
        from barl.worker.client import WorkerError

        if error != qt.QProcess.FailedToStart:
            return  # what else goes wrong ends in "finished"
        self._reason = WorkerError(
            f"The BARL worker could not be started ({self._process.errorString()}).",
            f"Check that {self.python} exists and may be run, or reinstall Slicer.",
        )
        self._endSoon()

    def _endSoon(self) -> None:
        # Not at once: an answer may bring the next request, whose process must not replace this one while it speaks;
        # and a start that fails at once must not answer before ``request`` has returned.
        process = self._process
        qt.QTimer.singleShot(0, lambda: self._ended(process))

    def _ended(self, process: qt.QProcess | None) -> None:
        """Answer the requests that ``process`` left open."""
        if process is None or process is not self._process or self._conversation is None:
            return
        if process.state() == qt.QProcess.NotRunning:
            self._conversation.feed(process.readAllStandardOutput().data())  # what it wrote at the end
        conversation, self._conversation = self._conversation, None
        conversation.worker_ended(process.exitCode())
        self._open.clear()
        self._tellBusy()

    def _tellBusy(self) -> None:
        busy = next(iter(self._open.values()), "")
        if busy != self.busy:
            self.busy = busy
            self.busyChanged.emit(busy)


def _call(listener: Callable | None, argument: object) -> None:
    """Call a listener; an exception in it is logged, so that the next messages are still handled."""
    try:
        if listener is not None:
            listener(argument)
    except Exception:
        logging.exception("BARL: a listener of the worker failed")
