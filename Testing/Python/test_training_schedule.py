# SPDX-License-Identifier: Apache-2.0
"""Time that is kept: a simulated machine, no real clock."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from barl.errors import StorageError
from barl.images.intensity import Normalization
from barl.jobs import heartbeat
from barl.jobs.heartbeat import Heartbeat
from barl.networks.branches import NetworkSpec
from barl.project.labels import Label
from barl.training.plan import Plan
from barl.training.schedule import LEAST_STEPS, Clock, Schedule


@dataclass
class Machine:
    """A clock that a simulated training moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def a_plan(**values) -> Plan:
    return Plan(
        labels=(Label(1, "tumor"),),
        channels=("image",),
        normalisations=(Normalization(),),
        spacing=(1.0, 1.0, 1.0),
        patch=(8, 8, 8),
        network=NetworkSpec(1, 2),
        **values,
    )


def run(schedule: Schedule, machine: Machine, seconds_a_step) -> list[tuple[float, float]]:
    """Train; gives time and learning rate of each step."""
    steps = []
    while not schedule.is_over:
        steps.append((machine.now, schedule.learning_rate()))
        seconds = seconds_a_step(machine.now)
        machine.now += seconds
        schedule.step(seconds)
    return steps


@pytest.mark.parametrize(
    ("pace", "tolerance"),
    [
        (lambda now: 0.5, 0.02),
        (lambda now: 0.5 if now < 100 else 4.0, 0.03),
        (lambda now: 4.0 if now < 100 else 0.5, 0.03),
        (lambda now: 0.5 if int(now / 20) % 2 else 2.0, 0.03),
    ],
    ids=["idle", "becomes busy", "becomes idle", "in turns"],
)
def test_a_budget_holds_whatever_the_machine_does(pace, tolerance):
    machine = Machine()
    machine.now = 17.0
    clock = Clock(spent=12.0, now=machine)  # what planning took
    machine.now += 20.0  # preparing the scans
    schedule = Schedule(a_plan(minutes=4.0, learning_rate=1.0), clock, reserve=30.0)
    steps = run(schedule, machine, pace)
    assert clock.seconds() + schedule.reserve == pytest.approx(240, rel=tolerance)
    rates = [rate for _, rate in steps]
    assert rates == sorted(rates, reverse=True) and rates[0] == 1.0 and rates[-1] < 0.1
    assert schedule.done > 0.9


def test_remaining_time_is_right_from_the_first_tenth_on():
    for minutes, iterations in ((3.0, 600), (None, 100)):
        machine = Machine()
        schedule = Schedule(a_plan(minutes=minutes, iterations=iterations), Clock(now=machine), reserve=10.0)
        told = []
        while not schedule.is_over:
            machine.now += 2.0
            schedule.step(2.0)
            told.append((machine.now, schedule.remaining_seconds()))
        end = machine.now + schedule.reserve
        for now, remaining in told:
            if now > 0.1 * end and end - now > 5:
                assert remaining == pytest.approx(end - now, rel=0.3)


def test_the_least_is_done_even_without_any_time():
    machine = Machine()
    schedule = Schedule(a_plan(minutes=0.1), Clock(spent=60.0, now=machine))
    assert len(run(schedule, machine, lambda now: 1.0)) == LEAST_STEPS
    assert schedule.done == 1.0


def test_a_budget_that_is_used_up_tells_what_must_still_be_done():
    machine = Machine()
    schedule = Schedule(a_plan(minutes=1.0), Clock(spent=70.0, now=machine), reserve=30.0)
    for _ in range(4):
        schedule.step(2.0)
    assert schedule.remaining_seconds() == pytest.approx((LEAST_STEPS - 4) * 2.0 + 30.0)


def test_a_run_of_a_fixed_length_is_what_it_was():
    machine = Machine()
    schedule = Schedule(a_plan(iterations=7, learning_rate=0.3), Clock(now=machine))
    rates = [rate for _, rate in run(schedule, machine, lambda now: 1.0)]
    assert rates == [0.3 * (1.0 - t / 7) ** 0.9 for t in range(7)]
    assert schedule.length == 7 and schedule.done == 1.0


def test_a_silent_job_moves_its_bar_and_never_back():
    told: list[dict] = []
    with Heartbeat(told.append) as heart:
        heart.send({"event": "progress", "stage": "training", "fraction": 0.5, "message": "", "eta_s": 10.0})
        time.sleep(3.2)
        heart.send({"event": "progress", "stage": "training", "fraction": 0.51, "message": "", "eta_s": 8.0})
        heart.send({"event": "progress", "stage": "validating", "fraction": 0.0, "message": ""})
        heart.send({"event": "log", "message": "x"})
    fractions = [event["fraction"] for event in told if event.get("stage") == "training"]
    assert len(fractions) >= 4 and fractions == sorted(fractions) and 0.55 < fractions[-1] < 0.75
    assert told[-2]["fraction"] == 0.0 and told[-1] == {"event": "log", "message": "x"}


def test_the_last_validation_tells_the_time_left():
    told: list[dict] = []
    with Heartbeat(told.append) as heart:
        heart.send({"event": "progress", "stage": "preparing", "fraction": 0.5, "message": ""})
        heart.send({"event": "progress", "stage": "validating", "fraction": 0.0, "message": ""})
        time.sleep(0.2)
        heart.send({"event": "progress", "stage": "validating", "fraction": 0.25, "message": ""})
        heart.send({"event": "progress", "stage": "training", "fraction": 1.0, "message": "", "eta_s": 10.0})
        heart.send({"event": "progress", "stage": "validating", "fraction": 0.0, "message": ""})
        heart.send({"event": "progress", "stage": "validating", "fraction": 0.5, "message": ""})
    left = [event.get("eta_s") for event in told]
    assert left[:2] == [None, None]  # preparing is followed by the training
    assert 0.5 < left[2] < 2  # three times what the first quarter took
    assert left[4] == 10.0 and 2.5 <= left[5] < 2.7  # half of what was expected, at twice the pace


def test_a_heartbeat_that_cannot_be_written_prints_no_traceback(monkeypatch, capfd):
    sent = []

    def send(event):
        sent.append(event)
        if len(sent) > 1:
            raise StorageError("The disk is full.")

    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.02)
    with heartbeat.Heartbeat(send) as heart:
        heart.send({"event": "progress", "stage": "training", "fraction": 0.5})
        end = time.monotonic() + 10
        while len(sent) < 4 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(sent) >= 4 and capfd.readouterr().err == ""
