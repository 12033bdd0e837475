# SPDX-License-Identifier: Apache-2.0
"""A training with folds in the step Train, killed on its way, with a real worker."""

from __future__ import annotations

import os
import signal

import pytest
from barl.project.model_card import read_card
from test_module_train import make_project, module, panel, status, wait  # noqa: F401

pytestmark = pytest.mark.host


def test_folds_are_chosen_killed_resumed_and_make_one_model(host, module, panel, status, tmp_path):  # noqa: F811
    ui, session = panel.ui, module.session
    session.openProject(make_project(tmp_path / "project", outlined=2, held_out=0))
    assert ui.foldsSpinBox.value == 1 and ui.warmStartCheckBox.enabled and panel.options()["folds"] is None
    assert "will not be measured" in ui.heldOutLabel.text
    ui.foldsSpinBox.value = 3
    assert "3 folds need as many" in ui.heldOutLabel.text and "there are 2" in ui.heldOutLabel.text
    ui.foldsSpinBox.value = 2
    assert "judged by a member" in ui.heldOutLabel.text
    assert not ui.warmStartCheckBox.enabled and "from scratch" in ui.warmStartCheckBox.toolTip
    assert panel.options()["folds"] == 2

    panel.moreOptions.update({"iterations": 40})
    ui.startButton.click()
    second = session.project.folder / "runs" / "run_0001" / "fold-2" / "checkpoint.safetensors"
    wait(host, (second.parent / "plan.json").exists)
    os.kill(session.project.runs.get("run_0001").pid, signal.SIGKILL)
    wait(host, lambda: panel.run.state == "interrupted")
    assert (second.parent.parent / "fold-1" / "fold.json").exists()
    ui.pauseButton.click()
    wait(host, lambda: panel.run.state == "finished")
    assert ("run_0001 is finished: model_0001.", False) in status
    model = session.project.models.current()
    assert read_card(model.folder).members == 2 and len(model.summary["out_of_fold"]) == 2
    logs = [note for note in panel.run.notes if note.startswith("Fold ")]
    assert logs[:2] == ["Fold 1 of 2.", "Fold 2 of 2."] and logs[2].startswith("Fold 2 of 2") and len(logs) == 3
    ui.foldsSpinBox.value = 1
