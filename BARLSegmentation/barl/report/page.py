# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file with all figures and tables in it, and a case as a picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from barl import __version__
from barl.evaluation.statistics import PairedTest, mean_interval, summarize
from barl.jobs.compare import in_words
from barl.jobs.compute import AUTOMATIC, Compute
from barl.jobs.plan_notes import poor_labels
from barl.progress import SILENT, Progress
from barl.project.files import write_atomically
from barl.project.records import ModelRow
from barl.project.store import Project
from barl.report.findings import Findings, gather, mean_dice
from barl.report.picture import check_libraries

if TYPE_CHECKING:
    import jinja2

# More rows than a person reads: the rest is in the project.
_MOST_ROWS = 200
_METRICS = {
    "dice": ("Dice", 3),
    "surface_dice": ("surface Dice at 1 mm", 3),
    "hd95_mm": ("HD95 (mm)", 2),
    "assd_mm": ("ASSD (mm)", 2),
    "lesion_f1": ("lesion F1", 3),
}


def write_report(
    project: Project, path: Path, *, compute: Compute = AUTOMATIC, progress: Progress = SILENT
) -> Findings:
    """Write the report of a project.

    Args:
        project: Open for writing, or for reading only (then agreement that was never measured is left out).
        path: The HTML file.
        compute: Device of the evaluation on the held-out cases.
        progress: Of the evaluation.

    Raises:
        InputError: Jinja2 or matplotlib is missing.
        BarlError: Of a model, the device, a damaged project, or the file.
    """
    check_libraries()
    findings = gather(project, compute=compute, progress=progress)
    write_page(findings, path)
    return findings


def write_page(
    findings: Findings,
    path: Path,
    template: str = "page.html.jinja",
    folder: Path | None = None,
    **more: Any,
) -> None:
    """Write the page of these findings.

    Args:
        template: Of the page; in ``folder`` one that extends ``page.html.jinja``.
        folder: Of the template, if it is not this room's.
        more: What that template needs.

    Raises:
        StorageError: The file cannot be written.
    """
    from barl.report import figures

    text = (
        _environment(folder)
        .get_template(template)
        .render(
            findings=findings,
            figures=figures,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=__version__,
            states=[[state.replace("_", " "), str(n)] for state, n in findings.states.items() if n],
            unseen="held-out" if not _by_members(findings) else "unseen",
            held_out=sum(case.held_out for case in findings.cases),
            case_rows=_case_rows(findings),
            most_rows=_MOST_ROWS,
            quality=_quality_rows(findings),
            case_scores=_score_rows(findings),
            curve=_curve(findings.models),
            change=_change(findings),
            agreed=_agreement_rows(findings),
            poor=_poor(findings),
            agreed_dice=[(one.model, one.dice) for one in findings.agreements],
            **more,
        )
    )
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where it is not defined."""
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """A difference for a table."""
    return "–" if value is None or np.isnan(value) else f"{value:+.3f}".replace("-", "−")


def p_value(p: float) -> str:
    """The p value of a test in words."""
    return "–" if np.isnan(p) else "less than 0.001" if p < 0.001 else f"{p:.3f}"


def _environment(folder: Path | None) -> jinja2.Environment:
    import jinja2

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, here] if folder else [here]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": _base64, "signed": signed, "p_value": p_value, "number": number}
    return environment


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _poor(findings: Findings) -> list[str]:
    """A sentence if the current model is poor."""
    if findings.scores is None:
        return []
    means = {value: row["dice"]["mean"] for value, row in findings.scores["labels"].items()}
    return poor_labels(findings.labels, {"dice": means}, "out of fold" if _by_members(findings) else "on these cases")


def _by_members(findings: Findings) -> bool:
    """Whether some cases were judged by the members of the model that have not seen them."""
    return any(row["member"] is not None for row in (findings.scores or {"cases": []})["cases"])


def _case_rows(findings: Findings) -> list[list[str]]:
    return [
        [
            findings.names[case.id],
            case.state.replace("_", " "),
            "yes" if case.held_out else "",
            number(case.uncertainty, 2),
            *([number(findings.expected.get(case.id), 2)] if findings.expected else []),
        ]
        for case in findings.cases[:_MOST_ROWS]
    ]


def _quality_rows(findings: Findings) -> list[list[str]]:
    """Label, metric, mean, low and high end of its 95 % interval, standard deviation, number of cases."""
    if findings.scores is None:
        return []
    cases, rows = findings.scores["cases"], []
    blocks = [(label.name, [str(label.value)]) for label in findings.labels]
    if len(blocks) > 1:
        blocks.append(("mean of the labels", [str(label.value) for label in findings.labels]))
    for title, values in blocks:
        for name, (text, digits) in _METRICS.items():
            scores = [summarize([row["labels"][v].get(name, np.nan) for v in values]).mean for row in cases]
            summary, (low, high) = summarize(scores), mean_interval(scores)
            low, high = max(low, 0.0), high if name.endswith("mm") else min(high, 1.0)
            interval = "–" if np.isnan(low) or summary.n < 2 else f"{low:.{digits}f} to {high:.{digits}f}"
            rows.append(
                [title, text, number(summary.mean, digits), interval, number(summary.sd, digits), str(summary.n)]
            )
            title = ""  # said once a block
    return rows


def _score_rows(findings: Findings) -> tuple[list[str], list[list[str]]] | None:
    """Heads and rows: each held-out case, the worst first."""
    if findings.scores is None:
        return None
    several = len(findings.labels) > 1
    heads = ["case", *(["mean Dice"] if several else [])]
    heads += [f"{label.name}: {what}" for label in findings.labels for what in ("Dice", "HD95 (mm)")]
    rows = []
    for row in sorted(findings.scores["cases"], key=lambda row: np.nan_to_num(mean_dice(row), nan=2.0)):
        cells = [row["name"], *([number(mean_dice(row))] if several else [])]
        for label in findings.labels:
            scores = row["labels"][str(label.value)]
            cells += [number(scores["dice"]), number(scores["hd95_mm"], 2)]
        rows.append(cells)
    return heads, rows[:_MOST_ROWS]


def _curve(models: Sequence[ModelRow]) -> list[tuple[str, int | None, dict[int, float]]]:
    """Models whose held-out Dice was measured at the end of their training."""
    curve = []
    for model in models:
        dice = (model.summary.get("metrics") or {}).get("dice") or {}
        found = {int(value): float(score) for value, score in dice.items() if score is not None}
        if found:
            curve.append((model.id, (model.summary.get("data") or {}).get("labelled"), found))
    return curve


def _change(findings: Findings) -> dict[str, Any] | None:
    """What the current model has learned from and the one before it, and what came of it."""
    current, previous = findings.current, findings.previous
    if current is None or previous is None:
        return None
    rows = [_model_row(model) for model in (previous, current)]
    change: dict[str, Any] = {
        "heads": ["", previous.id, current.id],
        "rows": [[key, rows[0][key], rows[1][key]] for key in rows[0]],
        "new": [findings.names.get(case, case) for case in findings.newly_outlined],
    }
    if comparison := findings.comparison:
        first, second = comparison["model"], comparison["reference"]
        test = PairedTest(**comparison["test"])
        means = [table["mean"]["dice"]["mean"] for table in (first, second)]
        better = sum(row["model"] > row["reference"] for row in comparison["cases"])
        change["words"] = in_words(means[0], means[1], test, other=previous.id)
        change["better"] = f"{better} of {len(comparison['cases'])}"
    return change


def _model_row(model: ModelRow) -> dict[str, str]:
    data: Mapping[str, Any] = model.summary.get("data") or {}
    seconds = model.summary.get("seconds")
    return {
        "made": model.created[:16].replace("T", " "),
        "outlined cases": str(data.get("labelled", "–")),
        "untouched scans": str(data.get("unlabelled", "–")),
        "iterations": str(model.summary.get("iterations", "–")),
        "minutes": "–" if seconds is None else f"{seconds / 60:.1f}",
    }


def _agreement_rows(findings: Findings) -> list[list[str]]:
    return [[findings.names.get(one.case_id, one.case_id), one.model, number(one.dice)] for one in findings.agreements]
