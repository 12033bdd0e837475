# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from BARLSegmentationLib.logic.CaseTable import shareText
from BARLSegmentationLib.logic.Hotspots import jumpTo
from BARLSegmentationLib.logic.Outline import order
from BARLSegmentationLib.logic.Proposal import propose
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.logic.SliceViews import DRAWN_COLOR, PROPOSED_COLOR, PlaneFrames, SliceViews, sliceNodes
from BARLSegmentationLib.widgets.Filling import QUICK_SECONDS
from BARLSegmentationLib.widgets.Panel import allow, signalsBlocked

if TYPE_CHECKING:
    from types import SimpleNamespace

    from BARLSegmentationLib.logic.Drawing import Drawn, Fill, Look, Plane
    from BARLSegmentationLib.logic.Hotspots import Box
    from BARLSegmentationLib.logic.Proposal import Proposal
    from BARLSegmentationLib.logic.SpotMark import SpotMark
    from BARLSegmentationLib.widgets.DrawOnce import DrawOnce
    from BARLSegmentationLib.widgets.Filling import Filling
    from BARLSegmentationLib.widgets.HotspotTable import HotspotTable

WHOLE_SCAN, ONLY_DRAWN, ONLY_LOOKED = range(3)  # items of the box beside Accept
SHOWN_MS = 8000  # how long the window's status bar shows what the views show as well
ONLY_LOOKED_SETTING = "BARLSegmentation/AcceptTakesWhereLooked"
FOLLOW_SETTING = "BARLSegmentation/FillFollowsStrokes"


class PlanesRow(VTKObservationMixin):
    """The row of Fill and Next slice: which planes count as drawn, filling the rest, and where to draw next.

    Args:
        ui: The panel's widgets.
        filling: Fills, and holds session, correction and background.
        mark: Marks the proposed plane.
        drawOnce: Has the views drawn once for many changes.
        hotspots: The places to look at.

    Attributes:
        fillChanged: Another fill counts, or none (``Drawing.Fill`` or None).
        changed: What counts as drawn has changed.
    """

    def __init__(
        self, ui: SimpleNamespace, filling: Filling, mark: SpotMark, drawOnce: DrawOnce, hotspots: HotspotTable
    ) -> None:
        VTKObservationMixin.__init__(self)
        self.fillChanged, self.changed = Signal(), Signal()
        self.ui, self.filling, self.mark, self.drawOnce, self._hotspots = ui, filling, mark, drawOnce, hotspots
        self.session, self.correction, self.background = filling.session, filling.correction, filling.background
        self.views: SliceViews | None = None
        self.frames = PlaneFrames()
        self._proposed: Plane | None = None
        self._fill: Fill | None = None
        self._chosen = False  # what Accept takes was chosen by hand
        self._tilted = False  # a stroke was made in a view that is tilted against the voxels
        self._turnBack: list[Callable[[], None]] = []
        self._menu = qt.QMenu(ui.planesButton)
        self._menu.connect("aboutToShow()", self._fillMenu)
        ui.planesButton.setMenu(self._menu)
        ui.fillProgressBar.visible = False
        ui.fillFollowsCheckBox.checked = slicer.util.toBool(slicer.app.userSettings().value(FOLLOW_SETTING, False))
        ui.fillFollowsCheckBox.connect("toggled(bool)", self._onFollows)
        ui.fillButton.connect("clicked(bool)", self.fill)
        ui.nextSliceButton.connect("clicked(bool)", self.proposeNext)
        ui.acceptScopeComboBox.connect("activated(int)", self._onScope)
        filling.began.connect(self.update)
        filling.progressed.connect(self._onProgress)
        filling.ended.connect(self._onFillEnded)
        filling.filled.connect(lambda _filled: self.drawnChanged())

    @property
    def drawn(self) -> Drawn:
        return self.correction.drawing.drawn

    def looked(self) -> list[Box] | None:
        """What Accept takes beside what was drawn: the boxes that were looked at; None: the whole scan."""
        scope, loaded = self.ui.acceptScopeComboBox.currentIndex, self.session.loaded
        if scope == WHOLE_SCAN or loaded is None:
            return None
        seen = self._hotspots.hotspots.seenBoxes
        return seen(self.session.project.cases.grid(loaded.caseId)) if scope == ONLY_LOOKED else []

    # The case on screen, and the module's coming and going

    def begin(self) -> None:
        """Another case is open, or none."""
        loaded = self.session.loaded
        self._proposed, self._fill, self._chosen = None, None, False
        if loaded is None:
            self._leaveViews()
            self.views = None
        else:
            self.views = SliceViews(loaded.volumes[0], self.session.project.cases.grid(loaded.caseId))
            self._turnBack += self.views.align()
            self.enter()
        self.drawnChanged()

    def enter(self) -> None:
        if self.views is None:
            return
        self.removeObservers(self._onView)
        for node in sliceNodes():
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onView)
        self._showFrames()

    def exit(self) -> None:
        self.removeObservers(self._onView)
        self.frames.remove()

    def _leaveViews(self) -> None:
        self.exit()
        for turnBack in self._turnBack:
            turnBack()
        self._turnBack = []

    def cleanup(self) -> None:
        self.exit()
        self.removeObservers()
        self.filling.close()

    # What counts as drawn

    def onEdit(self) -> None:
        """Somebody has changed the outline: in the plane under the mouse, if the mouse is over a view."""
        node = self.views.underMouse() if self.views is not None else None
        if node is None or self.filling.editor.isByProgram:
            return
        plane = self.views.plane(node)
        self._tilted = plane is None
        if plane is not None:
            self.correction.drawing.note(plane)

    def onLooked(self, look: Look) -> None:
        """The outline was compared with the one before the last strokes."""
        byHand = look.changed is not None
        if self.correction.drawing.take(look):
            if self._tilted and byHand and not look.planes:
                text = _("The view is tilted against the voxels of the scan, so no slice was ticked as drawn.")
                self.session.status(text)
            self._tilted = False
            self.drawnChanged()
            self.filling.prepare()
            quick = self.filling.seconds is not None and self.filling.seconds <= QUICK_SECONDS
            if byHand and look.planes and quick and self.drawn.fill is not None and self.ui.fillFollowsCheckBox.checked:
                self.filling.start(follows=True)

    def tick(self, plane: Plane, on: bool) -> None:
        """Count a plane as drawn, or not."""
        self.correction.drawing.tick(plane, on)
        self.drawnChanged()

    def tickUnderMouse(self) -> None:
        """Count the slice under the mouse as drawn, also if nothing is in it, or no longer."""
        node = self.views.underMouse() if self.views is not None else None
        plane = self.views.plane(node) if node is not None else None
        if plane is None:
            self.session.status(_("Point at the slice that is to count as drawn (D)."))
            return
        on = plane not in self.drawn.planes
        self.tick(plane, on)
        text = _("{plane} counts as drawn.") if on else _("{plane} does not count as drawn.")
        slicer.util.showStatusMessage(text.format(plane=_capital(self.views.name(plane))), SHOWN_MS)

    def drawnChanged(self) -> None:
        """Show what counts as drawn."""
        if self.drawn.fill is not self._fill:
            self._fill = self.drawn.fill
            self.fillChanged.emit(self._fill)
        self._showFrames()
        self._chooseScope()
        self.update()
        self.changed.emit()

    def _fillMenu(self) -> None:
        self._menu.clear()
        if self.views is None:
            return
        shown = {plane for node in sliceNodes(onScreen=True) if (plane := self.views.plane(node)) is not None}
        for title, planes in ((_("On screen"), shown), (_("Drawn"), set(self.drawn.planes) - shown)):
            if planes:
                self._menu.addSection(title)
            for plane in sorted(planes):
                action = self._menu.addAction(_capital(self.views.name(plane)))
                action.checkable = True
                action.checked = plane in self.drawn.planes
                action.connect("toggled(bool)", lambda on, plane=plane: self.tick(plane, on))

    def _chooseScope(self) -> None:
        """Propose what Accept takes: only what was drawn, as long as nothing has made the rest; where the user has
        looked, if that was chosen last and there are places to look at."""
        isOpen, places = self.session.loaded is not None, bool(self._hotspots.hotspots.spots)
        allowed = isOpen and (places or not self.drawn.isEmpty)
        self.ui.acceptScopeComboBox.enabled = allowed
        if not allowed or not self._chosen:
            alone = isOpen and not self.drawn.isEmpty and not self.drawn.filledBy and not self._hasPrior()
            scope = ONLY_DRAWN if alone else WHOLE_SCAN
            if allowed and places and slicer.util.toBool(slicer.app.userSettings().value(ONLY_LOOKED_SETTING, False)):
                scope = ONLY_LOOKED
            with signalsBlocked(self.ui.acceptScopeComboBox):
                self.ui.acceptScopeComboBox.currentIndex = scope

    def _hasPrior(self) -> bool:
        """There is an outline of the whole scan to go by: a prediction, or what somebody has stored."""
        return self.session.ask(self.correction.prior, otherwise=None) is not None

    def _onScope(self, index: int) -> None:
        self._chosen = True
        slicer.app.userSettings().setValue(ONLY_LOOKED_SETTING, index == ONLY_LOOKED)

    # Views

    def _onView(self, _caller: object = None, _event: object = None) -> None:
        self._showFrames()

    def _showFrames(self) -> None:
        colors = {}
        for node in sliceNodes() if self.views is not None and self.views.volume.GetScene() is not None else ():
            plane = self.views.plane(node)
            if plane is not None and plane in self.drawn.planes:
                colors[node.GetLayoutName()] = DRAWN_COLOR
            elif plane is not None and plane == self._proposed:
                colors[node.GetLayoutName()] = PROPOSED_COLOR
        self.frames.show(colors)

    # Fill

    def fill(self, _checked: bool = False) -> None:
        """Make the rest from what was drawn; while that is under way, end it."""
        if self.filling.isBusy:
            self.filling.cancel()
        elif self.session.loaded is None:
            self.session.status(_("Open a case first."))
        else:
            self.filling.start()

    def _onProgress(self, fraction: float) -> None:
        bar = self.ui.fillProgressBar
        self.ui.fillLabel.visible = False
        bar.visible = True
        bar.value = round(100 * fraction)
        self.ui.fillButton.text = _("Cancel")

    def _onFillEnded(self, text: str, isError: bool) -> None:
        self.ui.fillProgressBar.visible = False
        self.ui.fillLabel.visible = True
        self.ui.fillButton.text = _("Fill")
        if text:
            self.session.status(text, isError)
        self.update()

    def _onFollows(self, checked: bool) -> None:
        slicer.app.userSettings().setValue(FOLLOW_SETTING, checked)

    # Next slice

    def proposeNext(self, _checked: bool = False) -> None:
        """Turn a view to the plane whose outlining would settle most."""
        loaded = self.session.loaded
        if loaded is None:
            self.session.status(_("Open a case first."))
            return
        drawn, labels = self.drawn, self.correction.drawing.labels()
        node = loaded.uncertainty if loaded.uncertainty is not None and loaded.uncertainty.GetScene() else None
        uncertainty = None
        if node is not None:
            uncertainty = slicer.util.arrayFromVolume(node)[order(node, self.views.grid)]
        caseId = loaded.caseId
        self.background.submit(
            lambda: propose(drawn, labels, uncertainty), lambda future: self._onProposed(caseId, future), "plane"
        )

    def _onProposed(self, caseId: str, future: Future) -> None:
        proposal = future.result()
        if caseId != self.session.caseId:
            return
        if proposal is None:
            self._proposed = None
            self.session.status(self._whyNone())
        else:
            self._show(proposal)

    def _whyNone(self) -> str:
        if self.drawn.fill is not None:
            return _("No slice is left whose outlining would settle more.")
        if self.drawn.isEmpty:
            return _("Outline the structure in one slice first, where it is large.")
        return _("Press Fill (L) first: it shows where the outline is still unsure.")

    def _show(self, proposal: Proposal) -> None:
        self._proposed = proposal.plane
        volume = self.views.volume
        self._turnBack += self.views.align()
        spacing = volume.GetSpacing()[::-1]
        extent = max(n * s for n, s in zip(proposal.extent, spacing, strict=True))
        name = self.views.name(proposal.plane)
        with self.drawOnce:
            world = jumpTo(self.views.position(proposal.center), volume, extentMm=extent)
            node = self.views.nodeOf(proposal.plane[0])
            text = _("Correct this slice: {plane}") if self._hasPrior() else _("Outline this slice: {plane}")
            self.mark.show(world, text.format(plane=name), [node.GetLayoutName()] if node is not None else [])
            self._showFrames()
        self.correction.clock.tick()
        if node is None:
            text = _("Next slice: {plane}. No view on screen shows slices of this direction: choose a layout with one.")
            self.session.status(text.format(plane=name))
            return
        slicer.util.showStatusMessage(_("Next slice: {plane}. Then press Fill (L).").format(plane=name), SHOWN_MS)

    # Texts

    def update(self) -> None:
        ui, drawn = self.ui, self.drawn
        isOpen = self.session.loaded is not None
        closed = "" if isOpen else _("Open a case first")
        allow(ui.fillButton, _("Make the rest of the outline from the slices that were drawn (L)"), closed)
        allow(ui.nextSliceButton, _("Turn a view to the slice whose outlining would settle most (S)"), closed)
        share = _("{share} of the scan").format(share=shareText(drawn.share())) if drawn.planes else _("none")
        tip = _("Slices that count as drawn, background included: {share}. D ticks the slice under the mouse.")
        allow(ui.planesButton, tip.format(share=share), closed)
        ui.planesButton.text = _("{count} drawn").format(count=len(drawn.planes))
        ui.fillLabel.text, ui.fillLabel.toolTip = self._fillText() if isOpen else ("", "")

    def _fillText(self) -> tuple[str, str]:
        drawn, fill = self.drawn, self.drawn.fill
        if self.filling.isBusy:
            return _("Filling…"), ""
        if fill is None:
            if not drawn.isEmpty:
                return _("Not filled yet"), ""
            return (_("Correct a slice, then Fill") if self._hasPrior() else _("Outline a slice, then Fill")), ""
        if drawn.planes != fill.planes or len(drawn.strokes) != fill.strokes:
            return _("Drawn on since Fill"), ""
        volumes = _("{volume:.1f} ml, unsure {unsure:.1f} ml").format(unsure=fill.unsureMl, volume=fill.volumeMl)
        tip = _("Unsure: volume in which the fill gives no label 89 % or more, inside and outside of the outline")
        if fill.expected is None:
            return volumes, tip
        return self._expectedText(**fill.expected), f"{volumes}\n{tip}\n" + _(
            "Expected Dice: calibrated on outlines by experts of one structure in one piece; the mean error was 0.01"
        )

    @staticmethod
    def _expectedText(dice: float, planes: int, dice_after: float) -> str:
        if not planes:
            return _("Expected Dice {dice:.2f}").format(dice=dice)
        if planes == 1:
            return _("1 more slice: expected Dice {dice:.2f}").format(dice=dice_after)
        return _("{count} more slices: expected Dice {dice:.2f}").format(count=planes, dice=dice_after)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
