# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Hotspots import jumpTo
from BARLSegmentationLib.logic.Lesions import asSegments, lesionName, measure, otherCases
from BARLSegmentationLib.widgets.Panel import allow

if TYPE_CHECKING:
    from types import SimpleNamespace

    from barl.images.lesions import Lesion

    from BARLSegmentationLib.logic.Correction import Correction
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.Background import Background

NAME, VOLUME, DIAMETER, CONFIDENCE = range(4)
MOST_ROWS = 200  # the largest; the table of the export has them all


class LesionTable:
    """The lesions of the outline on screen, measured while their box is unfolded.

    Args:
        ui: The panel's widgets.
        session: What all panels share.
        correction: The outline on screen.
        background: Where they are measured.
    """

    def __init__(self, ui: SimpleNamespace, session: Session, correction: Correction, background: Background) -> None:
        self.ui, self.session, self.correction, self.background = ui, session, correction, background
        self.lesions: list[Lesion] = []
        header = ui.lesionsTable.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        ui.lesionsTable.connect("cellClicked(int,int)", self.onClicked)
        ui.lesionsGroupBox.connect("toggled(bool)", self.refresh)
        ui.lesionSegmentsButton.connect("clicked(bool)", self.onSegments)
        self.clear()

    def clear(self) -> None:
        """Another case is open, or none."""
        self._show([], [])

    def refresh(self, *_arguments: object) -> None:
        """Measure anew, if anybody looks."""
        loaded, session = self.session.loaded, self.session
        if loaded is None or self.ui.lesionsGroupBox.collapsed:
            return
        snapshot = session.ask(self.correction.snapshot, otherwise=None)
        prediction = session.ask(self.correction.prediction, otherwise=None)
        others = session.ask(otherCases, session.project, loaded.caseId, otherwise=[])
        if snapshot is not None:
            uncertainty = prediction.uncertainty_path if prediction is not None else None
            self.background.submit(
                partial(measure, snapshot, uncertainty, others), partial(self._onMeasured, loaded.caseId), "lesions"
            )

    def _onMeasured(self, caseId: str, future: Future) -> None:
        found = self.session.ask(future.result, otherwise=None)
        if found is not None and caseId == self.session.caseId:
            self._show(*found)

    def _show(self, lesions: list, counts: list) -> None:
        self.lesions, table = lesions, self.ui.lesionsTable
        names = {label.value: label.name for label in self.session.project.labels} if lesions else {}
        table.clearContents()
        table.rowCount = min(len(lesions), MOST_ROWS)
        for row, lesion in enumerate(lesions[:MOST_ROWS]):
            sure = "–" if lesion.confidence is None else f"{lesion.confidence:.2f}"
            texts = (lesionName(lesion, names[lesion.value]), f"{lesion.ml:.2f}", f"{lesion.diameter_mm:.1f}", sure)
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                if column != NAME:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                table.setItem(row, column, item)
        text = _("{name}: {count} lesions, {ml:.2f} ml")
        own = [text.format(name=_("On screen"), count=len(lesions), ml=sum(lesion.ml for lesion in lesions))]
        same = [text.format(name=count.case, count=count.lesions, ml=count.ml) for count in counts]
        self.ui.lesionsLabel.text = "\n".join([*own, *([_("The same subject:"), *same] if same else [])])
        none = "" if lesions else _("The outline on screen has no lesions, or they were not measured yet")
        allow(self.ui.lesionSegmentsButton, _("A new segmentation in which each lesion is a segment"), none)

    def onClicked(self, row: int, _column: int) -> None:
        lesion, volume = self.lesions[row], self.session.loaded.volumes[0]
        x, y, z = lesion.center_mm
        jumpTo((-x, -y, z), volume, extentMm=lesion.extent_mm)

    def onSegments(self, _checked: bool = False) -> None:
        session, loaded = self.session, self.session.loaded
        with session.reporting():
            grid = session.project.cases.grid(loaded.caseId)
            node = asSegments(self.lesions, grid, session.project.labels, loaded.volumes[0])
            session.status(_("{name} is in the scene.").format(name=node.GetName()))
