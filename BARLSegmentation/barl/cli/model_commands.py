# SPDX-License-Identifier: Apache-2.0
"""``barl evaluate``, ``next`` and ``models``."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from barl.cli.terminal import Terminal, minute, table
from barl.errors import InputError
from barl.project.next_case import RULES, rank_cases
from barl.project.soundness import model_damage
from barl.project.store import Project

if TYPE_CHECKING:
    from barl.project.model_card import ModelCard

# The jobs import torch: they are imported inside functions, so that the other commands answer at once.


def evaluate(options: Namespace, terminal: Terminal) -> None:
    from barl.jobs.compute import Compute
    from barl.jobs.evaluate import evaluate_model

    with Project.open(options.project, read_only=True) as project:
        compute = Compute(options.device)
        result = evaluate_model(project, options.model, compute=compute, progress=terminal.progress)
    apart = any(row["member"] is not None for row in result["cases"])
    metrics = ("dice", "hd95_mm", "assd_mm", "surface_dice", "lesion_f1")
    rows = [
        [label["name"], *(label[metric]["mean"] for metric in metrics), label["dice"]["n"]]
        for label in [*result["labels"].values(), result["mean"]]
    ]
    lines = [
        f"{result['model']} on {len(result['cases'])} {'unseen' if apart else 'held-out'} cases",
        table(rows, ["label", "Dice", "HD95 mm", "ASSD mm", "surface Dice", "lesion F1", "cases"]),
        f"calibration error {result['calibration_error']:.3f}, "
        f"area under the risk-coverage curve {result['risk_coverage_area']:.4f}",
        "",
        *_each_case(result),
        *result["notes"],
    ]
    terminal.answer(result, "\n".join(lines))


def _each_case(result: dict[str, Any]) -> list[str]:
    """Dice and HD95 of each case, the lowest Dice first, and the three lowest by name."""
    cases = [(_mean([scores["dice"] for scores in row["labels"].values()]), row) for row in result["cases"]]
    cases.sort(key=lambda pair: (pair[0] is None, pair[0]))
    names = {value: label["name"] for value, label in result["labels"].items()}
    several = len(names) > 1
    heads = ["case", *(["Dice"] if several else [])]
    heads += [f"{name} {what}" if several else what for name in names.values() for what in ("Dice", "HD95 mm")]
    rows = [
        [
            row["name"],
            *([mean] if several else []),
            *(row["labels"][value][metric] for value in names for metric in ("dice", "hd95_mm")),
        ]
        for mean, row in cases
    ]
    lines = [table(rows, heads)]
    worst = [f"{row['name']} ({mean:.3f})" for mean, row in cases[:3] if mean is not None]
    if len(cases) > 3 and worst:
        lines.append(f"Lowest Dice: {', '.join(worst)}. Look at these first.")
    return lines


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else None


def next_cases(options: Namespace, terminal: Terminal) -> None:
    if options.count < 1:
        raise InputError("The number of cases must be 1 or more.", "Use --count 1 or more.")
    with Project.open(options.project, read_only=True) as project:
        cases = project.cases.all()
    ranked = rank_cases(cases, RULES[options.rule])[: options.count]
    if not ranked:
        raise InputError("No case waits for an outline.", "Add scans to the project.")
    rows = [[number, entry.case.name, entry.reason] for number, entry in enumerate(ranked, 1)]
    document = [
        {"case": entry.case.id, "name": entry.case.name, "score": entry.score, "reason": entry.reason}
        for entry in ranked
    ]
    terminal.answer({"next": document}, table(rows, ["", "case", "why"]))


def list_models(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project, read_only=True) as project:
        models = project.models.all()
    damage = {m.id: [found.in_words() for found in model_damage(m, with_weights=False)] for m in models}
    names = {m.id: f"{m.name} (damaged)" if damage[m.id] else m.name for m in models}
    rows = [[m.id, m.is_current, names[m.id], minute(m.created), m.parent, _dice(m.summary)] for m in models]
    text = table(rows, ["id", "current", "name", "created", "parent", "Dice held out"]) if rows else "No model yet."
    text = "\n".join([text, *(words for texts in damage.values() for words in texts)])
    document = [
        {
            "id": model.id,
            "name": model.name,
            "current": model.is_current,
            "created": model.created,
            "parent": model.parent,
            "folder": model.folder,
            "summary": model.summary,
            "damaged": damage[model.id],
        }
        for model in models
    ]
    terminal.answer({"models": document}, text)


def show_model(options: Namespace, terminal: Terminal) -> None:
    from barl.jobs.choice import choose_model
    from barl.project.model_card import CARD_FILE, read_card

    folder = options.where
    if not (folder / CARD_FILE).is_file():
        with Project.open(folder, read_only=True) as project:
            folder, _ = choose_model(project, options.model)
    card = read_card(folder)
    rows = {
        "name": card.name,
        "id": card.id,
        "created": card.created,
        "labels": ", ".join(f"{label.value} {label.name}" for label in card.labels),
        "channels": ", ".join(card.channels),
        "spacing": " x ".join(f"{part:g}" for part in card.spacing) + " mm",
        "method": card.method,
        "cases": ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in card.counts.items()),
        "Dice": _dice({"metrics": card.metrics}),
        "members": card.members,
        "cleanup": card.cleanup_in_words or None,
        "expected": _expected(card),
        "parent": card.parent,
        "license": card.licence or None,
        "notes": card.notes or None,
    }
    text = "\n".join(f"{name:9s} {value if value is not None else '-'}" for name, value in rows.items())
    terminal.answer({"folder": folder, **card.to_json()}, text)


def _expected(card: ModelCard) -> str | None:
    known = card.expected_dice
    return f"Dice within {known.error:.3f} (root mean square of {known.cases} unseen cases)" if known else None


def promote(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project) as project:
        model = project.models.promote(options.model)
    terminal.answer({"current_model": model.id}, f"{model.id} is the current model now.")


def _dice(summary: dict) -> float | None:
    return summary.get("metrics", {}).get("mean_dice")
