# SPDX-License-Identifier: Apache-2.0
"""The demo's report: one HTML file with everything in it, for a reader who was not there."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from barl.demo import figures
from barl.demo.main_job import Judged, Outcome
from barl.evaluation.statistics import paired_test
from barl.project.files import write_atomically

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2730; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.4rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #d8dee3; text-align: right; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } tr.sum td { font-weight: 600; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } figcaption { font-size: .9rem; color: #4a5763; }
.answer { font-size: 1.15rem; background: #eef4f9; border-left: 5px solid #0072b2; padding: .8rem 1rem; }
.simulated { background: #fff3d6; border-left: 5px solid #e69f00; padding: .6rem 1rem; font-weight: 600; }
.small { font-size: .9rem; color: #4a5763; } pre { background: #f4f6f8; padding: .8rem; overflow-x: auto; }
"""
_METRICS = {
    "dice": ("Dice", 3),
    "surface_dice": ("surface Dice at 1 mm", 3),
    "hd95_mm": ("HD95 (mm)", 2),
    "lesion_precision": ("lesion precision", 3),
    "lesion_recall": ("lesion recall", 3),
    "lesion_f1": ("lesion F1", 3),
}


def write_report(outcome: Outcome, path: Path) -> None:
    """Write the report.

    Raises:
        StorageError: It cannot be written.
    """
    text = _page(outcome)
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def answer(outcome: Outcome) -> str:
    """What came out, in a sentence, whatever it is."""
    before, after = (table["mean"]["dice"]["mean"] for table in (outcome.before, outcome.after))
    pairs = list(zip(_case_means(outcome.before), _case_means(outcome.after), strict=True))
    better, n = sum(second > first for first, second in pairs), len(outcome.corrected)
    where = f"on {len(pairs)} held-out cases, better in {better} of them"
    if after > before:
        chance = paired_test([second for _, second in pairs], [first for first, _ in pairs]).p
        doubt = "" if chance < 0.05 else " On so few cases the difference may be chance."
        return f"Mean Dice rose from {before:.3f} to {after:.3f} with {n} corrected cases ({where}).{doubt}"
    return f"Mean Dice did NOT rise: {before:.3f} before, {after:.3f} after {n} corrected cases ({where})."


def summary_rows(outcome: Outcome) -> list[list[str]]:
    """Label, metric, before, after: mean ± standard deviation over the held-out cases."""
    names = [name for name in _METRICS if outcome.data.lesions or not name.startswith("lesion")]
    blocks = [(label.name, str(label.value)) for label in outcome.data.labels]
    if len(blocks) > 1:
        blocks.append(("mean of the labels", ""))
    rows = []
    for title, value in blocks:
        tables = [table["labels"][value] if value else table["mean"] for table in (outcome.before, outcome.after)]
        for name in names:
            text, digits = _METRICS[name]
            rows.append([title, text, *(_mean_sd(table[name], digits) for table in tables)])
            title = ""  # said once a block
    return rows


def _page(outcome: Outcome) -> str:
    data = outcome.data
    warning = "<p class='simulated'>Simulated cases: no patients, no statement on real scans.</p>"
    sections = [
        f"<h1>BARL: from a few outlined cases to a model</h1><p>{escape(data.title)}</p>",
        warning if data.simulated else "",
        f"<p class='answer'>{escape(answer(outcome))}</p>",
        _data_section(outcome),
        _quality_section(outcome),
        _slices_section(outcome),
        _choice_section(outcome),
        _volume_section(outcome),
        _calibration_section(outcome),
        _training_section(outcome),
        _machine_section(outcome),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>BARL demo</title><style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def _data_section(outcome: Outcome) -> str:
    data, n = outcome.data, outcome.data.counts
    return (
        f"<h2>The data</h2><p>{escape(data.origin)}</p><p class='small'>License: {escape(data.license)}</p>"
        f"<p>{n.outlined} cases are outlined by an expert and learned from; {n.untouched} are untouched: the training "
        f"sees the scans alone; {n.held_out} are held out: no training sees them, both models are judged on them. The "
        f"{len(outcome.corrected)} corrections are the expert's label of two untouched cases, disclosed once the model "
        "had asked for them.</p>"
    )


def _quality_section(outcome: Outcome) -> str:
    labels = outcome.data.labels
    before, after = (table["cases"] for table in (outcome.before, outcome.after))
    heads = ["case", *(f"{label.name}: {when}" for label in labels for when in ("before", "after", "change"))]
    rows = []
    for first, second in zip(before, after, strict=True):
        cells = [first["name"]]
        for label in labels:
            pair = [row["labels"][str(label.value)]["dice"] for row in (first, second)]
            cells += [_number(pair[0]), _number(pair[1]), _signed(pair[1] - pair[0])]
        rows.append(cells)
    test = paired_test(_case_means(outcome.after), _case_means(outcome.before))
    alt = "Dice of each held-out case before and after the corrections"
    return (
        "<h2>Quality before and after the corrections</h2>"
        "<p>Mean ± standard deviation over the held-out cases, each on its scan's own grid.</p>"
        + _table(["label", "", "before", "after"], summary_rows(outcome), text_columns=(1,))
        + f"<p class='small'>Median change of a case's mean Dice: {_signed(test.median_difference)}; Wilcoxon's "
        f"signed-rank test over {test.n} cases: p = {_p_value(test.p)}. One run on few cases: a demonstration, "
        "no study. Some of the gain is due to the longer training.</p>"
        + _figure(figures.dots(outcome.before, outcome.after, labels), alt)
        + f"<details><summary>Dice of every case</summary>{_table(heads, rows)}</details>"
    )


def _slices_section(outcome: Outcome) -> str:
    before, after = _case_means(outcome.before), _case_means(outcome.after)
    chosen = _telling(before, after)
    judged: list[Judged] = [outcome.judged[n] for n, _ in chosen]
    captions = [f"{why}\nDice {before[n]:.2f} → {after[n]:.2f}" for n, why in chosen]
    alt = "Slices of held-out cases with the outlines of expert and model, and the model's uncertainty"
    return (
        "<h2>What it looks like</h2>"
        + _figure(figures.slices(judged, captions, outcome.data.labels), alt)
        + "<p class='small'>Held-out cases (lowest, median, highest: by the Dice after), axial slice with the largest "
        "outline, seen from below (R: the patient's right; a frame shows which part is enlarged). Before, after: the "
        "corrections. Uncertainty: 0 sure, 1 the model cannot decide, or its two branches contradict each other.</p>"
    )


def _choice_section(outcome: Outcome) -> str:
    ranking = [
        [str(rank), ranked.case.name, f"{ranked.score:.2f}", ranked.reason]
        for rank, ranked in enumerate(outcome.ranking[:5], start=1)
    ]
    names = {label.value: label.name for label in outcome.data.labels}
    spots = [
        [
            str(spot["rank"]),
            names.get(spot["label"], "-"),
            *(f"{mm:.1f}" for mm in spot["position_mm"]),
            f"{spot['volume_ml']:.3f}",
            f"{spot['mean_uncertainty']:.2f}",
            f"{spot['score']:.3f}",
        ]
        for spot in outcome.doubted.details.get("hotspots", [])[:10]
    ]
    picture = figures.hotspots(outcome)
    heads = ["hot-spot", "about", "L (mm)", "P (mm)", "S (mm)", "volume (ml)", "mean uncertainty", "score (ml)"]
    shown = (
        _figure(picture, "Hot-spots marked in axial slices")
        + _table(heads, spots, text_columns=(1,))
        + "<p class='small'>Connected uncertain regions, ranked by volume × mean uncertainty; position of the most "
        "uncertain neighborhood in the scan's coordinates, towards left, back (posterior) and head (superior).</p>"
        if picture
        else "<p>No region of it is uncertain enough to be a hot-spot.</p>"
    )
    return (
        "<h2>Where the first model was unsure</h2>"
        f"<p>After the first training it ranked the {len(outcome.ranking)} untouched cases by their uncertainty. "
        f"The first {len(outcome.corrected)} were corrected.</p>"
        + _table(["rank", "case", "score", "why"], ranking, text_columns=(1, 3))
        + f"<p>Hot-spots of {escape(outcome.ranking[0].case.name)}, ranked first, before its correction:</p>"
        + shown
    )


def _volume_section(outcome: Outcome) -> str:
    rows = []
    for item in outcome.judged:
        for volume in item.after.volumes:
            rows.append(
                [item.case.name, volume.name, f"{volume.ml:.2f}", f"{volume.low_ml:.2f} to {volume.high_ml:.2f}"]
            )
    heads = ["case", "label", "model (ml)", "spread (ml)"]
    return (
        "<h2>Volumes</h2>"
        + _figure(figures.volumes(outcome.judged, outcome.data.labels), "Volumes of model and expert")
        + "<p class='small'>Held-out cases, second model; the bar is the spread over its two branches, not a "
        "confidence interval.</p>"
        + f"<details><summary>Volume of every case</summary>{_table(heads, rows, text_columns=(1,))}</details>"
    )


def _calibration_section(outcome: Outcome) -> str:
    names = {"calibration_error": "expected calibration error", "risk_coverage_area": "area under risk-coverage"}
    rows = [[text, *(f"{table[key]:.4f}" for table in (outcome.before, outcome.after))] for key, text in names.items()]
    return (
        "<h2>Can its confidence be believed?</h2>"
        + _figure(figures.reliability(outcome.judged, outcome.data.labels), "Reliability curve")
        + _table(["around the structures, lower is better", "before", "after"], rows)
        + "<p class='small'>The one number that scales the confidence (temperature) was fitted on these same held-out "
        "cases, so the curve is somewhat flattering.</p>"
    )


def _training_section(outcome: Outcome) -> str:
    rows = []
    for training in outcome.trainings:
        summary = training.summary
        per_step = summary["seconds"] / max(summary["iterations"], 1)
        rows.append([training.title, str(summary["iterations"]), f"{summary['seconds']:.0f}", f"{per_step:.2f}"])
    plans = "".join(f"<pre>{escape(training.plan.in_words())}</pre>" for training in outcome.trainings[:1])
    return (
        "<h2>Training</h2>"
        + _figure(figures.curves(outcome.trainings, outcome.data.labels), "Curves of loss and held-out Dice")
        + _table(["training", "iterations", "seconds", "seconds a step"], rows)
        + f"<p>The plan, chosen from the cases and the machine:</p>{plans}"
        "<p class='small'>The method is a reconstruction of BARL (arXiv:2510.16863) from public descriptions; it is "
        "not the authors' code.</p>"
    )


def _machine_section(outcome: Outcome) -> str:
    rows = [[title, f"{seconds:.1f}"] for title, seconds in outcome.seconds.items()]
    rows.append(["together", f"{sum(outcome.seconds.values()):.1f}"])
    versions = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
    return (
        f"<h2>What ran where</h2><p>{escape(outcome.machine)}</p><p class='small'>{escape(versions)}</p>"
        + _table(["step", "seconds"], rows, last_is_sum=True)
        + "<p class='small'>Research software, not a medical device: a person must look at every result.</p>"
    )


def _telling(before: Sequence[float], after: Sequence[float], limit: int = 4) -> list[tuple[int, str]]:
    """Cases worth showing and why: the extremes and the middle, none twice."""
    order = np.argsort(after)
    gain = np.subtract(after, before)
    reasons = [
        (int(order[0]), "lowest"),
        (int(order[len(order) // 2]), "median"),
        (int(order[-1]), "highest"),
        (int(gain.argmax()), "largest gain"),
        (int(gain.argmin()), "smallest gain"),
    ]
    chosen: dict[int, str] = {}
    for n, why in reasons:
        chosen.setdefault(n, why)
    return list(chosen.items())[:limit]


def _case_means(table: dict[str, Any]) -> list[float]:
    return [float(np.nanmean([scores["dice"] for scores in row["labels"].values()])) for row in table["cases"]]


def _figure(png: bytes, alt: str) -> str:
    encoded = base64.b64encode(png).decode("ascii")
    return f"<figure><img alt='{escape(alt, quote=True)}' src='data:image/png;base64,{encoded}'></figure>"


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: Sequence[int] = (), last_is_sum: bool = False
) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ["text" if n in text_columns else "" for n in range(len(cells))]
        return "".join(
            f"<{tag} class='{kind}'>{escape(cell)}</{tag}>" if kind else f"<{tag}>{escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    last = len(rows) - 1 if last_is_sum else None
    body = "".join(f"<tr{' class=sum' if n == last else ''}>{line(row, 'td')}</tr>" for n, row in enumerate(rows))
    return f"<table><thead><tr>{line(heads, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _mean_sd(summary: dict[str, Any], digits: int) -> str:
    if not summary["n"]:
        return "-"
    mean = f"{summary['mean']:.{digits}f}"
    return mean if np.isnan(summary["sd"]) else f"{mean} ± {summary['sd']:.{digits}f}"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _signed(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:+.3f}"


def _p_value(p: float) -> str:
    return "-" if np.isnan(p) else "less than 0.001" if p < 0.001 else f"{p:.3f}"
