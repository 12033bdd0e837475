# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.logic import Training
from BARLSegmentationLib.logic.Curves import Curves
from BARLSegmentationLib.logic.Words import readOnlyReason, runStateText, stageText
from BARLSegmentationLib.widgets.DeviceChoice import DeviceChoice
from BARLSegmentationLib.widgets.EffortChoice import EffortChoice
from BARLSegmentationLib.widgets.ModelDecision import ModelDecision
from BARLSegmentationLib.widgets.Panel import Panel, allow, showPlot

if TYPE_CHECKING:
    from barl.errors import BarlError
    from barl.project.records import Case, RunRow
    from barl.worker.client import Pending
    from barl.worker.messages import Event, Hello, Request, Run, RunEvents, TrainingPlan
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

Answer = TypeVar("Answer")

_WAIT = _("Wait until what was asked for is done, or cancel it.")
POLL_MS = 1000
# So many polls in a row may fail (each starts the worker anew) before the panel gives up until it is opened again.
POLLS_IN_VAIN = 3


class TrainPanel(Panel):
    """Starts trainings, follows the one chosen, and has the user decide about the model that comes out.

    A training is a process of its own and outlives Slicer: the panel finds it in the project and asks the worker every
    second what has happened since.

    Attributes:
        moreOptions: Training options beyond those of the panel (``docs/worker-protocol.md``), for scripts.
        run: The run that is followed.
        curves: Its curves.
        decision: Compares a new model with the current one.
    """

    uiName = "TrainPanel"

    def __init__(self, session: Session, worker: WorkerLink, moduleWidget: ScriptedLoadableModuleWidget) -> None:
        super().__init__(session, worker, moduleWidget)
        self.moreOptions: dict = {}
        self.run: Training.WatchedRun | None = None
        self.curves, self.decision = Curves(), ModelDecision(session, self.ui.comparisonGroupBox)
        self.devices = DeviceChoice(self.ui.deviceComboBox)
        self.effort = EffortChoice(self.ui.effortComboBox, self.ui.minutesSpinBox)
        self._request: Pending | None = None  # plan, start, resume or compare: one at a time
        self._attaching: Training.WatchedRun | None = None
        self._inVain = 0
        self._pendingText = ""  # shown until the run has reacted to Pause, Finish or Cancel
        self._tried = (0, 0)  # runs and newly accepted cases when a training was last started by itself
        self._knowsMethods = False
        self._updating = False
        self._timer = qt.QTimer(self.widget)
        self._timer.interval = POLL_MS

    # Life

    def setup(self) -> None:
        ui = self.ui
        for name in ("plan", "start", "pause", "finish", "cancel", "compare"):
            getattr(ui, f"{name}Button").connect("clicked(bool)", getattr(self, f"on{name.capitalize()}"))
        ui.runComboBox.connect("activated(int)", self.onRunChosen)
        ui.minutesSpinBox.connect("valueChanged(double)", self.forgetPlan)
        ui.warmStartCheckBox.connect("toggled(bool)", self.forgetPlan)
        ui.foldsSpinBox.connect("valueChanged(int)", self.onFoldsChanged)
        ui.settingsGroupBox.connect("toggled(bool)", self._showHeldOut)
        ui.methodComboBox.connect("activated(int)", self.onMethodChosen)
        self.devices.chosen.connect(self.onDeviceChosen)
        self._timer.connect("timeout()", self.onTimer)
        self.session.projectChanged.connect(self.onProjectChanged)
        self.session.casesChanged.connect(self.onCasesChanged)
        self.session.modelsChanged.connect(self.update)
        self._fill(ui.methodComboBox, [("BARL", "barl")])
        self.onProjectChanged()

    def opened(self) -> None:
        """Ask which methods and devices there are, and fetch the curves of the run shown."""
        if self.session.project is None:
            return
        if not self._knowsMethods:
            self._knowsMethods = True
            from barl.worker.messages import SayHello

            self.worker.request(SayHello(), onResult=self._onHello, onError=self._onHelloFailed)
        self._poll()

    def enter(self) -> None:
        """Look for a run that somebody else started meanwhile."""
        self._chooseRun()
        if self.run is not None and self.run.alive:
            self._poll()
        self.update()

    @property
    def isIdle(self) -> bool:
        return self._request is None and self._attaching is None and not (self.run is not None and self.run.alive)

    def cleanup(self) -> None:
        self._timer.stop()
        self._timer.disconnect("timeout()", self.onTimer)
        self.run = None
        self._showCurves(False)
        self.curves.remove()
        self.decision.clear()
        super().cleanup()

    def onProjectChanged(self) -> None:
        self._timer.stop()
        self.worker.cancel(self._request)
        self.run, self._request, self._pendingText, self._tried = None, None, "", (0, 0)
        self._showCurves(False)
        self.curves.remove()
        self.decision.clear()
        self.ui.planLabel.text = ""
        self._chooseRun()
        self.ui.settingsGroupBox.collapsed = self.run is not None and self.run.alive
        self.update()
        if self._isExpanded():
            self.opened()

    def onCasesChanged(self) -> None:
        self._trainByItself()
        self.update()

    # Runs

    def _runs(self) -> list[RunRow]:
        project = self.session.project
        return self.session.ask(project.runs.all, otherwise=[]) if project is not None else []

    def _cases(self) -> list[Case]:
        return self.session.ask(self.session.cases, otherwise=[])

    def _chooseRun(self) -> None:
        """Follow the run that trains, or else the newest; a run that the user has chosen stays while none trains."""
        runs = self._runs()
        running = next((run for run in reversed(runs) if run.is_running), None)
        if running is not None and (self.run is None or self.run.id != running.id):
            self._follow(running)
        elif self.run is None and runs:
            self._follow(runs[-1])

    def _follow(self, run: RunRow) -> None:
        self.run, self._pendingText = Training.WatchedRun(run), ""
        self._showCurves(False)
        self.curves.clear(self.session.project.labels)
        if self.run.alive or self._isExpanded():
            self._poll()

    def onRunChosen(self, index: int) -> None:
        runs = {run.id: run for run in self._runs()}
        chosen = runs.get(self.ui.runComboBox.itemData(index))
        if chosen is not None:
            self._follow(chosen)
        self.update()

    def onTimer(self) -> None:
        self._poll()

    def _poll(self) -> None:
        """Ask for new events of the run; the worker answers beside its other work."""
        run, project = self.run, self.session.project
        if run is None or project is None or self._attaching is run:
            return
        from barl.worker.messages import Attach

        self._attaching = run
        self.worker.request(
            Attach(str(project.folder), run.id, run.offset),
            onResult=partial(self._onAttached, run),
            onError=partial(self._onAttachFailed, run),
        )

    def _onAttached(self, run: Training.WatchedRun, answer: RunEvents) -> None:
        if self._attaching is run:
            self._attaching = None
        if run is not self.run:
            return
        self._inVain = 0
        changed = run.take(answer)
        self.curves.append(answer.events)
        self._showCurves()
        if answer.events and not run.alive:
            self._poll()  # a long log comes in pieces
        if run.alive and not self._timer.isActive():
            self._timer.start()
        if changed and not run.alive:
            self._timer.stop()
            self._onRunEnded(run)
        self._updateRun()

    def _onAttachFailed(self, run: Training.WatchedRun, error: BarlError) -> None:
        if self._attaching is run:
            self._attaching = None
        if run is not self.run:
            return
        self._inVain += 1
        if self._inVain >= POLLS_IN_VAIN or not self._timer.isActive():
            self._inVain = 0
            self._timer.stop()
            self.session.status(str(error), error=True)

    def _onRunEnded(self, run: Training.WatchedRun) -> None:
        from barl.project.states import RunState

        self._pendingText = ""
        self.session.status(run.inWords(), error=run.state in (RunState.FAILED, RunState.INTERRUPTED))
        self.session.notifyModels()  # what a new model makes happen is said after that
        if run.state is RunState.FINISHED:
            if not self.decision.reasonAgainstComparison():
                self.onCompare()
            self._trainByItself()
        self.update()

    # Buttons

    def options(self) -> dict:
        """The training options of the panel and ``moreOptions``."""
        node = self.parameterNode
        chosen = (
            {}
            if node is None
            else {
                "method": node.method,
                "minutes": node.minutes,
                "device": self.devices.device,
                "warm_start": node.warmStart,
                "folds": node.folds if node.folds > 1 else None,
            }
        )
        return {**chosen, **self.moreOptions}

    def onPlan(self) -> None:
        from barl.worker.messages import PlanTraining

        self._ask(lambda project: PlanTraining(project, self.options()), self._onPlanned)

    def _onPlanned(self, plan: TrainingPlan) -> None:
        self.ui.planLabel.text = "\n".join([Training.planText(plan.words), *plan.notes])

    def forgetPlan(self) -> None:
        """Clear the plan on display: the options have changed since."""
        self.ui.planLabel.text = ""
        self.ui.planLabel.visible = False

    def onFoldsChanged(self, folds: int) -> None:
        self.forgetPlan()
        scratch = _("With folds every training starts from scratch: the current model has seen the cases that judge it")
        tip = _("Go on from the current model, if there is one and it fits; otherwise from scratch")
        allow(self.ui.warmStartCheckBox, tip, scratch if folds > 1 else "")
        self._showHeldOut()

    def onStart(self) -> None:
        from barl.worker.messages import StartTraining

        self._ask(lambda project: StartTraining(project, self.options()), self._onStarted)

    def _onStarted(self, started: Run) -> None:
        self.session.status(_("{run} has started. It goes on when Slicer is closed.").format(run=started.run))
        self.forgetPlan()
        self.ui.settingsGroupBox.collapsed = True  # the run takes their place
        self._follow(self.session.project.runs.get(started.run))
        self.session.notifyModels()

    def onPause(self) -> None:
        """Pause, or resume."""
        from barl.worker.messages import ResumeTraining, StopTraining

        if self.run.alive:
            self._pendingText = _("Pausing: saving a checkpoint")
            self._tell(StopTraining)
        else:
            self._ask(lambda project: ResumeTraining(project, self.run.id), self._onStarted)

    def onFinish(self) -> None:
        from barl.worker.messages import FinishTraining

        self._pendingText = _("Finishing: measuring and saving the model")
        self._tell(FinishTraining, self._onFinishing)

    def _onFinishing(self, finishing: Run) -> None:
        if self.run is not None and self.run.id == finishing.run and not self.run.alive:
            text = self._pendingText
            self._follow(self.session.project.runs.get(finishing.run))
            self._pendingText = text
            self.update()

    def onCancel(self) -> None:
        if self._request is not None:
            self.worker.cancel(self._request)
        else:
            from barl.worker.messages import CancelTraining

            self._pendingText = _("Ending")
            self._tell(CancelTraining)

    def _tell(self, kind: type[Request[Run]], onResult: Callable[[Run], None] | None = None) -> None:
        """A quick request about the run."""
        self.worker.request(
            kind(str(self.session.project.folder), self.run.id),
            onResult=onResult or (lambda run: self._poll()),
            onError=self._onToldInVain,
        )
        self._updateRun()

    def _onToldInVain(self, error: BarlError) -> None:
        self._pendingText = ""
        self.session.status(str(error), error=True)
        self._poll()

    def _ask(self, make: Callable[[str], Request[Answer]], onResult: Callable[[Answer], None]) -> None:
        """A long request, one at a time; Cancel ends it.

        Args:
            make: Gives the request for the project's folder.
            onResult: Gets its answer.
        """
        if self._request is not None or self.session.project is None:
            return

        def done(then: Callable[[Any], None], value: object) -> None:
            if self._request is not pending:  # another project is open
                return
            self._request = None
            then(value)
            self.update()

        pending = self._request = self.worker.request(
            make(str(self.session.project.folder)),
            onEvent=self._onProgress,
            onResult=partial(done, onResult),
            onError=partial(done, self._onFailed),
        )
        self.update()

    def _onProgress(self, event: Event) -> None:
        if event.event == "progress" and self._request is not None:
            self.ui.progressBar.value = round(1000 * (event.fraction or 0.0))
            words = [stageText(event.stage), event.message or ""]
            self.ui.runLabel.text = ": ".join(filter(None, words))

    def _onFailed(self, error: BarlError) -> None:
        from barl.errors import Cancelled

        self.session.status(str(error), error=not isinstance(error, Cancelled))

    def _trainByItself(self) -> None:
        """Start a training if enough cases were accepted since the last one."""
        from barl.project.states import RunState

        node, project = self.parameterNode, self.session.project
        if node is None or project is None or node.trainAfter < 1 or self._request is not None:
            return
        runs = self._runs()
        paused = bool(runs) and runs[-1].state is RunState.STOPPED  # the user's own wish
        if paused or Training.reasonAgainstStart(project, self._cases(), runs, bool(self.worker.computer)):
            return
        count = self.session.ask(Training.acceptedSince, project, otherwise=0)
        if count >= node.trainAfter and self._tried != (len(runs), count):  # once, should it fail
            self._tried = (len(runs), count)
            self.onStart()

    def onCompare(self) -> None:
        model, device = self.decision.model(), self.devices.device
        if model is not None:
            from barl.worker.messages import CompareModels

            self._ask(lambda project: CompareModels(project, model.id, device=device), self.decision.show)

    # What is shown

    def onMethodChosen(self, index: int) -> None:
        if self.parameterNode is not None:
            self.parameterNode.method = self.ui.methodComboBox.itemData(index)
            self.forgetPlan()

    def onDeviceChosen(self, name: str) -> None:
        if self.parameterNode is not None:
            self.parameterNode.device = name
            self.forgetPlan()

    def _onHello(self, hello: Hello) -> None:
        methods = [(method.title, method.name) for method in hello.methods]
        self._fill(self.ui.methodComboBox, methods)
        self.devices.show(hello.devices)
        self.update()

    def _onHelloFailed(self, error: BarlError) -> None:
        self._knowsMethods = False
        self.session.status(str(error), error=True)

    def _fill(self, combo: qt.QComboBox, items: list[tuple[str, str]]) -> None:
        combo.clear()
        for text, data in items:
            combo.addItem(text, data)

    def _select(self, combo: qt.QComboBox, data: str) -> None:
        """Select the item with this data; add it if the worker has not listed it yet."""
        if combo.findData(data) < 0:
            combo.addItem(data, data)
        combo.currentIndex = combo.findData(data)

    def _methodTitle(self, name: str) -> str:
        """What the list of methods calls it; its name until the worker has listed it."""
        combo = self.ui.methodComboBox
        place = combo.findData(name)
        return combo.itemText(place) if place >= 0 else name

    def _isExpanded(self) -> bool:
        return bool(self.widget.visible)

    def update(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            self._updateAll()
        finally:
            self._updating = False

    def _updateAll(self) -> None:
        ui, project, runs = self.ui, self.session.project, self._runs()
        cases = self._cases()
        reason = Training.reasonAgainstStart(project, cases, runs, bool(self.worker.computer))
        if self._request is not None:
            reason = reason or _WAIT
        allow(ui.startButton, _("Train a model; it goes on when Slicer is closed"), reason)
        allow(ui.planButton, _("Describe the training in words, without starting it"), reason)
        self._showHeldOut()
        ui.planLabel.visible = bool(ui.planLabel.text)
        if self.parameterNode is not None:
            self._select(ui.methodComboBox, self.parameterNode.method)
            self.devices.select(self.parameterNode.device)
        ui.runComboBox.clear()
        for run in reversed(runs):
            method = self._methodTitle(run.plan.get("method", ""))
            ui.runComboBox.addItem(f"{run.id}: {method}, {runStateText(run.state)}", run.id)
        ui.runComboBox.visible = bool(runs)
        if self.run is not None:
            ui.runComboBox.currentIndex = ui.runComboBox.findData(self.run.id)
        self._updateRun()
        comparing = self._request is not None and self._request.request.name == "compare"
        self.decision.update(self._request is not None, comparing)

    def _showHeldOut(self, *_arguments: object) -> None:
        """What is missing to learn from; else what the held-out cases, or the folds, allow to say about the model."""
        text, cases = "", self._cases()
        if self.session.project is not None:
            folds = self.ui.foldsSpinBox.value
            text = Training.nothingToLearn(cases)
            measured = any(case.evaluates for case in cases)
            if not text and not (measured and self.ui.settingsGroupBox.collapsed):  # a run needs the room
                text = Training.foldsText(cases, folds) or Training.heldOutText(cases)
        self.ui.heldOutLabel.text, self.ui.heldOutLabel.visible = text, bool(text)

    def _updateRun(self) -> None:
        """The part that changes every second."""
        ui, run, busy = self.ui, self.run, self._request is not None
        alive = run is not None and run.alive
        paused = run is not None and run.paused
        locked = readOnlyReason(self.session.project)
        wait = locked or ("" if alive or paused else _("No training is running."))
        if busy and not locked:
            wait = _WAIT
        ui.pauseButton.text = _("Resume") if paused else _("Pause")
        tip = run.afterResume() if paused else _("Save a checkpoint and end; resume whenever you like")
        allow(ui.pauseButton, tip, wait)
        allow(ui.finishButton, _("End the training now and keep the model as it is so far"), wait)
        nothing = "" if busy or (alive and not locked) else _("Nothing is running.")
        allow(ui.cancelButton, _("End at once; what was learned since the last checkpoint is lost"), nothing)
        ui.progressBar.visible = busy or alive
        if not busy:
            ui.progressBar.value = round(1000 * run.fraction) if run is not None else 0
            ui.runLabel.text = "\n".join([self._pendingText or run.inWords(), *run.told]) if run is not None else ""
        ui.runLabel.visible = bool(ui.runLabel.text)

    def _showCurves(self, shown: bool = True) -> None:
        """Give the plot widgets the charts of the run, or none before these go."""
        showPlot(self.ui, "loss", self.curves.loss if shown else None)
        showPlot(self.ui, "dice", self.curves.dice if shown else None)
        there = [shown and curve.view is not None for curve in (self.curves.loss, self.curves.dice)]
        for index, one in enumerate(there):
            self.ui.curvesTabs.setTabEnabled(index, one)
        self.ui.curvesGroupBox.visible = any(there)
