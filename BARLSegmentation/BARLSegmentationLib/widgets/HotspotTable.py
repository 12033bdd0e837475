# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Hotspots import HotSpot, HotSpotList
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.widgets.Panel import signalsBlocked

SEEN, RANK, LABEL, VOLUME, UNCERTAINTY = range(5)


class HotspotTable:
    """The list of hot-spots in a QTableWidget.

    Args:
        table: The table, with the columns above.

    Attributes:
        chosen: Somebody chose a hot-spot to look at (HotSpot).
        ticked: The ticks have changed.
        hotspots: What is shown.
    """

    def __init__(self, table: qt.QTableWidget) -> None:
        self.table = table
        self.chosen, self.ticked = Signal(), Signal()
        self.hotspots = HotSpotList()
        header = table.horizontalHeader()
        for column in (SEEN, RANK, VOLUME, UNCERTAINTY):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(LABEL, qt.QHeaderView.Stretch)
        table.connect("currentCellChanged(int,int,int,int)", self._onCurrent)
        table.connect("cellClicked(int,int)", self._onClicked)
        table.connect("itemChanged(QTableWidgetItem*)", self._onItem)

    def show(self, hotspots: HotSpotList) -> None:
        self.hotspots = hotspots
        with signalsBlocked(self.table):
            self._fill(hotspots)
        self._showTicks()

    def _fill(self, hotspots: HotSpotList) -> None:
        self.table.clearContents()
        self.table.rowCount = len(hotspots.spots)
        for row, spot in enumerate(hotspots.spots):
            tick = qt.QTableWidgetItem()
            tick.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
            tick.setToolTip(_("Looked at"))
            self.table.setItem(row, SEEN, tick)
            texts = (str(spot.rank), labelText(spot), f"{spot.volumeMl:.2f}", f"{spot.uncertainty:.2f}")
            for column, text in enumerate(texts, start=RANK):
                item = qt.QTableWidgetItem(text)
                if column != LABEL:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                self.table.setItem(row, column, item)
        self.table.setCurrentCell(-1, -1)

    def current(self) -> HotSpot | None:
        row = self.table.currentRow()
        return self.hotspots.spots[row] if 0 <= row < len(self.hotspots.spots) else None

    def step(self, direction: int) -> HotSpot | None:
        """Choose the next (1) or previous (-1) one that was not looked at; None if there is none at all."""
        current = self.current()
        spot = self.hotspots.following(current.rank if current else None, direction)
        if spot is None:
            return None
        row = self.hotspots.spots.index(spot)
        if row == self.table.currentRow():
            self._choose(row)
        else:
            self.table.setCurrentCell(row, RANK)
        return spot

    def _onCurrent(self, row: int, _column: int, before: int, _columnBefore: int) -> None:
        if row != before and row >= 0:
            self._choose(row)

    def _onClicked(self, row: int, column: int) -> None:
        if column != SEEN:
            self._choose(row)

    def _choose(self, row: int) -> None:
        spot = self.hotspots.spots[row]
        self._setSeen(spot, True)
        self.chosen.emit(spot)

    def _onItem(self, item: qt.QTableWidgetItem) -> None:
        if item.column() == SEEN and 0 <= item.row() < len(self.hotspots.spots):
            self._setSeen(self.hotspots.spots[item.row()], item.checkState() == qt.Qt.Checked)

    def _setSeen(self, spot: HotSpot, seen: bool) -> None:
        self.hotspots.setSeen(spot.rank, seen)
        self._showTicks()
        self.ticked.emit()

    def _showTicks(self) -> None:
        with signalsBlocked(self.table):
            for row, spot in enumerate(self.hotspots.spots):
                seen = spot.rank in self.hotspots.seen
                self.table.item(row, SEEN).setCheckState(qt.Qt.Checked if seen else qt.Qt.Unchecked)
        self.table.viewport().update()


def labelText(spot: HotSpot) -> str:
    """The label of a hot-spot, and what cleanup did there."""
    words = {"removed": _("{label} (removed)"), "filled": _("{label} (hole filled)")}
    return words.get(spot.kind, "{label}").format(label=spot.label or _("unknown"))
