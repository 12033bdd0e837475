# SPDX-License-Identifier: Apache-2.0
"""The two ends of the worker protocol without a process between them."""

from __future__ import annotations

import io
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from barl.errors import Cancelled, InputError, StorageError
from barl.worker import messages
from barl.worker.client import Conversation, WorkerError
from barl.worker.messages import Predict, SayHello
from barl.worker.protocol import LineBuffer, ProtocolError, decode, encode, error_event, error_from_event
from barl.worker.server import Context, Handler, Server
from barl.worker.typed_json import MismatchError, hints, read


def test_lines_come_out_whole_however_the_stream_is_cut():
    messages = [{"id": "1", "text": "Größe\nzwei"}, {"id": "2"}, {"id": "3", "list": [1, 2]}]
    stream = b"".join(map(encode, messages))
    for piece in (1, 2, 7, len(stream)):
        lines = LineBuffer()
        found = [decode(line) for i in range(0, len(stream), piece) for line in lines.feed(stream[i : i + piece])]
        assert found == messages


def test_what_json_cannot_say_is_translated():
    message = {
        "nan": float("nan"),
        "array": np.float32([1, np.inf]),
        "path": Path("a"),
        "count": np.int64(3),
        "t": (1,),
    }
    assert decode(encode(message)) == {"nan": None, "array": [1.0, None], "path": "a", "count": 3, "t": [1]}


@pytest.mark.parametrize("line", [b"hello", b"[1, 2]", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_line_that_is_no_message_is_named_as_such(line):
    with pytest.raises(ProtocolError):
        decode(line)


def test_errors_keep_their_class_over_the_wire():
    error = error_from_event(error_event(StorageError("The disk is full.", "Free some space.")))
    assert type(error) is StorageError
    assert (error.message, error.remedy, error.exit_code) == ("The disk is full.", "Free some space.", 6)
    # Neither a stranger's class nor another name of the module may be called.
    assert error_from_event({"class": "storage_error", "message": "m"}).message == "m"


def test_a_conversation_sorts_events_to_their_requests():
    stray, seen, ended = [], [], []
    conversation = Conversation(stray.append)
    first, line = conversation.request(Predict("/data", ["a"]), seen.append, ended.append)
    second, _ = conversation.request(messages.ListRuns("/data"))
    assert decode(line) == {"id": first.id, "request": "predict", "params": {"project": "/data", "cases": ["a"]}}
    conversation.feed(encode({"id": second.id, "event": "result", "value": {"runs": [], "of a newer worker": 1}}))
    conversation.feed(b"a library's chatter\n" + encode({"id": "99", "event": "log"}))
    conversation.feed(encode({"id": first.id, "event": "progress", "stage": "predicting", "fraction": 0.5}))
    assert second.wait(0) == messages.RunList([])
    assert not first.ended and not ended
    conversation.feed(encode({"id": first.id, **error_event(InputError("No.", "Yes."))}))
    with pytest.raises(InputError, match="No"):
        first.wait(0)
    assert ended == [first]
    assert [(event.event, event.stage, event.fraction) for event in seen] == [("progress", "predicting", 0.5)]
    assert [event["event"] for event in stray] == ["log", "log"]
    assert conversation.open_requests == []


def test_an_answer_that_lacks_a_field_is_an_error_of_the_request():
    conversation = Conversation()
    request, _ = conversation.request(SayHello())
    conversation.feed(encode({"id": request.id, "event": "result", "value": {"protocol": 1}}))
    with pytest.raises(ProtocolError, match=r"answer to 'hello' cannot be read \(version is missing"):
        request.wait(0)


def test_fields_are_checked_against_their_annotations():
    case = {"name": "a", "channels": ["a.nii", ["1.dcm", "2.dcm"]]}
    added = read(messages.AddCases, {"project": "p", "cases": [case]})
    assert added.cases == [messages.CaseFiles("a", ["a.nii", ["1.dcm", "2.dcm"]])]
    assert read(Predict, {"project": "p", "roi": [1, 2.5]}).roi == [1, 2.5]
    for wrong in ({"project": 5}, {"project": "p", "roi": ["x"]}, {"project": "p", "cases": "a"}, {"project": None}):
        with pytest.raises(MismatchError):
            read(Predict, wrong)


def test_every_request_has_its_name_and_an_answer_and_is_in_the_document(repository):
    sys.path.insert(0, str(repository / "Testing"))
    try:
        import protocol_tables
    finally:
        sys.path.pop(0)
    assert len({kind.name for kind in messages.REQUESTS}) == len(messages.REQUESTS)
    assert all(hints(kind.answer) is not None for kind in messages.REQUESTS)
    text = protocol_tables.DOCUMENT.read_text(encoding="utf-8")
    for name, table in protocol_tables.tables().items():
        assert protocol_tables.in_document(text, name) == table, "run python3 Testing/protocol_tables.py --write"


def test_a_dead_worker_answers_what_is_open():
    conversation = Conversation()
    request, _ = conversation.request(Predict("/data"))
    conversation.worker_ended(-9)
    with pytest.raises(WorkerError, match="exit code -9"):
        request.wait(0)


class Peer:
    """A server in this process, its two pipes, and the events it has written."""

    def __init__(self, handlers: dict[type[messages.Request], Handler]) -> None:
        to_server, self._requests = os.pipe()
        self._events, from_server = os.pipe()
        self._server = Server(handlers, os.fdopen(to_server, "rb", buffering=0), os.fdopen(from_server, "wb"))
        self._received: queue.Queue[dict] = queue.Queue()
        self._thread = threading.Thread(target=self._server.serve, daemon=True)
        self._thread.start()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        lines = LineBuffer()
        with io.FileIO(self._events) as events:
            while data := events.read(65536):
                for line in lines.feed(data):
                    self._received.put(decode(line))

    def send(self, line: bytes | dict) -> None:
        os.write(self._requests, encode(line) if isinstance(line, dict) else line)

    def next(self) -> dict:
        return self._received.get(timeout=5)

    def until_final(self, request_id: object) -> dict:
        while (event := self.next()).get("id") != request_id or event["event"] not in ("result", "error"):
            pass
        return event


@dataclass(frozen=True)
class Echo(messages.Request):
    name = "echo"
    text: str
    times: int = 1


@dataclass(frozen=True)
class QuickEcho(Echo):
    name, quick = "quick", True


@dataclass(frozen=True)
class Work(messages.Request):
    name = "work"
    steps: int = 10_000


@dataclass(frozen=True)
class Fail(messages.Request):
    name = "fail"


def _echo(context: Context, request: Echo) -> dict:
    return {"text": request.text * request.times}


def _work(context: Context, request: Work) -> dict:
    for step in range(request.steps):
        context.progress.stage("working").at(step / request.steps)
        time.sleep(0.001)
    return {}


def _fail(context: Context, request: Fail) -> dict:
    raise RuntimeError("a tensor of /home/somebody/Mueller_Hans/scan.nii.gz went wrong")


@pytest.fixture
def peer():
    return Peer({Echo: _echo, QuickEcho: _echo, Work: _work, Fail: _fail})


def test_a_request_is_started_and_answered(peer):
    peer.send({"id": 7, "request": "echo", "params": {"text": "ab", "times": 2}})
    assert peer.next() == {"id": 7, "event": "started"}
    assert peer.next() == {"id": 7, "event": "result", "value": {"text": "abab"}}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\x00garbage\n", "not a JSON object"),
        (b'{"request": "echo"}\n', "lacks its id"),
        (b'{"id": "1", "request": "dance"}\n', "no request 'dance'"),
        (b'{"id": "1", "request": "echo"}\n', "lacks its parameter 'text'"),
        (b'{"id": "1", "request": "echo", "params": {"text": 5}}\n', "parameter 'text' of the wrong type"),
        (b'{"id": "1", "request": "echo", "params": {"text": "a", "shell": "b"}}\n', "no parameter 'shell'"),
        (b'{"id": "1", "request": "echo", "params": 3}\n', "lacks its id, its name or its params"),
    ],
)
def test_bad_lines_are_answered_and_the_server_goes_on(peer, line, words):
    peer.send(line)
    event = peer.next()
    assert event["event"] == "error" and words in event["message"] and event["remedy"]
    peer.send({"id": "2", "request": "echo", "params": {"text": "still here"}})
    assert peer.until_final("2")["value"] == {"text": "still here"}


def test_a_running_and_a_waiting_request_can_be_cancelled(peer):
    peer.send({"id": "long", "request": "work"})
    peer.send({"id": "waiting", "request": "echo", "params": {"text": "x"}})
    while peer.next().get("event") != "progress":
        pass
    began = time.monotonic()
    peer.send({"id": "c1", "request": "cancel", "params": {"target": "waiting"}})
    peer.send({"id": "c2", "request": "cancel", "params": {"target": "long"}})
    assert peer.until_final("long")["class"] == "Cancelled"
    assert time.monotonic() - began < 1
    assert peer.until_final("waiting")["class"] == "Cancelled"
    peer.send({"id": "c3", "request": "cancel", "params": {"target": "gone"}})
    assert peer.until_final("c3")["value"] == {"found": False}


def test_quick_requests_do_not_wait_for_long_ones_and_progress_is_not_a_flood(peer):
    began = time.monotonic()
    peer.send({"id": "long", "request": "work", "params": {"steps": 600}})
    peer.send({"id": "quick", "request": "quick", "params": {"text": "now"}})
    peer.until_final("quick")
    events = []
    while (event := peer.next())["event"] != "result":
        events.append(event)
    progress = [event for event in events if event["event"] == "progress"]
    assert len(progress) <= (time.monotonic() - began) / 0.1 + 2
    assert [event["fraction"] for event in progress] == sorted(event["fraction"] for event in progress)
    assert progress[-1]["eta_s"] < 10


def test_a_busy_id_is_refused_without_harm_to_the_first(peer):
    peer.send({"id": "1", "request": "work", "params": {"steps": 200}})
    peer.send({"id": "1", "request": "echo", "params": {"text": "x"}})
    assert "still in use" in peer.until_final("1")["message"]
    assert peer.until_final("1")["event"] == "result"


def test_an_unforeseen_exception_is_one_sentence_and_its_log_names_no_patient(peer, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    peer.send({"id": "1", "request": "fail"})
    event = peer.until_final("1")
    assert event["class"] == "InternalError" and "RuntimeError" in event["message"]
    assert str(tmp_path / "barl.log") in event["remedy"]
    log = (tmp_path / "barl.log").read_text()
    assert "test_worker_protocol.py" in log and "a tensor of <path> went wrong" in log
    assert "Mueller" not in log and "somebody" not in log


def test_progress_raises_once_cancelled():
    context = Context(Server({}, io.BytesIO(), io.BytesIO()), "1")
    context.progress.stage("a").at(0.1)
    context.cancel()
    with pytest.raises(Cancelled):
        context.progress.stage("a").at(0.2)
