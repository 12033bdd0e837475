# SPDX-License-Identifier: Apache-2.0
"""What a user should know of a training before it starts, and of the model that came out of it, as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from barl.images.geometry import axes_towards
from barl.images.intensity import Normalization
from barl.images.preparation import PreparedScan
from barl.jobs.fingerprints import accepted_outline
from barl.project.labels import Label
from barl.project.records import Case
from barl.project.store import Project
from barl.training.plan import Plan

# Below this mean Dice a label's predictions are told to be poor (assumed).
_POOR = 0.5


def partial_outlines(outlined: list[Case]) -> list[str]:
    """A sentence if there are partial outlines: each counts with its share."""
    partial = [case for case in outlined if case.is_partial]
    if not partial:
        return []
    scans = sum(case.looked_share for case in outlined)
    return [
        f"{len(partial)} of {len(outlined)} outlines are partial: {scans:.1f} scans in all were looked at. What nobody "
        "has looked at is learned from as in an untouched scan."
    ]


def short_budget(plan: Plan, seconds: float) -> list[str]:
    """A sentence if planning and preparing, ``seconds`` long, use up half of a budget in minutes."""
    minutes = seconds / 60
    if plan.minutes is None or minutes < 0.5 * plan.minutes:
        return []
    return [
        f"A budget of {plan.budget} is small: preparing the scans alone takes about {minutes:.1f}. "
        f"Give {max(4 * minutes, plan.minutes + 1):.0f} minutes or more."
    ]


def small_parts(project: Project, cases: list[Case], plan: Plan) -> list[str]:
    """A sentence for each label with components that are smaller than a voxel of the model."""
    small: dict[int, int] = {}
    affected: dict[int, int] = {}
    own_spacings = []
    for case in cases:
        grid = project.cases.grid(case.id)
        own = np.array(grid.spacing)[list(axes_towards(grid, plan.orientation).source)]
        if (np.array(plan.spacing) <= own * 1.01).all():
            continue
        label = accepted_outline(project, case, grid)
        scan = PreparedScan([label], [Normalization("none")], plan.spacing, plan.orientation)
        scan.labels_to_network(label, project.revisions.read_looked(project.revisions.accepted(case.id)))
        for value, count in scan.kept_small.items():
            small[value] = small.get(value, 0) + count
            affected[value] = affected.get(value, 0) + 1
        own_spacings += [own] if scan.kept_small else []
    if not small:
        return []
    names = {label.value: label.name for label in project.labels}
    voxel = " x ".join(f"{edge:.3g}" for edge in plan.spacing)
    finer = ",".join(f"{edge:.3g}" for edge in np.minimum(np.median(own_spacings, axis=0), plan.spacing))
    return [
        f"{_counted(count, 'outlined part')} of {names[value]} in {_counted(affected[value], 'case')} "
        f"{'is' if count == 1 else 'are'} smaller than a voxel of the model ({voxel} mm): "
        f"{'it' if count == 1 else 'each'} is learned as one voxel. Learned as outlined, with more memory and time: "
        f'--set "spacing=[{finer}]".'
        for value, count in sorted(small.items())
    ]


def poor_labels(labels: Sequence[Label], metrics: Mapping[str, Any], where: str) -> list[str]:
    """A sentence if a model's mean Dice of some labels is low on cases that it has not learned from.

    Args:
        labels: The model's.
        metrics: Its ``dice`` holds the mean of each label value.
        where: What the cases are, such as "on the held-out cases" or "out of fold".
    """
    found = [(label.name, metrics.get("dice", {}).get(str(label.value))) for label in labels]
    poor = [f"{name} {score:.2f}" for name, score in found if score is not None and score < _POOR]
    if not poor:
        return []
    return [
        f"The model is poor: mean Dice {where}: {', '.join(poor)}. Expect to correct much of what it predicts. "
        "A longer training and more outlined cases help."
    ]


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
