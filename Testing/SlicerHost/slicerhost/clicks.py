# SPDX-License-Identifier: Apache-2.0
"""What a person does at the window, as Qt events: for tests."""

from __future__ import annotations

import time

CLICK = ("MouseButtonPress", "MouseButtonRelease")
DOUBLE_CLICK = (*CLICK, "MouseButtonDblClick", "MouseButtonRelease")


def mouse(widget, place, kinds=CLICK) -> None:
    """Sends events of the left mouse button.

    Args:
        widget: what is under the mouse; of tables and headers their viewport.
        place: a QPoint in it.
        kinds: names of QEvent types, in this order.
    """
    import qt

    for kind in kinds:
        held = qt.Qt.NoButton if kind.endswith("Release") else qt.Qt.LeftButton
        event = qt.QMouseEvent(
            getattr(qt.QEvent, kind),
            qt.QPointF(place),
            qt.QPointF(widget.mapToGlobal(place)),
            qt.Qt.LeftButton,
            held,
            qt.Qt.NoModifier,
        )
        qt.QApplication.sendEvent(widget, event)


def press(button) -> None:
    """Clicks a button, which must be enabled: nobody can press one that is not."""
    assert button.enabled, f"{button.text} is disabled: {button.toolTip}"
    mouse(button, button.rect.center())


def waitUntil(condition, seconds: float = 120.0) -> None:
    """Lets Qt's event loop run until ``condition()`` holds.

    Raises:
        AssertionError: it did not within ``seconds``.
    """
    import qt

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        qt.QApplication.processEvents()
        time.sleep(0.005)


def settle(panel, condition=lambda: True, seconds: float = 120.0) -> None:
    """Waits until the review panel has done what it does after pauses, and ``condition()`` holds.

    Raises:
        AssertionError: it did not within ``seconds``.
    """
    import qt

    qt.QApplication.processEvents()
    timers = (panel._editTimer, panel._thresholdTimer, panel._ticksTimer)
    waitUntil(
        lambda: not panel.background.isBusy() and not any(timer.isActive() for timer in timers) and condition(), seconds
    )
