# SPDX-License-Identifier: Apache-2.0
"""How a project's own readers compare with the stated prices: the factor from its journal of editing times."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from barl.benchmark.clinician import Prices, Scan, drawing
from barl.errors import InputError
from barl.images.label_maps import read_label
from barl.project.records import Revision
from barl.project.store import Project


def own_prices(folder: Path, prices: Prices) -> Prices:
    """``prices``, all multiplied by the median of (measured seconds / stated seconds) of a project's corrections.

    A correction counts if a person accepted it, its editing time is known, and its prediction, if any, is still there.
    What was not looked at costs nothing. The time is the wall clock's: pauses are in it, so the median is taken.

    Raises:
        InputError: There is no such correction.
        BarlError: The project cannot be opened, or a label map is damaged.
    """
    with Project.open(folder, read_only=True) as project:
        factors = list(_factors(project, prices))
    if not factors:
        raise InputError(
            f"The project {folder.name} has no accepted correction with an editing time.",
            'Correct cases in the module first, or take "times" out of the plan.',
        )
    factor = float(np.median(factors))
    return Prices(**{name: factor * seconds for name, seconds in dataclasses.asdict(prices).items()})


def _factors(project: Project, prices: Prices) -> Iterator[float]:
    for case in project.cases.all():
        known = {revision.id: revision for revision in project.revisions.of(case.id)}
        for revision in known.values():
            facts = revision.details.get("correction", {})
            seconds, start = facts.get("editing_seconds_total", 0.0), facts.get("prediction")
            if not revision.is_accepted or seconds <= 0 or (start and start not in known):
                continue
            grid = project.cases.grid(case.id)
            after = _array(project, revision)
            before = _array(project, known[start]) if start else np.zeros_like(after)
            mask = project.revisions.read_looked(revision)
            looked = np.ones(after.shape, bool) if mask is None else sitk.GetArrayFromImage(mask) != 0
            yield seconds / (60 * drawing(Scan([], after, grid), before, looked, prices).minutes)


def _array(project: Project, revision: Revision) -> np.ndarray:
    return sitk.GetArrayFromImage(read_label(revision.path, project.cases.grid(revision.case_id), project.values))
