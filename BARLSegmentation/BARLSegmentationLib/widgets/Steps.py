# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import qt

from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.widgets.Panel import Panel

LEAST_WIDTH = 420  # pixels: what Slicer's panel has on a small screen
PAGE_WIDTH = 396  # of them, between the margins
MOST_WIDTH = 600  # no step may ask for more
PAGES = 3  # place of the pages in the module's layout: below the bar, the line of status and the question


class Steps:
    """One step of the work at a time: a bar of tabs, and below it the panel of the chosen one.

    A QTabWidget would be as high as its highest page. The width stays the same from step to step: it grows once, to
    what the Segment Editor's tools need, and never shrinks, so that the views do not move.

    Args:
        root: The module's widget.
        barLayout: Gets the bar.
        pagesLayout: Gets the panels.

    Attributes:
        changed: Another step is shown (its name, and that of the one before).
        bar: The QTabBar.
    """

    def __init__(self, root: qt.QWidget, barLayout: qt.QVBoxLayout, pagesLayout: qt.QVBoxLayout) -> None:
        self.changed = Signal()
        self._root, self._layout = root, pagesLayout
        self._panels: dict[str, Panel] = {}
        self._grows: dict[str, bool] = {}
        self._shown = ""
        self.bar = qt.QTabBar()
        self.bar.setDrawBase(True)
        self.bar.setExpanding(True)
        self.bar.setUsesScrollButtons(False)
        barLayout.addWidget(self.bar)
        root.setMinimumWidth(LEAST_WIDTH)
        self.bar.connect("currentChanged(int)", self._onChanged)

    @property
    def shown(self) -> str:
        """The name of the step that is shown."""
        return self._shown

    def add(self, name: str, title: str, tip: str, panel: Panel) -> None:
        """Add a step; if its panel grows (vertical policy Expanding), it takes the height that is left over."""
        self._panels[name] = panel
        self._grows[name] = panel.widget.sizePolicy.verticalPolicy() == qt.QSizePolicy.Expanding
        # The page takes the width there is, and asks for none of its own.
        panel.widget.setSizePolicy(qt.QSizePolicy.Ignored, panel.widget.sizePolicy.verticalPolicy())
        panel.widget.setMinimumWidth(PAGE_WIDTH)  # or labels that wrap would be thought to be as narrow as can be
        panel.widget.visible = False
        self._layout.addWidget(panel.widget)
        index = self.bar.addTab(title)
        self.bar.setTabToolTip(index, tip)

    def show(self, name: str) -> None:
        self.bar.currentIndex = list(self._panels).index(name)
        self._onChanged(self.bar.currentIndex)

    def fitWidth(self) -> None:
        """Grow to what the step on display needs."""
        if self._shown:
            needed = self._panels[self._shown].widget.minimumSizeHint.width()
            self._root.setMinimumWidth(min(max(self._root.minimumWidth, needed), MOST_WIDTH))

    def _onChanged(self, index: int) -> None:
        names = list(self._panels)
        if not 0 <= index < len(names) or names[index] == self._shown:
            return
        before, self._shown = self._shown, names[index]
        for name, panel in self._panels.items():
            panel.widget.visible = name == self._shown
        self._root.layout().setStretch(PAGES, 1 if self._grows[self._shown] else 0)
        self.fitWidth()
        self.changed.emit(self._shown, before)
