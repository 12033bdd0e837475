# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.CaseLoader import REVISION_ATTRIBUTE
from BARLSegmentationLib.logic.Correction import Correction, leftOutText
from BARLSegmentationLib.logic.Difference import lastTwo, showDifference
from BARLSegmentationLib.logic.Hotspots import HotSpotList, jumpTo
from BARLSegmentationLib.logic.Outline import order
from BARLSegmentationLib.logic.SpotMark import SpotMark
from BARLSegmentationLib.logic.Words import readOnlyReason
from BARLSegmentationLib.widgets.Background import Background
from BARLSegmentationLib.widgets.DrawOnce import DrawOnce
from BARLSegmentationLib.widgets.EditorParts import moveUndo
from BARLSegmentationLib.widgets.Filling import Filling
from BARLSegmentationLib.widgets.HotspotTable import HotspotTable
from BARLSegmentationLib.widgets.Keys import Keys
from BARLSegmentationLib.widgets.LesionTable import LesionTable
from BARLSegmentationLib.widgets.OutlineEditor import OutlineEditor
from BARLSegmentationLib.widgets.Panel import Panel, allow
from BARLSegmentationLib.widgets.PlanesRow import PlanesRow
from BARLSegmentationLib.widgets.Storing import Storing
from BARLSegmentationLib.widgets.UncertaintyView import UncertaintyView
from BARLSegmentationLib.widgets.VolumesTable import VolumesTable

if TYPE_CHECKING:
    from barl.project.records import Case
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget

    from BARLSegmentation import BARLSegmentationParameterNode
    from BARLSegmentationLib.logic.Drawing import Fill, Look
    from BARLSegmentationLib.logic.Hotspots import HotSpot
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

EDIT_PAUSE_MS = 400  # after the last edit, before volumes are counted
TICKS_PAUSE_MS = 1000  # after the last tick, before the journal is written: it waits for the disk
_UNKNOWN_EXTENT_MM = 10.0  # of a hot-spot from a project of an older version
READER_SETTING = "BARLSegmentation/Reader"
GO_ON_SETTING = "BARLSegmentation/AcceptOpensNextCase"


class ReviewPanel(Panel):
    """Shows where the model was unsure, lets the outline be corrected there, and takes it back into the project."""

    uiName = "ReviewPanel"

    def __init__(self, session: Session, worker: WorkerLink, moduleWidget: ScriptedLoadableModuleWidget) -> None:
        super().__init__(session, worker, moduleWidget)
        self.correction, self.mark = Correction(session), SpotMark()
        self.editor = None
        self._entered = False

    def setup(self) -> None:
        ui, session = self.ui, self.session
        self._editTimer = self._timer(EDIT_PAUSE_MS, self.onEditPause)
        self._ticksTimer = self._timer(TICKS_PAUSE_MS, self.storeTicks)
        self.background = Background(self.widget)
        self.drawOnce = DrawOnce(self.widget)
        self.hotspots = HotspotTable(ui.hotspotsTable)
        self.hotspots.chosen.connect(self.onHotspotChosen)
        self.hotspots.ticked.connect(self.onTicked)
        self.editor = OutlineEditor()
        looked, preview = (lambda: self.planes.looked()), self.editor.previewText
        self.storing = Storing(session, self.correction, self.background, self.reader, self._goOn, looked, preview)
        self.editor.changed.connect(self.onEdit)
        self.editor.nodeChanged.connect(self._editTimer.start)
        ui.outlineWidget.layout().addWidget(self.editor.widget)
        moveUndo(self.editor.widget, ui.switchesLayout)
        self.uncertainty = UncertaintyView(ui, session, self.editor, self.background, self.widget)
        self.filling = Filling(session, self.correction, self.editor, self.background, self.drawOnce, self.widget)
        self.planes = PlanesRow(ui, self.filling, self.mark, self.drawOnce, self.hotspots)
        self.planes.fillChanged.connect(self.onFillChanged)
        self.planes.changed.connect(self.update)
        self.storing.changed.connect(self.planes.drawnChanged)
        self.volumes = VolumesTable(ui.volumesTable)
        self.lesions = LesionTable(ui, session, self.correction, self.background)
        ui.readerLineEdit.text = slicer.app.userSettings().value(READER_SETTING, "") or self.reader()

        ui.nextHotspotButton.connect("clicked(bool)", self.onNextHotspot)
        ui.previousHotspotButton.connect("clicked(bool)", self.onPreviousHotspot)
        ui.acceptButton.connect("clicked(bool)", self.onAccept)
        ui.saveDraftButton.connect("clicked(bool)", self.onSaveDraft)
        ui.revertButton.connect("clicked(bool)", self.onRevert)
        ui.differenceButton.connect("clicked(bool)", self.onDifference)
        ui.nextCaseButton.connect("clicked(bool)", self.onNextCase)
        ui.detailsButton.connect("toggled(bool)", ui.detailsWidget.setVisible)
        ui.readerLineEdit.connect("editingFinished()", self.onReader)
        ui.goOnCheckBox.checked = slicer.util.toBool(slicer.app.userSettings().value(GO_ON_SETTING, True))
        ui.goOnCheckBox.connect("toggled(bool)", self.onGoOn)
        ui.moreOfEditorCheckBox.connect("toggled(bool)", self.editor.showMore)
        session.projectChanged.connect(self.update)
        session.caseOpened.connect(self.onCaseOpened)
        session.beforeClose.connect(self.onBeforeClose)
        session.casesChanged.connect(self.update)
        session.definitionChanged.connect(self.onDefinition)
        self.keys = Keys(ui.keysButton, self._keys())
        self.planes.update()

    def setPauses(self, milliseconds: int) -> None:
        """Make the pauses before updates shorter or longer, as for tests."""
        for timer in (self._editTimer, self.uncertainty.pause, self._ticksTimer):
            timer.setInterval(milliseconds)

    def _timer(self, milliseconds: int, slot: Callable[[], None]) -> qt.QTimer:
        timer = qt.QTimer(self.widget)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.connect("timeout()", slot)
        return timer

    def _keys(self) -> list[tuple[str, str, Callable[[], None]]]:
        """Keys that neither Slicer nor the Segment Editor uses, what they do, and what does it."""
        return [
            ("L", _("fill the outline from the drawn slices"), self.planes.fill),
            ("S", _("next slice to outline"), self.planes.proposeNext),
            ("D", _("count the slice under the mouse as drawn, or not"), self.planes.tickUnderMouse),
            ("N", _("next hot-spot"), self.onNextHotspot),
            ("Shift+N", _("hot-spot before"), self.onPreviousHotspot),
            ("U", _("show or hide the uncertainty"), self.uncertainty.toggle),
            ("E", _("edit only where unsure, or everywhere"), self.uncertainty.toggleLimit),
            ("Ctrl+Return", _("accept"), self.onAccept),
            ("Ctrl+Shift+N", _("next case without accepting"), self.onNextCase),
        ]

    @property
    def isIdle(self) -> bool:
        timers = (self._editTimer, self.uncertainty.pause, self._ticksTimer)
        waits = self.storing.isBusy or self.filling.isBusy or any(timer.isActive() for timer in timers)
        return not waits and self.drawOnce.isIdle and self.editor.isIdle and not self.background.isBusy()

    # In and out of the module

    def enter(self) -> None:
        self._entered = True
        self.editor.enter()
        self.uncertainty.enter()
        self.planes.enter()
        super().enter()

    def exit(self) -> None:
        self._entered = False
        self.mark.remove()
        self.keys.enable(False)
        self.uncertainty.exit()
        self.planes.exit()
        self.editor.exit()
        super().exit()

    def opened(self) -> None:
        if self._entered:
            self.keys.enable(True)
            self.editor.enableKeys(True)

    def left(self) -> None:
        self.mark.remove()
        self.keys.enable(False)
        self.editor.enableKeys(False)
        self.editor.stop()

    def sceneCloses(self) -> None:
        self.mark.remove()
        self.planes.exit()
        self.editor.sceneCloses()

    def cleanup(self) -> None:
        self.mark.remove()
        self.planes.cleanup()
        self.background.close()
        self.drawOnce.close()
        for timer in (self._editTimer, self.uncertainty.pause, self._ticksTimer):
            timer.stop()
        self.keys.remove()
        self.editor.cleanup()
        super().cleanup()

    def setParameterNode(self, node: BARLSegmentationParameterNode | None) -> None:
        super().setParameterNode(node)
        if self.editor is None:
            return
        self.uncertainty.parameterNode = node
        if node is not None:
            self.editor.selectNode()
            if self._entered:
                self.editor.observeViews()
            self.uncertainty.show()

    # The case on screen

    def onCaseOpened(self) -> None:
        self.mark.remove()
        with self.session.reporting():
            self.correction.begin()
        loaded = self.session.loaded
        self.editor.show(loaded.segmentation if loaded else None, loaded.volumes if loaded else [])
        project, caseId = self.session.project, self.session.caseId
        self.hotspots.show(self.session.ask(HotSpotList, project, caseId, otherwise=HotSpotList()))
        self.uncertainty.begin()
        self.planes.begin()
        self._showVolumes({})
        self.lesions.clear()
        self.update()
        if loaded is not None:
            self.uncertainty.limit()
            self._editTimer.start()  # volumes are counted once the case is on screen

    def onDefinition(self, labels: list) -> None:
        """Labels of the project were added or renamed: the case on screen follows."""
        self.correction.takeLabels(labels)
        self.editor.fitSegments()
        self._editTimer.start()

    def onBeforeClose(self) -> None:
        """The case is about to close: store an unsaved edit as a draft."""
        self.storeTicks()
        refused, preview = self.storing.finish(), self.editor.previewText()
        self.editor.stop()
        outline, said = self.correction.segmentation, []
        if outline is not None and outline.GetScene() is not None:
            stored = self.session.ask(self.correction.keep, self.reader(), otherwise=None)
            if stored is not None:
                self.session.notifyCases()
                said.append(_("Your edit of {name} was kept as a draft.").format(name=self.session.case().name))
                said += [*stored.notes(), *([preview] if preview else [])]
            elif self.correction.isChanged():
                return  # why it could not be stored is on the status line
            elif left := self.correction.leftOut():
                said.append(leftOutText(left))
        if self.session.loaded is not None and (changed := self.session.loaded.changedVolumes()):
            text = _("{names}: changed in the scene and kept there; the project keeps the scan as it was added.")
            said.append(text.format(names=", ".join(node.GetName() for node in changed)))
        if refused or said:
            self.session.status(" ".join(filter(None, [refused, *said])), error=bool(refused))

    def update(self) -> None:
        loaded, case = self.session.loaded, None
        if loaded is not None:
            case = self.session.ask(self.session.case, otherwise=None)
        self.ui.caseLabel.text = self._caseText(case)
        ui, spots = self.ui, self.hotspots.hotspots.spots
        ui.uncertaintyWidget.enabled = self.uncertainty.node() is not None
        for widget in (ui.outlineWidget, ui.volumesTable):
            widget.enabled = loaded is not None
        ui.hotspotsWidget.enabled = bool(spots)
        noSpot = "" if spots else (_("The case has no hot-spots") if loaded is not None else _("Open a case first"))
        allow(ui.nextHotspotButton, _("Center all views on the next hot-spot that was not looked at (N)"), noSpot)
        allow(ui.previousHotspotButton, _("Back to the one before that was not looked at (Shift+N)"), noSpot)
        allow(
            ui.nextCaseButton,
            _("Open the case proposed in the step Cases (Ctrl+Shift+N); an edit of this one is kept as a draft"),
            "" if self.session.project is not None else _("Open a project first"),
        )
        unknown = "" if ui.uncertaintyWidget.enabled else _("The case has no prediction")
        allow(ui.overlayVisibleCheckBox, _("Show where the model was unsure, in color over the scan (U)"), unknown)
        allow(
            ui.onlyWhereUnsureCheckBox,
            _("Painting and erasing change the outline only where the uncertainty reaches the threshold (E)"),
            unknown,
        )
        self._showHotspotCount()
        self._updateButtons(case)

    def _caseText(self, case: Case | None) -> str:
        if case is None:
            return _("Open a case to review: double-click it in the step Cases.")
        revision = self.session.loaded.revision
        if revision is None:
            text = _("{name} has no outline yet: draw one below.")
        else:
            text = {
                "prediction": _("{name}: predicted by {author}."),
                "draft": _("{name}: draft by {author}."),
                "accepted": _("{name}: accepted by {author}."),
            }[revision.kind]
        edited = " " + _("Edited, not stored.") if self.correction.isChanged() else ""
        warning = " " + warning if revision is not None and (warning := self._warning()) else ""
        return text.format(name=case.name, author=revision.author if revision else "") + edited + warning

    def _warning(self) -> str:
        """That the model has met a scan unlike those it has learned from; the tooltip of the case says in what."""
        from barl.images.familiarity import UNLIKE, is_unlike

        prediction = self.hotspots.hotspots.prediction
        notes = prediction.details.get("notes", []) if prediction is not None else []
        unlike = [note for note in notes if is_unlike(note)]
        self.ui.caseLabel.toolTip = " ".join(unlike)
        return f"{UNLIKE}." if unlike else ""

    def _updateButtons(self, case: Case | None) -> None:
        ui, project = self.ui, self.session.project
        reason = ""
        if case is None:
            reason = _("Open a case first")
        elif self.storing.isBusy:
            reason = _("The outline is being stored")
        else:
            reason = readOnlyReason(project)
        accepted = not reason and self.correction.isAccepted()
        changed = not reason and self.correction.isChanged()
        predicted = case is not None and self.hotspots.hotspots.prediction is not None
        allow(
            ui.acceptButton,
            _("Keep this outline as the right one and learn from it in the next training (Ctrl+Return)"),
            reason or (_("This outline is accepted already") if accepted else ""),
        )
        allow(
            ui.saveDraftButton,
            _("Keep this outline in the project to go on later"),
            reason or ("" if changed else _("Nothing has changed since it was stored")),
        )
        two = case is not None and self.session.ask(lastTwo, project, case.id, otherwise=None) is not None
        allow(
            ui.differenceButton,
            _("Segments of what the newest prediction gained and lost against that of the model before"),
            "" if two else _("The case has no predictions of two models"),
        )
        allow(
            ui.revertButton,
            _("Replace the outline by the newest prediction; an edit is kept as a draft before"),
            reason or ("" if predicted else _("The case has no prediction")),
        )

    def reader(self) -> str:
        """The name that was typed, the user's name from Slicer's settings, or the one from the operating system."""
        user = slicer.app.applicationLogic().GetUserInformation()
        return self.ui.readerLineEdit.text.strip() or user.GetName() or user.GetLogin() or _("reader")

    def onReader(self) -> None:
        slicer.app.userSettings().setValue(READER_SETTING, self.ui.readerLineEdit.text.strip())

    # Hot-spots

    def onHotspotChosen(self, spot: HotSpot) -> None:
        self._showHotspotCount()
        with self.drawOnce:
            world = jumpTo(spot.position, self.session.loaded.volumes[0], extentMm=spot.extentMm or _UNKNOWN_EXTENT_MM)
            text = _("Hot-spot {rank} of {count}: {label}, {volume:.2f} ml")
            count = len(self.hotspots.hotspots.spots)
            label = spot.label or _("unknown")
            self.mark.show(world, text.format(rank=spot.rank, count=count, label=label, volume=spot.volumeMl))
        self.correction.clock.tick()

    def onNextHotspot(self, _checked: bool = False) -> None:
        self.hotspots.step(1)

    def onPreviousHotspot(self, _checked: bool = False) -> None:
        self.hotspots.step(-1)

    def onTicked(self) -> None:
        self._showHotspotCount()
        self._ticksTimer.start()

    def storeTicks(self) -> None:
        """Write the journal beside the window: the project may be held by another program for seconds."""
        self._ticksTimer.stop()
        if self.session.project is not None and not self.session.project.read_only:
            self.background.submit(self.hotspots.hotspots.store, self._onTicksStored)

    def _onTicksStored(self, future: Future) -> None:
        self.session.ask(future.result, otherwise=None)

    def _showHotspotCount(self) -> None:
        found, current = self.hotspots.hotspots, self.hotspots.current()
        if found.spots:
            place = _("{rank} of {count}").format(rank=current.rank if current else "–", count=len(found.spots))
            text = _("Hot-spot {place}, {seen} seen").format(place=place, seen=len(found.seen))
        else:
            text = _("The prediction is sure everywhere") if found.prediction else ""
        self.ui.hotspotsLabel.text = text

    # Edits

    def onEdit(self) -> None:
        self.mark.remove()
        self.correction.clock.tick()
        self.planes.onEdit()
        self._editTimer.start()

    def onEditPause(self) -> None:
        """Volumes and texts follow the outline."""
        if self.session.loaded is None:
            return
        if self.editor.attention.node() is not None and not self.editor.attention.isOn():
            # By the editor's own switch or its key I: the tick must not say otherwise.
            self.ui.onlyWhereUnsureCheckBox.checked = False
        self.correction.mark()
        self.update()
        snapshot = self.session.ask(self.correction.snapshot, otherwise=None)
        if snapshot is not None:
            caseId, looking = self.session.caseId, self.correction.drawing.looking()

            def look() -> tuple[dict[int, float], Look]:
                labelMap, _overlaps = snapshot.labelMap()
                return snapshot.volumes(labelMap), looking(labelMap)

            self.background.submit(look, lambda future: self._onLooked(caseId, future), replaces="look")
            self.lesions.refresh()

    def _onLooked(self, caseId: str, future: Future) -> None:
        if self.session.caseId == caseId:
            volumes, look = future.result()
            self._showVolumes(volumes)
            self.planes.onLooked(look)

    def onFillChanged(self, fill: Fill | None) -> None:
        """Uncertainty and hot-spots are those of the fill, or those of the model again."""
        loaded, model = self.session.loaded, HotSpotList()
        if loaded is None:
            return
        self.storeTicks()
        if loaded.uncertainty is not None:  # a newer prediction may have come while the case is on screen
            shown = loaded.uncertainty.GetAttribute(REVISION_ATTRIBUTE) or ""
            model = self.session.ask(HotSpotList, self.session.project, loaded.caseId, shown, otherwise=model)
        self.hotspots.show(model.ofFill(fill.hotspots, self.session.project.labels) if fill is not None else model)
        if fill is None:
            self.uncertainty.setFill(None)
            self.update()
            return
        caseId, shape = loaded.caseId, self.correction.drawing.drawn.shape
        turned = order(loaded.volumes[0], self.session.project.cases.grid(caseId))
        self.background.submit(
            lambda: fill.wholeUncertainty(shape)[turned], lambda future: self._onUncertainty(caseId, fill, future)
        )

    def _onUncertainty(self, caseId: str, fill: Fill, future: Future) -> None:
        if caseId == self.session.caseId and fill is self.correction.drawing.drawn.fill:
            self.uncertainty.setFill(future.result())
            self.update()

    def _showVolumes(self, now: dict[int, float]) -> None:
        open_ = self.session.loaded is not None
        prediction = self.hotspots.hotspots.prediction if open_ else None
        found = prediction.details.get("volumes", []) if prediction is not None else []
        self.volumes.show(self.session.project.labels if open_ else [], found, now)

    # Back into the project

    def onAccept(self, _checked: bool = False) -> None:
        if self.storing.start("accepted"):
            self.editor.stop()

    def onSaveDraft(self, _checked: bool = False) -> None:
        self.storing.start("draft")

    def _goOn(self) -> str:
        """Open the next case at its first hot-spot, if the user wants that; gives what happened as a sentence."""
        if not self.ui.goOnCheckBox.checked:
            return ""
        before = self.session.caseId
        with self.drawOnce:
            self.onNextCase()
            if self.session.caseId == before:
                return _("No other case waits for an outline.")
            self.hotspots.step(1)
        return _("Next: {name}.").format(name=self.session.case().name)

    def onGoOn(self, checked: bool) -> None:
        slicer.app.userSettings().setValue(GO_ON_SETTING, checked)

    def onRevert(self, _checked: bool = False) -> None:
        self.background.finish()
        kept = self.correction.isChanged()
        with self.session.reporting() as outcome, slicer.util.WaitCursor():
            if kept:
                self.correction.store("draft", self.reader())
            self.correction.revert()
        if outcome.failed:
            return
        self.session.notifyCases()
        before = " " + _("Your edit was kept as a draft before.") if kept else ""
        self.session.status(_("The outline is the prediction again.") + before)
        self.update()

    def onDifference(self, _checked: bool = False) -> None:
        session, loaded = self.session, self.session.loaded
        with session.reporting(), slicer.util.WaitCursor():
            new, before = lastTwo(session.project, loaded.caseId)
            node, ml = showDifference(session.project, new, before, loaded.volumes[0])
            text = _("{ml:.2f} ml have another label than in the prediction before.").format(ml=ml)
            session.status(text + (" " + _("{name} is in the scene.").format(name=node.GetName()) if node else ""))

    def onNextCase(self, _checked: bool = False) -> None:
        cases = self.moduleWidget.panels.get("Cases")
        if cases is not None:
            cases.openNext()
