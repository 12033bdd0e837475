# SPDX-License-Identifier: Apache-2.0
"""One thread or all: a machine whose speed is simulated, PyTorch's real setting."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from barl.inference import threads as threads_module
from barl.inference.threads import ThreadChoice
from barl.openmp import wait_briefly


class Machine:
    """Wall and CPU time of pieces of work; ``busy``: another job keeps each core busy."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.busy = False

    perf_counter = property(lambda self: lambda: self.wall)
    process_time = property(lambda self: lambda: self.cpu)

    def work(self) -> None:
        threads = torch.get_num_threads()
        seconds = {(True, 4): 8.0, (True, 1): 5.0, (False, 4): 1.0, (False, 1): 3.0}[self.busy, threads]
        self.wall += seconds
        self.cpu += seconds * threads * (0.5 if self.busy else 0.95)


@pytest.fixture
def machine(monkeypatch) -> Machine:
    for name in threads_module._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    simulated = Machine()
    monkeypatch.setattr(threads_module, "time", simulated)
    yield simulated
    torch.set_num_threads(before)


def run(choice: ThreadChoice, machine: Machine, pieces: int) -> list[int]:
    used = []
    for _ in range(pieces):
        with choice.piece():
            used.append(torch.get_num_threads())
            machine.work()
    return used


def test_an_idle_machine_is_not_tried_with_one_thread(machine):
    choice = ThreadChoice(torch.device("cpu"))
    assert run(choice, machine, 200) == [4] * 200 and choice.chosen == 4


def test_beside_another_job_one_thread_is_found_and_left_again(machine):
    machine.busy = True
    choice = ThreadChoice(torch.device("cpu"))
    assert run(choice, machine, 30) == [4] * 2 + [1] * 28
    machine.busy = False
    used = run(choice, machine, 40)
    assert used[-20:] == [4] * 20
    machine.busy = True
    assert run(choice, machine, 40)[-20:] == [1] * 20
    choice.release()
    assert torch.get_num_threads() == 4


def test_all_threads_are_tried_ever_more_seldom_while_the_machine_stays_busy(machine):
    machine.busy = True
    used = run(ThreadChoice(torch.device("cpu")), machine, 400)
    assert [used[first : first + 100].count(4) for first in (0, 100, 200, 300)] == [4, 2, 0, 2]


def test_a_run_of_a_fixed_length_chooses_once_and_keeps_to_it(machine):
    choice = ThreadChoice(torch.device("cpu"), every_start=True)
    assert run(choice, machine, 20) == [4] * 4 + [1, 1] + [4] * 14
    machine.busy = True
    assert run(choice, machine, 40) == [4] * 40
    resumed = ThreadChoice(torch.device("cpu"), every_start=True, chosen=1)
    assert run(resumed, machine, 10) == [1] * 10


@pytest.mark.parametrize("name", threads_module._SETTINGS)
def test_a_number_set_by_the_user_stays(machine, monkeypatch, name):
    monkeypatch.setenv(name, "4")
    machine.busy = True
    assert run(ThreadChoice(torch.device("cpu")), machine, 20) == [4] * 20


def test_how_threads_wait_is_set_unless_the_user_has_set_it():
    environment = {"PATH": "x"}
    wait_briefly(environment)
    assert environment == {"PATH": "x", "GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
    for own in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}, {"KMP_BLOCKTIME": "infinite"}):
        environment = dict(own)
        wait_briefly(environment)
        assert environment == own


LITTLE_MEMORY = """
import resource
import sys
from pathlib import Path

import numpy as np
import torch
from barl.blas import reserve_buffer
from barl.inference.device import choose_device

reserve_buffer()
choose_device("cpu")
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 5 * 2**20,) * 2)
np.linalg.inv(2 * np.eye(3))
torch.ones(2**17).exp().sum()
print("alive")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and /proc are Linux's")
def test_libraries_that_would_end_the_process_have_taken_their_memory_before_a_scan_does():
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("alive\n", 0), done.stderr
