# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Signal import Signal

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


class VolumeRows:
    """Rows of a form, each with a selector for the volume of one channel.

    Args:
        layout: The form.
        row: Where the first row is.
        label: Its label.
        selector: Its qMRMLNodeComboBox.

    Attributes:
        changed: Another volume is chosen.
        rows: Label and selector of each channel; only those of the model's channels are visible.
    """

    def __init__(self, layout: qt.QFormLayout, row: int, label: qt.QLabel, selector: slicer.qMRMLNodeComboBox) -> None:
        self.changed = Signal()
        self.rows = [(label, selector)]
        self._layout, self._row, self._count = layout, row, 0
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChanged)

    def show(self, channels: list[str]) -> None:
        """Show one row for each channel."""
        while len(self.rows) < len(channels):
            self._add()
        self._count = len(channels)
        for index, (label, selector) in enumerate(self.rows):
            label.visible = selector.visible = index < len(channels)
            if index < len(channels):
                label.text = f"{channels[index]}:" if len(channels) > 1 else _("Volume:")

    def volumes(self) -> list[vtkMRMLScalarVolumeNode | None]:
        """The volumes of the rows shown."""
        return [selector.currentNode() for _label, selector in self.rows[: self._count]]

    def _add(self) -> None:
        label, selector = qt.QLabel(), slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.addEnabled = selector.removeEnabled = selector.showChildNodeTypes = False
        selector.noneEnabled = True
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChanged)
        selector.toolTip = self.rows[0][1].toolTip
        self._layout.insertRow(self._row + len(self.rows), label, selector)
        self.rows.append((label, selector))

    def _onChanged(self, *_arguments: object) -> None:
        self.changed.emit()
