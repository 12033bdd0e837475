# SPDX-License-Identifier: Apache-2.0
"""Colors that color-blind people can tell apart, too (Okabe and Ito), for labels and for figures."""

from __future__ import annotations

import colorsys

# Red, green and blue from 0 to 255.
Color = tuple[int, int, int]

OKABE_ITO: dict[str, Color] = {
    "orange": (230, 159, 0),
    "sky": (86, 180, 233),
    "green": (0, 158, 115),
    "yellow": (240, 228, 66),
    "blue": (0, 114, 178),
    "vermilion": (213, 94, 0),
    "purple": (204, 121, 167),
}
# Yellow vanishes on white.
FIGURE_COLORS = ("blue", "vermilion", "green", "purple", "orange", "sky")


def label_color(position: int) -> Color:
    """A color for the n-th label, unlike those before; black and white would vanish on a scan."""
    colors = list(OKABE_ITO.values())
    if position < len(colors):
        return colors[position]
    hue = (position * 0.618) % 1  # the golden ratio keeps neighbors apart
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.6, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def hexadecimal(name: str) -> str:
    """A color of ``OKABE_ITO`` such as ``#0072b2``."""
    return "#{:02x}{:02x}{:02x}".format(*OKABE_ITO[name])
