# SPDX-License-Identifier: Apache-2.0
"""Whether a new model is better than the current one, on cases from which neither has learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from barl.errors import InputError
from barl.evaluation.statistics import PairedTest, holm, paired_test, summarize
from barl.jobs.choice import choose_model
from barl.jobs.compute import AUTOMATIC, Compute, WarmPredictors
from barl.jobs.evaluate import Judged, evaluate_model
from barl.jobs.unseen import held_out_cases, unseen_cases
from barl.progress import SILENT, Progress, Stage
from barl.project.store import Project

# With fewer pairs even a difference of the same sign everywhere has p >= 2/2^5 = 0.06.
PAIRS_FOR_A_TEST = 6
SIGNIFICANT = 0.05


def compare_models(
    project: Project,
    model: str | Path,
    reference: str | Path | None = None,
    *,
    compute: Compute = AUTOMATIC,
    progress: Progress = SILENT,
    look: Callable[[Judged], None] | None = None,
) -> dict[str, Any]:
    """Evaluate two models on the same unseen cases and test the difference of their Dice.

    Unseen are the held-out cases and, of a model trained with folds, those that one of its members has not learned
    from, which then judge that member. A case that was held out only after one of the models, or one it was trained on
    from, had learned its outline is left out; a note names it.

    Args:
        project: May be open for reading only; nothing is stored.
        model: Id or folder of the model in question.
        reference: Id or folder of the one to beat; by default the current model.
        compute: Device and loaded models.
        progress: Gets the stage comparing.
        look: Called with each case once ``model`` has predicted it.

    Returns:
        ``model`` and ``reference``: what ``evaluate_model`` returns; ``cases``: per case its name and its Dice (mean
        over the labels) with ``model`` and ``reference``; ``test``: Wilcoxon's signed-rank test of these as ``p``,
        ``median_difference`` (model - reference) and ``n``; ``labels``: the same per label value, ``p`` by Holm's
        correction for the number of labels; ``words``: the outcome as a sentence; ``notes``.

    Raises:
        InputError: Both are the same model, or there is no case to compare them on.
        BarlError: Of a model or the device.
    """
    chosen = [choose_model(project, wanted) for wanted in (model, reference)]
    if chosen[0][0] == chosen[1][0]:
        raise InputError("A model cannot be compared with itself.", "Name two models.")
    unseen = set.intersection(*(unseen_cases(project, model_id) for _, model_id in chosen))
    cases = [case for case in project.cases.all() if case.id in unseen]
    held_out = held_out_cases(project) if not cases else [case for case in project.cases.all() if case.evaluates]
    left_out = [case.name for case in held_out if case.id not in unseen]
    if not cases:
        raise InputError(
            "One of the models has learned from every case that is held out now.",
            "Hold out a case whose outline was never used, then compare again.",
        )
    compute = replace(compute, warm=compute.warm or WarmPredictors())
    results = [
        evaluate_model(
            project,
            model_id or folder,
            cases=cases,
            compute=compute,
            progress=half,
            look=look if folder == chosen[0][0] else None,
        )
        for (folder, model_id), half in progress.stage(Stage.COMPARING).each(chosen)
    ]
    notes = [f"Left out, because one of the models has learned from it: {name}." for name in left_out]
    return {**compare_results(results[0], results[1], [str(value) for value in project.values]), "notes": notes}


def compare_results(first: dict[str, Any], second: dict[str, Any], values: Sequence[str]) -> dict[str, Any]:
    """What ``compare_models`` returns but for ``notes``, from what ``evaluate_model`` returned for both.

    Args:
        first, second: Of the model in question and of the reference, on the same cases.
        values: Of the labels.
    """
    results = first, second
    means = [[summarize(_dice(row, values)).mean for row in result["cases"]] for result in results]
    label_tests = [
        paired_test(*([*(_dice(row, [value])[0] for row in result["cases"])] for result in results)) for value in values
    ]
    adjusted = holm([test.p for test in label_tests])
    test = paired_test(*means)
    apart = any(row["member"] is not None for result in results for row in result["cases"])
    kind = "unseen" if apart else "held-out"
    return {
        "model": first,
        "reference": second,
        "cases": [
            {"case": row["case"], "name": row["name"], "model": one, "reference": other}
            for row, one, other in zip(first["cases"], *means, strict=True)
        ],
        "test": asdict(test),
        "labels": {
            value: {**asdict(found), "p": p} for value, found, p in zip(values, label_tests, adjusted, strict=True)
        },
        "words": in_words(summarize(means[0]).mean, summarize(means[1]).mean, test, kind=kind),
    }


def in_words(
    dice: float, reference: float, test: PairedTest, other: str = "the current model", kind: str = "held-out"
) -> str:
    """The outcome as one or two sentences; they mention chance where the number of cases demands it.

    Args:
        dice, reference: Mean Dice of the new model and of the other one.
        test: Of the difference.
        other: What the other one is called.
        kind: Of the cases, "held-out" or "unseen".
    """
    count = f"the only {kind} case" if test.n == 1 else f"{test.n} {kind} cases"
    if not test.n:
        return f"The {kind} cases show none of the labels: the models cannot be compared on them."
    outcome = f"On {count} the mean Dice is {dice:.3f}, with {other} {reference:.3f}"
    if test.n < PAIRS_FOR_A_TEST:
        return f"{outcome}. On so few cases a difference may be chance: hold out {PAIRS_FOR_A_TEST} or more."
    p = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.3f}"
    outcome += f" (median difference {test.median_difference:+.3f}, Wilcoxon signed-rank test, {p})"
    if test.p >= SIGNIFICANT:
        return f"{outcome}. The difference may be chance."
    return f"{outcome}. The new model is {'better' if test.median_difference > 0 else 'worse'} beyond chance."


def _dice(row: dict[str, Any], values: Sequence[str]) -> list[float]:
    return [row["labels"][value]["dice"] for value in values]
