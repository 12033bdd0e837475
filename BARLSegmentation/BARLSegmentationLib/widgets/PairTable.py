# SPDX-License-Identifier: Apache-2.0
"""The table of a form in which each row pairs a file with what it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import qt

SQUEEZED_ROWS, LEAST_ROWS, MOST_ROWS = 2, 3, 4  # where room is short, without content, on a small screen
SMALL_SCREEN = 768  # pixels; a higher window shows more rows


def setUpPairTable(table: qt.QTableWidget, headers: Sequence[str], tip: str) -> None:
    """Whole rows are selected, one at a time; long names lose their middle."""
    table.setHorizontalHeaderLabels(list(headers))
    table.verticalHeader().visible = False
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
    table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
    table.setTextElideMode(qt.Qt.ElideMiddle)
    table.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Maximum)
    table.toolTip = tip
    table.horizontalHeader().setHighlightSections(False)
    table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)


def fitHeight(table: qt.QTableWidget) -> None:
    """As high as its rows, up to what the window has room for; lower where the panel is short of room."""
    rowHeight = table.verticalHeader().defaultSectionSize
    room = MOST_ROWS + max(0, table.window().height - SMALL_SCREEN) // rowHeight
    rest = table.horizontalHeader().sizeHint.height() + 4
    table.setMinimumHeight(rest + SQUEEZED_ROWS * rowHeight)
    table.setMaximumHeight(rest + min(max(table.rowCount, LEAST_ROWS), room) * rowHeight)


def selectedRow(table: qt.QTableWidget) -> int:
    """-1 without a selection."""
    rows = [index.row() for index in table.selectionModel().selectedRows()]
    return rows[0] if rows else -1
