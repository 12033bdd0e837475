# SPDX-License-Identifier: Apache-2.0
"""The window's texts for the engine's states, stages, durations and devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

if TYPE_CHECKING:
    from barl.project.records import Case
    from barl.project.store import Project
    from barl.worker.messages import Device


def caseStateText(state: str) -> str:
    """A state of ``barl.project.states.CaseState``."""
    return {
        "new": _("New"),
        "predicted": _("Predicted"),
        "in_review": _("In review"),
        "accepted": _("Accepted"),
        "excluded": _("Excluded"),
    }.get(state, state)


def runStateText(state: str) -> str:
    """A state of ``barl.project.states.RunState``."""
    return {
        "queued": _("waits"),
        "running": _("running"),
        "stopped": _("paused"),
        "finished": _("finished"),
        "failed": _("failed"),
        "interrupted": _("interrupted"),
    }.get(state, state)


def stageText(stage: str) -> str:
    """A stage of the worker's progress."""
    return {
        "": _("Starting"),
        "writing": _("Handing over the scan"),
        "loading": _("Loading the model"),
        "sending": _("Sending the scans to the other computer"),
        "planning": _("Reading the cases"),
        "starting": _("Starting"),
        "preparing": _("Preparing the scans"),
        "predicting": _("Predicting"),
        "restoring": _("Bringing the result onto the scan"),
        "training": _("Training"),
        "validating": _("Measuring on held-out cases"),
        "evaluating": _("Measuring on held-out cases"),
        "comparing": _("Comparing with the current model"),
    }.get(stage, stage)


def durationText(seconds: float) -> str:
    """A duration in rounded units."""
    if seconds < 90:
        return _("{count} s").format(count=max(1, round(seconds)))
    if seconds < 5400:
        return _("{count} min").format(count=round(seconds / 60))
    return _("{count} h").format(count=f"{seconds / 3600:.1f}")


def timeLeftText(seconds: float) -> str:
    return _("about {time} left").format(time=durationText(seconds))


def deviceText(device: Device) -> str:
    """A device, a graphics card with its memory."""
    return f"{device.title} ({device.memory_bytes / 2**30:.0f} GB)" if device.memory_bytes else device.title


def caseCountText(count: int) -> str:
    return _("1 case") if count == 1 else _("{count} cases").format(count=count)


def caseNamesText(cases: Sequence[Case]) -> str:
    """The names of the first three cases, and how many there are besides."""
    names = ", ".join(case.name for case in cases[:3])
    return names if len(cases) <= 3 else _("{names} and {count} more").format(names=names, count=len(cases) - 3)


def readOnlyReason(project: Project | None) -> str:
    """Why a project cannot be changed; empty if it can, or if there is none."""
    return _("The project is open for reading only") if project is not None and project.read_only else ""
