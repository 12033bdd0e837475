# SPDX-License-Identifier: Apache-2.0
"""A scan unlike those that the model has learned from: the window warns after a prediction and in Review."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barldriver.loop import settle

pytestmark = pytest.mark.host
LABELS = [Label(1, "Anterior hippocampus"), Label(2, "Posterior hippocampus")]
UNLIKE = "The scan is unlike those that the model has learned from"


@pytest.fixture(scope="module", autouse=True)
def _torch():
    pytest.importorskip("torch", reason="the engine's packages are not installed")


@pytest.fixture
def module(a_module):
    yield a_module
    a_module.session.closeProject()


def a_coarse_scan(seed: int) -> sitk.Image:
    """Voxels of 4 mm: the shipped model has learned from 1 mm."""
    image = sitk.GetImageFromArray(np.random.default_rng(seed).normal(200, 50, (14, 14, 14)).astype(np.float32))
    image.SetSpacing((4.0, 4.0, 4.0))
    return image


def warned(module) -> str:
    """What the status line warns of; empty if it does not."""
    return module.ui.statusLabel.text if module.ui.statusIconLabel.isVisible() else ""


def test_volumes_and_cases_are_warned_about(module, tmp_path):
    """One worker for all of it: it takes seconds to read PyTorch."""
    import slicer

    panel, scan = module.panels["Predict"], a_coarse_scan(0)
    module.steps.show("Predict")
    volume = slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(scan), name="coarse")
    volume.SetSpacing(4.0, 4.0, 4.0)
    panel.ui.modelComboBox.currentIndex = 0
    panel.ui.inputComboBox.currentIndex = 3
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.applyButton.click()
    settle(panel, lambda: not panel.busy)
    assert UNLIKE in warned(module) and "(learned from: 1 x 1 x 1 to 1 x 1 x 1)" in warned(module)

    with Project.create(tmp_path / "p", "p", LABELS, [Channel("T1")]) as project:
        for number in (1, 2):
            project.cases.add(f"scan {number}", [a_coarse_scan(number)])
    module.session.openProject(tmp_path / "p")
    panel.ui.modelComboBox.currentIndex = 0
    panel.ui.inputComboBox.currentIndex = 2
    panel.ui.applyButton.click()
    settle(panel, lambda: not panel.busy)
    assert warned(module) == (
        "2 cases predicted. 2 scans are unlike those that the model has learned from: scan 1, scan 2. "
        "Look at their results with care."
    )
    module.session.openCase(module.session.cases()[0].id)
    review = module.panels["Review"]
    settle(review)
    label = review.ui.caseLabel
    assert label.text.startswith("scan 1: predicted by") and f" {UNLIKE}." in label.text
    assert "4 x 4 x 4 mm" in label.toolTip


def test_a_familiar_scan_is_not_warned_about(a_review_panel):
    label = a_review_panel.ui.caseLabel
    assert label.text == "predicted: predicted by BARL model_0001." and label.toolTip == ""
