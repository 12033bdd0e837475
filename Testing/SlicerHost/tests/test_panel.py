# SPDX-License-Identifier: Apache-2.0
"""The room that a module has and what makes it wider: size policies and hints of sections and of the module panel."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.host

MODULE = """
import ctk, qt
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget

class Wide(ScriptedLoadableModule):
    pass

class WideWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        super().setup()
        self.section = ctk.ctkCollapsibleButton()
        self.section.text = "Section"
        self.layout.addWidget(self.section)
        self.table = qt.QTableWidget(3, 2)
        self.table.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.Stretch)
        qt.QVBoxLayout(self.section).addWidget(self.table)
        self.layout.addStretch(1)
"""


@pytest.fixture
def a_wide_module(host, tmp_path):
    import qt

    (tmp_path / "Wide.py").write_text("# SPDX-License-Identifier: Apache-2.0\n" + MODULE, encoding="utf-8")
    dock = host.window.findChild(qt.QDockWidget, "PanelDockWidget")

    def narrow():  # the dock does not shrink by itself, and other tests widen it as well
        host.processEvents(0.1)
        host.window.resizeDocks([dock], [470], qt.Qt.Horizontal)
        host.processEvents(0.1)

    widget = host.loadModule(tmp_path / "Wide.py")
    narrow()
    yield widget
    host.unloadModule("Wide")
    narrow()


def panel_of(host):
    import qt

    return host.window.findChild(qt.QWidget, "ModulePanel")


def widths(host, module, times=5):
    """Widths of the panel, each after the module has become higher, upon which Slicer asks for its width anew."""
    found = []
    for number in range(times):
        module.table.minimumHeight = 600 + number
        host.processEvents(0.05)
        found.append(panel_of(host).width)
    return found


def test_a_module_has_the_room_that_it_has_in_slicer(host, a_wide_module):
    """Measured there at 1366 x 768: about 440 x 450 pixels beside the scroll bar."""
    import qt

    host.window.resize(1366, 768)
    host.processEvents(0.1)
    area = host.window.findChild(qt.QScrollArea, "ScrollArea")
    assert 430 <= area.width - 14 <= 470 and 440 <= area.height <= 475, (area.width, area.height)


def test_a_hint_that_follows_its_own_width_runs_away(host, a_wide_module):
    import qt

    a_wide_module.table.sizeAdjustPolicy = qt.QAbstractScrollArea.AdjustToContents
    found = widths(host, a_wide_module)
    assert found[-1] > found[0] + 50, found


def test_a_hint_of_its_own_does_not(host, a_wide_module):
    found = widths(host, a_wide_module)
    assert len(set(found)) == 1, found


def test_the_panel_is_never_narrower_than_its_module(host, a_wide_module):
    a_wide_module.table.minimumWidth = 700
    host.processEvents(0.1)
    assert panel_of(host).width >= 700
    assert a_wide_module.parent.minimumSizeHint.width() <= panel_of(host).width


def test_hints_of_a_section_are_those_of_ctk(host, a_wide_module):
    """Open: what is in it; folded: its button and 14 pixels."""
    section = a_wide_module.section
    assert section.sizeHint.width() >= a_wide_module.table.sizeHint.width()
    section.collapsed = True
    host.processEvents(0.05)
    button = section.contentsMargins().top()
    assert section.sizeHint.height() == section.minimumSizeHint.height() == section.maximumHeight == button + 14
    section.collapsedHeight = 0
    assert section.sizeHint.height() == button
    section.collapsed = False
    host.processEvents(0.05)
    assert section.maximumHeight > 10_000 and section.height > button + 50
