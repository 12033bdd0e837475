# SPDX-License-Identifier: Apache-2.0
"""Which cases a model, or one member of it, can be judged by, because it has not learned from them."""

from __future__ import annotations

from barl.errors import InputError, ProjectError
from barl.project.records import Case
from barl.project.store import Project


def held_out_cases(project: Project) -> list[Case]:
    """The held-out cases with an accepted outline.

    Raises:
        InputError: There is none.
    """
    cases = [case for case in project.cases.all() if case.evaluates]
    if not cases:
        raise InputError(
            "No held-out case has an accepted outline.",
            "Hold out one or two outlined cases, or train with --folds: a model must not be judged by what it has "
            "learned from.",
        )
    return cases


def out_of_fold(project: Project, model_id: str | None) -> dict[str, int]:
    """Case id -> the member that has not learned from it, of the outlined cases of a model trained with folds."""
    rows = next((model.summary.get("out_of_fold") for model in project.models.all() if model.id == model_id), None)
    outlined = {case.id for case in project.cases.all() if case.is_accepted}
    return {case_id: row["member"] for case_id, row in (rows or {}).items() if case_id in outlined}


def judged_cases(project: Project, model_id: str | None) -> list[Case]:
    """The cases to evaluate a model on: ``unseen_cases``.

    Raises:
        InputError: There is none.
    """
    unseen = unseen_cases(project, model_id)
    if not unseen and held_out_cases(project):
        raise InputError(
            "The model has learned from every case that is held out now.",
            "Hold out a case whose outline was never used, or train a model from scratch (--from-scratch), which "
            "learns from no case that is held out.",
        )
    return [case for case in project.cases.all() if case.id in unseen]


def learned_though_held_out(project: Project, model_id: str | None) -> list[Case]:
    """The held-out cases with an accepted outline by which a model cannot be judged."""
    unseen = unseen_cases(project, model_id)
    return [case for case in project.cases.all() if case.evaluates and case.id not in unseen]


def unseen_cases(project: Project, model_id: str | None) -> set[str]:
    """Ids of the outlined cases by which a model can be judged: held out and never learned from, or out of fold."""
    learned = learned_revisions(project, model_id)
    held_out = {case.id for case in project.cases.all() if case.evaluates}
    return (held_out - set(learned)) | set(out_of_fold(project, model_id))


def learned_revisions(project: Project, model_id: str | None) -> dict[str, str]:
    """Case -> the newest of its outlines that a model of the project, or one that it was trained on from, has
    learned."""
    known = {model.id: model for model in project.models.all(removed=True)}
    found: dict[str, str] = {}
    while model_id in known:
        model = known.pop(model_id)  # popped: a circle in a damaged database would never end
        try:
            cases = project.runs.get(model.summary["run"]).plan["run"]["cases"]
        except (KeyError, ProjectError):  # trained elsewhere: its cases are unknown
            cases = []
        learned = {case["id"]: case["revision"] for case in cases if case["revision"] and not case["held_out"]}
        found = learned | found
        model_id = model.parent
    return found


def is_from_elsewhere(project: Project, model_id: str | None) -> bool:
    """Whether a model, or one that it was trained on from, was not trained in the project: what it has learned from is
    not known. None: a folder outside of the project."""
    if model_id is None:
        return True
    known = {model.id: model for model in project.models.all(removed=True)}
    while model_id in known:
        model = known.pop(model_id)
        if "run" not in model.summary:
            return True
        model_id = model.parent
    return False
