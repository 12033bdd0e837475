# SPDX-License-Identifier: Apache-2.0
"""A project's cases and model as one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Words import caseCountText, caseStateText

if TYPE_CHECKING:
    from barl.project.records import Case, ModelRow
    from barl.project.store import Project


def stateSentence(project: Project) -> str:
    """Cases by status, the current model and what it scored on the held-out cases."""
    cases = project.cases.all()
    return f"{_casesInWords(cases)} {_modelInWords(project.models.current())}"


def heldOutDice(model: ModelRow) -> float | None:
    """Mean Dice on the held-out cases, from the list of models or else the model's card; None: never measured."""
    dice = model.summary.get("metrics", {}).get("mean_dice")
    if dice is None:
        from barl.errors import ModelError
        from barl.project.model_card import read_card

        try:
            dice = read_card(model.folder).metrics.get("mean_dice")
        except ModelError:
            dice = None  # the step Setup reports damage
    return dice if isinstance(dice, int | float) else None


def _casesInWords(cases: Sequence[Case]) -> str:
    if not cases:
        return _("No cases yet.")
    from barl.project.states import CaseState

    counts = Counter(case.state for case in cases)
    order = (CaseState.ACCEPTED, CaseState.IN_REVIEW, CaseState.PREDICTED, CaseState.NEW, CaseState.EXCLUDED)
    parts = [f"{counts[state]} {caseStateText(state).lower()}" for state in order if counts[state]]
    heldOut = sum(case.held_out for case in cases)
    tail = _("; {count} held out").format(count=heldOut) if heldOut else ""
    return f"{caseCountText(len(cases))}: {', '.join(parts)}{tail}."


def _modelInWords(model: ModelRow | None) -> str:
    if model is None:
        return _("No model yet.")
    dice = heldOutDice(model)
    if dice is None:
        return _("Model: {name} (not measured on held-out cases).").format(name=model.name)
    return _("Model: {name} (held-out Dice {dice:.2f}).").format(name=model.name, dice=dice)
