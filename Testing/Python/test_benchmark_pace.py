# SPDX-License-Identifier: Apache-2.0
"""Prices of a simulated clinician from the editing times that a project keeps."""

from __future__ import annotations

import numpy as np
import pytest
from barl.benchmark.clinician import Prices
from barl.benchmark.pace import own_prices
from barl.benchmark.simulation import simulations_of
from barl.errors import InputError
from barl.images.geometry import Grid
from barl.project.labels import Channel, Label
from barl.project.review import store_correction
from barl.project.store import Project

GRID = Grid((20, 20, 20), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
PRICES = Prices(case=60, look=6, plane=12, mm=0.6, fill=30, click=3)


@pytest.fixture
def a_cube() -> np.ndarray:
    cube = np.zeros((20, 20, 20), np.uint8)
    cube[6:14, 6:14, 6:14] = 1
    return cube


@pytest.fixture
def a_folder(tmp_path):
    with Project.create(tmp_path / "project", "study", [Label(1, "liver")], [Channel("CT")]) as project:
        for name in ("a", "b", "c"):
            project.cases.add(name, [GRID.image(np.zeros((20, 20, 20), np.float32))])
    return tmp_path / "project"


def outline(folder, name, array, seconds, predicted=None, looked=None):
    with Project.open(folder) as project:
        case = next(case.id for case in project.cases.all() if case.name == name)
        prediction = None
        if predicted is not None:
            prediction = project.revisions.store(case, GRID.image(predicted), "prediction", author="model")
        store_correction(
            project, case, GRID.image(array), "accepted", author="reader 1", prediction=prediction,
            editing_seconds=seconds, looked=None if looked is None else GRID.image(looked),
        )  # fmt: skip


def test_prices_are_stretched_by_the_median_of_the_readers_times(a_folder, a_cube):
    # Eight slices of 28 mm from nothing: 60 + 8 * (6 + 12 + 28 * 0.6) = 338.4 s; with one slice looked at 94.8 s; where
    # the prediction was right, 60 + 8 * 6 = 108 s.
    outline(a_folder, "a", a_cube, 2 * 338.4)
    one = np.zeros_like(a_cube)
    one[8] = 1
    outline(a_folder, "b", a_cube, 3 * 94.8, np.zeros_like(a_cube), one)
    outline(a_folder, "c", a_cube, 9 * 108, a_cube)
    found = own_prices(a_folder, PRICES)
    assert found.plane == pytest.approx(36, rel=1e-3) and found.mm == pytest.approx(1.8, rel=1e-3)
    plan = {
        "dataset": "hippocampus", "seeds": [0], "times": str(a_folder), "common": {"start": 1, "step": 1, "rounds": 1},
        "strategies": [{"name": "a", "correct": {"kind": "whole"}}],
    }  # fmt: skip
    (one,) = simulations_of(plan)
    assert one.prices == own_prices(a_folder, Prices()) != Prices()


def test_outlines_without_an_editing_time_set_no_price(a_folder, a_cube):
    outline(a_folder, "a", a_cube, 0)
    with pytest.raises(InputError, match="has no accepted correction with an editing time"):
        own_prices(a_folder, PRICES)
