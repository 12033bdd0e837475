# SPDX-License-Identifier: Apache-2.0
import contextlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import qt
import slicer
from BARLSegmentationLib.logic.CaseLoader import LoadedCase
from BARLSegmentationLib.logic.Session import Session
from BARLSegmentationLib.SelfTest import BARLSegmentationTest  # noqa: F401 (Slicer looks for it in this file)
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    from barl.worker.messages import PredictedCases

STATUS_MS = 15000  # how long the window's status bar shows a sentence
REFRESH_MS = 2000  # between two looks for what another program has changed in the project

# The steps of the work in their order. Each is the class <name>Panel of BARLSegmentationLib.widgets.<name>Panel.
PANELS = ["Project", "Cases", "Review", "Train", "Predict", "Setup"]


class BARLSegmentation(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: qt.QObject) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("BARL Segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Volumes", "Segmentations", "SegmentEditor"]
        parent.contributors = ["BARL for 3D Slicer maintainers"]
        parent.helpText = _(
            "Segment a whole series of scans from a few outlined ones: outline some cases, train, look where the model "
            "is unsure, correct, train again, and see which case to look at next."
        )
        parent.acknowledgementText = _(
            "The training method is a reconstruction of BARL (arXiv 2510.16863) from public descriptions of it; "
            "it is not the authors' code."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Called when Slicer is up: Sample Data exists only then."""
    from BARLSegmentationLib.logic import SampleProject

    SampleProject.register(Path(__file__).parent / "Resources" / "Icons")


@parameterNodeWrapper
class BARLSegmentationParameterNode:
    """What the module keeps in the scene, so that a saved scene reopens as it was.

    projectFolder - The open project.
    caseId - The case on screen.
    volume - A scan that is no case, to predict.
    segmentation - The segmentation on screen: of the case, or predicted.
    uncertainty - How unsure the model was of it.
    device - Where to compute, as the worker names it; "auto" for the best there is.
    fast - One branch of the network instead of both.
    cleanUp - Remove pieces and fill holes as the model's card says.
    closedSurface - Show predictions in 3D.
    roi - Predict inside this box only.
    overlayVisible, overlayOpacity, overlayThreshold, overlayColor - How the uncertainty is shown.
    onlyWhereUnsure - Edit only where the uncertainty is above the threshold.
    method, minutes, warmStart - How to train, and for how long.
    folds - Train so many members, each without one part of the outlined cases; 1 for one training.
    trainAfter - Train by itself after so many newly accepted cases; 0 for never.
    predictAhead - Predict the untouched cases by itself when a new model becomes the current one.
    """

    projectFolder: str = ""
    caseId: str = ""
    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    uncertainty: vtkMRMLScalarVolumeNode
    device: str = "auto"
    fast: bool = False
    cleanUp: bool = True
    closedSurface: bool = False
    roi: vtkMRMLMarkupsROINode
    overlayVisible: bool = True
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.5
    overlayThreshold: Annotated[float, WithinRange(0, 1)] = 0.3
    overlayColor: str = ""
    onlyWhereUnsure: bool = False
    method: str = "barl"
    minutes: Annotated[float, WithinRange(1, 100000)] = 30.0
    warmStart: bool = True
    folds: Annotated[int, WithinRange(1, 20)] = 1
    trainAfter: Annotated[int, WithinRange(0, 1000)] = 0
    predictAhead: bool = True


def isValid(name: str, text: str) -> bool:
    """Whether a parameter can have the value that a scene holds as ``text``."""
    scratch = slicer.vtkMRMLScriptedModuleNode()
    scratch.SetParameter(name, text)
    try:
        wrapped = BARLSegmentationParameterNode(scratch)
        wrapped.setValue(name, wrapped.getValue(name))  # checks the range
    except (ValueError, TypeError):
        return False
    return True


class BARLSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel: one step of the work at a time, and a line of status. Keeps session and scene in step."""

    def __init__(self, parent: qt.QObject = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.session = None
        self.worker = None
        self.saveQuestion = None
        self.panels = {}
        self._parameterNode = None
        self._nodesBefore: set[str] = set()
        self._restoring = self._cleanedUp = False

    def setup(self) -> None:
        from BARLSegmentationLib.widgets.SaveQuestion import SaveQuestion
        from BARLSegmentationLib.widgets.Steps import Steps
        from BARLSegmentationLib.widgets.WorkerLink import WorkerLink

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/BARLSegmentation.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = BARLSegmentationLogic()
        self.session = self.logic.session
        self.worker = WorkerLink()
        self.session.statusChanged.connect(self.onStatus)
        self.session.projectChanged.connect(self.onProjectChanged)
        self.session.caseOpened.connect(self.onCaseOpened)
        self.session.questionChanged.connect(self.onQuestion)
        self.ui.yesButton.connect("clicked(bool)", self.onYes)
        self.ui.noButton.connect("clicked(bool)", self.onNo)
        self.ui.lookButton.connect("toggled(bool)", self.onLook)

        self.steps = Steps(uiWidget, self.ui.stepsWidget.layout(), self.ui.pagesWidget.layout())
        for name in PANELS:
            panelClass = getattr(importlib.import_module(f"BARLSegmentationLib.widgets.{name}Panel"), f"{name}Panel")
            panel = self.panels[name] = panelClass(self.session, self.worker, self)
            self.steps.add(name, *stepTexts(name), panel)
            panel.setup()
        self.steps.show(PANELS[0])
        self.steps.changed.connect(self.onStepChanged)
        self.session.stepWanted.connect(self.steps.show)

        self.saveQuestion = SaveQuestion(self.panels["Review"].correction)
        self._refreshTimer = qt.QTimer(uiWidget)
        self._refreshTimer.setInterval(REFRESH_MS)
        self._refreshTimer.connect("timeout()", self.session.refresh)

        scene = slicer.mrmlScene
        # Before the layout manager, which takes the views away.
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose, priority=1.0)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()
        if getattr(self.parent, "isEntered", False):  # reloaded: Slicer calls setup() alone
            self.enter()

    def cleanup(self) -> None:
        """Slicer quits, or the module is reloaded."""
        if self._cleanedUp:
            return
        self._cleanedUp = True
        if self.session is not None:
            self._refreshTimer.stop()
        steps = [self.removeObservers]
        if self.saveQuestion is not None:
            steps.append(self.saveQuestion.cleanup)
        if self.session is not None:
            steps += [self.session.beforeClose.emit, self.session.end]
        steps += [panel.cleanup for panel in self.panels.values()]
        if self.worker is not None:
            steps.append(self.worker.close)
        with contextlib.ExitStack() as stack:  # each step runs, whatever another one raises
            for step in reversed(steps):
                stack.callback(step)

    def enter(self) -> None:
        self.initializeParameterNode()
        for panel in self.panels.values():
            panel.enter()
        self.panels[self.steps.shown].opened()
        self._refreshTimer.start()

    def exit(self) -> None:
        self._refreshTimer.stop()
        for panel in self.panels.values():
            panel.exit()

    def onReload(self) -> None:
        self.cleanup()  # first: what it imports only then must be what the open project was made with
        for name in [name for name in sys.modules if name.partition(".")[0] in ("BARLSegmentationLib", "barl")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onStepChanged(self, name: str, before: str) -> None:
        self.onStatus("", False)  # what was said belongs to the step before
        self.session.withdrawQuestion()
        if before:
            self.panels[before].left()
        self.panels[name].opened()

    # Scene and session in step

    def onSceneStartClose(self, caller: object, event: object) -> None:
        self.session.beforeClose.emit()
        for panel in self.panels.values():
            panel.sceneCloses()
        self.setParameterNode(None)  # before the session forgets, so that the scene's own copy keeps what it is
        self.session.sceneCloses()

    def onSceneEndClose(self, caller: object, event: object) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, caller: object, event: object) -> None:
        self._nodesBefore = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")}

    def onSceneEndImport(self, caller: object, event: object) -> None:
        from BARLSegmentationLib.logic.CaseLoader import adopt

        nodes = slicer.util.getNodesByClass("vtkMRMLDisplayableNode")
        adopt(node for node in nodes if node.GetID() not in self._nodesBefore)
        # Its values may be other ones now. Also while another module is in front: jobs of this one go by them.
        self.setParameterNode(self.logic.getParameterNode())
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        if self._parameterNode is None:
            self.setParameterNode(self.logic.getParameterNode())
        self._restore()
        if self.logic.replaced:
            text = _("Settings of the scene that cannot be read have their default now: {names}.")
            said, names = self.ui.statusLabel.text, ", ".join(self.logic.replaced)
            self.onStatus(f"{said} {text.format(names=names)}".strip(), True)
            self.logic.replaced = []

    def setParameterNode(self, node: BARLSegmentationParameterNode | None) -> None:
        self._parameterNode = node
        for panel in self.panels.values():
            panel.setParameterNode(node)
        for panel in self.panels.values():
            panel.update()

    def _restore(self) -> None:
        """Bring the session to where the scene says it was, or tell the scene where the session is."""
        node, session = self._parameterNode, self.session
        folder, caseId = node.projectFolder, node.caseId
        if not folder:
            self.onProjectChanged()
            self.onCaseOpened()
            return
        self._restoring = True  # what fails must not be wiped from the scene: the drive may come back
        try:
            with session.reporting():
                if session.project is None or str(session.project.folder) != folder:
                    session.openProject(folder)
                if caseId and caseId != session.caseId:
                    session.openCase(caseId)
        finally:
            self._restoring = False
        if session.loaded is not None:
            self.onCaseOpened()

    def onProjectChanged(self) -> None:
        if self._parameterNode is not None and not self._restoring:
            project = self.session.project
            self._parameterNode.projectFolder = str(project.folder) if project is not None else ""

    def onCaseOpened(self) -> None:
        node, loaded = self._parameterNode, self.session.loaded
        if node is None or self._restoring:
            return
        node.caseId = self.session.caseId or ""
        if loaded is not None:
            node.segmentation, node.uncertainty = loaded.segmentation, loaded.uncertainty

    def onStatus(self, text: str, isError: bool) -> None:
        self.ui.statusLabel.text = text
        self.ui.statusLabel.visible = bool(text)
        slicer.util.showStatusMessage(text, STATUS_MS)
        self.ui.statusIconLabel.visible = isError and bool(text)
        if isError:
            icon = slicer.app.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
            self.ui.statusIconLabel.setPixmap(icon.pixmap(qt.QSize(16, 16)))

    def onQuestion(self) -> None:
        ui, question = self.ui, self.session.question
        ui.questionWidget.visible = question is not None
        ui.lookButton.checked = False
        ui.lookButton.visible = question is not None and bool(question.look)
        if question is not None:
            ui.lookButton.text = question.look
            ui.questionLabel.text, ui.yesButton.text, ui.noButton.text = question.text, question.yes, question.no

    def onYes(self, _checked: bool = False) -> None:
        self.session.answer(True)

    def onLook(self, shown: bool) -> None:
        if self.session.question is not None:
            self.session.question.onLook(shown)

    def onNo(self, _checked: bool = False) -> None:
        self.session.answer(False)


def stepTexts(name: str) -> tuple[str, str]:
    """Title and tooltip of a step."""
    return {
        "Project": (_("Project"), _("Open a project or make a new one")),
        "Cases": (_("Cases"), _("Add cases, see how far they are, predict them, open one")),
        "Review": (_("Review"), _("Look where the model was unsure, correct, accept")),
        "Train": (_("Train"), _("Train a model from the accepted cases")),
        "Predict": (_("Predict"), _("Predict with another model, inside a region, or volumes that are no case")),
        "Setup": (_("Setup"), _("What prediction and training need on this computer")),
    }[name]


class BARLSegmentationLogic(ScriptedLoadableModuleLogic):
    """The module without a window::

        logic = slicer.util.getModuleLogic("BARLSegmentation")
        logic.openProject("/data/liver-project")
        logic.predict()                       # every case without an accepted outline
        logic.loadCase(logic.cases()[0].id)

    What goes wrong is raised as ``barl.errors.BarlError``: a sentence and what to do. ``predict`` and
    ``predictVolumes`` start a process of their own and wait for it; the module's panel does not wait.
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.session = Session()
        self.replaced: list[str] = []

    def getParameterNode(self) -> BARLSegmentationParameterNode:
        """A number in the scene that is none or out of its range gives way to its default; ``replaced`` names those."""
        node, known = super().getParameterNode(), BARLSegmentationParameterNode.allParameters
        texts = {name: node.GetParameter(name) for name in node.GetParameterNames() if name in known}
        self.replaced = [name for name, text in texts.items() if not isValid(name, text)]
        for name in self.replaced:
            node.UnsetParameter(name)
        return BARLSegmentationParameterNode(node)

    def openProject(self, folder: str, readOnly: bool = False) -> None:
        self.session.openProject(folder, readOnly)

    def closeProject(self) -> None:
        self.session.closeProject()

    def cases(self) -> list:
        """The open project's cases (``barl.project.store.Case``); none if no project is open."""
        return self.session.cases()

    def loadCase(self, caseId: str) -> LoadedCase:
        """Load a case with its newest outline and uncertainty into the scene and show it."""
        return self.session.openCase(caseId)

    def predict(
        self,
        caseIds: list[str] | None = None,
        model: str | Path | None = None,
        device: str = "auto",
        fast: bool = False,
        roi: "vtkMRMLMarkupsROINode | None" = None,
        onEvent: Callable | None = None,
        cleanUp: bool = True,
    ) -> "PredictedCases":
        """Predict cases of the open project; each result is stored as a revision.

        Args:
            caseIds: Ids or names; by default all without an accepted outline.
            model: Id of a model of the project, or a model's folder; by default the current one.
            device: "auto", "cpu", "cuda:0", "mps".
            fast: One branch of the network instead of both.
            roi: vtkMRMLMarkupsROINode; predict inside of it only.
            onEvent: Called with the worker's events (``barl.worker.messages.Event``), in another thread.
            cleanUp: Remove pieces and fill holes as the model's card says.

        Returns:
            What was predicted and what was not.
        """
        from barl.worker.messages import Predict
        from BARLSegmentationLib.logic.Prediction import callWorker, roiBounds

        request = Predict(
            project=str(self.session.openedProject().folder),
            cases=caseIds,
            model=None if model is None else str(model),
            device=device,
            fast=fast,
            roi=roiBounds(roi, None if self.session.loaded is None else self.session.loaded.volumes[0]),
            cleanup=cleanUp,
        )
        return callWorker(request, onEvent)

    def predictVolumes(
        self,
        volumes: list,
        model: str | Path | None,
        device: str = "auto",
        fast: bool = False,
        roi: "vtkMRMLMarkupsROINode | None" = None,
        onEvent: Callable | None = None,
        cleanUp: bool = True,
    ) -> tuple:
        """Segment volumes of the scene that are no case.

        Args:
            volumes: One vtkMRMLScalarVolumeNode for each channel of the model.
            model: A model's folder.
            device, fast, roi, onEvent, cleanUp: As for ``predict``.

        Returns:
            Segmentation and uncertainty, new nodes.
        """
        from barl.errors import InputError
        from BARLSegmentationLib.logic.Prediction import (
            VolumePrediction,
            callWorker,
            objection,
            readModel,
            roiBounds,
        )

        if reason := objection(volumes):
            raise InputError(reason)
        with contextlib.closing(VolumePrediction(readModel(model), volumes)) as prediction:
            for _share in prediction.write():
                pass
            callWorker(prediction.request(device, fast, roiBounds(roi), cleanUp), onEvent)
            return prediction.load()
