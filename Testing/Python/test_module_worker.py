# SPDX-License-Identifier: Apache-2.0
"""The module's worker process in Qt's event loop: real processes, also such as misbehave."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from dataclasses import dataclass

import pytest
from barl.worker.messages import Attach, Evaluate, ListRuns, Predict, Request, SayHello

pytestmark = pytest.mark.host


@dataclass(frozen=True)
class Nonsense(Request):
    """A request that no worker has: a long one, answered at once."""

    name = "nonsense"


ANSWER_S = 120.0  # a loaded machine may need long to start a Python


class Answers:
    """What became of a request."""

    def __init__(self):
        self.events, self.results, self.errors = [], [], []

    def listeners(self):
        return {"onEvent": self.events.append, "onResult": self.results.append, "onError": self.errors.append}

    @property
    def count(self):
        return len(self.results) + len(self.errors)


def wait_until(condition, seconds=ANSWER_S):
    import slicer

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        slicer.app.processEvents()
        time.sleep(0.005)


def let_events_pass(seconds=0.1):
    import slicer

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.005)


@pytest.fixture
def a_worker(host):
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

    workers = []

    def make(python=sys.executable):
        workers.append(WorkerLink(python))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def a_program(folder, text):
    """An executable that is given the worker's arguments and does something else."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def is_running(pid):
    psutil = pytest.importorskip("psutil")
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # nobody may be there to collect it
    except psutil.NoSuchProcess:
        return False


def test_answers_come_one_each_and_busy_is_told(a_worker, tmp_path):
    worker, busy = a_worker(), []
    worker.busyChanged.connect(busy.append)
    assert not worker.running
    first, second = Answers(), Answers()
    worker.request(ListRuns(str(tmp_path)), **first.listeners())  # quick, and no project
    worker.request(Nonsense(), **second.listeners())
    assert first.count == second.count == 0, "never before request has returned"
    assert worker.busy == "nonsense"
    wait_until(lambda: first.count and second.count)
    let_events_pass()
    assert first.count == second.count == 1
    assert first.errors[0].kind == "ProjectError" and first.errors[0].remedy
    assert second.errors[0].remedy
    assert busy == ["nonsense", ""]
    assert worker.running, "kept warm"


def test_killed_worker_answers_and_is_started_again(a_worker):
    worker, answers = a_worker(), Answers()
    worker.request(SayHello(), **answers.listeners())
    wait_until(lambda: worker.running and answers.events)  # it has started on it
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: answers.count)
    assert answers.errors[0].kind == "WorkerError" and "ended" in answers.errors[0].message
    assert worker.busy == ""
    again = Answers()
    worker.request(ListRuns("nowhere"), **again.listeners())
    wait_until(lambda: again.count)
    assert again.errors[0].kind == "ProjectError", "a fresh worker answers"


def test_missing_python_is_one_sentence(a_worker, tmp_path):
    worker, answers = a_worker(str(tmp_path / "no-python")), Answers()
    request = worker.request(SayHello(), **answers.listeners())
    assert request is not None and answers.count == 0
    wait_until(lambda: answers.count)
    let_events_pass()
    assert answers.count == 1
    assert "could not be started" in answers.errors[0].message and "no-python" in answers.errors[0].remedy
    assert worker.busy == ""


@pytest.mark.skipif(os.name == "nt", reason="the stand-in programs are scripts with a first line that names Python")
@pytest.mark.parametrize(
    "text",
    [
        "print('nonsense')",
        "import sys, time\nprint('nonsense', flush=True)\ntime.sleep(600)",
        "import sys\nwhile True: sys.stdout.write('no line end ' * 9999)",
        "raise SystemExit(3)",
    ],
    ids=["ends", "stays", "floods", "fails"],
)
def test_nonsense_ends_in_one_error(a_worker, tmp_path, monkeypatch, text):
    from BARLSegmentationLib.widgets import WorkerLink as module

    monkeypatch.setattr(module, "PATIENCE_MS", 300)
    worker, answers = a_worker(a_program(tmp_path, text)), Answers()
    worker.request(SayHello(), **answers.listeners())
    wait_until(lambda: answers.count)
    let_events_pass()
    assert answers.count == 1 and answers.errors[0].kind == "WorkerError" and answers.errors[0].remedy
    assert not worker.running


@pytest.mark.skipif(os.name == "nt", reason="the stand-in programs are scripts with a first line that names Python")
def test_cancel_ends_a_worker_that_does_not_heed_it(a_worker, tmp_path, monkeypatch):
    from BARLSegmentationLib.widgets import WorkerLink as module

    monkeypatch.setattr(module, "CANCEL_MS", 300)
    text = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    line = json.loads(line)\n"
        "    if line['request'] != 'evaluate': print(json.dumps({'id': line['id'], 'event': 'started'}), flush=True)"
    )
    worker, cancelled, other = a_worker(a_program(tmp_path, text)), Answers(), Answers()
    request = worker.request(Predict("nowhere"), **cancelled.listeners())
    waiting = worker.request(Evaluate("nowhere"))
    worker.request(Attach("nowhere"), **other.listeners())
    wait_until(lambda: cancelled.events and other.events)
    worker.cancel(waiting)
    let_events_pass(0.6)
    assert worker.running, "what waits for another is no reason to end that"
    worker.cancel(request)
    wait_until(lambda: cancelled.count and other.count)
    let_events_pass()
    assert [error.kind for error in (*cancelled.errors, *other.errors)] == ["Cancelled", "WorkerError"]
    assert worker.busy == "" and not worker.running


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Qt collects at once, or there is no waitid")
def test_without_psutil_an_ended_worker_is_left_for_qt_to_collect(host, monkeypatch):
    """Collected by anybody else, Qt 5 would wait for its end for ever, and at Slicer's exit for half a minute."""
    import qt
    from barl.worker.process_tree import end_process_tree

    monkeypatch.setitem(sys.modules, "psutil", None)
    process, ends = qt.QProcess(), []
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: ends.append(code))
    process.start(sys.executable, ["-c", "raise SystemExit(7)"])
    assert process.waitForStarted(30000)
    pid = int(process.processId())
    end_process_tree(pid, grace_s=30.0)
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT).si_status == 7
    wait_until(lambda: ends)
    assert ends == [7]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_close_ends_a_worker_that_does_not_listen_and_its_children(a_worker, tmp_path):
    already = "torch" in sys.modules  # by tests of the engine in this process
    pytest.importorskip("psutil", reason="without psutil a worker that leads no group ends alone")
    text = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    worker, answers = a_worker(a_program(tmp_path, text)), Answers()
    worker.request(SayHello(), **answers.listeners())
    wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    started = time.monotonic()
    worker.close()
    assert time.monotonic() - started < 5.0, "2 s where nothing else is running"
    assert not worker.running and answers.count == 1
    wait_until(lambda: not is_running(child), 5.0)
    assert already or "torch" not in sys.modules


def test_close_of_a_warm_worker_leaves_nothing(a_worker):
    worker, answers = a_worker(), Answers()
    worker.request(Nonsense(), **answers.listeners())
    wait_until(lambda: answers.count)
    pid = worker.pid
    worker.close()
    assert not worker.running and not is_running(pid)
    worker.close()  # twice is no error


def test_a_failing_listener_keeps_the_others_going(a_worker, caplog):
    worker, answers = a_worker(), Answers()

    def fail(_error):
        raise RuntimeError("a listener's mistake")

    worker.request(Nonsense(), onError=fail)
    worker.request(Nonsense(), **answers.listeners())
    wait_until(lambda: answers.count)
    assert "a listener of the worker failed" in caplog.text
