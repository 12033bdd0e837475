# SPDX-License-Identifier: Apache-2.0
"""Cleanup in the window: the box in the step Predict with a real worker, and what the list of hot-spots shows."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from test_module_predict import MODEL, _torch, a_volume, an_image, module, panel, wait_for_prediction  # noqa: F401

pytestmark = pytest.mark.host


def test_the_box_decides_whether_pieces_are_removed(panel, module, tmp_path):  # noqa: F811
    import slicer

    check = panel.ui.cleanUpCheckBox
    assert check.checked and not check.enabled and "names no cleanup" in check.toolTip
    shutil.copytree(MODEL, tmp_path / "model")
    card = json.loads((MODEL / "model.json").read_text("utf-8"))
    card["cleanup"] = [{"value": 1, "pieces": "volume", "min_ml": 1000.0}]  # more than a hippocampus has
    (tmp_path / "model" / "model.json").write_text(json.dumps(card), "utf-8")
    combo = panel.ui.modelComboBox
    combo.currentIndex = combo.count - 1
    panel.ui.modelPathLineEdit.currentPath = str(tmp_path / "model")
    assert check.enabled and "Anterior hippocampus: pieces of at least 1e+03 ml" in check.toolTip
    panel.ui.volumeSelector.setCurrentNode(a_volume(an_image()))
    found = {}
    for cleaned in (True, False):
        check.checked = cleaned
        assert module.panels["Train"].parameterNode.cleanUp == cleaned
        panel.ui.applyButton.click()
        wait_for_prediction(panel)
        node = module.panels["Train"].parameterNode
        array = slicer.util.arrayFromSegmentBinaryLabelmap(
            node.segmentation, node.segmentation.GetSegmentation().GetNthSegmentID(0)
        )
        found[cleaned] = 0 if array is None else int(np.count_nonzero(array))
        assert ("Cleanup removed" in module.ui.statusLabel.text) == cleaned
        if cleaned:
            assert slicer.util.arrayFromVolume(node.uncertainty).max() == 1
    assert found[True] == 0 < found[False]
    check.checked = True


def test_a_removed_piece_is_named_among_the_hot_spots(a_scene):
    from BARLSegmentationLib.logic.Hotspots import _fromJson
    from BARLSegmentationLib.widgets.HotspotTable import labelText

    spot = {"rank": 1, "position_mm": [1, 2, 3], "volume_ml": 2.0, "mean_uncertainty": 1.0, "label": 4}
    names = {4: "Atrium"}
    assert labelText(_fromJson(spot, names)) == "Atrium"  # a prediction of before
    assert labelText(_fromJson({**spot, "kind": "removed"}, names)) == "Atrium (removed)"
    assert labelText(_fromJson({**spot, "kind": "filled", "label": 0}, names)) == "unknown (hole filled)"
