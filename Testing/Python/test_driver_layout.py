# SPDX-License-Identifier: Apache-2.0
"""The module in the window that Slicer has at 1366 x 768, by mouse: nothing cut, nothing scrolled, nothing grows."""

from __future__ import annotations

import pytest
from barldriver.loop import settle

pytestmark = pytest.mark.host
SECTIONS = ("Project", "Cases", "Predict", "Review", "Train", "Setup")
WIDTH, HEIGHT = 440, 450
STROKES, CASE_CHANGES = 50, 20


@pytest.fixture
def a_loop(host, a_review_panel):
    """Somebody at the module with a predicted case open, in a window of 1366 x 768."""
    import qt
    from barldriver.loop import Loop

    a_review_panel.ui.detailsButton.checked = False  # what is rare
    host.window.resize(1366, 768)
    dock = host.window.findChild(qt.QDockWidget, "PanelDockWidget")
    host.window.resizeDocks([dock], [WIDTH + 30], qt.Qt.Horizontal)
    host.processEvents(0.1)
    return Loop(host)


@pytest.fixture
def a_layout(a_loop):
    from barldriver.layout import Panel

    return Panel(a_loop.host.window)


@pytest.mark.parametrize("section", SECTIONS)
def test_section_is_no_wider_than_its_room(a_loop, a_layout, section):
    """A wider one moves the views each time that it is opened."""
    a_loop.section(section)
    assert a_layout.needed[0] <= WIDTH


@pytest.mark.parametrize("section", SECTIONS)
def test_nothing_of_a_section_is_cut(a_loop, a_layout, section):
    a_loop.section(section)
    assert a_layout.cut() == []


@pytest.mark.parametrize("section", SECTIONS)
def test_section_is_seen_whole(a_loop, a_layout, section):
    a_loop.section(section)
    assert a_layout.needed[1] <= HEIGHT


def test_strokes_do_not_widen_the_panel(a_loop, a_layout):
    import slicer
    from slicerhost import hands

    panel = a_loop.panels["Review"]
    a_loop.section("Review")
    x, y, z = panel.hotspots.hotspots.spots[0].position
    panel.hotspots.step(1)
    panel.editor.widget.setActiveEffectByName("Paint")
    settle(panel)
    before, room = a_layout.needed[0], a_layout.room[0]
    for number in range(STROKES):
        hands.drag(slicer.app.layoutManager().sliceWidget("Red"), (x + 0.1 * (number % 5), y, z), (x + 2, y, z))
        settle(panel)
    assert (a_layout.needed[0], a_layout.room[0]) == (before, room)


def test_case_changes_do_not_widen_the_panel(a_loop, a_layout):
    panel = a_loop.panels["Review"]
    a_loop.section("Review")
    widths = []
    for number in range(CASE_CHANGES):
        a_loop.session.openCase(("case_0001", "case_0002")[number % 2])
        settle(panel)
        widths.append((a_layout.needed[0], a_layout.room[0]))
    assert widths[2:] == widths[:-2], "each case has its width, whichever came before"
