# SPDX-License-Identifier: Apache-2.0
"""Training from the module: real worker, real detached processes, real plot nodes; small cases, few steps."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from barl.project.labels import Channel, Label
from barl.project.store import Project
from barl.training.budgets import BUDGETS, choose_effort
from barl.worker.messages import ComparedCase, Evaluation, Event, ModelComparison, RunEvents, Scores, Summary
from barl.worker.process_tree import end_process_tree

pytestmark = pytest.mark.host

TINY = {"widths": [4, 8], "patch": [16, 16, 16], "loader_workers": 0, "validations": 2}
# Longer than any test waits; a training that a killed test leaves behind still comes to its end.
LONG = {"iterations": None, "minutes": 10.0}


def ball(seed: int) -> tuple[sitk.Image, sitk.Image]:
    rng = np.random.default_rng(seed)
    center = rng.uniform(8, 12, 3)
    mask = sum((axis - c) ** 2 for axis, c in zip(np.indices((20, 22, 24)), center, strict=True)) < 25
    scan = (100 * mask + rng.normal(0, 10, mask.shape)).astype(np.float32)
    return sitk.GetImageFromArray(scan), sitk.GetImageFromArray(mask.astype(np.uint8))


def make_project(folder: Path, outlined: int = 2, held_out: int = 2, untouched: int = 1) -> Path:
    with Project.create(folder, "balls", [Label(1, "ball")], [Channel("image")]) as project:
        for number in range(outlined + held_out + untouched):
            image, label = ball(number)
            held = outlined <= number < outlined + held_out
            known = label if number < outlined + held_out else None
            project.cases.add(f"case {number}", [image], label=known, held_out=held)
    return folder


# Logic


def losses(iteration: int, **more) -> Event:
    values = {"iteration": iteration, "total": 2.0 / (iteration + 1), "supervised": 1.0, **more}
    return Event("progress", "training", 0.5, 90.0, values=values)


def dice(iteration: int, **scores) -> Event:
    return Event("progress", "training", 0.5, values={"iteration": iteration, **scores})


def column(table, name: str) -> np.ndarray:
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(table.GetTable().GetColumnByName(name))


def test_curves_become_tables_series_and_charts_that_are_not_saved_with_the_scene(host):
    import slicer
    from BARLSegmentationLib.logic.Curves import Curves

    curves = Curves()
    curves.clear([Label(1, "edema"), Label(3, "core")])
    curves.append([Event("log", message="x"), Event("progress", "preparing", 1.0)])
    assert curves.loss.view is None and not slicer.util.getNodesByClass("vtkMRMLTableNode")
    curves.append([losses(1, consistency_weight=0.1), losses(2, dpr=0.4, consistency_weight=0.2)])
    curves.append([dice(2, **{"dice 1": 0.5, "dice 3": None})])
    curves.append([Event("progress", "validating", values={"mean_dice": 0.7, "dice": {"1": 0.7}})])

    chart = curves.loss.view.GetPlotChartNode()
    series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [one.GetName() for one in series] == ["total", "supervised", "consistency weight (top: 1)", "DPR"]
    assert len({one.GetColor() for one in series}) == 4
    table = series[0].GetTableNode()
    np.testing.assert_allclose(column(table, "total"), [1.0, 2 / 3])
    np.testing.assert_allclose(column(table, "dpr"), [np.nan, 0.4])
    np.testing.assert_allclose(column(table, "consistency_weight"), [0.1, 0.2])
    assert "DPR" in curves.loss.legend and "#0072b2" in curves.loss.legend
    assert chart.GetXAxisRange() == (0, 2) and chart.GetYAxisRange()[1] >= 1.0
    held_out = curves.dice.view.GetPlotChartNode()
    names = [held_out.GetNthPlotSeriesNode(n).GetName() for n in range(held_out.GetNumberOfPlotSeriesNodes())]
    assert names == ["edema", "core"]
    scores = held_out.GetPlotSeriesNode().GetTableNode()
    # The last measurement replaces that of the same step; a line needs two points, so the only one is given twice.
    np.testing.assert_allclose(column(scores, "dice 1"), [0.7, 0.7])
    assert not any(node.GetSaveWithScene() for node in (table, chart, *series, curves.loss.view))
    curves.remove()
    for kind in ("Table", "PlotSeries", "PlotChart", "PlotView"):
        assert not [n for n in slicer.util.getNodesByClass(f"vtkMRML{kind}Node") if "BARL" in (n.GetName() or "")]


def test_a_long_run_stays_short_and_a_resumed_one_forgets_what_it_repeats(host):
    from BARLSegmentationLib.logic.Curves import MAX_ROWS, Curves, Rows

    rows = Rows()
    for iteration in range(1, 20_001):
        rows.add({"iteration": iteration, "total": 1.0})
    iterations = rows.columns()["iteration"]
    assert MAX_ROWS / 2 <= len(iterations) <= MAX_ROWS
    assert np.ptp(np.diff(iterations)) == 0 and iterations[-1] > 19_900

    curves = Curves()
    curves.clear()
    curves.append([losses(n) for n in range(1, 11)])
    curves.append([losses(6), losses(7)])  # killed after step 10, resumed from the checkpoint of step 5
    assert list(column(curves.loss.table, "iteration")) == [1, 2, 3, 4, 5, 6, 7]
    curves.append([losses(n) for n in range(8, 5000)])  # a megabyte of events, which is what one answer carries
    assert column(curves.loss.table, "iteration")[-1] > 4990  # of a long run, every n-th row is kept
    curves.remove()


def test_a_run_says_what_it_is_at(host, tmp_path):
    from barl.project.records import RunRow
    from barl.project.states import RunState
    from BARLSegmentationLib.logic.Training import WatchedRun

    checkpoint = pytest.importorskip("barl.training.checkpoint").NAME
    run = WatchedRun(RunRow("run_0001", RunState.RUNNING, "", tmp_path))
    assert run.inWords() == "Starting"
    assert not run.take(RunEvents("run_0001", "running", "", None, [losses(7)], 10))
    assert run.inWords() == "Training, iteration 7, about 2 min left" and run.offset == 10
    failed = "The graphics card does not have enough memory. Close other programs."
    assert run.take(RunEvents("run_0001", "failed", failed, None, [], 10))
    assert run.inWords() == f"run_0001 failed. {failed}"
    run.take(RunEvents("run_0001", "interrupted", "", None, [], 10))
    assert "restarted" in run.inWords() and "Resume" in run.inWords()
    run.take(RunEvents("run_0001", "stopped", "Cancelled.", None, [], 10))
    begun = "run_0001 was cancelled at iteration 7."
    assert run.inWords() == f"{begun} It had stored no checkpoint yet: Resume begins anew."
    (tmp_path / checkpoint).touch()
    assert run.inWords() == f"{begun} Resume goes on from its last checkpoint."
    run.take(RunEvents("run_0001", "stopped", "", None, [], 10))
    assert run.inWords() == "run_0001 is paused at iteration 7. Resume it when you like."


def test_what_a_run_said_of_its_model_stays_when_it_is_finished(host, tmp_path):
    from barl.project.records import RunRow
    from barl.project.states import RunState
    from BARLSegmentationLib.logic.Training import WatchedRun

    run = WatchedRun(RunRow("run_0001", RunState.RUNNING, "", tmp_path))
    run.take(RunEvents("run_0001", "running", "", None, [Event("log", message="Out of memory."), losses(7)], 10))
    assert run.told == ["Out of memory."]
    poor, result = Event("log", message="The model is poor."), Event("result")
    run.take(RunEvents("run_0001", "finished", "", "model_0001", [poor, result], 20))
    assert run.told == ["The model is poor."]
    good = WatchedRun(RunRow("run_0001", RunState.RUNNING, "", tmp_path))
    good.take(RunEvents("run_0001", "finished", "", "model_0001", [poor, losses(7), result], 20))
    assert good.told == []


def test_the_bar_of_a_run_never_goes_back(host, tmp_path):
    from barl.project.records import RunRow
    from barl.project.states import RunState
    from BARLSegmentationLib.logic.Training import WatchedRun

    run, shown = WatchedRun(RunRow("run_0001", RunState.RUNNING, "", tmp_path)), []
    stages = [("preparing", 0.0), ("preparing", 1.0), ("training", 0.0), ("training", 1.0)]
    stages += [("validating", 0.0), ("training", 0.9), ("validating", 1.0)]
    for stage, fraction in stages:
        run.take(RunEvents("run_0001", "running", "", None, [Event("progress", stage, fraction)], 10))
        shown.append(run.fraction)
    assert shown == sorted(shown) and shown[1] <= 0.1 and shown[-1] == 1.0


def test_why_no_training_can_start_and_what_held_out_cases_allow(host, tmp_path):
    from BARLSegmentationLib.logic import Training

    assert "Open a project" in Training.reasonAgainstStart(None, [], [])
    with Project.open(make_project(tmp_path / "p", outlined=1, held_out=0)) as project:
        assert Training.reasonAgainstStart(project, project.cases.all(), project.runs.all()) == ""
        assert "will not be measured" in Training.heldOutText(project.cases.all())
        project.cases.set_held_out("case 0", True)
        assert "at least one case" in Training.reasonAgainstStart(project, project.cases.all(), project.runs.all())
        assert "too few" in Training.heldOutText(project.cases.all())
        run = project.runs.new({"run": {"cases": []}})
        project.runs.update(run.id, "running")
        assert run.id in Training.reasonAgainstStart(project, project.cases.all(), project.runs.all())
    with Project.open(tmp_path / "p", read_only=True) as project:
        assert "reading only" in Training.reasonAgainstStart(project, project.cases.all(), [])


def test_acceptances_are_counted_since_the_last_run(host, tmp_path):
    from BARLSegmentationLib.logic import Training

    with Project.open(make_project(tmp_path / "p")) as project:
        assert Training.acceptedSince(project) == 2  # nobody has learned from any
        cases = [
            {"id": case.id, "revision": case.newest_revision, "held_out": case.held_out} for case in project.cases.all()
        ]
        project.runs.new({"run": {"cases": cases}})
        assert Training.acceptedSince(project) == 0
        project.revisions.store("case_0001", ball(0)[1], "accepted", author="reader")  # corrected once more
        project.revisions.store("case_0005", ball(4)[1], "accepted", author="reader")
        project.revisions.store("case_0003", ball(2)[1], "accepted", author="reader")  # held out
        assert Training.acceptedSince(project) == 2


def test_a_model_waits_for_a_decision_until_there_is_one(host, tmp_path):
    from BARLSegmentationLib.logic import Training

    model = tmp_path / "model"
    model.mkdir()
    for name in ("model.json", "weights.safetensors"):
        (model / name).write_text("{}")
    with Project.open(make_project(tmp_path / "p")) as project:
        assert Training.undecidedModel(project) is None
        for decide in (Training.keepCurrent, lambda project, model: project.models.promote(model.id)):
            run = project.runs.new({"run": {"cases": []}})
            row = project.models.add(model, {})
            project.runs.update(run.id, "running")
            project.runs.update(run.id, "finished", model_id=row.id)
            assert Training.undecidedModel(project).id == row.id
            decide(project, row)
            assert Training.undecidedModel(project) is None
        assert [e.facts["model"] for e in project.journal.entries() if e.action == "model kept out"] == ["model_0001"]


def side(name: str, *scores: float) -> Evaluation:
    summary = Summary(float(np.mean(scores)), float(np.std(scores, ddof=1)), len(scores))
    mean, ball = (Scores(title, *[summary] * 8) for title in ("mean", "ball"))
    return Evaluation(name, {"1": ball}, mean, None, None, [], [])


def test_a_comparison_becomes_rows_and_a_paired_plot(host):
    from BARLSegmentationLib.logic.Comparison import Comparison

    comparison = Comparison()
    cases = [
        ComparedCase("case_0003", "three", 0.9, 0.7),
        ComparedCase("case_0004", "four", 0.8, 0.75),
        ComparedCase("case_0005", "empty", None, None),
    ]
    new, current = side("model_0002", 0.9, 0.8), side("model_0001", 0.7, 0.75)
    comparison.show(ModelComparison(new, current, cases, {}, {}, "", []))
    assert comparison.metricRows()[0] == ("Dice", "0.725 ± 0.035", "0.850 ± 0.071")
    assert comparison.caseRows() == [
        ("1  three", "0.700", "0.900"),
        ("2  four", "0.750", "0.800"),
        ("3  empty", "–", "–"),
    ]
    chart = comparison.view.GetPlotChartNode()
    series = {
        one.GetName(): one for one in (chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes()))
    }
    assert set(series) == {"change", "model_0001", "model_0002"}
    np.testing.assert_allclose(column(series["model_0002"].GetTableNode(), "new"), [0.9, 0.8])
    pairs = column(series["change"].GetTableNode(), "Dice")
    np.testing.assert_allclose(pairs, [0.7, 0.9, np.nan, 0.75, 0.8, np.nan])
    assert series["model_0001"].GetMarkerStyle() != series["model_0002"].GetMarkerStyle()
    comparison.remove()
    assert comparison.view is None and comparison.result is None


# Panel


@pytest.fixture
def module(a_module):
    module = a_module
    yield module
    project = module.session.project
    for run in project.runs.all() if project is not None else []:
        if run.state == "running" and psutil.pid_exists(run.pid or 0):  # the test has failed
            end_process_tree(run.pid)
    module.session.closeProject()
    module.worker.close()


@pytest.fixture
def panel(module):
    """The Train panel, its section open, set to train small networks for a moment."""
    panel = module.panels["Train"]
    module.steps.show("Train")
    panel.moreOptions = {"minutes": None, "iterations": 12, "device": "cpu", "overrides": dict(TINY)}
    yield panel
    panel.moreOptions = {}


@pytest.fixture
def status(module):
    """What the status line was told: (text, is it an error)."""
    told = []
    module.session.statusChanged.connect(lambda text, isError: told.append((text, isError)))
    return told


def wait(host, condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        host.processEvents(0.1)


def rows(curve) -> int:
    return curve.table.GetTable().GetNumberOfRows() if curve.table is not None else 0


def test_without_an_outline_the_line_above_start_says_so(module, panel, tmp_path):
    """It said that the quality of the new model would not be measured."""
    ui, session = panel.ui, module.session
    session.openProject(make_project(tmp_path / "project", outlined=0, held_out=0))
    assert not ui.startButton.enabled and ui.heldOutLabel.visible
    assert (
        ui.heldOutLabel.text == ui.startButton.toolTip == "Outline and accept at least one case that is not held out."
    )
    session.project.revisions.store("case_0001", ball(0)[1], "accepted", author="reader")
    session.notifyCases()
    assert ui.startButton.enabled and "will not be measured" in ui.heldOutLabel.text


def test_a_word_stands_for_a_time_and_a_time_of_ones_own_for_no_word(panel):
    from BARLSegmentationLib.widgets.EffortChoice import MINUTES

    ui = panel.ui
    words = [ui.effortComboBox.itemData(n) for n in range(ui.effortComboBox.count)]
    assert words == ["quick", "standard", "thorough", ""]
    before = ui.minutesSpinBox.value
    for n, (word, minutes) in enumerate(MINUTES.items()):
        ui.effortComboBox.currentIndex = n
        ui.effortComboBox.activated(n)
        assert ui.minutesSpinBox.value == minutes
        assert {choose_effort(device, None, minutes) for device in BUDGETS} == {word}
    ui.minutesSpinBox.value = 77
    assert ui.effortComboBox.currentText == "My own time"
    ui.minutesSpinBox.value = before


def test_without_a_project_every_button_says_why_not(module, panel):
    ui = panel.ui
    for button in (ui.startButton, ui.planButton):
        assert not button.enabled and "Open a project first." in button.toolTip
    assert not ui.pauseButton.enabled and "No training is running" in ui.pauseButton.toolTip
    assert not (ui.lossPlotWidget.visible or ui.comparisonGroupBox.visible or ui.runComboBox.visible)


def test_a_project_whose_drive_is_gone_is_told_and_breaks_nothing(module, panel, status, tmp_path, monkeypatch):
    import sqlite3

    session = module.session
    session.openProject(make_project(tmp_path / "project"))

    def fail(*_arguments):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(session.project.cases, "all", fail)
    panel.update()
    panel.onCasesChanged()
    assert "disk I/O error" in status[-1][0] and status[-1][1] and not panel.ui.startButton.enabled


def plan_a_run(host, panel):
    """The plan is told before the start; nothing is stored yet."""
    ui = panel.ui
    ui.planButton.click()
    assert not ui.startButton.enabled and ui.cancelButton.enabled
    wait(host, lambda: ui.planLabel.text)
    assert ui.planLabel.text.startswith("Method: BARL, 12 iterations\n") and panel.session.project.runs.all() == []


def compare_and_promote(host, panel, status):
    """The comparison begins by itself; the newer model becomes the current one."""
    ui = panel.ui
    wait(host, lambda: panel.decision.comparison.result is not None)
    assert "2 held-out cases" in ui.comparisonLabel.text and "chance" in ui.comparisonLabel.text
    table = ui.comparisonTable
    texts = [[table.item(row, c).text() for c in range(3)] for row in range(table.rowCount)]
    assert [row[0] for row in texts][-2:] == ["1  case 2", "2  case 3"] and texts[0][0] == "Dice"
    assert table.horizontalHeaderItem(1).text() == "model_0001"
    assert ui.comparisonPlotWidget.visible and ui.promoteButton.enabled
    ui.promoteButton.click()
    assert panel.session.project.models.current().id == "model_0002"
    assert [text for text, _ in status[-2:]] == [
        "model_0002 is the current model now.",
        "model_0002 predicts 1 case in the background; go on meanwhile.",
    ]
    assert not ui.keepButton.enabled


def train_the_first_model(host, panel, status):
    """Its model becomes the current one: there is nothing to decide."""
    ui = panel.ui
    assert ui.startButton.enabled, ui.startButton.toolTip
    ui.startButton.click()
    wait(host, lambda: panel.session.project.models.current() is not None and not panel.run.alive)
    assert panel.run.state == "finished" and rows(panel.curves.dice) >= 2
    assert ui.lossPlotWidget.mrmlPlotViewNode().GetPlotChartNode().GetNumberOfPlotSeriesNodes() >= 3
    assert ui.curvesGroupBox.visible and ui.curvesTabs.isTabEnabled(1) and not ui.comparisonGroupBox.visible
    assert ("run_0001 is finished: model_0001.", False) in status


def test_plan_start_pause_kill_resume_finish_compare_and_promote(host, module, panel, status, tmp_path):
    """The life of two trainings, with everything that may happen to them on the way."""
    ui, session = panel.ui, module.session
    session.openProject(make_project(tmp_path / "project"))
    wait(host, lambda: ui.methodComboBox.count > 1)
    assert {ui.methodComboBox.itemData(n) for n in range(ui.methodComboBox.count)} >= {"barl", "supervised"}
    assert ui.heldOutLabel.visible and "too few for a statistical test" in ui.heldOutLabel.text

    plan_a_run(host, panel)

    train_the_first_model(host, panel, status)

    # The second one: paused, resumed, watched from a reopened project, killed, resumed, finished early.
    panel.moreOptions.update(LONG)
    ui.startButton.click()
    wait(host, lambda: panel.run.id == "run_0002" and rows(panel.curves.loss) >= 1)
    assert not ui.startButton.enabled and "run_0002 is training already" in ui.startButton.toolTip
    assert ui.pauseButton.text == "Pause" and "Training, iteration" in ui.runLabel.text
    ui.pauseButton.click()
    assert "Pausing" in ui.runLabel.text
    wait(host, lambda: panel.run.state == "stopped")
    assert ui.pauseButton.text == "Resume" and not ui.cancelButton.enabled
    seen = rows(panel.curves.loss)
    ui.pauseButton.click()
    wait(host, lambda: panel.run.alive and rows(panel.curves.loss) > seen)

    session.closeProject()
    module.worker.close()  # as if Slicer had been closed
    assert panel.run is None and not ui.lossPlotWidget.visible
    session.openProject(tmp_path / "project")
    wait(host, lambda: panel.run is not None and panel.run.alive and rows(panel.curves.loss) > seen)

    os.kill(session.project.runs.get("run_0002").pid, signal.SIGKILL)
    wait(host, lambda: panel.run.state == "interrupted")
    assert status[-1][1] and "Resume" in status[-1][0] and "interrupted" in ui.runComboBox.currentText
    ui.pauseButton.click()
    wait(host, lambda: panel.run.alive)
    ui.finishButton.click()
    wait(host, lambda: panel.run.state == "finished")

    compare_and_promote(host, panel, status)


def test_accepted_cases_start_a_training_by_themselves_and_cancel_ends_it(host, module, panel, tmp_path):
    ui, session = panel.ui, module.session
    session.openProject(make_project(tmp_path / "project", held_out=0))
    panel.moreOptions.update(LONG)
    ui.trainAfterSpinBox.value = 3
    assert panel.parameterNode.trainAfter == 3
    session.notifyCases()
    assert session.project.runs.all() == [] and ui.startButton.enabled  # only two are accepted
    session.project.revisions.store("case_0003", ball(2)[1], "accepted", author="reader")
    session.notifyCases()
    wait(host, lambda: panel.run is not None and rows(panel.curves.loss) >= 1)
    assert not ui.curvesTabs.isTabEnabled(1) and "will not be measured" in ui.heldOutLabel.text
    ui.cancelButton.click()
    wait(host, lambda: panel.run.state == "stopped")
    session.notifyCases()
    host.processEvents(0.2)
    assert len(session.project.runs.all()) == 1  # the same cases do not start it again


def test_what_goes_wrong_is_one_sentence_in_the_status_line(host, module, panel, status, tmp_path):
    ui, session = panel.ui, module.session
    session.openProject(make_project(tmp_path / "project", held_out=0))
    panel.moreOptions["overrides"] = {"patch": "large"}
    ui.startButton.click()
    wait(host, lambda: status and status[-1][1])
    assert "patch" in status[-1][0] and "\n" not in status[-1][0]
    assert session.project.runs.all() == [] and ui.startButton.enabled

    run = session.project.runs.new({"method": "barl", "run": {"cases": []}})
    session.project.runs.update(run.id, "running")
    session.project.runs.update(run.id, "failed", message="The disk is full: project. Free some space.")
    panel.enter()
    wait(host, lambda: ui.runLabel.visible)
    assert ui.runLabel.text == "run_0001 failed. The disk is full: project. Free some space."
    assert ui.pauseButton.text == "Resume"
