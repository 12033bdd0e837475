# SPDX-License-Identifier: Apache-2.0
"""Draws the icons and thumbnails (python Resources/Icons/draw.py), from nothing but this file and simulated cases.

Icon: a lesion in a slice, as each of the two branches outlines it. Thumbnails of Sample Data: simulated cases of
``barl.demo.simulate`` (needs nilearn), never a patient and never the sample itself.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

HERE = Path(__file__).resolve().parent
MODULE_ICONS = HERE.parents[1] / "BARLSegmentation" / "Resources" / "Icons"
MODULE_ICON = MODULE_ICONS / "BARLSegmentation.png"
NAVY, PAPER, BLUE, ORANGE = "#14283c", "#e9eef3", "#2f86d0", "#f07f33"
PIXEL = 72 / 128  # line widths in pixels of the 128-pixel icon


def blob(x: float, y: float, size: float, turn: float) -> np.ndarray:
    """Corner points [n, 2] of an irregular closed outline around (x, y)."""
    angle = np.linspace(0, 2 * np.pi, 240)
    radius = size * (1 + 0.14 * np.cos(2 * (angle - turn)) + 0.09 * np.cos(3 * (angle + turn)))
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def draw(path: Path, pixels: int = 128) -> None:
    figure = plt.figure(figsize=(1, 1), dpi=pixels)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.axis("off")
    axes.add_patch(
        FancyBboxPatch((0.07, 0.07), 0.86, 0.86, boxstyle="round,pad=0.05,rounding_size=0.2", fc=NAVY, ec="none")
    )
    axes.add_patch(Polygon(blob(0.5, 0.5, 0.37, 0.4), fc=PAPER, ec="none"))
    branches = {BLUE: blob(0.44, 0.53, 0.18, 0.9), ORANGE: blob(0.56, 0.46, 0.18, 0.3)}
    for color, points in branches.items():
        axes.add_patch(Polygon(points, fc=color, ec="none", alpha=0.35))
    for color, points in branches.items():
        axes.add_patch(Polygon(points, fc="none", ec=color, lw=8 * PIXEL, joinstyle="round"))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=pixels, transparent=True, metadata={"Software": None})
    plt.close(figure)


def thumbnails() -> None:
    """260 x 280 pixels, as Sample Data shows them: a slice with a region; four slices of which one is outlined."""
    import SimpleITK as sitk
    from barl.demo.simulate import simulate_case

    cases = []
    for seed in range(4):
        image, label = (sitk.GetArrayFromImage(item) for item in simulate_case(np.random.default_rng(seed)))
        cases.append((image, label, int(np.argmax(label.sum(axis=(1, 2))))))  # the slice with the most lesion

    figure = plt.figure(figsize=(2.6, 2.8), dpi=100, facecolor="black")
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    image, label, k = cases[0]
    axes.imshow(image[k], cmap="gray", aspect="equal")
    rows, columns = np.nonzero(label[k])
    left, top, margin = columns.min(), rows.min(), 5
    size = np.ptp(columns) + 2 * margin, np.ptp(rows) + 2 * margin
    axes.add_patch(Rectangle((left - margin, top - margin), *size, fc="none", ec=ORANGE, lw=2.5))
    axes.axis("off")
    _save(figure, MODULE_ICONS / "BARLHead.png")

    figure = plt.figure(figsize=(2.6, 2.8), dpi=100, facecolor="black")
    for n, (image, label, k) in enumerate(cases):
        axes = figure.add_axes((0.01 + 0.5 * (n % 2), 0.505 - 0.495 * (n // 2), 0.48, 0.485))
        axes.imshow(image[k], cmap="gray", aspect="equal")
        if n == 0:
            axes.contour(label[k], levels=[0.5], colors=[ORANGE], linewidths=1.8)
        axes.axis("off")
    _save(figure, MODULE_ICONS / "BARLHippocampus.png")


def _save(figure, path: Path) -> None:
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(HERE / "BARLExtension.png")
    draw(MODULE_ICON)
    thumbnails()
