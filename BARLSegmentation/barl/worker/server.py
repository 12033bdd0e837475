# SPDX-License-Identifier: Apache-2.0
"""The server of the worker protocol: reads requests, runs them, writes events."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from barl.errors import Cancelled, InputError
from barl.jobs.failures import explain
from barl.progress import Event, Progress
from barl.worker.messages import Cancel, CancelRequested, Nothing, Request, Shutdown
from barl.worker.protocol import LineBuffer, ProtocolError, decode, encode, error_event
from barl.worker.typed_json import MismatchError, hints, read

# Answers a request; what it returns, an answer of ``barl.worker.messages`` or a dict of its fields, is the result.
Handler = Callable[["Context", Any], object]

# Least time between two progress events of one request (s): a window can follow, and the pipe never fills.
PROGRESS_INTERVAL_S = 0.1
# What still runs this long (s) after the end was asked for is cut off; whatever it stores, it stores atomically.
LAST_WORD_S = 1.5


class Reports(Protocol):
    """What the requests' handlers need of a ``Context``: the command line has it too."""

    @property
    def progress(self) -> Progress: ...


class Context:
    """Lets a handler report to its client while it works on one request."""

    def __init__(self, server: Server, request_id: str | int) -> None:
        self._server = server
        self.id = request_id
        self._cancelled = threading.Event()
        self._stage = ""
        self._stage_began = 0.0
        self._last_sent = 0.0

    @property
    def progress(self) -> Progress:
        """What a job reports to: sends an event now and then, ends the job once the client wants that."""
        return Progress(self._report, self._cancelled.is_set)

    def _report(self, event: Event) -> None:
        if event["event"] != "progress":
            self.send(dict(event))
            return
        stage, fraction, now = event["stage"], event["fraction"], time.monotonic()
        new_stage = stage != self._stage
        if new_stage:
            self._stage, self._stage_began = stage, now
        if not new_stage and fraction < 1 and now - self._last_sent < PROGRESS_INTERVAL_S:
            return
        self._last_sent = now
        elapsed = now - self._stage_began
        eta_s = round(elapsed * (1 - fraction) / fraction, 1) if fraction > 0 and elapsed > 0 else None
        self.send({**event, "eta_s": eta_s})

    def log(self, message: str) -> None:
        self.send({"event": "log", "message": message})

    def check(self) -> None:
        """Raise ``Cancelled`` once the client wants the request to end."""
        if self._cancelled.is_set():
            raise Cancelled()

    def cancel(self) -> None:
        self._cancelled.set()

    def send(self, event: dict) -> None:
        self._server.send({"id": self.id, **event})


class Server:
    """Serves one client until it says ``shutdown`` or closes its end.

    Long requests run one after the other in the thread that called ``serve``: cuDNN keeps its plans per thread, and
    one job at a time is all that a device's memory is planned for. Quick ones run beside them.

    Args:
        handlers: Answer the requests, except ``Cancel`` and ``Shutdown``, which the server answers itself.
        incoming: Raw (unbuffered) bytes from the client: a read gives what is there.
        outgoing: Bytes to the client.
    """

    def __init__(self, handlers: Mapping[type[Request], Handler], incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._handlers: dict[type[Request], Handler] = {
            **handlers,
            Cancel: self._cancel,
            Shutdown: lambda _context, _request: Nothing(),
        }
        self._kinds = {kind.name: kind for kind in self._handlers}
        self._incoming, self._outgoing = incoming, outgoing
        self._writing = threading.Lock()
        self._open: dict[str, Context] = {}
        self._waiting: queue.SimpleQueue[tuple[Context, Request] | None] = queue.SimpleQueue()

    def serve(self) -> None:
        """Answer requests until the client is done."""
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        while (job := self._waiting.get()) is not None:
            self._answer(*job)

    def send(self, message: dict) -> None:
        """Write one message; if the client has closed the pipe, the server ends."""
        line = encode(message)
        with self._writing:
            try:
                self._outgoing.write(line)
                self._outgoing.flush()
            except (OSError, ValueError):
                self._end()

    def _read(self) -> None:
        lines = LineBuffer()
        while data := self._incoming.read(65536):
            for line in lines.feed(data):
                self._take(line)
        self._end()

    def _take(self, line: bytes) -> None:
        """Start or queue the request of one line."""
        request_id = None
        try:
            message = decode(line)
            request_id, name, params = message.get("id"), message.get("request"), message.get("params", {})
            if not isinstance(request_id, (str, int)) or not isinstance(name, str) or not isinstance(params, dict):
                raise ProtocolError(
                    "A request to the worker lacks its id, its name or its params.",
                    'Send one line like {"id": "1", "request": "hello", "params": {}}.',
                )
            if str(request_id) in self._open:
                raise ProtocolError(f"The request id {request_id} is still in use.", "Give each request its own id.")
            request = self._request(name, params)
        except (ProtocolError, InputError) as error:
            usable = request_id if isinstance(request_id, (str, int)) else None
            self.send({"id": usable, **error_event(error)})
            return
        context = Context(self, request_id)
        self._open[str(request_id)] = context
        if request.quick:
            threading.Thread(target=self._answer, args=(context, request), daemon=True).start()
        else:
            self._waiting.put((context, request))

    def _request(self, name: str, params: dict) -> Request:
        """The request of that name with its parameters, checked.

        Raises:
            InputError: There is no such request, or its parameters are not those of its class.
        """
        kind = self._kinds.get(name)
        if kind is None:
            raise InputError(
                f"The worker has no request '{name}'.", f"Its requests are: {', '.join(sorted(self._kinds))}."
            )
        try:
            return read(kind, params, strict=True)
        except MismatchError as error:
            field = error.field
            sentence, remedy = {
                "unknown": (f"has no parameter '{field}'", f"It has: {', '.join(hints(kind)) or 'none'}."),
                "missing": (f"lacks its parameter '{field}'", "Add it to params."),
                "wrong": (f"has a parameter '{field}' of the wrong type", f"Give it as {error.wanted}."),
            }[error.problem]
            raise InputError(f"The request '{name}' {sentence}.", remedy) from None

    def _answer(self, context: Context, request: Request) -> None:
        try:
            context.check()  # it may have been cancelled while it waited
            context.send({"event": "started"})
            answer = {"event": "result", "value": self._handlers[type(request)](context, request)}
        except Exception as error:
            folder = getattr(request, "project", None)
            answer = error_event(explain(error, Path(folder) if folder else None))
        # Forgotten first: whoever has read the answer may use the id again.
        self._open.pop(str(context.id), None)
        context.send(answer)
        if isinstance(request, Shutdown):
            self._end()

    def _cancel(self, _context: Context, request: Cancel) -> CancelRequested:
        context = self._open.get(str(request.target))
        if context is not None:
            context.cancel()
        return CancelRequested(found=context is not None)

    def _end(self) -> None:
        """Cancel the running jobs, then exit; a job that does not react in time is cut off."""
        for context in list(self._open.values()):
            context.cancel()
        self._waiting.put(None)
        timer = threading.Timer(LAST_WORD_S, os._exit, (0,))
        timer.daemon = True
        timer.start()
