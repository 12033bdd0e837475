# SPDX-License-Identifier: Apache-2.0
"""Finds the models and cases that the user named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from barl.errors import InputError, ModelError
from barl.project.records import Case
from barl.project.store import Project


def choose_model(project: Project, wanted: str | Path | None = None) -> tuple[Path, str | None]:
    """A model's folder, and its id if it is one of the project's.

    Args:
        project: Where ids are looked up.
        wanted: An id, a model's folder, or None for the current model.

    Raises:
        ModelError: There is no current model, or neither an id nor a folder is called so.
    """
    if wanted is None:
        current = project.models.current()
        if current is None:
            raise ModelError("The project has no model yet.", "Train one, or name a model's folder.")
        return current.folder, current.id
    known = {model.id: model.folder for model in project.models.all()}
    if str(wanted) in known:
        return known[str(wanted)], str(wanted)
    if Path(wanted).is_dir():
        return Path(wanted), None
    raise ModelError(
        f"There is no model '{wanted}'.", f"Name a model's folder or one of: {', '.join(known) or 'none yet'}."
    )


def choose_cases(project: Project, wanted: Sequence[str] | None = None, model_id: str | None = None) -> list[Case]:
    """The cases named, or else all that have no accepted outline, or a partial one, and are not excluded.

    Without names the outlined cases come along too, once per model: ``rank_cases`` compares the others with them, for
    which it needs their place in the feature space of this model. No prediction of theirs is stored.

    Raises:
        ProjectError: The project has no case of that name.
        InputError: No cases were named and every case is outlined or excluded.
    """
    if wanted:
        return [project.cases.get(name) for name in wanted]
    cases = project.cases.all()
    open_cases = [case for case in cases if case.wants_prediction]
    if not open_cases:
        raise InputError("There is no case without an accepted outline.", "Add scans, or name the cases to predict.")
    outlined = [case for case in cases if case.teaches and not case.is_partial]
    return open_cases + [case for case in outlined if model_id is None or case.model_id != model_id]
