# SPDX-License-Identifier: Apache-2.0
"""The client of the worker protocol; standard library only, because Slicer's own process imports it.

``Conversation`` handles lines and requests and no process: give it the bytes the worker wrote, write the bytes it hands
out. A ``QProcess`` drives it from ``readyReadStandardOutput``; ``WorkerProcess`` drives it with ``subprocess`` and a
thread.

Example:
    with WorkerProcess() as worker:
        print(worker.call(SayHello()).devices)
        predicted = worker.call(Predict(project="/data/study", cases=["case 7"]), on_event=print)
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from barl.errors import BarlError
from barl.openmp import wait_briefly
from barl.worker.messages import Cancel, Event, Request
from barl.worker.process_tree import end_process_tree
from barl.worker.protocol import FINAL_EVENTS, LineBuffer, ProtocolError, decode, encode, error_from_event
from barl.worker.typed_json import MismatchError, read, write

Answer = TypeVar("Answer")
OnEvent = Callable[[Event], None]
# Gets a message that belongs to no open request.
OnStray = Callable[[dict[str, Any]], None]


class WorkerError(BarlError):
    """The worker ended before it had answered."""


def worker_command(python: str | None = None, computer: str = "", computer_python: str = "") -> list[str]:
    """The program and arguments that start a worker.

    Args:
        python: The interpreter; this one by default.
        computer: Address of another computer that predicts and trains; empty: this one.
        computer_python: The interpreter there; empty: the one that ``barl computer prepare`` has made.
    """
    room = ["barl.remote", computer, computer_python] if computer else ["barl.worker"]
    return [python or sys.executable, "-m", *room]


def worker_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which ``import barl`` finds this very package and PyTorch's threads wait but briefly."""
    environment = dict(os.environ if base is None else base)
    root = str(Path(__file__).resolve().parents[2])
    given = environment.get("PYTHONPATH", "").split(os.pathsep)
    others = [entry for entry in given if Path(entry).is_absolute() and entry != root]  # others mean the current folder
    environment["PYTHONPATH"] = os.pathsep.join([root, *others])
    environment["PYTHONSAFEPATH"] = "1"  # a file of the current folder, such as random.py, is never imported
    environment["MPLBACKEND"] = "Agg"  # MONAI loads matplotlib, which refuses to load with a backend that is not there
    wait_briefly(environment)
    return environment


class Pending(Generic[Answer]):
    """A request under way.

    Attributes:
        id: The id its events carry.
        request: What was asked.
        result: The answer, once there is one.
        error: What went wrong, once something has.
    """

    def __init__(
        self,
        request_id: str,
        request: Request[Answer],
        on_event: OnEvent | None = None,
        on_end: Callable[[Pending[Answer]], None] | None = None,
    ) -> None:
        self.id, self.request = request_id, request
        self.result: Answer | None = None
        self.error: BarlError | None = None
        self._on_event, self._on_end = on_event, on_end
        self._ended = threading.Event()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, timeout: float | None = None) -> Answer:
        """Wait for the answer (not in a thread that has to feed the conversation).

        Raises:
            BarlError: the error the worker reported, or that it ended.
            TimeoutError: no answer within ``timeout`` seconds.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"The worker has not answered request {self.id} within {timeout} s.")
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def take(self, message: Mapping[str, Any]) -> None:
        """Take a message of the worker about this request.

        Raises:
            MismatchError: It is no event of the protocol.
        """
        kind = message["event"]
        if kind not in FINAL_EVENTS:
            event = read(Event, message)
            if self._on_event is not None:
                self._on_event(event)
        elif kind == "error":
            self.end(error_from_event(message))
        else:
            try:
                self.result = read(self.request.answer, message.get("value") or {})
                self.end()
            except MismatchError as mismatch:
                self.end(
                    ProtocolError(
                        f"The worker's answer to '{self.request.name}' cannot be read ({mismatch}).",
                        "Reinstall the extension: the worker is of another version.",
                    )
                )

    def end(self, error: BarlError | None = None) -> None:
        """The request has ended, with an error or with ``result``."""
        self.error = error
        try:
            if self._on_end is not None:
                self._on_end(self)
        finally:
            self._ended.set()


class Conversation:
    """The protocol without the pipe: makes request lines, sorts the events that come back to their requests.

    Args:
        on_stray: Gets the messages that belong to no open request, and ``log`` events for lines that are no message.
    """

    def __init__(self, on_stray: OnStray | None = None) -> None:
        self._lines = LineBuffer()
        self._open: dict[str, Pending] = {}
        self._ids = itertools.count(1)
        self._on_stray = on_stray or (lambda message: None)

    @property
    def open_requests(self) -> list[Pending]:
        return list(self._open.values())

    def request(
        self,
        request: Request[Answer],
        on_event: OnEvent | None = None,
        on_end: Callable[[Pending[Answer]], None] | None = None,
    ) -> tuple[Pending[Answer], bytes]:
        """A new request and the bytes to write to the worker.

        Args:
            request: What to ask.
            on_event: Gets the events before the end.
            on_end: Called once, with the request and its result or error in it.
        """
        pending = Pending(str(next(self._ids)), request, on_event, on_end)
        line = encode({"id": pending.id, "request": request.name, "params": write(request)})
        self._open[pending.id] = pending
        return pending, line

    def cancel(self, pending: Pending) -> bytes:
        """The bytes that ask the worker to stop a request; its answer then is an error of class ``Cancelled``."""
        _, line = self.request(Cancel(pending.id))
        return line

    def feed(self, data: bytes) -> None:
        """Take bytes the worker wrote, in whatever pieces they came, and pass the events on."""
        for line in self._lines.feed(data):
            try:
                message = decode(line)
            except ProtocolError:
                self._on_stray({"event": "log", "message": line.decode(errors="replace")})
                continue
            pending = self._open.get(str(message.get("id")))
            if pending is None or not isinstance(message.get("event"), str):
                self._on_stray(message)
                continue
            if message["event"] in FINAL_EVENTS:
                del self._open[pending.id]
            try:
                pending.take(message)
            except MismatchError:
                self._on_stray(message)

    def worker_ended(self, exit_code: int | None = None) -> None:
        """Answer every open request with ``WorkerError``."""
        how = "" if exit_code is None else f" (exit code {exit_code})"
        gone = WorkerError(
            f"The BARL worker ended before it had finished{how}.",
            "Start it again; what was saved before is unchanged. If it ends again, memory may be short.",
        )
        for pending in self.open_requests:
            del self._open[pending.id]
            with contextlib.suppress(Exception):  # one listener's mistake must not leave the others waiting
                pending.end(gone)


class WorkerProcess:
    """A worker as a child process, its events read by a thread (``on_event`` callbacks run in that thread).

    Args:
        python: The interpreter that has the engine's packages; this one by default.
        command: Program and arguments that start the worker; by default those of ``worker_command``.
        environment: Its environment; by default that of ``worker_environment``.
        stderr: Where the worker's log output goes, as for ``subprocess.Popen``; this process's stderr by default.
        on_stray: As for ``Conversation``.
    """

    def __init__(
        self,
        python: str | None = None,
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        stderr: int | IO[Any] | None = None,
        on_stray: OnStray | None = None,
    ) -> None:
        self._conversation = Conversation(on_stray)
        self._lock = threading.RLock()  # the conversation's; never held while writing, or two full pipes could lock up
        self._writing = threading.Lock()
        self._ended = False
        own_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":  # without CREATE_NO_WINDOW a console would open in front of Slicer
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                list(command or worker_command(python)),
                env=dict(environment) if environment is not None else worker_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                **own_group,
            )
        except OSError as error:
            raise WorkerError(
                f"The BARL worker could not be started ({error.strerror}).",
                "Check the Python interpreter chosen for it.",
            ) from error
        assert self._process.stdin and isinstance(self._process.stdout, io.BufferedReader)  # both are pipes
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._reader = threading.Thread(target=self._read, name="barl-worker-events", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def request(self, request: Request[Answer], on_event: OnEvent | None = None) -> Pending[Answer]:
        """Send a request without waiting for its answer."""
        with self._lock:
            pending, line = self._conversation.request(request, on_event)
        self._write(line)
        return pending

    def call(self, request: Request[Answer], on_event: OnEvent | None = None, timeout: float | None = None) -> Answer:
        """Send a request and wait for its answer; raises as ``Pending.wait`` does."""
        return self.request(request, on_event).wait(timeout)

    def cancel(self, pending: Pending) -> None:
        """Ask the worker to stop a request."""
        with self._lock:
            line = self._conversation.cancel(pending)
        self._write(line)

    def close(self, timeout: float = 5.0) -> int:
        """Ask the worker to end, kill it after ``timeout`` seconds; returns its exit code. Trainings go on."""
        with self._writing, contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join(2.0)
        return self._process.wait()

    def kill(self) -> None:
        """End the worker and everything it started (but no detached training) within 2 s."""
        end_process_tree(self._process.pid)
        self._process.wait(2.0)

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        with self._writing, contextlib.suppress(OSError, ValueError):  # ValueError: closed by us
            self._stdin.write(line)
            self._stdin.flush()
        with self._lock:
            if self._ended:  # the reader thread, which fails open requests when it ends, is gone
                self._conversation.worker_ended(self._process.poll())

    def _read(self) -> None:
        with self._stdout as pipe:
            while data := pipe.read1(65536):
                with self._lock:
                    self._conversation.feed(data)
        exit_code = self._process.wait()
        with self._lock:
            self._ended = True
            self._conversation.worker_ended(exit_code)
