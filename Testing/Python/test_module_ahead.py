# SPDX-License-Identifier: Apache-2.0
"""Untouched cases are predicted by themselves when a model becomes the current one; with the real worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel, Label
from barl.project.store import Project
from slicerhost.clicks import press, waitUntil

pytestmark = pytest.mark.host
MODEL = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources" / "Models" / "hippocampus"
LABELS = [Label(1, "Anterior hippocampus"), Label(2, "Posterior hippocampus")]
ANSWER_S = 300.0  # torch has to be read once; a loaded machine takes its time


@pytest.fixture(scope="module", autouse=True)
def _torch():
    pytest.importorskip("torch", reason="the engine's packages are not installed")


def a_scan(seed: int) -> sitk.Image:
    array = np.random.default_rng(seed).normal(200, 20, (16, 18, 17))
    array[5:11, 5:13, 5:12] += 150 + 10 * seed
    return sitk.GetImageFromArray(array.astype(np.float32))


@pytest.fixture
def a_series(tmp_path, a_module):
    """Four untouched cases (one is held out, one has a draft) and an outlined one, in the module's window."""
    with Project.create(tmp_path / "series", "series", LABELS, [Channel("T1")]) as project:
        for number in range(6):
            project.cases.add(f"scan {number}", [a_scan(number)], held_out=number == 4)
        label = sitk.GetImageFromArray(np.ones((16, 18, 17), np.uint8))
        project.revisions.store(project.cases.find("scan 0").id, label, "accepted", author="reader")
        project.revisions.store(project.cases.find("scan 5").id, label, "draft", author="reader")
    module = a_module
    module.session.openProject(tmp_path / "series")
    module.steps.show("Cases")
    module._parameterNode.predictAhead = True
    yield module
    module.session.closeProject()  # its worker stays warm for the tests of other files


def promote(module) -> str:
    """A model comes into the project, as at the end of a training."""
    project = module.session.project
    model = project.models.add(MODEL, {})
    project.models.promote(model.id)
    module.session.notifyModels()
    return model.id


def predicted(module, model: str) -> list[str]:
    return [case.name for case in module.session.cases() if case.model_id == model]


def names(panel) -> list[str]:
    combo = panel.ui.nextComboBox
    return [combo.itemText(n) for n in range(combo.count)]


def test_untouched_cases_are_predicted_by_themselves_and_what_the_user_wants_goes_before(a_series):
    module, panel = a_series, a_series.panels["Cases"]
    ui, status, wanted = panel.ui, a_series.ui.statusLabel, []
    assert not ui.aheadLabel.visible
    panel.ahead.changed.connect(lambda: wanted.append(panel.ahead.case.name if panel.ahead.case else ""))
    module.session.openCase(module.session.project.cases.find("scan 5").id)
    order = names(panel)
    model = promote(module)
    assert status.text == f"{model} predicts 3 cases in the background; go on meanwhile."
    assert panel.ahead.case.name == order[0] and module.worker.busy == "predict"
    assert ui.aheadLabel.visible and ui.aheadLabel.text == f"Predicting by itself: {order[0]}, 3 left"
    assert ui.cancelPredictButton.visible and ui.predictButton.enabled

    # The user asks for the case that would come last: the one at work is left and comes again.
    panel.predicting.start(None, [module.session.project.cases.find(order[2]).id], "cpu", True, None)
    waitUntil(lambda: panel.predicting.isIdle, ANSWER_S)
    assert predicted(module, model) == [order[2]]
    assert names(panel)[0] == order[2], "what is predicted is proposed first meanwhile"
    waitUntil(lambda: not panel.ahead.isWanted, ANSWER_S)
    assert [name for name in dict.fromkeys(wanted) if name] == order[:2]
    assert sorted(predicted(module, model)) == sorted(order)
    assert status.text == f"{model} has predicted 2 cases." and not ui.aheadLabel.visible
    assert module.session.project.cases.find("scan 4").uncertainty is None, "held out: not asked for"

    # While a training runs nothing else computes; the next model's turn comes when the training has ended.
    run = module.session.project.runs.new({})
    module.session.project.runs.update(run.id, "running")
    model = promote(module)
    assert panel.ahead.isWanted and panel.ahead.isIdle
    assert ui.aheadLabel.text == "Untouched cases are predicted once the worker is free."
    module.session.project.runs.update(run.id, "finished")
    module.session.notifyModels()
    assert not panel.ahead.isIdle
    press(ui.cancelPredictButton)
    assert status.text == "3 cases were not predicted." and not ui.aheadLabel.visible
    waitUntil(lambda: panel.isIdle, ANSWER_S)
    assert not panel.ahead.isWanted and len(predicted(module, model)) < 3

    # Switched off.
    ahead = module.panels["Train"].ui.predictAheadCheckBox
    assert ahead.checked
    ahead.checked = False
    promote(module)
    assert not panel.ahead.isWanted and panel.isIdle


def test_the_case_on_screen_is_predicted_last_and_stays_as_it_is(a_series):
    """One drawn from nothing is not taken for a correction of the prediction that came meanwhile."""
    module, panel, project = a_series, a_series.panels["Cases"], a_series.session.project
    for number in (2, 3):
        project.cases.set_state(project.cases.find(f"scan {number}").id, "excluded")
    module.session.openCase(project.cases.find("scan 1").id)
    shown, worked = module.session.loaded, []
    panel.ahead.changed.connect(lambda: worked.append(panel.ahead.case.name if panel.ahead.case else ""))
    model = promote(module)
    waitUntil(lambda: not panel.ahead.isWanted, ANSWER_S)
    assert [name for name in dict.fromkeys(worked) if name] == ["scan 1"]
    assert predicted(module, model) == ["scan 1"]
    assert module.session.loaded is shown
    assert module.panels["Review"].correction.prediction() is None
    sentence = f"{model} has predicted 1 case. Open the case on screen again to see its prediction."
    assert module.ui.statusLabel.text == sentence
    loaded = module.session.openCase(shown.caseId)
    assert loaded.revision.model_id == model and loaded.uncertainty is not None


def test_a_prediction_is_not_shown_in_another_project(a_series, tmp_path):
    """Its cases have the same ids."""
    module, panel = a_series, a_series.panels["Cases"]
    session = module.session
    case = session.project.cases.find("scan 1").id
    session.openCase(case)
    session.project.models.promote(session.project.models.add(MODEL, {}).id)
    with Project.create(tmp_path / "other", "other", LABELS, [Channel("T1")]) as project:
        for number in range(3):
            project.cases.add(f"another {number}", [a_scan(number)])
    panel.predicting.start(None, [case], "cpu", True, None)
    session.openProject(tmp_path / "other")
    assert session.project.cases.get(case).name.startswith("another")
    waitUntil(lambda: panel.predicting.isIdle, ANSWER_S)
    assert module.ui.statusLabel.text.startswith("1 case predicted.") and session.loaded is None


@pytest.mark.slow
def test_slicer_quits_while_the_worker_predicts(a_series, caplog):
    """The worker ends with Slicer; what was stored stays, nothing is half stored, nobody holds the project."""
    import psutil
    import slicer

    module, folder = a_series, a_series.session.project.folder
    model = promote(module)
    waitUntil(lambda: len(predicted(module, model)) == 1, ANSWER_S)
    waitUntil(lambda: module.worker.busy == "predict", ANSWER_S)
    module.cleanup()
    assert not module.worker.running
    commands = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not [command for command in commands if "barl.worker" in command]
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    with Project.open(folder) as project:
        assert project.verify() == [] and len([case for case in project.cases.all() if case.model_id == model]) >= 1
        project.cases.set_held_out("scan 1", True)
    slicer.util.reloadScriptedModule("BARLSegmentation")
