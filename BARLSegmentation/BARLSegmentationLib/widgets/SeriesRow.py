# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.widgets.CaseSources import comboWidget
from BARLSegmentationLib.widgets.Panel import signalsBlocked

if TYPE_CHECKING:
    from barl.worker.messages import SeriesFacts, SeriesList

    from BARLSegmentationLib.logic.FolderPlan import FolderPlan, PlannedCase
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink


class SeriesRow:
    """Which series of a case that is a folder with several DICOM series; a row that is visible only for such a case.

    Args:
        session: What all panels share.
        worker: The process that lists the series.
        onChosen: Called when a series was chosen.

    Attributes:
        widget: The row.
        combos: One for each channel.
        allCheckBox: Whether a choice is one for all cases that have such a series.
    """

    def __init__(self, session: Session, worker: WorkerLink, onChosen: Callable[[], None]) -> None:
        self._session, self._worker, self._onChosen = session, worker, onChosen
        self._known: dict[str, list[SeriesFacts]] = {}  # folder -> its series
        self._asked: set[str] = set()
        self._plan: FolderPlan | None = None
        self._case: PlannedCase | None = None
        self.widget = qt.QWidget()
        qt.QHBoxLayout(self.widget).setContentsMargins(0, 0, 0, 0)
        self.widget.layout().addWidget(qt.QLabel(_("Series:")))
        self.combos = []
        for channel in session.project.channels:
            tip = _("Series of the channel {name}; nothing of what is shown here is stored").format(name=channel.name)
            combo: qt.QComboBox = comboWidget(tip, [])
            combo.connect("activated(int)", self._onActivated)
            self.widget.layout().addWidget(combo, 1)
            self.combos.append(combo)
        self.allCheckBox = qt.QCheckBox(_("In all cases"))
        self.allCheckBox.toolTip = _("Take the series of the same description in every case, or of the same number")
        self.allCheckBox.connect("toggled(bool)", self._onActivated)
        self.widget.layout().addWidget(self.allCheckBox)
        self.widget.visible = False

    def forget(self) -> None:
        """Ignore what the worker still says: the row goes."""
        self._asked, self._case = set(), None

    def show(self, plan: FolderPlan, case: PlannedCase | None) -> None:
        """Show the series of a case, or nothing if there is nothing to choose."""
        self._plan, self._case = plan, case
        folder = case.dicomFolder if case is not None and not case.isDone else ""
        series = self._known.get(folder, [])
        self.widget.visible = len(series) > 1
        if folder and folder not in self._known:
            self._ask(folder)
        if len(series) < 2:
            return
        for number, combo in enumerate(self.combos):
            with signalsBlocked(combo):
                combo.clear()
                combo.addItem(_("choose"), "")
                for item in series:
                    combo.addItem(_words(item), str(item.series))
                    combo.setItemData(combo.count - 1, _words(item), qt.Qt.ToolTipRole)
                chosen = case.series[number] if case.series else ""
                same = [str(item.series) for item in series if chosen in (str(item.series), item.description)]
                combo.setCurrentIndex(max(combo.findData(same[0]), 0) if chosen and same else 0)

    def _ask(self, folder: str) -> None:
        from barl.worker.messages import ListSeries

        if folder not in self._asked:
            self._asked.add(folder)
            self._worker.request(
                ListSeries(folder=folder),
                onResult=lambda answer: self._onListed(folder, answer),
                onError=lambda _error: self._asked.discard(folder),  # adding the case says what is wrong with it
            )

    def _onListed(self, folder: str, answer: SeriesList) -> None:
        if folder not in self._asked:
            return  # the row is gone
        self._asked.discard(folder)
        self._known[folder] = answer.series
        if self._case is not None and self._case.dicomFolder == folder:
            self.show(self._plan, self._case)

    def _onActivated(self, *_arguments: object) -> None:
        chosen = [combo.itemData(combo.currentIndex) for combo in self.combos]
        if self._case is None or not all(chosen):
            return
        facts = {str(item.series): item for item in self._known[self._case.dicomFolder]}
        others = [facts[number].description or number for number in chosen] if self.allCheckBox.checked else None
        self._plan.setSeries(self._case, chosen, others)
        self._onChosen()


def _words(item: SeriesFacts) -> str:
    size = " x ".join(map(str, item.size))
    return f"{item.series}: " + ", ".join(filter(None, [item.modality, size, item.description]))
