# SPDX-License-Identifier: Apache-2.0
"""One bar through all parts of a job."""

from __future__ import annotations

import pytest
from barl.errors import Cancelled
from barl.progress import SILENT, Progress


def bars(events: list[dict]) -> list[tuple[str, float, str]]:
    return [(event["stage"], round(event["fraction"], 4), event["message"]) for event in events]


def test_a_stage_of_its_own_has_its_own_bar_and_within_another_one_its_share():
    events: list[dict] = []

    def job(progress: Progress) -> None:
        progress.stage("preparing", 0.0, 0.2).at(0.5, "first")
        progress.stage("predicting", 0.2, 0.8).at(0.5, "second")

    job(Progress(events.append))
    assert bars(events) == [("preparing", 0.5, "first"), ("predicting", 0.5, "second")]
    events.clear()
    for case, part in Progress(events.append).stage("all").each(["a", "b"], str.upper):
        job(part if case == "b" else SILENT)
    assert bars(events) == [
        ("all", 0.0, "A"),
        ("all", 0.5, "B"),
        ("all", 0.55, "B"),
        ("all", 0.8, "B"),
        ("all", 1.0, ""),
    ]


def test_details_and_logs_are_events_too():
    events: list[dict] = []
    progress = Progress(events.append).stage("training")
    progress.at(0.25, eta_s=3.0, values={"total": 1.0})
    progress.log("Finished early.")
    assert events == [
        {
            "event": "progress",
            "stage": "training",
            "fraction": 0.25,
            "message": "",
            "eta_s": 3.0,
            "values": {"total": 1.0},
        },
        {"event": "log", "message": "Finished early."},
    ]


def test_parts_are_cancelled_with_the_whole():
    wanted: list[bool] = []
    part = Progress(is_cancelled=lambda: bool(wanted)).stage("all").part(0.5, 0.5)
    part.at(0.1)
    part.raise_if_cancelled()
    wanted.append(True)
    with pytest.raises(Cancelled):
        part.at(0.2)
    with pytest.raises(Cancelled):
        part.raise_if_cancelled()
