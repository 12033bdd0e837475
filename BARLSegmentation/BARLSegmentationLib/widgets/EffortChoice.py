# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from BARLSegmentationLib.widgets.Panel import signalsBlocked

if TYPE_CHECKING:
    import qt

# Time budget in minutes of each word; from the time the training plan chooses its network (``barl.training.budgets``).
MINUTES = {"quick": 3.0, "standard": 30.0, "thorough": 240.0}


class EffortChoice:
    """A combo box of words for a time budget; a time of the user's own is the last entry.

    Args:
        combo: An empty QComboBox.
        minutes: The QDoubleSpinBox with the time budget; it stays the only place where the budget is kept.
    """

    def __init__(self, combo: qt.QComboBox, minutes: qt.QDoubleSpinBox) -> None:
        self._combo, self._minutes = combo, minutes
        for text, word in (
            (_("Quick look"), "quick"),
            (_("Standard"), "standard"),
            (_("Thorough"), "thorough"),
            (_("My own time"), ""),
        ):
            combo.addItem(text, word)
        combo.connect("activated(int)", self._onChosen)
        minutes.connect("valueChanged(double)", self._onMinutes)
        self._onMinutes(minutes.value)

    def _onChosen(self, index: int) -> None:
        word = self._combo.itemData(index)
        if word in MINUTES:
            self._minutes.value = MINUTES[word]

    def _onMinutes(self, minutes: float) -> None:
        word = next((word for word, budget in MINUTES.items() if budget == minutes), "")
        with signalsBlocked(self._combo):
            self._combo.currentIndex = self._combo.findData(word)
