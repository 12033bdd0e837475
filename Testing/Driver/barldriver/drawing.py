# SPDX-License-Identifier: Apache-2.0
"""Outlining a structure in a slice with the mouse, as a person does who sees it."""

from __future__ import annotations

import numpy as np
from slicerhost.clicks import strike, waitUntil

VIEWS = ("Red", "Green", "Yellow")
_STEP = 0.25  # voxels


def planeOf(panel, view: str):
    """Axis of ``[k, j, i]`` and index of the slice that a view shows."""
    import slicer

    return panel.planes.views.plane(slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode())


def outlineSlice(panel, view: str, structure: np.ndarray, name: str) -> None:
    """Outline a structure in the slice that a view shows, with the Draw effect.

    Args:
        panel: The panel of the step Review.
        view: ``Red``, ``Green`` or ``Yellow``.
        structure: bool ``[k, j, i]``; its cut must be seen whole from its middle.
        name: Of the segment.
    """
    import qt
    import slicer
    from slicerhost import hands

    axis, index = planeOf(panel, view)
    toWorld = panel.planes.views.toWorld()
    points = [(toWorld @ [*np.insert(place, axis, index)[::-1], 1.0])[:3] for place in contour(structure, axis, index)]
    editor = panel.editor.widget
    segments = panel.correction.segmentation.GetSegmentation()
    editor.setCurrentSegmentID(segments.GetSegmentIdBySegmentName(name))
    editor.setActiveEffectByName("Draw")
    slicer.app.processEvents()
    widget = slicer.app.layoutManager().sliceWidget(view)
    hands.drag(widget, *points, points[0])
    strike(widget.sliceView().VTKWidget(), qt.Qt.Key_Return)
    waitUntil(lambda: panel.isIdle)


def contour(structure: np.ndarray, axis: int, index: int) -> list[np.ndarray]:
    """Points around a structure in a slice, in voxels of the slice."""
    cut = np.pad(np.take(structure, index, axis=axis), 1)
    middle, points = np.argwhere(cut).mean(axis=0), []
    for angle in np.linspace(0, 2 * np.pi, 40, endpoint=False):
        direction, radius = np.array([np.cos(angle), np.sin(angle)]), 0.0
        while cut[tuple(np.rint(middle + direction * (radius + _STEP)).astype(int))]:
            radius += _STEP
        points.append(middle + direction * radius - 1)
    return points


def pressKey(panel, name: str, modifier: str = "NoModifier") -> None:
    """Press a key while the panel has the focus, and wait until what it starts is done.

    Args:
        panel: The panel.
        name: Of the key, as Qt's ``Key_<name>``.
        modifier: Qt's name of a modifier, or several with ``|`` between.
    """
    import qt

    strike(panel.widget, getattr(qt.Qt, f"Key_{name}"), *(getattr(qt.Qt, part) for part in modifier.split("|")))
    waitUntil(lambda: panel.isIdle)
