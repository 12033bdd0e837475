# SPDX-License-Identifier: Apache-2.0
"""Volumes that are changed while they are predicted, by a real worker."""

from __future__ import annotations

import pytest
from test_module_predict import _torch, a_volume, an_image, module, panel, wait_for_prediction  # noqa: F401

pytestmark = pytest.mark.host


def test_a_volume_that_shows_something_else_when_its_prediction_comes_is_told(panel, module):  # noqa: F811
    """Another time point of a sequence, a filter in place, a hardened transform."""
    import slicer

    volume, other = a_volume(an_image()), a_volume(an_image(1))
    panel.ui.volumeSelector.setCurrentNode(volume)
    for change, told in (
        (lambda: volume.GetDisplayNode().SetWindowLevelMinMax(0, 50), False),
        (lambda: volume.SetAndObserveImageData(other.GetImageData()), True),
        (lambda: volume.SetOrigin(1.0, 2.0, 3.0), True),
    ):
        panel.ui.applyButton.click()
        change()
        wait_for_prediction(panel)
        assert ("held when the prediction began" in module.ui.statusLabel.text) == told
        assert module.ui.statusIconLabel.isHidden() or told
        assert "is ready" in module.ui.statusLabel.text
    slicer.mrmlScene.RemoveNode(other)
