# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.logic.Words import deviceText
from BARLSegmentationLib.widgets.Panel import signalsBlocked

if TYPE_CHECKING:
    import qt
    from barl.worker.messages import Device

AUTOMATIC = "auto"


class DeviceChoice:
    """A combo box with the devices on which the worker can compute.

    Until the devices are known, a device that is selected by name is listed; then one that this computer does not have
    (the scene came from another) counts as automatic.

    Args:
        combo: An empty QComboBox.

    Attributes:
        chosen: The user has chosen a device (its name).
    """

    def __init__(self, combo: qt.QComboBox) -> None:
        self.chosen = Signal()
        self._combo = combo
        self._wanted = AUTOMATIC
        self._known = False
        combo.addItem(_("Automatic"), AUTOMATIC)
        combo.connect("currentIndexChanged(int)", self._onChosen)

    @property
    def device(self) -> str:
        """The name of the device, as requests to the worker want it."""
        return self._combo.itemData(self._combo.currentIndex)

    def show(self, devices: list[Device]) -> None:
        """List the devices of the worker's answer to ``SayHello``; the first is what *Automatic* means."""
        self._known = True
        with signalsBlocked(self._combo):
            self._combo.clear()
            self._combo.addItem(_("Automatic") + (f": {deviceText(devices[0])}" if devices else ""), AUTOMATIC)
            for device in devices:
                self._combo.addItem(deviceText(device), device.name)
        self.select(self._wanted)

    def select(self, name: str) -> None:
        self._wanted = name
        with signalsBlocked(self._combo):
            if self._combo.findData(name) < 0 and not self._known:
                self._combo.addItem(name, name)
            self._combo.currentIndex = max(0, self._combo.findData(name))

    def _onChosen(self, index: int) -> None:
        if index >= 0:
            self._wanted = self._combo.itemData(index)
            self.chosen.emit(self._wanted)
