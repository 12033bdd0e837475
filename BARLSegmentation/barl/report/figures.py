# SPDX-License-Identifier: Apache-2.0
"""The report's figures as PNG. Colors tell labels or parts apart for color-blind readers too (Okabe and Ito's set)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from barl.evaluation.statistics import mean_interval, summarize
from barl.images.geometry import Triple, triple
from barl.project.labels import Label
from barl.project.palette import FIGURE_COLORS, hexadecimal
from barl.report.views import View

COLORS = [hexadecimal(name) for name in FIGURE_COLORS]
BEFORE, AFTER = "#8a8a8a", hexadecimal("blue")
HALO = withStroke(linewidth=2.4, foreground="black")
_DPI = 110
_DOUBT = "inferno"
_EXPERT: dict[str, Any] = {"colors": ["white"], "linestyles": [(0, (2, 1.5))], "linewidths": 1.4}
_LONGEST_NAME = 28
# A chart of more cases names none of them.
_MOST_NAMED = 60
# Names are shown as they are: a dollar sign is no formula. Fonts of macOS, Windows and Linux that have the letters that
# DejaVu Sans lacks, such as Chinese and Japanese ones.
_FONTS = ("Arial Unicode MS", "Microsoft YaHei", "Malgun Gothic", "Noto Sans CJK JP", "WenQuanYi Zen Hei")

P = ParamSpec("P")


def with_plain_names(draw: Callable[P, bytes]) -> Callable[P, bytes]:
    """A function that draws a figure, with texts as they are in whatever letters; other figures stay as they are."""

    @wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> bytes:
        known = set(font_manager.get_font_names())
        fonts = ["DejaVu Sans", *(font for font in _FONTS if font in known)]
        with mpl.rc_context({"text.parse_math": False, "font.family": fonts}), warnings.catch_warnings():
            # The tables of the report have the name where no font has its letters.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            return draw(*arguments, **options)

    return drawn


@with_plain_names
def case_picture(views: Sequence[View], labels: Sequence[Label], title: str = "", dpi: int = _DPI) -> bytes:
    """Three planes of a case: above the outlines, below the uncertainty; without uncertainty one row."""
    rows = 2 if any(view.uncertainty is not None for view in views) else 1
    ratios = [min(max(view.width_to_height, 0.4), 2.5) for view in views]
    width = 9.4
    height = (width - 1.6) / sum(ratios)
    height = min(height, 4.2)
    figure = Figure(figsize=(width, rows * height + 1.2 + (0.3 if title else 0)), layout="constrained")
    grid = figure.subplots(rows, len(views), squeeze=False, width_ratios=ratios)
    for column, view in enumerate(views):
        for axes in grid[:, column]:
            _show(axes, view)
            draw_outlines(axes, view, labels)
        if rows == 2 and view.uncertainty is not None:
            show_doubt(grid[1][column], view.uncertainty, view.pixel[0] / view.pixel[1])
        grid[0][column].set_title(f"{view.name}, {view.place}", fontsize=10)
        _mark_edges(grid[0][column], view.sides)
    grid[0][0].set_ylabel("outlines", fontsize=10)
    if rows == 2:
        grid[1][0].set_ylabel("uncertainty", fontsize=10)
        bar = figure.colorbar(doubt_scale(), ax=list(grid[1]), shrink=0.8, pad=0.02)
        bar.ax.tick_params(labelsize=8)
    expert = any(view.expert is not None for view in views)
    legend_of_outlines(figure, labels, expert, any(view.predicted is not None for view in views))
    if title:
        figure.suptitle(title, fontsize=12)
    return png(figure, dpi)


@with_plain_names
def quality(rows: Sequence[dict[str, Any]], labels: Sequence[Label]) -> bytes:
    """Dice of the held-out cases, a strip for each label, with the mean and its 95 % interval."""
    figure = Figure(figsize=(8.6, 1.35 + 0.55 * len(labels)), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for place, label in enumerate(labels):
        dice = np.array([row["labels"][str(label.value)]["dice"] for row in rows], float)
        dice = dice[~np.isnan(dice)]
        axes.scatter(dice, place + rng.uniform(-0.13, 0.13, len(dice)), s=26, color=rgb(label), alpha=0.75, lw=0)
        low, high = (float(np.clip(end, 0, 1)) for end in mean_interval(dice.tolist()))
        if low == low:
            axes.plot([low, high], [place + 0.3] * 2, color="black", lw=1.6)
        axes.plot([summarize(dice.tolist()).mean], [place + 0.3], "D", color="black", ms=5)
    axes.set(
        yticks=range(len(labels)),
        ylim=(len(labels) - 0.4, -0.6),
        xlabel="Dice (dots: cases; black: mean and 95 % interval)",
    )
    axes.set_yticklabels([short(label.name) for label in labels])
    _plain_grid(axes)
    axes.set_xlim(_of_dice(axes, axes.get_xlim()))
    return png(figure)


@with_plain_names
def learning_curve(models: Sequence[tuple[str, int | None, dict[int, float]]], labels: Sequence[Label]) -> bytes:
    """Held-out Dice as it was measured at the end of each training.

    Args:
        models: Of each model its id, the number of outlined cases that it learned from, and Dice by label value.
    """
    figure = Figure(figsize=(8.6, 3.2), layout="constrained")
    axes = figure.subplots()
    for n, label in enumerate(labels):
        points = [(k, dice[label.value]) for k, (_, _, dice) in enumerate(models) if label.value in dice]
        shift = 0.06 * (n - (len(labels) - 1) / 2)  # equal values of two labels stay visible
        axes.plot(
            [k + shift for k, _ in points], [v for _, v in points], "o-", color=rgb(label), label=short(label.name)
        )
    step = max(1, -(-len(models) // 8))
    axes.set_xticks(range(0, len(models), step))
    axes.set_xticklabels([f"{name}\n{'?' if n is None else n} outlined" for name, n, _ in models[::step]], fontsize=9)
    axes.set(ylabel="Dice on held-out cases", xlim=(-0.5, len(models) - 0.5))
    axes.set_ylim(_of_dice(axes, axes.get_ylim()))
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", fontsize=9)
    return png(figure)


@with_plain_names
def dots(before: dict[str, Any], after: dict[str, Any], labels: Sequence[Label], names: tuple[str, str]) -> bytes:
    """Dice of each held-out case with two models, a panel a label; cases ordered by their mean before.

    Args:
        names: What the two are called.
    """
    order = np.argsort([_mean_dice(row) for row in before["cases"]])
    per_row = min(3, len(labels))
    lines = -(-len(labels) // per_row)
    named = len(order) <= _MOST_NAMED
    height = 0.24 * len(order) + 0.9 if named else 6.0
    figure = Figure(figsize=(9.4, max(2.2, height) * lines + 0.3), layout="constrained")
    panels = figure.subplots(lines, per_row, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in panels[len(labels) :]:
        axes.set_axis_off()
    for axes, label in zip(panels, labels, strict=False):
        pairs = [[table["cases"][n]["labels"][str(label.value)]["dice"] for table in (before, after)] for n in order]
        for place, (first, second) in enumerate(pairs):
            axes.plot([first, second], [place, place], color="0.75", lw=2, zorder=1)
        first, second = np.array(pairs, float).T
        axes.scatter(first, range(len(order)), s=34, facecolor="white", edgecolor=BEFORE, lw=1.6)
        axes.scatter(second, range(len(order)), s=34, color=AFTER)
        axes.set(title=short(label.name), xlabel="Dice", yticks=range(len(order)) if named else [])
        if named:
            axes.set_yticklabels([short(before["cases"][n]["name"]) for n in order], fontsize=8)
        _plain_grid(axes)
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    hands = [
        Line2D([], [], ls="", marker="o", mfc="white", mec=BEFORE, mew=1.6, ms=6, label=names[0]),
        Line2D([], [], ls="", marker="o", color=AFTER, ms=6, label=names[1]),
    ]
    figure.legend(handles=hands, loc="outside upper center", ncols=2, fontsize=9)
    return png(figure)


@with_plain_names
def agreement(pairs: Sequence[tuple[str, float]]) -> bytes:
    """Dice of predictions with the outlines accepted after them, in the order of the corrections.

    Args:
        pairs: Of each correction the model that had predicted, and the Dice.
    """
    figure = Figure(figsize=(8.6, 2.8), layout="constrained")
    axes = figure.subplots()
    for n, model in enumerate(dict.fromkeys(name for name, _ in pairs)):
        places = [k for k, (name, _) in enumerate(pairs, 1) if name == model]
        values = [dice for name, dice in pairs if name == model]
        color = COLORS[n % len(COLORS)]
        axes.plot(places, values, "o", color=color, ms=6, label=f"predicted by {short(model)}")
        axes.plot([min(places) - 0.3, max(places) + 0.3], [np.mean(values)] * 2, color=color, lw=1.4)
    dice = [value for _, value in pairs]
    axes.set(xlabel="correction, in order (line: mean of a model)", ylabel="Dice", xlim=(0.3, len(pairs) + 0.7))
    axes.set_ylim(_of_dice(axes, (min(dice) - 0.05, max(dice) + 0.05)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", fontsize=9)
    return png(figure)


def show_doubt(axes: Axes, doubt: np.ndarray, aspect: float) -> None:
    """Lay uncertainty, 0 to 1 ``[row, column]``, over a scan; where it is small the scan shows through."""
    axes.imshow(doubt, cmap=_DOUBT, vmin=0, vmax=1, alpha=np.clip(1.5 * doubt, 0, 0.85), aspect=aspect)


def doubt_scale() -> ScalarMappable:
    """For the color bar of ``show_doubt``."""
    return ScalarMappable(Normalize(0, 1), _DOUBT)


def outline(axes: Axes, label: np.ndarray, labels: Sequence[Label]) -> None:
    """A model's outlines of a plane ``[row, column]``, in the labels' colors."""
    for entry in labels:
        _contour(axes, label == entry.value, colors=[rgb(entry)], linewidths=1.6)


def outline_expert(axes: Axes, label: np.ndarray, labels: Sequence[Label]) -> None:
    """An expert's outlines of a plane ``[row, column]``, white and dashed."""
    for entry in labels:
        _contour(axes, label == entry.value, halo=True, **_EXPERT)


def legend_of_outlines(figure: Figure, labels: Sequence[Label], expert: bool = True, model: bool = True) -> None:
    """Below the figure, on gray: the expert's line is white."""
    lines = [Line2D([], [], color=rgb(label), lw=2, label=f"{short(label.name)} (model)") for label in labels if model]
    if expert:
        lines.append(Line2D([], [], color="white", ls=(0, (2, 1.5)), lw=1.6, label="expert"))
    if not lines:
        return
    # About 2.4 inches an entry: a narrow figure would cut a single row off.
    columns = max(1, min(len(lines), int(figure.get_figwidth() / 2.4)))
    legend = figure.legend(handles=lines, loc="outside lower center", ncols=columns, fontsize=9, facecolor="0.35")
    for text in legend.get_texts():
        text.set_color("white")


def rgb(label: Label) -> Triple[float]:
    """A label's color, each part from 0 to 1."""
    return triple(part / 255 for part in label.color)


def short(name: str) -> str:
    """A name that fits beside a chart. Matplotlib leaves those that begin with an underscore out of legends."""
    name = f" {name}" if name.startswith("_") else name
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def _show(axes: Axes, view: View) -> None:
    low, high = np.percentile(view.scan, (1, 99.7))
    axes.imshow(view.scan, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=view.pixel[0] / view.pixel[1])
    axes.set(xticks=[], yticks=[])


def draw_outlines(axes: Axes, view: View, labels: Sequence[Label]) -> None:
    """Both outlines of a view."""
    if view.predicted is not None:
        outline(axes, view.predicted, labels)
    if view.expert is not None:
        outline_expert(axes, view.expert, labels)


def _contour(axes: Axes, mask: np.ndarray, halo: bool = False, **look: Any) -> None:
    if not mask.any():
        return
    # A frame of background closes outlines that reach the edge, and lets a single row of voxels have one.
    rows, columns = mask.shape
    lines = axes.contour(
        np.arange(-1, columns + 1), np.arange(-1, rows + 1), np.pad(mask.astype(float), 1), levels=[0.5], **look
    )
    if halo:
        lines.set_path_effects([HALO])
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def _mark_edges(axes: Axes, sides: tuple[str, str]) -> None:
    """The patient's sides at the left and the right edge."""
    for side, x, align in ((sides[0], 0.03, "left"), (sides[1], 0.97, "right")):
        look: dict[str, Any] = {"color": "white", "fontsize": 9, "va": "center", "ha": align, "path_effects": [HALO]}
        axes.text(x, 0.5, side, transform=axes.transAxes, **look)


def _of_dice(axes: Axes, limits: tuple[float, float]) -> tuple[float, float]:
    """The limits of an axis, 0.1 apart at least and without what no Dice can be; marks at 0 and 1 are drawn whole."""
    for artist in (*axes.lines, *axes.collections):
        artist.set_clip_on(False)
    more = max(0.0, 0.1 - (limits[1] - limits[0])) / 2
    low = min(max(limits[0] - more, 0.0), 0.9)
    return low, max(min(limits[1] + more, 1.0), low + 0.1)


def _plain_grid(axes: Axes) -> None:
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)


def _mean_dice(row: dict[str, Any]) -> float:
    return summarize([scores["dice"] for scores in row["labels"].values()]).mean
