# SPDX-License-Identifier: Apache-2.0
"""What a report says of a project: gathered from its records, and measured where nothing is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from barl.errors import InputError, ProjectError
from barl.evaluation.statistics import summarize
from barl.jobs.compare import compare_models, compare_results
from barl.jobs.compute import AUTOMATIC, Compute
from barl.jobs.evaluate import Judged, evaluate_model
from barl.jobs.unseen import judged_cases
from barl.progress import SILENT, Progress
from barl.project.labels import Label
from barl.project.names import may_be_a_patients
from barl.project.records import Case, ModelRow
from barl.project.states import CaseState, RevisionKind
from barl.project.store import Project
from barl.report.picture import stored_views
from barl.report.views import View, three_views


@dataclass(frozen=True)
class Pictured:
    """A case that is shown, and why."""

    why: str
    case_id: str
    views: list[View]
    dice: float | None = None


@dataclass(frozen=True)
class Agreed:
    """A prediction and the outline accepted after it."""

    case_id: str
    model: str
    dice: float


@dataclass(frozen=True)
class Findings:
    """What the report says.

    Attributes:
        title: The project's name.
        names: Case id -> the name that is shown.
        n_hidden: How many names are replaced by ids, because they may be a patient's.
        labels: The label table.
        cases: All cases.
        states: Number of cases in each state.
        models: All models, oldest first.
        scores: What ``evaluate_model`` says of the current model; None without held-out cases or model.
        comparison: What ``compare_models`` says of the current model and the one before it, if there is one.
        previous: The model before the current one.
        pictures: Worst, median and best case, or without held-out cases the most and the least uncertain.
        agreements: Of predictions and corrections, in the order of the corrections.
        expected: Case id -> the Dice to expect of its newest prediction, where the model says one.
        newly_outlined: Ids of the cases that the current model learned from and the previous one did not.
        notes: What a reader must know.
    """

    title: str
    names: Mapping[str, str]
    n_hidden: int
    labels: list[Label]
    cases: list[Case]
    states: dict[CaseState, int]
    models: list[ModelRow]
    scores: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    previous: ModelRow | None = None
    pictures: list[Pictured] = field(default_factory=list)
    agreements: list[Agreed] = field(default_factory=list)
    newly_outlined: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    expected: Mapping[str, float] = field(default_factory=dict)

    @property
    def current(self) -> ModelRow | None:
        return next((model for model in self.models if model.is_current), None)


@dataclass(frozen=True)
class Measured:
    """The current model, and the one before it if there is one, measured on the same held-out cases.

    Attributes:
        scores, before: What ``evaluate_model`` returned for each.
        views: Case id -> its planes with the current model's outlines.
        notes: What a reader must know.
    """

    scores: dict[str, Any] | None
    before: dict[str, Any] | None = None
    views: Mapping[str, list[View]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def gather(
    project: Project,
    measured: Measured | None = None,
    *,
    compute: Compute = AUTOMATIC,
    progress: Progress = SILENT,
) -> Findings:
    """Gather what the report says.

    Args:
        project: Open for writing, agreement of corrections that nobody has compared yet is measured and kept; open for
            reading it is left out.
        measured: The held-out cases, if they are measured already.
        compute: Device and loaded models.
        progress: Of the evaluation.

    Raises:
        BarlError: Of a model, the device or a damaged project.
    """
    cases, models = project.cases.all(), project.models.all()
    names = {case.id: case.id if may_be_a_patients(case.name) else case.name for case in cases}
    previous = _previous(models)
    measured = measured or _measure(project, previous, compute, progress)
    scores = _shown(measured.scores, names)
    comparison = None
    if measured.scores and measured.before:
        values = [str(value) for value in project.values]
        comparison = compare_results(measured.scores, measured.before, values)
        comparison = {**comparison, "reference": _shown(measured.before, names), "model": scores}
    counts = Counter(case.state for case in cases)
    return Findings(
        "A project" if may_be_a_patients(project.name) else project.name,
        names,
        sum(names[case.id] != case.name for case in cases),
        project.labels,
        cases,
        {state: counts[state] for state in CaseState},
        models,
        scores,
        comparison,
        previous,
        _pictures(project, cases, measured),
        _agreements(project, progress),
        _newly_outlined(project, previous),
        [_without(note, cases, names) for note in measured.notes],
        project.revisions.expected_dice(),
    )


def view_of(judged: Judged) -> list[View]:
    """The planes of a held-out case with both outlines."""
    return three_views(judged.channels[0], judged.expert, judged.prediction.label, judged.prediction.uncertainty)


def _previous(models: Sequence[ModelRow]) -> ModelRow | None:
    """The model that the current one was trained on from, or else the newest that is older."""
    current = next((n for n, model in enumerate(models) if model.is_current), None)
    if not current:  # none, or the first
        return None
    parent = next((model for model in models if model.id == models[current].parent), None)
    return parent or models[current - 1]


def _measure(project: Project, previous: ModelRow | None, compute: Compute, progress: Progress) -> Measured:
    current = project.models.current()
    if current is None:
        return Measured(None, notes=["The project has no model yet."])
    try:
        judged_cases(project, current.id)
    except InputError as error:
        return Measured(None, notes=[str(error)])
    views: dict[str, list[View]] = {}

    def look(judged: Judged) -> None:
        views[judged.case.id] = view_of(judged)

    if previous is not None:
        try:
            both = compare_models(project, current.id, previous.id, compute=compute, progress=progress, look=look)
            return Measured(both["model"], both["reference"], views, [*both["model"]["notes"], *both["notes"]])
        except InputError as error:  # one of them has learned from every held-out case, or has other channels
            note = f"{previous.id} and the current model could not be compared: {error.message}"
    else:
        note = ""
    views.clear()
    scores = evaluate_model(project, compute=compute, progress=progress, look=look)
    return Measured(scores, None, views, [*([note] if note else []), *scores["notes"]])


def _shown(scores: dict[str, Any] | None, names: Mapping[str, str]) -> dict[str, Any] | None:
    """Scores with the names that are shown."""
    if scores is None:
        return None
    return {**scores, "cases": [{**row, "name": names[row["case"]]} for row in scores["cases"]]}


def _without(note: str, cases: Sequence[Case], names: Mapping[str, str]) -> str:
    """A note with the names that are shown."""
    for case in cases:
        if names[case.id] != case.name:
            note = note.replace(case.name, names[case.id])
    return note


def _pictures(project: Project, cases: Sequence[Case], measured: Measured) -> list[Pictured]:
    if measured.scores and measured.views:
        means = {row["case"]: mean_dice(row) for row in measured.scores["cases"] if row["case"] in measured.views}
        return [Pictured(why, case, measured.views[case], means[case]) for why, case in _extremes(means)]
    open_cases = [case for case in cases if case.uncertainty is not None and case.awaits_outline]
    # The most uncertain first, as the worst is.
    doubts = {case.id: -float(case.uncertainty or 0.0) for case in open_cases}
    words = {"worst": "most uncertain", "median": "median uncertainty", "best": "least uncertain"}
    pictures = []
    for why, case_id in _extremes(doubts):
        case = project.cases.get(case_id)
        if project.revisions.newest(case_id, (RevisionKind.PREDICTION,)):
            pictures.append(Pictured(words.get(why, why), case_id, stored_views(project, case)))
    return pictures


def _extremes(values: Mapping[str, float]) -> list[tuple[str, str]]:
    """Lowest, middle and highest, none twice; what is not known is left out."""
    order = sorted((key for key, value in values.items() if value == value), key=lambda key: values[key])
    if len(order) == 1:
        return [("only case", order[0])]
    chosen: dict[str, str] = {}
    if order:
        for why, key in (("worst", order[0]), ("best", order[-1]), ("median", order[len(order) // 2])):
            chosen.setdefault(key, why)
    found = {why: key for key, why in chosen.items()}
    return [(why, found[why]) for why in ("worst", "median", "best") if why in found]


def mean_dice(row: dict[str, Any]) -> float:
    """A case's mean over its labels; NaN if it shows none."""
    return summarize([scores["dice"] for scores in row["labels"].values()]).mean


def _agreements(project: Project, progress: Progress) -> list[Agreed]:
    if not project.read_only:
        project.agreements.measure(progress)
    agreed = []
    for case_id, entry in project.agreements.all().items():
        if entry.dice is None:
            continue
        revisions = {revision.id: (n, revision) for n, revision in enumerate(project.revisions.of(case_id))}
        _, correction = revisions[entry.correction]
        _, prediction = revisions[entry.prediction]
        agreed.append((correction.created, Agreed(case_id, prediction.model_id or "another model", entry.dice)))
    return [one for _, one in sorted(agreed, key=lambda pair: pair[0])]


def _newly_outlined(project: Project, previous: ModelRow | None) -> list[str]:
    current = project.models.current()
    if current is None or previous is None:
        return []
    now, then = (_outlined_for(project, model) for model in (current, previous))
    return [case for case in now if case not in then]


def _outlined_for(project: Project, model: ModelRow) -> list[str]:
    """Ids of the cases whose outlines a training learned from; none if it was trained elsewhere."""
    try:
        cases = project.runs.get(model.summary["run"]).plan["run"]["cases"]
    except (KeyError, ProjectError):
        return []
    return [case["id"] for case in cases if case["revision"] is not None and not case["held_out"]]
