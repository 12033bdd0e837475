# SPDX-License-Identifier: Apache-2.0
"""``barl predict``, ``evaluate``, ``next`` and ``models``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from barl.cli import computer_commands
from barl.cli.terminal import Terminal, table
from barl.errors import InputError
from barl.images.geometry import Roi
from barl.project.next_case import rank_cases
from barl.project.store import Project

# The jobs import torch: they are imported inside functions, so that the other commands answer at once.


def predict(options: Namespace, terminal: Terminal) -> int:
    from barl.jobs.compute import Compute
    from barl.jobs.predict import predict_cases, predict_files

    compute = Compute(options.device, options.fast, cleanup=not options.no_cleanup)
    roi = Roi.from_bounds_mm(options.roi) if options.roi else None
    if options.output:
        if not options.model:
            raise InputError("A scan without a project needs a model.", "Add --model with a model's folder.")
        scans = [Path(scan) for scan in options.inputs]
        result = predict_files(
            Path(options.model),
            scans,
            options.output,
            uncertainty=options.uncertainty,
            compute=compute,
            roi=roi,
            progress=terminal.progress,
        )
        terminal.answer(result, "\n".join([f"Wrote {options.output}.", *_findings(result)]))
        return 0
    if options.uncertainty:
        raise InputError("--uncertainty goes with --output.", "Predictions of a project keep their uncertainty there.")
    with Project.open(Path(options.inputs[0])) as project:
        wanted = [project.cases.find(name).id for name in options.inputs[1:]]
        result = (
            computer_commands.predict(options, terminal, wanted)
            if options.computer
            else predict_cases(
                project,
                wanted,
                model=options.model,
                compute=compute,
                roi=roi,
                progress=terminal.progress,
            )
        )
    lines = []
    for case in result["cases"]:
        lines.append(f"{case['name']}: uncertainty {case['case_uncertainty']:.3f}")
        lines += [f"  {note}" for note in case["notes"] if len(result["cases"]) > 1]
    if len(result["cases"]) == 1:
        lines += _findings(result["cases"][0])
    lines += [f"Left out {case['name']}: {case['message']} {case['remedy']}" for case in result["failed"]]
    terminal.answer(result, "\n".join(lines))
    return InputError.exit_code if result["failed"] else 0


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
        *result["notes"],
    ]
    terminal.answer(result, "\n".join(lines))


def next_cases(options: Namespace, terminal: Terminal) -> None:
    if options.count < 1:
        raise InputError("The number of cases must be 1 or more.", "Use --count 1 or more.")
    with Project.open(options.project, read_only=True) as project:
        cases = project.cases.all()
    ranked = rank_cases(cases)[: options.count]
    if not ranked:
        raise InputError("No case waits for an outline.", "Add scans to the project.")
    rows = [[number, entry.case.name, entry.score, entry.reason] for number, entry in enumerate(ranked, 1)]
    document = [
        {"case": entry.case.id, "name": entry.case.name, "score": entry.score, "reason": entry.reason}
        for entry in ranked
    ]
    terminal.answer({"next": document}, table(rows, ["", "case", "score", "why"]))


def list_models(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project, read_only=True) as project:
        models = project.models.all()
    rows = [[m.id, m.is_current, m.name, m.created, m.parent, _dice(m.summary)] for m in models]
    text = table(rows, ["id", "current", "name", "created", "parent", "Dice held out"]) if rows else "No model yet."
    document = [
        {
            "id": model.id,
            "name": model.name,
            "current": model.is_current,
            "created": model.created,
            "parent": model.parent,
            "folder": model.folder,
            "summary": model.summary,
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
        "cleanup": card.cleanup_in_words or None,
        "parent": card.parent,
        "license": card.licence or None,
        "notes": card.notes or None,
    }
    text = "\n".join(f"{name:9s} {value if value is not None else '-'}" for name, value in rows.items())
    terminal.answer({"folder": folder, **card.to_json()}, text)


def promote(options: Namespace, terminal: Terminal) -> None:
    with Project.open(options.project) as project:
        model = project.models.promote(options.model)
    terminal.answer({"current_model": model.id}, f"{model.id} is the current model now.")


def _dice(summary: dict) -> float | None:
    return summary.get("metrics", {}).get("mean_dice")


def _findings(result: dict) -> list[str]:
    """Volumes, hot-spots and notes of one prediction in words."""
    lines = []
    for volume in result["volumes"]:
        spread = f" ({volume['low_ml']:.2f} to {volume['high_ml']:.2f})" if volume["low_ml"] < volume["high_ml"] else ""
        lines.append(f"  {volume['name']}: {volume['ml']:.2f} ml{spread}")
    for spot in result["hotspots"][:3]:
        place = ", ".join(f"{part:.1f}" for part in spot["position_mm"])
        lines.append(f"  {spot['kind']} at {place} mm (LPS): {spot['volume_ml']:.2f} ml")
    return lines + [f"  {note}" for note in result["notes"]]
