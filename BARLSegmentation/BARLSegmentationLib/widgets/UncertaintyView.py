# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Attention import unsureScan
from BARLSegmentationLib.logic.Overlay import Overlay, fillUncertainty, removeFillUncertainty

if TYPE_CHECKING:
    from types import SimpleNamespace

    from BARLSegmentation import BARLSegmentationParameterNode
    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.Background import Background
    from BARLSegmentationLib.widgets.OutlineEditor import OutlineEditor

THRESHOLD_PAUSE_MS = 250  # after the last move of the threshold, before the mask is made


class UncertaintyView:
    """The uncertainty of the model or of the fill in color over the scan, and editing only where it is high.

    Args:
        ui: The panel's widgets.
        session: What is open.
        editor: What is limited.
        background: Makes the mask.
        parent: QObject that the timer belongs to.

    Attributes:
        parameterNode: The module's parameters; None while there is no scene to keep them in.
        pause: Timer after a move of the threshold.
    """

    def __init__(
        self, ui: SimpleNamespace, session: Session, editor: OutlineEditor, background: Background, parent: qt.QObject
    ) -> None:
        self.ui, self.session, self.editor, self.background = ui, session, editor, background
        self.overlay = Overlay()
        self.parameterNode: BARLSegmentationParameterNode | None = None
        self._fill: slicer.vtkMRMLScalarVolumeNode | None = None
        self._entered = False
        self.pause = qt.QTimer(parent)
        self.pause.setSingleShot(True)
        self.pause.setInterval(THRESHOLD_PAUSE_MS)
        self.pause.connect("timeout()", self.limit)
        ui.overlayVisibleCheckBox.connect("toggled(bool)", self.show)
        ui.overlayOpacitySlider.connect("valueChanged(double)", self.show)
        ui.overlayThresholdSlider.connect("valueChanged(double)", self.onThreshold)
        ui.overlayColorComboBox.connect("activated(int)", self.onColor)
        ui.onlyWhereUnsureCheckBox.connect("toggled(bool)", self.limit)

    def enter(self) -> None:
        self._entered = True
        self.limit()

    def exit(self) -> None:
        self._entered = False

    def node(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The uncertainty that is shown: of the fill, else of the model; None if there is none."""
        loaded = self.session.loaded
        for node in (self._fill, loaded.uncertainty if loaded else None):
            if node is not None and node.GetScene() is not None:
                return node
        return None

    def setFill(self, uncertainty: np.ndarray | None) -> None:
        """Show the uncertainty of a fill, ``[k, j, i]``, 0 to 1; None: of the model again."""
        loaded = self.session.loaded
        if uncertainty is None or loaded is None:
            if self._fill is not None:
                removeFillUncertainty(self._fill)
                self._fill = None
        else:
            self._fill = fillUncertainty(loaded.volumes[0], uncertainty)
        self.show()
        if self.ui.onlyWhereUnsureCheckBox.checked:
            self.limit()

    def begin(self) -> None:
        """Another case is open, or none."""
        self.pause.stop()
        self.setFill(None)
        self._showColors()

    # In color over the scan

    def show(self, _value: object = None) -> None:
        uncertainty, ui, loaded = self.node(), self.ui, self.session.loaded
        if uncertainty is None:
            return
        if ui.overlayVisibleCheckBox.checked:
            name = self.parameterNode.overlayColor if self.parameterNode is not None else ""
            colors = self.overlay.colorNodeNamed(name)
            self.overlay.show(uncertainty, ui.overlayOpacitySlider.value, ui.overlayThresholdSlider.value, colors)
        else:
            self.overlay.hide(uncertainty)
        self.overlay.setFilled(loaded.segmentation if loaded else None, not ui.overlayVisibleCheckBox.checked)

    def toggle(self) -> None:
        if self.node() is not None:
            self.ui.overlayVisibleCheckBox.checked = not self.ui.overlayVisibleCheckBox.checked

    def toggleLimit(self) -> None:
        if self.node() is not None:
            self.ui.onlyWhereUnsureCheckBox.checked = not self.ui.onlyWhereUnsureCheckBox.checked

    def _showColors(self) -> None:
        """Fill the list of colors: which there are depends on the scene."""
        combo = self.ui.overlayColorComboBox
        names = [node.GetName() for node in self.overlay.choices()] if self.session.loaded else []
        combo.clear()
        combo.addItems(names)
        chosen = self.parameterNode.overlayColor if self.parameterNode is not None else ""
        combo.currentIndex = names.index(chosen) if chosen in names else (0 if names else -1)

    def onColor(self, _index: int) -> None:
        if self.parameterNode is not None:
            self.parameterNode.overlayColor = self.ui.overlayColorComboBox.currentText
        self.show()

    def onThreshold(self, _value: float) -> None:
        self.show()
        if self.ui.onlyWhereUnsureCheckBox.checked:
            self.ui.editableLabel.text = _("working…")
            self.pause.start()

    # Editing only where unsure

    def limit(self, _checked: bool = False) -> None:
        """Find beside the window where the uncertainty is high, then let only that be edited, if that is wanted."""
        self.pause.stop()
        uncertainty, scan = self.node(), self.editor.channel()
        ready = uncertainty is not None and scan is not None and self._entered
        if not ready or not self.ui.onlyWhereUnsureCheckBox.checked:
            self.ui.editableLabel.text = ""
            self.editor.limit(None)
            return
        arrays = slicer.util.arrayFromVolume(scan), slicer.util.arrayFromVolume(uncertainty)
        threshold = self.ui.overlayThresholdSlider.value
        self.ui.editableLabel.text = _("working…")
        self.background.submit(
            lambda: unsureScan(*arrays, threshold), lambda future: self._onUnsureScan(scan, future), replaces="limit"
        )

    def _onUnsureScan(self, scan: slicer.vtkMRMLScalarVolumeNode, future: Future) -> None:
        if scan is not self.editor.channel() or not self._entered or not self.ui.onlyWhereUnsureCheckBox.checked:
            return
        unsure = future.result()
        self.editor.limit(unsure)
        spacing = scan.GetSpacing()
        volume = unsure.unsure * spacing[0] * spacing[1] * spacing[2] / 1000
        self.ui.editableLabel.text = _("({volume:.1f} ml)").format(volume=volume)
