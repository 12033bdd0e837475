# SPDX-License-Identifier: Apache-2.0
"""A clinician's way through BARL's panel, by mouse and keyboard: for tests, the demo and the tutorial's pictures."""

from __future__ import annotations

import numpy as np
from slicerhost.clicks import DOUBLE_CLICK, choose, click, mouse, press, type_, typeCell, typePath, waitUntil

from . import MODULE
from .drawing import pressKey

FOLDER = "Folder with many cases"
OPEN_CASES = "All cases without"
NAME = 1  # column of the label table


class Loop:
    """One person at the panel of the module.

    Args:
        host: The running ``slicerhost.host.Host``.
        patience: Seconds that a prediction or a training may take.
        moment: Told a name whenever there is something worth a picture.

    Attributes:
        acts: The keys pressed by ``key`` and the strokes drawn, in their order.
    """

    def __init__(self, host, patience: float = 600.0, moment=lambda name: None) -> None:
        self.host, self.patience, self.moment = host, patience, moment
        self.acts: list[str] = []
        self.module = host.loadModule(MODULE)
        self.session, self.panels = self.module.session, self.module.panels

    @property
    def status(self) -> str:
        return self.module.ui.statusLabel.text

    def section(self, name: str):
        """Open a step by its tab; returns its panel's widgets."""
        bar = self.module.steps.bar
        if self.module.steps.shown != name:
            mouse(bar, bar.tabRect(list(self.panels).index(name)).center())
        self.host.processEvents(0.05)
        assert self.module.steps.shown == name
        self.show(bar)
        return self.panels[name].ui

    def show(self, widget) -> None:
        """Scroll the panel so that a widget is at its top."""
        import qt

        area = self.host.window.findChild(qt.QScrollArea, "ScrollArea")
        top = widget.mapTo(area.widget(), qt.QPoint(0, 0)).y()
        bar = area.verticalScrollBar()
        bar.value = min(max(top - 2, 0), bar.maximum)
        self.host.processEvents(0.05)

    # Project and cases

    def newProject(self, folder, name: str, labels: list[str], channel: str) -> None:
        """Fill in the form of a new project and make it."""
        ui = self.section("Project")
        ui.newGroupBox.collapsed = False
        type_(ui.newNameLineEdit, name)
        typePath(ui.newFolderPathLineEdit, folder)
        while ui.labelsTable.rowCount > len(labels):  # of the project before
            press(ui.removeLabelButton)
        while ui.labelsTable.rowCount < len(labels):
            press(ui.addLabelButton)
        for row, label in enumerate(labels):
            typeCell(ui.labelsTable, row, NAME, label)
        typeCell(ui.channelsTable, 0, 0, channel)
        self.moment("project")
        press(ui.createButton)
        assert self.session.project is not None, self.status

    def addFolder(self, scans, outlines, heldOut: bool = False) -> None:
        """Add all scans of a folder, with those outlines that there are."""
        ui = self.section("Cases")
        ui.addGroupBox.collapsed = False
        choose(ui.sourceComboBox, FOLDER)
        adding = self.panels["Cases"].adding
        typePath(adding.selectors[0], scans)
        typePath(adding.labelSelector, outlines)
        if ui.addHeldOutCheckBox.checked != heldOut:
            click(ui.addHeldOutCheckBox)
        waitUntil(lambda: adding.source.isIdle, self.patience)
        self.moment("add")
        press(ui.addButton)
        waitUntil(lambda: self.panels["Cases"].isIdle, self.patience)

    def open(self, name: str) -> None:
        """Open a case by a double-click in the table."""
        table = self.section("Cases").casesTable
        row = [case.name for case in self.session.cases()].index(name)
        place = table.visualItemRect(table.item(row, 0)).center()
        mouse(table.viewport(), place, DOUBLE_CLICK)
        assert self.session.case().name == name, self.status
        self.settle()

    def openNext(self) -> str:
        """Open the proposed case; returns the reason that was given for it."""
        ui = self.section("Cases")
        reason = ui.reasonLabel.text
        self.moment("proposed")
        press(ui.nextButton)
        assert self.session.loaded is not None, self.status
        self.settle()
        self.moment("next")
        return reason

    # Models

    def predictAll(self) -> None:
        """Predict every case without an accepted outline with the current model."""
        panel, ui = self.panels["Predict"], self.section("Predict")
        choose(ui.inputComboBox, OPEN_CASES)
        press(ui.applyButton)
        waitUntil(lambda: not panel.busy, self.patience)

    def train(self, iterations: int, minutes: int = 1):
        """Train and press Finish after some iterations; returns the run once nothing is left to do about it."""
        panel, ui = self.panels["Train"], self.section("Train")
        type_(ui.minutesSpinBox, str(minutes))
        before = len(self.session.project.runs.all())
        press(ui.startButton)
        waitUntil(lambda: len(self.session.project.runs.all()) > before, self.patience)
        name = self.session.project.runs.all()[-1].id
        waitUntil(lambda: panel.run is not None and panel.run.id == name, self.patience)
        waitUntil(lambda: panel.run.iteration >= iterations or not panel.run.alive, self.patience)
        self.show(ui.startButton)
        self.moment("train")
        if panel.run.alive:
            press(ui.finishButton)
        waitUntil(lambda: panel.isIdle, self.patience)
        return panel.run

    def promote(self) -> None:
        """Decide for the new model."""
        ui = self.section("Train")
        self.show(ui.comparisonGroupBox)
        self.moment("compare")
        press(ui.promoteButton)

    def waitForPredictions(self) -> None:
        """Wait until the untouched cases are predicted, which begins by itself."""
        panel = self.panels["Cases"]
        self.section("Cases")
        self.moment("ahead")
        waitUntil(lambda: not panel.ahead.isWanted and panel.isIdle, self.patience)

    # Review

    def key(self, name: str, modifier: str = "NoModifier") -> None:
        """Press a key of the step Review, and wait until what it starts is done."""
        pressKey(self.panels["Review"], name, modifier)
        self.acts.append(name if modifier == "NoModifier" else f"{modifier} {name}")
        self.settle()

    def nextHotspot(self):
        """Jump to the next hot-spot and return it."""
        panel, ui = self.panels["Review"], self.section("Review")
        press(ui.nextHotspotButton)
        self.settle()
        self.moment("review")
        return panel.hotspots.current()

    def paint(self, segment: str, *points, diameter: float = 5.0, erase: bool = False) -> None:
        """Draw with the mouse in the axial view.

        Args:
            segment: Name of what is drawn.
            points: RAS in mm.
            diameter: Of the brush, in mm.
            erase: With the eraser instead.
        """
        import slicer
        from slicerhost import hands

        panel = self.panels["Review"]
        self.section("Review")
        self.show(panel.ui.outlineWidget)
        editor = panel.editor.widget
        segments = panel.correction.segmentation.GetSegmentation()
        editor.setCurrentSegmentID(segments.GetSegmentIdBySegmentName(segment))
        editor.setActiveEffectByName("Erase" if erase else "Paint")
        brush = editor.activeEffect()
        brush.setCommonParameter("BrushDiameterIsRelative", 0)
        brush.setCommonParameter("BrushAbsoluteDiameter", diameter)
        self.host.processEvents(0.05)
        hands.drag(slicer.app.layoutManager().sliceWidget("Red"), *points)
        self.acts.append("stroke")
        self.settle()
        self.moment("correct")

    def outline(self) -> np.ndarray:
        """What is drawn now: label values [k, j, i] on the scan's grid."""
        return self.panels["Review"].correction.snapshot().labelMap()[0]

    def accept(self, reader: str) -> None:
        """Sign and accept the outline on screen."""
        panel, ui = self.panels["Review"], self.section("Review")
        ui.detailsButton.checked = True
        type_(ui.readerLineEdit, reader)
        ui.goOnCheckBox.checked = False  # the case stays on screen, to look at
        ui.detailsButton.checked = False
        press(ui.acceptButton)
        settle(panel, seconds=self.patience)
        self.settle()
        self.moment("accepted")

    def settle(self) -> None:
        """Wait until the review panel has done what it does after pauses."""
        settle(self.panels["Review"])


def settle(panel, condition=lambda: True, seconds: float = 120.0) -> None:
    """Waits until a panel is idle and ``condition()`` holds.

    Raises:
        AssertionError: it did not within ``seconds``.
    """
    import qt

    qt.QApplication.processEvents()
    waitUntil(lambda: panel.isIdle and condition(), seconds)
