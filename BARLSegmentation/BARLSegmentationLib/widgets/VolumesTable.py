# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from barl.project.labels import Label

NAME, PREDICTED, NOW, CHANGE = range(4)
ROW_HEIGHT, MOST_ROWS = 22, 5  # more rows scroll
UNKNOWN = "–"
FOR_NINETY = 9  # unseen cases from which on a level of 90 % is known


class VolumesTable:
    """Milliliters of each label as predicted and as outlined now, in a QTableWidget with the columns above."""

    def __init__(self, table: qt.QTableWidget) -> None:
        self.table = table
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)

    def show(self, labels: list[Label], predicted: list[dict], now: dict[int, float]) -> None:
        """Fill the table.

        Args:
            labels: Its rows.
            predicted: ``volumes`` of a prediction's details.
            now: Milliliters by label value; a label that is missing is not counted yet.
        """
        byValue = {volume["value"]: volume for volume in predicted}
        self.table.rowCount = len(labels)
        self.table.setFixedHeight((min(len(labels), MOST_ROWS) + 1) * ROW_HEIGHT + 6)
        for row, label in enumerate(labels):
            for column, text in enumerate(_texts(label.name, byValue.get(label.value), now.get(label.value))):
                item = qt.QTableWidgetItem(text)
                if column == PREDICTED and label.value in byValue:
                    item.setToolTip(rangeText(byValue[label.value]))
                if column != NAME:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                self.table.setItem(row, column, item)


def _texts(name: str, predicted: dict | None, now: float | None) -> list[str]:
    current = UNKNOWN if now is None else f"{now:.2f}"
    if predicted is None:
        return [name, UNKNOWN, current, UNKNOWN]
    ml, (low, high) = predicted["ml"], predicted.get("interval_ml") or (predicted["low_ml"], predicted["high_ml"])
    spread = f" ({low:.2f}–{high:.2f})" if low < high else ""
    return [name, f"{ml:.2f}{spread}", current, UNKNOWN if now is None else f"{now - ml:+.2f}"]


def rangeText(predicted: dict) -> str:
    """What the range behind a predicted volume means."""
    if not predicted.get("interval_ml"):
        return _("The range of the model's branches; without held-out cases nobody knows where the true volume lies")
    text = _("In {level:.0f} % of cases the true volume lies in this range, by {count} unseen cases")
    coarse = "" if predicted["cases"] >= FOR_NINETY else _("; with fewer than {n}, no finer level is known")
    return text.format(level=100 * predicted["level"], count=predicted["cases"]) + coarse.format(n=FOR_NINETY)
