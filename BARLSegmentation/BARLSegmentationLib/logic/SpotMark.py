# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable, Sequence

import slicer
import vtk

_COLOR = (1.0, 0.9, 0.4)
_FONT_SIZE = 15
_CORNER = (0.02, 0.97)  # of a view, from its lower left
_LAYER = 5  # above images and outlines


class SpotMark:
    """Marks a point in all views: Slicer's crosshair on it, and a text in the upper left corner of the slice views.

    The crosshair is the user's: its mode and thickness come back when the mark goes. Text of our own, because Slicer
    writes the views' corner annotations anew at every change.
    """

    def __init__(self) -> None:
        self._before: tuple[int, int] | None = None  # mode and thickness of the crosshair
        self._texts: list[tuple[vtk.vtkRenderer, vtk.vtkTextActor]] = []

    @property
    def isShown(self) -> bool:
        return self._before is not None

    def show(self, world: Iterable[float], text: str, views: Sequence[str] | None = None) -> None:
        """Mark a point.

        Args:
            world: RAS in mm.
            text: One line.
            views: Names of the views with the text; None: all.
        """
        crosshair = self._crosshair()
        if crosshair is None:
            return
        if self._before is None:
            self._before = crosshair.GetCrosshairMode(), crosshair.GetCrosshairThickness()
        modified = crosshair.StartModify()
        crosshair.SetCrosshairRAS(*world)
        crosshair.SetCrosshairMode(crosshair.ShowSmallBasic)
        crosshair.SetCrosshairToMedium()
        crosshair.EndModify(modified)
        self._showText(text, views)

    def remove(self) -> None:
        """Take the mark out of the views."""
        self._removeTexts()
        if self._before is None:
            return
        mode, thickness = self._before
        self._before = None
        crosshair = self._crosshair()
        if crosshair is not None:
            crosshair.SetCrosshairMode(mode)
            crosshair.SetCrosshairThickness(thickness)

    @staticmethod
    def _crosshair() -> slicer.vtkMRMLCrosshairNode | None:
        return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")

    def _showText(self, text: str, views: Sequence[str] | None) -> None:
        self._removeTexts()
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames() if manager is not None else ():
            if views is not None and name not in views:
                continue
            view = manager.sliceWidget(name).sliceView()
            renderer = view.renderWindow().GetRenderers().GetFirstRenderer()
            if renderer is None:
                continue
            actor = vtk.vtkTextActor()
            actor.SetInput(text)
            actor.SetLayerNumber(_LAYER)
            actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
            actor.SetPosition(*_CORNER)
            style = actor.GetTextProperty()
            style.SetColor(*_COLOR)
            style.SetFontSize(_FONT_SIZE)
            style.SetVerticalJustificationToTop()
            style.ShadowOn()
            renderer.AddViewProp(actor)
            self._texts.append((renderer, actor))
            view.scheduleRender()

    def _removeTexts(self) -> None:
        for renderer, actor in self._texts:
            renderer.RemoveViewProp(actor)
        self._texts = []
